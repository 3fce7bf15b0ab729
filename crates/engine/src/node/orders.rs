//! Orders from outside: the orderly stop, and what an operator may ask.

use super::{Node, Turn};
use crate::interface::ToShard;
use crate::node_interface::{NodeAction, Operator, Severity};
use core::time::Duration;
use lockstep_mirror::control::Time;

/// Writes have this long to be committed.
const DRAIN: Duration = Duration::from_secs(10);
/// Initiators have this long to log out.
const LOGOUT: Duration = Duration::from_secs(2);
/// Whatever happens, the process is not kept longer.
const AT_MOST: Duration = Duration::from_secs(25);

/// How far an orderly stop has come.
pub(super) struct Stop {
    by: Time,
    /// Initiators were asked to leave, until then.
    logout: Option<Time>,
    logged_out: bool,
    told: bool,
}

impl Node {
    pub(super) fn begin_stop(&mut self, turn: &mut Turn<'_>) {
        if self.stop.is_some() {
            return;
        }
        turn.event(
            Severity::Info,
            None,
            "stopping: volumes are handed over, writes drained".into(),
        );
        self.stop = Some(Stop {
            by: turn.now + AT_MOST,
            logout: None,
            logged_out: false,
            told: false,
        });
        for volume in self.volumes.values_mut() {
            volume.membership.stop(turn.now + DRAIN);
        }
        turn.touched.extend(self.volumes.keys().copied());
    }

    pub(super) fn logged_out(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.logged_out = true;
        }
    }

    /// Volumes first, so that no write is lost; then the initiators are asked to leave.
    pub(super) fn step_stop(&mut self, turn: &mut Turn<'_>) {
        let done = self.volumes.values().all(|it| it.membership.stopped());
        let clean = done
            && self
                .volumes
                .values()
                .all(|it| it.membership.stopped_clean());
        let Some(stop) = &mut self.stop else { return };
        let late = turn.now >= stop.by;
        if !done && !late || stop.told {
            return;
        }
        let until = *stop.logout.get_or_insert_with(|| {
            let by = turn.now + LOGOUT;
            turn.out.push(NodeAction::Order(ToShard::LogoutAll { by }));
            by
        });
        if stop.logged_out || turn.now >= until || late {
            stop.told = true;
            turn.out.push(NodeAction::Stopped { clean });
        }
    }

    pub(super) fn operator(&mut self, turn: &mut Turn<'_>, order: &Operator) {
        match order {
            Operator::KeepConfig => self.keep_config(turn),
            Operator::Rejoin { volume } => {
                let now = turn.now;
                let waited = self.volumes.get_mut(volume);
                let text = if waited.is_some_and(|it| it.membership.pardon(now)) {
                    "the partner, which was too slow, may join again at once"
                } else {
                    "the partner does not wait for having been too slow"
                };
                turn.event(Severity::Info, Some(*volume), text.into());
                turn.touched.insert(*volume);
            }
            Operator::KeepCopy { volume } => {
                let split = self
                    .volumes
                    .get_mut(volume)
                    .is_some_and(|it| it.membership.keep());
                let text = if split {
                    "split brain: this node's copy was chosen"
                } else {
                    "there is no split brain to resolve here"
                };
                turn.event(Severity::Warning, Some(*volume), text.into());
                turn.touched.insert(*volume);
            }
        }
    }
}
