//! One node: a machine with a clock, disks and a kernel, and the daemon's process on it. The
//! process is the daemon's own `Node` and `Shard`; this module is their driver, as the ring and
//! the control thread are in the daemon, and carries out what they say.

pub mod certifier;
mod connection;
pub mod control;
mod death;
pub mod marks;
mod states;
mod storage;

use crate::clock::Clock;
use crate::context::{Context, What};
use crate::disk::Disk;
use crate::memory::Memory;
use crate::network::{EndId, LinkId, Note};
use crate::prng::Prng;
use connection::Connection;
pub use control::NodeStores;
use core::time::Duration;
use lockstep_engine::interface::{Action, Event, FromShard, ToShard};
use lockstep_engine::pool::PoolClass;
use lockstep_engine::shard::Shard;
use lockstep_mirror::control::{ToVolume, VolumeId};
use lockstep_mirror::operation::BufferId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use storage::Job;

/// The pool of a pretend node: small, so that it runs short now and then.
const POOL: [PoolClass; 3] = [
    PoolClass {
        slots: 40,
        slot_bytes: 16 << 10,
    },
    PoolClass {
        slots: 24,
        slot_bytes: 128 << 10,
    },
    PoolClass {
        slots: 16,
        slot_bytes: 1 << 20,
    },
];
/// Ports that a node listens on.
pub const PORT_ISCSI: u16 = 3260;
/// Data channels of the partner.
pub const PORT_DATA: u16 = 7001;
/// Control channels of the partner.
pub const PORT_CONTROL: u16 = 7002;

/// What happens in a process.
#[derive(Debug)]
pub enum ProcessEvent {
    /// The shard's deadline, as it was known then.
    ShardWake(Duration),
    /// The node's deadline.
    NodeWake(Duration),
    /// A connection's queue goes to the kernel.
    Transmit(EndId),
    /// A disk operation is half done.
    JobHalf(u64),
    /// It is done.
    JobDone(u64),
    /// A message between the two machines arrives.
    Order(ToShard),
    /// The other way.
    Report(FromShard),
    /// Something for the control plane's driver.
    Control(control::ControlEvent),
    /// The kernel took a connection.
    Accepted {
        /// Our end.
        end: EndId,
        /// Over which link.
        link: LinkId,
        /// To which port.
        port: u16,
    },
    /// The kernel says something else about a stream.
    Note(Note),
    /// The pause ends.
    Resume,
}

/// How fast a node's disks are, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    /// Shortest time of an operation.
    pub low: u64,
    /// Longest time of an ordinary one.
    pub high: u64,
    /// Thousandths that take twenty times as long.
    pub slow: u64,
}

/// The two files of a volume on one node.
#[derive(Debug, Default)]
pub struct Files {
    /// The image.
    pub image: Disk,
    /// The metadata area.
    pub meta: Disk,
}

/// A node's hardware, and its process while it runs.
pub struct Machine {
    /// Its number in the network: 0 or 1.
    pub host: usize,
    /// Its clock.
    pub clock: Clock,
    /// Each volume's files.
    pub volumes: BTreeMap<u128, Files>,
    /// What was durable on them once.
    pub earlier: BTreeMap<u128, Files>,
    /// What the control plane keeps.
    pub stores: NodeStores,
    /// The links over which its data channels go, in the order of their addresses.
    pub sync_links: Vec<LinkId>,
    /// Data channels over each of them.
    pub connections: u16,
    /// The links over which control channels go.
    pub control_links: Vec<LinkId>,
    /// The link to the witness, if there is one.
    pub witness_link: Option<LinkId>,
    /// How fast its disks are now.
    pub speed: DiskSpeed,
    /// Its disk takes longer for each write of blocks than the other node waits.
    pub crawls: bool,
    /// Its disk fails every write and flush.
    pub disk_fails: bool,
    /// Reads that are begun before do not end before.
    pub hung_until: Duration,
    /// Sectors of the images that answer reads with an error until they are written, as long as
    /// another copy is there.
    pub bad: BTreeSet<u64>,
    /// The daemon, if it runs.
    pub process: Option<Process>,
    /// Runs so far.
    pub runs: u64,
    /// Chance of its own.
    pub prng: Prng,
    /// Since when it stands still, and its clock with it.
    pub still_since: Option<Duration>,
    /// It is not to meet anybody before.
    pub still_until: Duration,
    /// Who looks after its daemon.
    pub supervisor: certifier::Supervisor,
    /// What the checks must know of its data paths.
    pub watch: crate::watch::Watch,
}

/// One run of the daemon.
pub struct Process {
    run: u64,
    /// The data path.
    pub shard: Shard,
    /// The control side.
    pub control: control::Control,
    states: states::States,
    memory: Memory,
    connections: Vec<Option<Connection>>,
    generations: Vec<u32>,
    ends: BTreeMap<EndId, usize>,
    dials: BTreeMap<EndId, u32>,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    local: VecDeque<Local>,
    actions: Vec<Action>,
    shard_wake: Option<Duration>,
    last_order: Duration,
    last_report: Duration,
    /// Events that came while the process was stopped.
    stopped: Option<Vec<ProcessEvent>>,
}

/// What is still to be done in this turn.
#[expect(clippy::large_enum_variant, reason = "actions are the usual case")]
enum Local {
    Pump(usize),
    Sent(BufferId),
    Act(Action),
}

impl Machine {
    /// Starts the daemon.
    pub fn start(&mut self, ctx: &mut Context) {
        assert!(self.process.is_none(), "one daemon at a time");
        self.end_certifying(ctx);
        self.runs += 1;
        let shard = Shard::new(&POOL, self.prng.seed());
        let memory = Memory::new(shard.pool_layout());
        let now = self.clock.read(ctx.now);
        ctx.trace(self.host, || format!("starts, run {}", self.runs));
        self.watch.started();
        let control = control::Control::new(self, now);
        self.process = Some(Process {
            states: states::States::default(),
            run: self.runs,
            shard,
            control,
            memory,
            connections: Vec::new(),
            generations: Vec::new(),
            ends: BTreeMap::new(),
            dials: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next_job: 0,
            local: VecDeque::new(),
            actions: Vec::new(),
            shard_wake: None,
            last_order: Duration::ZERO,
            last_report: Duration::ZERO,
            stopped: None,
        });
        self.control_started(ctx);
    }

    /// Stops the process for a while, as a debugger or a busy hypervisor would.
    pub fn pause(&mut self, ctx: &mut Context, time: Duration) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.stopped.is_none() {
            process.stopped = Some(Vec::new());
            let run = process.run;
            ctx.trace(self.host, || format!("stands still for {time:?}"));
            ctx.after(
                time,
                What::Process {
                    host: self.host,
                    run,
                    event: ProcessEvent::Resume,
                },
            );
        }
    }

    /// The machine stands still for so long, and its clock does not know: a hypervisor stopped it.
    pub fn stand_still(&mut self, ctx: &mut Context, time: Duration) {
        let stopped = |it: &Process| it.stopped.is_some();
        if self.process.as_ref().is_some_and(|it| !stopped(it)) {
            self.still_since = Some(ctx.now);
            self.pause(ctx, time);
        }
    }

    /// It goes on.
    pub fn moves_again(&mut self, ctx: &Context) {
        if let Some(since) = self.still_since.take() {
            self.clock.stood_still(ctx.now.saturating_sub(since));
        }
    }

    /// Its clock shows so much more at once. The daemon looks at it within 100 ms, whatever its
    /// timers waited for.
    pub fn clock_jumps(&mut self, ctx: &mut Context, by: Duration) {
        self.clock.jump(by);
        let at = ctx.now + self.prng.millis(0, 100) + Duration::from_micros(1);
        let Some(process) = &mut self.process else {
            return;
        };
        process.shard_wake = Some(at);
        process.control.wake = Some(at);
        for event in [ProcessEvent::ShardWake(at), ProcessEvent::NodeWake(at)] {
            let (host, run) = (self.host, process.run);
            ctx.wheel.push(at, What::Process { host, run, event });
        }
    }

    /// Something happens in run `run` of the daemon.
    pub fn process_event(&mut self, ctx: &mut Context, run: u64, event: ProcessEvent) {
        let Some(process) = self.process.as_mut().filter(|process| process.run == run) else {
            return;
        };
        if let ProcessEvent::Resume = event {
            if let Some(since) = self.still_since.take() {
                self.clock.stood_still(ctx.now.saturating_sub(since));
            }
            let events = process.stopped.take().unwrap_or_default();
            ctx.trace(self.host, || {
                format!("goes on with {} events", events.len())
            });
            for event in events {
                self.process_event(ctx, run, event);
            }
            // Sockets were readable all the time.
            self.pump_all(ctx);
            return;
        }
        if let Some(stopped) = &mut process.stopped {
            // The disk works on while the process stands still; that a socket is readable is
            // looked at anyway when it goes on.
            match event {
                ProcessEvent::JobHalf(job) => self.job_half(ctx, job),
                ProcessEvent::Note(Note::Readable(_)) => {}
                event => stopped.push(event),
            }
            return;
        }
        match event {
            ProcessEvent::ShardWake(at) => {
                if process.shard_wake == Some(at) {
                    process.shard_wake = None;
                    self.shard_event(ctx, Event::Tick);
                }
            }
            ProcessEvent::Transmit(end) => self.transmit(ctx, end),
            ProcessEvent::JobHalf(job) => self.job_half(ctx, job),
            ProcessEvent::JobDone(job) => self.job_done(ctx, job),
            ProcessEvent::Order(order) => {
                ctx.trace(self.host, || format!("order {order:?}"));
                self.watch.order(ctx, self.host, &order);
                self.shard_event(ctx, Event::Order(order));
            }
            ProcessEvent::Report(report) => {
                ctx.trace(self.host, || format!("report {report:?}"));
                self.watch.report(ctx, &report);
                self.control_report(ctx, report);
            }
            ProcessEvent::NodeWake(at) => self.node_wake(ctx, at),
            ProcessEvent::Control(event) => self.control_event(ctx, event),
            ProcessEvent::Accepted { end, link, port } => self.accepted(ctx, end, link, port),
            ProcessEvent::Note(note) => self.heard(ctx, note),
            ProcessEvent::Resume => unreachable!("it was handled above"),
        }
    }

    /// The failed disk is replaced by an empty one. The daemon is killed for it.
    pub fn replace_disk(&mut self, ctx: &mut Context) {
        if self.process.is_some() {
            self.kill(ctx);
        }
        self.disk_fails = false;
        for files in self.volumes.values_mut() {
            files.image.replace();
            files.meta.replace();
        }
    }

    /// Remembers what is durable on its disk.
    pub fn snapshot(&mut self) {
        let files = self.volumes.iter();
        let durable = |files: &Files| Files {
            image: files.image.snapshot(),
            meta: files.meta.snapshot(),
        };
        self.earlier = files.map(|(id, files)| (*id, durable(files))).collect();
    }

    /// Whether there is something to put back.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        !self.earlier.is_empty()
    }

    /// Puts back what was remembered.
    pub fn put_back(&mut self) {
        assert!(self.process.is_none(), "nobody uses it");
        for (id, before) in core::mem::take(&mut self.earlier) {
            if let Some(files) = self.volumes.get_mut(&id) {
                files.image.put_back(before.image);
                files.meta.put_back(before.meta);
            }
        }
    }

    /// Whether the daemon runs and is not stopped.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.stopped.is_none())
    }

    /// The control plane gives a volume's data path an order of its own.
    pub fn order_volume(&mut self, ctx: &mut Context, id: VolumeId, order: ToVolume) {
        if self.is_running() {
            self.shard_event(ctx, Event::Order(ToShard::Volume(id, order)));
        }
    }

    /// Hands the shard one event and does all that follows from it.
    fn shard_event(&mut self, ctx: &mut Context, event: Event<'_>) {
        self.turn(ctx, event);
        self.work_off(ctx);
    }

    fn work_off(&mut self, ctx: &mut Context) {
        while let Some(local) = self
            .process
            .as_mut()
            .and_then(|process| process.local.pop_front())
        {
            match local {
                Local::Pump(slot) => self.pump(ctx, slot),
                Local::Sent(buffer) => self.turn(ctx, Event::Sent { buffer }),
                Local::Act(action) => self.act(ctx, action),
            }
        }
        self.arm_shard(ctx);
    }

    /// As `shard_event`, from within the turn.
    fn turn(&mut self, ctx: &Context, event: Event<'_>) {
        let now = self.clock.read(ctx.now);
        let Some(process) = &mut self.process else {
            return;
        };
        let mut actions = core::mem::take(&mut process.actions);
        process.shard.handle(now, event, &mut actions);
        let shard = &process.shard;
        process.memory.reclaim(|buffer| shard.holds(buffer));
        process.local.extend(actions.drain(..).map(Local::Act));
        process.actions = actions;
    }

    fn act(&mut self, ctx: &mut Context, action: Action) {
        match action {
            Action::Send { conn, head, body } => {
                count_proxied(ctx, &head);
                self.send(ctx, conn, head, body);
            }
            Action::Close { conn } => self.close(ctx, conn),
            Action::Abort { conn } => self.abort(ctx, conn),
            Action::Dial { dial, address } => self.dial(ctx, dial, address),
            Action::Io { key, volume, io } => self.start_job(ctx, key, volume.0, io),
            Action::Wake { conn } => self.wake(conn),
            Action::Report(report) => {
                let delay = self.prng.micros(1, 300);
                let process = self.process.as_mut().expect("its shard just spoke");
                process.last_report = process.last_report.max(ctx.now + delay);
                let at = process.last_report;
                let event = ProcessEvent::Report(report);
                ctx.wheel.push(
                    at,
                    What::Process {
                        host: self.host,
                        run: process.run,
                        event,
                    },
                );
            }
        }
    }

    fn arm_shard(&mut self, ctx: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(deadline) = process.shard.next_deadline() else {
            return;
        };
        let at = self
            .clock
            .when(deadline)
            .max(ctx.now + Duration::from_micros(1));
        if process.shard_wake.is_none_or(|armed| at < armed) {
            process.shard_wake = Some(at);
            let event = ProcessEvent::ShardWake(at);
            ctx.wheel.push(
                at,
                What::Process {
                    host: self.host,
                    run: process.run,
                    event,
                },
            );
        }
    }
}

/// Counts the frames that pass commands on, by the kind in their header (docs/wire-format.md).
fn count_proxied(ctx: &mut Context, head: &lockstep_engine::interface::Head) {
    if usize::from(head.len) != lockstep_mirror::frame::HEADER_LEN {
        return;
    }
    match u16::from_be_bytes([head.bytes[10], head.bytes[11]]) {
        0x80..=0x84 => ctx.count("writes proxied"),
        0x85 => ctx.count("reads proxied"),
        0x8c => ctx.count("reads proxied: blocks sent back"),
        _ => {}
    }
}
