//! The wall clock: read here and nowhere else in the daemon. It may be wrong, jump and go back at
//! any moment. It stamps events, and bridges the time between two runs in the schedule of
//! verifications; nothing that keeps data safe looks at it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; 0 for a clock that stands before that.
pub(crate) fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
