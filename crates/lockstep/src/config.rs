//! `lockstep config …`

use crate::args::ConfigVerb;
use crate::output;
use anyhow::{Context, bail};
use lockstep_api::Client;
use lockstep_api::pool::{Changed, SetWitness};
use lockstep_daemon::config::Config;
use std::path::Path;

pub(crate) fn run(client: &Client, verb: ConfigVerb, json: bool) -> anyhow::Result<()> {
    match verb {
        ConfigVerb::Check { file } => check(&file),
        ConfigVerb::Show => show(client, json),
        ConfigVerb::Apply => changed(&client.apply_config()?, json),
        ConfigVerb::Witness {
            address: Some(address),
            secret_file: Some(file),
            ..
        } => {
            let secret = crate::account::secret(&file)?;
            changed(&client.set_witness(&SetWitness { address, secret })?, json)
        }
        ConfigVerb::Witness { .. } => changed(&client.remove_witness()?, json),
        ConfigVerb::Keep => changed(&client.keep_config()?, json),
    }
}

/// Says what a change of the pool configuration brought.
pub(crate) fn changed(changed: &Changed, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(changed);
    }
    let note = if changed.note.is_empty() {
        String::new()
    } else {
        format!("; {}", changed.note)
    };
    output::line(&format!(
        "in force as generation {}{note}",
        changed.generation
    ))
}

fn check(file: &Path) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    let problems = lockstep_daemon::preflight(&config);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    output::line(&format!(
        "{}: good; node {} of {}",
        file.display(),
        config.node.number,
        config.cluster.name
    ))
}

fn show(client: &Client, json: bool) -> anyhow::Result<()> {
    let view = client
        .config()
        .context("the pool configuration comes from the daemon")?;
    if json {
        return output::json(&view);
    }
    output::line(&format!(
        "# generation {}, shown in {}",
        view.generation, view.file
    ))?;
    output::line(view.text.trim_end())?;
    if view.edited.is_empty() {
        return Ok(());
    }
    output::line("\n# the file was edited; not in force until: lockstep config apply")?;
    output::line(&view.edited.join("\n"))
}
