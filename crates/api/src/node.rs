//! Commands to one node.

use serde::{Deserialize, Serialize};

/// POST /v1/node/maintenance: this node hands its volumes to the partner and stands aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnterMaintenance {
    /// The node that is meant, by number or name; empty: the one that is asked. Another one than
    /// that is refused.
    #[serde(default)]
    pub node: String,
    /// This node's name: even if the partner cannot serve some of the volumes.
    #[serde(default)]
    pub confirm: String,
}

/// How far a node is on its way into maintenance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaintenanceState {
    /// It serves as ever.
    #[default]
    Off,
    /// Initiators are sent away, and the volumes handed over.
    Entering,
    /// It serves nobody: the machine may be taken away.
    On,
}
