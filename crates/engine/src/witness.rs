//! The witness: an acceptor of the register for any number of pairs, on a third machine. It holds
//! no data and decides nothing by itself; it remembers what it promised and accepted. Pure, as
//! `Node` is: `handle` takes an event and appends actions.

use crate::ballot_box::BallotBox;
use crate::channel::{Channel, Heard};
use crate::node_interface::{LinkId, Severity};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::time::Duration;
use lockstep_mirror::control::{Incarnation, NodeId, Time, VolumeId, WITNESS, WitnessId};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::hello::{HELLO_LEN, Hello, Purpose, Random, Side, introduces};
use lockstep_mirror::register::Message;

pub mod file;
#[cfg(test)]
mod tests;

use file::{File, FileError};

/// A peer that has not proved itself by then is cut off.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// Connections that have yet to prove themselves; one more puts out the oldest.
const MAX_HALF_OPEN: usize = 64;
/// Connections of one node of one pair: the present one and one that is dying.
const MAX_PER_NODE: usize = 2;
/// A proven node is silent no longer than this (it sends a heartbeat every fifth of a second).
const SILENCE: Duration = Duration::from_secs(30);
/// One line about a refused peer is written this often at most.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A pair that this witness votes for.
#[derive(Clone)]
pub struct Pair {
    /// The cluster's id.
    pub cluster: u128,
    /// The secret that the pair shares with this witness.
    pub secret: Box<[u8]>,
    /// Its votes as found; `None`: there are none yet.
    pub file: Option<Vec<u8>>,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A node has connected.
    LinkUp {
        /// The connection's name, never reused in a run.
        link: LinkId,
    },
    /// The connection is gone.
    LinkDown {
        /// Its name.
        link: LinkId,
    },
    /// Bytes came on it, in pieces of any size.
    LinkBytes {
        /// Its name.
        link: LinkId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A `Store` has ended.
    Stored {
        /// Of this pair.
        cluster: u128,
        /// Whether it is durable.
        ok: bool,
    },
    /// Nothing in particular; wanted twice a second.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Send these bytes, in order.
    LinkSend {
        /// The connection.
        link: LinkId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Close it; `LinkDown` follows.
    LinkClose {
        /// The connection.
        link: LinkId,
    },
    /// Replace a pair's file, durably and atomically.
    Store {
        /// The pair.
        cluster: u128,
        /// The contents.
        bytes: Vec<u8>,
    },
    /// For the log.
    Event {
        /// What happened.
        text: String,
        /// How much it matters.
        severity: Severity,
    },
}

struct Votes {
    secret: Box<[u8]>,
    life: WitnessId,
    /// The file that names this life is durable: before that nobody is answered.
    begun: bool,
    ballots: BallotBox<LinkId>,
}

enum State {
    /// Who it is must be known before it can be greeted.
    Unknown(Vec<u8>),
    Greeted(Channel),
}

struct Link {
    state: State,
    /// Whose it says it is; proved once `proven`.
    from: Option<(u128, NodeId)>,
    proven: bool,
    heard: Time,
}

/// A witness.
pub struct Witness {
    pairs: BTreeMap<u128, Votes>,
    links: BTreeMap<LinkId, Link>,
    random: Random,
    reported: Option<Time>,
}

impl core::fmt::Debug for Witness {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Witness")
            .field("pairs", &self.pairs.len())
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}

struct Turn<'a> {
    now: Time,
    out: &'a mut Vec<Action>,
}

impl Witness {
    /// A witness of these pairs. `seed`: unpredictable bytes.
    ///
    /// # Errors
    /// When a pair's file is not what was written; the pair's cluster comes with it.
    pub fn new(pairs: Vec<Pair>, seed: [u8; 32]) -> Result<Self, (u128, FileError)> {
        let mut random = Random::new(seed);
        let mut all = BTreeMap::new();
        for pair in pairs {
            let found = pair.file.as_deref().map(File::decode).transpose();
            let found = found.map_err(|it| (pair.cluster, it))?;
            let begun = found.is_some();
            let file = found.unwrap_or_else(|| File::new(draw(&mut random)));
            let votes = Votes {
                secret: pair.secret,
                life: file.life,
                begun,
                ballots: BallotBox::new(file.acceptor),
            };
            all.insert(pair.cluster, votes);
        }
        Ok(Self {
            pairs: all,
            links: BTreeMap::new(),
            random,
            reported: None,
        })
    }

    /// Something happened; what is to be done about it is appended to `actions`.
    pub fn handle(&mut self, now: Time, event: Event<'_>, actions: &mut Vec<Action>) {
        let turn = &mut Turn { now, out: actions };
        match event {
            Event::LinkUp { link } => self.link_up(turn, link),
            Event::LinkDown { link } => self.link_down(link),
            Event::LinkBytes { link, bytes } => self.link_bytes(turn, link, bytes),
            Event::Stored { cluster, ok } => self.stored(turn, cluster, ok),
            Event::Tick => self.expire(turn),
        }
        self.settle(turn);
    }

    /// Pairs, each with the life of its votes and the nodes that are connected.
    pub fn pairs(&self) -> impl Iterator<Item = (u128, WitnessId, Vec<NodeId>)> {
        self.pairs.iter().map(|(cluster, votes)| {
            let proven = self.links.values().filter(|it| it.proven);
            let mut nodes: Vec<_> = proven
                .filter_map(|it| it.from.filter(|from| from.0 == *cluster))
                .map(|(_, node)| node)
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            (*cluster, votes.life, nodes)
        })
    }

    fn link_up(&mut self, turn: &mut Turn<'_>, id: LinkId) {
        let open = self.links.iter().filter(|(_, it)| !it.proven);
        if open.clone().count() >= MAX_HALF_OPEN
            && let Some(oldest) = open.min_by_key(|(id, it)| (it.heard, **id)).map(|it| *it.0)
        {
            self.close(turn, oldest);
        }
        let link = Link {
            state: State::Unknown(Vec::new()),
            from: None,
            proven: false,
            heard: turn.now,
        };
        self.links.insert(id, link);
    }

    fn link_down(&mut self, id: LinkId) {
        self.links.remove(&id);
        for votes in self.pairs.values_mut() {
            votes.ballots.drop_asker(id);
        }
    }

    fn close(&mut self, turn: &mut Turn<'_>, id: LinkId) {
        self.link_down(id);
        turn.out.push(Action::LinkClose { link: id });
    }

    fn refuse(&mut self, turn: &mut Turn<'_>, id: LinkId, why: &str) {
        self.close(turn, id);
        if self.reported.is_none_or(|at| turn.now >= at + REPORT_EVERY) {
            self.reported = Some(turn.now);
            turn.out.push(Action::Event {
                text: format!("a connection was refused: {why}"),
                severity: Severity::Warning,
            });
        }
    }

    fn link_bytes(&mut self, turn: &mut Turn<'_>, id: LinkId, mut bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let mut hello = Vec::new();
        if let State::Unknown(buffer) = &mut link.state {
            let (now, later) = bytes.split_at((HELLO_LEN - buffer.len()).min(bytes.len()));
            buffer.extend_from_slice(now);
            bytes = later;
            if buffer.len() < HELLO_LEN {
                return;
            }
            hello = core::mem::take(buffer);
            if let Err(why) = self.greet(turn, id, &hello) {
                return self.refuse(turn, id, &why);
            }
        }
        for bytes in [&hello[..], bytes] {
            let Some(link) = self.links.get_mut(&id) else {
                return;
            };
            let State::Greeted(channel) = &mut link.state else {
                return;
            };
            let mut heard = Vec::new();
            let taken = channel.take(bytes, &mut heard);
            for it in heard {
                match it {
                    Heard::Reply(bytes) => turn.out.push(Action::LinkSend { link: id, bytes }),
                    Heard::Proven(_) => self.proven(turn, id),
                    Heard::Frame(frame) => self.frame(turn, id, frame),
                    // Refused by its handshake: only nodes take certificates.
                    Heard::Certifier => {}
                }
            }
            if let Err(why) = taken {
                return self.refuse(turn, id, &why);
            }
        }
    }

    /// The peer has said who it is: the handshake begins with the secret of that pair.
    fn greet(&mut self, turn: &mut Turn<'_>, id: LinkId, hello: &[u8]) -> Result<(), String> {
        let hello = hello.try_into().expect("a whole hello was collected");
        let (cluster, node) = introduces(hello).map_err(|it| it.to_string())?;
        let Some(votes) = self.pairs.get(&cluster).filter(|it| it.begun) else {
            return Err(format!(
                "cluster {cluster:032x} is not one of this witness: add it to witness.toml"
            ));
        };
        if ![NodeId(1), NodeId(2)].contains(&node) {
            return Err(format!("node {} votes for itself", node.0));
        }
        let me = Side {
            node: WITNESS,
            incarnation: Incarnation(votes.life.0.get().into()),
            cluster,
            purpose: Purpose::Control,
        };
        let hello = Hello::new(me, node, &votes.secret, self.random.bytes());
        let (channel, bytes) = Channel::new(hello);
        turn.out.push(Action::LinkSend { link: id, bytes });
        let link = self.links.get_mut(&id).expect("its bytes were just taken");
        link.state = State::Greeted(channel);
        link.from = Some((cluster, node));
        Ok(())
    }

    fn proven(&mut self, turn: &mut Turn<'_>, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.proven = true;
        link.heard = turn.now;
        let from = link.from;
        let same = self
            .links
            .iter()
            .filter(|(_, it)| it.proven && it.from == from);
        let mut same: Vec<_> = same.map(|(id, it)| (it.heard, *id)).collect();
        same.sort_unstable();
        let surplus = same.len().saturating_sub(MAX_PER_NODE);
        for (_, old) in same.into_iter().take(surplus) {
            self.close(turn, old);
        }
    }

    fn frame(&mut self, turn: &mut Turn<'_>, id: LinkId, frame: ControlFrame) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.heard = turn.now;
        let Some(votes) = link.from.and_then(|it| self.pairs.get_mut(&it.0)) else {
            return;
        };
        match frame {
            ControlFrame::Heartbeat { number, .. } => {
                let promises = Vec::new();
                let answer = ControlFrame::HeartbeatAck { number, promises };
                send(link, id, turn, &answer);
            }
            ControlFrame::Register(messages) => {
                for (volume, message) in messages {
                    if matches!(message, Message::Prepare { .. } | Message::Accept { .. }) {
                        votes.ballots.ask(id, volume, message);
                    }
                }
            }
            ControlFrame::Forget(volumes) => {
                for volume in volumes {
                    votes.ballots.forget(volume);
                }
            }
            // Not for a witness; a newer node may say more than this one understands.
            _ => {}
        }
    }

    fn stored(&mut self, turn: &mut Turn<'_>, cluster: u128, ok: bool) {
        let Some(votes) = self.pairs.get_mut(&cluster) else {
            return;
        };
        votes.begun |= ok;
        if votes.ballots.written(turn.now, ok) {
            turn.out.push(Action::Event {
                text: format!(
                    "the votes of cluster {cluster:032x} cannot be written: this witness does not \
                     vote for it until that is mended"
                ),
                severity: Severity::Error,
            });
        }
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        let dead = |it: &Link| turn.now >= it.heard + if it.proven { SILENCE } else { HANDSHAKE };
        let dead: Vec<_> = self
            .links
            .iter()
            .filter(|it| dead(it.1))
            .map(|it| *it.0)
            .collect();
        for id in dead {
            self.close(turn, id);
        }
    }

    /// Writes the files that must be, and delivers the answers that they back.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        for (cluster, votes) in &mut self.pairs {
            let cluster = *cluster;
            if let Some(acceptor) = votes.ballots.take_write(turn.now, !votes.begun) {
                let bytes = File::encode(votes.life, &acceptor);
                turn.out.push(Action::Store { cluster, bytes });
            }
            let mut answers: BTreeMap<LinkId, Vec<(VolumeId, Message)>> = BTreeMap::new();
            for (link, volume, answer) in votes.ballots.take_ready() {
                answers.entry(link).or_default().push((volume, answer));
            }
            for (id, answers) in answers {
                if let Some(link) = self.links.get_mut(&id) {
                    send(link, id, turn, &ControlFrame::Register(answers));
                }
            }
        }
    }
}

fn send(link: &mut Link, id: LinkId, turn: &mut Turn<'_>, frame: &ControlFrame) {
    if let State::Greeted(channel) = &mut link.state
        && let Some(bytes) = channel.seal(frame)
    {
        turn.out.push(Action::LinkSend { link: id, bytes });
    }
}

/// A number that no other life of these votes has had.
fn draw(random: &mut Random) -> WitnessId {
    let bytes = random.number().to_be_bytes();
    let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    WitnessId(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
}
