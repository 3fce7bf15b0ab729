//! An alarm for a store or a partner that has become much slower than it usually is, long before it
//! is given up: a disk that is about to fail, a link that loses packets.
//!
//! What is usual is learnt: a histogram with buckets of a quarter of an octave counts about the last
//! hour in which there was anything to count. A second in which most operations took ten times as
//! long as 99 of 100 usually do is a slow one. Thirty seconds of which none was better are an alarm;
//! it ends as they did not go on. Slow seconds teach nothing, until they have lasted for an hour:
//! then that is how it is now, and what is usual is learnt anew.

use super::Volume;
use super::turn::Turn;
use crate::control::{FromVolume, SlowPart, Time};

/// How many times the usual 99th percentile is slow.
const FACTOR: u64 = 10;
/// Nobody minds below this, whatever is usual: memory and fast disks have their hiccups.
const FLOOR_MICROS: u64 = 10_000;
/// Operations are judged in spans of this length that have any.
const SPAN: Time = Time::from_secs(1);
/// So long without a better span, and it is told.
const ALARM_AFTER: Time = Time::from_secs(30);
/// A pause longer than this says nothing about what was before: slowness begins anew after it.
const FADES_AFTER: Time = Time::from_secs(60);
/// So long, and it is what is usual.
const USUAL_AFTER: Time = Time::from_secs(3600);
/// Operations that must be known before anything is called unusual.
const LEARNT: u64 = 1000;
/// No span counts for more operations than this: an hour is not forgotten in a busy minute.
const WEIGHT: u64 = 1024;
/// What is remembered is halved from here on: an hour of busy spans.
const REMEMBERED: u64 = WEIGHT * 3600;
/// Quarters of octaves from 1 µs; what takes more than two minutes is in the last one.
const BUCKETS: usize = 108;

/// One that is much slower than usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowness {
    /// What 99 of 100 operations take within, usually.
    pub usual: Time,
    /// What most took longer than in the last second that had any.
    pub lately: Time,
    /// When it began.
    pub since: Time,
    /// When the last slow span was.
    pub last: Time,
}

impl Slowness {
    /// Whether it still says something: nothing that came since was better, and it is not long ago.
    #[must_use]
    pub fn holds(&self, now: Time) -> bool {
        now < self.last + FADES_AFTER
    }
}

/// How slow the parts of a volume are, where they are slower than usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slow {
    /// Writes to the store of this node.
    pub write: Option<Slowness>,
    /// Flushes of it.
    pub flush: Option<Slowness>,
    /// What the partner is asked to store.
    pub partner: Option<Slowness>,
    /// What it is asked to flush.
    pub partner_flush: Option<Slowness>,
}

/// Counts in buckets.
#[derive(Clone, Debug)]
struct Histogram {
    counts: [u32; BUCKETS],
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
        }
    }
}

fn bucket(micros: u64) -> usize {
    if micros < 4 {
        return usize::try_from(micros).unwrap_or(0);
    }
    let octave = micros.ilog2();
    let quarter = (micros >> (octave - 2)) & 3;
    let at = u64::from(octave - 1) * 4 + quarter;
    usize::try_from(at).map_or(BUCKETS - 1, |at| at.min(BUCKETS - 1))
}

/// The least that falls into a bucket, in microseconds.
const fn least(bucket: usize) -> u64 {
    let at = bucket as u64;
    if at < 4 {
        at
    } else {
        (4 + at % 4) << (at / 4 - 1)
    }
}

impl Histogram {
    fn add(&mut self, micros: u64) {
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    /// Microseconds within which so many of 100 lie: the end of the bucket.
    fn percentile(&self, percent: u64) -> u64 {
        let mut left = self.total * percent / 100;
        for (at, count) in self.counts.iter().enumerate() {
            let count = u64::from(*count);
            if count > left {
                return least(at + 1);
            }
            left -= count;
        }
        least(BUCKETS)
    }

    /// Takes in what a span had.
    fn learn(&mut self, span: &Self) {
        let scale = span.total.max(WEIGHT);
        for (count, new) in self.counts.iter_mut().zip(span.counts) {
            // Rounded up: what is rare is what matters.
            let weight = (u64::from(new) * WEIGHT).div_ceil(scale);
            *count = count.saturating_add(u32::try_from(weight).unwrap_or(u32::MAX));
        }
        self.total = self.counts.iter().map(|it| u64::from(*it)).sum();
        if self.total >= REMEMBERED {
            self.counts.iter_mut().for_each(|it| *it /= 2);
            self.total = self.counts.iter().map(|it| u64::from(*it)).sum();
        }
    }
}

/// Watches one kind of operation.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    usual: Histogram,
    span: Histogram,
    span_from: Time,
    slow: Option<Slowness>,
    told: bool,
}

impl Watch {
    /// One took so long. `Some`: an alarm begins (true) or ends.
    pub(super) fn add(&mut self, now: Time, taken: Time) -> Option<bool> {
        let mut news = None;
        if now >= self.span_from + SPAN {
            news = self.end_span();
            self.span_from = now;
        }
        self.span
            .add(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
        news
    }

    fn end_span(&mut self) -> Option<bool> {
        let span = core::mem::take(&mut self.span);
        if span.total == 0 {
            return None;
        }
        let at = self.span_from + SPAN;
        let usual = self.usual.percentile(99);
        let bound = (usual * FACTOR).max(FLOOR_MICROS);
        // Within half of them: the beginning of the bucket in which the middle lies.
        let middle = least(bucket(span.percentile(50)) - 1);
        if self.usual.total < LEARNT || middle <= bound {
            self.usual.learn(&span);
            self.slow = None;
            return core::mem::take(&mut self.told).then_some(false);
        }
        let before = self.slow.filter(|it| it.holds(at));
        let slow = Slowness {
            usual: Time::from_micros(usual),
            lately: Time::from_micros(middle),
            since: before.map_or(self.span_from, |it| it.since),
            last: at,
        };
        if at >= slow.since + USUAL_AFTER {
            *self = Self::default();
            self.usual.learn(&span);
            return Some(false);
        }
        self.slow = Some(slow);
        let due = at >= slow.since + ALARM_AFTER;
        (due && !core::mem::replace(&mut self.told, due)).then_some(true)
    }

    /// The alarm, while there is one.
    pub(super) fn alarm(&self) -> Option<Slowness> {
        self.slow.filter(|_| self.told)
    }
}

/// One watch for each part.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches {
    write: Watch,
    flush: Watch,
    partner: Watch,
    partner_flush: Watch,
}

impl Watches {
    pub(super) fn slow(&self) -> Slow {
        Slow {
            write: self.write.alarm(),
            flush: self.flush.alarm(),
            partner: self.partner.alarm(),
            partner_flush: self.partner_flush.alarm(),
        }
    }
}

impl Volume {
    /// The store of this node, or the partner, has done what was asked of it at that time.
    pub(super) fn took(&mut self, part: SlowPart, since: Time, turn: &mut Turn<'_>) {
        let watch = match part {
            SlowPart::Write => &mut self.watches.write,
            SlowPart::Flush => &mut self.watches.flush,
            SlowPart::Partner => &mut self.watches.partner,
            SlowPart::PartnerFlush => &mut self.watches.partner_flush,
        };
        if let Some(begins) = watch.add(turn.now, turn.now.saturating_sub(since)) {
            let slow = watch.alarm();
            turn.tell(FromVolume::Slow {
                part,
                begins,
                usual: slow.map_or(Time::ZERO, |it| it.usual),
                lately: slow.map_or(Time::ZERO, |it| it.lately),
            });
        }
    }
}

#[cfg(test)]
mod tests;
