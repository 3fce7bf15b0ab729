//! Throwing faults and mending them.

use super::{Phase, World};
use crate::clock::Clock;
use crate::context::What;
use crate::disk::SECTOR;
use crate::faults::{Fault, LEASES_END, STILL_BORNE_MS, Situation};
use crate::machine::certifier::SupervisorEvent;
use crate::machine::{DiskSpeed, PORT_DATA};
use crate::network::LinkId;
use crate::witness::WitnessMachine;
use core::time::Duration;
use lockstep_mirror::control::CacheMode;

/// After a power cut in write-back mode the other node needs this long to notice and to flush.
const FLUSHED_AFTER: Duration = Duration::from_secs(15);

impl World {
    pub(super) fn throw(&mut self, fault: Fault) {
        if fault == Fault::Next {
            return self.throw_next();
        }
        if !self.still_makes_sense(fault) {
            return;
        }
        if let Fault::ResetData(left) = fault
            && self.busy_data().is_empty()
        {
            if left > 0 {
                let again = What::Fault(Fault::ResetData(left - 1));
                self.ctx.after(Duration::from_millis(1), again);
            }
            return;
        }
        self.ctx.trace("FAULT", || format!("{fault:?}"));
        self.ctx.count(fault.name());
        self.disturb(fault);
        let ctx = &mut self.ctx;
        match fault {
            Fault::Kill(node) => self.machines[node].kill(ctx),
            Fault::Certify(host, back) => {
                self.machines[host].supervisor_event(ctx, SupervisorEvent::Begin { back });
            }
            Fault::PowerCut(node) => {
                self.machines[node].power_cut(ctx);
                self.last_power_cut = Some(ctx.now);
            }
            Fault::Start(node) => {
                self.machines[node].moves_again(ctx);
                if !ctx.network.is_on(node) {
                    ctx.network.switch_on(ctx.now, node);
                    self.machines[node].clock = Clock::new(ctx.now, self.shape.speeds[node]);
                }
                self.machines[node].start(ctx);
            }
            Fault::Stop(node) => self.machines[node].stop(ctx),
            Fault::Force(node) => self.decide_for(node),
            Fault::Enter(node) => self.machines[node].maintain(ctx, true),
            Fault::Leave(node) => self.machines[node].maintain(ctx, false),
            Fault::Pause(node, ms) => self.machines[node].pause(ctx, Duration::from_millis(ms)),
            Fault::Jump(node, ms) => {
                self.machines[node].clock_jumps(ctx, Duration::from_millis(ms));
            }
            Fault::StandStill(node, ms) => {
                let time = Duration::from_millis(ms);
                // It moves, and its leases have ended, before everything is mended.
                let over = ctx.now + time + LEASES_END;
                self.plan.until = self.plan.until.max(over);
                if ms > STILL_BORNE_MS {
                    self.machines[node].still_until = over;
                }
                self.machines[node].stand_still(ctx, time);
            }
            Fault::Cut(link, direction) => self.set_link(link, direction, false),
            Fault::Mend(link, direction) => self.set_link(link, direction, true),
            Fault::CutPath(path, direction) => self.set_path(path, direction, false),
            Fault::MendPath(path, direction) => self.set_path(path, direction, true),
            Fault::Isolate(node) => self.isolate(node),
            Fault::Rejoin(_) => self.rejoin(),
            Fault::CutSync => self.set_kind(true, false),
            Fault::MendSync => self.set_kind(true, true),
            Fault::CutHeartbeats => self.set_kind(false, false),
            Fault::MendHeartbeats => self.set_kind(false, true),
            Fault::SlowLink(link) => {
                let low = self.chance.between(5_000, 100_000);
                self.set_latency(link, (low, low * 4));
            }
            Fault::NormalLink(link) => self.set_latency(link, self.latency),
            Fault::Reset => self.reset_some(),
            Fault::ResetData(_) => self.reset_data(),
            Fault::SlowDisks(node) => {
                let high = self.chance.between(20_000, 1_500_000);
                self.machines[node].speed = DiskSpeed {
                    low: 1000,
                    high,
                    slow: 20,
                };
            }
            Fault::Snapshot(node) => self.machines[node].snapshot(),
            Fault::PutBack(node) => {
                self.machines[node].put_back();
                self.replaced = true;
                self.older = true;
                self.last_power_cut = Some(self.ctx.now);
            }
            Fault::CrawlDisk(node, ms) => {
                self.machines[node].crawls = true;
                self.crawled = true;
                let over = Duration::from_millis(ms);
                self.ctx.after(over, What::Fault(Fault::NormalDisks(node)));
                // Nothing else is begun meanwhile: a node that is gone is not put out.
                let over = self.ctx.now + over;
                self.rest = Some(self.rest.map_or(over, |until| until.max(over)));
                self.plan.until = self.plan.until.max(over);
            }
            Fault::Pardon => {
                for machine in &mut self.machines {
                    machine.pardon(&mut self.ctx);
                }
            }
            Fault::Unreadable(node) => {
                let sectors = self.shape.size / SECTOR as u64;
                for _ in 0..self.chance.between(1, 40) {
                    // Where the load goes, mostly.
                    let below = *self.chance.pick(&[64, 2048, sectors]);
                    let sector = self.chance.below(below.min(sectors));
                    self.machines[node].bad.insert(sector);
                }
            }
            Fault::HangReads(node, ms) => {
                let until = ctx.now + Duration::from_millis(ms);
                // A long one is waited for, so that a resync has the time to notice it.
                if ms > 30_000 {
                    let over = until + Duration::from_secs(5);
                    self.rest = Some(over);
                    self.plan.until = self.plan.until.max(over);
                }
                self.machines[node].hung_until = until.min(self.plan.until);
            }
            Fault::NormalDisks(node) => {
                self.machines[node].crawls = false;
                self.machines[node].speed = DiskSpeed {
                    low: 20,
                    high: 500,
                    slow: 10,
                }
            }
            Fault::FailDisk(node) => {
                self.machines[node].disk_fails = true;
                self.replaced = true;
                // What only its memory held is lost as with a power cut.
                self.last_power_cut = Some(self.ctx.now);
            }
            Fault::ReplaceDisk(node) => {
                self.machines[node].replace_disk(&mut self.ctx);
                self.throw(Fault::Start(node));
            }
            Fault::Nap(ms) => {
                let rest = Duration::from_millis(ms);
                self.rest = Some(self.ctx.now + rest);
                self.plan.until += rest;
                for client in &mut self.clients {
                    client.rest_until = self.ctx.now + rest;
                }
            }
            Fault::Losses => self.set_losses(self.chance.clone().between(5, 150)),
            Fault::NoLosses => self.set_losses(0),
            Fault::Calm => self.calm(),
            Fault::Part(..)
            | Fault::Reunite
            | Fault::CutWitness(..)
            | Fault::MendWitness(..)
            | Fault::KillWitness
            | Fault::PowerCutWitness
            | Fault::StartWitness
            | Fault::PauseWitness(_)
            | Fault::WipeWitness
            | Fault::FillWitness
            | Fault::EmptyWitness
            | Fault::Strategy(..) => self.throw_majority(fault),
            Fault::Next => unreachable!("handled above"),
        }
    }

    fn still_makes_sense(&self, fault: Fault) -> bool {
        let calm = self.phase != Phase::Faults;
        if self.disk_is_failing() && fault.takes_a_node_away() {
            return false;
        }
        let failed = self.machines.iter().any(|machine| machine.disk_fails);
        if failed
            && matches!(
                fault,
                Fault::Force(_) | Fault::Enter(_) | Fault::Strategy(..)
            )
        {
            return false;
        }
        let mends = matches!(
            fault,
            Fault::Start(_)
                | Fault::StartWitness
                | Fault::Mend(..)
                | Fault::MendPath(..)
                | Fault::MendWitness(..)
                | Fault::EmptyWitness
                | Fault::Leave(_)
                | Fault::ReplaceDisk(_)
                | Fault::NormalDisks(_)
                | Fault::NoLosses
                | Fault::Calm
                | Fault::Next
        );
        if self.deciding.is_some() && !mends {
            return false;
        }
        match fault {
            Fault::Start(node) => self.machines[node].process.is_none(),
            Fault::Kill(node) | Fault::Stop(node) => {
                !calm && self.machines[node].process.is_some() && !self.other_is_needed(node)
            }
            Fault::PowerCut(node) => {
                !calm
                    && self.machines[node].process.is_some()
                    && self.power_cut_allowed(node)
                    && !self.other_is_needed(node)
            }
            Fault::Pause(node, ms) => {
                !calm
                    && self.machines[node].is_running()
                    && (ms < 1000 || !self.other_is_needed(node))
            }
            Fault::Cut(link, _) => {
                let link = self.node_links()[link];
                let whole = self.whole_links();
                let left = self.majority_holds() || whole.iter().any(|other| *other != link);
                !calm && self.isolated.is_none() && self.parted.is_none() && left
            }
            // One cut off after the other, and not a word between them: to the one that was cut
            // off first it is as if its partner had gone alone and died. A witness knows better.
            Fault::Isolate(node) => {
                let joined = self.isolated.is_none() && self.parted.is_none();
                let apart = self.cut_off == Some(1 - node) && !self.hear_each_other();
                let bearable = match self.shape.majority {
                    true => self.majority_holds(),
                    false => !apart,
                };
                !calm && joined && bearable && self.whole_links() == self.node_links()
            }
            Fault::FailDisk(node) => {
                let whole = self.isolated.is_none() && self.parted.is_none();
                let met = whole && self.together() && self.hear_each_other();
                let out = self.machines.iter().any(|it| it.is_out_of_service());
                !calm && !self.replaced && met && !out && !self.other_is_needed(node)
            }
            Fault::ReplaceDisk(node) => self.machines[node].disk_fails,
            Fault::Snapshot(node) => !calm && !self.replaced && self.machines[node].is_running(),
            // The other one must hold everything, and be alone already.
            Fault::PutBack(node) => {
                let other = &self.machines[1 - node];
                let holds = other.is_running() && other.watch.alone() && other.watch.confirmed;
                let off = self.machines[node].process.is_none();
                !calm && !self.replaced && off && holds && self.machines[node].has_snapshot()
            }
            // Longer than leases can bear: no initiator may come to it with its old leases, for
            // by its own clock they hold.
            Fault::StandStill(node, ms) => {
                let alone = self.isolated == Some(node) || ms <= STILL_BORNE_MS;
                !calm && alone && self.machines[node].is_running()
            }
            // A block that neither node can read is lost by design.
            Fault::Unreadable(node) => !calm && self.machines[1 - node].bad.is_empty(),
            Fault::CutPath(..)
            | Fault::Certify(..)
            | Fault::Reset
            | Fault::ResetData(_)
            | Fault::Jump(..)
            | Fault::SlowLink(_)
            | Fault::SlowDisks(_)
            | Fault::HangReads(..)
            | Fault::CrawlDisk(..)
            | Fault::Losses
            | Fault::Nap(_) => !calm,
            // A link of an isolated node stays down until the node rejoins.
            Fault::CutSync | Fault::CutHeartbeats => {
                let cut = match fault {
                    Fault::CutSync => self.machines[0].sync_links.clone(),
                    _ => self.heartbeat_links(),
                };
                let whole = self.whole_links();
                let left = self.majority_holds() || whole.iter().any(|it| !cut.contains(it));
                !calm && self.isolated.is_none() && self.parted.is_none() && left
            }
            Fault::Mend(..) | Fault::MendSync | Fault::MendHeartbeats => {
                self.isolated.is_none() && self.parted.is_none()
            }
            Fault::MendPath(..) => self.isolated.is_none(),
            Fault::Rejoin(node) => {
                // That of an earlier fault which was not thrown comes too early.
                self.isolated.is_some() && self.ctx.now >= self.machines[node].still_until
            }
            Fault::Force(node) => !calm && !self.older && self.machines[node].is_running(),
            Fault::Enter(node) => !calm && self.machines[node].is_running(),
            Fault::Leave(node) => self.machines[node].is_out_of_service(),
            Fault::NormalLink(_)
            | Fault::Pardon
            | Fault::NormalDisks(_)
            | Fault::NoLosses
            | Fault::Calm
            | Fault::Next => true,
            _ => self.majority_fault_makes_sense(fault),
        }
    }

    fn throw_next(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        if self.ctx.now >= self.plan.until {
            return self.throw(Fault::Calm);
        }
        let parted = self.parted.as_ref().map(|it| it.quiet_until);
        let quiet = self.rest.max(parted).max(self.deciding);
        if let Some(until) = quiet.filter(|until| self.ctx.now < *until) {
            self.ctx.wheel.push(until, What::Fault(Fault::Next));
            return;
        }
        let situation = Situation {
            running: [0, 1].map(|node| self.machines[node].is_running()),
            links: self.node_links().len(),
            whole: self.whole_links().len(),
            whole_heartbeats: {
                let heartbeats = self.heartbeat_links();
                let mut whole = self.whole_links();
                whole.retain(|it| heartbeats.contains(it));
                whole.len()
            },
            clients: self.clients.len(),
            isolated: self.isolated,
            together: self.together(),
            replaced: self.replaced,
            crawled: self.crawled,
            rested: self.rest.is_some(),
            power_cut_allowed: (0..2).all(|node| self.power_cut_allowed(node)),
            majority: self.majority_holds(),
            witness: self.witness.as_ref().is_some_and(WitnessMachine::exists),
            parted: self.parted.is_some(),
            parted_long: self.parted_long,
        };
        for (delay, fault) in self.plan.choose(&mut self.chance, &situation) {
            self.ctx.after(delay, What::Fault(fault));
        }
        let pause = self.plan.pause(&mut self.chance);
        self.ctx.after(pause, What::Fault(Fault::Next));
    }

    /// Taking this node away now would lose acknowledged writes by design: in write-back mode the
    /// other one has just lost its power and this one may not have flushed yet; or the other one was
    /// cut off from everything, cannot know that this one went alone, and is not back in step yet
    /// (with a witness it asks the witness).
    fn other_is_needed(&self, node: usize) -> bool {
        let unflushed = self.shape.cache == CacheMode::WriteBack
            && self
                .last_power_cut
                .is_some_and(|at| at + FLUSHED_AFTER > self.ctx.now);
        unflushed || !self.shape.majority && self.cut_off == Some(1 - node)
    }

    /// A disk fails, and the other node does not serve alone yet: if that were taken away now, the
    /// volume would come to depend on the failed disk.
    fn disk_is_failing(&self) -> bool {
        (0..2).any(|node| {
            let other = &self.machines[1 - node].watch;
            self.machines[node].disk_fails && !(other.alone() && other.confirmed)
        })
    }

    /// Each node has heard the other one a moment ago.
    fn hear_each_other(&self) -> bool {
        let hears = |machine: &crate::machine::Machine| {
            let process = machine.process.as_ref().filter(|_| machine.is_running());
            process.is_some_and(|process| process.control.node.hears_partner())
        };
        self.machines.iter().all(hears)
    }

    /// In write-back mode both nodes losing power at once may take acknowledged writes along; that
    /// is what the mode says, so it is not done.
    fn power_cut_allowed(&self, node: usize) -> bool {
        if self.shape.cache != CacheMode::WriteBack {
            return true;
        }
        let other = &self.machines[1 - node];
        let both = other
            .watch
            .serving
            .is_some_and(|configuration| configuration.members.count() == 2);
        let recent = self
            .last_power_cut
            .is_some_and(|at| at + FLUSHED_AFTER > self.ctx.now);
        other.is_running()
            && both
            && self.machines[node].watch.serving == other.watch.serving
            && !recent
    }

    pub(super) fn node_links(&self) -> Vec<LinkId> {
        self.machines[0].control_links.clone()
    }

    pub(super) fn whole_links(&self) -> Vec<LinkId> {
        let mut links = self.node_links();
        links.retain(|link| self.ctx.network.link(*link).up == [true; 2]);
        links
    }

    /// Links that carry heartbeats and no data.
    fn heartbeat_links(&self) -> Vec<LinkId> {
        let mut links = self.node_links();
        links.retain(|link| !self.machines[0].sync_links.contains(link));
        links
    }

    fn set_kind(&mut self, sync: bool, up: bool) {
        let links = match sync {
            true => self.machines[0].sync_links.clone(),
            false => self.heartbeat_links(),
        };
        for link in links {
            for direction in 0..2 {
                self.ctx.network.set_up(self.ctx.now, link, direction, up);
            }
        }
    }

    fn set_latency(&mut self, link: usize, latency: (u64, u64)) {
        let link = self.node_links()[link];
        self.ctx.network.link_mut(link).latency = latency;
    }

    /// Data channels on which something is on its way.
    fn busy_data(&mut self) -> Vec<usize> {
        let links = self.machines[0].sync_links.clone();
        let mut busy = Vec::new();
        for link in links {
            let live = self.ctx.network.live(link).to_vec();
            busy.extend(
                live.into_iter()
                    .filter(|it| self.ctx.network.is_busy(*it, PORT_DATA)),
            );
        }
        busy
    }

    fn reset_data(&mut self) {
        let busy = self.busy_data();
        let stream = *self.chance.pick(&busy);
        self.ctx.network.reset(stream);
    }

    fn set_link(&mut self, link: usize, direction: usize, up: bool) {
        let link = self.node_links()[link];
        self.ctx.network.set_up(self.ctx.now, link, direction, up);
    }

    fn set_path(&mut self, path: usize, direction: usize, up: bool) {
        let link = self.clients[path / 2].links[path % 2];
        self.ctx.network.set_up(self.ctx.now, link, direction, up);
    }

    fn all_links(&self) -> Vec<LinkId> {
        let paths = self.clients.iter().flat_map(|client| client.links);
        let links = self.node_links().into_iter();
        links.chain(self.witness_links()).chain(paths).collect()
    }

    fn isolate(&mut self, node: usize) {
        self.isolated = Some(node);
        self.cut_off = Some(node);
        for link in self.all_links() {
            if self.ctx.network.link(link).hosts.contains(&node) {
                self.ctx.network.set_up(self.ctx.now, link, 0, false);
                self.ctx.network.set_up(self.ctx.now, link, 1, false);
            }
        }
    }

    pub(super) fn rejoin(&mut self) {
        self.isolated = None;
        for link in self.all_links() {
            for direction in 0..2 {
                self.ctx.network.set_up(self.ctx.now, link, direction, true);
            }
        }
    }

    fn reset_some(&mut self) {
        let links = self.all_links();
        let link = *self.chance.pick(&links);
        let streams = self.ctx.network.live(link).to_vec();
        if !streams.is_empty() {
            let stream = *self.chance.pick(&streams);
            self.ctx.network.reset(stream);
        }
    }

    pub(super) fn set_losses(&mut self, thousandths: u64) {
        for link in self.all_links() {
            self.ctx.network.link_mut(link).loss = thousandths;
        }
        // Between the nodes everything has a CRC or a MAC; initiators need not ask for digests.
        let flips = if thousandths > 0 {
            self.chance.below(4)
        } else {
            0
        };
        for link in self.node_links().into_iter().chain(self.witness_links()) {
            self.ctx.network.link_mut(link).flips = flips;
        }
    }

    fn calm(&mut self) {
        self.phase = Phase::Calm(self.ctx.now);
        self.end_of_parting();
        self.rejoin();
        if let Some(witness) = &mut self.witness {
            witness.full = false;
            let delay = self.chance.millis(1, 3000);
            self.ctx.after(delay, What::Fault(Fault::StartWitness));
        }
        // A node that was put out for slowness comes back by itself when its wait is over, or when
        // an operator ends that.
        if self.crawled && self.chance.chance(500) {
            let delay = self.chance.millis(0, 20_000);
            self.ctx.after(delay, What::Fault(Fault::Pardon));
        }
        self.set_losses(0);
        for link in 0..self.node_links().len() {
            self.set_latency(link, self.latency);
        }
        for node in 0..2 {
            self.throw(Fault::NormalDisks(node));
            self.throw(Fault::ReplaceDisk(node));
            self.throw(Fault::Leave(node));
            if self.machines[node].process.is_none() {
                let delay = self.chance.millis(1, 3000);
                self.ctx.after(delay, What::Fault(Fault::Start(node)));
            }
        }
    }

    /// A node that was still stopping in order when the calm began is started as well.
    pub(super) fn restart_stopped(&mut self) {
        for node in 0..2 {
            if self.machines[node].process.is_none() {
                self.throw(Fault::Start(node));
            }
            if self.machines[node].is_running() {
                self.throw(Fault::Leave(node));
            }
        }
    }

    pub(super) fn begin_faults(&mut self) {
        self.phase = Phase::Faults;
        self.last_answer = self.ctx.now;
        self.plan.until += self.ctx.now;
        for client in &mut self.clients {
            client.start(&mut self.ctx);
        }
        let pause = self.plan.pause(&mut self.chance);
        self.ctx.after(pause, What::Fault(Fault::Next));
    }
}
