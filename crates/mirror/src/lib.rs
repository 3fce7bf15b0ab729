//! Keeps two copies of a volume equal and decides who may serve: the order of operations on the
//! data path, the register, membership, `decide`, resync, and the encoding of metadata and frames.
//! Pure: no clock, no file, no socket; blocks are named by handles and never touched.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod control;
pub mod control_frame;
pub mod data_frame;
pub mod decide;
pub mod dirty;
pub mod fields;
pub mod frame;
pub mod hello;
pub mod intents;
pub mod lease;
pub mod membership;
pub mod metadata_layout;
pub mod operation;
pub mod range_lock;
pub mod register;
pub mod superblock;
pub mod volume;
pub mod volume_action;
pub mod volume_io;
