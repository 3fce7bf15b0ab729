//! One stream: what is on its way in each direction, and what has arrived.

use super::{Host, LinkId};
use core::time::Duration;
use std::collections::VecDeque;

/// What one end's process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Dialing,
    Open,
    Gone,
}

/// What travels.
#[derive(Debug)]
pub(super) enum Load {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) load: Load,
    pub(super) due: Duration,
    pub(super) sent: Duration,
}

/// Arrived bytes; taken from the front without moving the rest each time.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
}

impl Inbox {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn take(&mut self, len: usize) {
        self.taken += len;
        assert!(
            self.taken <= self.bytes.len(),
            "only what has arrived can be taken"
        );
    }

    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
        self.taken = 0;
    }
}

/// Arrays are indexed by the sending side, `inbox` by the receiving one.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) link: LinkId,
    pub(super) hosts: [Host; 2],
    /// The link's direction from side 0 to side 1.
    pub(super) forward: usize,
    pub(super) port: u16,
    pub(super) ends: [End; 2],
    pub(super) queue: [VecDeque<Chunk>; 2],
    pub(super) inbox: [Inbox; 2],
    /// Since when something delivered waits for an acknowledgement that cannot come back.
    pub(super) unacknowledged: [Option<Duration>; 2],
}

impl Stream {
    pub(super) fn new(link: LinkId, hosts: [Host; 2], forward: usize, port: u16) -> Self {
        Self {
            link,
            hosts,
            forward,
            port,
            ends: [End::Dialing, End::Gone],
            queue: Default::default(),
            inbox: Default::default(),
            unacknowledged: [None; 2],
        }
    }

    /// Bytes that this side sent and that have not arrived.
    pub(super) fn queued(&self, side: usize) -> usize {
        let bytes = |chunk: &Chunk| match &chunk.load {
            Load::Bytes(bytes) => bytes.len(),
            Load::Fin | Load::Reset => 0,
        };
        self.queue[side].iter().map(bytes).sum()
    }
}
