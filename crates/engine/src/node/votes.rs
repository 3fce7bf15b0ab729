//! This node's acceptor, and the questions that its rounds put to the partner and the witness.

use super::{Node, Turn};
use crate::ballot_box::BallotBox;
use crate::node_interface::{NodeAction, Severity};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Configuration, NodeId, Time, VolumeId, WITNESS, WitnessId};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::register::{Acceptor, AcceptorError, Ballot, Message, Vote};

/// A question is repeated this often; any message may be lost.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Me,
    Partner,
}

/// The acceptor, and what the others were asked.
pub(super) struct Votes {
    ballots: BallotBox<Asker>,
    error: Option<AcceptorError>,
    /// What the partner or the witness was last asked, and when.
    asked: BTreeMap<(NodeId, VolumeId), (Message, Time)>,
}

/// Questions of the rounds of some volumes, to be sent.
#[derive(Default)]
pub(super) struct Questions {
    pub(super) partner: Vec<(VolumeId, Message)>,
    pub(super) witness: Vec<(VolumeId, Message)>,
}

impl Votes {
    pub(super) fn new(file: Option<&[u8]>) -> Self {
        let (acceptor, error) = match file.map(Acceptor::decode) {
            None => (Acceptor::default(), None),
            Some(Ok(acceptor)) => (acceptor, None),
            Some(Err(error)) => (Acceptor::default(), Some(error)),
        };
        Self {
            ballots: BallotBox::new(acceptor),
            error,
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn vote(&self, volume: VolumeId) -> Vote {
        self.ballots.vote(volume)
    }

    pub(super) fn voting(&self, volume: VolumeId) -> Option<Configuration> {
        self.ballots.voting(volume)
    }

    pub(super) fn has(&self, volume: VolumeId) -> bool {
        self.ballots.has(volume)
    }

    /// An acceptor that lost its votes of a volume goes on from this ballot.
    pub(super) fn begin_at(&mut self, volume: VolumeId, ballot: Ballot) {
        self.ballots
            .ask(Asker::Me, volume, Message::Prepare { ballot });
    }

    pub(super) fn forget(&mut self, volume: VolumeId) {
        self.ballots.forget(volume);
        self.asked.retain(|(_, it), _| *it != volume);
    }

    /// A new connection to the witness: what was asked may be lost.
    pub(super) fn ask_again(&mut self, acceptor: NodeId) {
        self.asked.retain(|(it, _), _| *it != acceptor);
    }

    pub(super) fn problem(&self) -> Option<String> {
        if self.ballots.has_failed() {
            return Some(String::from(
                "the register's file cannot be written: nothing can be decided by this node",
            ));
        }
        self.error.map(|it| it.to_string())
    }

    /// Whether a question is to be sent now: it is new, or was sent long ago.
    fn asks(
        &mut self,
        now: Time,
        acceptor: NodeId,
        id: VolumeId,
        message: Option<Message>,
    ) -> Option<Message> {
        let Some(message) = message else {
            self.asked.remove(&(acceptor, id));
            return None;
        };
        let said = self.asked.get(&(acceptor, id));
        if said.is_some_and(|(it, at)| *it == message && now < *at + ASK_AGAIN) {
            return None;
        }
        self.asked.insert((acceptor, id), (message, now));
        Some(message)
    }
}

impl Node {
    /// Messages of the register from the partner.
    pub(super) fn register_in(&mut self, turn: &mut Turn<'_>, messages: Vec<(VolumeId, Message)>) {
        let Some(partner) = self.settings.partner else {
            return;
        };
        for (id, message) in messages {
            let Some(volume) = self.volumes.get_mut(&id) else {
                continue;
            };
            turn.touched.insert(id);
            match message {
                Message::Prepare { .. } | Message::Accept { .. }
                    if volume.membership.votes_are_lost() => {}
                Message::Prepare { .. } => self.votes.ballots.ask(Asker::Partner, id, message),
                Message::Accept { value, .. } => {
                    if volume.membership.may_accept(&value, &self.votes.vote(id)) {
                        volume.membership.accepting(turn.now);
                        self.votes.ballots.ask(Asker::Partner, id, message);
                    }
                }
                Message::Promise { .. } | Message::Accepted { .. } | Message::Refused { .. } => {
                    volume.membership.answered(partner, message);
                }
            }
        }
    }

    /// Messages of the register from the witness.
    pub(super) fn witness_votes(
        &mut self,
        turn: &mut Turn<'_>,
        witness: WitnessId,
        messages: Vec<(VolumeId, Message)>,
    ) {
        for (id, message) in messages {
            if let Some(volume) = self.volumes.get_mut(&id) {
                volume.membership.witness_answered(witness, message);
                turn.touched.insert(id);
            }
        }
    }

    /// Puts the questions of a volume's round to the acceptors.
    pub(super) fn ask_acceptors(&mut self, turn: &Turn<'_>, id: VolumeId, out: &mut Questions) {
        let Some(volume) = self.volumes.get_mut(&id) else {
            return;
        };
        let asks = volume.membership.asks();
        if let Some(message) = asks.own {
            let allowed = match message {
                Message::Accept { value, .. } => {
                    volume.membership.may_accept(&value, &self.votes.vote(id))
                }
                _ => true,
            };
            if allowed {
                self.votes.ballots.ask(Asker::Me, id, message);
            }
        }
        let now = turn.now;
        if let Some(partner) = self.settings.partner {
            let message = self.votes.asks(now, partner, id, asks.partner);
            out.partner.extend(message.map(|it| (id, it)));
        }
        // Only the witness that votes for this volume is asked; another one that answers at the
        // same address is none of its acceptors.
        let message = asks
            .witness
            .filter(|(it, _)| self.witness.id() == Some(*it));
        let message = self.votes.asks(now, WITNESS, id, message.map(|(_, it)| it));
        out.witness.extend(message.map(|it| (id, it)));
    }

    pub(super) fn acceptor_written(&mut self, turn: &mut Turn<'_>, ok: bool) {
        if self.votes.ballots.written(turn.now, ok) {
            let text = String::from(
                "the register's file cannot be written: nothing can be decided by this node until that is mended",
            );
            turn.event(Severity::Error, None, text);
        }
        turn.touched.extend(self.volumes.keys().copied());
    }

    /// Writes the file if it must be, and delivers the answers that it backs.
    pub(super) fn step_votes(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..4 {
            if let Some(bytes) = self.votes.ballots.take_write(turn.now, false) {
                turn.out.push(NodeAction::WriteAcceptor { bytes });
            }
            let ready = self.votes.ballots.take_ready();
            if ready.is_empty() {
                return;
            }
            let mut answers = Vec::new();
            for (asker, id, answer) in ready {
                match asker {
                    Asker::Partner => answers.push((id, answer)),
                    Asker::Me => {
                        if let Some(volume) = self.volumes.get_mut(&id) {
                            volume.membership.answered(self.settings.node, answer);
                            turn.touched.insert(id);
                        }
                    }
                }
            }
            if !answers.is_empty() {
                self.send_all(turn, &ControlFrame::Register(answers));
            }
            self.step_volumes(turn);
        }
    }
}
