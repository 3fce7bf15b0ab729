//! Crashes, intents, dirty bits and resync: two real data paths (`lockstep_mirror::volume`) on
//! pretend disks live through one story, and lose power at every step of it.
//!
//! The story: writes through both nodes; the partner is put out; writes alone; the intents are
//! cleared by idleness; a resync with writes in the middle; writes together again. At each step
//! the next thing that happens is the one that has waited longest, or, a bounded number of times,
//! any other. At each step one node or both may crash, a bounded number of times; each operation
//! of their disks that was under way has then happened, or not, or in part: of a write of
//! metadata each prefix of sectors is tried, and each with its last sector torn.
//!
//! After a crash, wherever the two images differ, the durable metadata of one of them say so.
//! Then the nodes start again, the resync is brought to its end, both images are equal, and
//! nothing that was acknowledged is missing.
//!
//! `manager.rs` stands for `Node`: it decides at once who is the source. The runs are enumerated,
//! not remembered: a state that two runs share is looked at twice.

use lockstep_mirror::control::VolumeId;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

mod machine;
mod manager;
#[cfg(test)]
mod tests;

use manager::Manager;

const VOLUME: VolumeId = VolumeId(1);
/// One region of 16 MiB and a piece of another.
const SIZE: u64 = 17 << 20;
const BLOCK: u64 = 4096;

/// Rules that may be left out.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A write of metadata is durable when it is said to be.
    pub metadata_durable: bool,
    /// What was marked before a crash is loaded.
    pub marks_loaded: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            metadata_durable: true,
            marks_loaded: true,
        }
    }
}

/// The scope of an enumeration.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// How often something else happens first than what has waited longest.
    pub detours: u8,
    /// Crashes, of one node or of both at once.
    pub crashes: u8,
    /// The adversary is there at one in so many steps; 1: at each.
    pub every: u64,
    /// Time at most.
    pub time: Duration,
    /// What holds.
    pub rules: Rules,
}

impl Default for Crash {
    fn default() -> Self {
        Self {
            detours: 0,
            crashes: 1,
            every: 1,
            time: Duration::from_secs(3600),
            rules: Rules::default(),
        }
    }
}

/// What came of an enumeration.
#[derive(Clone, Debug)]
pub struct Report {
    /// Runs of the story.
    pub runs: u64,
    /// Steps of all runs.
    pub steps: u64,
    /// Crashes in them.
    pub crashes: u64,
    /// All runs within the scope were made.
    pub complete: bool,
    /// How long it took.
    pub time: Duration,
    /// The first promise found broken, and the run that broke it.
    pub broken: Option<(String, Vec<String>)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs, {} steps, {} crashes, {} in {:.1} s: ",
            self.runs,
            self.steps,
            self.crashes,
            if self.complete { "all" } else { "CUT SHORT" },
            self.time.as_secs_f64()
        )?;
        let Some((promise, trace)) = &self.broken else {
            return f.write_str("every promise holds");
        };
        write!(f, "BROKEN: {promise}")?;
        for (number, line) in trace.iter().enumerate() {
            write!(f, "\n  {:3}. {line}", number + 1)?;
        }
        Ok(())
    }
}

/// The choices of one run: those of the run before up to one that is made differently.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    made: Vec<(usize, usize)>,
    at: usize,
}

impl Choice {
    /// One of so many; the first, unless another is due.
    pub(crate) fn of(&mut self, options: usize) -> usize {
        if self.at == self.made.len() {
            self.made.push((0, options));
        }
        let (taken, known) = self.made[self.at];
        assert_eq!(known, options, "the same choices lead to the same options");
        self.at += 1;
        taken
    }

    /// Whether there is another run.
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((taken, options)) = self.made.pop() {
            if taken + 1 < options {
                self.made.push((taken + 1, options));
                return true;
            }
        }
        false
    }
}

/// Makes every run within the scope, until one breaks a promise.
#[must_use]
pub fn enumerate(scope: &Crash) -> Report {
    let began = Instant::now();
    let mut choice = Choice::default();
    let mut report = Report {
        runs: 0,
        steps: 0,
        crashes: 0,
        complete: true,
        time: Duration::ZERO,
        broken: None,
    };
    loop {
        let mut manager = Manager::new(scope);
        let outcome = manager.live(scope, &mut choice);
        report.runs += 1;
        report.steps += manager.steps;
        report.crashes += u64::from(manager.crashes);
        if let Err(promise) = outcome {
            report.broken = Some((promise, manager.trace));
            report.complete = false;
            break;
        }
        if !choice.advance() {
            break;
        }
        if began.elapsed() > scope.time {
            report.complete = false;
            break;
        }
    }
    report.time = began.elapsed();
    report
}

/// Wherever two images differ, one of the two machines has it marked durably.
fn unmarked(machines: &[machine::Machine; 2]) -> Option<String> {
    let blocks: BTreeMap<_, _> = machines.iter().flat_map(|it| &it.image).collect();
    let value = |it: usize, block: u64| machines[it].image.get(&block).copied().unwrap_or(0);
    let found = blocks.keys().find(|block| {
        value(0, ***block) != value(1, ***block) && !machines.iter().any(|it| it.marks(***block))
    });
    found.map(|block| {
        format!(
            "block {block} is {} on node 1 and {} on node 2, and neither has it marked",
            value(0, **block),
            value(1, **block)
        )
    })
}
