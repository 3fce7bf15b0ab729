//! What a node does around a membership: a short form of `engine::node::{heart, votes, volumes}`.

use super::path::{Disk, Path};
use super::*;
use lockstep_mirror::control::{FromVolume, ToVolume};
use lockstep_mirror::hello::Random;
use lockstep_mirror::membership::{Contact, Membership, Output, Settings, Turn};
use lockstep_mirror::superblock::{Found, SLOT_LEN, Superblock};

/// A question is repeated this often (`ASK_AGAIN`), and an unchanged report too.
const AGAIN: Duration = Duration::from_millis(500);
/// Rounds of one turn of `Node`.
const MAX_ROUNDS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Me,
    Partner,
}

/// A machine: what survives a crash, and the process.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) now: Time,
    pub(super) runs: u64,
    pub(super) superblock: Option<Superblock>,
    pub(super) votes: Acceptor,
    pub(super) disk: Disk,
    pub(super) process: Option<Box<Process>>,
    pub(super) paused: bool,
    pub(super) slow: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) membership: Membership,
    pub(super) path: Path,
    pub(super) writing: Option<Superblock>,
    memory: Acceptor,
    pub(super) file: Option<Acceptor>,
    waiting: Vec<(Asker, Message, bool)>,
    /// What the partner and the witness were last asked.
    asked: [Option<(Message, Time)>; 2],
    last: Option<Report>,
    report_due: Time,
    sequence: u64,
    heard: Option<Time>,
    met: Option<Incarnation>,
    contact: Contact,
    doubted: bool,
    looked: Time,
    awake: Time,
    started: Time,
    run: Incarnation,
    random: Random,
}

impl Machine {
    pub(super) fn new(who: usize) -> Self {
        Self {
            now: Duration::from_secs(1000 * (who as u64 + 1)),
            runs: 0,
            superblock: None,
            votes: Acceptor::default(),
            disk: Disk::default(),
            process: None,
            paused: false,
            slow: false,
        }
    }
}

impl World {
    pub(super) fn new(model: &Pair) -> Self {
        let mut world = Self {
            nodes: [Machine::new(0), Machine::new(1)],
            referee: Acceptor::default(),
            wires: Default::default(),
            stalled: [None; 2],
            questions: Default::default(),
            answers: Default::default(),
            witness_stalled: [false; 2],
            cut_off: None,
            certificates: [None; 2],
            faults: 0,
            written: 0,
            acknowledged: 0,
            seen: 0,
            ticks: 0,
            harm: None,
        };
        world.boot(model, 0);
        world.boot(model, 1);
        world
    }

    pub(super) fn boot(&mut self, model: &Pair, who: usize) {
        let machine = &mut self.nodes[who];
        machine.runs += 1;
        let run = Incarnation(machine.runs << 8 | u64::from(node_id(who).0));
        let settings = Settings {
            volume: VOLUME,
            me: node_id(who),
            partner: Some(node_id(1 - who)),
            incarnation: run,
            size: 1 << 30,
            block_size: 4096,
            create: true,
            write_back: false,
            // What it passes on has no place in this model: it changes nothing here.
            proxy: false,
            witness: model.witness.then_some(WITNESS_LIFE),
            timing: model.timing,
        };
        let found = match machine.superblock.clone() {
            None => Found::Blank,
            Some(superblock) => Found::Valid {
                superblock,
                damaged: false,
            },
        };
        let now = machine.now;
        let membership = Membership::new(settings, found, machine.votes.has(VOLUME), now);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&run.0.to_be_bytes());
        let open = membership.open();
        machine.process = Some(Box::new(Process {
            membership,
            path: Path::default(),
            writing: None,
            memory: machine.votes.clone(),
            file: None,
            waiting: Vec::new(),
            asked: [None; 2],
            last: None,
            report_due: now,
            sequence: 0,
            heard: None,
            met: None,
            contact: Contact::Silent { since: now },
            doubted: false,
            looked: now,
            awake: now,
            started: now,
            run,
            random: Random::new(seed),
        }));
        self.order(model, who, &open);
        self.look(model, who);
    }

    fn order(&mut self, model: &Pair, who: usize, order: &ToVolume) {
        if let ToVolume::Serve { configuration, .. } = order {
            self.check_serve(who, configuration);
        }
        let machine = &mut self.nodes[who];
        if let Some(process) = &mut machine.process {
            process.path.obey(&mut machine.disk, order, &model.rules);
        }
        if matches!(order, ToVolume::Serve { .. }) {
            self.replay(who);
        }
    }

    /// A heartbeat came: the promise that answers it.
    pub(super) fn beat_came(&mut self, who: usize, run: Incarnation) -> Option<u64> {
        let now = self.nodes[who].now;
        let process = self.nodes[who].process.as_mut()?;
        if process.met != Some(run) {
            process.met = Some(run);
            process.report_due = now;
        }
        process.heard = Some(now);
        process.membership.promise(now)
    }

    pub(super) fn ack_came(&mut self, model: &Pair, who: usize, sent: Time, promise: Option<u64>) {
        let Some(process) = &mut self.nodes[who].process else {
            return;
        };
        let until = sent + model.timing.lease;
        let order = promise.and_then(|epoch| process.membership.lease(epoch, until));
        if let Some(order) = order {
            self.order(model, who, &order);
        }
    }

    /// `Node::register_in`.
    pub(super) fn register_came(&mut self, who: usize, message: Message) {
        let Machine {
            process: Some(process),
            votes,
            now,
            ..
        } = &mut self.nodes[who]
        else {
            return;
        };
        match message {
            Message::Prepare { .. } | Message::Accept { .. }
                if process.membership.votes_are_lost() => {}
            Message::Prepare { .. } => process.question(Asker::Partner, message),
            Message::Accept { value, .. } => {
                let vote = votes.vote(VOLUME);
                if process.membership.may_accept(&value, &vote) {
                    process.membership.accepting(*now);
                    process.question(Asker::Partner, message);
                }
            }
            _ => process.membership.answered(node_id(1 - who), message),
        }
    }

    pub(super) fn witness_answered(&mut self, who: usize, message: Message) {
        if let Some(process) = &mut self.nodes[who].process {
            process.membership.witness_answered(WITNESS_LIFE, message);
        }
    }

    /// Whether the partner began or ceased to be heard (`Node::look_at_contact`).
    fn look_at_contact(&mut self, model: &Pair, who: usize) {
        let now = self.nodes[who].now;
        let Some(process) = &mut self.nodes[who].process else {
            return;
        };
        let timing = model.timing;
        if now >= process.looked + timing.lease {
            process.awake = now;
            process.membership.overslept(now);
        }
        process.looked = now;
        let last = process.heard.map(|at| at.max(process.awake));
        let heard = last.filter(|at| now < *at + timing.silence);
        let doubt = last.is_some_and(|at| now >= at + timing.doubt());
        let mut ask = None;
        if doubt && !process.doubted {
            ask = process.membership.ask(true);
        }
        process.doubted = doubt;
        let contact = match (heard, process.met) {
            (Some(_), Some(incarnation)) => Contact::Heard { incarnation },
            _ => Contact::Silent {
                since: process.heard.unwrap_or(process.started),
            },
        };
        let before = std::mem::replace(&mut process.contact, contact);
        let mut again = None;
        match (before, contact) {
            (Contact::Silent { .. }, Contact::Heard { .. }) => process.membership.heard_again(now),
            (Contact::Heard { .. }, Contact::Silent { .. }) => {
                again = process.membership.ask(false);
            }
            _ => {}
        }
        for order in [ask, again].into_iter().flatten() {
            self.order(model, who, &order);
        }
    }

    /// What a node does after every event (`Node::look`).
    pub(super) fn look(&mut self, model: &Pair, who: usize) {
        self.look_at_contact(model, who);
        for _ in 0..MAX_ROUNDS {
            self.step_volume(model, who);
            self.ask_acceptors(who);
            self.step_votes(model, who);
            let idle = |it: &Process| !it.waiting.iter().any(|it| it.2);
            if self.nodes[who].process.as_deref().is_none_or(idle) {
                break;
            }
        }
        self.initiators(model, who);
        self.answer_inherited(model, who);
    }

    fn step_volume(&mut self, model: &Pair, who: usize) {
        let Machine {
            process: Some(process),
            votes,
            now,
            ..
        } = &mut self.nodes[who]
        else {
            return;
        };
        let vote = votes.vote(VOLUME);
        let voting = process.memory.vote(VOLUME).value;
        process.membership.contact(process.contact);
        process.membership.voting(voting);
        let mut out = Vec::new();
        process.membership.step(&mut Turn {
            now: *now,
            vote,
            random: &mut process.random,
            out: &mut out,
        });
        let mut orders = Vec::new();
        for output in out {
            match output {
                Output::Order(order) => orders.push(order),
                Output::WriteSuperblock { bytes, .. } => {
                    let found = Superblock::choose([&bytes, &[0; SLOT_LEN]]);
                    let Ok(Found::Valid { superblock, .. }) = found else {
                        self.harm = Some(format!("a superblock that cannot be read: {found:?}"));
                        return;
                    };
                    process.writing = Some(superblock);
                }
                Output::Event { .. } | Output::Forced(_) => {}
            }
        }
        if let Some(mut report) = process.membership.report(vote)
            && (process.last.as_ref() != Some(&report) || *now >= process.report_due)
        {
            process.last = Some(report.clone());
            process.sequence += 1;
            process.report_due = *now + AGAIN;
            report.seq = process.sequence;
            self.wires[1 - who].push_back(Frame::Report(Box::new(report)));
        }
        for order in orders {
            self.order(model, who, &order);
        }
    }

    fn ask_acceptors(&mut self, who: usize) {
        let Machine {
            process: Some(process),
            votes,
            now,
            ..
        } = &mut self.nodes[who]
        else {
            return;
        };
        let asks = process.membership.asks();
        if let Some(message) = asks.own {
            let vote = votes.vote(VOLUME);
            let allowed = match message {
                Message::Accept { value, .. } => process.membership.may_accept(&value, &vote),
                _ => true,
            };
            if allowed {
                process.question(Asker::Me, message);
            }
        }
        let witness = asks.witness.map(|(_, it)| it);
        for (place, message) in [asks.partner, witness].into_iter().enumerate() {
            let Some(message) = message else {
                process.asked[place] = None;
                continue;
            };
            let said = process.asked[place];
            if said.is_some_and(|(it, at)| it == message && *now < at + AGAIN) {
                continue;
            }
            process.asked[place] = Some((message, *now));
            if place == 0 {
                self.wires[1 - who].push_back(Frame::Register(message));
            } else if !self.questions[who].contains(&message) {
                self.questions[who].push_back(message);
            }
        }
    }

    /// Answers that the file backs go out; a write of it begins if it must.
    fn step_votes(&mut self, model: &Pair, who: usize) {
        let Some(process) = &mut self.nodes[who].process else {
            return;
        };
        let durable = &self.nodes[who].votes;
        let backed = process.memory == *durable;
        let mut ready = Vec::new();
        process.waiting.retain(|(asker, answer, written)| {
            let leaves = *written || backed;
            if leaves {
                ready.push((*asker, *answer));
            }
            !leaves
        });
        if process.file.is_none() && !backed {
            process.file = Some(process.memory.clone());
        }
        for (asker, answer) in ready {
            match asker {
                Asker::Me => {
                    if let Some(process) = &mut self.nodes[who].process {
                        process.membership.answered(node_id(who), answer);
                    }
                    self.step_volume(model, who);
                    self.ask_acceptors(who);
                }
                Asker::Partner => self.wires[1 - who].push_back(Frame::Register(answer)),
            }
        }
    }

    /// Initiators are there and show it, unless the node is cut off.
    fn initiators(&mut self, model: &Pair, who: usize) {
        let Some(process) = &mut self.nodes[who].process else {
            return;
        };
        if self.cut_off.map(usize::from) == Some(who) && !model.witness {
            return;
        }
        let path = &mut process.path;
        if std::mem::take(&mut path.asked) {
            path.words.push_back(FromVolume::Reached);
        }
        if (path.suspended || path.mode == path::Mode::Idle) && !path.wanted_told {
            path.wanted_told = true;
            path.words.push_back(FromVolume::Wanted);
        }
    }

    /// The register's file is written.
    pub(super) fn file_written(&mut self, who: usize) {
        let machine = &mut self.nodes[who];
        let Some(process) = &mut machine.process else {
            return;
        };
        if let Some(written) = process.file.take() {
            // Whatever was asked since that write began waits for the next one.
            let whole = written == process.memory;
            for waiting in &mut process.waiting {
                waiting.2 |= whole;
            }
            machine.votes = written;
        }
    }

    pub(super) fn superblock_written(&mut self, who: usize) {
        let machine = &mut self.nodes[who];
        let Some(process) = &mut machine.process else {
            return;
        };
        if let Some(written) = process.writing.take() {
            machine.superblock = Some(written);
            process.membership.superblock_written(true);
        }
    }

    /// The witness answers at once: a write of its file that was lost is a question that never
    /// came.
    pub(super) fn ask_referee(&mut self, who: usize, message: Message) {
        if let Some(answer) = self.referee.handle(VOLUME, message)
            && !self.answers[who].contains(&answer)
        {
            self.answers[who].push_back(answer);
        }
    }

    pub(super) fn is_mirrored(&self) -> bool {
        let serves = |it: &Machine| {
            let path = it.process.as_ref().map(|it| &it.path);
            path.is_some_and(|it| {
                !it.suspended && it.configuration().is_some_and(|it| it.members.count() == 2)
            })
        };
        self.nodes.iter().all(serves)
    }
}

impl Process {
    fn question(&mut self, asker: Asker, message: Message) {
        if let Some(answer) = self.memory.handle(VOLUME, message)
            && !self
                .waiting
                .iter()
                .any(|it| (it.0, it.1) == (asker, answer))
        {
            self.waiting.push((asker, answer, false));
        }
    }

    /// A new connection to the partner: everything is said again.
    pub(super) fn link_lost(&mut self, now: Time) {
        self.asked[0] = None;
        self.report_due = now;
    }

    pub(super) const fn witness_lost(&mut self) {
        self.asked[1] = None;
    }

    pub(super) const fn run(&self) -> Incarnation {
        self.run
    }
}
