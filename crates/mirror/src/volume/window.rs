//! Exact remembrance of numbers that came, within a window: the sender never runs further ahead
//! of its oldest unanswered number than [`MAX_IN_FLIGHT`], so what is older needs no remembering.

use super::MAX_IN_FLIGHT;

const WORDS: usize = (MAX_IN_FLIGHT / 64) as usize;

#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// The greatest number seen.
    latest: u64,
    /// Every number up to this one was seen.
    floor: u64,
    /// Of the last `MAX_IN_FLIGHT` numbers, those seen.
    seen: [u64; WORDS],
}

impl Window {
    fn place(number: u64) -> (usize, u64) {
        let at = number % MAX_IN_FLIGHT;
        ((at / 64) as usize, 1 << (at % 64))
    }

    /// Whether the number came before (or is too old to be new).
    pub(super) fn contains(&self, number: u64) -> bool {
        if number > self.latest {
            return false;
        }
        let (word, bit) = Self::place(number);
        number.saturating_add(MAX_IN_FLIGHT) <= self.latest
            || number <= self.floor
            || self.seen[word] & bit != 0
    }

    /// Remembers a number. False: it is a duplicate.
    ///
    /// A source gives numbers to operations that it does not send, so numbers may jump.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        if number.saturating_sub(self.latest) >= MAX_IN_FLIGHT {
            self.seen = [0; WORDS];
        } else {
            for between in self.latest + 1..=number {
                let (word, bit) = Self::place(between);
                self.seen[word] &= !bit;
            }
        }
        self.latest = self.latest.max(number);
        // The sender would not have sent this one before those were answered.
        self.floor = self.floor.max(self.latest.saturating_sub(MAX_IN_FLIGHT));
        let (word, bit) = Self::place(number);
        self.seen[word] |= bit;
        while self.floor < self.latest && self.contains(self.floor + 1) {
            self.floor += 1;
        }
        true
    }

    /// Every number up to this one came.
    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_counts_once_in_any_order() {
        let mut window = Window::default();
        for number in [2, 1, 5, 3] {
            assert!(window.insert(number));
            assert!(!window.insert(number));
        }
        assert_eq!(window.floor(), 3);
        assert!(!window.contains(4));
        assert!(window.insert(4));
        assert_eq!(window.floor(), 5);
    }

    #[test]
    fn the_ring_comes_round() {
        let mut window = Window::default();
        for number in 1..=5 * MAX_IN_FLIGHT {
            if number != 4 * MAX_IN_FLIGHT + 7 {
                assert!(window.insert(number), "{number}");
            }
        }
        assert!(window.insert(4 * MAX_IN_FLIGHT + 7));
        assert_eq!(window.floor(), 5 * MAX_IN_FLIGHT);
        assert!(!window.insert(1));
    }

    #[test]
    fn numbers_may_jump() {
        let mut window = Window::default();
        assert!(window.insert(3));
        assert!(window.insert(3 + 5 * MAX_IN_FLIGHT));
        assert!(
            window.insert(2 + 5 * MAX_IN_FLIGHT),
            "not mistaken for 2 or 3"
        );
        assert!(!window.insert(3 + 5 * MAX_IN_FLIGHT));
        assert!(!window.insert(3 + 4 * MAX_IN_FLIGHT), "too old to be new");
        assert!(window.insert(u64::MAX));
        assert!(!window.insert(u64::MAX));
    }
}
