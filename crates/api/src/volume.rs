//! Volumes: what is asked for, and what is.

use crate::forced::Forced;
use crate::health::{Damage, SlowPart};
use crate::quantity::Size;
use crate::resync::{Pace, Priority};
use crate::verify::Verify;
use serde::{Deserialize, Serialize};

/// When a write is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Past the page cache; durable on both nodes before the answer.
    None,
    /// Durable on both nodes before the answer; reads come from the page cache.
    #[default]
    WriteThrough,
    /// In both nodes' memory before the answer; a flush makes it durable.
    WriteBack,
}

impl Cache {
    /// The word for it, as it is written in files and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::WriteThrough => "write-through",
            Self::WriteBack => "write-back",
        }
    }
}

/// Who decides when the two nodes do not see each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The node that initiators use goes on alone. Both do if initiators reach both.
    #[default]
    Heartbeat,
    /// The node with which the witness agrees; the other one never serves.
    Majority,
}

impl Strategy {
    /// The word for it, as it is written in files and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Majority => "majority",
        }
    }
}

/// PUT /v1/volumes/NAME/strategy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetStrategy {
    /// The new one.
    pub strategy: Strategy,
}

/// POST /v1/volumes. What is left out takes the default named here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// 1 to 64 of `a-z 0-9 - .`, beginning with a letter or digit; part of the target's name.
    pub name: String,
    /// A multiple of the block size, at least 1 MiB.
    pub size: Size,
    /// 512 (default) or 4096.
    #[serde(default)]
    pub block_size: Option<u32>,
    /// Default: write-through.
    #[serde(default)]
    pub cache: Cache,
    /// Default: heartbeat. Majority needs a witness.
    #[serde(default)]
    pub strategy: Strategy,
    /// Where the images lie, for each node; default: `<store>/<name>.img` on both nodes.
    #[serde(default)]
    pub replicas: Vec<ReplicaPlace>,
    /// Accounts that may log in; empty: no authentication.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// The account whose secret the target proves to initiators that ask.
    #[serde(default)]
    pub mutual: Option<String>,
    /// Initiator names that may log in; empty: all.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Write zeroes over the whole image while it is made, instead of reserving space only.
    #[serde(default)]
    pub prefill: bool,
    /// Take an image that exists as it is. Both nodes' images must be equal: nothing is copied.
    #[serde(default)]
    pub adopt: bool,
}

/// Where one node keeps its copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaPlace {
    /// 1 or 2.
    pub node: u8,
    /// A file or block device; a relative path is below the node's store.
    pub image: String,
}

/// POST and PUT /v1/volumes/NAME/replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaAt {
    /// A file or block device of that node; absent: where it is, or the usual place of a new one.
    #[serde(default)]
    pub image: Option<String>,
    /// PUT: the volume's name once more.
    #[serde(default)]
    pub confirm: String,
}

/// Whom a volume lets in; replaces what was there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAccess {
    /// Accounts that may log in; empty: no authentication.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// The account whose secret the target proves.
    #[serde(default)]
    pub mutual: Option<String>,
    /// Initiator names that may log in; empty: all.
    #[serde(default)]
    pub allow: Vec<String>,
}

/// One volume as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its UUID, with hyphens.
    pub uuid: String,
    /// Exported bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// When writes are answered.
    pub cache: Cache,
    /// Who decides when the nodes do not see each other, as it was asked for.
    #[serde(default)]
    pub strategy: Strategy,
    /// The strategy that the configuration in force was decided with.
    #[serde(default)]
    pub strategy_in_force: Strategy,
    /// The target's iSCSI name.
    pub target: String,
    /// LUN in that target.
    pub lun: u8,
    /// `provisioning`, `opening`, `waiting`, `serving`, `serving-alone`, `resyncing`, `following`,
    /// `unavailable`, `split-brain`, `failed`: one word for the whole.
    pub state: String,
    /// A sentence: why it is so, and what it waits for.
    pub reason: String,
    /// Epoch of the configuration in force; 0: none yet.
    pub epoch: u64,
    /// Numbers of the nodes that hold every acknowledged write.
    pub members: Vec<u8>,
    /// Number of the node that orders its operations; 0: none yet.
    pub owner: u8,
    /// An operator's decision under which acknowledged writes may have been lost; until both copies
    /// are equal again.
    #[serde(default)]
    pub forced: Option<Forced>,
    /// Bytes that the partner's copy lacks (or may lack).
    pub dirty: u64,
    /// What the partner says of its own copy in the same way; absent: it is not heard.
    #[serde(default)]
    pub partner_dirty: Option<u64>,
    /// While copying to the partner.
    pub resync: Option<Progress>,
    /// How much a resync may take from initiators.
    #[serde(default)]
    pub priority: Priority,
    /// How fast that copy may go, and why.
    #[serde(default)]
    pub pace: Option<Pace>,
    /// Resyncs from this node that stood still and were begun anew, since its daemon started.
    #[serde(default)]
    pub resync_restarts: u64,
    /// A verification from this node that runs, or the last one.
    #[serde(default)]
    pub verify: Option<Verify>,
    /// Reads of initiators that found blocks unreadable on this node while the other one held them,
    /// since its daemon started.
    #[serde(default)]
    pub unreadable: u64,
    /// Times that blocks of this node's copy were rewritten from the other one.
    #[serde(default)]
    pub repaired: u64,
    /// Reads that no copy could answer: initiators were told MEDIUM ERROR.
    #[serde(default)]
    pub unreadable_lost: u64,
    /// The newest places of this node's copy that were found damaged since its daemon started, at
    /// most 8, newest first.
    #[serde(default)]
    pub damage: Vec<Damage>,
    /// Parts that are far slower than usual.
    #[serde(default)]
    pub slow: Vec<SlowPart>,
    /// Bytes that this node compared with the partner's copy in resyncs since its daemon started.
    #[serde(default)]
    pub resync_compared: u64,
    /// Bytes among them that differed and were copied to the partner.
    #[serde(default)]
    pub resync_copied: u64,
    /// Resyncs among them that had to compare all of the volume.
    #[serde(default)]
    pub full_resyncs: u64,
    /// Reads of this node's initiators that the partner served since this daemon started: this node
    /// was no member.
    #[serde(default)]
    pub proxied_reads: u64,
    /// Writes and other operations that the partner carried out for them.
    #[serde(default)]
    pub proxied_writes: u64,
    /// While making the image.
    pub provisioning: Option<Progress>,
    /// Open iSCSI sessions on this node.
    pub sessions: u32,
    /// Accounts that may log in.
    pub accounts: Vec<String>,
    /// Initiator names that may log in; empty: all.
    pub allow: Vec<String>,
    /// Its copies.
    pub replicas: Vec<Replica>,
}

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// 1 or 2.
    pub node: u8,
    /// The image.
    pub image: String,
    /// `up-to-date`, `inconsistent`, `outdated`, `failed`, `unknown`.
    pub state: String,
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes a second, lately; 0: not known yet.
    pub rate: u64,
    /// Seconds left at that rate; absent: not known.
    pub left_s: Option<u64>,
}

impl Progress {
    /// Tenths of a percent, 0 to 1000.
    #[must_use]
    pub fn permille(&self) -> u64 {
        let done = u128::from(self.done.min(self.total)) * 1000;
        done.checked_div(u128::from(self.total))
            .and_then(|v| u64::try_from(v).ok())
            .unwrap_or(1000)
    }
}
