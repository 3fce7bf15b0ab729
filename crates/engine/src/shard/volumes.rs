//! Volumes come and go. The place of one that went is given to another as soon as nothing names it
//! any more: no command, and no I/O that the driver has.

use super::partner::Stage as PartnerStage;
use super::starving::Starved;
use super::tasks::Stage;
use super::{Kind, Shard, VolumeSlot};
use crate::counters::VolumeCounters;
use crate::interface::VolumeSettings;
use alloc::vec::Vec;
use lockstep_iscsi::interface::{DataIn, TaskId};
use lockstep_mirror::control::{Time, VolumeId};
use lockstep_mirror::volume::Volume;
use lockstep_scsi::disk::Disk;
use lockstep_scsi::interface::{Geometry, Outcome};

impl VolumeSlot {
    const fn is_vacant(&self) -> bool {
        !self.live && self.tasks == 0 && self.ios == 0
    }
}

impl Shard {
    pub(super) fn attach(&mut self, now: Time, settings: VolumeSettings) {
        let spec = settings.spec;
        assert!(
            self.volume_index(spec.id.0).is_none(),
            "a volume is attached once"
        );
        let geometry = Geometry {
            blocks: spec.size / u64::from(spec.block_size),
            block_size: spec.block_size,
            physical_exponent: settings.physical_exponent,
            write_cache: spec.cache == lockstep_mirror::control::CacheMode::WriteBack,
            unmap: settings.unmap,
            read_only: false,
        };
        let mut disk = Disk::new(settings.identity.clone(), geometry);
        for (id, nexus) in self
            .nexuses
            .iter()
            .filter(|(_, nexus)| nexus.target.0 == settings.target)
        {
            disk.nexus_up(id.0, &nexus.initiator);
        }
        let target = settings.target;
        let lun = settings.lun;
        let slot = VolumeSlot {
            disk,
            mirror: Volume::new(spec),
            counters: VolumeCounters::default(),
            live: true,
            tasks: 0,
            ios: 0,
            settings,
        };
        let number = match self.volumes.iter().position(VolumeSlot::is_vacant) {
            Some(number) => {
                self.volumes[number] = slot;
                number
            }
            None => {
                self.volumes.push(slot);
                self.volumes.len() - 1
            }
        };
        self.luns.insert((target, lun), number);
        self.tell_luns(target);
        // Without a token, what came before the next heartbeat could not be forwarded.
        if let Some((token, received)) = self.token {
            self.volumes[number].mirror.token(token, received);
        }
        let up: Vec<_> = self
            .channels
            .iter()
            .filter_map(|(&channel, &conn)| Some((channel, self.partner_of(conn)?.incarnation?)))
            .collect();
        for (channel, incarnation) in up {
            self.mirror(number, |volume, out| {
                volume.channel_up(now, channel, incarnation, out)
            });
        }
    }

    /// Each logical unit of the target lists all of them.
    fn tell_luns(&mut self, target: u32) {
        let luns = self.luns_of(target);
        for slot in self
            .volumes
            .iter_mut()
            .filter(|slot| slot.live && slot.settings.target == target)
        {
            slot.disk.set_luns(luns.clone());
        }
    }

    /// The volume is gone. Its commands end: what waits for a buffer and what is at work in the
    /// mirror at once, what is on its way in or worked on by the driver when that is done.
    pub(super) fn detach(&mut self, now: Time, id: VolumeId) {
        let Some(number) = self.volume_index(id.0) else {
            return;
        };
        self.volumes[number].live = false;
        let target = self.volumes[number].settings.target;
        self.luns.retain(|_, index| *index != number);
        self.tell_luns(target);
        self.starved.retain(
            |waiting| !matches!(waiting, Starved::Volume { index, .. } if *index == number),
        );
        let waiting: Vec<TaskId> = self
            .tasks
            .iter()
            .flatten()
            .filter(|task| task.volume == number && matches!(task.stage, Stage::NoBuffer { .. }))
            .map(|task| task.id)
            .collect();
        for task in waiting {
            self.starved
                .retain(|waiting| !matches!(waiting, Starved::Task(id) if *id == task));
            self.finish(now, task, Outcome::Transition, DataIn::None);
        }
        self.mirror(number, |volume, out| volume.retire(now, out));
        // Blocks that are on their way have a buffer, and give it back when they are here.
        for connection in self.connections.iter_mut().flatten() {
            if let Kind::Partner(partner) = &mut connection.kind
                && let PartnerStage::NoBuffer(fields) = partner.stage
                && fields.volume == id.0
            {
                partner.stage = PartnerStage::Skipping(fields.payload_len);
                self.touched.push(connection.id);
            }
        }
    }
}
