//! The checks that must find a planted bug: the simulator, the demo's comparison of contents, power
//! cuts on disks that lose what was not flushed, or a test that tells the very story.

use super::copy::Copy;
use crate::command::show;
use crate::parts::SEEDS;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What must find a planted bug. In the order in which they are tried: builds are shared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Check {
    /// The unit tests of a package whose names contain this.
    Unit { package: String, filter: String },
    /// The simulator, within the usual number of seeds.
    Simulator,
    /// The demo's comparison of both images and of every acknowledged write.
    Content,
    /// Power cuts of both nodes on disks that lose what was not flushed; needs root.
    Faults,
}

/// Power cuts that must find a bug.
const CUTS: &str = "10";
/// What the fault tests say of a lost write, and of copies that drifted apart; one that fails
/// otherwise shows nothing.
const LOST: [&str; 2] = ["no disk would have answered so", "the images differ"];

/// Where a bug showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// At the simulator's seed, which passes without the bug.
    Seed(u64),
    /// In this test.
    Test(String),
    /// In the demo.
    Content,
    /// After a power cut.
    Faults,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulator => f.write_str("the simulator"),
            Self::Content => f.write_str("the content check"),
            Self::Faults => f.write_str("power cuts"),
            Self::Unit { package, filter } => write!(f, "the test {filter} of {package}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed(seed) => write!(f, "simulator, seed {seed}"),
            Self::Test(_) => f.write_str("unit test"),
            Self::Content => f.write_str("content"),
            Self::Faults => f.write_str("power cuts"),
        }
    }
}

impl Check {
    /// As a patch names it.
    pub(super) fn of(text: &str) -> Result<Self> {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["sim"] => Ok(Self::Simulator),
            ["content"] => Ok(Self::Content),
            ["faults"] => Ok(Self::Faults),
            ["unit", package, filter] => Ok(Self::Unit {
                package: package.into(),
                filter: filter.into(),
            }),
            _ => bail!(
                "`# finds: {text}`: the checks are `sim`, `content`, `faults` and `unit PACKAGE FILTER`"
            ),
        }
    }

    /// Builds first: a bug that does not compile is a bad patch, not a found one.
    pub(super) fn finds(&self, copy: &Copy) -> Result<Option<Finding>> {
        match self {
            Self::Simulator => {
                let program = copy.build("lockstep-sim", "lockstep-sim")?;
                simulator_finds(copy, &program)
            }
            Self::Content => {
                let program = copy.build("lockstep-lockstep", "lockstep")?;
                let mut demo = copy.run(&program);
                demo.arg("demo");
                let ended = watch(copy, demo)?;
                Ok(ended.failed().then_some(Finding::Content))
            }
            Self::Faults => {
                let daemon = copy.build("lockstep-lockstep", "lockstep")?;
                let program = copy.build("lockstep-faults", "lockstep-faults")?;
                let mut cuts = copy.run(&program);
                cuts.env("LOCKSTEP_BIN", daemon);
                cuts.args(["powercuts", "--runs", CUTS]);
                let ended = watch(copy, cuts)?;
                if ended.failed() && !LOST.iter().any(|it| ended.text.contains(it)) {
                    bail!("the power cuts failed, but not because something was lost");
                }
                Ok(ended.failed().then_some(Finding::Faults))
            }
            Self::Unit { package, filter } => unit_finds(copy, package, filter),
        }
    }
}

fn simulator_finds(copy: &Copy, program: &Path) -> Result<Option<Finding>> {
    let mut command = copy.run(program);
    command.args(["--seeds", SEEDS]);
    let ended = watch(copy, command)?;
    match first_seed(&ended.text) {
        Some(seed) => Ok(Some(Finding::Seed(seed))),
        None if ended.failed() => bail!("the simulator failed without naming a seed"),
        None => Ok(None),
    }
}

/// Whether a seed is well.
pub(super) fn seed_passes(copy: &Copy, simulator: &Path, seed: u64) -> Result<bool> {
    let mut command = copy.run(simulator);
    command.args(["--seed", &seed.to_string(), "--seeds", "1"]);
    Ok(!watch(copy, command)?.failed())
}

fn unit_finds(copy: &Copy, package: &str, filter: &str) -> Result<Option<Finding>> {
    copy.build_tests(package)?;
    let ended = watch(copy, copy.test(package, filter))?;
    if tests_run(&ended.text) == 0 {
        bail!("no test of {package} has a name with `{filter}`");
    }
    // One that does not end has failed as well.
    Ok((ended.failed() || ended.status.is_none()).then(|| Finding::Test(filter.into())))
}

/// How a check ended.
struct Ended {
    /// `None`: it was stopped at the limit.
    status: Option<ExitStatus>,
    text: String,
}

impl Ended {
    fn failed(&self) -> bool {
        self.status.is_some_and(|it| !it.success())
    }
}

/// A check that has found nothing by then is stopped: twice what the usual number of seeds takes
/// on two processors.
const LIMIT: Duration = Duration::from_secs(300);
/// The end of a check's output is shown: enough to see why it failed.
const SHOWN_LINES: usize = 4;
/// And no line at more than this length: a violation tells the state of the whole world.
const SHOWN_COLUMNS: usize = 200;

/// Runs a check, for so long as may be, and shows the end of what it prints.
fn watch(copy: &Copy, mut command: Command) -> Result<Ended> {
    println!("    $ {}", show(&command));
    let path = copy.output();
    let output = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    command.stdin(Stdio::null()).stdout(output);
    let mut child = command.spawn().context("cannot start it")?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() >= LIMIT {
            println!("    | stopped after {} s", LIMIT.as_secs());
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let violation = lines.iter().find(|line| seed_of(line).is_some());
    let end = lines.len().saturating_sub(SHOWN_LINES);
    for line in violation.into_iter().chain(&lines[end..]) {
        let short: String = line.chars().take(SHOWN_COLUMNS).collect();
        println!("    | {short}");
    }
    Ok(Ended { status, text })
}

/// The seed of a line that names a violation.
fn seed_of(line: &str) -> Option<u64> {
    let (seed, rest) = line.strip_prefix("seed ")?.split_once(' ')?;
    rest.starts_with("VIOLATION").then(|| seed.parse().ok())?
}

fn first_seed(output: &str) -> Option<u64> {
    output.lines().find_map(seed_of)
}

/// How many tests cargo ran.
fn tests_run(output: &str) -> u64 {
    let count = |line: &str| {
        let count = line.strip_prefix("running ")?.split(' ').next()?;
        count.parse::<u64>().ok()
    };
    output.lines().filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_named_as_in_a_patch() {
        assert_eq!(Check::of("sim").unwrap(), Check::Simulator);
        assert_eq!(Check::of("faults").unwrap(), Check::Faults);
        let unit = Check::Unit {
            package: "lockstep-mirror".into(),
            filter: "volume::tests".into(),
        };
        assert_eq!(
            Check::of("unit lockstep-mirror volume::tests").unwrap(),
            unit
        );
        assert!(Check::of("unit lockstep-mirror").is_err());
        assert!(Check::of("luck").is_err());
    }

    #[test]
    fn the_seed_is_read_from_the_simulators_words() {
        let text = "some line\nseed 351 VIOLATION at 63.500 s: a block\nseed 7 VIOLATION: x\n";
        assert_eq!(first_seed(text), Some(351));
        assert_eq!(first_seed("seed 3 is well\n20 seeds in 1 s\n"), None);
    }

    #[test]
    fn a_filter_that_names_no_test_is_noticed() {
        assert_eq!(tests_run("\nrunning 3 tests\ntest a ... ok\n"), 3);
        assert_eq!(tests_run("\nrunning 0 tests\n"), 0);
    }
}
