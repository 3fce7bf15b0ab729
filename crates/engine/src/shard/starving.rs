//! Commands, and steps of a resync, for which no buffer was free: they wait in their order.

use super::Shard;
use super::execute::Run;
use super::tasks::Stage;
use crate::interface::Action;
use crate::pool::Purpose;
use alloc::vec::Vec;
use lockstep_iscsi::interface::{DataIn, TaskId};
use lockstep_mirror::control::Time;
use lockstep_scsi::interface::Outcome;

/// How long a command waits for a buffer.
const PATIENCE: Time = Time::from_secs(1);

/// Somebody for whom no buffer was free, in order of arrival.
pub(super) enum Starved {
    Task(TaskId),
    Volume {
        index: usize,
        request: u64,
        len: u32,
    },
}

impl Shard {
    pub(super) fn provide(&mut self, id: TaskId, len: u32) -> bool {
        let buffer = self.pool.take(len, Purpose::Initiator);
        let task = self
            .task_mut(id)
            .expect("the caller knows that the task is there");
        task.buffer = buffer;
        buffer.is_some()
    }

    /// The command that has waited longest for a buffer: its place in the queue, and when it is
    /// answered BUSY.
    pub(super) fn longest_waiting(&self) -> Option<(usize, Time)> {
        self.starved
            .iter()
            .enumerate()
            .find_map(|(place, waiting)| match waiting {
                Starved::Task(id) => Some((place, self.task(*id)?.started + PATIENCE)),
                Starved::Volume { .. } => None,
            })
    }

    /// When `turn_away` has something to do.
    pub(super) fn starved_deadline(&self) -> Option<Time> {
        self.longest_waiting().map(|(_, deadline)| deadline)
    }

    /// Commands that found no buffer for too long are answered BUSY: a command that waits for its
    /// buffer keeps everything behind it on its connection waiting, aborts and pings too.
    pub(super) fn turn_away(&mut self, now: Time) {
        while let Some((place, _)) = self
            .longest_waiting()
            .filter(|&(_, deadline)| deadline <= now)
        {
            if let Some(Starved::Task(id)) = self.starved.remove(place) {
                self.finish(now, id, Outcome::Busy, DataIn::None);
            }
        }
    }

    /// Gives buffers that have become free to those who wait, in order. True if somebody got one.
    pub(super) fn feed_tasks(&mut self, now: Time, actions: &mut Vec<Action>) -> bool {
        let mut fed = false;
        while let Some(first) = self.starved.front() {
            match *first {
                Starved::Task(id) => {
                    let block_size = self.block_size(id);
                    let need = match self.task(id).map(|task| &task.stage) {
                        Some(Stage::NoBuffer { operation, .. }) => {
                            Run::buffer_len(operation, block_size)
                        }
                        _ => 0,
                    };
                    if need > 0 && !self.provide(id, need) {
                        break;
                    }
                    self.starved.pop_front();
                    if need > 0 {
                        self.provided(now, id, actions);
                        fed = true;
                    }
                }
                Starved::Volume {
                    index,
                    request,
                    len,
                } => {
                    let Some(buffer) = self.pool.take(len, Purpose::Resync) else {
                        break;
                    };
                    self.starved.pop_front();
                    self.mirror(index, |volume, out| {
                        volume.buffer(now, request, buffer, out)
                    });
                    fed = true;
                }
            }
        }
        fed
    }
}
