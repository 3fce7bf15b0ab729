//! `lockstep node …`

use crate::args::{MaintenanceVerb, NodeVerb};
use crate::output;
use anyhow::bail;
use lockstep_api::Client;
use lockstep_api::node::{EnterMaintenance, MaintenanceState};
use std::time::{Duration, Instant};

/// How often a node on its way is asked.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Leading initiators away, their logouts, the drain and the hand-over end long before.
const LIMIT: Duration = Duration::from_secs(40);

pub(crate) fn run(client: &Client, verb: NodeVerb, json: bool) -> anyhow::Result<()> {
    let NodeVerb::Maintenance(verb) = verb;
    match verb {
        MaintenanceVerb::Enter { node, confirm } => {
            let state = client.enter_maintenance(&EnterMaintenance {
                node: node.unwrap_or_default(),
                confirm: confirm.unwrap_or_default(),
            })?;
            let state = wait(client, state)?;
            say(
                state,
                "in maintenance: this node serves nobody, and may be stopped or restarted",
                json,
            )
        }
        MaintenanceVerb::Leave { node } => {
            let state = client.leave_maintenance(&node.unwrap_or_default())?;
            say(
                state,
                "maintenance has ended: the copies here are brought up to date",
                json,
            )
        }
    }
}

fn wait(client: &Client, begun: MaintenanceState) -> anyhow::Result<MaintenanceState> {
    let start = Instant::now();
    let mut state = begun;
    while state == MaintenanceState::Entering {
        if start.elapsed() > LIMIT {
            bail!("it is still handing its volumes over: lockstep status says what it waits for");
        }
        std::thread::sleep(POLL_EVERY);
        state = client.status()?.maintenance;
    }
    if state == MaintenanceState::Off {
        bail!("maintenance was given up, and this node serves on: lockstep events says why");
    }
    Ok(state)
}

fn say(state: MaintenanceState, text: &str, json: bool) -> anyhow::Result<()> {
    match json {
        true => output::json(&state),
        false => output::line(text),
    }
}
