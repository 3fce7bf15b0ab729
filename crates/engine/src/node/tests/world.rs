//! Two machines, the wires between them, and time.

use super::path::{BLOCKS, Disk, Mode, Path};
use crate::interface::{FromShard, ToShard, VolumeSettings};
use crate::node::Node;
use crate::node_interface::{
    LinkId, NodeAction, NodeEvent, NodeSettings, Standing, VolumeReady, VolumeStatus,
};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{
    CacheMode, FromVolume, Incarnation, NodeId, Time, ToVolume, VolumeId, VolumeSpec,
};
use lockstep_mirror::superblock::{Found, SLOT_LEN, Superblock};
use lockstep_scsi::interface::Identity;

pub(super) const VOLUME: VolumeId = VolumeId(0xabc);
const STEP: Duration = Duration::from_millis(20);

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Something that will happen.
#[derive(Clone, Debug)]
enum Later {
    Bytes {
        link: LinkId,
        bytes: Vec<u8>,
    },
    LinkUp {
        link: LinkId,
        path: u16,
    },
    LinkDown {
        link: LinkId,
    },
    SuperblockDone {
        slot: u8,
        bytes: Vec<u8>,
    },
    AcceptorDone {
        bytes: Vec<u8>,
    },
    ConfigDone {
        bytes: Vec<u8>,
    },
    Word(FromVolume),
    CopyBlock {
        attempt: u32,
        block: usize,
    },
    CopyEnd {
        attempt: u32,
    },
    PeerApply {
        block: usize,
        id: u64,
        lineage: u128,
    },
    Acked {
        block: usize,
        id: u64,
        lineage: u128,
    },
}

pub(super) struct Machine {
    pub(super) node: Option<Node>,
    pub(super) incarnation: u64,
    pub(super) slots: [Vec<u8>; 2],
    pub(super) acceptor: Option<Vec<u8>>,
    pub(super) pool: Option<Vec<u8>>,
    pub(super) disk: Disk,
    pub(super) path: Path,
    /// Initiators use this node.
    pub(super) io: bool,
    pub(super) portals: bool,
    pub(super) document: Option<(u64, Vec<u8>)>,
    pub(super) outcomes: Vec<Result<u64, crate::node_interface::ConfigRefusal>>,
    pub(super) stopped: Option<bool>,
    pub(super) paused_until: Time,
    pub(super) secret: Vec<u8>,
    pub(super) create: bool,
    pub(super) partner: bool,
    pub(super) size: u64,
    /// Superblocks written, decoded, newest last.
    pub(super) journal: Vec<Superblock>,
}

impl Machine {
    fn new() -> Self {
        Self {
            node: None,
            incarnation: 0,
            slots: [vec![0; SLOT_LEN], vec![0; SLOT_LEN]],
            acceptor: None,
            pool: None,
            disk: Disk::default(),
            path: Path::new(),
            io: false,
            portals: false,
            document: None,
            outcomes: Vec::new(),
            stopped: None,
            paused_until: Time::ZERO,
            secret: b"pair".to_vec(),
            create: true,
            partner: true,
            size: 1 << 20,
            journal: Vec::new(),
        }
    }

    pub(super) fn superblock(&self) -> Superblock {
        match Superblock::choose([&self.slots[0], &self.slots[1]]) {
            Ok(Found::Valid { superblock, .. }) => superblock,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) machines: [Machine; 2],
    /// Wire 0 carries data too, the others heartbeats only. `true`: it works.
    pub(super) wires: Vec<bool>,
    links: Vec<Option<(LinkId, Time)>>,
    dial_at: Vec<Time>,
    next_link: u64,
    queue: BTreeMap<(Time, u64), (usize, u64, Later)>,
    counter: u64,
    random: u64,
    pub(super) acked: [u64; BLOCKS],
    /// Writes in flight between two members, and who sent them.
    busy: [Option<(u64, usize, u128)>; BLOCKS],
    next_write: u64,
    pub(super) trace: Vec<String>,
    /// Every channel was dead while both ran: two lines may exist.
    pub(super) apart: bool,
    apart_since: Option<Time>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: ms(1_000_000),
            machines: [Machine::new(), Machine::new()],
            wires: vec![true, true],
            links: vec![None, None],
            dial_at: vec![Time::ZERO; 2],
            next_link: 1,
            queue: BTreeMap::new(),
            counter: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            acked: [0; BLOCKS],
            busy: [None; BLOCKS],
            next_write: 1,
            trace: Vec::new(),
            apart: false,
            apart_since: None,
        }
    }

    /// Both nodes started and mirrored.
    pub(super) fn mirrored(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.boot(0);
        world.boot(1);
        world.run_until(ms(10_000), World::is_mirrored);
        world
    }

    pub(super) fn dice(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn id(who: usize) -> NodeId {
        NodeId(u8::try_from(who + 1).unwrap())
    }

    fn say(&mut self, text: String) {
        self.trace.push(alloc::format!(
            "{:>8} ms {text}",
            self.now.as_millis() - 1_000_000
        ));
    }

    fn later(&mut self, who: usize, delay: Duration, what: Later) {
        self.counter += 1;
        let run = self.machines[who].incarnation;
        self.queue
            .insert((self.now + delay, self.counter), (who, run, what));
    }

    // ---- machines

    pub(super) fn boot(&mut self, who: usize) {
        assert!(self.machines[who].node.is_none(), "it runs already");
        let run = self.dice(1 << 60) + 2;
        self.say(alloc::format!("{} BOOT run {run}", who + 1));
        let now = self.now;
        let machine = &mut self.machines[who];
        machine.incarnation = run;
        machine.path = Path::new();
        machine.stopped = None;
        machine.portals = false;
        let settings = NodeSettings {
            node: Self::id(who),
            partner: machine.partner.then(|| Self::id(1 - who)),
            cluster: 7,
            secret: machine.secret.clone().into(),
            incarnation: Incarnation(run),
            portals: 2,
            partner_portals: 2,
            timing: lockstep_mirror::lease::Timing::default(),
            acceptor: machine.acceptor.clone(),
            pool: machine.pool.clone(),
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&run.to_be_bytes());
        machine.node = Some(Node::new(settings, seed, now));
        let spec = VolumeSpec {
            id: VOLUME,
            size: machine.size,
            block_size: 512,
            cache: CacheMode::WriteThrough,
            me: Self::id(who),
            partner: machine.partner.then(|| Self::id(1 - who)),
            incarnation: Incarnation(run),
        };
        let settings = VolumeSettings {
            spec,
            identity: Identity {
                uuid: VOLUME.0,
                target_name: "iqn.2026-11.test:v".into(),
            },
            target: 0,
            lun: 0,
            unmap: false,
            physical_exponent: 0,
        };
        let ready = VolumeReady {
            settings,
            create: machine.create,
            superblocks: machine.slots.clone(),
        };
        self.handle(who, NodeEvent::VolumeReady(alloc::boxed::Box::new(ready)));
    }

    /// The machine loses power: what was not durable is gone, a write may be torn.
    pub(super) fn crash(&mut self, who: usize) {
        self.say(alloc::format!("{} CRASH", who + 1));
        self.machines[who].node = None;
        let run = self.machines[who].incarnation;
        let lost: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, it)| it.0 == who && it.1 == run)
            .map(|(at, it)| (*at, it.2.clone()))
            .collect();
        for (at, what) in lost {
            self.queue.remove(&at);
            let Later::SuperblockDone { slot, bytes } = what else {
                continue;
            };
            let cut = usize::try_from(self.dice(9)).unwrap() * 512;
            self.machines[who].slots[usize::from(slot)][..cut].copy_from_slice(&bytes[..cut]);
        }
        self.machines[who].incarnation = 0;
        for wire in 0..self.wires.len() {
            self.drop_link(wire);
        }
    }

    pub(super) fn pause(&mut self, who: usize, long: Duration) {
        self.say(alloc::format!("{} PAUSE {} ms", who + 1, long.as_millis()));
        self.machines[who].paused_until = self.now + long;
    }

    pub(super) fn runs(&self, who: usize) -> bool {
        self.machines[who].node.is_some()
    }

    pub(super) fn cut(&mut self, wire: usize) {
        self.say(alloc::format!("wire {wire} CUT"));
        self.wires[wire] = false;
    }

    pub(super) fn heal(&mut self, wire: usize) {
        self.say(alloc::format!("wire {wire} HEAL"));
        if !self.wires[wire] {
            self.wires[wire] = true;
            self.drop_link(wire);
        }
    }

    fn drop_link(&mut self, wire: usize) {
        let Some((link, _)) = self.links[wire].take() else {
            return;
        };
        self.dial_at[wire] = self.now + ms(500);
        for who in 0..2 {
            self.later(who, ms(1), Later::LinkDown { link });
        }
    }

    // ---- time

    pub(super) fn run(&mut self, long: Duration) {
        let end = self.now + long;
        while self.now < end {
            self.step();
        }
    }

    #[track_caller]
    pub(super) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            if self.now >= end {
                panic!(
                    "not reached in {} ms; {}\n{}",
                    limit.as_millis(),
                    self.describe(),
                    self.story()
                );
            }
            self.step();
        }
    }

    pub(super) fn story(&self) -> String {
        let from = self.trace.len().saturating_sub(120);
        self.trace[from..].join("\n")
    }

    pub(super) fn describe(&self) -> String {
        (0..2)
            .map(|who| {
                alloc::format!(
                    "[{}: {:?}] ",
                    who + 1,
                    self.status(who).map(|it| (it.standing, it.detail))
                )
            })
            .collect()
    }

    fn step(&mut self) {
        let end = self.now + STEP;
        loop {
            let due = self
                .queue
                .first_key_value()
                .map(|(at, _)| at.0)
                .filter(|at| *at <= end);
            let Some(at) = due else { break };
            let (_, (who, run, what)) = self.queue.pop_first().unwrap();
            self.now = self.now.max(at);
            if self.machines[who].incarnation != run {
                continue;
            }
            if self.machines[who].paused_until > self.now {
                self.counter += 1;
                let until = self.machines[who].paused_until;
                self.queue.insert((until, self.counter), (who, run, what));
                continue;
            }
            self.happen(who, what);
            self.check();
        }
        self.now = end;
        self.wire_work();
        for who in 0..2 {
            if self.machines[who].paused_until > self.now || !self.runs(who) {
                continue;
            }
            self.handle(who, NodeEvent::Stamp { oldest: self.now });
            let due = self.machines[who]
                .node
                .as_ref()
                .and_then(Node::next_deadline);
            if due.is_some_and(|at| at <= self.now) {
                self.handle(who, NodeEvent::Tick);
            }
            self.initiate(who);
        }
        self.check();
    }

    fn wire_work(&mut self) {
        let both = self.runs(0) && self.runs(1);
        for wire in 0..self.wires.len() {
            if self.wires[wire]
                && self.links[wire].is_none()
                && both
                && self.now >= self.dial_at[wire]
            {
                let link = LinkId(self.next_link);
                self.next_link += 1;
                self.links[wire] = Some((link, self.now));
                for who in 0..2 {
                    self.later(
                        who,
                        ms(2),
                        Later::LinkUp {
                            link,
                            path: u16::try_from(wire).unwrap(),
                        },
                    );
                }
            }
        }
        let up = both && self.wires[0];
        for who in 0..2 {
            let path = &mut self.machines[who].path;
            if self.machines[who].node.is_some()
                && path.mode != Mode::Closed
                && path.channel != Some(up)
            {
                path.channel = Some(up);
                if up {
                    self.replay(who);
                }
                self.later(who, ms(5), Later::Word(FromVolume::Channel { up }));
            }
        }
        if both && self.wires.iter().all(|it| !it) {
            let since = *self.apart_since.get_or_insert(self.now);
            self.apart |= self.now >= since + ms(1000);
        } else {
            self.apart_since = None;
        }
    }

    /// Sends what is in flight from this node once more.
    fn replay(&mut self, who: usize) {
        let Some(configuration) = self.machines[who].path.serves(self.now) else {
            return;
        };
        for block in 0..BLOCKS {
            let mine =
                self.busy[block].filter(|it| it.1 == who && it.2 == configuration.generation);
            if let Some((id, from, lineage)) = mine {
                self.later(1 - from, ms(10), Later::PeerApply { block, id, lineage });
            }
        }
    }

    fn wire_of(&self, link: LinkId) -> Option<usize> {
        self.links
            .iter()
            .position(|it| it.is_some_and(|(id, _)| id == link))
    }

    fn happen(&mut self, who: usize, what: Later) {
        match what {
            Later::Bytes { link, bytes } => {
                // Split somewhere: pieces of any size must do.
                let at =
                    usize::try_from(self.dice(u64::try_from(bytes.len()).unwrap() + 1)).unwrap();
                self.handle(
                    who,
                    NodeEvent::LinkBytes {
                        link,
                        bytes: &bytes[..at],
                    },
                );
                self.handle(
                    who,
                    NodeEvent::LinkBytes {
                        link,
                        bytes: &bytes[at..],
                    },
                );
            }
            Later::LinkUp { link, path } => self.handle(who, NodeEvent::LinkUp { link, path }),
            Later::LinkDown { link } => self.handle(who, NodeEvent::LinkDown { link }),
            Later::SuperblockDone { slot, bytes } => {
                self.machines[who].slots[usize::from(slot)] = bytes;
                let superblock = self.machines[who].superblock();
                self.machines[who].journal.push(superblock);
                self.handle(
                    who,
                    NodeEvent::SuperblockWritten {
                        volume: VOLUME,
                        ok: true,
                    },
                );
            }
            Later::AcceptorDone { bytes } => {
                self.machines[who].acceptor = Some(bytes);
                self.handle(who, NodeEvent::AcceptorWritten { ok: true });
            }
            Later::ConfigDone { bytes } => {
                self.machines[who].pool = Some(bytes);
                self.handle(who, NodeEvent::ConfigStored { ok: true });
            }
            Later::Word(word) => {
                self.handle(who, NodeEvent::Shard(FromShard::Volume(VOLUME, word)))
            }
            Later::CopyBlock { attempt, block } => {
                if self.copies(who, attempt) {
                    self.machines[1 - who].disk.blocks[block] =
                        self.machines[who].disk.blocks[block];
                }
            }
            Later::CopyEnd { attempt } => {
                if self.copies(who, attempt) {
                    for block in 0..BLOCKS {
                        if self.machines[who].disk.dirty & 1 << block != 0 {
                            self.machines[1 - who].disk.blocks[block] =
                                self.machines[who].disk.blocks[block];
                        }
                    }
                    self.machines[who].path.held = true;
                    self.later(who, ms(1), Later::Word(FromVolume::JoinReady));
                }
            }
            Later::PeerApply { block, id, lineage } => {
                let mine = self.machines[who]
                    .path
                    .serves(self.now)
                    .is_some_and(|it| it.generation == lineage);
                if mine && self.busy[block].is_some_and(|it| it.0 == id) && self.wires[0] {
                    let disk = &mut self.machines[who].disk;
                    disk.intents |= 1 << block;
                    disk.blocks[block] = id;
                    if self.runs(1 - who) {
                        let delay = ms(self.dice(20) + 1);
                        self.later(1 - who, delay, Later::Acked { block, id, lineage });
                    }
                }
            }
            Later::Acked { block, id, lineage } => {
                let mine = self.machines[who]
                    .path
                    .serves(self.now)
                    .is_some_and(|it| it.generation == lineage);
                if mine && self.busy[block].is_some_and(|it| it.0 == id) && self.wires[0] {
                    self.acked[block] = id;
                    self.busy[block] = None;
                    if self.dice(2) == 0 {
                        for machine in &mut self.machines {
                            machine.disk.intents &= !(1 << block);
                        }
                    }
                }
            }
        }
    }

    /// Whether that resync of `who` is still going on and the other one follows it.
    fn copies(&self, who: usize, attempt: u32) -> bool {
        let Some(mine) = self.machines[who].path.serves(self.now) else {
            return false;
        };
        let follows = matches!(self.machines[1 - who].path.mode, Mode::Following { source } if source == mine);
        self.machines[who].path.attempt == attempt && follows && self.wires[0] && self.runs(1 - who)
    }

    /// Initiators of this node write something.
    fn initiate(&mut self, who: usize) {
        if !self.machines[who].io {
            return;
        }
        let now = self.now;
        let path = &mut self.machines[who].path;
        let waits = path.suspended || path.mode == Mode::Idle;
        if waits && !path.wanted_told {
            path.wanted_told = true;
            self.later(who, ms(1), Later::Word(FromVolume::Wanted));
        }
        let Some(configuration) = self.machines[who]
            .path
            .serves(now)
            .filter(|_| !self.machines[who].path.held)
        else {
            return;
        };
        let block = usize::try_from(self.dice(8)).unwrap();
        let id = self.next_write;
        if configuration.members.count() == 1 {
            self.next_write += 1;
            let disk = &mut self.machines[who].disk;
            disk.dirty |= 1 << block;
            disk.blocks[block] = id;
            if !self.apart {
                self.acked[block] = id;
            }
        } else if self.busy[block].is_none() && self.runs(1 - who) && self.wires[0] {
            self.next_write += 1;
            self.busy[block] = Some((id, who, configuration.generation));
            let disk = &mut self.machines[who].disk;
            disk.intents |= 1 << block;
            disk.blocks[block] = id;
            let delay = ms(self.dice(20) + 1);
            self.later(
                1 - who,
                delay,
                Later::PeerApply {
                    block,
                    id,
                    lineage: configuration.generation,
                },
            );
        }
    }

    // ---- what a node wants done

    pub(super) fn handle(&mut self, who: usize, event: NodeEvent<'_>) {
        let mut actions = Vec::new();
        let now = self.now;
        let Some(node) = &mut self.machines[who].node else {
            return;
        };
        node.handle(now, event, &mut actions);
        for action in actions {
            self.act(who, action);
        }
    }

    fn act(&mut self, who: usize, action: NodeAction) {
        match action {
            NodeAction::LinkSend { link, bytes } => {
                if let Some(wire) = self.wire_of(link).filter(|wire| self.wires[*wire]) {
                    // In order on one link.
                    let at = self.links[wire].map_or(self.now, |(_, last)| last.max(self.now))
                        + ms(self.dice(3));
                    self.links[wire] = Some((link, at));
                    self.later(
                        1 - who,
                        at.saturating_sub(self.now) + ms(1),
                        Later::Bytes { link, bytes },
                    );
                }
            }
            NodeAction::LinkClose { link } => {
                if let Some(wire) = self.wire_of(link) {
                    self.drop_link(wire);
                }
            }
            NodeAction::WriteSuperblock {
                volume,
                slot,
                bytes,
            } => {
                assert_eq!(volume, VOLUME);
                let delay = ms(self.dice(30) + 1);
                self.later(who, delay, Later::SuperblockDone { slot, bytes });
            }
            NodeAction::WriteAcceptor { bytes } => {
                let delay = ms(self.dice(30) + 1);
                self.later(who, delay, Later::AcceptorDone { bytes });
            }
            NodeAction::StoreConfig { bytes } => {
                let delay = ms(self.dice(30) + 1);
                self.later(who, delay, Later::ConfigDone { bytes });
            }
            NodeAction::ConfigCommitted {
                generation,
                document,
            } => {
                self.machines[who].document = Some((generation, document));
            }
            NodeAction::ConfigOutcome(outcome) => self.machines[who].outcomes.push(outcome),
            NodeAction::Portals { open } => {
                self.say(alloc::format!("{} portals {open}", who + 1));
                self.machines[who].portals = open;
            }
            NodeAction::Event { text, .. } => self.say(alloc::format!("{} event: {text}", who + 1)),
            NodeAction::Stopped { clean } => {
                self.say(alloc::format!("{} stopped, clean: {clean}", who + 1));
                self.machines[who].stopped = Some(clean);
            }
            NodeAction::Order(ToShard::Volume(_, order)) => self.obey(who, &order),
            NodeAction::Order(ToShard::LogoutAll { .. }) => {
                self.handle(who, NodeEvent::Shard(FromShard::LoggedOut));
            }
            NodeAction::Order(_) => {}
        }
    }

    fn obey(&mut self, who: usize, order: &ToVolume) {
        if !matches!(order, ToVolume::Lease { .. }) {
            self.say(alloc::format!("{} order {order:?}", who + 1));
        }
        let quick = ms(self.dice(5) + 1);
        let now = self.now;
        match *order {
            ToVolume::Open { blank } => {
                let disk = &mut self.machines[who].disk;
                if blank {
                    (disk.dirty, disk.intents) = (0, 0);
                }
                self.machines[who].path.mode = Mode::Idle;
                self.later(
                    who,
                    quick,
                    Later::Word(FromVolume::Opened {
                        dirty: 0,
                        intents: 0,
                    }),
                );
            }
            ToVolume::Serve {
                configuration,
                not_before,
                joined,
                ..
            } => self.serve(who, configuration, not_before, joined),
            ToVolume::Suspend => {
                let path = &mut self.machines[who].path;
                path.suspended = true;
                path.wanted_told = false;
                path.lease_until = Time::ZERO;
                self.later(who, quick, Later::Word(FromVolume::Suspended));
            }
            ToVolume::Lease { until } => self.machines[who].path.lease_until = until,
            ToVolume::Collect { everything, .. } => {
                let path = &mut self.machines[who].path;
                path.attempt += 1;
                path.held = false;
                assert!(
                    path.serves(now.max(now)).is_some()
                        || matches!(path.mode, Mode::Serving { .. })
                );
                if self.runs(1 - who) && self.wires[0] {
                    let theirs =
                        self.machines[1 - who].disk.dirty | self.machines[1 - who].disk.intents;
                    let disk = &mut self.machines[who].disk;
                    disk.dirty |= theirs | disk.intents | if everything { 0xff } else { 0 };
                    self.later(
                        who,
                        ms(20),
                        Later::Word(FromVolume::UnionDurable { dirty: 1 }),
                    );
                }
            }
            ToVolume::Copy => {
                let attempt = self.machines[who].path.attempt;
                for block in 0..BLOCKS {
                    if self.machines[who].disk.dirty & 1 << block != 0 {
                        let delay = ms(self.dice(300));
                        self.later(who, delay, Later::CopyBlock { attempt, block });
                    }
                }
                self.later(who, ms(320), Later::CopyEnd { attempt });
            }
            ToVolume::Alone => {
                let path = &mut self.machines[who].path;
                path.attempt += 1;
                path.held = false;
                path.suspended = false;
            }
            ToVolume::Follow { source, .. } => {
                assert!(
                    self.machines[who].superblock().inconsistent,
                    "durable before the first copy"
                );
                let path = &mut self.machines[who].path;
                path.mode = Mode::Following { source };
                path.suspended = false;
            }
            ToVolume::Drain { .. } => {
                let path = &mut self.machines[who].path;
                path.suspended = true;
                path.attempt += 1;
                self.later(
                    who,
                    ms(30),
                    Later::Word(FromVolume::Drained { clean: true }),
                );
            }
            ToVolume::Close => {
                // Nothing of the fake is ever in flight once it stands still for so long.
                let disk = &mut self.machines[who].disk;
                disk.dirty |= disk.intents;
                disk.intents = 0;
                self.machines[who].path.mode = Mode::Closed;
                self.later(who, ms(10), Later::Word(FromVolume::Closed { clean: true }));
            }
        }
    }

    fn serve(
        &mut self,
        who: usize,
        configuration: lockstep_mirror::control::Configuration,
        not_before: Time,
        joined: bool,
    ) {
        let durable = self.machines[who].superblock();
        assert_eq!(
            durable.configuration,
            configuration,
            "served before it was durable\n{}",
            self.story()
        );
        assert!(
            !durable.inconsistent && !durable.disk_failed && !durable.split_brain && !durable.clean,
            "{durable:?}"
        );
        assert!(
            !configuration.unilateral || durable.wrote,
            "`wrote` goes with a unilateral configuration"
        );
        let disk = &mut self.machines[who].disk;
        if configuration.members.count() == 1 {
            disk.dirty |= disk.intents;
        } else if joined {
            (disk.dirty, disk.intents) = (0, 0);
        }
        for busy in &mut self.busy {
            *busy = busy.filter(|it| it.2 == configuration.generation);
        }
        let path = &mut self.machines[who].path;
        path.mode = Mode::Serving {
            configuration,
            not_before,
        };
        path.suspended = false;
        path.held = false;
        path.attempt += 1;
        path.wanted_told = false;
        path.lease_until = Time::ZERO;
        // The window of unacknowledged writes is replayed.
        (self.replay(0), self.replay(1));
        self.later(
            who,
            ms(2),
            Later::Word(FromVolume::Serving {
                epoch: configuration.epoch,
            }),
        );
    }

    // ---- what may never happen

    fn check(&mut self) {
        let serving: [Option<_>; 2] = core::array::from_fn(|who| {
            let machine = &self.machines[who];
            machine
                .path
                .serves(self.now)
                .filter(|_| self.runs(who) && machine.paused_until <= self.now)
        });
        if let [Some(a), Some(b)] = serving {
            // Serving means reading or acknowledging; a member without lease or vote does neither.
            let acts = |who: usize| self.machines[who].path.reads(self.now);
            let both = a.lineage() != b.lineage() && acts(0) && acts(1);
            assert!(
                !both || self.apart,
                "two lines serve: {a:?} {b:?}\n{}",
                self.story()
            );
        }
        if self.apart {
            return;
        }
        for who in 0..2 {
            let machine = &self.machines[who];
            if serving[who].is_none() || !machine.path.reads(self.now) {
                continue;
            }
            for block in 0..BLOCKS {
                let held = machine.disk.blocks[block];
                assert!(
                    held >= self.acked[block],
                    "node {} serves block {block} as {held}, acknowledged was {}\n{}",
                    who + 1,
                    self.acked[block],
                    self.story()
                );
            }
        }
    }

    // ---- what tests ask

    pub(super) fn status(&self, who: usize) -> Option<VolumeStatus> {
        let status = self.machines[who].node.as_ref()?.status(self.now);
        status.volumes.first().map(|it| it.1.clone())
    }

    pub(super) fn standing(&self, who: usize) -> Option<Standing> {
        self.status(who).map(|it| it.standing)
    }

    pub(super) fn is_mirrored(&self) -> bool {
        (0..2)
            .all(|who| self.standing(who) == Some(Standing::Mirrored) && self.machines[who].portals)
    }

    pub(super) fn said(&self, text: &str) -> bool {
        self.trace.iter().any(|it| it.contains(text))
    }
}
