//! What systemd is told: ready, alive, stopping, and the verdict in one line.

use lockstep_api::status::Status;
use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// The status line is renewed so often.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// A shard that has not turned for so long is not reported alive: systemd ends the daemon, and
/// the partner goes on.
const SHARD_HANGS: Duration = Duration::from_secs(5);

/// Notifies systemd, if it started us.
#[derive(Debug)]
pub(super) struct Watchdog {
    due: Instant,
    every: Duration,
    ready: bool,
}

impl Watchdog {
    pub(super) fn new(now: Instant) -> Self {
        let every = sd_notify::watchdog_enabled().map_or(STATUS_EVERY, |limit| limit / 4);
        Self {
            due: now,
            every: every.min(STATUS_EVERY),
            ready: false,
        }
    }

    /// Whether a report is due.
    pub(super) fn due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Reports. `lag`: since the shard last turned.
    pub(super) fn report(&mut self, now: Instant, lag: Duration, status: &Status) {
        self.due = now + self.every;
        let concern = status.concerns.first();
        let line = match concern {
            Some(concern) => format!("{}: {}: {}", status.level.word(), concern.what, concern.why),
            None => format!(
                "ok, {} volumes, {} sessions",
                status.volumes.len(),
                status.sessions
            ),
        };
        let mut states = vec![NotifyState::Status(&line)];
        if !self.ready {
            states.push(NotifyState::Ready);
            self.ready = true;
        }
        if lag < SHARD_HANGS {
            states.push(NotifyState::Watchdog);
        } else {
            tracing::error!(?lag, "the shard's thread hangs");
        }
        notify(&states);
    }

    pub(super) fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
