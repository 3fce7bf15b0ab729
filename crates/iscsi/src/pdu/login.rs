//! Login Request and Login Response.

use super::U24;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Login Request, §11.12.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LoginRequest {
    /// Opcode; in requests with the I bit.
    pub opcode: u8,
    /// Flags of byte 1.
    pub flags: u8,
    /// Highest version that the sender speaks (0).
    pub version_max: u8,
    /// Lowest version that the initiator speaks (0).
    pub version_min: u8,
    /// Length of all additional header segments, 4-byte words.
    pub ahs_words: u8,
    /// Length of the data segment without padding, bytes.
    pub data_length: U24,
    /// ISID: the initiator's part of the session name.
    pub isid: [u8; 6],
    /// TSIH: the target's part; 0 in the first login of a session.
    pub tsih: U16,
    /// Initiator task tag.
    pub task_tag: U32,
    /// Connection ID.
    pub cid: U16,
    /// Reserved: zero.
    pub reserved: [u8; 2],
    /// CmdSN.
    pub cmd_sn: U32,
    /// ExpStatSN.
    pub exp_stat_sn: U32,
    /// Reserved: zero.
    pub reserved2: [u8; 16],
}

/// Login Response, §11.13.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LoginResponse {
    /// Opcode; in requests with the I bit.
    pub opcode: u8,
    /// Flags of byte 1.
    pub flags: u8,
    /// Highest version that the sender speaks (0).
    pub version_max: u8,
    /// The version in use (0).
    pub version_active: u8,
    /// Length of all additional header segments, 4-byte words.
    pub ahs_words: u8,
    /// Length of the data segment without padding, bytes.
    pub data_length: U24,
    /// ISID: the initiator's part of the session name.
    pub isid: [u8; 6],
    /// TSIH: the target's part; 0 in the first login of a session.
    pub tsih: U16,
    /// Initiator task tag.
    pub task_tag: U32,
    /// Reserved: zero.
    pub reserved: [u8; 4],
    /// StatSN.
    pub stat_sn: U32,
    /// ExpCmdSN.
    pub exp_cmd_sn: U32,
    /// MaxCmdSN.
    pub max_cmd_sn: U32,
    /// Status class: 0 success, 1 redirect, 2 initiator error, 3 target error.
    pub status_class: u8,
    /// Status detail.
    pub status_detail: u8,
    /// Reserved: zero.
    pub reserved2: [u8; 10],
}

/// Flags of byte 1 of Login Requests and Responses.
pub mod login_flags {
    /// The T bit: ready for the next stage.
    pub const TRANSIT: u8 = 0x80;
    /// The C bit: the text goes on in the next PDU.
    pub const CONTINUE: u8 = 0x40;
    /// CSG (bits 2 and 3) and NSG (bits 0 and 1).
    pub const STAGES: u8 = 0x0f;
}

/// Status class (high byte) and detail (low byte), §11.13.5.
pub mod login_status {
    /// Success.
    pub const SUCCESS: u16 = 0x0000;
    /// Miscellaneous initiator error.
    pub const INITIATOR_ERROR: u16 = 0x0200;
    /// Authentication failure.
    pub const AUTHENTICATION: u16 = 0x0201;
    /// The initiator is not allowed here.
    pub const AUTHORIZATION: u16 = 0x0202;
    /// No such target.
    pub const NOT_FOUND: u16 = 0x0203;
    /// The target was removed.
    pub const REMOVED: u16 = 0x0204;
    /// Unsupported version.
    pub const VERSION: u16 = 0x0205;
    /// Too many connections in the session.
    pub const TOO_MANY_CONNECTIONS: u16 = 0x0206;
    /// A key is missing.
    pub const MISSING_PARAMETER: u16 = 0x0207;
    /// The connection cannot be part of that session.
    pub const NOT_IN_SESSION: u16 = 0x0208;
    /// Unknown session type.
    pub const SESSION_TYPE: u16 = 0x0209;
    /// No such session.
    pub const NO_SESSION: u16 = 0x020a;
    /// Invalid during login.
    pub const INVALID_REQUEST: u16 = 0x020b;
    /// Target error.
    pub const TARGET_ERROR: u16 = 0x0300;
    /// Service unavailable.
    pub const UNAVAILABLE: u16 = 0x0301;
    /// Out of resources.
    pub const OUT_OF_RESOURCES: u16 = 0x0302;
}
