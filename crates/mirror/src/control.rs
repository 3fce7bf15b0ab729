//! What `Node` and a volume's data path (in a `Shard`) say to each other. `Node` decides who may
//! serve and owns the superblock; the data path owns intents, dirty bits and resync.

use crate::operation::Extent;
use core::time::Duration;

/// Time since the machine started (`CLOCK_BOOTTIME`).
pub type Time = Duration;

/// A volume's UUID; it also makes the identity that initiators see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct VolumeId(pub u128);

/// One of the two data nodes, or the witness: 1, 2, or 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeId(pub u8);

/// One run of a daemon, named by a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Incarnation(pub u64);

/// A set of data nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Members(pub u8);

impl Members {
    /// Exactly one node.
    #[must_use]
    pub const fn only(node: NodeId) -> Self {
        Self(1 << node.0)
    }
    /// This set and one more.
    #[must_use]
    pub const fn with(self, node: NodeId) -> Self {
        Self(self.0 | 1 << node.0)
    }
    /// This set less one.
    #[must_use]
    pub const fn without(self, node: NodeId) -> Self {
        Self(self.0 & !(1 << node.0))
    }
    /// Whether the node is in the set.
    #[must_use]
    pub const fn contains(self, node: NodeId) -> bool {
        self.0 & 1 << node.0 != 0
    }
    /// How many nodes.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// The decided truth about who may serve a volume; identified by (epoch, generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Configuration {
    /// Orders one lineage; a new one is 1 + the greatest that either side has seen. 0: none yet.
    pub epoch: u64,
    /// Random; tells two lineages with the same number apart.
    pub generation: u128,
    /// Who holds every acknowledged write.
    pub members: Members,
    /// The member that sequences operations.
    pub owner: NodeId,
    /// Taken in heartbeat mode without the partner's vote.
    pub unilateral: bool,
    /// Who votes on the next one besides the two nodes; `None`: heartbeat strategy.
    pub witness: Option<WitnessId>,
}

/// One life of a witness's votes: a number that it draws when it finds none of its own. One that
/// lost its votes therefore has another, and is no acceptor of anything until it is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct WitnessId(pub core::num::NonZeroU32);

/// The number of the witness among the acceptors.
pub const WITNESS: NodeId = NodeId(3);

/// When a write may be answered (`docs/replication.md`, cache modes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum CacheMode {
    /// O_DIRECT, durable on both before GOOD.
    None,
    /// Durable on both before GOOD, reads cached by the page cache.
    #[default]
    WriteThrough,
    /// In both nodes' memory before GOOD; a flush makes it durable.
    WriteBack,
}

/// What a data path must know of its volume; all of it is agreed by both nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct VolumeSpec {
    /// Which volume.
    pub id: VolumeId,
    /// Exported size in bytes, a multiple of the block size.
    pub size: u64,
    /// Logical block size in bytes: 512 or 4096.
    pub block_size: u32,
    /// When writes are answered.
    pub cache: CacheMode,
    /// This node.
    pub me: NodeId,
    /// The other data node; `None` for a volume with a single replica.
    pub partner: Option<NodeId>,
    /// This run of this daemon.
    pub incarnation: Incarnation,
}

/// How a resync and the initiators share a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Pacing {
    /// How much the 95th percentile of initiators' latency may be of what it is without a resync,
    /// in percent; 0: no bound.
    pub factor_percent: u32,
    /// Bytes a second that a resync is never held below.
    pub floor: u64,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            factor_percent: 200,
            floor: 32 << 20,
        }
    }
}

/// What becomes of differences that a verification finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum Repair {
    /// They are reported.
    #[default]
    Report,
    /// The owner's copy is right.
    Owner,
    /// That node's copy is right.
    Node(NodeId),
}

/// What a verification found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Verified {
    /// Whether all of the volume was compared.
    pub complete: bool,
    /// Bytes compared.
    pub done: u64,
    /// Pieces of 64 KiB that differed.
    pub differing: u64,
    /// Pieces among them that were rewritten.
    pub repaired: u64,
    /// Pieces that could not be read in one of the copies; what the other one has was rewritten.
    pub unreadable: u64,
}

/// What may become slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum SlowPart {
    /// Writes to the store of this node.
    Write,
    /// Flushes of it.
    Flush,
    /// What the partner is asked to store: the links, its machine, its disk.
    Partner,
    /// What it is asked to flush.
    PartnerFlush,
}

/// `Node` to a volume's data path. Each order supersedes the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum ToVolume {
    /// There is no copy here that could be used: commands are passed to the partner or refused.
    NoCopy,
    /// Load intents and dirty bits; serve nothing yet. Answered by `Opened` or `DiskFailed`.
    /// `blank`: a new metadata area, to be written empty first.
    Open {
        /// Whether the metadata area is new.
        blank: bool,
    },
    /// Serve as a member of this configuration, whose superblock is durable on this node.
    ///
    /// Alone: first every set intent becomes durable dirty bits of its region (if there is a
    /// partner); operations inherited from the configuration before are sequenced anew or kept,
    /// and are neither acknowledged nor seen by a read before `not_before`.
    /// With the partner: operations wait for the data channel; numbers start again at 1.
    /// `partner_incarnation`: frames of any other run of the partner are refused.
    /// `joined`: this configuration ends a resync; dirty bits and intents of before are dropped.
    Serve {
        /// What to serve under.
        configuration: Configuration,
        /// The run of the partner that is the other member.
        partner_incarnation: Option<Incarnation>,
        /// Nothing inherited is acknowledged or read before.
        not_before: Time,
        /// Both copies are equal.
        joined: bool,
    },
    /// Stop admitting, acknowledging, granting; hold what initiators sent. Answered by `Suspended`.
    Suspend,
    /// The partner is not heard: have the initiators show that they reach this node. Answered by
    /// `Reached` when the first one does; what an initiator showed before counts no more.
    Ask,
    /// With the partner in the configuration: reads may be served until then (leases).
    Lease {
        /// When it ends.
        until: Time,
    },
    /// While serving alone: bring the partner's copy up to date. The data path collects both
    /// sides' dirty bits and intents, makes the union durable as its own dirty bits, and answers
    /// `UnionDurable`; copying starts with `Copy`. `everything`: mark all of the volume dirty.
    Collect {
        /// The run of the partner that is the target.
        partner_incarnation: Incarnation,
        /// Compare all of the volume.
        everything: bool,
    },
    /// The target has recorded that it is inconsistent: copy now.
    Copy,
    /// The partner went or the join failed: go on alone under the present configuration, keep
    /// the dirty bits. Undoes `Collect`, `Copy`, and the hold that `JoinReady` announced.
    Alone,
    /// Be the resync target of this (source's) configuration: answer nothing to initiators,
    /// apply what the source sends, keep own dirty bits and intents.
    Follow {
        /// The source's configuration.
        source: Configuration,
        /// Which run of it.
        source_incarnation: Incarnation,
    },
    /// No member: have the partner, which serves this configuration alone, carry out what this
    /// node's initiators want; its run. `None`: not any more. Ended by `Serve`. Answered by
    /// `Proxying` each time that the partner agrees or can no longer be reached.
    Proxy {
        /// Whom to pass commands to.
        host: Option<(Configuration, Incarnation)>,
    },
    /// Planned end of service here: admit nothing more, drain to commit (at most until `by`),
    /// answer `Drained`. A replica drains what its own initiators sent; the owner's operations it
    /// applies and acknowledges until `Close`. A volume that is told to `Serve` again goes on.
    Drain {
        /// Answered by then, whatever is left.
        by: Time,
    },
    /// As the owner with both members in step: compare both copies. Ended by `Verified`.
    Verify {
        /// What becomes of differences.
        repair: Repair,
    },
    /// End a verification.
    EndVerify,
    /// How fast resyncs may go from now on; needs no answer and changes nothing else.
    Pace(Pacing),
    /// Flush, and if nothing is uncommitted clear the intents. Answered by `Closed`.
    Close {
        /// The partner serves alone, and whatever may differ between the copies is durably marked
        /// there: what this replica applied for it and knows nothing more of needs no intent here.
        covered: bool,
    },
}

/// A volume's data path to `Node`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub enum FromVolume {
    /// Intents and dirty bits are loaded.
    Opened {
        /// Bytes marked dirty.
        dirty: u64,
        /// Regions with a set intent.
        intents: u32,
    },
    /// So many sectors of intents or pages of dirty bits were damaged or of another place: all
    /// that they stand for counts as different. Said before `Opened`.
    Damaged {
        /// Sectors and pages.
        parts: u32,
    },
    /// Nothing is admitted, acknowledged or granted any more.
    Suspended,
    /// `Serve` of that epoch is in force (alone: its dirty bits are durable).
    Serving {
        /// Epoch of the configuration.
        epoch: u64,
    },
    /// An initiator's operation waits for this volume to be served, and after `Suspend` an
    /// initiator has shown that it reaches this node: the lazy unilateral step may be taken. Sent
    /// once after each `Suspend` or `Ask` and after `Open`, when the first one waits.
    Wanted,
    /// An initiator has shown that it reaches this node: once after each `Ask`.
    Reached,
    /// An operation has waited for the partner for more than 5 s.
    Late,
    /// The disk failed a write or a flush, or the metadata area cannot be read.
    DiskFailed,
    /// The data channel to the partner came up or went away.
    Channel {
        /// Whether at least one connection is up.
        up: bool,
    },
    /// Both sides' dirty bits and intents are durable here as dirty bits.
    UnionDurable {
        /// Bytes to be compared.
        dirty: u64,
    },
    /// Progress of a copy, at most once a second.
    Progress {
        /// Bytes still dirty.
        dirty: u64,
        /// Bytes compared or copied since `Copy`.
        done: u64,
    },
    /// Acknowledgements are held, everything is drained and flushed on both, nothing is dirty:
    /// the partner may become a member now. Held until `Serve` or `Alone`.
    JoinReady,
    /// Initiators' commands are passed to the partner, or not any more.
    Proxying {
        /// Whether they are.
        up: bool,
    },
    /// Answer to `Drain`; `clean`: nothing that was admitted here is uncommitted.
    Drained {
        /// Whether everything admitted here was committed.
        clean: bool,
    },
    /// Answer to `Close`; `clean`: flushed, and no intent is set.
    Closed {
        /// Whether the next start has nothing to compare.
        clean: bool,
    },
    /// Blocks that could not be read here, or that differed, were rewritten from the partner.
    Repaired {
        /// Where.
        extent: Extent,
    },
    /// A verification found a difference, the first ones of each.
    Differs {
        /// Where: whole pieces of 64 KiB.
        extent: Extent,
    },
    /// A verification has ended.
    Verified(Verified),
    /// A copy stood still for no reason that has a name, and was begun anew.
    ResyncRestarted,
    /// A part is ten times slower than usual since half a minute, or not any more.
    Slow {
        /// Which.
        part: SlowPart,
        /// Whether that begins.
        begins: bool,
        /// What 99 of 100 operations take within, usually.
        usual: Time,
        /// What most of them take now.
        lately: Time,
    },
    /// A block could not be read here. Counted, named in the events.
    Unreadable {
        /// Where.
        extent: Extent,
    },
}
