//! `cargo xtask mutants`: each patch in `tests/mutants` plants one bug in a copy of the tree. The
//! check that the patch names must then fail; if it passes, the check has lost its teeth.

mod check;
mod copy;
mod patch;

use crate::command::root;
use crate::test::minutes;
use anyhow::{Context, Result, bail};
use check::{Check, Finding};
use copy::Copy;
use patch::Patch;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What became of one planted bug.
struct Outcome {
    name: String,
    /// Written by somebody who had not seen the checks.
    blind: bool,
    found: Option<Finding>,
    /// Building included.
    took: Duration,
}

impl Outcome {
    fn line(&self) -> String {
        let how = self
            .found
            .as_ref()
            .map_or_else(|| "NOT FOUND".into(), ToString::to_string);
        let blind = if self.blind { "blind" } else { "" };
        format!(
            "{:<36} {blind:<6} {how:<28} {:>9}",
            self.name,
            minutes(self.took)
        )
    }
}

/// Plants every bug, or those whose file name contains `filter`, one after the other; true if all
/// were found.
pub(crate) fn run(filter: Option<&str>) -> Result<bool> {
    let begun = Instant::now();
    let mut patches = patch::all(&directory(), filter)?;
    // What one bug touches is built again with the next one too: those of one crate together.
    patches.sort_by(|a, b| a.order().cmp(&b.order()));
    let copy = Copy::make()?;
    let sound = Sound::prepare(&copy, &patches)?;
    let mut outcomes = Vec::new();
    for patch in patches {
        println!("==> {}: must be found by {}", patch.name, patch.check);
        let begun = Instant::now();
        copy.plant(&patch.path)
            .with_context(|| patch.name.clone())?;
        let found = patch.check.finds(&copy);
        copy.mend(&patch.path)?;
        let found = found.with_context(|| patch.name.clone())?;
        if let Some(Finding::Seed(seed)) = found {
            sound
                .passes(&copy, seed)
                .with_context(|| patch.name.clone())?;
        }
        let outcome = Outcome {
            name: patch.name,
            blind: patch.blind,
            found,
            took: begun.elapsed(),
        };
        println!("<== {}\n", outcome.line());
        outcomes.push(outcome);
    }
    for outcome in &outcomes {
        println!("{}", outcome.line());
    }
    println!("{} in {}", summary(&outcomes), minutes(begun.elapsed()));
    Ok(outcomes.iter().all(|it| it.found.is_some()))
}

/// How many were found, and how many seeds the simulator needed.
fn summary(outcomes: &[Outcome]) -> String {
    let found = outcomes.iter().filter(|it| it.found.is_some()).count();
    let mut seeds: Vec<u64> = outcomes
        .iter()
        .filter_map(|it| match it.found {
            Some(Finding::Seed(seed)) => Some(seed),
            _ => None,
        })
        .collect();
    seeds.sort_unstable();
    let median = seeds.get(seeds.len() / 2).map_or_else(String::new, |it| {
        format!("; {} by the simulator, median seed {it}", seeds.len())
    });
    format!("{found} of {} found{median}", outcomes.len())
}

/// What the checks say of the tree without a bug: one that fails then shows nothing.
struct Sound {
    simulator: Option<PathBuf>,
}

impl Sound {
    fn prepare(copy: &Copy, patches: &[Patch]) -> Result<Self> {
        let checks = || patches.iter().map(|it| &it.check);
        let simulator = if checks().any(|it| *it == Check::Simulator) {
            println!("==> building the simulator without a bug");
            let program = copy.build("lockstep-sim", "lockstep-sim")?;
            Some(copy.keep(&program)?)
        } else {
            None
        };
        let tests: BTreeSet<_> = checks()
            .filter(|it| matches!(it, Check::Unit { .. }))
            .collect();
        for check in tests {
            println!("==> without a bug: {check}");
            if let Some(finding) = check.finds(copy)? {
                bail!("{check} fails without a planted bug ({finding}): mend that first");
            }
        }
        Ok(Self { simulator })
    }

    /// A seed that fails without the bug as well shows nothing about it.
    fn passes(&self, copy: &Copy, seed: u64) -> Result<()> {
        let simulator = self.simulator.as_ref().expect("it found the seed");
        if check::seed_passes(copy, simulator, seed)? {
            return Ok(());
        }
        bail!("seed {seed} fails without the planted bug too: mend that first");
    }
}

fn directory() -> PathBuf {
    root().join("tests/mutants")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_still_fits_the_code_and_names_its_check() {
        for patch in patch::all(&directory(), None).unwrap() {
            copy::apply(&root(), &patch.path, &["--check"])
                .unwrap_or_else(|error| panic!("{}: {error:#}", patch.path.display()));
        }
    }

    #[test]
    fn the_summary_counts_what_was_found_and_how_soon() {
        let outcome = |found| Outcome {
            name: "a-bug".into(),
            blind: false,
            found,
            took: Duration::ZERO,
        };
        let seeds = [30, 7, 100].map(|it| outcome(Some(Finding::Seed(it))));
        let others = [outcome(Some(Finding::Test("story".into()))), outcome(None)];
        let all: Vec<_> = seeds.into_iter().chain(others).collect();
        assert_eq!(
            summary(&all),
            "4 of 5 found; 3 by the simulator, median seed 30"
        );
        assert_eq!(summary(&all[4..]), "0 of 1 found");
    }
}
