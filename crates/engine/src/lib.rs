//! One whole node without its I/O, as two state machines: `Node` decides who may serve, a `Shard`
//! serves. The daemon and the simulator drive the very same two.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod ballot_box;
pub mod certificate;
mod channel;
pub mod counters;
pub mod interface;
pub mod node;
pub mod node_interface;
pub mod pool;
#[cfg(feature = "record")]
pub mod record;
pub mod shard;
pub mod witness;
