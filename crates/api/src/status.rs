//! The one screen that tells an operator whether to worry, and why; sessions and events.

use crate::node::MaintenanceState;
use crate::volume::Volume;
use serde::{Deserialize, Serialize};

/// GET /v1/status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The software's version.
    pub version: String,
    /// The cluster's name.
    pub cluster: String,
    /// This node's number, 1 or 2.
    pub node: u8,
    /// This node's name.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// The worst of `concerns`.
    pub level: Level,
    /// Everything that an operator should know or do, worst first.
    pub concerns: Vec<Concern>,
    /// Whether this node is in maintenance.
    #[serde(default)]
    pub maintenance: MaintenanceState,
    /// The other node.
    pub partner: Partner,
    /// The witness; absent: the pair has none.
    #[serde(default)]
    pub witness: Option<Witness>,
    /// All volumes.
    pub volumes: Vec<Volume>,
    /// Open iSCSI sessions on this node.
    pub sessions: u32,
    /// Generation of the pool configuration.
    pub generation: u64,
    /// Data portals of this node.
    pub portals: Vec<String>,
}

/// How bad.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing to worry about.
    #[default]
    Ok,
    /// It goes on working, with less safety than it should have.
    Degraded,
    /// Something is not served, or needs a person.
    Critical,
}

impl Level {
    /// One word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }
}

/// One thing that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concern {
    /// How bad.
    pub level: Level,
    /// Which thing ("volume vm1", "partner").
    pub what: String,
    /// What is the matter.
    pub why: String,
    /// What to do; may say that nothing is to be done.
    #[serde(rename = "do")]
    pub todo: String,
}

/// The other node as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partner {
    /// Its number; 0: this node has no partner.
    pub node: u8,
    /// Its name, if it ever told us.
    pub name: String,
    /// Whether a heartbeat came lately on any path.
    pub up: bool,
    /// Milliseconds since the newest heartbeat; absent: none in this run.
    pub heartbeat_age_ms: Option<u64>,
    /// Every configured path.
    pub paths: Vec<PathStatus>,
    /// Death certificates of its runs that this node acted on.
    #[serde(default)]
    pub certificates_taken: u64,
    /// Those that it refused.
    #[serde(default)]
    pub certificates_refused: u64,
}

/// The witness as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Where it should be.
    pub address: String,
    /// Whether it answers.
    pub up: bool,
    /// Whether it is the one whose vote counts: one that lost its votes must be admitted first.
    pub admitted: bool,
    /// Milliseconds since its last answer; absent: none in this run.
    pub age_ms: Option<u64>,
    /// Why it does not answer, or was refused; empty while up.
    pub error: String,
}

/// One way to the partner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStatus {
    /// `sync` carries data, `heartbeat` does not.
    pub kind: String,
    /// Our address.
    pub local: String,
    /// The partner's address.
    pub remote: String,
    /// Whether it works.
    pub up: bool,
    /// Why it does not; empty while up.
    pub error: String,
    /// Seconds since it came up or went down; absent: it never did in this run.
    #[serde(default)]
    pub changed_s: Option<u64>,
    /// From a heartbeat to its acknowledgement, the last time, in microseconds.
    #[serde(default)]
    pub round_trip_us: Option<u64>,
    /// Data connections over it now.
    #[serde(default)]
    pub channels: u32,
    /// Bytes sent over it in this run.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes received over it in this run.
    #[serde(default)]
    pub received_bytes: u64,
    /// Frames that came damaged or were not the partner's, and ended their connection.
    #[serde(default)]
    pub refused_frames: u64,
    /// Data connections given up because nothing came on them though the partner lived.
    #[serde(default)]
    pub given_up: u64,
    /// Whether full-size frames pass; absent: it is not a sync path, or nobody answered yet.
    #[serde(default)]
    pub mtu: Option<Mtu>,
}

/// What full-size frames did on a path when it was last made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mtu {
    /// The MTU of our interface.
    pub here: u32,
    /// The MTU of the partner's.
    pub there: u32,
    /// Whether a frame as large as ours arrived there.
    pub passes: bool,
    /// What is wrong; empty: nothing.
    pub warning: String,
}

/// One iSCSI session on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// InitiatorName.
    pub initiator: String,
    /// The volume's name.
    pub volume: String,
    /// The target's name.
    pub target: String,
    /// Address of the initiator.
    pub peer: String,
    /// Our portal.
    pub portal: String,
    /// Commands in progress.
    pub tasks: u32,
}

/// One entry of the durable list of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1, never reused.
    pub number: u64,
    /// Seconds since 1970, UTC.
    pub time: u64,
    /// How bad.
    pub level: Level,
    /// Who or what caused it: `operator`, `node`, `partner`, `disk`, `initiator`.
    pub actor: String,
    /// Which thing it is about.
    pub subject: String,
    /// What happened and why.
    pub text: String,
}
