//! How the memory of a shard's buffer pool is cut into slots.

use lockstep_engine::pool::PoolClass;

/// Sizes of slots: a block of file systems, small reads, the usual first burst and data segment,
/// and the longest write, each with its share of the memory in sixteenths.
const CLASSES: [(u32, u64); 4] = [(4 << 10, 2), (16 << 10, 2), (64 << 10, 4), (256 << 10, 4)];
/// The rest is for the longest write.
const LARGEST: u32 = lockstep_mirror::operation::MAX_WRITE_BYTES;
/// The least that a class has: initiators leave a quarter of each to the partner.
const SLOTS_MIN: u64 = 8;

/// The smallest pool: the largest class needs that much to have enough slots.
pub const POOL_MIN: u64 = 64 << 20;

/// Cuts this many bytes (at least [`POOL_MIN`] are taken) into slots.
#[must_use]
pub fn classes(bytes: u64) -> Vec<PoolClass> {
    let bytes = bytes.max(POOL_MIN);
    let slots = |share: u64, slot_bytes: u32| {
        let count = (bytes * share / 16 / u64::from(slot_bytes)).max(SLOTS_MIN);
        PoolClass {
            slots: u32::try_from(count).unwrap_or(u32::MAX >> 8),
            slot_bytes,
        }
    };
    let largest_share = 16 - CLASSES.iter().map(|&(_, share)| share).sum::<u64>();
    CLASSES
        .iter()
        .map(|&(size, share)| slots(share, size))
        .chain([slots(largest_share, LARGEST)])
        .collect()
}

/// Bytes of all slots together.
#[must_use]
pub fn total(classes: &[PoolClass]) -> u64 {
    classes
        .iter()
        .map(|class| u64::from(class.slots) * u64::from(class.slot_bytes))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_cut_completely_and_every_size_has_slots() {
        for bytes in [0, POOL_MIN, 256 << 20, 3 << 30] {
            let classes = classes(bytes);
            assert!(classes.is_sorted_by_key(|class| class.slot_bytes));
            assert!(
                classes.iter().all(
                    |class| u64::from(class.slots) >= SLOTS_MIN && class.slot_bytes % 4096 == 0
                )
            );
            assert_eq!(classes.last().unwrap().slot_bytes, LARGEST);
            assert_eq!(total(&classes), bytes.max(POOL_MIN));
        }
    }
}
