//! `lockstep.toml`: what is this node's own. Parsed once into plain data; whatever is wrong is
//! named with its file and line, and with what is allowed. `config/lockstep.toml` shows every key.

mod check;
mod read;

pub use read::{Refusal, Refusals};

use crate::uuid;
use lockstep_api::quantity::Size;
use lockstep_api::resync::Priority;
use lockstep_api::verify::Repair;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The example, which is also the list of all keys.
pub const EXAMPLE: &str = include_str!("../../../config/lockstep.toml");

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Which pair.
    pub cluster: Cluster,
    /// Which of the two.
    pub node: NodeIdentity,
    /// How it is administered.
    #[serde(default)]
    pub admin: Admin,
    /// Where initiators reach it.
    pub portals: Portals,
    /// How it reaches the other node.
    #[serde(default)]
    pub partner: Partner,
    /// Where images lie.
    #[serde(default)]
    pub storage: Storage,
    /// What it may use.
    #[serde(default)]
    pub engine: Engine,
    /// How resyncs and initiators share a volume.
    #[serde(default)]
    pub resync: Resync,
    /// When both copies are compared.
    #[serde(default)]
    pub verify: VerifySchedule,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The same on both nodes.
    pub uuid: Uuid,
    /// For people.
    #[serde(default = "default_cluster_name")]
    pub name: String,
    /// Reversed domain in the names of new targets.
    #[serde(default = "default_naming")]
    pub naming: String,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// 1 or 2.
    pub number: u8,
    /// For people; empty: the host name.
    #[serde(default)]
    pub name: String,
    /// Register, pool configuration, events.
    #[serde(default = "default_state")]
    pub state_directory: PathBuf,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Admin {
    /// Unix socket of the admin API.
    pub socket: PathBuf,
    /// Prometheus endpoint.
    pub metrics: OptionalAddress,
}

/// `[portals]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portals {
    /// At least one, at most [`PORTALS_MAX`].
    pub data: Vec<Address>,
}

/// `[partner]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Partner {
    /// Our ends of the data links.
    pub sync_local: Vec<Address>,
    /// The partner's ends.
    pub sync_remote: Vec<Address>,
    /// Data connections over each of them; at most [`CONNECTIONS_MAX`], and [`CHANNELS_MAX`] in all.
    pub connections: u16,
    /// Our ends of the heartbeat-only links.
    pub heartbeat_local: Vec<Address>,
    /// The partner's ends.
    pub heartbeat_remote: Vec<Address>,
    /// The pair's secret.
    pub secret_file: PathBuf,
    /// Where this node may not serve a volume itself, the partner serves its initiators.
    pub proxy: bool,
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// At least one.
    pub directories: Vec<PathBuf>,
}

/// `[engine]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Engine {
    /// 1.
    pub shards: u16,
    /// Memory for data on its way.
    pub pool_memory: Size,
}

/// `[resync]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resync {
    /// Of volumes that have none of their own.
    pub priority: Priority,
    /// Bytes a second that a resync is never held below.
    pub floor: Size,
}

/// `[verify]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifySchedule {
    /// Each volume whose writes this node orders, so long after the last time.
    pub every: Period,
    /// What becomes of differences.
    pub repair: Repair,
}

/// A time in days or hours, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(pub Option<Duration>);

impl TryFrom<String> for Period {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let wrong = || {
            format!(
                "\"{text}\" is not a time between verifications; allowed: 1h to 999d, such as \
                \"30d\" or \"12h\", or nothing"
            )
        };
        let hours = match text.strip_suffix('d') {
            Some(days) => days
                .parse::<u64>()
                .ok()
                .and_then(|days| days.checked_mul(24)),
            None => text.strip_suffix('h').and_then(|hours| hours.parse().ok()),
        };
        match hours {
            Some(hours @ 1..=23_976) => Ok(Self(Some(Duration::from_secs(hours * 3600)))),
            _ => Err(wrong()),
        }
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        let Some(time) = period.0 else {
            return Self::new();
        };
        let hours = time.as_secs() / 3600;
        if hours.is_multiple_of(24) {
            format!("{}d", hours / 24)
        } else {
            format!("{hours}h")
        }
    }
}

/// `[timeouts]`; their ordering is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// Between heartbeats.
    pub heartbeat_ms: u32,
    /// L of the replication protocol.
    pub lease_ms: u32,
    /// Without a heartbeat on any path: gone.
    pub silent_ms: u32,
    /// Initiators take another path after this.
    pub path_ms: u32,
    /// To finish a login.
    pub login_s: u32,
    /// Between NOP-Ins; 0: none.
    pub nop_interval_s: u32,
    /// To answer one.
    pub nop_timeout_s: u32,
}

/// Data portals of one node: the number of a port within its node has eight bits, of which one
/// value (0) is unused, and more than a few dozen make initiators slow.
pub const PORTALS_MAX: usize = 32;

/// Paths of each kind to the partner.
pub const PATHS_MAX: usize = 8;

/// Data connections over one link: more gain nothing, each costs an inbox of 256 KiB.
pub const CONNECTIONS_MAX: u16 = 4;

/// Data connections over all links: half of what a shard takes, for each may have a successor
/// before its end is noticed.
pub const CHANNELS_MAX: usize = 16;

/// A UUID in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid(pub u128);

impl TryFrom<String> for Uuid {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        uuid::parse(&text)
            .filter(|&value| value != 0)
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "\"{text}\" is not a UUID; allowed: 32 hexadecimal digits with hyphens, \
                    not all zero, as uuidgen makes them"
                )
            })
    }
}

impl From<Uuid> for String {
    fn from(value: Uuid) -> Self {
        uuid::format(value.0)
    }
}

/// An IP address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(pub SocketAddr);

impl TryFrom<String> for Address {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let address: SocketAddr = text.parse().map_err(|_| {
            format!(
                "\"{text}\" is not an address; allowed: IP:PORT, such as \
                \"192.0.2.1:3260\" or \"[2001:db8::1]:3260\""
            )
        })?;
        if address.port() == 0 {
            return Err(format!("\"{text}\" has port 0; allowed: 1 to 65535"));
        }
        Ok(Self(address))
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0.to_string()
    }
}

/// An address, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OptionalAddress(pub Option<SocketAddr>);

impl TryFrom<String> for OptionalAddress {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        Address::try_from(text).map(|address| Self(Some(address.0)))
    }
}

impl From<OptionalAddress> for String {
    fn from(address: OptionalAddress) -> Self {
        address
            .0
            .map(|address| address.to_string())
            .unwrap_or_default()
    }
}

fn default_cluster_name() -> String {
    "lockstep".into()
}

fn default_naming() -> String {
    "com.example".into()
}

fn default_state() -> PathBuf {
    "/var/lib/lockstep".into()
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            socket: "/run/lockstep/admin.sock".into(),
            metrics: OptionalAddress(Some(SocketAddr::from(([127, 0, 0, 1], 9860)))),
        }
    }
}

impl Default for Partner {
    fn default() -> Self {
        Self {
            sync_local: Vec::new(),
            sync_remote: Vec::new(),
            connections: 2,
            heartbeat_local: Vec::new(),
            heartbeat_remote: Vec::new(),
            secret_file: "/etc/lockstep/pair.secret".into(),
            proxy: true,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            directories: vec!["/var/lib/lockstep/volumes".into()],
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            shards: 1,
            pool_memory: Size(256 << 20),
        }
    }
}

impl Default for Resync {
    fn default() -> Self {
        Self {
            priority: Priority::default(),
            floor: Size(32 << 20),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            heartbeat_ms: 200,
            lease_ms: 1500,
            silent_ms: 2000,
            path_ms: 5000,
            login_s: 15,
            nop_interval_s: 10,
            nop_timeout_s: 10,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, Refusals> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Refusals::whole_file(
                path,
                format!(
                    "cannot be read: {error}; start from the example lockstep.toml, or name \
                    another file with --config"
                ),
            )
        })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file; `path` is only for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Refusals> {
        read::parse(path, text)
    }

    /// Whether there is another node.
    #[must_use]
    pub fn has_partner(&self) -> bool {
        !self.partner.sync_remote.is_empty()
    }

    /// What people call this node.
    #[must_use]
    pub fn node_name(&self) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    }

    /// All ways to the partner that carry heartbeats: the sync links (on the port that follows
    /// theirs), then the heartbeat-only ones.
    #[must_use]
    pub fn control_paths(&self) -> Vec<ControlPath> {
        let next =
            |address: Address| SocketAddr::new(address.0.ip(), address.0.port().saturating_add(1));
        let pairs = |sync, local: &[Address], remote: &[Address]| -> Vec<ControlPath> {
            let ends = local.iter().copied().zip(remote.iter().copied());
            ends.map(|(local, remote)| match sync {
                true => ControlPath {
                    sync,
                    local: next(local),
                    remote: next(remote),
                },
                false => ControlPath {
                    sync,
                    local: local.0,
                    remote: remote.0,
                },
            })
            .collect()
        };
        let mut paths = pairs(true, &self.partner.sync_local, &self.partner.sync_remote);
        paths.extend(pairs(
            false,
            &self.partner.heartbeat_local,
            &self.partner.heartbeat_remote,
        ));
        paths
    }
}

/// One way to the partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPath {
    /// Runs beside a data link.
    pub sync: bool,
    /// Where we listen, and whence we dial.
    pub local: SocketAddr,
    /// Where the partner listens.
    pub remote: SocketAddr,
}

#[cfg(test)]
mod tests;
