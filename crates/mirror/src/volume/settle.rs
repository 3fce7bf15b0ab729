//! Taking on a configuration: what the one before left is first brought to its end here, and
//! going alone everything that might differ becomes durably dirty.

use super::running::{Local, Origin};
use super::source::Source;
use super::stage::{Alone, Fresh, Paired, Role, Stage};
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{Configuration, FromVolume, Incarnation, Time};
use crate::volume_io::{Io, IoError, Value};
use alloc::vec::Vec;

pub(super) struct Settling {
    pub(super) configuration: Configuration,
    pub(super) partner_incarnation: Option<Incarnation>,
    pub(super) not_before: Time,
    pub(super) joined: bool,
    pub(super) step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Operations of the configuration before are being applied here.
    Drain,
    /// What they left in memory (write-back), or what a run that was killed left there: it was
    /// never acknowledged, but once it is read it must not vanish with the power.
    Flush,
    /// Set intents are being made durable dirty bits.
    Mark,
}

impl Volume {
    pub(super) fn settle(&mut self, mut settling: Settling, turn: &mut Turn<'_>) {
        let paired = settling.configuration.members.count() == 2;
        if paired && matches!(self.stage, Stage::Alone(_)) {
            // Else a write that only this copy holds would be forgotten.
            let ready = self.source().is_some_and(Source::is_ready);
            assert!(
                ready,
                "a source joins only from the hold that `JoinReady` announced"
            );
        }
        // Only a resync makes both copies equal and flushed. After a hand-over, or from another
        // run, intents and dirty bits stay.
        settling.joined &= matches!(self.stage, Stage::Alone(_) | Stage::Target(_));
        self.end_source(turn);
        self.end_target(turn);
        self.forget_guests(turn);
        self.end_mends(turn);
        self.end_verification(turn);
        self.forget_forwards_of_partner(turn);
        self.take_back_forwards(turn);
        self.intake.relock(false);
        self.restart_flushes(turn.now);
        self.spoil_all_reads();
        self.links.forget();
        self.cleaning = super::metadata::Cleaning::default();
        self.stage = Stage::Settling(settling);
        // Past the limit if need be: the partner may hold them, so they must be applied here.
        self.apply_those_behind(turn);
    }

    pub(super) fn advance_settling(&mut self, turn: &mut Turn<'_>) {
        let Stage::Settling(settling) = &self.stage else {
            return;
        };
        if self.suspended {
            return;
        }
        let alone = settling.configuration.members.count() == 1;
        match settling.step {
            Step::Drain => {
                self.apply_those_behind(turn);
                if self.applying > 0
                    || self
                        .running
                        .values()
                        .any(|running| running.local != Local::Done)
                {
                    return;
                }
                self.inherit(turn);
                if alone {
                    self.set_step(Step::Flush);
                    self.start_io(Use::Settling, Io::Flush, turn);
                } else {
                    self.adopt(turn);
                }
            }
            Step::Flush => {}
            Step::Mark if self.dirty.quiet() => self.adopt(turn),
            Step::Mark => {}
        }
    }

    fn set_step(&mut self, step: Step) {
        if let Stage::Settling(settling) = &mut self.stage {
            settling.step = step;
        }
    }

    pub(super) fn settle_flushed(&mut self, result: &Result<Value, IoError>, turn: &mut Turn<'_>) {
        if result.is_err() {
            return self.fail(turn);
        }
        if matches!(&self.stage, Stage::Settling(settling) if settling.step == Step::Flush) {
            self.mark_intents(turn);
        }
    }

    fn mark_intents(&mut self, turn: &mut Turn<'_>) {
        if self.spec.partner.is_some() {
            for region in self.intents.regions() {
                self.dirty.mark_region(region);
            }
            self.dirty.want_all();
        }
        self.set_step(Step::Mark);
        self.advance_settling(turn);
    }

    /// Everything that had a number is applied here now; who waits for it is answered once the
    /// new configuration is in force.
    fn inherit(&mut self, turn: &mut Turn<'_>) {
        for seq in self.running.keys().copied().collect::<Vec<_>>() {
            // A replica handed its state over when it was applied; again does no harm.
            self.hand_over_state(seq, turn);
        }
        for (_, mut running) in core::mem::take(&mut self.running) {
            running.release(turn);
            if let Origin::Here(Some(ticket)) = running.origin {
                self.inherited.push(ticket);
            }
            assert!(!running.lent, "a copy that ends gives back what was lent");
        }
        self.bytes_running = 0;
        self.awaiting_intent.clear();
        self.stalled.clear();
        self.intents.end_all(turn.now);
    }

    fn adopt(&mut self, turn: &mut Turn<'_>) {
        let Stage::Settling(settling) = core::mem::replace(&mut self.stage, Stage::Idle) else {
            unreachable!("only what is settling is adopted")
        };
        let Settling {
            configuration,
            partner_incarnation,
            not_before,
            joined,
            ..
        } = settling;
        self.take_numbers_of(&configuration);
        self.partner_incarnation = partner_incarnation;
        let owner = configuration.owner == self.spec.me;
        if configuration.members.count() == 1 {
            self.intents.own_all();
            self.stage = Stage::Alone(Alone {
                not_before,
                source: None,
            });
        } else {
            if joined {
                // Both copies are equal and flushed: nothing of before matters any more.
                self.intents.clear_all();
                self.dirty.clear_all();
                self.dirty.want_all();
            }
            self.stage = Stage::Paired(Paired {
                owner,
                lease: Time::ZERO,
                fresh: Fresh::default(),
            });
        }
        self.intake
            .relock(matches!(self.role(), Role::Alone | Role::Owner));
        self.reads.stirred = true;
        turn.tell(FromVolume::Serving { epoch: self.epoch });
        self.say_ready_everywhere(turn);
        self.answer_inherited(turn);
    }

    /// Inherited operations are on every member of this configuration; alone, they are answered
    /// only once every promise to the partner has run out.
    pub(super) fn answer_inherited(&mut self, turn: &mut Turn<'_>) {
        if self.inherited.is_empty() || !self.serves(turn.now) {
            return;
        }
        for ticket in core::mem::take(&mut self.inherited) {
            turn.complete(ticket, Ok(()));
        }
    }

    /// Under the same configuration again: operations whose acknowledgement was held.
    pub(super) fn finish_all(&mut self, turn: &mut Turn<'_>) {
        for seq in self.running.keys().copied().collect::<Vec<_>>() {
            self.say_applied(seq, turn);
            self.acknowledge_if_alone(seq, turn);
            self.finish(seq, turn);
        }
    }
}
