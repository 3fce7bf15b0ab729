//! The world of one run: two nodes, perhaps a witness, one or two initiators, the links between them, the plan of
//! faults, and the checks. Everything happens here, one event after the other.

mod checks;
mod decisions;
mod majority;
mod throw;

use crate::client::{Client, Load};
use crate::clock::Clock;
use crate::context::{Context, What};
use crate::disk::SECTOR;
use crate::faults::{Fault, Plan};
use crate::ledger::Ledger;
use crate::machine::certifier::Supervisor;
use crate::machine::{DiskSpeed, Machine, NodeStores};
use crate::network::{LinkId, Network};
use crate::prng::Prng;
use crate::watch::Watch;
use crate::witness::WitnessMachine;
use core::time::Duration;
use lockstep_mirror::control::{CacheMode, VolumeId};
use lockstep_mirror::metadata_layout::REGION;
use std::collections::{BTreeMap, BTreeSet};

/// Host number of the witness; the nodes are 0 and 1.
const WITNESS_HOST: usize = 2;
/// Host number of the first initiator.
const FIRST_CLIENT: usize = 3;
/// The volume's UUID in every run.
pub const VOLUME: VolumeId = VolumeId(0x5d1c_6d0e_8f3a_4c7b_9a51_0f2e_3d4c_5b6a);
/// The target's name in every run.
pub const TARGET: &str = "iqn.2026-11.test.sim:vm0";
/// Both nodes serve together after at most this time without faults.
const SETTLE: Duration = Duration::from_secs(150);
/// Initiators are answered again after at most this time without faults.
const LIVENESS: Duration = Duration::from_secs(30);
/// How often the checks that look at both nodes are made.
const INSPECTION: Duration = Duration::from_millis(500);

/// What a run is made of, all of it chosen by its seed.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Size of the volume in bytes.
    pub size: u64,
    /// Bytes a block.
    pub block: u32,
    /// When writes are answered.
    pub cache: CacheMode,
    /// Links that carry data and control.
    pub sync_links: usize,
    /// Data channels over each of them.
    pub connections: u16,
    /// Links that carry control only.
    pub control_links: usize,
    /// Initiators.
    pub clients: usize,
    /// Clock speeds of the nodes, in millionths.
    pub speeds: [u64; 2],
    /// Strategy: majority, with a witness; otherwise heartbeat.
    pub majority: bool,
    /// The witness is admitted before the volume is made; otherwise the volume begins without.
    pub admitted_first: bool,
    /// Clock speed of the witness.
    pub witness_speed: u64,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Promises broken, the first ones.
    pub violations: Vec<String>,
    /// Events.
    pub steps: u64,
    /// Pretend time.
    pub time: Duration,
    /// Commands of initiators that ended.
    pub commands: u64,
    /// The longest time in which no initiator was answered while one waited.
    pub longest_gap: Duration,
    /// How often things happened.
    pub counts: BTreeMap<&'static str, u64>,
}

/// See the module.
pub struct World {
    ctx: Context,
    machines: [Machine; 2],
    witness: Option<WitnessMachine>,
    clients: Vec<Client>,
    ledger: Ledger,
    shape: Shape,
    plan: Plan,
    phase: Phase,
    isolated: Option<usize>,
    /// The nodes are cut off from each other, and initiators from neither.
    parted: Option<majority::Parted>,
    /// They were for long.
    parted_long: bool,
    /// The strategy is or may become heartbeat for a while, in a run with a witness.
    changing: bool,
    /// Pages of the images that differed when they were last compared.
    differing: BTreeSet<usize>,
    /// The node that was cut off last, until both serve together again.
    cut_off: Option<usize>,
    /// Shortest and longest time on the way between the nodes, in microseconds, as a rule.
    latency: (u64, u64),
    /// Until when the initiators rest.
    rest: Option<Duration>,
    last_power_cut: Option<Duration>,
    /// A disk failed and was replaced.
    replaced: bool,
    /// A snapshot of a disk was put back, and both have not served together since.
    older: bool,
    /// A disk was so slow that its node is put out.
    crawled: bool,
    /// How often the present run of each node has put the other one out for slowness.
    ejected: [u32; 2],
    /// One was, and the two have not come together in the calm since.
    put_out: bool,
    /// No later than this does the last wait for it end.
    waits_until: Duration,
    /// An operator decided for a copy, and the two have not come together since; at most until.
    deciding: Option<Duration>,
    /// The split that came of it was resolved.
    chosen: bool,
    /// What was done before an operator decided for a copy.
    line_before: Option<Ledger>,
    /// Sectors that rotted, until they were repaired, and the node on whose disk.
    rotten: Option<(usize, u64)>,
    /// A verification was ordered and has not answered.
    asked_to_verify: bool,
    longest_gap: Duration,
    last_answer: Duration,
    chance: Prng,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The volume is made.
    Making,
    /// Load and faults.
    Faults,
    /// Load, no faults any more since then.
    Calm(Duration),
    /// Both serve; what was begun is ended.
    Ending,
    /// Bits have rotted on one node's disk, or none have, and both copies are compared.
    Verifying(Duration),
    /// Everything is read by each path.
    Reading,
    /// Over.
    Over,
}

impl World {
    /// A world that is a function of its seed.
    #[must_use]
    pub fn new(seed: u64, tracing: bool) -> Self {
        let mut chance = Prng::new(seed);
        let shape = Shape::new(&mut chance);
        let plan = Plan::new(&mut chance, shape.majority);
        Self::with(chance, shape, plan, tracing)
    }

    /// A world of this shape and with these faults.
    #[must_use]
    pub fn with(mut chance: Prng, shape: Shape, plan: Plan, tracing: bool) -> Self {
        let user_timeout = chance.millis(4000, 12_000);
        let mut network = Network::new(FIRST_CLIENT + shape.clients, user_timeout, chance.fork());
        let latency = (chance.between(20, 100), chance.between(150, 1500));
        let sync: Vec<LinkId> = (0..shape.sync_links)
            .map(|_| network.add_link([0, 1], latency))
            .collect();
        let control: Vec<LinkId> = (0..shape.control_links)
            .map(|_| network.add_link([0, 1], (100, 3000)))
            .collect();
        let witness = shape.majority.then(|| {
            let links = [0, 1].map(|node| network.add_link([node, WITNESS_HOST], (200, 4000)));
            WitnessMachine::new(WITNESS_HOST, links, shape.witness_speed, chance.fork())
        });
        let load = shape.load(&mut chance);
        let clients = (0..shape.clients).map(|number| {
            let host = FIRST_CLIENT + number;
            let links = [0, 1].map(|node| network.add_link([host, node], latency));
            Client::new(host, links, TARGET, load.clone(), chance.fork())
        });
        let clients = clients.collect();
        let ctx = Context::new(network, chance.fork(), tracing);
        let speed = DiskSpeed {
            low: 20,
            high: *chance.pick(&[150, 500, 3000]),
            slow: 10,
        };
        let machines = [0, 1].map(|host| Machine {
            host,
            clock: Clock::new(Duration::ZERO, shape.speeds[host]),
            volumes: BTreeMap::new(),
            earlier: BTreeMap::new(),
            stores: NodeStores::new(&shape),
            sync_links: sync.clone(),
            connections: shape.connections,
            control_links: sync.iter().chain(&control).copied().collect(),
            witness_link: witness.as_ref().map(|it| it.links[host]),
            speed,
            disk_fails: false,
            crawls: false,
            hung_until: Duration::ZERO,
            bad: BTreeSet::new(),
            process: None,
            runs: 0,
            prng: chance.fork(),
            still_since: None,
            still_until: Duration::ZERO,
            supervisor: Supervisor::default(),
            watch: Watch::default(),
        });
        Self {
            ctx,
            machines,
            witness,
            clients,
            ledger: Ledger::new(),
            shape,
            plan,
            phase: Phase::Making,
            isolated: None,
            parted: None,
            parted_long: false,
            changing: false,
            differing: BTreeSet::new(),
            cut_off: None,
            latency,
            rest: None,
            last_power_cut: None,
            replaced: false,
            older: false,
            crawled: false,
            ejected: [0; 2],
            put_out: false,
            waits_until: Duration::ZERO,
            deciding: None,
            chosen: false,
            line_before: None,
            rotten: None,
            asked_to_verify: false,
            longest_gap: Duration::ZERO,
            last_answer: Duration::ZERO,
            chance,
        }
    }

    /// Runs to the end.
    #[must_use]
    pub fn run(mut self, seed: u64) -> Report {
        self.ctx
            .trace("world", || format!("{:?} {:?}", self.shape, self.plan));
        for host in 0..2 {
            let delay = self.chance.millis(0, 500);
            self.ctx.after(delay, What::Fault(Fault::Start(host)));
        }
        if self.shape.is_large() {
            self.ctx.count("runs with a large volume");
        }
        if self.shape.majority {
            self.ctx.count("runs with a witness");
            let delay = self.chance.millis(0, 500);
            self.ctx.after(delay, What::Fault(Fault::StartWitness));
        }
        self.ctx.after(INSPECTION, What::Inspect);
        while self.phase != Phase::Over && self.ctx.violations.is_empty() {
            let Some((at, what)) = self.ctx.wheel.pop() else {
                break;
            };
            self.ctx.now = at;
            self.ctx.step += 1;
            self.happen(what);
            self.settle();
        }
        self.report(seed)
    }

    fn happen(&mut self, what: What) {
        let ctx = &mut self.ctx;
        match what {
            What::Net(event) => ctx.network.handle(ctx.now, event),
            What::Process { host, run, event } => {
                self.machines[host].process_event(ctx, run, event)
            }
            What::Witness { run, event } => {
                if let Some(witness) = &mut self.witness {
                    witness.event(ctx, run, event);
                }
            }
            What::Supervisor { host, event } => self.machines[host].supervisor_event(ctx, event),
            What::Initiator { host, event } => {
                self.clients[host - FIRST_CLIENT].event(ctx, &mut self.ledger, event)
            }
            What::Fault(fault) => self.throw(fault),
            What::Inspect => {
                self.inspect();
                self.ctx.after(INSPECTION, What::Inspect);
            }
        }
    }

    /// Tells hosts what their kernels have to say, until the network is silent.
    fn settle(&mut self) {
        let ctx = &mut self.ctx;
        while let Some((host, note)) = ctx.network.next_note() {
            match (host.checked_sub(FIRST_CLIENT), &mut self.witness) {
                (Some(client), _) => self.clients[client].note(ctx, &mut self.ledger, note),
                (None, Some(witness)) if host == WITNESS_HOST => witness.note(ctx, note),
                (None, _) => self.machines[host].note(ctx, note),
            }
        }
        for (at, event) in ctx.network.take_timers() {
            ctx.wheel.push(at, What::Net(event));
        }
        for client in &self.clients {
            self.last_answer = self.last_answer.max(client.last_good);
        }
    }

    fn report(self, seed: u64) -> Report {
        let mut counts = self.ctx.counts;
        let traffic = self.ctx.network.traffic;
        counts.insert("pieces delivered", traffic.pieces);
        counts.insert("streams ended by resets and time-outs", traffic.resets);
        counts.insert("pieces lost and sent again", traffic.losses);
        counts.insert("bits flipped", traffic.flips);
        Report {
            seed,
            violations: self.ctx.violations,
            steps: self.ctx.step,
            time: self.ctx.now,
            commands: self.clients.iter().map(|client| client.ended.0).sum(),
            longest_gap: self.longest_gap,
            counts,
        }
    }
}

impl Shape {
    /// A random shape.
    #[must_use]
    pub fn new(prng: &mut Prng) -> Self {
        // In some runs the volume is so large that most of it is at rest at any time: there, what
        // differs is known by dirty bits alone.
        let mib = match prng.chance(150) {
            true => *prng.pick(&[96, 192]),
            false => *prng.pick(&[1, 1, 2, 2, 4, 4, 4, 20]),
        };
        let drift = *prng.pick(&[0, 100, 50_000]);
        let speed = |prng: &mut Prng| 1_000_000 - drift + prng.below(2 * drift + 1);
        Self {
            size: mib << 20,
            block: *prng.pick(&[512, 4096]),
            cache: *prng.pick(&[
                CacheMode::None,
                CacheMode::WriteThrough,
                CacheMode::WriteThrough,
                CacheMode::WriteBack,
            ]),
            sync_links: prng.index(3) + 1,
            connections: *prng.pick(&[1, 2, 3]),
            control_links: prng.index(3),
            clients: prng.index(2) + 1,
            speeds: [speed(prng), speed(prng)],
            majority: prng.chance(500),
            admitted_first: prng.chance(500),
            witness_speed: speed(prng),
        }
    }

    /// Whether the load wanders over the volume, and leaves most of it at rest.
    pub(crate) const fn is_large(&self) -> bool {
        self.size > 20 << 20
    }

    fn load(&self, prng: &mut Prng) -> Load {
        let block = u64::from(self.block) / SECTOR as u64;
        let sectors = self.size / SECTOR as u64;
        Load {
            sectors,
            block,
            depth: prng.index(6) + 1,
            think_ms: *prng.pick(&[60, 200, 400]),
            blocks: *prng.pick(&[1, 8, 16]),
            hot: (*prng.pick(&[8_u64, 64, 2048])).min(sectors),
            spots: match self.is_large() {
                true => self.size / REGION,
                false => 1,
            },
            dwell_ms: prng.between(1000, 6000),
            writes: *prng.pick(&[300, 500, 800]),
            both_paths: prng.chance(600),
        }
    }
}
