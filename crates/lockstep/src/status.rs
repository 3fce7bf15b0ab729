//! `lockstep status`: one screen, the verdict first, then what is behind it.

use crate::{output, volume};
use lockstep_api::Client;
use lockstep_api::quantity::Size;
use lockstep_api::status::{Level, Partner, PathStatus, Status, Witness};

pub(crate) fn run(client: &Client, json: bool) -> anyhow::Result<()> {
    let status = client.status()?;
    if json {
        return output::json(&status);
    }
    output::line(&screen(&status))
}

/// The whole screen.
fn screen(status: &Status) -> String {
    let mut lines = vec![format!(
        "{}: {}",
        status.level.word().to_uppercase(),
        verdict(status)
    )];
    for concern in &status.concerns {
        lines.push(format!(
            "  {}  {}: {}",
            mark(concern.level),
            concern.what,
            concern.why
        ));
        lines.push(format!("     -> {}", concern.todo));
    }
    lines.push(String::new());
    lines.push(format!(
        "node      {} ({}) of {}, version {}, up {}, serving at {}",
        status.name,
        status.node,
        status.cluster,
        status.version,
        output::duration(status.uptime_s),
        status.portals.join(" ")
    ));
    lines.push(format!("partner   {}", partner(&status.partner)));
    for path in &status.partner.paths {
        let state = path_state(path);
        lines.push(format!(
            "  {:9} {} - {}  {state}",
            path.kind, path.local, path.remote
        ));
    }
    if let Some(it) = &status.witness {
        lines.push(format!("witness   {}", witness(it)));
    }
    lines.push(format!("sessions  {}", status.sessions));
    lines.push(format!("pool      generation {}", status.generation));
    let mut screen: String = lines
        .iter()
        .map(|line| output::plain(line) + "\n")
        .collect();
    screen.push('\n');
    if status.volumes.is_empty() {
        screen.push_str("no volumes; make one: lockstep volume create NAME --size 10GiB");
    } else {
        screen.push_str(&volume::table(&status.volumes));
    }
    screen
}

/// Whether a path works, since when, how fast, and what went over it.
fn path_state(path: &PathStatus) -> String {
    let since = path
        .changed_s
        .map_or_else(String::new, |age| format!(" for {}", output::duration(age)));
    let traffic = format!(
        "{} out, {} in",
        Size(path.sent_bytes).rounded(),
        Size(path.received_bytes).rounded()
    );
    if !path.up {
        return format!("down{since}: {}", path.error);
    }
    let mut facts = vec![format!("up{since}")];
    if let Some(time) = path.round_trip_us {
        facts.push(format!("{}.{:02} ms", time / 1000, time % 1000 / 10));
    }
    if path.kind == "sync" {
        facts.push(format!("{} data connections", path.channels));
    }
    facts.push(traffic);
    if let Some(mtu) = &path.mtu {
        facts.push(match mtu.warning.is_empty() {
            true => format!("MTU {}", mtu.here),
            false => format!("MTU {} here, {} there: WRONG", mtu.here, mtu.there),
        });
    }
    facts.join(", ")
}

fn mark(level: Level) -> &'static str {
    match level {
        Level::Ok => "i",
        Level::Degraded => "!",
        Level::Critical => "!!",
    }
}

fn verdict(status: &Status) -> &'static str {
    match (status.level, status.volumes.is_empty()) {
        (Level::Ok, true) => "nothing is wrong, and nothing is served yet",
        (Level::Ok, false) if status.partner.node == 0 => {
            "everything is served (from one node only)"
        }
        (Level::Ok, false) => "every volume is served and held by every node that should hold it",
        (Level::Degraded, _) => "volumes are served, but less safely than they should be",
        (Level::Critical, _) => "something is not served or needs a person",
    }
}

fn witness(witness: &Witness) -> String {
    let state = match (witness.up, witness.admitted) {
        (true, true) => "up, votes".into(),
        (true, false) => "up, not yet admitted".into(),
        (false, _) if witness.error.is_empty() => "does not answer".into(),
        (false, _) => format!("down: {}", witness.error),
    };
    format!("at {}, {state}", witness.address)
}

fn partner(partner: &Partner) -> String {
    if partner.node == 0 {
        return "none configured".into();
    }
    let name = if partner.name.is_empty() {
        "unnamed"
    } else {
        &partner.name
    };
    let up = partner.paths.iter().filter(|path| path.up).count();
    let heard = match partner.heartbeat_age_ms {
        None => "not heard since this daemon started".into(),
        Some(age) => format!("last heard {}.{} s ago", age / 1000, age / 100 % 10),
    };
    let state = if partner.up { "up" } else { "DOWN" };
    format!(
        "{name} ({}): {state}, {heard}, {up} of {} paths up",
        partner.node,
        partner.paths.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::status::Concern;

    #[test]
    fn the_screen_begins_with_the_verdict_and_what_to_do() {
        let status = Status {
            level: Level::Degraded,
            node: 1,
            concerns: vec![Concern {
                level: Level::Degraded,
                what: "partner".into(),
                why: "not heard for 12 s".into(),
                todo: "look at node 2".into(),
            }],
            partner: Partner {
                node: 2,
                name: "b\x1b]0;x".into(),
                up: false,
                heartbeat_age_ms: Some(12_345),
                certificates_taken: 0,
                certificates_refused: 0,
                paths: vec![PathStatus {
                    kind: "sync".into(),
                    local: "10.0.0.1:7401".into(),
                    remote: "10.0.0.2:7401".into(),
                    up: false,
                    error: "connection refused".into(),
                    ..PathStatus::default()
                }],
            },
            ..Status::default()
        };
        let screen = screen(&status);
        let mut lines = screen.lines();
        assert!(
            lines
                .next()
                .unwrap()
                .starts_with("DEGRADED: volumes are served")
        );
        assert_eq!(lines.next(), Some("  !  partner: not heard for 12 s"));
        assert_eq!(lines.next(), Some("     -> look at node 2"));
        assert!(screen.contains("b?]0;x (2): DOWN, last heard 12.3 s ago, 0 of 1 paths up"));
        assert!(screen.contains("down: connection refused"));
    }
}
