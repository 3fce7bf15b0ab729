//! Verifications: on demand, and by the schedule of `lockstep.toml`. When each volume was last
//! verified is kept in the state directory, so that a restart begins nothing anew.

use super::Control;
use super::answers::refusal;
use crate::admin::{Answer, Class, Refusal, json};
use crate::durable;
use crate::pool::PoolError;
use crate::shard_thread::boot_time;
use crate::wall_clock;
use lockstep_api::status::Level;
use lockstep_api::verify::Repair as Word;
use lockstep_engine::interface::ToShard;
use lockstep_engine::node_interface::Standing;
use lockstep_mirror::control::{NodeId, Repair, ToVolume, Verified, VolumeId};

/// In the state directory: when each volume was last verified, by its UUID.
const FILE: &str = "verified.json";

impl Control {
    /// Begins what is due, where this node orders the writes.
    pub(super) fn verify_by_schedule(&mut self) {
        let (now, wall) = (boot_time(), wall_clock::seconds());
        if !self.schedule.is_time(now) {
            return;
        }
        let Some(every) = self.config.verify.every.0 else {
            return;
        };
        self.read_schedule();
        let word = self.config.verify.repair;
        let volumes: Vec<_> = self.pool.volumes.iter().map(|it| it.uuid.0).collect();
        for uuid in volumes {
            let (key, id) = (crate::uuid::format(uuid), VolumeId(uuid));
            if self.schedule.is_due(&key, every, now, wall) && self.owns(id).is_ok() {
                self.schedule.begun(&key, now);
                self.begin_verification(id, word, "schedule");
            }
        }
        if self.schedule.is_to_be_kept(now) {
            self.keep_schedule();
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
            self.schedule.done(&key, boot_time(), wall_clock::seconds());
            self.keep_schedule();
        }
    }

    fn read_schedule(&mut self) {
        if self.schedule.is_loaded() {
            return;
        }
        let kept = durable::read_if_there(&self.state_file(FILE));
        let text = kept.ok().flatten().unwrap_or_default();
        self.schedule
            .load(&text, boot_time(), wall_clock::seconds());
    }

    fn keep_schedule(&self) {
        let path = self.state_file(FILE);
        let bytes = self.schedule.text(boot_time());
        self.state_lane.run(move || {
            if let Err(error) = durable::replace(&path, &bytes, 0o600) {
                tracing::warn!(path = %path.display(), %error, "cannot keep when volumes were verified");
            }
        });
    }
}
