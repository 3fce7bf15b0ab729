//! Two ways to make a write durable, and which one this device does better at present.
//!
//! One flush for all that wait costs a single writer little and makes many wait for each other;
//! writing each through to the medium is parallel, where direct I/O and the device allow it. Which
//! is faster depends on device, file system and load, by factors of five in both directions, so a
//! few writes are tried the other way now and then.

use std::time::Duration;

/// How one write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Written, then covered by a flush together with others.
    Shared,
    /// Written through to the medium by itself.
    Each,
}

/// Writes of one trial.
const TRIAL: u32 = 32;
/// Writes before the first trial: the load has settled.
const FIRST: u32 = 64;
/// Writes between trials, at first; doubled by each trial that changes nothing.
const STEADY_MIN: u32 = 4096;
/// The most writes between trials: conditions change.
const STEADY_MAX: u32 = 65_536;

/// Measures and chooses, for one disk.
pub(super) struct Chooser {
    /// Whether there is a choice: through the page cache, writes of one file wait for each other.
    choice: bool,
    way: Way,
    trying: bool,
    begun: u32,
    steady: u32,
    /// Moving averages in nanoseconds, of `Shared` and `Each`.
    average: [Option<u64>; 2],
}

impl Chooser {
    pub(super) const fn new(direct: bool) -> Self {
        Self {
            choice: direct,
            way: Way::Shared,
            trying: false,
            begun: 0,
            steady: FIRST,
            average: [None; 2],
        }
    }

    /// A durable write begins; it is to be made so.
    pub(super) fn begin(&mut self) -> Way {
        if !self.choice {
            return Way::Shared;
        }
        self.begun += 1;
        if self.trying && self.begun > TRIAL {
            self.decide();
        } else if !self.trying && self.begun > self.steady {
            (self.trying, self.begun) = (true, 0);
            self.average[self.other() as usize] = None;
        }
        if self.trying { self.other() } else { self.way }
    }

    /// A write that was made durable in this way has ended.
    pub(super) fn ended(&mut self, way: Way, taken: Duration) {
        let taken = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX / 8);
        let average = &mut self.average[way as usize];
        *average = Some(average.map_or(taken, |average| (average * 7 + taken) / 8));
    }

    fn decide(&mut self) {
        (self.trying, self.begun) = (false, 0);
        let (present, tried) = (
            self.average[self.way as usize],
            self.average[self.other() as usize],
        );
        // A quarter better, lest noise makes it change to and fro.
        if present
            .zip(tried)
            .is_some_and(|(present, tried)| tried < present / 4 * 3)
        {
            self.way = self.other();
            self.steady = STEADY_MIN;
        } else {
            self.steady = (self.steady * 2).clamp(STEADY_MIN, STEADY_MAX);
        }
    }

    const fn other(&self) -> Way {
        match self.way {
            Way::Shared => Way::Each,
            Way::Each => Way::Shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many writes went each by itself, on a device with these latencies.
    fn run(chooser: &mut Chooser, writes: u32, shared_us: u64, each_us: u64) -> u32 {
        let mut each = 0;
        for _ in 0..writes {
            let way = chooser.begin();
            each += u32::from(way == Way::Each);
            let taken = if way == Way::Each { each_us } else { shared_us };
            chooser.ended(way, Duration::from_micros(taken));
        }
        each
    }

    #[test]
    fn the_faster_way_is_found_and_followed_when_the_load_changes() {
        let mut chooser = Chooser::new(true);
        assert!(run(&mut chooser, 10_000, 2000, 400) > 9_000);
        assert!(run(&mut chooser, 200_000, 300, 3000) < 60_000);
        assert!(run(&mut chooser, 10_000, 300, 3000) <= TRIAL);
    }

    #[test]
    fn trials_that_change_nothing_become_rare() {
        let mut chooser = Chooser::new(true);
        assert!(run(&mut chooser, 1_000_000, 300, 299) < 1_000);
    }

    #[test]
    fn through_the_page_cache_flushes_are_always_shared() {
        assert_eq!(run(&mut Chooser::new(false), 10_000, 2000, 1), 0);
    }
}
