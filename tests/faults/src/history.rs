//! What initiators did and saw, and whether one disk could have answered so: every sector must be
//! a linearizable register, and both images must hold what it holds at the end.

use crate::random::mix;
use crate::store::SECTOR;
use lockstep_sim::ledger::{Ledger, Moment, Stamp};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bits of a stamp that number the sectors of one write.
pub const INDEX_BITS: u32 = 12;
/// What no write has: the mark of a sector that is neither zero nor stamped.
const GARBAGE: Stamp = 1 << 63;
/// Moments of what was there before.
const BEFORE: [Moment; 2] = [1, 2];
/// So many violations are described.
const DESCRIBED: usize = 5;

/// Orders everything that happens in this process, and says when it was.
#[derive(Debug)]
pub struct Clock {
    next: AtomicU64,
    start: Instant,
}

/// A place in the order, and microseconds since the clock was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// No two are equal.
    pub moment: Moment,
    /// For people.
    pub micros: u64,
}

impl Clock {
    /// Starts now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            next: AtomicU64::new(BEFORE[1] + 1),
            start: Instant::now(),
        }
    }

    /// Now. What is told to another thread before is earlier there as well.
    pub fn now(&self) -> When {
        When {
            moment: self.next.fetch_add(1, Ordering::SeqCst),
            micros: u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Each sector got the stamp that follows the one before.
    Write(Stamp),
    /// What each sector held.
    Read(Vec<Stamp>),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Acknowledged.
    Good(When),
    /// Refused, given up or unanswered: it may have taken effect, or not.
    Open(String),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who.
    pub client: usize,
    /// The first sector.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// What.
    pub action: Action,
    /// When it was sent.
    pub began: When,
    /// How it ended.
    pub end: End,
    /// The path that answered, or that it was last sent on.
    pub path: Option<usize>,
    /// How often it was sent.
    pub attempts: u32,
}

/// Fills a sector so that it says what it is.
pub fn fill(sector: u64, stamp: Stamp, bytes: &mut [u8]) {
    for (word, place) in (0..).zip(bytes.chunks_exact_mut(8)) {
        place.copy_from_slice(&content(sector, stamp, word).to_be_bytes());
    }
}

fn content(sector: u64, stamp: Stamp, word: u64) -> u64 {
    match word {
        0 => stamp,
        1 => sector,
        word => mix(stamp ^ sector << 20 ^ word << 50),
    }
}

/// The stamp of what a sector holds, all of it; 0: zeroes.
#[must_use]
pub fn stamp_of(sector: u64, bytes: &[u8]) -> Stamp {
    let mut words = bytes
        .chunks_exact(8)
        .map(|word| u64::from_be_bytes(word.try_into().expect("eight")));
    if bytes.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let stamp = words.next().unwrap_or_default();
    if (1..)
        .zip(words)
        .all(|(word, found)| found == content(sector, stamp, word))
    {
        stamp
    } else {
        GARBAGE | mix(stamp) >> 1
    }
}

/// Stamps of consecutive sectors.
#[must_use]
pub fn stamps_of(first: u64, bytes: &[u8]) -> Vec<Stamp> {
    (first..)
        .zip(bytes.chunks(SECTOR))
        .map(|(sector, bytes)| stamp_of(sector, bytes))
        .collect()
}

/// Operations since the disk was last known from end to end.
#[derive(Clone, Debug, Default)]
pub struct History {
    before: BTreeMap<u64, Stamp>,
    records: Vec<Record>,
}

impl History {
    /// Adds what a client did.
    pub fn add(&mut self, records: impl IntoIterator<Item = Record>) {
        self.records.extend(records);
    }

    /// Operations in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Nothing was done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Acknowledged writes, in sectors.
    #[must_use]
    pub fn sectors_written(&self) -> u64 {
        let written = |record: &&Record| {
            matches!(
                (&record.action, &record.end),
                (Action::Write(_), End::Good(_))
            )
        };
        self.records
            .iter()
            .filter(written)
            .map(|record| record.count)
            .sum()
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::new();
        for (sector, stamp) in self.before.iter().filter(|(_, stamp)| **stamp != 0) {
            ledger.write_began(BEFORE[0], *stamp, *sector..sector + 1);
            ledger.write_ended(BEFORE[1], *stamp);
        }
        // Writes first: a read may be of a client that is listed before its writer.
        for record in &self.records {
            let Action::Write(first) = record.action else {
                continue;
            };
            for (stamp, sector) in (first..).zip(record.first..record.first + record.count) {
                ledger.write_began(record.began.moment, stamp, sector..sector + 1);
                if record.attempts > 1 {
                    ledger.write_repeated(stamp);
                }
                if let End::Good(when) = &record.end {
                    ledger.write_ended(when.moment, stamp);
                }
            }
        }
        for record in &self.records {
            if let (Action::Read(seen), End::Good(when)) = (&record.action, &record.end) {
                for (sector, stamp) in (record.first..).zip(seen) {
                    ledger.read(record.began.moment, when.moment, sector, *stamp);
                }
            }
        }
        ledger
    }

    /// What no disk would have answered; empty: all is well. Then what the disk holds now, as the
    /// last read of everything saw it, is what the next history begins with.
    ///
    /// # Panics
    /// If `now` does not begin with sector 0.
    pub fn check(&mut self, now: &[Stamp]) -> Vec<String> {
        let ledger = self.ledger();
        let violations = ledger.violations();
        let described = violations.iter().take(DESCRIBED);
        let mut found: Vec<String> = described
            .map(|violation| format!("{violation}\n{}", ledger.history(violation.sector)))
            .collect();
        if violations.len() > DESCRIBED {
            found.push(format!("and {} more sectors", violations.len() - DESCRIBED));
        }
        if found.is_empty() {
            self.records.clear();
            self.before = (0..)
                .zip(now.iter().copied())
                .filter(|(_, stamp)| *stamp != 0)
                .collect();
        }
        found
    }

    /// One line for each operation, in the order in which they began.
    #[must_use]
    pub fn text(&self) -> String {
        let mut records: Vec<&Record> = self.records.iter().collect();
        records.sort_by_key(|record| record.began.moment);
        let mut text =
            String::from("began µs, client, operation, sectors, stamps, path, attempts, end µs\n");
        for record in records {
            let Record {
                client,
                first,
                count,
                began,
                attempts,
                ..
            } = record;
            let what = match &record.action {
                Action::Write(stamp) => format!("write {first}+{count} {stamp:#x}"),
                Action::Read(seen) => format!("read  {first}+{count} {seen:x?}"),
            };
            let end = match &record.end {
                End::Good(when) => when.micros.to_string(),
                End::Open(why) => why.clone(),
            };
            let path = record
                .path
                .map_or_else(|| "-".to_owned(), |path| (path + 1).to_string());
            // Writing to a string cannot fail.
            let _written = writeln!(
                text,
                "{:>10} [{}] c{client} {what} path {path} x{attempts} {end}",
                began.micros, began.moment
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(clock: &Clock, first: u64, count: u64, action: Action) -> Record {
        Record {
            client: 0,
            first,
            count,
            action,
            began: clock.now(),
            end: End::Good(clock.now()),
            path: Some(0),
            attempts: 1,
        }
    }

    #[test]
    fn a_sector_says_what_it_is_and_a_torn_one_is_noticed() {
        let mut bytes = [0; SECTOR];
        assert_eq!(stamp_of(5, &bytes), 0);
        fill(5, 77, &mut bytes);
        assert_eq!(stamp_of(5, &bytes), 77);
        assert!(stamp_of(6, &bytes) & GARBAGE != 0, "in the wrong place");
        bytes[300] ^= 1;
        assert!(stamp_of(5, &bytes) & GARBAGE != 0);
    }

    #[test]
    fn a_lost_write_is_found_also_if_it_was_made_before_the_last_check() {
        let clock = Clock::new();
        let mut history = History::default();
        history.add([record(&clock, 0, 2, Action::Write(1 << INDEX_BITS))]);
        let stamps = [1 << INDEX_BITS, (1 << INDEX_BITS) + 1];
        history.add([record(&clock, 0, 2, Action::Read(stamps.into()))]);
        assert_eq!(history.check(&stamps), Vec::<String>::new());
        let clock = Clock::new();
        history.add([record(&clock, 0, 2, Action::Read(vec![stamps[0], 0]))]);
        let found = history.check(&[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("sector 1"), "{found:?}");
    }

    #[test]
    fn a_write_without_answer_may_be_there_or_not() {
        for seen in [0, 1 << INDEX_BITS] {
            let clock = Clock::new();
            let mut history = History::default();
            let mut open = record(&clock, 9, 1, Action::Write(1 << INDEX_BITS));
            open.end = End::Open("never answered".into());
            history.add([open]);
            history.add([record(&clock, 9, 1, Action::Read(vec![seen]))]);
            assert_eq!(history.check(&[]), Vec::<String>::new());
        }
    }
}
