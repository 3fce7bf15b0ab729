//! A partner that was put out for slowness waits before it may join again, longer each time that it
//! happens anew within an hour: a disk that is about to fail must not be joined and put out all day.

use super::{Membership, Time};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

/// For how long an ejection is held against the partner.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// After so many within that time it joins once in that time only, and that is an alarm.
const MANY: usize = 5;

/// When the partner was put out for slowness lately, and until when it waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slow {
    ejections: VecDeque<Time>,
    until: Time,
}

impl Slow {
    fn forget(&mut self, now: Time) {
        while let Some(first) = self.ejections.front()
            && (*first + REMEMBERED <= now || self.ejections.len() > MANY)
        {
            self.ejections.pop_front();
        }
    }

    /// It is put out now: how long it waits. `first`: the wait after an hour without one.
    pub(super) fn put_off(&mut self, now: Time, first: Duration) -> Duration {
        self.forget(now);
        let wait = match u32::try_from(self.ejections.len()) {
            Ok(before) if self.ejections.len() < MANY => first.saturating_mul(1 << before),
            _ => REMEMBERED,
        };
        self.ejections.push_back(now);
        let wait = wait.min(REMEMBERED);
        self.until = now + wait;
        wait
    }

    /// It may not join before.
    pub(super) const fn until(&self) -> Time {
        self.until
    }

    /// A person says that what made it slow is mended.
    pub(super) fn pardon(&mut self) {
        *self = Self::default();
    }

    /// Whether it was put out so often that a person should look at it.
    pub(super) fn too_often(&self, now: Time) -> bool {
        let recent = self.ejections.iter().filter(|at| **at + REMEMBERED > now);
        recent.count() > MANY
    }
}

impl Membership {
    /// Ends the wait of a partner that was put out for slowness. Whether it waited.
    pub fn pardon(&mut self, now: Time) -> bool {
        let waited = self.slow.until() > now;
        self.slow.pardon();
        waited
    }

    /// For how long the partner may not join yet because it was too slow.
    pub(super) fn waits_for_slow(&self, now: Time) -> Option<Duration> {
        let left = self.slow.until().saturating_sub(now);
        (self.is_alone() && !left.is_zero()).then_some(left)
    }

    /// Says so, for a person.
    pub(super) fn slow_reason(&self, now: Time) -> String {
        match (self.waits_for_slow(now), self.settings.partner) {
            (Some(left), Some(partner)) => format!(
                "; node {} was too slow and may join again in {} s",
                partner.0,
                left.as_secs() + 1
            ),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(30);

    #[test]
    fn each_wait_is_twice_the_one_before_and_after_five_it_is_an_hour() {
        let mut slow = Slow::default();
        let mut now = Time::from_secs(100);
        for seconds in [30, 60, 120, 240, 480] {
            assert_eq!(slow.put_off(now, FIRST), Duration::from_secs(seconds));
            assert!(!slow.too_often(now));
            now = slow.until();
        }
        assert_eq!(slow.put_off(now, FIRST), REMEMBERED);
        assert!(slow.too_often(now));
        now = slow.until();
        assert!(!slow.too_often(now), "it held out for an hour");
        assert_eq!(slow.put_off(now, FIRST), FIRST);
    }

    #[test]
    fn an_hour_without_one_is_forgiven_and_so_is_what_a_person_forgives() {
        let mut slow = Slow::default();
        slow.put_off(Time::from_secs(10), FIRST);
        assert_eq!(slow.put_off(Time::from_secs(3700), FIRST), FIRST);
        slow.pardon();
        assert_eq!(slow.until(), Time::ZERO);
        assert_eq!(slow.put_off(Time::from_secs(3701), FIRST), FIRST);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut slow = Slow::default();
        for second in 0..1000 {
            slow.put_off(Time::from_secs(second), FIRST);
        }
        assert!(slow.ejections.len() <= MANY + 1);
    }
}
