//! What `Node` orders: opening, serving, suspending, draining, closing.

use super::intake::From;
use super::settle::{Settling, Step};
use super::source::Source;
use super::stage::{Role, Stage};
use super::target::Target;
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{Configuration, FromVolume, Time, ToVolume};
use crate::metadata_layout::{
    DIRTY_PAGE, INTENT_SECTOR, INTENTS_OFFSET, dirty_offset, dirty_pages, events_offset,
    intent_sectors,
};
use crate::volume_action::Refusal;
use crate::volume_io::{Io, IoError, Value};

/// Longest piece in which the metadata area is read.
const PIECE: u64 = 64 << 10;

pub(super) struct Drain {
    by: Time,
    told: bool,
}

pub(super) enum Opening {
    /// Reads what lies at this offset next.
    Loading { at: u64 },
    /// The intents of a new area are being written.
    Formatting,
    /// Then its dirty pages.
    FormattingDirty,
}

pub(super) struct Closing {
    clean: bool,
    step: CloseStep,
}

#[derive(PartialEq, Eq)]
enum CloseStep {
    Flush,
    Dirty,
    Intents,
}

impl Volume {
    pub(super) fn obey(&mut self, order: ToVolume, turn: &mut Turn<'_>) {
        if matches!(self.stage, Stage::Failed) {
            return self.answer_failed(&order, turn);
        }
        match order {
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
                // What was answered from memory must survive a power cut before this node may go
                // on alone; from here on nothing more is answered from memory.
                if self.answers_from_memory() {
                    self.start_io(Use::Suspending, Io::Flush, turn);
                } else {
                    turn.tell(FromVolume::Suspended);
                }
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
                self.take_numbers_of(&source);
                self.partner_incarnation = Some(source_incarnation);
                self.suspended = false;
                self.stage = Stage::Target(Target::default());
            }
            ToVolume::Drain { by } => self.drain = Some(Drain { by, told: false }),
            ToVolume::Close => self.close(turn),
        }
    }

    /// A failed disk serves nothing; `Node` still gets the answers that it waits for.
    fn answer_failed(&self, order: &ToVolume, turn: &mut Turn<'_>) {
        match order {
            ToVolume::Suspend => turn.tell(FromVolume::Suspended),
            ToVolume::Drain { .. } => turn.tell(FromVolume::Drained { clean: false }),
            ToVolume::Close => turn.tell(FromVolume::Closed { clean: false }),
            ToVolume::Lease { .. } | ToVolume::Alone => {}
            _ => turn.tell(FromVolume::DiskFailed),
        }
    }

    // ---- opening

    fn open(&mut self, blank: bool, turn: &mut Turn<'_>) {
        assert!(matches!(self.stage, Stage::New), "a volume is opened once");
        if self.spec.partner.is_none() {
            self.stage = Stage::Idle;
            return turn.tell(FromVolume::Opened {
                dirty: 0,
                intents: 0,
            });
        }
        if blank {
            let (offset, bytes) = self.intents.format();
            self.stage = Stage::Opening(Opening::Formatting);
            self.start_io(
                Use::Opening,
                Io::WriteMeta {
                    offset,
                    bytes: bytes.into_boxed_slice(),
                },
                turn,
            );
        } else {
            self.load(INTENTS_OFFSET, turn);
        }
    }

    fn load(&mut self, at: u64, turn: &mut Turn<'_>) {
        let size = self.spec.size;
        let intents_end = INTENTS_OFFSET + intent_sectors(size) * INTENT_SECTOR;
        let at = if at >= intents_end {
            at.max(dirty_offset(size))
        } else {
            at
        };
        let end = if at < intents_end {
            intents_end
        } else {
            events_offset(size)
        };
        if at >= end {
            return self.opened(turn);
        }
        self.stage = Stage::Opening(Opening::Loading { at });
        let len = u32::try_from((end - at).min(PIECE)).expect("a piece is short");
        self.start_io(Use::Opening, Io::ReadMeta { offset: at, len }, turn);
    }

    pub(super) fn opening_done(&mut self, result: Result<Value, IoError>, turn: &mut Turn<'_>) {
        let Stage::Opening(opening) = &self.stage else {
            return;
        };
        match (opening, result) {
            (Opening::Loading { at }, Ok(Value::Bytes(bytes))) if !bytes.is_empty() => {
                let at = *at;
                let dirty = dirty_offset(self.spec.size);
                if at < dirty {
                    self.intents
                        .load((at - INTENTS_OFFSET) / INTENT_SECTOR, &bytes);
                } else {
                    self.dirty.load((at - dirty) / DIRTY_PAGE, &bytes);
                }
                self.load(at + bytes.len() as u64, turn);
            }
            (Opening::Formatting, Ok(_)) => {
                self.dirty.format();
                self.stage = Stage::Opening(Opening::FormattingDirty);
            }
            _ => self.fail(turn),
        }
    }

    fn opened(&mut self, turn: &mut Turn<'_>) {
        debug_assert!(
            dirty_pages(self.spec.size) > 0,
            "a volume has at least one page"
        );
        self.stage = Stage::Idle;
        let intents = u32::try_from(self.intents.count()).unwrap_or(u32::MAX);
        turn.tell(FromVolume::Opened {
            dirty: self.dirty.bytes(),
            intents,
        });
    }

    // ---- serving

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

    // ---- draining and closing

    /// Whether nothing that was admitted is uncommitted. A replica asks about what it applied.
    fn is_drained(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.role() == Role::Replica {
            for seq in self.running.keys().copied().collect::<alloc::vec::Vec<_>>() {
                self.ask_committed(seq, turn);
            }
        }
        self.running.is_empty()
            && self.forwards.is_empty()
            && self.inherited.is_empty()
            && self.applying == 0
    }

    pub(super) fn advance_drain(&mut self, turn: &mut Turn<'_>) {
        let Some(Drain { by, told: false }) = self.drain else {
            return;
        };
        let clean = self.is_drained(turn);
        if clean || turn.now >= by {
            self.drain = Some(Drain { by, told: true });
            turn.tell(FromVolume::Drained { clean });
        }
    }

    pub(super) fn drain_deadline(&self) -> Option<Time> {
        self.drain
            .as_ref()
            .filter(|drain| !drain.told)
            .map(|drain| drain.by)
    }

    fn close(&mut self, turn: &mut Turn<'_>) {
        let served = matches!(self.stage, Stage::Alone(_) | Stage::Paired(_));
        let clean = served && self.is_drained(turn);
        let clean = clean || (matches!(self.stage, Stage::Idle) && self.intents.count() == 0);
        if matches!(self.stage, Stage::New | Stage::Opening(_) | Stage::Closed) {
            return turn.tell(FromVolume::Closed { clean: false });
        }
        self.end_everything(Refusal::NotServed, turn);
        self.stage = Stage::Closing(Closing {
            clean,
            step: CloseStep::Flush,
        });
        self.start_io(Use::Closing, Io::Flush, turn);
    }

    pub(super) fn close_flushed(&mut self, result: &Result<Value, IoError>, turn: &mut Turn<'_>) {
        if result.is_err() {
            self.fail(turn);
            return turn.tell(FromVolume::Closed { clean: false });
        }
        if let Stage::Closing(closing) = &mut self.stage {
            closing.step = CloseStep::Dirty;
            self.dirty.want_all();
        }
    }

    /// Dirty pages first; only what they cover may lose its intents.
    pub(super) fn advance_closing(&mut self, turn: &mut Turn<'_>) {
        let Stage::Closing(closing) = &mut self.stage else {
            return;
        };
        if closing.step == CloseStep::Dirty && self.dirty.quiet() {
            closing.step = CloseStep::Intents;
            if closing.clean {
                self.intents.clear_all();
            }
        }
        if closing.step == CloseStep::Intents && self.intents.quiet() && self.applying == 0 {
            let clean = closing.clean && self.intents.count() == 0;
            self.stage = Stage::Closed;
            turn.tell(FromVolume::Closed { clean });
        }
    }

    pub(super) fn advance_opening(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.stage, Stage::Opening(Opening::FormattingDirty)) && self.dirty.quiet() {
            self.opened(turn);
        }
    }

    /// Says once that somebody waits for this volume to be served.
    pub(super) fn tell_wanted(&mut self, turn: &mut Turn<'_>) {
        let idle = self.suspended || matches!(self.stage, Stage::Idle);
        let waits = self.intake.waits_for_service()
            || self.reads.len() > 0
            || !self.flushes.is_empty()
            || !self.forwards.is_empty();
        if idle && waits && !self.wanted_told {
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

    /// Whether a copy holds everything because the target may join.
    pub(super) fn is_held_for_join(&self) -> bool {
        self.source().is_some_and(Source::holds)
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
