//! Serving as the only member, and bringing the partner's copy up to date until it can join.

use super::report::Report;
use super::{Membership, Output, Role, Severity, Sync, Turn, Why};
use crate::control::{Configuration, Incarnation, Time, ToVolume};
use crate::decide::{Copy, Plan};
use crate::register::Step;
use alloc::format;

impl Membership {
    pub(super) fn step_alone(&mut self, turn: &mut Turn<'_>, sync: Sync) -> bool {
        let view = self.current_view();
        match sync {
            Sync::Holding {
                partner,
                join,
                since,
                proposed,
            } => {
                let view = view.filter(|it| it.incarnation() == partner);
                return self.step_holding(turn, view.as_ref(), (partner, join, since, proposed));
            }
            Sync::Joined { partner, since } => {
                let view = view.filter(|it| it.incarnation() == partner);
                return self.step_joined(turn, view.as_ref(), since);
            }
            Sync::Off | Sync::Collecting { .. } | Sync::Offered { .. } | Sync::Copying { .. } => {}
        }
        let Some(view) = view else {
            self.end_sync(turn);
            self.round = None;
            return false;
        };
        if self.decided.is_some() {
            return self.act_on_decision(turn, &view);
        }
        if self.round.is_some() {
            return false;
        }
        match self.take_plan(turn, &view) {
            Plan::SplitBrain => self.split(turn),
            Plan::Source { node, copy } if node == self.settings.me => {
                let found = Self::register_value(turn, &view);
                if found.is_some_and(|it| it.lineage() == self.durable.configuration.lineage()) {
                    return self.step_sync(turn, &view, copy, sync);
                }
                self.end_sync(turn);
                self.become_source(turn, &view, copy)
            }
            Plan::Source { .. } => {
                turn.event(
                    Severity::Warning,
                    format!(
                        "suspended: node {} holds the newer copy",
                        view.record.node.0
                    ),
                );
                self.role = Role::Idle;
                self.suspended(turn);
                true
            }
            Plan::Refuse(_) | Plan::Create { .. } | Plan::Unavailable { .. } | Plan::Resume => {
                self.end_sync(turn);
                false
            }
        }
    }

    fn step_sync(&mut self, turn: &mut Turn<'_>, view: &Report, copy: Copy, sync: Sync) -> bool {
        let partner = view.incarnation();
        let able =
            self.channel == Some(true) && !view.yields && !view.stopping && copy != Copy::Never;
        match sync {
            Sync::Off => {
                let settled = self.in_force == self.durable.configuration.epoch;
                if !able || !settled || view.serving || turn.now < self.slow.until() {
                    return false;
                }
                let everything = copy == Copy::Everything;
                turn.out.push(Output::Order(ToVolume::Collect {
                    partner_incarnation: partner,
                    everything,
                }));
                let what = if everything {
                    "everything"
                } else {
                    "what is marked"
                };
                turn.event(
                    Severity::Info,
                    format!(
                        "resynchronising node {}: {what} is compared",
                        view.record.node.0
                    ),
                );
                self.union_durable = false;
                self.join_ready = false;
                self.rate.begin(turn.now);
                self.role = Role::Alone(Sync::Collecting { partner });
                true
            }
            Sync::Collecting { partner: met }
            | Sync::Offered { partner: met }
            | Sync::Copying { partner: met }
                if met != partner || !able || turn.now < self.slow.until() =>
            {
                self.end_sync(turn);
                true
            }
            Sync::Collecting { .. } if self.union_durable => {
                self.offer += 1;
                self.role = Role::Alone(Sync::Offered { partner });
                true
            }
            Sync::Offered { .. } if self.followed(view) => {
                turn.out.push(Output::Order(ToVolume::Copy));
                self.role = Role::Alone(Sync::Copying { partner });
                true
            }
            Sync::Copying { .. } if !self.followed(view) => {
                self.end_sync(turn);
                true
            }
            Sync::Copying { .. } if self.join_ready => {
                let both = self.only_me().with(view.record.node);
                let join = self.new_configuration(turn, both, false);
                self.role = Role::Alone(Sync::Holding {
                    partner,
                    join,
                    since: turn.now,
                    proposed: false,
                });
                true
            }
            _ => false,
        }
    }

    /// Whether the target's durable record says that it follows this very offer.
    fn followed(&self, view: &Report) -> bool {
        view.following == self.offer
            && view.record.inconsistent
            && view.record.configuration.lineage() == self.durable.configuration.lineage()
    }

    /// Everything is on both sides and acknowledgements are held. From the proposal on the swap
    /// may be decided at any time: this node then reads for no longer than a lease, and goes on
    /// alone only if a completed round says so, or by the way of a silent partner.
    fn step_holding(
        &mut self,
        turn: &mut Turn<'_>,
        view: Option<&Report>,
        (partner, join, since, proposed): (Incarnation, Configuration, Time, bool),
    ) -> bool {
        let timing = self.settings.timing;
        let fit = |it: &&Report| {
            self.followed(it) && !it.yields && !it.stopping && self.channel == Some(true)
        };
        if !proposed {
            let Some(view) = view
                .filter(fit)
                .filter(|_| turn.now < since + timing.answer)
            else {
                if self.persist(turn, |it| it.prepared = None) {
                    self.candidate = None;
                    self.end_sync(turn);
                    return true;
                }
                return false;
            };
            if self.persist(turn, |it| it.prepared = Some(join))
                && view.record.prepared == Some(join)
            {
                self.propose(turn, view, join);
                self.role = Role::Alone(Sync::Holding {
                    partner,
                    join,
                    since: turn.now,
                    proposed: true,
                });
            }
            return false;
        }
        if self.decided == Some(join) {
            let durable = self.persist(turn, |it| {
                it.adopt(join);
                it.clean = false;
                it.base = join.epoch;
            });
            if durable {
                self.decided = None;
                self.with = Some(partner);
                self.role = Role::Alone(Sync::Joined {
                    partner,
                    since: turn.now,
                });
            }
            return durable;
        }
        // Until an acceptor was asked to accept nothing can be decided, and time is free.
        let preparing = self
            .round
            .as_ref()
            .is_some_and(|it| it.proposal.step() == Step::Preparing);
        let since = if preparing { turn.now } else { since };
        self.role = Role::Alone(Sync::Holding {
            partner,
            join,
            since,
            proposed,
        });
        let lost = view.is_none() || turn.now >= since + timing.lease;
        let failed = self.decided.is_some() || self.round.is_none() || lost;
        if !failed {
            return false;
        }
        if preparing {
            self.round = None;
        }
        self.stand_back(turn, "the end of the join is not known")
    }

    fn step_joined(&mut self, turn: &mut Turn<'_>, view: Option<&Report>, since: Time) -> bool {
        let Some(view) = view.filter(|_| turn.now < since + self.settings.timing.lease) else {
            return self.stand_back(turn, "the partner did not come to join");
        };
        let adopted = view.record.configuration.lineage() == self.durable.configuration.lineage();
        if adopted && view.record.with == Some(self.settings.incarnation) {
            return self.serve_member(turn, view.incarnation());
        }
        false
    }

    /// The swap may have been decided: serve nothing until it is known.
    fn stand_back(&mut self, turn: &mut Turn<'_>, reason: &str) -> bool {
        turn.event(Severity::Warning, format!("suspended: {reason}"));
        self.role = Role::Idle;
        self.why = Why::Deciding;
        self.suspended(turn);
        true
    }
}
