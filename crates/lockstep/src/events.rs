//! `lockstep events`

use crate::args::EventsWhich;
use crate::output;
use lockstep_api::{Client, ClientError};
use std::time::Duration;

/// How often `--follow` asks.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

pub(crate) fn run(client: &Client, which: &EventsWhich, json: bool) -> anyhow::Result<()> {
    let mut after = which.after;
    loop {
        let events = match client.events(after) {
            Ok(events) => events,
            // A daemon that restarts is what one follows.
            Err(ClientError::NotRunning { .. }) if which.follow && after > which.after => {
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        for event in &events {
            after = after.max(event.number);
            if json {
                output::line(&serde_json::to_string(event)?)?;
            } else {
                output::line(&output::plain(&format!(
                    "{:>6}  {}  {:8}  {}: {} ({})",
                    event.number,
                    lockstep_api::time::utc(event.time),
                    event.level.word(),
                    event.subject,
                    event.text,
                    event.actor
                )))?;
            }
        }
        if !which.follow {
            return Ok(());
        }
        std::thread::sleep(FOLLOW_EVERY);
    }
}
