//! The places of this node's copies that were last found damaged, and what became of them. Events
//! have all of them; these are the newest, of this run, for `volume show`.

use lockstep_api::health::{Damage, Outcome};
use lockstep_mirror::control::{FromVolume, VolumeId};
use lockstep_mirror::operation::Extent;
use std::collections::{BTreeMap, VecDeque};

/// Places that are kept for each volume: enough to see whether they lie side by side.
const KEPT: usize = 8;

/// The newest places, newest first.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<VolumeId, VecDeque<(Extent, u64, Outcome)>>);

impl Places {
    /// The data path says something at that time (seconds since 1970).
    pub(super) fn note(&mut self, id: VolumeId, word: &FromVolume, at: u64) {
        let (extent, outcome) = match word {
            FromVolume::Unreadable { extent } => (*extent, Outcome::Unreadable),
            FromVolume::Differs { extent } => (*extent, Outcome::Differs),
            FromVolume::Repaired { extent } => (*extent, Outcome::Repaired),
            _ => return,
        };
        let places = self.0.entry(id).or_default();
        // One place is there once, however often it is read or in which pieces it is mended.
        places.retain(|(other, ..)| !other.overlaps(extent));
        places.push_front((extent, at, outcome));
        places.truncate(KEPT);
    }

    /// In the words of the API, newest first.
    pub(super) fn of(&self, id: VolumeId, block_size: u32) -> Vec<Damage> {
        let size = u64::from(block_size.max(1));
        let places = self.0.get(&id).into_iter().flatten();
        places
            .map(|(extent, at, outcome)| Damage {
                first_block: extent.offset / size,
                blocks: extent.len.div_ceil(size),
                at: *at,
                outcome: *outcome,
            })
            .collect()
    }

    /// The volume is gone.
    pub(super) fn forget(&mut self, id: VolumeId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: VolumeId = VolumeId(7);

    fn extent(block: u64, blocks: u64) -> Extent {
        Extent {
            offset: block * 512,
            len: blocks * 512,
        }
    }

    #[test]
    fn a_place_that_was_rewritten_is_there_once_and_as_such() {
        let mut places = Places::default();
        let found = FromVolume::Unreadable {
            extent: extent(16, 8),
        };
        places.note(ID, &found, 5);
        let differs = FromVolume::Differs {
            extent: extent(128, 128),
        };
        places.note(ID, &differs, 6);
        let mended = FromVolume::Repaired {
            extent: extent(16, 8),
        };
        places.note(ID, &mended, 7);
        places.note(ID, &FromVolume::Suspended, 8);
        let shown = places.of(ID, 512);
        let first = Damage {
            first_block: 16,
            blocks: 8,
            at: 7,
            outcome: Outcome::Repaired,
        };
        assert_eq!((shown.len(), &shown[0]), (2, &first));
        assert_eq!(shown[1].outcome, Outcome::Differs);
        places.forget(ID);
        assert!(places.of(ID, 512).is_empty());
    }

    #[test]
    fn the_newest_are_kept() {
        let mut places = Places::default();
        for block in 0..100 {
            let extent = extent(block, 1);
            places.note(ID, &FromVolume::Unreadable { extent }, block);
        }
        let shown = places.of(ID, 512);
        assert_eq!((shown.len(), shown[0].first_block), (KEPT, 99));
    }
}
