//! Opening a volume's image and metadata file.

use lockstep_mirror::control::CacheMode;
use lockstep_uring::file::{self, Kind};
use lockstep_uring::{Errno, Handle};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often a lock that somebody else has is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// A file or a block device.
    pub image: PathBuf,
    /// A file.
    pub metadata: PathBuf,
    /// Bytes that the volume exports; the image has at least as many.
    pub size: u64,
    /// Logical block of the volume, 512 or 4096.
    pub block_size: u32,
    /// How it is written and read.
    pub cache: CacheMode,
}

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such path.
    #[error(
        "{path} does not exist: is its file system mounted? `lockstep volume create` makes new volumes"
    )]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// A directory, socket or the like.
    #[error("{path} is neither a file nor a block device")]
    WrongKind {
        /// Which.
        path: PathBuf,
    },
    /// Somebody has it.
    #[error(
        "{path} is in use elsewhere: another daemon serves this volume, or its last operations on a slow disk have not ended; stop that daemon, or wait"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The image is shorter than the volume.
    #[error(
        "{path} has {has} bytes and the volume needs {needs}: it was cut, or it is another volume's image"
    )]
    TooSmall {
        /// Which.
        path: PathBuf,
        /// Its size.
        has: u64,
        /// The volume's size.
        needs: u64,
    },
    /// Anything else.
    #[error("cannot {doing} {path}: {error}")]
    Failed {
        /// Which.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        error: Errno,
    },
}

/// An open and locked volume, to be handed to the shard that serves it.
#[derive(Debug)]
pub struct Disk {
    pub(super) image: OwnedFd,
    pub(super) metadata: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) manner: Manner,
}

/// How I/O on an image is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    /// Blocks do not stay in the page cache: reads never come from there.
    pub direct: bool,
    /// In memory: everything is done at once, and nothing is ever more durable than that.
    pub memory: bool,
    /// The metadata file is in memory.
    pub metadata_memory: bool,
}

impl Disk {
    /// Opens and locks both files. A lock that somebody has is tried again for `patience`: a
    /// predecessor that was killed lets go when its last operation has ended.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is kept open then.
    pub fn open(spec: &DiskSpec, patience: Duration) -> Result<Self, OpenError> {
        let path = &spec.image;
        let (mut image, mut kind) = open_image(path, OFlags::empty())?;
        let mut direct = false;
        // Direct I/O where the device takes the volume's blocks. Where its own blocks are larger,
        // the page cache completes partial ones; mixing both would let stale pages come back.
        if spec.cache == CacheMode::None && kind != Kind::Memory {
            let fits = file::alignment(&image)
                .map_err(failed(path, "examine"))?
                .is_some_and(|alignment| {
                    alignment.offset <= spec.block_size && alignment.memory <= spec.block_size
                });
            if fits {
                drop(image);
                (image, kind) = open_image(path, OFlags::DIRECT)?;
                direct = true;
            }
        }
        lock(&image, path, patience)?;
        let has = file::size(&image).map_err(failed(path, "measure"))?;
        if has < spec.size {
            return Err(OpenError::TooSmall {
                path: path.clone(),
                has,
                needs: spec.size,
            });
        }
        let metadata = open(&spec.metadata, OFlags::empty())?;
        let metadata_kind = kind_of(&metadata, &spec.metadata)?;
        lock(&metadata, &spec.metadata, patience)?;
        let manner = Manner {
            direct,
            memory: kind == Kind::Memory,
            metadata_memory: metadata_kind == Kind::Memory,
        };
        Ok(Self {
            image,
            metadata,
            path: path.clone(),
            manner,
        })
    }

    /// A second way to the metadata file, for those parts of it that the control plane keeps.
    /// The locks stay until it is dropped too.
    ///
    /// # Errors
    /// No descriptors.
    pub fn metadata(&self) -> Result<Metadata, Errno> {
        Ok(Metadata {
            file: rustix::io::fcntl_dupfd_cloexec(&self.metadata, 0)?,
        })
    }

    pub(super) fn into_handles(self) -> (Handle, Handle, PathBuf, Manner) {
        (
            Rc::new(self.image),
            Rc::new(self.metadata),
            self.path,
            self.manner,
        )
    }
}

/// The metadata file, for blocking use outside the shards.
#[derive(Debug)]
pub struct Metadata {
    file: OwnedFd,
}

impl Metadata {
    /// Fills `bytes` from this offset.
    ///
    /// # Errors
    /// The disk cannot read it, or the file is shorter (`EINVAL`).
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            match file::read(&self.file, &mut bytes[done..], offset + done as u64) {
                Ok(0) => return Err(Errno::INVAL),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes at this offset, durably.
    ///
    /// # Errors
    /// The disk failed; what it holds is suspect.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            match file::write(&self.file, &bytes[done..], offset + done as u64) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        rustix::fs::fdatasync(&self.file)
    }
}

fn open(path: &Path, extra: OFlags) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | extra;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => OpenError::Missing { path: path.into() },
        Errno::ISDIR => OpenError::WrongKind { path: path.into() },
        Errno::BUSY => OpenError::InUse { path: path.into() },
        error => failed(path, "open")(error),
    })
}

/// Opens a file or a block device; the latter exclusively, so that nobody can mount it.
pub(crate) fn open_image(path: &Path, extra: OFlags) -> Result<(OwnedFd, Kind), OpenError> {
    let image = open(path, extra)?;
    match kind_of(&image, path)? {
        Kind::Device => {
            drop(image);
            Ok((open(path, extra | OFlags::EXCL)?, Kind::Device))
        }
        kind => Ok((image, kind)),
    }
}

/// What is at a path; `None` if nothing that could be an image.
pub(crate) fn kind_of_path(path: &Path) -> Option<Kind> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    file::kind(&file).ok()
}

fn kind_of(file: &OwnedFd, path: &Path) -> Result<Kind, OpenError> {
    file::kind(file).map_err(|error| match error {
        Errno::INVAL => OpenError::WrongKind { path: path.into() },
        error => failed(path, "examine")(error),
    })
}

pub(crate) fn lock(file: &OwnedFd, path: &Path, patience: Duration) -> Result<(), OpenError> {
    let begin = Instant::now();
    loop {
        match file::lock(file) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if begin.elapsed() < patience => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(OpenError::InUse { path: path.into() }),
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(path, "lock")(error)),
        }
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(Errno) -> OpenError {
    move |error| OpenError::Failed {
        path: path.into(),
        doing,
        error,
    }
}
