//! Whether an operator should worry: every concern with its reason and what to do, from the facts
//! that the status shows.

use lockstep_api::health::SlowPart;
use lockstep_api::node::MaintenanceState;
use lockstep_api::status::{Concern, Level, Partner, PathStatus, Status, Witness};
use lockstep_api::volume::Volume;

/// Fills in the concerns and the verdict. `edited`: the pool file has an edit that is not in
/// force. `general`: what is wrong besides partner and volumes.
pub(crate) fn judge(status: &mut Status, edited: bool, general: Vec<Concern>) {
    let mut concerns = partner(&status.partner, status.uptime_s);
    concerns.extend(status.witness.as_ref().and_then(witness));
    concerns.extend(maintenance(status.maintenance));
    concerns.extend(general);
    for volume in &status.volumes {
        concerns.extend(volume.forced.as_ref().map(|it| {
            concern(
                Level::Degraded,
                format!("volume {}", volume.name),
                it.sentence(),
                "look at what uses it (file systems, databases); this is shown until both copies \
                are equal again",
            )
        }));
        concerns.extend(
            volume
                .slow
                .iter()
                .map(|it| slow(volume, it, &status.partner)),
        );
        concerns.extend(match (status.maintenance, volume.state.as_str()) {
            (MaintenanceState::Off, _) => of_volume(volume, &status.partner),
            // That it is not served here is meant, and said above.
            (_, "waiting") => None,
            (_, "unavailable") => Some(concern(
                Level::Critical,
                format!("volume {}", volume.name),
                volume.reason.clone(),
                "bring the other node back, or end the maintenance of this one: lockstep node \
                maintenance leave",
            )),
            _ => of_volume(volume, &status.partner),
        });
    }
    if edited {
        concerns.push(concern(
            Level::Degraded,
            "pool configuration",
            "the file pool.toml was edited and the edit is not in force",
            "lockstep config show; then lockstep config apply, or put the file back",
        ));
    }
    concerns.sort_by_key(|concern| std::cmp::Reverse(concern.level));
    status.level = concerns.first().map_or(Level::Ok, |concern| concern.level);
    status.concerns = concerns;
}

fn concern(
    level: Level,
    what: impl Into<String>,
    why: impl Into<String>,
    todo: impl Into<String>,
) -> Concern {
    Concern {
        level,
        what: what.into(),
        why: why.into(),
        todo: todo.into(),
    }
}

fn maintenance(state: MaintenanceState) -> Option<Concern> {
    let (why, todo) = match state {
        MaintenanceState::Off => return None,
        MaintenanceState::Entering => (
            "it is handing its volumes to the other node",
            "wait: it says when the machine may be taken away",
        ),
        MaintenanceState::On => (
            "it is in maintenance: it serves nobody, and its copies fall behind",
            "when the work is done: lockstep node maintenance leave",
        ),
    };
    Some(concern(Level::Degraded, "this node", why, todo))
}

fn partner(partner: &Partner, uptime_s: u64) -> Vec<Concern> {
    if partner.node == 0 {
        return Vec::new();
    }
    let who = if partner.name.is_empty() {
        format!("node {}", partner.node)
    } else {
        partner.name.clone()
    };
    if !partner.up {
        let why = match partner.heartbeat_age_ms {
            Some(age) => format!("{who} has not been heard for {} s on any path", age / 1000),
            None => format!("{who} has not been heard since this daemon started, {uptime_s} s ago"),
        };
        let reasons: Vec<String> = partner
            .paths
            .iter()
            .filter(|path| !path.error.is_empty())
            .map(|path| format!("{}: {}", path.remote, path.error))
            .collect();
        let why = if reasons.is_empty() {
            why
        } else {
            format!("{why} ({})", reasons.join("; "))
        };
        return vec![concern(
            Level::Degraded,
            "partner",
            why,
            "see whether it runs (systemctl status lockstep there), whether the links do, and whether \
            node.number is 1 on one node and 2 on the other",
        )];
    }
    let down = partner.paths.iter().filter(|path| !path.up);
    let small = partner.paths.iter().filter_map(small_frames);
    down.map(|path| {
        concern(
            Level::Degraded,
            format!("{} path {} - {}", path.kind, path.local, path.remote),
            if path.error.is_empty() {
                "it is down".to_owned()
            } else {
                format!("it is down: {}", path.error)
            },
            "look at its cables, switch and addresses; the other paths carry on",
        )
    })
    .chain(small)
    .collect()
}

/// A path on which full-size frames do not pass, or pass in one direction only.
fn small_frames(path: &PathStatus) -> Option<Concern> {
    let mtu = path.mtu.as_ref().filter(|it| !it.warning.is_empty())?;
    Some(concern(
        Level::Degraded,
        format!("{} path {} - {}", path.kind, path.local, path.remote),
        mtu.warning.clone(),
        "give both interfaces and every switch port between them the same MTU (ip link set DEVICE \
        mtu N): with a smaller one somewhere large writes may hang",
    ))
}

fn witness(witness: &Witness) -> Option<Concern> {
    if !witness.up {
        let why = match witness.error.as_str() {
            "" => format!("nothing answers at {}", witness.address),
            error => format!("nothing usable answers at {}: {error}", witness.address),
        };
        return Some(concern(
            Level::Degraded,
            "witness",
            why,
            "see whether it runs there and whether this node reaches it; as long as both nodes \
            are well nothing is lost by its absence",
        ));
    }
    (!witness.admitted).then(|| {
        concern(
            Level::Degraded,
            "witness",
            format!(
                "the one at {} has no votes of this pair: it is new, or it lost them",
                witness.address
            ),
            "nothing: it is admitted as soon as both nodes are up",
        )
    })
}

/// A disk or a partner that is far slower than usual, and not yet given up.
fn slow(volume: &Volume, slow: &SlowPart, partner: &Partner) -> Concern {
    let who = match partner.name.as_str() {
        "" => format!("node {}", partner.node),
        name => name.to_owned(),
    };
    let (what, todo) = match slow.part.as_str() {
        "write" => (
            "writes to this node's disk take".to_owned(),
            "look at that disk (dmesg, smartctl) and at what else uses it",
        ),
        "flush" => (
            "flushes of this node's disk take".to_owned(),
            "look at that disk (dmesg, smartctl) and at what else uses it",
        ),
        "partner-flush" => (
            format!("{who} takes for flushes"),
            "look at the disk of that node and at the links to it (lockstep status there)",
        ),
        _ => (
            format!("{who} takes for writes"),
            "look at the disk of that node and at the links to it (lockstep status there)",
        ),
    };
    let millis = |micros: u64| format!("{}.{}", micros / 1000, micros / 100 % 10);
    concern(
        Level::Degraded,
        format!("volume {}", volume.name),
        format!(
            "{what} more than {} ms, for {} s now; 99 of 100 usually take less than {} ms",
            millis(slow.lately_us),
            slow.for_s,
            millis(slow.usual_us)
        ),
        todo,
    )
}

fn of_volume(volume: &Volume, partner: &Partner) -> Option<Concern> {
    let what = format!("volume {}", volume.name);
    let reason = |fallback: &str| {
        if volume.reason.is_empty() {
            fallback.to_owned()
        } else {
            volume.reason.clone()
        }
    };
    match volume.state.as_str() {
        "failed" => Some(concern(
            Level::Critical,
            what,
            reason("its image on this node cannot be used"),
            "mend the disk or the file that is named; an image is tried again every 30 s",
        )),
        "split-brain" => Some(concern(
            Level::Critical,
            what,
            reason("both nodes were written apart"),
            format!(
                "choose the copy to keep: lockstep volume resolve {} --keep NODE",
                volume.name
            ),
        )),
        "unavailable" => Some(concern(
            Level::Critical,
            what,
            reason("nobody may serve it"),
            format!(
                "bring back what is named, for it may have newer data; only if it never returns: \
                lockstep volume force-activate {}",
                volume.name
            ),
        )),
        "waiting" => Some(concern(
            Level::Critical,
            what,
            reason("it may not be served on this node now"),
            if partner.up {
                "wait; it settles by itself within seconds"
            } else {
                "start the other node, or mend the links to it"
            },
        )),
        "serving-alone" if volume.replicas.len() > 1 => Some(concern(
            Level::Degraded,
            what,
            reason(&format!(
                "only this node has the newest data; {} bytes are to be copied",
                volume.dirty
            )),
            if partner.up {
                "nothing: the resync begins by itself"
            } else {
                "bring the other node back; it is then resynchronised by itself"
            },
        )),
        "resyncing" => Some(concern(
            Level::Degraded,
            what,
            reason("the other node's copy is being brought up to date"),
            "nothing: wait until it is done",
        )),
        "following" => Some(concern(
            Level::Degraded,
            what,
            reason("this node's copy is being brought up to date"),
            "nothing: wait until it is done",
        )),
        "provisioning" => Some(concern(
            Level::Ok,
            what,
            reason("its image is being made"),
            "nothing: wait until it is done",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::volume::Replica;

    fn volume(state: &str) -> Volume {
        let replica = |node| Replica {
            node,
            image: "i".into(),
            state: "unknown".into(),
        };
        Volume {
            name: "vm1".into(),
            state: state.into(),
            replicas: vec![replica(1), replica(2)],
            ..Volume::default()
        }
    }

    fn level(volumes: Vec<Volume>, partner: Partner) -> Status {
        let mut status = Status {
            volumes,
            partner,
            ..Status::default()
        };
        judge(&mut status, false, vec![]);
        status
    }

    fn well() -> Partner {
        Partner {
            node: 2,
            up: true,
            ..Partner::default()
        }
    }

    #[test]
    fn a_mirrored_volume_with_its_partner_is_no_worry() {
        let status = level(vec![volume("serving")], well());
        assert_eq!((status.level, status.concerns), (Level::Ok, vec![]));
        let single = Volume {
            replicas: vec![],
            ..volume("serving-alone")
        };
        assert_eq!(level(vec![single], Partner::default()).level, Level::Ok);
    }

    #[test]
    fn the_worst_concern_comes_first_and_gives_the_verdict() {
        let gone = Partner {
            up: false,
            heartbeat_age_ms: Some(12_000),
            ..well()
        };
        let status = level(vec![volume("serving-alone"), volume("failed")], gone);
        assert_eq!(status.level, Level::Critical);
        assert_eq!(status.concerns[0].what, "volume vm1");
        assert!(
            status
                .concerns
                .iter()
                .any(|c| c.what == "partner" && c.why.contains("12 s"))
        );
    }

    #[test]
    fn a_path_that_is_down_is_named_with_its_reason() {
        let path = PathStatus {
            kind: "sync".into(),
            local: "10.0.0.1:7401".into(),
            remote: "10.0.0.2:7401".into(),
            up: false,
            error: "the peer does not have this pair's secret".into(),
            ..PathStatus::default()
        };
        let partner = Partner {
            paths: vec![path],
            ..well()
        };
        let status = level(vec![], partner.clone());
        assert_eq!(status.level, Level::Degraded);
        assert!(status.concerns[0].why.contains("secret"));
        let gone = Partner {
            up: false,
            ..partner
        };
        assert!(level(vec![], gone).concerns[0].why.contains("secret"));
    }

    #[test]
    fn a_slow_disk_and_a_slow_partner_are_told_apart() {
        let part = |part: &str| SlowPart {
            part: part.into(),
            usual_us: 700,
            lately_us: 80_000,
            for_s: 31,
        };
        let slow = Volume {
            slow: vec![part("write"), part("partner")],
            ..volume("serving")
        };
        let status = level(vec![slow], well());
        assert_eq!((status.level, status.concerns.len()), (Level::Degraded, 2));
        let said = |text: &str| status.concerns.iter().any(|it| it.why.contains(text));
        assert!(said("this node's disk take more than 80.0 ms, for 31 s"));
        assert!(said("node 2 takes for writes") && said("usually take less than 0.7 ms"));
    }

    #[test]
    fn what_was_forced_stays_a_concern_beside_the_state() {
        let forced = Volume {
            forced: Some(lockstep_api::forced::Forced {
                by: 1,
                kept: 1,
                ..lockstep_api::forced::Forced::default()
            }),
            ..volume("resyncing")
        };
        let concerns = level(vec![forced], well()).concerns;
        assert_eq!(concerns.len(), 2, "{concerns:?}");
        assert!(concerns.iter().any(|it| it.why.contains("by force since")));
    }

    #[test]
    fn an_edit_that_is_not_in_force_is_a_concern() {
        let mut status = Status::default();
        judge(&mut status, true, vec![]);
        assert!(status.concerns[0].todo.contains("lockstep config apply"));
    }
}
