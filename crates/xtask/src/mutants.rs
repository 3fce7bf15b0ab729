//! `cargo xtask mutants`: each patch in `tests/mutants` plants one bug in a copy of the tree. The
//! check that the patch names must then fail; if it passes, the check has lost its teeth.

mod copy;

use crate::command::{root, show};
use crate::parts::SEEDS;
use crate::test::minutes;
use anyhow::{Context, Result, bail};
use copy::Copy;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What became of one planted bug.
struct Outcome {
    name: String,
    found: Option<Finding>,
    /// Building included.
    took: Duration,
}

/// Where a bug showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Finding {
    /// The simulator's seed, which passes without the bug.
    seed: Option<u64>,
}

impl Outcome {
    fn line(&self) -> String {
        let how = match self.found {
            Some(Finding { seed: Some(seed) }) => format!("found at seed {seed}"),
            Some(Finding { seed: None }) => "found".into(),
            None => "NOT FOUND".into(),
        };
        format!("{:<36} {how:<20} {:>9}", self.name, minutes(self.took))
    }
}

/// Plants every bug, or those whose file name contains `filter`, one after the other; true if all
/// were found.
pub(crate) fn run(filter: Option<&str>) -> Result<bool> {
    let patches = patches(&directory(), filter)?;
    let copy = Copy::make()?;
    println!("==> building without a bug");
    let simulator = copy.build("lockstep-sim", "lockstep-sim")?;
    let sound = copy.keep(&simulator)?;
    let mut outcomes = Vec::new();
    for patch in patches {
        let name = name(&patch);
        let check = Check::of(&fs::read_to_string(&patch)?).with_context(|| name.clone())?;
        println!("==> {name}: must be found by {}", check.name());
        let begun = Instant::now();
        copy.plant(&patch).with_context(|| name.clone())?;
        let found = check.finds(&copy);
        copy.mend(&patch)?;
        let found = found.with_context(|| name.clone())?;
        if let Some(seed) = found.and_then(|it| it.seed) {
            passes(&copy, &sound, seed).with_context(|| name.clone())?;
        }
        let took = begun.elapsed();
        let outcome = Outcome { name, found, took };
        println!("<== {}\n", outcome.line());
        outcomes.push(outcome);
    }
    for outcome in &outcomes {
        println!("{}", outcome.line());
    }
    Ok(outcomes.iter().all(|it| it.found.is_some()))
}

/// What must find a planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// The simulator, within the usual number of seeds.
    Simulator,
    /// The demo's comparison of both images and of every acknowledged write.
    Content,
    /// Power cuts on disks that lose what was not flushed; needs root.
    Faults,
}

/// What the fault tests say of a lost write, and of copies that drifted apart. A run that fails
/// otherwise shows nothing.
const LOST: [&str; 2] = ["no disk would have answered so", "the images differ"];

impl Check {
    fn of(patch: &str) -> Result<Self> {
        match patch
            .lines()
            .find_map(|line| line.strip_prefix("# finds:"))
            .map(str::trim)
        {
            Some("sim") => Ok(Self::Simulator),
            Some("content") => Ok(Self::Content),
            Some("faults") => Ok(Self::Faults),
            Some(other) => {
                bail!("`# finds: {other}`: the checks are `sim`, `content` and `faults`")
            }
            None => bail!("a line `# finds: sim`, `content` or `faults` is missing"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Simulator => "the simulator",
            Self::Content => "the content check",
            Self::Faults => "power cuts",
        }
    }

    /// Builds first: a bug that does not compile is a bad patch, not a found one.
    fn finds(self, copy: &Copy) -> Result<Option<Finding>> {
        let (program, arguments): (_, &[&str]) = match self {
            Self::Simulator => (
                copy.build("lockstep-sim", "lockstep-sim")?,
                &["--seeds", SEEDS],
            ),
            Self::Content => (copy.build("lockstep-lockstep", "lockstep")?, &["demo"]),
            Self::Faults => {
                let daemon = copy.build("lockstep-lockstep", "lockstep")?;
                let program = copy.build("lockstep-faults", "lockstep-faults")?;
                assert_eq!(
                    daemon.parent(),
                    program.parent(),
                    "it breaks the one beside it"
                );
                (program, &["powercuts", "--runs", "10"])
            }
        };
        let (passed, text) = say_and_run(copy, &program, arguments)?;
        if !passed && self == Self::Faults && !LOST.iter().any(|it| text.contains(it)) {
            bail!("the fault tests failed, but not because something was lost");
        }
        let seed = first_seed(&text);
        if !passed && self == Self::Simulator && seed.is_none() {
            bail!("the simulator failed without naming a seed");
        }
        Ok((!passed).then_some(Finding { seed }))
    }
}

/// A seed that fails without the bug as well shows nothing about it.
fn passes(copy: &Copy, sound: &Path, seed: u64) -> Result<()> {
    let seed = seed.to_string();
    let (passed, _) = say_and_run(copy, sound, &["--seed", &seed, "--seeds", "1"])?;
    if !passed {
        bail!("seed {seed} fails without the planted bug too: mend that first");
    }
    Ok(())
}

/// The end of a check's output is shown: enough to see why it failed.
const SHOWN_LINES: usize = 4;
/// And no line at more than this length: a violation tells the state of the whole world.
const SHOWN_COLUMNS: usize = 200;

/// Whether it succeeded, and what it printed.
fn say_and_run(copy: &Copy, program: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = copy.run(program);
    command.args(arguments).stdin(Stdio::null());
    println!("    $ {}", show(&command));
    let output = command.output().context("cannot start it")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let violation = lines.iter().find(|line| seed_of(line).is_some());
    let end = lines.len().saturating_sub(SHOWN_LINES);
    for line in violation.into_iter().chain(&lines[end..]) {
        let short: String = line.chars().take(SHOWN_COLUMNS).collect();
        println!("    | {short}");
    }
    Ok((output.status.success(), text))
}

/// The seed of a line that names a violation.
fn seed_of(line: &str) -> Option<u64> {
    let (seed, rest) = line.strip_prefix("seed ")?.split_once(' ')?;
    rest.starts_with("VIOLATION").then(|| seed.parse().ok())?
}

fn first_seed(output: &str) -> Option<u64> {
    output.lines().find_map(seed_of)
}

fn directory() -> PathBuf {
    root().join("tests/mutants")
}

fn patches(directory: &Path, filter: Option<&str>) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut patches: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    patches.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "patch")
            && filter.is_none_or(|filter| name(path).contains(filter))
    });
    if patches.is_empty() {
        bail!("no patch in {} has that name", directory.display());
    }
    patches.sort();
    Ok(patches)
}

fn name(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_the_check_that_finds_it() {
        assert_eq!(
            Check::of("# finds: sim\n--- a/x\n").unwrap(),
            Check::Simulator
        );
        assert_eq!(
            Check::of("# why\n# finds: content\n").unwrap(),
            Check::Content
        );
        assert_eq!(Check::of("# finds: faults\n").unwrap(), Check::Faults);
        assert!(Check::of("--- a/x\n").is_err());
        assert!(Check::of("# finds: luck\n").is_err());
    }

    #[test]
    fn every_patch_still_fits_the_code_and_names_its_check() {
        for patch in patches(&directory(), None).unwrap() {
            let text = fs::read_to_string(&patch).unwrap();
            Check::of(&text).unwrap_or_else(|error| panic!("{}: {error:#}", patch.display()));
            copy::apply(&root(), &patch, &["--check"])
                .unwrap_or_else(|error| panic!("{}: {error:#}", patch.display()));
        }
    }

    #[test]
    fn the_seed_is_read_from_the_simulators_words() {
        let text = "some line\nseed 351 VIOLATION at 63.500 s: a block\nseed 7 VIOLATION: x\n";
        assert_eq!(first_seed(text), Some(351));
        assert_eq!(first_seed("seed 3 is well\n20 seeds in 1 s\n"), None);
    }
}
