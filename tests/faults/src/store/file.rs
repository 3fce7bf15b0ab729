//! One file: what is flushed lies in a backing file; what is not is kept aside, by sector, with
//! every version that a disk might still have.

use super::SECTOR;
use crate::random::Random;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Versions of a sector that are remembered since the last flush; the middle ones go first, for
/// the oldest and the newest are the interesting ones.
const VERSIONS: usize = 4;

type Sector = [u8; SECTOR];

/// See the module.
#[derive(Debug)]
pub(super) struct Data {
    backing: File,
    /// Length as it would be after a power cut, and as it is now.
    durable_len: u64,
    len: u64,
    /// Oldest first.
    unflushed: BTreeMap<u64, Vec<Sector>>,
}

/// What a power cut did to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Torn {
    /// Sectors that were not flushed.
    pub unflushed: u64,
    /// Sectors of them that lost their newest version.
    pub lost: u64,
}

impl Data {
    pub(super) const fn new(backing: File) -> Self {
        Self {
            backing,
            durable_len: 0,
            len: 0,
            unflushed: BTreeMap::new(),
        }
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The newest version; short at the end of the file.
    pub(super) fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let end = (offset + len).min(self.len);
        let mut bytes = vec![0; to_usize(end.saturating_sub(offset))];
        if bytes.is_empty() {
            return Ok(bytes);
        }
        self.read_backing(&mut bytes, offset)?;
        let sectors = offset / SECTOR as u64..end.div_ceil(SECTOR as u64);
        for (number, versions) in self.unflushed.range(sectors) {
            let newest = versions.last().expect("no entry is empty");
            let start = number * SECTOR as u64;
            let (from, to) = (start.max(offset), (start + SECTOR as u64).min(end));
            bytes[to_usize(from - offset)..to_usize(to - offset)]
                .copy_from_slice(&newest[to_usize(from - start)..to_usize(to - start)]);
        }
        Ok(bytes)
    }

    fn read_backing(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.backing.read_at(bytes, offset)? {
                0 => break,
                count => {
                    bytes = &mut bytes[count..];
                    offset += count as u64;
                }
            }
        }
        Ok(())
    }

    /// Writes; durable only after [`Self::flush`].
    pub(super) fn write(
        &mut self,
        offset: u64,
        bytes: &[u8],
        random: &mut Random,
    ) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let number = at / SECTOR as u64;
            let start = number * SECTOR as u64;
            let to = (start + SECTOR as u64).min(end);
            let mut sector = [0; SECTOR];
            if to - at < SECTOR as u64 {
                let old = self.read(start, SECTOR as u64)?;
                sector[..old.len()].copy_from_slice(&old);
            }
            sector[to_usize(at - start)..to_usize(to - start)]
                .copy_from_slice(&bytes[to_usize(at - offset)..to_usize(to - offset)]);
            let versions = self.unflushed.entry(number).or_default();
            if versions.len() == VERSIONS {
                versions.remove(1 + random.index(VERSIONS - 1));
            }
            versions.push(sector);
            at = to;
        }
        self.len = self.len.max(end);
        Ok(())
    }

    /// As a write of zeroes, but the file does not grow if `keep_size`.
    pub(super) fn zero(
        &mut self,
        offset: u64,
        len: u64,
        keep_size: bool,
        random: &mut Random,
    ) -> io::Result<()> {
        let end = if keep_size {
            (offset + len).min(self.len)
        } else {
            offset + len
        };
        if end > offset {
            self.write(offset, &vec![0; to_usize(end - offset)], random)?;
        }
        Ok(())
    }

    /// Reserves space: only the length changes.
    pub(super) fn extend(&mut self, end: u64) {
        self.len = self.len.max(end);
    }

    pub(super) fn set_len(&mut self, len: u64, random: &mut Random) -> io::Result<()> {
        if len < self.len {
            // What is beyond the end must read as zeroes if the file grows again.
            let old = self.len;
            self.zero(len, old - len, true, random)?;
        }
        self.len = len;
        Ok(())
    }

    /// Everything is durable from now on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let all = 0..u64::MAX;
        self.flush_sectors(all)?;
        self.backing.set_len(self.len)?;
        self.durable_len = self.len;
        Ok(())
    }

    /// A write with O_DSYNC: its own range is durable, and the length that it needs.
    pub(super) fn flush_range(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset + len;
        self.flush_sectors(offset / SECTOR as u64..end.div_ceil(SECTOR as u64))?;
        self.durable_len = self.durable_len.max(end.min(self.len));
        Ok(())
    }

    fn flush_sectors(&mut self, sectors: std::ops::Range<u64>) -> io::Result<()> {
        let flushed: Vec<u64> = self
            .unflushed
            .range(sectors)
            .map(|(number, _)| *number)
            .collect();
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for number in flushed {
            let versions = self.unflushed.remove(&number).expect("it was just there");
            if !run.is_empty() && start + run.len() as u64 != number * SECTOR as u64 {
                self.backing.write_all_at(&run, start)?;
                run.clear();
            }
            if run.is_empty() {
                start = number * SECTOR as u64;
            }
            run.extend_from_slice(versions.last().expect("no entry is empty").as_slice());
        }
        if !run.is_empty() {
            self.backing.write_all_at(&run, start)?;
        }
        Ok(())
    }

    /// The power is cut: of every sector any version since the last flush is what is left.
    pub(super) fn cut(&mut self, random: &mut Random) -> io::Result<Torn> {
        let mut torn = Torn::default();
        // Some cuts lose everything, some nothing, most a part.
        let survives = [0, 10, 50, 90, 100][random.index(5)];
        for versions in self.unflushed.values_mut() {
            torn.unflushed += 1;
            if random.percent(survives) {
                continue;
            }
            torn.lost += 1;
            // One of the older versions, or what was flushed: then there is none.
            let older = random.index(versions.len());
            versions.truncate(older);
        }
        self.unflushed.retain(|_, versions| !versions.is_empty());
        let longest = self.len;
        self.flush_sectors(0..u64::MAX)?;
        if longest != self.durable_len && random.percent(50) {
            self.durable_len = longest;
        }
        self.len = self.durable_len;
        self.backing.set_len(self.len)?;
        Ok(torn)
    }
}

pub(super) fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("64 bits")
}
