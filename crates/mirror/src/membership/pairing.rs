//! The two copies meet: both sides make the same plan of the same facts, and the source, whom
//! the plan names, has the register decide before anything is copied.

use super::report::Report;
use super::{Membership, Output, Role, Round, Severity, Turn, Why};
use crate::control::{Configuration, Members, NodeId, Time, ToVolume, WitnessId};
use crate::decide::{Copy, Plan, Rows, explain};
use crate::register::{Ballot, Proposal, Step};
use crate::superblock::Lineage;
use alloc::format;
use alloc::string::String;

/// Both data nodes must agree, or one of them and the witness.
const QUORUM: u32 = 2;
/// Rounds that a node could have begun without anybody hearing of it: one in 5 s for a century,
/// in ballots.
const FORGOTTEN_BALLOTS: u64 = 1 << 40;

impl Membership {
    /// The value that a completed read of the register would give.
    pub(super) fn register_value(turn: &Turn<'_>, view: &Report) -> Option<Configuration> {
        if view.ballot > turn.vote.ballot {
            view.value
        } else {
            turn.vote.value
        }
    }

    /// What `decide` says of both records. A side that has stepped down is not preferred.
    pub(super) fn plan(&self, turn: &Turn<'_>, view: &Report) -> Plan {
        self.explain(turn, view).0
    }

    /// The same, to be acted upon.
    pub(super) fn take_plan(&mut self, turn: &Turn<'_>, view: &Report) -> Plan {
        let (plan, rows) = self.explain(turn, view);
        self.rows.join(rows);
        plan
    }

    fn explain(&self, turn: &Turn<'_>, view: &Report) -> (Plan, Rows) {
        let prefer = match (self.quiet() && self.would_yield(), view.yields) {
            (false, true) => Some(self.settings.me),
            (true, false) => self.settings.partner,
            _ => None,
        };
        let register = Self::register_value(turn, view);
        explain(&self.record(), &view.record, register, prefer)
    }

    /// Idle, and the partner's word is here.
    pub(super) fn pair(&mut self, turn: &mut Turn<'_>, view: &Report) -> bool {
        if self.decided.is_some() {
            return self.act_on_decision(turn, view);
        }
        if self.lost_votes && self.durable.configuration.witness.is_some() {
            return self.recover_votes(turn, view);
        }
        // The partner has yet to adopt what this node adopted with it.
        let mine = self.durable.configuration.lineage();
        let coming = view.record.prepared.is_some_and(|it| it.lineage() == mine)
            || view.record.configuration.lineage() == mine && view.record.with.is_none();
        let both = self.durable.configuration.members.count() == 2;
        let awaited = both && self.with == Some(view.incarnation()) && coming;
        // What this node's acceptor has just accepted is known to nobody yet, and binds it.
        let voting = self.voting != turn.vote.value;
        if self.round.is_some() || awaited || voting {
            self.why = Why::Deciding;
            return false;
        }
        match self.take_plan(turn, view) {
            Plan::SplitBrain => self.split(turn),
            Plan::Refuse(mismatch) => {
                self.why = Why::Mismatch(mismatch);
                false
            }
            Plan::Create { agreed: false } => {
                self.why = Why::NeedsCreation;
                false
            }
            Plan::Create { agreed: true } => self.create(turn, view),
            Plan::Unavailable { truth } => {
                self.why = Why::NeedsCopyOf(truth.members);
                false
            }
            Plan::Resume
                if self.eject.is_some() || self.would_yield() || view.yields || view.demands =>
            {
                self.why = Why::Deciding;
                false
            }
            Plan::Resume => self.serve_member(turn, view.incarnation()),
            Plan::Source { node, copy } if node == self.settings.me => {
                self.why = Why::Deciding;
                !self.would_yield() && self.become_source(turn, view, copy)
            }
            Plan::Source { .. } => self.become_target(turn, view),
        }
    }

    /// Both went their own way: nobody serves, so that no initiator mixes the two, until a
    /// person chooses.
    pub(super) fn split(&mut self, turn: &mut Turn<'_>) -> bool {
        let idle = self.writing.is_none();
        let durable = self.persist(turn, |it| it.split_brain = true);
        if idle && !durable {
            turn.event(
                Severity::Error,
                String::from("split brain: both nodes were written apart; neither serves until one copy is chosen"),
            );
        }
        durable
    }

    /// Stands still, unless one copy was chosen: the plan then names it as the source.
    pub(super) fn step_split(&mut self, turn: &mut Turn<'_>) -> bool {
        if matches!(self.role, Role::Target { .. }) {
            return self.step_target(turn);
        }
        self.role = Role::Idle;
        self.why = Why::SplitBrain;
        if !self.suspended(turn) {
            return false;
        }
        let Some(view) = self.current_view() else {
            return false;
        };
        let chosen = self.decided.is_some() || self.plan(turn, &view) != Plan::SplitBrain;
        let moved = chosen && self.pair(turn, &view);
        self.why = Why::SplitBrain;
        moved
    }

    /// Makes itself the only member, by a swap unless the register says so already, and serves.
    pub(super) fn become_source(&mut self, turn: &mut Turn<'_>, view: &Report, copy: Copy) -> bool {
        let found = Self::register_value(turn, view);
        let mine = self.durable.configuration;
        // A copy that was chosen after a split brain begins a new configuration: its adoption ends
        // the split on both sides.
        let there = found.is_some_and(|it| it.lineage() == mine.lineage());
        if there && mine.members == self.only_me() && !self.durable.split_brain {
            let unserved = self.role == Role::Idle || self.served != Some(mine.lineage());
            return unserved && self.begin_alone(turn, turn.now);
        }
        if let Some(open) =
            found.filter(|it| Some(*it) == self.durable.prepared && it.members == self.only_me())
        {
            // An earlier swap of this node whose end was not seen: the same round again tells.
            self.propose(turn, view, open);
            return false;
        }
        let new = self.new_configuration(turn, self.only_me(), false);
        if let Some(open) = self.durable.prepared
            && open != new
            && found != Some(open)
            && self.passed_over != Some(open.lineage())
        {
            // An acceptor that has not been heard since may hold what this record stands for: a
            // completed read tells, before the record is replaced.
            self.begin_round(turn, None, open, self.durable.configuration.witness);
            return false;
        }
        let theirs = view.record.configuration;
        let durable = self.persist(turn, |it| {
            if let Some(value) = found {
                let prepared = it
                    .prepared
                    .is_some_and(|it| it.lineage() == value.lineage());
                if prepared && value.members.count() == 2 {
                    // A join that was decided and never adopted: this copy is a full member.
                    it.adopt(value);
                    it.inconsistent = false;
                }
                it.remember(value);
            }
            // The partner's line ends in ours from here on.
            it.remember(theirs);
            if copy == Copy::Everything && !view.record.blank {
                it.base = new.epoch;
            }
            it.prepared = Some(new);
        });
        if durable {
            self.propose(turn, view, new);
        }
        false
    }

    pub(super) fn propose(&mut self, turn: &Turn<'_>, view: &Report, new: Configuration) {
        let expect = Self::register_value(turn, view).map(|it| it.lineage());
        self.highest = self.highest.max(view.ballot);
        // Who votes is changed by the two nodes alone: then both know, and neither can still
        // decide anything with the old witness.
        let witness = self.durable.configuration.witness;
        let witness = witness.filter(|_| new.witness == witness);
        self.begin_round(turn, expect, new, witness);
    }

    /// A round at a ballot above all that this node has seen.
    pub(super) fn begin_round(
        &mut self,
        turn: &Turn<'_>,
        expect: Option<Lineage>,
        new: Configuration,
        witness: Option<WitnessId>,
    ) {
        let ballot = turn
            .vote
            .promised
            .max(turn.vote.ballot)
            .max(self.highest)
            .after(self.settings.me);
        self.highest = ballot;
        self.round = Some(Round {
            proposal: Proposal::new(ballot, QUORUM, expect, new),
            witness,
            without_own: false,
            since: turn.now,
        });
    }

    /// This node's acceptor lost what it had promised and accepted, and is silent. Whatever was
    /// decided the partner's or the witness's accepted; a read that both complete binds every
    /// later one, so this one may then vote again with nothing in it.
    fn recover_votes(&mut self, turn: &Turn<'_>, view: &Report) -> bool {
        self.why = Why::LostVotes;
        if self.round.is_some() {
            return false;
        }
        self.highest = self.highest.max(view.ballot);
        self.highest = self.unused_ballot();
        let witness = self.durable.configuration.witness;
        self.begin_round(turn, None, self.durable.configuration, witness);
        if let Some(round) = &mut self.round {
            round.without_own = true;
        }
        false
    }

    /// Far above any ballot of runs before, which this node has forgotten: one number must never
    /// stand for two rounds.
    pub(super) fn unused_ballot(&self) -> Ballot {
        Ballot(self.highest.0.saturating_add(FORGOTTEN_BALLOTS)).after(self.settings.me)
    }

    /// Takes the end of a round, or gives it up; what it left behind the next one finds.
    pub(super) fn poll_round(&mut self, turn: &Turn<'_>) {
        let Some(round) = &self.round else { return };
        match round.proposal.step() {
            Step::Decided(value) => {
                self.decided = Some(value);
                self.settled = Some(value);
                let open = self.durable.prepared.filter(|it| *it != value);
                self.passed_over = open.map(|it| it.lineage());
                self.lost_votes = false;
                self.round = None;
            }
            Step::Outbid(_) => self.round = None,
            _ if turn.now >= round.since + self.settings.timing.answer => self.round = None,
            _ => {}
        }
    }

    /// Acts on what a completed round gave, whoever proposed it.
    pub(super) fn act_on_decision(&mut self, turn: &mut Turn<'_>, view: &Report) -> bool {
        let Some(value) = self.decided else {
            return false;
        };
        // A read tells of other values too, of the present one as well: none of them is a reason
        // to serve.
        if self.durable.prepared != Some(value) && self.adopting != Some(value) {
            self.decided = None;
            self.candidate = None;
            return true;
        }
        self.adopting = Some(value);
        let both = value.members.count() == 2;
        let durable = self.persist(turn, |it| {
            it.adopt(value);
            it.inconsistent = false;
            it.split_brain = false;
            it.clean = false;
            if both {
                it.base = value.epoch;
            }
        });
        if !durable {
            return false;
        }
        self.decided = None;
        self.adopting = None;
        (self.keep, self.give_up) = (false, false);
        self.with = both.then(|| view.incarnation());
        if both {
            // The partner adopts next; its report ends the wait.
            return true;
        }
        let not_before = self.binding_end(turn.now, view);
        self.begin_alone(turn, not_before)
    }

    /// When nothing binds this node to the partner any more. Without a witness the partner has
    /// voted, and it votes only when it stands still. With one it need not have been asked: it
    /// may still read under a promise of this node, unless it says that it stands still, or is
    /// another run; or under one of the run before this, if it was a member with that.
    fn binding_end(&self, now: Time, view: &Report) -> Time {
        let stands_still = view.yields || self.bound_to.is_some_and(|it| it != view.incarnation());
        if self.durable.configuration.witness.is_none() || stands_still {
            return now;
        }
        let mine = self.settings.incarnation;
        let before = match view.record.with {
            Some(run) if run != mine => self.started + self.settings.timing.grant(),
            _ => Time::ZERO,
        };
        before.max(self.promise_until).max(now)
    }

    /// A new volume: both write a join record for its first configuration, then it is decided.
    fn create(&mut self, turn: &mut Turn<'_>, view: &Report) -> bool {
        self.why = Why::Deciding;
        if !self.lower() {
            let first = view.record.prepared;
            if first.is_some() && first != self.durable.prepared {
                self.persist(turn, |it| it.prepared = first);
            }
            return false;
        }
        let both = self.only_me().with(view.record.node);
        let first = self.new_configuration(turn, both, false);
        if self.persist(turn, |it| it.prepared = Some(first)) && view.record.prepared == Some(first)
        {
            self.propose(turn, view, first);
        }
        false
    }

    fn become_target(&mut self, turn: &mut Turn<'_>, view: &Report) -> bool {
        let source = view.record.configuration;
        self.why = Why::AwaitingSource;
        let alone = view.serving && source.members == Members::only(view.record.node);
        if !alone || self.disk_failed {
            return false;
        }
        let (lineage, node): (_, NodeId) = (source.lineage(), view.record.node);
        self.with = None;
        self.served = None;
        turn.out.push(Output::Order(ToVolume::Follow {
            source,
            source_incarnation: view.incarnation(),
        }));
        turn.event(
            Severity::Info,
            format!(
                "resynchronising from node {} (epoch {})",
                node.0, source.epoch
            ),
        );
        self.path = super::Path::Following;
        self.role = Role::Target {
            source: lineage,
            incarnation: view.incarnation(),
            offer: 0,
        };
        true
    }

    /// The source holds what both sides had marked. It copies once this copy is durably recorded
    /// as inconsistent; until then it changes nothing here, so this copy is followed before.
    pub(super) fn accept_offer(&mut self, turn: &mut Turn<'_>, view: &Report) -> bool {
        let source = view.record.configuration;
        let lineage = source.lineage();
        let durable = self.persist(turn, |it| {
            for past in &view.record.history {
                it.remember_past(*past);
            }
            if it.configuration.lineage() != lineage {
                it.adopt(source);
            }
            it.source = Some(lineage);
            it.prepared = None;
            it.split_brain = false;
            it.inconsistent = true;
            it.clean = false;
        });
        if durable {
            (self.keep, self.give_up) = (false, false);
            self.role = Role::Target {
                source: lineage,
                incarnation: view.incarnation(),
                offer: view.offer,
            };
        }
        durable
    }
}
