//! `lockstep volume …`

use crate::args::{Access, CreateArguments, VolumeVerb};
use crate::{config, decisions, output};
use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use lockstep_api::Client;
use lockstep_api::quantity::Size;
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
    rows.extend(volume.resync.map(|p| ("resync", progress(&p))));
    if volume.resync_compared > 0 {
        let text = format!(
            "{} compared, {} of it copied; {} full (from this node, since its daemon started)",
            Size(volume.resync_compared).rounded(),
            Size(volume.resync_copied).rounded(),
            volume.full_resyncs
        );
        rows.push(("resynced", text));
    }
    rows.extend(volume.provisioning.map(|p| ("provisioning", progress(&p))));
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
