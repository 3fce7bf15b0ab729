//! What an operator decided where acknowledged writes may have been lost by it.

use crate::quantity::Size;
use crate::time::utc;
use serde::{Deserialize, Serialize};

/// Which decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// `lockstep volume force-activate`: the copy of a node was served, whatever the other held.
    #[default]
    ForceActivate,
    /// `lockstep volume resolve`: after a split brain one copy was kept.
    Resolve,
}

/// A decision that is in force, shown until both copies are equal again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// Which.
    pub decision: Decision,
    /// Number of the node at which it was given.
    pub by: u8,
    /// Number of the node whose copy is the one now.
    pub kept: u8,
    /// When it came into force: seconds since 1970, UTC.
    pub at: u64,
    /// A resync had begun to write into that copy and not ended.
    #[serde(default)]
    pub corrupt: bool,
    /// Bytes marked as written on the copy that was given up; absent: not known.
    #[serde(default)]
    pub lost: Option<u64>,
}

impl Forced {
    /// A sentence for people: what was decided, when, where, and what may be lost.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { by, kept, .. } = *self;
        let at = utc(self.at);
        let other = 3_u8.saturating_sub(kept);
        match self.decision {
            Decision::ForceActivate => {
                let corrupt = if self.corrupt {
                    "; a resync had begun to write into that copy: file systems on it may be corrupt"
                } else {
                    ""
                };
                format!(
                    "the copy of node {kept} is served by force since {at} UTC (node {by}): \
                    acknowledged writes that only node {other} holds are missing{corrupt}"
                )
            }
            Decision::Resolve => {
                let lost = self.lost.map_or_else(String::new, |bytes| {
                    format!(" ({} marked)", Size(bytes).rounded())
                });
                format!(
                    "both copies were written apart, and that of node {kept} was kept at {at} UTC \
                    (node {by}): what node {other} wrote apart{lost} is lost"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_decision_is_told_with_when_where_and_what_may_be_lost() {
        let forced = Forced {
            by: 1,
            kept: 1,
            corrupt: true,
            ..Forced::default()
        };
        let text = forced.sentence();
        for part in ["1970-01-01", "(node 1)", "only node 2 holds", "corrupt"] {
            assert!(text.contains(part), "{text}");
        }
        let resolved = Forced {
            decision: Decision::Resolve,
            by: 1,
            kept: 2,
            lost: Some(32 << 20),
            ..Forced::default()
        };
        let text = resolved.sentence();
        assert!(text.contains("what node 1 wrote apart (32"), "{text}");
        assert!(text.contains("that of node 2 was kept"), "{text}");
    }
}
