//! Who may serve a volume: the control side of one volume on one node.
//!
//! Events only change facts; [`Membership::step`] then looks at all facts and does what they
//! allow. So nothing waits for an edge that may never come, and every message may be lost.
//! ```text
//!            ┌──────────────── partner silent and I/O wanted: unilateral ───────────┐
//!   Idle ──resume──► Member ──silent, restarted, ejecting, stopping──► Idle          ▼
//!   Idle ──source, after a swap──► Alone ──collect, offer, copy, hold, join──► Member
//!   Idle ──offer of the source──► Target ──join decided──► Member
//! ```

use crate::control::{Configuration, Incarnation, Time, ToVolume, WitnessId};
use crate::decide::Rows;
use crate::register::Ballot;
use crate::superblock::{Found, Lineage, Met, Superblock};
use alloc::string::String;
use refusal::refusal;
use report::Report;
use roles::{Eject, Path, Role, Round, Sync};
use status::Rate;

mod alone;
mod common;
mod ended;
mod facts;
mod force;
mod idle;
mod maintenance;
mod majority;
mod member;
mod pairing;
mod proxy;
mod refusal;
pub mod report;
mod roles;
mod slow;
pub mod status;
mod stop;
mod terms;
#[cfg(test)]
mod tests;
mod votes;

pub use ended::{Certified, Left};
pub use force::ForceRefusal;
pub use maintenance::Maintenance;
pub use terms::{Asks, Contact, Forced, Output, Settings, Severity, Turn, Why};

/// The control side of one volume on one node.
#[derive(Clone, Debug)]
pub struct Membership {
    settings: Settings,
    /// Who shall vote besides the two nodes, from the next configuration on.
    desired: Option<WitnessId>,
    started: Time,
    /// What is known to be on disk.
    durable: Superblock,
    /// What is being written there.
    writing: Option<Superblock>,
    refused: Option<String>,
    crashed: bool,
    lost_votes: bool,
    disk_failed: bool,
    /// A person chose this copy after a split brain.
    keep: bool,
    /// A person chose the partner's.
    give_up: bool,
    /// A person decided that this copy is to be served whatever the partner holds.
    force: Option<force::Force>,
    /// Such a decision has come into force, and was not told yet.
    forced: Option<Forced>,
    maintenance: Maintenance,
    role: Role,
    path: Path,
    why: Why,
    contact: Contact,
    view: Option<Report>,
    /// The view is of this contact: what the partner said before a silence is not acted on.
    fresh: bool,
    /// Since when the partner is heard and says nothing about this volume.
    mute: Option<Time>,
    /// The run of the partner with which this run has adopted the present configuration.
    with: Option<Incarnation>,
    /// The configuration that the data path was last told to serve.
    served: Option<Lineage>,
    /// The epoch that it said is in force.
    in_force: u64,
    /// From when on it may acknowledge and read what it inherited.
    not_before: Time,
    wanted: Option<Time>,
    /// When an initiator first reached this node in the present silence, and when again after the
    /// silence was noticed.
    reached: Option<Time>,
    reached_again: Option<Time>,
    /// When it woke, or heard the partner again, after a time in which the partner may have gone
    /// alone.
    overslept: Option<Time>,
    /// The run that a death certificate named, and when.
    certified: Option<(Incarnation, Time)>,
    channel: Option<bool>,
    channel_since: Time,
    union_durable: bool,
    join_ready: bool,
    offer: u32,
    dirty: u64,
    intents: u32,
    rate: Rate,
    eject: Option<(Eject, Time)>,
    ejections: u32,
    /// How far the partner's copy has come, as it last said when both served.
    seen: Option<Met>,
    /// When this copy last said so.
    stamped: Time,
    /// By which rows of the table plans were made.
    rows: Rows,
    slow: slow::Slow,
    round: Option<Round>,
    /// The configuration that this node is about to propose or to take.
    candidate: Option<Configuration>,
    /// The outcome of a round that has not been acted on.
    decided: Option<Configuration>,
    /// That outcome is being written to the superblock.
    adopting: Option<Configuration>,
    /// What the last completed round gave: the witness may know of what the partner did.
    settled: Option<Configuration>,
    /// The open record that a completed round has shown never to be decided.
    passed_over: Option<Lineage>,
    highest: Ballot,
    /// What this node's acceptor holds, perhaps not durably yet.
    voting: Option<Configuration>,
    promise_until: Time,
    /// The run of the partner to which the last promise was given; `None`: not known.
    bound_to: Option<Incarnation>,
    lease_until: Time,
    stopping: Option<stop::Stop>,
    proxy: proxy::Proxy,
    unreadable: u64,
}

/// Steps that one event can set off in a row: no path through the roles is longer.
const MAX_STEPS: usize = 16;

impl Membership {
    /// The control side of a volume whose superblock slots were read; `found` is what
    /// `Superblock::choose` said, `has_vote` whether this node's acceptor knows the volume.
    /// Call [`Self::step`] next.
    #[must_use]
    pub fn new(settings: Settings, found: Found, has_vote: bool, now: Time) -> Self {
        let fresh = Superblock::new(
            settings.volume,
            settings.me,
            settings.size,
            settings.block_size,
        );
        let (durable, blank) = match found {
            Found::Blank => (fresh, true),
            Found::Valid { superblock, .. } => (superblock, false),
        };
        let refused = refusal(&settings, &durable);
        Self {
            started: now,
            crashed: !blank && !durable.clean,
            lost_votes: durable.configuration.epoch > 0 && settings.partner.is_some() && !has_vote,
            disk_failed: durable.disk_failed,
            keep: false,
            give_up: false,
            force: None,
            forced: None,
            maintenance: Maintenance::Off,
            path: if refused.is_some() {
                Path::Failed
            } else {
                Path::Opening
            },
            why: if refused.is_some() {
                Why::Refused
            } else {
                Why::Opening
            },
            refused,
            durable,
            writing: None,
            role: Role::Idle,
            contact: Contact::Silent { since: now },
            view: None,
            fresh: false,
            mute: None,
            with: None,
            served: None,
            in_force: 0,
            not_before: now,
            wanted: None,
            reached: None,
            reached_again: None,
            overslept: None,
            certified: None,
            channel: None,
            channel_since: now,
            union_durable: false,
            join_ready: false,
            offer: 0,
            dirty: 0,
            intents: 0,
            rate: Rate::default(),
            eject: None,
            ejections: 0,
            seen: None,
            stamped: Time::ZERO,
            rows: Rows::default(),
            slow: slow::Slow::default(),
            round: None,
            candidate: None,
            decided: None,
            adopting: None,
            settled: None,
            passed_over: None,
            desired: settings.witness,
            highest: Ballot::default(),
            voting: None,
            promise_until: Time::ZERO,
            bound_to: None,
            lease_until: Time::ZERO,
            stopping: None,
            proxy: proxy::Proxy::default(),
            unreadable: 0,
            settings,
        }
    }

    /// The control side of a volume whose copy cannot be used on this node, and why: the image is
    /// not there, say. It takes no part in anything, and says nothing to the partner; its
    /// initiators may be served by the partner all the same.
    #[must_use]
    pub fn without_copy(settings: Settings, why: String, now: Time) -> Self {
        let mut it = Self::new(settings, Found::Blank, true, now);
        (it.path, it.why) = (Path::Failed, Why::Refused);
        it.lacks_copy(why);
        it
    }

    /// Why there is still no copy.
    pub fn lacks_copy(&mut self, why: String) {
        self.refused = Some(why);
    }

    /// Whether there is no copy here that could be used.
    #[must_use]
    pub const fn is_without_copy(&self) -> bool {
        self.refused.is_some()
    }

    /// The order that opens the data path; the first thing to do.
    #[must_use]
    pub const fn open(&self) -> ToVolume {
        match &self.refused {
            Some(_) => ToVolume::NoCopy,
            None => ToVolume::Open {
                blank: self.durable.configuration.epoch == 0,
            },
        }
    }

    /// Whether this node is the only member and serves.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        matches!(self.role, Role::Alone(_))
    }

    /// Looks at all facts and does what they allow.
    pub fn step(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..MAX_STEPS {
            if !self.advance(turn) {
                break;
            }
        }
        self.look_at_proxy(turn);
        turn.out.extend(self.forced.take().map(Output::Forced));
    }

    /// One thing; whether there may be more to do.
    fn advance(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.path == Path::Opening || self.refused.is_some() {
            return false;
        }
        if self.disk_failed {
            return self.step_failed(turn);
        }
        self.look_at_new_run();
        self.poll_round(turn);
        if self.stopping.is_some() {
            return self.step_stop(turn);
        }
        if self.force.is_some() {
            return self.step_force(turn);
        }
        if self.durable.split_brain {
            return self.step_split(turn);
        }
        if self.is_aside() {
            return self.step_aside(turn);
        }
        match self.role {
            Role::Idle => self.step_idle(turn),
            Role::Member => self.step_member(turn),
            Role::Alone(sync) => self.step_alone(turn, sync),
            Role::Target { .. } => self.step_target(turn),
        }
    }

    fn step_failed(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.why != Why::DiskFailed {
            self.why = Why::DiskFailed;
            turn.event(Severity::Error, String::from("this node's disk failed: it serves this volume no more until the disk is replaced or cleared"));
        }
        self.role = Role::Idle;
        if self.suspended(turn)
            && self.writing.is_none()
            && !self.durable.disk_failed
            && self.path != Path::Failed
        {
            // A metadata area that fails as well cannot hold the flag: one attempt is all.
            self.path = Path::Failed;
            self.persist(turn, |it| it.disk_failed = true);
        }
        self.stopping.is_some() && self.step_stop(turn)
    }
}
