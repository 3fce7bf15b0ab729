//! Turns an initiator's bytes into SCSI tasks, and answers into bytes (RFC 7143). Pure: no clock,
//! no socket; block data is named by its task and never touched.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod interface;
