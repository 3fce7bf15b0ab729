//! Draining and closing: the planned end of service on this node.

use super::stage::{Role, Stage};
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{FromVolume, Time};
use crate::volume_action::Refusal;
use crate::volume_io::{Io, IoError, Value};
use alloc::vec::Vec;

pub(super) struct Drain {
    by: Time,
    told: bool,
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

impl Drain {
    pub(super) const fn new(by: Time) -> Self {
        Self { by, told: false }
    }

    /// `Node` was told: it may have left the volume to the partner already.
    pub(super) const fn is_told(&self) -> bool {
        self.told
    }
}

impl Volume {
    /// Whether nothing that was admitted is uncommitted. A replica asks about what it applied.
    fn is_drained(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.role() == Role::Replica {
            for seq in self.running.keys().copied().collect::<Vec<_>>() {
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

    pub(super) fn close(&mut self, turn: &mut Turn<'_>) {
        // What the target has not acknowledged is dirty, not uncommitted.
        self.end_source(turn);
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
}
