//! Maintenance of this node: initiators are led to the partner, asked to log out, and then every
//! volume is handed over. It lasts until it is ended, over restarts of the daemon too.

use super::{Node, Turn};
use crate::interface::ToShard;
use crate::node_interface::{MaintenanceStatus, NodeAction, Severity};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Time, VolumeId};
use lockstep_mirror::membership::Maintenance;

/// Initiators that ask for port states now and then have this long to prefer the partner.
const LEAD: Duration = Duration::from_secs(1);
/// They have this long to log out once they are asked to.
const LOGOUT: Duration = Duration::from_secs(3);
/// What they have sent is committed within this time.
const DRAIN: Duration = Duration::from_secs(10);

/// How far this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its ports say that the partner's are better.
    Leading { until: Time },
    /// Initiators were asked to leave, and none is let in.
    LoggingOut { until: Time },
    /// The volumes are handed over, or have been.
    Aside { by: Time, told: bool },
}

/// This node is in maintenance, or on its way there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    stage: Stage,
    /// Whatever the partner can do.
    force: bool,
}

impl Leaving {
    /// The run before ended in maintenance.
    pub(super) const fn at_start() -> Self {
        let (by, told) = (Time::ZERO, true);
        Self {
            stage: Stage::Aside { by, told },
            force: true,
        }
    }

    pub(super) fn logged_out(&mut self) {
        if let Stage::LoggingOut { until } = &mut self.stage {
            *until = Time::ZERO;
        }
    }
}

impl Node {
    /// The volumes that nobody could serve if this node stopped now, with the reason.
    #[must_use]
    pub fn needed_for(&self, now: Time) -> Vec<(VolumeId, String)> {
        let volumes = self.volumes.iter();
        volumes
            .filter_map(|(id, it)| Some((*id, it.membership.status(now).needed?)))
            .collect()
    }

    pub(super) fn maintain(&mut self, turn: &mut Turn<'_>, enter: bool, force: bool) {
        match (enter, self.maintenance.is_some()) {
            (true, false) if self.stop.is_none() => {
                let text = "maintenance: initiators are led to the partner";
                turn.event(Severity::Info, None, text.into());
                let until = turn.now + LEAD;
                self.maintenance = Some(Leaving {
                    stage: Stage::Leading { until },
                    force,
                });
            }
            (false, true) => {
                turn.event(Severity::Info, None, "maintenance has ended".into());
                self.maintenance = None;
                turn.order(ToShard::Welcome);
            }
            _ => return,
        }
        turn.out.push(NodeAction::StoreMaintenance { on: enter });
        self.tell_volumes(turn);
    }

    pub(super) fn step_maintenance(&mut self, turn: &mut Turn<'_>) {
        let Some(Leaving { stage, force }) = self.maintenance else {
            return;
        };
        if self.stop.is_some() {
            return;
        }
        // Nothing has been given away yet: a partner that has fallen ill meanwhile is no heir.
        let early = !matches!(stage, Stage::Aside { .. });
        if early && !force {
            let needed = self.needed_for(turn.now);
            if let Some((id, why)) = needed.first() {
                let text = format!("maintenance was given up: {why}");
                turn.event(Severity::Error, Some(*id), text);
                return self.maintain(turn, false, false);
            }
        }
        if matches!(stage, Stage::Aside { told: false, .. })
            && !force
            && self.volumes.values().any(|it| it.membership.has_no_heir())
        {
            let text = "maintenance was given up: the partner fell silent before it had taken over";
            turn.event(Severity::Error, None, text.into());
            return self.maintain(turn, false, false);
        }
        let next = match stage {
            Stage::Leading { until } if turn.now >= until => {
                let until = turn.now + LOGOUT;
                turn.order(ToShard::LogoutAll { by: until });
                Stage::LoggingOut { until }
            }
            Stage::LoggingOut { until } if turn.now >= until => Stage::Aside {
                by: turn.now + DRAIN,
                told: false,
            },
            Stage::Aside { by, told: false } if self.is_set_aside(force) => {
                turn.event(Severity::Info, None, "in maintenance".into());
                Stage::Aside { by, told: true }
            }
            _ => return,
        };
        self.maintenance = Some(Leaving { stage: next, force });
        self.tell_volumes(turn);
    }

    /// Whether every volume is set aside and, unless that was waived, served by the partner.
    fn is_set_aside(&self, force: bool) -> bool {
        self.volumes.values().map(|it| &it.membership).all(|it| {
            if force {
                it.is_set_aside()
            } else {
                it.is_handed_over()
            }
        })
    }

    fn tell_volumes(&mut self, turn: &mut Turn<'_>) {
        let to = self.maintenance_of_volumes(turn.now);
        for volume in self.volumes.values_mut() {
            volume.membership.maintain(to);
        }
        turn.touched.extend(self.volumes.keys().copied());
    }

    pub(super) fn maintenance_of_volumes(&self, now: Time) -> Maintenance {
        match self.maintenance.map(|it| it.stage) {
            None => Maintenance::Off,
            Some(Stage::Leading { .. } | Stage::LoggingOut { .. }) => Maintenance::Leaving,
            Some(Stage::Aside { by, .. }) => Maintenance::Aside { by: by.max(now) },
        }
    }

    /// Whether no initiator is let in any more.
    pub(super) fn sends_away(&self) -> bool {
        let stage = self.maintenance.map(|it| it.stage);
        !matches!(stage, None | Some(Stage::Leading { .. }))
    }

    pub(super) fn maintenance_status(&self) -> MaintenanceStatus {
        match self.maintenance.map(|it| it.stage) {
            None => MaintenanceStatus::Off,
            Some(Stage::Aside { told: true, .. }) if self.is_set_aside(true) => {
                MaintenanceStatus::On
            }
            Some(_) => MaintenanceStatus::Entering,
        }
    }
}
