//! The driver of `Node`: control links, durable files, the volume's place, and what is said
//! between it and the shard. The counterpart in the daemon is its control thread.

mod in_force;
mod links;

use super::{Machine, PORT_CONTROL, ProcessEvent};
use crate::context::{Context, What};
use crate::network::EndId;
use crate::witness::PORT_WITNESS;
use crate::world::{Shape, TARGET, VOLUME};
use core::time::Duration;
pub use in_force::Document;
use in_force::WITNESS_PATH;
use lockstep_engine::interface::iscsi::{Portal, Settings, TargetId, TargetSettings};
use lockstep_engine::interface::{FromShard, ToShard};
use lockstep_engine::node::Node;
use lockstep_engine::node_interface::{NodeAction, NodeEvent, NodeSettings, Operator, Severity};
use lockstep_mirror::control::{Incarnation, NodeId};
use lockstep_mirror::lease::Timing;
use lockstep_mirror::metadata_layout::SUPERBLOCK_OFFSETS;
use std::collections::BTreeMap;

/// The pair's secret in every run.
pub(in crate::machine) const SECRET: &[u8] = b"the secret of two pretend nodes";
/// What the pair shares with the witness.
pub const WITNESS_SECRET: &[u8] = b"the secret of a pretend witness";
/// The cluster's id in every run.
pub const CLUSTER: u128 = 0x5150;
/// Two attempts to make a control link begin at least so far apart, as in the daemon.
const REDIAL: Duration = Duration::from_millis(250);
/// A dial that was not answered by then is joined by another one, as in the daemon.
const DIAL_EVERY: Duration = Duration::from_millis(300);
/// And given up by then.
const DIAL_TIME: Duration = Duration::from_millis(1500);
/// A dial to the witness is given more time: it may be far away.
const WITNESS_DIAL_TIME: Duration = Duration::from_secs(2);
/// A control link that brings nothing for so long is closed.
const SILENCE: Duration = Duration::from_secs(10);

/// What happens to the control side's driver.
#[derive(Debug)]
pub enum ControlEvent {
    /// Dial this path again.
    Dial(usize),
    /// Dial beside this one, if it was not answered.
    DialBeside(EndId),
    /// A durable write has ended.
    Written(u64),
    /// The volume's files are open and locked.
    Opened,
    /// Look for links that have gone silent.
    Listen,
    /// Make real what the pool configuration says of the witness.
    FollowWitness,
    /// Look whether the witness is one that has yet to be admitted.
    Admit,
}

/// What the control plane keeps on its disk, durable and replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct NodeStores {
    acceptor: Option<Vec<u8>>,
    pool: Option<Vec<u8>>,
    maintenance: bool,
    /// A superblock of the volume was written: its files are never taken for new again.
    used: bool,
    size: u64,
    block: u32,
    cache: lockstep_mirror::control::CacheMode,
}

impl NodeStores {
    /// Nothing stored yet; the volume will have this shape.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        Self {
            size: shape.size,
            block: shape.block,
            cache: shape.cache,
            ..Self::default()
        }
    }
}

/// The control side of one run of the daemon.
pub struct Control {
    /// The daemon's own state machine.
    pub node: Node,
    /// Whether initiators may connect.
    pub portals_open: bool,
    pub(in crate::machine) incarnation: u64,
    links: BTreeMap<u64, Wire>,
    next_link: u64,
    /// Dials under way.
    dials: BTreeMap<EndId, Dialing>,
    writes: BTreeMap<u64, Write>,
    next_write: u64,
    pub(super) wake: Option<Duration>,
    opening: bool,
    stopped: bool,
    /// The pool configuration in force.
    document: Document,
    /// A change of it was proposed here, and its end is not known.
    proposing: bool,
    /// What is in force and not made real yet.
    following: u32,
    dials_witness: bool,
}

struct Wire {
    end: EndId,
    path: usize,
    heard: Duration,
    /// When its path may be dialled again.
    again: Duration,
    /// Another one is made, or was.
    renewed: bool,
}

/// A control link that is being made.
struct Dialing {
    path: usize,
    again: Duration,
}

enum Write {
    Superblock { slot: usize, bytes: Vec<u8> },
    Acceptor(Vec<u8>),
    Pool(Vec<u8>),
}

impl Control {
    pub(super) fn new(machine: &mut Machine, now: Duration) -> Self {
        let incarnation = machine.prng.bits();
        let me = machine.node_id();
        let settings = NodeSettings {
            node: me,
            partner: Some(NodeId(3 - me.0)),
            cluster: CLUSTER,
            secret: SECRET.into(),
            incarnation: Incarnation(incarnation),
            portals: 1,
            partner_portals: 0,
            proxy: true,
            timing: Timing::default(),
            acceptor: machine.stores.acceptor.clone(),
            pool: machine.stores.pool.clone(),
            maintenance: machine.stores.maintenance,
        };
        Self {
            node: Node::new(settings, machine.prng.seed(), now),
            portals_open: false,
            incarnation,
            links: BTreeMap::new(),
            next_link: 1,
            dials: BTreeMap::new(),
            writes: BTreeMap::new(),
            next_write: 0,
            wake: None,
            opening: false,
            stopped: false,
            document: Document::default(),
            proposing: false,
            following: 0,
            dials_witness: false,
        }
    }

    fn link_of(&self, end: EndId) -> Option<u64> {
        self.links
            .iter()
            .find(|(_, wire)| wire.end == end)
            .map(|(link, _)| *link)
    }

    /// All its sockets.
    pub(super) fn ends(&self) -> impl Iterator<Item = EndId> {
        self.links
            .values()
            .map(|wire| wire.end)
            .chain(self.dials.keys().copied())
    }
}

impl Machine {
    pub(super) fn node_id(&self) -> NodeId {
        NodeId(u8::try_from(self.host + 1).expect("two nodes"))
    }

    /// Tells the shard what is known before anything is decided, and begins to dial.
    pub(super) fn control_started(&mut self, ctx: &mut Context) {
        let settings = self.iscsi_settings(false);
        self.order(ctx, ToShard::Settings(Box::new(settings)));
        let me = self.node_id();
        let order = ToShard::Partner {
            node: NodeId(3 - me.0),
            me,
            incarnation: Incarnation(self.control().incarnation),
            addresses: u16::try_from(self.sync_links.len()).expect("few links"),
            connections: self.connections,
            dial: me.0 == 1,
            secret: SECRET.into(),
            cluster: CLUSTER,
        };
        self.order(ctx, order);
        if me.0 == 1 {
            for path in 0..self.control_links.len() {
                self.control_soon(ctx, Duration::ZERO, ControlEvent::Dial(path));
            }
        }
        self.control_soon(ctx, SILENCE, ControlEvent::Listen);
        self.tell(ctx, NodeEvent::Tick);
    }

    fn control(&mut self) -> &mut Control {
        &mut self.process.as_mut().expect("the process runs").control
    }

    fn iscsi_settings(&self, volume: bool) -> Settings {
        let portal = |node: u16| Portal {
            address: ([10, 0, 0, u8::try_from(node).expect("two nodes")], 3260).into(),
            group: node,
        };
        let target = TargetSettings {
            id: TargetId(0),
            name: TARGET.to_owned(),
            alias: String::new(),
            chap: Vec::new(),
            mutual: None,
            allow: Vec::new(),
        };
        Settings {
            targets: if volume { vec![target] } else { Vec::new() },
            portals: vec![portal(1), portal(2)],
            group: u16::from(self.node_id().0),
            discovery_chap: Vec::new(),
            discovery_mutual: None,
            nop_interval_s: 5,
            nop_timeout_s: 5,
            login_timeout_s: 15,
            max_receive: 262_144,
            max_burst: 1 << 20,
            first_burst: 65_536,
            command_window: 32,
            max_connections: 64,
            max_half_open: 32,
        }
    }

    /// Hands `Node` one event and does all that follows from it.
    fn tell(&mut self, ctx: &mut Context, event: NodeEvent<'_>) {
        let now = self.clock.read(ctx.now);
        let Some(process) = &mut self.process else {
            return;
        };
        let mut actions = Vec::new();
        // The shard's thread turns whenever the process does.
        process.control.node.handle(
            now,
            NodeEvent::Stamp {
                oldest: now,
                wall: 0,
            },
            &mut actions,
        );
        process.control.node.handle(now, event, &mut actions);
        for action in actions {
            self.carry_out(ctx, action);
        }
        if self
            .process
            .as_ref()
            .is_some_and(|process| process.control.stopped)
        {
            return self.leave(ctx);
        }
        if let Some(process) = &mut self.process
            && let Some(state) = process.control.node.state(VOLUME)
        {
            process.states.note(ctx, state);
        }
        self.arm_node(ctx);
    }

    fn arm_node(&mut self, ctx: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(deadline) = process.control.node.next_deadline() else {
            return;
        };
        let at = self
            .clock
            .when(deadline)
            .max(ctx.now + Duration::from_micros(1));
        if process.control.wake.is_none_or(|armed| at < armed) {
            process.control.wake = Some(at);
            let event = ProcessEvent::NodeWake(at);
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

    pub(super) fn node_wake(&mut self, ctx: &mut Context, at: Duration) {
        if self.control().wake == Some(at) {
            self.control().wake = None;
            self.tell(ctx, NodeEvent::Tick);
        }
    }

    pub(super) fn control_report(&mut self, ctx: &mut Context, report: FromShard) {
        if let FromShard::Note(text) = &report {
            ctx.trace(self.host, || format!("note: {text}"));
        }
        self.tell(ctx, NodeEvent::Shard(report));
    }

    /// The daemon is asked to stop in order.
    pub fn stop(&mut self, ctx: &mut Context) {
        if self.is_running() {
            self.tell(ctx, NodeEvent::Stop);
        }
    }

    /// An operator takes it out of service, which the daemon refuses where the partner cannot
    /// serve, or puts it back.
    pub fn maintain(&mut self, ctx: &mut Context, enter: bool) {
        if !self.is_running() {
            return;
        }
        let now = self.clock.read(ctx.now);
        if enter && !self.control().node.needed_for(now).is_empty() {
            return ctx.count("maintenance refused");
        }
        let force = false;
        let order = Operator::Maintenance { enter, force };
        self.tell(ctx, NodeEvent::Operator(order));
    }

    /// An operator ends the wait of a partner that was put out for slowness.
    pub fn pardon(&mut self, ctx: &mut Context) {
        if self.is_running() {
            let order = Operator::Rejoin { volume: VOLUME };
            self.tell(ctx, NodeEvent::Operator(order));
        }
    }

    /// How often this run has put its partner out for slowness, and for how long that still waits.
    pub fn slowness(&self, ctx: &Context) -> Option<(u32, Duration)> {
        let process = self.process.as_ref()?;
        let status = process.control.node.status(self.clock.read(ctx.now));
        let (_, volume) = status.volumes.iter().find(|(id, _)| *id == VOLUME)?;
        Some((volume.ejections, volume.rejoin_in.unwrap_or_default()))
    }

    /// An operator has the copy here served by force; whether the daemon takes that.
    pub fn force(&mut self, ctx: &mut Context) -> bool {
        let (volume, corrupt) = (VOLUME, false);
        let now = self.clock.read(ctx.now);
        if self.control().node.may_force(now, volume, corrupt).is_err() {
            return false;
        }
        let order = Operator::ForceActivate { volume, corrupt };
        self.tell(ctx, NodeEvent::Operator(order));
        true
    }

    /// An operator chooses a copy after a split brain: the one here, or the other one.
    pub fn keep(&mut self, ctx: &mut Context, mine: bool) {
        let volume = VOLUME;
        self.tell(
            ctx,
            NodeEvent::Operator(Operator::KeepCopy { volume, mine }),
        );
    }

    /// It runs and says that the copies were written apart.
    #[must_use]
    pub fn knows_of_split(&self) -> bool {
        self.is_running() && self.is_split(VOLUME)
    }

    /// Whether it is in maintenance, or was when it stopped.
    #[must_use]
    pub const fn is_out_of_service(&self) -> bool {
        self.stores.maintenance
    }

    fn carry_out(&mut self, ctx: &mut Context, action: NodeAction) {
        match action {
            NodeAction::LinkSend { link, bytes } => {
                if let Some(end) = self.control().links.get(&link.0).map(|wire| wire.end) {
                    ctx.network.send(ctx.now, end, &bytes);
                }
            }
            NodeAction::LinkRenew { link } => self.renew_link(ctx, link.0),
            NodeAction::LinkClose { link, .. } => self.drop_link(ctx, link.0),
            NodeAction::Order(order) => self.order(ctx, order),
            NodeAction::WriteSuperblock { slot, bytes, .. } => {
                self.write(
                    ctx,
                    Write::Superblock {
                        slot: usize::from(slot),
                        bytes,
                    },
                );
            }
            NodeAction::WriteAcceptor { bytes } => self.write(ctx, Write::Acceptor(bytes)),
            NodeAction::VolumeClosed { .. } => ctx.count("volumes closed"),
            NodeAction::StoreMaintenance { on } => self.stores.maintenance = on,
            NodeAction::StoreConfig { bytes } => self.write(ctx, Write::Pool(bytes)),
            NodeAction::ConfigCommitted {
                generation,
                document,
            } => self.committed(ctx, generation, &document),
            NodeAction::ConfigOutcome(outcome) => {
                ctx.trace(self.host, || format!("proposal: {outcome:?}"));
                self.control().proposing = false;
            }
            // Nothing is deleted here.
            NodeAction::FindInitiators { .. } | NodeAction::PartnerInitiators { .. } => {}
            NodeAction::Forced { .. } => ctx.count("operators' decisions in force"),
            NodeAction::Portals { open } => {
                ctx.trace(self.host, || {
                    if open {
                        "opens its portals"
                    } else {
                        "closes its portals"
                    }
                });
                self.control().portals_open = open;
            }
            NodeAction::Event { text, severity, .. } => {
                ctx.trace(self.host, || format!("EVENT {severity:?}: {text}"));
                if severity == Severity::Error {
                    ctx.count("events that are errors");
                }
            }
            NodeAction::Stopped { clean } => {
                ctx.trace(self.host, || format!("has stopped, clean: {clean}"));
                ctx.count(if clean {
                    "stopped clean"
                } else {
                    "stopped, not clean"
                });
                self.control().stopped = true;
            }
        }
    }

    fn order(&mut self, ctx: &mut Context, order: ToShard) {
        let delay = self.prng.micros(1, 300);
        let process = self.process.as_mut().expect("its node just spoke");
        process.last_order = process.last_order.max(ctx.now + delay);
        let event = ProcessEvent::Order(order);
        ctx.wheel.push(
            process.last_order,
            What::Process {
                host: self.host,
                run: process.run,
                event,
            },
        );
    }

    fn control_soon(&self, ctx: &mut Context, delay: Duration, event: ControlEvent) {
        let run = self.process.as_ref().expect("the process runs").run;
        ctx.after(
            delay,
            What::Process {
                host: self.host,
                run,
                event: ProcessEvent::Control(event),
            },
        );
    }

    pub(super) fn control_event(&mut self, ctx: &mut Context, event: ControlEvent) {
        match event {
            ControlEvent::Dial(path) => self.dial_path(ctx, path),
            ControlEvent::DialBeside(end) => {
                if let Some(dialing) = self.control().dials.get(&end) {
                    let path = dialing.path;
                    self.dial_path(ctx, path);
                }
            }
            ControlEvent::Written(number) => self.written(ctx, number),
            ControlEvent::Opened => self.opened(ctx),
            ControlEvent::Listen => self.listen(ctx),
            ControlEvent::FollowWitness => self.follow_witness(ctx),
            ControlEvent::Admit => self.admit_witness(ctx),
        }
    }

    fn dial_path(&mut self, ctx: &mut Context, path: usize) {
        let (link, port, time) = match path {
            WITNESS_PATH => (self.witness_link, PORT_WITNESS, WITNESS_DIAL_TIME),
            path => (Some(self.control_links[path]), PORT_CONTROL, DIAL_TIME),
        };
        let Some(link) = link else { return };
        let end = ctx.network.dial(ctx.now, link, self.host, port, time);
        let again = ctx.now + REDIAL;
        self.control().dials.insert(end, Dialing { path, again });
        if path != WITNESS_PATH {
            self.control_soon(ctx, DIAL_EVERY, ControlEvent::DialBeside(end));
        }
    }

    fn write(&mut self, ctx: &mut Context, write: Write) {
        let time = self.prng.micros(self.speed.low * 2, self.speed.high * 2);
        let control = self.control();
        control.next_write += 1;
        let number = control.next_write;
        control.writes.insert(number, write);
        self.control_soon(ctx, time, ControlEvent::Written(number));
    }

    fn written(&mut self, ctx: &mut Context, number: u64) {
        let Some(write) = self.control().writes.remove(&number) else {
            return;
        };
        let event = match write {
            Write::Superblock { slot, bytes } => {
                let meta = &mut self.volumes.entry(VOLUME.0).or_default().meta;
                meta.write(SUPERBLOCK_OFFSETS[slot], &bytes);
                meta.persist(SUPERBLOCK_OFFSETS[slot], bytes.len());
                self.stores.used = true;
                NodeEvent::SuperblockWritten {
                    volume: VOLUME,
                    ok: true,
                }
            }
            Write::Acceptor(bytes) => {
                self.stores.acceptor = Some(bytes);
                NodeEvent::AcceptorWritten { ok: true }
            }
            Write::Pool(bytes) => {
                self.stores.pool = Some(bytes);
                NodeEvent::ConfigStored { ok: true }
            }
        };
        self.tell(ctx, event);
    }

    /// The process is gone: a write under way has happened, or not, or half.
    pub(super) fn abandon_writes(&mut self, control: Control) {
        for write in control.writes.into_values() {
            let happened = self.prng.chance(500);
            match write {
                Write::Superblock { slot, bytes } => {
                    let share = *self.prng.pick(&[0, 500, 1000]);
                    let meta = &mut self.volumes.entry(VOLUME.0).or_default().meta;
                    meta.write_some(SUPERBLOCK_OFFSETS[slot], &bytes, |_| {
                        self.prng.chance(share)
                    });
                }
                Write::Acceptor(bytes) if happened => self.stores.acceptor = Some(bytes),
                Write::Pool(bytes) if happened => self.stores.pool = Some(bytes),
                Write::Acceptor(_) | Write::Pool(_) => {}
            }
        }
    }

    /// The daemon has stopped in order: nothing of it is left.
    fn leave(&mut self, ctx: &mut Context) {
        let ends = self.ends();
        self.process = None;
        self.watch.started();
        self.close_all(ctx, ends);
    }

    /// For messages.
    #[must_use]
    pub fn describe(&self, ctx: &Context) -> String {
        match &self.process {
            Some(process) => format!(
                "{:?}; {}",
                process.control.node.status(self.clock.read(ctx.now)),
                self.sockets(ctx)
            ),
            None => "does not run".to_owned(),
        }
    }
}
