//! A cluster under load and under watch: what the nemesis and the measurements share.

use crate::client::{Client, Work};
use crate::cluster::{Cluster, Settings};
use crate::history::{Action, Clock, End, History};
use crate::network::Machine;
use crate::random::Random;
use crate::store::SECTOR;
use crate::verify;
use crate::watch::{Seen, Watch};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After the last fault every initiator is answered within this, on a busy machine too.
pub const ANSWERED: Duration = Duration::from_secs(60);
/// And both nodes hold everything within this.
pub const MIRRORED: Duration = Duration::from_secs(180);

/// Bytes of a volume that are worked on: the rest shows what resyncs leave alone.
const WORKED_ON: u64 = 64 << 20;

/// What was done and seen in all.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Reads and writes that were answered.
    pub operations: u64,
    /// Sectors written and acknowledged.
    pub sectors: u64,
    /// Operations sent more than once.
    pub sent_again: u64,
    /// Operations whose end is not known.
    pub open: u64,
    /// The longest time in which an initiator's writes were not acknowledged.
    pub longest_pause: Duration,
    /// The longest times from the last fault to answers, and to two copies.
    pub answered: Duration,
    /// See `answered`.
    pub mirrored: Duration,
}

/// See the module.
pub struct Stage {
    /// The machines.
    pub cluster: Cluster,
    /// What orders the history.
    pub clock: Arc<Clock>,
    /// Since the last check.
    pub history: History,
    /// For whoever breaks things.
    pub random: Random,
    /// What came of it so far.
    pub tally: Tally,
    /// Copies that were replaced: each is compared from end to end, once.
    pub replaced: u64,
    watch: Watch,
    clients: Vec<Client>,
    round: u64,
}

impl Stage {
    /// A cluster in this directory, mirrored and without load.
    ///
    /// # Errors
    /// The machine lacks something, or it does not come up.
    pub fn new(directory: &Path, seed: u64, settings: Settings) -> Result<Self> {
        let cluster = Cluster::start(directory, seed, settings)?;
        let watch = Watch::start(vec![cluster.client(0), cluster.client(1)]);
        Ok(Self {
            cluster,
            clock: Arc::new(Clock::new()),
            history: History::default(),
            random: Random::new(seed, 21),
            tally: Tally::default(),
            replaced: 0,
            watch,
            clients: Vec::new(),
            round: 0,
        })
    }

    /// The load of the nemesis: initiators that meet at many places.
    #[must_use]
    pub fn work(&self) -> Work {
        Work {
            sectors: self.cluster.settings.size.min(WORKED_ON) / SECTOR as u64,
            unit: self.cluster.settings.unit(),
            depth: 6,
            longest: 16,
            reads: 40,
            hot: 70,
            rate: 300,
        }
    }

    /// The number of a new round, for clients that are started by others.
    pub const fn next_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    /// Starts so many initiators.
    pub fn begin_load(&mut self, count: usize, work: Work) {
        self.next_round();
        for number in 0..count {
            let paths = self
                .cluster
                .paths(u8::try_from(number + 1).unwrap_or(u8::MAX));
            let random = Random::new(self.random.word(), number as u64);
            let clock = Arc::clone(&self.clock);
            self.clients.push(Client::start(
                number, self.round, paths, work, clock, random,
            ));
        }
    }

    /// Every initiator is answered again; how long it took from now on.
    ///
    /// # Errors
    /// Not in time, or a daemon ended by itself.
    pub fn wait_answered(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let before: Vec<u64> = self.clients.iter().map(Client::writes).collect();
        while self
            .clients
            .iter()
            .zip(&before)
            .any(|(client, before)| client.writes() == *before)
        {
            self.cluster.watch_processes()?;
            if begun.elapsed() > ANSWERED {
                let said = [0, 1].map(|node| self.cluster.client(node).status());
                bail!(
                    "no write was acknowledged for {ANSWERED:?} after the last fault; the nodes say {said:#?}"
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = begun.elapsed();
        self.tally.answered = self.tally.answered.max(took);
        Ok(took)
    }

    /// Both nodes hold everything again; how long it took from now on.
    ///
    /// # Errors
    /// Not in time, or a daemon ended by itself.
    pub fn wait_mirrored(&mut self) -> Result<Duration> {
        let took = self.cluster.wait_mirrored(MIRRORED)?;
        self.tally.mirrored = self.tally.mirrored.max(took);
        Ok(took)
    }

    /// Sectors written since the load began.
    #[must_use]
    pub fn sectors_written(&self) -> u64 {
        self.clients.iter().map(Client::sectors).sum()
    }

    /// The longest pause since this was asked last.
    pub fn take_longest_pause(&mut self) -> Duration {
        let clock = &self.clock;
        let gaps = self
            .clients
            .iter()
            .map(|client| client.take_longest_gap(clock));
        let longest = gaps.max().unwrap_or_default();
        self.tally.longest_pause = self.tally.longest_pause.max(longest);
        longest
    }

    /// The initiators finish what is under way and go.
    ///
    /// # Errors
    /// Something was refused for good, or never answered.
    pub fn end_load(&mut self) -> Result<()> {
        self.take_longest_pause();
        let mut open = None;
        for client in std::mem::take(&mut self.clients) {
            let records = client.finish().context("an initiator")?;
            for record in &records {
                match &record.end {
                    End::Good(_) => self.tally.operations += 1,
                    End::Open(why) => {
                        self.tally.open += 1;
                        open = open.or_else(|| Some(format!("{record:?}: {why}")));
                    }
                }
                self.tally.sent_again += u64::from(record.attempts > 1);
                if matches!(
                    (&record.action, &record.end),
                    (Action::Write(_), End::Good(_))
                ) {
                    self.tally.sectors += record.count;
                }
            }
            self.history.add(records);
        }
        match open {
            Some(open) => bail!("an operation did not end well: {open}"),
            None => Ok(()),
        }
    }

    /// What the watch saw.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.watch.seen()
    }

    /// After a round: reads everything everywhere, and judges the history, the watch and the logs.
    ///
    /// # Errors
    /// Something is wrong.
    pub fn check(&mut self) -> Result<()> {
        verify::everything(&self.cluster, &mut self.history, &self.clock)?;
        self.judge_watch()
    }

    /// What must never be seen was not.
    ///
    /// # Errors
    /// It was.
    pub fn judge_watch(&mut self) -> Result<()> {
        let seen = self.seen();
        if !seen.wrong.is_empty() {
            bail!("{}", seen.wrong.join("; "));
        }
        if seen.full > self.replaced {
            bail!(
                "{} resyncs compared all of the volume, and {} copies were replaced",
                seen.full,
                self.replaced
            );
        }
        for node in 0..2 {
            let log = self.cluster.process(Machine::node(node)).log();
            let wrong = log.lines().find(|line| {
                let line = line.to_lowercase();
                line.contains("split brain") || line.contains("panicked")
            });
            if let Some(line) = wrong {
                bail!("node{} logged: {line}", node + 1);
            }
        }
        Ok(())
    }

    /// Stops both nodes in order, cuts their power, and judges what their disks hold.
    ///
    /// # Errors
    /// Something is wrong.
    pub fn finish(&mut self) -> Result<()> {
        verify::after_stop(&mut self.cluster, &mut self.history, &self.clock)?;
        self.judge_watch()
    }
}

/// Runs something in a directory of its own, which is removed if all went well; otherwise the
/// history is written there and the seed is named.
///
/// # Errors
/// What it failed with.
pub fn in_directory(
    directory: Option<PathBuf>,
    seed: u64,
    settings: Settings,
    act: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<()> {
    let keep = directory.is_some();
    let directory = directory.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("lockstep-faults-{}-{seed}", std::process::id()))
    });
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let mut history = None;
    let run = || {
        let mut stage = Stage::new(&directory, seed, settings)?;
        let result = act(&mut stage);
        if result.is_err() {
            // What the initiators did is wanted even if some of it did not end.
            let _ended = stage.end_load();
            history = Some(stage.history.text());
        }
        result
    };
    let result = run();
    if let Some(history) = history {
        std::fs::write(directory.join("history.txt"), history)?;
    }
    match result {
        Ok(()) if keep => Ok(()),
        Ok(()) => std::fs::remove_dir_all(&directory).context("the directory of a run"),
        Err(error) => Err(error.context(format!(
            "seed {seed} failed; logs and history are in {}",
            directory.display()
        ))),
    }
}
