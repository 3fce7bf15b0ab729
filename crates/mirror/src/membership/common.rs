//! What every role needs: a durable change, a data path that stands still, what the partner says.

use super::report::Report;
use super::{Contact, Membership, Output, Path, Turn};
use crate::control::{Members, Time, ToVolume};
use crate::superblock::Superblock;

impl Membership {
    /// Changes the superblock, and says whether the change is durable already. While another
    /// write is under way nothing is begun: the next step asks again.
    pub(super) fn persist(
        &mut self,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut Superblock),
    ) -> bool {
        if self.writing.is_some() {
            return false;
        }
        let mut next = self.durable.clone();
        change(&mut next);
        if next == self.durable {
            return true;
        }
        if let Some(seen) = self.seen {
            next.met = Some(seen);
        }
        next.counter += 1;
        let (slot, bytes) = next.encode();
        turn.out.push(Output::WriteSuperblock { slot, bytes });
        self.writing = Some(next);
        false
    }

    /// Whether nothing is admitted, acknowledged or granted here.
    pub(super) const fn quiet(&self) -> bool {
        !matches!(
            self.path,
            Path::Opening | Path::Serving | Path::Suspending | Path::Draining
        )
    }

    /// Sees to it that the data path stands still; whether it does.
    pub(super) fn suspended(&mut self, turn: &mut Turn<'_>) -> bool {
        match self.path {
            Path::Serving | Path::Following | Path::Draining => {
                self.wanted = None;
                self.lease_until = Time::ZERO;
                self.path = Path::Suspending;
                turn.out.push(Output::Order(ToVolume::Suspend));
                false
            }
            Path::Opening | Path::Suspending => false,
            _ => true,
        }
    }

    /// The newest report of the run of the partner that is heard.
    pub(super) fn current_view(&self) -> Option<Report> {
        let Contact::Heard { incarnation } = self.contact else {
            return None;
        };
        self.view
            .clone()
            .filter(|it| self.fresh && it.incarnation() == incarnation)
    }

    pub(super) fn only_me(&self) -> Members {
        Members::only(self.settings.me)
    }

    pub(super) fn lower(&self) -> bool {
        self.settings
            .partner
            .is_none_or(|partner| self.settings.me < partner)
    }
}
