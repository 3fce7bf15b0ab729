//! The operator's decision to serve a copy although nobody can tell that it is the newest: the
//! node or disk that holds more will never return. It makes a line of its own, which is durable
//! before anything is served; a copy that turns up later is this line's past and is brought up to
//! date, or it has gone another way and is a split brain. The two are never mixed.

use super::{Contact, Forced, Membership, Role, Severity, Turn, Why};
use crate::control::{Configuration, Time};
use crate::register::Ballot;
use crate::superblock::Lineage;
use alloc::format;
use alloc::string::String;

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Force {
    /// A resync had begun to write into this copy and not ended: later all of it is compared.
    corrupt: bool,
    /// A configuration under which this copy may lack acknowledged writes: a partner that still
    /// lives in it is no older version of this copy.
    lossy: Option<Lineage>,
}

/// Why a copy is not served by force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForceRefusal {
    /// It is not possible, or not needed.
    No(String),
    /// A resync has begun to write into it: that must be said to be known.
    Inconsistent,
}

impl Membership {
    /// The operator has this copy served. Whether this node's acceptor is to forget that it lost
    /// its votes, from this ballot on.
    ///
    /// # Errors
    /// When it is served anyway, can be without force, or holds nothing that could be.
    pub fn force(&mut self, now: Time, corrupt: bool) -> Result<Option<Ballot>, ForceRefusal> {
        self.may_force(now, corrupt)?;
        let lacks = self.settings.write_back && self.crashed && self.intents > 0;
        self.force = Some(Force {
            corrupt: self.durable.inconsistent,
            lossy: lacks.then(|| self.durable.configuration.lineage()),
        });
        Ok(self.lost_votes.then(|| self.unused_ballot()))
    }

    /// As [`Self::force`], and nothing is done.
    ///
    /// # Errors
    /// See there.
    pub fn may_force(&self, now: Time, corrupt: bool) -> Result<(), ForceRefusal> {
        if let Some(why) = self.no_force(now) {
            return Err(ForceRefusal::No(why));
        }
        if self.durable.inconsistent && !corrupt {
            return Err(ForceRefusal::Inconsistent);
        }
        Ok(())
    }

    fn no_force(&self, now: Time) -> Option<String> {
        let no = |text: &str| Some(String::from(text));
        let Some(partner) = self.settings.partner.map(|it| it.0) else {
            return no("it has one copy only, and is served whenever that can be");
        };
        if let Some(why) = &self.refused {
            return Some(why.clone());
        }
        if self.disk_failed {
            return no("this node's disk failed: replace it first");
        }
        if self.stopping.is_some() || self.is_aside() {
            return no("this node is being stopped, or in maintenance");
        }
        match self.role {
            Role::Member | Role::Alone(_) => return no("it is served here"),
            Role::Target { .. } => {
                return Some(format!(
                    "node {partner} serves it, and brings this copy up to date"
                ));
            }
            Role::Idle => {}
        }
        if self.durable.configuration.epoch == 0 {
            return no("the copy here is blank: it holds nothing that could be served");
        }
        if let Some(view) = self.current_view() {
            return match self.why {
                Why::NeedsCopyOf(_) if !view.serving => None,
                Why::SplitBrain => {
                    no("both copies are here: choose one with lockstep volume resolve")
                }
                _ => Some(format!(
                    "node {partner} is heard: the two settle it, or say in lockstep status what they wait for"
                )),
            };
        }
        if let Contact::Silent { since } = self.contact
            && now < since + self.settings.timing.silence
        {
            return Some(format!(
                "node {partner} may still be heard: wait some seconds"
            ));
        }
        match self.why {
            Why::Opening | Why::Starting | Why::Meeting | Why::Deciding => {
                no("it may settle by itself: wait some seconds")
            }
            Why::Lazy => {
                no("it is served as soon as an initiator needs it: no decision is needed for that")
            }
            Why::NeedsCreation | Why::Mismatch(_) | Why::Refused | Why::DiskFailed => {
                no("lockstep status names what is wrong with it")
            }
            _ => None,
        }
    }

    /// The new line first, durable; then it is served.
    pub(super) fn step_force(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(force) = self.force else {
            return false;
        };
        if self.current_view().is_some_and(|it| it.serving) {
            self.force = None;
            let text = "not served by force: the partner serves it after all";
            turn.event(Severity::Warning, String::from(text));
            return true;
        }
        if !self.suspended(turn) || self.writing.is_some() {
            return false;
        }
        let me = self.settings.me;
        let line = Configuration {
            witness: self.durable.configuration.witness,
            ..self.new_configuration(turn, self.only_me(), true)
        };
        let durable = self.persist(turn, |it| {
            // Of what was decided without this copy it is no newer version, whoever made it so.
            it.history
                .retain(|past| past.members.contains(me) && Some(past.lineage) != force.lossy);
            it.adopt(line);
            it.wrote = true;
            it.clean = false;
            it.inconsistent = false;
            it.split_brain = false;
            if force.corrupt {
                it.base = line.epoch;
            }
        });
        if !durable {
            return false;
        }
        self.force = None;
        self.forced = Some(Forced::Activated {
            corrupt: force.corrupt,
        });
        (self.round, self.decided, self.adopting) = (None, None, None);
        (self.settled, self.passed_over) = (None, None);
        (self.keep, self.give_up) = (false, false);
        self.lost_votes = false;
        let text = format!(
            "served by the operator's decision, without knowing what the partner holds (epoch {})",
            line.epoch
        );
        turn.event(Severity::Error, text);
        let promised = self
            .promise_until
            .max(self.started + self.settings.timing.grant());
        self.begin_alone(turn, promised.max(turn.now))
    }
}
