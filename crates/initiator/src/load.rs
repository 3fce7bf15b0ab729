//! A verified load: a thread that keeps so many commands outstanding, writes only stamped blocks,
//! checks every read, and measures how long the disk was silent.

use crate::core::Time;
use crate::core::command::Command;
use crate::core::ledger::{Ledger, Moment};
use crate::core::multipath::{Done, Options, Outcome};
use crate::core::stamp::{BLOCK, Content, Stamp};
use crate::driver::{Driver, PathSettings};
use crate::verify::Findings;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::thread::JoinHandle;

/// What to write and read.
#[derive(Clone, Copy, Debug)]
pub struct LoadSettings {
    /// Goes into the stamps.
    pub volume: u64,
    /// Logical unit.
    pub lun: u8,
    /// Bytes a logical block, 512 or 4096.
    pub block_size: u32,
    /// Logical blocks to work on, from block 0.
    pub blocks: u64,
    /// Commands kept outstanding.
    pub depth: usize,
    /// Longest command in logical blocks.
    pub longest: u32,
    /// How many commands in a hundred are reads.
    pub reads_percent: u64,
    /// How many writes in a hundred are of zeroes: WRITE SAME and UNMAP, in turn.
    pub zeroes_percent: u64,
    /// Reads may overlap writes under way (a target whose reads can be torn by a write, as those
    /// from a page cache can, does not stand that).
    pub reads_beside_writes: bool,
    /// Seeds the choice of blocks.
    pub seed: u64,
    /// Bytes a second, to leave the machine to others; `None`: as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

/// What happened so far, readable from other threads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Acknowledged writes.
    pub writes: AtomicU64,
    /// Verified reads.
    pub reads: AtomicU64,
    /// Bytes of both.
    pub bytes: AtomicU64,
    /// Longest time without an acknowledged write, microseconds; [`Load::take_longest_gap`] resets it.
    gap_us: AtomicU64,
    /// Microseconds since the start at which the last write was acknowledged.
    last_us: AtomicU64,
    stop: AtomicBool,
    reset_gap: AtomicBool,
}

/// How a load ended.
#[derive(Debug)]
pub struct Report {
    /// Goes on into further checks.
    pub ledger: Ledger,
    /// Acknowledged writes (commands).
    pub writes: u64,
    /// Verified reads (commands).
    pub reads: u64,
    /// Commands answered by each path.
    pub by_path: Vec<u64>,
    /// Commands that had to be sent more than once.
    pub sent_again: u64,
    /// Longest time from submission to acknowledgement of one write.
    pub slowest: Duration,
    /// Reads that returned what they must not.
    pub findings: Findings,
    /// Commands that failed for good, the first few.
    pub failures: Vec<String>,
}

/// A load in progress; dropping it abandons everything at once.
#[derive(Debug)]
pub struct Load {
    counters: Arc<Counters>,
    thread: Option<JoinHandle<io::Result<Report>>>,
}

/// So many failed commands are described.
const FAILURES: usize = 20;
/// How long commands may still be outstanding when a load is asked to finish.
const DRAIN: Duration = Duration::from_secs(60);

impl Load {
    /// Starts the thread. With a ledger of an earlier load, sequences go on where it ended.
    pub fn start(
        options: Options,
        paths: Vec<PathSettings>,
        settings: LoadSettings,
        former: Option<Ledger>,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        let thread = std::thread::spawn(move || {
            Worker::new(options, &paths, settings, former, shared).run()
        });
        Self {
            counters,
            thread: Some(thread),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Longest time between two acknowledged writes since the last call of this.
    pub fn take_longest_gap(&self) -> Duration {
        let gap = Duration::from_micros(self.counters.gap_us.load(Ordering::Relaxed));
        self.counters.reset_gap.store(true, Ordering::Relaxed);
        gap
    }

    /// Submits no more, waits for what is outstanding (at most a minute), logs out.
    ///
    /// # Errors
    /// The process ran out of something.
    ///
    /// # Panics
    /// If the load's thread did.
    pub fn finish(mut self) -> io::Result<Report> {
        self.counters.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a load is finished once");
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counters.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Kind {
    /// What every 512-byte block from the first on will hold.
    Write { first: u64, contents: Vec<Content> },
    /// `locked`: no write may overlap it.
    Read {
        since: Moment,
        first: u64,
        locked: bool,
    },
}

struct Worker {
    driver: Driver,
    settings: LoadSettings,
    counters: Arc<Counters>,
    commands: BTreeMap<u64, Kind>,
    /// Logical blocks that no new command may overlap: first and end.
    locked: BTreeMap<u64, u64>,
    random: u64,
    next_id: u64,
    sequence: u64,
    last_acknowledged: Option<Time>,
    credit: u64,
    refilled: Time,
    report: Report,
}

impl Worker {
    fn new(
        options: Options,
        paths: &[PathSettings],
        settings: LoadSettings,
        former: Option<Ledger>,
        counters: Arc<Counters>,
    ) -> Self {
        let ledger = former.unwrap_or_default();
        let report = Report {
            ledger,
            writes: 0,
            reads: 0,
            by_path: vec![0; paths.len()],
            sent_again: 0,
            slowest: Duration::ZERO,
            findings: Findings::default(),
            failures: Vec::new(),
        };
        Self {
            driver: Driver::new(options, paths, settings.seed),
            settings,
            counters,
            commands: BTreeMap::new(),
            locked: BTreeMap::new(),
            random: settings.seed | 1,
            next_id: 0,
            sequence: report.ledger.last_sequence(),
            last_acknowledged: None,
            credit: 0,
            refilled: Time::ZERO,
            report,
        }
    }

    fn run(mut self) -> io::Result<Report> {
        while !self.counters.stop.load(Ordering::Relaxed) {
            self.submit();
            self.turn()?;
        }
        let end = self.driver.now() + DRAIN;
        while !self.commands.is_empty() && self.driver.now() < end {
            self.turn()?;
        }
        for kind in core::mem::take(&mut self.commands).into_values() {
            self.fail(format!(
                "{} was not answered before the end",
                describe(&kind)
            ));
            if let Kind::Read { since, .. } = kind {
                self.report.ledger.end_read(since);
            }
        }
        self.driver.close(Duration::from_secs(2))?;
        Ok(self.report)
    }

    fn turn(&mut self) -> io::Result<()> {
        self.driver.turn(Duration::from_millis(10))?;
        while let Some(done) = self.driver.next_done() {
            self.done(done);
        }
        self.gap(self.driver.now());
        Ok(())
    }

    fn submit(&mut self) {
        if let Some(rate) = self.settings.bytes_per_second {
            let now = self.driver.now();
            let new = u64::try_from((now - self.refilled).as_micros())
                .unwrap_or(u64::MAX)
                .saturating_mul(rate)
                / 1_000_000;
            if new > 0 {
                self.refilled = now;
                self.credit = (self.credit + new).min(rate / 10);
            }
        }
        // Blocks that are being written are left alone; a small disk may have no others.
        for _ in 0..self.settings.depth * 2 {
            if self.commands.len() >= self.settings.depth {
                break;
            }
            let blocks = 1 + self.below(u64::from(self.settings.longest));
            let first = self.below(self.settings.blocks - blocks + 1);
            let bytes = blocks * u64::from(self.settings.block_size);
            if self.settings.bytes_per_second.is_some() {
                if self.credit < bytes {
                    break;
                }
                self.credit -= bytes;
            }
            let reads = self.below(100) < self.settings.reads_percent;
            if reads && (self.settings.reads_beside_writes || self.is_free(first, blocks)) {
                self.read(first, blocks);
            } else if !reads && self.is_free(first, blocks) {
                self.write(first, blocks);
            }
        }
    }

    fn read(&mut self, first: u64, blocks: u64) {
        let count = u32::try_from(blocks).expect("commands are short");
        let command = Command::read(
            self.settings.lun,
            first,
            count,
            count * self.settings.block_size,
        );
        let since = self.report.ledger.begin_read();
        let locked = !self.settings.reads_beside_writes;
        if locked {
            self.locked.insert(first, first + blocks);
        }
        let first = first * self.stamps_a_block();
        self.send(
            command,
            Kind::Read {
                since,
                first,
                locked,
            },
        );
    }

    fn write(&mut self, first: u64, blocks: u64) {
        let zeroes = self.below(100) < self.settings.zeroes_percent;
        let start = first * self.stamps_a_block();
        let path = u16::try_from(self.next_path()).unwrap_or(u16::MAX);
        let count = usize::try_from(blocks * self.stamps_a_block()).expect("commands are short");
        let mut data = vec![0; if zeroes { 0 } else { count * BLOCK }];
        let mut contents = vec![Content::Zero; count];
        let stamped = (start..)
            .zip(data.chunks_exact_mut(BLOCK))
            .zip(&mut contents);
        for ((lba, block), content) in stamped {
            self.sequence += 1;
            let stamp = Stamp {
                volume: self.settings.volume,
                lba,
                sequence: self.sequence,
                path,
            };
            stamp.write(block);
            *content = Content::Stamped(stamp);
        }
        for (lba, content) in (start..).zip(&contents) {
            self.report.ledger.begin_write(lba, *content);
        }
        self.locked.insert(first, first + blocks);
        let count = u32::try_from(blocks).expect("commands are short");
        let lun = self.settings.lun;
        let command = match zeroes {
            false => Command::write(lun, first, count, data.into()),
            true if self.next_id % 4 < 2 => Command::zero(lun, first, count),
            true => Command::unmap(lun, first, count),
        };
        self.send(
            command,
            Kind::Write {
                first: start,
                contents,
            },
        );
    }

    fn send(&mut self, command: Command, kind: Kind) {
        let path = self.next_path();
        self.next_id += 1;
        self.commands.insert(self.next_id, kind);
        self.driver.submit(self.next_id, command, Some(path));
    }

    fn done(&mut self, done: Done) {
        let kind = self
            .commands
            .remove(&done.id)
            .expect("every command is in the table");
        if let Some(path) = done.path {
            self.report.by_path[path] += 1;
        }
        self.report.sent_again += u64::from(done.attempts > 1);
        let lock = match &kind {
            Kind::Write { first, .. } => Some(*first),
            Kind::Read { first, locked, .. } => locked.then_some(*first),
        };
        if let Some(lba) = lock {
            self.locked.remove(&(lba / self.stamps_a_block()));
        }
        match (kind, done.outcome) {
            (Kind::Write { first, contents }, Outcome::Good(_)) => {
                for (lba, content) in (first..).zip(&contents) {
                    self.report.ledger.acknowledge(lba, *content);
                }
                self.acknowledged(contents.len(), done.submitted);
            }
            (kind @ Kind::Write { .. }, outcome) => {
                self.fail(format!("{} ended with {outcome:?}", describe(&kind)));
            }
            (Kind::Read { since, first, .. }, Outcome::Good(data)) => {
                for (lba, block) in (first..).zip(data.chunks_exact(BLOCK)) {
                    if let Err(wrong) = self.report.ledger.check(since, lba, block) {
                        self.report.findings.note(wrong);
                    }
                    self.report.findings.checked += 1;
                }
                self.report.ledger.end_read(since);
                self.report.reads += 1;
                self.counters.reads.fetch_add(1, Ordering::Relaxed);
                self.counters
                    .bytes
                    .fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            (Kind::Read { since, first, .. }, outcome) => {
                self.report.ledger.end_read(since);
                self.fail(format!("a read at block {first} ended with {outcome:?}"));
            }
        }
    }

    fn acknowledged(&mut self, blocks: usize, submitted: Time) {
        let now = self.driver.now();
        self.report.slowest = self.report.slowest.max(now - submitted);
        self.report.writes += 1;
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.counters
            .bytes
            .fetch_add((blocks * BLOCK) as u64, Ordering::Relaxed);
        self.gap(now);
        self.last_acknowledged = Some(now);
        self.counters.last_us.store(micros(now), Ordering::Relaxed);
    }

    /// A silence counts while it lasts, not only when it ends.
    fn gap(&self, now: Time) {
        if let Some(last) = self.last_acknowledged {
            let gap = micros(now - last);
            if self.counters.reset_gap.swap(false, Ordering::Relaxed) {
                self.counters.gap_us.store(gap, Ordering::Relaxed);
            } else {
                self.counters.gap_us.fetch_max(gap, Ordering::Relaxed);
            }
        }
    }

    fn fail(&mut self, what: String) {
        if self.report.failures.len() < FAILURES {
            self.report.failures.push(what);
        }
    }

    fn is_free(&self, first: u64, blocks: u64) -> bool {
        self.locked
            .range(..first + blocks)
            .next_back()
            .is_none_or(|(_, end)| *end <= first)
    }

    fn stamps_a_block(&self) -> u64 {
        u64::from(self.settings.block_size) / BLOCK as u64
    }

    fn next_path(&self) -> usize {
        usize::try_from(self.next_id % self.report.by_path.len() as u64).unwrap_or(0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let word = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        u64::try_from((u128::from(word) * u128::from(limit)) >> 64).expect("below the limit")
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Write { first, contents } => format!("{} at block {first}", contents[0]),
        Kind::Read { first, .. } => format!("a read at block {first}"),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
