//! The copies on this node, from nothing to open: made if they are new, opened under the lock,
//! and handed over. The work blocks, so it runs beside the control thread, which learns its end.

use crate::pool::{Init, PoolVolume};
use lockstep_api::volume::Progress;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a predecessor that was killed may take to end its last writes.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// A copy's image and metadata file, and how it is to be made if it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) image: PathBuf,
    pub(crate) metadata: PathBuf,
    pub(crate) size: u64,
    pub(crate) block_size: u32,
    pub(crate) init: Init,
}

impl Copy {
    /// The metadata lies next to an image that is a file, and in the state directory for a block
    /// device, which has no place beside it.
    pub(crate) fn new(volume: &PoolVolume, image: PathBuf, state: &Path) -> Self {
        let metadata = if image.starts_with("/dev") {
            state
                .join("metadata")
                .join(crate::uuid::format(volume.uuid.0))
        } else {
            let mut name = image.clone().into_os_string();
            name.push(".lockstep");
            name.into()
        };
        Self {
            image,
            metadata,
            size: volume.size.0,
            block_size: volume.block_size,
            init: volume.init,
        }
    }
}

/// How a copy on this node is.
#[derive(Clone, Debug)]
pub(crate) enum LocalState {
    /// Its image is being made.
    Making { gauge: Gauge, since: Instant },
    /// Its image is being opened; a predecessor may still hold the lock.
    Opening,
    /// The shard has it.
    Open,
    /// It cannot be used; only a person helps.
    Failed { why: String },
}

/// How far the work on a copy is; written by the work, read by the status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Bytes done so far.
    pub(crate) fn set(&self, done: u64) {
        self.0.store(done, Ordering::Relaxed);
    }

    /// As the API shows it, begun so long ago.
    pub(crate) fn progress(&self, total: u64, since: Duration) -> Progress {
        progress(self.0.load(Ordering::Relaxed), total, since)
    }
}

/// Progress with the mean rate since the beginning.
pub(crate) fn progress(done: u64, total: u64, since: Duration) -> Progress {
    let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = u64::try_from(u128::from(done) * 1000 / u128::from(ms)).unwrap_or(u64::MAX);
    let left_s = total.saturating_sub(done).checked_div(rate);
    Progress {
        done,
        total,
        rate,
        left_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_lies_beside_a_file_and_not_beside_a_device() {
        let pool = crate::pool::Pool::empty(crate::config::Uuid(1));
        let request = lockstep_api::volume::CreateVolume {
            name: "a".into(),
            size: lockstep_api::quantity::Size(1 << 20),
            ..Default::default()
        };
        let pool = pool
            .with_volume(&request, crate::config::Uuid(7), "com.example", &[1])
            .unwrap();
        let copy =
            |image: &str| Copy::new(&pool.volumes[0], image.into(), "/state".as_ref()).metadata;
        assert_eq!(
            copy("/images/a.img"),
            PathBuf::from("/images/a.img.lockstep")
        );
        assert_eq!(
            copy("/dev/vg/a"),
            PathBuf::from("/state/metadata/00000000-0000-0000-0000-000000000007")
        );
    }

    #[test]
    fn progress_tells_what_is_left_only_once_something_is_done() {
        assert_eq!(progress(0, 100, Duration::ZERO).left_s, None);
        let half = progress(50, 100, Duration::from_secs(5));
        assert_eq!(
            (half.rate, half.left_s, half.permille()),
            (10, Some(5), 500)
        );
    }
}
