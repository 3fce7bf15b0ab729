//! The rules of a pool configuration, whether the API made it or a hand.

use super::{Pool, PoolVolume, Strategy};
use std::collections::BTreeSet;

/// Volumes in a pool: each has a data path, a metadata file and 64 KiB of state in memory.
pub const VOLUMES_MAX: usize = 255;

/// CHAP accounts; far more than there are hosts at one pair of nodes.
pub const ACCOUNTS_MAX: usize = 256;

/// Initiators in one volume's list: XenServer pools have up to 64 hosts.
pub const ALLOW_MAX: usize = 256;

/// Least and greatest length of a CHAP secret; RFC 7143 §12.1.3 wants 96 bits.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 12..=255;

/// Least and greatest length of the secret shared with the witness.
pub const WITNESS_SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=255;

/// Smallest and largest volume.
pub const VOLUME_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=256 << 40;

/// Everything that is wrong, as sentences that name the thing and what is allowed.
#[must_use]
pub fn problems(pool: &Pool) -> Vec<String> {
    let mut out = Vec::new();
    if pool.volumes.len() > VOLUMES_MAX {
        out.push(format!(
            "{} volumes; allowed: at most {VOLUMES_MAX}",
            pool.volumes.len()
        ));
    }
    if pool.accounts.len() > ACCOUNTS_MAX {
        out.push(format!(
            "{} accounts; allowed: at most {ACCOUNTS_MAX}",
            pool.accounts.len()
        ));
    }
    twice(
        "account",
        pool.accounts.iter().map(|account| account.name.clone()),
        &mut out,
    );
    twice(
        "volume",
        pool.volumes.iter().map(|volume| volume.name.clone()),
        &mut out,
    );
    twice(
        "node",
        pool.nodes.iter().map(|node| node.number.to_string()),
        &mut out,
    );
    let uuids = pool
        .volumes
        .iter()
        .map(|volume| crate::uuid::format(volume.uuid.0));
    twice("volume with uuid", uuids, &mut out);
    let luns = pool
        .volumes
        .iter()
        .map(|volume| format!("{} LUN {}", volume.target, volume.lun));
    twice("volume at", luns, &mut out);
    for account in &pool.accounts {
        let printable = account.name.bytes().all(|byte| byte.is_ascii_graphic());
        if account.name.is_empty() || account.name.len() > 223 || !printable {
            out.push(format!(
                "account \"{}\": allowed are names of 1 to 223 printable characters without spaces",
                account.name.escape_debug()
            ));
        }
        let length = account.secret.len();
        if !SECRET_BYTES.contains(&length) {
            out.push(format!(
                "account \"{}\": its secret has {length} bytes; allowed: 12 to 255 (some \
                initiators take no more than 16)",
                account.name.escape_debug()
            ));
        }
    }
    known_accounts(pool, "discovery", &pool.discovery_accounts, &mut out);
    known_accounts(
        pool,
        "discovery",
        pool.discovery_mutual.as_slice(),
        &mut out,
    );
    if let (Some(name), []) = (&pool.discovery_mutual, pool.discovery_accounts.as_slice()) {
        out.push(format!(
            "discovery: the target proves itself with account \"{}\" only to initiators that \
            prove themselves; allowed: mutual together with accounts",
            name.escape_debug()
        ));
    }
    if let Some(witness) = &pool.witness {
        let length = witness.secret.len();
        if !WITNESS_SECRET_BYTES.contains(&length) {
            out.push(format!(
                "witness: its secret has {length} bytes; allowed: 16 to 255"
            ));
        }
    }
    for node in &pool.nodes {
        if !(1..=2).contains(&node.number) {
            out.push(format!("node {}: allowed: 1 and 2", node.number));
        }
    }
    for volume in &pool.volumes {
        let what = format!("volume \"{}\"", volume.name.escape_debug());
        known_accounts(pool, &what, &volume.accounts, &mut out);
        known_accounts(pool, &what, volume.mutual.as_slice(), &mut out);
        if volume.strategy == Strategy::Majority && pool.witness.is_none() {
            out.push(format!(
                "{what}: strategy majority needs a witness; name one first: lockstep config \
                witness IP:PORT --secret-file FILE"
            ));
        }
        one_volume(volume, &what, &mut out);
    }
    out
}

fn twice(kind: &str, names: impl Iterator<Item = String>, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if seen.contains(&name) {
            out.push(format!(
                "{kind} \"{}\" is there twice; allowed: once",
                name.escape_debug()
            ));
        }
        seen.insert(name);
    }
}

fn known_accounts(pool: &Pool, what: &str, names: &[String], out: &mut Vec<String>) {
    for name in names {
        if !pool.accounts.iter().any(|account| account.name == *name) {
            let name = name.escape_debug();
            out.push(format!(
                "{what}: there is no account \"{name}\"; make it first: lockstep account \
                set {name} --secret-file FILE"
            ));
        }
    }
}

fn one_volume(volume: &PoolVolume, what: &str, out: &mut Vec<String>) {
    if !name_is_plain(&volume.name) {
        out.push(format!(
            "{what}: allowed are names of 1 to 64 of a-z, 0-9, - and ., with a \
            letter or digit at both ends"
        ));
    }
    if ![512, 4096].contains(&volume.block_size) {
        out.push(format!(
            "{what}: block size {}; allowed: 512 or 4096",
            volume.block_size
        ));
    } else if !volume.size.0.is_multiple_of(u64::from(volume.block_size)) {
        out.push(format!(
            "{what}: size {} is no multiple of its block size {}; allowed: whole blocks",
            volume.size, volume.block_size
        ));
    }
    if !VOLUME_BYTES.contains(&volume.size.0) {
        out.push(format!(
            "{what}: size {}; allowed: 1MiB to 256TiB",
            volume.size
        ));
    }
    if !iscsi_name(&volume.target) {
        out.push(format!(
            "{what}: target \"{}\" is no iSCSI name; allowed: iqn., eui. or naa., \
            lower case, at most 223 bytes",
            volume.target.escape_debug()
        ));
    }
    if volume.allow.len() > ALLOW_MAX {
        out.push(format!(
            "{what}: {} initiators; allowed: at most {ALLOW_MAX}",
            volume.allow.len()
        ));
    }
    for initiator in volume.allow.iter().filter(|name| !iscsi_name(name)) {
        out.push(format!(
            "{what}: \"{}\" is no iSCSI name of an initiator; allowed: iqn., eui. or \
            naa., lower case, at most 223 bytes",
            initiator.escape_debug()
        ));
    }
    let nodes: Vec<u8> = volume.replicas.iter().map(|replica| replica.node).collect();
    let good: [&[u8]; 4] = [&[1], &[2], &[1, 2], &[2, 1]];
    if !good.contains(&nodes.as_slice()) {
        out.push(format!(
            "{what}: has copies on nodes {nodes:?}; allowed: one on node 1, one on \
            node 2, or one on each"
        ));
    }
    for replica in &volume.replicas {
        let image = &replica.image;
        if image.is_empty()
            || image.len() > 4000
            || image.bytes().any(|byte| byte < b' ')
            || image.split('/').any(|part| part == "..")
        {
            out.push(format!(
                "{what}: image \"{}\" on node {}; allowed: a path without .. and control \
                characters",
                image.escape_debug(),
                replica.node
            ));
        }
    }
}

fn name_is_plain(name: &str) -> bool {
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let end = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= 64
        && end(name.bytes().next())
        && end(name.bytes().last())
        && name.bytes().all(inner)
}

/// RFC 7143 §4.2.7: prefix, then characters of the stringprep profile, of which we take ASCII.
fn iscsi_name(name: &str) -> bool {
    let typed = ["iqn.", "eui.", "naa."]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte);
    typed && (5..=223).contains(&name.len()) && name.bytes().all(inner)
}
