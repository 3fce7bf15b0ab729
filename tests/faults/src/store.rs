//! A small file system that knows what is flushed: directories of files whose unflushed sectors
//! are kept aside, and a journal of unflushed names. A power cut drops or tears what is aside.
//!
//! It is stricter than most file systems: a flush of a file does not make its name durable, that
//! of a directory does. Like them it keeps names in order: a cut loses the newest ones only.

mod file;

#[cfg(test)]
mod tests;

use crate::random::Random;
pub use file::Torn;
use file::{Data, to_usize};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// Bytes that a disk writes whole or not at all.
pub const SECTOR: usize = 512;
/// The inode of the root directory.
pub const ROOT: u64 = 1;

/// What is behind an inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// A directory, not a file.
    pub directory: bool,
    /// Bytes.
    pub len: u64,
    /// Permission bits.
    pub mode: u32,
}

#[derive(Debug)]
enum Kind {
    Directory(BTreeMap<OsString, u64>),
    File(Data),
}

#[derive(Debug)]
struct Inode {
    kind: Kind,
    mode: u32,
}

/// A change of a name that is not durable: who was there before.
#[derive(Debug)]
struct Change {
    directory: u64,
    name: OsString,
    before: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    /// Changes that belong together (a rename is two) are one entry.
    journal: Vec<Vec<Change>>,
    backing: PathBuf,
    random: Random,
}

impl Store {
    /// An empty one, which keeps what is flushed in files of this directory.
    #[must_use]
    pub fn new(backing: PathBuf, random: Random) -> Self {
        let root = Inode {
            kind: Kind::Directory(BTreeMap::new()),
            mode: 0o755,
        };
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            journal: Vec::new(),
            backing,
            random,
        }
    }

    /// The inode of a name.
    ///
    /// # Errors
    /// No such directory or name.
    pub fn lookup(&self, directory: u64, name: &OsStr) -> Result<u64, Errno> {
        self.entries(directory)?
            .get(name)
            .copied()
            .ok_or(Errno::NOENT)
    }

    /// What an inode is.
    ///
    /// # Errors
    /// It is gone.
    pub fn facts(&self, inode: u64) -> Result<Facts, Errno> {
        let found = self.inodes.get(&inode).ok_or(Errno::NOENT)?;
        let (directory, len) = match &found.kind {
            Kind::Directory(_) => (true, 0),
            Kind::File(data) => (false, data.len()),
        };
        Ok(Facts {
            directory,
            len,
            mode: found.mode,
        })
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// No such directory.
    pub fn entries(&self, directory: u64) -> Result<&BTreeMap<OsString, u64>, Errno> {
        match self.inodes.get(&directory).map(|it| &it.kind) {
            Some(Kind::Directory(entries)) => Ok(entries),
            Some(Kind::File(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    /// The inode at a path below the root, such as `images/disk.img`.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn find(&self, path: &str) -> Result<u64, Errno> {
        path.split('/').try_fold(ROOT, |directory, name| {
            self.lookup(directory, name.as_ref())
        })
    }

    /// A new file or directory.
    ///
    /// # Errors
    /// The name is taken, or the backing directory fails.
    pub fn make(
        &mut self,
        directory: u64,
        name: &OsStr,
        mode: u32,
        is_directory: bool,
    ) -> Result<u64, Errno> {
        if self.entries(directory)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let inode = self.next;
        let kind = if is_directory {
            Kind::Directory(BTreeMap::new())
        } else {
            let path = self
                .backing
                .join(format!("{inode}-{}", name.to_string_lossy()));
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            Kind::File(Data::new(options.open(path).map_err(errno)?))
        };
        self.next += 1;
        self.inodes.insert(inode, Inode { kind, mode });
        let change = self.point(directory, name, Some(inode))?;
        self.journal.push(vec![change]);
        Ok(inode)
    }

    /// Takes a name away. What it named is kept for whoever has it open.
    ///
    /// # Errors
    /// No such name, or a directory that is not empty.
    pub fn remove(&mut self, directory: u64, name: &OsStr) -> Result<(), Errno> {
        let inode = self.lookup(directory, name)?;
        if self.entries(inode).is_ok_and(|entries| !entries.is_empty()) {
            return Err(Errno::NOTEMPTY);
        }
        let change = self.point(directory, name, None)?;
        self.journal.push(vec![change]);
        Ok(())
    }

    /// Gives something another name, and takes the place of what was there.
    ///
    /// # Errors
    /// No such name.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        let inode = self.lookup(from.0, from.1)?;
        self.entries(to.0)?;
        let gone = self.point(from.0, from.1, None)?;
        let there = self.point(to.0, to.1, Some(inode))?;
        self.journal.push(vec![gone, there]);
        Ok(())
    }

    fn point(&mut self, directory: u64, name: &OsStr, inode: Option<u64>) -> Result<Change, Errno> {
        let Some(Kind::Directory(entries)) = self.inodes.get_mut(&directory).map(|it| &mut it.kind)
        else {
            return Err(Errno::NOTDIR);
        };
        let before = match inode {
            Some(inode) => entries.insert(name.into(), inode),
            None => entries.remove(name),
        };
        Ok(Change {
            directory,
            name: name.into(),
            before,
        })
    }

    /// Permission bits.
    ///
    /// # Errors
    /// It is gone.
    pub fn set_mode(&mut self, inode: u64, mode: u32) -> Result<(), Errno> {
        self.inodes.get_mut(&inode).ok_or(Errno::NOENT)?.mode = mode;
        Ok(())
    }

    /// Reads; short at the end of the file.
    ///
    /// # Errors
    /// Not a file, or the backing file fails.
    pub fn read(&self, inode: u64, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        match self.inodes.get(&inode).map(|it| &it.kind) {
            Some(Kind::File(data)) => data.read(offset, len).map_err(errno),
            Some(Kind::Directory(_)) => Err(Errno::ISDIR),
            None => Err(Errno::NOENT),
        }
    }

    /// Writes; `durable`: as with O_DSYNC.
    ///
    /// # Errors
    /// Not a file, or the backing file fails.
    pub fn write(
        &mut self,
        inode: u64,
        offset: u64,
        bytes: &[u8],
        durable: bool,
    ) -> Result<(), Errno> {
        let (data, random) = self.data(inode)?;
        data.write(offset, bytes, random).map_err(errno)?;
        if durable {
            data.flush_range(offset, bytes.len() as u64)
                .map_err(errno)?;
        }
        Ok(())
    }

    /// `fallocate`: reserves a range, or makes zeroes of it.
    ///
    /// # Errors
    /// Not a file, or the backing file fails.
    pub fn allocate(
        &mut self,
        inode: u64,
        offset: u64,
        len: u64,
        zero: bool,
        keep_size: bool,
    ) -> Result<(), Errno> {
        let (data, random) = self.data(inode)?;
        if zero {
            data.zero(offset, len, keep_size, random).map_err(errno)?;
        } else if !keep_size {
            data.extend(offset + len);
        }
        Ok(())
    }

    /// Cuts or lengthens a file.
    ///
    /// # Errors
    /// Not a file, or the backing file fails.
    pub fn set_len(&mut self, inode: u64, len: u64) -> Result<(), Errno> {
        let (data, random) = self.data(inode)?;
        data.set_len(len, random).map_err(errno)
    }

    /// `fsync` of a file, or of a directory: then all names are durable.
    ///
    /// # Errors
    /// It is gone, or the backing file fails.
    pub fn flush(&mut self, inode: u64) -> Result<(), Errno> {
        match self.inodes.get_mut(&inode).map(|it| &mut it.kind) {
            Some(Kind::File(data)) => data.flush().map_err(errno),
            Some(Kind::Directory(_)) => {
                self.journal.clear();
                Ok(())
            }
            None => Err(Errno::NOENT),
        }
    }

    /// The power is cut: what was not flushed is lost or torn.
    ///
    /// # Errors
    /// The backing directory fails.
    pub fn cut_power(&mut self) -> io::Result<Torn> {
        let kept = self.random.index(self.journal.len() + 1);
        for change in self
            .journal
            .drain(kept..)
            .rev()
            .flat_map(|it| it.into_iter().rev())
        {
            if let Some(Kind::Directory(entries)) = self
                .inodes
                .get_mut(&change.directory)
                .map(|it| &mut it.kind)
            {
                match change.before {
                    Some(inode) => entries.insert(change.name, inode),
                    None => entries.remove(&change.name),
                };
            }
        }
        self.journal.clear();
        let mut all = Torn::default();
        for inode in self.inodes.values_mut() {
            if let Kind::File(data) = &mut inode.kind {
                let torn = data.cut(&mut self.random)?;
                all.unflushed += torn.unflushed;
                all.lost += torn.lost;
            }
        }
        Ok(all)
    }

    fn data(&mut self, inode: u64) -> Result<(&mut Data, &mut Random), Errno> {
        match self.inodes.get_mut(&inode).map(|it| &mut it.kind) {
            Some(Kind::File(data)) => Ok((data, &mut self.random)),
            Some(Kind::Directory(_)) => Err(Errno::ISDIR),
            None => Err(Errno::NOENT),
        }
    }

    /// The whole of a file as it is now.
    ///
    /// # Errors
    /// Nothing is there, or the backing file fails.
    pub fn contents(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let inode = self.find(path)?;
        let bytes = self.read(inode, 0, u64::MAX / 2)?;
        debug_assert_eq!(bytes.len(), to_usize(self.facts(inode)?.len));
        Ok(bytes)
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
