//! What a person may want to know about one volume on one node.

use super::{Membership, Path, Role, Sync, Why};
use crate::control::{Configuration, Members, NodeId, Time};
use crate::decide::Rows;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

/// How this node stands to the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Serves nobody at present.
    Waiting,
    /// Serves together with the partner.
    Mirrored,
    /// Serves as the only member.
    Alone,
    /// Serves as the only member and brings the partner's copy up to date.
    Source,
    /// Is being brought up to date.
    Target,
}

/// The speed of a resync, measured over whole seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    last: Option<(Time, u64)>,
    bytes_per_second: u64,
    done: u64,
}

impl Rate {
    pub(super) fn begin(&mut self, now: Time) {
        *self = Self {
            last: Some((now, 0)),
            ..Self::default()
        };
    }

    pub(super) fn progress(&mut self, now: Time, done: u64) {
        self.done = done;
        let Some((at, before)) = self.last else {
            self.last = Some((now, done));
            return;
        };
        let span = now.saturating_sub(at);
        if span >= Duration::from_millis(500) {
            let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            self.bytes_per_second = done.saturating_sub(before).saturating_mul(1000) / millis;
            self.last = Some((now, done));
        }
    }
}

/// The state of one volume on one node, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStatus {
    /// How this node stands to it.
    pub standing: Standing,
    /// One sentence: why nobody is served, for whom is waited; or what goes on.
    pub detail: String,
    /// Whether initiators may log in here for it.
    pub servable: bool,
    /// The partner is silent, and it is served here as soon as somebody needs it.
    pub lazy: bool,
    /// Whether a person has to do something.
    pub alarm: bool,
    /// The configuration that this copy lives under; epoch 0: none yet.
    pub configuration: Configuration,
    /// This copy must not be read.
    pub inconsistent: bool,
    /// This node's disk failed.
    pub disk_failed: bool,
    /// There is no copy on this node that could be used.
    pub without_copy: bool,
    /// Both copies were written apart.
    pub split_brain: bool,
    /// Bytes that the partner lacks, or that are still to be compared.
    pub dirty_bytes: u64,
    /// Bytes compared or copied in this resync.
    pub resync_done: u64,
    /// Bytes a second at present.
    pub resync_rate: u64,
    /// Time left at that rate.
    pub resync_left: Option<Duration>,
    /// How long local reads are still covered by the partner's promise (mirrored only).
    pub lease_left: Option<Duration>,
    /// At least one data connection to the partner is up; `None`: not known yet.
    pub channel: Option<bool>,
    /// Initiators of this node are served by the partner.
    pub proxying: bool,
    /// Operations that found a block unreadable here.
    pub unreadable: u64,
    /// Times that the partner was put out for slowness in this run.
    pub ejections: u32,
    /// For how long it may not join yet because of that.
    pub rejoin_in: Option<Duration>,
    /// Why the partner could not serve it if this node stopped now; `None`: it could.
    pub needed: Option<String>,
    /// Bytes that the partner says are marked on its copy; `None`: it is not heard.
    pub partner_dirty: Option<u64>,
}

/// Where a volume stands, without words: for tests that ask whether each state was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// How this node stands to it.
    pub standing: Standing,
    /// Why nobody is served, if so.
    pub why: Option<Why>,
    /// By which rows of the table the two copies were compared in this run.
    pub rows: Rows,
}

impl Membership {
    /// Whether initiators may be served here now or within moments: portals stay open for it.
    #[must_use]
    pub fn servable(&self) -> bool {
        match self.role {
            Role::Member | Role::Alone(_) => self.stopping.is_none(),
            Role::Target { .. } => self.passes() || self.awaits_host(),
            Role::Idle if self.passes() || self.awaits_host() => true,
            Role::Idle => {
                let passing = matches!(
                    self.why,
                    Why::Meeting | Why::Lazy | Why::Deciding | Why::Starting | Why::NeedsQuorum
                );
                passing && self.served.is_some() && self.stopping.is_none()
            }
        }
    }

    /// Whether nothing but an initiator's wish is missing to go on alone.
    #[must_use]
    pub fn is_lazy(&self) -> bool {
        self.role == Role::Idle && self.why == Why::Lazy
    }

    /// Whether neither partner nor witness answers: the other two of three may go on meanwhile.
    #[must_use]
    pub fn lacks_quorum(&self) -> bool {
        self.role == Role::Idle && self.why == Why::NeedsQuorum
    }

    /// Whether it is served at this moment, and by whom else.
    #[must_use]
    pub const fn serving(&self) -> Option<Members> {
        match self.role {
            Role::Member | Role::Alone(_) if matches!(self.path, Path::Serving) => {
                Some(self.durable.configuration.members)
            }
            _ => None,
        }
    }

    /// Whether this node is a resync target.
    #[must_use]
    pub const fn is_target(&self) -> bool {
        matches!(self.role, Role::Target { .. })
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        State {
            standing: self.standing(),
            why: match self.role {
                Role::Idle => Some(self.why),
                _ => None,
            },
            rows: self.rows,
        }
    }

    const fn standing(&self) -> Standing {
        match self.role {
            Role::Idle => Standing::Waiting,
            Role::Member => Standing::Mirrored,
            Role::Alone(Sync::Off) => Standing::Alone,
            Role::Alone(_) => Standing::Source,
            Role::Target { .. } => Standing::Target,
        }
    }

    /// Everything at once.
    #[must_use]
    pub fn status(&self, now: Time) -> VolumeStatus {
        let copying = matches!(self.role, Role::Alone(Sync::Copying { .. }));
        let rate = if copying {
            self.rate.bytes_per_second
        } else {
            0
        };
        VolumeStatus {
            standing: self.standing(),
            detail: self.detail() + &self.slow_reason(now),
            servable: self.servable(),
            lazy: self.is_lazy(),
            alarm: self.alarm() || self.waits_for_slow(now).is_some() && self.slow.too_often(now),
            configuration: self.durable.configuration,
            inconsistent: self.durable.inconsistent,
            disk_failed: self.disk_failed,
            without_copy: self.is_without_copy(),
            split_brain: self.durable.split_brain,
            dirty_bytes: self.dirty,
            resync_done: if copying { self.rate.done } else { 0 },
            resync_rate: rate,
            resync_left: self.dirty.checked_div(rate).map(Duration::from_secs),
            lease_left: (self.role == Role::Member).then(|| self.lease_until.saturating_sub(now)),
            channel: self.channel,
            proxying: self.passes(),
            unreadable: self.unreadable,
            ejections: self.ejections,
            rejoin_in: self.waits_for_slow(now),
            needed: self.needed(),
            partner_dirty: self.current_view().map(|it| it.dirty),
        }
    }

    fn alarm(&self) -> bool {
        let passing = match self.why {
            Why::Opening | Why::Starting | Why::Meeting | Why::Deciding | Why::Stopping => true,
            Why::Maintenance => self.is_covered(),
            _ => false,
        };
        let stuck = self.role == Role::Idle && !passing;
        stuck || self.disk_failed || self.durable.split_brain
    }

    fn detail(&self) -> String {
        let partner = self.settings.partner.map_or(0, |it| it.0);
        match self.role {
            Role::Member => format!("mirrored with node {partner}"),
            Role::Target { .. } => {
                let meanwhile = if self.passes() {
                    "which also serves this node's initiators until then"
                } else {
                    "serves nobody until then"
                };
                format!("being brought up to date by node {partner}; {meanwhile}")
            }
            Role::Alone(_) if self.settings.partner.is_none() => String::from("single replica"),
            Role::Alone(Sync::Off) if self.partner_leaves() => {
                format!("serves alone; node {partner} is in maintenance")
            }
            Role::Alone(sync) => {
                let what = match sync {
                    Sync::Off if self.channel != Some(true) => "waits for a data connection to",
                    Sync::Off => "not yet joined by",
                    Sync::Collecting { .. } | Sync::Offered { .. } => "collects what is missing on",
                    Sync::Copying { .. } => "brings up to date",
                    Sync::Holding { .. } | Sync::Joined { .. } => "is being joined by",
                };
                format!("serves alone; {what} node {partner}")
            }
            Role::Idle if self.passes() => format!(
                "{}; node {partner} serves this node's initiators meanwhile",
                self.reason(partner)
            ),
            Role::Idle => self.reason(partner),
        }
    }

    fn reason(&self, partner: u8) -> String {
        match self.why {
            Why::Opening => String::from("reading its metadata"),
            Why::Starting => String::from("waiting until promises of the run before have ended"),
            Why::Meeting => format!("waiting for the word of node {partner}"),
            Why::NeedsPartner => format!(
                "waits for node {partner}: this node stopped while both were members, so only node {partner} knows whether it went on alone"
            ),
            Why::Outdated => format!(
                "waits for node {partner}, which went on without this node; the copy here is behind"
            ),
            Why::OpenJoin => {
                format!("waits for node {partner}: this node stopped in the middle of a join")
            }
            Why::LostVotes => {
                format!("waits for node {partner}: this node's register file was lost")
            }
            Why::Lazy => format!(
                "node {partner} is silent; this node goes on alone as soon as an initiator needs the volume"
            ),
            Why::NeedsQuorum => format!(
                "node {partner} is silent and the witness does not answer: one of them is needed"
            ),
            Why::NeedsWrites => format!(
                "waits for node {partner}: this node crashed before all acknowledged writes were durable here"
            ),
            Why::Deciding => String::from("it is being decided who serves"),
            Why::AwaitingSource => format!("waits to be brought up to date by node {partner}"),
            Why::NeedsCopyOf(members) => {
                let names = [NodeId(1), NodeId(2)]
                    .into_iter()
                    .filter(|it| members.contains(*it));
                let names = names
                    .map(|it| format!("{}", it.0))
                    .collect::<alloc::vec::Vec<_>>()
                    .join(" or ");
                format!(
                    "no copy here holds every acknowledged write: the original disk of node {names} is needed, or the operator's decision"
                )
            }
            Why::NeedsCreation => String::from("both replicas are blank: create the volume"),
            Why::Mismatch(what) => {
                format!("node {partner} has another {what:?} for this volume: not paired")
                    .to_lowercase()
            }
            Why::SplitBrain => {
                String::from("split brain: both nodes were written apart; choose the copy to keep")
            }
            Why::DiskFailed => String::from("this node's disk failed: replace or clear it"),
            Why::Refused => self.refused.clone().unwrap_or_default(),
            Why::Stopping => String::from("stopping"),
            Why::Maintenance => self.aside_reason(partner),
        }
    }
}
