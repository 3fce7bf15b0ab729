//! Region intents: one durable bit for each 16 MiB in which writes may be in flight.
//!
//! A bit is durable before a write of its region is submitted. It is cleared lazily: in memory
//! first, so that a write that comes meanwhile waits for a newer durable set. This file knows
//! the bits and their encoding; `volume/metadata.rs` decides when to set and to clear.

use crate::control::{Time, VolumeId};
use crate::metadata_layout::{
    INTENT_SECTOR, INTENTS_OFFSET, REGION, REGIONS_PER_SECTOR, intent_sectors,
};
use crate::operation::Extent;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Most regions set at once: 1 TiB, which bounds what is compared after a crash.
pub const MAX_SET: usize = 65_536;
/// Most sectors in one write: 64 KiB.
const MAX_RUN: u64 = 128;
/// Bytes of bits in a sector.
const BITS_LEN: usize = 504;

/// Whether an operation may be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Every intent it needs is durable.
    Ready,
    /// Its intents are set and wait for a write of the metadata.
    Wait,
    /// Too many regions are set; try again once some are cleared.
    Full,
}

/// The intents of one volume.
#[derive(Debug)]
pub struct Intents {
    volume: VolumeId,
    regions: u64,
    most: usize,
    set: BTreeMap<u64, Region>,
    sectors: Vec<Sector>,
    writing: Option<RangeInclusive<u64>>,
    /// Some sector may have changed; saves a walk over all of them at each event.
    pending: bool,
}

#[derive(Clone, Copy, Debug)]
struct Region {
    /// Operations between `begin` and `end`.
    active: u32,
    /// When the last one ended.
    idle_since: Time,
    /// Set by an earlier run: stays until the region is dirty or the copies are equal.
    loaded: bool,
    /// The write of its sector that makes it durable.
    set_by: u32,
}

impl Region {
    fn is_idle(&self, since: Time) -> bool {
        self.active == 0 && self.idle_since < since && !self.loaded
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sector {
    /// Memory differs from what was last handed out for writing.
    changed: bool,
    /// Writes handed out; the number is the sector's generation on disk.
    issued: u32,
    /// Writes that are durable.
    durable: u32,
}

impl Intents {
    /// No intent set. `most` regions may be set at once.
    #[must_use]
    pub fn new(volume: VolumeId, size: u64, most: usize) -> Self {
        let sectors = usize::try_from(intent_sectors(size))
            .expect("a volume's sectors of intents fit in memory");
        Self {
            volume,
            regions: size.div_ceil(REGION),
            most,
            set: BTreeMap::new(),
            sectors: vec![Sector::default(); sectors],
            writing: None,
            pending: true,
        }
    }

    fn regions_of(extent: Extent) -> RangeInclusive<u64> {
        extent.offset / REGION..=(extent.end() - 1) / REGION
    }

    fn sector(&mut self, region: u64) -> &mut Sector {
        let index = usize::try_from(region / REGIONS_PER_SECTOR)
            .expect("checked against the volume's size");
        &mut self.sectors[index]
    }

    /// An operation starts on `extent`. All of its regions count as in use until [`Self::end`],
    /// unless the answer is `Full`. `force` goes past the limit.
    pub fn begin(&mut self, extent: Extent, force: bool) -> Begin {
        let regions = Self::regions_of(extent);
        let missing = regions
            .clone()
            .filter(|region| !self.set.contains_key(region))
            .count();
        if missing > 0 && !force && self.set.len() + missing > self.most {
            return Begin::Full;
        }
        for region in regions {
            if let Some(known) = self.set.get_mut(&region) {
                known.active += 1;
                continue;
            }
            let sector = self.sector(region);
            sector.changed = true;
            let set_by = sector.issued + 1;
            self.pending = true;
            self.set.insert(
                region,
                Region {
                    active: 1,
                    idle_since: Time::ZERO,
                    loaded: false,
                    set_by,
                },
            );
        }
        if self.durable(extent) {
            Begin::Ready
        } else {
            Begin::Wait
        }
    }

    /// Whether every intent of `extent` is set and durable.
    pub fn durable(&mut self, extent: Extent) -> bool {
        Self::regions_of(extent).all(|region| {
            let set_by = self.set.get(&region).map(|known| known.set_by);
            set_by.is_some_and(|set_by| self.sector(region).durable >= set_by)
        })
    }

    /// An operation that began has ended.
    pub fn end(&mut self, extent: Extent, now: Time) {
        for region in Self::regions_of(extent) {
            let known = self
                .set
                .get_mut(&region)
                .expect("an intent stays set while an operation is in its region");
            known.active -= 1;
            known.idle_since = now;
        }
    }

    /// No operation is in flight any more; the bits stay.
    pub fn end_all(&mut self, now: Time) {
        for known in self.set.values_mut() {
            if known.active > 0 {
                *known = Region {
                    active: 0,
                    idle_since: now,
                    ..*known
                };
            }
        }
    }

    /// Regions without an operation since `before`, at most `most`, the longest idle first.
    #[must_use]
    pub fn idle(&self, before: Time, most: usize) -> Vec<u64> {
        let mut idle: Vec<(Time, u64)> = self
            .set
            .iter()
            .filter(|(_, known)| known.is_idle(before))
            .map(|(region, known)| (known.idle_since, *region))
            .collect();
        idle.sort_unstable();
        idle.into_iter()
            .take(most)
            .map(|(_, region)| region)
            .collect()
    }

    /// When the longest idle region became so.
    #[must_use]
    pub fn idle_since(&self) -> Option<Time> {
        self.set
            .values()
            .filter(|known| known.active == 0 && !known.loaded)
            .map(|known| known.idle_since)
            .min()
    }

    /// Whether no operation is in the region and none ended after `since`.
    #[must_use]
    pub fn still_idle(&self, region: u64, since: Time) -> bool {
        self.set
            .get(&region)
            .is_some_and(|known| known.is_idle(since))
    }

    /// Clears a region that is idle; written to disk with the next write.
    pub fn clear(&mut self, region: u64) {
        if let Some(known) = self.set.remove(&region) {
            assert_eq!(
                known.active, 0,
                "an intent is cleared only when no operation is in its region"
            );
            self.sector(region).changed = true;
            self.pending = true;
        }
    }

    /// Clears all regions; none may be in use.
    pub fn clear_all(&mut self) {
        for region in self.set.keys().copied().collect::<Vec<_>>() {
            self.clear(region);
        }
    }

    /// What an earlier run left set is covered by dirty bits now, and cleared like the rest.
    pub fn own_all(&mut self) {
        for known in self.set.values_mut() {
            known.loaded = false;
        }
    }

    /// The regions that are set.
    pub fn regions(&self) -> impl Iterator<Item = u64> + '_ {
        self.set.keys().copied()
    }

    /// How many regions are set.
    #[must_use]
    pub fn count(&self) -> usize {
        self.set.len()
    }

    /// Whether memory and disk agree and nothing is being written.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.writing.is_none() && self.sectors.iter().all(|sector| !sector.changed)
    }

    /// The next write of metadata, if there is something to write and none is under way: one
    /// for all that wait.
    pub fn write(&mut self) -> Option<(u64, Box<[u8]>)> {
        if self.writing.is_some() || !self.pending {
            return None;
        }
        self.pending = self.sectors.iter().any(|sector| sector.changed);
        let first = self.sectors.iter().position(|sector| sector.changed)? as u64;
        let end = (first + MAX_RUN).min(self.sectors.len() as u64);
        let last = (first..end).rfind(|index| self.changed(*index))?;
        let mut bytes = Vec::new();
        for index in first..=last {
            let sector = self.sector(index * REGIONS_PER_SECTOR);
            sector.changed = false;
            sector.issued += 1;
            let generation = sector.issued;
            bytes.extend_from_slice(&self.encode(index, generation));
        }
        self.writing = Some(first..=last);
        Some((
            INTENTS_OFFSET + first * INTENT_SECTOR,
            bytes.into_boxed_slice(),
        ))
    }

    fn changed(&self, index: u64) -> bool {
        usize::try_from(index).is_ok_and(|index| self.sectors[index].changed)
    }

    /// The write is durable.
    pub fn written(&mut self) {
        let range = self.writing.take().expect("only a write under way can end");
        for index in range {
            let sector = self.sector(index * REGIONS_PER_SECTOR);
            sector.durable = sector.issued;
        }
    }

    fn encode(&self, index: u64, generation: u32) -> [u8; 512] {
        let mut sector = [0; 512];
        let first = index * REGIONS_PER_SECTOR;
        for region in self
            .set
            .range(first..first + REGIONS_PER_SECTOR)
            .map(|(region, _)| region - first)
        {
            let region = usize::try_from(region).expect("less than 4032");
            sector[region / 8] |= 0x80 >> (region % 8);
        }
        sector[BITS_LEN..508].copy_from_slice(&generation.to_be_bytes());
        let crc = sector_crc(self.volume, index, &sector[..508]);
        sector[508..].copy_from_slice(&crc.to_be_bytes());
        sector
    }

    /// Takes in what the disk holds of the sectors from `first` on. A sector whose CRC is wrong
    /// sets all of its regions. Gives how many those were.
    pub fn load(&mut self, first: u64, bytes: &[u8]) -> u32 {
        let mut damaged = 0;
        for (index, sector) in (first..).zip(bytes.chunks_exact(512)) {
            if index >= self.sectors.len() as u64 {
                return damaged;
            }
            let start = index * REGIONS_PER_SECTOR;
            let end = self.regions.min(start + REGIONS_PER_SECTOR);
            let (content, crc) = sector.split_at(508);
            let good = crc == sector_crc(self.volume, index, content).to_be_bytes();
            damaged += u32::from(!good);
            let generation = if good {
                read_u32(&content[BITS_LEN..])
            } else {
                1
            };
            *self.sector(start) = Sector {
                changed: !good,
                issued: generation,
                durable: generation,
            };
            for region in start..end {
                let bit = usize::try_from(region - start).expect("less than 4032");
                if !good || content[bit / 8] & (0x80 >> (bit % 8)) != 0 {
                    // Not durable where the sector is bad: a write must not rely on it.
                    let set_by = if good { generation } else { generation + 1 };
                    self.set.insert(
                        region,
                        Region {
                            active: 0,
                            idle_since: Time::ZERO,
                            loaded: true,
                            set_by,
                        },
                    );
                }
            }
        }
        damaged
    }

    /// What a new metadata area holds: every sector, nothing set.
    pub fn format(&mut self) -> (u64, Vec<u8>) {
        let mut bytes = Vec::new();
        for index in 0..self.sectors.len() as u64 {
            bytes.extend_from_slice(&self.encode(index, 1));
            *self.sector(index * REGIONS_PER_SECTOR) = Sector {
                changed: false,
                issued: 1,
                durable: 1,
            };
        }
        (INTENTS_OFFSET, bytes)
    }
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The CRC also covers whose sector it is, so that one from elsewhere is a bad one.
fn sector_crc(volume: VolumeId, index: u64, content: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&volume.0.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &index.to_be_bytes());
    crc32c::crc32c_append(crc, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId(1);
    const AT_REGION_3: Extent = Extent {
        offset: 3 * REGION,
        len: 4096,
    };

    fn durable_write(intents: &mut Intents) -> (u64, Box<[u8]>) {
        let write = intents.write().unwrap();
        intents.written();
        write
    }

    #[test]
    fn an_operation_waits_until_its_intent_is_durable() {
        let mut intents = Intents::new(VOLUME, 1 << 30, MAX_SET);
        assert_eq!(intents.begin(AT_REGION_3, false), Begin::Wait);
        let (offset, bytes) = intents.write().unwrap();
        assert_eq!((offset, bytes.len(), bytes[0]), (64 << 10, 512, 0x10));
        assert!(!intents.durable(AT_REGION_3));
        intents.written();
        assert!(intents.durable(AT_REGION_3));
        assert_eq!(intents.begin(AT_REGION_3, false), Begin::Ready);
    }

    #[test]
    fn one_that_comes_while_the_bit_is_being_cleared_waits_for_a_newer_set() {
        let mut intents = Intents::new(VOLUME, 1 << 30, MAX_SET);
        let _ = intents.begin(AT_REGION_3, false);
        durable_write(&mut intents);
        intents.end(AT_REGION_3, Time::ZERO);
        intents.clear(3);
        let (_, cleared) = intents.write().unwrap();
        assert_eq!(cleared[0], 0);
        assert_eq!(intents.begin(AT_REGION_3, false), Begin::Wait);
        intents.written();
        assert!(!intents.durable(AT_REGION_3), "the disk just lost the bit");
        assert_eq!(durable_write(&mut intents).1[0], 0x10);
        assert!(intents.durable(AT_REGION_3));
    }

    #[test]
    fn what_was_written_is_loaded_and_damage_means_all_set() {
        let mut intents = Intents::new(VOLUME, 100 << 30, MAX_SET);
        let _ = intents.begin(AT_REGION_3, false);
        let (_, bytes) = durable_write(&mut intents);
        let mut again = Intents::new(VOLUME, 100 << 30, MAX_SET);
        again.load(0, &bytes);
        assert_eq!(again.regions().collect::<Vec<_>>(), [3]);
        assert!(again.durable(AT_REGION_3));

        let mut torn = bytes.clone();
        torn[100] ^= 1;
        let mut damaged = Intents::new(VOLUME, 100 << 30, MAX_SET);
        damaged.load(0, &torn);
        assert_eq!(damaged.count(), 4032);
        assert!(!damaged.durable(AT_REGION_3));

        let mut misplaced = Intents::new(VOLUME, 100 << 30, MAX_SET);
        misplaced.load(1, &bytes);
        assert_eq!(misplaced.count(), 6400 - 4032);
        let mut foreign = Intents::new(VolumeId(2), 100 << 30, MAX_SET);
        foreign.load(0, &bytes);
        assert_eq!(foreign.count(), 4032);
    }

    #[test]
    fn no_more_than_the_limit_are_set() {
        let mut intents = Intents::new(VOLUME, 1 << 30, 2);
        assert_eq!(
            intents.begin(
                Extent {
                    offset: 0,
                    len: 2 * REGION
                },
                false
            ),
            Begin::Wait
        );
        assert_eq!(intents.begin(AT_REGION_3, false), Begin::Full);
        assert_eq!(
            intents.begin(
                Extent {
                    offset: REGION,
                    len: 512
                },
                false
            ),
            Begin::Wait
        );
        assert_eq!(intents.begin(AT_REGION_3, true), Begin::Wait);
    }
}
