//! What `Node` does, in miniature: a register of one value, leases, ejecting, joining, handing
//! over. It may do any of it at any moment at which `Node` could.

use super::machine::Chance;
use super::world::World;
use crate::control::{
    CacheMode, Configuration, FromVolume, Incarnation, Members, NodeId, Time, ToVolume,
};
use alloc::format;

/// How long a promise lasts.
const LEASE: Time = Time::from_millis(1500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Down,
    Opening,
    /// Opened, serving nothing yet.
    Open,
    /// Ordered to serve the configuration of its superblock.
    Serving,
    Suspended,
    /// To be followed by the swap that makes it the only member.
    Ejecting,
    Draining,
    /// On its way down, orderly.
    Stopping,
    /// Drained: the other is to go on alone, then this one closes.
    Leaving,
    Closing,
    Target,
}

pub(super) struct Node {
    pub(super) mode: Mode,
    pub(super) adopted: Option<Configuration>,
    adopted_incarnations: [Incarnation; 2],
    inconsistent: bool,
    /// Generation of an open join record.
    joining: u128,
    blank: bool,
    /// This run has served since it started.
    promised_until: Time,
    started: Time,
    pub(super) settled: bool,
    /// Whom it was told to pass commands to.
    host: Option<(Configuration, Incarnation)>,
}

impl Node {
    const fn new() -> Self {
        Self {
            mode: Mode::Down,
            adopted: None,
            adopted_incarnations: [Incarnation(0); 2],
            inconsistent: false,
            joining: 0,
            blank: true,
            promised_until: Time::ZERO,
            started: Time::ZERO,
            settled: false,
            host: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Join {
    No,
    /// The source collects.
    Collecting,
    Copying,
    Ready,
}

pub(super) struct Manager {
    pub(super) world: World,
    pub(super) nodes: [Node; 2],
    pub(super) register: Configuration,
    incarnations: [Incarnation; 2],
    joined: bool,
    join: Join,
    next_incarnation: u64,
    generations: u128,
    pub(super) resyncs: u32,
    pub(super) ejections: u32,
    pub(super) hand_overs: u32,
    /// Resyncs that stood still and were begun anew.
    pub(super) restarts: u32,
    /// Blocks that became unreadable, and repairs of some.
    pub(super) spoiled: u64,
    pub(super) repaired: u64,
    /// Verifications that saw all of the volume; whether differences are to be found.
    pub(super) verified: u32,
    pub(super) rotting: bool,
}

fn id(node: usize) -> NodeId {
    NodeId(u8::try_from(node).unwrap() + 1)
}

fn both() -> Members {
    Members::only(id(0)).with(id(1))
}

impl Manager {
    pub(super) fn new(cache: CacheMode, seed: u64) -> Self {
        let register = Configuration {
            epoch: 1,
            generation: 1,
            members: both(),
            owner: id(0),
            unilateral: false,
            witness: None,
        };
        let mut manager = Self {
            world: World::new(cache, seed),
            nodes: [Node::new(), Node::new()],
            register,
            incarnations: [Incarnation(0); 2],
            joined: false,
            join: Join::No,
            next_incarnation: 1,
            generations: 1,
            resyncs: 0,
            ejections: 0,
            hand_overs: 0,
            restarts: 0,
            spoiled: 0,
            repaired: 0,
            verified: 0,
            rotting: false,
        };
        manager.start(0);
        manager.start(1);
        manager.incarnations = [manager.world.incarnation(0), manager.world.incarnation(1)];
        manager.world.run(Time::from_millis(100));
        manager.listen();
        manager
    }

    fn chance(&mut self) -> &mut Chance {
        &mut self.world.chance
    }

    pub(super) fn order(&mut self, node: usize, order: ToVolume) {
        self.world.note(format!("order {node} {order:?}"));
        self.world
            .with(node, |volume, now, out| volume.order(now, order, out));
    }

    pub(super) fn start(&mut self, node: usize) {
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        self.open(node, incarnation);
    }

    /// The volume is closed and opened again in the same run, as when its copy is replaced.
    pub(super) fn reopen(&mut self, node: usize) {
        let incarnation = self.world.incarnation(node).0;
        self.open(node, incarnation);
    }

    fn open(&mut self, node: usize, incarnation: u64) {
        self.world.machines[node].start(incarnation, Some(id(1 - node)));
        let known = &mut self.nodes[node];
        known.mode = Mode::Opening;
        known.started = self.world.now;
        known.settled = false;
        known.host = None;
        let blank = core::mem::take(&mut known.blank);
        self.order(node, ToVolume::Open { blank });
        let pacing = self.world.machines[node].pacing;
        self.order(node, ToVolume::Pace(pacing));
    }

    pub(super) fn crash(&mut self, node: usize, power: bool) {
        self.world.note(format!("crash {node} power {power}"));
        self.world.crash(node, power);
        self.nodes[node].mode = Mode::Down;
        self.nodes[node].settled = false;
        self.world.must_hold[node] = [false, false];
        if self.world.machines[0].cache == CacheMode::WriteBack {
            // What was stored there in memory, and may be acknowledged yet, only the other holds.
            self.world.must_hold[1 - node][node] = false;
        }
    }

    /// Whether a node may fail now without losing what only it holds (write-back, section 3).
    pub(super) fn may_crash(&self, node: usize) -> bool {
        let other = &self.nodes[1 - node];
        self.world.machines[0].cache != CacheMode::WriteBack
            || (self.register.members == both()
                && other.mode == Mode::Serving
                && other.settled
                && other.adopted == Some(self.register))
            || (self.register.members == Members::only(id(1 - node)) && other.settled)
            || self.register.members == Members::only(id(node))
    }

    fn is_going(&self, node: usize) -> bool {
        matches!(
            self.nodes[node].mode,
            Mode::Stopping | Mode::Leaving | Mode::Closing
        )
    }

    fn is_fresh(&self, node: usize) -> bool {
        matches!(self.nodes[node].mode, Mode::Opening | Mode::Open)
    }

    fn current(&self, node: usize) -> bool {
        self.nodes[node].adopted == Some(self.register)
    }

    /// The words of both volumes.
    pub(super) fn listen(&mut self) {
        for node in 0..2 {
            for word in core::mem::take(&mut self.world.machines[node].told) {
                self.world.note(format!("told by {node}: {word:?}"));
                self.hear(node, word);
            }
        }
        for node in 0..2 {
            self.close_if_left(node);
        }
    }

    /// A drained node closes once the other serves alone, or cannot.
    fn close_if_left(&mut self, node: usize) {
        let other = 1 - node;
        if self.nodes[node].mode != Mode::Leaving {
            return;
        }
        let alone = self.register.members == Members::only(id(other));
        let covered = alone && self.current(other) && self.nodes[other].settled;
        let coming = matches!(self.nodes[other].mode, Mode::Ejecting)
            || alone && self.nodes[other].mode != Mode::Down;
        if covered || !coming {
            self.nodes[node].mode = Mode::Closing;
            self.order(node, ToVolume::Close { covered });
        }
    }

    fn hear(&mut self, node: usize, word: FromVolume) {
        match word {
            FromVolume::Suspended if self.nodes[node].mode == Mode::Ejecting => {
                self.nodes[node].mode = Mode::Suspended;
                if self.current(node) && self.register.members == both() {
                    self.go_alone(node);
                }
            }
            FromVolume::Opened { .. } => self.nodes[node].mode = Mode::Open,
            FromVolume::Serving { epoch }
                if self.nodes[node]
                    .adopted
                    .is_some_and(|adopted| adopted.epoch == epoch)
                    && self.nodes[node].mode == Mode::Serving =>
            {
                self.nodes[node].settled = true;
            }
            FromVolume::Late if self.nodes[node].mode == Mode::Serving && self.current(node) => {
                if self.register.members == both() {
                    self.eject(node);
                } else {
                    self.abort_join();
                }
            }
            FromVolume::UnionDurable { .. } if self.join == Join::Collecting => {
                self.nodes[1 - node].inconsistent = true;
                self.join = Join::Copying;
                self.order(node, ToVolume::Copy);
            }
            FromVolume::JoinReady if self.join == Join::Copying => self.join = Join::Ready,
            FromVolume::Drained { clean } if self.nodes[node].mode == Mode::Draining => {
                self.hand_over(node, clean)
            }
            FromVolume::Drained { .. } if self.nodes[node].mode == Mode::Stopping => {
                self.nodes[node].mode = Mode::Leaving;
                if self.register.members == both() {
                    self.eject(1 - node);
                }
            }
            FromVolume::Closed { .. } => self.crash(node, false),
            FromVolume::ResyncRestarted => self.restarts += 1,
            FromVolume::Repaired { .. } => self.repaired += 1,
            FromVolume::Differs { extent } => assert!(self.rotting, "{extent:?} does not differ"),
            FromVolume::Verified(found) => self.verified += u32::from(found.complete),
            FromVolume::DiskFailed => panic!("no disk fails here"),
            _ => {}
        }
    }

    fn swap(&mut self, members: Members, owner: NodeId, joined: bool) {
        self.generations += 1;
        self.register = Configuration {
            epoch: self.register.epoch + 1,
            generation: self.generations << 64 | self.generations,
            members,
            owner,
            unilateral: false,
            witness: None,
        };
        self.incarnations = [self.world.incarnation(0), self.world.incarnation(1)];
        self.joined = joined;
        self.join = Join::No;
        self.world.note(format!("register {:?}", self.register));
    }

    /// Adopts the register's configuration, if this node is a member and its copy is good.
    pub(super) fn adopt(&mut self, node: usize) {
        let other = 1 - node;
        let known = &self.nodes[node];
        let good = !known.inconsistent || known.joining == self.register.generation;
        let member = self.register.members.contains(id(node));
        if self.current(node) && matches!(known.mode, Mode::Serving | Mode::Ejecting)
            || !member
            || !good
            || matches!(known.mode, Mode::Down | Mode::Opening)
            || self.is_going(node)
        {
            return;
        }
        let paired = self.register.members == both();
        if paired
            && (self.world.incarnation(node) != self.incarnations[node]
                || self.nodes[node].mode == Mode::Draining)
        {
            return;
        }
        let not_before = if paired {
            Time::ZERO
        } else {
            self.may_act_from(node)
        };
        let order = ToVolume::Serve {
            configuration: self.register,
            partner_incarnation: paired.then_some(self.incarnations[other]),
            not_before: not_before + self.world.machines[node].ahead,
            joined: self.joined && paired,
        };
        let known = &mut self.nodes[node];
        known.inconsistent = false;
        known.adopted = Some(self.register);
        known.adopted_incarnations = self.incarnations;
        known.mode = Mode::Serving;
        known.settled = false;
        known.host = None;
        self.world.must_hold[node] = [
            self.register.members.contains(id(0)),
            self.register.members.contains(id(1)),
        ];
        let gone = self.nodes[other].mode == Mode::Down;
        if gone && self.world.machines[0].cache == CacheMode::WriteBack {
            // As at its crash: what it had said to hold was in its memory.
            self.world.must_hold[node][other] = false;
        }
        self.order(node, order);
    }

    /// Whom a node that serves nothing should pass commands to: the only member, once its
    /// configuration is in force, and until this node has joined it.
    fn host_of(&self, node: usize) -> Option<(Configuration, Incarnation)> {
        let other = &self.nodes[1 - node];
        let quiet = matches!(
            self.nodes[node].mode,
            Mode::Open | Mode::Suspended | Mode::Target
        );
        if !quiet || other.mode == Mode::Down {
            return None;
        }
        let run = self.world.incarnation(1 - node);
        if let Some(host) = self.nodes[node].host
            && host.1 == run
            && (other.adopted == Some(host.0) || self.register.members == both())
        {
            return Some(host);
        }
        let alone = self.register.members == Members::only(id(1 - node));
        let serves = alone && self.current(1 - node) && other.settled;
        serves.then_some((self.register, run))
    }

    /// Tells a node whom to pass commands to.
    pub(super) fn proxy(&mut self, node: usize) {
        let host = self.host_of(node);
        self.pass_to(node, host);
    }

    pub(super) fn pass_to(&mut self, node: usize, host: Option<(Configuration, Incarnation)>) {
        if matches!(self.nodes[node].mode, Mode::Down | Mode::Opening)
            || self.nodes[node].host == host
        {
            return;
        }
        self.nodes[node].host = host;
        if host.is_some() {
            self.world.must_hold[node] = [node == 1, node == 0];
        }
        self.order(node, ToVolume::Proxy { host });
    }

    /// After every promise that this node gave, or may have given in its run before.
    fn may_act_from(&self, node: usize) -> Time {
        self.nodes[node]
            .promised_until
            .max(self.nodes[node].started + LEASE)
    }

    /// Heartbeats: tokens and promises both ways.
    pub(super) fn heartbeat(&mut self) {
        for node in 0..2 {
            let other = 1 - node;
            if self.nodes[node].mode == Mode::Down || self.nodes[other].mode == Mode::Down {
                continue;
            }
            let token =
                u64::try_from((self.world.now + self.world.machines[other].ahead).as_micros())
                    .unwrap();
            let received = self.world.now + self.world.machines[node].ahead;
            if let Some(volume) = &mut self.world.machines[node].volume {
                volume.token(token, received);
            }
            let serving = |node: usize| {
                matches!(
                    self.nodes[node].mode,
                    Mode::Serving | Mode::Draining | Mode::Stopping | Mode::Leaving
                )
            };
            let same = self.nodes[node].adopted == self.nodes[other].adopted
                && self.nodes[node]
                    .adopted
                    .is_some_and(|adopted| adopted.members == both())
                && self.nodes[node].adopted_incarnations
                    == [self.world.incarnation(0), self.world.incarnation(1)];
            if same && serving(node) && serving(other) {
                let until = self.world.now + LEASE;
                self.nodes[other].promised_until = until;
                let until = until + self.world.machines[node].ahead;
                self.world.with(node, |volume, now, out| {
                    volume.order(now, ToVolume::Lease { until }, out)
                });
            }
        }
    }

    /// A member goes on without the other.
    pub(super) fn eject(&mut self, node: usize) {
        let alive =
            !matches!(self.nodes[node].mode, Mode::Down | Mode::Opening) && !self.is_going(node);
        let whole =
            !self.nodes[node].inconsistent || self.nodes[node].joining == self.register.generation;
        if !alive || !whole || self.register.members != both() {
            return;
        }
        // A run that never served may only do so where nothing can have been lost in memory.
        let fresh = self.is_fresh(node) || self.world.incarnation(node) != self.incarnations[node];
        if fresh && self.world.machines[node].cache == CacheMode::WriteBack {
            return;
        }
        if !fresh && !self.current(node) {
            return self.adopt(node);
        }
        if self.nodes[node].mode == Mode::Ejecting {
            return;
        }
        self.ejections += 1;
        if fresh {
            self.go_alone(node);
        } else {
            self.nodes[node].mode = Mode::Ejecting;
            self.order(node, ToVolume::Suspend);
        }
    }

    fn go_alone(&mut self, node: usize) {
        self.swap(Members::only(id(node)), id(node), false);
        self.nodes[node].joining = 0;
        self.nodes[node].inconsistent = false;
    }

    /// The alone member begins, or goes on, to bring the other up to date.
    pub(super) fn join_step(&mut self) {
        let Some(source) = (0..2).find(|node| self.register.members == Members::only(id(*node)))
        else {
            return;
        };
        let target = 1 - source;
        if !(self.current(source)
            && self.nodes[source].settled
            && self.nodes[source].mode == Mode::Serving)
            || matches!(self.nodes[target].mode, Mode::Down | Mode::Opening)
            || self.is_going(target)
        {
            return;
        }
        match self.join {
            Join::No => {
                self.join = Join::Collecting;
                self.resyncs += 1;
                self.nodes[target].mode = Mode::Target;
                self.nodes[target].settled = false;
                let follow = ToVolume::Follow {
                    source: self.register,
                    source_incarnation: self.world.incarnation(source),
                };
                let everything = self.chance().one_in(12);
                let collect = ToVolume::Collect {
                    partner_incarnation: self.world.incarnation(target),
                    everything,
                };
                if self.chance().one_in(2) {
                    self.order(source, collect);
                    self.world.step();
                    self.order(target, follow);
                } else {
                    self.order(target, follow);
                    self.world.step();
                    self.order(source, collect);
                }
            }
            Join::Ready => {
                self.nodes[target].joining = self.generations + 1;
                self.nodes[target].joining |= (self.generations + 1) << 64;
                let owner = if self.chance().one_in(2) {
                    source
                } else {
                    target
                };
                self.swap(both(), id(owner), true);
            }
            Join::Collecting | Join::Copying => {}
        }
    }

    pub(super) fn join_is_on(&self) -> bool {
        self.join != Join::No
    }

    pub(super) fn abort_join(&mut self) {
        if self.join == Join::No {
            return;
        }
        self.join = Join::No;
        if let Some(source) = (0..2).find(|node| self.register.members == Members::only(id(*node)))
            && self.nodes[source].mode == Mode::Serving
        {
            self.order(source, ToVolume::Alone);
        }
    }

    /// A flap that comes to nothing: the same configuration again.
    pub(super) fn suspend_or_resume(&mut self, node: usize) {
        match self.nodes[node].mode {
            Mode::Serving if self.nodes[node].settled && self.join == Join::No => {
                self.order(node, ToVolume::Suspend);
                self.nodes[node].mode = Mode::Suspended;
            }
            Mode::Suspended => self.adopt(node),
            _ => {}
        }
    }

    /// An orderly stop: drained, the other goes on alone, closed.
    pub(super) fn stop(&mut self, node: usize) {
        if self.nodes[node].mode == Mode::Serving
            && self.nodes[node].settled
            && self.may_crash(node)
        {
            self.abort_join();
            self.nodes[node].mode = Mode::Stopping;
            let by = self.world.now + self.world.machines[node].ahead + Time::from_secs(2);
            self.order(node, ToVolume::Drain { by });
        }
    }

    pub(super) fn start_hand_over(&mut self, node: usize) {
        let other = &self.nodes[1 - node];
        let ready = self.register.members == both()
            && self.current(node)
            && self.current(1 - node)
            && other.mode == Mode::Serving
            && self.nodes[node].mode == Mode::Serving;
        if ready && self.register.owner == id(node) && self.nodes[node].settled {
            self.nodes[node].mode = Mode::Draining;
            let by = self.world.now + self.world.machines[node].ahead + Time::from_secs(2);
            self.order(node, ToVolume::Drain { by });
        }
    }

    fn hand_over(&mut self, node: usize, clean: bool) {
        self.nodes[node].mode = Mode::Suspended;
        if clean
            && self.current(node)
            && self.world.incarnation(1 - node) == self.incarnations[1 - node]
            && self.nodes[1 - node].mode != Mode::Down
        {
            self.hand_overs += 1;
            self.swap(both(), id(1 - node), true);
        }
        self.adopt(node);
    }

    /// What `Node` does by itself if nothing else happens: whatever is missing for both to serve.
    pub(super) fn heal(&mut self) {
        self.listen();
        for node in 0..2 {
            if self.nodes[node].mode == Mode::Down {
                self.start(node);
            }
        }
        if self.register.members == both() {
            let restarted =
                (0..2).find(|node| self.world.incarnation(*node) != self.incarnations[*node]);
            if let Some(restarted) = restarted {
                let survivor = 1 - restarted;
                self.eject(survivor);
                if self.register.members == both() {
                    self.eject(restarted);
                }
            }
        }
        if self.join != Join::No {
            let source = (0..2)
                .find(|node| self.register.members == Members::only(id(*node)))
                .unwrap();
            if self.nodes[source].mode != Mode::Serving
                || self.nodes[1 - source].mode != Mode::Target
            {
                self.abort_join();
            }
        }
        for node in 0..2 {
            self.adopt(node);
            self.proxy(node);
        }
        self.join_step();
        self.listen();
    }

    pub(super) fn is_whole(&self) -> bool {
        self.register.members == both()
            && (0..2).all(|node| {
                self.current(node)
                    && self.nodes[node].mode == Mode::Serving
                    && self.nodes[node].settled
            })
    }
}
