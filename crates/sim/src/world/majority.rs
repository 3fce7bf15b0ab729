//! Runs with a witness: its faults, the two nodes cut off from each other, changes of the strategy,
//! and what must hold there without any exemption.

use super::{LIVENESS, Phase, WITNESS_HOST, World};
use crate::faults::Fault;
use crate::machine::control::Document;
use crate::network::LinkId;
use core::time::Duration;
use lockstep_mirror::control::WitnessId;

/// Initiators that are answered so long after the nodes were parted are served by one of them:
/// its lease was over before.
const LEASE_OVER: Duration = Duration::from_secs(3);

/// The nodes are cut off from each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parted {
    since: Duration,
    /// Nothing else goes wrong meanwhile, one node reaches the witness and every initiator that
    /// node: it has to serve.
    must_serve: bool,
    /// Until when no other fault is begun.
    pub(super) quiet_until: Duration,
    /// Initiators were answered by the one node that went on.
    served: bool,
}

impl World {
    /// Two of three decide, on both nodes, and nothing else is on its way.
    pub(super) const fn majority_holds(&self) -> bool {
        self.shape.majority && !self.changing
    }

    /// A fault of this module makes sense now.
    pub(super) fn majority_fault_makes_sense(&self, fault: Fault) -> bool {
        let Some(witness) = &self.witness else {
            return false;
        };
        let calm = self.phase != Phase::Faults;
        match fault {
            Fault::Part(..) => {
                !calm && self.majority_holds() && self.isolated.is_none() && self.parted.is_none()
            }
            Fault::Reunite => self.parted.is_some(),
            Fault::CutWitness(..) | Fault::FillWitness => !calm && self.isolated.is_none(),
            Fault::MendWitness(..) => self.isolated.is_none(),
            Fault::KillWitness | Fault::PowerCutWitness | Fault::PauseWitness(_) => {
                !calm && witness.exists()
            }
            Fault::StartWitness => !witness.exists(),
            Fault::WipeWitness => !calm && !witness.exists(),
            Fault::Strategy(_, majority) => {
                // Without a witness the nodes must not be parted from here on.
                let whole = self.whole_links() == self.node_links();
                let joined = self.isolated.is_none() && self.parted.is_none() && whole;
                !calm && (majority && self.changing || !majority && joined && self.together())
            }
            _ => true,
        }
    }

    pub(super) fn throw_majority(&mut self, fault: Fault) {
        match fault {
            Fault::Part(direction, quiet) => return self.part(direction, quiet),
            Fault::Reunite => return self.reunite(),
            Fault::Strategy(node, majority) => return self.change_strategy(node, majority),
            _ => {}
        }
        let speed = self.shape.witness_speed;
        let (Some(witness), ctx) = (&mut self.witness, &mut self.ctx) else {
            return;
        };
        match fault {
            Fault::CutWitness(node, way) => {
                ctx.network.set_up(ctx.now, witness.links[node], way, false);
            }
            Fault::MendWitness(node, way) => {
                ctx.network.set_up(ctx.now, witness.links[node], way, true);
            }
            Fault::KillWitness => witness.kill(ctx),
            Fault::PowerCutWitness => witness.power_cut(ctx),
            Fault::StartWitness => witness.start(ctx, speed),
            Fault::PauseWitness(ms) => witness.pause(ctx, Duration::from_millis(ms)),
            Fault::WipeWitness => witness.wipe(ctx),
            Fault::FillWitness => witness.full = true,
            Fault::EmptyWitness => witness.full = false,
            _ => {}
        }
    }

    /// The links to the witness.
    pub(super) fn witness_links(&self) -> Vec<LinkId> {
        self.witness
            .as_ref()
            .map(|it| it.links.to_vec())
            .unwrap_or_default()
    }

    fn part(&mut self, direction: usize, quiet: u64) {
        let quiet = Duration::from_millis(quiet);
        let must_serve = direction == 0 && self.one_must_serve();
        self.parted = Some(Parted {
            since: self.ctx.now,
            must_serve,
            quiet_until: self.ctx.now + quiet,
            served: false,
        });
        if quiet > Duration::ZERO {
            self.plan.until += quiet;
            self.parted_long = true;
        }
        for link in self.node_links() {
            for way in (0..2).filter(|way| direction == 0 || direction == way + 1) {
                self.ctx.network.set_up(self.ctx.now, link, way, false);
            }
        }
    }

    fn reunite(&mut self) {
        self.end_of_parting();
        for link in self.node_links() {
            for way in 0..2 {
                self.ctx.network.set_up(self.ctx.now, link, way, true);
            }
        }
    }

    /// The nodes are about to reach each other again.
    pub(super) fn end_of_parting(&mut self) {
        let Some(parted) = self.parted.take() else {
            return;
        };
        if parted.served {
            self.ctx.count("partings in which initiators were served");
        }
        if parted.must_serve && self.ctx.now > parted.since + LIVENESS {
            self.ctx.count("partings in which one node had to serve");
        }
    }

    /// Whatever happens now excuses a node that does not serve while the nodes are parted.
    pub(super) fn disturb(&mut self, fault: Fault) {
        if let Some(parted) = &mut self.parted
            && fault.name() != Fault::Calm.name()
        {
            parted.must_serve = false;
        }
    }

    /// Both nodes serve, one of them reaches the witness, every initiator reaches both, and
    /// nothing is slow.
    fn one_must_serve(&self) -> bool {
        let Some(witness) = self.witness.as_ref().filter(|it| it.is_well()) else {
            return false;
        };
        let voter = |it: Option<WitnessId>| it.is_some() && it == witness.life();
        let serving = self.machines[0].watch.serving;
        let sound = |link: &LinkId| {
            let link = self.ctx.network.link(*link);
            link.up == [true; 2] && link.loss == 0
        };
        let reaches = |node: usize| {
            sound(&witness.links[node]) && voter(self.machines[node].witness_met(&self.ctx))
        };
        let mut paths = self.clients.iter().flat_map(|client| &client.links);
        self.together()
            && voter(serving.and_then(|it| it.witness))
            && (0..2).any(reaches)
            && paths.all(sound)
            && self.rest.is_none_or(|until| until < self.ctx.now)
            && self.machines.iter().all(|it| it.speed.high <= 3000)
            && self.ctx.network.is_on(WITNESS_HOST)
    }

    fn change_strategy(&mut self, node: usize, majority: bool) {
        self.changing = true;
        if let Some(document) = self.machines[node].document() {
            let next = Document {
                majority,
                ..document
            };
            self.machines[node].propose(&mut self.ctx, next);
        }
    }

    /// What the operator proposes next, until the volume is there.
    pub(super) fn make(&mut self) {
        let Some(document) = self.machines[0].document() else {
            return;
        };
        let (majority, first) = (self.shape.majority, self.shape.admitted_first);
        let mut next = document;
        if majority && !document.witness {
            next.witness = true;
        }
        if !majority || !first || document.life.is_some() {
            next.volume = true;
        }
        next.majority = majority && next.volume;
        if next != document && self.machines[0].is_settled(&self.ctx) {
            self.machines[0].propose(&mut self.ctx, next);
        }
    }

    /// The volume is there, and its third vote if it is to have one.
    pub(super) fn is_made(&self) -> bool {
        let voter = |node: usize| self.machines[node].watch.serving.and_then(|it| it.witness);
        self.together() && (!self.shape.majority || voter(0).is_some())
    }

    /// Checks of runs with a witness.
    pub(super) fn inspect_majority(&mut self) {
        if !self.shape.majority {
            return;
        }
        let documents = [0, 1].map(|node| self.machines[node].document());
        let settled = self.machines.iter().all(|it| it.is_settled(&self.ctx));
        let voters = [0, 1].map(|node| self.machines[node].watch.serving.and_then(|it| it.witness));
        if self.changing
            && settled
            && self.together()
            && documents
                .iter()
                .all(|it| it.is_some_and(|it| it.majority && it.voter() == voters[0]))
            && voters.iter().all(Option::is_some)
        {
            self.changing = false;
            self.ctx.count("strategy: there and back");
        }
        for node in 0..2 {
            if self.deciding.is_none() && self.machines[node].is_split(super::VOLUME) {
                let text = format!("node {}: a split brain, with a witness", node + 1);
                self.ctx.violation(text);
            }
        }
        self.look_at_parting();
    }

    fn look_at_parting(&mut self) {
        let now = self.ctx.now;
        let Some(parted) = &mut self.parted else {
            return;
        };
        parted.served |= self.last_answer > parted.since + LEASE_OVER;
        let waits = self
            .clients
            .iter()
            .filter_map(crate::client::Client::oldest);
        let waits = waits.map(|it| it.max(parted.since)).min();
        if parted.must_serve && waits.is_some_and(|it| it + LIVENESS < now) {
            let state = [0, 1].map(|node| self.machines[node].describe(&self.ctx));
            let witness = self.witness.as_ref().map(super::WitnessMachine::describe);
            self.ctx.violation(format!(
                "the nodes are parted, and one of them reaches the witness, but a command was not \
                 answered within {LIVENESS:?}: {} / {} / {witness:?}",
                state[0], state[1]
            ));
        }
    }
}
