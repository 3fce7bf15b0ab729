//! Orders from outside: the orderly stop, and what an operator may ask.

use super::{Node, Turn};
use crate::interface::ToShard;
use crate::node_interface::{NodeAction, Operator, Severity};
use alloc::format;
use core::time::Duration;
use lockstep_mirror::control::{Time, VolumeId};
use lockstep_mirror::membership::ForceRefusal;

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
        } else if let Some(leaving) = &mut self.maintenance {
            leaving.logged_out();
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

    /// Why a copy here is not served by force; `Ok`: it would be.
    ///
    /// # Errors
    /// See `Membership::force`.
    pub fn may_force(&self, now: Time, id: VolumeId, corrupt: bool) -> Result<(), ForceRefusal> {
        match self.volumes.get(&id) {
            Some(volume) => volume.membership.may_force(now, corrupt),
            None => Err(ForceRefusal::No("it cannot be opened here".into())),
        }
    }

    fn force(&mut self, turn: &mut Turn<'_>, id: VolumeId, corrupt: bool) {
        let Some(volume) = self.volumes.get_mut(&id) else {
            return;
        };
        match volume.membership.force(turn.now, corrupt) {
            // Its acceptor begins anew, above all that it can have said before it lost its votes.
            Ok(Some(ballot)) => self.votes.begin_at(id, ballot),
            Ok(None) => {}
            Err(refusal) => {
                let text = format!("not served by force: {refusal:?}");
                turn.event(Severity::Warning, Some(id), text);
            }
        }
        turn.touched.insert(id);
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
            Operator::Need { volume } => {
                if let Some(it) = self.volumes.get_mut(volume) {
                    it.membership.want();
                    turn.touched.insert(*volume);
                }
            }
            Operator::Maintenance { enter, force } => self.maintain(turn, *enter, *force),
            Operator::ForceActivate { volume, corrupt } => self.force(turn, *volume, *corrupt),
            Operator::KeepCopy { volume, mine } => {
                let split = self
                    .volumes
                    .get_mut(volume)
                    .is_some_and(|it| it.membership.keep(*mine));
                let text = match (split, mine) {
                    (false, _) => "there is no split brain to resolve here",
                    (true, true) => "split brain: this node's copy was chosen",
                    (true, false) => "split brain: the partner's copy was chosen",
                };
                turn.event(Severity::Warning, Some(*volume), text.into());
                turn.touched.insert(*volume);
            }
        }
    }
}
