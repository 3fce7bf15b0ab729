//! Changes to the pool configuration. Each takes the document in force and gives the next one,
//! checked; nothing is in force before `Node` has committed it.

use super::{
    Account, Init, Pool, PoolError, PoolNode, PoolReplica, PoolVolume, PoolWitness, Strategy, check,
};
use crate::config::{Address, Uuid};
use lockstep_api::pool::{SetAccount, SetDiscovery};
use lockstep_api::resync::Priority;
use lockstep_api::volume::{CreateVolume, SetAccess};
use std::net::SocketAddr;
use std::num::NonZeroU32;

/// Year and month in the names of targets: a date at which the naming authority was theirs.
const TARGET_PREFIX: &str = "iqn.2026-11";

/// Logical block size unless another is asked for: what every initiator takes.
const BLOCK_SIZE: u32 = 512;

impl Pool {
    /// With a new volume.
    pub fn with_volume(
        &self,
        request: &CreateVolume,
        uuid: Uuid,
        naming: &str,
        nodes: &[u8],
    ) -> Result<Self, PoolError> {
        if self.volume(&request.name).is_some() {
            return Err(PoolError::Exists {
                kind: "volume",
                name: request.name.clone(),
            });
        }
        let image = |node| PoolReplica {
            node,
            image: format!("{}.img", request.name),
        };
        let replicas = match request.replicas.as_slice() {
            [] => nodes.iter().copied().map(image).collect(),
            places => places
                .iter()
                .map(|place| PoolReplica {
                    node: place.node,
                    image: place.image.clone(),
                })
                .collect(),
        };
        let init = match (request.adopt, request.prefill) {
            (true, _) => Init::Adopt,
            (false, true) => Init::Prefill,
            (false, false) => Init::Reserve,
        };
        let mut next = self.clone();
        next.volumes.push(PoolVolume {
            uuid,
            name: request.name.clone(),
            size: request.size,
            block_size: request.block_size.unwrap_or(BLOCK_SIZE),
            cache: request.cache,
            target: format!("{TARGET_PREFIX}.{naming}:{}", request.name),
            lun: 0,
            unmap: true,
            strategy: request.strategy,
            priority: None,
            init,
            accounts: request.accounts.clone(),
            mutual: request.mutual.clone(),
            allow: request
                .allow
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            replicas,
        });
        next.checked()
    }

    /// Without a volume.
    pub fn without_volume(&self, name: &str) -> Result<Self, PoolError> {
        let mut next = self.clone();
        next.volumes.retain(|volume| volume.name != name);
        if next.volumes.len() == self.volumes.len() {
            return Err(PoolError::Unknown {
                kind: "volume",
                name: name.into(),
            });
        }
        Ok(next)
    }

    /// With a volume's copy on that node, in this place or the usual one; if it has one there, it
    /// lies there from now on.
    pub fn with_replica(
        &self,
        name: &str,
        node: u8,
        image: Option<&str>,
    ) -> Result<Self, PoolError> {
        let mut next = self.clone();
        let volume = next.named(name)?;
        let usual = format!("{name}.img");
        let image = image.map_or(usual, str::to_owned);
        volume.replicas.retain(|replica| replica.node != node);
        volume.replicas.push(PoolReplica { node, image });
        volume.replicas.sort_by_key(|replica| replica.node);
        // Whatever the first images were made of, this one is brought up to date.
        if volume.init == Init::Adopt {
            volume.init = Init::Reserve;
        }
        next.checked()
    }

    /// Without the copy on that node, which stays where it is.
    pub fn without_replica(&self, name: &str, node: u8) -> Result<Self, PoolError> {
        let mut next = self.clone();
        let volume = next.named(name)?;
        volume.replicas.retain(|replica| replica.node != node);
        next.checked()
    }

    fn named(&mut self, name: &str) -> Result<&mut PoolVolume, PoolError> {
        let mut volumes = self.volumes.iter_mut();
        let found = volumes.find(|volume| volume.name == name);
        found.ok_or_else(|| PoolError::Unknown {
            kind: "volume",
            name: name.into(),
        })
    }

    /// With other access rules for a volume.
    pub fn with_access(&self, name: &str, access: &SetAccess) -> Result<Self, PoolError> {
        let mut next = self.clone();
        let unknown = || PoolError::Unknown {
            kind: "volume",
            name: name.into(),
        };
        let volume = next
            .volumes
            .iter_mut()
            .find(|volume| volume.name == name)
            .ok_or_else(unknown)?;
        volume.accounts.clone_from(&access.accounts);
        volume.mutual.clone_from(&access.mutual);
        volume.allow = access
            .allow
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        next.checked()
    }

    /// With a new account, or a new secret for an old one.
    pub fn with_account(&self, request: &SetAccount) -> Result<Self, PoolError> {
        let mut next = self.clone();
        next.accounts.retain(|account| account.name != request.name);
        next.accounts.push(Account {
            name: request.name.clone(),
            secret: request.secret.clone(),
        });
        next.accounts.sort_by(|a, b| a.name.cmp(&b.name));
        next.checked()
    }

    /// Without an account that nothing uses.
    pub fn without_account(&self, name: &str) -> Result<Self, PoolError> {
        let in_use = |by: String| PoolError::InUse {
            what: format!("account \"{name}\""),
            by,
        };
        if let Some(volume) = self.volumes.iter().find(|volume| {
            volume
                .accounts
                .iter()
                .chain(&volume.mutual)
                .any(|account| account == name)
        }) {
            return Err(in_use(format!("volume \"{}\"", volume.name)));
        }
        if self
            .discovery_accounts
            .iter()
            .chain(&self.discovery_mutual)
            .any(|account| account == name)
        {
            return Err(in_use("discovery".into()));
        }
        let mut next = self.clone();
        next.accounts.retain(|account| account.name != name);
        if next.accounts.len() == self.accounts.len() {
            return Err(PoolError::Unknown {
                kind: "account",
                name: name.into(),
            });
        }
        Ok(next)
    }

    /// With other accounts for discovery.
    pub fn with_discovery(&self, request: &SetDiscovery) -> Result<Self, PoolError> {
        let mut next = self.clone();
        next.discovery_accounts.clone_from(&request.accounts);
        next.discovery_mutual.clone_from(&request.mutual);
        next.checked()
    }

    /// With this witness, which has no vote before it was met; or with none.
    pub fn with_witness(&self, witness: Option<(SocketAddr, &str)>) -> Result<Self, PoolError> {
        let mut next = self.clone();
        let before = next.witness.take();
        next.witness = witness.map(|(address, secret)| PoolWitness {
            address: Address(address),
            secret: secret.into(),
            // The same one, with another address or secret, keeps its vote.
            life: before.and_then(|it| it.life),
        });
        next.checked()
    }

    /// With the witness admitted in this life of its votes.
    #[must_use]
    pub fn with_witness_life(&self, life: NonZeroU32) -> Self {
        let mut next = self.clone();
        if let Some(witness) = &mut next.witness {
            witness.life = Some(life);
        }
        next
    }

    /// With another strategy for a volume.
    pub fn with_strategy(&self, name: &str, strategy: Strategy) -> Result<Self, PoolError> {
        let mut next = self.clone();
        let volume = next.volumes.iter_mut().find(|volume| volume.name == name);
        volume
            .ok_or_else(|| PoolError::Unknown {
                kind: "volume",
                name: name.into(),
            })?
            .strategy = strategy;
        next.checked()
    }

    /// With another priority of its resyncs for a volume.
    pub fn with_priority(&self, name: &str, priority: Option<Priority>) -> Result<Self, PoolError> {
        let mut next = self.clone();
        let volume = next.volumes.iter_mut().find(|volume| volume.name == name);
        volume
            .ok_or_else(|| PoolError::Unknown {
                kind: "volume",
                name: name.into(),
            })?
            .priority = priority;
        next.checked()
    }

    /// With what a node says about itself; `None` if that is what it says already.
    #[must_use]
    pub fn with_node(&self, node: &PoolNode) -> Option<Self> {
        if self.nodes.contains(node) {
            return None;
        }
        let mut next = self.clone();
        next.nodes.retain(|other| other.number != node.number);
        next.nodes.push(node.clone());
        next.nodes.sort_by_key(|node| node.number);
        Some(next)
    }

    fn checked(self) -> Result<Self, PoolError> {
        let problems = check::problems(&self);
        if problems.is_empty() {
            Ok(self)
        } else {
            Err(PoolError::Rules(problems))
        }
    }
}
