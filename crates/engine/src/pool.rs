//! Accounting of a shard's buffer pool: which slots are free, who counts on the others. The
//! memory itself belongs to the driver; a slot's number and class tell it where.
//!
//! A slot goes back to the pool with its last release. A handle of an earlier use panics, in
//! release too: a buffer reused before its last user is done stores wrong data silently.

use alloc::vec::Vec;
use lockstep_mirror::operation::BufferId;

/// Slots of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct PoolClass {
    /// How many.
    pub slots: u32,
    /// Bytes in each; a multiple of the page size, ascending from class to class.
    pub slot_bytes: u32,
}

/// For whom a buffer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An initiator's command. A quarter of each class is out of its reach, so that two full
    /// nodes can still receive each other's writes and so make room.
    Initiator,
    /// Resync; leaves a quarter to the partner as well.
    Resync,
    /// A frame from the partner.
    Partner,
}

struct Slot {
    generation: u32,
    references: u32,
    class: u8,
}

/// The slots and their reference counts.
pub struct Pool {
    classes: Vec<PoolClass>,
    free: Vec<Vec<u32>>,
    slots: Vec<Slot>,
}

impl Pool {
    /// All slots free. Slots are numbered through the classes in order.
    ///
    /// # Panics
    /// If the classes do not ascend in size: `take` picks the first that fits.
    #[must_use]
    pub fn new(classes: &[PoolClass]) -> Self {
        assert!(
            classes.is_sorted_by_key(|class| class.slot_bytes) && classes.len() < 256,
            "classes ascend"
        );
        let mut slots = Vec::new();
        let mut free = Vec::new();
        for (index, class) in (0u8..).zip(classes) {
            let first = u32::try_from(slots.len()).expect("a pool has fewer than 2^32 slots");
            slots.extend((0..class.slots).map(|_| Slot {
                generation: 0,
                references: 0,
                class: index,
            }));
            // Low numbers are handed out first, so that memory that was never needed stays untouched.
            free.push((first..first + class.slots).rev().collect());
        }
        Self {
            classes: classes.to_vec(),
            free,
            slots,
        }
    }

    /// The class table, for the driver's memory.
    #[must_use]
    pub fn layout(&self) -> &[PoolClass] {
        &self.classes
    }

    /// A slot of at least `len` bytes with one reference, or `None` when all that this purpose may
    /// use are taken.
    pub fn take(&mut self, len: u32, purpose: Purpose) -> Option<BufferId> {
        for (class, free) in self.classes.iter().zip(&mut self.free) {
            let kept = match purpose {
                Purpose::Partner => 0,
                Purpose::Initiator | Purpose::Resync => class.slots / 4,
            };
            if class.slot_bytes < len || free.len() <= usize::try_from(kept).unwrap_or(usize::MAX) {
                continue;
            }
            let slot = free.pop()?;
            let state = &mut self.slots[index(slot)];
            assert_eq!(state.references, 0, "a free slot has no user");
            state.references = 1;
            return Some(BufferId {
                slot,
                generation: state.generation,
            });
        }
        None
    }

    /// One more user of the buffer.
    pub fn retain(&mut self, buffer: BufferId) {
        self.live(buffer).references += 1;
    }

    /// One user less; true if that was the last.
    pub fn release(&mut self, buffer: BufferId) -> bool {
        let slot = self.live(buffer);
        slot.references -= 1;
        if slot.references > 0 {
            return false;
        }
        slot.generation = slot.generation.wrapping_add(1);
        let class = usize::from(slot.class);
        self.free[class].push(buffer.slot);
        true
    }

    /// Whether this use of the slot goes on.
    #[must_use]
    pub fn holds(&self, buffer: BufferId) -> bool {
        let slot = &self.slots[index(buffer.slot)];
        slot.generation == buffer.generation && slot.references > 0
    }

    /// Slots in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.slots.len() - self.free.iter().map(Vec::len).sum::<usize>()
    }

    fn live(&mut self, buffer: BufferId) -> &mut Slot {
        let slot = &mut self.slots[index(buffer.slot)];
        assert!(
            slot.generation == buffer.generation && slot.references > 0,
            "stale buffer {buffer:?}: its slot is in use {} with {} references",
            slot.generation,
            slot.references
        );
        slot
    }
}

fn index(slot: u32) -> usize {
    usize::try_from(slot).expect("usize has 32 bits or more")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [PoolClass; 2] = [
        PoolClass {
            slots: 4,
            slot_bytes: 8192,
        },
        PoolClass {
            slots: 4,
            slot_bytes: 65536,
        },
    ];

    #[test]
    fn a_slot_returns_with_its_last_user() {
        let mut pool = Pool::new(&CLASSES);
        let buffer = pool.take(4096, Purpose::Partner).unwrap();
        pool.retain(buffer);
        assert!(!pool.release(buffer));
        assert_eq!(pool.used(), 1);
        assert!(pool.release(buffer));
        assert_eq!(pool.used(), 0);
        assert_ne!(
            pool.take(4096, Purpose::Partner),
            Some(buffer),
            "another generation"
        );
    }

    #[test]
    fn initiators_leave_a_quarter_to_the_partner_and_fall_back_to_larger_slots() {
        let mut pool = Pool::new(&CLASSES);
        let taken = core::iter::from_fn(|| pool.take(512, Purpose::Initiator)).count();
        assert_eq!(taken, 6);
        assert!(pool.take(65536, Purpose::Partner).is_some());
        assert!(pool.take(65537, Purpose::Partner).is_none());
    }

    #[test]
    #[should_panic(expected = "stale buffer")]
    fn a_handle_of_an_earlier_use_panics() {
        let mut pool = Pool::new(&CLASSES);
        let buffer = pool.take(1, Purpose::Partner).unwrap();
        pool.release(buffer);
        pool.retain(buffer);
    }
}
