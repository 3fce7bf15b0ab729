//! The initiator without its I/O: one session ([`session`]), two paths to one disk
//! ([`multipath`]), what is written ([`stamp`]) and what may be read ([`ledger`]). Bytes and time
//! go in, bytes and results come out. It has its own view of the PDUs and does not share the
//! target's on purpose: two readings of the RFC that must agree find more than one.

pub mod chap;
pub mod command;
#[cfg(test)]
mod fake_target;
pub mod ledger;
mod login;
pub mod multipath;
mod path;
pub mod sense;
pub mod session;
pub mod stamp;
mod task;
pub mod text;
pub mod wire;

/// Time since any fixed moment; only differences count.
pub type Time = ::core::time::Duration;
