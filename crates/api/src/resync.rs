//! Resyncs: how much they may take from initiators, and how one that runs goes.

use serde::{Deserialize, Serialize};

/// How much of a volume's speed a resync may take from initiators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Their latency stays within 1.5 times what it is without a resync.
    Low,
    /// Within twice.
    #[default]
    Normal,
    /// Within four times.
    High,
}

impl Priority {
    /// The word for it, as it is written in files and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// What initiators' latency may become, in percent of what it is without a resync.
    #[must_use]
    pub const fn percent(self) -> u32 {
        match self {
            Self::Low => 150,
            Self::Normal => 200,
            Self::High => 400,
        }
    }
}

/// PUT /v1/volumes/NAME/resync.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPriority {
    /// `null`: what each node's lockstep.toml says.
    pub priority: Option<Priority>,
}

/// How a resync from this node goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// `collecting`, `persisting`, `waiting`, `copying`, `draining`, `flushing`, `ready`.
    pub phase: String,
    /// Steps under way.
    pub steps: u32,
    /// Bytes a second that it is held to; absent: not held back.
    pub limit: Option<u64>,
    /// `unlimited`, `learning`, `latency`, `floor`, `losing-ground`.
    pub reason: String,
    /// The same in a sentence, or what is waited for.
    pub because: String,
    /// 95th percentile of initiators' reads and writes without a resync, in microseconds; 0: not
    /// known yet.
    pub calm_us: u64,
    /// The same while this resync runs.
    pub under_way_us: u64,
}
