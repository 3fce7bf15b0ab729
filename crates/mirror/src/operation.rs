//! What the mirror carries: the operations that both nodes apply in one order, and the handles
//! by which it names blocks that it never touches itself.

use alloc::boxed::Box;

/// A slot of the engine's buffer pool, as the pure layers know it.
///
/// The generation changes each time the slot is handed out, so that a stale handle is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct BufferId {
    /// Index of the slot in the pool of its shard.
    pub slot: u32,
    /// Which use of the slot is meant.
    pub generation: u32,
}

/// A piece of a buffer: where an operation's blocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte within the buffer.
    pub at: u32,
    /// Length in bytes.
    pub len: u32,
    /// CRC32C of those bytes, computed where they entered this node and carried end to end.
    pub crc: u32,
}

/// A range of a volume's bytes. Both ends are multiples of the volume's block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Extent {
    /// The byte after the last one.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset + self.len
    }

    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }
}

/// The unit that the owner of a volume sequences and both members apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// New contents for an extent.
    Write {
        /// Where.
        extent: Extent,
        /// The contents, as long as the extent.
        payload: Payload,
        /// Durable before it is answered, whatever the cache mode.
        fua: bool,
    },
    /// Zeroes. At most [`MAX_RANGE_BYTES`] long; longer requests are cut by the caller.
    Zero {
        /// Where.
        extent: Extent,
        /// Durable before it is answered, whatever the cache mode.
        fua: bool,
    },
    /// The contents are no longer needed; they read as zeroes afterwards. Bounded like `Zero`.
    Discard {
        /// Where.
        extent: Extent,
    },
    /// Reserved on the wire and in the metadata for the atomic test-and-set command.
    CompareAndWrite {
        /// Where.
        extent: Extent,
        /// What must be there.
        compare: Payload,
        /// What replaces it.
        write: Payload,
    },
    /// A change of the SCSI state that both nodes hold (mode pages now, reservations later).
    State {
        /// Which part; the SCSI layer's number.
        kind: u16,
        /// What it is from now on.
        bytes: Box<[u8]>,
    },
}

/// The longest `Zero` or `Discard` in bytes: discarding all free space never locks a whole volume.
pub const MAX_RANGE_BYTES: u64 = 64 << 20;
/// The longest `Write` in bytes; INQUIRY page B0 tells initiators the same.
pub const MAX_WRITE_BYTES: u32 = 1 << 20;
/// The longest `State` in bytes.
pub const MAX_STATE_BYTES: usize = 64 << 10;

impl Operation {
    /// The bytes of the volume that it changes; none for `State`.
    #[must_use]
    pub const fn extent(&self) -> Option<Extent> {
        match self {
            Self::Write { extent, .. }
            | Self::Zero { extent, .. }
            | Self::Discard { extent }
            | Self::CompareAndWrite { extent, .. } => Some(*extent),
            Self::State { .. } => None,
        }
    }

    /// The buffers that it names.
    #[must_use]
    pub const fn buffers(&self) -> [Option<BufferId>; 2] {
        match self {
            Self::Write { payload, .. } => [Some(payload.buffer), None],
            Self::CompareAndWrite { compare, write, .. } => {
                [Some(compare.buffer), Some(write.buffer)]
            }
            Self::Zero { .. } | Self::Discard { .. } | Self::State { .. } => [None, None],
        }
    }

    /// How many bytes of blocks it carries.
    #[must_use]
    pub const fn carried(&self) -> u64 {
        match self {
            Self::Write { payload, .. } => payload.len as u64,
            Self::CompareAndWrite { compare, write, .. } => compare.len as u64 + write.len as u64,
            Self::Zero { .. } | Self::Discard { .. } | Self::State { .. } => 0,
        }
    }
}
