//! What is not well with the parts of a volume although it is served: places on a disk that could
//! not be read, and parts that are far slower than usual.

use serde::{Deserialize, Serialize};

/// What became of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It could not be read, and was not rewritten since.
    #[default]
    Unreadable,
    /// Both copies differed, and it was not rewritten since.
    Differs,
    /// It was rewritten from the other node's copy.
    Repaired,
}

impl Outcome {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unreadable => "could not be read",
            Self::Differs => "differed from the other copy",
            Self::Repaired => "rewritten from the other copy",
        }
    }
}

/// A place of this node's copy that was found damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its first logical block.
    pub first_block: u64,
    /// How many blocks.
    pub blocks: u64,
    /// When it was last heard of: seconds since 1970, UTC.
    pub at: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// A part that has been ten times slower than usual for half a minute and more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowPart {
    /// `write`, `flush`: this node's disk; `partner`, `partner-flush`: the other node, its disk or
    /// the links to it.
    pub part: String,
    /// What 99 of 100 operations take within usually, microseconds.
    pub usual_us: u64,
    /// What most of them take longer than now, microseconds.
    pub lately_us: u64,
    /// For how long, seconds.
    pub for_s: u64,
}
