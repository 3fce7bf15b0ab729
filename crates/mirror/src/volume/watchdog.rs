//! A resync that makes no progress, though nothing that has a name is waited for, is begun anew:
//! its disk may have swallowed a request, or a channel a message. What is dirty stays dirty, so a
//! new attempt repeats nothing that was done.

use super::Volume;
use super::source::{Phase, Source};
use super::stage::Stage;
use super::turn::Turn;
use crate::control::{FromVolume, Time};

/// Without a step for so long an attempt is given up. Far above what a slow disk or a lossy link
/// needs for a step (a step that the target does not answer is late after 5 s), and short against
/// the time in which a person would look.
pub(super) const STALLED_AFTER: Time = Time::from_secs(30);

/// What a resync waits for that is not its own to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncWait {
    /// The decision that the copy may begin, or that the partner may join.
    Decision,
    /// A data connection to the target.
    Connection,
    /// Memory for a step.
    Memory,
    /// Only what could not be read here is left; it is tried again.
    Unreadable,
    /// Nothing is acknowledged here at present.
    Suspended,
}

impl ResyncWait {
    /// For people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Decision => "waits for both nodes to agree on the next step",
            Self::Connection => "waits for a data connection to the other node",
            Self::Memory => "waits for memory: engine.pool_memory is used up",
            Self::Unreadable => {
                "only blocks that this node cannot read are left; they are tried again"
            }
            Self::Suspended => "waits until this node serves again",
        }
    }
}

impl Volume {
    /// What a resync waits for, if it has a name.
    pub(super) fn resync_waits(&self, now: Time) -> Option<ResyncWait> {
        let source = self.source()?;
        match source.phase {
            Phase::Waiting | Phase::Ready => Some(ResyncWait::Decision),
            _ if self.suspended => Some(ResyncWait::Suspended),
            _ if self.links.counts().0 == 0 => Some(ResyncWait::Connection),
            Phase::Copying if source.steps.is_empty() && source.retry_at > now => {
                Some(ResyncWait::Unreadable)
            }
            Phase::Copying if source.waits_for_memory() => Some(ResyncWait::Memory),
            _ => None,
        }
    }

    /// Looks whether the attempt stands still.
    pub(super) fn watch_resync(&mut self, turn: &mut Turn<'_>) {
        let waits = self.resync_waits(turn.now).is_some();
        let Some(source) = self.source_mut() else {
            return;
        };
        if waits || core::mem::take(&mut source.moved) {
            source.progress_at = turn.now;
        } else if turn.now >= source.progress_at + STALLED_AFTER {
            self.restart_resync(turn);
        }
    }

    /// The same copy in a new attempt: the target drops what it has of the old one, and lost
    /// messages are said again. What was made durable before the copy began still holds.
    fn restart_resync(&mut self, turn: &mut Turn<'_>) {
        let Some(source) = self.source() else { return };
        let phase = match source.phase {
            Phase::Collecting { .. } => Phase::Collecting {
                offset: 0,
                asked: None,
            },
            Phase::Persisting => Phase::Persisting,
            Phase::Waiting
            | Phase::Copying
            | Phase::Draining { .. }
            | Phase::Flushing
            | Phase::Ready => Phase::Copying,
        };
        let done = source.done;
        self.end_source(turn);
        self.counts.resync_restarts += 1;
        self.attempts += 1;
        let attempt = self.attempts;
        let Stage::Alone(alone) = &mut self.stage else {
            return;
        };
        alone.source = Some(Source {
            done,
            ..Source::new(attempt, phase, turn.now)
        });
        turn.tell(FromVolume::ResyncRestarted);
        self.reads.stirred = true;
        self.say_ready_everywhere(turn);
    }
}
