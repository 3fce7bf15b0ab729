//! What a volume is doing, each state with what only it needs.

use super::Volume;
use super::closing::Closing;
use super::opening::Opening;
use super::settle::Settling;
use super::source::Source;
use super::target::Target;
use crate::control::Time;

pub(super) enum Stage {
    New,
    Opening(Opening),
    /// Open, and in no configuration.
    Idle,
    /// What the configuration before left is brought to its end, then the next is taken on.
    Settling(Settling),
    Alone(Alone),
    Paired(Paired),
    Target(Target),
    Closing(Closing),
    Closed,
    Failed,
}

/// The only member.
pub(super) struct Alone {
    /// Nothing is acknowledged or read before: promises to the partner still run.
    pub(super) not_before: Time,
    pub(super) source: Option<Source>,
}

/// One of two members.
pub(super) struct Paired {
    pub(super) owner: bool,
    /// Reads are served until then.
    pub(super) lease: Time,
    /// The replica's question what the owner's last number is, and until when its answer holds.
    pub(super) fresh: Fresh,
}

/// What a replica knows of the owner's last number: a read must not be served from a copy that
/// a stuck channel keeps behind, though heartbeats go on.
#[derive(Default)]
pub(super) struct Fresh {
    /// The question under way: its number, and when it was asked, on every channel.
    pub(super) asked: Option<Question>,
    /// An answer that counts once everything up to this number was received: (number, until).
    pub(super) pending: Option<(u64, Time)>,
    /// Reads are served until then.
    pub(super) until: Time,
    pub(super) next: u64,
}

pub(super) struct Question {
    pub(super) id: u64,
    pub(super) at: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Serves nobody.
    Out,
    Alone,
    Owner,
    Replica,
    Target,
}

impl Volume {
    pub(super) const fn role(&self) -> Role {
        match &self.stage {
            Stage::Alone(_) => Role::Alone,
            Stage::Paired(paired) if paired.owner => Role::Owner,
            Stage::Paired(_) => Role::Replica,
            Stage::Target(_) => Role::Target,
            _ => Role::Out,
        }
    }

    /// Whether initiators are served now, leases and draining aside.
    pub(super) fn serves(&self, now: Time) -> bool {
        if self.suspended
            || self
                .drain
                .as_ref()
                .is_some_and(super::closing::Drain::is_told)
        {
            return false;
        }
        match &self.stage {
            Stage::Alone(alone) => {
                now >= alone.not_before && !alone.source.as_ref().is_some_and(Source::holds)
            }
            Stage::Paired(_) => true,
            _ => false,
        }
    }

    /// Whether new operations are admitted now.
    pub(super) fn admits(&self, now: Time) -> bool {
        self.drain.is_none() && self.serves(now)
    }

    pub(super) fn source(&self) -> Option<&Source> {
        match &self.stage {
            Stage::Alone(alone) => alone.source.as_ref(),
            _ => None,
        }
    }

    pub(super) fn source_mut(&mut self) -> Option<&mut Source> {
        match &mut self.stage {
            Stage::Alone(alone) => alone.source.as_mut(),
            _ => None,
        }
    }
}
