//! Conversations with an endpoint: the test is initiator, driver and engine.
#![expect(
    clippy::cast_possible_truncation,
    reason = "test patterns and small numbers"
)]

mod commands;
mod control;
mod harness;
mod login;
mod management;
mod reads;
mod reinstatement;
mod robustness;
mod timers;
mod writes;
