//! Shards with a driver that carries everything out at once: sockets are queues of bytes, disks
//! are in memory. A disk can be held, so that something is under way.

use crate::interface::{
    Action, Body, Event, FromShard, IoKey, Origin, ToShard, VolumeSettings, Want,
};
use crate::pool::PoolClass;
use crate::shard::Shard;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::ToString;
use alloc::vec::Vec;
use alloc::{boxed::Box, vec};
use lockstep_iscsi::interface::{ConnId, Settings, TargetId, TargetSettings};
use lockstep_mirror::control::{
    CacheMode, Configuration, FromVolume, Incarnation, Members, NodeId, Time, ToVolume, VolumeId,
    VolumeSpec,
};
use lockstep_mirror::metadata_layout::metadata_len;
use lockstep_mirror::volume_io::{Io, Value};
use lockstep_scsi::interface::{AccessState, Identity, PortGroup};

pub(super) const TARGET: &str = "iqn.2026-11.org.example:disk";
pub(super) const BLOCK: u32 = 4096;
/// Bytes of every volume.
const SIZE: u64 = 1 << 20;

/// One end of a connection.
struct Socket {
    conn: ConnId,
    input: VecDeque<u8>,
    /// What was sent, if nobody is connected to the other end.
    output: Vec<u8>,
    /// Node and slot of the other end.
    peer: Option<(usize, usize)>,
    /// How much of the present want is there already.
    got: u32,
}

/// A shard with its disks and sockets.
pub(super) struct Machine {
    pub(super) shard: Shard,
    memory: Vec<Vec<u8>>,
    disks: BTreeMap<u128, Vec<u8>>,
    metadata: BTreeMap<u128, Vec<u8>>,
    sockets: Vec<Option<Socket>>,
    generation: u32,
    /// Writes to the disk do not end.
    pub(super) held: bool,
    ios: VecDeque<(IoKey, u128, Io)>,
    /// What the data paths said.
    pub(super) told: Vec<FromVolume>,
}

/// See the module.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) nodes: Vec<Machine>,
}

pub(super) fn incarnation(node: usize) -> Incarnation {
    Incarnation(100 + u64::try_from(node).unwrap())
}

fn id(node: usize) -> NodeId {
    NodeId(u8::try_from(node).unwrap() + 1)
}

impl World {
    /// Nodes with so many slots of one block each. With two, they know each other.
    pub(super) fn new(slots: &[u32]) -> Self {
        let mut world = Self {
            now: Time::from_secs(1000),
            nodes: Vec::new(),
        };
        for &slots in slots {
            let classes = [PoolClass {
                slots,
                slot_bytes: BLOCK,
            }];
            let seed = [u8::try_from(world.nodes.len()).unwrap() + 1; 32];
            world.nodes.push(Machine {
                shard: Shard::new(&classes, seed),
                memory: vec![vec![0; BLOCK as usize]; slots as usize],
                disks: BTreeMap::new(),
                metadata: BTreeMap::new(),
                sockets: Vec::new(),
                generation: 0,
                held: false,
                ios: VecDeque::new(),
                told: Vec::new(),
            });
        }
        for node in 0..slots.len() {
            let settings = Settings {
                targets: vec![TargetSettings {
                    id: TargetId(0),
                    name: TARGET.to_string(),
                    ..blank_target()
                }],
                group: u16::from(id(node).0),
                login_timeout_s: 15,
                max_receive: 262_144,
                max_burst: 1_048_576,
                first_burst: 65_536,
                command_window: 64,
                max_connections: 16,
                max_half_open: 4,
                ..Settings::default()
            };
            world.order(node, ToShard::Settings(Box::new(settings)));
            if slots.len() == 2 {
                let partner = ToShard::Partner {
                    node: id(1 - node),
                    me: id(node),
                    incarnation: incarnation(node),
                    addresses: 1,
                    connections: 0,
                    dial: node == 0,
                    secret: (*b"the same for both").into(),
                    cluster: 7,
                };
                world.order(node, partner);
            }
        }
        world
    }

    pub(super) fn order(&mut self, node: usize, order: ToShard) {
        self.event(node, Event::Order(order));
    }

    pub(super) fn volume(&mut self, node: usize, volume: u128, order: ToVolume) {
        self.order(node, ToShard::Volume(VolumeId(volume), order));
    }

    pub(super) fn event(&mut self, node: usize, event: Event<'_>) {
        let mut actions = Vec::new();
        self.nodes[node].shard.handle(self.now, event, &mut actions);
        for action in actions {
            self.act(node, action);
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let machine = &mut self.nodes[node];
        match action {
            Action::Send { conn, head, body } => {
                let mut bytes = head.bytes[..usize::from(head.len)].to_vec();
                let mut sent = None;
                match body {
                    Body::None => {}
                    Body::Bytes(more) => bytes.extend(more),
                    Body::Blocks {
                        buffer, at, len, ..
                    } => {
                        let from = at as usize..(at + len) as usize;
                        bytes.extend_from_slice(&machine.memory[buffer.slot as usize][from]);
                        sent = Some(buffer);
                    }
                }
                if let Some(socket) = machine.socket(conn) {
                    match socket.peer {
                        None => socket.output.extend(bytes),
                        Some((other, slot)) => {
                            if let Some(far) = &mut self.nodes[other].sockets[slot] {
                                far.input.extend(bytes);
                            }
                        }
                    }
                }
                if let Some(buffer) = sent {
                    self.event(node, Event::Sent { buffer });
                }
            }
            Action::Close { conn } | Action::Abort { conn } => {
                if machine.socket(conn).is_some() {
                    machine.sockets[conn.slot as usize] = None;
                    self.event(node, Event::Closed { conn });
                }
            }
            Action::Io { key, volume, io } => machine.ios.push_back((key, volume.0, io)),
            Action::Report(FromShard::Volume(_, word)) => machine.told.push(word),
            Action::Dial { .. } | Action::Wake { .. } | Action::Report(_) => {}
        }
    }

    fn open(&mut self, node: usize, peer: Option<(usize, usize)>) -> ConnId {
        let machine = &mut self.nodes[node];
        machine.generation += 1;
        let conn = ConnId {
            slot: u32::try_from(machine.sockets.len()).unwrap(),
            generation: machine.generation,
        };
        machine.sockets.push(Some(Socket {
            conn,
            input: VecDeque::new(),
            output: Vec::new(),
            peer,
            got: 0,
        }));
        conn
    }

    /// An initiator connects.
    pub(super) fn connect(&mut self, node: usize) -> ConnId {
        let conn = self.open(node, None);
        self.connected(node, conn, Origin::Portal(0));
        conn
    }

    /// A data connection between the two nodes.
    pub(super) fn connect_nodes(&mut self) {
        let slots = [0, 1].map(|node| self.nodes[node].sockets.len());
        let conns = [0, 1].map(|node| self.open(node, Some((1 - node, slots[1 - node]))));
        self.connected(0, conns[0], Origin::Dialed(0));
        self.connected(1, conns[1], Origin::Partner(0));
        self.run();
    }

    fn connected(&mut self, node: usize, conn: ConnId, origin: Origin) {
        let peer = "192.0.2.1:40000".parse().unwrap();
        self.event(node, Event::Connected { conn, origin, peer });
    }

    pub(super) fn feed(&mut self, node: usize, conn: ConnId, bytes: &[u8]) {
        let socket = self.nodes[node].socket(conn).expect("it is open");
        socket.input.extend(bytes);
        self.run();
    }

    /// What was sent on a connection since this was asked last.
    pub(super) fn output(&mut self, node: usize, conn: ConnId) -> Vec<u8> {
        let socket = self.nodes[node].socket(conn).expect("it is open");
        core::mem::take(&mut socket.output)
    }

    /// Whether the connection still is.
    pub(super) fn is_open(&mut self, node: usize, conn: ConnId) -> bool {
        self.nodes[node].socket(conn).is_some()
    }

    /// What the ports of one node say of a volume.
    pub(super) fn show(&mut self, node: usize, volume: u128, state: AccessState) {
        let number = u16::from(id(node).0) * 256;
        let group = PortGroup {
            group: number,
            ports: vec![number],
            state,
        };
        self.order(node, ToShard::PortGroups(VolumeId(volume), vec![group]));
    }

    /// Until nothing happens any more at this time.
    pub(super) fn run(&mut self) {
        while (0..self.nodes.len()).any(|node| self.step(node)) {}
    }

    /// Time passes, and what is due happens.
    pub(super) fn pass(&mut self, time: Time) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + Time::from_millis(50)).min(end);
            for node in 0..self.nodes.len() {
                self.event(node, Event::Tick);
            }
            self.run();
        }
    }

    fn step(&mut self, node: usize) -> bool {
        let machine = &mut self.nodes[node];
        let held = machine.held;
        let ready = machine
            .ios
            .iter()
            .position(|(_, _, io)| !(held && matches!(io, Io::Write { .. })));
        if let Some((key, volume, io)) = ready.and_then(|place| machine.ios.remove(place)) {
            let result = Ok(machine.carry_out(volume, io));
            self.event(node, Event::Io { key, result });
            return true;
        }
        (0..self.nodes[node].sockets.len()).any(|slot| self.fulfil(node, slot))
    }

    fn fulfil(&mut self, node: usize, slot: usize) -> bool {
        let machine = &mut self.nodes[node];
        let Some(socket) = &mut machine.sockets[slot] else {
            return false;
        };
        let conn = socket.conn;
        let there = u32::try_from(socket.input.len()).unwrap();
        match machine.shard.want(conn) {
            Want::Bytes(len) if there >= len => {
                let bytes: Vec<u8> = socket.input.drain(..len as usize).collect();
                let bytes = &bytes;
                self.event(node, Event::Bytes { conn, bytes });
            }
            Want::Data { buffer, at, len } if there > 0 => {
                let taken = there.min(len - socket.got);
                let begin = (at + socket.got) as usize;
                let memory = &mut machine.memory[buffer.slot as usize];
                for (place, byte) in socket.input.drain(..taken as usize).enumerate() {
                    memory[begin + place] = byte;
                }
                socket.got += taken;
                if socket.got == len {
                    socket.got = 0;
                    let crc = crc32c::crc32c(&memory[at as usize..(at + len) as usize]);
                    self.event(node, Event::Data { conn, crc });
                }
            }
            Want::Skip(len) if there > 0 => {
                let taken = there.min(len - socket.got);
                socket.input.drain(..taken as usize);
                socket.got += taken;
                if socket.got == len {
                    socket.got = 0;
                    self.event(node, Event::Skipped { conn });
                }
            }
            Want::Bytes(_) | Want::Data { .. } | Want::Skip(_) | Want::Wait => return false,
        }
        true
    }

    // ---- volumes

    /// Attaches a volume as this LUN, and opens it.
    pub(super) fn attach(&mut self, node: usize, volume: u128, lun: u8) {
        let partner = (self.nodes.len() == 2).then(|| id(1 - node));
        let settings = VolumeSettings {
            spec: VolumeSpec {
                id: VolumeId(volume),
                size: SIZE,
                block_size: BLOCK,
                cache: CacheMode::WriteThrough,
                me: id(node),
                partner,
                incarnation: incarnation(node),
            },
            identity: Identity {
                uuid: volume,
                target_name: TARGET.to_string(),
            },
            target: 0,
            lun,
            unmap: false,
            physical_exponent: 0,
        };
        let machine = &mut self.nodes[node];
        machine
            .disks
            .insert(volume, vec![0; usize::try_from(SIZE).unwrap()]);
        let len = usize::try_from(metadata_len(SIZE)).unwrap();
        machine.metadata.insert(volume, vec![0; len]);
        self.order(node, ToShard::Attach(Box::new(settings)));
        self.volume(node, volume, ToVolume::Open { blank: true });
        self.run();
    }

    /// All nodes serve it together; the first one is the owner.
    pub(super) fn serve(&mut self, volume: u128) {
        let both = self.nodes.len() == 2;
        let alone = Members::only(id(0));
        let configuration = Configuration {
            witness: None,
            epoch: 1,
            generation: 1,
            members: if both { alone.with(id(1)) } else { alone },
            owner: id(0),
            unilateral: false,
        };
        for node in 0..self.nodes.len() {
            let serve = ToVolume::Serve {
                configuration,
                partner_incarnation: both.then(|| incarnation(1 - node)),
                not_before: self.now,
                joined: both,
            };
            self.volume(node, volume, serve);
            self.show(node, volume, AccessState::Optimized);
        }
        self.run();
    }

    /// The first node goes on as the only member.
    pub(super) fn serve_alone(&mut self, volume: u128) {
        let configuration = Configuration {
            witness: None,
            epoch: 2,
            generation: 2,
            members: Members::only(id(0)),
            owner: id(0),
            unilateral: false,
        };
        let serve = ToVolume::Serve {
            configuration,
            partner_incarnation: None,
            not_before: self.now,
            joined: false,
        };
        self.volume(0, volume, serve);
        self.run();
    }

    /// Each node hears a heartbeat of the other.
    pub(super) fn heartbeat(&mut self) {
        let token = u64::try_from(self.now.as_micros()).unwrap();
        for node in 0..self.nodes.len() {
            let received = self.now;
            self.order(node, ToShard::Token { token, received });
        }
    }

    pub(super) fn detach(&mut self, node: usize, volume: u128) {
        self.order(node, ToShard::Detach(VolumeId(volume)));
        self.run();
    }
}

impl Machine {
    fn socket(&mut self, conn: ConnId) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(conn.slot as usize)?.as_mut()?;
        (socket.conn == conn).then_some(socket)
    }

    /// Slots of the pool in use.
    pub(super) fn used(&self) -> usize {
        self.shard.pool.used()
    }

    /// Bytes that came and are left in its sockets.
    pub(super) fn unread(&self) -> usize {
        let open = self.sockets.iter().flatten();
        open.map(|socket| socket.input.len()).sum()
    }

    /// The first byte of a block on the disk.
    pub(super) fn stored(&self, volume: u128, block: u32) -> u8 {
        self.disks[&volume][(block * BLOCK) as usize]
    }

    fn carry_out(&mut self, volume: u128, io: Io) -> Value {
        let disk = self.disks.get_mut(&volume).expect("it was attached");
        let meta = self.metadata.get_mut(&volume).expect("it was attached");
        let range = |offset: u64, len: u64| {
            usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap()
        };
        match io {
            Io::Read { extent, buffer, at } => {
                let from = &disk[range(extent.offset, extent.len)];
                self.memory[buffer.slot as usize][at as usize..][..from.len()]
                    .copy_from_slice(from);
            }
            Io::Write {
                offset, payload, ..
            } => {
                let slot = &self.memory[payload.buffer.slot as usize];
                let bytes = &slot[payload.at as usize..][..payload.len as usize];
                assert_eq!(crc32c::crc32c(bytes), payload.crc, "what came is written");
                disk[range(offset, u64::from(payload.len))].copy_from_slice(bytes);
            }
            Io::Zero { extent, .. } | Io::Discard { extent, .. } => {
                disk[range(extent.offset, extent.len)].fill(0);
            }
            Io::Flush => {}
            Io::ReadMeta { offset, len } => {
                let bytes = meta[range(offset, u64::from(len))].to_vec();
                return Value::Bytes(bytes.into());
            }
            Io::WriteMeta { offset, bytes } => {
                meta[range(offset, bytes.len() as u64)].copy_from_slice(&bytes);
            }
            other => unreachable!("no test needs {other:?}"),
        }
        Value::Done
    }
}

fn blank_target() -> TargetSettings {
    TargetSettings {
        id: TargetId(0),
        name: alloc::string::String::new(),
        alias: alloc::string::String::new(),
        chap: Vec::new(),
        mutual: None,
        allow: Vec::new(),
    }
}
