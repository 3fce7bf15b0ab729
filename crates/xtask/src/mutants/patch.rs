//! A patch that plants a bug, and what its first lines say:
//! ```text
//! # What a node does wrong.
//! # finds: sim | content | unit PACKAGE FILTER
//! # written: blind
//! ```

use super::check::Check;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// One patch.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) check: Check,
    /// Its author had not seen the checks.
    pub(super) blind: bool,
    /// The first file that it changes.
    file: String,
}

impl Patch {
    fn read(path: PathBuf) -> Result<Self> {
        let name = name(&path);
        let text = fs::read_to_string(&path).with_context(|| name.clone())?;
        Self::of(path, name.clone(), &text).context(name)
    }

    fn of(path: PathBuf, name: String, text: &str) -> Result<Self> {
        let value = |key: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(key));
            found.map(str::trim)
        };
        if !text.starts_with("# ") || text.starts_with("# finds:") {
            bail!("its first line does not say what it breaks");
        }
        let Some(check) = value("# finds:") else {
            bail!("a line `# finds:` is missing, which names the check that must fail");
        };
        let file = value("+++ b/").context("it changes no file")?;
        Ok(Self {
            path,
            name,
            check: Check::of(check)?,
            blind: value("# written:") == Some("blind"),
            file: file.into(),
        })
    }

    /// Those of one check and one crate stand together, and the crates that less depends on first.
    pub(super) fn order(&self) -> (&Check, &str, &str) {
        (&self.check, &self.file, &self.name)
    }
}

/// Every patch of a directory, or those whose name contains `filter`.
pub(super) fn all(directory: &Path, filter: Option<&str>) -> Result<Vec<Patch>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "patch")
            && filter.is_none_or(|filter| name(path).contains(filter))
    });
    if paths.is_empty() {
        bail!("no patch in {} has that name", directory.display());
    }
    paths.into_iter().map(Patch::read).collect()
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

    fn read(text: &str) -> Result<Patch> {
        Patch::of("a.patch".into(), "a".into(), text)
    }

    #[test]
    fn a_patch_says_what_it_breaks_and_what_finds_it() {
        let patch = read("# why\n# finds: sim\n# written: blind\n--- a/x\n+++ b/x\n").unwrap();
        assert_eq!(patch.check, Check::Simulator);
        assert!(patch.blind);
        let patch = read("# why\n# finds: content\n--- a/x\n+++ b/y\n").unwrap();
        assert!(!patch.blind);
        assert_eq!(patch.order(), (&Check::Content, "y", "a"));
        for wrong in [
            "# why\n--- a/x\n+++ b/x\n",
            "# finds: sim\n--- a/x\n+++ b/x\n",
            "# why\n# finds: luck\n--- a/x\n+++ b/x\n",
            "# why\n# finds: sim\n",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
