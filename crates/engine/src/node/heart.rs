//! Heartbeats: who is alive, and the leases that their acknowledgements carry.

use super::{Node, Turn};
use crate::interface::ToShard;
use crate::node_interface::{LinkId, Severity};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Incarnation, Time, VolumeId};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::lease::{Drift, Heartbeats, Standstill, Timing};
use lockstep_mirror::membership::Contact;

/// What the clock did is shown in the status for so long.
const CLOCK_TOLD: Duration = Duration::from_secs(600);
/// A pause or jump of the clock of less is not worth a line there.
const WORTH_TELLING: Duration = Duration::from_secs(5);

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
    /// When anything last happened.
    turned: Time,
    drift: Drift,
    drift_told: bool,
    standstill: Standstill,
    /// The last jump or standstill of the clock, and when it was noticed.
    odd: Option<(String, Time)>,
    /// Seconds since 1970 on this machine's wall clock; 0: not known. Said, never judged by.
    pub(super) wall: u64,
    /// The partner's, as it was last said, and when.
    partner_wall: Option<(u64, Time)>,
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
            turned: now,
            drift: Drift::default(),
            drift_told: false,
            standstill: Standstill::default(),
            odd: None,
            wall: 0,
            partner_wall: None,
        }
    }

    /// A link to this run of the partner was proven.
    pub(super) fn partner_runs(&mut self, incarnation: Incarnation) {
        if self.incarnation != Some(incarnation) {
            self.incarnation = Some(incarnation);
            self.drift = Drift::default();
            self.standstill = Standstill::default();
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

    /// The partner's wall clock as it was last said (seconds since 1970), and how long ago.
    pub(super) fn partner_wall(&self, now: Time) -> Option<(u64, Duration)> {
        self.partner_wall
            .map(|(wall, at)| (wall, now.saturating_sub(at)))
    }

    /// What the clock did lately, for a person.
    pub(super) fn odd_clock(&self, now: Time) -> Option<&str> {
        let odd = self.odd.as_ref();
        odd.filter(|(_, at)| now < *at + CLOCK_TOLD)
            .map(|(text, _)| text.as_str())
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
                wall: self.heart.wall,
            },
        );
    }

    /// The partner says that it is there: promise what may be promised. A node whose shards have
    /// not turned for long counts as silent, whatever its control thread says.
    pub(super) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        id: LinkId,
        (number, clock, stamp, incarnation, wall): (u64, Time, Duration, Incarnation, u64),
    ) {
        if self.heart.incarnation != Some(incarnation) || stamp > self.settings.timing.stamp {
            return;
        }
        self.heart.heard = Some(turn.now);
        self.heart.partner_wall = (wall > 0).then_some((wall, turn.now));
        if let Some(lost) = self.heart.standstill.heard(turn.now, clock) {
            self.stood_still(turn, lost);
        }
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

    /// Before anything is judged by the clock: how far it went on since this node last did anything.
    /// `Node` turns for every heartbeat that is due, so a longer gap means that it did not run or
    /// that the clock jumped. Which, nobody can tell: what this node must wait for so that the
    /// partner may rely on it is waited for in time that has passed for certain, while what it
    /// holds of the partner's promises ends by the clock.
    pub(super) fn notice_time(&mut self, turn: &mut Turn<'_>) {
        let timing = self.settings.timing;
        let before = self.heart.turned;
        self.heart.turned = before.max(turn.now);
        let gap = turn.now.saturating_sub(before);
        if gap >= timing.lease {
            self.heart.awake = turn.now;
            for volume in self.volumes.values_mut() {
                volume.membership.overslept(turn.now);
            }
        }
        let skipped = gap.saturating_sub(timing.heartbeat * 3 / 2);
        if !skipped.is_zero() {
            if before < self.started + timing.grant() {
                self.started += skipped;
            }
            self.heart.started += skipped;
            self.heart.heard = self.heart.heard.map(|at| at + skipped);
            for volume in self.volumes.values_mut() {
                volume.membership.not_counted(before, skipped);
            }
        }
        if gap >= WORTH_TELLING {
            let text = format!(
                "this node did not run, or its clock jumped, for {} s",
                gap.as_secs()
            );
            self.tell_odd_clock(turn, text);
        }
    }

    /// The partner's clock went on while ours stood still, as when a hypervisor stops a machine:
    /// leases and answers to heartbeats of before may have ended long ago.
    fn stood_still(&mut self, turn: &mut Turn<'_>, lost: Duration) {
        self.heart.sent.forget();
        self.heart.drift = Drift::default();
        for (id, volume) in &mut self.volumes {
            if let Some(order) = volume.membership.stood_still(turn.now) {
                turn.order(ToShard::Volume(*id, order));
            }
        }
        let text = format!(
            "this node's clock stood still for {}.{} s while the partner's went on, or the \
             partner's jumped",
            lost.as_secs(),
            lost.subsec_millis() / 100
        );
        self.tell_odd_clock(turn, text);
    }

    fn tell_odd_clock(&mut self, turn: &mut Turn<'_>, text: String) {
        turn.event(Severity::Warning, None, text.clone());
        self.heart.odd = Some((text, turn.now));
    }

    /// Whether the partner began or ceased to be heard, or is another run than before.
    pub(super) fn look_at_contact(&mut self, turn: &mut Turn<'_>) -> bool {
        let timing = self.settings.timing;
        let silence = timing.silence;
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
