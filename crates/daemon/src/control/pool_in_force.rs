//! The pool configuration that is in force, made real on this node: targets and accounts for the
//! shard, copies made, opened and let go, the readable file.

use super::local::{Copy, Gauge, LocalError, LocalState, Ready};
use super::{Change, Control, Input, Lane, Local};
use crate::config::Address;
use crate::pool::{Pool, PoolNode, PoolVolume, settings};
use crate::shard_thread::{ToThread, boot_time};
use lockstep_api::status::Level;
use lockstep_engine::interface::ToShard;
use lockstep_engine::node_interface::{NodeEvent, VolumeReady, VolumeStatus};
use lockstep_mirror::control::{Pacing, ToVolume, VolumeId};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A copy that could not be used is tried again after this.
const RETRY: Duration = Duration::from_secs(30);

/// How often this node looks whether it has to enter itself; both nodes at once would refuse each
/// other, so they differ.
const ENTRY_EVERY: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(400)];

/// New volumes wait for the entries of both nodes for so long after the partner came: initiators
/// that discover too early would know one path only.
const ENTRIES_LATE: Duration = Duration::from_secs(5);

impl Control {
    /// Tells the shard what is known before anything is decided.
    pub(super) fn in_force_at_start(&mut self) {
        let settings = settings::iscsi(&self.pool, &self.config, &mut self.numbers);
        self.order(ToShard::Settings(Box::new(settings)));
    }

    /// `Node` says that this document is in force.
    pub(super) fn committed(&mut self, generation: u64, document: &[u8]) {
        let text = String::from_utf8_lossy(document).into_owned();
        let pool = if text.is_empty() {
            Ok(Pool::empty(self.config.cluster.uuid))
        } else {
            Pool::parse(&text)
        };
        let pool = match pool {
            Ok(pool) => pool,
            Err(error) => {
                // The partner runs another version. What was in force goes on.
                let text = format!("generation {generation} cannot be used here: {error}");
                self.events.add(Level::Critical, "node", "pool", &text);
                return;
            }
        };
        match self.file.show(&text, &self.text) {
            Ok(false) => {}
            Ok(true) => self.events.add(
                Level::Degraded,
                "node",
                "pool",
                "a change came into force over an edit of pool.toml, which is kept as \
                pool.toml.edited",
            ),
            Err(error) => {
                tracing::warn!(path = %self.file.path().display(), %error, "the pool file was not written")
            }
        }
        (self.pool, self.text, self.generation) = (pool, text, generation);
        self.pool_is_new = true;
    }

    /// Makes what came into force real here.
    pub(super) fn make_real(&mut self) {
        self.numbers.keep(&self.pool);
        self.in_force_at_start();
        let count = |number: u8| {
            let node = self.pool.nodes.iter().find(|node| node.number == number);
            u16::try_from(node.map_or(0, |node| node.portals.len())).unwrap_or(0)
        };
        let me = self.config.node.number;
        let own = u16::try_from(self.config.portals.data.len()).expect("at most 32");
        let partner = count(3 - me);
        self.tell(NodeEvent::Portals { own, partner });
        self.let_go();
        self.follow_witness();
        self.reopen_changed();
        self.pace_all();
        let missing: Vec<PoolVolume> = self
            .pool
            .volumes
            .iter()
            .filter(|volume| !self.locals.contains_key(&VolumeId(volume.uuid.0)))
            .cloned()
            .collect();
        for volume in missing {
            if let Some(copy) = Copy::new(&volume, &self.config) {
                self.prepare(VolumeId(volume.uuid.0), copy);
            }
        }
    }

    /// Tells every volume that is open how its resyncs share it with initiators.
    fn pace_all(&mut self) {
        let ids: Vec<VolumeId> = self.locals.keys().copied().collect();
        for id in ids {
            self.pace(id);
        }
    }

    /// The same for one volume, as soon as the shard has it.
    pub(super) fn pace(&mut self, id: VolumeId) {
        let Some(volume) = self.pool.volumes.iter().find(|it| it.uuid.0 == id.0) else {
            return;
        };
        let open = self.locals.get(&id);
        if !open.is_some_and(|local| matches!(local.state, LocalState::Open)) {
            return;
        }
        let priority = volume.priority.unwrap_or(self.config.resync.priority);
        let pacing = Pacing {
            factor_percent: priority.percent(),
            floor: self.config.resync.floor.0,
        };
        self.order(ToShard::Volume(id, ToVolume::Pace(pacing)));
    }

    /// Lets go of the copies of volumes that were deleted.
    fn let_go(&mut self) {
        let gone: Vec<VolumeId> = self
            .locals
            .iter()
            .filter(|(id, local)| {
                !matches!(local.state, LocalState::Leaving)
                    && !self.pool.volumes.iter().any(|volume| {
                        volume.uuid.0 == id.0 && volume.replica(self.config.node.number).is_some()
                    })
            })
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.tell(NodeEvent::VolumeGone { volume: id });
            let Some(local) = self.locals.get_mut(&id) else {
                continue;
            };
            let open = matches!(local.state, LocalState::Open);
            local.copy.forget();
            self.places.forget(id);
            (local.state, local.metadata, local.lane) = (LocalState::Leaving, None, None);
            match open {
                true => self.send_to_thread(ToThread::DetachDisk(id)),
                // Still being made or opened: dropped when that ends.
                false => drop(self.locals.remove(&id)),
            }
        }
    }

    /// The shard has let go of a disk.
    pub(super) fn detached(&mut self, id: VolumeId) {
        if self
            .locals
            .get(&id)
            .is_some_and(|local| matches!(local.state, LocalState::Leaving))
        {
            self.locals.remove(&id);
        }
        self.reopen_detached(id);
    }

    /// Makes and opens a copy beside the control thread.
    pub(super) fn prepare(&mut self, id: VolumeId, copy: Copy) {
        self.prepare_as(id, copy, false);
    }

    /// `blank`: what was there before is as good as lost.
    pub(super) fn prepare_as(&mut self, id: VolumeId, copy: Copy, blank: bool) {
        let gauge = Gauge::default();
        let state = LocalState::Making {
            gauge: gauge.clone(),
            since: Instant::now(),
        };
        let said = self.locals.remove(&id).and_then(|local| local.said);
        let local = Local {
            state,
            copy: copy.clone(),
            mirrored: self.is_mirrored(id),
            said,
            lane: None,
            metadata: None,
        };
        self.locals.insert(id, local);
        let (inputs, then) = (self.inputs.clone(), self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            // Nobody listens once the daemon is ending.
            let opening = || drop(inputs.blocking_send(Input::Opening(id)));
            let discarded = if blank { copy.discard() } else { Ok(()) };
            let result = discarded.and_then(|()| copy.prepare(&gauge, opening));
            let _ = then.blocking_send(Input::Prepared(id, Box::new(result)));
        });
    }

    /// A copy is open, or cannot be used.
    pub(super) fn prepared(&mut self, id: VolumeId, result: Result<Ready, LocalError>) {
        let volume = self
            .pool
            .volumes
            .iter()
            .find(|volume| volume.uuid.0 == id.0)
            .cloned();
        let (Some(volume), true) = (volume, self.locals.contains_key(&id)) else {
            // Deleted while it was being made; the files stay, as they do for every deleted volume.
            return;
        };
        match result
            .map_err(|error| error.to_string())
            .and_then(|ready| self.open(&volume, ready))
        {
            Ok(()) => {}
            Err(why) => self.unusable(id, &why),
        }
    }

    /// Hands an open copy to `Node` and the shard.
    fn open(&mut self, volume: &PoolVolume, ready: Ready) -> Result<(), String> {
        let id = VolumeId(volume.uuid.0);
        let me = self.config.node.number;
        let witness = self.witness_of(volume);
        let lane = Lane::start("lockstep-super").map_err(|error| error.to_string())?;
        let settings = volume.settings(me, self.incarnation, &mut self.numbers);
        let local = self.locals.get_mut(&id).expect("looked at by the caller");
        local.metadata = Some(Arc::new(ready.metadata));
        local.lane = Some(lane);
        local.state = LocalState::Open;
        let event = VolumeReady {
            settings,
            create: ready.new,
            witness,
            superblocks: ready.superblocks,
        };
        // The shard must have the disk before `Node` attaches the volume.
        self.send_to_thread(ToThread::AttachDisk {
            volume: id,
            disk: ready.disk,
        });
        self.tell(NodeEvent::VolumeReady(Box::new(event)));
        let taken = self.node.status(boot_time()).volumes;
        let uses = |(other, it): &(VolumeId, VolumeStatus)| *other == id && !it.without_copy;
        if !taken.iter().any(uses)
            && let Some(local) = self.locals.get_mut(&id)
        {
            // `Node` said why in an event, which `note_refusal` kept.
            (local.metadata, local.lane) = (None, None);
            self.send_to_thread(ToThread::DetachDisk(id));
        }
        Ok(())
    }

    /// A volume that `Node` refuses: its words are the reason that the status shows.
    pub(super) fn note_refusal(&mut self, id: VolumeId, why: &str) {
        let known = self.node.status(boot_time()).volumes;
        if known
            .iter()
            .any(|(other, it)| *other == id && !it.without_copy)
        {
            return;
        }
        if let Some(local) = self.locals.get_mut(&id)
            && matches!(local.state, LocalState::Open)
        {
            let again = Instant::now() + RETRY;
            local.state = LocalState::Failed {
                why: why.to_owned(),
                again,
            };
        }
    }

    fn unusable(&mut self, id: VolumeId, why: &str) {
        let Some(local) = self.locals.get_mut(&id) else {
            return;
        };
        let said = local.said.replace(why.to_owned());
        local.state = LocalState::Failed {
            why: why.to_owned(),
            again: Instant::now() + RETRY,
        };
        // Said once; it is tried again for as long as it takes.
        if said.as_deref() != Some(why) {
            let volumes = &self.pool.volumes;
            let volume = volumes.iter().find(|volume| volume.uuid.0 == id.0);
            let me = self.config.node.number;
            let settings = volume
                .filter(|volume| volume.replica(me).is_some())
                .map(|volume| volume.settings(me, self.incarnation, &mut self.numbers));
            self.tell(NodeEvent::VolumeUnavailable {
                volume: id,
                reason: why.to_owned(),
                settings: settings.map(Box::new),
            });
        }
    }

    /// Tries copies again that could not be used.
    pub(super) fn retry_copies(&mut self, now: Instant) {
        let due: Vec<(VolumeId, Copy)> = self
            .locals
            .iter()
            .filter(|(_, local)| matches!(&local.state, LocalState::Failed { again, .. } if now >= *again))
            .map(|(id, local)| (*id, local.copy.clone()))
            .collect();
        for (id, copy) in due {
            self.prepare(id, copy);
        }
    }

    /// Enters this node's name and portals into the pool configuration, so that the partner's
    /// initiators are told of them. Only with the partner: two nodes that enter themselves alone
    /// would hold two configurations.
    pub(super) fn enter_myself(&mut self, now: Instant) {
        let me = self.config.node.number;
        self.entry_due = now + ENTRY_EVERY[usize::from(me - 1)];
        let entry = PoolNode {
            number: me,
            name: self.config.node_name(),
            portals: self
                .config
                .portals
                .data
                .iter()
                .map(|address| Address(address.0))
                .collect(),
        };
        let status = self.node.status(boot_time());
        let alone = status.partner.is_some() && !status.partner_alive;
        self.partner_since = (!alone).then(|| self.partner_since.unwrap_or(now));
        if self.change.is_some() || self.stopping || alone {
            return;
        }
        let Some(next) = self.pool.with_node(&entry) else {
            self.next_change();
            return;
        };
        let what = format!("node {me} entered itself");
        self.change = Some(Change {
            what,
            request: None,
            reply: None,
            outcome: None,
        });
        self.tell(NodeEvent::ProposeConfig {
            document: next.text().into_bytes(),
        });
    }

    /// Whether the partner is there and one of the nodes has not entered itself yet, but will.
    pub(super) fn entries_are_coming(&self) -> bool {
        let status = self.node.status(boot_time());
        let late = self
            .partner_since
            .is_some_and(|since| since.elapsed() > ENTRIES_LATE);
        status.partner_alive && self.pool.nodes.len() < 2 && !late
    }
}
