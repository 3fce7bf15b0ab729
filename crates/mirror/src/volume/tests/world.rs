//! Two machines, the channels between them, and the record of what clients were told.

use super::machine::{BLOCK, Chance, Machine, Wire, blocks_of};
use crate::control::{CacheMode, Incarnation, NodeId, Time};
use crate::fields::Fields;
use crate::operation::{BufferId, Extent, Operation, Payload};
use crate::volume_action::{ChannelId, FrameBody, Refusal, Ticket};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

/// Four regions of 16 MiB.
pub(super) const SIZE: u64 = 64 << 20;

enum Body {
    /// Still lies in the sender's buffers.
    Queued(FrameBody),
    Sent(Wire),
}

pub(super) struct Channel {
    id: ChannelId,
    open: [bool; 2],
    broken: bool,
    queues: [VecDeque<(Fields, Body)>; 2],
    /// Nothing is delivered for now, though nobody notices.
    pub(super) stuck: bool,
}

impl Channel {
    /// Frames under way from a node.
    pub(super) fn queued(&self, from: usize) -> usize {
        self.queues[from].len()
    }
}

/// One operation of a client.
pub(super) struct Request {
    pub(super) node: usize,
    pub(super) kind: Kind,
    pub(super) first: u64,
    pub(super) blocks: u64,
    pub(super) result: Option<Result<(), Refusal>>,
    /// What a read must return at least, per block, as it was when it began.
    floors: Vec<u64>,
    buffer: Option<BufferId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Write(u64),
    Read,
    Flush,
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) chance: Chance,
    pub(super) machines: [Machine; 2],
    pub(super) channels: Vec<Channel>,
    next_channel: u64,
    next_ticket: u64,
    pub(super) requests: BTreeMap<Ticket, Request>,
    /// Values that reads have returned, of the last requests answered.
    pub(super) read_values: BTreeMap<Ticket, Vec<u64>>,
    /// Per block: no read may return a smaller value any more. Values of a block only grow.
    pub(super) floor: BTreeMap<u64, u64>,
    /// Per block: the greatest value that was ever submitted.
    pub(super) ceiling: BTreeMap<u64, u64>,
    /// Blocks that several clients write: only which values there may be is known of them.
    pub(super) shared: core::ops::Range<u64>,
    pub(super) acknowledged: u64,
    /// Which nodes must hold what is acknowledged now, by who acknowledges it.
    pub(super) must_hold: [[bool; 2]; 2],
    pub(super) log: Vec<alloc::string::String>,
}

impl World {
    pub(super) fn new(cache: CacheMode, seed: u64) -> Self {
        Self {
            now: Time::from_secs(100),
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            machines: [
                Machine::new(NodeId(1), SIZE, cache),
                Machine::new(NodeId(2), SIZE, cache),
            ],
            channels: Vec::new(),
            next_channel: 1,
            next_ticket: 1,
            requests: BTreeMap::new(),
            read_values: BTreeMap::new(),
            floor: BTreeMap::new(),
            ceiling: BTreeMap::new(),
            shared: 200..232,
            acknowledged: 0,
            must_hold: [[true, true], [true, true]],
            log: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, line: alloc::string::String) {
        let line = alloc::format!("{:9.3} {line}", self.now.as_secs_f64());
        if std::env::var_os("TRACE").is_some() {
            std::eprintln!("{line}");
        }
        self.log.push(line);
    }

    /// Gives a volume an event, and takes up what came of it.
    pub(super) fn with(
        &mut self,
        node: usize,
        event: impl FnOnce(
            &mut crate::volume::Volume,
            Time,
            &mut Vec<crate::volume_action::VolumeAction>,
        ),
    ) {
        let now = self.now;
        self.machines[node].with(now, event);
        self.take_up(node);
    }

    fn take_up(&mut self, node: usize) {
        for (channel, fields, body) in core::mem::take(&mut self.machines[node].outbox) {
            match self
                .channels
                .iter_mut()
                .find(|known| known.id == channel && known.open[node] && !known.broken)
            {
                Some(channel) => channel.queues[node].push_back((fields, Body::Queued(body))),
                None => drop(self.machines[node].wire(body)),
            }
        }
        for (ticket, buffer) in core::mem::take(&mut self.machines[node].fetched) {
            let request = self
                .requests
                .get_mut(&ticket)
                .expect("a read was asked for");
            let before = request.buffer.replace(buffer).expect("a read has a buffer");
            self.machines[node].release(before);
        }
        for (ticket, result) in core::mem::take(&mut self.machines[node].completed) {
            self.complete(node, ticket, result);
        }
    }

    // ---- channels

    pub(super) fn connect(&mut self) {
        let id = ChannelId(self.next_channel);
        self.next_channel += 1;
        self.channels.push(Channel {
            id,
            open: [true, true],
            broken: false,
            queues: [VecDeque::new(), VecDeque::new()],
            stuck: false,
        });
        for node in 0..2 {
            let partner = self.machines[1 - node].incarnation;
            self.with(node, |volume, now, out| {
                volume.channel_up(now, id, partner, out)
            });
        }
    }

    /// Cuts a channel: some of what is on it is lost, each side notices in its own time.
    pub(super) fn cut(&mut self, which: usize) {
        self.channels[which].broken = true;
        for from in 0..2 {
            let keep = self
                .chance
                .below(self.channels[which].queues[from].len() as u64 + 1);
            let lost = self.channels[which].queues[from].split_off(usize::try_from(keep).unwrap());
            for (_, body) in lost {
                self.wire(from, body);
            }
        }
    }

    fn wire(&mut self, from: usize, body: Body) -> Wire {
        match body {
            Body::Queued(body) => self.machines[from].wire(body),
            Body::Sent(wire) => wire,
        }
    }

    pub(super) fn close_end(&mut self, which: usize, node: usize) {
        let id = self.channels[which].id;
        self.channels[which].open[node] = false;
        self.with(node, |volume, now, out| volume.channel_down(now, id, out));
        if self.channels[which].open == [false, false] {
            let channel = self.channels.remove(which);
            for (from, queue) in channel.queues.into_iter().enumerate() {
                for (_, body) in queue {
                    self.wire(from, body);
                }
            }
        }
    }

    fn deliver(&mut self, which: usize, from: usize) {
        let (fields, body) = self.channels[which].queues[from].pop_front().unwrap();
        let id = self.channels[which].id;
        let to = 1 - from;
        let wire = self.wire(from, body);
        if !self.channels[which].open[to] || self.machines[to].volume.is_none() {
            return;
        }
        let body = match wire {
            Wire::None => FrameBody::None,
            Wire::Bytes(bytes) => FrameBody::Bytes(bytes),
            Wire::Blocks(values, crc) => {
                let len = u32::try_from(values.len() as u64 * BLOCK).unwrap();
                let buffer = self.machines[to].allocate(values);
                FrameBody::Blocks(Payload {
                    buffer,
                    at: 0,
                    len,
                    crc,
                })
            }
        };
        self.with(to, |volume, now, out| {
            volume.frame(now, id, fields, body, out)
        });
    }

    /// The process of a node ends; what it had sent may still arrive.
    pub(super) fn crash(&mut self, node: usize, power: bool) {
        for which in 0..self.channels.len() {
            for _ in 0..self.channels[which].queues[node].len() {
                let (fields, body) = self.channels[which].queues[node].pop_front().unwrap();
                let wire = self.wire(node, body);
                self.channels[which].queues[node].push_back((fields, Body::Sent(wire)));
            }
            if self.channels[which].open[node] {
                self.cut(which);
            }
        }
        self.machines[node].crash(&mut self.chance, power);
        for which in (0..self.channels.len()).rev() {
            if self.channels[which].open[node] {
                self.close_end(which, node);
            }
        }
        for request in self
            .requests
            .values_mut()
            .filter(|request| request.node == node && request.result.is_none())
        {
            request.result = Some(Err(Refusal::Failed));
        }
    }

    // ---- steps

    /// One thing that machine or network has to do, chosen by chance. False: there is none.
    pub(super) fn step(&mut self) -> bool {
        enum Thing {
            Disk(usize, usize),
            Deliver(usize, usize),
            Close(usize, usize),
            Buffer(usize, usize),
        }
        let mut things = Vec::new();
        for node in 0..2 {
            let (machine, now) = (&self.machines[node], self.now);
            let moving = (0..machine.flights.len()).filter(|which| machine.moves(*which, now));
            things.extend(moving.map(|which| Thing::Disk(node, which)));
            things.extend(
                (0..self.machines[node].wanted_buffers.len())
                    .map(|which| Thing::Buffer(node, which)),
            );
        }
        for (which, channel) in self.channels.iter().enumerate() {
            for node in 0..2 {
                if !channel.queues[node].is_empty() && !channel.stuck {
                    things.push(Thing::Deliver(which, node));
                }
                if channel.broken && channel.open[node] {
                    things.push(Thing::Close(which, node));
                }
            }
        }
        if things.is_empty() {
            return false;
        }
        let which = usize::try_from(self.chance.below(things.len() as u64)).unwrap();
        match things[which] {
            Thing::Disk(node, which) => {
                let now = self.now;
                self.machines[node].disk_step(which, now);
                self.take_up(node);
            }
            Thing::Deliver(which, from) => self.deliver(which, from),
            Thing::Close(which, node) => self.close_end(which, node),
            Thing::Buffer(node, which) => {
                let (request, len) = self.machines[node].wanted_buffers.swap_remove(which);
                let buffer =
                    self.machines[node].allocate(vec![
                        0;
                        usize::try_from(u64::from(len) / BLOCK)
                            .unwrap()
                    ]);
                self.with(node, |volume, now, out| {
                    volume.buffer(now, request, buffer, out)
                });
            }
        }
        true
    }

    /// Time passes; timers that are due fire.
    pub(super) fn pass(&mut self, time: Time) {
        self.now += time;
        for node in 0..2 {
            let now = self.now + self.machines[node].ahead;
            if self.machines[node]
                .volume
                .as_ref()
                .and_then(|volume| volume.next_deadline())
                .is_some_and(|at| at <= now)
            {
                self.with(node, |volume, now, out| volume.timer(now, out));
            }
        }
    }

    /// Until nothing moves any more, for `time` at least.
    pub(super) fn run(&mut self, time: Time) {
        let end = self.now + time;
        loop {
            while self.step() {}
            if self.now >= end {
                return;
            }
            self.pass(Time::from_millis(20));
        }
    }

    // ---- clients

    pub(super) fn write(&mut self, node: usize, first: u64, blocks: u64) -> Ticket {
        let value = (first..first + blocks)
            .map(|block| self.ceiling.get(&block).copied().unwrap_or(0))
            .max()
            .unwrap()
            + 1;
        for block in first..first + blocks {
            self.ceiling.insert(block, value);
        }
        let operation =
            self.machines[node].write_of(first, &vec![value; usize::try_from(blocks).unwrap()]);
        let ticket = self.request(node, Kind::Write(value), first, blocks, None);
        self.with(node, |volume, now, out| {
            volume.submit(now, ticket, operation, out)
        });
        ticket
    }

    pub(super) fn submit(&mut self, node: usize, operation: Operation) -> Ticket {
        let ticket = self.request(node, Kind::Flush, 0, 0, None);
        self.with(node, |volume, now, out| {
            volume.submit(now, ticket, operation, out)
        });
        ticket
    }

    pub(super) fn read(&mut self, node: usize, first: u64, blocks: u64) -> Ticket {
        let buffer = self.machines[node].allocate(vec![u64::MAX; usize::try_from(blocks).unwrap()]);
        let ticket = self.request(node, Kind::Read, first, blocks, Some(buffer));
        let extent = Extent {
            offset: first * BLOCK,
            len: blocks * BLOCK,
        };
        self.with(node, |volume, now, out| {
            volume.read(now, ticket, extent, buffer, 0, out)
        });
        ticket
    }

    pub(super) fn flush(&mut self, node: usize) -> Ticket {
        let ticket = self.request(node, Kind::Flush, 0, 0, None);
        self.with(node, |volume, now, out| volume.flush(now, ticket, out));
        ticket
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) {
        let node = self.requests[&ticket].node;
        self.with(node, |volume, now, out| volume.cancel(now, ticket, out));
    }

    fn request(
        &mut self,
        node: usize,
        kind: Kind,
        first: u64,
        blocks: u64,
        buffer: Option<BufferId>,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let floors = (first..first + blocks)
            .map(|block| self.floor.get(&block).copied().unwrap_or(0))
            .collect();
        self.requests.insert(
            ticket,
            Request {
                node,
                kind,
                first,
                blocks,
                result: None,
                floors,
                buffer,
            },
        );
        ticket
    }

    fn complete(&mut self, node: usize, ticket: Ticket, result: Result<(), Refusal>) {
        let request = self
            .requests
            .get_mut(&ticket)
            .expect("only what was asked is answered");
        assert_eq!(request.node, node);
        assert_eq!(request.result, None, "everything is answered once");
        request.result = Some(result);
        let (kind, first, blocks) = (request.kind, request.first, request.blocks);
        let floors = core::mem::take(&mut request.floors);
        let buffer = request.buffer.take();
        match (kind, result) {
            (Kind::Write(value), Ok(())) => {
                self.acknowledged += 1;
                self.check_held(node, first, blocks, value);
                for block in (first..first + blocks).filter(|block| !self.shared.contains(block)) {
                    let floor = self.floor.entry(block).or_insert(0);
                    *floor = value.max(*floor);
                }
            }
            (Kind::Read, Ok(())) => {
                let values = self.machines[node].values(buffer.unwrap()).to_vec();
                for (index, value) in values.iter().enumerate() {
                    let block = first + index as u64;
                    let ceiling = self.ceiling.get(&block).copied().unwrap_or(0);
                    assert!(
                        *value >= floors[index],
                        "a read of block {block} through {node} went back: {value} after {}",
                        floors[index]
                    );
                    assert!(
                        *value <= ceiling,
                        "a read of block {block} returned what nobody wrote: {value}"
                    );
                    if !self.shared.contains(&block) {
                        let floor = self.floor.entry(block).or_insert(0);
                        *floor = (*value).max(*floor);
                    }
                }
                self.read_values.insert(ticket, values);
            }
            _ => {}
        }
        if let Some(buffer) = buffer {
            self.machines[node].release(buffer);
        }
    }

    /// Acknowledged means on every member, as durable as the cache mode says.
    fn check_held(&self, node: usize, first: u64, blocks: u64, value: u64) {
        for block in (first..first + blocks).filter(|block| !self.shared.contains(block)) {
            for (holder, machine) in self
                .machines
                .iter()
                .enumerate()
                .filter(|(holder, _)| self.must_hold[node][*holder])
            {
                let held = if machine.cache == CacheMode::WriteBack {
                    machine.value(block)
                } else {
                    machine.durable_value(block)
                };
                assert!(
                    held >= value,
                    "block {block} was acknowledged by {node} as {value}, but {holder} holds {held}"
                );
            }
        }
    }

    pub(super) fn result(&self, ticket: Ticket) -> Option<Result<(), Refusal>> {
        self.requests[&ticket].result
    }

    pub(super) fn differences(&self) -> Vec<(u64, u64, u64)> {
        let blocks = blocks_of(Extent {
            offset: 0,
            len: SIZE,
        });
        blocks
            .map(|block| {
                (
                    block,
                    self.machines[0].value(block),
                    self.machines[1].value(block),
                )
            })
            .filter(|(_, a, b)| a != b)
            .collect()
    }

    pub(super) fn incarnation(&self, node: usize) -> Incarnation {
        self.machines[node].incarnation
    }
}
