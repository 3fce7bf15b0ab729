//! Verifications: on demand, and by the schedule of `lockstep.toml`. When each volume was last
//! verified is kept in the state directory, so that a restart begins nothing anew.

use super::Control;
use super::answers::refusal;
use crate::admin::{Answer, Class, Refusal, json};
use crate::durable;
use crate::pool::PoolError;
use crate::shard_thread::boot_time;
use lockstep_api::status::Level;
use lockstep_api::verify::Repair as Word;
use lockstep_engine::interface::ToShard;
use lockstep_engine::node_interface::Standing;
use lockstep_mirror::control::{NodeId, Repair, ToVolume, Verified, VolumeId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often it is looked whether a verification is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// One that was interrupted is begun again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// In the state directory: seconds since 1970 of the last one, by the volume's UUID.
const FILE: &str = "verified.json";

/// When volumes were last verified.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    last: BTreeMap<String, u64>,
    read: bool,
    due: Option<Instant>,
    not_before: BTreeMap<VolumeId, Instant>,
}

impl Control {
    /// Begins what is due, where this node orders the writes.
    pub(super) fn verify_by_schedule(&mut self, now: Instant) {
        if self.schedule.due.is_some_and(|due| now < due) {
            return;
        }
        self.schedule.due = Some(now + LOOK_EVERY);
        let Some(every) = self.config.verify.every.0 else {
            return;
        };
        self.read_schedule();
        let seconds = wall();
        let word = self.config.verify.repair;
        let volumes: Vec<_> = self.pool.volumes.iter().map(|it| it.uuid.0).collect();
        for uuid in volumes {
            let key = crate::uuid::format(uuid);
            let id = VolumeId(uuid);
            let Some(&last) = self.schedule.last.get(&key) else {
                // Seen for the first time: its time begins now.
                self.schedule.last.insert(key, seconds);
                self.keep_schedule();
                continue;
            };
            let early = self
                .schedule
                .not_before
                .get(&id)
                .is_some_and(|at| now < *at);
            if !early && seconds >= last.saturating_add(every.as_secs()) && self.owns(id).is_ok() {
                self.schedule.not_before.insert(id, now + AGAIN_AFTER);
                self.begin_verification(id, word, "schedule");
            }
        }
    }

    fn begin_verification(&mut self, id: VolumeId, word: Word, actor: &str) {
        let name = self.volume_name(id);
        let text = format!("verification begun; differences: {}", word.word());
        self.events.add(Level::Ok, actor, &name, &text);
        let repair = match word {
            Word::Report => Repair::Report,
            Word::Owner => Repair::Owner,
            Word::Node1 => Repair::Node(NodeId(1)),
            Word::Node2 => Repair::Node(NodeId(2)),
        };
        self.order(ToShard::Volume(id, ToVolume::Verify { repair }));
    }

    /// Whether this node orders the writes of a volume that both hold; else why not, and what to do.
    fn owns(&self, id: VolumeId) -> Result<(), (String, String)> {
        let status = self.node.status(boot_time());
        let volume = status.volumes.iter().find(|(other, _)| *other == id);
        match volume {
            Some((_, it)) if it.standing == Standing::Mirrored => {
                let owner = it.configuration.owner.0;
                if owner == self.config.node.number {
                    return Ok(());
                }
                Err((
                    format!("node {owner} orders its writes, and only that node can compare"),
                    format!("give the command on node {owner}"),
                ))
            }
            _ => Err((
                "both copies are compared only while both nodes hold every write".into(),
                "wait until lockstep volume show says that it is serving".into(),
            )),
        }
    }

    /// On demand.
    pub(super) fn verify(&mut self, name: &str, begin: Option<Word>) -> Answer {
        let what = format!("volume {name}");
        let Some(volume) = self.pool.volume(name) else {
            let error = PoolError::Unknown {
                kind: "volume",
                name: name.into(),
            };
            return Err(refusal(&what, error));
        };
        let id = VolumeId(volume.uuid.0);
        let Some(word) = begin else {
            self.events
                .add(Level::Ok, "operator", name, "verification ended early");
            self.order(ToShard::Volume(id, ToVolume::EndVerify));
            return json(&self.change_note());
        };
        if let Err((why, todo)) = self.owns(id) {
            return Err(Refusal::new(Class::Conflict, what, why, todo));
        }
        self.begin_verification(id, word, "operator");
        json(&self.change_note())
    }

    /// One has ended.
    pub(super) fn verified(&mut self, id: VolumeId, found: &Verified) {
        if found.complete {
            self.read_schedule();
            let key = crate::uuid::format(id.0);
            self.schedule.last.insert(key, wall());
            self.schedule.not_before.remove(&id);
            self.keep_schedule();
        }
    }

    fn read_schedule(&mut self) {
        if std::mem::replace(&mut self.schedule.read, true) {
            return;
        }
        let kept = durable::read_if_there(&self.state_file(FILE));
        // Without it every volume's time begins now.
        let text = kept.ok().flatten().unwrap_or_default();
        self.schedule.last = serde_json::from_slice(&text).unwrap_or_default();
    }

    fn keep_schedule(&self) {
        let path = self.state_file(FILE);
        let bytes = serde_json::to_vec(&self.schedule.last).expect("a map of numbers");
        self.state_lane.run(move || {
            if let Err(error) = durable::replace(&path, &bytes, 0o600) {
                tracing::warn!(path = %path.display(), %error, "cannot keep when volumes were verified");
            }
        });
    }
}

fn wall() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
