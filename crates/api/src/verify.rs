//! Verification: both copies of a volume are read and compared from end to end.

use serde::{Deserialize, Serialize};

/// What becomes of differences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// They are reported.
    #[default]
    Report,
    /// The copy of the node that orders writes at that time is right.
    Owner,
    /// Node 1's copy is right.
    Node1,
    /// Node 2's copy is right.
    Node2,
}

impl Repair {
    /// The word for it, as it is written in files and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Owner => "owner",
            Self::Node1 => "node1",
            Self::Node2 => "node2",
        }
    }
}

/// POST /v1/volumes/NAME/verify.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartVerify {
    /// What becomes of differences.
    #[serde(default)]
    pub repair: Repair,
}

/// A verification that runs, or the last one since the daemon of this node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// It runs.
    pub running: bool,
    /// It came to the end of the volume.
    pub complete: bool,
    /// Bytes compared.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Pieces of 64 KiB that differed.
    pub differing: u64,
    /// Pieces among them that were rewritten.
    pub repaired: u64,
    /// Pieces that could not be read in one of the copies.
    pub unreadable: u64,
}
