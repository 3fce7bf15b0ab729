//! Drives the real daemons with real initiators: what the tests in `tests/` share. A test that
//! needs more than half a minute is ignored and its name begins with `long_`.

pub mod cable;
pub mod content;
pub mod node;
pub mod pair;
pub mod program;
pub mod suite;
pub mod temporary;
pub mod witness;

use std::time::{Duration, Instant};

/// The LUN of every volume that these tests make.
pub const LUN: u8 = 0;
/// The name of it.
pub const VOLUME: &str = "disk";
/// An initiator name.
pub const INITIATOR: &str = "iqn.2026-11.test:initiator";

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
