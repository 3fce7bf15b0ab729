//! An acceptor of the register with its file: one file for all volumes, written in batches; no
//! answer leaves before the file that backs it is durable.

use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Configuration, Time, VolumeId};
use lockstep_mirror::register::{Acceptor, Message, Vote};

/// A failed write of the file is tried again after this long: without it nothing can be decided.
const RETRY: Duration = Duration::from_secs(1);
/// Answers that wait for the file: one a volume and asker, and stale ones of rounds before.
const MAX_PENDING: usize = 4096;

/// An acceptor, its file, and what waits for it. `A`: who asks.
pub(crate) struct BallotBox<A> {
    acceptor: Acceptor,
    durable: Acceptor,
    /// Counts changes of `acceptor`.
    version: u64,
    durable_version: u64,
    writing: Option<(u64, Acceptor)>,
    retry_at: Time,
    failed: bool,
    pending: Vec<(u64, A, VolumeId, Message)>,
}

impl<A: Copy + PartialEq> BallotBox<A> {
    /// What a durable file holds.
    pub(crate) fn new(acceptor: Acceptor) -> Self {
        Self {
            durable: acceptor.clone(),
            acceptor,
            version: 0,
            durable_version: 0,
            writing: None,
            retry_at: Time::ZERO,
            failed: false,
            pending: Vec::new(),
        }
    }

    /// The durable vote.
    pub(crate) fn vote(&self, volume: VolumeId) -> Vote {
        self.durable.vote(volume)
    }

    /// The value that is or will be in the file.
    pub(crate) fn voting(&self, volume: VolumeId) -> Option<Configuration> {
        self.acceptor.vote(volume).value
    }

    /// Whether anything is durable about that volume.
    pub(crate) fn has(&self, volume: VolumeId) -> bool {
        self.durable.has(volume)
    }

    /// The last write of the file failed.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Forgets a deleted volume.
    pub(crate) fn forget(&mut self, volume: VolumeId) {
        if self.acceptor.has(volume) {
            self.acceptor.forget(volume);
            self.version += 1;
        }
        self.pending.retain(|(_, _, it, _)| *it != volume);
    }

    /// Forgets who asked: the answers have nowhere to go.
    pub(crate) fn drop_asker(&mut self, asker: A) {
        self.pending.retain(|(_, it, ..)| *it != asker);
    }

    /// A question; its answer comes out of [`Self::take_ready`]. Too many at once are dropped:
    /// whoever asks repeats it.
    pub(crate) fn ask(&mut self, asker: A, volume: VolumeId, message: Message) {
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

    /// What is to be written to the file now, `anyway` even if it holds it; `written` must follow.
    pub(crate) fn take_write(&mut self, now: Time, anyway: bool) -> Option<Vec<u8>> {
        let due = self.version > self.durable_version || anyway;
        if !due || now < self.retry_at || self.writing.is_some() {
            return None;
        }
        self.writing = Some((self.version, self.acceptor.clone()));
        Some(self.acceptor.encode())
    }

    /// The write has ended; whether it is the first that failed since one was well.
    pub(crate) fn written(&mut self, now: Time, ok: bool) -> bool {
        let Some((version, written)) = self.writing.take() else {
            return false;
        };
        let news = !ok && !self.failed;
        if ok {
            self.durable = written;
            self.durable_version = version;
        } else {
            self.retry_at = now + RETRY;
        }
        self.failed = !ok;
        news
    }

    /// Answers that are backed by the file.
    pub(crate) fn take_ready(&mut self) -> Vec<(A, VolumeId, Message)> {
        let durable = self.durable_version;
        let (ready, waiting): (Vec<_>, Vec<_>) = core::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(version, ..)| *version <= durable);
        self.pending = waiting;
        ready
            .into_iter()
            .map(|(_, asker, volume, answer)| (asker, volume, answer))
            .collect()
    }
}
