//! The register and the leases: what is asked of the acceptors, what this node's own one may
//! answer, and what a promise binds.

use super::{Asks, Contact, Membership, Path, Role};
use crate::control::{Configuration, NodeId, Time, ToVolume, WITNESS};
use crate::register::{Message, Vote};

impl Membership {
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
    pub(super) fn bind(&mut self, now: Time) {
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
}
