//! Time: one coarse tick while there is anything to look after, and a few exact deadlines.

use super::metadata::IDLE_AFTER;
use super::running::{Local, Origin};
use super::stage::{Role, Stage};
use super::turn::Turn;
use super::{LATE_AFTER, Volume};
use crate::control::{FromVolume, Time};
use crate::volume_action::VolumeAction;
use alloc::vec::Vec;

/// How often `Late` is told while it lasts.
const LATE_AGAIN: Time = Time::from_secs(1);
/// How often a busy volume looks at ages: fine enough for limits of seconds.
const TICK: Time = Time::from_millis(100);

/// While something waits for a moment the data path turns at least so often. What its clock went
/// on beyond this did not pass here, as far as anybody knows: the clock may have jumped.
const TURN_MAX: Time = Time::from_millis(250);
/// After so long without a turn operations only seem to have waited for the partner.
const SLEPT: Time = Time::from_secs(1);

impl Volume {
    /// A turn begins; a jump of the clock is noticed before anything is judged by it.
    pub(super) fn turn<'a>(&mut self, now: Time, out: &'a mut Vec<VolumeAction>) -> Turn<'a> {
        let before = self.turned;
        self.turned = before.max(now);
        let gap = now.saturating_sub(before);
        if gap >= SLEPT {
            self.awake = now;
        }
        let skipped = gap.saturating_sub(TURN_MAX);
        let not_before = match &mut self.stage {
            Stage::Alone(alone) => &mut alone.not_before,
            Stage::Settling(settling) => &mut settling.not_before,
            _ => return Turn::new(now, out),
        };
        // Promises to the partner are waited out in time that has passed for certain.
        if !skipped.is_zero() && *not_before > before {
            *not_before += skipped;
        }
        Turn::new(now, out)
    }

    /// Looks at everything that depends on time.
    pub(super) fn look_around(&mut self, turn: &mut Turn<'_>) {
        if self.tick_at.is_some_and(|at| at > turn.now) {
            return;
        }
        self.tick_at = None;
        self.reads.stirred = true;
        self.drop_aged(turn);
        if self.role() == Role::Replica || self.suspended {
            self.give_up_on_forwards(turn);
        }
        self.give_up_on_passed(turn);
        self.ask_about_old(turn);
        self.tell_late(turn);
        self.start_cleaning(turn);
        self.tell_progress(turn);
        self.ask_for_mends(turn);
        self.refuse_unmended_reads(turn);
        self.look_after_verification(turn);
        self.watch_resync(turn);
    }

    /// A replica that hears nothing of what it applied asks, so that its intents can be cleared.
    fn ask_about_old(&mut self, turn: &mut Turn<'_>) {
        if self.role() != Role::Replica {
            return;
        }
        let before = turn.now.saturating_sub(LATE_AFTER);
        let old: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, running)| running.local == Local::Done && running.since < before)
            .map(|(seq, _)| *seq)
            .collect();
        for seq in old {
            self.ask_committed(seq, turn);
        }
    }

    /// Told again and again as long as something waits for the partner too long.
    fn tell_late(&mut self, turn: &mut Turn<'_>) {
        if self.suspended
            || turn.now < self.late_told + LATE_AGAIN
            || turn.now < self.awake + LATE_AFTER
        {
            return;
        }
        let before = turn.now.saturating_sub(LATE_AFTER);
        let old = |origin: &Origin| match self.role() {
            Role::Owner | Role::Alone => true,
            // The owner's own operations wait for nothing at the replica.
            Role::Replica => matches!(origin, Origin::Here(_)),
            Role::Out | Role::Target => false,
        };
        let late =
            self.running.values().any(|running| {
                !running.confirmed && running.since < before && old(&running.origin)
            }) || self
                .forwards
                .values()
                .any(|forwarded| forwarded.since < before)
                || self.late_flush(before)
                || self.source().is_some_and(|source| source.late(before))
                || self.mends.late(before)
                || self.verification.as_ref().is_some_and(|it| it.late(before));
        if late {
            self.late_told = turn.now;
            turn.tell(FromVolume::Late);
        }
    }

    pub(super) fn plan_tick(&mut self, now: Time) {
        let busy = self.intake.len() > 0
            || !self.running.is_empty()
            || !self.forwards.is_empty()
            || !self.flushes.is_empty()
            || !self.inherited.is_empty()
            || self.proxy.is_busy()
            || self.proxy.is_on() && !self.links.all_proxied()
            || self.reads.wait()
            || self.mends.wait()
            || self.verification.is_some()
            || self.source().is_some();
        // A tick that is planned already is never put off, and looking for the next one costs.
        let planned = self.tick_at.filter(|at| *at > now);
        let next = match planned {
            _ if busy => Some(now + TICK),
            Some(_) => None,
            None if self.cleans() => self
                .intents
                .idle_since()
                .map(|since| (since + IDLE_AFTER).max(now + TICK)),
            None => None,
        };
        self.tick_at = [planned, next, self.exact(now)].into_iter().flatten().min();
    }

    fn exact(&self, now: Time) -> Option<Time> {
        let not_before = match &self.stage {
            Stage::Alone(alone) => alone.not_before,
            Stage::Settling(settling) => settling.not_before,
            _ => Time::ZERO,
        };
        let not_before = (not_before > now).then(|| not_before.min(now + TICK));
        let paced = self.source().and_then(|_| self.pace.next_at(now));
        let looks = self.verification.as_ref().map(|it| it.next_at);
        [not_before, self.drain_deadline(), paced, looks]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }
}
