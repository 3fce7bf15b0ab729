//! This node's acceptor: one file for all volumes, written in batches; no answer leaves before
//! the file that backs it is durable.

use super::{Node, Turn};
use crate::node_interface::{NodeAction, Severity};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Configuration, Time, VolumeId};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::register::{Acceptor, AcceptorError, Message, Vote};

/// A failed write of the file is tried again after this long: without it nothing can be decided.
const RETRY: Duration = Duration::from_secs(1);
/// A question to the partner is repeated this often; any message may be lost.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Answers that wait for the file: one a volume and asker, and stale ones of rounds before.
const MAX_PENDING: usize = 4096;

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Me,
    Partner,
}

/// The acceptor and what waits for its file.
pub(super) struct Votes {
    acceptor: Acceptor,
    durable: Acceptor,
    error: Option<AcceptorError>,
    /// Counts changes of `acceptor`.
    version: u64,
    durable_version: u64,
    writing: Option<(u64, Acceptor)>,
    retry_at: Time,
    failed: bool,
    pending: Vec<(u64, Asker, VolumeId, Message)>,
    /// What the partner was last asked, and when.
    asked: BTreeMap<VolumeId, (Message, Time)>,
}

impl Votes {
    pub(super) fn new(file: Option<&[u8]>) -> Self {
        let (acceptor, error) = match file.map(Acceptor::decode) {
            None => (Acceptor::default(), None),
            Some(Ok(acceptor)) => (acceptor, None),
            Some(Err(error)) => (Acceptor::default(), Some(error)),
        };
        Self {
            durable: acceptor.clone(),
            acceptor,
            error,
            version: 0,
            durable_version: 0,
            writing: None,
            retry_at: Time::ZERO,
            failed: false,
            pending: Vec::new(),
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn vote(&self, volume: VolumeId) -> Vote {
        self.durable.vote(volume)
    }

    /// The value that is or will be in the file.
    pub(super) fn voting(&self, volume: VolumeId) -> Option<Configuration> {
        self.acceptor.vote(volume).value
    }

    pub(super) fn has(&self, volume: VolumeId) -> bool {
        self.durable.has(volume)
    }

    pub(super) fn forget(&mut self, volume: VolumeId) {
        if self.acceptor.has(volume) {
            self.acceptor.forget(volume);
            self.version += 1;
        }
        self.pending.retain(|(_, _, it, _)| *it != volume);
        self.asked.remove(&volume);
    }

    pub(super) fn problem(&self) -> Option<String> {
        if self.failed {
            return Some(String::from(
                "the register's file cannot be written: nothing can be decided by this node",
            ));
        }
        self.error.map(|it| it.to_string())
    }

    fn ask(&mut self, asker: Asker, volume: VolumeId, message: Message) {
        if self.pending.len() >= MAX_PENDING {
            return;
        }
        let before = self.acceptor.vote(volume);
        let Some(answer) = self.acceptor.handle(volume, message) else {
            return;
        };
        if self.acceptor.vote(volume) != before {
            self.version += 1;
        }
        let entry = (self.version, asker, volume, answer);
        if !self.pending.contains(&entry) {
            self.pending.push(entry);
        }
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
                Message::Prepare { .. } => self.votes.ask(Asker::Partner, id, message),
                Message::Accept { value, .. } => {
                    if volume.membership.may_accept(&value, &self.votes.vote(id)) {
                        volume.membership.accepting(turn.now);
                        self.votes.ask(Asker::Partner, id, message);
                    }
                }
                Message::Promise { .. } | Message::Accepted { .. } | Message::Refused { .. } => {
                    volume.membership.answered(partner, message);
                }
            }
        }
    }

    /// Puts the questions of a volume's round to both acceptors.
    pub(super) fn ask_acceptors(
        &mut self,
        turn: &Turn<'_>,
        id: VolumeId,
        out: &mut Vec<(VolumeId, Message)>,
    ) {
        let Some(volume) = self.volumes.get_mut(&id) else {
            return;
        };
        let (own, partner) = volume.membership.asks();
        if let Some(message) = own {
            let allowed = match message {
                Message::Accept { value, .. } => {
                    volume.membership.may_accept(&value, &self.votes.vote(id))
                }
                _ => true,
            };
            if allowed {
                self.votes.ask(Asker::Me, id, message);
            }
        }
        match partner {
            Some(message) => {
                let said = self.votes.asked.get(&id);
                if said.is_none_or(|(it, at)| *it != message || turn.now >= *at + ASK_AGAIN) {
                    self.votes.asked.insert(id, (message, turn.now));
                    out.push((id, message));
                }
            }
            None => {
                self.votes.asked.remove(&id);
            }
        }
    }

    pub(super) fn acceptor_written(&mut self, turn: &mut Turn<'_>, ok: bool) {
        let Some((version, written)) = self.votes.writing.take() else {
            return;
        };
        if ok {
            self.votes.durable = written;
            self.votes.durable_version = version;
        } else {
            self.votes.retry_at = turn.now + RETRY;
            if !self.votes.failed {
                let text = String::from(
                    "the register's file cannot be written: nothing can be decided by this node until that is mended",
                );
                turn.event(Severity::Error, None, text);
            }
        }
        self.votes.failed = !ok;
        turn.touched.extend(self.volumes.keys().copied());
    }

    /// Writes the file if it must be, and delivers the answers that it backs.
    pub(super) fn step_votes(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..4 {
            if self.votes.version > self.votes.durable_version
                && self.votes.writing.is_none()
                && turn.now >= self.votes.retry_at
            {
                turn.out.push(NodeAction::WriteAcceptor {
                    bytes: self.votes.acceptor.encode(),
                });
                self.votes.writing = Some((self.votes.version, self.votes.acceptor.clone()));
            }
            let durable = self.votes.durable_version;
            let (ready, waiting): (Vec<_>, Vec<_>) = core::mem::take(&mut self.votes.pending)
                .into_iter()
                .partition(|(version, ..)| *version <= durable);
            self.votes.pending = waiting;
            if ready.is_empty() {
                return;
            }
            let mut answers = Vec::new();
            for (_, asker, id, answer) in ready {
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
