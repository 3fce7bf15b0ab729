//! Drives the real daemons with real initiators: what the tests in `tests/` share.

pub mod temporary;

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

/// A TCP port on this address that was free a moment ago.
///
/// # Panics
/// If there is none.
pub fn free_port(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("some port is free on loopback");
    listener
        .local_addr()
        .expect("a listener has an address")
        .port()
}

/// Waits until something holds, looking every 20 ms.
///
/// # Panics
/// If it does not within `limit`.
pub fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
