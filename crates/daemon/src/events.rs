//! The durable, numbered list of what happened: JSON lines in the state directory, bounded by
//! rotation. The newest are also in memory for the API.

use lockstep_api::status::{Event, Level};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file of this size becomes the older one of two.
const ROTATE_BYTES: u64 = 4 << 20;

/// Events in memory; older ones are only in the files.
const KEPT: usize = 4096;

/// Events in one answer of the API.
const ANSWER_MAX: usize = 1000;

/// Longest text of an event: names from outside are bounded before, this bounds their sum.
const TEXT_MAX: usize = 1000;

/// The list.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
    length: u64,
    next: u64,
    kept: VecDeque<Event>,
}

impl Events {
    /// Opens the list in a state directory and reads the newest events. A line that a crash left
    /// unfinished is skipped.
    pub fn open(state: &Path) -> io::Result<Self> {
        let path = state.join("events.jsonl");
        let mut kept = VecDeque::new();
        let mut next = 1;
        for source in [older(&path), path.clone()] {
            let Some(file) = existing(&source)? else {
                continue;
            };
            for line in BufReader::new(file).split(b'\n') {
                let Ok(event) = serde_json::from_slice::<Event>(&line?) else {
                    continue;
                };
                next = next.max(event.number.saturating_add(1));
                keep(&mut kept, event);
            }
        }
        let mut file = open_to_append(&path)?;
        let mut length = file.metadata()?.len();
        if length > 0 {
            // Ends a line that a crash left unfinished; an empty line is skipped when read.
            file.write_all(b"\n")?;
            length += 1;
        }
        Ok(Self {
            path,
            file,
            length,
            next,
            kept,
        })
    }

    /// Adds an event and logs it. It is on disk when the kernel has written it back, at latest
    /// after `sync`: what happened must not wait for its being noted.
    pub fn add(&mut self, level: Level, actor: &str, subject: &str, text: &str) {
        let event = Event {
            number: self.next,
            time: crate::wall_clock::seconds(),
            level,
            actor: actor.into(),
            subject: subject.into(),
            text: text.chars().take(TEXT_MAX).collect(),
        };
        self.next += 1;
        match level {
            Level::Ok => tracing::info!(actor, subject, "{}", event.text),
            Level::Degraded => tracing::warn!(actor, subject, "{}", event.text),
            Level::Critical => tracing::error!(actor, subject, "{}", event.text),
        }
        if let Err(error) = self.write(&event) {
            tracing::warn!(path = %self.path.display(), %error, "an event was not written");
        }
        keep(&mut self.kept, event);
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event).map_err(io::Error::other)?;
        line.push(b'\n');
        let added = u64::try_from(line.len()).map_err(io::Error::other)?;
        if self.length + added > ROTATE_BYTES {
            self.file.sync_data()?;
            std::fs::rename(&self.path, older(&self.path))?;
            self.file = open_to_append(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(&line)?;
        self.length += added;
        Ok(())
    }

    /// Makes everything added before durable.
    pub fn sync(&self) {
        if let Err(error) = self.file.sync_data() {
            tracing::warn!(path = %self.path.display(), %error, "events were not flushed");
        }
    }

    /// The events that follow number `after`, oldest first: at most 1000 of those in memory. With
    /// `after` 0 the newest ones.
    #[must_use]
    pub fn after(&self, after: u64) -> Vec<Event> {
        let start = self.kept.partition_point(|event| event.number <= after);
        let start = if after == 0 {
            self.kept.len().saturating_sub(ANSWER_MAX)
        } else {
            start
        };
        self.kept
            .iter()
            .skip(start)
            .take(ANSWER_MAX)
            .cloned()
            .collect()
    }
}

fn keep(kept: &mut VecDeque<Event>, event: Event) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(event);
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("1.jsonl")
}

fn existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("lockstep-events-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_a_torn_line() {
        let state = directory("restart");
        let mut events = Events::open(&state).unwrap();
        events.add(Level::Ok, "node", "node 1", "started");
        events.add(Level::Degraded, "partner", "node 2", "silent for 2 s");
        drop(events);
        let mut file = OpenOptions::new()
            .append(true)
            .open(state.join("events.jsonl"))
            .unwrap();
        file.write_all(b"{\"number\":3,\"ti").unwrap();
        let mut events = Events::open(&state).unwrap();
        events.add(Level::Ok, "node", "node 1", "started");
        drop(events);
        let events = Events::open(&state).unwrap();
        let numbers: Vec<u64> = events.after(0).iter().map(|event| event.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(events.after(2).len(), 1);
        assert_eq!(events.after(3), []);
        std::fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn the_files_stay_bounded() {
        let state = directory("bounded");
        let mut events = Events::open(&state).unwrap();
        for _ in 0..12_000 {
            events.add(Level::Ok, "node", "node 1", &"x".repeat(2000));
        }
        let size = |name| std::fs::metadata(state.join(name)).unwrap().len();
        assert!(size("events.jsonl") <= ROTATE_BYTES && size("events.1.jsonl") <= ROTATE_BYTES);
        assert_eq!(events.after(0).len(), ANSWER_MAX);
        assert_eq!(events.after(0).last().unwrap().number, 12_000);
        std::fs::remove_dir_all(state).unwrap();
    }
}
