//! Heartbeats: who is alive, and the leases that their acknowledgements carry.

use super::{Node, Turn};
use crate::interface::ToShard;
use crate::node_interface::{LinkId, Severity};
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Incarnation, Time, VolumeId};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::lease::{Drift, Heartbeats, Timing};
use lockstep_mirror::membership::Contact;

/// What is known of both nodes' lives.
pub(super) struct Heart {
    pub(super) sent: Heartbeats,
    pub(super) next_beat: Time,
    /// When the slowest shard last turned.
    pub(super) stamp: Time,
    started: Time,
    /// Which run of the partner the newest link leads to.
    incarnation: Option<Incarnation>,
    /// The last heartbeat of that run.
    pub(super) heard: Option<Time>,
    /// The run of the partner that has ended, as a certificate says.
    ended: Option<Incarnation>,
    contact: Contact,
    /// Since the last heartbeat initiators were asked whether they reach this node.
    doubted: bool,
    /// When this node last looked, and since when it has looked without a long pause: what was
    /// said to a process that did not run is read only afterwards.
    looked: Time,
    awake: Time,
    drift: Drift,
    drift_told: bool,
}

impl Heart {
    pub(super) fn new(now: Time) -> Self {
        Self {
            sent: Heartbeats::default(),
            next_beat: now,
            stamp: now,
            started: now,
            incarnation: None,
            ended: None,
            heard: None,
            contact: Contact::Silent { since: now },
            doubted: false,
            looked: now,
            awake: now,
            drift: Drift::default(),
            drift_told: false,
        }
    }

    /// A link to this run of the partner was proven.
    pub(super) fn partner_runs(&mut self, incarnation: Incarnation) {
        if self.incarnation != Some(incarnation) {
            self.incarnation = Some(incarnation);
            self.drift = Drift::default();
        }
    }

    /// The run of the partner to which the newest link led.
    pub(super) const fn last_run(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// That run has ended: it is not heard any more, whenever it last was.
    pub(super) const fn ended(&mut self, run: Incarnation) {
        self.ended = Some(run);
    }

    pub(super) fn has_ended(&self, run: Incarnation) -> bool {
        self.ended == Some(run)
    }

    pub(super) const fn contact(&self) -> Contact {
        self.contact
    }

    /// When this node last looked at anything.
    pub(super) const fn looked(&self) -> Time {
        self.looked
    }

    pub(super) const fn hears(&self) -> bool {
        matches!(self.contact, Contact::Heard { .. })
    }

    /// The next moment at which something is due.
    pub(super) fn deadline(&self, timing: &Timing) -> Time {
        let heard = self.heard.unwrap_or(self.started).max(self.awake);
        let silent = heard + timing.silence;
        let due = [heard + timing.doubt(), silent, silent + timing.precedence];
        due.into_iter()
            .filter(|at| *at > self.looked)
            .fold(self.next_beat, Time::min)
    }

    pub(super) fn excessive_drift(&self) -> Option<i64> {
        self.drift.excessive()
    }
}

impl Node {
    /// The next heartbeat on every link.
    pub(super) fn beat(&mut self, turn: &mut Turn<'_>) {
        let heartbeat = self.settings.timing.heartbeat;
        self.heart.next_beat = turn.now + heartbeat;
        let number = self.heart.sent.send(turn.now);
        let stamp = turn.now.saturating_sub(self.heart.stamp);
        let incarnation = self.settings.incarnation;
        self.send_all(
            turn,
            &ControlFrame::Heartbeat {
                number,
                clock: turn.now,
                stamp,
                incarnation,
            },
        );
    }

    /// The partner says that it is there: promise what may be promised. A node whose shards have
    /// not turned for long counts as silent, whatever its control thread says.
    pub(super) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        id: LinkId,
        (number, clock, stamp, incarnation): (u64, Time, Duration, Incarnation),
    ) {
        if self.heart.incarnation != Some(incarnation) || stamp > self.settings.timing.stamp {
            return;
        }
        self.heart.heard = Some(turn.now);
        self.heart.drift.heard(turn.now, clock);
        let token = u64::try_from(clock.as_micros()).unwrap_or(u64::MAX);
        turn.order(ToShard::Token {
            token,
            received: turn.now,
        });
        let promise = |(id, volume): (&VolumeId, &mut super::Volume)| {
            Some((*id, volume.membership.promise(turn.now)?))
        };
        let promises: Vec<_> = self.volumes.iter_mut().filter_map(promise).collect();
        let answer = ControlFrame::HeartbeatAck { number, promises };
        if let Some(link) = self.links.get_mut(&id) {
            link.heard = Some(turn.now);
            link.send(id, &answer, turn);
        }
    }

    /// The partner's promises: leases counted from when the heartbeat was sent.
    pub(super) fn heartbeat_ack(
        &mut self,
        turn: &mut Turn<'_>,
        id: LinkId,
        number: u64,
        promises: &[(VolumeId, u64)],
    ) {
        let Some(sent) = self.heart.sent.sent_at(number) else {
            return;
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.answered(turn.now, turn.now.saturating_sub(sent));
        }
        for (id, epoch) in promises {
            let Some(volume) = self.volumes.get_mut(id) else {
                continue;
            };
            if let Some(order) = volume
                .membership
                .lease(*epoch, sent + self.settings.timing.lease)
            {
                turn.order(ToShard::Volume(*id, order));
            }
        }
    }

    /// Whether the partner began or ceased to be heard, or is another run than before.
    pub(super) fn look_at_contact(&mut self, turn: &mut Turn<'_>) -> bool {
        let timing = self.settings.timing;
        let silence = timing.silence;
        if turn.now >= self.heart.looked + timing.lease {
            self.heart.awake = turn.now;
            for volume in self.volumes.values_mut() {
                volume.membership.overslept(turn.now);
            }
        }
        self.heart.looked = turn.now;
        let last = self.heart.heard.map(|at| at.max(self.heart.awake));
        let heard = last.filter(|at| turn.now < *at + silence);
        let doubt = last.is_some_and(|at| turn.now >= at + timing.doubt());
        if doubt && !core::mem::replace(&mut self.heart.doubted, doubt) {
            self.ask_whether_reached(turn, true);
        }
        self.heart.doubted = doubt;
        let contact = match (heard, self.heart.incarnation) {
            (Some(_), Some(incarnation)) if self.heart.ended != Some(incarnation) => {
                Contact::Heard { incarnation }
            }
            _ => Contact::Silent {
                since: self.heart.heard.unwrap_or(self.heart.started),
            },
        };
        self.tell_drift(turn);
        let before = core::mem::replace(&mut self.heart.contact, contact);
        if before == contact || !self.has_partner() {
            return false;
        }
        match (before, contact) {
            (_, Contact::Heard { .. }) => {
                if matches!(before, Contact::Silent { .. }) {
                    for volume in self.volumes.values_mut() {
                        volume.membership.heard_again(turn.now);
                    }
                }
                turn.event(Severity::Info, None, "the partner is heard".into())
            }
            (Contact::Heard { .. }, Contact::Silent { .. }) => {
                self.pool.forget_partner();
                self.ask_whether_reached(turn, false);
                // Of one that has ended enough was said.
                if heard.is_none() {
                    let text = format!(
                        "the partner is silent on every channel for {} ms",
                        silence.as_millis()
                    );
                    turn.event(Severity::Warning, None, text);
                }
            }
            (Contact::Silent { .. }, Contact::Silent { .. }) => {}
        }
        true
    }

    /// Whether initiators reach this node is known best from before the silence is noticed.
    fn ask_whether_reached(&mut self, turn: &mut Turn<'_>, anew: bool) {
        for (id, volume) in &mut self.volumes {
            if let Some(order) = volume.membership.ask(anew) {
                turn.order(ToShard::Volume(*id, order));
            }
        }
    }

    fn tell_drift(&mut self, turn: &mut Turn<'_>) {
        let excess = self.heart.excessive_drift();
        if let Some(permille) = excess.filter(|_| !self.heart.drift_told) {
            let text = format!(
                "the partner's clock runs {permille}/1000 off this node's: leases bear no more than 50/1000"
            );
            turn.event(Severity::Error, None, text);
        }
        self.heart.drift_told = excess.is_some();
    }
}
