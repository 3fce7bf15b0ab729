//! A `Shard` serves: it owns the connections of its initiators and of the partner, and for each
//! volume the SCSI disk and the mirror's data path. This is the one place where iSCSI, SCSI and
//! mirror meet; none of the three knows the others.
//!
//! An event enters by `handle`, goes down (`endpoint` → `Disk` → `Volume`) and comes back as
//! actions. What the layers answer is put into one queue and worked off until it is empty, so no
//! layer ever calls up.

mod byte_work;
mod connections;
mod execute;
mod orders;
mod partner;
mod sessions;
mod starving;
mod tasks;
#[cfg(test)]
mod tests;
mod volumes;

use crate::counters::{Counters, PathCounters, VolumeCounters};
use crate::interface::{Action, Event, FromShard, IoKey, VolumeSettings, Want};
use crate::pool::{Pool, PoolClass, Purpose};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use lockstep_iscsi::endpoint::Endpoint;
use lockstep_iscsi::interface::{ConnId, NexusId, Output, Settings, TargetId, TaskId};
use lockstep_mirror::control::{Incarnation, NodeId, Time};
use lockstep_mirror::operation::BufferId;
use lockstep_mirror::volume::Volume;
use lockstep_mirror::volume_action::{ChannelId, VolumeAction};
use lockstep_mirror::volume_io::{Io, IoId};
use lockstep_scsi::disk::Disk;
use partner::Partner;
use starving::Starved;
use tasks::Task;

/// Lines for the log in one period, of each sort: a port scanner must not fill the journal.
const MAX_NOTES_A_PERIOD: u32 = 10;
/// Length of that period.
const NOTE_PERIOD: Time = Time::from_secs(60);
/// Pause before a lost or refused data connection is dialled again: an operation may wait for it.
const REDIAL: Time = Time::from_millis(250);
/// The partner finishes the handshake of a data connection in this time, or it is closed.
const HANDSHAKE: Time = Time::from_secs(2);

/// A volume in this shard.
struct VolumeSlot {
    settings: VolumeSettings,
    disk: Disk,
    mirror: Volume,
    counters: VolumeCounters,
    /// Attached. A detached one stays until nothing names it any more, then its place is free.
    live: bool,
    /// Commands that name it, until their last PDU has left the queue.
    tasks: u32,
    /// I/Os of it that the driver has.
    ios: u32,
}

/// An I_T nexus in full feature phase.
struct Nexus {
    conn: ConnId,
    target: TargetId,
    initiator: String,
    portal: u16,
    peer: SocketAddr,
    tasks: u32,
}

/// What a connection is.
enum Kind {
    Initiator,
    /// Boxed: there are a few of these, and up to thousands of the others.
    Partner(Box<Partner>),
}

/// A connection, as long as the driver has it.
struct Connection {
    id: ConnId,
    kind: Kind,
    /// What the driver was told to fetch. Kept until it is fulfilled, whatever becomes of the
    /// task meanwhile: the kernel may be writing into the buffer.
    want: Want,
    /// The buffer of that want, counted once for the driver.
    filling: Option<BufferId>,
    closing: bool,
}

/// An I/O that the driver has.
struct Pending {
    owner: Owner,
    buffers: [Option<BufferId>; 2],
}

/// To whom its end is told.
#[derive(Clone, Copy)]
enum Owner {
    Volume(IoId),
    Task(TaskId),
}

/// The partner, as `Node` described it.
struct PartnerSettings {
    node: NodeId,
    me: NodeId,
    incarnation: Incarnation,
    secret: Vec<u8>,
    cluster: u128,
    addresses: u16,
    dial: bool,
}

/// What the layers want done, in the order in which they said it.
enum Item {
    Session(Output),
    Volume(usize, VolumeAction),
    /// The task's last PDU has left the queue: its buffers are its own no more.
    Free(TaskId),
}

/// See the module.
pub struct Shard {
    endpoint: Endpoint,
    pool: Pool,
    settings: Settings,
    volumes: Vec<VolumeSlot>,
    luns: BTreeMap<(u32, u8), usize>,
    nexuses: BTreeMap<NexusId, Nexus>,
    connections: Vec<Option<Connection>>,
    channels: BTreeMap<ChannelId, ConnId>,
    /// By the number of the path.
    paths: Vec<PathCounters>,
    next_channel: u64,
    partner: Option<PartnerSettings>,
    /// The newest heartbeat of the partner, for volumes that come later, and when it came.
    token: Option<(u64, Time)>,
    /// Dials to make again, and when.
    dials: BTreeMap<u32, Time>,
    tasks: Vec<Option<Task>>,
    starved: VecDeque<Starved>,
    starved_partners: VecDeque<ConnId>,
    pending: slab::Slab<Pending>,
    queue: VecDeque<Item>,
    session_scratch: Vec<Output>,
    volume_scratch: Vec<VolumeAction>,
    touched: Vec<ConnId>,
    random: u64,
    partner_refusals_noted: u32,
    notes: u32,
    notes_until: Time,
    logging_out: bool,
    counters: Counters,
}

impl Shard {
    /// A shard without volumes, targets or partner; `Order`s bring them.
    /// `seed`: unpredictable bytes, the only source of randomness in here.
    #[must_use]
    pub fn new(classes: &[PoolClass], seed: [u8; 32]) -> Self {
        let (first, _) = seed.split_at(8);
        Self {
            endpoint: Endpoint::new(Settings::default(), seed),
            pool: Pool::new(classes),
            settings: Settings::default(),
            volumes: Vec::new(),
            luns: BTreeMap::new(),
            nexuses: BTreeMap::new(),
            connections: Vec::new(),
            channels: BTreeMap::new(),
            paths: Vec::new(),
            next_channel: 1,
            partner: None,
            token: None,
            dials: BTreeMap::new(),
            tasks: Vec::new(),
            starved: VecDeque::new(),
            starved_partners: VecDeque::new(),
            pending: slab::Slab::new(),
            queue: VecDeque::new(),
            session_scratch: Vec::new(),
            volume_scratch: Vec::new(),
            touched: Vec::new(),
            random: u64::from_le_bytes(first.try_into().expect("eight bytes")),
            partner_refusals_noted: 0,
            notes: 0,
            notes_until: Time::ZERO,
            logging_out: false,
            counters: Counters::default(),
        }
    }

    /// Sizes and numbers of the pool's slots.
    #[must_use]
    pub fn pool_layout(&self) -> &[PoolClass] {
        self.pool.layout()
    }

    /// Whether anybody still counts on this buffer, for a driver that looks for uses after that.
    #[must_use]
    pub fn holds(&self, buffer: BufferId) -> bool {
        self.pool.holds(buffer)
    }

    /// What the connection needs next from its socket.
    #[must_use]
    pub fn want(&self, conn: ConnId) -> Want {
        self.connection(conn)
            .map_or(Want::Wait, |connection| connection.want)
    }

    /// When `Event::Tick` is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let volumes = self
            .volumes
            .iter()
            .filter(|slot| slot.live)
            .filter_map(|slot| slot.mirror.next_deadline());
        let dials = self.dials.values().copied();
        self.endpoint
            .next_deadline()
            .into_iter()
            .chain(volumes)
            .chain(dials)
            .chain(self.handshake_deadline())
            .chain(self.starved_deadline())
            .chain(self.starved_partner_deadline())
            .min()
    }

    /// A snapshot of the counters.
    pub fn counters(&mut self) -> &Counters {
        self.counters.sessions = u32::try_from(self.nexuses.len()).unwrap_or(u32::MAX);
        self.counters.connections = u32::try_from(
            self.connections
                .iter()
                .flatten()
                .filter(|c| matches!(c.kind, Kind::Initiator))
                .count(),
        )
        .unwrap_or(u32::MAX);
        self.counters.channels = u32::try_from(self.channels.len()).unwrap_or(u32::MAX);
        self.count_paths();
        self.counters.buffers = u32::try_from(self.pool.used()).unwrap_or(u32::MAX);
        self.counters.volumes.clear();
        let live = self.volumes.iter().filter(|slot| slot.live);
        self.counters
            .volumes
            .extend(live.map(|slot| (slot.settings.spec.id, slot.counters, slot.mirror.status())));
        &self.counters
    }

    /// Takes one event and appends what is to be done. `now` must have been read after the event
    /// happened; it never goes back.
    pub fn handle(&mut self, now: Time, event: Event<'_>, actions: &mut Vec<Action>) {
        match event {
            Event::Connected { conn, origin, peer } => {
                self.connected(now, conn, origin, peer, actions)
            }
            Event::DialFailed { dial } => self.redial(now, dial),
            Event::Bytes { conn, bytes } => self.bytes(now, conn, bytes, actions),
            Event::Data { conn, crc } => self.data(now, conn, crc, actions),
            Event::Skipped { conn } => self.skipped(now, conn),
            Event::Sent { buffer } => self.release(buffer),
            Event::Closed { conn } => self.closed(now, conn),
            Event::Io { key, result } => self.io_done(now, key, result, actions),
            Event::Order(order) => self.order(now, order, actions),
            Event::Tick => self.tick(now, actions),
        }
        self.work_off(now, actions);
        self.renew_wants(actions);
    }

    /// Carries out what the layers said until they have nothing more to say.
    fn work_off(&mut self, now: Time, actions: &mut Vec<Action>) {
        loop {
            while let Some(item) = self.queue.pop_front() {
                match item {
                    Item::Session(output) => self.session_output(now, output, actions),
                    Item::Volume(index, action) => self.volume_action(now, index, action, actions),
                    Item::Free(task) => self.free_task(task),
                }
            }
            self.feed_partners();
            if !self.feed_tasks(now, actions) {
                break;
            }
        }
    }

    fn tick(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.session(|endpoint, out| endpoint.timer(now, out));
        self.each_volume(now, |volume, now, out| {
            if volume
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                volume.timer(now, out);
            }
        });
        self.dial_again(now, actions);
        self.end_stale_handshakes(now, actions);
        self.turn_away(now);
        self.turn_away_forwards(now);
        if now >= self.notes_until {
            self.notes = 0;
            self.partner_refusals_noted = 0;
            self.notes_until = now + NOTE_PERIOD;
        }
    }

    /// Calls the session layer and queues what it says.
    fn session(&mut self, call: impl FnOnce(&mut Endpoint, &mut Vec<Output>)) {
        let mut out = core::mem::take(&mut self.session_scratch);
        call(&mut self.endpoint, &mut out);
        self.queue.extend(out.drain(..).map(Item::Session));
        self.session_scratch = out;
    }

    /// Calls one volume's mirror and queues what it says.
    fn mirror(&mut self, index: usize, call: impl FnOnce(&mut Volume, &mut Vec<VolumeAction>)) {
        let mut out = core::mem::take(&mut self.volume_scratch);
        call(&mut self.volumes[index].mirror, &mut out);
        self.queue_volume_actions(index, out);
    }

    fn queue_volume_actions(&mut self, index: usize, mut out: Vec<VolumeAction>) {
        self.queue
            .extend(out.drain(..).map(|action| Item::Volume(index, action)));
        self.volume_scratch = out;
    }

    fn each_volume(&mut self, now: Time, call: impl Fn(&mut Volume, Time, &mut Vec<VolumeAction>)) {
        for index in 0..self.volumes.len() {
            if self.volumes[index].live {
                self.mirror(index, |volume, out| call(volume, now, out));
            }
        }
    }

    fn volume_index(&self, id: u128) -> Option<usize> {
        self.volumes
            .iter()
            .position(|slot| slot.live && slot.settings.spec.id.0 == id)
    }

    fn volume_action(
        &mut self,
        now: Time,
        index: usize,
        action: VolumeAction,
        actions: &mut Vec<Action>,
    ) {
        match action {
            VolumeAction::Io { id, io } => self.start_io(index, Owner::Volume(id), io, actions),
            VolumeAction::Send {
                channel,
                fields,
                body,
            } => self.send_frame(channel, fields, body, actions),
            VolumeAction::Complete { ticket, result } => {
                self.ticket_done(now, ticket, result, actions)
            }
            VolumeAction::Fetched { ticket, buffer } => self.fetched(ticket, buffer),
            VolumeAction::Release { buffer } => self.release(buffer),
            // Its place may have another volume's name by the time that a buffer is free.
            VolumeAction::NeedBuffer { .. } | VolumeAction::Tell(_)
                if !self.volumes[index].live => {}
            VolumeAction::NeedBuffer { request, len } => match self.pool.take(len, Purpose::Resync)
            {
                Some(buffer) => self.mirror(index, |volume, out| {
                    volume.buffer(now, request, buffer, out)
                }),
                None => self.starved.push_back(Starved::Volume {
                    index,
                    request,
                    len,
                }),
            },
            VolumeAction::State { kind, bytes } => {
                self.volumes[index].disk.apply_state(kind, &bytes)
            }
            VolumeAction::Tell(word) => {
                let id = self.volumes[index].settings.spec.id;
                actions.push(Action::Report(FromShard::Volume(id, word)));
            }
        }
    }

    /// Hands an I/O to the driver; its buffers are counted until it ends.
    fn start_io(&mut self, index: usize, owner: Owner, io: Io, actions: &mut Vec<Action>) {
        let buffers = match &io {
            Io::Read { buffer, .. }
            | Io::Crc { buffer, .. }
            | Io::Hash { buffer, .. }
            | Io::Fill { buffer, .. }
            | Io::Put { buffer, .. } => [Some(*buffer), None],
            Io::Write { payload, .. } => [Some(payload.buffer), None],
            Io::Compare { left, right, .. } => [Some(*left), Some(*right)],
            Io::Zero { .. }
            | Io::Discard { .. }
            | Io::Flush
            | Io::ReadMeta { .. }
            | Io::WriteMeta { .. } => [None, None],
        };
        for buffer in buffers.into_iter().flatten() {
            self.pool.retain(buffer);
        }
        let id = self.pending.insert(Pending { owner, buffers });
        self.volumes[index].ios += 1;
        let key = IoKey {
            volume: count(index),
            id: u64::try_from(id).expect("usize fits u64"),
        };
        actions.push(Action::Io {
            key,
            volume: self.volumes[index].settings.spec.id,
            io,
        });
    }

    fn io_done(
        &mut self,
        now: Time,
        key: IoKey,
        result: Result<lockstep_mirror::volume_io::Value, lockstep_mirror::volume_io::IoError>,
        actions: &mut Vec<Action>,
    ) {
        let id = usize::try_from(key.id).expect("the driver hands keys back as they were");
        let Pending { owner, buffers } = self.pending.remove(id);
        match owner {
            Owner::Volume(id) => self.mirror(index(key.volume), |volume, out| {
                volume.io_done(now, id, result, out)
            }),
            Owner::Task(task) => self.byte_work_done(now, task, result, actions),
        }
        self.volumes[index(key.volume)].ios -= 1;
        for buffer in buffers.into_iter().flatten() {
            self.release(buffer);
        }
    }

    fn release(&mut self, buffer: BufferId) {
        self.pool.release(buffer);
    }
}

/// An index that came as u32.
fn index(slot: u32) -> usize {
    usize::try_from(slot).expect("usize has 32 bits or more")
}

/// A length or index that is known to be small.
fn count(len: usize) -> u32 {
    u32::try_from(len).expect("tables and buffers have fewer than 2^32 entries")
}
