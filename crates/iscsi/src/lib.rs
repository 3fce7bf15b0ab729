//! Turns an initiator's bytes into SCSI tasks, and answers into bytes (RFC 7143). Pure: no clock,
//! no socket; block data is named by its task and never touched.
//!
//! The layers, each of which knows only those above it: `pdu`, `text`, `digest`, `chap` (formats);
//! `negotiate`, `login` (agreeing), `sequence`, `transfer` (counting); `tasks`, `session`,
//! `connection` (tables); [`endpoint`] (what happens when).
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod chap;
mod connection;
pub mod digest;
pub mod endpoint;
pub mod interface;
mod login;
mod negotiate;
mod parameters;
pub mod pdu;
mod random;
mod send;
mod sequence;
mod session;
mod tasks;
pub mod text;
mod transfer;
