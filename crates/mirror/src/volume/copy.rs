//! The steps of a resync's copy, at the source: read, hash, compare at the target, and what
//! differs is read again under the range lock and sent.

use super::links::Asked;
use super::running::{Local, Origin, Running};
use super::source::Phase;
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{FromVolume, Time};
use crate::data_frame::DataFrame;
use crate::dirty::Dirty;
use crate::metadata_layout::CHUNK;
use crate::operation::{BufferId, Extent, Operation, Payload};
use crate::volume_action::{ChannelId, VolumeAction};
use crate::volume_io::{Io, IoError, Value};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

/// Chunks in a step: 1 MiB, the longest write.
const STEP_CHUNKS: u64 = 16;
/// The same while initiators are not to wait behind a long one: 256 KiB.
const SHORT_STEP_CHUNKS: u64 = 4;
/// Steps at once while nothing holds the copy back: they hide the round trip and both disks. What
/// a small pool lends to a resync, and fewer than a target compares at once.
const STEPS: usize = 12;
/// Steps at once while it is held back: what they may do is bounded in time as well.
const STEPS_LIMITED: usize = 4;
/// After so many whole steps in a row that differed everywhere, steps are sent without asking.
const BLIND_AFTER: u32 = 8;
/// One step in so many is compared all the same: where both are equal again, asking pays.
const PROBE_EVERY: u64 = 16;
/// When a chunk that could not be read is tried again.
const RETRY_AFTER: Time = Time::from_secs(10);

pub(super) struct CopyStep {
    chunks: Range<u64>,
    buffer: Option<BufferId>,
    /// Chunks written to since the step began to read: bit 0 is the first.
    touched: u64,
    state: State,
    since: Time,
    /// It is sent without asking what differs.
    blind: bool,
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

impl CopyStep {
    pub(super) const fn waits_for_memory(&self) -> bool {
        matches!(self.state, State::NeedBuffer)
    }

    pub(super) fn late(&self, before: Time) -> bool {
        matches!(self.state, State::Asking { .. }) && self.since < before
    }

    pub(super) fn channel_gone(&mut self, gone: ChannelId) {
        if let State::Asking { channel, .. } = &mut self.state {
            channel.take_if(|channel| *channel == gone);
        }
    }

    /// A write: what the step read of these chunks is not to be relied on.
    pub(super) fn touch(&mut self, written: &Range<u64>) {
        self.touched |= overlap(&self.chunks, written);
    }
}

/// Which of a step's chunks are among others.
fn overlap(step: &Range<u64>, others: &Range<u64>) -> u64 {
    let start = step.start.max(others.start);
    let end = step.end.min(others.end);
    (start..end).fold(0, |bits, chunk| bits | 1 << (chunk - step.start))
}

impl Volume {
    pub(super) fn advance_copying(&mut self, turn: &mut Turn<'_>) {
        self.send_summed(turn);
        self.pace.adjust(turn.now, self.dirty.bytes());
        let most = if self.pace.is_limited() {
            STEPS_LIMITED
        } else {
            STEPS
        };
        let Some(source) = self.source() else { return };
        if source.steps.is_empty() && self.dirty.bytes() == 0 && !self.suspended {
            return self.set_phase(Phase::Draining { state_sent: false });
        }
        if !self.links.any_ready() {
            return;
        }
        while self
            .source()
            .is_some_and(|source| source.steps.len() < most)
            && self.pace.may_begin(turn.now)
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
        let most = if self.pace.is_limited() {
            SHORT_STEP_CHUNKS
        } else {
            STEP_CHUNKS
        };
        let Some(chunks) = self.dirty.next_run(source.cursor, most) else {
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
        self.pace.step_begun(turn.now, u64::from(len));
        let source = self.source_mut().expect("looked at just now");
        source.cursor = chunks.end;
        let blind = source.differed >= BLIND_AFTER && !source.begun.is_multiple_of(PROBE_EVERY);
        source.begun += 1;
        source.steps.insert(
            request,
            CopyStep {
                chunks,
                buffer: None,
                touched: 0,
                state: State::NeedBuffer,
                since: turn.now,
                blind,
            },
        );
        turn.out.push(VolumeAction::NeedBuffer { request, len });
        true
    }

    fn step(&mut self, id: u64) -> Option<&mut CopyStep> {
        self.source_mut()?.steps.get_mut(&id)
    }

    pub(super) fn buffer_came(&mut self, request: u64, buffer: BufferId, turn: &mut Turn<'_>) {
        if self.buffer_to_host(request, buffer, turn) {
            return;
        }
        let Some(chunks) = self
            .step(request)
            .filter(|step| step.buffer.is_none())
            .map(|step| step.chunks.clone())
        else {
            if self.buffer_to_mend(request, buffer, turn)
                || self.buffer_to_look(request, buffer, turn)
            {
                return;
            }
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
        if step.blind {
            return self.lock_step(request, extent, turn);
        }
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
            if let Some(source) = self.source_mut() {
                source.differed = 0;
            }
            let buffer = self
                .source_mut()
                .and_then(|source| source.steps.remove(&id))
                .and_then(|step| step.buffer);
            return turn.release(buffer.expect("a step that was hashed has a buffer"));
        }
        if let Some(source) = self.source_mut() {
            // Only what was compared as a whole tells whether asking pays.
            source.differed = if pieces & all == all {
                source.differed.saturating_add(1)
            } else {
                0
            };
        }
        let extent = self.dirty.extent(&(first..last));
        self.lock_step(id, extent, turn);
    }

    /// What is to be sent is read once nobody writes there any more.
    fn lock_step(&mut self, id: u64, extent: Extent, turn: &mut Turn<'_>) {
        let order = self.intake.next_order();
        self.step(id).expect("looked at just now").state = State::Locking { order, extent };
        if self.intake.lock.enter(order, extent) {
            self.copy_granted(order, turn);
        }
    }

    fn clean(&mut self, chunks: Range<u64>) {
        if !chunks.is_empty() {
            self.counts.resync_compared += self.dirty.extent(&chunks).len;
        }
        if let Some(source) = self.source_mut() {
            if !chunks.is_empty() {
                source.moved = true;
            }
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
            if !self.has_room(extent.len) || !self.may_send(self.next_seq) {
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
            self.send_sequenced(seq, Asked::Nowhere, turn);
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
        if step.blind {
            self.counts.resync_blind += extent.len;
        }
        self.counts.resync_copied += extent.len;
        self.clean(Dirty::chunks(extent));
    }

    /// The attempt is over: what a step held it gives back.
    pub(super) fn end_step(&mut self, step: CopyStep, turn: &mut Turn<'_>) {
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
