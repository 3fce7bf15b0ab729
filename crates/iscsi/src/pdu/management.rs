//! Task Management Function Request and Response.

use super::U24;
use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Task Management Function Request, §11.5; the function is in the low 7 bits of `flags`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TaskManagementRequest {
    /// Opcode; in requests with the I bit.
    pub opcode: u8,
    /// Flags of byte 1.
    pub flags: u8,
    /// Reserved: zero.
    pub reserved: [u8; 2],
    /// Length of all additional header segments, 4-byte words.
    pub ahs_words: u8,
    /// Length of the data segment without padding, bytes.
    pub data_length: U24,
    /// Logical unit number.
    pub lun: [u8; 8],
    /// Initiator task tag.
    pub task_tag: U32,
    /// Referenced task tag.
    pub ref_task_tag: U32,
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// RefCmdSN.
    pub ref_cmd_sn: U32,
    /// ExpDataSN: R2T and Data-In PDUs that were sent for the task.
    pub exp_data_sn: U32,
    /// Reserved: zero.
    pub reserved2: [u8; 8],
}

/// Task Management Function Response, §11.6.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TaskManagementResponse {
    /// Opcode; in requests with the I bit.
    pub opcode: u8,
    /// Flags of byte 1.
    pub flags: u8,
    /// iSCSI response code.
    pub response: u8,
    /// Reserved: zero.
    pub reserved: u8,
    /// Length of all additional header segments, 4-byte words.
    pub ahs_words: u8,
    /// Length of the data segment without padding, bytes.
    pub data_length: U24,
    /// Reserved: zero.
    pub reserved2: [u8; 8],
    /// Initiator task tag.
    pub task_tag: U32,
    /// Reserved: zero.
    pub reserved3: [u8; 4],
    /// StatSN.
    pub stat_sn: U32,
    /// ExpCmdSN.
    pub exp_cmd_sn: U32,
    /// MaxCmdSN.
    pub max_cmd_sn: U32,
    /// Reserved: zero.
    pub reserved4: [u8; 12],
}

/// Functions, §11.5.1.
pub mod function {
    /// One task.
    pub const ABORT_TASK: u8 = 1;
    /// All tasks of this session on a logical unit.
    pub const ABORT_TASK_SET: u8 = 2;
    /// End auto contingent allegiance.
    pub const CLEAR_ACA: u8 = 3;
    /// All tasks on a logical unit.
    pub const CLEAR_TASK_SET: u8 = 4;
    /// Reset one logical unit.
    pub const LOGICAL_UNIT_RESET: u8 = 5;
    /// Reset all logical units.
    pub const TARGET_WARM_RESET: u8 = 6;
    /// Reset all, and end all sessions.
    pub const TARGET_COLD_RESET: u8 = 7;
    /// Take over a task (recovery level 2).
    pub const TASK_REASSIGN: u8 = 8;
}

/// Responses, §11.6.1.
pub mod function_response {
    /// Function complete.
    pub const COMPLETE: u8 = 0;
    /// Task does not exist.
    pub const NO_TASK: u8 = 1;
    /// LUN does not exist.
    pub const NO_LUN: u8 = 2;
    /// Task still allegiant.
    pub const STILL_ALLEGIANT: u8 = 3;
    /// Task allegiance reassignment not supported.
    pub const NO_REASSIGN: u8 = 4;
    /// Function not supported.
    pub const NOT_SUPPORTED: u8 = 5;
    /// Function authorization failed.
    pub const NOT_AUTHORIZED: u8 = 6;
    /// Function rejected.
    pub const REJECTED: u8 = 255;
}
