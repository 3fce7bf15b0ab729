//! All connections of a shard: what comes in goes to the shard as it wants it.
//!
//! Small wants are met from the connection's inbox, which one receive fills with as much as there
//! is; of large ones, what the inbox has is copied and the rest is received in place.

use super::connection::{Connection, INBOX_BYTES, Parcel, Phase, Receiving};
use super::door::{Door, TAKEN_A_TURN};
use super::tokens::Owner;
use crate::crc;
use crate::pool::settings;
use crate::recorder::{self, Recorder};
use lockstep_engine::interface::iscsi::ConnId;
use lockstep_engine::interface::{Action, Event, Origin, Want};
use lockstep_engine::shard::Shard;
use lockstep_mirror::control::Time;
use lockstep_mirror::operation::BufferId;
use lockstep_uring::{Arena, Errno, Op, Ring, net};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// Connections of a shard: as many as the iSCSI layer takes (it decides whom it turns away), some
/// that are being closed, and the partner's. Their inboxes are occupied when first used: 128 MiB
/// if all are.
pub(super) const CONNECTIONS_MAX: u32 = settings::CONNECTIONS_MAX + 48 + PARTNERS;
/// Connections that are kept free for the partner: 16 data channels, each with a successor.
const PARTNERS: u32 = 32;
/// From here on receiving in place beats copying (measured: about 64 KiB).
const IN_PLACE_MIN: u32 = 64 << 10;
/// What a receive into the inbox asks for while large data come in: some headers.
const APPETITE_MIN: u32 = 4096;
/// Room that the inbox must have behind what it holds; otherwise that is moved to its start.
const ROOM_MIN: u32 = 64 << 10;

/// What every step on connections works with.
pub(super) struct Core {
    pub ring: Ring,
    pub arena: Arena,
    pub shard: Shard,
    pub now: Time,
    pub actions: Vec<Action>,
    pub recorder: Option<Recorder>,
}

impl Core {
    pub(super) fn event(&mut self, event: Event<'_>) {
        self.arena_and_taker().1.take(event);
    }

    /// The arena beside what takes events, for events that lend bytes of it.
    fn arena_and_taker(&mut self) -> (&mut Arena, Taker<'_>) {
        let taker = Taker {
            shard: &mut self.shard,
            now: self.now,
            actions: &mut self.actions,
            recorder: self.recorder.as_ref(),
        };
        (&mut self.arena, taker)
    }
}

/// Gives events to the shard: every one comes by here, so that a recording has them all.
struct Taker<'a> {
    shard: &'a mut Shard,
    now: Time,
    actions: &'a mut Vec<Action>,
    recorder: Option<&'a Recorder>,
}

impl Taker<'_> {
    fn take(self, event: Event<'_>) {
        let Some(recorder) = self.recorder else {
            self.shard.handle(self.now, event, self.actions);
            return;
        };
        let (noted, before) = (recorder::of_shard(&event), self.actions.len());
        self.shard.handle(self.now, event, self.actions);
        recorder.to_shard(self.now, noted, &self.actions[before..]);
    }
}

/// The connections.
pub(super) struct Links {
    pub(super) slots: Vec<Slot>,
    /// The first is used first, so that few inboxes are occupied.
    free: BTreeSet<u32>,
    pub(super) door: Door,
    /// The arena's slot of connection 0's inbox; those of the others follow.
    pub(super) first_inbox: u32,
    touched: Vec<u32>,
    pub(super) unsent: Vec<u32>,
    /// Parcels to be used again.
    pub(super) spare: Vec<Parcel>,
    /// Buffers that were sent, or will never be, of which the shard must be told.
    pub(super) released: Vec<BufferId>,
    pub(super) closed: Vec<ConnId>,
    /// A peer that does not read is given up after this time.
    pub(super) stall: Duration,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) sends: u64,
    pub(super) refused: u64,
    pub(super) stalled: u64,
}

#[derive(Default)]
pub(super) struct Slot {
    generation: u32,
    pub(super) connection: Option<Connection>,
}

impl Links {
    pub(super) fn new(first_inbox: u32, stall: Duration) -> Self {
        Self {
            slots: Vec::new(),
            free: BTreeSet::new(),
            door: Door::default(),
            first_inbox,
            touched: Vec::new(),
            unsent: Vec::new(),
            spare: Vec::new(),
            released: Vec::new(),
            closed: Vec::new(),
            stall,
            received_bytes: 0,
            sent_bytes: 0,
            sends: 0,
            refused: 0,
            stalled: 0,
        }
    }

    /// An accepted socket: an initiator's waits for its turn.
    pub(super) fn arrived(&mut self, core: &mut Core, socket: OwnedFd, origin: Origin) {
        if matches!(origin, Origin::Partner(_)) {
            self.insert(core, socket, origin);
        } else if !self.door.arrived(socket, origin) {
            self.refused += 1;
        }
    }

    /// Takes those who wait, as many as may come in one turn. If there is no room, whoever only
    /// lingers makes some.
    pub(super) fn take_waiting(&mut self, core: &mut Core) {
        for _ in 0..TAKEN_A_TURN.min(self.door.len()) {
            if !self.may_take() {
                self.end_a_lingering(core);
            } else if let Some((socket, origin)) = self.door.next() {
                self.insert(core, socket, origin);
            }
        }
    }

    /// Whether somebody waits and can be taken.
    pub(super) fn may_take(&self) -> bool {
        self.door.len() > 0 && self.room() > PARTNERS as usize
    }

    fn room(&self) -> usize {
        self.free.len() + CONNECTIONS_MAX as usize - self.slots.len()
    }

    /// Takes a connected socket; closes it if there are too many, or if it is gone already.
    /// Whether the shard has it now.
    pub(super) fn insert(&mut self, core: &mut Core, socket: OwnedFd, origin: Origin) -> bool {
        let patience = net::Patience {
            unacknowledged: self.stall,
            idle: Duration::from_secs(5),
            probes: 3,
        };
        let ready = net::set_options(&socket, patience).and_then(|()| net::peer(&socket));
        let (Ok(peer), 1..) = (ready, self.room()) else {
            self.refused += 1;
            return false;
        };
        self.admit(core, socket, origin, peer);
        true
    }

    fn admit(&mut self, core: &mut Core, socket: OwnedFd, origin: Origin, peer: SocketAddr) {
        let index = self.free.pop_first().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("at most CONNECTIONS_MAX")
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let id = ConnId {
            slot: index,
            generation: slot.generation,
        };
        slot.connection = Some(Connection::new(id, Rc::new(socket), origin, core.now));
        core.event(Event::Connected {
            conn: id,
            origin,
            peer,
        });
        self.touch(index);
    }

    pub(super) fn at(&mut self, index: u32) -> Option<&mut Connection> {
        self.slots.get_mut(index as usize)?.connection.as_mut()
    }

    pub(super) fn of(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.at(conn.slot)
            .filter(|connection| connection.id == conn)
    }

    pub(super) fn expect(&mut self, index: u32) -> &mut Connection {
        self.at(index)
            .expect("a connection stays until the kernel has nothing of it")
    }

    /// The connection may want something else now.
    pub(super) fn wake(&mut self, conn: ConnId) {
        if self.of(conn).is_some() {
            self.touch(conn.slot);
        }
    }

    pub(super) fn touch(&mut self, index: u32) {
        let connection = self.expect(index);
        if !connection.touched {
            connection.touched = true;
            self.touched.push(index);
        }
    }

    /// Tells the shard what ended, and meets the wants of connections that something happened to.
    /// False if there was nothing to do.
    pub(super) fn work(&mut self, core: &mut Core) -> bool {
        let mut worked = false;
        while let Some(buffer) = self.released.pop() {
            core.event(Event::Sent { buffer });
            worked = true;
        }
        while let Some(conn) = self.closed.pop() {
            core.event(Event::Closed { conn });
            // Only now: a connection accepted in the same turn must not get this name's slot before.
            self.free.insert(conn.slot);
            worked = true;
        }
        while let Some(index) = self.touched.pop() {
            if let Some(connection) = self.at(index) {
                connection.touched = false;
                self.feed(core, index);
                worked = true;
            }
        }
        worked
    }

    /// Meets the shard's wants as far as the inbox goes, then receives more.
    fn feed(&mut self, core: &mut Core, index: u32) {
        let inbox = self.first_inbox + index;
        let connection = self.expect(index);
        if connection.receiving.is_some()
            || connection.phase != Phase::Open
            || connection.hold_back()
        {
            return;
        }
        let conn = connection.id;
        loop {
            let connection = self.expect(index);
            let available = connection.end - connection.start;
            match core.shard.want(conn) {
                Want::Wait => {
                    if connection.ended && available == 0 {
                        self.wind_up(core, index);
                    }
                    return;
                }
                Want::Bytes(count) if count <= available => {
                    let (arena, taker) = core.arena_and_taker();
                    let bytes = arena.bytes(inbox, connection.start, count);
                    connection.start += count;
                    taker.take(Event::Bytes { conn, bytes });
                }
                Want::Bytes(count) => return self.receive(core, index, count),
                Want::Data { buffer, at, len } => {
                    let count = available.min(len - connection.got);
                    let place = at + connection.got;
                    if count > 0 {
                        let bytes = core.arena.bytes(inbox, connection.start, count);
                        connection.crc = crc::append(connection.crc, bytes);
                        core.arena
                            .copy((inbox, connection.start), (buffer.slot, place), count);
                        connection.start += count;
                        connection.got += count;
                    }
                    let (left, place) = (len - connection.got, at + connection.got);
                    if left >= IN_PLACE_MIN {
                        return self.receive_in_place(core, index, buffer.slot, place, left);
                    } else if left > 0 {
                        return self.receive(core, index, left);
                    }
                    connection.got = 0;
                    if len < IN_PLACE_MIN {
                        connection.appetite = (connection.appetite * 2).min(INBOX_BYTES);
                    }
                    let crc = std::mem::take(&mut connection.crc);
                    core.event(Event::Data { conn, crc });
                }
                Want::Skip(len) => {
                    let count = available.min(len - connection.got);
                    connection.start += count;
                    connection.got += count;
                    let left = len - connection.got;
                    if left > 0 {
                        return self.receive(core, index, left);
                    }
                    connection.got = 0;
                    core.event(Event::Skipped { conn });
                }
            }
        }
    }

    /// Receives into the inbox; `wanted`: the inbox shall be able to hold so much together.
    fn receive(&mut self, core: &mut Core, index: u32, wanted: u32) {
        let inbox = self.first_inbox + index;
        let connection = self.expect(index);
        if connection.ended {
            return self.wind_up(core, index);
        }
        if connection.start == connection.end {
            (connection.start, connection.end) = (0, 0);
        } else if INBOX_BYTES - connection.end < ROOM_MIN || INBOX_BYTES - connection.start < wanted
        {
            let held = connection.start as usize..connection.end as usize;
            core.arena
                .bytes_mut(inbox, 0, connection.end)
                .copy_within(held, 0);
            (connection.start, connection.end) = (0, connection.end - connection.start);
        }
        let asked = connection
            .appetite
            .max(wanted.min(IN_PLACE_MIN))
            .min(INBOX_BYTES - connection.end);
        let into = core.arena.lend_mut(inbox, connection.end, asked);
        let socket = Rc::clone(&connection.socket);
        let op = Op::Receive {
            socket,
            into,
            all: false,
            empty: connection.drained,
        };
        let op = core.ring.submit(Owner::Receive(index).token(), op);
        connection.receiving = Some((op, Receiving::Inbox(asked)));
    }

    /// Receives the rest of a large want into its buffer.
    fn receive_in_place(&mut self, core: &mut Core, index: u32, slot: u32, at: u32, len: u32) {
        let connection = self.expect(index);
        if connection.ended {
            return self.wind_up(core, index);
        }
        connection.appetite = APPETITE_MIN;
        let into = core.arena.lend_mut(slot, at, len);
        let socket = Rc::clone(&connection.socket);
        let op = Op::Receive {
            socket,
            into,
            all: true,
            empty: connection.drained,
        };
        let op = core.ring.submit(Owner::Receive(index).token(), op);
        connection.receiving = Some((op, Receiving::Buffer { slot, at }));
    }

    /// A receive has ended.
    pub(super) fn received(
        &mut self,
        core: &mut Core,
        index: u32,
        result: Result<u32, Errno>,
        nonempty: bool,
    ) {
        let connection = self.expect(index);
        let (_, receiving) = connection.receiving.take().expect("one receive at a time");
        connection.drained = !nonempty;
        match (connection.phase, result) {
            (Phase::Dying, _) => self.bury(index),
            (Phase::Open, Ok(0)) => {
                connection.ended = true;
                self.touch(index);
            }
            (Phase::Open, Ok(count)) => {
                match receiving {
                    Receiving::Inbox(asked) => {
                        connection.end += count;
                        if count == asked {
                            connection.appetite = (connection.appetite * 2).min(INBOX_BYTES);
                        }
                    }
                    Receiving::Buffer { slot, at } => {
                        connection.got += count;
                        connection.crc =
                            crc::append(connection.crc, core.arena.bytes(slot, at, count));
                    }
                }
                self.received_bytes += u64::from(count);
                self.touch(index);
            }
            (Phase::Open, Err(Errno::INTR | Errno::AGAIN)) => self.touch(index),
            (Phase::Flushing { .. }, _) => {}
            (Phase::Lingering { .. }, Ok(1..) | Err(Errno::CANCELED)) => self.discard(core, index),
            (Phase::Open | Phase::Lingering { .. }, _) => self.die(core, index),
        }
    }
}
