//! The table of SCSI commands in progress, all sessions together, addressed by slot.

use crate::interface::{Response, TaskId};
use crate::transfer::{Fault, Transfer};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Most commands in progress. The slot must fit 18 bits of a target transfer tag, with the value
/// of all ones left free so that no tag is the reserved one.
pub(crate) const MAX_TASKS: usize = (1 << 18) - 1;

/// Where a task stands.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The engine works on it.
    Engine,
    /// It is to end, and the engine has not let go yet. `asked`: `Output::Abort` went out (it
    /// waits while the driver writes into the task's buffer). `fault`: the initiator gets CHECK
    /// CONDITION; otherwise it gets nothing.
    Ending { asked: bool, fault: Option<Fault> },
    /// The engine has answered, but the initiator still owes data or the driver is still writing
    /// into the buffer. None: it was aborted since, and gets no response.
    Held(Option<Box<Response>>),
}

/// A SCSI command.
#[derive(Debug)]
pub(crate) struct Task {
    /// Index of its session.
    pub(crate) session: u32,
    /// Its place in the session's list.
    pub(crate) place: u32,
    pub(crate) task_tag: u32,
    pub(crate) lun: [u8; 8],
    /// Expected data transfer length.
    pub(crate) expected: u32,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// It did not take a place in the command window.
    pub(crate) immediate: bool,
    pub(crate) phase: Phase,
    pub(crate) transfer: Transfer,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    task: Option<Task>,
}

/// All tasks.
#[derive(Debug, Default)]
pub(crate) struct TaskTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl TaskTable {
    /// A place for a task; None if all are taken.
    pub(crate) fn insert(&mut self, task: Task) -> Option<TaskId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < MAX_TASKS => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).ok()?
            }
            None => return None,
        };
        let place = &mut self.slots[slot as usize];
        assert!(place.task.is_none(), "a free slot is empty");
        place.task = Some(task);
        Some(TaskId {
            slot,
            generation: place.generation,
        })
    }

    /// The task of that name, if it is still there.
    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation {
            slot.task.as_mut()
        } else {
            None
        }
    }

    /// The task of that name, if it is still there.
    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation == id.generation {
            slot.task.as_ref()
        } else {
            None
        }
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let task = slot.task.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(task)
    }

    /// The task that a target transfer tag names, and the number of the burst (modulo 256).
    pub(crate) fn by_transfer_tag(&self, tag: u32) -> Option<(TaskId, u32)> {
        let slot = tag & 0x3_ffff;
        let place = self.slots.get(slot as usize)?;
        place.task.as_ref()?;
        let id = TaskId {
            slot,
            generation: place.generation,
        };
        (transfer_tag(id, 0) >> 26 == tag >> 26).then_some((id, tag >> 18 & 0xff))
    }
}

/// 6 bits of generation, 8 of the burst's number, 18 of slot: a late Data-Out for a task that
/// has gone does not meet its successor in the slot.
pub(crate) fn transfer_tag(id: TaskId, burst: u32) -> u32 {
    (id.generation & 0x3f) << 26 | (burst & 0xff) << 18 | id.slot
}
