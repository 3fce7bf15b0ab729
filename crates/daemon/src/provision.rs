//! Making the files of a new volume: a thick image whose space is there from the first day, and
//! its metadata file. Refuses with the reason and what to do; leaves nothing behind then.

use crate::store::{self, OpenError};
use lockstep_mirror::metadata_layout::metadata_len;
use lockstep_uring::Errno;
use lockstep_uring::file::{self, Kind};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Space is reserved in pieces of this length, with a word on progress after each.
const RESERVE_PIECE: u64 = 1 << 30;
/// Zeroes are written in pieces of this length.
const PREFILL_PIECE: usize = 4 << 20;
/// What stays free on a file system besides the volume: metadata of others, logs.
const SPARE_BYTES: u64 = 16 << 20;

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// A path at which nothing is yet, or a block device.
    pub image: PathBuf,
    /// A path at which nothing is yet; see [`metadata_path`].
    pub metadata: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Logical block, 512 or 4096.
    pub block_size: u32,
    /// Write zeroes over the whole of it: durable writes are faster later, and a device's former
    /// contents are gone. Files read as zeroes without it.
    pub prefill: bool,
}

/// Why a volume was not made.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Something is there.
    #[error("{path} exists already: choose another path, or remove it if nobody needs it")]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// Its folder is not there.
    #[error("{folder} does not exist: create it or mount its file system first")]
    NoFolder {
        /// Which.
        folder: PathBuf,
    },
    /// The file system has less room than is needed.
    #[error(
        "{folder} has {free} bytes free and {needed} are needed: free some space, choose a smaller size, or another file system"
    )]
    Full {
        /// Where.
        folder: PathBuf,
        /// What a user may still allocate there.
        free: u64,
        /// For image, metadata and a little to spare.
        needed: u64,
    },
    /// The size is none.
    #[error(
        "a volume of {size} bytes is not a whole number of blocks of {block_size} bytes (and at least one)"
    )]
    Size {
        /// As asked for.
        size: u64,
        /// As asked for.
        block_size: u32,
    },
    /// The device's blocks are larger than the volume's.
    #[error(
        "{path} has blocks of {device} bytes: give the volume blocks of {device} bytes as well, not of {volume}"
    )]
    Blocks {
        /// Which.
        path: PathBuf,
        /// Its logical block.
        device: u32,
        /// As asked for.
        volume: u32,
    },
    /// The image cannot be used: missing, too small, in use.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The caller wanted no more.
    #[error("creating {path} was cancelled")]
    Cancelled {
        /// Which.
        path: PathBuf,
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

/// How far it is; said after each piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes reserved or written so far.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// Where a volume's metadata file belongs: next to an image file, or into the node's state
/// directory for a block device.
#[must_use]
pub fn metadata_path(image: &Path, state: &Path) -> PathBuf {
    let device = store::kind_of_path(image) == Some(Kind::Device);
    let name = image.file_name().unwrap_or_default();
    let folder = if device {
        state
    } else {
        image.parent().unwrap_or(state)
    };
    let mut file = name.to_os_string();
    file.push(".meta");
    folder.join(file)
}

/// Makes image and metadata file. `go_on` is told of progress and says whether to go on.
///
/// # Errors
/// See [`ProvisionError`]; whatever was made is removed again (a device's contents excepted).
pub fn create(
    volume: &NewVolume,
    go_on: &mut dyn FnMut(Progress) -> bool,
) -> Result<(), ProvisionError> {
    let NewVolume {
        image,
        metadata,
        size,
        block_size,
        ..
    } = volume;
    if *size == 0 || !size.is_multiple_of(u64::from(*block_size)) {
        return Err(ProvisionError::Size {
            size: *size,
            block_size: *block_size,
        });
    }
    let device = store::kind_of_path(image) == Some(Kind::Device);
    let image_bytes = if device { 0 } else { *size };
    check_room(folder_of(metadata), metadata_len(*size))?;
    if !device {
        check_room(folder_of(image), image_bytes + metadata_len(*size))?;
    }
    let image_file = if device {
        use_device(volume)?
    } else {
        create_file(image)?
    };
    let made =
        fill(volume, &image_file, device, go_on).and_then(|()| create_metadata(metadata, *size));
    if made.is_err() && !device {
        // The error that is being reported matters more than one of cleaning up.
        let _left_behind = std::fs::remove_file(image);
    }
    made
}

/// Removes the files of a volume that is served no more. A device is left as it is.
///
/// # Errors
/// The volume is in use, or a file cannot be removed.
pub fn remove(image: &Path, metadata: &Path) -> Result<(), ProvisionError> {
    match store::kind_of_path(image) {
        Some(Kind::Device) | None => {}
        Some(Kind::Regular | Kind::Memory) => {
            let (file, _) = store::open_image(image, OFlags::empty())?;
            store::lock(&file, image, Duration::ZERO)?;
            remove_file(image)?;
        }
    }
    remove_file(metadata)
}

fn remove_file(path: &Path) -> Result<(), ProvisionError> {
    match rustix::fs::unlink(path) {
        // Gone is what was wanted.
        Ok(()) | Err(Errno::NOENT) => sync_folder(path),
        Err(error) => Err(failed(path, "remove")(error)),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

fn check_room(folder: &Path, bytes: u64) -> Result<(), ProvisionError> {
    let room = rustix::fs::statvfs(folder).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR => ProvisionError::NoFolder {
            folder: folder.into(),
        },
        error => failed(folder, "examine")(error),
    })?;
    let (free, needed) = (room.f_bavail * room.f_frsize, bytes + SPARE_BYTES);
    if free < needed {
        return Err(ProvisionError::Full {
            folder: folder.into(),
            free,
            needed,
        });
    }
    Ok(())
}

fn create_file(path: &Path) -> Result<OwnedFd, ProvisionError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    // For the daemon's user alone: a volume holds other people's data.
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| match error {
        Errno::EXIST => ProvisionError::Exists { path: path.into() },
        error => failed(path, "create")(error),
    })
}

/// Opens a device exclusively and checks that the volume fits.
fn use_device(volume: &NewVolume) -> Result<OwnedFd, ProvisionError> {
    let NewVolume {
        image: path,
        size,
        block_size,
        ..
    } = volume;
    let (device, _) = store::open_image(path, OFlags::empty())?;
    store::lock(&device, path, Duration::ZERO)?;
    let has = file::size(&device).map_err(failed(path, "measure"))?;
    if has < *size {
        return Err(OpenError::TooSmall {
            path: path.clone(),
            has,
            needs: *size,
        }
        .into());
    }
    let block = rustix::fs::ioctl_blksszget(&device).map_err(failed(path, "examine"))?;
    if block > *block_size {
        return Err(ProvisionError::Blocks {
            path: path.clone(),
            device: block,
            volume: *block_size,
        });
    }
    Ok(device)
}

/// Reserves the image's space, writes zeroes if wanted, and makes it all durable.
fn fill(
    volume: &NewVolume,
    image: &OwnedFd,
    device: bool,
    go_on: &mut dyn FnMut(Progress) -> bool,
) -> Result<(), ProvisionError> {
    let NewVolume {
        image: path,
        size,
        prefill,
        ..
    } = volume;
    let passes = u64::from(!device) + u64::from(*prefill);
    let total = size * passes;
    let mut done = 0;
    let mut report = |bytes: u64| {
        done += bytes;
        if go_on(Progress { done, total }) {
            Ok(())
        } else {
            Err(ProvisionError::Cancelled { path: path.clone() })
        }
    };
    if !device {
        for offset in (0..*size).step_by(usize::try_from(RESERVE_PIECE).expect("64 bits")) {
            let piece = RESERVE_PIECE.min(size - offset);
            reserve(image, offset, piece).map_err(|error| full_or_failed(path, piece, error))?;
            report(piece)?;
        }
    }
    if *prefill {
        let zeroes = vec![0; PREFILL_PIECE];
        let mut offset = 0;
        while offset < *size {
            let piece =
                usize::try_from((size - offset).min(PREFILL_PIECE as u64)).expect("a piece");
            match file::write(image, &zeroes[..piece], offset) {
                Ok(count) => {
                    offset += count as u64;
                    report(count as u64)?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(full_or_failed(path, size - offset, error)),
            }
        }
    }
    rustix::fs::fsync(image).map_err(failed(path, "flush"))?;
    if device { Ok(()) } else { sync_folder(path) }
}

/// `fallocate`; a file system without it gets zeroes written.
fn reserve(image: &OwnedFd, offset: u64, len: u64) -> Result<(), Errno> {
    loop {
        match rustix::fs::fallocate(image, FallocateFlags::empty(), offset, len) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) => break,
            other => return other,
        }
    }
    let zeroes = vec![0; PREFILL_PIECE];
    let mut done = 0;
    while done < len {
        let piece = usize::try_from((len - done).min(PREFILL_PIECE as u64)).expect("a piece");
        done += file::write(image, &zeroes[..piece], offset + done)? as u64;
    }
    Ok(())
}

fn create_metadata(path: &Path, size: u64) -> Result<(), ProvisionError> {
    let metadata = create_file(path)?;
    let len = metadata_len(size);
    let made = reserve(&metadata, 0, len)
        .map_err(|error| full_or_failed(path, len, error))
        .and_then(|()| rustix::fs::fsync(&metadata).map_err(failed(path, "flush")))
        .and_then(|()| sync_folder(path));
    if made.is_err() {
        // As above.
        let _left_behind = std::fs::remove_file(path);
    }
    made
}

/// Makes a new or removed name durable.
fn sync_folder(path: &Path) -> Result<(), ProvisionError> {
    let folder = folder_of(path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty()).map_err(failed(folder, "open"))?;
    rustix::fs::fsync(opened).map_err(failed(folder, "flush"))
}

fn full_or_failed(path: &Path, needed: u64, error: Errno) -> ProvisionError {
    match error {
        Errno::NOSPC | Errno::DQUOT => {
            let folder = folder_of(path);
            let free = rustix::fs::statvfs(folder).map_or(0, |room| room.f_bavail * room.f_frsize);
            ProvisionError::Full {
                folder: folder.into(),
                free,
                needed,
            }
        }
        error => failed(path, "reserve space for")(error),
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(Errno) -> ProvisionError {
    move |error| ProvisionError::Failed {
        path: path.into(),
        doing,
        error,
    }
}

#[cfg(test)]
mod tests;
