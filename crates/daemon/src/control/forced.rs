//! Decisions of operators that may have given acknowledged writes up. `Node` says when one is in
//! force; it is noted in a file of the state directory and shown until both copies are equal again.

use super::{Control, Input, RunError, Written};
use crate::durable;
use crate::shard_thread::boot_time;
use crate::uuid;
use lockstep_api::forced::{Decision, Forced};
use lockstep_api::status::Level;
use lockstep_engine::node_interface::{self, Standing};
use lockstep_mirror::control::VolumeId;
use std::collections::BTreeMap;
use std::path::Path;

/// In the state directory; one note a volume at most.
pub(super) const FORCED_FILE: &str = "forced.json";

/// Seconds of the wall clock, for people.
pub(super) fn since_1970() -> u64 {
    crate::wall_clock::seconds()
}

/// The notes of this node, by the volume's UUID.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<String, Forced>);

impl Notes {
    /// What the run before left. A file that cannot be read as notes is no reason not to serve; it
    /// is told in the log, and replaced by the next note.
    pub(super) fn read(state: &Path) -> Result<Self, RunError> {
        let path = state.join(FORCED_FILE);
        match durable::read_if_there(&path) {
            Ok(None) => Ok(Self::default()),
            Ok(Some(bytes)) => Ok(Self(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "it holds no notes of decisions");
                BTreeMap::new()
            }))),
            Err(source) => Err(RunError::State { path, source }),
        }
    }

    pub(super) fn of(&self, id: VolumeId) -> Option<&Forced> {
        self.0.get(&uuid::format(id.0))
    }
}

impl Control {
    /// A decision is in force here from now on.
    pub(super) fn note_forced(&mut self, id: VolumeId, forced: node_interface::Forced) {
        let me = self.config.node.number;
        let at = since_1970();
        let note = match forced {
            node_interface::Forced::Activated { corrupt } => Forced {
                decision: Decision::ForceActivate,
                by: me,
                kept: me,
                at,
                corrupt,
                lost: None,
            },
            node_interface::Forced::Kept { node, by, lost } => Forced {
                decision: Decision::Resolve,
                by: by.0,
                kept: node.0,
                at,
                corrupt: false,
                lost,
            },
        };
        let name = self.volume_name(id);
        self.events
            .add(Level::Critical, "operator", &name, &note.sentence());
        self.notes.0.insert(uuid::format(id.0), note);
        self.store_notes();
    }

    /// Both copies are equal again, or there is only one any more: nothing is at stake.
    pub(super) fn forget_forced(&mut self) {
        if self.notes.0.is_empty() {
            return;
        }
        let status = self.node.status(boot_time());
        let mut ended = Vec::new();
        for key in self.notes.0.keys() {
            let volume = self
                .pool
                .volumes
                .iter()
                .find(|it| uuid::format(it.uuid.0) == *key);
            let known = volume.and_then(|volume| {
                let mut all = status.volumes.iter();
                all.find(|(id, _)| id.0 == volume.uuid.0)
            });
            let equal = known.is_some_and(|(_, it)| it.standing == Standing::Mirrored);
            let single = volume.is_none_or(|it| it.replicas.len() < 2);
            // Before the pool configuration is in force no volume is known.
            if equal || single && self.generation > 0 {
                ended.push(key.clone());
            }
        }
        if ended.is_empty() {
            return;
        }
        for key in ended {
            self.notes.0.remove(&key);
            let volume = self
                .pool
                .volumes
                .iter()
                .find(|it| uuid::format(it.uuid.0) == key);
            let name = volume.map_or_else(|| key.clone(), |it| it.name.clone());
            let text = "both copies are equal again: the operator's decision is not shown any more";
            let text = match volume {
                Some(it) if it.replicas.len() > 1 => text,
                _ => {
                    "there is no other copy any more: the operator's decision is not shown any more"
                }
            };
            self.events.add(Level::Ok, "node", &name, text);
        }
        self.store_notes();
    }

    fn store_notes(&self) {
        let path = self.state_file(FORCED_FILE);
        let bytes = serde_json::to_vec_pretty(&self.notes.0).expect("plain data become JSON");
        let empty = self.notes.0.is_empty();
        let inputs = self.inputs.clone();
        self.state_lane.run(move || {
            let result = match empty {
                true => durable::remove(&path),
                false => durable::replace(&path, &bytes, 0o600),
            };
            let result = result.map_err(|error| error.to_string());
            // Nobody listens once the daemon is ending.
            let _ = inputs.blocking_send(Input::Written(Written::Forced, result));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_outlive_the_run_and_a_damaged_file_is_no_reason_not_to_start() {
        let state = std::env::temp_dir().join(format!("lockstep-forced-{}", std::process::id()));
        std::fs::create_dir_all(&state).unwrap();
        let id = VolumeId(7);
        assert_eq!(Notes::read(&state).unwrap().of(id), None);
        let note = Forced {
            at: 3,
            lost: Some(9),
            ..Forced::default()
        };
        let notes = BTreeMap::from([(uuid::format(7), note.clone())]);
        std::fs::write(state.join(FORCED_FILE), serde_json::to_vec(&notes).unwrap()).unwrap();
        assert_eq!(Notes::read(&state).unwrap().of(id), Some(&note));
        std::fs::write(state.join(FORCED_FILE), b"torn").unwrap();
        assert_eq!(Notes::read(&state).unwrap().of(id), None);
        std::fs::remove_dir_all(state).unwrap();
    }
}
