//! From what `Node` says about itself to what the API shows.

use super::view::Decided;
use crate::config::Config;
use crate::pool::{Pool, PoolVolume};
use lockstep_api::status::{Concern, Level, Partner, PathStatus, Witness};
use lockstep_api::volume::{Progress, Strategy};
use lockstep_engine::node_interface::{NodeStatus, Standing, VolumeStatus};
use lockstep_mirror::control::{NodeId, VolumeId};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What `Node` decided about a volume; `None`: it does not know it.
pub(super) fn decided(node: &NodeStatus, volume: &PoolVolume, me: u8) -> Option<Decided> {
    let id = VolumeId(volume.uuid.0);
    let (_, status) = node.volumes.iter().find(|(other, _)| *other == id)?;
    let configuration = status.configuration;
    let members = [1, 2]
        .into_iter()
        .filter(|&it| configuration.members.contains(NodeId(it)));
    let copying = status.standing == Standing::Source;
    Some(Decided {
        state: state(status, volume.replicas.len() == 1),
        reason: status.detail.clone(),
        strategy: match configuration.witness {
            Some(_) => Strategy::Majority,
            None => Strategy::Heartbeat,
        },
        epoch: configuration.epoch,
        members: members.collect(),
        owner: configuration.owner.0,
        dirty: status.dirty_bytes,
        partner_dirty: status.partner_dirty,
        resync: copying.then(|| Progress {
            done: status.resync_done,
            total: status.resync_done.saturating_add(status.dirty_bytes),
            rate: status.resync_rate,
            left_s: status.resync_left.map(|left| left.as_secs()),
        }),
        replicas: [1, 2].map(|number| copy(status, number, me)),
    })
}

fn state(status: &VolumeStatus, single: bool) -> &'static str {
    match status.standing {
        _ if status.disk_failed => "failed",
        Standing::Waiting if status.split_brain => "split-brain",
        Standing::Waiting if status.alarm => "unavailable",
        Standing::Waiting => "waiting",
        Standing::Mirrored => "serving",
        Standing::Alone if single => "serving",
        Standing::Alone => "serving-alone",
        Standing::Source => "resyncing",
        Standing::Target => "following",
    }
}

/// What is known here about the copy on a node.
fn copy(status: &VolumeStatus, number: u8, me: u8) -> &'static str {
    let served = matches!(
        status.standing,
        Standing::Mirrored | Standing::Alone | Standing::Source
    );
    let member = status.configuration.members.contains(NodeId(number));
    match (number == me, served) {
        (true, _) if status.disk_failed => "failed",
        (true, _) if status.inconsistent => "inconsistent",
        (_, true) if member => "up-to-date",
        (_, true) if status.standing == Standing::Source => "inconsistent",
        (_, true) => "outdated",
        (false, false) if status.standing == Standing::Target => "up-to-date",
        _ => "unknown",
    }
}

/// The partner and every path to it.
pub(super) fn partner(
    node: &NodeStatus,
    config: &Config,
    pool: &Pool,
    path_errors: &[String],
) -> Partner {
    let Some(number) = node.partner else {
        return Partner::default();
    };
    let entered = pool.nodes.iter().find(|other| other.number == number.0);
    let paths = config
        .control_paths()
        .into_iter()
        .enumerate()
        .map(|(index, path)| {
            let mut links = node
                .links
                .iter()
                .filter(|link| usize::from(link.path) == index);
            let up = links.any(|link| link.established);
            let said = refused(node, index).or_else(|| path_errors.get(index).cloned());
            PathStatus {
                kind: if path.sync { "sync" } else { "heartbeat" }.into(),
                local: path.local.to_string(),
                remote: path.remote.to_string(),
                up,
                error: if up {
                    String::new()
                } else {
                    said.unwrap_or_default()
                },
            }
        });
    Partner {
        node: number.0,
        name: entered.map(|other| other.name.clone()).unwrap_or_default(),
        up: node.partner_alive,
        heartbeat_age_ms: node
            .partner_heard
            .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        paths: paths.collect(),
        certificates_taken: node.certificates.taken,
        certificates_refused: node.certificates.refused,
    }
}

/// The witness that the pool configuration names, and why it cannot be reached.
pub(super) fn witness(node: &NodeStatus, pool: &Pool, error: &str) -> Option<Witness> {
    let known = pool.witness.as_ref()?;
    let up = node.witness.id.is_some();
    let refused = node.witness.refused.clone();
    let age = node.witness.heard.map(|age| age.as_millis());
    Some(Witness {
        address: known.address.0.to_string(),
        up,
        admitted: up && node.witness.id.map(|it| it.0) == known.life,
        age_ms: age.map(|age| u64::try_from(age).unwrap_or(u64::MAX)),
        error: if up {
            String::new()
        } else {
            refused.unwrap_or_else(|| error.to_owned())
        },
    })
}

/// How `Node` begins a sentence about a path whose peer it does not believe.
const REFUSED: &str = "control link on path ";

/// Why `Node` refused the peer on a path.
fn refused(node: &NodeStatus, path: usize) -> Option<String> {
    let start = format!("{REFUSED}{path} refused: ");
    node.problems
        .iter()
        .find_map(|text| text.strip_prefix(&start).map(str::to_owned))
}

/// Addresses at which nobody can reach this node, with the reason.
pub(super) fn deaf(listening: &BTreeMap<SocketAddr, Option<String>>) -> Vec<Concern> {
    let concern = |(address, error): (&SocketAddr, &Option<String>)| {
        Some(Concern {
            level: Level::Critical,
            what: format!("address {address}"),
            why: format!("it does not accept connections: {}", error.as_ref()?),
            todo: "give this machine that address, or end whoever uses it; it is tried again"
                .into(),
        })
    };
    listening.iter().filter_map(concern).collect()
}

/// What is wrong besides paths, the partner's silence and volumes, which are shown with their own
/// words: the pool configuration, lost votes, a clock that runs away.
pub(super) fn general_problems(node: &NodeStatus) -> Vec<Concern> {
    let shown = [REFUSED, "volume ", "node "];
    let general = node
        .problems
        .iter()
        .filter(|text| !shown.iter().any(|it| text.starts_with(it)));
    general
        .map(|text| {
            let (what, level, todo) =
                if node.pool.conflict.is_some() && text.contains("configuration") {
                    (
                        "pool configuration",
                        Level::Critical,
                        "lockstep config show on both nodes; then lockstep config keep on the \
                        one that is right",
                    )
                } else {
                    (
                        "this node",
                        Level::Degraded,
                        "lockstep events tells since when",
                    )
                };
            Concern {
                level,
                what: what.into(),
                why: text.clone(),
                todo: todo.into(),
            }
        })
        .collect()
}
