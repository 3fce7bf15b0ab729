//! From what `Node` says about itself to what the API shows.

use super::frames::Finding;
use super::paths::Path;
use super::view::Decided;
use crate::config::Config;
use crate::pool::{Pool, PoolVolume};
use lockstep_api::health::SlowPart;
use lockstep_api::status::{Concern, Level, Mtu, Partner, PathStatus, Witness};
use lockstep_api::time::utc;
use lockstep_api::volume::{Progress, Strategy};
use lockstep_engine::counters::PathCounters;
use lockstep_engine::node_interface::{NodeStatus, Standing, VolumeStatus};
use lockstep_mirror::control::{NodeId, Time, VolumeId};
use lockstep_mirror::volume::Slow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

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
    known: &[Path],
    data: &[PathCounters],
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
            let link = links.find(|link| link.established);
            let up = link.is_some();
            let here = &known[index];
            let data = match path.sync {
                true => data.get(index).copied().unwrap_or_default(),
                false => PathCounters::default(),
            };
            let said = refused(node, index).unwrap_or_else(|| here.error.clone());
            let lost = node
                .lost
                .iter()
                .find(|(lost, _)| usize::from(*lost) == index);
            let changed = match link {
                Some(link) => link.since,
                None => lost.map(|(_, since)| *since),
            };
            PathStatus {
                kind: if path.sync { "sync" } else { "heartbeat" }.into(),
                local: path.local.to_string(),
                remote: path.remote.to_string(),
                up,
                error: if up { String::new() } else { said },
                changed_s: changed.map(|age| age.as_secs()),
                round_trip_us: link
                    .and_then(|link| link.round_trip)
                    .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
                channels: data.channels,
                sent_bytes: here.sent + data.sent_bytes,
                received_bytes: here.received + data.received_bytes,
                refused_frames: data.refused,
                given_up: data.given_up,
                mtu: here.frames.map(|found| Mtu {
                    here: found.ours,
                    there: found.theirs,
                    passes: found.passes,
                    warning: mtu(found).map(|(why, _)| why).unwrap_or_default(),
                }),
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

/// What is wrong with the size of frames on a link, and what to do about it.
pub(super) fn mtu(found: Finding) -> Option<(String, String)> {
    let Finding {
        ours,
        theirs,
        passes,
    } = found;
    let ends = format!("the MTU is {ours} here and {theirs} at the partner's end");
    match ours.cmp(&theirs) {
        Ordering::Greater => Some((
            format!(
                "{ends}: the partner's is the smaller one, and frames of {ours} bytes {}",
                if passes {
                    "arrive all the same"
                } else {
                    "do not arrive"
                }
            ),
            format!(
                "give both interfaces and every switch port between them the same MTU: raise the \
                 partner's to {ours}, or lower this one to {theirs} (ip link set DEVICE mtu {theirs})"
            ),
        )),
        Ordering::Less => Some((
            format!(
                "{ends}: this one is the smaller one, and what the partner sends may not arrive"
            ),
            format!(
                "give both interfaces and every switch port between them the same MTU: raise this \
                 one to {theirs} (ip link set DEVICE mtu {theirs}), or lower the partner's to {ours}"
            ),
        )),
        Ordering::Equal if passes => None,
        Ordering::Equal => Some((
            format!(
                "{ends}, but frames of {ours} bytes do not arrive: something between them is smaller"
            ),
            format!(
                "let every switch port between them pass frames of {ours} bytes, or lower the MTU \
                 of both interfaces to what passes (ip link set DEVICE mtu 1500)"
            ),
        )),
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

/// What is far slower than usual, in the words of the API.
pub(super) fn slow(slow: &Slow, now: Time) -> Vec<SlowPart> {
    let micros = |time: Time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let parts = [
        ("write", slow.write),
        ("flush", slow.flush),
        ("partner", slow.partner),
        ("partner-flush", slow.partner_flush),
    ];
    let holds = parts
        .into_iter()
        .filter_map(|(part, it)| Some((part, it.filter(|it| it.holds(now))?)));
    holds
        .map(|(part, it)| SlowPart {
            part: part.into(),
            usual_us: micros(it.usual),
            lately_us: micros(it.lately),
            for_s: now.saturating_sub(it.since).as_secs(),
        })
        .collect()
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
                } else if text.contains("its clock jumped") || text.contains("clock stood still") {
                    (
                        "this node",
                        // It is over.
                        Level::Ok,
                        "if its machine is virtual, put the node into maintenance before the \
                        machine is stopped or moved: lockstep node maintenance enter",
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

/// Wall clocks that are further apart than this many seconds make logs hard to compare.
const WALLS_APART: u64 = 300;

/// The two nodes' wall clocks differ. Nothing depends on them but people. `partner`: its number,
/// what it said of its own, and how long ago; `wall`: this node's.
pub(super) fn wall_clocks(partner: u8, said: (u64, Duration), wall: u64) -> Option<Concern> {
    let (said, ago) = said;
    let theirs = said.saturating_add(ago.as_secs());
    let apart = wall.abs_diff(theirs);
    (apart > WALLS_APART).then(|| Concern {
        level: Level::Degraded,
        what: "wall clock".into(),
        why: format!(
            "this node's says {} and node {partner}'s {} (UTC): {apart} s apart",
            utc(wall),
            utc(theirs)
        ),
        todo: "have both set by NTP (timedatectl shows it); data does not depend on them, but \
               the logs and events of the two nodes cannot be compared"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clocks_that_differ_are_named_with_both_times() {
        let said = (1_793_628_239 - 7200, Duration::from_secs(1));
        let concern = wall_clocks(2, said, 1_793_628_239).unwrap();
        let why = &concern.why;
        assert!(why.contains("2026-11-02 14:03:59"), "{why}");
        assert!(why.contains("node 2's 2026-11-02 12:04:00"), "{why}");
        assert!(why.contains("7199 s apart"), "{why}");
        assert_eq!(wall_clocks(2, said, 1_793_621_339), None, "five minutes");
        assert!(wall_clocks(2, said, u64::MAX).is_some() && wall_clocks(2, said, 0).is_some());
    }

    #[test]
    fn what_was_slow_is_shown_until_it_is_long_ago() {
        let slowness = lockstep_mirror::volume::Slowness {
            usual: Time::from_micros(700),
            lately: Time::from_millis(80),
            since: Time::from_secs(100),
            last: Time::from_secs(150),
        };
        let all = Slow {
            partner: Some(slowness),
            ..Slow::default()
        };
        let shown = slow(&all, Time::from_secs(151));
        assert_eq!((shown.len(), shown[0].part.as_str()), (1, "partner"));
        assert_eq!((shown[0].usual_us, shown[0].lately_us), (700, 80_000));
        assert_eq!(shown[0].for_s, 51);
        assert!(slow(&all, Time::from_secs(500)).is_empty());
    }

    #[test]
    fn the_smaller_end_of_a_link_is_named() {
        let found = |ours, theirs, passes| {
            mtu(Finding {
                ours,
                theirs,
                passes,
            })
        };
        assert_eq!(found(9000, 9000, true), None);
        let (why, todo) = found(9000, 1500, false).unwrap();
        assert!(why.contains("the partner's is the smaller one"), "{why}");
        assert!(why.contains("9000 here and 1500"), "{why}");
        assert!(todo.contains("raise the partner's to 9000"), "{todo}");
        let (why, todo) = found(1500, 9000, true).unwrap();
        assert!(why.contains("this one is the smaller one"), "{why}");
        assert!(todo.contains("mtu 9000"), "{todo}");
        let (why, _) = found(9000, 9000, false).unwrap();
        assert!(why.contains("something between them"), "{why}");
    }
}
