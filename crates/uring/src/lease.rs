//! Which pieces of which slots are lent to the kernel at present, and for what.
//!
//! A slot rarely has more than a few loans at once, so each slot keeps a short list. The rule is
//! that of references: any number of readers, or one writer, for each byte.

/// End of a list.
const NONE: u32 = u32::MAX;

/// One loan.
#[derive(Clone, Copy)]
struct Lease {
    slot: u32,
    start: u32,
    end: u32,
    /// The kernel writes there (otherwise it reads).
    writes: bool,
    next: u32,
}

/// All loans of one arena.
pub(crate) struct Leases {
    first: Vec<u32>,
    table: Vec<Lease>,
    free: u32,
    count: usize,
}

impl Leases {
    /// No loans, for this many slots.
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            first: vec![NONE; slots],
            table: Vec::new(),
            free: NONE,
            count: 0,
        }
    }

    /// Loans that have not ended.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Whether these bytes may be read: the kernel writes none of them.
    pub(crate) fn may_read(&self, slot: u32, start: u32, end: u32) -> bool {
        !self
            .of(slot)
            .any(|lease| lease.writes && lease.start < end && start < lease.end)
    }

    /// Whether these bytes may be changed: the kernel has none of them.
    pub(crate) fn may_write(&self, slot: u32, start: u32, end: u32) -> bool {
        !self
            .of(slot)
            .any(|lease| lease.start < end && start < lease.end)
    }

    /// Starts a loan; the caller has asked `may_read` or `may_write`.
    pub(crate) fn begin(&mut self, slot: u32, start: u32, end: u32, writes: bool) -> u32 {
        let lease = Lease {
            slot,
            start,
            end,
            writes,
            next: self.first[slot as usize],
        };
        let key = if self.free == NONE {
            let key = u32::try_from(self.table.len()).expect("fewer loans than a u32 counts");
            self.table.push(lease);
            key
        } else {
            let key = self.free;
            self.free = self.table[key as usize].next;
            self.table[key as usize] = lease;
            key
        };
        self.first[slot as usize] = key;
        self.count += 1;
        key
    }

    /// Ends a loan.
    pub(crate) fn end(&mut self, key: u32) {
        let Lease { slot, next, .. } = self.table[key as usize];
        let mut at = self.first[slot as usize];
        if at == key {
            self.first[slot as usize] = next;
        } else {
            while self.table[at as usize].next != key {
                at = self.table[at as usize].next;
            }
            self.table[at as usize].next = next;
        }
        self.table[key as usize].next = self.free;
        self.free = key;
        self.count -= 1;
    }

    fn of(&self, slot: u32) -> impl Iterator<Item = &Lease> {
        let mut at = self.first[slot as usize];
        std::iter::from_fn(move || {
            if at == NONE {
                return None;
            }
            let lease = &self.table[at as usize];
            at = lease.next;
            Some(lease)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_writers_do_not() {
        let mut leases = Leases::new(2);
        let reader = leases.begin(1, 0, 100, false);
        assert!(leases.may_read(1, 50, 60) && !leases.may_write(1, 50, 60));
        assert!(leases.may_write(1, 100, 200) && leases.may_write(0, 0, 100));
        let writer = leases.begin(1, 100, 200, true);
        assert!(!leases.may_read(1, 99, 101) && leases.may_read(1, 0, 100));
        leases.end(reader);
        assert!(leases.may_write(1, 0, 100) && !leases.may_read(1, 150, 151));
        leases.end(writer);
        assert!(leases.may_write(1, 0, 200));
        assert_eq!(leases.count(), 0);
    }

    #[test]
    fn loans_end_in_any_order_and_their_places_are_used_again() {
        let mut leases = Leases::new(1);
        for round in 0..3 {
            let keys: Vec<u32> = (0..5)
                .map(|n| leases.begin(0, n * 10, n * 10 + 10, true))
                .collect();
            for pick in [2, 0, 4, 1, 3] {
                let key = keys[(pick + round) % 5];
                leases.end(key);
            }
            assert!(leases.may_write(0, 0, 50));
        }
        assert_eq!(leases.table.len(), 5);
    }
}
