//! Serving as one of two, and being brought up to date by the other.

use super::report::Report;
use super::{Contact, Eject, Membership, Output, Role, Severity, Sync, Turn, Why};
use crate::control::{Incarnation, Time, ToVolume};
use crate::superblock::Met;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

/// An ejection that the partner has not answered for this long is given up, and the two go on.
const EJECT_FOR: Duration = Duration::from_secs(10);

/// Two nodes that serve together say so often how far they have come. Both stamps and the partner's
/// word are known durably within twice that, well before an idle region's intent is taken back.
const STAMP_EVERY: Duration = Duration::from_secs(10);

impl Membership {
    /// An operation waits for the partner for too long.
    pub(super) fn late(&mut self, now: Time) {
        match self.role {
            Role::Member if self.eject.is_none() => self.eject = Some((Eject::Late, now)),
            // A target that answers nothing must not hold up the initiators of the source.
            Role::Alone(Sync::Copying { .. }) => {
                self.put_off(now);
            }
            _ => {}
        }
    }

    /// The partner was too slow: it waits before it may join again, longer each time.
    fn put_off(&mut self, now: Time) -> Duration {
        let wait = self.slow.put_off(now, self.settings.timing.rejoin);
        self.ejections += 1;
        wait
    }

    /// Whether this node should leave the volume to its partner, once it stands still.
    pub(super) fn would_yield(&self) -> bool {
        let demanded = self.current_view().is_some_and(|it| it.demands);
        self.disk_failed
            || self.leaving()
            || self.is_aside()
            || demanded && !(self.eject.is_some() && self.lower())
    }

    /// Serves as a member of the present configuration with this run of the partner.
    pub(super) fn serve_member(&mut self, turn: &mut Turn<'_>, partner: Incarnation) -> bool {
        let configuration = self.durable.configuration;
        let joined = self.served != Some(configuration.lineage());
        turn.out.push(Output::Order(ToVolume::Serve {
            configuration,
            partner_incarnation: Some(partner),
            not_before: turn.now,
            joined,
        }));
        let text = if joined {
            "joined: both nodes hold every write"
        } else {
            "resumed: both nodes go on as before"
        };
        turn.event(
            Severity::Info,
            format!("{text} (epoch {})", configuration.epoch),
        );
        self.with = Some(partner);
        self.stamped = turn.now;
        self.settle(Role::Member);
        true
    }

    /// What every `Serve` has in common.
    pub(super) fn settle(&mut self, role: Role) {
        self.served = Some(self.durable.configuration.lineage());
        self.path = super::Path::Serving;
        self.role = role;
        self.served_here();
        self.crashed = false;
        self.wanted = None;
        self.join_ready = false;
        self.union_durable = false;
        self.lease_until = Time::ZERO;
        self.in_force = 0;
        self.candidate = None;
        // What was the matter with the partner was settled by what is served now.
        self.eject = None;
        self.certified = None;
    }

    pub(super) fn step_member(&mut self, turn: &mut Turn<'_>) -> bool {
        let gone = match (self.contact, self.current_view()) {
            (Contact::Silent { .. }, _) if self.is_certified(turn.now) => {
                Some("the partner's daemon has ended")
            }
            (Contact::Silent { .. }, _) => Some("the partner is silent on every channel"),
            (Contact::Heard { incarnation }, _) if Some(incarnation) != self.with => {
                Some("the partner restarted")
            }
            (_, None) => Some("the partner restarted"),
            (_, Some(view))
                if view.record.configuration.lineage() != self.durable.configuration.lineage() =>
            {
                Some("the partner moved to another configuration")
            }
            (_, Some(view)) if self.is_put_out(&view) => {
                Some("the partner has begun to go on without this node")
            }
            (_, Some(view)) if view.yields => Some("the partner stepped down"),
            (_, Some(_)) if self.would_yield() => Some("the partner asked this node to step down"),
            _ => None,
        };
        self.watch_channel(turn);
        self.watch_witness(turn);
        let reason = match (gone, self.eject) {
            (Some(reason), _) => reason,
            (None, Some((Eject::Late, _))) => {
                "an operation has waited for the partner for too long"
            }
            (None, Some((Eject::ChannelDown, _))) => {
                "no data channel to the partner, although it is heard"
            }
            (None, Some((Eject::Witness, _))) => "the witness is changed",
            (None, None) => {
                self.stamp(turn);
                return false;
            }
        };
        turn.event(Severity::Warning, format!("suspended: {reason}"));
        self.role = Role::Idle;
        self.why = Why::Deciding;
        self.suspended(turn);
        true
    }

    /// Says durably, from time to time, that this copy has come so far, and how far the partner's
    /// had. ▲ A disk that is put back from a snapshot of this very configuration has a lower stamp
    /// than the other node remembers: what was written since is marked nowhere, for both had it. What
    /// was written since the last stamp lies in regions whose intents are still set.
    fn stamp(&mut self, turn: &mut Turn<'_>) {
        let mine = self.durable.configuration.lineage();
        let view = self.current_view();
        self.seen = view
            .filter(|it| it.record.configuration.lineage() == mine)
            .map(|it| Met {
                lineage: mine,
                stamp: it.record.stamp,
            })
            .or(self.seen);
        if turn.now >= self.stamped + STAMP_EVERY && self.writing.is_none() {
            self.stamped = turn.now;
            self.persist(turn, |it| it.stamp += 1);
        }
    }

    /// The partner's acceptor holds a newer value without this node, of a round begun while the
    /// partner heard nothing of it. That may be decided at any time, and the partner cannot go
    /// back to what was before: this node gives way, and its acceptor then votes for it.
    fn is_put_out(&self, view: &Report) -> bool {
        view.value.is_some_and(|it| {
            it.epoch > self.durable.configuration.epoch && !it.members.contains(self.settings.me)
        })
    }

    /// With every data channel down and heartbeats alive, the node that comes first goes on.
    fn watch_channel(&mut self, turn: &Turn<'_>) {
        let patience = self.settings.timing.silence;
        let down = self.channel == Some(false) && turn.now >= self.channel_since + patience;
        if down && self.lower() && self.eject.is_none() {
            self.eject = Some((Eject::ChannelDown, turn.now));
        }
    }

    /// Another witness, or none, is wanted: the node that comes first has it decided.
    fn watch_witness(&mut self, turn: &Turn<'_>) {
        let settled = self.in_force == self.durable.configuration.epoch;
        let other = self.desired != self.durable.configuration.witness;
        if other && settled && self.lower() && self.eject.is_none() {
            self.eject = Some((Eject::Witness, turn.now));
        }
    }

    /// The partner was put out: when it may come back.
    pub(super) fn ejected(&mut self, turn: &mut Turn<'_>) {
        let Some((reason, _)) = self.eject.take() else {
            return;
        };
        if reason == Eject::Late {
            let wait = self.put_off(turn.now);
            let (severity, often) = if self.slow.too_often(turn.now) {
                (Severity::Error, " for the sixth time within an hour")
            } else {
                (Severity::Warning, "")
            };
            let text = format!(
                "the partner was too slow and was put out{often}; it may join again in {} s",
                wait.as_secs()
            );
            turn.event(severity, text);
        }
    }

    /// A demand that nobody answered is dropped.
    pub(super) fn expire_demand(&mut self, turn: &Turn<'_>) {
        let outbid = !self.lower() && self.current_view().is_some_and(|it| it.demands);
        if self
            .eject
            .is_some_and(|(_, since)| turn.now >= since + EJECT_FOR)
            || outbid
        {
            self.eject = None;
        }
    }

    pub(super) fn step_target(&mut self, turn: &mut Turn<'_>) -> bool {
        let Role::Target {
            source,
            incarnation,
            offer,
        } = self.role
        else {
            return false;
        };
        let view = self
            .current_view()
            .filter(|it| it.incarnation() == incarnation);
        let Some(view) = view else {
            return self.leave_target(turn, "the source is gone");
        };
        if self
            .durable
            .prepared
            .is_some_and(|it| it.lineage() == view.record.configuration.lineage())
        {
            return self.promote(turn, &view);
        }
        if self.is_joined(&view) {
            return self.serve_member(turn, view.incarnation());
        }
        let anew = view.record.configuration.lineage() != source || !view.serving;
        if anew || offer != 0 && view.offer != offer {
            return self.leave_target(turn, "the source begins anew");
        }
        if offer == 0 {
            return view.offer > 0 && self.accept_offer(turn, &view);
        }
        let join = view
            .record
            .prepared
            .filter(|it| it.members.count() == 2 && it.members.contains(self.settings.me));
        if join.is_some() && join != self.durable.prepared {
            self.persist(turn, |it| it.prepared = join);
        }
        false
    }

    fn leave_target(&mut self, turn: &mut Turn<'_>, reason: &str) -> bool {
        turn.event(
            Severity::Warning,
            format!("resynchronisation interrupted: {reason}"),
        );
        self.role = Role::Idle;
        self.why = Why::AwaitingSource;
        self.suspended(turn);
        true
    }

    /// The partner adopted the configuration for which this node's join record is open: this
    /// copy is a full member. Consistent and joined become durable in one write.
    pub(super) fn promote(&mut self, turn: &mut Turn<'_>, view: &Report) -> bool {
        let joined = view.record.configuration;
        self.persist(turn, |it| {
            it.adopt(joined);
            it.inconsistent = false;
            it.clean = false;
            it.base = joined.epoch;
        })
    }

    /// Whether both have adopted the same configuration, the partner with this run of this node,
    /// and it was not served here yet.
    pub(super) fn is_joined(&self, view: &Report) -> bool {
        let configuration = self.durable.configuration;
        configuration.lineage() == view.record.configuration.lineage()
            && configuration.members.count() == 2
            && view.record.with == Some(self.settings.incarnation)
            && self.served != Some(configuration.lineage())
    }

    /// Goes on alone without the resync. The data path may have said something about it that is
    /// still on its way: the next attempt begins only once it has answered this `Serve`.
    pub(super) fn end_sync(&mut self, turn: &mut Turn<'_>) {
        let Role::Alone(sync) = self.role else { return };
        if sync == Sync::Off {
            return;
        }
        let text = "resynchronisation interrupted: going on alone";
        turn.event(Severity::Warning, String::from(text));
        turn.out.push(Output::Order(ToVolume::Alone));
        turn.out.push(Output::Order(ToVolume::Serve {
            configuration: self.durable.configuration,
            partner_incarnation: None,
            not_before: self.not_before,
            joined: false,
        }));
        self.in_force = 0;
        self.role = Role::Alone(Sync::Off);
        self.join_ready = false;
        self.union_durable = false;
    }
}
