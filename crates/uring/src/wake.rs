//! Wakes a ring that waits, from any thread.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Makes the wait of one ring return.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A counter to wake by, and its second descriptor for the ring to read.
    pub(crate) fn new() -> Result<(Self, OwnedFd), Errno> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let for_ring = rustix::io::fcntl_dupfd_cloexec(&counter, 0)?;
        Ok((Self(Arc::new(counter)), for_ring))
    }

    /// Wakes the ring; wakes before it looks count as one.
    pub fn wake(&self) {
        let one = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
        assert_eq!(
            one,
            Ok(8),
            "an event counter is never full: the ring empties it at every wake"
        );
    }
}
