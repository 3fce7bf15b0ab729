//! The partner is silent and there is a witness: two of the three acceptors decide. What one of
//! the nodes did with the witness's vote the other one learns from the register, so neither
//! needs an escape, and neither can go on alone while the other does.

use super::{Membership, Turn, Why};
use crate::control::{Configuration, Time};

/// How long after its start a node that stopped as one of two waits for the other one before it
/// asks for the volume: after a power cut both return, and then nothing has to be resynchronised.
const START_GRACE: Time = Time::from_secs(15);
/// How much longer a node waits to which no initiator speaks: the other one may have them all.
const UNUSED: Time = Time::from_millis(500);
/// A witness that has not agreed by then does not answer.
const UNANSWERED: Time = Time::from_secs(1);

impl Membership {
    /// The partner is silent on every channel since then.
    pub(super) fn by_majority(&mut self, turn: &mut Turn<'_>, since: Time) -> bool {
        if let Some(value) = self.decided {
            return self.act_on_majority(turn, value);
        }
        let timing = self.settings.timing;
        let configuration = self.durable.configuration;
        let served = self.served == Some(configuration.lineage()) || self.with.is_some();
        let begin = if served {
            self.started + timing.grant()
        } else {
            self.started + timing.grant().max(START_GRACE)
        };
        let sole = configuration.members == self.only_me();
        self.why = if configuration.epoch == 0 && self.durable.prepared.is_none() {
            Why::NeedsPartner
        } else if self.is_behind() {
            Why::Outdated
        } else if self.lost_votes {
            Why::LostVotes
        } else if !served && self.crashed && self.settings.write_back && self.intents > 0 && !sole {
            Why::NeedsWrites
        } else if turn.now < since + timing.silence && !self.is_certified(turn.now)
            || turn.now < self.started + timing.grant()
        {
            Why::Starting
        } else if sole && self.durable.prepared.is_none() {
            return self.begin_alone(turn, self.promise_until.max(turn.now));
        } else if turn.now < begin && !sole {
            Why::Starting
        } else {
            Why::Deciding
        };
        if self.why != Why::Deciding {
            return false;
        }
        let wait = |it: bool, time| if it { time } else { Time::ZERO };
        let due = since
            + timing.silence
            + wait(!self.lower(), timing.precedence)
            + wait(self.wanted.is_none(), UNUSED);
        // A partner that has ended asks for nothing, so nobody need be let pass.
        let due = match self.is_certified(turn.now) {
            true => turn.now,
            false => due,
        };
        if turn.now >= due.max(begin) + UNANSWERED {
            self.why = Why::NeedsQuorum;
        }
        turn.now >= due && self.round.is_none() && self.ask_majority(turn)
    }

    /// Whether this copy is not one that may go on, whatever the register says.
    fn is_behind(&self) -> bool {
        let me = self.settings.me;
        let named = |it: &Configuration| it.members.contains(me);
        let open = self.durable.prepared.as_ref().is_some_and(named);
        let adopted = named(&self.durable.configuration) && !self.durable.inconsistent;
        let outrun = self
            .settled
            .as_ref()
            .is_some_and(|it| !named(it) && it.epoch > self.durable.configuration.epoch);
        outrun || !adopted && !open
    }

    /// A round by which this node becomes the only member; or, while the end of an earlier round
    /// is not known here, one that tells it.
    fn ask_majority(&mut self, turn: &mut Turn<'_>) -> bool {
        let configuration = self.durable.configuration;
        let (expect, witness) = (configuration.lineage(), configuration.witness);
        let me = self.only_me();
        let own_swap = |it: &Configuration| it.members == me && it.witness == witness;
        let new = match self.durable.prepared {
            // A join, a first configuration, a change of the witness: decided or not, it must be
            // known before this node's record of it may be replaced.
            Some(open) if !own_swap(&open) => {
                self.begin_round(turn, None, open, witness);
                return true;
            }
            // Its own earlier swap, whose end was not seen.
            Some(open) => open,
            None => self.new_configuration(turn, me, false),
        };
        let durable = self.persist(turn, |it| it.prepared = Some(new));
        if durable {
            self.begin_round(turn, Some(expect), new, witness);
        }
        durable
    }

    /// Acts on what a completed round gave, whoever proposed it.
    fn act_on_majority(&mut self, turn: &mut Turn<'_>, value: Configuration) -> bool {
        let prepared = self.durable.prepared;
        if prepared == Some(value) {
            let both = value.members != self.only_me();
            let durable = self.persist(turn, |it| {
                it.adopt(value);
                it.inconsistent = false;
                it.split_brain = false;
                it.clean = false;
                if both {
                    it.base = value.epoch;
                }
            });
            self.with = None;
            return durable;
        }
        if value.lineage() == self.durable.configuration.lineage() {
            // What was open was not decided, and never will be: this round outbids it.
            let durable = prepared.is_none() || self.persist(turn, |it| it.prepared = None);
            if durable {
                self.decided = None;
                self.candidate = None;
            }
            return durable;
        }
        // The partner has gone on, and this node must be brought up to date.
        self.decided = None;
        self.candidate = None;
        self.why = Why::Outdated;
        false
    }
}

#[cfg(test)]
mod tests;
