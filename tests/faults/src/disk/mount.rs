//! What the kernel asks of a disk, turned into operations of its [`Store`]. Nothing is cached by
//! the kernel: it would survive a power cut there.

use super::{Operation, Part, Shared};
use crate::store::{Facts, ROOT, Store};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, SessionACL, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno as StoreError;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Threads that take requests from the kernel; what waits does so outside of them.
const THREADS: usize = 2;
/// The longest write that the kernel sends whole.
const MAX_WRITE: u32 = 1 << 20;
/// Attributes and names are asked for each time.
const NEVER: Duration = Duration::ZERO;
/// A flush with this end is answered as done.
pub(super) const IGNORED: StoreError = StoreError::CANCELED;
const DIRECT: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// The file system that the kernel sees.
pub(super) struct Mount {
    shared: Arc<Shared>,
}

/// Mounts it.
pub(super) fn spawn(mount: Mount, place: &Path, source: String) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName(source), MountOption::DefaultPermissions];
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    fuser::spawn_mount(mount, place, &config)
}

impl Mount {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn gate(
        &self,
        inode: INodeNo,
        operation: Operation,
        job: impl FnOnce(Result<&mut Store, StoreError>) + Send + 'static,
    ) {
        let part = part_of(&self.shared.lock().store, inode.0);
        self.shared.gate(part, operation, Box::new(job));
    }

    /// What only looks is never held up: a disk that hangs still has its names in memory.
    fn look<T>(&self, look: impl FnOnce(&Store) -> Result<T, StoreError>) -> Result<T, Errno> {
        look(&self.shared.lock().store).map_err(errno)
    }
}

/// By the directory below the root, and the end of the name. Files are few.
fn part_of(store: &Store, inode: u64) -> Part {
    let Ok(images) = store.find("images") else {
        return Part::State;
    };
    let entries = store.entries(images).ok();
    let found = entries.and_then(|it| it.iter().find(|(_, number)| **number == inode));
    match found {
        Some((name, _)) if name.to_string_lossy().ends_with(".meta") => Part::Metadata,
        Some(_) => Part::Image,
        None if inode == images => Part::Image,
        None => Part::State,
    }
}

fn errno(error: StoreError) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn attributes(inode: u64, facts: Facts) -> FileAttr {
    let time = SystemTime::now();
    FileAttr {
        ino: INodeNo(inode),
        size: facts.len,
        blocks: facts.len.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: UNIX_EPOCH,
        kind: kind(facts),
        perm: u16::try_from(facts.mode & 0o7777).unwrap_or(0o600),
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

const fn kind(facts: Facts) -> FileType {
    if facts.directory {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

fn entry(reply: ReplyEntry, made: Result<(u64, Facts), StoreError>) {
    match made {
        Ok((inode, facts)) => reply.entry(&NEVER, &attributes(inode, facts), Generation(0)),
        Err(error) => reply.error(errno(error)),
    }
}

fn empty(reply: ReplyEmpty, done: Result<(), StoreError>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

impl Filesystem for Mount {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What an old kernel lacks is done without.
        let _capabilities = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _max_write = config.set_max_write(MAX_WRITE);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.look(|store| {
            let inode = store.lookup(parent.0, name)?;
            Ok((inode, store.facts(inode)?))
        });
        match found {
            Ok((inode, facts)) => reply.entry(&NEVER, &attributes(inode, facts), Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.look(|store| store.facts(inode.0)) {
            Ok(facts) => reply.attr(&NEVER, &attributes(inode.0, facts)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.gate(inode, Operation::Write, move |store| {
            let done = store.and_then(|store| {
                if let Some(mode) = mode {
                    store.set_mode(inode.0, mode)?;
                }
                if let Some(size) = size {
                    store.set_len(inode.0, size)?;
                }
                store.facts(inode.0)
            });
            match done {
                Ok(facts) => reply.attr(&NEVER, &attributes(inode.0, facts)),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let name = name.to_owned();
        self.gate(parent, Operation::Write, move |store| {
            let made = store.and_then(|store| made(store, parent, &name, mode & !umask, true));
            entry(reply, made);
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.gate(parent, Operation::Write, move |store| {
            empty(reply, store.and_then(|store| store.remove(parent.0, &name)));
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unlink(request, parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        self.gate(parent, Operation::Write, move |store| {
            let (from, to) = (
                (parent.0, name.as_os_str()),
                (new_parent.0, new_name.as_os_str()),
            );
            empty(reply, store.and_then(|store| store.rename(from, to)));
        });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), DIRECT);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let name = name.to_owned();
        self.gate(parent, Operation::Write, move |store| {
            match store.and_then(|store| made(store, parent, &name, mode & !umask, false)) {
                Ok((inode, facts)) => {
                    let attributes = attributes(inode, facts);
                    reply.created(&NEVER, &attributes, Generation(0), FileHandle(0), DIRECT);
                }
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.gate(inode, Operation::Read, move |store| {
            match store.and_then(|store| store.read(inode.0, offset, u64::from(size))) {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let bytes = data.to_vec();
        // The kernel adds this to the flags of the file for a write that is to be durable.
        let durable = OFlags::from_bits_retain(flags.0.cast_unsigned()).intersects(OFlags::DSYNC);
        self.gate(inode, Operation::Write, move |store| {
            match store.and_then(|store| store.write(inode.0, offset, &bytes, durable)) {
                Ok(()) => reply.written(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The end of a descriptor, not a flush of the disk.
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.gate(inode, Operation::Flush, move |store| {
            let done = store.and_then(|store| store.flush(inode.0));
            empty(reply, if done == Err(IGNORED) { Ok(()) } else { done });
        });
    }

    fn fsyncdir(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        data: bool,
        reply: ReplyEmpty,
    ) {
        self.fsync(request, inode, handle, data, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.look(|store| {
            let directory = |number, name: &str| (number, FileType::Directory, name.into());
            let mut list = vec![directory(inode.0, "."), directory(ROOT, "..")];
            for (name, number) in store.entries(inode.0)? {
                list.push((*number, kind(store.facts(*number)?), name.clone()));
            }
            Ok(list)
        });
        let list = match listed {
            Ok(list) => list,
            Err(error) => return reply.error(error),
        };
        let seen = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (number, kind, name)) in (1..).zip(list).skip(seen) {
            if reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // Room for anything: that a disk is full is a fault of its own.
        let blocks = 1 << 28;
        reply.statfs(blocks, blocks, blocks, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let zeroes = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !(FallocateFlags::KEEP_SIZE | zeroes).contains(mode) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let zero = mode.intersects(zeroes);
        let keep = mode.contains(FallocateFlags::KEEP_SIZE);
        self.gate(inode, Operation::Write, move |store| {
            let done = store.and_then(|store| store.allocate(inode.0, offset, length, zero, keep));
            empty(reply, done);
        });
    }
}

fn made(
    store: &mut Store,
    parent: INodeNo,
    name: &OsStr,
    mode: u32,
    directory: bool,
) -> Result<(u64, Facts), StoreError> {
    let inode = store.make(parent.0, name, mode, directory)?;
    Ok((inode, store.facts(inode)?))
}
