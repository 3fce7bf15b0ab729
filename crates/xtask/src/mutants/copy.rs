//! The copy of the tree into which bugs are planted. It stays where it is between runs, and only
//! files that changed are written: cargo builds again what a patch touches, and nothing else.

use crate::command::{self, cargo_in, root};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of the tree, with a target directory of its own that all planted bugs share.
pub(super) struct Copy {
    tree: PathBuf,
    target: PathBuf,
    /// Two runs in one tree would each find the other's bugs.
    _lock: File,
}

/// What is built, and what git keeps, is not copied.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// A planted bug is run for minutes at most: a quick build counts for more than a quick program.
const QUICK_BUILD: [(&str, &str); 4] = [
    ("CARGO_INCREMENTAL", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
];

impl Copy {
    pub(super) fn make() -> Result<Self> {
        let place = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root().join("target"), |it| root().join(it))
            .join("mutants");
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let lock = File::create(place.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!(
                "`cargo xtask mutants` is running already in {}",
                place.display()
            );
        }
        let tree = place.join("tree");
        mirror_tree(&root(), &tree)
            .with_context(|| format!("cannot copy the tree to {}", tree.display()))?;
        Ok(Self {
            tree,
            target: place.join("target"),
            _lock: lock,
        })
    }

    /// Plants a bug.
    pub(super) fn plant(&self, patch: &Path) -> Result<()> {
        apply(&self.tree, patch, &[])
    }

    /// Takes it out again.
    pub(super) fn mend(&self, patch: &Path) -> Result<()> {
        apply(&self.tree, patch, &["-R"])
    }

    /// Builds a program of the tree and gives its path.
    pub(super) fn build(&self, package: &str, program: &str) -> Result<PathBuf> {
        command::run(&mut self.cargo(&["build", "--release", "-p", package]))?;
        Ok(self.target.join("release").join(program))
    }

    /// Builds the unit tests of a package: optimised, for they share what the simulator needs.
    pub(super) fn build_tests(&self, package: &str) -> Result<()> {
        command::run(&mut self.cargo(&["test", "--release", "--lib", "--no-run", "-p", package]))
    }

    /// Runs those of them whose names contain `filter`.
    pub(super) fn test(&self, package: &str, filter: &str) -> Command {
        self.cargo(&["test", "--release", "--lib", "-p", package, filter])
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = cargo_in(&self.tree, arguments);
        cargo.env("CARGO_TARGET_DIR", &self.target);
        for (name, value) in QUICK_BUILD {
            if std::env::var_os(name).is_none() {
                cargo.env(name, value);
            }
        }
        cargo
    }

    /// Where the output of a check is collected.
    pub(super) fn output(&self) -> PathBuf {
        self.target.join("output")
    }

    /// Keeps a program under another name: the next build does not replace it.
    pub(super) fn keep(&self, program: &Path) -> Result<PathBuf> {
        let kept = self.target.join("without-a-bug");
        fs::copy(program, &kept)?;
        Ok(kept)
    }

    pub(super) fn run(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.tree);
        command
    }
}

/// Applies a patch to a tree, whether or not that lies in a repository.
pub(super) fn apply(tree: &Path, patch: &Path, arguments: &[&str]) -> Result<()> {
    // In a repository around the tree, git would silently skip files "outside" of it.
    let ceiling = tree.parent().unwrap_or(tree);
    let mut command = Command::new("git");
    command
        .args(["apply", "--whitespace=nowarn"])
        .args(arguments)
        .arg(patch)
        .env("GIT_CEILING_DIRECTORIES", ceiling)
        .current_dir(tree);
    let output = command.output().context("cannot start git")?;
    if !output.status.success() {
        bail!(
            "the patch no longer fits the code: renew it\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Makes `to` the same as `from`; what is the same already keeps its time.
fn mirror_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut names: BTreeSet<OsString> = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if LEFT_OUT.iter().any(|left| name == *left) {
            continue;
        }
        let (source, copy) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            mirror_tree(&source, &copy)?;
        } else if fs::read(&copy).ok() != Some(fs::read(&source)?) {
            fs::copy(&source, &copy)?;
        }
        names.insert(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if names.contains(&entry.file_name()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows_its_tree_and_leaves_alone_what_is_the_same() {
        let place = std::env::temp_dir().join(format!("lockstep-xtask-{}", std::process::id()));
        let (from, to) = (place.join("from"), place.join("to"));
        for directory in ["kept", "gone", "target"] {
            fs::create_dir_all(from.join(directory)).unwrap();
            fs::write(from.join(directory).join("file"), directory).unwrap();
        }
        mirror_tree(&from, &to).unwrap();
        assert!(!to.join("target").exists());
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let before = time(&to.join("kept/file"));
        fs::remove_dir_all(from.join("gone")).unwrap();
        fs::write(from.join("new"), "1").unwrap();
        mirror_tree(&from, &to).unwrap();
        assert!(!to.join("gone").exists());
        assert_eq!(fs::read(to.join("new")).unwrap(), b"1");
        assert_eq!(time(&to.join("kept/file")), before);
        fs::remove_dir_all(place).unwrap();
    }
}
