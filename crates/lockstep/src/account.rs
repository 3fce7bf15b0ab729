//! `lockstep account …`: secrets come from a file or from standard input.

use crate::args::AccountVerb;
use crate::output;
use anyhow::Context;
use lockstep_api::Client;
use lockstep_api::pool::{SetAccount, SetDiscovery};
use std::io::Read;
use std::path::Path;

/// More than any secret that is taken.
const SECRET_MAX: u64 = 4096;

pub(crate) fn run(client: &Client, verb: AccountVerb, json: bool) -> anyhow::Result<()> {
    let changed = match verb {
        AccountVerb::List => return list(client, json),
        AccountVerb::Set { name, secret_file } => {
            let secret = secret(&secret_file)?;
            client.set_account(&SetAccount { name, secret })?
        }
        AccountVerb::Delete { name } => client.delete_account(&name)?,
        AccountVerb::Discovery { names, mutual } => client.set_discovery(&SetDiscovery {
            accounts: names,
            mutual,
        })?,
    };
    crate::config::changed(&changed, json)
}

fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let accounts = client.accounts()?;
    if json {
        return output::json(&accounts);
    }
    if accounts.is_empty() {
        return output::line("there are no accounts: whoever reaches a portal may log in");
    }
    let rows = accounts
        .into_iter()
        .map(|a| {
            vec![
                a.name,
                a.volumes.join(" "),
                if a.discovery { "yes" } else { "no" }.into(),
            ]
        })
        .collect();
    output::line(&output::table(&["ACCOUNT", "VOLUMES", "DISCOVERY"], rows))
}

pub(crate) fn secret(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(SECRET_MAX)
            .read_to_string(&mut text)?;
    } else {
        let file = std::fs::File::open(path)
            .with_context(|| format!("the secret file {} cannot be opened", path.display()))?;
        file.take(SECRET_MAX)
            .read_to_string(&mut text)
            .with_context(|| {
                format!("the secret file {} cannot be read as text", path.display())
            })?;
    }
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
