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

use super::flushes::Purpose;
use super::running::{Local, Origin, Running};
use super::stage::Stage;
use super::turn::Turn;
use super::{ResyncStatus, Use, Volume};
use crate::control::{FromVolume, Incarnation, Time};
use crate::data_frame::{BITS_SPAN, DataFrame};
use crate::dirty::Dirty;
use crate::metadata_layout::CHUNK;
use crate::operation::{BufferId, Extent, Operation, Payload};
use crate::volume_action::{ChannelId, VolumeAction};
use crate::volume_io::{Io, IoError, Value};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// Chunks in a step: 1 MiB, the longest write.
const STEP_CHUNKS: u64 = 16;
/// Steps at once while no initiator is active: they hide the round trip.
const STEPS_IDLE: usize = 4;
/// Steps at once while initiators write: their latency comes first, the copy never stands still.
const STEPS_BUSY: usize = 2;
/// Mirrored writes in flight; beyond it a write is only marked and copied later, so that a slow
/// target does not hold the initiators.
const MIRRORED: usize = 256;
/// When a chunk that could not be read is tried again.
const RETRY_AFTER: Time = Time::from_secs(10);
/// How often progress is told.
const PROGRESS_EVERY: Time = Time::from_secs(1);

pub(super) struct Source {
    pub(super) attempt: u64,
    phase: Phase,
    steps: BTreeMap<u64, CopyStep>,
    /// Where the next step looks for marked chunks.
    cursor: u64,
    retry_at: Time,
    done: u64,
    told_at: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
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

struct CopyStep {
    chunks: Range<u64>,
    buffer: Option<BufferId>,
    /// Chunks written to since the step began to read: bit 0 is the first.
    touched: u64,
    state: State,
    since: Time,
}

enum State {
    NeedBuffer,
    Reading,
    Hashing,
    Asking {
        hashes: Box<[u8]>,
        channel: Option<ChannelId>,
    },
    Locking {
        order: u64,
        extent: Extent,
    },
    Rereading {
        order: u64,
        extent: Extent,
    },
    Summing {
        order: u64,
        extent: Extent,
    },
    /// The window has no room yet.
    Summed {
        order: u64,
        extent: Extent,
        crc: u32,
    },
    Sent {
        extent: Extent,
    },
}

impl Source {
    /// Nothing is admitted because the target may join.
    pub(super) fn holds(&self) -> bool {
        matches!(
            self.phase,
            Phase::Draining { .. } | Phase::Flushing | Phase::Ready
        )
    }

    /// Whether writes go to the target too.
    fn mirrors(&self) -> bool {
        self.holds() || self.phase == Phase::Copying
    }

    pub(super) fn late(&self, before: Time) -> bool {
        self.steps
            .values()
            .any(|step| matches!(step.state, State::Asking { .. }) && step.since < before)
    }

    pub(super) fn channel_gone(&mut self, gone: ChannelId) {
        if let Phase::Collecting { asked, .. } = &mut self.phase {
            asked.take_if(|channel| *channel == gone);
        }
        for step in self.steps.values_mut() {
            if let State::Asking { channel, .. } = &mut step.state {
                channel.take_if(|channel| *channel == gone);
            }
        }
    }

    /// A write of marked chunks: what a step read of them is not to be relied on.
    fn touch(&mut self, extent: Extent) {
        let written = Dirty::chunks(extent);
        for step in self.steps.values_mut() {
            step.touched |= overlap(&step.chunks, &written);
        }
    }
}

/// Which of a step's chunks are among others.
fn overlap(step: &Range<u64>, others: &Range<u64>) -> u64 {
    let start = step.start.max(others.start);
    let end = step.end.min(others.end);
    (start..end).fold(0, |bits, chunk| bits | 1 << (chunk - step.start))
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
        alone.source = Some(Source {
            attempt,
            phase,
            steps: BTreeMap::new(),
            cursor: 0,
            retry_at: Time::ZERO,
            done: 0,
            told_at: turn.now,
        });
        self.partner_incarnation = Some(partner_incarnation);
        self.links.forget();
        if everything {
            self.dirty.mark(Extent {
                offset: 0,
                len: self.spec.size,
            });
            self.dirty.want_all();
        }
        self.say_ready_everywhere(turn);
    }

    pub(super) fn start_copy(&mut self, turn: &mut Turn<'_>) {
        if let Some(source) = self.source_mut()
            && source.phase == Phase::Waiting
        {
            source.phase = Phase::Copying;
            source.told_at = turn.now;
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
            if let State::Locking { order, .. }
            | State::Rereading { order, .. }
            | State::Summing { order, .. }
            | State::Summed { order, .. } = step.state
            {
                self.unlock(order, turn);
            }
            // What was sent gives its buffer back with its operation.
            if let (Some(buffer), false) = (step.buffer, matches!(step.state, State::Sent { .. })) {
                turn.release(buffer);
            }
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
        let next = offset + BITS_SPAN;
        source.phase = Phase::Collecting {
            offset: next,
            asked: None,
        };
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

    fn set_phase(&mut self, phase: Phase) {
        if let Some(source) = self.source_mut() {
            source.phase = phase;
        }
    }

    // ---- copying

    fn advance_copying(&mut self, turn: &mut Turn<'_>) {
        self.send_summed(turn);
        let Some(source) = self.source() else { return };
        let busy = self
            .running
            .values()
            .any(|running| matches!(running.origin, Origin::Here(_)));
        let most = if busy { STEPS_BUSY } else { STEPS_IDLE };
        if source.steps.is_empty() && self.dirty.bytes() == 0 && !self.suspended {
            return self.set_phase(Phase::Draining { state_sent: false });
        }
        if !self.links.any_ready() {
            return;
        }
        while self
            .source()
            .is_some_and(|source| source.steps.len() < most)
        {
            if !self.start_step(turn) {
                return;
            }
        }
    }

    fn start_step(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(source) = self.source() else {
            return false;
        };
        let Some(chunks) = self.dirty.next_run(source.cursor, STEP_CHUNKS) else {
            // Round again, for what could not be read before.
            let again = source.steps.is_empty()
                && self.dirty.bytes() > 0
                && source.cursor > 0
                && turn.now >= source.retry_at;
            if again && let Some(source) = self.source_mut() {
                source.cursor = 0;
            }
            return again;
        };
        let len = u32::try_from(self.dirty.extent(&chunks).len).expect("a step is at most 1 MiB");
        let request = self.next_request;
        self.next_request += 1;
        let source = self.source_mut().expect("looked at just now");
        source.cursor = chunks.end;
        source.steps.insert(
            request,
            CopyStep {
                chunks,
                buffer: None,
                touched: 0,
                state: State::NeedBuffer,
                since: turn.now,
            },
        );
        turn.out.push(VolumeAction::NeedBuffer { request, len });
        true
    }

    fn step(&mut self, id: u64) -> Option<&mut CopyStep> {
        self.source_mut()?.steps.get_mut(&id)
    }

    pub(super) fn buffer_came(&mut self, request: u64, buffer: BufferId, turn: &mut Turn<'_>) {
        let Some(chunks) = self
            .step(request)
            .filter(|step| step.buffer.is_none())
            .map(|step| step.chunks.clone())
        else {
            return self.buffer_to_compare(request, buffer, turn);
        };
        // A write that the disk has not got yet: what is read may be older than what is marked.
        let unfinished = self
            .running
            .values()
            .filter(|running| running.local != Local::Done)
            .filter_map(|running| running.operation.extent());
        let touched = unfinished.fold(0, |bits, extent| {
            bits | overlap(&chunks, &Dirty::chunks(extent))
        });
        let extent = self.dirty.extent(&chunks);
        let step = self.step(request).expect("looked at just now");
        step.buffer = Some(buffer);
        step.touched = touched;
        step.state = State::Reading;
        self.start_io(
            Use::Step(request),
            Io::Read {
                extent,
                buffer,
                at: 0,
            },
            turn,
        );
    }

    pub(super) fn step_done(
        &mut self,
        id: u64,
        result: Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        // Its attempt may be over.
        let Some(step) = self.step(id) else { return };
        let Some(buffer) = step.buffer else { return };
        let first = step.chunks.start * CHUNK;
        let chunks = step.chunks.clone();
        match (&step.state, result) {
            (State::Reading, Ok(_)) => {
                step.state = State::Hashing;
                let len = length(self.dirty.extent(&chunks));
                self.start_io(
                    Use::Step(id),
                    Io::Hash {
                        buffer,
                        at: 0,
                        len,
                        piece: length_of_chunk(),
                    },
                    turn,
                );
            }
            (State::Hashing, Ok(Value::Hashes(hashes))) => {
                step.state = State::Asking {
                    hashes,
                    channel: None,
                };
                step.since = turn.now;
                self.send_hashes(id, turn);
            }
            (&State::Rereading { order, extent }, Ok(_)) => {
                step.state = State::Summing { order, extent };
                let at = length_between(first, extent.offset);
                self.start_io(
                    Use::Step(id),
                    Io::Crc {
                        buffer,
                        at,
                        len: length(extent),
                    },
                    turn,
                );
            }
            (&State::Summing { order, extent }, Ok(Value::Crc(crc))) => {
                step.state = State::Summed { order, extent, crc };
            }
            (_, _) => self.give_up_step(id, turn),
        }
    }

    /// The source itself cannot read it: it stays dirty, and is tried again later.
    fn give_up_step(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(source) = self.source_mut() else {
            return;
        };
        source.retry_at = turn.now + RETRY_AFTER;
        let Some(step) = source.steps.remove(&id) else {
            return;
        };
        if let Some(buffer) = step.buffer {
            turn.release(buffer);
        }
        if let State::Rereading { order, .. } | State::Summing { order, .. } = step.state {
            self.unlock(order, turn);
        }
        turn.tell(FromVolume::Unreadable {
            extent: self.dirty.extent(&step.chunks),
        });
    }

    fn send_hashes(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(step) = self.step(id) else { return };
        let State::Asking {
            hashes,
            channel: None,
        } = &step.state
        else {
            return;
        };
        let (hashes, chunks) = (hashes.clone(), step.chunks.clone());
        let extent = self.dirty.extent(&chunks);
        let sent = self.send(
            DataFrame::Hashes {
                step: id,
                extent,
                hashes,
            },
            turn,
        );
        if let Some(CopyStep {
            state: State::Asking { channel, .. },
            ..
        }) = self.step(id)
        {
            *channel = sent;
        }
    }

    pub(super) fn resend_steps(&mut self, turn: &mut Turn<'_>) {
        let Some(source) = self.source() else { return };
        for id in source.steps.keys().copied().collect::<Vec<_>>() {
            self.send_hashes(id, turn);
        }
    }

    /// The target compared a step.
    pub(super) fn differs(&mut self, id: u64, pieces: u64, turn: &mut Turn<'_>) {
        let Some(step) = self
            .step(id)
            .filter(|step| matches!(step.state, State::Asking { .. }))
        else {
            return;
        };
        let chunks = step.chunks.clone();
        let all = (1 << (chunks.end - chunks.start)) - 1;
        let differing = (pieces | step.touched) & all;
        let (first, last) = match differing {
            0 => (chunks.end, chunks.end),
            bits => (
                chunks.start + u64::from(bits.trailing_zeros()),
                chunks.start + 64 - u64::from(bits.leading_zeros()),
            ),
        };
        self.clean(chunks.start..first);
        self.clean(last..chunks.end);
        if differing == 0 {
            let buffer = self
                .source_mut()
                .and_then(|source| source.steps.remove(&id))
                .and_then(|step| step.buffer);
            return turn.release(buffer.expect("a step that was hashed has a buffer"));
        }
        let extent = self.dirty.extent(&(first..last));
        let order = self.intake.next_order();
        self.step(id).expect("looked at just now").state = State::Locking { order, extent };
        if self.intake.lock.enter(order, extent) {
            self.copy_granted(order, turn);
        }
    }

    fn clean(&mut self, chunks: Range<u64>) {
        if let Some(source) = self.source_mut() {
            source.done += (chunks.end - chunks.start) * CHUNK;
        }
        self.dirty.clear(chunks);
    }

    /// A step holds its range: nothing is being written there, here or at the target.
    pub(super) fn copy_granted(&mut self, granted: u64, turn: &mut Turn<'_>) {
        let Some(source) = self.source_mut() else {
            return;
        };
        let found = source.steps.iter_mut().find(
            |(_, step)| matches!(step.state, State::Locking { order, .. } if order == granted),
        );
        let Some((id, step)) = found else { return };
        let State::Locking { order, extent } = step.state else {
            return;
        };
        let id = *id;
        step.state = State::Rereading { order, extent };
        let buffer = step.buffer.expect("a step that was hashed has a buffer");
        let at = length_between(step.chunks.start * CHUNK, extent.offset);
        self.start_io(Use::Step(id), Io::Read { extent, buffer, at }, turn);
    }

    /// Sends what was read under the lock, as an operation with a number of its own.
    fn send_summed(&mut self, turn: &mut Turn<'_>) {
        let Some(source) = self.source() else { return };
        let summed: Vec<u64> = source
            .steps
            .iter()
            .filter(|(_, step)| matches!(step.state, State::Summed { .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in summed {
            let step = self.step(id).expect("listed just now");
            let (State::Summed { order, extent, crc }, Some(buffer)) = (&step.state, step.buffer)
            else {
                continue;
            };
            let (order, extent) = (*order, *extent);
            let at = length_between(step.chunks.start * CHUNK, extent.offset);
            let payload = Payload {
                buffer,
                at,
                len: length(extent),
                crc: *crc,
            };
            if !self.has_room(extent.len) {
                return;
            }
            self.step(id).expect("looked at just now").state = State::Sent { extent };
            let operation = Operation::Write {
                extent,
                payload,
                fua: true,
            };
            let seq = self.insert(Running::new(
                operation,
                Origin::Copy(Some(id)),
                Some(order),
                turn.now,
            ));
            self.begin_apply(seq, turn);
            self.send_sequenced(seq, None, turn);
        }
    }

    /// The target stored a copy, and nothing was written there since it was read.
    pub(super) fn copied(&mut self, id: u64) {
        let Some(step) = self
            .source_mut()
            .and_then(|source| source.steps.remove(&id))
        else {
            return;
        };
        let State::Sent { extent } = step.state else {
            unreachable!("only what was sent is stored")
        };
        self.clean(Dirty::chunks(extent));
    }

    // ---- writes meanwhile

    /// A write of the only member: mirrored if a copy is under way and it touches a clean chunk,
    /// else its chunks are marked.
    pub(super) fn mirror_or_mark(&mut self, seq: u64, turn: &mut Turn<'_>) {
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
        let reachable = self.links.any_ready() && self.running.len() <= MIRRORED;
        let mirrored = clean && reachable && self.source().is_some_and(Source::mirrors);
        if let Some(source) = self.source_mut() {
            source.touch(extent);
        }
        let running = self.running.get_mut(&seq).expect("looked at just now");
        if mirrored {
            running.lent = true;
            self.dirty.lend(extent);
            self.send_sequenced(seq, None, turn);
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
            self.send_sequenced(seq, None, turn);
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
            }),
            _ => self.source().map(|source| ResyncStatus {
                source: true,
                dirty: self.dirty.bytes(),
                done: source.done,
                ready: source.phase == Phase::Ready,
            }),
        }
    }
}

fn length(extent: Extent) -> u32 {
    u32::try_from(extent.len).expect("a step is at most 1 MiB")
}

fn length_between(from: u64, to: u64) -> u32 {
    u32::try_from(to - from).expect("a step is at most 1 MiB")
}

const fn length_of_chunk() -> u32 {
    64 << 10
}
