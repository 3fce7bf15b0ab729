//! The states that a volume passes on one node.

use crate::control::{Configuration, Incarnation, Time, WitnessId};
use crate::register::Proposal;
use crate::superblock::Lineage;

/// Where the volume stands on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Serving nobody: starting, suspended, waiting.
    Idle,
    /// Serving as one of two.
    Member,
    /// Serving as the only member; perhaps bringing the partner's copy up to date.
    Alone(Sync),
    /// Being brought up to date by this configuration's owner.
    Target {
        source: Lineage,
        incarnation: Incarnation,
        offer: u32,
    },
}

/// How far the partner's copy is, as the source sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Not begun.
    Off,
    /// Both sides' dirty bits are being collected.
    Collecting { partner: Incarnation },
    /// Their union is durable; the target must record that it is inconsistent.
    Offered { partner: Incarnation },
    /// Blocks are being compared and copied.
    Copying { partner: Incarnation },
    /// Acknowledgements are held; both write join records, then the swap.
    Holding {
        partner: Incarnation,
        join: Configuration,
        since: Time,
        proposed: bool,
    },
    /// Joined here; the target has yet to adopt it.
    Joined { partner: Incarnation, since: Time },
}

/// What the data path was last told, and whether it has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Opening,
    /// Open, nothing served yet in this run.
    Ready,
    Serving,
    Suspending,
    Suspended,
    Following,
    Draining,
    Drained,
    Closing,
    Closed,
    /// It cannot even be opened.
    Failed,
}

/// A round of the register that this node proposes.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) proposal: Proposal,
    /// Who is asked besides the two nodes.
    pub(super) witness: Option<WitnessId>,
    /// This node's own acceptor lost its votes and is not asked.
    pub(super) without_own: bool,
    pub(super) since: Time,
}

/// Why a partner that is heard is to be put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eject {
    Late,
    ChannelDown,
    /// Who votes is to be changed: that begins with a single member, as every change does.
    Witness,
}
