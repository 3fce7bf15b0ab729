//! A first-come-first-served lock on ranges: only overlapping entries wait for each other, and
//! never overtake.

use crate::operation::Extent;
use alloc::vec::Vec;

/// The lock. Entries are few (the operations in flight and those behind them), so a plain list
/// in order of arrival is both the simplest and the fastest.
#[derive(Debug, Default)]
pub struct RangeLock {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u64,
    extent: Extent,
    /// How many earlier entries overlap this one.
    ahead: u32,
}

impl RangeLock {
    /// Queues `id` for a range. True: nothing earlier overlaps, it holds the range now.
    ///
    /// An id may be queued only once.
    pub fn enter(&mut self, id: u64, extent: Extent) -> bool {
        assert!(
            self.entries.iter().all(|entry| entry.id != id),
            "an operation queues for its range once"
        );
        let mut ahead = 0;
        for entry in &self.entries {
            ahead += u32::from(entry.extent.overlaps(extent));
        }
        self.entries.push(Entry { id, extent, ahead });
        ahead == 0
    }

    /// Takes `id` out, whether it held its range or waited. Those that hold theirs because of it
    /// are appended to `granted`, in order of arrival. Nothing happens if it is not there.
    pub fn leave(&mut self, id: u64, granted: &mut Vec<u64>) {
        let Some(place) = self.entries.iter().position(|entry| entry.id == id) else {
            return;
        };
        let gone = self.entries.remove(place);
        for entry in &mut self.entries[place..] {
            if entry.extent.overlaps(gone.extent) {
                entry.ahead -= 1;
                if entry.ahead == 0 {
                    granted.push(entry.id);
                }
            }
        }
    }

    /// Forgets every entry.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, len: u64) -> Extent {
        Extent { offset, len }
    }

    #[test]
    fn only_overlapping_ranges_wait() {
        let mut lock = RangeLock::default();
        assert!(lock.enter(1, extent(0, 8)));
        assert!(lock.enter(2, extent(8, 8)));
        assert!(!lock.enter(3, extent(4, 8)));
        let mut granted = Vec::new();
        lock.leave(1, &mut granted);
        assert_eq!(granted, []);
        lock.leave(2, &mut granted);
        assert_eq!(granted, [3]);
    }

    #[test]
    fn a_later_one_never_overtakes() {
        let mut lock = RangeLock::default();
        assert!(lock.enter(1, extent(0, 4)));
        assert!(!lock.enter(2, extent(0, 8)));
        assert!(!lock.enter(3, extent(4, 4)), "it is free, but 2 came first");
        let mut granted = Vec::new();
        lock.leave(1, &mut granted);
        assert_eq!(granted, [2]);
        granted.clear();
        lock.leave(2, &mut granted);
        assert_eq!(granted, [3]);
    }

    #[test]
    fn one_that_gives_up_lets_those_behind_it_go() {
        let mut lock = RangeLock::default();
        assert!(lock.enter(1, extent(0, 4)));
        assert!(!lock.enter(2, extent(0, 8)));
        assert!(!lock.enter(3, extent(6, 2)));
        let mut granted = Vec::new();
        lock.leave(2, &mut granted);
        assert_eq!(granted, [3]);
    }
}
