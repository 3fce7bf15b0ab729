//! The owner's half of the write path: what is sequenced goes to the replica, forwards are
//! granted or refused, each once.

use super::intake::{From, Held};
use super::links::Asked;
use super::running::Origin;
use super::turn::Turn;
use super::{DROP_AGE, MAX_IN_FLIGHT, Volume};
use crate::control::Time;
use crate::data_frame::DataFrame;
use crate::operation::Operation;
use crate::volume_action::{ChannelId, Refusal};
use alloc::vec::Vec;

/// What became of a forward. Remembered while the sender might still send it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Waiting,
    Granted(u64),
    Refused,
}

/// How far a token may lie ahead of a turn's clock: another thread stamped it, and the clock of a
/// turn stands still while the turn is kept from its processor.
const TURN_LAG: Time = Time::from_secs(1);

/// Whether a token, our own boot time in microseconds, is too old, or not ours at all.
pub(super) fn token_expired(token: u64, now: Time) -> bool {
    let sent = Time::from_micros(token);
    sent > now + TURN_LAG || now.saturating_sub(sent) > DROP_AGE
}

impl Volume {
    /// Sends a sequenced operation: a grant for a forward, else the operation itself.
    pub(super) fn send_sequenced(&mut self, seq: u64, forwarded_on: Asked, turn: &mut Turn<'_>) {
        let low = self.low();
        let running = &self.running[&seq];
        let channel = match running.origin {
            Origin::Forward(id) => {
                self.verdicts.insert(id, Verdict::Granted(seq));
                let last = self.links.pick();
                let (asked, channel) = match (forwarded_on, last) {
                    (Asked::On(channel), _) if self.links.is_ready(channel) => {
                        (forwarded_on, Some(channel))
                    }
                    (Asked::Repeatedly, _) => (forwarded_on, last),
                    (_, Some(channel)) => (Asked::On(channel), last),
                    (_, None) => (Asked::Nowhere, None),
                };
                self.running
                    .get_mut(&seq)
                    .expect("looked at just now")
                    .reply = asked;
                self.reply(asked, DataFrame::Grant { seq, id, low }, turn);
                channel
            }
            _ => {
                let operation = running.operation.clone();
                self.send(
                    DataFrame::Apply {
                        seq,
                        low,
                        operation,
                    },
                    turn,
                )
            }
        };
        let running = self.running.get_mut(&seq).expect("looked at just now");
        running.channel = channel;
        let weight = running.weight();
        self.links.charge(channel, weight);
    }

    /// Sends again what has no channel any more and was not confirmed.
    pub(super) fn resend_sequenced(&mut self, turn: &mut Turn<'_>) {
        let lost: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, running)| !running.confirmed && running.channel.is_none())
            .filter(|(_, running)| !running.is_kept_back())
            .map(|(seq, _)| *seq)
            .collect();
        for seq in lost {
            self.counts.resent += 1;
            self.send_sequenced(seq, Asked::Nowhere, turn);
            self.say_applied(seq, turn);
        }
    }

    pub(super) fn take_forward(
        &mut self,
        id: u64,
        token: u64,
        operation: Operation,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        if self.knows_forward(id, channel, turn) {
            return Self::release(&operation, turn);
        }
        if token_expired(token, turn.now) {
            Self::release(&operation, turn);
            return self.refuse_forward(id, Asked::On(channel), turn);
        }
        self.verdicts.insert(id, Verdict::Waiting);
        let order = self.intake.next_order();
        let held = Held {
            from: From::Partner {
                id,
                asked: Asked::On(channel),
            },
            operation,
            received: turn.now,
            token: (token, turn.now),
        };
        self.intake.put(order, held, true);
    }

    /// A forward whose blocks found no room: it is refused, and its sender answers BUSY.
    pub(super) fn turn_forward_away(&mut self, id: u64, channel: ChannelId, turn: &mut Turn<'_>) {
        if !self.knows_forward(id, channel, turn) {
            self.refuse_forward(id, Asked::On(channel), turn);
        }
    }

    /// Whether this forward was decided before, which is then said again. A new one makes the
    /// oldest forgotten.
    fn knows_forward(&mut self, id: u64, channel: ChannelId, turn: &mut Turn<'_>) -> bool {
        if let Some(verdict) = self.verdicts.get(&id).copied() {
            self.counts.duplicates += 1;
            self.repeat_verdict(id, verdict, channel, turn);
            return true;
        }
        let newest = self.verdicts.keys().next_back().copied().unwrap_or(0);
        if id.saturating_add(MAX_IN_FLIGHT) <= newest {
            // The sender has had its answer, else it would not have gone on so far.
            self.counts.duplicates += 1;
            return true;
        }
        self.forget_verdicts_before(id, turn);
        false
    }

    /// Forgets what is answered for certain. An honest sender waits for none of these; what
    /// another would leave in the queue goes too.
    fn forget_verdicts_before(&mut self, id: u64, turn: &mut Turn<'_>) {
        while let Some((old, verdict)) = self.verdicts.first_key_value()
            && old.saturating_add(MAX_IN_FLIGHT) <= id
        {
            let waiting = (*verdict == Verdict::Waiting)
                .then(|| self.intake.of_forward(*old))
                .flatten();
            self.verdicts.pop_first();
            if let Some(order) = waiting
                && let Some(held) = self.intake.take(order)
            {
                self.unlock(order, turn);
                Self::release(&held.operation, turn);
            }
        }
    }

    fn repeat_verdict(
        &mut self,
        id: u64,
        verdict: Verdict,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        match verdict {
            Verdict::Waiting => self.intake.forward_again(id, channel),
            Verdict::Refused => self.answer(Some(channel), DataFrame::Refused { id }, turn),
            Verdict::Granted(seq) => {
                let low = self.low();
                self.answer(Some(channel), DataFrame::Grant { seq, id, low }, turn);
                if let Some(running) = self.running.get_mut(&seq) {
                    running.channel = Some(channel);
                    running.reply.on(channel);
                    self.say_applied(seq, turn);
                } else {
                    self.answer(Some(channel), DataFrame::Done { seq }, turn);
                }
            }
        }
    }

    pub(super) fn refuse_forward(&mut self, id: u64, asked: Asked, turn: &mut Turn<'_>) {
        self.counts.refused += 1;
        self.verdicts.insert(id, Verdict::Refused);
        self.reply(asked, DataFrame::Refused { id }, turn);
    }

    /// The other side's initiator gave up. What is not sequenced never will be.
    pub(super) fn cancel_forward(&mut self, id: u64, channel: ChannelId, turn: &mut Turn<'_>) {
        let newest = self.verdicts.keys().next_back().copied().unwrap_or(0);
        match self.verdicts.get(&id).copied() {
            Some(Verdict::Waiting) => {
                self.intake.forward_again(id, channel);
                let order = self.intake.of_forward(id).expect("what waits is held");
                self.drop_held(order, Refusal::Aborted, turn);
            }
            Some(verdict) => self.repeat_verdict(id, verdict, channel, turn),
            None if id.saturating_add(MAX_IN_FLIGHT) <= newest => self.counts.duplicates += 1,
            // It overtook its forward on another channel.
            None => self.refuse_forward(id, Asked::On(channel), turn),
        }
    }

    /// The replica wants to know when an operation is committed.
    pub(super) fn committed_asked(&mut self, seq: u64, channel: ChannelId, turn: &mut Turn<'_>) {
        if let Some(running) = self.running.get_mut(&seq) {
            running.tell.on(channel);
        } else if seq < self.next_seq {
            let low = self.low();
            self.answer(Some(channel), DataFrame::Committed { seq, low }, turn);
        }
    }

    pub(super) fn latest_asked(&self, id: u64, channel: ChannelId, turn: &mut Turn<'_>) {
        let seq = self.next_seq - 1;
        self.answer(Some(channel), DataFrame::Latest { id, seq }, turn);
    }

    /// Another configuration: the partner keeps its own forwards.
    pub(super) fn forget_forwards_of_partner(&mut self, turn: &mut Turn<'_>) {
        for order in self
            .intake
            .orders(|held| matches!(held.from, From::Partner { .. }))
        {
            let held = self.intake.take(order).expect("listed just now");
            Self::release(&held.operation, turn);
        }
        self.verdicts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_the_age_of_a_command() {
        let now = Time::from_secs(100);
        let sent = |at: Time| u64::try_from(at.as_micros()).expect("small");
        assert!(!token_expired(sent(now - DROP_AGE), now));
        assert!(token_expired(
            sent(now - DROP_AGE - Time::from_micros(1)),
            now
        ));
        // Stamped while this turn had no processor.
        assert!(!token_expired(sent(now + TURN_LAG), now));
        // Of a clock that ran before this machine was started.
        assert!(token_expired(
            sent(now + TURN_LAG + Time::from_micros(1)),
            now
        ));
        assert!(token_expired(0, now), "no token at all");
    }
}
