//! The only source of chance in a run: the same seed gives the same numbers, for ever.

use core::time::Duration;

/// `SplitMix64`: small, fast, and good enough to throw faults.
#[derive(Clone, Debug)]
pub struct Prng(u64);

impl Prng {
    /// A generator that is fully described by its seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        self.bits() % bound
    }

    /// A number from `low` to `high`, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        let bound = u64::try_from(len).expect("a length fits 64 bits");
        usize::try_from(self.below(bound)).expect("it is below a usize")
    }

    /// True `thousandths` times in a thousand.
    pub const fn chance(&mut self, thousandths: u64) -> bool {
        self.below(1000) < thousandths
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// A time from `low` to `high` microseconds.
    pub const fn micros(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.between(low, high))
    }

    /// A time from `low` to `high` milliseconds.
    pub const fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.between(low * 1000, high * 1000))
    }

    /// Bytes that a machine takes as its own randomness.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for word in seed.as_chunks_mut::<8>().0 {
            *word = self.bits().to_le_bytes();
        }
        seed
    }

    /// A generator of its own for one part of the world, so that the parts do not disturb each other.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut one, mut two) = (Prng::new(7), Prng::new(7));
        assert!((0..100).all(|_| one.bits() == two.bits()));
        assert_eq!(one.seed(), two.seed());
        assert_ne!(Prng::new(8).bits(), Prng::new(7).bits());
    }

    #[test]
    fn numbers_keep_to_their_bounds() {
        let mut prng = Prng::new(1);
        for _ in 0..1000 {
            assert!((3..=5).contains(&prng.between(3, 5)));
            assert!(!prng.chance(0) && prng.chance(1000));
        }
    }
}
