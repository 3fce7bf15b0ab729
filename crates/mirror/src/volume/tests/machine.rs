//! One pretend machine: a disk that may lose what was not flushed, a metadata area that tears,
//! buffers that are counted, and the volume under test. A block's content is one number.

use super::super::stage::Role;
use crate::control::{
    CacheMode, FromVolume, Incarnation, NodeId, Pacing, Time, VolumeId, VolumeSpec,
};
use crate::intents::{Intents, MAX_SET};
use crate::metadata_layout::{INTENTS_OFFSET, REGION, metadata_len};
use crate::operation::{BufferId, Extent, Operation, Payload};
use crate::volume::Volume;
use crate::volume_action::{ChannelId, FrameBody, Refusal, Ticket, VolumeAction};
use crate::volume_io::{Io, IoError, IoId, Value};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

pub(super) const BLOCK: u64 = 4096;

/// A small, seeded source of chance.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) % bound
    }

    pub(super) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

struct Buffer {
    values: Vec<u64>,
    refs: u32,
    /// Lent to disk writes and sends: nobody may change it.
    lent: u32,
}

pub(super) struct Flight {
    id: IoId,
    io: Io,
    effect: Option<Result<Value, IoError>>,
}

pub(super) enum Wire {
    None,
    Bytes(Box<[u8]>),
    /// Blocks by value, as they are received into another machine's buffer.
    Blocks(Vec<u64>, u32),
}

pub(super) struct Machine {
    pub(super) me: NodeId,
    pub(super) size: u64,
    pub(super) cache: CacheMode,
    pub(super) volume: Option<Volume>,
    pub(super) incarnation: Incarnation,
    pub(super) durable: BTreeMap<u64, u64>,
    pub(super) memory: BTreeMap<u64, u64>,
    pub(super) meta: Vec<u8>,
    buffers: BTreeMap<u32, Buffer>,
    next_buffer: u32,
    pub(super) flights: Vec<Flight>,
    pub(super) wanted_buffers: Vec<(u64, u32)>,
    pub(super) completed: Vec<(Ticket, Result<(), Refusal>)>,
    /// Blocks of reads that came from the partner, before the reads are completed.
    pub(super) fetched: Vec<(Ticket, BufferId)>,
    pub(super) told: Vec<FromVolume>,
    pub(super) states: Vec<(u16, Box<[u8]>)>,
    /// This machine's clock runs ahead of the world's by so much.
    pub(super) ahead: Time,
    pub(super) outbox: Vec<(ChannelId, crate::fields::Fields, FrameBody)>,
    pub(super) unreadable: BTreeSet<u64>,
    /// Unreadable blocks can be read after all while no other copy is there.
    pub(super) weak: bool,
    /// Blocks that stay unreadable though they are written.
    pub(super) dead: BTreeSet<u64>,
    pub(super) fail_writes: bool,
    /// Reads that are begun do not end until then, nor those that have begun.
    pub(super) hung_until: Time,
    /// What the disk does only once it is let go.
    held: Vec<IoId>,
    /// How its resyncs share the volume with initiators.
    pub(super) pacing: Pacing,
}

impl Machine {
    pub(super) fn new(me: NodeId, size: u64, cache: CacheMode) -> Self {
        let meta = vec![0xee; usize::try_from(metadata_len(size)).unwrap()];
        Self {
            me,
            size,
            cache,
            volume: None,
            incarnation: Incarnation(0),
            durable: BTreeMap::new(),
            memory: BTreeMap::new(),
            meta,
            buffers: BTreeMap::new(),
            next_buffer: 0,
            flights: Vec::new(),
            wanted_buffers: Vec::new(),
            completed: Vec::new(),
            fetched: Vec::new(),
            told: Vec::new(),
            states: Vec::new(),
            ahead: Time::from_secs(1000 * u64::from(me.0)),
            outbox: Vec::new(),
            unreadable: BTreeSet::new(),
            weak: false,
            dead: BTreeSet::new(),
            fail_writes: false,
            hung_until: Time::ZERO,
            held: Vec::new(),
            pacing: Pacing::default(),
        }
    }

    pub(super) fn start(&mut self, incarnation: u64, partner: Option<NodeId>) {
        self.incarnation = Incarnation(incarnation);
        self.volume = Some(Volume::new(VolumeSpec {
            id: VolumeId(1),
            size: self.size,
            block_size: 4096,
            cache: self.cache,
            me: self.me,
            partner,
            incarnation: self.incarnation,
        }));
        self.told.clear();
    }

    /// The process and, with it, what was only in memory. Writes under way may land in part.
    pub(super) fn crash(&mut self, chance: &mut Chance, power: bool) {
        self.volume = None;
        self.held.clear();
        for flight in core::mem::take(&mut self.flights) {
            if flight.effect.is_none() && chance.one_in(2) {
                self.land_partly(&flight.io, chance);
            }
        }
        if power {
            for (block, value) in core::mem::take(&mut self.memory) {
                if chance.one_in(2) {
                    self.durable.insert(block, value);
                }
            }
        }
        self.buffers.clear();
        self.wanted_buffers.clear();
        self.completed.clear();
        self.fetched.clear();
        self.told.clear();
        self.outbox.clear();
    }

    fn land_partly(&mut self, io: &Io, chance: &mut Chance) {
        match io {
            Io::Write {
                offset, payload, ..
            } => {
                for (block, value) in (offset / BLOCK..).zip(self.blocks(payload)) {
                    if chance.one_in(2) {
                        self.memory.insert(block, value);
                    }
                }
            }
            Io::Zero { extent, .. } | Io::Discard { extent, .. } => {
                for block in blocks_of(*extent) {
                    if chance.one_in(2) {
                        self.memory.insert(block, 0);
                    }
                }
            }
            Io::WriteMeta { offset, bytes } => {
                for (sector, content) in bytes.chunks(512).enumerate() {
                    let at = usize::try_from(*offset).unwrap() + sector * 512;
                    match chance.below(3) {
                        0 => self.meta[at..at + content.len()].copy_from_slice(content),
                        1 => self.meta[at] ^= 0x55,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn value(&self, block: u64) -> u64 {
        self.memory
            .get(&block)
            .or_else(|| self.durable.get(&block))
            .copied()
            .unwrap_or(0)
    }

    pub(super) fn durable_value(&self, block: u64) -> u64 {
        self.durable.get(&block).copied().unwrap_or(0)
    }

    // ---- buffers

    pub(super) fn allocate(&mut self, values: Vec<u64>) -> BufferId {
        self.next_buffer += 1;
        self.buffers.insert(
            self.next_buffer,
            Buffer {
                values,
                refs: 1,
                lent: 0,
            },
        );
        BufferId {
            slot: self.next_buffer,
            generation: 1,
        }
    }

    fn buffer(&mut self, id: BufferId) -> &mut Buffer {
        self.buffers
            .get_mut(&id.slot)
            .expect("a buffer is used only while somebody holds it")
    }

    pub(super) fn values(&self, id: BufferId) -> &[u64] {
        &self.buffers[&id.slot].values
    }

    pub(super) fn release(&mut self, id: BufferId) {
        let buffer = self.buffer(id);
        buffer.refs -= 1;
        if buffer.refs == 0 {
            assert_eq!(buffer.lent, 0);
            self.buffers.remove(&id.slot);
        }
    }

    pub(super) fn live_buffers(&self) -> usize {
        self.buffers.len()
    }

    fn lend(&mut self, id: BufferId) {
        let buffer = self.buffer(id);
        buffer.refs += 1;
        buffer.lent += 1;
    }

    fn give_back(&mut self, id: BufferId) {
        self.buffer(id).lent -= 1;
        self.release(id);
    }

    fn blocks(&self, payload: &Payload) -> Vec<u64> {
        let at = usize::try_from(u64::from(payload.at) / BLOCK).unwrap();
        let len = usize::try_from(u64::from(payload.len) / BLOCK).unwrap();
        let values = self.values(payload.buffer)[at..at + len].to_vec();
        assert_eq!(
            sum(&values),
            payload.crc,
            "a payload keeps its checksum from end to end"
        );
        values
    }

    pub(super) fn write_of(&mut self, first: u64, values: &[u64]) -> Operation {
        let buffer = self.allocate(values.to_vec());
        let len = u32::try_from(values.len() as u64 * BLOCK).unwrap();
        let payload = Payload {
            buffer,
            at: 0,
            len,
            crc: sum(values),
        };
        Operation::Write {
            extent: Extent {
                offset: first * BLOCK,
                len: u64::from(len),
            },
            payload,
            fua: false,
        }
    }

    // ---- the volume

    /// Gives the volume an event and takes up what it wants done.
    pub(super) fn with(
        &mut self,
        world: Time,
        event: impl FnOnce(&mut Volume, Time, &mut Vec<VolumeAction>),
    ) {
        let now = world + self.ahead;
        let Some(volume) = &mut self.volume else {
            return;
        };
        let mut actions = Vec::new();
        event(volume, now, &mut actions);
        for action in actions {
            self.take_up(action);
        }
    }

    fn take_up(&mut self, action: VolumeAction) {
        match action {
            VolumeAction::Io { id, io } => {
                self.check_intended(&io);
                match &io {
                    Io::Write { payload, .. } => self.lend(payload.buffer),
                    Io::Read { buffer, .. } => {
                        assert_eq!(
                            self.buffer(*buffer).lent,
                            0,
                            "nothing is read into a buffer that is lent"
                        );
                        self.buffer(*buffer).refs += 1;
                    }
                    Io::Hash { buffer, .. } | Io::Crc { buffer, .. } => {
                        self.buffer(*buffer).refs += 1
                    }
                    _ => {}
                }
                self.flights.push(Flight {
                    id,
                    io,
                    effect: None,
                });
            }
            VolumeAction::Send {
                channel,
                fields,
                body,
            } => {
                if let FrameBody::Blocks(payload) = &body {
                    self.lend(payload.buffer);
                }
                self.outbox.push((channel, fields, body));
            }
            VolumeAction::Complete { ticket, result } => self.completed.push((ticket, result)),
            VolumeAction::Fetched { ticket, buffer } => self.fetched.push((ticket, buffer)),
            VolumeAction::Release { buffer } => self.release(buffer),
            VolumeAction::NeedBuffer { request, len } => self.wanted_buffers.push((request, len)),
            VolumeAction::State { kind, bytes } => self.states.push((kind, bytes)),
            VolumeAction::Tell(word) => self.told.push(word),
        }
    }

    /// A bit is durable before a write of its region is submitted, except at a target, whose
    /// record says that it is inconsistent.
    fn check_intended(&self, io: &Io) {
        let volume = self.volume.as_ref().expect("only a volume acts");
        if volume.role() == Role::Target || volume.spec.partner.is_none() {
            return;
        }
        let extent = match io {
            Io::Write {
                offset, payload, ..
            } => Extent {
                offset: *offset,
                len: u64::from(payload.len),
            },
            Io::Zero { extent, .. } | Io::Discard { extent, .. } => *extent,
            _ => return,
        };
        let at = usize::try_from(INTENTS_OFFSET).unwrap();
        let mut durable = Intents::new(VolumeId(1), self.size, MAX_SET);
        durable.load(0, &self.meta[at..at + 512]);
        for region in extent.offset / REGION..=(extent.end() - 1) / REGION {
            assert!(
                durable.regions().any(|set| set == region),
                "region {region} is written without a durable intent"
            );
        }
    }

    /// A frame leaves: blocks go by value.
    pub(super) fn wire(&mut self, body: FrameBody) -> Wire {
        match body {
            FrameBody::None => Wire::None,
            FrameBody::Bytes(bytes) => Wire::Bytes(bytes),
            FrameBody::Blocks(payload) => {
                let values = self.blocks(&payload);
                self.give_back(payload.buffer);
                Wire::Blocks(values, payload.crc)
            }
        }
    }

    /// Whether the disk may go on with this one at present.
    pub(super) fn moves(&self, which: usize, now: Time) -> bool {
        let flight = &self.flights[which];
        let hangs = now < self.hung_until && matches!(flight.io, Io::Read { .. });
        !hangs && !self.held.contains(&flight.id)
    }

    /// Whether the disk has a write of blocks that it has not done.
    pub(super) fn is_writing(&self) -> bool {
        let write = |it: &Flight| matches!(it.io, Io::Write { .. }) && it.effect.is_none();
        self.flights.iter().any(write)
    }

    pub(super) fn is_writing_metadata(&self) -> bool {
        let write = |it: &Flight| matches!(it.io, Io::WriteMeta { .. }) && it.effect.is_none();
        self.flights.iter().any(write)
    }

    /// The disk takes its time over all that it has now, and over nothing that comes later.
    pub(super) fn hold(&mut self) {
        self.held = self.flights.iter().map(|it| it.id).collect();
    }

    pub(super) fn let_go(&mut self) {
        self.held.clear();
    }

    /// The disk does one thing of those under way, or reports one that it did.
    pub(super) fn disk_step(&mut self, which: usize, now: Time) {
        if self.flights[which].effect.is_none() {
            let io = self.flights[which].io.clone();
            self.flights[which].effect = Some(self.execute(&io));
            return;
        }
        let flight = self.flights.swap_remove(which);
        match flight.io {
            Io::Write { payload, .. } => self.give_back(payload.buffer),
            Io::Read { buffer, .. } | Io::Hash { buffer, .. } | Io::Crc { buffer, .. } => {
                self.release(buffer)
            }
            _ => {}
        }
        let result = flight.effect.expect("executed before");
        self.with(now, |volume, now, out| {
            volume.io_done(now, flight.id, result, out)
        });
    }

    fn put(&mut self, block: u64, value: u64, durable: bool) {
        if durable {
            self.memory.remove(&block);
            self.durable.insert(block, value);
        } else {
            self.memory.insert(block, value);
        }
    }

    fn execute(&mut self, io: &Io) -> Result<Value, IoError> {
        match io {
            Io::Read { extent, buffer, at } => {
                let role = self.volume.as_ref().map(Volume::role);
                // The last copy of anything is spared where `weak`.
                let spared =
                    self.weak && !matches!(role, Some(Role::Owner | Role::Replica | Role::Target));
                if !spared && blocks_of(*extent).any(|block| self.unreadable.contains(&block)) {
                    return Err(IoError::Unreadable);
                }
                let values: Vec<u64> = blocks_of(*extent).map(|block| self.value(block)).collect();
                let at = usize::try_from(u64::from(*at) / BLOCK).unwrap();
                self.buffer(*buffer).values[at..at + values.len()].copy_from_slice(&values);
            }
            Io::Write { .. } | Io::Zero { .. } | Io::Discard { .. } | Io::Flush
                if self.fail_writes =>
            {
                return Err(IoError::WriteFailed);
            }
            Io::Write {
                offset,
                payload,
                durable,
            } => {
                for (block, value) in (offset / BLOCK..).zip(self.blocks(payload)) {
                    if !self.dead.contains(&block) {
                        self.unreadable.remove(&block);
                    }
                    self.put(block, value, *durable);
                }
            }
            Io::Zero { extent, durable } | Io::Discard { extent, durable } => {
                for block in blocks_of(*extent) {
                    self.unreadable.remove(&block);
                    self.put(block, 0, *durable);
                }
            }
            Io::Flush => {
                let memory = core::mem::take(&mut self.memory);
                self.durable.extend(memory);
            }
            Io::ReadMeta { offset, len } => {
                let at = usize::try_from(*offset).unwrap();
                return Ok(Value::Bytes(self.meta[at..at + *len as usize].into()));
            }
            Io::WriteMeta { offset, bytes } => {
                let at = usize::try_from(*offset).unwrap();
                self.meta[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Io::Crc { buffer, at, len } => {
                let at = usize::try_from(u64::from(*at) / BLOCK).unwrap();
                let len = usize::try_from(u64::from(*len) / BLOCK).unwrap();
                return Ok(Value::Crc(sum(&self.values(*buffer)[at..at + len])));
            }
            Io::Hash {
                buffer, len, piece, ..
            } => {
                let blocks = usize::try_from(u64::from(*len) / BLOCK).unwrap();
                let piece = usize::try_from(u64::from(*piece) / BLOCK).unwrap();
                let hashes = self.values(*buffer)[..blocks]
                    .chunks(piece)
                    .flat_map(hash)
                    .collect::<Vec<u8>>();
                return Ok(Value::Hashes(hashes.into_boxed_slice()));
            }
            Io::Compare { .. } | Io::Fill { .. } | Io::Put { .. } => {
                unreachable!("not used by the mirror")
            }
        }
        Ok(Value::Done)
    }
}

pub(super) fn blocks_of(extent: Extent) -> core::ops::Range<u64> {
    extent.offset / BLOCK..extent.end() / BLOCK
}

pub(super) fn sum(values: &[u64]) -> u32 {
    values.iter().fold(7, |sum, value| {
        crc32c::crc32c_append(sum, &value.to_be_bytes())
    })
}

fn hash(values: &[u64]) -> [u8; 16] {
    let mut hash = [0; 16];
    hash[..4].copy_from_slice(&sum(values).to_be_bytes());
    hash[4..12].copy_from_slice(
        &values
            .iter()
            .fold(0, |sum: u64, value| {
                sum.wrapping_mul(31).wrapping_add(*value)
            })
            .to_be_bytes(),
    );
    hash
}
