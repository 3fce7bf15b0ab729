//! Reproducible randomness: SplitMix64, seeded on the command line.

use std::time::Duration;

/// A generator; the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed, and what it is for: two purposes get different numbers.
    #[must_use]
    pub const fn new(seed: u64, purpose: u64) -> Self {
        Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The next 64 bits.
    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below the limit, which is at least 1.
    pub fn below(&mut self, limit: u64) -> u64 {
        let wide = (u128::from(self.word()) * u128::from(limit)) >> 64;
        u64::try_from(wide).expect("below the limit")
    }

    /// An index below the length, which is at least 1.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below the length")
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// A time between two, in milliseconds; short ones are as likely as long ones by magnitude.
    pub fn duration(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        let doublings = (to_ms / from_ms.max(1)).max(1).ilog2();
        let top = (from_ms << self.below(u64::from(doublings) + 1)).max(from_ms + 1);
        let ms = from_ms + self.below((top * 2).min(to_ms + 1).saturating_sub(from_ms).max(1));
        Duration::from_millis(ms)
    }
}

/// Spreads the bits of a number.
#[must_use]
pub const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_purposes_differ() {
        let run = |seed, purpose| {
            let mut random = Random::new(seed, purpose);
            [(); 8].map(|()| random.below(1000))
        };
        assert_eq!(run(7, 1), run(7, 1));
        assert_ne!(run(7, 1), run(7, 2));
    }

    #[test]
    fn durations_stay_between_their_bounds() {
        let mut random = Random::new(1, 1);
        let times = [(); 500].map(|()| random.duration(100, 20_000).as_millis());
        assert!(times.iter().all(|ms| (100..=20_000).contains(ms)));
        assert!(times.iter().any(|ms| *ms < 500) && times.iter().any(|ms| *ms > 10_000));
    }
}
