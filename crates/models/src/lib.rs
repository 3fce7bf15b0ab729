//! Models: the mirror's own machines, searched exhaustively at a small scope. What runs in the
//! daemon is what is searched; only its surroundings are restated (`docs/testing.md`, models).
#![forbid(unsafe_code)]

pub mod crash;
pub mod decide;
pub mod pair;
pub mod register;
pub mod scopes;
pub mod search;
