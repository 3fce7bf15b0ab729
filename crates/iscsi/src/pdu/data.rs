//! Data-Out, Data-In and Ready To Transfer.

use super::U24;
use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// SCSI Data-Out, §11.7.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataOut {
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
    /// Target transfer tag.
    pub transfer_tag: U32,
    /// Reserved: zero.
    pub reserved2: [u8; 4],
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved: zero.
    pub reserved3: [u8; 4],
    /// DataSN.
    pub data_sn: U32,
    /// Buffer offset, bytes.
    pub offset: U32,
    /// Reserved: zero.
    pub reserved4: [u8; 4],
}

/// SCSI Data-In, §11.7.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataIn {
    /// Opcode; in requests with the I bit.
    pub opcode: u8,
    /// Flags of byte 1.
    pub flags: u8,
    /// Reserved: zero.
    pub reserved: u8,
    /// SCSI status.
    pub status: u8,
    /// Length of all additional header segments, 4-byte words.
    pub ahs_words: u8,
    /// Length of the data segment without padding, bytes.
    pub data_length: U24,
    /// Logical unit number.
    pub lun: [u8; 8],
    /// Initiator task tag.
    pub task_tag: U32,
    /// Target transfer tag.
    pub transfer_tag: U32,
    /// StatSN.
    pub stat_sn: U32,
    /// ExpCmdSN.
    pub exp_cmd_sn: U32,
    /// MaxCmdSN.
    pub max_cmd_sn: U32,
    /// DataSN.
    pub data_sn: U32,
    /// Buffer offset, bytes.
    pub offset: U32,
    /// Residual count, bytes.
    pub residual: U32,
}

/// Ready To Transfer, §11.8.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct R2t {
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
    /// Target transfer tag.
    pub transfer_tag: U32,
    /// StatSN.
    pub stat_sn: U32,
    /// ExpCmdSN.
    pub exp_cmd_sn: U32,
    /// MaxCmdSN.
    pub max_cmd_sn: U32,
    /// R2TSN.
    pub r2t_sn: U32,
    /// Buffer offset, bytes.
    pub offset: U32,
    /// Desired data transfer length, bytes.
    pub desired_length: U32,
}

/// Flags of byte 1 of a SCSI Data-In.
pub mod data_in_flags {
    /// The A bit: asks for a DataACK SNACK (recovery level 1 and more).
    pub const ACKNOWLEDGE: u8 = 0x40;
    /// The residual counts bytes that did not fit.
    pub const OVERFLOW: u8 = 0x04;
    /// The residual counts bytes that were not needed.
    pub const UNDERFLOW: u8 = 0x02;
    /// The S bit: this PDU also carries the status.
    pub const STATUS: u8 = 0x01;
}
