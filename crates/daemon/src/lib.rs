//! Runs a node on this machine's disks and sockets. Data moves on the shard thread's ring; the
//! control thread moves bytes for `Node`, keeps the durable files and answers the admin API. No
//! decision is taken here: both machines come from the engine.

mod admin;
pub mod certificate;
pub mod config;
mod control;
mod crc;
mod durable;
pub mod events;
mod http;
mod metrics;
pub mod pool;
pub mod pool_memory;
mod preflight;
pub mod provision;
pub mod recorder;
pub mod secret;
pub mod shard_thread;
pub mod store;
pub mod uuid;
mod wall_clock;
pub mod witness;

pub use control::{RunError, run};
pub use preflight::preflight;
