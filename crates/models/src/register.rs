//! The register (`lockstep_mirror::register`) under every order of its messages: the real
//! acceptors and proposals of two nodes, and of a witness if there is one.
//!
//! The network is a set that only grows: whatever was sent may arrive at any time, any number of
//! times, after anything else, or never. So loss, repetition and reordering are all of one piece.
//! Any machine may crash at any moment; a write of its file that was under way may have happened
//! or not. A file may be lost altogether.
//!
//! What drives acceptor and proposal in the daemon (`Membership::asks`, `begin_round`,
//! `recover_votes`, `BallotBox`) is restated here as [`Rules`], so that each can be left out.
//! Messages that cannot change anything any more are dropped: a late `Prepare` only makes an
//! acceptor refuse more, and answers to a round that ended reach nobody. Questions of a run that
//! ended may still arrive, until the partner meets the new run and closes the links of the old one
//! (`Node::established`); those to the witness always.

use crate::search::{Fingerprint, Model};
use lockstep_mirror::control::{Configuration, Members, NodeId, VolumeId};
use lockstep_mirror::register::{Acceptor, Ballot, Message, Proposal, Step as Phase};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;

mod acts;
#[cfg(test)]
mod tests;

const VOLUME: VolumeId = VolumeId(1);
/// As in `Membership::recover_votes`.
const FORGOTTEN_BALLOTS: u64 = 1 << 40;

/// The rules around acceptor and proposal. `true`: it holds.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// An answer leaves only once the file that backs it is durable.
    pub answers_after_file: bool,
    /// A ballot goes out only once this node's own promise of it is durable.
    pub own_first: bool,
    /// An acceptor of three that lost its file is silent until it is admitted.
    pub silent_when_lost: bool,
    /// A node that lost its file begins far above any ballot that it may have used.
    pub leap: bool,
    /// A read writes back what it found, and counts when a quorum has accepted that.
    pub read_completes: bool,
    /// A round needs two acceptors.
    pub quorum: bool,
    /// A node that meets a new run of its partner closes the links of the one before.
    pub old_links_close: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            answers_after_file: true,
            own_first: true,
            silent_when_lost: true,
            leap: true,
            read_completes: true,
            quorum: true,
            old_links_close: true,
        }
    }
}

/// The scope of a search.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// 3: two nodes and a witness; 2: the heartbeat strategy.
    pub acceptors: usize,
    /// Rounds that each node begins at most.
    pub rounds: [u8; 2],
    /// Crashes of any machine.
    pub crashes: u8,
    /// Files that are lost.
    pub losses: u8,
    /// The machines whose files take their time: the write is a step of its own. Otherwise it
    /// happens at once, which differs only if answers do not wait for it: a crash before the write
    /// is like a question that never arrived, one after it like an answer that never did.
    pub slow_files: [bool; 3],
    /// What holds.
    pub rules: Rules,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            acceptors: 3,
            rounds: [2, 1],
            crashes: 1,
            losses: 0,
            slow_files: [false; 3],
            rules: Rules::default(),
        }
    }
}

/// Who asked an acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asker {
    Own,
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Voter {
    durable: Acceptor,
    /// What the file will hold once it is written.
    memory: Acceptor,
    /// Answers that wait for the file.
    waiting: Vec<(Asker, Message)>,
    /// What was accepted since the file was last written.
    unwritten: Vec<(Ballot, Configuration)>,
    lost: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    proposal: Proposal,
    read: bool,
    without_own: bool,
    /// The newest decision when it began: its result may not be older.
    floor: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Proposer {
    round: Option<Round>,
    begun: u8,
    highest: Ballot,
    /// The partner's report was heard in this run.
    met: bool,
    /// The last result, durable in the superblock.
    known: Option<Configuration>,
}

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Letter {
    /// To this acceptor.
    Question(u8, Message),
    /// From this acceptor to whom the ballot belongs.
    Answer(u8, Message),
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    voters: [Voter; 3],
    proposers: [Proposer; 2],
    wire: Vec<Letter>,
    crashes: u8,
    losses: u8,
    /// Who has ever durably accepted what.
    accepted: BTreeMap<(Ballot, Configuration), u8>,
    /// What a quorum accepted.
    decided: BTreeMap<Ballot, Configuration>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A node begins a round, and waits no more for the end of the one before.
    Begin {
        /// Which node, 0 or 1.
        node: u8,
        /// Only to learn the value.
        read: bool,
    },
    /// A node hears the other one's report.
    Meet(u8),
    /// A node asks its own acceptor.
    AskOwn(u8),
    /// A question reaches an acceptor.
    Question(u8, Message),
    /// An acceptor's file is written.
    Write(u8),
    /// An answer reaches the node that asked.
    Answer(u8, Message),
    /// A machine stops and starts again.
    Crash {
        /// Which, 0 to 2.
        machine: u8,
        /// The write that was under way has happened.
        landed: bool,
    },
    /// A machine stops and starts again without its file.
    Lose(u8),
}

const NAMES: [&str; 3] = ["node 1", "node 2", "the witness"];

fn name(it: u8) -> &'static str {
    NAMES[usize::from(it)]
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { node, read: true } => write!(f, "{} begins a read", name(*node)),
            Self::Begin { node, read: false } => write!(f, "{} begins a swap", name(*node)),
            Self::Meet(node) => write!(f, "{} hears the other one's report", name(*node)),
            Self::AskOwn(node) => write!(f, "{} asks its own acceptor", name(*node)),
            Self::Question(to, message) => write!(f, "{} gets {}", name(*to), Text(message)),
            Self::Write(it) => write!(f, "the file of {} is durable", name(*it)),
            Self::Answer(from, message) => {
                write!(f, "{} of {} arrives", Text(message), name(*from))
            }
            Self::Crash { machine, landed } => write!(
                f,
                "{} crashes and returns, its last write {}",
                name(*machine),
                if *landed { "done" } else { "lost" }
            ),
            Self::Lose(machine) => write!(f, "{} loses its file and returns", name(*machine)),
        }
    }
}

/// A message in a few words.
struct Text<'a>(&'a Message);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |it: &Option<Configuration>| it.map_or_else(|| String::from("nothing"), short);
        let round = |it: &Ballot| round_text(*it);
        match self.0 {
            Message::Prepare { ballot } => write!(f, "Prepare {}", round(ballot)),
            Message::Promise {
                ballot,
                accepted,
                value: held,
            } => write!(
                f,
                "Promise {} (accepted {} in {})",
                round(ballot),
                value(held),
                round(accepted)
            ),
            Message::Accept { ballot, value } => {
                write!(f, "Accept {} of {}", round(ballot), short(*value))
            }
            Message::Accepted { ballot } => write!(f, "Accepted {}", round(ballot)),
            Message::Refused { ballot, promised } => {
                write!(f, "Refused {} for {}", round(ballot), round(promised))
            }
        }
    }
}

fn round_text(it: Ballot) -> String {
    format!("{}.{}", it.0 >> 8, it.0 & 0xff)
}

fn short(it: Configuration) -> String {
    format!("e{} by node {}", it.epoch, it.owner.0)
}

fn node_id(it: usize) -> NodeId {
    NodeId(u8::try_from(it + 1).expect("three machines"))
}

/// Which node's ballot this is: 0 or 1.
fn whose(ballot: Ballot) -> usize {
    usize::try_from((ballot.0 & 0xff) - 1).expect("two nodes propose")
}

const fn ballot_of(message: &Message) -> Ballot {
    match *message {
        Message::Prepare { ballot }
        | Message::Promise { ballot, .. }
        | Message::Accept { ballot, .. }
        | Message::Accepted { ballot }
        | Message::Refused { ballot, .. } => ballot,
    }
}

/// A name that no other swap has, in the low bits; the name of what it replaces above them.
fn successor(of: Option<Configuration>, node: usize, begun: u8) -> Configuration {
    let mine = u128::from(begun) << 8 | u128::from(node_id(node).0);
    let before = of.map_or(0, |it| it.generation & 0xffff);
    Configuration {
        epoch: of.map_or(0, |it| it.epoch) + 1,
        generation: before << 16 | mine,
        members: Members::only(node_id(node)),
        owner: node_id(node),
        unilateral: false,
        witness: None,
    }
}

/// What a value replaces.
const fn predecessor(of: &Configuration) -> u128 {
    of.generation >> 16
}

impl Model for Register {
    type State = State;
    type Step = Step;

    fn starts(&self) -> Vec<State> {
        vec![State {
            voters: Default::default(),
            proposers: Default::default(),
            wire: Vec::new(),
            crashes: 0,
            losses: 0,
            accepted: BTreeMap::new(),
            decided: BTreeMap::new(),
        }]
    }

    fn steps(&self, state: &State, into: &mut Vec<Step>) {
        self.steps_of_nodes(state, into);
        self.steps_of_letters(state, into);
        self.faults(state, into);
    }

    fn take(&self, state: &mut State, step: &Step) -> Result<(), String> {
        self.act(state, step)?;
        self.drop_what_is_over(state);
        Ok(())
    }

    fn key(&self, state: &State, into: &mut Fingerprint) {
        state.hash(into);
    }

    fn describe(&self, state: &State) -> String {
        let text = |(ballot, value): (&Ballot, &Configuration)| {
            format!("{} in {}", short(*value), round_text(*ballot))
        };
        let decided: Vec<_> = state.decided.iter().map(text).collect();
        format!("decided: {}", decided.join(", "))
    }
}
