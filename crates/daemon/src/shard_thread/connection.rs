//! One connection as the driver keeps it.

use lockstep_engine::interface::iscsi::ConnId;
use lockstep_mirror::control::Time;
use lockstep_mirror::operation::BufferId;
use lockstep_uring::{Handle, Message, OpId};
use std::collections::VecDeque;

/// Bytes of a connection's inbox: enough for what 64 commands with 4 KiB each send at once.
pub(super) const INBOX_BYTES: u32 = 256 << 10;

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
    /// When the kernel last took something of what is being sent.
    pub progress: Time,
    /// Its wants are to be asked again in this turn.
    pub touched: bool,
    /// It has something new to send in this turn.
    pub unsent: bool,
}

impl Connection {
    pub(super) fn new(id: ConnId, socket: Handle, now: Time) -> Self {
        Self {
            id,
            socket,
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

    /// Nothing of it is in the kernel.
    pub(super) const fn is_idle(&self) -> bool {
        self.receiving.is_none() && self.sending.is_none()
    }
}
