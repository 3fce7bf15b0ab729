//! Two nodes, and a witness in strategy majority: the real `Membership` of each, with the real
//! acceptors, `decide`, superblocks and leases, under crashes, parted networks, late messages,
//! slow disks, pauses and clocks that run apart.
//!
//! By default everything happens in order and at once; the adversary may interfere at any moment,
//! a bounded number of times. So the search is exhaustive in *where* it interferes and in *what*
//! it does, up to that number and a number of ticks of half a second.
//!
//! What is restated, and what it leaves out:
//! - `machine.rs` is what `Node` does around a membership (heartbeats, contact, questions to
//!   acceptors, reports) with one link between the nodes, on which order is kept. A link on which
//!   nothing comes for long is made anew, and what was on it is lost.
//! - `path.rs` is a data path of a few blocks, one write each: intents, dirty bits, inherited
//!   operations, a copy that happens at one moment. Every disk is write-through.
//! - Initiators reach both nodes all the time, except a node that is cut off in the heartbeat
//!   strategy, which cannot exclude that both serve when only the links between them are dead.

use crate::search::{Fingerprint, Model};
use lockstep_mirror::control::{Configuration, Incarnation, NodeId, Time, VolumeId, WitnessId};
use lockstep_mirror::lease::Timing;
use lockstep_mirror::membership::Left;
use lockstep_mirror::membership::report::Report;
use lockstep_mirror::register::{Acceptor, Message};
use lockstep_mirror::superblock::Lineage;
use std::collections::VecDeque;
use std::fmt;
use std::hash::Hasher;
use std::num::NonZeroU32;
use std::time::Duration;

mod checks;
mod faults;
mod machine;
mod path;
#[cfg(test)]
mod tests;
mod text;

use machine::Machine;

const VOLUME: VolumeId = VolumeId(1);
const WITNESS_LIFE: WitnessId = WitnessId(NonZeroU32::MIN);
/// The clocks' tick, before they run apart.
const TICK: Duration = Duration::from_millis(500);
/// After so many ticks without anything on it a link is closed (`Timing::quiet`).
const QUIET_TICKS: u8 = 3;
/// Ticks after which a pair that nothing happens to must serve again: grace of a cold start,
/// rounds, a resync.
const CALM_TICKS: u32 = 120;

/// The default times, but for one heartbeat a tick and shorter waits.
pub const DEFAULT: Timing = Timing {
    heartbeat: TICK,
    silence: Duration::from_secs(2),
    precedence: TICK,
    lease: Duration::from_millis(1500),
    stamp: Duration::from_secs(1),
    answer: Duration::from_secs(2),
    rejoin: Duration::from_secs(2),
};
/// A silence hardly longer than a lease, as `Timing::check` allows it: what is promised must then
/// be waited out.
pub const HASTY: Timing = Timing {
    silence: Duration::from_millis(1510),
    ..DEFAULT
};

/// Rules of the data path. `true`: it holds.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A read looks at the lease.
    pub leases: bool,
    /// What is inherited waits for `not_before`.
    pub not_before: bool,
    /// Going alone turns intents into dirty bits.
    pub intents_to_dirty: bool,
    /// A write is answered only once the partner holds it too.
    pub both_hold: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            leases: true,
            not_before: true,
            intents_to_dirty: true,
            both_hold: true,
        }
    }
}

/// The scope of a search.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Strategy majority; otherwise heartbeat.
    pub witness: bool,
    /// How often the adversary interferes.
    pub faults: u8,
    /// Which faults it has.
    pub kinds: Kinds,
    /// Writes of initiators.
    pub writes: u8,
    /// Ticks after both nodes serve together for the first time.
    pub ticks: u32,
    /// How the two clocks run, in percent off.
    pub drift: [i8; 2],
    /// The times.
    pub timing: Timing,
    /// One in so many of the states in which the last fault was thrown is followed, without
    /// faults, until both nodes serve together again. 0: none.
    pub calm: u64,
    /// What holds.
    pub rules: Rules,
}

/// Faults that the adversary has. At any moment, unless something else is said.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// A node crashes; the writes under way have happened or not.
    pub crashes: bool,
    /// Both directions, or one, of the links between the nodes stall.
    pub parting: bool,
    /// The links of a node to the witness stall.
    pub witness: bool,
    /// All links of a node stall.
    pub isolation: bool,
    /// A process does not run.
    pub pauses: bool,
    /// A node's superblock and register file are written late.
    pub slow_disks: bool,
    /// An operation is late although the partner is heard.
    pub late: bool,
}

impl Kinds {
    /// Everything.
    pub const ALL: Self = Self {
        crashes: true,
        parting: true,
        witness: true,
        isolation: true,
        pauses: true,
        slow_disks: true,
        late: true,
    };
    /// Nothing.
    pub const NONE: Self = Self {
        crashes: false,
        parting: false,
        witness: false,
        isolation: false,
        pauses: false,
        slow_disks: false,
        late: false,
    };
    /// What the heartbeat strategy must bear.
    pub const HEARTBEAT: Self = Self {
        parting: false,
        witness: false,
        ..Self::ALL
    };
}

impl Default for Pair {
    fn default() -> Self {
        Self {
            witness: true,
            faults: 1,
            kinds: Kinds::ALL,
            writes: 1,
            ticks: 24,
            drift: [5, -5],
            timing: DEFAULT,
            calm: 16,
            rules: Rules::default(),
        }
    }
}

/// What the nodes say to each other.
#[derive(Clone, Debug)]
enum Frame {
    Beat {
        run: Incarnation,
        sent: Time,
    },
    Ack {
        sent: Time,
        promise: Option<u64>,
    },
    Report(Box<Report>),
    Register(Message),
    /// A write of one block, under a configuration.
    Apply(u8, Lineage),
    /// It is durable there.
    Stored(u8, Lineage),
    /// It is committed.
    Committed(u8, Lineage),
}

/// Everything.
#[derive(Clone, Debug)]
pub struct World {
    nodes: [Machine; 2],
    referee: Acceptor,
    /// To node 1 and to node 2.
    wires: [VecDeque<Frame>; 2],
    /// Nothing passes, since so many ticks.
    stalled: [Option<u8>; 2],
    /// Questions of each node to the witness, and answers to it.
    questions: [VecDeque<Message>; 2],
    answers: [VecDeque<Message>; 2],
    witness_stalled: [bool; 2],
    /// A node that is cut off from everything, initiators too.
    cut_off: Option<u8>,
    /// Of each node's last run that crashed: its name, and what it left.
    certificates: [Option<(Incarnation, Left)>; 2],
    faults: u8,
    written: u8,
    /// Blocks whose writes were answered.
    acknowledged: u8,
    /// Blocks that somebody may have read as written.
    seen: u8,
    ticks: u32,
    /// What has been broken.
    harm: Option<String>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next thing in order, whatever it is; with nothing to do, half a second passes.
    Go(&'static str),
    /// A node crashes; writes under way have happened or not.
    Crash {
        /// Which, 0 or 1.
        node: u8,
        /// They have.
        landed: bool,
    },
    /// The other node hears a certificate of this one's death, made when it crashed.
    Certify(u8),
    /// A node that is down starts.
    Boot(u8),
    /// What is sent to that node stalls.
    Mute(u8),
    /// The nodes are parted.
    Part,
    /// A node is parted from the witness.
    PartWitness(u8),
    /// A node is parted from the other one and from the witness.
    Isolate(u8),
    /// Every link works again; what was on its way comes after all, or is lost.
    Heal {
        /// It comes.
        kept: bool,
    },
    /// A process stops running.
    Pause(u8),
    /// It runs again.
    Resume(u8),
    /// A node's superblock and register file are written no more for a while.
    Slow(u8),
    /// They are.
    Quick(u8),
    /// An operation has waited too long there.
    Late(u8),
    /// An initiator writes to that node.
    Write(u8),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Go(what) => f.write_str(what),
            Self::Crash { node, landed } => write!(
                f,
                "NODE {} CRASHES, what it was writing is {}",
                node + 1,
                if *landed { "written" } else { "lost" }
            ),
            Self::Certify(node) => write!(f, "THE DEATH OF NODE {} IS CERTIFIED", node + 1),
            Self::Boot(node) => write!(f, "NODE {} STARTS", node + 1),
            Self::Mute(node) => write!(f, "WHAT IS SENT TO NODE {} STALLS", node + 1),
            Self::Part => f.write_str("THE NODES ARE PARTED"),
            Self::PartWitness(node) => write!(f, "NODE {} IS PARTED FROM THE WITNESS", node + 1),
            Self::Isolate(node) => write!(f, "NODE {} IS CUT OFF", node + 1),
            Self::Heal { kept: true } => f.write_str("THE NETWORK RETURNS WITH ALL THAT WAS SENT"),
            Self::Heal { kept: false } => f.write_str("THE NETWORK RETURNS WITH NEW CONNECTIONS"),
            Self::Pause(node) => write!(f, "NODE {} STANDS STILL", node + 1),
            Self::Resume(node) => write!(f, "NODE {} RUNS AGAIN", node + 1),
            Self::Slow(node) => write!(f, "THE DISK OF NODE {} IS SLOW", node + 1),
            Self::Quick(node) => write!(f, "THE DISK OF NODE {} IS QUICK AGAIN", node + 1),
            Self::Late(node) => write!(f, "AN OPERATION IS LATE AT NODE {}", node + 1),
            Self::Write(node) => write!(f, "node {} is given a write", node + 1),
        }
    }
}

const fn node_id(it: usize) -> NodeId {
    if it == 0 { NodeId(1) } else { NodeId(2) }
}

impl Model for Pair {
    type State = World;
    type Step = Step;

    /// Both nodes serve together, for long enough that nothing of the start is left.
    fn starts(&self) -> Vec<World> {
        assert_eq!(self.timing.check(), Ok(()), "times that fit each other");
        let mut world = World::new(self);
        for _ in 0..2000 {
            world.take(self, &Step::Go(""));
            assert!(world.harm.is_none(), "{:?}", world.harm);
        }
        assert!(world.is_mirrored(), "{}", world.describe());
        while world.next().is_some() {
            world.go(self);
        }
        world.check(self);
        assert!(world.harm.is_none(), "{:?}", world.harm);
        world.ticks = 0;
        vec![world]
    }

    fn steps(&self, world: &World, into: &mut Vec<Step>) {
        match world.next() {
            Some(what) => into.push(Step::Go(what)),
            None if world.ticks < self.ticks => into.push(Step::Go("half a second passes")),
            None => return,
        }
        world.adversary(self, into);
    }

    fn take(&self, world: &mut World, step: &Step) -> Result<(), String> {
        world.take(self, step);
        world.check(self);
        let last = world.faults == self.faults && !matches!(step, Step::Go(_));
        if last && self.calm > 0 && world.harm.is_none() {
            let mut key = Fingerprint::default();
            self.key(world, &mut key);
            if key.finish() % self.calm == 0 {
                world.clone().calms_down(self)?;
            }
        }
        world.harm.take().map_or(Ok(()), Err)
    }

    fn key(&self, world: &World, into: &mut Fingerprint) {
        into.write(text::canonical(world).as_bytes());
    }

    fn describe(&self, world: &World) -> String {
        world.describe()
    }
}

/// The words for what a configuration is.
fn short(it: &Configuration) -> String {
    let who = match it.members.0 >> 1 {
        1 => "{1}",
        2 => "{2}",
        3 => "{1,2}",
        _ => "{}",
    };
    format!(
        "epoch {} {who}{}",
        it.epoch,
        if it.unilateral { " unilateral" } else { "" }
    )
}
