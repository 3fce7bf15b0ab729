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

use crate::control::{
    Configuration, FromVolume, Incarnation, Members, NodeId, Time, ToVolume, WITNESS, WitnessId,
};
use crate::decide::Record;
use crate::register::{Ballot, Message, Proposal, Vote};
use crate::superblock::{Found, Lineage, Superblock};
use alloc::string::String;
use refusal::refusal;
use report::Report;
use status::Rate;

mod alone;
mod idle;
mod majority;
mod member;
mod pairing;
mod refusal;
pub mod report;
pub mod status;
mod stop;
mod terms;
#[cfg(test)]
mod tests;

pub use terms::{Asks, Contact, Output, Settings, Severity, Turn, Why};

/// Where the volume stands on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Serving nobody: starting, suspended, waiting.
    Idle,
    /// Serving as one of two.
    Member,
    /// Serving as the only member; perhaps bringing the partner's copy up to date.
    Alone(Sync),
    /// Being brought up to date by this configuration's owner.
    Target {
        source: Lineage,
        incarnation: Incarnation,
        offer: u32,
    },
}

/// How far the partner's copy is, as the source sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    /// Not begun.
    Off,
    /// Both sides' dirty bits are being collected.
    Collecting { partner: Incarnation },
    /// Their union is durable; the target must record that it is inconsistent.
    Offered { partner: Incarnation },
    /// Blocks are being compared and copied.
    Copying { partner: Incarnation },
    /// Acknowledgements are held; both write join records, then the swap.
    Holding {
        partner: Incarnation,
        join: Configuration,
        since: Time,
        proposed: bool,
    },
    /// Joined here; the target has yet to adopt it.
    Joined { partner: Incarnation, since: Time },
}

/// What the data path was last told, and whether it has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Opening,
    /// Open, nothing served yet in this run.
    Ready,
    Serving,
    Suspending,
    Suspended,
    Following,
    Draining,
    Drained,
    Closing,
    Closed,
    /// It cannot even be opened.
    Failed,
}

/// A round of the register that this node proposes.
#[derive(Clone, Debug)]
struct Round {
    proposal: Proposal,
    /// Who is asked besides the two nodes.
    witness: Option<WitnessId>,
    /// This node's own acceptor lost its votes and is not asked.
    without_own: bool,
    since: Time,
}

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
    rejoin_after: Time,
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
    unreadable: u64,
}

/// Why a partner that is heard is to be put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Eject {
    Late,
    ChannelDown,
    /// Who votes is to be changed: that begins with a single member, as every change does.
    Witness,
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
            rejoin_after: Time::ZERO,
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
            unreadable: 0,
            settings,
        }
    }

    /// The order that opens the data path; the first thing to do unless the copy was refused.
    #[must_use]
    pub fn open(&self) -> Option<ToVolume> {
        let blank = self.durable.configuration.epoch == 0;
        (self.path == Path::Opening).then_some(ToVolume::Open { blank })
    }

    /// Who shall vote besides the two nodes (`None`: heartbeat strategy). It becomes true with a
    /// new configuration, which the two nodes decide without any witness.
    pub fn desire(&mut self, witness: Option<WitnessId>) {
        self.desired = witness;
    }

    /// A witness answered; only the one that votes for this volume counts.
    pub fn witness_answered(&mut self, witness: WitnessId, message: Message) {
        if self
            .round
            .as_ref()
            .is_some_and(|it| it.witness == Some(witness))
        {
            self.answered(WITNESS, message);
        }
    }

    /// The partner is heard, or not any more.
    pub fn contact(&mut self, contact: Contact) {
        if matches!(contact, Contact::Silent { .. }) {
            self.fresh = false;
        }
        self.contact = contact;
    }

    /// A report of the partner came; an older one than the last of its run is dropped.
    pub fn report_in(&mut self, report: Report) {
        let newer = self
            .view
            .as_ref()
            .is_none_or(|it| it.incarnation() != report.incarnation() || it.seq < report.seq);
        if newer
            && Some(report.record.node) == self.settings.partner
            && report.record.volume == self.settings.volume
        {
            self.view = Some(report);
            self.fresh = true;
        }
    }

    /// The superblock write has ended. One that failed is a failed disk.
    pub fn superblock_written(&mut self, ok: bool) {
        let Some(written) = self.writing.take() else {
            return;
        };
        if ok {
            self.durable = written;
        } else {
            self.disk_failed = true;
        }
    }

    /// The data path says something.
    pub fn volume_said(&mut self, now: Time, word: &FromVolume) {
        match *word {
            FromVolume::Opened { dirty, intents } if self.path == Path::Opening => {
                (self.dirty, self.intents) = (dirty, intents);
                self.path = Path::Ready;
            }
            FromVolume::Suspended if self.path == Path::Suspending => self.path = Path::Suspended,
            FromVolume::Wanted => {
                self.wanted.get_or_insert(now);
            }
            FromVolume::Reached if self.reached.is_some() => {
                self.reached_again.get_or_insert(now);
            }
            FromVolume::Reached => self.reached = Some(now),
            FromVolume::Late => self.late(now),
            FromVolume::DiskFailed => {
                self.disk_failed = true;
                if self.path == Path::Opening {
                    self.path = Path::Failed;
                }
            }
            FromVolume::Channel { up } => {
                if self.channel != Some(up) {
                    self.channel_since = now;
                }
                self.channel = Some(up);
            }
            FromVolume::UnionDurable { dirty } => {
                self.dirty = dirty;
                self.union_durable = matches!(self.role, Role::Alone(Sync::Collecting { .. }));
            }
            FromVolume::Progress { dirty, done } => {
                self.dirty = dirty;
                self.rate.progress(now, done);
            }
            FromVolume::JoinReady => {
                self.join_ready = matches!(self.role, Role::Alone(Sync::Copying { .. }))
            }
            FromVolume::Drained { clean } => self.drained(clean),
            FromVolume::Closed { clean } => self.closed(clean),
            FromVolume::Unreadable { .. } => self.unreadable += 1,
            FromVolume::Serving { epoch } => self.in_force = epoch,
            FromVolume::Opened { .. }
            | FromVolume::Suspended
            | FromVolume::Repaired { .. }
            | FromVolume::Differs { .. }
            | FromVolume::Verified(_)
            | FromVolume::ResyncRestarted => {}
        }
    }

    /// An acceptor, this node's own or the partner's, answered a message of the register.
    pub fn answered(&mut self, acceptor: NodeId, message: Message) {
        if let Message::Refused { promised, .. } = message {
            self.highest = self.highest.max(promised);
        }
        if let Some(round) = &mut self.round {
            round.proposal.answered(acceptor, message);
        }
    }

    /// What to ask of the acceptors now. A ballot goes out only once this node's own promise is
    /// durable.
    #[must_use]
    pub fn asks(&self) -> Asks {
        let Some(round) = &self.round else {
            return Asks::default();
        };
        let ask = round.proposal.ask();
        let lacks = |acceptor: NodeId| !round.proposal.has(acceptor);
        let own = !round.without_own && lacks(self.settings.me);
        let may_leave = !own || matches!(ask, Some(Message::Accept { .. }));
        let other = |it: Option<NodeId>| ask.filter(|_| may_leave && it.is_some_and(lacks));
        Asks {
            own: ask.filter(|_| own),
            partner: other(self.settings.partner),
            witness: round
                .witness
                .filter(|_| other(Some(WITNESS)).is_some())
                .zip(ask),
        }
    }

    /// Whether this node's acceptor may vote for a value: not for one without this node while it
    /// serves (it stops first), nor for one that names it although its copy is not ready for it.
    #[must_use]
    pub fn may_accept(&self, value: &Configuration, vote: &Vote) -> bool {
        if !value.members.contains(self.settings.me) {
            // A unilateral step that is taken is not taken back: a newer value knows of it.
            let mine = self.writing.as_ref().unwrap_or(&self.durable).configuration;
            let overtaken = mine.unilateral && value.epoch <= mine.epoch;
            let idle = matches!(self.role, Role::Idle | Role::Target { .. });
            return idle && self.quiet() && !overtaken;
        }
        let prepared = self
            .durable
            .prepared
            .is_some_and(|it| it.lineage() == value.lineage());
        prepared
            || self.durable.configuration.lineage() == value.lineage()
            || vote.value == Some(*value)
    }

    /// The value that this node's acceptor holds, durably or not yet: its answer may leave as soon
    /// as it is, so it counts already.
    pub fn voting(&mut self, value: Option<Configuration>) {
        self.voting = value;
    }

    /// Whether this node's acceptor must say nothing about this volume: it lost what it had said
    /// before, and there are two others who could decide something with what it says now.
    #[must_use]
    pub const fn votes_are_lost(&self) -> bool {
        self.lost_votes && self.durable.configuration.witness.is_some()
    }

    /// This node's acceptor votes for a value: that binds it as a lease does.
    pub fn accepting(&mut self, now: Time) {
        self.lost_votes = false;
        self.bind(now);
    }

    /// A heartbeat of the partner is being acknowledged: the epoch for which this node promises
    /// not to act alone, if it may promise.
    pub fn promise(&mut self, now: Time) -> Option<u64> {
        if self.role != Role::Member || self.path != Path::Serving || self.eject.is_some() {
            return None;
        }
        self.bind(now);
        Some(self.durable.configuration.epoch)
    }

    /// From now on, for as long as a promise holds, this node does nothing alone.
    fn bind(&mut self, now: Time) {
        self.promise_until = self.promise_until.max(now + self.settings.timing.grant());
        self.bound_to = match self.contact {
            Contact::Heard { incarnation } => Some(incarnation),
            Contact::Silent { .. } => None,
        };
    }

    /// The partner has promised for this epoch; `until`: when the lease ends, counted from
    /// sending the heartbeat. Gives the order for the data path.
    pub fn lease(&mut self, epoch: u64, until: Time) -> Option<ToVolume> {
        let mine = self.role == Role::Member && self.path == Path::Serving;
        if !mine || epoch != self.durable.configuration.epoch || until <= self.lease_until {
            return None;
        }
        if self
            .overslept
            .is_some_and(|woke| woke + self.settings.timing.lease <= until)
        {
            self.overslept = None;
        }
        self.lease_until = until;
        Some(ToVolume::Lease { until })
    }

    /// This node did not run for longer than a lease: the partner may have gone alone meanwhile.
    /// Only a promise that it gave later shows that it has not.
    pub fn overslept(&mut self, now: Time) {
        let with_partner = self.durable.configuration.members.count() == 2;
        if with_partner || self.durable.prepared.is_some() {
            self.overslept = Some(now);
        }
    }

    /// The partner is heard again after a silence that was noticed. It may have gone alone
    /// meanwhile, and may be lost again before it can say so.
    pub fn heard_again(&mut self, now: Time) {
        if self.served.is_some() {
            self.overslept(now);
        }
    }

    /// A new run of the partner that holds this node's configuration shows that no earlier one
    /// left it; the new one cannot before it has met this node.
    fn look_at_new_run(&mut self) {
        let mine = self.durable.configuration.lineage();
        let same = |it: &Report| {
            it.record.configuration.lineage() == mine && Some(it.incarnation()) != self.with
        };
        if self.overslept.is_some() && self.current_view().as_ref().is_some_and(same) {
            self.overslept = None;
        }
    }

    /// Counts as an initiator's operation: the right of this node to act alone is needed.
    pub fn want(&mut self) {
        self.wanted.get_or_insert(Time::ZERO);
    }

    /// The partner is not heard: whether initiators reach this node is worth knowing. `anew`: a
    /// silence begins; what was known of one before counts no more. Gives the order for the data
    /// path.
    pub fn ask(&mut self, anew: bool) -> Option<ToVolume> {
        if anew {
            (self.reached, self.reached_again) = (None, None);
            // An operator's wish is no sign of life, and stays.
            self.wanted = self.wanted.filter(|at| *at == Time::ZERO);
        }
        let open = !matches!(
            self.path,
            Path::Opening | Path::Closing | Path::Closed | Path::Failed
        );
        (open && self.settings.partner.is_some()).then_some(ToVolume::Ask)
    }

    /// After a split brain a person keeps this node's copy; what the other one wrote since they
    /// parted is lost. Whether there is a split brain to be resolved.
    pub fn keep(&mut self) -> bool {
        self.keep = self.durable.split_brain;
        self.keep
    }

    /// Whether this node is the only member and serves.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        matches!(self.role, Role::Alone(_))
    }

    /// What the partner must know, with this durable vote; `seq` is left 0.
    #[must_use]
    pub fn report(&self, vote: Vote) -> Option<Report> {
        if self.refused.is_some() || self.path == Path::Opening {
            return None;
        }
        let offering = match self.role {
            Role::Alone(Sync::Off | Sync::Collecting { .. }) => 0,
            Role::Alone(_) => self.offer,
            _ => 0,
        };
        Some(Report {
            seq: 0,
            record: self.record(),
            ballot: vote.ballot,
            value: vote.value,
            serving: matches!(self.role, Role::Member | Role::Alone(_)),
            settled: self.is_alone() && self.in_force == self.durable.configuration.epoch,
            demands: self.eject.is_some(),
            yields: self.quiet() && self.would_yield(),
            stopping: self.stopping.is_some(),
            offer: offering,
            following: match self.role {
                Role::Target { offer, .. } if self.path == Path::Following => offer,
                _ => 0,
            },
        })
    }

    fn record(&self) -> Record {
        let mut record = Record::of(&self.durable, self.settings.incarnation);
        record.create = self.settings.create;
        record.crashed = self.crashed;
        record.disk_failed |= self.disk_failed;
        record.keep = self.keep;
        record.with = self.with;
        record
    }

    /// Looks at all facts and does what they allow.
    pub fn step(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..MAX_STEPS {
            if !self.advance(turn) {
                return;
            }
        }
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
        if self.durable.split_brain {
            return self.step_split(turn);
        }
        match self.role {
            Role::Idle => self.step_idle(turn),
            Role::Member => self.step_member(turn),
            Role::Alone(sync) => self.step_alone(turn, sync),
            Role::Target { .. } => self.step_target(turn),
        }
    }

    /// Changes the superblock, and says whether the change is durable already. While another
    /// write is under way nothing is begun: the next step asks again.
    fn persist(&mut self, turn: &mut Turn<'_>, change: impl FnOnce(&mut Superblock)) -> bool {
        if self.writing.is_some() {
            return false;
        }
        let mut next = self.durable.clone();
        change(&mut next);
        if next == self.durable {
            return true;
        }
        next.counter += 1;
        let (slot, bytes) = next.encode();
        turn.out.push(Output::WriteSuperblock { slot, bytes });
        self.writing = Some(next);
        false
    }

    /// Whether nothing is admitted, acknowledged or granted here.
    const fn quiet(&self) -> bool {
        !matches!(
            self.path,
            Path::Opening | Path::Serving | Path::Suspending | Path::Draining
        )
    }

    /// Sees to it that the data path stands still; whether it does.
    fn suspended(&mut self, turn: &mut Turn<'_>) -> bool {
        match self.path {
            Path::Serving | Path::Following | Path::Draining => {
                self.wanted = None;
                self.lease_until = Time::ZERO;
                self.path = Path::Suspending;
                turn.out.push(Output::Order(ToVolume::Suspend));
                false
            }
            Path::Opening | Path::Suspending => false,
            _ => true,
        }
    }

    /// The newest report of the run of the partner that is heard.
    fn current_view(&self) -> Option<Report> {
        let Contact::Heard { incarnation } = self.contact else {
            return None;
        };
        self.view
            .clone()
            .filter(|it| self.fresh && it.incarnation() == incarnation)
    }

    fn only_me(&self) -> Members {
        Members::only(self.settings.me)
    }

    fn lower(&self) -> bool {
        self.settings
            .partner
            .is_none_or(|partner| self.settings.me < partner)
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
