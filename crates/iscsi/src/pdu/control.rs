//! Text, Logout, NOP, Asynchronous Message, Reject and SNACK.

use super::U24;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Text Request, §11.10.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TextRequest {
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
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved: zero.
    pub reserved2: [u8; 16],
}

/// Text Response, §11.11.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TextResponse {
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
    /// Reserved: zero.
    pub reserved2: [u8; 12],
}

/// Flags of byte 1 of Text Requests and Responses, beside F.
pub mod text_flags {
    /// The C bit: the text goes on in the next PDU.
    pub const CONTINUE: u8 = 0x40;
}

/// Logout Request, §11.14; the reason is in the low 7 bits of `flags`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogoutRequest {
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
    /// Reserved: zero.
    pub reserved2: [u8; 8],
    /// Initiator task tag.
    pub task_tag: U32,
    /// Connection ID.
    pub cid: U16,
    /// Reserved: zero.
    pub reserved3: [u8; 2],
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved: zero.
    pub reserved4: [u8; 16],
}

/// Logout Response, §11.15.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogoutResponse {
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
    pub reserved4: [u8; 4],
    /// Time2Wait, seconds.
    pub time_to_wait: U16,
    /// Time2Retain, seconds.
    pub time_to_retain: U16,
    /// Reserved: zero.
    pub reserved5: [u8; 4],
}

/// Reasons of a Logout Request, §11.14.1.
pub mod logout_reason {
    /// End the session.
    pub const CLOSE_SESSION: u8 = 0;
    /// End one connection.
    pub const CLOSE_CONNECTION: u8 = 1;
    /// Remove a connection, tasks will be reassigned.
    pub const REMOVE_FOR_RECOVERY: u8 = 2;
}

/// NOP-Out, §11.18.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NopOut {
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
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved: zero.
    pub reserved2: [u8; 16],
}

/// NOP-In, §11.19.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NopIn {
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
    /// Reserved: zero.
    pub reserved2: [u8; 12],
}

/// Asynchronous Message, §11.9.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AsyncMessage {
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
    /// Reserved: zero.
    pub reserved2: [u8; 4],
    /// StatSN.
    pub stat_sn: U32,
    /// ExpCmdSN.
    pub exp_cmd_sn: U32,
    /// MaxCmdSN.
    pub max_cmd_sn: U32,
    /// AsyncEvent.
    pub event: u8,
    /// AsyncVCode.
    pub vendor_code: u8,
    /// Parameter1.
    pub parameter1: U16,
    /// Parameter2.
    pub parameter2: U16,
    /// Parameter3.
    pub parameter3: U16,
    /// Reserved: zero.
    pub reserved3: [u8; 4],
}

/// Events of an Asynchronous Message, §11.9.1.
pub mod async_event {
    /// Sense data for a logical unit.
    pub const SCSI: u8 = 0;
    /// Log out within Parameter3 seconds.
    pub const LOGOUT_REQUEST: u8 = 1;
    /// This connection will be dropped.
    pub const DROP_CONNECTION: u8 = 2;
    /// The session will be dropped.
    pub const DROP_SESSION: u8 = 3;
    /// Negotiate parameters again.
    pub const NEGOTIATE: u8 = 4;
}

/// Reject, §11.17.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Reject {
    /// Opcode; in requests with the I bit.
    pub opcode: u8,
    /// Flags of byte 1.
    pub flags: u8,
    /// Why.
    pub reason: u8,
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
    /// DataSN.
    pub data_sn: U32,
    /// Reserved: zero.
    pub reserved4: [u8; 8],
}

/// Reasons of a Reject, §11.17.1.
pub mod reject_reason {
    /// Data digest error.
    pub const DATA_DIGEST: u8 = 0x02;
    /// SNACK not possible.
    pub const SNACK: u8 = 0x03;
    /// Protocol error.
    pub const PROTOCOL: u8 = 0x04;
    /// Command not supported.
    pub const NOT_SUPPORTED: u8 = 0x05;
    /// Too many immediate commands.
    pub const TOO_MANY_IMMEDIATE: u8 = 0x06;
    /// The task tag is in use.
    pub const TASK_IN_PROGRESS: u8 = 0x07;
    /// Invalid data ACK.
    pub const INVALID_DATA_ACK: u8 = 0x08;
    /// Invalid PDU field.
    pub const INVALID_FIELD: u8 = 0x09;
    /// Cannot generate a target transfer tag: out of resources.
    pub const LONG_OPERATION: u8 = 0x0a;
    /// Only a logout is taken now.
    pub const WAITING_FOR_LOGOUT: u8 = 0x0c;
}

/// SNACK Request, §11.16.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Snack {
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
    pub reserved3: [u8; 8],
    /// BegRun.
    pub begin_run: U32,
    /// RunLength.
    pub run_length: U32,
}
