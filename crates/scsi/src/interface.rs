//! What a disk is asked, and what it says: an answer, or a block operation for the layer below.

use alloc::string::String;
use alloc::vec::Vec;

/// What initiators see of a logical unit; the same bytes on both nodes, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Identity {
    /// The volume's UUID: makes serial number and NAA designator.
    pub uuid: u128,
    /// The target's iSCSI name (for the SCSI name string designators).
    pub target_name: String,
}

/// Size and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Logical blocks.
    pub blocks: u64,
    /// Bytes a logical block: 512 or 4096.
    pub block_size: u32,
    /// log2 of logical blocks a physical block: 3 for 512e, 0 for 4Kn.
    pub physical_exponent: u8,
    /// Write cache enabled (cache mode write-back).
    pub write_cache: bool,
    /// Thin semantics: UNMAP and WRITE SAME with UNMAP are offered (LBPME).
    pub unmap: bool,
    /// Refuse every write (7/27/00).
    pub read_only: bool,
}

/// Through which port a command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Relative target port identifier: node number × 256 + portal.
    pub relative: u16,
    /// Target port group: the same number.
    pub group: u16,
}

/// ALUA state of one port group (SPC-4 §6.37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum AccessState {
    /// 0h
    Optimized,
    /// 1h
    NonOptimized,
    /// 2h
    Standby,
    /// 3h
    Unavailable,
    /// Fh
    Transitioning,
}

/// A port group as REPORT TARGET PORT GROUPS lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct PortGroup {
    /// Its number.
    pub group: u16,
    /// Relative ports in it.
    pub ports: Vec<u16>,
    /// Its state.
    pub state: AccessState,
}

/// A SCSI status with sense data, ready to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// SCSI status byte.
    pub status: u8,
    /// Sense data; empty unless CHECK CONDITION.
    pub sense: Vec<u8>,
    /// Parameter data for the initiator, not yet cut to the allocation length's residual rules:
    /// exactly what the command returns.
    pub data: Vec<u8>,
}

/// Blocks, first and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// First logical block.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What a command wants from the layer below. Ranges are checked already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read these blocks.
    Read {
        /// Which.
        blocks: Blocks,
        /// From stable storage rather than a volatile cache.
        fua: bool,
    },
    /// Write these blocks with the data sent.
    Write {
        /// Which.
        blocks: Blocks,
        /// On stable storage before it is answered.
        fua: bool,
    },
    /// Read these blocks and say GOOD if that worked (VERIFY, BYTCHK 0).
    Verify {
        /// Which.
        blocks: Blocks,
    },
    /// Compare these blocks with the data sent (VERIFY, BYTCHK 1; with BYTCHK 3 one block
    /// is sent and compared with each: `one_block`).
    Compare {
        /// Which.
        blocks: Blocks,
        /// One block is sent, not as many as are compared.
        one_block: bool,
    },
    /// Repeat the one block sent over the range (WRITE SAME).
    WriteSame {
        /// Which; up to the whole disk.
        blocks: Blocks,
    },
    /// Zeroes over the range (WRITE SAME with NDOB).
    Zero {
        /// Which; up to the whole disk.
        blocks: Blocks,
    },
    /// The contents are no longer needed and read as zero (UNMAP; WRITE SAME with UNMAP).
    Unmap {
        /// None of them empty; they may overlap. From WRITE SAME one, up to the whole disk.
        ranges: Vec<Blocks>,
        /// WRITE SAME with UNMAP and a data block: the block sent must be all zero, else it is
        /// written instead.
        check: bool,
    },
    /// Everything answered before is on stable storage on both nodes.
    Flush,
}

/// What to do with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answer it now.
    Answer(Answer),
    /// Bring the parameter list, then call `Disk::parameters`.
    Parameters {
        /// Bytes, at most 64 KiB.
        len: u32,
    },
    /// Bring the blocks, then carry it out.
    Operate {
        /// What.
        operation: Operation,
        /// Bytes of blocks to bring; 0: none.
        data_out: u32,
    },
}

/// How an operation ended, for `Disk::finish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It worked.
    Good,
    /// Blocks unreadable on both nodes: 3/11/00.
    Unreadable {
        /// First such block.
        block: u64,
    },
    /// Compared data differ: E/1D/00 with the offset in the information field.
    Miscompare {
        /// Byte offset of the first difference within the data sent.
        offset: u64,
    },
    /// The medium failed a write: 3/0C/00.
    WriteFailed,
    /// No space left: 7/27/07.
    NoSpace,
    /// The volume changes hands: 02/04/0A.
    Transition,
    /// Not served here: 02/04/0C.
    Unavailable,
    /// Status BUSY.
    Busy,
    /// Status TASK ABORTED, or 0B/00/00.
    Aborted,
    /// Data from the initiator failed its digest or sequence: 0B/47/05.
    BadData,
}

/// Why a logical unit tells its nexuses about a reset, for `Disk::reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetCause {
    /// LOGICAL UNIT RESET: every nexus hears 29/03.
    LogicalUnit,
    /// TARGET WARM or COLD RESET: every nexus hears 29/02.
    Target,
    /// CLEAR TASK SET ended tasks of others: every nexus but `by` hears 2F/00.
    TasksCleared,
    /// The session of `by` was lost and came back under the same name: it alone hears 29/07.
    NexusLost,
}
