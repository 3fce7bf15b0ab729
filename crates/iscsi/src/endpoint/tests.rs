//! Conversations with an endpoint: the test is initiator, driver and engine.

mod control;
mod data;
mod harness;
mod login;
mod management;
mod reinstatement;
mod robustness;
mod timers;
