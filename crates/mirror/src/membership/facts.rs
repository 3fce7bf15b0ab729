//! What changes the facts: the partner, the data path, the disk and the operator.

use super::report::Report;
use super::{Contact, Forced, Membership, Path, Role, Sync};
use crate::control::{FromVolume, Time, ToVolume, WITNESS, WitnessId};
use crate::register::Message;
use core::time::Duration;

impl Membership {
    /// Who shall vote besides the two nodes (`None`: heartbeat strategy). It becomes true with a
    /// new configuration, which the two nodes decide without any witness.
    pub fn desire(&mut self, witness: Option<WitnessId>) {
        self.desired = witness;
    }

    /// A witness answered; only the one that votes for this volume counts.
    pub fn witness_answered(&mut self, witness: WitnessId, message: Message) {
        if self
            .round
            .as_ref()
            .is_some_and(|it| it.witness == Some(witness))
        {
            self.answered(WITNESS, message);
        }
    }

    /// The partner is heard, or not any more.
    pub fn contact(&mut self, contact: Contact) {
        if matches!(contact, Contact::Silent { .. }) {
            self.fresh = false;
        }
        // Another run is there: what the one before left is the past.
        if let (Contact::Heard { incarnation }, Some((run, _))) = (contact, self.certified)
            && incarnation != run
        {
            self.certified = None;
        }
        self.contact = contact;
    }

    /// A report of the partner came; an older one than the last of its run is dropped.
    pub fn report_in(&mut self, report: Report) {
        let newer = self
            .view
            .as_ref()
            .is_none_or(|it| it.incarnation() != report.incarnation() || it.seq < report.seq);
        if newer
            && Some(report.record.node) == self.settings.partner
            && report.record.volume == self.settings.volume
        {
            self.view = Some(report);
            self.fresh = true;
        }
    }

    /// The superblock write has ended. One that failed is a failed disk.
    pub fn superblock_written(&mut self, ok: bool) {
        let Some(written) = self.writing.take() else {
            return;
        };
        if ok {
            let split = self.durable.split_brain && !written.split_brain;
            self.durable = written;
            if split && self.force.is_none() {
                self.forced = Some(self.kept());
            }
        } else {
            self.disk_failed = true;
        }
    }

    /// The data path says something.
    pub fn volume_said(&mut self, now: Time, word: &FromVolume) {
        match *word {
            FromVolume::Opened { dirty, intents } if self.path == Path::Opening => {
                (self.dirty, self.intents) = (dirty, intents);
                self.path = Path::Ready;
            }
            FromVolume::Suspended if self.path == Path::Suspending => self.path = Path::Suspended,
            FromVolume::Wanted => {
                self.wanted.get_or_insert(now);
            }
            FromVolume::Reached if self.reached.is_some() => {
                self.reached_again.get_or_insert(now);
            }
            FromVolume::Reached => self.reached = Some(now),
            FromVolume::Late => self.late(now),
            FromVolume::DiskFailed => {
                self.disk_failed = true;
                if self.path == Path::Opening {
                    self.path = Path::Failed;
                }
            }
            FromVolume::Channel { up } => {
                if self.channel != Some(up) {
                    self.channel_since = now;
                }
                self.channel = Some(up);
            }
            FromVolume::UnionDurable { dirty } => {
                self.dirty = dirty;
                self.union_durable = matches!(self.role, Role::Alone(Sync::Collecting { .. }));
            }
            FromVolume::Progress { dirty, done } => {
                self.dirty = dirty;
                self.rate.progress(now, done);
            }
            FromVolume::JoinReady => {
                self.join_ready = matches!(self.role, Role::Alone(Sync::Copying { .. }))
            }
            FromVolume::Proxying { up } => self.proxying(up),
            FromVolume::Drained { clean } => self.drained(clean),
            FromVolume::Closed { clean } => self.closed(clean),
            FromVolume::Unreadable { .. } => self.unreadable += 1,
            FromVolume::Serving { epoch } => self.in_force = epoch,
            FromVolume::Opened { .. }
            | FromVolume::Suspended
            | FromVolume::Damaged { .. }
            | FromVolume::Repaired { .. }
            | FromVolume::Differs { .. }
            | FromVolume::Verified(_)
            | FromVolume::Slow { .. }
            | FromVolume::ResyncRestarted => {}
        }
    }

    /// This node did not run for longer than a lease: the partner may have gone alone meanwhile.
    /// Only a promise that it gave later shows that it has not.
    pub fn overslept(&mut self, now: Time) {
        let with_partner = self.durable.configuration.members.count() == 2;
        if with_partner || self.durable.prepared.is_some() {
            self.overslept = Some(now);
        }
    }

    /// The clock went on by `by` since `before`, and nobody knows whether so much time has passed:
    /// it may have jumped. Whatever this node waits for so that the partner may rely on it is
    /// waited for that much longer.
    pub fn not_counted(&mut self, before: Time, by: Duration) {
        if before < self.started + self.settings.timing.grant() {
            self.started += by;
        }
        for until in [&mut self.promise_until, &mut self.not_before] {
            if *until > before {
                *until += by;
            }
        }
        let wanted = self.wanted.as_mut().filter(|at| **at != Time::ZERO);
        let evidence = [self.reached.as_mut(), self.reached_again.as_mut(), wanted];
        for at in evidence.into_iter().flatten() {
            *at += by;
        }
    }

    /// This node's clock stood still while the partner's went on: what it still holds of the
    /// partner's promises may have ended long ago. Gives the order for the data path.
    pub fn stood_still(&mut self, now: Time) -> Option<ToVolume> {
        self.overslept(now);
        let held = core::mem::replace(&mut self.lease_until, Time::ZERO) > now;
        held.then_some(ToVolume::Lease { until: Time::ZERO })
    }

    /// The partner is heard again after a silence that was noticed. It may have gone alone
    /// meanwhile, and may be lost again before it can say so.
    pub fn heard_again(&mut self, now: Time) {
        if self.served.is_some() {
            self.overslept(now);
        }
    }

    /// A new run of the partner that holds this node's configuration shows that no earlier one
    /// left it; the new one cannot before it has met this node.
    pub(super) fn look_at_new_run(&mut self) {
        let mine = self.durable.configuration.lineage();
        let same = |it: &Report| {
            it.record.configuration.lineage() == mine && Some(it.incarnation()) != self.with
        };
        if self.overslept.is_some() && self.current_view().as_ref().is_some_and(same) {
            self.overslept = None;
        }
    }

    /// The end of a split brain that is durable here now.
    fn kept(&self) -> Forced {
        let me = self.settings.me;
        let partner = self.settings.partner.unwrap_or(me);
        let mine = self.durable.configuration.members.contains(me);
        let said_here = self.keep || self.give_up;
        Forced::Kept {
            node: if mine { me } else { partner },
            by: if said_here { me } else { partner },
            lost: match mine {
                true => self.current_view().map(|it| it.dirty),
                false => Some(self.dirty),
            },
        }
    }

    /// Counts as an initiator's operation: the right of this node to act alone is needed.
    pub fn want(&mut self) {
        self.wanted.get_or_insert(Time::ZERO);
    }

    /// The partner is not heard: whether initiators reach this node is worth knowing. `anew`: a
    /// silence begins; what was known of one before counts no more. Gives the order for the data
    /// path.
    pub fn ask(&mut self, anew: bool) -> Option<ToVolume> {
        if anew {
            (self.reached, self.reached_again) = (None, None);
            // An operator's wish is no sign of life, and stays.
            self.wanted = self.wanted.filter(|at| *at == Time::ZERO);
        }
        let open = !matches!(
            self.path,
            Path::Opening | Path::Closing | Path::Closed | Path::Failed
        );
        (open && self.settings.partner.is_some()).then_some(ToVolume::Ask)
    }

    /// After a split brain a person keeps this node's copy, or (`mine` is false) the partner's;
    /// what the other one wrote since they parted is lost. Whether there is a split brain to be
    /// resolved.
    pub fn keep(&mut self, mine: bool) -> bool {
        self.keep = self.durable.split_brain && mine;
        self.give_up = self.durable.split_brain && !mine;
        self.durable.split_brain
    }
}
