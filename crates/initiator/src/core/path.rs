//! One way to the disk: connects, logs in, is used, breaks, and begins again.

use super::Time;
use super::session::{Ended, Parameters, Session};

/// A connection of a path; a stale generation is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index of the path.
    pub path: usize,
    /// Which of its connections.
    pub generation: u64,
}

/// Where a path is in its life.
///
/// ```text
/// Down ──retry──► Connecting ──connected──► LoggingIn ──ready──► Up ──02/04/0B, 0C──► Ghost
///   ▲                 │ failed                  │ refused        │ broken       TEST UNIT READY
///   └─────────────────┴─────────────────────────┴────────────────┴──◄───────────── good ──► Up
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Not connected.
    Down {
        /// When it is tried again.
        until: Time,
    },
    /// The socket is being connected.
    Connecting {
        /// When that is given up.
        by: Time,
    },
    /// Connected, in login.
    LoggingIn,
    /// Takes commands.
    Up,
    /// Logged in, but the target says it may not serve; asked again from time to time.
    Ghost {
        /// When it is asked next.
        probe_at: Time,
    },
}

#[derive(Debug)]
pub(super) struct Path {
    pub(super) parameters: Parameters,
    pub(super) state: PathState,
    pub(super) generation: u64,
    pub(super) session: Option<Session>,
    /// A TEST UNIT READY of ours is on its way.
    pub(super) probing: bool,
    pub(super) logins: u64,
    pub(super) last_end: Option<Ended>,
}

impl Path {
    pub(super) fn new(parameters: Parameters) -> Self {
        Self {
            parameters,
            state: PathState::Down { until: Time::ZERO },
            generation: 0,
            session: None,
            probing: false,
            logins: 0,
            last_end: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == PathState::Up
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let session = self.session.as_ref().and_then(Session::next_deadline);
        match self.state {
            PathState::Down { until } => Some(until),
            PathState::Connecting { by } => Some(by),
            PathState::LoggingIn | PathState::Up => session,
            PathState::Ghost { .. } if self.probing => session,
            PathState::Ghost { probe_at } => {
                Some(session.map_or(probe_at, |session| session.min(probe_at)))
            }
        }
    }
}
