//! An orderly stop: drain, leave the volume to the partner, flush, and write the clean flag.

use super::{Membership, Output, Path, Role, Turn, Why};
use crate::control::{Members, Time, ToVolume};
use core::time::Duration;

/// How long the partner may take to go on alone, or to drain as well, once everything is drained
/// here.
const HANDOVER: Duration = Duration::from_secs(5);
/// How much later than asked a data path may answer before it is no longer waited for.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// How far an orderly stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    /// Drained by then, or not at all.
    by: Time,
    /// Drained, and since when the partner is asked to go on.
    drained: Option<Time>,
    clean: bool,
    /// Nothing is left to do.
    done: bool,
}

/// How far the partner is with a volume that this node leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handover {
    /// There is nobody who could take it over.
    None,
    /// The partner may still need what this replica acknowledges, or is on its way to go alone.
    UnderWay,
    /// The partner serves alone, and whatever may differ is durably marked there.
    Done,
}

impl Membership {
    /// This node is to stop: drain until then.
    pub fn stop(&mut self, by: Time) {
        self.stopping.get_or_insert(Stop {
            by,
            drained: None,
            clean: true,
            done: false,
        });
    }

    /// Whether everything that a stop needs is done.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopping.is_some_and(|it| it.done)
            || self.refused.is_some()
            || self.path == Path::Opening
    }

    /// Whether the next start finds nothing to compare.
    #[must_use]
    pub const fn stopped_clean(&self) -> bool {
        self.durable.clean
    }

    /// Drained, and waiting for the partner to take over.
    pub(super) fn leaving(&self) -> bool {
        self.stopping.is_some_and(|it| it.drained.is_some())
    }

    pub(super) fn drained(&mut self, clean: bool) {
        if self.path == Path::Draining {
            self.path = Path::Drained;
        }
        if let Some(stop) = &mut self.stopping {
            stop.clean &= clean;
        }
    }

    pub(super) fn closed(&mut self, clean: bool) {
        if self.path == Path::Closing {
            self.path = Path::Closed;
        }
        if let Some(stop) = &mut self.stopping {
            stop.clean &= clean;
        }
    }

    pub(super) fn step_stop(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(stop) = self.stopping else {
            return false;
        };
        self.why = if self.durable.split_brain || self.disk_failed {
            self.why
        } else {
            Why::Stopping
        };
        match self.path {
            Path::Serving => {
                self.path = Path::Draining;
                turn.out
                    .push(Output::Order(ToVolume::Drain { by: stop.by }));
                return false;
            }
            Path::Draining if turn.now < stop.by + GRACE => return false,
            Path::Following | Path::Draining | Path::Opening => {
                self.finish_without_flag();
                self.suspended(turn);
                return true;
            }
            Path::Suspending | Path::Closing if turn.now < stop.by + HANDOVER + GRACE => {
                return false;
            }
            _ => {}
        }
        self.role = Role::Idle;
        let Some(since) = stop.drained else {
            self.stopping = Some(Stop {
                drained: Some(turn.now),
                ..stop
            });
            return true;
        };
        let handover = self.handover();
        let waiting = handover == Handover::UnderWay && self.path != Path::Closed;
        if waiting && turn.now < since + HANDOVER {
            return false;
        }
        self.close(turn, stop, handover == Handover::Done)
    }

    /// How far the partner is with what this node leaves to it.
    pub(super) fn handover(&self) -> Handover {
        let together = self.durable.configuration.members.count() == 2 && self.served.is_some();
        let Some(view) = self.current_view().filter(|_| together) else {
            return Handover::None;
        };
        let theirs = view.record.configuration;
        let same = theirs.lineage() == self.durable.configuration.lineage();
        if view.stopping {
            // It drains as well, and needs this node's acknowledgements for that.
            return if same && !view.yields && !view.record.disk_failed {
                Handover::UnderWay
            } else {
                Handover::None
            };
        }
        let alone = theirs.members == Members::only(view.record.node)
            && theirs.epoch > self.durable.configuration.epoch;
        match view.yields || view.record.disk_failed {
            true => Handover::None,
            false if alone && view.settled => Handover::Done,
            false if alone || same => Handover::UnderWay,
            false => Handover::None,
        }
    }

    fn close(&mut self, turn: &mut Turn<'_>, stop: Stop, covered: bool) -> bool {
        match self.path {
            Path::Drained | Path::Suspended if self.served.is_some() => {
                self.path = Path::Closing;
                turn.out.push(Output::Order(ToVolume::Close { covered }));
                false
            }
            // A run that never served leaves the flag as it found it. One that still has to be
            // resynchronised after a crash must not look as if it had nothing to compare.
            Path::Closed
                if stop.clean
                    && !self.crashed
                    && !self.disk_failed
                    && !self.durable.inconsistent =>
            {
                let durable = self.persist(turn, |it| it.clean = true);
                if durable {
                    self.stopping = Some(Stop { done: true, ..stop });
                }
                false
            }
            _ => {
                self.stopping = Some(Stop {
                    done: self.writing.is_none(),
                    ..stop
                });
                false
            }
        }
    }

    /// What could not be drained, or was only being copied, is compared after the next start.
    fn finish_without_flag(&mut self) {
        if let Some(stop) = &mut self.stopping {
            stop.clean = false;
        }
    }
}
