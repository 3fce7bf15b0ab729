//! What a `Node` is told, and what it wants done. The control thread carries actions out and
//! reports with events, exactly as a shard's thread does for `Shard`; it never decides.

use crate::interface::{FromShard, ToShard, VolumeSettings};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Incarnation, NodeId, Time, VolumeId, WitnessId};
use lockstep_mirror::control_frame::PoolVersion;
use lockstep_mirror::lease::Timing;
pub use lockstep_mirror::membership::status::{Standing, State, VolumeStatus};
pub use lockstep_mirror::membership::{Forced, Severity};

/// One control connection to the partner, named by the driver; never reused in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct LinkId(pub u64);

/// What a node must know from the start.
#[derive(Clone)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeSettings {
    /// This node's number, 1 or 2.
    pub node: NodeId,
    /// The other data node; `None`: a single node without partner.
    pub partner: Option<NodeId>,
    /// The cluster's id.
    pub cluster: u128,
    /// The pair's secret.
    pub secret: Box<[u8]>,
    /// This run, a random number.
    pub incarnation: Incarnation,
    /// Data portals of this node.
    pub portals: u16,
    /// Data portals of the partner.
    pub partner_portals: u16,
    /// Where it may not serve a volume itself, its initiators are served by the partner.
    pub proxy: bool,
    /// The times.
    pub timing: Timing,
    /// The register's file as found; `None`: there is none.
    pub acceptor: Option<Vec<u8>>,
    /// The pool configuration's file as found; `None`: there is none.
    pub pool: Option<Vec<u8>>,
    /// The last `StoreMaintenance`: this node starts in maintenance.
    #[cfg_attr(feature = "record", serde(default))]
    pub maintenance: bool,
}

/// A volume's place on this node is open and locked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct VolumeReady {
    /// As the shard must know it; `spec` names partner and incarnation.
    pub settings: VolumeSettings,
    /// The pool configuration says that the volume is new: both replicas may be taken as zero.
    pub create: bool,
    /// Who is to vote besides the two nodes; `None`: heartbeat strategy.
    pub witness: Option<WitnessId>,
    /// The two superblock slots as read, 4096 bytes each (zeroes where the file is short).
    pub superblocks: [Vec<u8>; 2],
}

/// What an operator may order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum Operator {
    /// After two nodes changed the pool configuration apart: this node's version is the one.
    KeepConfig,
    /// After a split brain of a volume: one node's copy is the one; what the other one wrote
    /// since they parted is lost.
    KeepCopy {
        /// The volume.
        volume: VolumeId,
        /// This node's copy is kept; else the partner's.
        mine: bool,
    },
    /// This node's copy is served although nobody can tell that it is the newest.
    ForceActivate {
        /// The volume.
        volume: VolumeId,
        /// Even if a resync has begun to write into it and not ended.
        corrupt: bool,
    },
    /// This node hands its volumes over and stands aside, or comes back.
    Maintenance {
        /// Whether it goes.
        enter: bool,
        /// Even if the partner cannot serve some of the volumes.
        force: bool,
    },
    /// An operator needs the volume as an initiator would: the partner is silent, and this node is
    /// to go on alone if it may.
    Need {
        /// The volume.
        volume: VolumeId,
    },
    /// What made the partner slow is mended: it may join again at once.
    Rejoin {
        /// The volume.
        volume: VolumeId,
    },
}

/// What happened.
#[derive(Debug)]
pub enum NodeEvent<'a> {
    /// A control connection is up; `path`: which of the configured paths it uses.
    LinkUp {
        /// Its name.
        link: LinkId,
        /// Index of the path.
        path: u16,
    },
    /// It is gone, whoever closed it; once for each `LinkUp`.
    LinkDown {
        /// Its name.
        link: LinkId,
    },
    /// Bytes came on it, in order, in pieces of any size.
    LinkBytes {
        /// Its name.
        link: LinkId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A volume was provisioned or opened. Node attaches it to its shard.
    VolumeReady(Box<VolumeReady>),
    /// Another witness, or none, is to vote for a volume from its next configuration on.
    Witness {
        /// Which volume.
        volume: VolumeId,
        /// Who; `None`: heartbeat strategy.
        witness: Option<WitnessId>,
    },
    /// The witness's secret, as the pool configuration has it; `None`: there is no witness.
    WitnessSecret(Option<Box<[u8]>>),
    /// A connection to the witness is up; the one before, if any, is closed.
    WitnessUp {
        /// Its name, among those of the control connections.
        link: LinkId,
    },
    /// A volume of the pool configuration cannot be opened here.
    VolumeUnavailable {
        /// Which one.
        volume: VolumeId,
        /// Why, for a person.
        reason: String,
        /// What it would be served by; `None`: not known. With a partner its initiators are then
        /// served by that, through this node.
        settings: Option<Box<VolumeSettings>>,
    },
    /// The copy here is to be let go for a while, in order: Node drains and detaches it, keeps its
    /// votes, and says [`NodeAction::VolumeClosed`].
    CloseVolume {
        /// Which one.
        volume: VolumeId,
    },
    /// A volume was deleted; Node detaches it.
    VolumeGone {
        /// Which one.
        volume: VolumeId,
    },
    /// A `WriteSuperblock` has ended.
    SuperblockWritten {
        /// Of this volume.
        volume: VolumeId,
        /// Whether it is durable.
        ok: bool,
    },
    /// A `WriteAcceptor` has ended.
    AcceptorWritten {
        /// Whether it is durable.
        ok: bool,
    },
    /// A `StoreConfig` has ended.
    ConfigStored {
        /// Whether it is durable.
        ok: bool,
    },
    /// An operator's change of the pool configuration; answered by `ConfigOutcome`.
    ProposeConfig {
        /// The whole new document, at most [`MAX_DOCUMENT`] bytes.
        document: Vec<u8>,
    },
    /// Which initiators are logged in to a volume at the partner? Answered by
    /// [`NodeAction::PartnerInitiators`], perhaps more than once, or never.
    AskInitiators {
        /// Names the question.
        number: u64,
        /// The volume.
        volume: VolumeId,
    },
    /// The answer to [`NodeAction::FindInitiators`].
    InitiatorsFound {
        /// As it was asked.
        link: LinkId,
        /// As it was asked.
        number: u64,
        /// The answer.
        found: Initiators,
    },
    /// The number of data portals of the two nodes changed.
    Portals {
        /// This node's.
        own: u16,
        /// The partner's.
        partner: u16,
    },
    /// When the slowest shard last turned.
    Stamp {
        /// The oldest of all shards' stamps.
        oldest: Time,
        /// Seconds since 1970 on this machine's wall clock; 0: not known. It is told to the
        /// partner and shown to people; nothing is decided by it.
        wall: u64,
    },
    /// A shard says something. Answers to `Sessions` and notes are not for Node.
    Shard(FromShard),
    /// SIGTERM: hand over, drain, flush, log out; ends with `Stopped`.
    Stop,
    /// An operator's order.
    Operator(Operator),
    /// The deadline has passed (or nothing in particular: always harmless).
    Tick,
}

/// Who is logged in to a volume at one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Initiators {
    /// Sessions.
    pub count: u32,
    /// The initiator of one of them; empty: there is none.
    pub first: String,
}

/// Longest pool configuration in bytes.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// What to do.
#[derive(Debug)]
pub enum NodeAction {
    /// Send these bytes on a link, in order.
    LinkSend {
        /// The link.
        link: LinkId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Nothing comes on it. Whoever dialed it makes another one beside it: a new connection is there
    /// as soon as the cable is. It stays, for it may only have become slow. At most once for a link.
    LinkRenew {
        /// The link.
        link: LinkId,
    },
    /// Close it at once; `LinkDown` follows. The dialing side dials again, unless it has done so.
    LinkClose {
        /// The link.
        link: LinkId,
        /// Nothing came on it any more; else its peer is not believed.
        silent: bool,
    },
    /// An operator's decision that may have given acknowledged writes up is in force here: it is
    /// to be shown until both copies are equal again.
    Forced {
        /// The volume.
        volume: VolumeId,
        /// What was decided.
        forced: Forced,
    },
    /// For the shard that holds the volume or target named in it.
    Order(ToShard),
    /// Write a superblock slot (4096 bytes at `slot` × 4096 of the metadata area), durably.
    WriteSuperblock {
        /// Of this volume.
        volume: VolumeId,
        /// 0 or 1.
        slot: u8,
        /// Its contents.
        bytes: Vec<u8>,
    },
    /// Replace the register's file, durably and atomically.
    WriteAcceptor {
        /// Its contents.
        bytes: Vec<u8>,
    },
    /// Note durably whether this node is in maintenance: the next run starts so.
    StoreMaintenance {
        /// Whether it is.
        on: bool,
    },
    /// Replace the pool configuration's file, durably and atomically.
    StoreConfig {
        /// Its contents.
        bytes: Vec<u8>,
    },
    /// This document is in force now (also once at the start): create, attach and delete volumes
    /// by it.
    ConfigCommitted {
        /// Counts the changes.
        generation: u64,
        /// The document.
        document: Vec<u8>,
    },
    /// The end of a `ProposeConfig`.
    ConfigOutcome(Result<u64, ConfigRefusal>),
    /// The partner asks which initiators are logged in to a volume here; answer with
    /// [`NodeEvent::InitiatorsFound`].
    FindInitiators {
        /// Hand it back.
        link: LinkId,
        /// Hand it back.
        number: u64,
        /// The volume; it may be one that is not known here.
        volume: VolumeId,
    },
    /// The partner's answer.
    PartnerInitiators {
        /// The question's.
        number: u64,
        /// Who is logged in there.
        found: Initiators,
    },
    /// The end of a `CloseVolume`: the shard was told to detach it.
    VolumeClosed {
        /// Which one.
        volume: VolumeId,
    },
    /// Open or close this node's data portals.
    Portals {
        /// Which.
        open: bool,
    },
    /// For the durable list of events.
    Event {
        /// What happened, and why.
        text: String,
        /// How much it matters.
        severity: Severity,
        /// The volume that it is about, if one.
        volume: Option<VolumeId>,
    },
    /// Nothing is left to do after `Stop`.
    Stopped {
        /// No volume has anything to compare after the next start.
        clean: bool,
    },
}

/// Why a change of the pool configuration was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRefusal {
    /// One at a time.
    #[error("another change of the pool configuration is under way: try again when it has ended")]
    Busy,
    /// Larger than allowed.
    #[error("the pool configuration is larger than {MAX_DOCUMENT} bytes")]
    TooLarge,
    /// The partner is not heard, and this node may not decide alone.
    #[error(
        "the partner is silent and this node does not serve every mirrored volume alone: it may hold newer \
         configuration; start the partner, or wait until this node serves alone"
    )]
    NotAlone,
    /// The partner is heard but did not take the change in time. It may still come into force.
    #[error(
        "the partner did not confirm the change in time: look at `lockstep status` before you try again"
    )]
    Unconfirmed,
    /// Both nodes were changed apart.
    #[error("the two nodes hold different pool configurations: resolve that first")]
    Conflict,
    /// It could not be stored.
    #[error(
        "the pool configuration could not be stored on this node: see its log for the disk error"
    )]
    NotStored,
    /// This node is being stopped.
    #[error("this node is being stopped")]
    Stopping,
}

/// A control link, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Its name.
    pub link: LinkId,
    /// Index of the path.
    pub path: u16,
    /// The handshake is done, and something comes on it.
    pub established: bool,
    /// Since the last heartbeat on it.
    pub heard: Option<Duration>,
    /// From a heartbeat to its acknowledgement, the last time.
    pub round_trip: Option<Duration>,
    /// Since it was established.
    pub since: Option<Duration>,
}

/// The connection to the witness, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WitnessStatus {
    /// The life of its votes; `None`: it is not connected.
    pub id: Option<WitnessId>,
    /// Since its last answer.
    pub heard: Option<Duration>,
    /// From a question to its answer, the last time.
    pub round_trip: Option<Duration>,
    /// Why it was refused, or refused this node.
    pub refused: Option<String>,
}

/// Death certificates that came in this run, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Acted on.
    pub taken: u64,
    /// Forged, of another run, or of another state than the one that both nodes served.
    pub refused: u64,
}

/// The pool configuration, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// The version in force here.
    pub committed: PoolVersion,
    /// A version that is prepared and not in force.
    pub prepared: Option<PoolVersion>,
    /// The partner's version where it and ours exclude each other.
    pub conflict: Option<PoolVersion>,
}

/// Maintenance, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaintenanceStatus {
    /// It serves as ever.
    #[default]
    Off,
    /// Initiators are sent away, and the volumes handed over.
    Entering,
    /// It serves nobody: the machine may be taken away.
    On,
}

/// Everything that `status` shows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// This node.
    pub node: NodeId,
    /// This run.
    pub incarnation: Incarnation,
    /// The other one.
    pub partner: Option<NodeId>,
    /// Since the last heartbeat of the partner on any link; `None`: never heard.
    pub partner_heard: Option<Duration>,
    /// Whether it counts as alive.
    pub partner_alive: bool,
    /// The partner's wall clock as it was last said (seconds since 1970), and how long ago;
    /// `None`: never, or it does not say.
    pub partner_wall: Option<(u64, Duration)>,
    /// All links.
    pub links: Vec<LinkStatus>,
    /// Paths whose last established link ended, and how long ago.
    pub lost: Vec<(u16, Duration)>,
    /// The witness.
    pub witness: WitnessStatus,
    /// Death certificates.
    pub certificates: CertificateStatus,
    /// All volumes.
    pub volumes: Vec<(VolumeId, VolumeStatus)>,
    /// The pool configuration.
    pub pool: PoolStatus,
    /// Whether the data portals are open.
    pub portals_open: bool,
    /// Whether this node is being stopped.
    pub stopping: bool,
    /// How far this node is on its way into maintenance.
    pub maintenance: MaintenanceStatus,
    /// What a person should look at, most important first.
    pub problems: Vec<String>,
}
