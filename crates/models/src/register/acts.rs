//! What may happen to the register, and what is promised of it.

use super::*;

impl Register {
    const fn quorum(&self) -> u32 {
        if self.rules.quorum { 2 } else { 1 }
    }

    /// Whether that acceptor answers nothing.
    fn is_silent(&self, voter: &Voter) -> bool {
        voter.lost && self.acceptors == 3 && self.rules.silent_when_lost
    }

    pub(super) fn steps_of_nodes(&self, state: &State, into: &mut Vec<Step>) {
        for (node, (proposer, index)) in state.proposers.iter().zip(0..).enumerate() {
            let voter = &state.voters[node];
            // Without a witness a round begins only on the partner's report.
            let paired = self.acceptors == 2 || voter.lost;
            let more = proposer.begun < self.rounds[node];
            if more && paired && !proposer.met {
                into.push(Step::Meet(index));
            }
            let may = more && (!paired || proposer.met);
            // A node that lost its votes reads first.
            if may && !(voter.lost && self.acceptors == 3) {
                into.push(Step::Begin {
                    node: index,
                    read: false,
                });
            }
            if may && proposer.known.is_some() {
                into.push(Step::Begin {
                    node: index,
                    read: true,
                });
            }
            let Some(round) = &proposer.round else {
                continue;
            };
            let asked = voter.waiting.iter().any(|it| it.0 == Asker::Own);
            let lacks = !round.proposal.has(node_id(node)) && round.proposal.ask().is_some();
            if !round.without_own && lacks && !asked {
                into.push(Step::AskOwn(index));
            }
        }
    }

    pub(super) fn steps_of_letters(&self, state: &State, into: &mut Vec<Step>) {
        for letter in &state.wire {
            match letter {
                Letter::Question(to, message) => {
                    if !self.is_silent(&state.voters[usize::from(*to)]) {
                        into.push(Step::Question(*to, *message));
                    }
                }
                Letter::Answer(from, message) => into.push(Step::Answer(*from, *message)),
            }
        }
        for (voter, index) in state.voters[..self.acceptors].iter().zip(0..) {
            if voter.memory != voter.durable || !voter.waiting.is_empty() {
                into.push(Step::Write(index));
            }
        }
    }

    pub(super) fn faults(&self, state: &State, into: &mut Vec<Step>) {
        for (voter, machine) in state.voters[..self.acceptors].iter().zip(0..) {
            if state.crashes < self.crashes {
                into.push(Step::Crash {
                    machine,
                    landed: false,
                });
                if voter.memory != voter.durable {
                    into.push(Step::Crash {
                        machine,
                        landed: true,
                    });
                }
            }
            if state.losses < self.losses {
                into.push(Step::Lose(machine));
            }
        }
    }

    pub(super) fn act(&self, state: &mut State, step: &Step) -> Result<(), String> {
        match *step {
            Step::Begin { node, read } => {
                self.begin(state, usize::from(node), read);
                // Nothing happens between the two, unless the file is slow.
                if !self.slow_files[usize::from(node)] && self.rules.own_first {
                    self.ask_own(state, usize::from(node))?;
                }
            }
            Step::Meet(node) => {
                let node = usize::from(node);
                let reported = state.voters[1 - node].durable.vote(VOLUME).ballot;
                let proposer = &mut state.proposers[node];
                proposer.met = true;
                proposer.highest = proposer.highest.max(reported);
                // The links of its earlier runs are closed.
                state.wire.retain(|letter| match letter {
                    Letter::Question(to, message) => {
                        *to == 2 || !self.rules.old_links_close || whose(ballot_of(message)) != node
                    }
                    Letter::Answer(..) => true,
                });
            }
            Step::AskOwn(node) => self.ask_own(state, usize::from(node))?,
            Step::Question(to, message) => {
                self.question(state, usize::from(to), Asker::Other, message)?;
            }
            Step::Write(it) => self.written(state, usize::from(it))?,
            Step::Answer(from, message) => {
                let node = whose(ballot_of(&message));
                self.answered(state, node, usize::from(from), message)?;
            }
            Step::Crash { machine, landed } => {
                state.crashes += 1;
                let machine = usize::from(machine);
                if landed {
                    let voter = &mut state.voters[machine];
                    voter.durable = voter.memory.clone();
                    note_accepted(state, machine)?;
                }
                restart(state, machine);
            }
            Step::Lose(machine) => {
                state.losses += 1;
                let machine = usize::from(machine);
                // Nobody will be told of what it accepted of itself.
                for ((ballot, _), who) in &mut state.accepted {
                    if whose(*ballot) == machine && !state.decided.contains_key(ballot) {
                        *who &= !(1 << machine);
                    }
                }
                state.voters[machine] = Voter {
                    lost: true,
                    ..Voter::default()
                };
                restart(state, machine);
            }
        }
        Ok(())
    }

    /// Puts a question to the other acceptors.
    fn ask(&self, state: &mut State, node: usize, question: Message) {
        for to in (0..self.acceptors).filter(|it| *it != node) {
            let to = u8::try_from(to).expect("three machines");
            state.send(Letter::Question(to, question));
        }
    }

    fn ask_own(&self, state: &mut State, node: usize) -> Result<(), String> {
        let round = state.proposers[node].round.as_ref();
        let Some(round) = round.filter(|it| !it.without_own) else {
            return Ok(());
        };
        let ask = round.proposal.ask().expect("a round that is open asks");
        self.question(state, node, Asker::Own, ask)
    }

    /// `Membership::begin_round` and, for a node without its file, `recover_votes`.
    fn begin(&self, state: &mut State, node: usize, read: bool) {
        let floor = state.decided.values().map(|it| it.epoch).max().unwrap_or(0);
        let voter = &state.voters[node];
        let vote = voter.durable.vote(VOLUME);
        let lost = voter.lost;
        let proposer = &mut state.proposers[node];
        proposer.begun += 1;
        if lost && self.acceptors == 3 && self.rules.leap {
            let far = proposer.highest.0.saturating_add(FORGOTTEN_BALLOTS);
            proposer.highest = Ballot(far);
        }
        let ballot = vote.promised.max(vote.ballot).max(proposer.highest);
        let ballot = ballot.after(node_id(node));
        proposer.highest = ballot;
        let known = proposer.known;
        let (expect, new) = if read {
            (None, known.expect("a node reads only what it knows of"))
        } else {
            let new = successor(known, node, proposer.begun);
            (known.map(|it| it.lineage()), new)
        };
        let without_own = lost && self.acceptors == 3;
        proposer.round = Some(Round {
            proposal: Proposal::new(ballot, self.quorum(), expect, new),
            read,
            without_own,
            floor,
        });
        if without_own || !self.rules.own_first {
            self.ask(state, node, Message::Prepare { ballot });
        }
    }

    /// An acceptor is asked; its answer waits for the file.
    fn question(
        &self,
        state: &mut State,
        at: usize,
        asker: Asker,
        message: Message,
    ) -> Result<(), String> {
        let voter = &mut state.voters[at];
        let Some(answer) = voter.memory.handle(VOLUME, message) else {
            return Ok(());
        };
        if let (Message::Accept { ballot, value }, Message::Accepted { .. }) = (message, answer) {
            voter.unwritten.push((ballot, value));
        }
        if asker == Asker::Other && !self.rules.answers_after_file {
            let from = u8::try_from(at).expect("three machines");
            state.send(Letter::Answer(from, answer));
        } else if !voter.waiting.contains(&(asker, answer)) {
            voter.waiting.push((asker, answer));
        }
        if self.slow_files[at] {
            return Ok(());
        }
        self.written(state, at)
    }

    /// The file holds what memory holds; what waited for it leaves.
    fn written(&self, state: &mut State, at: usize) -> Result<(), String> {
        let voter = &mut state.voters[at];
        voter.durable = voter.memory.clone();
        let waiting = std::mem::take(&mut voter.waiting);
        note_accepted(state, at)?;
        for (asker, answer) in waiting {
            match asker {
                Asker::Own => self.answered(state, at, at, answer)?,
                Asker::Other => {
                    let from = u8::try_from(at).expect("three machines");
                    state.send(Letter::Answer(from, answer));
                }
            }
        }
        Ok(())
    }

    /// An answer reaches a node; what its round asks next goes out.
    fn answered(
        &self,
        state: &mut State,
        node: usize,
        from: usize,
        message: Message,
    ) -> Result<(), String> {
        let proposer = &mut state.proposers[node];
        if let Message::Refused { promised, .. } = message {
            proposer.highest = proposer.highest.max(promised);
        }
        let Some(round) = &mut proposer.round else {
            return Ok(());
        };
        round.proposal.answered(node_id(from), message);
        let ballot = round.proposal.ballot;
        let own = round.without_own || round.proposal.has(node_id(node));
        match round.proposal.step() {
            Phase::Preparing if own || !self.rules.own_first => {
                self.ask(state, node, Message::Prepare { ballot });
            }
            Phase::Accepting(value) if round.read && !self.rules.read_completes => {
                return finish(state, node, value);
            }
            Phase::Accepting(value) => {
                self.ask(state, node, Message::Accept { ballot, value });
            }
            Phase::Decided(value) => {
                state.voters[node].lost = false;
                return finish(state, node, value);
            }
            Phase::Outbid(_) => proposer.round = None,
            Phase::Preparing => {}
        }
        Ok(())
    }

    /// Takes messages off the wire that can do nothing any more.
    pub(super) fn drop_what_is_over(&self, state: &mut State) {
        let State {
            voters,
            proposers,
            wire,
            ..
        } = state;
        let live = |message: &Message| {
            let ballot = ballot_of(message);
            let round = proposers[whose(ballot)].round.as_ref();
            let round = round.filter(|it| it.proposal.ballot == ballot)?;
            Some((round.proposal.step(), &round.proposal))
        };
        let begun = [0, 1].map(|node| proposers[node].begun);
        let more = |node: usize| begun[node] < self.rounds[node];
        let more_losses = state.losses < self.losses;
        wire.retain(|letter| match letter {
            Letter::Question(to, message @ Message::Prepare { .. }) => {
                let asked = node_id(usize::from(*to));
                let round = live(message).filter(|it| it.0 == Phase::Preparing);
                round.is_some_and(|it| !it.1.has(asked))
            }
            Letter::Question(to, Message::Accept { ballot, value }) => {
                let vote = voters[usize::from(*to)].durable.vote(VOLUME);
                let same = (vote.ballot, vote.value) == (*ballot, Some(*value));
                more_losses || vote.promised <= *ballot && !same
            }
            Letter::Question(..) => false,
            Letter::Answer(from, message) => match (message, live(message)) {
                (Message::Promise { .. }, Some((Phase::Preparing, proposal)))
                | (Message::Accepted { .. }, Some((Phase::Accepting(_), proposal))) => {
                    !proposal.has(node_id(usize::from(*from)))
                }
                (Message::Refused { ballot, .. }, Some(_)) => more(whose(*ballot)),
                _ => false,
            },
        });
        // What only another round would use.
        for (node, proposer) in proposers.iter_mut().enumerate() {
            if proposer.begun == self.rounds[node] {
                proposer.highest = Ballot::default();
                proposer.known = None;
                proposer.met = false;
            }
        }
    }
}

impl State {
    /// Whether `value` replaced `earlier`, directly or by way of others, or is the same.
    fn descends(&self, value: Configuration, earlier: Configuration) -> bool {
        let mut at = value;
        while at != earlier {
            let before = predecessor(&at);
            let known = self.accepted.keys().map(|it| it.1);
            let mut known = known.filter(|it| it.generation & 0xffff == before);
            match known.next() {
                Some(it) if it.epoch < at.epoch => at = it,
                _ => return false,
            }
        }
        true
    }

    fn send(&mut self, letter: Letter) {
        if let Err(place) = self.wire.binary_search(&letter) {
            self.wire.insert(place, letter);
        }
    }
}

/// A machine's memory is gone.
fn restart(state: &mut State, machine: usize) {
    let voter = &mut state.voters[machine];
    voter.memory = voter.durable.clone();
    voter.waiting.clear();
    voter.unwritten.clear();
    if let Some(proposer) = state.proposers.get_mut(machine) {
        *proposer = Proposer {
            begun: proposer.begun,
            known: proposer.known,
            ..Proposer::default()
        };
    }
}

/// What an acceptor has durably accepted counts; a quorum of it is a decision. Decisions lie on
/// one line, in the order of their ballots: of any two values one came of the other.
fn note_accepted(state: &mut State, at: usize) -> Result<(), String> {
    for (ballot, value) in std::mem::take(&mut state.voters[at].unwritten) {
        let who = state.accepted.entry((ballot, value)).or_default();
        *who |= 1 << at;
        if who.count_ones() < 2 || state.decided.insert(ballot, value).is_some() {
            continue;
        }
        let before = state.decided.range(..ballot).next_back();
        let after = state.decided.range(ballot..).nth(1);
        let wrong = before
            .filter(|it| !state.descends(value, *it.1))
            .or_else(|| after.filter(|it| !state.descends(*it.1, value)));
        if let Some((_, other)) = wrong {
            return Err(format!(
                "{} and {} were both decided, and neither replaced the other",
                short(value),
                short(*other)
            ));
        }
    }
    Ok(())
}

/// A round ended with this value: it must have been the register's at some moment of the round.
fn finish(state: &mut State, node: usize, value: Configuration) -> Result<(), String> {
    let Some(round) = state.proposers[node].round.take() else {
        return Ok(());
    };
    state.proposers[node].known = Some(value);
    let who = state.accepted.get(&(round.proposal.ballot, value));
    if who.is_none_or(|it| it.count_ones() < 2) {
        return Err(format!(
            "node {} was told that {} is decided, and no quorum accepted it",
            node + 1,
            short(value)
        ));
    }
    if value.epoch < round.floor {
        return Err(format!(
            "node {} was told of {}, which was replaced before its round began",
            node + 1,
            short(value)
        ));
    }
    if !round.read && round.proposal.expect == Some(value.lineage()) {
        return Err(format!(
            "node {}'s swap failed although the register held what it expected",
            node + 1
        ));
    }
    Ok(())
}
