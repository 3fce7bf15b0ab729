//! Draining and closing: the planned end of service on this node.

use super::links::Links;
use super::running::Origin;
use super::stage::{Role, Stage};
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{FromVolume, Time};
use crate::dirty::Dirty;
use crate::intents::{Intents, MAX_SET};
use crate::volume_action::{Refusal, VolumeAction};
use crate::volume_io::{Io, IoError, Value};
use alloc::vec::Vec;

/// How long a replica whose own operations have ended still waits for word of the owner's. An
/// owner without load, or one that is being stopped as well, sends nothing new, and its word comes
/// within a round trip; one under load never comes to an end.
const LINGER: Time = Time::from_millis(500);

pub(super) struct Drain {
    by: Time,
    /// Since when nothing of this node's own initiators is left, at a replica.
    own_done: Option<Time>,
    told: bool,
}

pub(super) struct Closing {
    clean: bool,
    step: CloseStep,
}

#[derive(PartialEq, Eq)]
enum CloseStep {
    /// The disk still has writes of operations that are no longer remembered.
    Apply,
    Flush,
    Dirty,
    Intents,
}

impl Drain {
    pub(super) const fn new(by: Time) -> Self {
        Self {
            by,
            own_done: None,
            told: false,
        }
    }

    /// `Node` was told: it may have left the volume to the partner already.
    pub(super) const fn is_told(&self) -> bool {
        self.told
    }
}

impl Volume {
    /// Whether nothing is uncommitted.
    fn is_drained(&self) -> bool {
        self.owes_nothing() && self.running.is_empty() && self.applying == 0
    }

    /// A replica that is on its way out asks about everything, also what came after it said that
    /// it is drained: an owner that is being stopped as well may be gone soon.
    fn ask_about_everything(&mut self, turn: &mut Turn<'_>) {
        if self.role() == Role::Replica {
            for seq in self.running.keys().copied().collect::<Vec<_>>() {
                self.ask_committed(seq, turn);
            }
        }
    }

    /// Whether nothing that was admitted here is uncommitted. What the owner's side sends does not
    /// count at a replica: under load it never ends, and the owner keeps all of it.
    fn owes_nothing(&self) -> bool {
        let replica = self.role() == Role::Replica;
        let own = |origin: Origin| !replica || matches!(origin, Origin::Here(_));
        self.forwards.is_empty()
            && self.inherited.is_empty()
            && !self.running.values().any(|running| own(running.origin))
    }

    pub(super) fn advance_drain(&mut self, turn: &mut Turn<'_>) {
        let Some(Drain { by, own_done, told }) = self.drain else {
            return;
        };
        self.ask_about_everything(turn);
        if told {
            return;
        }
        let drained = self.is_drained();
        let own = self.role() == Role::Replica && self.owes_nothing();
        let own_done = own.then(|| own_done.unwrap_or(turn.now));
        let clean = drained || own_done.is_some_and(|since| turn.now >= since + LINGER);
        let told = clean || turn.now >= by;
        self.drain = Some(Drain { by, own_done, told });
        if told {
            turn.tell(FromVolume::Drained { clean });
        }
    }

    pub(super) fn drain_deadline(&self) -> Option<Time> {
        self.drain
            .as_ref()
            .filter(|drain| !drain.told)
            .map(|drain| {
                let lingered = drain.own_done.map(|since| since + LINGER);
                lingered.map_or(drain.by, |at| at.min(drain.by))
            })
    }

    /// Ends everything. What this node said to be stored is on its disk before `Closed`; what comes
    /// from now on is not applied, not acknowledged, and the partner goes on without it.
    pub(super) fn close(&mut self, covered: bool, turn: &mut Turn<'_>) {
        // What the target has not acknowledged is dirty, not uncommitted.
        self.end_source(turn);
        let served = matches!(self.stage, Stage::Alone(_) | Stage::Paired(_));
        let clean = served && (covered && self.owes_nothing() || self.is_drained());
        let clean = clean || (matches!(self.stage, Stage::Idle) && self.intents.count() == 0);
        if matches!(self.stage, Stage::New | Stage::Opening(_) | Stage::Closed) {
            return turn.tell(FromVolume::Closed { clean: false });
        }
        self.end_everything(Refusal::NotServed, turn);
        self.stage = Stage::Closing(Closing {
            clean,
            step: CloseStep::Apply,
        });
        self.advance_closing(turn);
    }

    /// The volume is gone from this node: everything is answered, every buffer is given back, and
    /// nothing is begun any more. What comes later is refused; the end of I/Os that the disk still
    /// has is told to nobody.
    pub fn retire(&mut self, now: Time, out: &mut Vec<VolumeAction>) {
        let turn = &mut Turn::new(now, out);
        self.end_everything(Refusal::NotServed, turn);
        self.refuse_passed_on(turn);
        self.stage = Stage::Closed;
        self.suspended = false;
        self.ios.clear();
        self.applying = 0;
        self.links = Links::default();
        self.tick_at = None;
        // The maps of a large volume take megabytes, and nobody knows how long it stays.
        let least = u64::from(self.spec.block_size);
        self.intents = Intents::new(self.spec.id, least, MAX_SET);
        self.dirty = Dirty::new(self.spec.id, least);
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
        if closing.step == CloseStep::Apply {
            if self.applying == 0 {
                closing.step = CloseStep::Flush;
                self.start_io(Use::Closing, Io::Flush, turn);
            }
            return;
        }
        if closing.step == CloseStep::Dirty && self.dirty.quiet() {
            closing.step = CloseStep::Intents;
            if closing.clean {
                self.intents.clear_all();
            }
        }
        if closing.step == CloseStep::Intents && self.intents.quiet() {
            let clean = closing.clean && self.intents.count() == 0;
            self.stage = Stage::Closed;
            turn.tell(FromVolume::Closed { clean });
        }
    }
}
