//! PDUs as bytes (RFC 7143 §11): one view of the 48-byte header that fits every type, and a
//! framer that takes a stream in any pieces.

use alloc::vec::Vec;
use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Basic header segment. Where a field has different names in different PDUs:
///
/// | bytes | requests | responses |
/// |---|---|---|
/// | 2–3 | – | response and status, or status class and detail |
/// | 8–15 | LUN, or ISID and TSIH | LUN, or ISID and TSIH |
/// | 20–23 | target transfer tag, expected length, CID or referenced tag | target transfer tag |
/// | 24–27 | CmdSN | StatSN |
/// | 28–31 | ExpStatSN | ExpCmdSN |
/// | 32–35 | CDB, RefCmdSN | MaxCmdSN |
/// | 36–39 | CDB, DataSN | DataSN, R2TSN, ExpDataSN, status class and detail |
/// | 40–43 | CDB, buffer offset | buffer offset, bidirectional residual |
/// | 44–47 | CDB | residual count, desired length |
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
#[repr(C)]
pub struct Header {
    /// Opcode with the immediate bit 40h.
    pub opcode: u8,
    /// F, T, C, R, W and so on.
    pub flags: u8,
    /// See the table.
    pub status: [u8; 2],
    /// Additional header segments, in 4-byte words.
    pub ahs_words: u8,
    /// Length of the data segment without padding.
    pub data_length: [u8; 3],
    /// See the table.
    pub lun: [u8; 8],
    /// Initiator task tag.
    pub task_tag: U32,
    /// See the table.
    pub transfer_tag: U32,
    /// CmdSN or StatSN.
    pub number: U32,
    /// ExpStatSN or ExpCmdSN.
    pub expected: U32,
    /// See the table.
    pub tail: [U32; 4],
}
const _: () = assert!(size_of::<Header>() == HEADER_LEN);

/// Bytes of a basic header segment.
pub const HEADER_LEN: usize = 48;
/// A tag that names nothing.
pub const NO_TAG: u32 = 0xffff_ffff;
/// Final bit (T in login).
pub const FINAL: u8 = 0x80;
/// Continue bit in login and text.
pub const CONTINUE: u8 = 0x40;
/// The largest data segment we accept; a longer one ends the connection.
pub const MAX_SEGMENT: usize = 1 << 20;

/// Opcodes, RFC 7143 §11.2.1.2.
#[expect(missing_docs, reason = "the RFC's names")]
pub mod opcode {
    pub const NOP_OUT: u8 = 0x00;
    pub const SCSI_COMMAND: u8 = 0x01;
    pub const TASK_MANAGEMENT: u8 = 0x02;
    pub const LOGIN: u8 = 0x03;
    pub const TEXT: u8 = 0x04;
    pub const DATA_OUT: u8 = 0x05;
    pub const LOGOUT: u8 = 0x06;
    pub const NOP_IN: u8 = 0x20;
    pub const SCSI_RESPONSE: u8 = 0x21;
    pub const TASK_MANAGEMENT_RESPONSE: u8 = 0x22;
    pub const LOGIN_RESPONSE: u8 = 0x23;
    pub const TEXT_RESPONSE: u8 = 0x24;
    pub const DATA_IN: u8 = 0x25;
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    pub const R2T: u8 = 0x31;
    pub const ASYNC: u8 = 0x32;
    pub const REJECT: u8 = 0x3f;
    pub const IMMEDIATE: u8 = 0x40;
}

impl Header {
    /// Length of the data segment in bytes.
    pub fn segment_len(&self) -> usize {
        let [a, b, c] = self.data_length;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }
}

/// Which digests are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// CRC32C after the header.
    pub header: bool,
    /// CRC32C after the data segment.
    pub data: bool,
}

/// Appends a PDU with padding and digests.
///
/// # Panics
/// If `data` is longer than a data segment can be (16 MiB).
pub fn encode(mut header: Header, data: &[u8], digests: Digests, out: &mut Vec<u8>) {
    let len = u32::try_from(data.len()).expect("data segments are cut to the negotiated length");
    let [high, a, b, c] = len.to_be_bytes();
    assert_eq!(high, 0, "data segments are cut to the negotiated length");
    header.data_length = [a, b, c];
    out.extend_from_slice(header.as_bytes());
    if digests.header {
        out.extend_from_slice(&crc32c::crc32c(header.as_bytes()).to_le_bytes());
    }
    if data.is_empty() {
        return;
    }
    let start = out.len();
    out.extend_from_slice(data);
    out.resize(start + data.len().next_multiple_of(4), 0);
    if digests.data {
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
}

/// What the target sent that can't be a PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header's CRC32C is wrong.
    #[error("header digest does not match")]
    HeaderDigest,
    /// The data segment's CRC32C is wrong.
    #[error("data digest does not match")]
    DataDigest,
    /// Longer than [`MAX_SEGMENT`].
    #[error("data segment of {0} bytes is longer than declared")]
    TooLong(usize),
}

/// Collects bytes until a whole PDU is there.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    taken: usize,
}

impl Framer {
    /// Adds what the socket gave.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole PDU: its header and data segment.
    ///
    /// # Errors
    /// A wrong digest or length; the connection is of no use afterwards.
    pub fn next(&mut self, digests: Digests) -> Result<Option<(Header, &[u8])>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let Ok((header, _)) = Header::read_from_prefix(rest) else {
            return Ok(None);
        };
        let segment = header.segment_len();
        if segment > MAX_SEGMENT {
            return Err(FrameError::TooLong(segment));
        }
        let header_end = HEADER_LEN + usize::from(header.ahs_words) * 4;
        let data = header_end + if digests.header { 4 } else { 0 };
        let padded = segment.next_multiple_of(4);
        let end = data + padded + if digests.data && segment > 0 { 4 } else { 0 };
        if rest.len() < end {
            return Ok(None);
        }
        if digests.header && crc_at(rest, header_end) != crc32c::crc32c(&rest[..header_end]) {
            return Err(FrameError::HeaderDigest);
        }
        if digests.data
            && segment > 0
            && crc_at(rest, data + padded) != crc32c::crc32c(&rest[data..data + padded])
        {
            return Err(FrameError::DataDigest);
        }
        let start = self.taken + data;
        self.taken += end;
        Ok(Some((header, &self.buffer[start..start + segment])))
    }

    /// Forgets everything: a new connection begins.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.taken = 0;
    }
}

fn crc_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// `a` comes before `b` in 32-bit serial arithmetic (RFC 1982).
pub fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const BOTH: Digests = Digests {
        header: true,
        data: true,
    };

    #[test]
    fn a_pdu_survives_any_split_of_the_stream() {
        let mut bytes = vec![];
        let header = Header {
            opcode: opcode::TEXT,
            flags: FINAL,
            ..Header::default()
        };
        encode(header, b"abcde", BOTH, &mut bytes);
        encode(header, b"", BOTH, &mut bytes);
        for cut in 0..bytes.len() {
            let mut framer = Framer::default();
            let mut seen = 0;
            for piece in [&bytes[..cut], &bytes[cut..]] {
                framer.push(piece);
                while let Some((header, data)) = framer.next(BOTH).unwrap() {
                    assert_eq!(header.opcode, opcode::TEXT);
                    assert_eq!(data, if seen == 0 { &b"abcde"[..] } else { b"" });
                    seen += 1;
                }
            }
            assert_eq!(seen, 2, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_by_the_digest_that_covers_it() {
        let mut good = vec![];
        encode(
            Header {
                opcode: opcode::TEXT,
                ..Header::default()
            },
            b"abcde",
            BOTH,
            &mut good,
        );
        for (at, error) in [(20, FrameError::HeaderDigest), (53, FrameError::DataDigest)] {
            let mut bad = good.clone();
            bad[at] ^= 4;
            let mut framer = Framer::default();
            framer.push(&bad);
            assert_eq!(framer.next(BOTH), Err(error));
        }
    }

    #[test]
    fn serial_numbers_wrap() {
        assert!(before(0xffff_ffff, 0));
        assert!(!before(0, 0xffff_ffff));
        assert!(!before(7, 7));
    }
}
