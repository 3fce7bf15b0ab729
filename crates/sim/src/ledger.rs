//! What initiators did and saw, and whether one disk could have answered so: every sector must be
//! a linearizable register.
//!
//! Every write has a value of its own, so a history can be checked in order of its length (Gibbons
//! and Korach, "Testing shared memories", 1997): the operations of one value form a zone of time,
//! and a history is linearizable exactly if no two zones in which the value must have been there
//! overlap, and none that must have been a single moment lies within such a zone.

use core::fmt;
use std::collections::BTreeMap;

/// A moment, counted in events of the run; no two differ that should be told apart.
pub type Moment = u64;
/// What a write writes; 0 is what the disk held at first.
pub type Stamp = u64;

/// All that was done, by sector.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    writes: BTreeMap<Stamp, Write>,
    sectors: BTreeMap<u64, Sector>,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    began: Moment,
    /// `None`: never answered; it may have taken effect at any time, or never.
    ended: Option<Moment>,
    /// Answered in a way that says: it never took effect and never will.
    refused: bool,
    /// Sent more than once: it may have taken effect more than once before it ended.
    repeated: bool,
}

#[derive(Clone, Debug, Default)]
struct Sector {
    writes: Vec<Stamp>,
    reads: Vec<Read>,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    stamp: Stamp,
    began: Moment,
    ended: Moment,
}

/// A sector that did not behave as one disk would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which sector.
    pub sector: u64,
    /// What is wrong with it.
    pub kind: ViolationKind,
}

/// Why no disk could have answered so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViolationKind {
    /// Nobody ever wrote this there.
    Unknown(Stamp),
    /// It was read before it was written.
    Future(Stamp),
    /// A write that was refused took effect.
    Refused(Stamp),
    /// Reads went back: each was seen, or known to be written, both before and after the other.
    Backwards(Stamp, Stamp),
    /// This value was overwritten (an acknowledged write was lost, or came back) by the order of
    /// events, though later reads still saw the other.
    Lost {
        /// What should have been seen.
        lost: Stamp,
        /// What was seen instead.
        seen: Stamp,
    },
}

impl Ledger {
    /// Nothing was done yet; every sector holds stamp 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A write of these sectors was sent off.
    ///
    /// # Panics
    /// If the stamp was used before.
    pub fn write_began(&mut self, at: Moment, stamp: Stamp, sectors: core::ops::Range<u64>) {
        let earlier = self.writes.insert(
            stamp,
            Write {
                began: at,
                ended: None,
                refused: false,
                repeated: false,
            },
        );
        assert!(earlier.is_none() && stamp != 0, "stamps are unique");
        for sector in sectors {
            self.sectors.entry(sector).or_default().writes.push(stamp);
        }
    }

    /// It was acknowledged.
    pub fn write_ended(&mut self, at: Moment, stamp: Stamp) {
        self.write(stamp).ended = Some(at);
    }

    /// It was refused, and nobody will send it again.
    pub fn write_refused(&mut self, stamp: Stamp) {
        self.write(stamp).refused = true;
    }

    /// It was sent more than once, as an initiator does whose path broke. While it is under way it
    /// may take effect more than once, also after another write that is under way at the same
    /// time; once it has ended it must not come back.
    pub fn write_repeated(&mut self, stamp: Stamp) {
        self.write(stamp).repeated = true;
    }

    /// A read saw this in one sector.
    pub fn read(&mut self, began: Moment, ended: Moment, sector: u64, stamp: Stamp) {
        self.sectors.entry(sector).or_default().reads.push(Read {
            stamp,
            began,
            ended,
        });
    }

    /// All sectors that no disk would have shown so.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let check = |(sector, history): (&u64, &Sector)| {
            let kind = self.check(history)?;
            Some(Violation {
                sector: *sector,
                kind,
            })
        };
        self.sectors.iter().filter_map(check).collect()
    }

    /// A ledger of a disk that now holds these stamps, whatever was done before; what it holds was
    /// written in this history or in that other one. Writes of this one that were not answered may
    /// still take effect.
    #[must_use]
    pub fn beginning_with(
        &self,
        at: Moment,
        other: Option<&Self>,
        held: impl Fn(u64) -> Stamp,
    ) -> Self {
        let mut next = Self::new();
        let open = |stamp: &Stamp| {
            let write = self.writes.get(stamp);
            write.is_some_and(|write| write.ended.is_none() && !write.refused)
        };
        let histories = [Some(self), other];
        for ledger in histories.into_iter().flatten() {
            for (&sector, history) in &ledger.sectors {
                let now = held(sector);
                for stamp in history.writes.iter().copied() {
                    let mut write = ledger.writes[&stamp];
                    let listed = &mut next.sectors.entry(sector).or_default().writes;
                    if listed.contains(&stamp) || !open(&stamp) && stamp != now {
                        continue;
                    }
                    if open(&stamp) {
                        write = self.writes[&stamp];
                    } else {
                        // As if it had been written at this moment.
                        (write.began, write.ended, write.refused) = (at, Some(at), false);
                    }
                    listed.push(stamp);
                    next.writes.insert(stamp, write);
                }
            }
        }
        next
    }

    /// What was done to a sector, one line for each operation.
    #[must_use]
    pub fn history(&self, sector: u64) -> String {
        let Some(history) = self.sectors.get(&sector) else {
            return String::new();
        };
        let mut lines: Vec<(Moment, String)> = Vec::new();
        for stamp in &history.writes {
            let write = &self.writes[stamp];
            let end = match write.ended {
                Some(end) => format!("to {end}"),
                None if write.refused => "refused".to_owned(),
                None => "never answered".to_owned(),
            };
            lines.push((
                write.began,
                format!("{:>9} write {stamp} {end}", write.began),
            ));
        }
        for read in &history.reads {
            lines.push((
                read.began,
                format!("{:>9} read  {} to {}", read.began, read.stamp, read.ended),
            ));
        }
        lines.sort();
        lines.into_iter().map(|(_, line)| line + "\n").collect()
    }

    fn write(&mut self, stamp: Stamp) -> &mut Write {
        self.writes
            .get_mut(&stamp)
            .expect("it began before it ended")
    }

    fn check(&self, sector: &Sector) -> Option<ViolationKind> {
        let mut zones: BTreeMap<Stamp, Zone> = BTreeMap::new();
        zones.insert(
            0,
            Zone {
                first_end: 0,
                last_begin: 0,
                seen: true,
            },
        );
        let unordered = self.unordered(sector);
        for stamp in sector
            .writes
            .iter()
            .filter(|stamp| !unordered.contains(stamp))
        {
            let write = self.writes[stamp];
            let first_end = write.ended.unwrap_or(Moment::MAX);
            zones.insert(
                *stamp,
                Zone {
                    first_end,
                    last_begin: write.began,
                    seen: write.ended.is_some(),
                },
            );
        }
        for read in sector
            .reads
            .iter()
            .filter(|read| !unordered.contains(&read.stamp))
        {
            let Some(zone) = zones.get_mut(&read.stamp) else {
                return Some(ViolationKind::Unknown(read.stamp));
            };
            if let Some(write) = self.writes.get(&read.stamp) {
                if write.refused {
                    return Some(ViolationKind::Refused(read.stamp));
                }
                if read.ended < write.began {
                    return Some(ViolationKind::Future(read.stamp));
                }
            }
            zone.first_end = zone.first_end.min(read.ended);
            zone.last_begin = zone.last_begin.max(read.began);
            zone.seen = true;
        }
        zones.retain(|_, zone| zone.seen);
        conflict(&zones)
    }
}

impl Ledger {
    /// Writes that were sent more than once while another one was under way: they may have taken
    /// effect before and after it, so nothing follows from when they were seen. A history without
    /// one value is linearizable if the whole is.
    fn unordered(&self, sector: &Sector) -> Vec<Stamp> {
        let overlap = |one: &Write, two: &Write| {
            one.began <= two.ended.unwrap_or(Moment::MAX)
                && two.began <= one.ended.unwrap_or(Moment::MAX)
        };
        let repeated = sector
            .writes
            .iter()
            .filter(|stamp| self.writes[stamp].repeated);
        repeated
            .filter(|stamp| {
                let mut others = sector.writes.iter().filter(|other| other != stamp);
                others.any(|other| overlap(&self.writes[*stamp], &self.writes[other]))
            })
            .copied()
            .collect()
    }
}

/// The operations of one value. The value was there from the first end of one of them at the
/// latest, until the last beginning at least; if that is no span, it was there for one moment
/// between the two.
#[derive(Clone, Copy, Debug)]
struct Zone {
    first_end: Moment,
    last_begin: Moment,
    seen: bool,
}

fn conflict(zones: &BTreeMap<Stamp, Zone>) -> Option<ViolationKind> {
    let mut spans: Vec<(Moment, Moment, Stamp)> = zones
        .iter()
        .filter(|(_, zone)| zone.first_end < zone.last_begin)
        .map(|(stamp, zone)| (zone.first_end, zone.last_begin, *stamp))
        .collect();
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if pair[1].0 < pair[0].1 {
            return Some(ViolationKind::Backwards(pair[0].2, pair[1].2));
        }
    }
    for (stamp, zone) in zones
        .iter()
        .filter(|(_, zone)| zone.first_end >= zone.last_begin)
    {
        let after = spans.partition_point(|span| span.0 < zone.last_begin);
        if let Some(span) = after.checked_sub(1).map(|before| spans[before])
            && zone.first_end < span.1
        {
            return Some(ViolationKind::Lost {
                lost: *stamp,
                seen: span.2,
            });
        }
    }
    None
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}: ", self.sector)?;
        match &self.kind {
            ViolationKind::Unknown(stamp) => {
                write!(f, "{stamp:#x} was read, which nobody wrote there")
            }
            ViolationKind::Future(stamp) => write!(f, "write {stamp} was read before it was sent"),
            ViolationKind::Refused(stamp) => write!(f, "write {stamp} was refused and took effect"),
            ViolationKind::Backwards(one, two) => {
                write!(f, "reads went back between {one} and {two}")
            }
            ViolationKind::Lost { lost, seen } => {
                write!(f, "write {lost} was lost: {seen} was read after it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes as (stamp, began, ended; 0: never), reads as (began, ended, stamp), all of sector 5.
    fn verdict(
        writes: &[(Stamp, Moment, Moment)],
        reads: &[(Moment, Moment, Stamp)],
    ) -> Option<ViolationKind> {
        let mut ledger = Ledger::new();
        for (stamp, began, ended) in writes {
            ledger.write_began(*began, *stamp, 5..6);
            if *ended > 0 {
                ledger.write_ended(*ended, *stamp);
            }
        }
        for (began, ended, stamp) in reads {
            ledger.read(*began, *ended, 5, *stamp);
        }
        ledger.violations().pop().map(|violation| violation.kind)
    }

    #[test]
    fn reads_see_the_last_write() {
        assert_eq!(verdict(&[(1, 1, 2), (2, 3, 4)], &[(5, 6, 2)]), None);
    }

    #[test]
    fn a_lost_write_is_found() {
        let lost = ViolationKind::Lost { lost: 2, seen: 1 };
        assert_eq!(verdict(&[(1, 1, 2), (2, 3, 4)], &[(5, 6, 1)]), Some(lost));
        assert_eq!(
            verdict(&[(1, 1, 2)], &[(5, 6, 0)]),
            Some(ViolationKind::Lost { lost: 1, seen: 0 })
        );
    }

    #[test]
    fn concurrent_writes_may_be_seen_in_either_order() {
        assert_eq!(verdict(&[(1, 1, 5), (2, 2, 6)], &[(7, 8, 1)]), None);
        assert_eq!(verdict(&[(1, 1, 5), (2, 2, 6)], &[(7, 8, 2)]), None);
    }

    #[test]
    fn reads_never_go_back() {
        let back = verdict(&[(1, 1, 10), (2, 2, 11)], &[(12, 13, 1), (14, 15, 2)]);
        assert!(back.is_some(), "{back:?}");
        let back = verdict(&[(1, 1, 0)], &[(2, 3, 1), (4, 5, 0)]);
        assert!(back.is_some(), "a write that was seen once stays: {back:?}");
    }

    #[test]
    fn an_unanswered_write_may_take_effect_late_or_never_but_only_once() {
        assert_eq!(
            verdict(&[(1, 1, 0), (2, 3, 4)], &[(5, 6, 2), (7, 8, 1)]),
            None
        );
        assert_eq!(verdict(&[(1, 1, 0)], &[(5, 6, 0)]), None);
        let twice = verdict(
            &[(1, 1, 0), (2, 7, 8)],
            &[(5, 6, 1), (9, 10, 2), (11, 12, 1)],
        );
        assert!(twice.is_some(), "{twice:?}");
    }

    #[test]
    fn a_retried_write_that_lands_again_later_is_found() {
        let ghost = verdict(&[(1, 1, 3), (2, 4, 5)], &[(6, 7, 1)]);
        assert_eq!(ghost, Some(ViolationKind::Lost { lost: 2, seen: 1 }));
    }

    #[test]
    fn a_write_under_way_twice_may_come_after_another_but_not_once_it_has_ended() {
        let twice = |other_began| {
            let mut ledger = Ledger::new();
            ledger.write_began(1, 1, 5..6);
            ledger.write_began(other_began, 2, 5..6);
            ledger.write_repeated(1);
            ledger.write_ended(10, 1);
            ledger.write_ended(20, 2);
            ledger.read(2, 3, 5, 1);
            ledger.read(21, 22, 5, 2);
            ledger.read(23, 24, 5, 1);
            ledger.violations().len()
        };
        assert_eq!((twice(9), twice(11)), (0, 1));
    }

    #[test]
    fn values_from_nowhere_or_from_the_future_are_found() {
        assert_eq!(
            verdict(&[], &[(1, 2, 99)]),
            Some(ViolationKind::Unknown(99))
        );
        assert_eq!(
            verdict(&[(1, 5, 6)], &[(1, 2, 1)]),
            Some(ViolationKind::Future(1))
        );
    }

    #[test]
    fn a_new_line_knows_what_it_began_with_and_what_is_under_way() {
        let mut before = Ledger::new();
        for (stamp, ended) in [(1, true), (2, true), (3, false)] {
            before.write_began(stamp, stamp, 5..6);
            if ended {
                before.write_ended(stamp, stamp);
            }
        }
        let seen = |stamp: Stamp| {
            let mut line = before.beginning_with(10, None, |_| 1);
            line.read(11, 12, 5, stamp);
            line.violations().len()
        };
        assert_eq!((seen(1), seen(3)), (0, 0));
        assert_eq!(
            (seen(2), seen(0)),
            (1, 1),
            "what was lost does not come back"
        );
    }

    #[test]
    fn a_refused_write_that_is_seen_is_found() {
        let mut ledger = Ledger::new();
        ledger.write_began(1, 7, 0..1);
        ledger.write_refused(7);
        assert_eq!(ledger.violations(), []);
        ledger.read(3, 4, 0, 7);
        assert_eq!(ledger.violations()[0].kind, ViolationKind::Refused(7));
        assert!(ledger.history(0).contains("refused"));
    }
}
