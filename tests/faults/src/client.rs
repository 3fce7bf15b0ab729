//! An initiator with both paths that keeps commands outstanding, tries again as multipath does,
//! and records everything.

use crate::history::{Action, Clock, End, INDEX_BITS, Record, fill, stamps_of};
use crate::random::Random;
use crate::store::SECTOR;
use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::multipath::{Done, Options, Outcome};
use lockstep_initiator::driver::{Driver, PathSettings};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Places that all clients use most: there they meet.
const HOT: u64 = 64;
/// A command that is not answered by then never will be.
const DRAIN: Duration = Duration::from_secs(90);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Sectors to work on, from sector 0.
    pub sectors: u64,
    /// Sectors of a logical block.
    pub unit: u64,
    /// Commands kept outstanding.
    pub depth: usize,
    /// Longest command in sectors.
    pub longest: u64,
    /// How many commands in a hundred are reads.
    pub reads: u64,
    /// How many in a hundred go to the places that all clients use.
    pub hot: u64,
    /// Commands a second at most; 0: as many as it can.
    pub rate: u64,
}

/// What other threads may know while it works.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Writes acknowledged, and when the last one was (microseconds of the clock).
    writes: AtomicU64,
    last_write: AtomicU64,
    longest_gap: AtomicU64,
    sectors: AtomicU64,
}

/// A client at work.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<Vec<Record>>>,
}

impl Client {
    /// Starts it. `number`: of the client; `round`: no two rounds of a client may have the same.
    #[must_use]
    pub fn start(
        number: usize,
        round: u64,
        paths: Vec<PathSettings>,
        work: Work,
        clock: Arc<Clock>,
        random: Random,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let first = ((round << 8) | (number as u64 + 1)) << 24;
            Worker::new(number, first, &paths, work, clock, random, for_thread).run()
        });
        Self { shared, thread }
    }

    /// Acknowledged writes so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
    }

    /// Sectors of them.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.shared.sectors.load(Ordering::Relaxed)
    }

    /// The longest time without an acknowledged write since this was called last, or since the
    /// first write; the present silence counts.
    #[must_use]
    pub fn take_longest_gap(&self, clock: &Clock) -> Duration {
        let silence = clock
            .now()
            .micros
            .saturating_sub(self.shared.last_write.load(Ordering::Relaxed));
        let gap = self.shared.longest_gap.swap(0, Ordering::Relaxed);
        let silence = if self.writes() == 0 { 0 } else { silence };
        Duration::from_micros(gap.max(silence))
    }

    /// Submits no more, waits for what is outstanding, and gives the records.
    ///
    /// # Errors
    /// The process ran out of something.
    ///
    /// # Panics
    /// If its thread did.
    pub fn finish(self) -> io::Result<Vec<Record>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Worker {
    number: usize,
    next_stamp: u64,
    driver: Driver,
    paths: usize,
    work: Work,
    clock: Arc<Clock>,
    random: Random,
    shared: Arc<Shared>,
    open: BTreeMap<u64, Record>,
    next_id: u64,
    started: Instant,
    records: Vec<Record>,
}

impl Worker {
    fn new(
        number: usize,
        next_stamp: u64,
        paths: &[PathSettings],
        work: Work,
        clock: Arc<Clock>,
        mut random: Random,
        shared: Arc<Shared>,
    ) -> Self {
        let options = Options {
            // Nobody gives up here: what is not answered in time is a finding.
            give_up_after: Duration::from_secs(3600),
            ..Options::default()
        };
        Self {
            number,
            next_stamp,
            driver: Driver::new(options, paths, random.word()),
            paths: paths.len(),
            work,
            clock,
            random,
            shared,
            open: BTreeMap::new(),
            next_id: 0,
            started: Instant::now(),
            records: Vec::new(),
        }
    }

    fn run(mut self) -> io::Result<Vec<Record>> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            while self.open.len() < self.work.depth && self.may_submit() {
                self.submit();
            }
            self.turn()?;
        }
        let end = Instant::now() + DRAIN;
        while !self.open.is_empty() && Instant::now() < end {
            self.turn()?;
        }
        let open = std::mem::take(&mut self.open);
        self.records.extend(open.into_values());
        self.driver.close(Duration::from_secs(2))?;
        Ok(self.records)
    }

    fn may_submit(&self) -> bool {
        let due = self.started.elapsed().as_secs_f64() * f64_of(self.work.rate);
        self.work.rate == 0 || f64_of(self.next_id) < due
    }

    fn turn(&mut self) -> io::Result<()> {
        self.driver.turn(Duration::from_millis(5))?;
        while let Some(done) = self.driver.next_done() {
            self.done(done);
        }
        Ok(())
    }

    fn submit(&mut self) {
        // In logical blocks first.
        let unit = self.work.unit;
        let count = 1 + self.random.below((self.work.longest / unit).max(1));
        let places = self.work.sectors / unit - count + 1;
        let first = if self.random.percent(self.work.hot) {
            // Spread over the whole, a little to and fro so that they overlap in part.
            let hot = self.random.below(HOT) * places / HOT;
            (hot + self.random.below(8)).min(places - 1)
        } else {
            self.random.below(places)
        };
        let lba = first;
        let blocks = u32::try_from(count).expect("commands are short");
        let (first, count) = (first * unit, count * unit);
        let bytes = u32::try_from(count * SECTOR as u64).expect("commands are short");
        let (command, action) = if self.random.percent(self.work.reads) {
            (
                Command::read(0, lba, blocks, bytes),
                Action::Read(Vec::new()),
            )
        } else {
            let stamp = self.next_stamp << INDEX_BITS;
            self.next_stamp += 1;
            let mut data = vec![0; bytes as usize];
            let sectors = (first..).zip(stamp..);
            for ((sector, stamp), bytes) in sectors.zip(data.chunks_exact_mut(SECTOR)) {
                fill(sector, stamp, bytes);
            }
            (
                Command::write(0, lba, blocks, data.into()),
                Action::Write(stamp),
            )
        };
        self.next_id += 1;
        let record = Record {
            client: self.number,
            first,
            count,
            action,
            began: self.clock.now(),
            end: End::Open("never answered".into()),
            path: None,
            attempts: 2,
        };
        self.open.insert(self.next_id, record);
        let path = self.random.index(self.paths);
        self.driver.submit(self.next_id, command, Some(path));
    }

    fn done(&mut self, done: Done) {
        let mut record = self
            .open
            .remove(&done.id)
            .expect("every command is in the table");
        record.path = done.path;
        record.attempts = done.attempts;
        let when = self.clock.now();
        record.end = match done.outcome {
            Outcome::Good(data) => {
                match &mut record.action {
                    Action::Read(seen) => *seen = stamps_of(record.first, &data),
                    Action::Write(_) => self.acknowledged(when.micros, record.count),
                }
                End::Good(when)
            }
            Outcome::Failed { status, sense } => End::Open(format!("status {status:#x} {sense:?}")),
            other => End::Open(format!("{other:?}")),
        };
        self.records.push(record);
    }

    fn acknowledged(&self, now: u64, sectors: u64) {
        let last = self.shared.last_write.swap(now, Ordering::Relaxed);
        if self.shared.writes.fetch_add(1, Ordering::Relaxed) > 0 {
            self.shared
                .longest_gap
                .fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        }
        self.shared.sectors.fetch_add(sectors, Ordering::Relaxed);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
const fn f64_of(number: u64) -> f64 {
    number as f64
}
