//! How fast a resync may go while initiators use the volume: their latency (the 95th percentile)
//! stays within a factor of what it is without a resync, but the resync never goes slower than a
//! floor, and is not held back at all while it loses ground. Integers only, no clock but `now`.
//!
//! Two percentiles are followed. *Calm* counts operations during which no step was under way: that
//! is what initiators would have without a resync. *Under way* counts all operations while a copy
//! is made: that is what they have. A few times a second the second is compared with what the first
//! allows, and the limit in bytes a second is lowered by a quarter or raised by an eighth.

use super::Volume;
use crate::control::{Pacing, Time};
use crate::volume_action::{Ticket, VolumeAction};
use alloc::collections::BTreeMap;

/// How often the limit is changed: long enough for a change to show, short enough to follow a load.
const ADJUST_EVERY: Time = Time::from_millis(100);
/// Operations between two changes of the limit: fewer say nothing about a percentile.
const SAMPLES: u32 = 20;
/// Initiators that have asked for nothing for so long do not mind.
const RESTS_AFTER: Time = Time::from_millis(500);
/// How often it is looked whether the copy loses ground, and for how long it then goes unlimited.
const GROUND_EVERY: Time = Time::from_secs(1);
const GAIN_FOR: Time = Time::from_secs(5);
/// What is calm is looked at anew so often: a load changes, and a resync may take hours.
const REST_EVERY: Time = Time::from_secs(10);
/// Steps stand still for so long then: a hundredth of the time.
const REST_FOR: Time = Time::from_millis(100);
/// What a step leaves behind in disks and queues is gone after so long.
const LINGERS: Time = Time::from_millis(20);
/// A step that begins too late by no more than this makes up for it.
const LATENESS: Time = Time::from_millis(10);
/// Most operations whose beginnings are remembered: more than one volume's sessions have at once.
const REMEMBERED: usize = 4096;
/// A limit above this is none.
const NO_LIMIT: u64 = 64 << 30;

/// Why a copy goes as fast as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaceReason {
    /// Nobody else uses the volume, or initiators do not feel it: as fast as disks and links are.
    #[default]
    Unlimited,
    /// What is usual without a resync is not known yet: at the floor.
    Learning,
    /// Initiators' latency is held within its bound.
    Latency,
    /// Their latency is above its bound, but the floor holds.
    Floor,
    /// More becomes dirty than is copied: not held back.
    LosingGround,
}

impl PaceReason {
    /// A sentence for people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Unlimited => "not held back",
            Self::Learning => {
                "at the floor: how fast initiators are served without it is being measured"
            }
            Self::Latency => "held back so that initiators' latency stays within its bound",
            Self::Floor => "at the floor, though initiators' latency is above its bound",
            Self::LosingGround => {
                "not held back: more became different than was copied, it must gain ground"
            }
        }
    }

    /// One word for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unlimited => "unlimited",
            Self::Learning => "learning",
            Self::Latency => "latency",
            Self::Floor => "floor",
            Self::LosingGround => "losing-ground",
        }
    }
}

/// A percentile that follows what comes: above it, it rises by 19 parts, below it falls by one, so
/// it rests where one in twenty lies above.
#[derive(Clone, Copy, Debug, Default)]
struct Percentile {
    nanos: u64,
    count: u32,
}

impl Percentile {
    fn add(&mut self, taken: Time) {
        let nanos = u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX >> 8);
        let first = self.count < SAMPLES;
        self.count = self.count.saturating_add(1);
        // A step is an eighth; in the beginning the greatest is a good guess.
        let part = self.nanos / 160 + 1;
        if nanos > self.nanos {
            let risen = self.nanos.saturating_add(part * 19);
            self.nanos = if first { nanos } else { risen.min(nanos) };
        } else if !first {
            self.nanos = self.nanos.saturating_sub(part).max(nanos);
        }
    }

    const fn known(self) -> bool {
        self.count >= SAMPLES
    }
}

/// An initiator's operation that has not ended.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Time,
    /// How many steps had begun; `None`: some were under way.
    steps: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    pacing: Pacing,
    begun: BTreeMap<Ticket, Begun>,
    calm: Percentile,
    under_way: Percentile,
    /// Steps that have begun, ever, and those under way.
    steps: u64,
    steps_now: usize,
    /// When one was last under way.
    busy_at: Time,
    active_until: Time,
    limit: Option<u64>,
    reason: PaceReason,
    /// When the next step may begin.
    next_at: Time,
    adjusted_at: Time,
    counted: u32,
    /// Bytes begun since the last change of the limit.
    bytes: u64,
    ground: (Time, u64),
    gaining_until: Time,
    rested_at: Time,
}

/// What is known of a copy's speed, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaceStatus {
    /// Bytes a second that it may do; `None`: no limit.
    pub limit: Option<u64>,
    /// Why.
    pub reason: PaceReason,
    /// 95th percentile of initiators' reads and writes without a resync; zero: not known.
    pub calm: Time,
    /// The same while this copy is made; zero: not known.
    pub under_way: Time,
}

impl Pace {
    pub(super) fn tune(&mut self, pacing: Pacing) {
        self.pacing = pacing;
    }

    /// A copy begins.
    pub(super) fn begin(&mut self, now: Time, dirty: u64) {
        self.under_way = Percentile::default();
        self.limit = None;
        self.reason = PaceReason::Unlimited;
        self.next_at = Time::ZERO;
        // Where initiators are at work it begins at the floor.
        self.adjusted_at = now.saturating_sub(ADJUST_EVERY);
        self.counted = 0;
        self.bytes = 0;
        self.ground = (now, dirty);
        self.gaining_until = Time::ZERO;
        self.rested_at = now;
    }

    pub(super) fn status(&self) -> PaceStatus {
        let known = |it: Percentile| Time::from_nanos(if it.known() { it.nanos } else { 0 });
        PaceStatus {
            limit: self.limit,
            reason: self.reason,
            calm: known(self.calm),
            under_way: known(self.under_way),
        }
    }

    /// An initiator's read or write was taken in.
    pub(super) fn entered(&mut self, now: Time, ticket: Ticket) {
        self.active_until = now + RESTS_AFTER;
        if self.begun.len() < REMEMBERED {
            let still = self.steps_now == 0 && now >= self.busy_at + LINGERS;
            let steps = still.then_some(self.steps);
            self.begun.insert(ticket, Begun { at: now, steps });
        }
    }

    fn ended(&mut self, now: Time, ticket: Ticket, well: bool, copying: bool) {
        let Some(begun) = self.begun.remove(&ticket) else {
            return;
        };
        self.active_until = now + RESTS_AFTER;
        if !well {
            return;
        }
        let taken = now.saturating_sub(begun.at);
        if begun.steps == Some(self.steps) {
            self.calm.add(taken);
        }
        if copying {
            self.under_way.add(taken);
            self.counted = self.counted.saturating_add(1);
        }
    }

    /// Whether initiators use the volume.
    pub(super) fn in_use(&self, now: Time) -> bool {
        now < self.active_until || !self.begun.is_empty()
    }

    /// Bytes a second that background work which is in no hurry may do while initiators work.
    pub(super) fn floor(&self) -> u64 {
        self.pacing.floor.max(1)
    }

    /// Whether a limit holds: steps are then short, so that nobody waits long behind one.
    pub(super) const fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether a step may begin now.
    pub(super) fn may_begin(&self, now: Time) -> bool {
        now >= self.next_at
    }

    /// When the next one may, if that is a matter of time.
    pub(super) fn next_at(&self, now: Time) -> Option<Time> {
        Some(self.next_at).filter(|at| *at > now)
    }

    pub(super) fn step_begun(&mut self, now: Time, len: u64) {
        self.steps += 1;
        self.steps_now += 1;
        self.bytes += len;
        if let Some(limit) = self.limit {
            let from = self.next_at.max(now.saturating_sub(LATENESS));
            self.next_at = from + at_rate(len, limit);
        }
    }

    pub(super) fn steps_now(&mut self, now: Time, count: usize) {
        if self.steps_now > 0 || count > 0 {
            self.busy_at = now;
        }
        self.steps_now = count;
    }

    /// Looks at what became of the last choice, a few times a second.
    pub(super) fn adjust(&mut self, now: Time, dirty: u64) {
        if now >= self.ground.0 + GROUND_EVERY {
            if dirty > self.ground.1 {
                self.gaining_until = now + GAIN_FOR;
            }
            self.ground = (now, dirty);
        }
        let span = now.saturating_sub(self.adjusted_at);
        if span < ADJUST_EVERY {
            return;
        }
        let free = if !self.in_use(now) || self.pacing.factor_percent == 0 {
            Some(PaceReason::Unlimited)
        } else if now < self.gaining_until {
            Some(PaceReason::LosingGround)
        } else {
            None
        };
        if let Some(reason) = free {
            self.settle(now, None, reason);
            self.next_at = Time::ZERO;
            return;
        }
        let floor = self.floor();
        if !self.calm.known() {
            return self.settle(now, Some(floor), PaceReason::Learning);
        }
        if self.counted < SAMPLES {
            // Initiators came back, or hardly work: what held last holds on.
            let limit = self.limit.unwrap_or(floor).max(floor);
            let reason = match self.reason {
                PaceReason::Learning | PaceReason::Unlimited => PaceReason::Latency,
                reason => reason,
            };
            self.limit = Some(limit);
            self.reason = reason;
        } else {
            let bound = u128::from(self.calm.nanos) * u128::from(self.pacing.factor_percent) / 100;
            let above = u128::from(self.under_way.nanos) > bound;
            let last = self.limit.unwrap_or(NO_LIMIT);
            let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
            let done = self.bytes.saturating_mul(1000) / millis;
            // What was not used up is no reason to allow more.
            let most = done.saturating_mul(2).max(floor.saturating_mul(2));
            let limit = if above {
                (last.min(most) / 4 * 3).max(floor)
            } else {
                last.saturating_add(last / 8).min(most.max(last)).max(floor)
            };
            match (above, limit) {
                (true, limit) if limit == floor => self.settle(now, Some(limit), PaceReason::Floor),
                (_, limit) if limit >= NO_LIMIT => self.settle(now, None, PaceReason::Unlimited),
                (_, limit) => self.settle(now, Some(limit), PaceReason::Latency),
            }
        }
        if self.limit.is_some() && now >= self.rested_at + REST_EVERY {
            self.rested_at = now;
            self.next_at = now + REST_FOR;
        }
    }

    fn settle(&mut self, now: Time, limit: Option<u64>, reason: PaceReason) {
        self.limit = limit;
        self.reason = reason;
        self.adjusted_at = now;
        self.counted = 0;
        self.bytes = 0;
    }
}

/// How long so many bytes take.
pub(super) fn at_rate(len: u64, bytes_per_second: u64) -> Time {
    let nanos = u128::from(len) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Volume {
    /// Notes which initiators' operations have ended in this turn.
    pub(super) fn note_ends(&mut self, now: Time, out: &[VolumeAction]) {
        if self.pace.begun.is_empty() {
            return;
        }
        let copying = self
            .source()
            .is_some_and(|source| source.phase == super::source::Phase::Copying);
        for action in out {
            if let VolumeAction::Complete { ticket, result } = action {
                self.pace.ended(now, *ticket, result.is_ok(), copying);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: u64 = 32 << 20;

    /// A disk that serves an operation in 1 ms, and slower the more a resync does: by the same
    /// again for every 200 MiB/s. Returns the pace after a minute, and the bytes a second done in
    /// the last ten.
    fn a_minute(factor_percent: u32, slowness: u64, growing: bool) -> (Pace, u64) {
        let mut pace = Pace::default();
        pace.tune(Pacing {
            factor_percent,
            floor: FLOOR,
        });
        let mut now = Time::from_secs(100);
        for ticket in 0..100 {
            pace.entered(now, Ticket(ticket));
            now += Time::from_millis(1);
            pace.ended(now, Ticket(ticket), true, false);
        }
        let (mut dirty, mut done, mut last_ten) = (1 << 40, 0_u64, 0);
        pace.begin(now, dirty);
        for ms in 0..60_000_u64 {
            pace.entered(now, Ticket(ms));
            pace.adjust(now, dirty);
            let mut began = 0;
            while pace.may_begin(now) && began < 1 << 20 {
                pace.step_begun(now, 256 << 10);
                began += 256 << 10;
            }
            pace.steps_now(now, 0);
            done = done / 2 + began * 500;
            last_ten += if ms >= 50_000 { began } else { 0 };
            dirty = if growing { dirty + 1 } else { dirty - began };
            let taken = 1000 + slowness * (done >> 20) / 200;
            pace.ended(now + Time::from_micros(taken), Ticket(ms), true, true);
            now += Time::from_millis(1);
        }
        (pace, last_ten / 10)
    }

    #[test]
    fn latency_is_held_within_its_factor() {
        let (pace, rate) = a_minute(200, 1000, false);
        assert_eq!(pace.status().reason, PaceReason::Latency);
        assert!(
            (100 << 20..300 << 20).contains(&rate),
            "{} MiB/s",
            rate >> 20
        );
        let (_, gentle) = a_minute(125, 1000, false);
        let (_, harsh) = a_minute(400, 1000, false);
        assert!(gentle < rate && rate < harsh, "{gentle} {rate} {harsh}");
    }

    #[test]
    fn it_never_goes_below_the_floor() {
        let (pace, rate) = a_minute(200, 100_000, false);
        assert_eq!(pace.status().reason, PaceReason::Floor);
        assert_eq!(pace.status().limit, Some(FLOOR));
        // All but a hundredth, in which it learns.
        assert!(rate >= FLOOR / 100 * 97, "{} KiB/s", rate >> 10);
    }

    #[test]
    fn a_copy_that_loses_ground_is_not_held_back() {
        let (pace, rate) = a_minute(200, 100_000, true);
        assert_eq!(pace.status().reason, PaceReason::LosingGround);
        assert_eq!(pace.status().limit, None);
        assert!(rate > 500 << 20, "{} MiB/s", rate >> 20);
    }

    #[test]
    fn nobody_there_and_no_factor_mean_no_limit() {
        let (pace, _) = a_minute(0, 100_000, false);
        assert_eq!(pace.status().limit, None);
        let (mut pace, _) = a_minute(200, 1000, false);
        assert!(pace.status().limit.is_some());
        pace.adjust(Time::from_secs(1000), 1 << 30);
        assert_eq!(pace.status().reason, PaceReason::Unlimited);
        assert!(pace.may_begin(Time::from_secs(1000)));
    }

    #[test]
    fn the_percentile_rests_where_one_in_twenty_lies_above() {
        let mut percentile = Percentile::default();
        // 1 to 1000 µs, evenly, in a scattered order.
        for n in 0..20_000_u64 {
            percentile.add(Time::from_micros(1 + n * 617 % 1000));
        }
        let micros = percentile.nanos / 1000;
        assert!((850..1000).contains(&micros), "{micros}");
    }
}
