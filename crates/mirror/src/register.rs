//! Where the configuration of a volume is decided: a CASPaxos single-value register, one a
//! volume. An [`Acceptor`] holds a node's votes for all volumes and lives in one file; a
//! [`Proposal`] is one round of a proposer. Messages may be lost, repeated and reordered.
//!
//! Every round completes phase 2, so what it returns is decided, whatever became of rounds before.

use crate::control::{Configuration, Members, NodeId, VolumeId};
use crate::superblock::{Lineage, RawConfiguration};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use thiserror::Error;
use zerocopy::network_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"LOCKREG1";
const HEAD_LEN: usize = size_of::<RawHead>();
const VOTE_LEN: usize = size_of::<RawVote>();
/// Volumes in one acceptor file: four times what a pair may serve, so that deleted ones never
/// crowd out new ones before they are forgotten.
pub const MAX_VOTES: usize = 1024;

/// Orders the rounds; no two nodes ever use the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot(pub u64);

impl Ballot {
    /// The next ballot of this node above all that it has seen.
    #[must_use]
    pub const fn after(self, node: NodeId) -> Self {
        Self(((self.0 >> 8) + 1) << 8 | node.0 as u64)
    }
}

/// What an acceptor promised and accepted for one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Vote {
    /// No lower ballot is answered any more.
    pub promised: Ballot,
    /// The ballot of the value accepted last.
    pub ballot: Ballot,
    /// That value.
    pub value: Option<Configuration>,
}

/// A message of the register, about one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// Phase 1: promise to ignore lower ballots, and say what you accepted.
    Prepare {
        /// The round.
        ballot: Ballot,
    },
    /// The answer.
    Promise {
        /// The round.
        ballot: Ballot,
        /// The acceptor's vote at that moment.
        accepted: Ballot,
        /// Its value.
        value: Option<Configuration>,
    },
    /// Phase 2: accept this value.
    Accept {
        /// The round.
        ballot: Ballot,
        /// The value.
        value: Configuration,
    },
    /// The answer.
    Accepted {
        /// The round.
        ballot: Ballot,
    },
    /// The acceptor is bound to a higher ballot.
    Refused {
        /// The round that was refused.
        ballot: Ballot,
        /// What it is bound to.
        promised: Ballot,
    },
}

/// Why an acceptor file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AcceptorError {
    /// Not what was written.
    #[error(
        "the register's file is damaged: remove it to let this node start without its votes; it then \
         serves nothing alone until it has met its partner"
    )]
    Damaged,
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHead {
    magic: [u8; 8],
    count: U32,
    crc: U32,
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawVote {
    volume: U128,
    promised: U64,
    ballot: U64,
    value: RawConfiguration,
}

/// A node's votes for all volumes. What it answers may be sent only once the file that
/// [`Acceptor::encode`] gives is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Acceptor {
    votes: BTreeMap<VolumeId, Vote>,
}

impl Acceptor {
    /// The vote for a volume.
    #[must_use]
    pub fn vote(&self, volume: VolumeId) -> Vote {
        self.votes.get(&volume).copied().unwrap_or_default()
    }

    /// Whether anything was ever promised or accepted for that volume.
    #[must_use]
    pub fn has(&self, volume: VolumeId) -> bool {
        self.votes.contains_key(&volume)
    }

    /// Forgets a deleted volume.
    pub fn forget(&mut self, volume: VolumeId) {
        self.votes.remove(&volume);
    }

    /// The answer to a `Prepare` or `Accept`; nothing for answers. When the state changed, the
    /// answer must wait for the file.
    pub fn handle(&mut self, volume: VolumeId, message: Message) -> Option<Message> {
        if !self.votes.contains_key(&volume) && self.votes.len() >= MAX_VOTES {
            return None;
        }
        let vote = self.votes.entry(volume).or_default();
        match message {
            Message::Prepare { ballot } if ballot >= vote.promised => {
                vote.promised = ballot;
                Some(Message::Promise {
                    ballot,
                    accepted: vote.ballot,
                    value: vote.value,
                })
            }
            Message::Accept { ballot, value } if ballot >= vote.promised => {
                *vote = Vote {
                    promised: ballot,
                    ballot,
                    value: Some(value),
                };
                Some(Message::Accepted { ballot })
            }
            Message::Prepare { ballot } | Message::Accept { ballot, .. } => {
                Some(Message::Refused {
                    ballot,
                    promised: vote.promised,
                })
            }
            Message::Promise { .. } | Message::Accepted { .. } | Message::Refused { .. } => None,
        }
    }

    /// The file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.votes.len() * VOTE_LEN);
        let mut count = 0_u32;
        for (volume, vote) in &self.votes {
            let raw = RawVote {
                volume: volume.0.into(),
                promised: vote.promised.0.into(),
                ballot: vote.ballot.0.into(),
                value: RawConfiguration::of(vote.value),
            };
            body.extend_from_slice(raw.as_bytes());
            count += 1;
        }
        let head = RawHead {
            magic: MAGIC,
            count: count.into(),
            crc: crc32c::crc32c(&body).into(),
        };
        let mut file = head.as_bytes().to_vec();
        file.extend_from_slice(&body);
        file
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is not exactly what was written.
    pub fn decode(file: &[u8]) -> Result<Self, AcceptorError> {
        let (head, body) = RawHead::ref_from_prefix(file).map_err(|_| AcceptorError::Damaged)?;
        let count = usize::try_from(head.count.get()).map_err(|_| AcceptorError::Damaged)?;
        let whole = count <= MAX_VOTES && file.len() == HEAD_LEN + count * VOTE_LEN;
        if head.magic != MAGIC || !whole || crc32c::crc32c(body) != head.crc.get() {
            return Err(AcceptorError::Damaged);
        }
        let mut votes = BTreeMap::new();
        for raw in body.chunks_exact(VOTE_LEN) {
            let raw = RawVote::ref_from_bytes(raw).map_err(|_| AcceptorError::Damaged)?;
            let vote = Vote {
                promised: Ballot(raw.promised.get()),
                ballot: Ballot(raw.ballot.get()),
                value: raw.value.get(),
            };
            votes.insert(VolumeId(raw.volume.get()), vote);
        }
        Ok(Self { votes })
    }
}

/// Where a round stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Waiting for promises.
    Preparing,
    /// Waiting for acceptances of this value.
    Accepting(Configuration),
    /// Decided: this is the register's value, proposed by whomever.
    Decided(Configuration),
    /// A higher ballot is about: begin anew above it.
    Outbid(Ballot),
}

/// One round: "if the value is `expect`, make it `new`", or a read that writes back what it finds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// Its number.
    pub ballot: Ballot,
    /// The value to be replaced; any other that is found stays. An empty register takes `new`.
    pub expect: Option<Lineage>,
    /// The value to put there.
    pub new: Configuration,
    quorum: u32,
    promises: Members,
    accepts: Members,
    best: (Ballot, Option<Configuration>),
    step: Step,
}

impl Proposal {
    /// A round; `quorum`: acceptors that must agree (2 of 2 or 2 of 3). The proposer's own
    /// acceptor is asked first, and the others only once its promise is durable.
    #[must_use]
    pub const fn new(
        ballot: Ballot,
        quorum: u32,
        expect: Option<Lineage>,
        new: Configuration,
    ) -> Self {
        Self {
            ballot,
            expect,
            new,
            quorum,
            promises: Members(0),
            accepts: Members(0),
            best: (Ballot(0), None),
            step: Step::Preparing,
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Whether an acceptor has given what the present phase needs.
    #[must_use]
    pub const fn has(&self, acceptor: NodeId) -> bool {
        match self.step {
            Step::Preparing => self.promises.contains(acceptor),
            _ => self.accepts.contains(acceptor),
        }
    }

    /// What to ask of the acceptors now.
    #[must_use]
    pub const fn ask(&self) -> Option<Message> {
        match self.step {
            Step::Preparing => Some(Message::Prepare {
                ballot: self.ballot,
            }),
            Step::Accepting(value) => Some(Message::Accept {
                ballot: self.ballot,
                value,
            }),
            Step::Decided(_) | Step::Outbid(_) => None,
        }
    }

    /// An acceptor answered; stale and foreign answers change nothing.
    pub fn answered(&mut self, acceptor: NodeId, message: Message) {
        match (self.step, message) {
            (
                Step::Preparing,
                Message::Promise {
                    ballot,
                    accepted,
                    value,
                },
            ) if ballot == self.ballot => {
                self.promises = self.promises.with(acceptor);
                if value.is_some() && accepted >= self.best.0 {
                    self.best = (accepted, value);
                }
                if self.promises.count() >= self.quorum {
                    self.step = Step::Accepting(self.change(self.best.1));
                }
            }
            (Step::Accepting(value), Message::Accepted { ballot }) if ballot == self.ballot => {
                self.accepts = self.accepts.with(acceptor);
                if self.accepts.count() >= self.quorum {
                    self.step = Step::Decided(value);
                }
            }
            (Step::Preparing | Step::Accepting(_), Message::Refused { ballot, promised })
                if ballot == self.ballot =>
            {
                self.step = Step::Outbid(promised);
            }
            _ => {}
        }
    }

    /// The swap itself. A value that is there already, from an earlier round of the same swap
    /// whose end was not seen, is its success.
    fn change(&self, found: Option<Configuration>) -> Configuration {
        match found {
            Some(value) if self.expect != Some(value.lineage()) => value,
            _ => self.new,
        }
    }
}

#[cfg(test)]
mod tests;
