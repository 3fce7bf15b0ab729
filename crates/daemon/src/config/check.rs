//! Rules that a single value's type cannot express: ranges, and what must fit together. Each
//! problem names the key that should be changed.

use super::{
    Address, CHANNELS_MAX, CONNECTIONS_MAX, Config, PATHS_MAX, PORTALS_MAX, Resync, Timeouts,
};
use lockstep_mirror::volume::DROP_AGE;
use std::path::Path;

type Problems = Vec<(&'static str, String)>;

/// Everything that is wrong; empty: nothing.
pub(super) fn problems(config: &Config) -> Problems {
    let mut out = Problems::new();
    identity(config, &mut out);
    addresses(config, &mut out);
    storage(config, &mut out);
    resync(&config.resync, &mut out);
    timeouts(&config.timeouts, &mut out);
    out
}

fn identity(config: &Config, out: &mut Problems) {
    let number = config.node.number;
    if !(1..=2).contains(&number) {
        out.push((
            "node.number",
            format!("{number} is not a node; allowed: 1 or 2, a different one on each node"),
        ));
    }
    let naming = &config.cluster.naming;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if naming.is_empty()
        || naming.len() > 100
        || !naming.chars().all(plain)
        || naming.starts_with(['.', '-'])
        || naming.ends_with(['.', '-'])
        || naming.contains("..")
    {
        out.push((
            "cluster.naming",
            format!(
                "\"{naming}\" is no reversed domain name; allowed: lower case letters, \
                digits, - and . between them, at most 100, such as \
                \"com.example.storage\""
            ),
        ));
    }
    for (key, name) in [
        ("cluster.name", &config.cluster.name),
        ("node.name", &config.node.name),
    ] {
        if name.len() > 64 || name.chars().any(char::is_control) {
            out.push((
                key,
                "allowed: at most 64 bytes without control characters".into(),
            ));
        }
    }
    if config.cluster.name.is_empty() {
        out.push(("cluster.name", "is empty; allowed: any short name".into()));
    }
}

fn addresses(config: &Config, out: &mut Problems) {
    let partner = &config.partner;
    let data = &config.portals.data;
    if data.is_empty() || data.len() > PORTALS_MAX {
        out.push((
            "portals.data",
            format!("has {} addresses; allowed: 1 to {PORTALS_MAX}", data.len()),
        ));
    }
    let lists = [
        ("portals.data", data),
        ("partner.sync_local", &partner.sync_local),
        ("partner.sync_remote", &partner.sync_remote),
        ("partner.heartbeat_local", &partner.heartbeat_local),
        ("partner.heartbeat_remote", &partner.heartbeat_remote),
    ];
    for (key, list) in lists {
        if let Some(wild) = list.iter().find(|address| address.0.ip().is_unspecified()) {
            out.push((
                key,
                format!(
                    "\"{}\" is every address of this machine; allowed: one that others can \
                    connect to",
                    wild.0
                ),
            ));
        }
        if let Some(multicast) = list.iter().find(|address| address.0.ip().is_multicast()) {
            out.push((
                key,
                format!(
                    "\"{}\" is a multicast address; allowed: one machine's own address",
                    multicast.0
                ),
            ));
        }
    }
    let pairs = [
        (
            "partner.sync_remote",
            &partner.sync_local,
            &partner.sync_remote,
        ),
        (
            "partner.heartbeat_remote",
            &partner.heartbeat_local,
            &partner.heartbeat_remote,
        ),
    ];
    for (key, local, remote) in pairs {
        if local.len() != remote.len() {
            out.push((
                key,
                format!(
                    "names {} ends of links of which we have {}; allowed: one for each of \
                    ours, in the same order",
                    remote.len(),
                    local.len()
                ),
            ));
        }
        if local.len() > PATHS_MAX {
            out.push((
                key,
                format!("names {} links; allowed: at most {PATHS_MAX}", local.len()),
            ));
        }
        if let Some((a, b)) = local
            .iter()
            .zip(remote)
            .find(|(a, b)| a.0.is_ipv4() != b.0.is_ipv4())
        {
            out.push((
                key,
                format!(
                    "\"{}\" cannot be reached from \"{}\"; allowed: the same address family \
                    at both ends",
                    b.0, a.0
                ),
            ));
        }
    }
    let connections = usize::from(partner.connections);
    if !(1..=CONNECTIONS_MAX).contains(&partner.connections) {
        out.push((
            "partner.connections",
            format!("{connections} is out of range; allowed: 1 to {CONNECTIONS_MAX}"),
        ));
    } else if partner.sync_local.len() * connections > CHANNELS_MAX {
        out.push((
            "partner.connections",
            format!(
                "{connections} over each of {} links are {}; allowed: {CHANNELS_MAX} in all",
                partner.sync_local.len(),
                partner.sync_local.len() * connections
            ),
        ));
    }
    if partner.sync_remote.is_empty() && !partner.heartbeat_remote.is_empty() {
        out.push((
            "partner.heartbeat_remote",
            "names a partner to which no sync link leads; fill sync_local and \
            sync_remote, or empty this"
                .into(),
        ));
    }
    if let Some(high) = partner
        .sync_local
        .iter()
        .chain(&partner.sync_remote)
        .find(|address| address.0.port() == u16::MAX)
    {
        out.push((
            "partner.sync_local",
            format!(
                "\"{}\" leaves no port for heartbeats, which use the next one; allowed: \
                ports up to 65534",
                high.0
            ),
        ));
    }
    twice(config, out);
}

/// No two of our own listeners may share an address.
fn twice(config: &Config, out: &mut Problems) {
    let mut seen: Vec<(std::net::SocketAddr, &str)> = Vec::new();
    let sync = |address: &Address| ("partner.sync_local", address.0);
    let portal = |address: &Address| ("portals.data", address.0);
    let control = |path: super::ControlPath| match path.sync {
        true => ("partner.sync_local", path.local),
        false => ("partner.heartbeat_local", path.local),
    };
    let all = config
        .portals
        .data
        .iter()
        .map(portal)
        .chain(config.partner.sync_local.iter().map(sync))
        .chain(config.control_paths().into_iter().map(control))
        .chain(
            config
                .admin
                .metrics
                .0
                .map(|address| ("admin.metrics", address)),
        );
    for (key, address) in all {
        if let Some((_, other)) = seen.iter().find(|(used, _)| *used == address) {
            out.push((
                key,
                format!(
                    "{address} is used by {other} already (a sync link also uses the port \
                    after its own); allowed: an address and port of its own"
                ),
            ));
        }
        seen.push((address, key));
    }
}

fn storage(config: &Config, out: &mut Problems) {
    let directories = &config.storage.directories;
    if directories.is_empty() {
        out.push((
            "storage.directories",
            "is empty; allowed: at least one directory".into(),
        ));
    }
    let absolute = |key, path: &Path, out: &mut Problems| {
        if !path.is_absolute() {
            out.push((
                key,
                format!(
                    "\"{}\" depends on where the daemon is started; allowed: a path that \
                    begins with /",
                    path.display()
                ),
            ));
        }
    };
    for directory in directories {
        absolute("storage.directories", directory, out);
    }
    absolute("node.state_directory", &config.node.state_directory, out);
    absolute("admin.socket", &config.admin.socket, out);
    absolute("partner.secret_file", &config.partner.secret_file, out);
    // sockaddr_un has room for 107 bytes and a zero.
    let length = config.admin.socket.as_os_str().len();
    if length > 107 {
        out.push((
            "admin.socket",
            format!(
                "has {length} bytes; allowed: at most 107, for that is what a socket's \
                address holds"
            ),
        ));
    }
    let memory = config.engine.pool_memory;
    if !(64 << 20..=64 << 30).contains(&memory.0) {
        out.push((
            "engine.pool_memory",
            format!("{memory} is out of range; allowed: 64MiB to 64GiB"),
        ));
    }
    if config.engine.shards != 1 {
        out.push((
            "engine.shards",
            format!(
                "{} shards are not possible; allowed: 1 in this version",
                config.engine.shards
            ),
        ));
    }
}

fn resync(resync: &Resync, out: &mut Problems) {
    let floor = resync.floor;
    if !(1 << 20..=64 << 30).contains(&floor.0) {
        out.push((
            "resync.floor",
            format!(
                "{floor} a second is out of range; allowed: 1MiB to 64GiB (what a resync does at \
                least, whatever initiators do)"
            ),
        ));
    }
}

fn timeouts(t: &Timeouts, out: &mut Problems) {
    let ranges = [
        ("timeouts.heartbeat_ms", t.heartbeat_ms, 20, 10_000),
        ("timeouts.lease_ms", t.lease_ms, 60, 60_000),
        ("timeouts.silent_ms", t.silent_ms, 100, 120_000),
        ("timeouts.path_ms", t.path_ms, 500, 600_000),
        ("timeouts.login_s", t.login_s, 1, 120),
        ("timeouts.nop_interval_s", t.nop_interval_s, 0, 3600),
        ("timeouts.nop_timeout_s", t.nop_timeout_s, 1, 600),
    ];
    for (key, value, least, most) in ranges {
        if !(least..=most).contains(&value) {
            out.push((
                key,
                format!("{value} is out of range; allowed: {least} to {most}"),
            ));
        }
    }
    let drop_age = DROP_AGE.as_millis();
    let orders = [
        (
            u64::from(t.heartbeat_ms) * 3 <= u64::from(t.lease_ms),
            "timeouts.lease_ms",
            format!(
                "a lease of {} ms outlives fewer than three heartbeats of {} ms, so that \
                one lost packet stops reads; allowed: at least {}",
                t.lease_ms,
                t.heartbeat_ms,
                u64::from(t.heartbeat_ms) * 3
            ),
        ),
        (
            t.lease_ms < t.silent_ms,
            "timeouts.silent_ms",
            format!(
                "{} ms of silence end before a lease of {} ms does; allowed: more than lease_ms",
                t.silent_ms, t.lease_ms
            ),
        ),
        (
            u128::from(t.silent_ms) < drop_age,
            "timeouts.silent_ms",
            format!(
                "a silent partner would be noticed after {} ms, when writes that wait \
                for it have been given back; allowed: less than {drop_age}",
                t.silent_ms
            ),
        ),
        (
            drop_age < u128::from(t.path_ms),
            "timeouts.path_ms",
            format!(
                "a write may begin for {drop_age} ms, and initiators repeat it elsewhere \
                after {} ms; allowed: more than {drop_age}",
                t.path_ms
            ),
        ),
    ];
    for (holds, key, text) in orders {
        if !holds {
            out.push((key, text));
        }
    }
}
