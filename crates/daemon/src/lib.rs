//! Runs a node on this machine's disks and sockets. Data moves on the shard thread's ring; the
//! control thread moves bytes for `Node`, keeps the durable files and answers the admin API. No
//! decision is taken here: both machines come from the engine.

pub mod config;
mod durable;
pub mod events;
pub mod pool;
pub mod secret;
pub mod uuid;
