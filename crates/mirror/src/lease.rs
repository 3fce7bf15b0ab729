//! The times that keep two nodes from acting against each other, and the leases made of them.
//! A heartbeat's acknowledgement promises "I will not act without you for L": the holder counts
//! from *sending* the heartbeat on its clock, the granter from *sending* the acknowledgement on
//! its own and for longer, so that clocks which drift by ±5 % do no harm.

use crate::control::Time;
use alloc::collections::VecDeque;
use core::time::Duration;
use thiserror::Error;

/// The times, all configurable, all the same on both nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Timing {
    /// Between two heartbeats on a link.
    pub heartbeat: Duration,
    /// Without a heartbeat on any channel for this long, the partner counts as gone.
    pub silence: Duration,
    /// How much longer the node with the higher number waits before it acts.
    pub precedence: Duration,
    /// How long a promise holds for its holder.
    pub lease: Duration,
    /// A node whose shards have not turned for this long counts as silent.
    pub stamp: Duration,
    /// An answer of the partner within a join or a swap is waited for this long.
    pub answer: Duration,
    /// First wait before an ejected slow partner may join again; doubles each time.
    pub rejoin: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            silence: Duration::from_secs(2),
            precedence: Duration::from_millis(500),
            lease: Duration::from_millis(1500),
            stamp: Duration::from_secs(1),
            answer: Duration::from_secs(5),
            rejoin: Duration::from_secs(30),
        }
    }
}

/// Why a set of times is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TimingError {
    /// A lease could not be renewed in time.
    #[error("`lease` must be at least 3 heartbeats long")]
    LeaseTooShort,
    /// A node could be given up while it still reads under a lease.
    #[error("`silence` must be longer than `lease`")]
    SilenceTooShort,
    /// Both nodes could act at the same moment.
    #[error("`precedence` must be at least one heartbeat long")]
    PrecedenceTooShort,
}

impl Timing {
    /// Checks that the times fit each other.
    ///
    /// # Errors
    /// Which one does not.
    pub fn check(&self) -> Result<(), TimingError> {
        if self.lease < self.heartbeat * 3 {
            return Err(TimingError::LeaseTooShort);
        }
        if self.silence <= self.lease {
            return Err(TimingError::SilenceTooShort);
        }
        if self.precedence < self.heartbeat {
            return Err(TimingError::PrecedenceTooShort);
        }
        Ok(())
    }

    /// A partner that was not heard for this long may be gone: initiators are asked whether they
    /// reach this node.
    #[must_use]
    pub fn doubt(&self) -> Duration {
        self.silence / 2
    }

    /// An initiator that reaches this node proves only after this time that the partner could be
    /// heard as well if it were there: connections that were cut come back one after the other. An
    /// answer given at once when `doubt` began is old enough when the silence is noticed.
    #[must_use]
    pub fn evidence(&self) -> Duration {
        self.silence * 2 / 5
    }

    /// A link on which nothing came for this long is given up, and made anew: what was lost on it
    /// would be sent again only after pauses that double each time. Well within `evidence`.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        (self.silence / 4).max(self.heartbeat * 5 / 2)
    }

    /// How long a promise binds its granter: 1.12 leases (±5 % of drift needs 10.53 % more).
    #[must_use]
    pub fn grant(&self) -> Duration {
        self.lease * 28 / 25
    }
}

/// Heartbeats remembered: more than fit into any lease, so that each answer finds its own.
const REMEMBERED: usize = 64;

/// When this node sent which heartbeat.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats {
    last: u64,
    sent: VecDeque<(u64, Time)>,
}

impl Heartbeats {
    /// The number of the heartbeat that is sent now, on all links.
    pub fn send(&mut self, now: Time) -> u64 {
        self.last += 1;
        self.sent.push_back((self.last, now));
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        self.last
    }

    /// Whatever answers a heartbeat that was sent before counts no more.
    pub fn forget(&mut self) {
        self.sent.clear();
    }

    /// When the heartbeat that is acknowledged was sent; `None`: too long ago, or never.
    #[must_use]
    pub fn sent_at(&self, number: u64) -> Option<Time> {
        self.sent
            .iter()
            .find(|(it, _)| *it == number)
            .map(|(_, at)| *at)
    }
}

/// Notices that this node's clock stood still, by the partner's, which went on: a hypervisor that
/// stops a machine may hide the time from all its clocks. (Or the partner's clock jumped: which of
/// the two, nobody can tell.) A delay on the way only makes the partner's clock seem behind, so
/// what counts is how far it was ahead of ours at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standstill {
    /// In this stretch and in the one before: the sample that was furthest ahead.
    most: [Option<Sample>; 2],
    /// The one furthest ahead of those that came lately. What waited in a socket while this machine
    /// stood still comes all at once, each heartbeat a little more ahead than the one before:
    /// neither is measured by the other.
    fresh: Option<Sample>,
    begun: Time,
    first: Option<Time>,
}

/// The partner's clock minus ours in nanoseconds, and when by ours.
type Sample = (i128, Time);

/// A stretch: what is known is at most two of them old.
const STRETCH: Duration = Duration::from_secs(10);
/// The first samples of a run may all have been late.
const LEARNING: Duration = Duration::from_millis(500);
/// More ahead than two clocks that run 5 % wrong can get, in 1/100 of the time.
const APART_PERCENT: u32 = 11;
/// A sample is what others are measured by after so long.
const SETTLED: Duration = Duration::from_millis(300);
/// And so much more than that is no jitter of a path.
const JUMP: Duration = Duration::from_millis(250);

impl Standstill {
    /// A heartbeat that the partner sent at `theirs` on its clock came at `ours` on ours: by how
    /// much the partner's clock went on more than ours did, if that is more than clocks run apart.
    pub fn heard(&mut self, ours: Time, theirs: Time) -> Option<Duration> {
        let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX / 4);
        let ahead = nanos(theirs) - nanos(ours);
        let learning = ours < *self.first.get_or_insert(ours) + LEARNING;
        if let Some(fresh) = self.fresh.filter(|it| ours >= it.1 + SETTLED || learning) {
            self.settle(fresh);
        }
        let bound = |(most, at): &Sample| {
            let apart = ours.saturating_sub(*at) * APART_PERCENT / 100;
            most + nanos(apart + JUMP)
        };
        let known = self.most.iter().flatten().max_by_key(|it| it.0).copied();
        let beyond = !learning && self.most.iter().flatten().all(|it| ahead > bound(it));
        if let Some((most, _)) = known.filter(|_| beyond) {
            self.most = [None, Some((ahead, ours))];
            self.fresh = None;
            self.begun = ours;
            return Some(Duration::from_nanos(
                u64::try_from(ahead - most).unwrap_or(u64::MAX),
            ));
        }
        if ours >= self.begun + STRETCH {
            self.most = [self.most[1], None];
            self.begun = ours;
        }
        let (most, since) = self.fresh.unwrap_or((ahead, ours));
        self.fresh = Some((most.max(ahead), since));
        None
    }

    fn settle(&mut self, sample: Sample) {
        self.fresh = None;
        let newest = &mut self.most[1];
        if newest.is_none_or(|it| sample.0 >= it.0) {
            *newest = Some(sample);
        }
    }
}

/// Watches how fast the partner's clock runs against ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drift {
    first: Option<(Time, Time)>,
    /// The last two measurements: a delay spoils one, or both with opposite signs.
    permille: [i64; 2],
}

/// How long a measurement takes: a delay of one heartbeat then changes it by 1 %.
const WINDOW: Duration = Duration::from_secs(20);
/// Faster or slower than this is more than the leases allow for, in 1/1000.
const LIMIT_PERMILLE: i64 = 60;

impl Drift {
    /// A heartbeat that the partner sent at `theirs` on its clock came at `ours` on ours.
    pub fn heard(&mut self, ours: Time, theirs: Time) {
        let Some((our_start, their_start)) = self.first else {
            self.first = Some((ours, theirs));
            return;
        };
        let (our_span, their_span) = (
            ours.saturating_sub(our_start),
            theirs.saturating_sub(their_start),
        );
        if our_span >= WINDOW {
            let millis =
                |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 2000);
            let permille = (millis(their_span) - millis(our_span)) * 1000 / millis(our_span).max(1);
            self.permille = [self.permille[1], permille];
            self.first = Some((ours, theirs));
        }
    }

    /// The partner's clock against ours in 1/1000, if it is more than leases can bear.
    #[must_use]
    pub fn excessive(&self) -> Option<i64> {
        let fast = self.permille.iter().all(|it| *it > LIMIT_PERMILLE);
        let slow = self.permille.iter().all(|it| *it < -LIMIT_PERMILLE);
        (fast || slow).then_some(self.permille[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_default_times_fit_and_others_are_named() {
        let good = Timing::default();
        assert_eq!(good.check(), Ok(()));
        assert_eq!(
            Timing {
                lease: good.heartbeat,
                ..good
            }
            .check(),
            Err(TimingError::LeaseTooShort)
        );
        assert_eq!(
            Timing {
                silence: good.lease,
                ..good
            }
            .check(),
            Err(TimingError::SilenceTooShort)
        );
        assert_eq!(
            Timing {
                precedence: s(0),
                ..good
            }
            .check(),
            Err(TimingError::PrecedenceTooShort)
        );
    }

    #[test]
    fn a_grant_outlives_its_lease_under_five_percent_of_drift_both_ways() {
        let timing = Timing::default();
        // The holder's clock slow by 5 %, the granter's fast by 5 %.
        assert!(
            timing.grant().mul_f64(1.0 / 1.05)
                >= timing.lease.mul_f64(1.0 / 0.95) - Duration::from_millis(0)
        );
    }

    #[test]
    fn a_lease_counts_from_the_heartbeat_that_was_answered() {
        let mut heartbeats = Heartbeats::default();
        let first = heartbeats.send(s(1));
        let second = heartbeats.send(s(2));
        assert_eq!(
            (heartbeats.sent_at(first), heartbeats.sent_at(second)),
            (Some(s(1)), Some(s(2)))
        );
        assert_eq!(heartbeats.sent_at(second + 1), None);
        for at in 3..100 {
            heartbeats.send(s(at));
        }
        assert_eq!(heartbeats.sent_at(first), None);
    }

    #[test]
    fn a_clock_that_stood_still_is_noticed_by_the_partners() {
        let ms = Duration::from_millis;
        // 5 % fast against 5 % slow, and every second a heartbeat that took half a second.
        for (fast, slow) in [(1.05, 0.95), (0.95, 1.05), (1.0, 1.0)] {
            let mut watch = Standstill::default();
            let mut before = s(0);
            for beat in 0..3000_u64 {
                let late = ms(if beat % 5 == 0 { 500 } else { beat % 7 });
                let sent = s(1000) + ms(beat * 200);
                // In order on its link.
                let came = before.max(sent + late);
                before = came;
                let jump = watch.heard(came.mul_f64(slow), sent.mul_f64(fast));
                assert_eq!(jump, None, "beat {beat}");
            }
        }
        // Two minutes of an empty network are no jump.
        let mut watch = Standstill::default();
        watch.heard(s(7), s(497));
        watch.heard(s(10), s(500));
        assert_eq!(watch.heard(s(130), s(610)), None, "a stalled path");
        assert_eq!(watch.heard(s(131), s(621)), None, "and it flows again");
        // A minute is missing.
        let jump = watch.heard(s(132), s(682));
        assert!(jump.is_some_and(|it| it >= s(59)), "{jump:?}");
        assert_eq!(watch.heard(s(133), s(683)), None, "said once");
        // What was sent meanwhile comes at once, as from a socket.
        for late in [200, 400] {
            let jump = watch.heard(s(133) + ms(200), s(683) + ms(200 + late));
            assert_eq!(jump.is_some(), late > 250, "{late} ms");
        }
        let mut watch = Standstill::default();
        watch.heard(s(130), s(680));
        watch.heard(s(133), s(683));
        // Half a second is enough to be seen.
        assert_eq!(watch.heard(s(134), s(684) + ms(600)), Some(ms(600)));
    }

    #[test]
    fn a_clock_that_runs_away_is_noticed() {
        let mut drift = Drift::default();
        for at in 0..50 {
            drift.heard(s(100 + at), s(at).mul_f64(1.04));
        }
        assert_eq!(drift.excessive(), None);
        for at in 0..20 {
            drift.heard(s(160 + at), s(60 + at) + Duration::from_secs(3));
        }
        assert_eq!(drift.excessive(), None, "one late heartbeat is no clock");
        let mut drift = Drift::default();
        for at in 0..50 {
            drift.heard(s(200 + at), s(1000) + s(at).mul_f64(1.2));
        }
        assert!(drift.excessive().is_some_and(|permille| permille > 150));
    }
}
