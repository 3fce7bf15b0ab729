//! One iSCSI session: its names, what it agreed on, its command window and its tasks.

use crate::interface::{ConnId, NexusId, TargetId, TaskId};
use crate::parameters::Parameters;
use crate::sequence::CommandWindow;
use crate::transfer::Bursts;
use alloc::string::String;
use alloc::vec::Vec;

/// Immediate commands that a session may have in progress beyond its window.
pub(crate) const MAX_IMMEDIATE: u32 = 8;

/// A session in full feature phase.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) nexus: NexusId,
    /// None: a discovery session.
    pub(crate) target: Option<TargetId>,
    pub(crate) initiator: String,
    pub(crate) isid: [u8; 6],
    pub(crate) tsih: u16,
    pub(crate) cid: u16,
    /// Its one connection.
    pub(crate) conn: ConnId,
    pub(crate) parameters: Parameters,
    pub(crate) window: CommandWindow,
    pub(crate) tasks: TaskList,
    /// How many of them are immediate.
    pub(crate) immediate: u32,
    /// It ends as soon as its last task has.
    pub(crate) ending: bool,
}

impl Session {
    /// The task with this tag.
    pub(crate) fn task(&self, task_tag: u32) -> Option<TaskId> {
        self.tasks.find(task_tag)
    }

    pub(crate) fn bursts(&self) -> Bursts {
        Bursts {
            max_burst: self.parameters.max_burst,
            max_outstanding: self.parameters.max_outstanding_r2t,
        }
    }
}

/// A session's tasks, in no order: at most the command window and some immediate ones, so that the
/// tags, side by side, are searched in no time.
#[derive(Debug, Default)]
pub(crate) struct TaskList {
    tags: Vec<u32>,
    ids: Vec<TaskId>,
}

impl TaskList {
    /// The place that `push` will use.
    pub(crate) fn next_place(&self) -> u32 {
        u32::try_from(self.ids.len()).expect("the table of tasks is smaller")
    }

    pub(crate) fn push(&mut self, task_tag: u32, id: TaskId) {
        self.tags.push(task_tag);
        self.ids.push(id);
    }

    pub(crate) fn find(&self, task_tag: u32) -> Option<TaskId> {
        let place = self.tags.iter().position(|tag| *tag == task_tag)?;
        Some(self.ids[place])
    }

    /// Removes the task at a place; another one may move there.
    pub(crate) fn remove(&mut self, place: u32) -> Option<TaskId> {
        let place = place as usize;
        self.tags.swap_remove(place);
        self.ids.swap_remove(place);
        self.ids.get(place).copied()
    }

    pub(crate) fn ids(&self) -> &[TaskId] {
        &self.ids
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Whether two LUN fields name the same logical unit: peripheral and flat addressing of a LUN
/// below 256 are the same (SAM-5 §4.7).
pub(crate) fn same_lun(a: &[u8; 8], b: &[u8; 8]) -> bool {
    fn plain(lun: &[u8; 8]) -> [u8; 8] {
        match lun {
            [0x40, low, rest @ ..] => {
                let mut plain = [0; 8];
                plain[1] = *low;
                plain[2..].copy_from_slice(rest);
                plain
            }
            other => *other,
        }
    }
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_task_leaves_its_place_to_the_last() {
        let id = |slot| TaskId {
            slot,
            generation: 0,
        };
        let mut list = TaskList::default();
        for slot in 0..3 {
            assert_eq!(list.next_place(), slot);
            list.push(10 + slot, id(slot));
        }
        assert_eq!(list.remove(0), Some(id(2)));
        assert_eq!((list.find(10), list.find(12)), (None, Some(id(2))));
        assert_eq!(list.remove(1), None);
        assert_eq!(list.ids(), [id(2)]);
    }

    #[test]
    fn flat_and_peripheral_addresses_are_the_same_unit() {
        assert!(same_lun(
            &[0, 5, 0, 0, 0, 0, 0, 0],
            &[0x40, 5, 0, 0, 0, 0, 0, 0]
        ));
        assert!(!same_lun(
            &[0, 5, 0, 0, 0, 0, 0, 0],
            &[0, 6, 0, 0, 0, 0, 0, 0]
        ));
        assert!(!same_lun(
            &[0, 5, 0, 0, 0, 0, 0, 0],
            &[0x41, 5, 0, 0, 0, 0, 0, 0]
        ));
    }
}
