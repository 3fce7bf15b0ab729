//! Maintenance: this node hands the volume to its partner and stands aside until it is told to
//! come back. Unlike a stop it goes on to answer the partner, and its acceptor votes.

use super::stop::{GRACE, Handover};
use super::{Contact, Membership, Output, Path, Role, Severity, Turn, Why};
use crate::control::{Time, ToVolume};
use alloc::format;
use alloc::string::String;

/// How far this node is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Maintenance {
    /// It serves as ever.
    #[default]
    Off,
    /// It still serves, and asks initiators to prefer the partner.
    Leaving,
    /// It serves nobody and is no target.
    Aside {
        /// What its own initiators have sent is drained by then.
        by: Time,
    },
}

impl Membership {
    /// This node is to be set aside, or to come back. [`Self::step`] does it.
    pub fn maintain(&mut self, to: Maintenance) {
        self.maintenance = to;
    }

    pub(super) const fn is_aside(&self) -> bool {
        matches!(self.maintenance, Maintenance::Aside { .. })
    }

    /// Whether it is served here no more.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        let unused = self.refused.is_some() || self.path == Path::Opening;
        unused || self.role == Role::Idle && self.quiet()
    }

    /// Whether it is set aside, and the partner has taken over what was served here.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        let together = self.durable.configuration.members.count() == 2 && self.served.is_some();
        self.is_set_aside() && (!together || self.handover() == Handover::Done)
    }

    /// Whether the partner, which is to take over, has fallen silent.
    #[must_use]
    pub fn has_no_heir(&self) -> bool {
        !self.is_handed_over() && self.current_view().is_none()
    }

    /// Why the partner could not serve the volume if this node stopped now.
    pub(super) fn needed(&self) -> Option<String> {
        let Some(partner) = self.settings.partner else {
            return Some(String::from("this node has its only copy"));
        };
        let Some(view) = self.current_view() else {
            return Some(match self.contact {
                Contact::Silent { .. } => format!("node {} is not heard", partner.0),
                Contact::Heard { .. } => format!("node {} has no copy that it can use", partner.0),
            });
        };
        let theirs = &view.record;
        if self.durable.split_brain || theirs.split_brain {
            Some(String::from("its two copies were written apart"))
        } else if view.stopping || view.leaves {
            Some(format!("node {} is leaving as well", partner.0))
        } else if theirs.disk_failed {
            Some(format!("the disk of node {} failed", partner.0))
        } else if matches!(self.role, Role::Alone(_)) {
            Some(format!("the copy of node {} is not up to date", partner.0))
        } else if self.role == Role::Member || view.serving {
            None
        } else {
            Some(format!("node {} does not serve it", partner.0))
        }
    }

    /// Drains, lets the partner take over, and then stands still.
    pub(super) fn step_aside(&mut self, turn: &mut Turn<'_>) -> bool {
        let Maintenance::Aside { by } = self.maintenance else {
            return false;
        };
        match self.path {
            Path::Serving => {
                self.path = Path::Draining;
                turn.out.push(Output::Order(ToVolume::Drain { by }));
                return false;
            }
            Path::Draining if turn.now < by + GRACE => return false,
            _ => {}
        }
        if !self.suspended(turn) {
            return false;
        }
        if self.role != Role::Idle {
            let text = "set aside for maintenance";
            turn.event(Severity::Info, String::from(text));
        }
        self.role = Role::Idle;
        self.why = Why::Maintenance;
        // What the partner still applies as the owner was acknowledged until now.
        if self.path == Path::Drained && self.handover() != Handover::UnderWay {
            self.path = Path::Suspending;
            turn.out.push(Output::Order(ToVolume::Suspend));
        }
        false
    }

    /// Whether the partner serves while this node stands aside.
    pub(super) fn is_covered(&self) -> bool {
        self.current_view().is_some_and(|it| it.serving)
    }

    pub(super) fn aside_reason(&self, partner: u8) -> String {
        if self.is_covered() {
            format!("this node is in maintenance; node {partner} serves")
        } else {
            format!(
                "this node is in maintenance, and node {partner} does not serve: end the maintenance, or bring node {partner} back"
            )
        }
    }

    /// Whether the partner is in maintenance, or on its way there.
    #[must_use]
    pub fn partner_leaves(&self) -> bool {
        self.current_view().is_some_and(|it| it.leaves)
    }
}
