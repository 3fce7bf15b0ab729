//! The words that a membership takes and gives.

use crate::control::{Incarnation, Members, NodeId, Time, ToVolume, VolumeId, WitnessId};
use crate::decide::Mismatch;
use crate::hello::Random;
use crate::lease::Timing;
use crate::register::{Message, Vote};
use alloc::string::String;
use alloc::vec::Vec;

/// What is to be asked of the three acceptors of a volume now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Of this node's own.
    pub own: Option<Message>,
    /// Of the partner's.
    pub partner: Option<Message>,
    /// Of this witness.
    pub witness: Option<(WitnessId, Message)>,
}

/// What a membership must know of its volume.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which volume.
    pub volume: VolumeId,
    /// This node.
    pub me: NodeId,
    /// The other one; `None` for a volume with a single replica.
    pub partner: Option<NodeId>,
    /// This run.
    pub incarnation: Incarnation,
    /// Exported size in bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Both replicas may be taken as zero.
    pub create: bool,
    /// A write is answered before it is durable: after a crash with open intents this copy may
    /// lack some.
    pub write_back: bool,
    /// Who shall vote besides the two nodes (`Membership::desire`).
    pub witness: Option<WitnessId>,
    /// While it may not serve itself it passes its initiators' commands to the partner.
    pub proxy: bool,
    /// The times.
    pub timing: Timing,
}

/// What this node hears of the partner, on all channels together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// No heartbeat on any channel for longer than `Timing::silence`, or none since the start.
    Silent {
        /// The last one, or the start of this run.
        since: Time,
    },
    /// Heartbeats of this run come.
    Heard {
        /// Which run.
        incarnation: Incarnation,
    },
}

/// How much an event matters to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A change of state.
    Info,
    /// It will need attention if it goes on.
    Warning,
    /// It needs attention.
    Error,
}

/// A decision of an operator under which acknowledged writes may have been given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// This copy is served whatever the other one holds.
    Activated {
        /// A resync had begun to write into it and not ended.
        corrupt: bool,
    },
    /// After a split brain one copy was kept.
    Kept {
        /// Whose.
        node: NodeId,
        /// Where the operator said so.
        by: NodeId,
        /// Bytes that are marked on the other copy: what was written there, as far as it is known
        /// here.
        lost: Option<u64>,
    },
}

/// What a membership wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// For the volume's data path.
    Order(ToVolume),
    /// Write a slot of the superblock durably; `superblock_written` brings the end.
    WriteSuperblock {
        /// 0 or 1.
        slot: u8,
        /// Its contents.
        bytes: Vec<u8>,
    },
    /// An operator's decision that may have given acknowledged writes up is in force here.
    Forced(Forced),
    /// Something that a person may want to read.
    Event {
        /// How much it matters.
        severity: Severity,
        /// What happened and why.
        text: String,
    },
}

/// What a step may use and where it leaves its outputs.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Now.
    pub now: Time,
    /// The durable vote of this node's acceptor.
    pub vote: Vote,
    /// For the names of new configurations.
    pub random: &'a mut Random,
    /// Outputs, in order.
    pub out: &'a mut Vec<Output>,
}

impl Turn<'_> {
    pub(super) fn event(&mut self, severity: Severity, text: String) {
        self.out.push(Output::Event { severity, text });
    }
}

/// Why nobody is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Metadata are being read.
    Opening,
    /// Promises of the run before may still hold.
    Starting,
    /// The partner is heard, its word on this volume has yet to come.
    Meeting,
    /// The last configuration names both: only the partner knows whether it went on alone.
    NeedsPartner,
    /// The partner went on without this node, whose copy is behind.
    Outdated,
    /// A join was begun and its end is not known here.
    OpenJoin,
    /// The register's votes were lost; the partner must be met before anything is done alone.
    LostVotes,
    /// The partner is silent; the first operation of an initiator makes this node go on alone.
    Lazy,
    /// The partner is silent, and so is the witness: without one of them nothing can be decided.
    NeedsQuorum,
    /// It crashed with writes that were answered but not yet durable: only the partner has them.
    NeedsWrites,
    /// A change of the configuration is being decided.
    Deciding,
    /// The other copy is the source; it will offer what this one lacks.
    AwaitingSource,
    /// Neither copy here holds every acknowledged write; the copy of one of these would.
    NeedsCopyOf(Members),
    /// Both replicas are blank and nobody said that they may be taken as zero.
    NeedsCreation,
    /// The two nodes disagree about what the volume is.
    Mismatch(Mismatch),
    /// Both copies were written apart.
    SplitBrain,
    /// This node's disk failed.
    DiskFailed,
    /// The superblock cannot be used.
    Refused,
    /// This node is being stopped.
    Stopping,
    /// This node is in maintenance.
    Maintenance,
}
