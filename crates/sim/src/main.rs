//! `lockstep-sim`: runs seeds on all processors, says which of them broke a promise, and how often
//! each fault was thrown and each state was reached. A seed that failed replays exactly.
#![expect(clippy::print_stdout, reason = "the report is what was asked for")]

use clap::Parser;
use lockstep_sim::world::{Report, World};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

#[derive(Parser)]
#[command(
    name = "lockstep-sim",
    about = "Runs two nodes in a pretend world and checks what they promise"
)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed; without --seeds, the only one.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens (one seed).
    #[arg(long)]
    trace: bool,
    /// Go on after a failure, to see how many seeds fail.
    #[arg(long)]
    keep_going: bool,
    /// Play a recording of a real daemon (`lockstep daemon --record FILE`) again instead.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed", "trace"])]
    replay: Option<PathBuf>,
    /// Threads; all processors if not given.
    #[arg(long)]
    threads: Option<usize>,
}

thread_local! {
    /// The seed that this thread runs, for the message of a panic in the engine.
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(path) = &arguments.replay {
        return replay(path);
    }
    name_the_seed_of_a_panic();
    let only = arguments.seed.is_some()
        && std::env::args().all(|argument| !argument.starts_with("--seeds"));
    let first = arguments.seed.unwrap_or(1);
    let count = if only || arguments.trace {
        1
    } else {
        arguments.seeds
    };
    let begun = Instant::now();
    let total = run_all(&arguments, first, count);
    let mut total = total;
    total.print(begun.elapsed().as_secs_f64());
    if total.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Gives a recording's events to machines made anew; they must do what was recorded.
fn replay(path: &Path) -> ExitCode {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            println!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    match lockstep_sim::replay::play(BufReader::new(file)) {
        Ok((shard, node)) => {
            println!(
                "{shard} events of the shard and {node} of the node brought the same actions again"
            );
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{}: {why}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// An assertion of the engine that fails ends the program (as it would end the daemon): the
/// message says which seed shows it.
fn name_the_seed_of_a_panic() {
    let former = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        former(info);
        let seed = SEED.get();
        println!("seed {seed} VIOLATION: the engine's own check failed: {info}");
        println!("replay: cargo run --release -p lockstep-sim -- --seed {seed} --trace");
    }));
}

fn run_all(arguments: &Arguments, first: u64, count: u64) -> Total {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = arguments
        .threads
        .unwrap_or(processors)
        .min(usize::try_from(count).unwrap_or(usize::MAX))
        .max(1);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            let seed = first + index;
            SEED.set(seed);
            let report = World::new(seed, arguments.trace).run(seed);
            if !report.violations.is_empty() {
                print_failure(&report);
                if !arguments.keep_going {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            total.lock().expect("no thread panics with it").add(report);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    total.into_inner().expect("no thread panics with it")
}

fn print_failure(report: &Report) {
    for violation in &report.violations {
        println!(
            "seed {} VIOLATION at {:.3} s: {violation}",
            report.seed,
            report.time.as_secs_f64()
        );
    }
    println!(
        "replay: cargo run --release -p lockstep-sim -- --seed {} --trace",
        report.seed
    );
}

/// All runs together.
#[derive(Default)]
struct Total {
    runs: u64,
    failed: Vec<u64>,
    steps: u64,
    commands: u64,
    seconds: f64,
    gaps: Vec<f64>,
    counts: BTreeMap<&'static str, (u64, u64)>,
}

impl Total {
    fn add(&mut self, report: Report) {
        self.runs += 1;
        if !report.violations.is_empty() {
            self.failed.push(report.seed);
        }
        self.steps += report.steps;
        self.commands += report.commands;
        self.seconds += report.time.as_secs_f64();
        self.gaps.push(report.longest_gap.as_secs_f64());
        for (name, count) in report.counts {
            let entry = self.counts.entry(name).or_default();
            entry.0 += count;
            entry.1 += u64::from(count > 0);
        }
    }

    fn print(&mut self, took: f64) {
        println!("{:<40} {:>12} {:>10}", "what", "times", "in runs");
        for (name, (times, runs)) in &self.counts {
            println!("{name:<40} {times:>12} {runs:>10}");
        }
        self.gaps.sort_by(f64::total_cmp);
        let median = self
            .gaps
            .get(self.gaps.len() / 2)
            .copied()
            .unwrap_or_default();
        let longest = self.gaps.last().copied().unwrap_or_default();
        let per = |number: u64| number.checked_div(self.runs).unwrap_or_default();
        println!("longest time without an answer: median {median:.1} s, maximum {longest:.1} s");
        println!(
            "{} seeds in {took:.0} s: {} events, {} commands and {:.0} simulated seconds a seed",
            self.runs,
            per(self.steps),
            per(self.commands),
            if self.runs == 0 {
                0.0
            } else {
                self.seconds / f64::from(u32::try_from(self.runs).unwrap_or(u32::MAX))
            },
        );
        self.failed.sort_unstable();
        match self.failed.len() {
            0 => println!("no violation"),
            failed => println!(
                "{failed} seeds with violations: {:?}",
                &self.failed[..failed.min(50)]
            ),
        }
    }
}
