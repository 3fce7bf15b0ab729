//! One connection as the driver keeps it.

use lockstep_engine::interface::Origin;
use lockstep_engine::interface::iscsi::ConnId;
use lockstep_mirror::control::Time;
use lockstep_mirror::operation::BufferId;
use lockstep_uring::{Handle, Message, OpId};
use std::collections::VecDeque;

/// Bytes of a connection's inbox: enough for what 64 commands with 4 KiB each send at once.
pub(super) const INBOX_BYTES: u32 = 256 << 10;

/// An initiator for which more than this is queued is not read from until it has taken half: it
/// gets nothing new to answer before it takes the answers. As much keeps the socket busy (one
/// parcel with the kernel, one that follows), and bounds what all of an initiator's sessions hold.
/// The partner is read from always: two nodes that both stopped reading would wait for each other.
pub(super) const QUEUED_MAX: usize = 2 << 20;

/// How far a connection is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In use.
    Open,
    /// Told to close; what was queued before goes out first, until then at most.
    Flushing {
        /// When the peer's patience with us ends ours.
        by: Time,
    },
    /// Everything is sent and we said so; the peer closes its side, or is left alone.
    Lingering {
        /// Not later than this.
        by: Time,
    },
    /// Shut; it waits for the kernel to let go of what was lent.
    Dying,
}

/// What a receive in progress is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// Into the inbox, as much as there is; this much was asked for.
    Inbox(u32),
    /// Straight into the buffer that is wanted.
    Buffer {
        /// The buffer's slot.
        slot: u32,
        /// Where in it.
        at: u32,
    },
}

/// A vectored send, with the buffers that it names.
#[derive(Default)]
pub(super) struct Parcel {
    pub message: Message,
    pub buffers: Vec<BufferId>,
}

/// A parcel that the kernel has.
pub(super) struct Sending {
    pub op: OpId,
    pub buffers: Vec<BufferId>,
}

pub(super) struct Connection {
    pub id: ConnId,
    pub socket: Handle,
    pub phase: Phase,
    /// The inbox holds `start..end`.
    pub start: u32,
    pub end: u32,
    /// How much of the present `Want::Data` or `Want::Skip` is done, and the CRC of that.
    pub got: u32,
    pub crc: u32,
    pub receiving: Option<(OpId, Receiving)>,
    /// The last receive left nothing in the socket.
    pub drained: bool,
    /// How much the next receive into the inbox asks for: little while large data come in, which
    /// are received straight into their buffers.
    pub appetite: u32,
    /// The peer will send nothing more.
    pub ended: bool,
    pub outgoing: VecDeque<Parcel>,
    pub sending: Option<Sending>,
    /// Bytes in `outgoing` and `sending`.
    queued: usize,
    /// Something was queued for it ever.
    pub spoken: bool,
    /// It is not read from while too much is queued for it.
    held_back: bool,
    /// The other end is an initiator.
    initiator: bool,
    /// When the kernel last took something of what is being sent.
    pub progress: Time,
    /// Its wants are to be asked again in this turn.
    pub touched: bool,
    /// It has something new to send in this turn.
    pub unsent: bool,
}

impl Connection {
    pub(super) fn new(id: ConnId, socket: Handle, origin: Origin, now: Time) -> Self {
        Self {
            id,
            socket,
            queued: 0,
            spoken: false,
            held_back: false,
            initiator: matches!(origin, Origin::Portal(_)),
            phase: Phase::Open,
            start: 0,
            end: 0,
            got: 0,
            crc: 0,
            receiving: None,
            drained: false,
            appetite: INBOX_BYTES,
            ended: false,
            outgoing: VecDeque::new(),
            sending: None,
            progress: now,
            touched: false,
            unsent: false,
        }
    }

    /// So many bytes joined the queue.
    pub(super) const fn queues(&mut self, count: usize) {
        self.queued += count;
        self.spoken = true;
    }

    /// The peer's kernel took bytes of the queue. Whether it may be read from again.
    pub(super) fn took(&mut self, count: u32) -> bool {
        self.queued -= count as usize;
        self.held_back && self.queued <= QUEUED_MAX / 2 && {
            self.held_back = false;
            true
        }
    }

    /// Whether it is not to be read from, because the peer does not take what it asked for.
    pub(super) fn hold_back(&mut self) -> bool {
        self.held_back |= self.initiator && self.queued > QUEUED_MAX;
        self.held_back
    }

    /// Nothing of it is in the kernel.
    pub(super) const fn is_idle(&self) -> bool {
        self.receiving.is_none() && self.sending.is_none()
    }
}
