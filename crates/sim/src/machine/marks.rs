//! What a node's metadata area says may differ from the partner: read from the pretend disk, by
//! the same code that the daemon starts with.

use super::Machine;
use lockstep_mirror::control::VolumeId;
use lockstep_mirror::dirty::Dirty;
use lockstep_mirror::intents::Intents;
use lockstep_mirror::metadata_layout::{
    CHUNK, DIRTY_PAGE, INTENT_SECTOR, INTENTS_OFFSET, REGION, SUPERBLOCK_OFFSETS, dirty_offset,
    dirty_pages, intent_sectors,
};
use lockstep_mirror::superblock::{Found, SLOT_LEN, Superblock};
use std::collections::BTreeSet;

/// Dirty chunks and set regions.
pub struct Marks {
    chunks: BTreeSet<u64>,
    regions: BTreeSet<u64>,
}

impl Marks {
    /// Whether this byte of the volume is known to be perhaps different.
    #[must_use]
    pub fn covers(&self, byte: u64) -> bool {
        self.chunks.contains(&(byte / CHUNK)) || self.regions.contains(&(byte / REGION))
    }
}

impl Machine {
    /// What the metadata area of a volume says now. Only what is durable counts.
    #[must_use]
    pub fn marks(&self, volume: VolumeId, size: u64) -> Marks {
        let mut marks = Marks {
            chunks: BTreeSet::new(),
            regions: BTreeSet::new(),
        };
        let Some(files) = self.volumes.get(&volume.0) else {
            return marks;
        };
        let read = |offset: u64, len: u64| {
            let mut bytes = vec![0; usize::try_from(len).expect("pretend volumes are small")];
            files.meta.read_durable(offset, &mut bytes);
            bytes
        };
        let mut intents = Intents::new(volume, size, usize::MAX);
        intents.load(
            0,
            &read(INTENTS_OFFSET, intent_sectors(size) * INTENT_SECTOR),
        );
        marks.regions.extend(intents.regions());
        let mut dirty = Dirty::new(volume, size);
        dirty.load(0, &read(dirty_offset(size), dirty_pages(size) * DIRTY_PAGE));
        marks
            .chunks
            .extend((0..size.div_ceil(CHUNK)).filter(|chunk| dirty.is_marked(*chunk)));
        marks
    }

    /// Whether the superblock of this node's copy says that it must not be read.
    #[must_use]
    pub fn is_inconsistent(&self, volume: VolumeId) -> bool {
        self.superblock(volume).is_some_and(|it| it.inconsistent)
    }

    /// Whether it holds nothing of the volume yet, not even a configuration.
    #[must_use]
    pub fn is_blank(&self, volume: VolumeId) -> bool {
        self.superblock(volume)
            .is_none_or(|it| it.configuration.epoch == 0)
    }

    /// Whether the superblock says that both copies were written apart.
    #[must_use]
    pub fn is_split(&self, volume: VolumeId) -> bool {
        self.superblock(volume).is_some_and(|it| it.split_brain)
    }

    fn superblock(&self, volume: VolumeId) -> Option<Superblock> {
        let files = self.volumes.get(&volume.0)?;
        let slots = SUPERBLOCK_OFFSETS.map(|offset| {
            let mut bytes = vec![0; SLOT_LEN];
            files.meta.read(offset, &mut bytes);
            bytes
        });
        match Superblock::choose([&slots[0], &slots[1]]) {
            Ok(Found::Valid { superblock, .. }) => Some(superblock),
            _ => None,
        }
    }
}
