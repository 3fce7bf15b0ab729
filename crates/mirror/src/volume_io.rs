//! What a volume asks of the machine that it runs on, and what it tells its surroundings.

use crate::operation::{BufferId, Extent, Payload};
use alloc::boxed::Box;

/// Names one I/O of one volume until its completion; never reused in a run of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct IoId(pub u64);

/// One thing to do on the volume's disk, its metadata area or its buffers.
///
/// The driver may run any number at once and in any order. What must come after another is
/// submitted after the other's completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Io {
    /// Disk to buffer, starting `at` bytes into the buffer.
    Read {
        extent: Extent,
        buffer: BufferId,
        at: u32,
    },
    /// Buffer to disk. The driver checks `payload.crc` just before it writes.
    /// `durable`: stable storage has it before completion (FUA or a flush).
    Write {
        offset: u64,
        payload: Payload,
        durable: bool,
    },
    /// Zeroes to disk; `durable` as above.
    Zero { extent: Extent, durable: bool },
    /// Discard; reads as zeroes afterwards.
    Discard { extent: Extent, durable: bool },
    /// Everything completed before is on stable storage.
    Flush,
    /// Reads from the metadata area (offset and length in bytes; answered with `Value::Bytes`).
    ReadMeta { offset: u64, len: u32 },
    /// Durable write into the metadata area (one write, then a flush of the metadata file).
    WriteMeta { offset: u64, bytes: Box<[u8]> },
    /// CRC32C of a piece of a buffer.
    Crc { buffer: BufferId, at: u32, len: u32 },
    /// Hashes of consecutive pieces of `piece` bytes: 16 bytes each (truncated SHA-256).
    Hash {
        buffer: BufferId,
        at: u32,
        len: u32,
        piece: u32,
    },
    /// First byte at which two pieces of the same length differ.
    Compare {
        left: BufferId,
        left_at: u32,
        right: BufferId,
        right_at: u32,
        len: u32,
    },
    /// Repeats the first `pattern` bytes at `at` until `len` bytes are filled.
    Fill {
        buffer: BufferId,
        at: u32,
        pattern: u32,
        len: u32,
    },
    /// Puts bytes into a buffer.
    Put {
        buffer: BufferId,
        at: u32,
        bytes: Box<[u8]>,
    },
}

/// What an [`Io`] brought.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum Value {
    /// Nothing but success.
    Done,
    /// From `Crc`.
    Crc(u32),
    /// From `Hash`: 16 bytes for each piece.
    Hashes(Box<[u8]>),
    /// From `Compare`: offset of the first difference.
    Difference(Option<u32>),
    /// From `ReadMeta`.
    Bytes(Box<[u8]>),
}

/// Why an [`Io`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum IoError {
    /// The device could not read these blocks (EIO on a read).
    Unreadable,
    /// A write, discard or flush failed: what the disk holds is suspect.
    WriteFailed,
    /// No space left (a file that lost its preallocation).
    NoSpace,
    /// The payload no longer had its CRC: nothing was written.
    Corrupt,
}
