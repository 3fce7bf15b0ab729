//! How much one command may ask for. INQUIRY page B0 reports the same numbers.

/// The longest READ, WRITE or VERIFY in bytes: one buffer of the largest class, one sequenced write.
pub const MAX_TRANSFER_BYTES: u32 = 1 << 20;

/// OPTIMAL TRANSFER LENGTH in bytes. Linux takes it as the default for its largest request, so
/// anything below the maximum would only cut large transfers into more commands.
pub const OPTIMAL_TRANSFER_BYTES: u32 = MAX_TRANSFER_BYTES;

/// The longest WRITE SAME in bytes: even a pattern that has to be written out block by block ends
/// well within an initiator's 30 s.
pub const MAX_WRITE_SAME_BYTES: u32 = 16 << 20;

/// The most bytes that one UNMAP names, over all its descriptors: eight sequenced ranges, so that
/// a host discarding a whole volume leaves room for others between its commands. At 512-byte
/// blocks this is 2^20 blocks, the most that conformance suites take for sane.
pub const MAX_UNMAP_BYTES: u32 = 512 << 20;

/// The most descriptors in one UNMAP: its parameter list stays just above 4 KiB.
pub const MAX_UNMAP_DESCRIPTORS: u16 = 256;
