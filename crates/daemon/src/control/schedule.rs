//! When volumes are due to be verified. Within a run the time since the last verification is
//! counted on the clock that never goes back; the wall clock only bridges the time between two
//! runs, and what a run has counted is kept, so that a wrong one neither begins a verification
//! again and again nor puts it off for ever.

use lockstep_mirror::control::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often it is looked whether a verification is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// One that was interrupted is begun again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// What has been counted is written down so often: a run that is killed loses no more of it.
const KEEP_EVERY: Duration = Duration::from_secs(3600);

/// When volumes were last verified, by their UUIDs in text.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    volumes: BTreeMap<String, Waiting>,
    look_at: Time,
    keep_at: Time,
    loaded: bool,
}

#[derive(Debug)]
struct Waiting {
    /// Seconds since 1970 of the last verification, as the wall clock was then.
    at: u64,
    /// How long ago that was at `since`.
    age: Duration,
    since: Time,
    not_before: Time,
}

impl Waiting {
    const fn new(at: u64, age: Duration, since: Time) -> Self {
        let not_before = Time::ZERO;
        Self {
            at,
            age,
            since,
            not_before,
        }
    }

    fn age(&self, now: Time) -> Duration {
        self.age + now.saturating_sub(self.since)
    }
}

/// As it is in the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Kept {
    /// Of versions that knew the wall clock alone.
    At(u64),
    Counted {
        at: u64,
        waited: u64,
    },
}

impl Schedule {
    /// Whether the file was read.
    pub(super) const fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Takes what the file has. Without it every volume's time begins now.
    pub(super) fn load(&mut self, text: &[u8], now: Time, wall: u64) {
        self.loaded = true;
        self.keep_at = now + KEEP_EVERY;
        let kept: BTreeMap<String, Kept> = serde_json::from_slice(text).unwrap_or_default();
        let waiting = kept.into_iter().map(|(key, kept)| {
            let (at, waited) = match kept {
                Kept::At(at) => (at, 0),
                Kept::Counted { at, waited } => (at, waited),
            };
            // A wall clock that stands before the last verification tells nothing.
            let age = wall.saturating_sub(at).max(waited);
            (key, Waiting::new(at, Duration::from_secs(age), now))
        });
        self.volumes = waiting.collect();
    }

    /// What belongs into the file.
    pub(super) fn text(&self, now: Time) -> Vec<u8> {
        let kept = |it: &Waiting| Kept::Counted {
            at: it.at,
            waited: it.age(now).as_secs(),
        };
        let kept: BTreeMap<&str, Kept> = self
            .volumes
            .iter()
            .map(|(key, it)| (key.as_str(), kept(it)))
            .collect();
        serde_json::to_vec(&kept).expect("a map of numbers")
    }

    /// Whether it is time to look. `true` at most once a minute.
    pub(super) fn is_time(&mut self, now: Time) -> bool {
        let due = now >= self.look_at;
        if due {
            self.look_at = now + LOOK_EVERY;
        }
        due
    }

    /// Whether what was counted is to be written down.
    pub(super) fn is_to_be_kept(&mut self, now: Time) -> bool {
        let due = now >= self.keep_at;
        if due {
            self.keep_at = now + KEEP_EVERY;
        }
        due
    }

    /// Whether this volume is due. One that is seen for the first time begins to wait now.
    pub(super) fn is_due(&mut self, key: &str, every: Duration, now: Time, wall: u64) -> bool {
        if !self.volumes.contains_key(key) {
            let begun = Waiting::new(wall, Duration::ZERO, now);
            self.volumes.insert(key.to_owned(), begun);
            self.keep_at = now;
        }
        let volume = &self.volumes[key];
        now >= volume.not_before && volume.age(now) >= every
    }

    /// Its verification has begun.
    pub(super) fn begun(&mut self, key: &str, now: Time) {
        if let Some(volume) = self.volumes.get_mut(key) {
            volume.not_before = now + AGAIN_AFTER;
        }
    }

    /// It has been compared from end to end.
    pub(super) fn done(&mut self, key: &str, now: Time, wall: u64) {
        let anew = Waiting::new(wall, Duration::ZERO, now);
        self.volumes.insert(key.to_owned(), anew);
        self.keep_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    const EVERY: Duration = Duration::from_secs(7 * DAY);
    const YEAR: u64 = 365 * DAY;
    /// A wall clock that is right at boot.
    const WALL: u64 = 1_795_000_000;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Runs for so many hours with a wall clock that shows `wall(hour)`; how often and when it
    /// began, in hours.
    fn run(schedule: &mut Schedule, boot: u64, hours: u64, wall: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut begun = Vec::new();
        for hour in 0..hours {
            let now = s((boot + hour) * HOUR);
            assert!(schedule.is_time(now));
            if schedule.is_due("v", EVERY, now, wall(hour)) {
                begun.push(hour);
                schedule.begun("v", now);
                schedule.done("v", now, wall(hour));
            }
        }
        begun
    }

    fn again(schedule: &Schedule, at: u64, boot: u64, wall: u64) -> Schedule {
        let mut next = Schedule::default();
        next.load(&schedule.text(s(at * HOUR)), s(boot * HOUR), wall);
        next
    }

    #[test]
    fn a_wall_clock_that_jumps_in_a_run_changes_nothing() {
        let right = |hour: u64| WALL + hour * HOUR;
        let clocks: [&dyn Fn(u64) -> u64; 5] = [
            &right,
            &|hour| right(hour) + if hour > 10 { 20 * YEAR } else { 0 },
            &|hour| right(hour) - if hour > 10 { 20 * YEAR } else { 0 },
            &|hour| right(hour) + if hour % 2 == 0 { YEAR } else { 0 },
            &|_| 0,
        ];
        for clock in clocks {
            let mut schedule = Schedule::default();
            schedule.load(b"", s(0), clock(0));
            let begun = run(&mut schedule, 0, 22 * 24, clock);
            assert_eq!(begun, [7 * 24, 14 * 24, 21 * 24]);
        }
    }

    #[test]
    fn a_restart_with_a_wrong_wall_clock_costs_one_verification_or_none() {
        // Three days after the last one, a restart.
        let restarted = |wall: u64| {
            let mut schedule = Schedule::default();
            schedule.load(b"", s(0), WALL);
            let early = run(&mut schedule, 0, 3 * 24, |hour| WALL + hour * HOUR);
            assert!(early.is_empty(), "{early:?}");
            again(&schedule, 3 * 24, 500, wall)
        };
        let now = WALL + 3 * DAY;
        let mut right = restarted(now);
        let hours = run(&mut right, 500, 5 * 24, |hour| now + hour * HOUR);
        assert_eq!(hours, [4 * 24], "four days are left");
        // It is behind by years, as without a battery: what was counted is known all the same.
        let mut behind = restarted(0);
        let hours = run(&mut behind, 500, 5 * 24, |hour| hour * HOUR);
        assert_eq!(hours, [4 * 24]);
        // It is ahead by years: once, and then every week, whether it stays wrong or not.
        let ahead = now + 20 * YEAR;
        let mut wrong = restarted(ahead);
        let set_right = |hour: u64| if hour < 3 { ahead } else { now } + hour * HOUR;
        let hours = run(&mut wrong, 500, 8 * 24, set_right);
        assert_eq!(hours, [0, 7 * 24]);
        // The file names a moment that is 20 years ahead; the next run begins in time.
        let mut next = again(&wrong, 500 + 8 * 24, 0, now + 8 * DAY);
        let hours = run(&mut next, 0, 7 * 24, |hour| now + 8 * DAY + hour * HOUR);
        assert_eq!(hours, [6 * 24]);
    }

    #[test]
    fn a_node_that_restarts_every_day_without_a_battery_verifies_every_week() {
        let mut schedule = Schedule::default();
        schedule.load(b"", s(0), 0);
        let mut days = Vec::new();
        for day in 0..22 {
            if !run(&mut schedule, 0, 24, |hour| hour * HOUR).is_empty() {
                days.push(day);
            }
            schedule = again(&schedule, 24, 0, 0);
        }
        assert_eq!(days, [7, 14, 21]);
    }

    #[test]
    fn one_that_was_interrupted_is_begun_again_after_an_hour_and_not_before() {
        let mut schedule = Schedule::default();
        schedule.load(b"{\"v\":1}", s(0), WALL);
        let mut due = |now: u64| schedule.is_due("v", EVERY, s(now), WALL);
        assert!(due(60));
        schedule.begun("v", s(60));
        let mut due = |now: u64| schedule.is_due("v", EVERY, s(now), WALL + 20 * YEAR);
        assert!(!due(120) && !due(3600));
        assert!(due(3660));
    }

    #[test]
    fn what_is_counted_is_written_down_every_hour() {
        let mut schedule = Schedule::default();
        schedule.load(b"nonsense", s(0), WALL);
        assert!(!schedule.is_due("v", EVERY, s(1), WALL));
        assert!(schedule.is_to_be_kept(s(1)), "seen for the first time");
        assert!(!schedule.is_to_be_kept(s(3000)));
        assert!(schedule.is_to_be_kept(s(3601)));
        let text = String::from_utf8(schedule.text(s(3601))).unwrap();
        assert_eq!(text, "{\"v\":{\"at\":1795000000,\"waited\":3600}}");
    }
}
