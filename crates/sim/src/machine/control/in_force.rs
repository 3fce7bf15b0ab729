//! The pool configuration in force, made real: the volume, the way to the witness, and who is to
//! vote. The counterparts in the daemon are `pool_in_force.rs` and `witness_link.rs`.

use super::{ControlEvent, Machine, REDIAL, WITNESS_SECRET};
use crate::context::Context;
use crate::memory::size;
use crate::world::{TARGET, VOLUME};
use core::fmt::Display;
use core::num::NonZeroU32;
use core::time::Duration;
use lockstep_engine::interface::scsi::Identity;
use lockstep_engine::interface::{ToShard, VolumeSettings};
use lockstep_engine::node_interface::{NodeEvent, VolumeReady};
use lockstep_mirror::control::{Incarnation, NodeId, VolumeSpec, WitnessId};
use lockstep_mirror::metadata_layout::{SUPERBLOCK_LEN, SUPERBLOCK_OFFSETS};

/// Stands for the witness where links to the partner have the index of their path.
pub(super) const WITNESS_PATH: usize = usize::MAX;

/// What the daemon's pool configuration says, as far as a pretend pair has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The volume exists.
    pub volume: bool,
    /// There is a witness, at the one address that pretend witnesses have.
    pub witness: bool,
    /// The volume's strategy is "majority".
    pub majority: bool,
    /// The life of the witness's votes, once it is admitted.
    pub life: Option<WitnessId>,
}

impl Display for Document {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let flag = |name, it: bool| if it { name } else { "" };
        let (volume, witness) = (flag("volume", self.volume), flag("witness", self.witness));
        let life = self.life.map_or(0, |it| it.0.get());
        write!(
            f,
            "{volume} {witness} {} {life}",
            flag("majority", self.majority)
        )
    }
}

impl Document {
    /// What a node has in force; no bytes are the configuration of a new pair.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let has = |word| text.split(' ').any(|it| it == word);
        let life = text.split(' ').next_back().and_then(|it| it.parse().ok());
        Self {
            volume: has("volume"),
            witness: has("witness"),
            majority: has("majority"),
            life: life.and_then(NonZeroU32::new).map(WitnessId),
        }
    }

    /// As it is proposed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Who is to vote for the volume besides the two nodes.
    #[must_use]
    pub fn voter(&self) -> Option<WitnessId> {
        self.life.filter(|_| self.witness && self.majority)
    }
}

impl Machine {
    /// A pool configuration is in force: the volume is in it or not.
    pub(super) fn committed(&mut self, ctx: &mut Context, generation: u64, bytes: &[u8]) {
        let document = Document::parse(bytes);
        ctx.trace(self.host, || {
            format!("generation {generation} is in force: {document:?}")
        });
        let settings = self.iscsi_settings(document.volume);
        self.order(ctx, ToShard::Settings(Box::new(settings)));
        let now = self.clock.read(ctx.now);
        let mut actions = Vec::new();
        let portals = NodeEvent::Portals {
            own: 1,
            partner: u16::from(document.volume),
        };
        self.control().node.handle(now, portals, &mut actions);
        for action in actions {
            self.carry_out(ctx, action);
        }
        let before = core::mem::replace(&mut self.control().document, document);
        if before.life.is_some() && before.life != document.life && self.host == 0 {
            ctx.count("witness: admitted anew");
        }
        if document.volume && !core::mem::replace(&mut self.control().opening, true) {
            // The predecessor's last writes may still hold the lock.
            let delay = self.prng.millis(1, 200);
            self.control_soon(ctx, delay, ControlEvent::Opened);
        }
        if document.witness {
            // The two nodes make it real at moments of their own.
            let late = if self.prng.chance(200) { 4000 } else { 20 };
            let delay = self.prng.millis(0, late);
            self.control().following += 1;
            self.control_soon(ctx, delay, ControlEvent::FollowWitness);
        }
    }

    /// The pool configuration in force names a witness and a strategy.
    pub(super) fn follow_witness(&mut self, ctx: &mut Context) {
        self.control().following -= 1;
        self.tell(ctx, NodeEvent::WitnessSecret(Some(WITNESS_SECRET.into())));
        let Some(process) = &mut self.process else {
            return;
        };
        if !core::mem::replace(&mut process.control.dials_witness, true) {
            self.control_soon(ctx, Duration::ZERO, ControlEvent::Dial(WITNESS_PATH));
            if self.host == 0 {
                self.control_soon(ctx, REDIAL, ControlEvent::Admit);
            }
        }
        let witness = self.control().document.voter();
        let volume = VOLUME;
        self.tell(ctx, NodeEvent::Witness { volume, witness });
    }

    /// A witness whose votes are of another life than the pool configuration says is new, or has
    /// lost them: node 1 proposes to admit it, while both nodes are there.
    pub(super) fn admit_witness(&mut self, ctx: &mut Context) {
        let now = self.clock.read(ctx.now);
        let control = self.control();
        let status = control.node.status(now);
        let known = control.document;
        let both = status.partner_alive && !status.stopping && !control.proposing;
        if let Some(life) = status
            .witness
            .id
            .filter(|it| both && known.life != Some(*it))
        {
            let next = Document {
                life: Some(life),
                ..known
            };
            self.propose(ctx, next);
        }
        if self.process.is_some() {
            self.control_soon(ctx, REDIAL, ControlEvent::Admit);
        }
    }

    /// An operator, or the daemon itself, proposes a change of the pool configuration.
    pub fn propose(&mut self, ctx: &mut Context, document: Document) {
        if self.is_running() {
            ctx.trace(self.host, || format!("proposes {document:?}"));
            self.control().proposing = true;
            let document = document.bytes();
            self.tell(ctx, NodeEvent::ProposeConfig { document });
        }
    }

    /// The document in force here, if the daemon runs.
    #[must_use]
    pub fn document(&self) -> Option<Document> {
        self.process.as_ref().map(|it| it.control.document)
    }

    /// Whether nothing about the pool configuration is still to be decided or made real here.
    #[must_use]
    pub fn is_settled(&self, ctx: &Context) -> bool {
        self.process.as_ref().is_some_and(|it| {
            let status = it.control.node.status(self.clock.read(ctx.now));
            let decided = status.pool.prepared.is_none() && status.pool.conflict.is_none();
            decided && it.control.following == 0 && !it.control.proposing
        })
    }

    /// The life of the witness's votes, if this node is connected to it.
    #[must_use]
    pub fn witness_met(&self, ctx: &Context) -> Option<WitnessId> {
        let process = self.process.as_ref()?;
        let status = process.control.node.status(self.clock.read(ctx.now));
        status.witness.id
    }

    pub(super) fn opened(&mut self, ctx: &mut Context) {
        let me = self.node_id();
        let (bytes, block_size, cache) = (self.stores.size, self.stores.block, self.stores.cache);
        let witness = self.control().document.voter();
        let files = self.volumes.entry(VOLUME.0).or_default();
        let superblocks = SUPERBLOCK_OFFSETS.map(|offset| {
            let mut bytes = vec![0; size(SUPERBLOCK_LEN)];
            files.meta.read(offset, &mut bytes);
            bytes
        });
        let spec = VolumeSpec {
            id: VOLUME,
            size: bytes,
            block_size,
            cache,
            me,
            partner: Some(NodeId(3 - me.0)),
            incarnation: Incarnation(self.control().incarnation),
        };
        let settings = VolumeSettings {
            spec,
            identity: Identity {
                uuid: VOLUME.0,
                target_name: TARGET.to_owned(),
            },
            target: 0,
            lun: 0,
            unmap: false,
            physical_exponent: if block_size == 512 { 3 } else { 0 },
        };
        let ready = VolumeReady {
            settings,
            witness,
            create: !self.stores.used,
            superblocks,
        };
        self.tell(ctx, NodeEvent::VolumeReady(Box::new(ready)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_what_was_written() {
        assert_eq!(Document::parse(b""), Document::default());
        for number in 0..16 {
            let has = |bit: u32| number & bit != 0;
            let document = Document {
                volume: has(1),
                witness: has(2),
                majority: has(4),
                life: NonZeroU32::new(number & 8).map(WitnessId),
            };
            assert_eq!(Document::parse(&document.bytes()), document);
        }
    }
}
