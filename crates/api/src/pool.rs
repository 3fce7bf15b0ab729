//! What both nodes agree on, as the API shows and takes it. Secrets go in and never come out.

use serde::{Deserialize, Serialize};

/// The pool configuration, less its secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// Counts committed changes.
    pub generation: u64,
    /// The cluster's UUID.
    pub cluster: String,
    /// The readable file that holds it on this node.
    pub file: String,
    /// Lines that somebody changed in that file and that are not in force: `-` in force, `+` in
    /// the file. Secrets are masked. Empty: the file is what is in force.
    pub edited: Vec<String>,
    /// Accounts for discovery.
    pub discovery_accounts: Vec<String>,
    /// The account whose secret discovery proves to initiators that ask.
    #[serde(default)]
    pub discovery_mutual: Option<String>,
    /// Names of all accounts.
    pub accounts: Vec<String>,
    /// What each node says about itself.
    pub nodes: Vec<PoolNode>,
    /// The document as text, secrets masked.
    pub text: String,
}

/// One data node, as it entered itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolNode {
    /// 1 or 2.
    pub number: u8,
    /// Its name.
    pub name: String,
    /// Addresses at which initiators reach it.
    pub portals: Vec<String>,
}

/// Sets a CHAP account, a new one or a new secret of an old one.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAccount {
    /// CHAP_N, 1 to 223 printable characters.
    pub name: String,
    /// The secret, 12 to 255 bytes.
    pub secret: String,
}

/// Never shows the secret.
impl std::fmt::Debug for SetAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetAccount({})", self.name)
    }
}

/// An account, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// CHAP_N.
    pub name: String,
    /// Volumes that it opens.
    pub volumes: Vec<String>,
    /// Whether it opens discovery, or the target proves it there.
    pub discovery: bool,
}

/// Which accounts open discovery; empty: it needs none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDiscovery {
    /// Names of accounts.
    pub accounts: Vec<String>,
    /// The account whose secret the target proves to initiators that ask.
    #[serde(default)]
    pub mutual: Option<String>,
}

/// The third machine that votes where two nodes cannot decide.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWitness {
    /// Where it listens, `IP:PORT`.
    pub address: String,
    /// The secret that the pair shares with it, 16 to 255 bytes.
    pub secret: String,
}

/// Never shows the secret.
impl std::fmt::Debug for SetWitness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetWitness({})", self.address)
    }
}

/// Answer to every change of the pool configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The generation that is in force now.
    pub generation: u64,
    /// What else is to be known (the partner takes it when it returns, …).
    #[serde(default)]
    pub note: String,
}
