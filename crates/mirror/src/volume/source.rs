//! A resync, at the source: the only member brings the partner's copy up to date.
//!
//! ```text
//! Collecting ──► Persisting ──► Waiting ──Copy──► Copying ──► Draining ──► Flushing ──► Ready
//! ```
//! A step takes up to 1 MiB of marked chunks: it hashes them and lets the target compare. Chunks
//! that are equal, and that nobody wrote to since, are clean. The others are read again under the
//! range lock and sent as an operation of their own; the lock is held until the target stored
//! it, so that afterwards they are clean and every later write of them is mirrored. So one pass
//! cleans everything, and nothing can become dirty again but by losing the target.

use super::copy::CopyStep;
use super::flushes::Purpose;
use super::links::Asked;
use super::pace::PaceStatus;
use super::running::{Origin, Running};
use super::stage::Stage;
use super::turn::Turn;
use super::watchdog::ResyncWait;
use super::{MAX_BYTES_IN_FLIGHT, ResyncStatus, Volume};
use crate::control::{FromVolume, Incarnation, Time};
use crate::data_frame::{BITS_SPAN, DataFrame};
use crate::dirty::Dirty;
use crate::metadata_layout::CHUNK;
use crate::operation::{Extent, Operation};
use crate::volume_action::ChannelId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Mirrored writes in flight; beyond it a write is only marked and copied later, so that a slow
/// target does not hold the initiators.
const MIRRORED: usize = 256;
/// The same in bytes: half of what may be in flight.
const MIRRORED_BYTES: u64 = MAX_BYTES_IN_FLIGHT / 2;
/// How often progress is told.
const PROGRESS_EVERY: Time = Time::from_secs(1);

pub(super) struct Source {
    pub(super) attempt: u64,
    pub(super) phase: Phase,
    pub(super) steps: BTreeMap<u64, CopyStep>,
    /// Where the next step looks for marked chunks.
    pub(super) cursor: u64,
    pub(super) retry_at: Time,
    /// Bytes compared or copied.
    pub(super) done: u64,
    /// Steps begun.
    pub(super) begun: u64,
    /// Whole steps in a row that differed everywhere.
    pub(super) differed: u32,
    /// Something was cleaned since the last tick.
    pub(super) moved: bool,
    /// What it waited for at the last tick.
    pub(super) waits: Option<ResyncWait>,
    /// When something of it was last done, or something with a name was waited for.
    pub(super) progress_at: Time,
    pub(super) told_at: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The target's bits are fetched from this offset on; asked for on that channel.
    Collecting {
        offset: u64,
        asked: Option<ChannelId>,
    },
    /// The union is being made durable.
    Persisting,
    /// The target records that it is inconsistent.
    Waiting,
    Copying,
    /// Nothing is admitted; what is in flight ends.
    Draining {
        state_sent: bool,
    },
    Flushing,
    Ready,
}

impl Phase {
    const fn word(self) -> &'static str {
        match self {
            Self::Collecting { .. } => "collecting",
            Self::Persisting => "persisting",
            Self::Waiting => "waiting",
            Self::Copying => "copying",
            Self::Draining { .. } => "draining",
            Self::Flushing => "flushing",
            Self::Ready => "ready",
        }
    }
}

impl Source {
    pub(super) const fn new(attempt: u64, phase: Phase, now: Time) -> Self {
        Self {
            attempt,
            phase,
            steps: BTreeMap::new(),
            cursor: 0,
            retry_at: Time::ZERO,
            done: 0,
            begun: 0,
            differed: 0,
            moved: false,
            waits: None,
            progress_at: now,
            told_at: now,
        }
    }

    /// Every step that was begun waits for a buffer.
    pub(super) fn waits_for_memory(&self) -> bool {
        !self.steps.is_empty() && self.steps.values().all(CopyStep::waits_for_memory)
    }

    /// Nothing is admitted because the target may join.
    pub(super) fn holds(&self) -> bool {
        matches!(
            self.phase,
            Phase::Draining { .. } | Phase::Flushing | Phase::Ready
        )
    }

    /// Both copies are equal and flushed, and nothing has been admitted since.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether writes go to the target too.
    fn mirrors(&self) -> bool {
        self.holds() || self.phase == Phase::Copying
    }

    pub(super) fn late(&self, before: Time) -> bool {
        self.steps.values().any(|step| step.late(before))
    }

    pub(super) fn channel_gone(&mut self, gone: ChannelId) {
        if let Phase::Collecting { asked, .. } = &mut self.phase {
            asked.take_if(|channel| *channel == gone);
        }
        for step in self.steps.values_mut() {
            step.channel_gone(gone);
        }
    }

    /// A write of marked chunks: what a step read of them is not to be relied on.
    fn touch(&mut self, extent: Extent) {
        let written = Dirty::chunks(extent);
        for step in self.steps.values_mut() {
            step.touch(&written);
        }
    }
}

impl Volume {
    pub(super) fn collect(
        &mut self,
        partner_incarnation: Incarnation,
        everything: bool,
        turn: &mut Turn<'_>,
    ) {
        self.end_source(turn);
        self.attempts += 1;
        let attempt = self.attempts;
        let Stage::Alone(alone) = &mut self.stage else {
            return;
        };
        let phase = if everything {
            Phase::Persisting
        } else {
            Phase::Collecting {
                offset: 0,
                asked: None,
            }
        };
        alone.source = Some(Source::new(attempt, phase, turn.now));
        self.partner_incarnation = Some(partner_incarnation);
        self.links.forget();
        if everything {
            self.counts.full_resyncs += 1;
            self.dirty.mark(Extent {
                offset: 0,
                len: self.spec.size,
            });
            self.dirty.want_all();
        }
        self.say_ready_everywhere(turn);
    }

    pub(super) fn start_copy(&mut self, turn: &Turn<'_>) {
        let dirty = self.dirty.bytes();
        if let Some(source) = self.source_mut()
            && source.phase == Phase::Waiting
        {
            source.phase = Phase::Copying;
            source.progress_at = turn.now;
            source.told_at = turn.now;
            self.pace.begin(turn.now, dirty);
        }
    }

    /// The target is gone or the join failed. What was not acknowledged is dirty.
    pub(super) fn end_source(&mut self, turn: &mut Turn<'_>) {
        let Stage::Alone(alone) = &mut self.stage else {
            return;
        };
        let Some(source) = alone.source.take() else {
            return;
        };
        self.links.forget();
        for (_, step) in source.steps {
            self.end_step(step, turn);
        }
        for seq in self.running.keys().copied().collect::<Vec<_>>() {
            let running = self.running.get_mut(&seq).expect("listed just now");
            running.confirmed = true;
            if core::mem::take(&mut running.lent) {
                let extent = running
                    .operation
                    .extent()
                    .expect("only a write is lent for");
                self.dirty.mark(extent);
                self.dirty.repay(extent);
            }
            self.finish(seq, turn);
        }
        self.flushes
            .retain(|_, flush| flush.purpose != Purpose::Join);
    }

    pub(super) fn bits_came(&mut self, offset: u64, bits: &[u8], turn: &mut Turn<'_>) {
        let Some(source) = self.source_mut() else {
            return;
        };
        let Phase::Collecting { offset: wanted, .. } = source.phase else {
            return;
        };
        if wanted != offset {
            return;
        }
        // Bits that are missing must not count as clean.
        let covered = (self.spec.size - offset).min(BITS_SPAN).div_ceil(CHUNK);
        if bits.len() as u64 != covered.div_ceil(8) {
            self.counts.bad_frames += 1;
            return;
        }
        let Some(source) = self.source_mut() else {
            return;
        };
        let next = offset + BITS_SPAN;
        source.phase = Phase::Collecting {
            offset: next,
            asked: None,
        };
        source.progress_at = turn.now;
        self.dirty.merge(offset / CHUNK, bits);
        self.advance_source(turn);
    }

    pub(super) fn advance_source(&mut self, turn: &mut Turn<'_>) {
        let size = self.spec.size;
        let Some(source) = self.source() else { return };
        match source.phase {
            Phase::Collecting {
                offset,
                asked: None,
            } if offset < size => {
                let asked = self.send(DataFrame::AskBits { offset }, turn);
                self.set_phase(Phase::Collecting { offset, asked });
            }
            Phase::Collecting { asked: Some(_), .. } => {}
            Phase::Collecting { .. } => {
                self.dirty.want_all();
                self.set_phase(Phase::Persisting);
            }
            Phase::Persisting if self.dirty.quiet() => {
                self.set_phase(Phase::Waiting);
                turn.tell(FromVolume::UnionDurable {
                    dirty: self.dirty.bytes(),
                });
            }
            Phase::Persisting | Phase::Waiting | Phase::Ready => {}
            Phase::Copying => self.advance_copying(turn),
            Phase::Draining { state_sent } => self.advance_join(state_sent, turn),
            Phase::Flushing => {}
        }
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        if let Some(source) = self.source_mut() {
            source.moved |= source.phase.word() != phase.word();
            source.phase = phase;
        }
    }

    // ---- writes meanwhile

    /// A write of the only member: mirrored if a copy is under way and it touches a clean chunk,
    /// else its chunks are marked. It is sent when its intents are durable: see `apply`.
    pub(super) fn mirror_or_mark(&mut self, seq: u64) {
        let running = &self.running[&seq];
        let extent = running
            .operation
            .extent()
            .filter(|_| self.spec.partner.is_some());
        let Some(extent) = extent else {
            self.running
                .get_mut(&seq)
                .expect("looked at just now")
                .confirmed = true;
            return;
        };
        let clean = Dirty::chunks(extent).any(|chunk| !self.dirty.is_marked(chunk));
        let reachable = self.links.any_ready()
            && self.running.len() <= MIRRORED
            && self.bytes_running <= MIRRORED_BYTES
            && self.may_send(seq);
        let mirrored = clean && reachable && self.source().is_some_and(Source::mirrors);
        if let Some(source) = self.source_mut() {
            source.touch(extent);
        }
        let running = self.running.get_mut(&seq).expect("looked at just now");
        if mirrored {
            running.lent = true;
            self.dirty.lend(extent);
        } else {
            running.confirmed = true;
            self.dirty.mark(extent);
        }
    }

    // ---- joining

    /// Everything is clean and nothing is admitted: the SCSI state follows, then both flush.
    fn advance_join(&mut self, state_sent: bool, turn: &mut Turn<'_>) {
        if self.dirty.bytes() > 0 {
            return self.set_phase(Phase::Copying);
        }
        if !self.running.is_empty() || self.applying > 0 || !self.links.any_ready() {
            return;
        }
        if state_sent {
            self.set_phase(Phase::Flushing);
            return self.add_flush(Purpose::Join, turn.now);
        }
        self.set_phase(Phase::Draining { state_sent: true });
        for (kind, bytes) in self.states.clone() {
            let seq = self.insert(Running::new(
                Operation::State { kind, bytes },
                Origin::Copy(None),
                None,
                turn.now,
            ));
            self.begin_apply(seq, turn);
            self.send_sequenced(seq, Asked::Nowhere, turn);
        }
    }

    pub(super) fn flushed_to_join(&mut self, turn: &mut Turn<'_>) {
        if self
            .source()
            .is_some_and(|source| source.phase == Phase::Flushing)
        {
            self.set_phase(Phase::Ready);
            turn.tell(FromVolume::JoinReady);
        }
    }

    // ---- telling

    pub(super) fn tell_progress(&mut self, turn: &mut Turn<'_>) {
        let dirty = self.dirty.bytes();
        let waits = self.resync_waits(turn.now);
        if let Some(source) = self.source_mut() {
            source.waits = waits;
        }
        if let Some(source) = self.source_mut()
            && source.phase == Phase::Copying
            && turn.now >= source.told_at + PROGRESS_EVERY
        {
            source.told_at = turn.now;
            turn.tell(FromVolume::Progress {
                dirty,
                done: source.done,
            });
        }
    }

    pub(super) fn resync_status(&self) -> Option<ResyncStatus> {
        match &self.stage {
            Stage::Target(_) => Some(ResyncStatus {
                source: false,
                dirty: 0,
                done: 0,
                ready: false,
                phase: "following",
                steps: 0,
                waits: None,
                pace: PaceStatus::default(),
            }),
            _ => self.source().map(|source| ResyncStatus {
                source: true,
                dirty: self.dirty.bytes(),
                done: source.done,
                ready: source.phase == Phase::Ready,
                phase: source.phase.word(),
                steps: source.steps.len(),
                waits: source.waits,
                pace: self.pace.status(),
            }),
        }
    }
}
