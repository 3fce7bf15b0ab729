//! Files and block devices outside the ring: what kind they are, locking, and I/O that is done
//! at once because it cannot block.

use rustix::fs::{AtFlags, FileType, FlockOperation, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;

/// What kind of file something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On a disk's file system.
    Regular,
    /// In memory (tmpfs): I/O at once never waits, and I/O through a ring takes a detour.
    Memory,
    /// A block device.
    Device,
}

/// Direct I/O must keep to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Of memory addresses, bytes.
    pub memory: u32,
    /// Of offsets and lengths, bytes.
    pub offset: u32,
}

/// `f_type` of tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// `f_type` of ramfs.
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// Tells what a descriptor is; `EINVAL` for directories, sockets and the like.
///
/// # Errors
/// As of `fstat`.
pub fn kind(file: impl AsFd) -> Result<Kind, Errno> {
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => Ok(Kind::Device),
        FileType::RegularFile => {
            let magic = rustix::fs::fstatfs(file)?.f_type;
            Ok(if magic == TMPFS_MAGIC || magic == RAMFS_MAGIC {
                Kind::Memory
            } else {
                Kind::Regular
            })
        }
        _ => Err(Errno::INVAL),
    }
}

/// Size in bytes, of files and devices alike.
///
/// # Errors
/// Not a file of either kind.
pub fn size(file: impl AsFd) -> Result<u64, Errno> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))
}

/// What direct I/O demands here; `None` if the file does not offer it.
///
/// # Errors
/// As of `statx`.
pub fn alignment(file: impl AsFd) -> Result<Option<Alignment>, Errno> {
    let stat = rustix::fs::statx(
        &file,
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN,
    )?;
    let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN);
    if told {
        let (memory, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
        return Ok((offset != 0).then_some(Alignment { memory, offset }));
    }
    // Not told (a kernel before 6.1, or a file system that does not know): a device's logical
    // block is always right, and a page is for files.
    let block = rustix::fs::ioctl_blksszget(&file).unwrap_or(4096);
    Ok(Some(Alignment {
        memory: block,
        offset: block,
    }))
}

/// Locks the open file description for this owner alone, without waiting. The lock lasts until
/// the last descriptor and the last operation in a ring have let go of it.
///
/// # Errors
/// `EWOULDBLOCK`: somebody else has it.
pub fn lock(file: impl AsFd) -> Result<(), Errno> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Reads at once, even if it has to wait for the disk.
///
/// # Errors
/// As of `pread`.
pub fn read(file: impl AsFd, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::preadv2(
        file,
        &mut [IoSliceMut::new(bytes)],
        offset,
        ReadWriteFlags::empty(),
    )
}

/// Reads what is in the page cache.
///
/// # Errors
/// `EAGAIN`: it would have to wait; `EOPNOTSUPP`: this file cannot tell.
pub fn read_cached(file: impl AsFd, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::preadv2(
        file,
        &mut [IoSliceMut::new(bytes)],
        offset,
        ReadWriteFlags::NOWAIT,
    )
}

/// Writes at once, even if it has to wait.
///
/// # Errors
/// As of `pwrite`.
pub fn write(file: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::pwritev2(
        file,
        &[IoSlice::new(bytes)],
        offset,
        ReadWriteFlags::empty(),
    )
}
