//! Why a login is refused: the status that the initiator sees and the sentence that the operator
//! reads.

use crate::negotiate::NegotiationError;
use crate::pdu::login_status;
use crate::text::TextError;
use alloc::string::String;
use thiserror::Error;

/// A refused login.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Text(#[from] TextError),
    #[error("{0}")]
    Negotiation(#[from] NegotiationError),
    #[error("the key {0:?} came twice")]
    Twice(String),
    #[error("{0} is empty, longer than 223 bytes, or has characters that no iSCSI name has")]
    BadName(&'static str),
    #[error("the login is longer than a login can be (8 KiB of text, 256 keys, 64 requests)")]
    TooLong,
    #[error("it speaks only newer versions of iSCSI than 0")]
    Version,
    #[error("the stages of the login are out of order")]
    Stage,
    #[error("ISID, TSIH or CID changed during the login")]
    Changed,
    #[error("it sent no {0}")]
    Missing(&'static str),
    #[error("the session type {0:?} is unknown")]
    SessionType(String),
    #[error("there is no target {0:?} here; SendTargets lists what there is")]
    NotFound(String),
    #[error("the target was removed")]
    Removed,
    #[error("target {0:?} has a list of allowed initiators and this one is not on it")]
    NotAllowed(String),
    #[error("authentication is needed, but it skipped the security stage; configure CHAP there")]
    Skipped,
    #[error("authentication is needed, but it does not offer CHAP; configure CHAP there")]
    ChapNotOffered,
    #[error("it insists on CHAP, but no account is configured here; add one, or set None there")]
    ChapNotConfigured,
    #[error("none of its CHAP algorithms is MD5 (5)")]
    Algorithm,
    #[error("the CHAP keys are incomplete, out of order or badly coded")]
    ChapKeys,
    #[error("CHAP name {0:?}: unknown, or the secret is wrong")]
    WrongSecret(String),
    #[error("it wants the target to authenticate, but the target has no secret for that")]
    NoMutual,
    #[error("it sent our own CHAP challenge back")]
    Reflected,
    #[error("both directions of CHAP have the same secret, which RFC 7143 forbids; change one")]
    SameSecret,
    #[error("there is no session to join")]
    NoSession,
    #[error("the session has its one connection already")]
    TooManyConnections,
    #[error("too many sessions")]
    OutOfResources,
    #[error("the node is being stopped")]
    Stopping,
}

impl Refusal {
    /// Status class and detail (RFC 7143 §11.13.5).
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Text(_)
            | Self::Negotiation(_)
            | Self::Twice(_)
            | Self::BadName(_)
            | Self::TooLong => login_status::INITIATOR_ERROR,
            Self::Version => login_status::VERSION,
            Self::Stage | Self::Changed => login_status::INVALID_REQUEST,
            Self::Missing(_) => login_status::MISSING_PARAMETER,
            Self::SessionType(_) => login_status::SESSION_TYPE,
            Self::NotFound(_) => login_status::NOT_FOUND,
            Self::Removed => login_status::REMOVED,
            Self::NotAllowed(_) => login_status::AUTHORIZATION,
            Self::Skipped
            | Self::ChapNotOffered
            | Self::ChapNotConfigured
            | Self::Algorithm
            | Self::ChapKeys
            | Self::WrongSecret(_)
            | Self::NoMutual
            | Self::Reflected
            | Self::SameSecret => login_status::AUTHENTICATION,
            Self::NoSession => login_status::NO_SESSION,
            Self::TooManyConnections => login_status::TOO_MANY_CONNECTIONS,
            Self::OutOfResources => login_status::OUT_OF_RESOURCES,
            Self::Stopping => login_status::UNAVAILABLE,
        }
    }
}
