//! The 48-byte basic header segments of RFC 7143 §11, both directions, as fixed layouts: one
//! declaration is parser, encoder and size check. What stands behind a header (additional header
//! segments, digests, data, padding) is the business of whoever moves bytes.

mod command;
mod control;
mod data;
mod login;
mod management;

pub use command::{ScsiCommand, ScsiResponse, command_flags, response_flags};
pub use control::{
    AsyncMessage, LogoutRequest, LogoutResponse, NopIn, NopOut, Reject, Snack, TextRequest,
    TextResponse, async_event, logout_reason, reject_reason, text_flags,
};
pub use data::{DataIn, DataOut, R2t, data_in_flags};
pub use login::{LoginRequest, LoginResponse, login_flags, login_status};
pub use management::{TaskManagementRequest, TaskManagementResponse, function, function_response};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes in a basic header segment.
pub const HEADER_LEN: usize = 48;
/// The reserved value of task tags and target transfer tags.
pub const NO_TAG: u32 = 0xffff_ffff;
/// The F bit in byte 1, the same in every PDU that has it.
pub const FINAL: u8 = 0x80;
/// The I bit in byte 0 of requests.
pub const IMMEDIATE: u8 = 0x40;
/// Where the opcode is in byte 0.
pub const OPCODE_MASK: u8 = 0x3f;

/// Opcodes, RFC 7143 §11.2.1.2.
pub mod opcode {
    /// NOP-Out.
    pub const NOP_OUT: u8 = 0x00;
    /// SCSI Command.
    pub const SCSI_COMMAND: u8 = 0x01;
    /// SCSI Task Management Function Request.
    pub const TASK_MANAGEMENT: u8 = 0x02;
    /// Login Request.
    pub const LOGIN: u8 = 0x03;
    /// Text Request.
    pub const TEXT: u8 = 0x04;
    /// SCSI Data-Out.
    pub const DATA_OUT: u8 = 0x05;
    /// Logout Request.
    pub const LOGOUT: u8 = 0x06;
    /// SNACK Request.
    pub const SNACK: u8 = 0x10;
    /// NOP-In.
    pub const NOP_IN: u8 = 0x20;
    /// SCSI Response.
    pub const SCSI_RESPONSE: u8 = 0x21;
    /// SCSI Task Management Function Response.
    pub const TASK_MANAGEMENT_RESPONSE: u8 = 0x22;
    /// Login Response.
    pub const LOGIN_RESPONSE: u8 = 0x23;
    /// Text Response.
    pub const TEXT_RESPONSE: u8 = 0x24;
    /// SCSI Data-In.
    pub const DATA_IN: u8 = 0x25;
    /// Logout Response.
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    /// Ready To Transfer.
    pub const R2T: u8 = 0x31;
    /// Asynchronous Message.
    pub const ASYNC_MESSAGE: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3f;
}

/// A big-endian number of 24 bits.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct U24([u8; 3]);

impl U24 {
    /// The largest value.
    pub const MAX: u32 = 0x00ff_ffff;

    /// A number below 2^24; more is a mistake of the caller.
    #[must_use]
    pub fn new(value: u32) -> Self {
        assert!(
            value <= Self::MAX,
            "a data segment has at most 2^24 - 1 bytes"
        );
        let [_, a, b, c] = value.to_be_bytes();
        Self([a, b, c])
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        u32::from_be_bytes([0, self.0[0], self.0[1], self.0[2]])
    }
}

/// What every header has at the same place (§11.2.1).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Basic {
    /// Opcode and I bit.
    pub opcode: u8,
    /// F bit and opcode-specific flags.
    pub flags: u8,
    /// Opcode-specific.
    pub specific: [u8; 2],
    /// Length of all additional header segments, 4-byte words.
    pub ahs_words: u8,
    /// Length of the data segment without padding, bytes.
    pub data_length: U24,
    /// LUN or opcode-specific.
    pub lun: [u8; 8],
    /// Initiator task tag.
    pub task_tag: zerocopy::network_endian::U32,
    /// Opcode-specific.
    pub rest: [u8; 28],
}

impl Basic {
    /// Opcode without the I bit.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.opcode & OPCODE_MASK
    }

    /// The I bit of a request.
    #[must_use]
    pub fn immediate(&self) -> bool {
        self.opcode & IMMEDIATE != 0
    }
}

/// Padding bytes behind a data segment of `length` bytes (§11.1: segments end on 4 bytes).
#[must_use]
pub fn padding(length: u32) -> u32 {
    length.wrapping_neg() & 3
}

const _: () = {
    use core::mem::size_of;
    assert!(size_of::<Basic>() == HEADER_LEN);
    assert!(size_of::<ScsiCommand>() == HEADER_LEN);
    assert!(size_of::<ScsiResponse>() == HEADER_LEN);
    assert!(size_of::<TaskManagementRequest>() == HEADER_LEN);
    assert!(size_of::<TaskManagementResponse>() == HEADER_LEN);
    assert!(size_of::<DataOut>() == HEADER_LEN);
    assert!(size_of::<DataIn>() == HEADER_LEN);
    assert!(size_of::<R2t>() == HEADER_LEN);
    assert!(size_of::<LoginRequest>() == HEADER_LEN);
    assert!(size_of::<LoginResponse>() == HEADER_LEN);
    assert!(size_of::<TextRequest>() == HEADER_LEN);
    assert!(size_of::<TextResponse>() == HEADER_LEN);
    assert!(size_of::<LogoutRequest>() == HEADER_LEN);
    assert!(size_of::<LogoutResponse>() == HEADER_LEN);
    assert!(size_of::<NopOut>() == HEADER_LEN);
    assert!(size_of::<NopIn>() == HEADER_LEN);
    assert!(size_of::<AsyncMessage>() == HEADER_LEN);
    assert!(size_of::<Reject>() == HEADER_LEN);
    assert!(size_of::<Snack>() == HEADER_LEN);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_fills_up_to_four() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(padding), [0, 3, 2, 1, 0, 3]);
    }

    #[test]
    fn a_24_bit_number_is_big_endian() {
        assert_eq!(U24::new(0x01_0203).as_bytes(), [1, 2, 3]);
        assert_eq!(U24::new(U24::MAX).get(), U24::MAX);
    }
}
