//! What a node tells its partner about one volume, whole each time it changes and now and then
//! besides: nothing depends on any one message, the newest report says it all.

use super::roles::{Path, Role, Sync};
use super::{Maintenance, Membership};
use crate::control::{Configuration, Incarnation};
use crate::decide::Record;
use crate::register::{Ballot, Vote};

/// The state of one volume on one node, as the partner must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Counts the reports of this run; an older one is dropped.
    pub seq: u64,
    /// What `decide` needs; all of it is durable.
    pub record: Record,
    /// The durable vote of this node's acceptor: ballot of the value.
    pub ballot: Ballot,
    /// And the value.
    pub value: Option<Configuration>,
    /// Initiators are served here, or may be at any moment.
    pub serving: bool,
    /// As the only member, in force: whatever the other copy may lack is durably marked here.
    pub settled: bool,
    /// The partner is asked to step down and vote.
    pub demands: bool,
    /// This node has stepped down, or cannot serve: the partner should go on alone.
    pub yields: bool,
    /// This node is being stopped.
    pub stopping: bool,
    /// This node is in maintenance, or on its way there: initiators should prefer the partner.
    pub leaves: bool,
    /// Bytes that are marked here: what this copy got since the two parted.
    pub dirty: u64,
    /// As the source: the union of both sides' dirty bits is durable, the target may follow.
    /// Counts the attempts; 0: no offer.
    pub offer: u32,
    /// This node serves nothing itself, and passes its initiators' commands to the partner.
    pub proxies: bool,
    /// As the target: the offer that is followed; 0: none.
    pub following: u32,
}

impl Report {
    /// Which run of the sender speaks.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.record.incarnation
    }
}

impl Membership {
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
            leaves: self.maintenance != Maintenance::Off,
            dirty: self.dirty,
            proxies: self.passes(),
            offer: offering,
            following: match self.role {
                Role::Target { offer, .. } if self.path == Path::Following => offer,
                _ => 0,
            },
        })
    }

    pub(super) fn record(&self) -> Record {
        let mut record = Record::of(&self.durable, self.settings.incarnation);
        record.create = self.settings.create;
        record.crashed = self.crashed;
        record.disk_failed |= self.disk_failed;
        record.keep = self.keep;
        record.give_up = self.give_up;
        record.with = self.with;
        record
    }
}
