//! The copies on this node, from nothing to open: made if they are new, opened under the lock,
//! their superblocks read. The work blocks, so it runs beside the control thread, which learns
//! its end.

use crate::config::Config;
use crate::durable;
use crate::pool::{Init, PoolVolume};
use crate::provision::{self, NewVolume, ProvisionError};
use crate::store::{Disk, DiskSpec, Metadata, OpenError};
use lockstep_api::volume::Progress;
use lockstep_mirror::control::{CacheMode, Incarnation};
use lockstep_mirror::metadata_layout::{SUPERBLOCK_LEN, SUPERBLOCK_OFFSETS, metadata_len};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a predecessor that was killed may take to end its last writes.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// A copy's files, and how they are to be made if the volume is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    image: PathBuf,
    metadata: PathBuf,
    /// What this node knows about the copy without opening it; see [`Made`].
    marker: PathBuf,
    size: u64,
    block_size: u32,
    cache: CacheMode,
    init: Init,
}

/// How far the making of a copy came, kept in the state directory: a copy that was in use is
/// never made anew, even if its file system is not mounted and nothing is where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// Never heard of.
    Not,
    /// Nothing was there before, and it was being made: what is there is ours to remove.
    Partly,
    /// Complete, and its superblock was never written.
    New,
    /// To be replaced by a blank one: metadata of before are set aside, an image that is there
    /// may be used, and all of it is compared.
    Replacing,
    /// That is done, and the superblock was never written.
    Replaced,
    /// In use.
    Used,
}

/// A copy that is open.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) disk: Box<Disk>,
    pub(crate) metadata: Metadata,
    pub(crate) superblocks: [Vec<u8>; 2],
    /// Its superblock was never written because the volume is new.
    pub(crate) new: bool,
}

/// Why a copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    #[error(transparent)]
    Make(#[from] ProvisionError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{}: {source}; see whether its file system is mounted and writable", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is to be adopted and is not there; put the image there, or create \
        the volume without --adopt", .0.display())]
    NothingToAdopt(PathBuf),
}

impl Copy {
    /// This node's copy of a volume, if it has one.
    pub(crate) fn new(volume: &PoolVolume, config: &Config) -> Option<Self> {
        let image = volume.image(config)?;
        let state = &config.node.state_directory;
        Some(Self {
            metadata: provision::metadata_path(&image, &state.join("metadata")),
            marker: state
                .join("volumes")
                .join(crate::uuid::format(volume.uuid.0)),
            size: volume.size.0,
            block_size: volume.block_size,
            cache: volume.spec(config.node.number, Incarnation(0)).cache,
            init: volume.init,
            image,
        })
    }

    /// Whether it lies where that one does.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        self.image == other.image
    }

    /// Makes the copy if the volume is new, and opens it. Blocks, for long. `opening` is called
    /// when only opening is left.
    pub(crate) fn prepare(
        &self,
        gauge: &Gauge,
        opening: impl FnOnce(),
    ) -> Result<Ready, LocalError> {
        let made = self.made()?;
        match made {
            Made::Not | Made::Partly => self.make(made, gauge)?,
            Made::Replacing => self.replace(gauge)?,
            Made::New | Made::Replaced | Made::Used => {}
        }
        opening();
        let (disk, metadata, superblocks) = self.open(LOCK_PATIENCE)?;
        Ok(Ready {
            disk: Box::new(disk),
            metadata,
            superblocks,
            new: matches!(made, Made::Not | Made::Partly | Made::New),
        })
    }

    /// Locks a copy that is in use, and reads its superblock slots. Makes nothing.
    pub(crate) fn look(&self, patience: Duration) -> Result<(Disk, [Vec<u8>; 2]), LocalError> {
        let (disk, _, superblocks) = self.open(patience)?;
        Ok((disk, superblocks))
    }

    fn open(&self, patience: Duration) -> Result<(Disk, Metadata, [Vec<u8>; 2]), LocalError> {
        let spec = DiskSpec {
            image: self.image.clone(),
            metadata: self.metadata.clone(),
            size: self.size,
            block_size: self.block_size,
            cache: self.cache,
        };
        let disk = Disk::open(&spec, patience)?;
        let metadata = disk
            .metadata()
            .map_err(|error| self.failed(&self.metadata, error))?;
        let slot = |offset| {
            let mut bytes = vec![0; usize::try_from(SUPERBLOCK_LEN).expect("4096")];
            // A file that is too short reads as zeroes: blank.
            match metadata.read(offset, &mut bytes) {
                Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(bytes),
                Err(error) => Err(self.failed(&self.metadata, error)),
            }
        };
        let superblocks = [slot(SUPERBLOCK_OFFSETS[0])?, slot(SUPERBLOCK_OFFSETS[1])?];
        Ok((disk, metadata, superblocks))
    }

    fn make(&self, made: Made, gauge: &Gauge) -> Result<(), LocalError> {
        if made == Made::Partly {
            if self.init == Init::Adopt {
                self.remove_metadata()?;
            } else {
                provision::remove(&self.image, &self.metadata)?;
            }
        } else if self.init != Init::Adopt {
            let device = self.image.starts_with("/dev");
            let there = [&self.image, &self.metadata]
                .into_iter()
                .find(|path| path.symlink_metadata().is_ok());
            if let Some(path) = there.filter(|path| !device || *path == &self.metadata) {
                return Err(ProvisionError::Exists { path: path.clone() }.into());
            }
        }
        self.mark(b"partly\n")?;
        let result = if self.init == Init::Adopt {
            self.adopt()
        } else {
            self.provision(gauge)
        };
        match result {
            Ok(()) => self.mark(b"new\n"),
            Err(error) => {
                // Nothing is left behind, so the next attempt begins from nothing.
                let _ = std::fs::remove_file(&self.marker);
                Err(error)
            }
        }
    }

    /// From now on the copy here is as good as none: it is made blank when it is opened next.
    pub(crate) fn discard(&self) -> Result<(), LocalError> {
        self.mark(b"replacing\n")
    }

    fn replace(&self, gauge: &Gauge) -> Result<(), LocalError> {
        let mut aside = self.metadata.clone().into_os_string();
        aside.push(".replaced");
        match std::fs::rename(&self.metadata, &aside) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(LocalError::File {
                    path: self.metadata.clone(),
                    source,
                });
            }
            _ => {}
        }
        match self.image.symlink_metadata() {
            Ok(_) => self.adopt()?,
            Err(_) => self.provision(gauge)?,
        }
        self.mark(b"replaced\n")
    }

    fn provision(&self, gauge: &Gauge) -> Result<(), LocalError> {
        let volume = NewVolume {
            image: self.image.clone(),
            metadata: self.metadata.clone(),
            size: self.size,
            block_size: self.block_size,
            prefill: self.init == Init::Prefill,
        };
        let mut go_on = |progress: provision::Progress| {
            gauge.set(progress.done, progress.total);
            true
        };
        Ok(provision::create(&volume, &mut go_on)?)
    }

    /// Metadata for an image that is there.
    fn adopt(&self) -> Result<(), LocalError> {
        if self.image.symlink_metadata().is_err() {
            return Err(LocalError::NothingToAdopt(self.image.clone()));
        }
        let made = std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.metadata)
            .and_then(|file| {
                file.set_len(metadata_len(self.size))?;
                file.sync_all()?;
                durable::sync_parent(&self.metadata)
            });
        made.map_err(|source| LocalError::File {
            path: self.metadata.clone(),
            source,
        })
    }

    fn remove_metadata(&self) -> Result<(), LocalError> {
        match std::fs::remove_file(&self.metadata) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LocalError::File {
                path: self.metadata.clone(),
                source: error,
            }),
            _ => Ok(()),
        }
    }

    fn made(&self) -> Result<Made, LocalError> {
        let text = durable::read_if_there(&self.marker).map_err(|source| LocalError::File {
            path: self.marker.clone(),
            source,
        })?;
        Ok(match text.as_deref() {
            None => Made::Not,
            Some(b"partly\n") => Made::Partly,
            Some(b"new\n") => Made::New,
            Some(b"replacing\n") => Made::Replacing,
            Some(b"replaced\n") => Made::Replaced,
            // Whatever else is there: the careful answer.
            Some(_) => Made::Used,
        })
    }

    fn mark(&self, word: &[u8]) -> Result<(), LocalError> {
        durable::replace(&self.marker, word, 0o600).map_err(|source| LocalError::File {
            path: self.marker.clone(),
            source,
        })
    }

    /// Notes that the superblock has been written: from now on the copy is never made anew.
    pub(crate) fn in_use(&self) -> Result<(), LocalError> {
        if self.made()? == Made::Used {
            Ok(())
        } else {
            self.mark(b"used\n")
        }
    }

    /// Forgets a deleted volume's copy; its files stay.
    pub(crate) fn forget(&self) {
        if let Err(error) = std::fs::remove_file(&self.marker) {
            tracing::debug!(path = %self.marker.display(), %error, "no marker to remove");
        }
    }

    fn failed(&self, path: &Path, error: rustix::io::Errno) -> LocalError {
        LocalError::File {
            path: path.to_owned(),
            source: error.into(),
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
    /// It cannot be used; tried again at that time.
    Failed { why: String, again: Instant },
    /// The volume was deleted; the shard lets it go.
    Leaving,
    /// It is let go, to be opened again in another way.
    Reopening {
        /// As a blank copy.
        blank: bool,
    },
}

/// How far the work on a copy is; written by the work, read by the status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<[AtomicU64; 2]>);

impl Gauge {
    fn set(&self, done: u64, total: u64) {
        self.0[1].store(total, Ordering::Relaxed);
        self.0[0].store(done, Ordering::Relaxed);
    }

    /// As the API shows it, begun so long ago.
    pub(crate) fn progress(&self, size: u64, since: Duration) -> Progress {
        let [done, total] = [&self.0[0], &self.0[1]].map(|value| value.load(Ordering::Relaxed));
        let total = if total == 0 { size } else { total };
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = u64::try_from(u128::from(done) * 1000 / u128::from(ms)).unwrap_or(u64::MAX);
        Progress {
            done,
            total,
            rate,
            left_s: total.saturating_sub(done).checked_div(rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EXAMPLE, Uuid};
    use crate::pool::Pool;
    use lockstep_api::quantity::Size;
    use lockstep_api::volume::CreateVolume;

    const SIZE: u64 = 4 << 20;

    fn copy(name: &str, adopt: bool) -> (Copy, PathBuf) {
        let root =
            std::env::temp_dir().join(format!("lockstep-local-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for part in ["state/volumes", "state/metadata", "images"] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        let mut config = Config::parse(Path::new("x"), EXAMPLE).unwrap();
        config.node.state_directory = root.join("state");
        config.storage.directories = vec![root.join("images")];
        let request = CreateVolume {
            name: "a".into(),
            size: Size(SIZE),
            adopt,
            ..CreateVolume::default()
        };
        let pool = Pool::empty(Uuid(1))
            .with_volume(&request, Uuid(7), "com.example", &[1])
            .unwrap();
        (Copy::new(&pool.volumes[0], &config).unwrap(), root)
    }

    #[test]
    fn a_copy_is_made_once_and_then_only_opened() {
        let (copy, root) = copy("once", false);
        let ready = copy.prepare(&Gauge::default(), || {}).unwrap();
        assert!(ready.new && ready.superblocks == [vec![0; 4096], vec![0; 4096]]);
        assert_eq!(std::fs::metadata(&copy.image).unwrap().len(), SIZE);
        drop(ready);
        assert!(copy.prepare(&Gauge::default(), || {}).unwrap().new);
        copy.in_use().unwrap();
        assert!(!copy.prepare(&Gauge::default(), || {}).unwrap().new);
        std::fs::remove_file(&copy.image).unwrap();
        let error = copy.prepare(&Gauge::default(), || {}).unwrap_err();
        assert!(
            matches!(error, LocalError::Open(OpenError::Missing { .. })),
            "{error}"
        );
        assert!(!copy.image.exists());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn an_image_that_is_there_is_not_overwritten() {
        let (copy, root) = copy("there", false);
        std::fs::write(&copy.image, "precious").unwrap();
        for _ in 0..2 {
            let error = copy.prepare(&Gauge::default(), || {}).unwrap_err();
            assert!(
                matches!(error, LocalError::Make(ProvisionError::Exists { .. })),
                "{error}"
            );
        }
        assert_eq!(std::fs::read(&copy.image).unwrap(), b"precious");
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_crash_while_making_is_cleared_up() {
        let (copy, root) = copy("crash", false);
        copy.mark(b"partly\n").unwrap();
        std::fs::write(&copy.image, "half").unwrap();
        assert!(copy.prepare(&Gauge::default(), || {}).unwrap().new);
        assert_eq!(std::fs::metadata(&copy.image).unwrap().len(), SIZE);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn an_adopted_image_keeps_its_bytes() {
        let (copy, root) = copy("adopt", true);
        assert!(matches!(
            copy.prepare(&Gauge::default(), || {}),
            Err(LocalError::NothingToAdopt(_))
        ));
        std::fs::write(&copy.image, vec![7; 4 << 20]).unwrap();
        assert!(copy.prepare(&Gauge::default(), || {}).unwrap().new);
        assert_eq!(std::fs::read(&copy.image).unwrap()[..8], [7; 8]);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_replaced_copy_is_blank_and_never_taken_for_new() {
        let (copy, root) = copy("replaced", false);
        drop(copy.prepare(&Gauge::default(), || {}).unwrap());
        copy.in_use().unwrap();
        // The disk is there, and failed once: its image is used, its metadata are not.
        std::fs::write(&copy.metadata, "what the failed disk said").unwrap();
        copy.discard().unwrap();
        let ready = copy.prepare(&Gauge::default(), || {}).unwrap();
        assert!(!ready.new && ready.superblocks == [vec![0; 4096], vec![0; 4096]]);
        drop(ready);
        // Another disk is in its place.
        std::fs::remove_file(&copy.image).unwrap();
        std::fs::remove_file(&copy.metadata).unwrap();
        copy.discard().unwrap();
        assert!(!copy.prepare(&Gauge::default(), || {}).unwrap().new);
        assert_eq!(std::fs::metadata(&copy.image).unwrap().len(), SIZE);
        assert!(!copy.prepare(&Gauge::default(), || {}).unwrap().new);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn progress_tells_what_is_left_only_once_something_is_done() {
        let gauge = Gauge::default();
        assert_eq!(gauge.progress(100, Duration::ZERO).left_s, None);
        gauge.set(50, 100);
        let half = gauge.progress(100, Duration::from_secs(5));
        assert_eq!(
            (half.rate, half.left_s, half.permille()),
            (10, Some(5), 500)
        );
    }
}
