//! `cargo xtask mutants`: each patch in `tests/mutants` plants one bug in a copy of the tree. The
//! check that the patch names must then fail; if it passes, the check has lost its teeth.

use crate::command::{self, cargo_in, root, show};
use crate::parts::SEEDS;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Plants every bug (or those whose file name contains `filter`); true if all were found.
fn run_all(filter: Option<&str>) -> Result<Vec<(String, bool)>> {
    let patches = patches(&root().join("tests/mutants"), filter)?;
    let copy = Copy::make()?;
    let mut results = Vec::new();
    for patch in patches {
        let name = file_name(&patch);
        let check = Check::of(&fs::read_to_string(&patch)?).with_context(|| name.clone())?;
        println!("==> {name}: must be found by {}", check.name());
        copy.apply(&patch, &[])?;
        let found = copy.finds(check).with_context(|| name.clone())?;
        copy.apply(&patch, &["-R"])?;
        println!(
            "<== {name}: {}\n",
            if found { "found" } else { "NOT FOUND" }
        );
        results.push((name, found));
    }
    Ok(results)
}

/// As `run_all`, with a summary; true if all were found.
pub(crate) fn run(filter: Option<&str>) -> Result<bool> {
    let results = run_all(filter)?;
    for (name, found) in &results {
        println!("{name:<40} {}", if *found { "found" } else { "NOT FOUND" });
    }
    Ok(results.iter().all(|(_, found)| *found))
}

/// What must find a planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// The simulator, within the usual number of seeds.
    Simulator,
    /// The demo's comparison of both images and of every acknowledged write.
    Content,
}

impl Check {
    fn of(patch: &str) -> Result<Self> {
        match patch
            .lines()
            .find_map(|line| line.strip_prefix("# finds:"))
            .map(str::trim)
        {
            Some("sim") => Ok(Self::Simulator),
            Some("content") => Ok(Self::Content),
            Some(other) => bail!("`# finds: {other}`: the checks are `sim` and `content`"),
            None => bail!("a line `# finds: sim` or `# finds: content` is missing"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Simulator => "the simulator",
            Self::Content => "the content check",
        }
    }
}

/// A copy of the tree in a temporary directory, removed at the end.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn make() -> Result<Self> {
        let tree = std::env::temp_dir().join(format!("lockstep-mutants-{}", std::process::id()));
        copy_tree(&root(), &tree)
            .with_context(|| format!("cannot copy the tree to {}", tree.display()))?;
        // Kept between runs: the libraries need not be built again.
        Ok(Self {
            tree,
            target: root().join("target/mutants"),
        })
    }

    fn apply(&self, patch: &Path, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("git");
        command
            .args(["apply", "--whitespace=nowarn"])
            .args(arguments)
            .arg(patch)
            .current_dir(&self.tree);
        command::run(&mut command).context("the patch no longer fits the code: renew it")
    }

    /// Builds first: a mutant that does not compile is a bad patch, not a found bug.
    fn finds(&self, check: Check) -> Result<bool> {
        let (build, arguments): (&[&str], &[&str]) = match check {
            Check::Simulator => (
                &["build", "--release", "-p", "lockstep-sim"],
                &[
                    "run",
                    "--release",
                    "-p",
                    "lockstep-sim",
                    "--",
                    "--seeds",
                    SEEDS,
                ],
            ),
            Check::Content => (
                &["build", "--release", "--bin", "lockstep"],
                &["run", "--release", "--bin", "lockstep", "--", "demo"],
            ),
        };
        command::run(cargo_in(&self.tree, build).env("CARGO_TARGET_DIR", &self.target))?;
        let mut command = cargo_in(&self.tree, arguments);
        println!("    $ {}", show(&command));
        let output = command
            .env("CARGO_TARGET_DIR", &self.target)
            .stdin(Stdio::null())
            .output()
            .context("cannot start it")?;
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text
            .lines()
            .rev()
            .take(SHOWN_LINES)
            .collect::<Vec<_>>()
            .iter()
            .rev()
        {
            println!("    | {line}");
        }
        Ok(!output.status.success())
    }
}

/// The end of a failing check's output is shown: enough to see why it failed.
const SHOWN_LINES: usize = 8;

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.tree) {
            println!("cannot remove {}: {error}", self.tree.display());
        }
    }
}

fn patches(directory: &Path, filter: Option<&str>) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut patches: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    patches.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "patch")
            && filter.is_none_or(|filter| file_name(path).contains(filter))
    });
    if patches.is_empty() {
        bail!("no patch in {} has that name", directory.display());
    }
    patches.sort();
    Ok(patches)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// All but what is built and what git keeps.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to.join(name))?;
        } else {
            fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
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
        assert!(Check::of("--- a/x\n").is_err());
        assert!(Check::of("# finds: luck\n").is_err());
    }
}
