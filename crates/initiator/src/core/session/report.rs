//! What a session is asked beside commands, and what it reports.

use super::LoginError;
#[cfg(doc)]
use super::Session;
use crate::core::wire::FrameError;
use alloc::string::String;
use alloc::vec::Vec;

/// How a command was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// iSCSI response: 0 completed at target, else target failure.
    pub response: u8,
    /// SCSI status.
    pub status: u8,
    /// Sense data, without its length.
    pub sense: Vec<u8>,
    /// What came back.
    pub data: Vec<u8>,
    /// Bytes less (underflow, negative) or more (overflow) than expected.
    pub residual: i64,
}

/// Task management functions, RFC 7143 §11.5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Ends one command, by the id it was given.
    AbortTask(u64),
    /// Ends all of this session's.
    AbortTaskSet,
    /// Resets the logical unit.
    LunReset,
    /// Resets the target.
    TargetWarmReset,
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The login failed.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Bytes that are no PDU.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A PDU that may not come now.
    #[error("the target broke the protocol: {0}")]
    Protocol(&'static str),
    /// The target sent a Reject with this reason.
    #[error("the target rejected a PDU (reason {0:02x}h)")]
    Rejected(u8),
    /// Something took too long.
    #[error("timeout: no {0} in time")]
    Timeout(&'static str),
    /// The target asked for it, or dropped us (asynchronous message).
    #[error("the target asked to leave (event {0})")]
    Asked(u8),
    /// We logged out.
    #[error("logged out")]
    LoggedOut,
    /// The connection closed.
    #[error("the connection was closed")]
    Disconnected,
}

/// What a session reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Full feature phase: commands may go.
    Ready,
    /// The answer to a command.
    Done {
        /// As given to [`Session::command`].
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// The session ended before the answer: the command may or may not have been carried out.
    Lost {
        /// As given to [`Session::command`].
        id: u64,
    },
    /// The answer to [`Session::discover`]: the pairs as they came.
    Targets(Vec<(String, String)>),
    /// The answer to a task management function: RFC 7143 §11.6.1, 0 is complete.
    Managed {
        /// As given to [`Session::manage`].
        id: u64,
        /// The response code.
        response: u8,
    },
    /// It is over: close the socket. Comes once, after every `Lost`.
    Ended(Ended),
}
