//! What a shard counts. Plain numbers, read by the control plane for metrics and status.

use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::VolumeId;
use lockstep_mirror::volume::VolumeStatus;

/// Upper bounds of the latency buckets in microseconds; the last bucket has none.
pub const LATENCY_BOUNDS_US: [u64; 14] = [
    32, 64, 128, 256, 512, 1_000, 2_000, 4_000, 8_000, 16_000, 64_000, 250_000, 1_000_000,
    5_000_000,
];

/// Latencies of one kind of command, from its header's arrival to its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Commands in each bucket (not cumulative); the last one is everything slower.
    pub buckets: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Sum in microseconds.
    pub sum_us: u64,
}

impl Latencies {
    /// Counts one command.
    pub fn add(&mut self, taken: Duration) {
        let us = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|&bound| bound < us);
        self.buckets[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Numbers of one volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeCounters {
    /// Bytes read by initiators.
    pub read_bytes: u64,
    /// Bytes written by initiators.
    pub written_bytes: u64,
    /// Latencies of reads.
    pub reads: Latencies,
    /// Latencies of writes (also zeroing and discarding).
    pub writes: Latencies,
    /// Latencies of flushes.
    pub flushes: Latencies,
    /// Commands that ended with CHECK CONDITION or BUSY.
    pub failed: u64,
}

/// Numbers of one path to the partner that carries data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Authenticated data channels on it now.
    pub channels: u32,
    /// Bytes sent, headers included.
    pub sent_bytes: u64,
    /// Bytes received, headers included.
    pub received_bytes: u64,
    /// Frames that were refused: a bit was flipped on the way, or the sender is not honest.
    pub refused: u64,
    /// Channels given up because nothing came on them any more though the partner lived.
    pub given_up: u64,
}

/// A snapshot of everything a shard counts.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// iSCSI sessions in full feature phase.
    pub sessions: u32,
    /// iSCSI connections, logged in or not.
    pub connections: u32,
    /// Authenticated data channels to the partner.
    pub channels: u32,
    /// What went over each path that carries data, by its number.
    pub paths: Vec<PathCounters>,
    /// Buffers in use.
    pub buffers: u32,
    /// Each volume's counters and the state of its data path.
    pub volumes: Vec<(VolumeId, VolumeCounters, VolumeStatus)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_the_first_bucket_that_holds_it() {
        let mut latencies = Latencies::default();
        latencies.add(Duration::from_micros(32));
        latencies.add(Duration::from_micros(33));
        latencies.add(Duration::from_secs(60));
        assert_eq!(
            (
                latencies.buckets[0],
                latencies.buckets[1],
                latencies.buckets[14]
            ),
            (1, 1, 1)
        );
        assert_eq!(latencies.count(), 3);
    }
}
