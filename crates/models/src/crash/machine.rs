//! One machine: a disk, a metadata area, buffers and the real data path. An operation of the disk
//! takes effect when it is completed; one that is under way at a crash has happened, or has in
//! part, or has not.

use super::{BLOCK, Choice, SIZE, VOLUME};
use lockstep_mirror::control::{CacheMode, FromVolume, Incarnation, NodeId, Time, VolumeSpec};
use lockstep_mirror::dirty::Dirty;
use lockstep_mirror::fields::Fields;
use lockstep_mirror::intents::{Intents, MAX_SET};
use lockstep_mirror::metadata_layout::{
    CHUNK, INTENTS_OFFSET, REGION, dirty_offset, events_offset, intent_sectors,
};
use lockstep_mirror::operation::{BufferId, Extent, Payload};
use lockstep_mirror::volume::Volume;
use lockstep_mirror::volume_action::{ChannelId, FrameBody, Refusal, Ticket, VolumeAction};
use lockstep_mirror::volume_io::{Io, IoError, IoId, Value};
use std::collections::{BTreeMap, VecDeque};

/// What travels on a channel: blocks by value.
pub(super) enum Sent {
    Body(FrameBody),
    Blocks(Vec<u64>, u32),
}

pub(super) struct Flight {
    pub(super) order: u64,
    id: IoId,
    pub(super) io: Io,
}

pub(super) struct Machine {
    pub(super) me: NodeId,
    pub(super) run: u64,
    pub(super) volume: Option<Volume>,
    /// Blocks that are not zero.
    pub(super) image: BTreeMap<u64, u64>,
    pub(super) meta: Vec<u8>,
    buffers: Vec<Vec<u64>>,
    pub(super) flights: Vec<Flight>,
    pub(super) words: VecDeque<FromVolume>,
    pub(super) sent: Vec<(ChannelId, Fields, Sent)>,
    pub(super) completed: Vec<(Ticket, Result<(), Refusal>)>,
    /// Metadata that were reported as durable and are not: only where a rule is left out.
    pub(super) unflushed: Vec<(u64, Box<[u8]>)>,
}

impl Machine {
    pub(super) fn new(me: NodeId) -> Self {
        let len = usize::try_from(events_offset(SIZE)).expect("a small area");
        Self {
            me,
            run: 0,
            volume: None,
            image: BTreeMap::new(),
            meta: vec![0; len],
            buffers: Vec::new(),
            flights: Vec::new(),
            words: VecDeque::new(),
            sent: Vec::new(),
            completed: Vec::new(),
            unflushed: Vec::new(),
        }
    }

    pub(super) fn start(&mut self) {
        self.run += 1;
        self.volume = Some(Volume::new(VolumeSpec {
            id: VOLUME,
            size: SIZE,
            block_size: 4096,
            cache: CacheMode::WriteThrough,
            me: self.me,
            partner: Some(NodeId(3 - self.me.0)),
            incarnation: self.incarnation(),
        }));
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        Incarnation(self.run << 8 | u64::from(self.me.0))
    }

    /// The process is gone, and with it the power: what is under way has happened or not.
    pub(super) fn crash(&mut self, choice: &mut Choice) {
        self.volume = None;
        for (offset, bytes) in std::mem::take(&mut self.unflushed) {
            if choice.of(2) == 0 {
                self.put_meta(offset, &bytes);
            }
        }
        for flight in std::mem::take(&mut self.flights) {
            self.land_partly(&flight.io, choice);
        }
        self.buffers.clear();
        self.words.clear();
        self.sent.clear();
        self.completed.clear();
    }

    fn land_partly(&mut self, io: &Io, choice: &mut Choice) {
        match io {
            Io::Write {
                offset, payload, ..
            } => {
                let values = self.blocks(payload);
                let landed = match choice.of(if values.len() > 1 { 3 } else { 2 }) {
                    0 => 0,
                    1 => values.len(),
                    _ => values.len() / 2,
                };
                self.put(offset / BLOCK, &values[..landed]);
            }
            Io::WriteMeta { offset, bytes } => {
                // Nothing, all, each prefix of sectors, and each with the next sector torn.
                let sectors = bytes.len() / 512;
                let cut = choice.of(2 * sectors + 1);
                let whole = cut.div_ceil(2);
                self.put_meta(*offset, &bytes[..whole * 512]);
                if cut % 2 == 1 {
                    // The last of these is torn: half of it is new.
                    let at = usize::try_from(*offset).expect("a small area") + whole * 512 - 256;
                    for byte in &mut self.meta[at..at + 256] {
                        *byte ^= 0x5a;
                    }
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, first: u64, values: &[u64]) {
        for (block, value) in (first..).zip(values) {
            if *value == 0 {
                self.image.remove(&block);
            } else {
                self.image.insert(block, *value);
            }
        }
    }

    fn put_meta(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).expect("a small area");
        self.meta[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Whether the durable metadata say that this block may differ from the other copy.
    pub(super) fn marks(&self, block: u64) -> bool {
        let at = usize::try_from(INTENTS_OFFSET).expect("a small area");
        let len = usize::try_from(intent_sectors(SIZE)).expect("a small area") * 512;
        let mut intents = Intents::new(VOLUME, SIZE, MAX_SET);
        intents.load(0, &self.meta[at..at + len]);
        let at = usize::try_from(dirty_offset(SIZE)).expect("a small area");
        let mut dirty = Dirty::new(VOLUME, SIZE);
        dirty.load(0, &self.meta[at..]);
        let region = block * BLOCK / REGION;
        dirty.is_marked(block * BLOCK / CHUNK) || intents.regions().any(|it| it == region)
    }

    pub(super) fn buffer_of(&mut self, values: Vec<u64>) -> BufferId {
        self.buffers.push(values);
        BufferId {
            slot: u32::try_from(self.buffers.len()).expect("a short run"),
            generation: 1,
        }
    }

    fn buffer(&mut self, id: BufferId) -> &mut Vec<u64> {
        &mut self.buffers[id.slot as usize - 1]
    }

    fn blocks(&self, payload: &Payload) -> Vec<u64> {
        let (at, len) = (blocks_in(payload.at), blocks_in(payload.len));
        self.buffers[payload.buffer.slot as usize - 1][at..at + len].to_vec()
    }

    /// Gives the volume an event, and takes up what it wants done.
    pub(super) fn with(
        &mut self,
        now: Time,
        order: &mut u64,
        event: impl FnOnce(&mut Volume, Time, &mut Vec<VolumeAction>),
    ) {
        let Some(volume) = &mut self.volume else {
            return;
        };
        let mut actions = Vec::new();
        event(volume, now, &mut actions);
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                VolumeAction::Io { id, io } => {
                    *order += 1;
                    let order = *order;
                    self.flights.push(Flight { order, id, io });
                }
                VolumeAction::Send {
                    channel,
                    fields,
                    body,
                } => {
                    let sent = match body {
                        FrameBody::Blocks(payload) => {
                            Sent::Blocks(self.blocks(&payload), payload.crc)
                        }
                        body => Sent::Body(body),
                    };
                    self.sent.push((channel, fields, sent));
                }
                VolumeAction::Complete { ticket, result } => {
                    self.completed.push((ticket, result));
                }
                VolumeAction::NeedBuffer { request, len } => {
                    let buffer = self.buffer_of(vec![0; blocks_in(len)]);
                    let mut more = Vec::new();
                    if let Some(volume) = &mut self.volume {
                        volume.buffer(now, request, buffer, &mut more);
                    }
                    actions.extend(more);
                }
                VolumeAction::Tell(word) => self.words.push_back(word),
                VolumeAction::Fetched { .. }
                | VolumeAction::Release { .. }
                | VolumeAction::State { .. } => {}
            }
        }
    }

    /// One operation of the disk is completed. `honest`: what is said to be durable is.
    pub(super) fn complete(&mut self, which: usize, now: Time, order: &mut u64, honest: bool) {
        let flight = self.flights.remove(which);
        let result = self.execute(&flight.io, honest);
        self.with(now, order, |volume, now, out| {
            volume.io_done(now, flight.id, result, out);
        });
    }

    fn execute(&mut self, io: &Io, honest: bool) -> Result<Value, IoError> {
        match io {
            Io::Read { extent, buffer, at } => {
                let values: Vec<u64> = blocks_of(*extent)
                    .map(|block| self.image.get(&block).copied().unwrap_or(0))
                    .collect();
                let at = blocks_in(*at);
                self.buffer(*buffer)[at..at + values.len()].copy_from_slice(&values);
            }
            Io::Write {
                offset, payload, ..
            } => {
                let values = self.blocks(payload);
                self.put(offset / BLOCK, &values);
            }
            Io::Zero { extent, .. } | Io::Discard { extent, .. } => {
                self.image
                    .retain(|block, _| !blocks_of(*extent).contains(block));
            }
            Io::ReadMeta { offset, len } => {
                let at = usize::try_from(*offset).expect("a small area");
                return Ok(Value::Bytes(self.meta[at..at + *len as usize].into()));
            }
            Io::WriteMeta { offset, bytes } if honest => self.put_meta(*offset, bytes),
            Io::WriteMeta { offset, bytes } => {
                // The one before it is on the disk at last.
                for (offset, bytes) in std::mem::take(&mut self.unflushed) {
                    self.put_meta(offset, &bytes);
                }
                self.unflushed.push((*offset, bytes.clone()));
            }
            Io::Crc { buffer, at, len } => {
                let (at, len) = (blocks_in(*at), blocks_in(*len));
                return Ok(Value::Crc(sum(&self.buffer(*buffer)[at..at + len])));
            }
            Io::Hash {
                buffer,
                at,
                len,
                piece,
            } => {
                let (at, len) = (blocks_in(*at), blocks_in(*len));
                let hashes: Vec<u8> = self.buffer(*buffer)[at..at + len]
                    .chunks(blocks_in(*piece))
                    .flat_map(hash)
                    .collect();
                return Ok(Value::Hashes(hashes.into()));
            }
            Io::Flush | Io::Compare { .. } | Io::Fill { .. } | Io::Put { .. } => {}
        }
        Ok(Value::Done)
    }
}

fn blocks_in(bytes: u32) -> usize {
    usize::try_from(u64::from(bytes) / BLOCK).expect("a small buffer")
}

const fn blocks_of(extent: Extent) -> std::ops::Range<u64> {
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
    let mixed = values.iter().fold(0_u64, |sum, value| {
        sum.wrapping_mul(31).wrapping_add(*value)
    });
    hash[4..12].copy_from_slice(&mixed.to_be_bytes());
    hash
}
