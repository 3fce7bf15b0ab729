//! The tests that drive the real daemon (`tests/`): several at a time, each in a process of its
//! own, for most of the time they wait for a silence, a restart or a copy. Those that need the
//! machine to themselves come last, one after the other.

use crate::command::{capture, cargo, root, show};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Tests at a time. More would compete for the two processors of a small machine: then nodes take
/// each other for dead, and what is shown is the machine.
const AT_ONCE: usize = 4;

/// Tests (their file, the beginning of their name) that are not run beside others, because they
/// assert how long something takes, or leave the others too little of the machine.
const ALONE: [(&str, &str); 3] = [
    // No write may stand still for two seconds while it opens as many connections as it can.
    ("bad_input", "ten_thousand_connections_"),
    // A cable is away for half a second less than what makes the nodes part.
    ("links", "cable_that_comes_back_soon_"),
    // Writes a gigabyte, and must see commands pass while it is copied.
    ("proxy", "a_target_of_a_resync_"),
];

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Every one that is not ignored.
    Usual,
    /// Those, and the ones that pull network cables, as root.
    WithCables,
    /// The slow ones, which also measure: each alone.
    Long,
}

/// A test, and how to call it.
#[derive(Clone, Debug)]
struct Test {
    binary: PathBuf,
    /// The file that it stands in, without `.rs`.
    file: String,
    name: String,
    /// Only run when it is asked for.
    ignored: bool,
}

impl Which {
    fn takes(self, test: &Test) -> bool {
        match self {
            Self::Usual => !test.ignored,
            Self::WithCables => !test.ignored || test.name.starts_with("cable_"),
            Self::Long => test.ignored && test.name.starts_with("long_"),
        }
    }
}

impl Test {
    fn is_alone(&self) -> bool {
        let named = |it: &(&str, &str)| self.file == it.0 && self.name.starts_with(it.1);
        self.ignored && self.name.starts_with("long_") || ALONE.iter().any(named)
    }

    /// Runs it and says in a line how it went, with its output only if it failed; whether it
    /// passed.
    fn run(&self, daemon: &Path) -> Result<bool> {
        let mut command = Command::new(&self.binary);
        command
            .args(["--exact", &self.name, "--include-ignored"])
            .current_dir(root().join("tests"))
            .env("LOCKSTEP_BIN", daemon)
            .stdin(Stdio::null());
        let begun = Instant::now();
        let done = command
            .output()
            .with_context(|| format!("cannot start `{}`", show(&command)))?;
        let passed = done.status.success();
        let mut text = format!(
            "{:<6} {:>5.1} s  {}::{}\n",
            if passed { "ok" } else { "FAILED" },
            begun.elapsed().as_secs_f64(),
            self.file,
            self.name
        );
        if !passed {
            text += &String::from_utf8_lossy(&done.stdout);
            text += &String::from_utf8_lossy(&done.stderr);
        }
        // In one piece, for others speak as well.
        print!("{text}");
        Ok(passed)
    }
}

/// Runs those tests against that daemon.
pub(crate) fn run(which: Which, daemon: &Path) -> Result<()> {
    let all = tests()?;
    for (file, name) in ALONE {
        ensure!(
            all.iter()
                .any(|test| test.file == file && test.name.starts_with(name)),
            "{file}::{name}… is to be run alone, but there is no such test"
        );
    }
    let chosen = all.into_iter().filter(|test| which.takes(test));
    let (alone, beside): (Vec<_>, Vec<_>) = chosen.partition(Test::is_alone);
    let count = alone.len() + beside.len();
    ensure!(count > 0, "there is no test to run");
    let mut failed = at_once(AT_ONCE, &beside, daemon)?;
    failed.extend(at_once(1, &alone, daemon)?);
    if !failed.is_empty() {
        bail!("{} of {count} failed: {}", failed.len(), failed.join(", "));
    }
    println!("{count} tests passed");
    Ok(())
}

/// Runs these, so many at a time; the names of those that failed.
fn at_once(workers: usize, tests: &[Test], daemon: &Path) -> Result<Vec<String>> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !test.run(daemon)? {
                let name = format!("{}::{}", test.file, test.name);
                failed.lock().expect("nobody panics with it").push(name);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut ends = workers.into_iter().map(|it| it.join());
        ends.try_for_each(|end| end.expect("a worker does not panic"))
    })?;
    Ok(failed.into_inner().expect("nobody panics with it"))
}

/// All tests of `tests/`, built with the dependencies of the other tests: those of this package
/// alone would have other features, and be built again.
fn tests() -> Result<Vec<Test>> {
    let told = capture(&mut cargo(&[
        "test",
        "--workspace",
        "--lib",
        "--bins",
        "--tests",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    let mut tests = Vec::new();
    for (file, binary) in binaries(&told, &root().join("tests").join("Cargo.toml"))? {
        let list = |arguments: &[&str]| {
            let mut command = Command::new(&binary);
            capture(
                command
                    .args(["--list", "--format", "terse"])
                    .args(arguments),
            )
        };
        let (all, ignored) = (list(&[])?, list(&["--ignored"])?);
        tests.extend(names(&all).map(|name| Test {
            binary: binary.clone(),
            file: file.clone(),
            name: name.into(),
            ignored: names(&ignored).any(|it| it == name),
        }));
    }
    Ok(tests)
}

/// The test programs of the package with that manifest, by the names of their targets, from what
/// cargo told.
fn binaries(told: &str, manifest: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut binaries = Vec::new();
    for line in told.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("cargo said: {line}"))?;
        let ours = message["manifest_path"].as_str().map(Path::new) == Some(manifest);
        let executable = message["executable"].as_str();
        if let (true, Some(true), Some(path)) =
            (ours, message["profile"]["test"].as_bool(), executable)
        {
            let name = message["target"]["name"].as_str().unwrap_or_default();
            binaries.push((name.to_owned(), path.into()));
        }
    }
    binaries.sort();
    Ok(binaries)
}

/// The tests in what `--list` prints.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.strip_suffix(": test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(file: &str, name: &str, ignored: bool) -> Test {
        Test {
            binary: "true".into(),
            file: file.into(),
            name: name.into(),
            ignored,
        }
    }

    #[test]
    fn only_what_is_asked_for_is_run_and_slow_tests_have_the_machine_to_themselves() {
        let usual = test("mirror", "killing_each_node_once", false);
        let cable = test("links", "cable_that_comes_back_soon_", true);
        let long = test("mirror", "long_twenty_kills", true);
        let taken = |which: Which| [&usual, &cable, &long].map(|it| which.takes(it));
        assert_eq!(taken(Which::Usual), [true, false, false]);
        assert_eq!(taken(Which::WithCables), [true, true, false]);
        assert_eq!(taken(Which::Long), [false, false, true]);
        assert_eq!(
            [&usual, &cable, &long].map(Test::is_alone),
            [false, true, true]
        );
    }

    #[test]
    fn whatever_fails_is_named_and_the_others_are_run_all_the_same() {
        let mut tests = vec![test("a", "one", false), test("b", "two", false)];
        tests[0].binary = "false".into();
        for workers in [1, 2] {
            let failed = at_once(workers, &tests, Path::new("lockstep")).expect("both start");
            assert_eq!(failed, ["a::one"]);
        }
        tests[1].binary = "/nowhere".into();
        let error = at_once(1, &tests, Path::new("lockstep")).expect_err("there is no such file");
        assert!(error.to_string().contains("nowhere"), "{error}");
    }

    #[test]
    fn test_programs_are_found_in_what_cargo_tells() {
        let told = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"name":"links"},"profile":{"test":true},"executable":"/t/links-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"name":"lib"},"profile":{"test":false},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/api/Cargo.toml","target":{"name":"api"},"profile":{"test":true},"executable":"/t/api-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = binaries(told, Path::new("/w/tests/Cargo.toml")).expect("it is JSON");
        assert_eq!(found, [("links".to_owned(), PathBuf::from("/t/links-1"))]);
        assert!(binaries("warning: what is this?", Path::new("/w")).is_err());
        assert_eq!(names("one: test\ntwo: test\n\n").count(), 2);
    }
}
