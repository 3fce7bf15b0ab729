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
    /// Disk to buffer.
    Read {
        /// Where on the disk.
        extent: Extent,
        /// Into which buffer.
        buffer: BufferId,
        /// From which byte of the buffer on.
        at: u32,
    },
    /// Buffer to disk. The driver checks `payload.crc` just before it writes.
    Write {
        /// Where on the disk.
        offset: u64,
        /// What.
        payload: Payload,
        /// Stable storage has it before completion (FUA or a flush).
        durable: bool,
    },
    /// Zeroes to disk.
    Zero {
        /// Where on the disk.
        extent: Extent,
        /// As for `Write`.
        durable: bool,
    },
    /// Discard; reads as zeroes afterwards.
    Discard {
        /// Where on the disk.
        extent: Extent,
        /// As for `Write`.
        durable: bool,
    },
    /// Everything completed before is on stable storage.
    Flush,
    /// Reads from the metadata area; answered with `Value::Bytes`.
    ReadMeta {
        /// First byte.
        offset: u64,
        /// How many.
        len: u32,
    },
    /// Durable write into the metadata area (one write, then a flush of the metadata file).
    WriteMeta {
        /// First byte.
        offset: u64,
        /// What.
        bytes: Box<[u8]>,
    },
    /// CRC32C of a piece of a buffer.
    Crc {
        /// The buffer.
        buffer: BufferId,
        /// First byte.
        at: u32,
        /// How many.
        len: u32,
    },
    /// Hashes of consecutive pieces: 16 bytes each (truncated BLAKE3).
    Hash {
        /// The buffer.
        buffer: BufferId,
        /// First byte.
        at: u32,
        /// How many; the last piece may be short.
        len: u32,
        /// Bytes in a piece.
        piece: u32,
    },
    /// First byte at which two pieces of the same length differ.
    Compare {
        /// One buffer.
        left: BufferId,
        /// Its first byte.
        left_at: u32,
        /// The other.
        right: BufferId,
        /// Its first byte.
        right_at: u32,
        /// How many bytes.
        len: u32,
    },
    /// Repeats the first `pattern` bytes at `at` until `len` bytes are filled.
    Fill {
        /// The buffer.
        buffer: BufferId,
        /// First byte.
        at: u32,
        /// Length of what is repeated.
        pattern: u32,
        /// Length of all.
        len: u32,
    },
    /// Puts bytes into a buffer.
    Put {
        /// The buffer.
        buffer: BufferId,
        /// First byte.
        at: u32,
        /// What.
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
