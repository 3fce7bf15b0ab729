//! When intents and dirty pages are written, and when intents are cleared: by idleness, after
//! both copies are flushed, or alone after the dirty pages are durable.

use super::flushes::Purpose;
use super::stage::{Role, Stage};
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{CacheMode, Time};
use crate::volume_io::{Io, IoError, Value};
use alloc::vec::Vec;

/// A region without a write for so long loses its intent.
pub(super) const IDLE_AFTER: Time = Time::from_secs(30);
/// Most regions cleared in one round: what one write of a sector can change.
const MAX_CLEANED: usize = 4032;
/// How many are cleared, though not idle for long, to make room for others.
const ROOM: usize = 256;

/// How often idle regions are looked for.
const LOOK_EVERY: Time = Time::from_secs(1);

/// A round of clearing intents.
#[derive(Default)]
pub(super) struct Cleaning {
    regions: Vec<u64>,
    since: Time,
    step: Step,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Step {
    #[default]
    Rest,
    Flush,
    Dirty,
}

impl Volume {
    /// One write for all that wait, one under way at a time.
    pub(super) fn write_metadata(&mut self, turn: &mut Turn<'_>) {
        if self.spec.partner.is_none()
            || matches!(self.stage, Stage::New | Stage::Closed | Stage::Failed)
        {
            return;
        }
        if !matches!(self.stage, Stage::Opening(_))
            && let Some((offset, bytes)) = self.intents.write()
        {
            self.counts.metadata_writes += 1;
            self.start_io(Use::Intents, Io::WriteMeta { offset, bytes }, turn);
        }
        if let Some((offset, bytes)) = self.dirty.write() {
            self.counts.metadata_writes += 1;
            self.start_io(Use::Dirty, Io::WriteMeta { offset, bytes }, turn);
        }
    }

    pub(super) fn intents_written(&mut self, result: &Result<Value, IoError>, turn: &mut Turn<'_>) {
        if result.is_err() {
            return self.fail(turn);
        }
        self.intents.written();
        self.apply_intended(turn);
    }

    pub(super) fn dirty_written(&mut self, result: &Result<Value, IoError>, turn: &mut Turn<'_>) {
        if result.is_err() {
            return self.fail(turn);
        }
        self.dirty.written();
    }

    /// Whether this node clears intents in its present state.
    pub(super) fn cleans(&self) -> bool {
        self.spec.partner.is_some()
            && matches!(self.role(), Role::Alone | Role::Owner | Role::Replica)
    }

    /// Starts a round, if there is something to clear and this node may.
    pub(super) fn start_cleaning(&mut self, turn: &Turn<'_>) {
        if !self.cleans() || self.suspended || self.cleaning.step != Step::Rest {
            return;
        }
        // Somebody may wait because too many regions are set: the longest idle give way.
        let (before, most) = if self.stalled.is_empty() {
            (turn.now.saturating_sub(IDLE_AFTER), MAX_CLEANED)
        } else {
            (turn.now, ROOM)
        };
        if before == Time::ZERO {
            return;
        }
        // Walking all regions is not done at each tick.
        if self.stalled.is_empty() && turn.now < self.clean_at {
            return;
        }
        self.clean_at = turn.now + LOOK_EVERY;
        let regions = self.intents.idle(before, most);
        if regions.is_empty() {
            return;
        }
        let step = match (self.role(), self.spec.cache) {
            (Role::Alone, _) => {
                for region in &regions {
                    self.dirty.want_region(*region);
                }
                Step::Dirty
            }
            (_, CacheMode::WriteBack) => {
                self.add_flush(Purpose::Clean, turn.now);
                Step::Flush
            }
            // What is committed is durable on both.
            (_, CacheMode::None | CacheMode::WriteThrough) => Step::Dirty,
        };
        self.cleaning = Cleaning {
            regions,
            since: turn.now,
            step,
        };
    }

    pub(super) fn flushed_to_clean(&mut self) {
        if self.cleaning.step == Step::Flush {
            self.cleaning.step = Step::Dirty;
        }
    }

    /// Clears what is still idle once everything that it covered is durable.
    pub(super) fn advance_cleaning(&mut self, turn: &mut Turn<'_>) {
        if self.cleaning.step != Step::Dirty || !self.dirty.quiet() {
            return;
        }
        let Cleaning { regions, since, .. } = core::mem::take(&mut self.cleaning);
        for region in regions {
            if self.intents.still_idle(region, since) {
                self.intents.clear(region);
            }
        }
        self.apply_those_behind(turn);
    }
}
