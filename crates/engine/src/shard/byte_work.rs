//! Work on a command's buffers, which the driver does: comparing, repeating a block, computing a
//! CRC. Each ends in `byte_work_done`, which knows what comes next.

use super::execute::{Fill, Run, run, small};
use super::tasks::Stage;
use super::{Owner, Shard, index};
use crate::interface::Action;
use crate::pool::Purpose;
use alloc::vec::Vec;
use lockstep_iscsi::interface::{DataIn, TaskId};
use lockstep_mirror::control::Time;
use lockstep_mirror::operation::{Extent, MAX_WRITE_BYTES, Payload};
use lockstep_mirror::volume_io::{Io, IoError, Value};
use lockstep_scsi::interface::Outcome;

impl Shard {
    pub(super) fn write_same(
        &mut self,
        now: Time,
        id: TaskId,
        extent: Extent,
        discard: bool,
        actions: &mut Vec<Action>,
    ) {
        let block_size = self.block_size(id);
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        if task.bytes.len() < index(block_size) {
            return self.finish(now, id, Outcome::BadData, DataIn::None);
        }
        if task.bytes.iter().all(|&byte| byte == 0) {
            return self.ranges(now, id, discard, [extent].into(), actions);
        }
        let len = small(extent.len.min(u64::from(MAX_WRITE_BYTES)));
        // The task holds no other buffer, and waiting here would be a second place to wait in:
        // when even the partner's quarter is used up, the initiator tries again.
        let Some(buffer) = self.pool.take(len, Purpose::Partner) else {
            return self.finish(now, id, Outcome::Busy, DataIn::None);
        };
        let task = self.task_mut(id).expect("still there");
        task.buffer = Some(buffer);
        let bytes = core::mem::take(&mut task.bytes).into_boxed_slice();
        run(
            task,
            Run::Filling {
                extent,
                step: Fill::Put,
            },
        );
        self.byte_work(
            id,
            Io::Put {
                buffer,
                at: 0,
                bytes,
            },
            actions,
        );
    }

    pub(super) fn read_other(&mut self, now: Time, id: TaskId, extent: Extent) {
        let Some(other) = self.pool.take(small(extent.len), Purpose::Partner) else {
            return self.finish(now, id, Outcome::Busy, DataIn::None);
        };
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        let (volume, ticket) = run(task, Run::ReadingOther { extent, other });
        self.mirror(volume, |mirror, out| {
            mirror.read(now, ticket, extent, other, 0, out)
        });
    }

    /// Work on the task's buffers, by the driver.
    pub(super) fn byte_work(&mut self, id: TaskId, io: Io, actions: &mut Vec<Action>) {
        let volume = self
            .task(id)
            .expect("the caller knows that the task is there")
            .volume;
        self.start_io(volume, Owner::Task(id), io, actions);
    }

    /// Work on buffers has ended.
    pub(super) fn byte_work_done(
        &mut self,
        now: Time,
        id: TaskId,
        result: Result<Value, IoError>,
        actions: &mut Vec<Action>,
    ) {
        let block_size = self.block_size(id);
        let value = result.expect("work on buffers does not fail");
        let task = self.task_mut(id).expect("a task outlives its work");
        task.outstanding -= 1;
        if task.aborted {
            if let Stage::Running(Run::Comparing { other }) = task.stage {
                self.release(other);
            }
            return self.drop_task(now, id);
        }
        let Stage::Running(state) = core::mem::replace(&mut task.stage, Stage::Answered) else {
            unreachable!("only running tasks have work done");
        };
        let buffer = task.buffer.expect("work is done on the task's buffer");
        match (state, value) {
            (Run::Trimming { extent, fua }, Value::Crc(crc)) => {
                self.submit_write(now, id, extent, fua, crc)
            }
            (Run::Repeating { extent }, _) => self.read_other(now, id, extent),
            (Run::Comparing { other }, Value::Difference(difference)) => {
                self.release(other);
                let outcome = match difference {
                    None => Outcome::Good,
                    Some(offset) => Outcome::Miscompare {
                        offset: u64::from(offset),
                    },
                };
                self.finish(now, id, outcome, DataIn::None);
            }
            (
                Run::Filling {
                    extent,
                    step: Fill::Put,
                },
                _,
            ) => {
                run(
                    task,
                    Run::Filling {
                        extent,
                        step: Fill::Repeat,
                    },
                );
                let len = small(extent.len.min(u64::from(MAX_WRITE_BYTES)));
                self.byte_work(
                    id,
                    Io::Fill {
                        buffer,
                        at: 0,
                        pattern: block_size,
                        len,
                    },
                    actions,
                );
            }
            (
                Run::Filling {
                    extent,
                    step: Fill::Repeat,
                },
                _,
            ) => {
                run(
                    task,
                    Run::Filling {
                        extent,
                        step: Fill::Crc,
                    },
                );
                let len = small(extent.len.min(u64::from(MAX_WRITE_BYTES)));
                self.byte_work(id, Io::Crc { buffer, at: 0, len }, actions);
            }
            (
                Run::Filling {
                    extent,
                    step: Fill::Crc,
                },
                Value::Crc(crc),
            ) => {
                let len = small(extent.len.min(u64::from(MAX_WRITE_BYTES)));
                let payload = Payload {
                    buffer,
                    at: 0,
                    len,
                    crc,
                };
                task.stage = Stage::Running(Run::Pattern {
                    next: extent.offset,
                    end: extent.end(),
                    payload,
                });
                self.advance(now, id, actions);
            }
            _ => unreachable!("the driver answers what was asked"),
        }
    }
}
