//! What the iSCSI layer says to the engine and is told by it. Block data is never here: a task is
//! named, and the engine knows in which buffer its data lies.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

/// Time since the machine started.
pub type Time = Duration;

/// One TCP connection, named by the driver; a stale generation is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct ConnId {
    /// Index in the driver's and the engine's tables.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// One SCSI command in progress; a stale generation is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Index in the layer's task table (small, dense: the engine may keep a parallel table).
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// An I_T nexus: one iSCSI session; never reused in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexusId(pub u32);

/// Index of a target in [`Settings::targets`] order; stable while the target exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct TargetId(pub u32);

/// What the connection needs next from its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Exactly this many bytes (1 to 65,544), handed over by `bytes`.
    Bytes(u32),
    /// This many bytes of a task's data, put by the driver at `offset` of the task's buffer;
    /// then `data` with their CRC32C. Padding and digest are wanted separately, as `Bytes`.
    /// It stays wanted even if the task is answered meanwhile: no `Abort` comes before `data` or
    /// `closed`, and the buffer is needed until then.
    Data {
        /// The task.
        task: TaskId,
        /// Offset in the buffer of the task, bytes.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// This many bytes that nobody needs; then `skipped`.
    Skip(u32),
    /// Nothing for now: the socket stays unread until something changes.
    Wait,
}

/// Up to 52 bytes: a basic header segment and, if negotiated, its digest. Longer AHS never go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The bytes; only the first `len` count.
    pub bytes: [u8; 52],
    /// 48, or 52 with header digest.
    pub len: u8,
}

/// What follows the header of a PDU that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// Text, sense, parameter data: complete with padding and digest.
    Bytes(Vec<u8>),
    /// A piece of the task's buffer. The driver adds padding to 4 bytes and, if `digest`, the
    /// CRC32C of data and padding.
    Data {
        /// The task.
        task: TaskId,
        /// Offset in the buffer of the task, bytes.
        offset: u32,
        /// Bytes.
        len: u32,
        /// A data digest goes out behind the data.
        digest: bool,
    },
}

/// A command, handed over in CmdSN order as soon as its header is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name until it is answered.
    pub task: TaskId,
    /// Who sent it.
    pub nexus: NexusId,
    /// Which target.
    pub target: TargetId,
    /// The eight bytes of the LUN field.
    pub lun: [u8; 8],
    /// The CDB, extended by AHS up to 32 bytes; zero-padded.
    pub cdb: [u8; 32],
    /// Expected data transfer length in bytes.
    pub expected: u32,
    /// The R bit: the initiator expects data.
    pub reads: bool,
    /// The W bit: the initiator has data to send.
    pub writes: bool,
    /// Task attribute: 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA.
    pub attribute: u8,
}

/// Task management functions that change more than their own tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// ABORT TASK SET and CLEAR TASK SET: no reset, tasks only (the flag: tell other nexuses 2F/00).
    TaskSet {
        /// Other nexuses are affected too.
        others: bool,
    },
    /// LOGICAL UNIT RESET.
    LogicalUnit,
    /// TARGET WARM RESET.
    TargetWarm,
    /// TARGET COLD RESET: all sessions of the target end.
    TargetCold,
}

/// From the iSCSI layer to the engine, in the order in which they must be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a PDU; those of one connection go out in this order.
    Send {
        /// The connection.
        conn: ConnId,
        /// Its header.
        head: Head,
        /// What follows.
        body: Body,
    },
    /// Close the connection once everything before has been sent.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// A new command: the engine answers with `Endpoint::expect_data` (a place for its data is
    /// ready) or `Endpoint::respond`.
    Command(Command),
    /// All data that the engine asked for is in its buffer. `crc`: CRC32C of all of it.
    DataIn {
        /// The task.
        task: TaskId,
        /// CRC32C of the data.
        crc: u32,
    },
    /// The task was aborted: the engine answers with `Endpoint::dropped`, or with `respond` if it
    /// is too late; but only when no write of it is in progress or can ever begin.
    Abort {
        /// The task.
        task: TaskId,
    },
    /// Tell the logical units. Tasks that end with it come as `Abort` before.
    Reset {
        /// The session.
        nexus: NexusId,
        /// Its target.
        target: TargetId,
        /// The LUN field of the request.
        lun: [u8; 8],
        /// What was asked for.
        reset: Reset,
    },
    /// A session entered full feature phase.
    NexusUp {
        /// The session.
        nexus: NexusId,
        /// Its target.
        target: TargetId,
        /// The connection.
        conn: ConnId,
        /// InitiatorName, in lower case.
        initiator: String,
        /// The initiator's part of the session name.
        isid: [u8; 6],
        /// Index of the portal it came through.
        portal: u16,
        /// Where it comes from.
        peer: SocketAddr,
    },
    /// A session ended; its tasks came as `Abort` before.
    NexusDown {
        /// The session.
        nexus: NexusId,
        /// Its target.
        target: TargetId,
    },
    /// The initiator answered a question for a sign of life.
    Alive {
        /// Its session.
        nexus: NexusId,
        /// Of this target.
        target: TargetId,
    },
    /// Something an operator may want to read (a refused login and why), already rate-limited.
    Note {
        /// One sentence.
        text: String,
    },
}

/// Data that goes to the initiator with a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataIn {
    /// None.
    None,
    /// Parameter data, inquiry pages: at most 64 KiB.
    Bytes(Vec<u8>),
    /// The first `len` bytes of the task's buffer. `len` is what the CDB asked for; the layer
    /// cuts it to the expected length and sets the residual.
    Buffer {
        /// Bytes.
        len: u32,
    },
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// SCSI status: 00 GOOD, 02 CHECK CONDITION, 08 BUSY, 18 RESERVATION CONFLICT, 28 TASK SET FULL, 40 TASK ABORTED.
    pub status: u8,
    /// Sense data (fixed or descriptor format), empty without CHECK CONDITION.
    pub sense: Vec<u8>,
    /// Data for the initiator.
    pub data_in: DataIn,
    /// Bytes that the CDB asked the initiator to send (for the residual of writes); 0 for others.
    pub data_out: u32,
}

/// CHAP for one direction.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct ChapSecret {
    /// CHAP_N.
    pub name: String,
    /// The secret itself; never logged.
    pub secret: Vec<u8>,
}

impl core::fmt::Debug for ChapSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ChapSecret({})", self.name)
    }
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct TargetSettings {
    /// Its name for the engine.
    pub id: TargetId,
    /// iqn.…, lower case.
    pub name: String,
    /// TargetAlias, may be empty.
    pub alias: String,
    /// Accounts that may log in; empty: no authentication needed.
    pub chap: Vec<ChapSecret>,
    /// What the target proves to initiators that ask (mutual CHAP).
    pub mutual: Option<ChapSecret>,
    /// Initiator names that may log in; empty: all.
    pub allow: Vec<String>,
}

/// A data portal of either node, as SendTargets lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Portal {
    /// Address and port as initiators reach it.
    pub address: SocketAddr,
    /// Target portal group: the node's number.
    pub group: u16,
}

/// Everything the layer must know, replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Settings {
    /// All targets.
    pub targets: Vec<TargetSettings>,
    /// All data portals of both nodes, this node's first or second alike.
    pub portals: Vec<Portal>,
    /// This node's portal group tag.
    pub group: u16,
    /// Accounts for discovery sessions; empty: no authentication needed.
    pub discovery_chap: Vec<ChapSecret>,
    /// What the target proves in discovery sessions, to initiators that ask (mutual CHAP).
    pub discovery_mutual: Option<ChapSecret>,
    /// Seconds between NOP-Ins on an idle connection; 0: never.
    pub nop_interval_s: u32,
    /// Seconds to answer one before the connection is closed.
    pub nop_timeout_s: u32,
    /// Seconds to finish a login.
    pub login_timeout_s: u32,
    /// Largest data segment we accept, bytes.
    pub max_receive: u32,
    /// Upper bounds offered in negotiation, bytes.
    pub max_burst: u32,
    /// Upper bound of unsolicited data, bytes.
    pub first_burst: u32,
    /// Commands a session may have outstanding.
    pub command_window: u32,
    /// Open connections, and among them connections that have not logged in, that are taken.
    pub max_connections: u32,
    /// See above.
    pub max_half_open: u32,
}
