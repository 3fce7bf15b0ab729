//! `lockstep volume …`

use crate::args::{Access, CreateArguments, VolumeVerb};
use crate::{config, decisions, output};
use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use lockstep_api::Client;
use lockstep_api::quantity::Size;
use lockstep_api::resync::Pace;
use lockstep_api::verify::{Repair, Verify};
use lockstep_api::volume::{CreateVolume, Progress, SetAccess, Volume};
use std::time::{Duration, Instant};

/// How often a volume that is being made is asked for.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// How long `create` waits for the other node once the image here is ready.
const SETTLE: Duration = Duration::from_secs(10);

pub(crate) fn run(client: &Client, verb: VolumeVerb, json: bool) -> anyhow::Result<()> {
    match verb {
        VolumeVerb::Create(arguments) => create(client, arguments, json),
        VolumeVerb::List => list(client, json),
        VolumeVerb::Show { name } => show(&client.volume(&name)?, json),
        VolumeVerb::Access(arguments) => {
            let access = set_access(arguments.access);
            config::changed(&client.set_access(&arguments.name, &access)?, json)
        }
        VolumeVerb::Strategy { name, strategy } => {
            config::changed(&client.set_strategy(&name, strategy.into())?, json)
        }
        VolumeVerb::Resolve {
            name,
            keep,
            confirm,
        } => decisions::resolve(client, &name, &keep, confirm, json),
        VolumeVerb::ForceActivate {
            name,
            confirm,
            may_be_corrupt,
        } => decisions::force_activate(client, &name, confirm, may_be_corrupt, json),
        VolumeVerb::Resync { name, priority } => {
            config::changed(&client.set_priority(&name, priority.into())?, json)
        }
        VolumeVerb::Verify {
            name,
            repair,
            no_wait,
            stop,
        } => verify(client, &name, repair.into(), no_wait, stop, json),
        VolumeVerb::Rejoin { name } => config::changed(&client.rejoin_volume(&name)?, json),
        VolumeVerb::Delete { name, confirm } => {
            config::changed(&client.delete_volume(&name, &confirm)?, json)
        }
    }
}

fn set_access(access: Access) -> SetAccess {
    SetAccess {
        accounts: access.accounts,
        mutual: access.mutual,
        allow: access.allow,
    }
}

fn create(client: &Client, arguments: CreateArguments, json: bool) -> anyhow::Result<()> {
    let access = set_access(arguments.access);
    let mut volume = client.create_volume(&CreateVolume {
        name: arguments.name,
        size: arguments.size,
        block_size: Some(arguments.block_size),
        cache: arguments.cache.into(),
        replicas: arguments.replica,
        accounts: access.accounts,
        mutual: access.mutual,
        allow: access.allow,
        strategy: arguments.strategy.into(),
        prefill: arguments.prefill,
        adopt: arguments.adopt,
    })?;
    let bar = (!json && output::on_terminal()).then(|| bar(volume.size));
    let mut opened = None;
    while !arguments.no_wait && is_coming(&volume, &mut opened) {
        if let (Some(bar), Some(progress)) = (&bar, volume.provisioning) {
            bar.set_position(progress.done);
        }
        std::thread::sleep(POLL_EVERY);
        volume = client.volume(&volume.name)?;
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if volume.state == "failed" {
        bail!(
            "volume {} was created, but its image on this node is not usable: {}",
            volume.name,
            volume.reason
        );
    }
    show(&volume, json)
}

/// Whether a new volume is on its way to be served. Once its image here is ready, both nodes agree
/// within moments, unless the other one is busy with its own image, or cannot make it.
fn is_coming(volume: &Volume, opened: &mut Option<Instant>) -> bool {
    match volume.state.as_str() {
        "provisioning" | "opening" => true,
        "waiting" => opened.get_or_insert_with(Instant::now).elapsed() < SETTLE,
        _ => false,
    }
}

fn bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left")
        .expect("a fixed template");
    ProgressBar::new(total).with_style(style)
}

fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let volumes = client.volumes()?;
    if json {
        return output::json(&volumes);
    }
    if volumes.is_empty() {
        return output::line(
            "there are no volumes; make one: lockstep volume create NAME --size 10GiB",
        );
    }
    output::line(&table(&volumes))
}

/// One line a volume.
pub(crate) fn table(volumes: &[Volume]) -> String {
    let rows = volumes
        .iter()
        .map(|volume| {
            let members: Vec<String> = volume.members.iter().map(u8::to_string).collect();
            vec![
                volume.name.clone(),
                Size(volume.size).rounded(),
                volume.state.clone(),
                members.join(" "),
                if volume.dirty == 0 {
                    "-".into()
                } else {
                    Size(volume.dirty).rounded()
                },
                volume
                    .resync
                    .or(volume.provisioning)
                    .map_or_else(|| "-".into(), |p| progress(&p)),
                volume.sessions.to_string(),
            ]
        })
        .collect();
    output::table(
        &[
            "VOLUME",
            "SIZE",
            "STATE",
            "CURRENT ON",
            "DIRTY",
            "PROGRESS",
            "SESSIONS",
        ],
        rows,
    )
}

/// `41.5 %, 12 s left`.
pub(crate) fn progress(progress: &Progress) -> String {
    let permille = progress.permille();
    let left = progress
        .left_s
        .map(|s| format!(", {} left", output::duration(s)));
    format!(
        "{}.{} %{}",
        permille / 10,
        permille % 10,
        left.unwrap_or_default()
    )
}

/// The strategy that was asked for, and what is in force as long as that is another one.
fn strategy(volume: &Volume) -> String {
    let (asked, now) = (volume.strategy, volume.strategy_in_force);
    if asked == now || volume.epoch == 0 {
        return asked.word().to_owned();
    }
    format!("{} (still {})", asked.word(), now.word())
}

/// Starts a verification, waits for its end and says what it found. Differences that are left are
/// a failure.
fn verify(
    client: &Client,
    name: &str,
    repair: Repair,
    no_wait: bool,
    stop: bool,
    json: bool,
) -> anyhow::Result<()> {
    if stop {
        return config::changed(&client.stop_verifying(name)?, json);
    }
    let changed = client.verify_volume(name, repair)?;
    if no_wait {
        return config::changed(&changed, json);
    }
    // What the node shows is a moment old.
    let begun = Instant::now();
    let found = loop {
        std::thread::sleep(POLL_EVERY);
        let verify = client.volume(name)?.verify.unwrap_or_default();
        if !verify.running && begun.elapsed() > POLL_EVERY * 3 {
            break verify;
        }
    };
    if json {
        output::json(&found)?;
    } else {
        output::line(&verified(&found))?;
    }
    if !found.complete {
        bail!("volume {name} was not compared to its end; lockstep volume show {name} says why");
    }
    if found.differing > found.repaired {
        bail!(
            "volume {name}: {} pieces of 64 KiB differ; lockstep events names them; find out which \
             copy is right, then: lockstep volume verify {name} --repair node1 (or node2)",
            found.differing - found.repaired
        );
    }
    Ok(())
}

/// `64 GiB of 100 GiB compared; 2 pieces of 64 KiB differed, 2 of them rewritten`.
fn verified(verify: &Verify) -> String {
    let unreadable = match verify.unreadable {
        0 => String::new(),
        pieces => format!("; {pieces} could not be read in one copy"),
    };
    format!(
        "{} of {} compared{}; {} pieces of 64 KiB differed, {} of them rewritten{unreadable}",
        Size(verify.done).rounded(),
        Size(verify.total).rounded(),
        if verify.running { ", it goes on" } else { "" },
        verify.differing,
        verify.repaired,
    )
}

/// `41.5 %, 12 s left, 210 MiB/s, priority normal`.
fn resync(volume: &Volume, how_far: &Progress) -> String {
    format!(
        "{}, {}/s, priority {}",
        progress(how_far),
        Size(how_far.rate).rounded(),
        volume.priority.word()
    )
}

/// What holds a resync back, if anything does, and what initiators feel of it.
fn pace(pace: &Pace) -> String {
    let limit = pace
        .limit
        .map(|limit| format!(" (at most {}/s)", Size(limit).rounded()));
    let latency = (pace.calm_us > 0 && pace.under_way_us > 0).then(|| {
        format!(
            "; 95 of 100 reads and writes within {} µs, without it {} µs",
            pace.under_way_us, pace.calm_us
        )
    });
    format!(
        "{}: {}{}{}",
        pace.phase,
        pace.because,
        limit.unwrap_or_default(),
        latency.unwrap_or_default()
    )
}

/// What is not well with this node's disk, and what is far slower than usual.
fn health(volume: &Volume) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if volume.unreadable > 0 || volume.repaired > 0 || volume.unreadable_lost > 0 {
        let text = format!(
            "{} reads found unreadable blocks on this node, {} repairs from the other one, {} reads \
            that no copy could answer (since its daemon started)",
            volume.unreadable, volume.repaired, volume.unreadable_lost
        );
        rows.push(("this disk", text));
    }
    for place in &volume.damage {
        let text = format!(
            "blocks {} to {} {}, {} UTC",
            place.first_block,
            place.first_block + place.blocks.max(1) - 1,
            place.outcome.words(),
            lockstep_api::time::utc(place.at)
        );
        rows.push(("damage", text));
    }
    for slow in &volume.slow {
        let what = match slow.part.as_str() {
            "write" => "writes to this disk",
            "flush" => "flushes of this disk",
            "partner-flush" => "flushes of the other node",
            _ => "writes to the other node",
        };
        let text = format!(
            "{what}: more than {} µs for {}; usually 99 of 100 within {} µs",
            slow.lately_us,
            output::duration(slow.for_s),
            slow.usual_us
        );
        rows.push(("slow", text));
    }
    rows
}

fn show(volume: &Volume, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(volume);
    }
    let everyone = |list: &[String], none: &str| {
        if list.is_empty() {
            none.to_owned()
        } else {
            list.join(", ")
        }
    };
    let mut rows = vec![
        ("volume", volume.name.clone()),
        ("uuid", volume.uuid.clone()),
        (
            "size",
            format!("{} ({} bytes)", Size(volume.size).rounded(), volume.size),
        ),
        ("blocks of", format!("{} bytes", volume.block_size)),
        ("cache", volume.cache.word().to_owned()),
        ("strategy", strategy(volume)),
        ("target", format!("{} LUN {}", volume.target, volume.lun)),
        ("accounts", everyone(&volume.accounts, "none needed")),
        ("initiators", everyone(&volume.allow, "all")),
        ("state", volume.state.clone()),
        ("because", volume.reason.clone()),
        ("epoch", volume.epoch.to_string()),
        ("dirty", Size(volume.dirty).rounded()),
        ("sessions", volume.sessions.to_string()),
    ];
    rows.extend(volume.forced.as_ref().map(|it| ("forced", it.sentence())));
    rows.extend(volume.resync.map(|p| ("resync", resync(volume, &p))));
    rows.extend(volume.pace.as_ref().map(|it| ("because", pace(it))));
    if volume.resync_restarts > 0 {
        let times = volume.resync_restarts;
        rows.push((
            "stood still",
            format!("{times} times; it was begun anew each time"),
        ));
    }
    if volume.resync_compared > 0 {
        let text = format!(
            "{} compared, {} of it copied; {} full (from this node, since its daemon started)",
            Size(volume.resync_compared).rounded(),
            Size(volume.resync_copied).rounded(),
            volume.full_resyncs
        );
        rows.push(("resynced", text));
    }
    if volume.proxied_reads + volume.proxied_writes > 0 {
        let text = format!(
            "{} reads and {} writes, carried out by the partner (since this daemon started)",
            volume.proxied_reads, volume.proxied_writes
        );
        rows.push(("passed on", text));
    }
    rows.extend(volume.provisioning.map(|p| ("provisioning", progress(&p))));
    rows.extend(volume.verify.as_ref().map(|it| ("verified", verified(it))));
    rows.extend(health(volume));
    for replica in &volume.replicas {
        let owner = if volume.owner == replica.node {
            ", owner"
        } else {
            ""
        };
        rows.push((
            "copy",
            format!(
                "node {}: {} ({}{owner})",
                replica.node, replica.image, replica.state
            ),
        ));
    }
    for (key, value) in rows {
        output::line(&format!("{key:13} {}", output::plain(&value)))?;
    }
    Ok(())
}
