//! Carrying out block operations: each becomes one or more requests to the mirror and works on
//! buffers, one after the other. Nothing here looks at a block's bytes, except the one block
//! that WRITE SAME repeats, which is a parameter.

use super::Shard;
use super::tasks::{NOBODY, Sort, Stage, Task};
use crate::interface::Action;
use alloc::vec::Vec;
use lockstep_iscsi::interface::{DataIn, TaskId};
use lockstep_mirror::control::Time;
use lockstep_mirror::operation::{
    self as mirrored, BufferId, Extent, MAX_RANGE_BYTES, MAX_WRITE_BYTES, Payload,
};
use lockstep_mirror::volume_action::{Refusal, Ticket};
use lockstep_mirror::volume_io::Io;
use lockstep_scsi::interface::{Answer, Blocks, Operation, Outcome};

/// An operation at work, and what it needs to know for its next step.
pub(super) enum Run {
    /// One read into the task's buffer.
    Read { extent: Extent },
    /// The data sent does not end with a block: its CRC is being computed for what is written.
    Trimming { extent: Extent, fua: bool },
    /// One write of the task's buffer.
    Write,
    /// A flush.
    Flush,
    /// Pieces read one after the other, and forgotten.
    Verify { next: u64, end: u64 },
    /// The data sent is repeated over the length of the extent, for the comparison.
    Repeating { extent: Extent },
    /// The extent is read into a second buffer.
    ReadingOther { extent: Extent, other: BufferId },
    /// Both are compared.
    Comparing { other: BufferId },
    /// Zeroing or discarding, piece by piece.
    Ranges { discard: bool, left: Vec<Extent> },
    /// One block is put into the buffer, repeated, and its CRC computed, in this order.
    Filling { extent: Extent, step: Fill },
    /// The filled buffer is written, piece by piece.
    Pattern {
        next: u64,
        end: u64,
        payload: Payload,
    },
    /// A change of SCSI state is being sequenced; then this is answered.
    State { answer: Answer },
}

/// See [`Run::Filling`].
#[derive(Clone, Copy)]
pub(super) enum Fill {
    Put,
    Repeat,
    Crc,
}

impl Run {
    /// For the counters.
    pub(super) fn sort(operation: &Operation) -> Sort {
        match operation {
            Operation::Read { .. } => Sort::Read,
            Operation::Write { .. }
            | Operation::WriteSame { .. }
            | Operation::Zero { .. }
            | Operation::Unmap { .. } => Sort::Write,
            Operation::Flush => Sort::Flush,
            Operation::Verify { .. } | Operation::Compare { .. } => Sort::Other,
        }
    }

    /// Bytes of buffer that must be there before the operation's data is asked for.
    pub(super) fn buffer_len(operation: &Operation, block_size: u32) -> u32 {
        let len = |blocks: &Blocks| {
            u32::try_from(blocks.count * u64::from(block_size)).unwrap_or(u32::MAX)
        };
        match operation {
            Operation::Read { blocks, .. }
            | Operation::Write { blocks, .. }
            | Operation::Compare { blocks, .. } => len(blocks),
            Operation::Verify { blocks } => len(blocks).min(MAX_WRITE_BYTES),
            Operation::WriteSame { .. }
            | Operation::Zero { .. }
            | Operation::Unmap { .. }
            | Operation::Flush => 0,
        }
    }
}

impl Shard {
    /// Begins an operation whose data, if it sends any, is here.
    pub(super) fn begin(
        &mut self,
        now: Time,
        id: TaskId,
        operation: Operation,
        actions: &mut Vec<Action>,
    ) {
        let block_size = self.block_size(id);
        let extent = |blocks: Blocks| Extent {
            offset: blocks.first * u64::from(block_size),
            len: blocks.count * u64::from(block_size),
        };
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        match operation {
            Operation::Read { blocks, .. } if blocks.count == 0 => {
                self.finish(now, id, Outcome::Good, DataIn::None)
            }
            Operation::Read { blocks, .. } => {
                let extent = extent(blocks);
                let buffer = task.buffer.expect("reads have a buffer");
                let (volume, ticket) = run(task, Run::Read { extent });
                self.mirror(volume, |mirror, out| {
                    mirror.read(now, ticket, extent, buffer, 0, out)
                });
            }
            Operation::Write { blocks, fua } => {
                // An initiator that announces less data than its CDB asks for gets the whole
                // blocks that it sent written (SAM-5 leaves it open; the residual tells it).
                let sent = u64::from(task.received() / block_size * block_size);
                let whole = extent(blocks);
                let extent = Extent {
                    offset: whole.offset,
                    len: whole.len.min(sent),
                };
                if extent.len == 0 {
                    self.finish(now, id, Outcome::Good, DataIn::None);
                } else if extent.len == u64::from(task.received()) {
                    let crc = task.crc;
                    self.submit_write(now, id, extent, fua, crc);
                } else {
                    let buffer = task.buffer.expect("writes have a buffer");
                    run(task, Run::Trimming { extent, fua });
                    self.byte_work(
                        id,
                        Io::Crc {
                            buffer,
                            at: 0,
                            len: small(extent.len),
                        },
                        actions,
                    );
                }
            }
            Operation::Verify { blocks } => {
                let extent = extent(blocks);
                task.stage = Stage::Running(Run::Verify {
                    next: extent.offset,
                    end: extent.end(),
                });
                self.advance(now, id, actions);
            }
            Operation::Compare { blocks, one_block } => {
                let extent = extent(blocks);
                let wanted = if one_block {
                    u64::from(block_size)
                } else {
                    extent.len
                };
                if extent.len == 0 {
                    self.finish(now, id, Outcome::Good, DataIn::None);
                } else if u64::from(task.received()) < wanted {
                    self.finish(now, id, Outcome::BadData, DataIn::None);
                } else if one_block {
                    let buffer = task.buffer.expect("comparisons have a buffer");
                    run(task, Run::Repeating { extent });
                    let fill = Io::Fill {
                        buffer,
                        at: 0,
                        pattern: block_size,
                        len: small(extent.len),
                    };
                    self.byte_work(id, fill, actions);
                } else {
                    self.read_other(now, id, extent);
                }
            }
            Operation::WriteSame { blocks } => {
                self.write_same(now, id, extent(blocks), false, actions)
            }
            Operation::Unmap {
                ranges,
                check: true,
            } => {
                let extent = ranges
                    .first()
                    .map_or(Extent { offset: 0, len: 0 }, |blocks| extent(*blocks));
                self.write_same(now, id, extent, true, actions);
            }
            Operation::Zero { blocks } => {
                self.ranges(now, id, false, [extent(blocks)].into(), actions)
            }
            Operation::Unmap {
                ranges,
                check: false,
            } => {
                let left = ranges.into_iter().rev().map(extent).collect();
                self.ranges(now, id, true, left, actions);
            }
            Operation::Flush => {
                let (volume, ticket) = run(task, Run::Flush);
                self.mirror(volume, |mirror, out| mirror.flush(now, ticket, out));
            }
        }
    }

    /// Sequences a change of SCSI state; its command is answered when both nodes have it.
    pub(super) fn begin_state(
        &mut self,
        now: Time,
        id: TaskId,
        answer: Answer,
        kind: u16,
        bytes: Vec<u8>,
    ) {
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        let received = task.started;
        let (volume, ticket) = run(task, Run::State { answer });
        let operation = mirrored::Operation::State {
            kind,
            bytes: bytes.into(),
        };
        self.mirror(volume, |mirror, out| {
            mirror.submit_received(now, received, ticket, operation, out)
        });
    }

    pub(super) fn ranges(
        &mut self,
        now: Time,
        id: TaskId,
        discard: bool,
        left: Vec<Extent>,
        actions: &mut Vec<Action>,
    ) {
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        task.stage = Stage::Running(Run::Ranges { discard, left });
        self.advance(now, id, actions);
    }

    pub(super) fn submit_write(
        &mut self,
        now: Time,
        id: TaskId,
        extent: Extent,
        fua: bool,
        crc: u32,
    ) {
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        let buffer = task.buffer.expect("writes have a buffer");
        let payload = Payload {
            buffer,
            at: 0,
            len: small(extent.len),
            crc,
        };
        let received = task.started;
        let (volume, ticket) = run(task, Run::Write);
        self.pool.retain(buffer);
        let operation = mirrored::Operation::Write {
            extent,
            payload,
            fua,
        };
        self.mirror(volume, |mirror, out| {
            mirror.submit_received(now, received, ticket, operation, out)
        });
    }

    /// The mirror has ended one of a task's requests.
    pub(super) fn ticket_done(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<(), Refusal>,
        actions: &mut Vec<Action>,
    ) {
        if ticket == NOBODY {
            return;
        }
        let id = task_of(ticket);
        let task = self.task_mut(id).expect("a task outlives its requests");
        task.outstanding -= 1;
        if let Err(refusal) = result {
            task.failure.get_or_insert(refusal);
        }
        if task.outstanding == 0 {
            self.advance(now, id, actions);
        }
    }

    /// The blocks of a read came from the partner, in a buffer of their own: it takes the place of
    /// the one into which they would have been read here.
    pub(super) fn fetched(&mut self, ticket: Ticket, buffer: BufferId) {
        let task = self
            .task_mut(task_of(ticket))
            .expect("a task outlives its requests");
        let before = match &mut task.stage {
            Stage::Running(Run::ReadingOther { other, .. }) => core::mem::replace(other, buffer),
            Stage::Running(Run::Read { .. }) => {
                let before = task.buffer.replace(buffer);
                before.expect("reads have a buffer")
            }
            // Read and forgotten: the next piece goes into the same buffer.
            _ => buffer,
        };
        self.release(before);
    }

    /// Nothing is outstanding: the next step, or the end.
    pub(super) fn advance(&mut self, now: Time, id: TaskId, actions: &mut Vec<Action>) {
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        let Stage::Running(mut state) = core::mem::replace(&mut task.stage, Stage::Answered) else {
            unreachable!("only running tasks advance");
        };
        if task.aborted {
            task.failure.get_or_insert(Refusal::Aborted);
        }
        if let Some(failure) = task.failure {
            let block_size = u64::from(self.block_size(id));
            let first = match state {
                Run::Read { extent } | Run::ReadingOther { extent, .. } => {
                    extent.offset / block_size
                }
                Run::Verify { next, .. } => next / block_size,
                _ => 0,
            };
            if let Run::ReadingOther { other, .. } = state {
                self.release(other);
            }
            return self.finish(now, id, outcome(failure, first), DataIn::None);
        }
        let buffer = task.buffer;
        match &mut state {
            Run::Read { extent } => {
                let len = small(extent.len);
                self.finish(now, id, Outcome::Good, DataIn::Buffer { len });
            }
            Run::Write | Run::Flush => self.finish(now, id, Outcome::Good, DataIn::None),
            Run::State { answer } => {
                let answer = answer.clone();
                self.answer(now, id, answer, DataIn::None);
            }
            Run::Verify { next, end } => {
                let extent = Extent {
                    offset: *next,
                    len: (*end - *next).min(u64::from(MAX_WRITE_BYTES)),
                };
                *next = extent.end();
                if extent.len == 0 {
                    return self.finish(now, id, Outcome::Good, DataIn::None);
                }
                let buffer = buffer.expect("verification has a buffer");
                let (volume, ticket) = run(task, state);
                self.mirror(volume, |mirror, out| {
                    mirror.read(now, ticket, extent, buffer, 0, out)
                });
            }
            Run::ReadingOther { extent, other } => {
                let (other, len) = (*other, small(extent.len));
                let left = buffer.expect("comparisons have a buffer");
                run(task, Run::Comparing { other });
                self.byte_work(
                    id,
                    Io::Compare {
                        left,
                        left_at: 0,
                        right: other,
                        right_at: 0,
                        len,
                    },
                    actions,
                );
            }
            Run::Ranges { discard, left } => {
                let Some(last) = left.last_mut() else {
                    return self.finish(now, id, Outcome::Good, DataIn::None);
                };
                let extent = Extent {
                    offset: last.offset,
                    len: last.len.min(MAX_RANGE_BYTES),
                };
                *last = Extent {
                    offset: extent.end(),
                    len: last.len - extent.len,
                };
                if last.len == 0 {
                    left.pop();
                }
                if extent.len == 0 {
                    task.stage = Stage::Running(state);
                    return self.advance(now, id, actions);
                }
                let operation = if *discard {
                    mirrored::Operation::Discard { extent }
                } else {
                    mirrored::Operation::Zero { extent, fua: false }
                };
                let received = task.piece_received(now);
                let (volume, ticket) = run(task, state);
                self.mirror(volume, |mirror, out| {
                    mirror.submit_received(now, received, ticket, operation, out)
                });
            }
            Run::Pattern { next, end, payload } => {
                let extent = Extent {
                    offset: *next,
                    len: (*end - *next).min(u64::from(payload.len)),
                };
                let payload = *payload;
                if extent.len == 0 {
                    return self.finish(now, id, Outcome::Good, DataIn::None);
                }
                if extent.len < u64::from(payload.len) {
                    // The last piece is shorter: its CRC is another one.
                    let (offset, len) = (extent.offset, extent.len);
                    run(
                        task,
                        Run::Filling {
                            extent: Extent { offset, len },
                            step: Fill::Crc,
                        },
                    );
                    let crc = Io::Crc {
                        buffer: payload.buffer,
                        at: 0,
                        len: small(len),
                    };
                    return self.byte_work(id, crc, actions);
                }
                *next = extent.end();
                let received = task.piece_received(now);
                let (volume, ticket) = run(task, state);
                self.pool.retain(payload.buffer);
                let operation = mirrored::Operation::Write {
                    extent,
                    payload,
                    fua: false,
                };
                self.mirror(volume, |mirror, out| {
                    mirror.submit_received(now, received, ticket, operation, out)
                });
            }
            Run::Trimming { .. }
            | Run::Repeating { .. }
            | Run::Comparing { .. }
            | Run::Filling { .. } => {
                unreachable!("work on buffers ends in byte_work_done")
            }
        }
    }
}

/// The task whose request a ticket names.
fn task_of(Ticket(ticket): Ticket) -> TaskId {
    let [slot, generation] = [ticket & 0xffff_ffff, ticket >> 32].map(small);
    TaskId { slot, generation }
}

/// Puts the task into a state in which one request is outstanding.
pub(super) fn run(task: &mut Task, state: Run) -> (usize, Ticket) {
    task.stage = Stage::Running(state);
    task.outstanding += 1;
    (task.volume, task.ticket())
}

/// A length that was checked to be at most `MAX_WRITE_BYTES`, or half a ticket.
pub(super) fn small(len: u64) -> u32 {
    u32::try_from(len).expect("the SCSI layer bounds transfers")
}

fn outcome(failure: Refusal, block: u64) -> Outcome {
    match failure {
        Refusal::Aborted => Outcome::Aborted,
        Refusal::Busy => Outcome::Busy,
        Refusal::NotServed => Outcome::Transition,
        Refusal::Unreadable => Outcome::Unreadable { block },
        Refusal::Failed => Outcome::WriteFailed,
        Refusal::NoSpace => Outcome::NoSpace,
    }
}
