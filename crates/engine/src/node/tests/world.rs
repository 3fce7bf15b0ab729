//! Two machines, the wires between them, and time.

mod acts;
pub(super) mod certifier;
mod check;
mod data;
mod referee;
mod wires;

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
    CacheMode, FromVolume, Incarnation, NodeId, Time, ToVolume, VolumeId, VolumeSpec, WitnessId,
};
use lockstep_mirror::superblock::{Found, SLOT_LEN, Superblock};
use lockstep_scsi::interface::{AccessState, Identity};

pub(super) const VOLUME: VolumeId = VolumeId(0xabc);
/// Clocks begin ahead of the world's, so that they can stand still.
const AHEAD: Duration = Duration::from_secs(10_000);
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
    WitnessUp {
        link: LinkId,
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
    Order(ToVolume),
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
    pub(super) maintenance: bool,
    /// Why the image is not there.
    pub(super) missing: Option<String>,
    pub(super) disk: Disk,
    pub(super) path: Path,
    /// Initiators use this node.
    pub(super) io: bool,
    pub(super) portals: bool,
    /// The state of its first own port, as its initiators were last told.
    pub(super) access: Option<AccessState>,
    pub(super) document: Option<(u64, Vec<u8>)>,
    pub(super) outcomes: Vec<Result<u64, crate::node_interface::ConfigRefusal>>,
    pub(super) stopped: Option<bool>,
    pub(super) paused_until: Time,
    /// By how much its clock is ahead of the world's.
    pub(super) ahead: Duration,
    /// So many milliseconds more does a superblock's write take.
    pub(super) slow: u64,
    /// When the last word to Node, and the last order from it, arrives: both ways are in order.
    word_at: Time,
    order_at: Time,
    pub(super) secret: Vec<u8>,
    pub(super) create: bool,
    pub(super) partner: bool,
    pub(super) size: u64,
    /// Superblocks written, decoded, newest last.
    pub(super) journal: Vec<Superblock>,
}

impl Machine {
    /// Its node counts the partner as alive.
    pub(super) fn hears(&self) -> bool {
        self.node.as_ref().is_some_and(Node::hears_partner)
    }

    fn new() -> Self {
        Self {
            node: None,
            incarnation: 0,
            slots: [vec![0; SLOT_LEN], vec![0; SLOT_LEN]],
            acceptor: None,
            pool: None,
            maintenance: false,
            missing: None,
            disk: Disk::default(),
            path: Path::new(),
            io: false,
            portals: false,
            access: None,
            document: None,
            outcomes: Vec::new(),
            stopped: None,
            paused_until: Time::ZERO,
            ahead: AHEAD,
            slow: 0,
            word_at: Time::ZERO,
            order_at: Time::ZERO,
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
    /// Links beside which another one is made: their wire, and when the last bytes arrive.
    old: BTreeMap<LinkId, (usize, Time)>,
    /// How much longer bytes take than usual.
    pub(super) latency: Duration,
    dial_at: Vec<Time>,
    next_link: u64,
    queue: BTreeMap<(Time, u64), (usize, u64, Later)>,
    counter: u64,
    random: u64,
    /// What each node must hold to serve as the only member: the same on both, unless an operator
    /// made two lines.
    pub(super) acked: [[u64; BLOCKS]; 2],
    pub(super) forced: bool,
    /// Writes in flight between two members, and who sent them.
    busy: [Option<(u64, usize, u128)>; BLOCKS],
    next_write: u64,
    pub(super) trace: Vec<String>,
    /// Every channel was dead while both ran: two lines may exist.
    pub(super) apart: bool,
    /// This machine's clock stood still, and nobody has told it yet.
    pub(super) blind: Option<usize>,
    apart_since: Option<Time>,
    /// Messages between Node and data path take up to so many milliseconds.
    pub(super) shard_delay: u64,
    /// What this machine sends to the other one arrives only once it is heard again.
    muted: Option<usize>,
    held: Vec<(LinkId, Vec<u8>)>,
    /// Paths whose data channels were to be given up, and by whom.
    pub(super) given_up: Vec<(usize, u16)>,
    pub(super) referee: Option<referee::Referee>,
    pub(super) certifiers: BTreeMap<LinkId, certifier::Connection>,
    /// The next report of that machine is changed on its way (or, `false`, arrives twice).
    tamper: Option<(usize, bool)>,
    ghosts: BTreeMap<LinkId, lockstep_mirror::hello::Hello>,
    /// The witness that is wanted for the volume.
    pub(super) desired: Option<WitnessId>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: ms(1_000_000),
            machines: [Machine::new(), Machine::new()],
            wires: vec![true, true],
            links: vec![None, None],
            old: BTreeMap::new(),
            latency: Duration::ZERO,
            dial_at: vec![Time::ZERO; 2],
            next_link: 1,
            queue: BTreeMap::new(),
            counter: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            acked: [[0; BLOCKS]; 2],
            forced: false,
            busy: [None; BLOCKS],
            next_write: 1,
            trace: Vec::new(),
            apart: false,
            blind: None,
            apart_since: None,
            shard_delay: 1,
            muted: None,
            held: Vec::new(),
            given_up: Vec::new(),
            referee: None,
            certifiers: BTreeMap::new(),
            tamper: None,
            ghosts: BTreeMap::new(),
            desired: None,
        }
    }

    /// Both nodes started and mirrored.
    pub(super) fn mirrored(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.boot(0);
        world.boot(1);
        world.run_until(ms(10_000), Self::is_mirrored);
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

    /// A word of the data path to Node, in order, after a random time.
    fn word(&mut self, who: usize, delay: Duration, word: FromVolume) {
        let extra = ms(self.dice(self.shard_delay));
        let at = self.machines[who].word_at.max(self.now + delay + extra);
        self.machines[who].word_at = at;
        self.later(who, at.saturating_sub(self.now), Later::Word(word));
    }

    // ---- machines

    pub(super) fn boot(&mut self, who: usize) {
        assert!(self.machines[who].node.is_none(), "it runs already");
        let run = self.dice(1 << 60) + 2;
        self.say(alloc::format!("{} BOOT run {run}", who + 1));
        let now = self.clock(who);
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
            proxy: true,
            timing: lockstep_mirror::lease::Timing::default(),
            acceptor: machine.acceptor.clone(),
            pool: machine.pool.clone(),
            maintenance: machine.maintenance,
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&run.to_be_bytes());
        machine.node = Some(Node::new(settings, seed, now));
        self.introduce_witness(who);
        if self.desired.is_none() {
            self.desired = self.life();
        }
        self.open_copy(who);
    }

    /// The volume's image and metadata are opened, or are not there.
    pub(super) fn open_copy(&mut self, who: usize) {
        let machine = &self.machines[who];
        let run = machine.incarnation;
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
        if let Some(reason) = machine.missing.clone() {
            let settings = Some(alloc::boxed::Box::new(settings));
            let event = NodeEvent::VolumeUnavailable {
                volume: VOLUME,
                reason,
                settings,
            };
            return self.handle(who, event);
        }
        let ready = VolumeReady {
            settings,
            witness: self.desired,
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
        if self.referee.is_some() {
            self.close_witness_link(who);
        }
    }

    pub(super) fn pause(&mut self, who: usize, long: Duration) {
        self.say(alloc::format!("{} PAUSE {} ms", who + 1, long.as_millis()));
        self.machines[who].paused_until = self.now + long;
    }

    /// What its clock shows.
    pub(super) fn clock(&self, who: usize) -> Time {
        self.now + self.machines[who].ahead
    }

    /// Its clock shows so much more at once, while the machine runs on.
    pub(super) fn jump(&mut self, who: usize, by: Duration) {
        self.say(alloc::format!("{} JUMP {} ms", who + 1, by.as_millis()));
        let before = self.clock(who);
        self.machines[who].ahead += by;
        self.machines[who].path.jumped(before, by);
    }

    /// The machine stands still, and its clock with it.
    pub(super) fn stand_still(&mut self, who: usize, long: Duration) {
        self.say(alloc::format!("{} STILL {} ms", who + 1, long.as_millis()));
        self.machines[who].paused_until = self.now + long;
        self.machines[who].ahead -= long;
    }

    pub(super) fn runs(&self, who: usize) -> bool {
        self.machines[who].node.is_some()
    }

    pub(super) fn cut(&mut self, wire: usize) {
        self.say(alloc::format!("wire {wire} CUT"));
        self.wires[wire] = false;
    }

    /// One direction stalls, as TCP does: nothing of what this machine sends arrives for now.
    pub(super) fn mute(&mut self, who: usize) {
        self.say(alloc::format!("{} MUTE", who + 1));
        self.muted = Some(who);
    }

    /// Everything arrives after all.
    pub(super) fn unmute(&mut self) {
        let Some(who) = self.muted.take() else { return };
        self.say(alloc::format!("{} HEARD AGAIN", who + 1));
        for (link, bytes) in core::mem::take(&mut self.held) {
            self.act(who, NodeAction::LinkSend { link, bytes });
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
        self.referee_work();
        for who in 0..2 {
            if self.machines[who].paused_until > self.now || !self.runs(who) {
                continue;
            }
            let oldest = self.clock(who);
            self.handle(who, NodeEvent::Stamp { oldest, wall: 0 });
            let due = self.machines[who]
                .node
                .as_ref()
                .and_then(Node::next_deadline);
            if due.is_some_and(|at| at <= oldest) {
                self.handle(who, NodeEvent::Tick);
            }
            self.collect(who);
            self.initiate(who);
        }
        self.check();
    }

    // ---- what tests ask

    pub(super) fn status(&self, who: usize) -> Option<VolumeStatus> {
        let now = self.clock(who);
        let status = self.machines[who].node.as_ref()?.status(now);
        status.volumes.first().map(|it| it.1.clone())
    }

    pub(super) fn standing(&self, who: usize) -> Option<Standing> {
        self.status(who).map(|it| it.standing)
    }

    pub(super) fn is_mirrored(&self) -> bool {
        (0..2)
            .all(|who| self.standing(who) == Some(Standing::Mirrored) && self.machines[who].portals)
    }

    /// Somebody on the wire changes the next report of that machine into a step-down, or
    /// (`forged` false) says it once more.
    pub(super) fn listen_in(&mut self, who: usize, forged: bool) {
        self.tamper = Some((who, forged));
    }

    /// How often that machine has refused a control link.
    pub(super) fn refusals(&self, who: usize) -> usize {
        let text = alloc::format!("{} event: control link", who + 1);
        self.trace.iter().filter(|it| it.contains(&text)).count()
    }

    pub(super) fn said(&self, text: &str) -> bool {
        self.trace.iter().any(|it| it.contains(text))
    }
}
