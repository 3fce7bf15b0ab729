//! What happens next in order, and how the adversary interferes.

use super::machine::Machine;
use super::*;
use lockstep_mirror::control::FromVolume;

const WORDS: [&str; 2] = ["node 1 hears its data path", "node 2 hears its data path"];
const BLOCKS: [&str; 2] = [
    "node 1's superblock is written",
    "node 2's superblock is written",
];
const FILES: [&str; 2] = [
    "node 1's register file is written",
    "node 2's register file is written",
];
const ASKED: [&str; 2] = [
    "the witness is asked by node 1",
    "the witness is asked by node 2",
];
const TOLD: [&str; 2] = ["node 1 hears the witness", "node 2 hears the witness"];

impl Machine {
    fn runs(&self) -> bool {
        self.process.is_some() && !self.paused
    }
}

impl World {
    /// What happens next if nobody interferes; nothing: the clocks go on.
    pub(super) fn next(&self) -> Option<&'static str> {
        for (who, node) in self.nodes.iter().enumerate() {
            let Some(process) = node.process.as_deref().filter(|_| !node.paused) else {
                continue;
            };
            if !process.path.words.is_empty() {
                return Some(WORDS[who]);
            }
            if process.writing.is_some() && !node.slow {
                return Some(BLOCKS[who]);
            }
            if process.file.is_some() && !node.slow {
                return Some(FILES[who]);
            }
        }
        for who in 0..2 {
            let open = self.stalled[who].is_none() && !self.nodes[who].paused;
            if let Some(frame) = self.wires[who].front().filter(|_| open) {
                return Some(said(who, frame));
            }
        }
        for who in 0..2 {
            if self.witness_stalled[who] {
                continue;
            }
            if !self.questions[who].is_empty() {
                return Some(ASKED[who]);
            }
            if !self.answers[who].is_empty() && !self.nodes[who].paused {
                return Some(TOLD[who]);
            }
        }
        (0..2).find_map(|who| self.resync_due(who))
    }

    /// Does that.
    pub(super) fn go(&mut self, model: &Pair) {
        for who in 0..2 {
            let node = &mut self.nodes[who];
            if !node.runs() {
                continue;
            }
            let (slow, now) = (node.slow, node.now);
            let Some(process) = &mut node.process else {
                continue;
            };
            if let Some(word) = process.path.words.pop_front() {
                process.membership.volume_said(now, &word);
            } else if process.writing.is_some() && !slow {
                self.superblock_written(who);
            } else if process.file.is_some() && !slow {
                self.file_written(who);
            } else {
                continue;
            }
            return self.look(model, who);
        }
        for who in 0..2 {
            if self.stalled[who].is_some() || self.nodes[who].paused {
                continue;
            }
            if let Some(frame) = self.wires[who].pop_front() {
                self.frame(model, who, frame);
                return self.look(model, who);
            }
        }
        for who in 0..2 {
            if self.witness_stalled[who] {
                continue;
            }
            if let Some(question) = self.questions[who].pop_front() {
                return self.ask_referee(who, question);
            }
            if self.nodes[who].paused {
                continue;
            }
            if let Some(answer) = self.answers[who].pop_front() {
                self.witness_answered(who, answer);
                return self.look(model, who);
            }
        }
        for who in 0..2 {
            if self.resync_due(who).is_some() {
                self.resync(who);
                return self.look(model, who);
            }
        }
        self.tick(model);
    }

    fn frame(&mut self, model: &Pair, who: usize, frame: Frame) {
        match frame {
            Frame::Beat { run, sent } => {
                let promise = self.beat_came(who, run);
                if self.nodes[who].process.is_some() {
                    self.wires[1 - who].push_back(Frame::Ack { sent, promise });
                }
            }
            Frame::Ack { sent, promise } => self.ack_came(model, who, sent, promise),
            Frame::Report(report) => {
                if let Some(process) = &mut self.nodes[who].process {
                    process.membership.report_in(*report);
                }
            }
            Frame::Register(message) => self.register_came(who, message),
            data => self.data_frame(model, who, &data),
        }
    }

    /// Half a second passes; heartbeats go out.
    fn tick(&mut self, model: &Pair) {
        self.ticks += 1;
        for who in 0..2 {
            let percent = u32::try_from(100 + i32::from(model.drift[who])).expect("small");
            self.nodes[who].now += TICK * percent / 100;
        }
        for who in 0..2 {
            if let Some(ticks) = &mut self.stalled[who] {
                *ticks = (*ticks + 1).min(QUIET_TICKS + 1);
            }
        }
        for who in 0..2 {
            let (up, other) = (
                self.nodes[who].runs(),
                self.nodes[1 - who].process.is_some(),
            );
            if !up {
                continue;
            }
            self.channel(who);
            if other {
                self.beat(model, who);
            }
        }
        for who in 0..2 {
            if self.nodes[who].runs() {
                self.look(model, who);
            }
        }
    }

    /// A heartbeat and its answer, at once if nothing is in their way.
    fn beat(&mut self, model: &Pair, who: usize) {
        let sent = self.nodes[who].now;
        let Some(process) = &self.nodes[who].process else {
            return;
        };
        let run = process.run();
        let other = 1 - who;
        if self.stalled[other].is_some() || !self.nodes[other].runs() {
            let wire = &mut self.wires[other];
            wire.retain(|it| !matches!(it, Frame::Beat { .. }));
            return wire.push_back(Frame::Beat { run, sent });
        }
        let promise = self.beat_came(other, run);
        self.look(model, other);
        if self.stalled[who].is_some() {
            let wire = &mut self.wires[who];
            wire.retain(|it| !matches!(it, Frame::Ack { .. }));
            return wire.push_back(Frame::Ack { sent, promise });
        }
        self.ack_came(model, who, sent, promise);
    }

    /// Whether the data channel works.
    fn channel(&mut self, who: usize) {
        let works = self.stalled == [None; 2] && self.nodes[1 - who].process.is_some();
        let Some(process) = &mut self.nodes[who].process else {
            return;
        };
        if process.path.channel != Some(works) {
            process.path.channel = Some(works);
            let word = FromVolume::Channel { up: works };
            process.path.words.push_back(word);
            if works {
                self.replay(who);
            }
        }
    }

    fn drop_links(&mut self) {
        for wire in &mut self.wires {
            wire.clear();
        }
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.link_lost(node.now);
            }
        }
    }

    fn drop_witness_links(&mut self) {
        for who in 0..2 {
            if self.witness_stalled[who] {
                self.questions[who].clear();
                self.answers[who].clear();
                if let Some(process) = &mut self.nodes[who].process {
                    process.witness_lost();
                }
            }
        }
    }

    fn crash(&mut self, who: usize, landed: bool) {
        if landed {
            self.superblock_written(who);
            self.file_written(who);
        }
        let node = &mut self.nodes[who];
        // Whoever certifies it has locked what the run used, and reads what it left.
        if let (Some(process), Some(left)) = (&node.process, &node.superblock) {
            self.certificates[who] = Some((process.run(), Left::of(left)));
        }
        node.process = None;
        node.slow = false;
        self.questions[who].clear();
        self.answers[who].clear();
        self.drop_links();
    }

    fn certify(&mut self, model: &Pair, who: usize) {
        let Some((run, left)) = self.certificates[who].take() else {
            return;
        };
        let node = &mut self.nodes[1 - who];
        let now = node.now;
        if let Some(process) = &mut node.process {
            process.membership.partner_ended(now, run, Some(left));
        }
        self.look(model, 1 - who);
    }

    /// All that the adversary may do in this state.
    pub(super) fn adversary(&self, model: &Pair, into: &mut Vec<Step>) {
        let quiet = self.next().is_none();
        let parted = self.stalled != [None; 2] || self.witness_stalled != [false; 2];
        let ids = [(0_usize, 0_u8), (1, 1)];
        if quiet {
            for (who, id) in ids {
                let node = &self.nodes[who];
                if node.process.is_none() {
                    into.push(Step::Boot(id));
                }
                if self.certificates[who].is_some() && self.nodes[1 - who].runs() {
                    into.push(Step::Certify(id));
                }
                if node.paused {
                    into.push(Step::Resume(id));
                }
                if node.slow {
                    into.push(Step::Quick(id));
                }
                let path = node.process.as_ref().map(|it| &it.path);
                let admits =
                    path.is_some_and(|it| !it.held && it.answers(node.now, &model.rules).is_some());
                if node.runs() && admits && self.written < model.writes {
                    into.push(Step::Write(id));
                }
            }
            if parted && !self.is_closed() {
                into.push(Step::Heal { kept: true });
            }
            if parted {
                into.push(Step::Heal { kept: false });
            }
        }
        if self.faults < model.faults {
            self.faults(model, into, parted);
        }
    }

    fn faults(&self, model: &Pair, into: &mut Vec<Step>, parted: bool) {
        let kinds = model.kinds;
        for (who, id) in [(0_usize, 0_u8), (1, 1)] {
            let node = &self.nodes[who];
            let Some(process) = &node.process else {
                continue;
            };
            if kinds.crashes {
                into.push(Step::Crash {
                    node: id,
                    landed: false,
                });
                if process.writing.is_some() || process.file.is_some() {
                    into.push(Step::Crash {
                        node: id,
                        landed: true,
                    });
                }
            }
            if kinds.pauses && !node.paused {
                into.push(Step::Pause(id));
            }
            let writes = process.writing.is_some() || process.file.is_some();
            if kinds.slow_disks && !node.slow && writes {
                into.push(Step::Slow(id));
            }
            if kinds.late && process.path.own != 0 && !node.paused {
                into.push(Step::Late(id));
            }
            if kinds.parting && self.stalled[who].is_none() {
                into.push(Step::Mute(id));
            }
            if kinds.witness && model.witness && !self.witness_stalled[who] {
                into.push(Step::PartWitness(id));
            }
            if kinds.isolation && !parted {
                into.push(Step::Isolate(id));
            }
        }
        if kinds.parting && self.stalled == [None; 2] {
            into.push(Step::Part);
        }
    }

    /// A link on which nothing came for long was closed, and there is none until the network is
    /// back: what is said meanwhile goes nowhere.
    fn is_closed(&self) -> bool {
        self.stalled
            .iter()
            .flatten()
            .any(|ticks| *ticks > QUIET_TICKS)
    }

    pub(super) fn take(&mut self, model: &Pair, step: &Step) {
        self.happens(model, step);
        if self.is_closed() {
            self.drop_links();
        }
    }

    fn happens(&mut self, model: &Pair, step: &Step) {
        match *step {
            Step::Go(_) => self.go(model),
            Step::Boot(who) => self.boot(model, usize::from(who)),
            Step::Write(who) => self.write(model, usize::from(who)),
            Step::Certify(who) => self.certify(model, usize::from(who)),
            Step::Resume(who) => {
                self.nodes[usize::from(who)].paused = false;
            }
            Step::Quick(who) => self.nodes[usize::from(who)].slow = false,
            Step::Heal { kept } => {
                if !kept {
                    self.drop_links();
                    self.drop_witness_links();
                }
                self.stalled = [None; 2];
                self.witness_stalled = [false; 2];
                self.cut_off = None;
            }
            _ => self.fault(model, step),
        }
    }

    fn fault(&mut self, model: &Pair, step: &Step) {
        self.faults += 1;
        match *step {
            Step::Crash { node, landed } => {
                self.nodes[usize::from(node)].paused = false;
                self.crash(usize::from(node), landed);
            }
            Step::Mute(who) => self.stalled[usize::from(who)] = Some(0),
            Step::Part => self.stalled = [Some(0); 2],
            Step::PartWitness(who) => self.witness_stalled[usize::from(who)] = true,
            Step::Isolate(who) => {
                self.stalled = [Some(0); 2];
                self.witness_stalled[usize::from(who)] = model.witness;
                self.cut_off = Some(who);
            }
            Step::Pause(who) => self.nodes[usize::from(who)].paused = true,
            Step::Slow(who) => self.nodes[usize::from(who)].slow = true,
            Step::Late(who) => {
                let node = &mut self.nodes[usize::from(who)];
                let now = node.now;
                if let Some(process) = &mut node.process {
                    process.membership.volume_said(now, &FromVolume::Late);
                }
                self.look(model, usize::from(who));
            }
            _ => {}
        }
    }

    /// From here on nothing happens any more: both nodes must serve together again.
    pub(super) fn calms_down(mut self, model: &Pair) -> Result<(), String> {
        for who in 0..2 {
            self.nodes[who].paused = false;
            self.nodes[who].slow = false;
            if self.nodes[who].process.is_none() {
                self.boot(model, who);
            }
        }
        self.take(model, &Step::Heal { kept: false });
        let end = self.ticks + CALM_TICKS;
        while self.ticks < end {
            self.take(model, &Step::Go(""));
            self.check(model);
            if let Some(harm) = self.harm {
                return Err(format!("{harm}, after the last fault"));
            }
            if self.is_mirrored() && self.next().is_none() {
                return Ok(());
            }
        }
        Err(format!(
            "a minute after the last fault the nodes do not serve together: {}",
            self.describe()
        ))
    }
}

/// What a frame is, to whom.
const fn said(who: usize, frame: &Frame) -> &'static str {
    match (who, frame) {
        (0, Frame::Beat { .. }) => "node 1 hears a heartbeat",
        (0, Frame::Ack { .. }) => "node 1 hears a promise",
        (0, Frame::Report(_)) => "node 1 gets a report",
        (0, Frame::Register(Message::Prepare { .. })) => "node 1 gets Prepare",
        (0, Frame::Register(Message::Promise { .. })) => "node 1 gets Promise",
        (0, Frame::Register(Message::Accept { .. })) => "node 1 gets Accept",
        (0, Frame::Register(Message::Accepted { .. })) => "node 1 gets Accepted",
        (0, Frame::Register(Message::Refused { .. })) => "node 1 gets Refused",
        (0, Frame::Apply(..)) => "node 1 gets a write",
        (0, Frame::Stored(..)) => "node 1 hears that node 2 has stored a write",
        (0, Frame::Committed(..)) => "node 1 hears that a write is committed",
        (_, Frame::Beat { .. }) => "node 2 hears a heartbeat",
        (_, Frame::Ack { .. }) => "node 2 hears a promise",
        (_, Frame::Report(_)) => "node 2 gets a report",
        (_, Frame::Register(Message::Prepare { .. })) => "node 2 gets Prepare",
        (_, Frame::Register(Message::Promise { .. })) => "node 2 gets Promise",
        (_, Frame::Register(Message::Accept { .. })) => "node 2 gets Accept",
        (_, Frame::Register(Message::Accepted { .. })) => "node 2 gets Accepted",
        (_, Frame::Register(Message::Refused { .. })) => "node 2 gets Refused",
        (_, Frame::Apply(..)) => "node 2 gets a write",
        (_, Frame::Stored(..)) => "node 2 hears that node 1 has stored a write",
        (_, Frame::Committed(..)) => "node 2 hears that a write is committed",
    }
}
