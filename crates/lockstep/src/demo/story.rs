//! The demo step by step: write through both paths, kill, go on, restart, resynchronise, compare.

use super::checks::{self, Outcome};
use super::pair::{Node, POLL, Pair, is_mirrored};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use lockstep_initiator::core::chap::Account;
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::core::session::{Parameters, Purpose};
use lockstep_initiator::driver::PathSettings;
use lockstep_initiator::load::{Load, LoadSettings};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Bytes of a logical block of the demo's volume.
pub(super) const BLOCK_SIZE: u32 = 512;
/// Commands outstanding.
const DEPTH: usize = 32;
/// Longest command: 64 KiB.
const LONGEST: u32 = 128;
/// Leaves a small machine some air for two daemons and their resync.
const BYTES_PER_SECOND: u64 = 24 << 20;
/// Before the kill; after I/O went on; after the resync.
const PHASE: Duration = Duration::from_secs(3);
/// I/O must go on after a kill within this, or the demo has failed.
const PAUSE_LIMIT: Duration = Duration::from_secs(20);
/// A resync may take its time on a slow machine, but not stand still for so long.
const STALL_LIMIT: Duration = Duration::from_secs(20);
/// Nor take longer than this: what a few seconds of writing left dirty is copied in one or two.
const RESYNC_LIMIT: Duration = Duration::from_secs(60);
/// So many acknowledgements after a kill show that I/O goes on.
const GOES_ON: u64 = 100;

/// Prints what happens, unless only a result is wanted.
struct Narrator {
    quiet: bool,
    start: Instant,
}

impl Narrator {
    fn say(&self, text: &str) {
        if !self.quiet {
            println!("{:5.1} s  {text}", self.start.elapsed().as_secs_f64());
        }
    }
}

/// Runs it.
pub(super) fn tell(pair: &mut Pair, chap: Option<&Account>, quiet: bool) -> Result<Outcome> {
    let narrator = Narrator {
        quiet,
        start: Instant::now(),
    };
    for node in &pair.nodes {
        narrator.say(&format!(
            "{} serves {} at {}",
            node.name, pair.target, node.portal
        ));
    }
    let found = checks::discover(pair, chap)?;
    let load = Load::start(Options::default(), paths(pair, chap), settings(pair), None);
    narrator.say(&format!(
        "writing stamped blocks through both paths, {DEPTH} commands at a time"
    ));
    std::thread::sleep(PHASE);
    load.take_longest_gap();

    let victim = owner(pair);
    let before = load.counters().writes.load(Ordering::Relaxed);
    pair.nodes[victim].kill();
    narrator.say(&format!(
        "killed {} (SIGKILL) after {before} acknowledged writes",
        pair.nodes[victim].name
    ));
    let went_on = goes_on(&load, before);
    std::thread::sleep(PHASE);
    let pause = load.take_longest_gap();
    let after = load.counters().writes.load(Ordering::Relaxed) - before;
    narrator.say(&match went_on {
        true => format!(
            "I/O went on: {after} more writes; the longest pause was {:.2} s",
            pause.as_secs_f64()
        ),
        false => format!("I/O did not go on within {PAUSE_LIMIT:?}"),
    });

    narrator.say(&format!("starting {} again", pair.nodes[victim].name));
    pair.nodes[victim].start()?;
    let resynced = resync(pair, victim, quiet)?;
    narrator.say(&format!(
        "both nodes hold every write again after {:.1} s",
        resynced.as_secs_f64()
    ));
    std::thread::sleep(PHASE / 2);
    let report = load.finish().context("the initiator")?;
    narrator.say(&format!(
        "stopped after {} writes and {} verified reads",
        report.writes, report.reads
    ));
    checks::compare(pair, chap, found, went_on, pause, resynced, report)
}

/// Both paths as the initiator uses them.
fn paths(pair: &Pair, chap: Option<&Account>) -> Vec<PathSettings> {
    let path = |(number, node): (u8, &Node)| PathSettings {
        address: node.portal,
        parameters: Parameters {
            isid: [0x80, 0, 0, 0, 0, number],
            ..parameters(pair, chap)
        },
    };
    (1..).zip(&pair.nodes).map(path).collect()
}

/// One login.
pub(super) fn parameters(pair: &Pair, chap: Option<&Account>) -> Parameters {
    let purpose = Purpose::Normal {
        target: pair.target.clone(),
    };
    Parameters {
        chap: chap.cloned(),
        ..Parameters::new(checks::INITIATOR, purpose)
    }
}

fn settings(pair: &Pair) -> LoadSettings {
    LoadSettings {
        volume: 1,
        lun: pair.lun,
        block_size: BLOCK_SIZE,
        blocks: pair.size / u64::from(BLOCK_SIZE),
        depth: DEPTH,
        longest: LONGEST,
        reads_percent: 25,
        zeroes_percent: 5,
        reads_beside_writes: true,
        seed: 0x10c5_7e90,
        bytes_per_second: Some(BYTES_PER_SECOND),
    }
}

/// The node that orders the writes: the harder one to lose.
fn owner(pair: &Pair) -> usize {
    let owner = pair.nodes[0].volume().map_or(0, |volume| volume.owner);
    usize::from(owner.saturating_sub(1)).min(1)
}

fn goes_on(load: &Load, before: u64) -> bool {
    let start = Instant::now();
    // What was acknowledged in the moment of the kill doesn't count.
    std::thread::sleep(POLL);
    while load.counters().writes.load(Ordering::Relaxed) < before + GOES_ON {
        if start.elapsed() > PAUSE_LIMIT {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// Follows the resync until both nodes are members and serve.
fn resync(pair: &mut Pair, victim: usize, quiet: bool) -> Result<Duration> {
    let start = Instant::now();
    let bar = if quiet {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(0)
    };
    let style = ProgressStyle::with_template(
        "         resync [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}",
    )?;
    bar.set_style(style.progress_chars("=> "));
    let survivor = 1 - victim;
    let wanted = "the end of the resync";
    let [first, second] = &mut pair.nodes;
    let (back, other) = if victim == 0 {
        (first, second)
    } else {
        (second, first)
    };
    let mut newest = (None, Instant::now());
    let mut followed = Ok(());
    loop {
        let volume = other.volume();
        let progress = volume.as_ref().ok().and_then(|volume| volume.resync);
        if let Some(progress) = progress {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
        if volume.is_ok_and(|volume| is_mirrored(&volume))
            && back.volume().is_ok_and(|volume| is_mirrored(&volume))
        {
            break;
        }
        let done = progress.map(|progress| progress.done);
        if newest.0 != done {
            newest = (done, Instant::now());
        }
        if newest.1.elapsed() > STALL_LIMIT || start.elapsed() > RESYNC_LIMIT {
            // Says in which state it is, and the end of its log.
            followed = back.wait_for(wanted, Duration::ZERO, |_| false);
            break;
        }
        std::thread::sleep(POLL);
    }
    bar.finish_and_clear();
    followed.with_context(|| format!("node{} is the only one with every write", survivor + 1))?;
    Ok(start.elapsed())
}
