//! The pool configuration: one document with a generation number, prepared on both nodes and
//! then put in force; alone, put in force by the right of that moment: this node serves every
//! mirrored volume as its only member, so the partner cannot have a right of its own.
//!
//! A version that a node holds prepared was prepared by its proposer before, so both have said
//! yes: whoever learns that may put it in force. The newer of two versions wins only if its
//! history names the other; two that exclude each other are a conflict that a person resolves.

use super::{Node, Turn};
use crate::node_interface::{ConfigRefusal, MAX_DOCUMENT, NodeAction, PoolStatus, Severity};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
pub use file::document_in_force;
use file::{Stored, Version};
use lockstep_mirror::control::Time;
use lockstep_mirror::control_frame::{CHUNK_LEN, ControlFrame, PoolState, PoolVersion};

mod file;

/// Versions remembered: changes made during the longest absence that is still no conflict.
const HISTORY: usize = 64;
/// A document is sent again after this long without effect.
const SEND_AGAIN: Duration = Duration::from_secs(2);
/// A change that is not in force by then is given up; it may still be, later.
const PROPOSAL: Duration = Duration::from_secs(15);
/// The state is told this often even if nothing changed.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// A document that is coming in pieces.
struct Incoming {
    version: PoolVersion,
    commit: bool,
    total: usize,
    bytes: Vec<u8>,
}

/// An operator's change.
struct Change {
    version: PoolVersion,
    since: Time,
}

/// The pool configuration on this node.
pub(super) struct Pool {
    stored: Stored,
    writing: Option<Stored>,
    change: Option<Change>,
    /// What the partner last said, as long as it is heard.
    partner: Option<PoolState>,
    incoming: Option<Incoming>,
    sent_at: Option<Time>,
    announced: Option<(PoolState, Time)>,
    /// The version that the driver was told to be in force.
    told: Option<PoolVersion>,
    conflict: Option<PoolVersion>,
    damaged: bool,
}

impl Pool {
    pub(super) fn new(file: Option<&[u8]>) -> Self {
        let found = file.map(Stored::decode);
        let damaged = matches!(found, Some(None));
        Self {
            stored: found.flatten().unwrap_or_default(),
            writing: None,
            change: None,
            partner: None,
            incoming: None,
            sent_at: None,
            announced: None,
            told: None,
            conflict: None,
            damaged,
        }
    }

    /// The partner is gone: what it said is no longer true.
    pub(super) fn forget_partner(&mut self) {
        self.partner = None;
        self.incoming = None;
    }

    /// A new link: everything is said again.
    pub(super) fn announce(&mut self) {
        self.announced = None;
        self.sent_at = None;
    }

    fn state(&self) -> PoolState {
        PoolState {
            committed: self.stored.committed.version,
            prepared: self.stored.prepared.as_ref().map(|it| it.version),
            history: self.stored.history.clone(),
        }
    }

    pub(super) fn status(&self) -> PoolStatus {
        let state = self.state();
        PoolStatus {
            committed: state.committed,
            prepared: state.prepared,
            conflict: self.conflict,
        }
    }

    pub(super) fn problem(&self) -> Option<String> {
        if let Some(theirs) = self.conflict {
            let ours = self.stored.committed.version;
            return Some(format!(
                "the two nodes hold different pool configurations (generation {} here, {} there): choose one with `lockstep config keep` on its node",
                ours.generation, theirs.generation
            ));
        }
        let text = "the stored pool configuration is damaged: this node takes the partner's";
        (self.damaged && self.stored.committed.version.generation == 0).then(|| String::from(text))
    }

    /// Whether a version has been in force here, or is.
    fn includes(&self, version: PoolVersion) -> bool {
        version.generation == 0
            || self.stored.committed.version == version
            || self.stored.history.contains(&version)
    }

    /// Makes a change durable, then true. One at a time.
    fn store(&mut self, turn: &mut Turn<'_>, change: impl FnOnce(&mut Stored)) -> bool {
        if self.writing.is_some() {
            return false;
        }
        let mut next = self.stored.clone();
        change(&mut next);
        if next == self.stored {
            return true;
        }
        turn.out.push(NodeAction::StoreConfig {
            bytes: next.encode(),
        });
        self.writing = Some(next);
        false
    }

    /// Puts the prepared version in force.
    fn commit_prepared(&mut self, turn: &mut Turn<'_>) {
        self.store(turn, |it| {
            if let Some(version) = it.prepared.take() {
                it.replace(version);
            }
        });
    }
}

impl Stored {
    fn replace(&mut self, version: Version) {
        let before = core::mem::replace(&mut self.committed, version);
        if before.version.generation > 0 {
            self.history.push(before.version);
        }
        self.trim();
    }

    fn trim(&mut self) {
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }
}

impl Node {
    pub(super) fn propose_config(&mut self, turn: &mut Turn<'_>, document: Vec<u8>) {
        let refusal = if self.stop.is_some() {
            Some(ConfigRefusal::Stopping)
        } else if document.len() > MAX_DOCUMENT {
            Some(ConfigRefusal::TooLarge)
        } else if self.pool.conflict.is_some() {
            Some(ConfigRefusal::Conflict)
        } else if self.pool.change.is_some()
            || self.pool.stored.prepared.is_some()
            || self.pool.writing.is_some()
        {
            Some(ConfigRefusal::Busy)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            turn.out.push(NodeAction::ConfigOutcome(Err(refusal)));
            return;
        }
        let theirs = self
            .pool
            .partner
            .as_ref()
            .map_or(0, |it| it.committed.generation);
        let generation = 1 + self.pool.stored.committed.version.generation.max(theirs);
        let version = Version::new(generation, document);
        self.pool.change = Some(Change {
            version: version.version,
            since: turn.now,
        });
        self.pool.sent_at = None;
        self.pool.store(turn, |it| it.prepared = Some(version));
    }

    pub(super) fn config_stored(&mut self, turn: &mut Turn<'_>, ok: bool) {
        let Some(written) = self.pool.writing.take() else {
            return;
        };
        if ok {
            self.pool.stored = written;
            return;
        }
        turn.event(
            Severity::Error,
            None,
            "the pool configuration could not be stored".into(),
        );
        if self.pool.change.take().is_some() {
            turn.out
                .push(NodeAction::ConfigOutcome(Err(ConfigRefusal::NotStored)));
        }
    }

    pub(super) fn pool_state_in(&mut self, state: PoolState) {
        if state.history.len() <= HISTORY {
            self.pool.partner = Some(state);
        }
    }

    pub(super) fn pool_chunk_in(
        &mut self,
        (version, commit): (PoolVersion, bool),
        total: u32,
        offset: u32,
        bytes: &[u8],
    ) {
        let (Ok(total), Ok(offset)) = (usize::try_from(total), usize::try_from(offset)) else {
            return;
        };
        if total > MAX_DOCUMENT {
            return;
        }
        if offset == 0 {
            self.pool.incoming = Some(Incoming {
                version,
                commit,
                total,
                bytes: Vec::new(),
            });
        }
        let Some(incoming) = &mut self.pool.incoming else {
            return;
        };
        let next =
            incoming.version == version && incoming.commit == commit && incoming.total == total;
        if next && incoming.bytes.len() == offset && offset + bytes.len() <= total {
            incoming.bytes.extend_from_slice(bytes);
        }
    }

    /// Whether this node may take part with the configuration that it has: a returning node
    /// takes the newer one before it opens a portal.
    pub(super) fn config_is_settled(&self) -> bool {
        let pool = &self.pool;
        !self.heart.hears()
            || pool.conflict.is_some()
            || pool
                .partner
                .as_ref()
                .is_some_and(|it| it.committed == pool.stored.committed.version)
    }

    /// Whether a change may be put in force without the partner.
    fn may_commit_alone(&self) -> bool {
        let mut mirrored = self
            .volumes
            .values()
            .filter(|it| it.is_replicated())
            .peekable();
        !self.has_partner()
            || !self.heart.hears()
                && mirrored.peek().is_some()
                && mirrored.all(|it| it.membership.is_alone())
    }

    pub(super) fn step_pool(&mut self, turn: &mut Turn<'_>) {
        self.tell_committed(turn);
        self.take_incoming(turn);
        self.judge(turn);
        self.advance_change(turn);
        self.push_document(turn);
        let state = self.pool.state();
        let said = self.pool.announced.as_ref();
        if said.is_none_or(|(it, at)| *it != state || turn.now >= *at + ANNOUNCE) {
            self.pool.announced = Some((state.clone(), turn.now));
            self.send_all(turn, &ControlFrame::PoolState(state));
        }
    }

    fn tell_committed(&mut self, turn: &mut Turn<'_>) {
        let committed = &self.pool.stored.committed;
        if committed.version.generation == 0 || self.pool.told == Some(committed.version) {
            return;
        }
        let generation = committed.version.generation;
        self.pool.told = Some(committed.version);
        turn.out.push(NodeAction::ConfigCommitted {
            generation,
            document: committed.document.clone(),
        });
        turn.event(
            Severity::Info,
            None,
            format!("pool configuration {generation} is in force"),
        );
    }

    /// A whole document came.
    fn take_incoming(&mut self, turn: &mut Turn<'_>) {
        if self.pool.writing.is_some()
            || self
                .pool
                .incoming
                .as_ref()
                .is_none_or(|it| it.bytes.len() < it.total)
        {
            return;
        }
        let Some(Incoming {
            version,
            commit,
            bytes,
            ..
        }) = self.pool.incoming.take()
        else {
            return;
        };
        let document = Version::new(version.generation, bytes);
        let (pool, partner) = (&self.pool, self.pool.partner.clone());
        if document.version != version
            || version.generation <= pool.stored.committed.version.generation
        {
            return;
        }
        if commit {
            let Some(partner) = partner.filter(|it| it.committed == version) else {
                return;
            };
            if !precedes(pool.stored.committed.version, &partner) {
                return;
            }
            self.pool.store(turn, |it| {
                it.prepared = None;
                it.history.clone_from(&partner.history);
                it.committed = document;
            });
            return;
        }
        // Two operators at the same time: the change made on the node that comes first goes on.
        let first = self
            .settings
            .partner
            .is_some_and(|it| it < self.settings.node);
        if self.pool.change.is_some() && !first {
            return;
        }
        if self.pool.change.take().is_some() {
            turn.out
                .push(NodeAction::ConfigOutcome(Err(ConfigRefusal::Busy)));
        }
        self.pool.store(turn, |it| it.prepared = Some(document));
    }

    /// What the partner's versions mean for a prepared one, and whether the two exclude each other.
    fn judge(&mut self, turn: &mut Turn<'_>) {
        let prepared = self.pool.stored.prepared.as_ref().map(|it| it.version);
        let Some(partner) = self.pool.partner.clone().filter(|_| self.heart.hears()) else {
            if prepared.is_some() && self.pool.change.is_none() && self.may_commit_alone() {
                self.pool.commit_prepared(turn);
            }
            return;
        };
        let ours = self.pool.stored.committed.version;
        let apart = ours != partner.committed
            && !self.pool.includes(partner.committed)
            && !precedes(ours, &partner);
        let conflict = apart.then_some(partner.committed);
        if conflict.is_some() && self.pool.conflict != conflict {
            turn.event(
                Severity::Error,
                None,
                "the two nodes hold different pool configurations".into(),
            );
        }
        self.pool.conflict = conflict;
        if prepared.is_none() || conflict.is_some() {
            return;
        }
        let same = partner.prepared == prepared || Some(partner.committed) == prepared;
        if same {
            self.pool.commit_prepared(turn);
        } else if self.pool.change.is_none() {
            // Its proposer has given it up.
            self.pool.store(turn, |it| it.prepared = None);
        }
    }

    fn advance_change(&mut self, turn: &mut Turn<'_>) {
        let Some(change) = &self.pool.change else {
            return;
        };
        let (version, since) = (change.version, change.since);
        let late = turn.now >= since + PROPOSAL;
        if self.pool.stored.committed.version == version {
            self.pool.change = None;
            turn.out
                .push(NodeAction::ConfigOutcome(Ok(version.generation)));
            return;
        }
        if self.pool.writing.is_some() {
            return;
        }
        if !self.heart.hears() {
            if self.may_commit_alone() {
                self.pool.commit_prepared(turn);
                return;
            }
            // A change needs the right to act alone just as an initiator's write does.
            for volume in self.volumes.values_mut() {
                volume.membership.want();
            }
        }
        if late {
            let heard = self.heart.hears();
            self.pool.change = None;
            self.pool.store(turn, |it| it.prepared = None);
            let refusal = if heard {
                ConfigRefusal::Unconfirmed
            } else {
                ConfigRefusal::NotAlone
            };
            turn.out.push(NodeAction::ConfigOutcome(Err(refusal)));
        }
    }

    /// Sends the partner a document that it lacks.
    fn push_document(&mut self, turn: &mut Turn<'_>) {
        let Some(partner) = self.pool.partner.clone().filter(|_| self.heart.hears()) else {
            return;
        };
        let due = self
            .pool
            .sent_at
            .is_none_or(|at| turn.now >= at + SEND_AGAIN);
        if !due || self.pool.conflict.is_some() || self.pool.writing.is_some() {
            return;
        }
        let ours = &self.pool.stored.committed;
        let (version, commit) = match &self.pool.stored.prepared {
            Some(it) if self.pool.change.is_some() && partner.prepared != Some(it.version) => {
                (it.clone(), false)
            }
            _ if ours.version != partner.committed && self.pool.includes(partner.committed) => {
                (ours.clone(), true)
            }
            _ => return,
        };
        self.pool.sent_at = Some(turn.now);
        // Our versions first: the pieces mean nothing without them.
        let state = self.pool.state();
        let mut frames = alloc::vec![ControlFrame::PoolState(state)];
        let total = u32::try_from(version.document.len()).expect("documents are bounded");
        let mut pieces: Vec<&[u8]> = version.document.chunks(CHUNK_LEN).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        let mut offset = 0;
        for piece in pieces {
            let bytes = piece.to_vec();
            frames.push(ControlFrame::PoolChunk {
                version: version.version,
                commit,
                total,
                offset,
                bytes,
            });
            offset += u32::try_from(piece.len()).expect("pieces are bounded");
        }
        let best = self
            .links
            .iter()
            .filter(|(_, it)| it.is_proven())
            .max_by_key(|(_, it)| it.heard)
            .map(|(id, _)| *id);
        let Some(link) = best else { return };
        for frame in frames {
            if let Some(it) = self.links.get_mut(&link) {
                it.send(link, &frame, turn);
            }
        }
    }

    /// This node's version is the one: the partner's becomes part of its past.
    pub(super) fn keep_config(&mut self, turn: &mut Turn<'_>) {
        let Some(theirs) = self.pool.conflict else {
            return;
        };
        let document = self.pool.stored.committed.document.clone();
        let generation = 1 + theirs
            .generation
            .max(self.pool.stored.committed.version.generation);
        self.pool.store(turn, |it| {
            it.history.push(theirs);
            it.prepared = None;
            it.replace(Version::new(generation, document));
        });
    }
}

/// Whether a version is part of the past of what the partner holds.
fn precedes(version: PoolVersion, partner: &PoolState) -> bool {
    version.generation == 0 || partner.history.contains(&version)
}
