//! What `Node` orders: opening, serving, suspending, draining, closing.

use super::closing::Drain;
use super::intake::From;
use super::running::{Origin, Running};
use super::settle::{Settling, Step};
use super::stage::Stage;
use super::target::Target;
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{Configuration, FromVolume, ToVolume, Verified};
use crate::volume_action::Refusal;
use crate::volume_io::{Io, IoError, Value};

impl Volume {
    pub(super) fn obey(&mut self, order: ToVolume, turn: &mut Turn<'_>) {
        if matches!(self.stage, Stage::Failed) {
            return self.answer_failed(order, turn);
        }
        match order {
            ToVolume::NoCopy => self.stage = Stage::Failed,
            ToVolume::Open { blank } => self.open(blank, turn),
            ToVolume::Serve {
                configuration,
                partner_incarnation,
                not_before,
                joined,
            } => {
                let settling = Settling {
                    configuration,
                    partner_incarnation,
                    not_before,
                    joined,
                    step: Step::Drain,
                };
                self.serve(settling, turn);
            }
            ToVolume::Suspend => {
                self.suspended = true;
                self.wanted_told = false;
                self.initiator_seen = false;
                // What was answered from memory must survive a power cut before this node may go
                // on alone; from here on nothing more is answered from memory.
                if self.answers_from_memory() {
                    self.start_io(Use::Suspending, Io::Flush, turn);
                } else {
                    turn.tell(FromVolume::Suspended);
                }
            }
            ToVolume::Ask => {
                self.asked = true;
                self.wanted_told = false;
                self.initiator_seen = false;
            }
            ToVolume::Lease { until } => {
                if let Stage::Paired(paired) = &mut self.stage {
                    paired.lease = until;
                    self.reads.stirred = true;
                }
            }
            ToVolume::Collect {
                partner_incarnation,
                everything,
            } => self.collect(partner_incarnation, everything, turn),
            ToVolume::Copy => self.start_copy(turn),
            ToVolume::Alone => {
                self.end_source(turn);
                self.resume(turn);
            }
            ToVolume::Follow {
                source,
                source_incarnation,
            } => {
                self.end_everything(Refusal::NotServed, turn);
                self.forget_states(turn);
                self.take_numbers_of(&source);
                self.partner_incarnation = Some(source_incarnation);
                self.suspended = false;
                self.drain = None;
                self.stage = Stage::Target(Target::default());
            }
            ToVolume::Proxy { host } => self.pass_to(host, turn),
            ToVolume::Verify { repair } => self.verify(repair, turn),
            ToVolume::EndVerify => self.stop_verifying(),
            ToVolume::Pace(pacing) => self.pace.tune(pacing),
            ToVolume::Drain { by } => self.drain = Some(Drain::new(by)),
            ToVolume::Close { covered } => self.close(covered, turn),
        }
    }

    /// A failed disk serves nothing; `Node` still gets the answers that it waits for.
    fn answer_failed(&mut self, order: ToVolume, turn: &mut Turn<'_>) {
        match order {
            ToVolume::Suspend => turn.tell(FromVolume::Suspended),
            ToVolume::Drain { .. } => turn.tell(FromVolume::Drained { clean: false }),
            ToVolume::Close { .. } => turn.tell(FromVolume::Closed { clean: false }),
            ToVolume::Proxy { host } => self.pass_to(host, turn),
            ToVolume::Verify { .. } => turn.tell(FromVolume::Verified(Verified::default())),
            ToVolume::Lease { .. }
            | ToVolume::Ask
            | ToVolume::Alone
            | ToVolume::EndVerify
            | ToVolume::Pace(_) => {}
            _ => turn.tell(FromVolume::DiskFailed),
        }
    }

    fn serve(&mut self, settling: Settling, turn: &mut Turn<'_>) {
        let configuration = settling.configuration;
        assert!(
            configuration.members.contains(self.spec.me),
            "only a member serves"
        );
        assert!(
            !matches!(
                self.stage,
                Stage::New | Stage::Opening(_) | Stage::Closing(_) | Stage::Closed
            ),
            "a volume is opened before it serves"
        );
        self.drain = None;
        let same = (configuration.epoch, lineage(&configuration)) == (self.epoch, self.lineage);
        match &mut self.stage {
            Stage::Alone(alone) if same => {
                alone.not_before = settling.not_before;
                // A resync, and the hold for a join that it may have come to, end with any order
                // to serve: whoever wants it begins it anew.
                self.end_source(turn);
                self.resume(turn);
                turn.tell(FromVolume::Serving { epoch: self.epoch });
            }
            Stage::Paired(_) if same => {
                self.partner_incarnation = settling.partner_incarnation;
                self.resume(turn);
                self.say_ready_everywhere(turn);
                turn.tell(FromVolume::Serving { epoch: self.epoch });
            }
            _ => {
                self.suspended = false;
                self.settle(settling, turn);
            }
        }
        self.end_proxy(configuration.members.count() == 2, turn);
    }

    pub(super) fn suspend_flushed(&mut self, result: &Result<Value, IoError>, turn: &mut Turn<'_>) {
        if result.is_err() {
            self.fail(turn);
        }
        if self.suspended {
            turn.tell(FromVolume::Suspended);
        }
    }

    /// What was held goes on under the same configuration.
    fn resume(&mut self, turn: &mut Turn<'_>) {
        self.suspended = false;
        self.reads.stirred = true;
        self.finish_all(turn);
    }

    pub(super) fn take_numbers_of(&mut self, configuration: &Configuration) {
        assert!(
            self.running.is_empty(),
            "numbers of two configurations never mix"
        );
        self.epoch = configuration.epoch;
        self.lineage = lineage(configuration);
        self.next_seq = 1;
        self.received = super::window::Window::default();
        self.verdicts.clear();
        self.links.forget();
    }

    /// Answers everything and forgets it.
    pub(super) fn end_everything(&mut self, refusal: Refusal, turn: &mut Turn<'_>) {
        self.end_source(turn);
        self.end_target(turn);
        self.forget_guests(turn);
        self.end_mends(turn);
        self.end_verification(turn);
        self.drop_running(refusal, turn);
        self.refuse_forwards(refusal, turn);
        self.forget_forwards_of_partner(turn);
        for order in self
            .intake
            .orders(|held| matches!(held.from, From::Here(_)))
        {
            self.drop_held(order, refusal, turn);
        }
        self.intake.relock(false);
        self.refuse_reads(refusal, turn);
        self.refuse_flushes(refusal, turn);
        for ticket in core::mem::take(&mut self.inherited) {
            turn.complete(ticket, Err(refusal));
        }
        self.stalled.clear();
        self.drain = None;
        self.cleaning = super::metadata::Cleaning::default();
        self.links.forget();
    }

    /// Says once that somebody waits for this volume to be served.
    pub(super) fn tell_wanted(&mut self, turn: &mut Turn<'_>) {
        let idle = self.suspended || matches!(self.stage, Stage::Idle);
        if !idle || self.wanted_told {
            return;
        }
        let sequenced = |running: &Running| matches!(running.origin, Origin::Here(Some(_)));
        let waits = self.intake.waits_for_service()
            || self.reads.len() > 0
            || !self.flushes.is_empty()
            || !self.forwards.is_empty()
            // Sequenced and not acknowledged: an initiator all of whose commands are such sends
            // nothing more.
            || !self.inherited.is_empty()
            || self.running.values().any(sequenced);
        // What waits since before may come from an initiator that this node has lost together
        // with the partner: then the other side serves it, and this one must not.
        let wanted = waits && (self.initiator_seen || !self.suspended);
        if wanted {
            self.wanted_told = true;
            turn.tell(FromVolume::Wanted);
        }
    }

    /// Looks at whatever goes on in steps.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>) {
        match &self.stage {
            Stage::Opening(_) => self.advance_opening(turn),
            Stage::Settling(_) => self.advance_settling(turn),
            Stage::Alone(_) => {
                self.answer_inherited(turn);
                self.advance_source(turn);
            }
            Stage::Paired(_) => self.answer_inherited(turn),
            Stage::Target(_) => self.advance_target(turn),
            Stage::Closing(_) => self.advance_closing(turn),
            Stage::New | Stage::Idle | Stage::Closed | Stage::Failed => {}
        }
        self.advance_drain(turn);
        self.advance_cleaning(turn);
    }
}

/// The half of a generation that frames carry.
pub(super) fn lineage(configuration: &Configuration) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "half of a random number is random enough to tell two lineages apart"
    )]
    {
        configuration.generation as u64
    }
}
