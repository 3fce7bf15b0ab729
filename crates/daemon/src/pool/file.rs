//! The pool configuration as a readable file, `pool.d/pool.toml` in the state directory, mode 600.
//! It shows what is in force; an edit is noticed because the text differs, and is in force only
//! after `lockstep config apply`.

use super::mask;
use crate::durable;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Where the file is.
#[derive(Clone, Debug)]
pub struct PoolFile {
    path: PathBuf,
}

/// What is in the file, compared with what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edited {
    /// It shows what is in force (or is not there).
    No,
    /// Somebody changed it: its text.
    Yes(String),
}

/// A pool configuration of the largest size allowed is far below it.
const FILE_MAX: u64 = 8 << 20;

impl PoolFile {
    /// In this state directory; makes `pool.d`.
    pub fn new(state: &Path) -> io::Result<Self> {
        let directory = state.join("pool.d");
        durable::private_directory(&directory)?;
        Ok(Self {
            path: directory.join("pool.toml"),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compares the file with the text that is in force.
    pub fn edited(&self, in_force: &str) -> io::Result<Edited> {
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Edited::No),
            Err(error) => return Err(error),
            Ok(meta) if meta.len() > FILE_MAX => {
                return Err(io::Error::other("larger than a pool configuration can be"));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&self.path)?;
        Ok(if text == in_force {
            Edited::No
        } else {
            Edited::Yes(text)
        })
    }

    /// Writes the text that came in force. `before`: what was in force until then; an edit of that
    /// is set aside in `pool.toml.edited` rather than lost, and `true` is returned.
    pub fn show(&self, text: &str, before: &str) -> io::Result<bool> {
        let mut aside = false;
        if let Edited::Yes(edit) = self.edited(before)?
            && edit != text
        {
            durable::replace(
                &self.path.with_extension("toml.edited"),
                edit.as_bytes(),
                0o600,
            )?;
            aside = true;
        }
        durable::replace(&self.path, text.as_bytes(), 0o600)?;
        Ok(aside)
    }
}

/// Differences between two documents line by line, secrets masked: `-` only in the first, `+`
/// only in the second. A changed secret shows as a line of its own.
#[must_use]
pub fn differences(in_force: &str, edited: &str) -> Vec<String> {
    let count = |text: &str| {
        let mut lines: BTreeMap<String, i64> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
        lines
    };
    let (old, new) = (count(in_force), count(edited));
    let only = |text: &str, there: &BTreeMap<String, i64>, here: &BTreeMap<String, i64>, sign| {
        let mut left: BTreeMap<&str, i64> = BTreeMap::new();
        text.lines()
            .filter(|line| {
                let more =
                    here.get(*line).copied().unwrap_or(0) - there.get(*line).copied().unwrap_or(0);
                let used = left.entry(line).or_default();
                *used += 1;
                *used <= more
            })
            .map(|line| format!("{sign} {}", mask(line)))
            .collect::<Vec<String>>()
    };
    let mut lines = only(in_force, &new, &old, '-');
    lines.extend(only(edited, &old, &new, '+'));
    if lines.is_empty() && in_force != edited {
        lines.push("only the order of lines or empty lines differ".into());
    }
    lines
}
