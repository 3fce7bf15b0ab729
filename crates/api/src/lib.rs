//! The admin API of a node: its types, as they travel in JSON, and a small blocking client.
//! The command line, the demo and the daemon share these types; what a person reads is made from
//! them elsewhere. Secrets travel only towards the daemon and never come back.

pub mod client;
pub mod error;
pub mod forced;
pub mod health;
pub mod node;
pub mod pool;
pub mod quantity;
pub mod resync;
pub mod status;
pub mod time;
pub mod verify;
pub mod volume;

pub use client::{Client, ClientError};
pub use error::ApiError;
