//! What a volume's data path tells the engine to do.

use crate::control::FromVolume;
use crate::fields::Fields;
use crate::operation::{BufferId, Payload};
use crate::volume_io::{Io, IoId};
use alloc::boxed::Box;

/// Names an initiator's operation, read or flush until its `Complete`; chosen by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

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
    Io { id: IoId, io: Io },
    /// Send a frame on a data channel, in order with those before on the same channel. The
    /// engine keeps the blocks alive until they are sent.
    Send {
        channel: ChannelId,
        fields: Fields,
        body: FrameBody,
    },
    /// An initiator's operation, read or flush has ended.
    Complete {
        ticket: Ticket,
        result: Result<(), Refusal>,
    },
    /// The mirror needs this buffer no longer (one `Release` for each buffer it was given).
    Release { buffer: BufferId },
    /// The mirror needs a buffer of `len` bytes; `Volume::buffer` brings it, perhaps much later.
    NeedBuffer { request: u64, len: u32 },
    /// A State operation of either node is committed: apply it to the SCSI layer. The same one
    /// may come again after a change of configuration.
    State {
        /// Which part of the SCSI state; the SCSI layer's number.
        kind: u16,
        /// What it is now.
        bytes: Box<[u8]>,
    },
    /// A word for `Node`.
    Tell(FromVolume),
}
