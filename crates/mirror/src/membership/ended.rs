//! The partner's run has ended, and somebody who could lock what it used says so: a death
//! certificate. What may be left out because of it, and why, is in `docs/membership.md`; the swap
//! never is.

use super::{Contact, Membership};
use crate::control::{Incarnation, Time, VolumeId};
use crate::superblock::{Lineage, Superblock};

/// A copy as the run that ended has left it, read when nothing of that run could still write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which volume.
    pub volume: VolumeId,
    /// The configuration that is durable there.
    pub lineage: Lineage,
    /// There is no open record of a join or swap, and the copy is sound.
    pub plain: bool,
}

impl Left {
    /// What this superblock says.
    #[must_use]
    pub const fn of(superblock: &Superblock) -> Self {
        let broken = superblock.inconsistent || superblock.disk_failed || superblock.split_brain;
        Self {
            volume: superblock.volume,
            lineage: superblock.configuration.lineage(),
            plain: superblock.prepared.is_none() && !broken,
        }
    }
}

/// What a certificate is worth to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certified {
    /// That run can have done nothing alone: this node need not wait for its silence.
    Counts,
    /// This node does not serve together with that run, or the certificate says nothing about this
    /// volume: only the promises between the two have ended.
    NotNeeded,
    /// The copy there is not in the state in which both served: that has to be looked at when the
    /// nodes meet. Nothing is left out.
    OtherState,
}

impl Membership {
    /// This run of the partner has ended; `left`: what it left of this volume, if that could be
    /// locked.
    pub fn partner_ended(&mut self, now: Time, run: Incarnation, left: Option<Left>) -> Certified {
        // Nobody holds a lease on what was promised to it any more.
        if self.bound_to == Some(run) {
            self.promise_until = self.promise_until.min(now);
        }
        let mine = self.durable.configuration;
        let settled = self
            .writing
            .as_ref()
            .is_none_or(|it| it.configuration.lineage() == mine.lineage());
        let together = mine.members.count() == 2
            && self.served == Some(mine.lineage())
            && self.with == Some(run);
        match left {
            Some(left) if together && settled => {
                if left.volume != self.settings.volume
                    || left.lineage != mine.lineage()
                    || !left.plain
                {
                    return Certified::OtherState;
                }
                self.certified = Some((run, now));
                // Whatever this node missed of it, it was not that it went alone.
                self.overslept = None;
                Certified::Counts
            }
            _ => Certified::NotNeeded,
        }
    }

    /// Whether the run with which this node served is known to have ended without having done
    /// anything alone. For as long as a silence takes to be noticed; after that it has been.
    pub(super) fn is_certified(&self, now: Time) -> bool {
        let silent = matches!(self.contact, Contact::Silent { .. });
        let fresh = |(_, at)| now < at + self.settings.timing.silence;
        silent && self.certified.is_some_and(fresh)
    }
}
