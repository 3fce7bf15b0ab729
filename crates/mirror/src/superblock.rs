//! What a node knows for certain about its copy of a volume: the superblock at the start of the
//! metadata area (`docs/disk-format.md`). Two slots are written in turn, so that a torn write
//! costs nothing but itself; the newest valid one counts.

use crate::control::{Configuration, Members, NodeId, VolumeId, WitnessId};
use alloc::vec::Vec;
use core::num::NonZeroU32;
use thiserror::Error;
use zerocopy::network_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of one slot; slot 0 lies at offset 0 of the metadata area, slot 1 behind it.
pub const SLOT_LEN: usize = 4096;
/// Configurations that a superblock remembers: far more than a volume sees between two joins,
/// and all that a slot has room for. One that fell out means "compare everything".
pub const HISTORY_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"LOCKVOL1";
const FORMAT: u16 = 1;
const CRC_AT: usize = SLOT_LEN - 4;

const CLEAN: u32 = 1;
const INCONSISTENT: u32 = 2;
const DISK_FAILED: u32 = 4;
const SPLIT_BRAIN: u32 = 8;
const WROTE: u32 = 16;

/// The name of a configuration: number and random part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage {
    /// Its number.
    pub epoch: u64,
    /// Its random part.
    pub generation: u128,
}

impl Configuration {
    /// Its name.
    #[must_use]
    pub const fn lineage(&self) -> Lineage {
        Lineage {
            epoch: self.epoch,
            generation: self.generation,
        }
    }
}

/// One configuration that this copy has lived under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its name.
    pub lineage: Lineage,
    /// Who was a member.
    pub members: Members,
    /// Whether it was taken without the partner's vote.
    pub unilateral: bool,
}

/// How far the other node's copy had come when both served a configuration together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// That configuration.
    pub lineage: Lineage,
    /// See [`Superblock::stamp`], the other copy's.
    pub stamp: u64,
}

/// The contents of a superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Whose copy this is.
    pub volume: VolumeId,
    /// On which node.
    pub node: NodeId,
    /// Exported size in bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// The last run stopped in order: nothing uncommitted, nothing unflushed.
    pub clean: bool,
    /// A resync has begun to write into this copy and not ended: never read, source or owner.
    pub inconsistent: bool,
    /// The disk failed a write or a flush; only a person clears this.
    pub disk_failed: bool,
    /// Both copies went their own way; only a person clears this.
    pub split_brain: bool,
    /// Data may have been written under the present unilateral configuration.
    pub wrote: bool,
    /// The configuration that this copy lives under.
    pub configuration: Configuration,
    /// The join record: a configuration about to be decided of which this copy is a full member
    /// if it is.
    pub prepared: Option<Configuration>,
    /// Earlier configurations, oldest first, at most [`HISTORY_LEN`]; ends with the present one.
    pub history: Vec<Past>,
    /// Epoch of the last configuration that named both, as adopted at the join: what the dirty
    /// bits are relative to. Going alone never moves it.
    pub base: u64,
    /// While a resync target: the source's configuration.
    pub source: Option<Lineage>,
    /// How often it was written anew while both served the present configuration: an older clone of
    /// this disk has a lower one.
    pub stamp: u64,
    /// What is known of the partner's stamp.
    pub met: Option<Met>,
    /// Counts the writes of this superblock.
    pub counter: u64,
}

/// Why the superblock of a volume cannot be used. The image must be left untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SuperblockError {
    /// Neither slot can be read.
    #[error(
        "both superblock slots of the volume's metadata are damaged: the image was left untouched; \
         restore the metadata file, or replace this replica and let it be copied from the other node"
    )]
    BothDamaged,
    /// Written by another release.
    #[error(
        "the volume's metadata has format {theirs}, this release knows {FORMAT}: {todo}; nothing was changed",
        theirs = .0,
        todo = other_release(*.0)
    )]
    Format(u16),
}

/// What to do about a format that is not ours.
const fn other_release(theirs: u16) -> &'static str {
    if theirs > FORMAT {
        "upgrade Lockstep on this node, whose release is older than the disk's"
    } else {
        "start the release that wrote it, and upgrade step by step as its notes say"
    }
}

/// What the two slots say.
#[expect(clippy::large_enum_variant, reason = "there is one of a volume")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever written: a new or replaced replica.
    Blank,
    /// The newest valid slot; `damaged`: the other one cannot be read and was not blank.
    Valid {
        /// Its contents.
        superblock: Superblock,
        /// Whether redundancy is lost until the next write.
        damaged: bool,
    },
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawConfiguration {
    epoch: U64,
    generation: U128,
    members: u8,
    owner: u8,
    unilateral: u8,
    pub(crate) present: u8,
    witness: U32,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawPast {
    epoch: U64,
    generation: U128,
    members: u8,
    unilateral: u8,
    reserved: [u8; 6],
}

/// A slot as it is on disk, big-endian.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Slot {
    magic: [u8; 8],
    format: U16,
    node: u8,
    reserved_1: u8,
    flags: U32,
    volume: U128,
    size: U64,
    block_size: U32,
    history_len: U32,
    counter: U64,
    base: U64,
    configuration: RawConfiguration,
    prepared: RawConfiguration,
    source_epoch: U64,
    source_generation: U128,
    history: [RawPast; HISTORY_LEN],
    stamp: U64,
    met_stamp: U64,
    met_epoch: U64,
    met_generation: U128,
    reserved_2: [u8; 1852],
    crc: U32,
}
const _: () = assert!(size_of::<Slot>() == SLOT_LEN);

impl From<Configuration> for RawConfiguration {
    fn from(it: Configuration) -> Self {
        Self {
            epoch: it.epoch.into(),
            generation: it.generation.into(),
            members: it.members.0,
            owner: it.owner.0,
            unilateral: it.unilateral.into(),
            present: 1,
            witness: it.witness.map_or(0, |it| it.0.get()).into(),
        }
    }
}

impl RawConfiguration {
    pub(crate) fn of(it: Option<Configuration>) -> Self {
        it.map_or_else(Self::new_zeroed, Into::into)
    }

    pub(crate) fn get(self) -> Option<Configuration> {
        (self.present != 0).then(|| self.into())
    }
}

impl From<&Past> for RawPast {
    fn from(past: &Past) -> Self {
        Self {
            epoch: past.lineage.epoch.into(),
            generation: past.lineage.generation.into(),
            members: past.members.0,
            unilateral: past.unilateral.into(),
            reserved: [0; 6],
        }
    }
}

impl From<&RawPast> for Past {
    fn from(raw: &RawPast) -> Self {
        Self {
            lineage: Lineage {
                epoch: raw.epoch.get(),
                generation: raw.generation.get(),
            },
            members: Members(raw.members),
            unilateral: raw.unilateral != 0,
        }
    }
}

impl From<RawConfiguration> for Configuration {
    fn from(it: RawConfiguration) -> Self {
        Self {
            epoch: it.epoch.get(),
            generation: it.generation.get(),
            members: Members(it.members),
            owner: NodeId(it.owner),
            unilateral: it.unilateral != 0,
            witness: NonZeroU32::new(it.witness.get()).map(WitnessId),
        }
    }
}

impl Superblock {
    /// The first superblock of a volume's copy.
    #[must_use]
    pub fn new(volume: VolumeId, node: NodeId, size: u64, block_size: u32) -> Self {
        Self {
            volume,
            node,
            size,
            block_size,
            clean: false,
            inconsistent: false,
            disk_failed: false,
            split_brain: false,
            wrote: false,
            configuration: Configuration {
                epoch: 0,
                generation: 0,
                members: Members::default(),
                owner: node,
                unilateral: false,
                witness: None,
            },
            prepared: None,
            history: Vec::new(),
            base: 0,
            source: None,
            stamp: 0,
            met: None,
            counter: 0,
        }
    }

    /// Lives under another configuration from now on; its name joins the history.
    ///
    /// An open join record joins the history too: this copy holds all that could have been
    /// acknowledged under it.
    pub fn adopt(&mut self, configuration: Configuration) {
        if let Some(prepared) = self.prepared {
            self.remember(prepared);
        }
        self.remember(configuration);
        if self.configuration.lineage() != configuration.lineage() {
            self.stamp = 0;
        }
        self.configuration = configuration;
        self.prepared = None;
        self.source = None;
        self.wrote = false;
    }

    /// Puts a configuration into the history, in the order of epochs; the oldest falls out.
    pub fn remember(&mut self, it: Configuration) {
        let past = Past {
            lineage: it.lineage(),
            members: it.members,
            unilateral: it.unilateral,
        };
        self.remember_past(past);
    }

    /// As [`Self::remember`], for an entry of the partner's history.
    pub fn remember_past(&mut self, past: Past) {
        if self.knows(past.lineage) || past.lineage.epoch == 0 {
            return;
        }
        let at = self.history.partition_point(|it| it.lineage < past.lineage);
        self.history.insert(at, past);
        if self.history.len() > HISTORY_LEN {
            self.history.remove(0);
        }
    }

    /// Whether this copy has lived under that configuration.
    #[must_use]
    pub fn knows(&self, lineage: Lineage) -> bool {
        self.history.iter().any(|past| past.lineage == lineage)
    }

    /// The bytes of a slot, and which slot they belong in.
    ///
    /// # Panics
    /// If the history is longer than a slot holds.
    #[must_use]
    pub fn encode(&self) -> (u8, Vec<u8>) {
        assert!(
            self.history.len() <= HISTORY_LEN,
            "the history is bounded when it grows"
        );
        let mut slot = Slot::new_zeroed();
        slot.magic = MAGIC;
        slot.format = FORMAT.into();
        slot.node = self.node.0;
        for (set, bit) in [
            (self.clean, CLEAN),
            (self.inconsistent, INCONSISTENT),
            (self.disk_failed, DISK_FAILED),
            (self.split_brain, SPLIT_BRAIN),
            (self.wrote, WROTE),
        ] {
            slot.flags |= if set { bit } else { 0 };
        }
        slot.volume = self.volume.0.into();
        slot.size = self.size.into();
        slot.block_size = self.block_size.into();
        slot.counter = self.counter.into();
        slot.base = self.base.into();
        slot.stamp = self.stamp.into();
        if let Some(met) = self.met {
            slot.met_stamp = met.stamp.into();
            slot.met_epoch = met.lineage.epoch.into();
            slot.met_generation = met.lineage.generation.into();
        }
        slot.configuration = self.configuration.into();
        slot.prepared = RawConfiguration::of(self.prepared);
        if let Some(source) = self.source {
            slot.source_epoch = source.epoch.into();
            slot.source_generation = source.generation.into();
        }
        for (raw, past) in slot.history.iter_mut().zip(&self.history) {
            *raw = past.into();
            slot.history_len += 1;
        }
        slot.crc = crc32c::crc32c(&slot.as_bytes()[..CRC_AT]).into();
        (u8::from(self.counter % 2 == 1), slot.as_bytes().to_vec())
    }

    fn decode(bytes: &[u8]) -> Read {
        if bytes.iter().all(|byte| *byte == 0) {
            return Read::Zero;
        }
        let Ok(slot) = Slot::ref_from_bytes(bytes) else {
            return Read::Damaged;
        };
        if slot.magic != MAGIC || crc32c::crc32c(&bytes[..CRC_AT]) != slot.crc.get() {
            // The very first write of a volume was cut short: the CRC is the last thing in a slot.
            return if slot.counter.get() <= 1 && slot.crc.get() == 0 {
                Read::Torn
            } else {
                Read::Damaged
            };
        }
        if slot.format.get() != FORMAT {
            return Read::Format(slot.format.get());
        }
        let flag = |bit: u32| slot.flags.get() & bit != 0;
        let used = usize::try_from(slot.history_len.get())
            .unwrap_or(HISTORY_LEN)
            .min(HISTORY_LEN);
        let met = Met {
            lineage: Lineage {
                epoch: slot.met_epoch.get(),
                generation: slot.met_generation.get(),
            },
            stamp: slot.met_stamp.get(),
        };
        let source = Lineage {
            epoch: slot.source_epoch.get(),
            generation: slot.source_generation.get(),
        };
        Read::Valid(Self {
            volume: VolumeId(slot.volume.get()),
            node: NodeId(slot.node),
            size: slot.size.get(),
            block_size: slot.block_size.get(),
            clean: flag(CLEAN),
            inconsistent: flag(INCONSISTENT),
            disk_failed: flag(DISK_FAILED),
            split_brain: flag(SPLIT_BRAIN),
            wrote: flag(WROTE),
            configuration: slot.configuration.into(),
            prepared: slot.prepared.get(),
            history: slot.history[..used].iter().map(Past::from).collect(),
            base: slot.base.get(),
            source: (source.epoch != 0).then_some(source),
            stamp: slot.stamp.get(),
            met: (met.lineage.epoch != 0).then_some(met),
            counter: slot.counter.get(),
        })
    }

    /// Reads both slots, [`SLOT_LEN`] bytes each, and takes the newest valid one.
    ///
    /// # Errors
    /// When something was written once and cannot be read any more.
    pub fn choose(slots: [&[u8]; 2]) -> Result<Found, SuperblockError> {
        match slots.map(Self::decode) {
            [Read::Format(format), _] | [_, Read::Format(format)] => {
                Err(SuperblockError::Format(format))
            }
            [Read::Valid(a), Read::Valid(b)] => {
                let superblock = if a.counter > b.counter { a } else { b };
                Ok(Found::Valid {
                    superblock,
                    damaged: false,
                })
            }
            [Read::Valid(superblock), other] | [other, Read::Valid(superblock)] => {
                Ok(Found::Valid {
                    superblock,
                    damaged: matches!(other, Read::Damaged),
                })
            }
            [Read::Zero, Read::Zero | Read::Torn] | [Read::Torn, Read::Zero] => Ok(Found::Blank),
            _ => Err(SuperblockError::BothDamaged),
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "there are two of a volume")]
/// What one slot holds.
enum Read {
    Zero,
    Torn,
    Damaged,
    Format(u16),
    Valid(Superblock),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(epoch: u64) -> Configuration {
        Configuration {
            epoch,
            generation: u128::from(epoch) << 100 | 5,
            members: Members::only(NodeId(1)).with(NodeId(2)),
            owner: NodeId(2),
            unilateral: epoch % 2 == 1,
            witness: NonZeroU32::new(u32::try_from(epoch).expect("small")).map(WitnessId),
        }
    }

    fn full(counter: u64) -> Superblock {
        let mut it = Superblock::new(VolumeId(0xfeed << 64), NodeId(2), 1 << 40, 4096);
        for epoch in 1..100 {
            it.adopt(configuration(epoch));
        }
        it.inconsistent = true;
        it.wrote = true;
        it.prepared = Some(configuration(100));
        it.source = Some(configuration(98).lineage());
        it.base = 77;
        it.counter = counter;
        it
    }

    fn valid(found: Result<Found, SuperblockError>) -> Superblock {
        match found {
            Ok(Found::Valid { superblock, .. }) => superblock,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let it = full(7);
        let (slot, bytes) = it.encode();
        assert_eq!((slot, bytes.len()), (1, SLOT_LEN));
        assert_eq!(it.history.len(), HISTORY_LEN);
        assert_eq!(valid(Superblock::choose([&[0; SLOT_LEN], &bytes])), it);
        let fresh = Superblock {
            counter: 2,
            ..Superblock::new(VolumeId(1), NodeId(1), 4096, 512)
        };
        assert_eq!(
            valid(Superblock::choose([&fresh.encode().1, &[0; SLOT_LEN]])),
            fresh
        );
    }

    #[test]
    fn the_newer_slot_counts() {
        let (old, new) = (full(8), full(9));
        assert_eq!(
            valid(Superblock::choose([&old.encode().1, &new.encode().1])).counter,
            9
        );
        assert_eq!(
            valid(Superblock::choose([&full(10).encode().1, &new.encode().1])).counter,
            10
        );
    }

    #[test]
    fn damage_of_any_byte_falls_back_to_the_other_slot() {
        let (old, new) = (full(8), full(9));
        let (old_bytes, new_bytes) = (old.encode().1, new.encode().1);
        for at in 0..SLOT_LEN {
            let mut bad = new_bytes.clone();
            bad[at] ^= 0x10;
            let found = Superblock::choose([&old_bytes, &bad]);
            assert_eq!(
                found,
                Ok(Found::Valid {
                    superblock: old.clone(),
                    damaged: true
                }),
                "byte {at}"
            );
            assert_eq!(
                Superblock::choose([&bad, &bad]),
                Err(SuperblockError::BothDamaged),
                "byte {at}"
            );
            assert_eq!(
                Superblock::choose([&bad, &[0; SLOT_LEN]]),
                Err(SuperblockError::BothDamaged),
                "byte {at}"
            );
        }
    }

    #[test]
    fn every_prefix_of_an_update_recovers() {
        let (slots, next) = ([full(8).encode().1, full(9).encode().1], full(10).encode());
        assert_eq!(next.0, 0, "the older slot is overwritten");
        for cut in 0..=SLOT_LEN {
            let mut torn = slots[0].clone();
            torn[..cut].copy_from_slice(&next.1[..cut]);
            let found = valid(Superblock::choose([&torn, &slots[1]]));
            assert!(found == full(9) || found == full(10), "cut at {cut}");
        }
    }

    #[test]
    fn every_sector_of_the_first_write_recovers() {
        let first = Superblock {
            counter: 1,
            ..full(1)
        }
        .encode()
        .1;
        for sectors in 0..8 {
            let mut torn = [0; SLOT_LEN];
            torn[..sectors * 512].copy_from_slice(&first[..sectors * 512]);
            assert_eq!(
                Superblock::choose([&[0; SLOT_LEN], &torn]),
                Ok(Found::Blank),
                "{sectors} sectors"
            );
        }
    }

    #[test]
    fn short_and_foreign_slots_are_damage_and_newer_formats_are_named() {
        assert_eq!(
            Superblock::choose([b"short", b"er"]),
            Err(SuperblockError::BothDamaged)
        );
        let mut newer = full(9).encode().1;
        newer[9] = 2;
        let crc = crc32c::crc32c(&newer[..CRC_AT]);
        newer[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(
            Superblock::choose([&full(8).encode().1, &newer]),
            Err(SuperblockError::Format(2))
        );
    }

    #[test]
    fn history_keeps_the_newest_in_order_and_each_once() {
        let mut it = full(1);
        let before = it.history.clone();
        it.remember(configuration(80));
        assert_eq!(it.history, before);
        assert_eq!(it.history[0].lineage.epoch, 99 - 63);
        assert!(it.history.is_sorted_by_key(|past| past.lineage));
    }
}
