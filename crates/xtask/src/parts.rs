//! The parts of `cargo xtask test`, cheapest first, and how each is run.

use crate::command::{cargo, root, run};
use crate::daemon::{self, Which};
use crate::{debian, mutants};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Seeds that the simulator runs for a change; enough to find each planted bug.
pub(crate) const SEEDS: &str = "2000";
/// Seeds of the long run.
const LONG_SEEDS: &str = "10000";

/// One part.
pub(crate) struct Part {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) shows: &'static str,
    /// Only in the long run, unless it is named.
    pub(crate) long_only: bool,
    run: fn(Length) -> Result<()>,
}

/// How much of a part is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// What every change must pass.
    Usual,
    /// Everything there is.
    Long,
}

impl Part {
    const fn usual(name: &'static str, shows: &'static str, run: fn(Length) -> Result<()>) -> Self {
        Self {
            name,
            shows,
            long_only: false,
            run,
        }
    }

    const fn long(name: &'static str, shows: &'static str, run: fn(Length) -> Result<()>) -> Self {
        Self {
            name,
            shows,
            long_only: true,
            run,
        }
    }

    /// Runs it.
    pub(crate) fn run(&self, length: Length) -> Result<()> {
        (self.run)(length)
    }
}

/// All parts in their order.
pub(crate) const PARTS: [Part; 13] = [
    Part::usual("fmt", "the code is formatted", |_| {
        run(&mut cargo(&["fmt", "--all", "--check"]))
    }),
    Part::usual("clippy", "no lint fires", |_| {
        run(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    }),
    Part::usual(
        "doc",
        "every public item is documented, every link leads somewhere",
        |_| {
            run(cargo(&[
                "doc",
                "--workspace",
                "--no-deps",
                "--document-private-items",
            ])
            .env(
                "RUSTDOCFLAGS",
                "-D warnings -A rustdoc::private_intra_doc_links",
            ))
        },
    ),
    Part::usual(
        "unit",
        "unit tests, and the layout of the workspace",
        |_| {
            run(&mut cargo(&[
                "test",
                "--workspace",
                "--exclude",
                "lockstep-tests",
                "--lib",
                "--bins",
                "--tests",
            ]))
        },
    ),
    Part::usual("doctest", "the examples in the documentation run", |_| {
        run(&mut cargo(&["test", "--workspace", "--doc"]))
    }),
    Part::usual(
        "build",
        "what is run from here on, as it is released",
        |_| programs(),
    ),
    Part::usual(
        "models",
        "no order of events at a small scope breaks a promise",
        models,
    ),
    Part::usual("sim", "nothing acknowledged is lost, whatever fails", sim),
    Part::usual(
        "interop",
        "foreign initiators, kills and restarts against the real daemon",
        interop,
    ),
    Part::usual(
        "faults",
        "real daemons on networks and disks that are really broken",
        faults,
    ),
    Part::usual("demo", "what the README promises", |_| {
        run(&mut cargo(&[
            "run",
            "--release",
            "--bin",
            "lockstep",
            "--",
            "demo",
        ]))
    }),
    Part::long(
        "long",
        "the slow tests, among them 20 cycles of kill and restart",
        long,
    ),
    Part::long("mutants", "planted bugs are found", |_| {
        if !mutants::run(None)? {
            bail!("a planted bug was not found");
        }
        Ok(())
    }),
];

/// The release build of everything that is run: with one command, so that all share the
/// dependencies, whose features depend on what is built together.
fn programs() -> Result<()> {
    run(&mut cargo(&[
        "build",
        "--release",
        "--bins",
        "-p",
        "lockstep-lockstep",
        "-p",
        "lockstep-models",
        "-p",
        "lockstep-sim",
        "-p",
        "lockstep-faults",
    ]))
}

/// One of them.
fn program(name: &str) -> PathBuf {
    target().join("release").join(name)
}

fn models(length: Length) -> Result<()> {
    programs()?;
    let mut models = Command::new(program("lockstep-models"));
    if length == Length::Long {
        models.arg("--long");
    }
    run(models.current_dir(root()))
}

fn sim(length: Length) -> Result<()> {
    programs()?;
    let seeds = if length == Length::Long {
        LONG_SEEDS
    } else {
        SEEDS
    };
    let mut sim = Command::new(program("lockstep-sim"));
    run(sim.args(["--seeds", seeds]).current_dir(root()))
}

fn interop(_: Length) -> Result<()> {
    debian::ensure()?;
    if debian::is_root() {
        return daemon_tests(Which::WithCables);
    }
    println!("left out: the tests that pull network cables need root");
    daemon_tests(Which::Usual)
}

/// Minutes for which the nemesis rages with each strategy.
const FAULT_MINUTES: &str = "1";
/// The same in the long run.
const LONG_FAULT_MINUTES: &str = "10";

/// The nemesis, and power cuts at the worst moments; then disks that lie about flushes, which must
/// be found.
fn faults(length: Length) -> Result<()> {
    if !debian::is_root() {
        bail!(
            "the fault tests need root: they make network namespaces and mount FUSE file systems; \
             run them with: sudo -E cargo xtask test faults"
        );
    }
    debian::ensure()?;
    let (minutes, cuts) = match length {
        Length::Usual => (FAULT_MINUTES, "2"),
        Length::Long => (LONG_FAULT_MINUTES, "20"),
    };
    programs()?;
    let program = program("lockstep-faults");
    let faults = |arguments: &[&str]| run(Command::new(&program).args(arguments));
    for strategy in ["majority", "heartbeat"] {
        faults(&["--minutes", minutes, "--strategy", strategy])?;
    }
    faults(&["powercuts", "--runs", cuts])?;
    faults(&["powercuts", "--cache", "write-back", "--runs", "2"])?;
    faults(&["powercuts", "--lie", "--runs", "5"])
}

fn long(_: Length) -> Result<()> {
    debian::ensure()?;
    run(&mut cargo(&[
        "test",
        "--workspace",
        "--exclude",
        "lockstep-tests",
        "--",
        "--ignored",
        "long_",
    ]))?;
    daemon_tests(Which::Long)
}

/// The tests that drive the real daemon, the release build.
fn daemon_tests(which: Which) -> Result<()> {
    programs()?;
    daemon::run(which, &program("lockstep"))
}

/// Where cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_usual_parts_come_first() {
        let mut names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PARTS.len());
        assert!(PARTS.is_sorted_by_key(|part| part.long_only));
    }
}
