//! Where things lie in a volume's metadata area. `docs/disk-format.md` is the same as a table.

/// Superblock slots, 4 KiB each.
pub const SUPERBLOCK_OFFSETS: [u64; 2] = [0, 4 << 10];
/// Length of a superblock slot.
pub const SUPERBLOCK_LEN: u32 = 4 << 10;
/// SCSI state slots.
pub const SCSI_STATE_OFFSET: u64 = 16 << 10;
/// Region intents.
pub const INTENTS_OFFSET: u64 = 64 << 10;
/// Length of one sector of intents.
pub const INTENT_SECTOR: u64 = 512;
/// Regions in one sector of intents: 504 bytes of bits.
pub const REGIONS_PER_SECTOR: u64 = 504 * 8;
/// Bytes of a volume that one intent stands for.
pub const REGION: u64 = 16 << 20;
/// Length of one page of the dirty bitmap.
pub const DIRTY_PAGE: u64 = 4 << 10;
/// Dirty bits in one page: 4080 bytes of bits.
pub const CHUNKS_PER_PAGE: u64 = 4080 * 8;
/// Bytes of a volume that one dirty bit stands for.
pub const CHUNK: u64 = 64 << 10;
/// Length of the event ring.
pub const EVENTS_LEN: u64 = 256 << 10;

/// Sectors of intents of a volume of `size` bytes.
#[must_use]
pub const fn intent_sectors(size: u64) -> u64 {
    size.div_ceil(REGION).div_ceil(REGIONS_PER_SECTOR)
}

/// Offset of the dirty bitmap: after the intents, at a whole page.
#[must_use]
pub const fn dirty_offset(size: u64) -> u64 {
    INTENTS_OFFSET + (intent_sectors(size) * INTENT_SECTOR).next_multiple_of(DIRTY_PAGE)
}

/// Pages of the dirty bitmap.
#[must_use]
pub const fn dirty_pages(size: u64) -> u64 {
    size.div_ceil(CHUNK).div_ceil(CHUNKS_PER_PAGE)
}

/// Offset of the event ring.
#[must_use]
pub const fn events_offset(size: u64) -> u64 {
    dirty_offset(size) + dirty_pages(size) * DIRTY_PAGE
}

/// Length of the whole metadata area.
#[must_use]
pub const fn metadata_len(size: u64) -> u64 {
    events_offset(size) + EVENTS_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tebibyte_needs_two_mebibytes_of_bitmap() {
        let size = 1 << 40;
        assert_eq!(intent_sectors(size), 17);
        assert_eq!(dirty_offset(size), (64 << 10) + (12 << 10));
        assert_eq!(dirty_pages(size), 515);
        assert_eq!(metadata_len(size), (76 << 10) + 515 * 4096 + (256 << 10));
    }

    #[test]
    fn one_sector_covers_63_gib() {
        assert_eq!(intent_sectors(63 << 30), 1);
        assert_eq!(intent_sectors((63 << 30) + 1), 2);
    }
}
