//! What every refused request is answered with: the thing, the reason, and what to do.

use serde::{Deserialize, Serialize};

/// A refusal, for people and programs alike. The HTTP status tells the class: 400 bad request,
/// 404 no such thing, 409 not in this state, 503 not now, 500 our fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {why}; {todo}")]
pub struct ApiError {
    /// Which thing could not be done ("volume vm1").
    pub what: String,
    /// Why not.
    pub why: String,
    /// What the reader can do about it.
    #[serde(rename = "do")]
    pub todo: String,
}

impl ApiError {
    /// Makes one from its three sentences.
    pub fn new(what: impl Into<String>, why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
            todo: todo.into(),
        }
    }
}
