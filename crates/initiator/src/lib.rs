//! A small two-path iSCSI initiator, made to find fault with targets: every block it writes says
//! what it is, and a ledger knows what each block may hold. [`core`] is pure and is what the
//! simulator runs; the other modules (feature `driver`) are sockets, files and a load generator.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(any(feature = "driver", test))]
extern crate std;

#[cfg(feature = "driver")]
pub mod client;
pub mod core;
#[cfg(feature = "driver")]
pub mod driver;
#[cfg(feature = "driver")]
pub mod load;
#[cfg(feature = "driver")]
mod socket;
#[cfg(feature = "driver")]
pub mod verify;
