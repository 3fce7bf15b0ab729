//! What a `Shard` is told, and what it wants done. The driver (a ring in the daemon, pretend
//! disks and sockets in the simulator) carries actions out and reports with events; it never
//! decides. An action may be finished at once: the driver then queues its event for the same turn.

#![expect(missing_docs, reason = "a variant's sentence explains its fields")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;
use lockstep_iscsi::interface::{ConnId, Settings};
use lockstep_mirror::control::{
    FromVolume, Incarnation, NodeId, Time, ToVolume, VolumeId, VolumeSpec,
};
use lockstep_mirror::operation::BufferId;
use lockstep_mirror::volume_io::{Io, IoError, Value};
use lockstep_scsi::interface::{Identity, PortGroup};

/// The settings inside [`ToShard`], for drivers that depend on this crate alone.
pub use lockstep_iscsi::interface as iscsi;
/// Identities and port groups inside [`ToShard`].
pub use lockstep_scsi::interface as scsi;

/// Names one [`Action::Io`] until its [`Event::Io`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct IoKey {
    /// Index of the volume in the shard; the driver only hands it back.
    pub volume: u32,
    /// The volume's own name for it.
    pub id: u64,
}

/// What a connection needs next; the driver asks after every turn in which it had events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Exactly this many bytes, then `Event::Bytes`.
    Bytes(u32),
    /// This many bytes into the buffer at `at`, then `Event::Data`.
    Data { buffer: BufferId, at: u32, len: u32 },
    /// This many bytes that nobody needs, then `Event::Skipped`.
    Skip(u32),
    /// Leave the socket unread for now.
    Wait,
}

/// Why a connection exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum Origin {
    /// An initiator connected to this data portal (index into this node's portals).
    Portal(u16),
    /// The partner connected to our sync address of this number (index into the configuration).
    Partner(u16),
    /// We connected to the partner: the answer to `Action::Dial` with this number.
    Dialed(u32),
}

/// Up to 192 bytes that go out before a body: an iSCSI or a partner header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The bytes; only the first `len` count.
    pub bytes: [u8; 192],
    /// How many.
    pub len: u8,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// Bytes, complete with padding and digest where there are any.
    Bytes(Vec<u8>),
    /// Blocks from a buffer. `pad`: up to 3 zero bytes to a multiple of 4; `digest`: CRC32C of
    /// data and padding after that, which the driver computes.
    Blocks {
        buffer: BufferId,
        at: u32,
        len: u32,
        pad: bool,
        digest: bool,
    },
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection was accepted or a dial succeeded. The driver chose `conn` (slot and generation).
    Connected {
        conn: ConnId,
        origin: Origin,
        peer: SocketAddr,
    },
    /// A dial failed.
    DialFailed { dial: u32 },
    /// Fulfils `Want::Bytes`.
    Bytes { conn: ConnId, bytes: &'a [u8] },
    /// Fulfils `Want::Data`; the CRC32C of those bytes.
    Data { conn: ConnId, crc: u32 },
    /// Fulfils `Want::Skip`.
    Skipped { conn: ConnId },
    /// Blocks of this buffer that were in an `Action::Send` are no longer needed by the kernel
    /// (once for each `Body::Blocks`, also when the connection failed).
    Sent { buffer: BufferId },
    /// The connection is gone: closed by either side, reset, or unwritable for too long. Comes
    /// exactly once for each `Connected`, after which its name is not used any more.
    Closed { conn: ConnId },
    /// An `Action::Io` has ended.
    Io {
        key: IoKey,
        result: Result<Value, IoError>,
    },
    /// From `Node`.
    Order(ToShard),
    /// A deadline has passed (or nothing in particular: always harmless).
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Queue for sending; those of one connection go out in this order. Everything queued on a
    /// connection in one turn goes out in one send.
    Send {
        conn: ConnId,
        head: Head,
        body: Body,
    },
    /// Close once everything queued before was sent (or at once, if the peer does not read).
    Close { conn: ConnId },
    /// Close at once: what is queued is dropped, also what the kernel has, and the peer is told so.
    Abort { conn: ConnId },
    /// Connect to the partner's sync address number `address` (index into the configuration).
    Dial { dial: u32, address: u16 },
    /// Work on a volume's disk, metadata area or buffers.
    Io {
        key: IoKey,
        volume: VolumeId,
        io: Io,
    },
    /// A connection that wanted to `Wait` may want something else now.
    Wake { conn: ConnId },
    /// To `Node`.
    Report(FromShard),
}

/// One volume as the shard must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct VolumeSettings {
    /// For the mirror.
    pub spec: VolumeSpec,
    /// For initiators.
    pub identity: Identity,
    /// The target that shows it (index into `Settings::targets`), as LUN `lun`.
    pub target: u32,
    /// 0 to 255.
    pub lun: u8,
    /// Offers UNMAP.
    pub unmap: bool,
    /// log2 of logical blocks a physical block.
    pub physical_exponent: u8,
}

/// `Node` (and the control plane) to `Shard`.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum ToShard {
    /// Targets, portals, accounts: replaces what was there before.
    Settings(Box<Settings>),
    /// A volume's place is ready (the driver has opened its image and metadata area).
    Attach(Box<VolumeSettings>),
    /// The volume is gone: refuse everything, forget it.
    Detach(VolumeId),
    /// To the volume's data path.
    Volume(VolumeId, ToVolume),
    /// The newest heartbeat of the partner: forwarded operations carry its token, and the owner
    /// knows by it how long they have been under way (`Volume::token`). For all volumes.
    Token { token: u64, received: Time },
    /// ALUA: all port groups of a volume, ours and the partner's; a change raises 2A/06.
    PortGroups(VolumeId, Vec<PortGroup>),
    /// Secret and peer for the data channels, `connections` to each of `addresses`; `dial`: this
    /// side connects (the lower node number).
    Partner {
        node: NodeId,
        me: NodeId,
        incarnation: Incarnation,
        addresses: u16,
        connections: u16,
        dial: bool,
        secret: Box<[u8]>,
        cluster: u128,
    },
    /// The partner lives, but nothing has come over the path of this number since then: data
    /// channels on it that are as silent are given up.
    PathSilent { path: u16, since: Time },
    /// Ask all initiators to log out (planned stop), then close what is left by then.
    LogoutAll { by: Time },
    /// Let initiators in again after `LogoutAll`.
    Welcome,
    /// Close every iSCSI connection of this target now (its volume may not be served here).
    CloseSessions { target: u32 },
    /// Ask for a report of all sessions (`FromShard::Sessions`).
    Sessions,
}

/// `Shard` to `Node` and the control plane.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum FromShard {
    /// From a volume's data path.
    Volume(VolumeId, FromVolume),
    /// Answer to `Sessions`.
    Sessions(Vec<SessionInfo>),
    /// Something for the log, already rate-limited.
    Note(alloc::string::String),
    /// All initiators have left after `LogoutAll`.
    LoggedOut,
}

/// One iSCSI session, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct SessionInfo {
    /// InitiatorName (bounded by the login).
    pub initiator: alloc::string::String,
    /// Target index.
    pub target: u32,
    /// Peer address.
    pub peer: SocketAddr,
    /// Portal index.
    pub portal: u16,
    /// Commands in progress.
    pub tasks: u32,
}
