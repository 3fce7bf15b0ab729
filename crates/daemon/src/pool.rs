//! The pool configuration: everything that initiators can see or that both nodes must agree on,
//! as one document. `Node` replicates its text and does not look inside; what is done with it is
//! in `edit` (changes), `check` (rules), `settings` (what the engine is told) and `file`.

pub mod check;
pub mod edit;
pub mod file;
pub mod settings;

use crate::config::{Address, Uuid};
use lockstep_api::quantity::Size;
use lockstep_api::resync::Priority;
use lockstep_api::volume::Cache;
pub use lockstep_api::volume::Strategy;
use serde::{Deserialize, Serialize};

/// The whole document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Which pair it belongs to.
    pub cluster: Uuid,
    /// Accounts for discovery; empty: it needs none.
    #[serde(default)]
    pub discovery_accounts: Vec<String>,
    /// The account whose secret the target proves in discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery_mutual: Option<String>,
    /// The third machine that votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<PoolWitness>,
    /// What each node says about itself.
    #[serde(default, rename = "node")]
    pub nodes: Vec<PoolNode>,
    /// CHAP accounts.
    #[serde(default, rename = "account")]
    pub accounts: Vec<Account>,
    /// Volumes.
    #[serde(default, rename = "volume")]
    pub volumes: Vec<PoolVolume>,
}

/// The witness.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolWitness {
    /// Where it listens.
    pub address: Address,
    /// Never in a log, an answer or a message.
    pub secret: String,
    /// Which life of its votes was admitted; entered by a node. None yet: it has no vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<std::num::NonZeroU32>,
}

impl std::fmt::Debug for PoolWitness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PoolWitness({}, {:?})", self.address.0, self.life)
    }
}

/// One data node, entered by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolNode {
    /// 1 or 2.
    pub number: u8,
    /// For people.
    pub name: String,
    /// Its data portals, in the order of its own configuration.
    pub portals: Vec<Address>,
}

/// A CHAP account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// CHAP_N.
    pub name: String,
    /// Never in a log, an answer or a message.
    pub secret: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.name)
    }
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolVolume {
    /// Its identity for ever.
    pub uuid: Uuid,
    /// For people.
    pub name: String,
    /// Exported bytes.
    pub size: Size,
    /// 512 or 4096.
    pub block_size: u32,
    /// When writes are answered.
    pub cache: Cache,
    /// The target's name, fixed when the volume was created.
    pub target: String,
    /// LUN in that target.
    #[serde(default)]
    pub lun: u8,
    /// Offers UNMAP.
    #[serde(default = "yes")]
    pub unmap: bool,
    /// Who decides when the nodes do not see each other.
    #[serde(default)]
    pub strategy: Strategy,
    /// How much resyncs may take from initiators, where it is not what each node's file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// How its images came to be.
    #[serde(default)]
    pub init: Init,
    /// Accounts that may log in; empty: no authentication.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// The account whose secret the target proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutual: Option<String>,
    /// Initiators that may log in; empty: all.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Its copies: one or two, on different nodes.
    #[serde(rename = "replica")]
    pub replicas: Vec<PoolReplica>,
}

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolReplica {
    /// 1 or 2.
    pub node: u8,
    /// A file or block device; relative to the first storage directory of that node.
    pub image: String,
}

/// How a new volume's images are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Space is reserved and reads as zeroes.
    #[default]
    Reserve,
    /// Zeroes are written all over.
    Prefill,
    /// The images were there, and are equal.
    Adopt,
}

fn yes() -> bool {
    true
}

/// A document that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not TOML, or not this document. The message names the line.
    #[error("the pool configuration cannot be read: {0}")]
    Syntax(String),
    /// It contradicts itself.
    #[error("{}", .0.join("\n"))]
    Rules(Vec<String>),
    /// A name that is not there.
    #[error("there is no {kind} \"{name}\"")]
    Unknown {
        /// `volume` or `account`.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A name that is taken.
    #[error("there is a {kind} \"{name}\" already")]
    Exists {
        /// `volume`.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// Something still needs it.
    #[error("{what} is used by {by}")]
    InUse {
        /// The account.
        what: String,
        /// A volume, or discovery.
        by: String,
    },
}

impl Pool {
    /// A pool with nothing in it.
    #[must_use]
    pub const fn empty(cluster: Uuid) -> Self {
        Self {
            cluster,
            discovery_accounts: Vec::new(),
            discovery_mutual: None,
            witness: None,
            nodes: Vec::new(),
            accounts: Vec::new(),
            volumes: Vec::new(),
        }
    }

    /// Reads and checks a document.
    pub fn parse(text: &str) -> Result<Self, PoolError> {
        let pool: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text
                .as_bytes()
                .iter()
                .take(at)
                .filter(|&&byte| byte == b'\n')
                .count()
                + 1;
            // Never the line itself: it may hold a secret.
            PoolError::Syntax(format!("line {line}: {}", error.message()))
        })?;
        let problems = check::problems(&pool);
        if problems.is_empty() {
            Ok(pool)
        } else {
            Err(PoolError::Rules(problems))
        }
    }

    /// The document as text; the same pool always gives the same text.
    #[must_use]
    pub fn text(&self) -> String {
        toml::to_string_pretty(self).expect("strings, numbers and lists only")
    }

    /// The volume of that name.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&PoolVolume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }
}

/// The document with every secret replaced, for people.
#[must_use]
pub fn mask(text: &str) -> String {
    let mask_line = |line: &str| match line.split_once('=') {
        Some((key, _)) if key.trim().trim_matches('"') == "secret" => {
            format!("{key}= \"********\"")
        }
        _ => line.to_owned(),
    };
    let mut out: String = text.lines().map(|line| mask_line(line) + "\n").collect();
    if !text.ends_with('\n') {
        out.pop();
    }
    out
}

#[cfg(test)]
mod tests;
