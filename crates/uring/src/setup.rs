//! Why a ring cannot be had, for people.

use rustix::io::Errno;
use std::fmt;

/// Why there is no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetupError(pub Errno);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::NOSYS => f.write_str("the kernel has no io_uring: Linux 6.1 or newer is needed"),
            Errno::PERM => f.write_str(
                "io_uring is forbidden here: set the sysctl kernel.io_uring_disabled to 0, and allow io_uring in the container's or unit's system call filter",
            ),
            Errno::NOMEM => f.write_str("no memory for an io_uring: raise LimitMEMLOCK, or the memory limit of the service"),
            other => write!(f, "cannot set up an io_uring: {other}"),
        }
    }
}

impl std::error::Error for SetupError {}
