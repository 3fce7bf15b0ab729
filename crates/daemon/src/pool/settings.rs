//! From the pool configuration to what the engine is told.

use super::{Pool, PoolVolume};
use crate::config::Config;
use lockstep_api::volume::Cache;
use lockstep_engine::interface::VolumeSettings;
use lockstep_engine::interface::iscsi::{ChapSecret, Portal, Settings, TargetId, TargetSettings};
use lockstep_engine::interface::scsi::Identity;
use lockstep_mirror::control::{CacheMode, Incarnation, NodeId, VolumeId, VolumeSpec};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What initiators are offered: the numbers that open-iscsi and XenServer ask for.
const MAX_RECEIVE: u32 = 256 << 10;
const MAX_BURST: u32 = 1 << 20;
const FIRST_BURST: u32 = 64 << 10;

/// Commands a session may have outstanding: what XenServer's initiator uses.
const COMMAND_WINDOW: u32 = 128;

/// Open connections: 64 hosts with four sessions, and half of them again while they reconnect, or
/// have not logged in.
pub(crate) const CONNECTIONS_MAX: u32 = 448;

/// Connections that have not logged in: a storm of them leaves room for those that have.
const HALF_OPEN_MAX: u32 = 128;

/// The numbers by which this run knows targets. A number is never used for another target in the
/// same run, so that a session of a vanished target cannot be mistaken for one of a new target.
#[derive(Clone, Debug, Default)]
pub struct TargetNumbers {
    known: BTreeMap<String, u32>,
    next: u32,
}

impl TargetNumbers {
    /// The number of a target, a new one if it is new.
    pub fn number(&mut self, target: &str) -> u32 {
        if let Some(&number) = self.known.get(target) {
            return number;
        }
        let number = self.next;
        self.next += 1;
        self.known.insert(target.to_owned(), number);
        number
    }

    /// Forgets targets that are gone; one of the same name later is a new one.
    pub fn keep(&mut self, pool: &Pool) {
        self.known
            .retain(|target, _| pool.volumes.iter().any(|volume| volume.target == *target));
    }

    /// The target with this number.
    #[must_use]
    pub fn name(&self, number: u32) -> Option<&str> {
        self.known
            .iter()
            .find(|(_, known)| **known == number)
            .map(|(name, _)| name.as_str())
    }
}

/// Settings of the iSCSI layer. Targets without a copy on this node are not shown here.
#[must_use]
pub fn iscsi(pool: &Pool, config: &Config, numbers: &mut TargetNumbers) -> Settings {
    let me = config.node.number;
    let local = pool
        .volumes
        .iter()
        .filter(|volume| volume.replica(me).is_some());
    let mut targets: Vec<TargetSettings> = Vec::new();
    for volume in local {
        if targets.iter().all(|target| target.name != volume.target) {
            targets.push(target(pool, volume, numbers));
        }
    }
    targets.sort_by_key(|target| target.id);
    let t = &config.timeouts;
    Settings {
        targets,
        portals: portals(pool, config),
        group: u16::from(me),
        discovery_chap: secrets(pool, &pool.discovery_accounts),
        discovery_mutual: secrets(pool, pool.discovery_mutual.as_slice()).pop(),
        nop_interval_s: t.nop_interval_s,
        nop_timeout_s: t.nop_timeout_s,
        login_timeout_s: t.login_s,
        max_receive: MAX_RECEIVE,
        max_burst: MAX_BURST,
        first_burst: FIRST_BURST,
        command_window: COMMAND_WINDOW,
        max_connections: CONNECTIONS_MAX,
        max_half_open: HALF_OPEN_MAX,
    }
}

/// Data portals of both nodes: ours from our own configuration, which is the newest truth about
/// them, the partner's as it entered them.
fn portals(pool: &Pool, config: &Config) -> Vec<Portal> {
    let me = config.node.number;
    let ours = config.portals.data.iter().map(|address| (me, address));
    let theirs = pool
        .nodes
        .iter()
        .filter(|node| node.number != me)
        .flat_map(|node| node.portals.iter().map(|address| (node.number, address)));
    let portal = |(node, address): (u8, &crate::config::Address)| Portal {
        address: address.0,
        group: u16::from(node),
    };
    ours.chain(theirs).map(portal).collect()
}

fn target(pool: &Pool, volume: &PoolVolume, numbers: &mut TargetNumbers) -> TargetSettings {
    TargetSettings {
        id: TargetId(numbers.number(&volume.target)),
        name: volume.target.clone(),
        alias: volume.name.clone(),
        chap: secrets(pool, &volume.accounts),
        mutual: secrets(pool, volume.mutual.as_slice()).pop(),
        allow: volume.allow.clone(),
    }
}

fn secrets(pool: &Pool, names: &[String]) -> Vec<ChapSecret> {
    let accounts = pool
        .accounts
        .iter()
        .filter(|account| names.contains(&account.name));
    accounts
        .map(|account| ChapSecret {
            name: account.name.clone(),
            secret: account.secret.clone().into_bytes(),
        })
        .collect()
}

impl PoolVolume {
    /// The copy on this node.
    #[must_use]
    pub fn replica(&self, node: u8) -> Option<&super::PoolReplica> {
        self.replicas.iter().find(|replica| replica.node == node)
    }

    /// The image of the copy on this node, with the storage directory where it is relative.
    #[must_use]
    pub fn image(&self, config: &Config) -> Option<PathBuf> {
        let replica = self.replica(config.node.number)?;
        let store = config
            .storage
            .directories
            .first()
            .expect("checked when it was read");
        Some(store.join(&replica.image))
    }

    /// What the mirror must know.
    #[must_use]
    pub fn spec(&self, me: u8, incarnation: Incarnation) -> VolumeSpec {
        let partner = self.replicas.iter().find(|replica| replica.node != me);
        VolumeSpec {
            id: VolumeId(self.uuid.0),
            size: self.size.0,
            block_size: self.block_size,
            cache: match self.cache {
                Cache::None => CacheMode::None,
                Cache::WriteThrough => CacheMode::WriteThrough,
                Cache::WriteBack => CacheMode::WriteBack,
            },
            me: NodeId(me),
            partner: partner.map(|replica| NodeId(replica.node)),
            incarnation,
        }
    }

    /// What the shard must know.
    #[must_use]
    pub fn settings(
        &self,
        me: u8,
        incarnation: Incarnation,
        numbers: &mut TargetNumbers,
    ) -> VolumeSettings {
        VolumeSettings {
            spec: self.spec(me, incarnation),
            identity: Identity {
                uuid: self.uuid.0,
                target_name: self.target.clone(),
            },
            target: numbers.number(&self.target),
            lun: self.lun,
            unmap: self.unmap,
            // 512-byte blocks on 4096-byte sectors; 4096-byte blocks are their own.
            physical_exponent: if self.block_size == 512 { 3 } else { 0 },
        }
    }
}
