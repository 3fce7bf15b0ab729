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
    /// Its tasks by initiator task tag, in no order. Short enough to be searched.
    pub(crate) tasks: Vec<(u32, TaskId)>,
    /// How many of them are immediate.
    pub(crate) immediate: u32,
    /// It ends as soon as its last task has.
    pub(crate) ending: bool,
}

impl Session {
    /// The task with this tag.
    pub(crate) fn task(&self, task_tag: u32) -> Option<TaskId> {
        self.tasks
            .iter()
            .find(|(tag, _)| *tag == task_tag)
            .map(|&(_, id)| id)
    }

    pub(crate) fn bursts(&self) -> Bursts {
        Bursts {
            max_burst: self.parameters.max_burst,
            max_outstanding: self.parameters.max_outstanding_r2t,
        }
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
