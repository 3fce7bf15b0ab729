//! `lockstep session …`

use crate::args::SessionVerb;
use crate::output;
use lockstep_api::Client;

pub(crate) fn run(client: &Client, verb: &SessionVerb, json: bool) -> anyhow::Result<()> {
    let SessionVerb::List = verb;
    let sessions = client.sessions()?;
    if json {
        return output::json(&sessions);
    }
    if sessions.is_empty() {
        return output::line("no initiator is logged in to this node");
    }
    let rows = sessions
        .into_iter()
        .map(|s| vec![s.initiator, s.volume, s.peer, s.portal, s.tasks.to_string()])
        .collect();
    output::line(&output::table(
        &["INITIATOR", "VOLUME", "FROM", "PORTAL", "COMMANDS"],
        rows,
    ))
}
