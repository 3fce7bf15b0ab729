//! A pretend file on a pretend disk. What is written and not yet flushed is kept aside, version by
//! version and sector by sector: a power cut keeps any version of each sector since the last flush.

use crate::prng::Prng;
use std::collections::{BTreeMap, BTreeSet};

/// What the disk writes as a whole or not at all.
pub const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// A file: what readers see, and what would be left of it after a power cut.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pages: Vec<Option<Box<[u8; PAGE]>>>,
    /// Of each sector with unflushed contents: the durable version, then the later ones.
    versions: BTreeMap<usize, Vec<(u64, [u8; SECTOR])>>,
    /// Counts writes; names points in time for [`Disk::flushed`].
    written: u64,
    /// Pages that changed since they were last asked for.
    changed: BTreeSet<usize>,
}

impl Disk {
    /// An empty file; what was never written reads as zeroes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies the contents at `offset` into `bytes`.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        for (page, at, range) in pieces(offset, bytes.len(), PAGE) {
            match self.pages.get(page) {
                Some(Some(page)) => {
                    bytes[range.clone()].copy_from_slice(&page[at..at + range.len()])
                }
                _ => bytes[range].fill(0),
            }
        }
    }

    /// As `read`, but what would be left of it in the worst case: the durable version.
    pub fn read_durable(&self, offset: u64, bytes: &mut [u8]) {
        self.read(offset, bytes);
        let first = number(offset) / SECTOR;
        for (sector, versions) in self
            .versions
            .range(first..(number(offset) + bytes.len()).div_ceil(SECTOR))
        {
            let at = sector * SECTOR - number(offset);
            bytes[at..at + SECTOR].copy_from_slice(&versions[0].1);
        }
    }

    /// Writes, so that every reader sees it; not durable yet.
    ///
    /// # Panics
    /// If offset or length is not a multiple of the sector.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.write_some(offset, bytes, |_| true);
    }

    /// As `write`, but only the sectors (counted from `offset`) that `which` names: what a write
    /// in progress has done so far.
    ///
    /// # Panics
    /// If offset or length is not a multiple of the sector.
    pub fn write_some(&mut self, offset: u64, bytes: &[u8], mut which: impl FnMut(usize) -> bool) {
        let first = number(offset);
        assert!(
            first.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR),
            "writes are whole sectors"
        );
        self.written += 1;
        for (index, contents) in bytes.as_chunks::<SECTOR>().0.iter().enumerate() {
            if which(index) {
                let sector = first / SECTOR + index;
                let before = self.sector(sector);
                let versions = self
                    .versions
                    .entry(sector)
                    .or_insert_with(|| vec![(0, before)]);
                versions.push((self.written, *contents));
                self.put(sector, contents);
            }
        }
    }

    /// The sector at `offset` holds something else than what was written there.
    pub fn put_silently(&mut self, offset: u64, contents: &[u8; SECTOR]) {
        let sector = number(offset) / SECTOR;
        self.versions.remove(&sector);
        self.put(sector, contents);
    }

    /// A point in time: everything written until now.
    #[must_use]
    pub const fn point(&self) -> u64 {
        self.written
    }

    /// A flush that began at `point` has ended: what was written until then is durable.
    pub fn flushed(&mut self, point: u64) {
        self.versions
            .retain(|_, versions| forget_before(versions, point));
    }

    /// The sectors of this range as they are now are durable (a write with FUA has ended).
    pub fn persist(&mut self, offset: u64, len: usize) {
        let first = number(offset) / SECTOR;
        let sectors: Vec<usize> = self
            .versions
            .range(first..first + len.div_ceil(SECTOR))
            .map(|(sector, _)| *sector)
            .collect();
        for sector in sectors {
            self.versions.remove(&sector);
        }
    }

    /// The power goes: of each unflushed sector some version remains.
    pub fn power_cut(&mut self, prng: &mut Prng) {
        for (sector, versions) in core::mem::take(&mut self.versions) {
            let (_, contents) = prng.pick(&versions);
            self.put(sector, contents);
        }
    }

    /// The file is replaced by an empty one.
    pub fn replace(&mut self) {
        *self = Self::default();
    }

    /// What is durable.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let mut copy = Self {
            pages: self.pages.clone(),
            ..Self::default()
        };
        for (sector, versions) in &self.versions {
            copy.put(*sector, &versions[0].1);
        }
        copy
    }

    /// The file is what it was then.
    pub fn put_back(&mut self, before: Self) {
        let pages = self.pages.len().max(before.pages.len());
        *self = Self {
            changed: (0..pages).collect(),
            written: self.written,
            ..before
        };
    }

    /// Sectors with contents that a power cut might take.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.versions.len()
    }

    /// Pages (4 KiB) that changed since this was last called.
    pub fn take_changed(&mut self) -> BTreeSet<usize> {
        core::mem::take(&mut self.changed)
    }

    /// Sectors of these pages that differ from the other file's.
    pub fn differences_in<'a>(
        &'a self,
        other: &'a Self,
        pages: &'a BTreeSet<usize>,
    ) -> impl Iterator<Item = u64> + 'a {
        pages
            .iter()
            .filter(|page| self.page(**page) != other.page(**page))
            .flat_map(|page| page * (PAGE / SECTOR)..(page + 1) * (PAGE / SECTOR))
            .filter(|sector| self.sector(*sector) != other.sector(*sector))
            .map(|sector| u64::try_from(sector).expect("usize has at most 64 bits"))
    }

    /// The first sector, below `size` bytes, that differs from the other file's.
    #[must_use]
    pub fn first_difference(&self, other: &Self, size: u64) -> Option<u64> {
        let end = number(size).div_ceil(PAGE);
        let pages = self.present().chain(other.present());
        let pages = pages.filter(|page| *page < end).collect();
        self.differences_in(other, &pages).next()
    }

    /// Pages that were ever written; all others read as zeroes.
    fn present(&self) -> impl Iterator<Item = usize> {
        let pages = self.pages.iter().enumerate();
        pages.filter_map(|(page, contents)| contents.is_some().then_some(page))
    }

    /// Whether anything was ever written to these sectors.
    #[must_use]
    pub fn was_written(&self, sectors: &core::ops::Range<u64>) -> bool {
        let first = number(sectors.start) * SECTOR / PAGE;
        let end = (number(sectors.end) * SECTOR).div_ceil(PAGE);
        let pages = self.pages.get(first..end.min(self.pages.len()));
        pages.is_some_and(|pages| pages.iter().any(Option::is_some))
    }

    fn page(&self, page: usize) -> &[u8; PAGE] {
        match self.pages.get(page) {
            Some(Some(page)) => page,
            _ => &[0; PAGE],
        }
    }

    fn sector(&self, sector: usize) -> [u8; SECTOR] {
        let at = sector * SECTOR % PAGE;
        self.page(sector * SECTOR / PAGE)[at..at + SECTOR]
            .try_into()
            .expect("one sector")
    }

    fn put(&mut self, sector: usize, contents: &[u8; SECTOR]) {
        let page = sector * SECTOR / PAGE;
        let at = sector * SECTOR % PAGE;
        if self.pages.len() <= page {
            self.pages.resize(page + 1, None);
        }
        self.changed.insert(page);
        let page = self.pages[page].get_or_insert_with(|| Box::new([0; PAGE]));
        page[at..at + SECTOR].copy_from_slice(contents);
    }
}

/// Drops what the version at `point` has made obsolete; false if one version is left.
fn forget_before(versions: &mut Vec<(u64, [u8; SECTOR])>, point: u64) -> bool {
    let durable = versions
        .iter()
        .rposition(|(written, _)| *written <= point)
        .unwrap_or(0);
    versions.drain(..durable);
    versions.len() > 1
}

/// Cuts a range at multiples of `unit`: index of the unit, offset in it, range of the buffer.
fn pieces(
    offset: u64,
    len: usize,
    unit: usize,
) -> impl Iterator<Item = (usize, usize, core::ops::Range<usize>)> {
    let start = number(offset);
    let mut done = 0;
    core::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = (start + done) % unit;
        let take = (unit - at).min(len - done);
        let piece = ((start + done) / unit, at, done..done + take);
        done += take;
        Some(piece)
    })
}

fn number(offset: u64) -> usize {
    usize::try_from(offset).expect("pretend disks are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(fill: u8) -> [u8; SECTOR] {
        [fill; SECTOR]
    }

    fn first_byte(disk: &Disk, offset: u64) -> u8 {
        let mut byte = [0];
        disk.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn what_is_flushed_survives_a_power_cut() {
        for seed in 0..50 {
            let mut disk = Disk::new();
            disk.write(4096, &sector(1));
            disk.flushed(disk.point());
            disk.power_cut(&mut Prng::new(seed));
            assert_eq!(first_byte(&disk, 4096), 1);
        }
    }

    #[test]
    fn what_is_not_flushed_may_be_lost_or_old_or_new() {
        let mut seen = [false; 3];
        for seed in 0..50 {
            let mut disk = Disk::new();
            disk.write(0, &sector(1));
            disk.write(0, &sector(2));
            disk.power_cut(&mut Prng::new(seed));
            seen[usize::from(first_byte(&disk, 0))] = true;
        }
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn a_write_after_the_flush_began_is_not_covered_by_it() {
        let mut lost = false;
        for seed in 0..50 {
            let mut disk = Disk::new();
            disk.write(0, &sector(1));
            let point = disk.point();
            disk.write(0, &sector(2));
            disk.flushed(point);
            disk.power_cut(&mut Prng::new(seed));
            assert_ne!(first_byte(&disk, 0), 0, "the first write was flushed");
            lost |= first_byte(&disk, 0) == 1;
        }
        assert!(lost);
    }

    #[test]
    fn two_files_differ_where_their_sectors_differ() {
        let (mut one, mut two) = (Disk::new(), Disk::new());
        one.write(0, &sector(1));
        two.write(0, &sector(1));
        two.write(3 * 512, &sector(0));
        assert_eq!(
            one.first_difference(&two, 1 << 20),
            None,
            "zeroes are as good as nothing"
        );
        two.write(9 * 512, &sector(3));
        assert_eq!(one.first_difference(&two, 1 << 20), Some(9));
    }

    #[test]
    fn a_durable_write_keeps_only_its_own_sectors() {
        let mut disk = Disk::new();
        disk.write(0, &sector(1));
        disk.write(512, &sector(1));
        disk.persist(0, 512);
        assert_eq!(disk.unflushed(), 1);
        let mut bytes = [0; 1024];
        disk.read(256, &mut bytes[..512]);
        assert!(
            bytes[..512].iter().all(|byte| *byte == 1),
            "a read may begin anywhere"
        );
    }
}
