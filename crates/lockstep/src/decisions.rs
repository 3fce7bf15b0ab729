//! What only a person can decide about a volume, with what hangs on it said before.

use crate::{config, confirm, output, volume};
use lockstep_api::Client;
use lockstep_api::quantity::Size;
use lockstep_api::status::Event;
use lockstep_api::volume::Volume;

/// `lockstep volume resolve`
pub(crate) fn resolve(
    client: &Client,
    name: &str,
    keep: &str,
    given: Option<String>,
    json: bool,
) -> anyhow::Result<()> {
    let volume = client.volume(name)?;
    // What is not split is refused by the daemon, with the reason.
    let confirm = if volume.state == "split-brain" {
        let me = client.status()?.node;
        let lines = sides(&volume, me, keep, parted(&client.events(0)?, name));
        confirm::typed(given, name, &lines)?
    } else {
        given.unwrap_or_default()
    };
    config::changed(&client.resolve_volume(name, keep, &confirm)?, json)
}

/// When this node's copy went its own way, as its events tell.
fn parted(events: &[Event], volume: &str) -> Option<u64> {
    let alone = |event: &&Event| {
        event.subject == volume
            && (event.text.contains("going on alone") || event.text.contains("by the operator"))
    };
    events.iter().rev().find(alone).map(|event| event.time)
}

fn sides(volume: &Volume, me: u8, keep: &str, since: Option<u64>) -> Vec<String> {
    let wrote = |bytes: Option<u64>| match bytes {
        Some(bytes) => format!("{} marked as written", Size(bytes).rounded()),
        None => "unknown".to_owned(),
    };
    let since = since.map_or_else(String::new, |at| {
        format!(", since {} UTC", lockstep_api::time::utc(at))
    });
    vec![
        format!(
            "Both copies of {} were written after they parted:",
            volume.name
        ),
        format!("  node {me} (here): {}{since}", wrote(Some(volume.dirty))),
        format!("  node {}: {}", 3 - me, wrote(volume.partner_dirty)),
        format!("The copy of node {keep} is kept. What the other one wrote since then is LOST."),
    ]
}

/// `lockstep volume force-activate`
pub(crate) fn force_activate(
    client: &Client,
    name: &str,
    given: Option<String>,
    corrupt: bool,
    json: bool,
) -> anyhow::Result<()> {
    let before = client.volume(name)?;
    let confirm = match before.state.as_str() {
        "serving" | "serving-alone" | "resyncing" | "following" => given.unwrap_or_default(),
        _ => confirm::typed(given, name, &stakes(&before, corrupt))?,
    };
    let volume = client.force_activate(name, &confirm, corrupt)?;
    if json {
        return output::json(&volume);
    }
    output::line(&volume::table(&[volume]))
}

fn stakes(volume: &Volume, corrupt: bool) -> Vec<String> {
    let mut lines = vec![
        format!("{} is not served here: {}", volume.name, volume.reason),
        "Served by force, this copy begins a line of its own. Acknowledged writes that only the \
        other copy holds are LOST, unless that one turns up and is chosen instead."
            .to_owned(),
    ];
    if corrupt {
        lines.push(
            "This copy may be CORRUPT: a resync has begun to write into it and did not end."
                .to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_is_named_with_what_it_wrote_before_one_is_chosen() {
        let volume = Volume {
            name: "vm1".into(),
            dirty: 32 << 20,
            partner_dirty: Some(1 << 20),
            ..Volume::default()
        };
        let text = sides(&volume, 1, "2", Some(0)).join("\n");
        assert!(text.contains("node 1 (here): 32"), "{text}");
        assert!(text.contains("since 1970-01-01 00:00:00 UTC"), "{text}");
        assert!(
            text.contains("node 2: 1") && text.contains("LOST"),
            "{text}"
        );
        assert!(sides(&Volume::default(), 1, "2", None)[2].contains("unknown"));
    }
}
