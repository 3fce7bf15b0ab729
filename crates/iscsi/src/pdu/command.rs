//! SCSI Command and SCSI Response.

use super::U24;
use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// SCSI Command, §11.3.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ScsiCommand {
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
    /// Expected data transfer length, bytes.
    pub expected_length: U32,
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// The CDB, or its first 16 bytes.
    pub cdb: [u8; 16],
}

/// SCSI Response, §11.4.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ScsiResponse {
    /// Opcode; in requests with the I bit.
    pub opcode: u8,
    /// Flags of byte 1.
    pub flags: u8,
    /// iSCSI response code.
    pub response: u8,
    /// SCSI status.
    pub status: u8,
    /// Length of all additional header segments, 4-byte words.
    pub ahs_words: u8,
    /// Length of the data segment without padding, bytes.
    pub data_length: U24,
    /// Reserved: zero.
    pub reserved: [u8; 8],
    /// Initiator task tag.
    pub task_tag: U32,
    /// SNACK tag or reserved.
    pub snack_tag: U32,
    /// StatSN.
    pub stat_sn: U32,
    /// ExpCmdSN.
    pub exp_cmd_sn: U32,
    /// MaxCmdSN.
    pub max_cmd_sn: U32,
    /// ExpDataSN: R2T and Data-In PDUs that were sent for the task.
    pub exp_data_sn: U32,
    /// Bidirectional read residual count.
    pub bidi_residual: U32,
    /// Residual count, bytes.
    pub residual: U32,
}

/// Flags of byte 1 of a SCSI Command.
pub mod command_flags {
    /// The R bit: data for the initiator is expected.
    pub const READ: u8 = 0x40;
    /// The W bit: the initiator has data.
    pub const WRITE: u8 = 0x20;
    /// The task attribute.
    pub const ATTRIBUTE: u8 = 0x07;
}

/// Flags of byte 1 of a SCSI Response.
pub mod response_flags {
    /// The residual counts bytes that did not fit.
    pub const OVERFLOW: u8 = 0x04;
    /// The residual counts bytes that were not needed.
    pub const UNDERFLOW: u8 = 0x02;
}
