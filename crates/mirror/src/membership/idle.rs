//! Serving nobody: what must be waited for, and when this node may begin or go on by itself.

use super::{Contact, Membership, Output, Role, Severity, Sync, Turn, Why};
use crate::control::{Configuration, Members, Time, ToVolume};
use crate::superblock::Superblock;
use alloc::format;

/// An initiator that was there before the silence was noticed, and answers within this time after
/// that, was never cut off.
const PROMPT: Time = Time::from_millis(500);

impl Membership {
    pub(super) fn step_idle(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.suspended(turn) {
            return false;
        }
        let Some(partner) = self.settings.partner else {
            return self.single(turn);
        };
        // A configuration that is being written is taken: whoever resumed now under the one before
        // would leave the partner in it once the slow disk has answered.
        let mine = self.durable.configuration.lineage();
        let taken = |it: &Superblock| it.configuration.lineage() != mine;
        if self.writing.as_ref().is_some_and(taken) {
            self.why = Why::Deciding;
            return false;
        }
        self.expire_demand(turn);
        if let Some(view) = self.current_view() {
            self.mute = None;
            let joined = view.record.configuration;
            let mine = self
                .durable
                .prepared
                .is_some_and(|it| it.lineage() == joined.lineage());
            if mine && joined.members.contains(self.settings.me) && joined.members.contains(partner)
            {
                return self.promote(turn, &view);
            }
            if self.is_joined(&view) && !self.would_yield() {
                return self.serve_member(turn, view.incarnation());
            }
            return self.pair(turn, &view);
        }
        let since = match self.contact {
            Contact::Silent { since } => {
                self.mute = None;
                since
            }
            // Its run is heard, but not a word about this volume: it cannot open its copy, or not
            // yet. That must not keep this node from serving any more than its silence would.
            Contact::Heard { .. } => *self.mute.get_or_insert(turn.now),
        };
        let meeting = self.mute.is_some() && turn.now < since + self.settings.timing.silence;
        if meeting {
            self.why = Why::Meeting;
            return false;
        }
        match self.durable.configuration.witness {
            None => self.without_partner(turn, since),
            Some(_) => self.by_majority(turn, since),
        }
    }

    /// A volume with one replica.
    fn single(&mut self, turn: &mut Turn<'_>) -> bool {
        let there = self.durable.configuration.epoch;
        if there > 0 && self.durable.base == there && self.durable.prepared.is_none() {
            return self.begin_alone(turn, turn.now);
        }
        if there > 0 && self.durable.configuration.members != self.only_me() {
            // The other copy was taken away before this node was the only member.
            self.why = Why::Outdated;
            return false;
        }
        if there > 0 {
            // It had another copy. Nothing is marked for that from now on, so a configuration of
            // its own makes every older copy one that is compared whole.
            let single = self.new_configuration(turn, self.only_me(), false);
            return self.persist(turn, |it| {
                it.adopt(single);
                it.base = single.epoch;
            });
        }
        if !self.settings.create {
            self.why = Why::NeedsCreation;
            return false;
        }
        let first = self.new_configuration(turn, self.only_me(), false);
        let durable = self.persist(turn, |it| {
            it.adopt(first);
            it.base = first.epoch;
        });
        durable && self.begin_alone(turn, turn.now)
    }

    /// The partner is silent on every channel since then.
    fn without_partner(&mut self, turn: &mut Turn<'_>, since: Time) -> bool {
        let timing = self.settings.timing;
        let configuration = self.durable.configuration;
        // The last thing that the partner said was that it went on without this node.
        let overtaken = self.view.as_ref().is_some_and(|it| {
            let theirs = it.record.configuration;
            theirs.epoch > configuration.epoch && !theirs.members.contains(self.settings.me)
        });
        let held = self.overslept.is_none()
            && !overtaken
            && (self.served == Some(configuration.lineage()) || self.with.is_some());
        let open_join = self
            .durable
            .prepared
            .is_some_and(|it| it.members != self.only_me());
        let without_me = |it: &Configuration| !it.members.contains(self.settings.me);
        let barred = [turn.vote.value, self.voting]
            .iter()
            .flatten()
            .any(without_me);
        self.why = if configuration.epoch == 0 {
            Why::NeedsPartner
        } else if self.durable.inconsistent
            || barred
            || !configuration.members.contains(self.settings.me)
        {
            Why::Outdated
        } else if self.lost_votes {
            Why::LostVotes
        } else if configuration.members != self.only_me() && !held {
            Why::NeedsPartner
        } else if open_join && !held {
            Why::OpenJoin
        } else if turn.now < self.started + timing.grant()
            || turn.now < since + timing.silence && !self.is_certified(turn.now)
        {
            Why::Starting
        } else if configuration.members == self.only_me() && !open_join {
            return self.begin_alone(turn, self.promise_until.max(turn.now));
        } else {
            Why::Lazy
        };
        let Some(wanted) = self.wanted.filter(|_| self.why == Why::Lazy) else {
            return false;
        };
        // A partner that has ended and did nothing alone was not cut off, nor is this node.
        let due = self.is_certified(turn.now) || turn.now >= self.alone_from(since, wanted);
        due && self.go_alone(turn)
    }

    /// When the unilateral step may be taken. Initiators that answered whenever they were asked
    /// were there all the while, and the partner had the time to be heard since the first answer.
    /// One that comes later may be the first sign of a network that returns: then the partner is
    /// waited for once more.
    fn alone_from(&self, since: Time, wanted: Time) -> Time {
        let timing = self.settings.timing;
        let noticed = since + timing.silence;
        let precedence = if self.lower() {
            Time::ZERO
        } else {
            timing.precedence
        };
        let due = noticed + precedence;
        let first = self.reached.filter(|at| *at <= noticed);
        let again = self.reached_again.filter(|at| *at <= noticed + PROMPT);
        match (first, again) {
            (Some(first), Some(_)) => due.max(first + timing.evidence()),
            _ => due.max(wanted + timing.silence),
        }
    }

    /// The escape of the heartbeat strategy: a configuration without the partner's vote, durable
    /// together with `wrote` before anything is written under it. Once it is, this node is the
    /// only member and begins as such.
    fn go_alone(&mut self, turn: &mut Turn<'_>) -> bool {
        self.round = None;
        self.decided = None;
        let alone = self.new_configuration(turn, self.only_me(), true);
        let idle = self.writing.is_none();
        let why = match self.is_certified(turn.now) {
            true => "the partner's daemon has ended",
            false => "the partner is silent on every channel",
        };
        let durable = self.persist(turn, |it| {
            it.adopt(alone);
            it.wrote = true;
            it.clean = false;
        });
        if idle && !durable {
            let text = format!("{why}: going on alone (epoch {})", alone.epoch);
            turn.event(Severity::Warning, text);
        }
        durable
    }

    /// Serves as the only member of the present configuration.
    pub(super) fn begin_alone(&mut self, turn: &mut Turn<'_>, not_before: Time) -> bool {
        let durable = self.persist(turn, |it| {
            it.clean = false;
            it.wrote |= it.configuration.unilateral;
        });
        if !durable {
            return false;
        }
        let configuration = self.durable.configuration;
        assert!(
            configuration.members == self.only_me() && !self.durable.inconsistent,
            "only the sole member serves alone"
        );
        turn.out.push(Output::Order(ToVolume::Serve {
            configuration,
            partner_incarnation: None,
            not_before,
            joined: false,
        }));
        turn.event(
            Severity::Info,
            format!("serving as the only member (epoch {})", configuration.epoch),
        );
        self.not_before = not_before;
        self.ejected(turn);
        self.with = None;
        self.settle(Role::Alone(Sync::Off));
        true
    }

    /// A configuration newer than all that this node has seen; the same one until it is used up
    /// or overtaken.
    pub(super) fn new_configuration(
        &mut self,
        turn: &mut Turn<'_>,
        members: Members,
        unilateral: bool,
    ) -> Configuration {
        let own = [
            Some(self.durable.configuration),
            self.durable.prepared,
            turn.vote.value,
        ];
        let theirs = self
            .view
            .iter()
            .flat_map(|it| [Some(it.record.configuration), it.record.prepared, it.value]);
        // Who votes is changed only together with the partner.
        let witness = match self.contact {
            Contact::Heard { .. } => self.desired,
            Contact::Silent { .. } => self.durable.configuration.witness,
        };
        let (mut highest, mut fits) = (0, None);
        if let Some(candidate) = self.candidate {
            let same = candidate.members == members
                && candidate.unilateral == unilateral
                && candidate.witness == witness;
            fits = same.then_some(candidate);
        }
        for seen in own.into_iter().chain(theirs).flatten() {
            highest = highest.max(seen.epoch);
            fits = fits.filter(|it| seen.epoch < it.epoch || seen.lineage() == it.lineage());
        }
        if let Some(candidate) = fits {
            return candidate;
        }
        let generation = turn.random.number();
        let owner = self.settings.me;
        let candidate = Configuration {
            epoch: highest + 1,
            generation,
            members,
            owner,
            unilateral,
            witness,
        };
        self.candidate = Some(candidate);
        candidate
    }
}
