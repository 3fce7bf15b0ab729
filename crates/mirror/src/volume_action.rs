//! What a volume's data path tells the engine to do.

use crate::control::FromVolume;
use crate::fields::Fields;
use crate::operation::{BufferId, Payload};
use crate::volume_io::{Io, IoId};
use alloc::boxed::Box;

/// Names an initiator's operation, read or flush until its `Complete`; chosen by the engine, with
/// bit 31 clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The bit that the engine's tickets never have: the volume names the partner's commands with
    /// it, which it carries out as if they were its own initiators'.
    const GUEST: u64 = 1 << 31;

    /// The name of a command of the partner.
    pub(crate) const fn guest(number: u64) -> Self {
        Self((number & !(Self::GUEST - 1)) << 1 | Self::GUEST | number & (Self::GUEST - 1))
    }

    /// Whether it names a command of the partner.
    #[must_use]
    pub const fn is_guest(self) -> bool {
        self.0 & Self::GUEST != 0
    }
}

/// One authenticated data connection to the partner; never reused in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u64);

/// What follows a frame's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameBody {
    /// Nothing.
    None,
    /// A list, hashes, a state: at most 64 KiB.
    Bytes(Box<[u8]>),
    /// Blocks.
    Blocks(Payload),
}

/// Why an initiator's operation was not carried out. The engine makes SCSI status of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was cancelled before it was sequenced, and never will be.
    Aborted,
    /// Not sequenced and never will be; the initiator may send it again (BUSY).
    Busy,
    /// The volume is not served here at present (02/04/0A).
    NotServed,
    /// The blocks cannot be read from either node (03/11/00).
    Unreadable,
    /// The disk failed on the only member (04/44/00).
    Failed,
    /// No space left on the device (07/27/07).
    NoSpace,
}

/// An action of a volume's data path, to be carried out by engine and driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeAction {
    /// Start this I/O; `Volume::io_done` brings the result. The engine keeps the buffers that it
    /// names alive until then.
    Io {
        /// Its name.
        id: IoId,
        /// What.
        io: Io,
    },
    /// Send a frame on a data channel, in order with those before on the same channel. The
    /// engine keeps the blocks alive until they are sent.
    Send {
        /// Where.
        channel: ChannelId,
        /// The header's fields.
        fields: Fields,
        /// What follows it.
        body: FrameBody,
    },
    /// An initiator's operation, read or flush has ended.
    Complete {
        /// Which.
        ticket: Ticket,
        /// How.
        result: Result<(), Refusal>,
    },
    /// The blocks of this read came from the partner and lie at the beginning of this buffer; the
    /// engine takes over its one reference. `Complete` follows.
    Fetched {
        /// Which read.
        ticket: Ticket,
        /// Where they are.
        buffer: BufferId,
    },
    /// The mirror needs this buffer no longer (one `Release` for each buffer it was given).
    Release {
        /// Which.
        buffer: BufferId,
    },
    /// The mirror needs a buffer; `Volume::buffer` brings it, perhaps much later.
    NeedBuffer {
        /// Names the request.
        request: u64,
        /// How many bytes.
        len: u32,
    },
    /// A State operation of either node is committed: apply it to the SCSI layer. The same one
    /// may come again after a change of configuration.
    State {
        /// Which part of the SCSI state; the SCSI layer's number.
        kind: u16,
        /// What it is now; nothing: as at power on.
        bytes: Box<[u8]>,
    },
    /// A word for `Node`.
    Tell(FromVolume),
}
