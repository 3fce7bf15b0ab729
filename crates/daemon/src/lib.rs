//! Runs a node on this machine's disks and sockets. Data moves on the shard thread's ring; the
//! control thread moves bytes for `Node`, keeps the durable files and answers the admin API. No
//! decision is taken here: both machines come from the engine.

mod admin;
pub mod config;
mod durable;
pub mod events;
mod http;
pub mod pool;
pub mod secret;
pub mod store;
pub mod uuid;

/// Stub
pub fn run(_config: config::Config) -> std::io::Result<()> { Ok(()) }
/// Stub
#[must_use]
pub fn preflight(_config: &config::Config) -> Vec<String> { vec![] }
