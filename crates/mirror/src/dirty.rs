//! Dirty bits: one for each 64 KiB that the partner may lack, in pages that are written only
//! when somebody must rely on them. This file knows the bits and their encoding.

use crate::control::VolumeId;
use crate::metadata_layout::{
    CHUNK, CHUNKS_PER_PAGE, DIRTY_PAGE, REGION, dirty_offset, dirty_pages,
};
use crate::operation::Extent;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Most pages in one write: 64 KiB.
const MAX_RUN: u64 = 16;
/// Bytes of bits in a page.
const BITS_LEN: usize = 4080;
/// Bytes that the CRC covers.
const COVERED: usize = 4092;

/// The dirty bits of one volume.
///
/// A chunk is *marked* when it must be copied, and *lent* while a mirrored write of it is not
/// yet acknowledged: on disk both are dirty.
#[derive(Debug)]
pub struct Dirty {
    volume: VolumeId,
    size: u64,
    words: Vec<u64>,
    marked: u64,
    lent: BTreeMap<u64, u32>,
    /// Pages whose bits on disk lack or exceed those in memory.
    changed: BTreeSet<u64>,
    /// Pages that shall be written now.
    wanted: BTreeSet<u64>,
    writing: Option<Range<u64>>,
    generation: u64,
}

impl Dirty {
    /// Nothing dirty.
    #[must_use]
    pub fn new(volume: VolumeId, size: u64) -> Self {
        let words = usize::try_from(size.div_ceil(CHUNK).div_ceil(64))
            .expect("a volume's dirty bits fit in memory");
        Self {
            volume,
            size,
            words: vec![0; words],
            marked: 0,
            lent: BTreeMap::new(),
            changed: BTreeSet::new(),
            wanted: BTreeSet::new(),
            writing: None,
            generation: 0,
        }
    }

    /// The chunks that an extent touches.
    #[must_use]
    pub fn chunks(extent: Extent) -> Range<u64> {
        extent.offset / CHUNK..extent.end().div_ceil(CHUNK)
    }

    /// The bytes of some chunks; the last one of a volume may be short.
    #[must_use]
    pub fn extent(&self, chunks: &Range<u64>) -> Extent {
        let offset = chunks.start * CHUNK;
        Extent {
            offset,
            len: (chunks.end * CHUNK).min(self.size) - offset,
        }
    }

    fn place(chunk: u64) -> (usize, u64) {
        (
            usize::try_from(chunk / 64).expect("checked against the volume's size"),
            1 << (chunk % 64),
        )
    }

    /// Whether a chunk is marked.
    #[must_use]
    pub fn is_marked(&self, chunk: u64) -> bool {
        let (word, bit) = Self::place(chunk);
        self.words[word] & bit != 0
    }

    fn set(&mut self, chunk: u64, dirty: bool) {
        if self.is_marked(chunk) == dirty {
            return;
        }
        let (word, bit) = Self::place(chunk);
        self.words[word] ^= bit;
        self.marked = if dirty {
            self.marked + 1
        } else {
            self.marked - 1
        };
        self.changed.insert(chunk / CHUNKS_PER_PAGE);
    }

    /// Marks every chunk that `extent` touches.
    pub fn mark(&mut self, extent: Extent) {
        for chunk in Self::chunks(extent) {
            self.set(chunk, true);
        }
    }

    /// Marks a whole region.
    pub fn mark_region(&mut self, region: u64) {
        let offset = region * REGION;
        self.mark(Extent {
            offset,
            len: REGION.min(self.size - offset),
        });
    }

    /// The target holds these chunks.
    pub fn clear(&mut self, chunks: Range<u64>) {
        for chunk in chunks {
            self.set(chunk, false);
        }
    }

    /// Nothing is dirty any more.
    pub fn clear_all(&mut self) {
        let chunks = 0..self.size.div_ceil(CHUNK);
        assert!(
            self.lent.is_empty(),
            "a join waits for every mirrored write"
        );
        self.clear(chunks);
    }

    /// A mirrored write of unmarked chunks begins: they are dirty until it is acknowledged.
    pub fn lend(&mut self, extent: Extent) {
        for chunk in Self::chunks(extent) {
            *self.lent.entry(chunk).or_insert(0) += 1;
            self.changed.insert(chunk / CHUNKS_PER_PAGE);
        }
    }

    /// A mirrored write was acknowledged as durable.
    pub fn repay(&mut self, extent: Extent) {
        for chunk in Self::chunks(extent) {
            let count = self
                .lent
                .get_mut(&chunk)
                .expect("lent when the write began");
            *count -= 1;
            if *count == 0 {
                self.lent.remove(&chunk);
            }
            self.changed.insert(chunk / CHUNKS_PER_PAGE);
        }
    }

    /// Bytes marked.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.marked * CHUNK
    }

    /// The next run of marked chunks at or after `from`, at most `most` long.
    #[must_use]
    pub fn next_run(&self, from: u64, most: u64) -> Option<Range<u64>> {
        let (mut word, _) = Self::place(from);
        let mut bits = self.words.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.words.get(word)?;
        }
        let start = word as u64 * 64 + u64::from(bits.trailing_zeros());
        let end = (start..self.size.div_ceil(CHUNK))
            .take_while(|chunk| self.is_marked(*chunk))
            .take(usize::try_from(most).unwrap_or(usize::MAX))
            .count();
        Some(start..start + end as u64)
    }

    /// Writes every page that changed.
    pub fn want_all(&mut self) {
        self.wanted.append(&mut self.changed.clone());
    }

    /// Writes the pages of a region that changed.
    pub fn want_region(&mut self, region: u64) {
        let first = region * (REGION / CHUNK);
        let pages = first / CHUNKS_PER_PAGE..=(first + REGION / CHUNK - 1) / CHUNKS_PER_PAGE;
        for page in pages {
            if self.changed.contains(&page) {
                self.wanted.insert(page);
            }
        }
    }

    /// Whether nothing that was wanted is still to be written.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.wanted.is_empty() && self.writing.is_none()
    }

    /// The next write of metadata, if one is wanted and none is under way.
    pub fn write(&mut self) -> Option<(u64, Box<[u8]>)> {
        if self.writing.is_some() {
            return None;
        }
        let first = *self.wanted.first()?;
        let run = first
            ..first
                + (first..first + MAX_RUN)
                    .take_while(|page| self.wanted.contains(page))
                    .count() as u64;
        self.generation += 1;
        let mut bytes = Vec::new();
        for page in run.clone() {
            self.wanted.remove(&page);
            self.changed.remove(&page);
            bytes.extend_from_slice(&self.encode(page));
        }
        self.writing = Some(run);
        Some((
            dirty_offset(self.size) + first * DIRTY_PAGE,
            bytes.into_boxed_slice(),
        ))
    }

    /// The write is durable.
    pub fn written(&mut self) {
        self.writing.take().expect("only a write under way can end");
    }

    /// One byte of bits of `page`, most significant first, lent ones included.
    fn encode(&self, page: u64) -> Vec<u8> {
        let mut bytes = self.bits(page * CHUNKS_PER_PAGE..(page + 1) * CHUNKS_PER_PAGE);
        bytes.resize(BITS_LEN, 0);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let crc = page_crc(self.volume, page, &bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The bits of some chunks, most significant first, lent ones included; chunks past the end
    /// of the volume are left out or 0. `chunks.start` is a multiple of 8.
    #[must_use]
    pub fn bits(&self, chunks: Range<u64>) -> Vec<u8> {
        let end = chunks.end.min(self.size.div_ceil(CHUNK));
        let mut bytes = Vec::new();
        for first in (chunks.start..end).step_by(8) {
            let (word, _) = Self::place(first);
            bytes.push((self.words[word] >> (first % 64)).to_le_bytes()[0].reverse_bits());
        }
        for chunk in self
            .lent
            .range(chunks.start..end.max(chunks.start))
            .map(|(chunk, _)| chunk - chunks.start)
        {
            let at = usize::try_from(chunk / 8).expect("within the bytes just made");
            bytes[at] |= 0x80 >> (chunk % 8);
        }
        bytes
    }

    /// Marks what is set in bits made by [`Self::bits`], from chunk `first` on.
    pub fn merge(&mut self, first: u64, bits: &[u8]) {
        let chunks = self.size.div_ceil(CHUNK);
        for (at, byte) in (first..).step_by(8).zip(bits) {
            for bit in 0..8 {
                if byte & (0x80 >> bit) != 0 && at + bit < chunks {
                    self.set(at + bit, true);
                }
            }
        }
    }

    /// Takes in what the disk holds of the pages from `first` on. A page whose CRC is wrong marks
    /// all of its chunks. Gives how many those were.
    pub fn load(&mut self, first: u64, bytes: &[u8]) -> u32 {
        let mut damaged = 0;
        for (page, content) in (first..dirty_pages(self.size)).zip(bytes.chunks_exact(4096)) {
            let (covered, crc) = content.split_at(COVERED);
            let good = crc == page_crc(self.volume, page, covered).to_be_bytes();
            damaged += u32::from(!good);
            let start = page * CHUNKS_PER_PAGE;
            if good {
                let generation = covered[BITS_LEN..BITS_LEN + 8]
                    .try_into()
                    .expect("eight bytes");
                self.generation = self.generation.max(u64::from_be_bytes(generation));
                self.merge(start, &covered[..BITS_LEN]);
                self.changed.remove(&page);
            } else {
                let end = (start + CHUNKS_PER_PAGE).min(self.size.div_ceil(CHUNK));
                self.mark(self.extent(&(start..end)));
                self.changed.insert(page);
            }
        }
        damaged
    }

    /// Wants every page written: a new metadata area.
    pub fn format(&mut self) {
        self.changed = (0..dirty_pages(self.size)).collect();
        self.want_all();
    }
}

/// The CRC also covers whose page it is, so that one from elsewhere is a bad one.
fn page_crc(volume: VolumeId, page: u64, content: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&volume.0.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &page.to_be_bytes());
    crc32c::crc32c_append(crc, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId(1);
    const SIZE: u64 = 5 << 30;

    fn chunks(range: Range<u64>) -> Extent {
        Extent {
            offset: range.start * CHUNK,
            len: (range.end - range.start) * CHUNK,
        }
    }

    #[test]
    fn runs_of_marked_chunks_are_found_in_order() {
        let mut dirty = Dirty::new(VOLUME, SIZE);
        dirty.mark(chunks(60..70));
        dirty.mark(Extent {
            offset: 200 * CHUNK + 512,
            len: 512,
        });
        assert_eq!(dirty.bytes(), 11 * CHUNK);
        assert_eq!(dirty.next_run(0, 16), Some(60..70));
        assert_eq!(dirty.next_run(0, 4), Some(60..64));
        assert_eq!(dirty.next_run(64, 16), Some(64..70));
        assert_eq!(dirty.next_run(70, 16), Some(200..201));
        assert_eq!(dirty.next_run(201, 16), None);
    }

    #[test]
    fn what_was_written_is_loaded_and_damage_means_all_dirty() {
        let mut dirty = Dirty::new(VOLUME, SIZE);
        dirty.mark(chunks(3..5));
        dirty.lend(chunks(9..10));
        dirty.mark(chunks(40_000..40_001));
        dirty.want_all();
        let (offset, first) = dirty.write().unwrap();
        assert_eq!(
            (offset, first.len(), &first[..2]),
            (68 << 10, 3 * 4096 - 4096, &[0b0001_1000, 0b0100_0000][..])
        );
        assert!(!dirty.quiet());
        dirty.written();
        assert!(dirty.quiet());

        let mut again = Dirty::new(VOLUME, SIZE);
        again.load(0, &first);
        assert_eq!(again.bytes(), 4 * CHUNK);
        assert!(again.is_marked(9) && again.is_marked(40_000));

        let mut torn = first.clone();
        torn[4096] ^= 1;
        let mut damaged = Dirty::new(VOLUME, SIZE);
        damaged.load(0, &torn);
        assert_eq!(damaged.bytes(), (3 + CHUNKS_PER_PAGE) * CHUNK);
        let mut foreign = Dirty::new(VolumeId(2), SIZE);
        foreign.load(0, &first);
        assert_eq!(foreign.bytes(), 2 * CHUNKS_PER_PAGE * CHUNK);
    }

    #[test]
    fn a_lent_chunk_is_dirty_on_disk_until_repaid() {
        let mut dirty = Dirty::new(VOLUME, SIZE);
        dirty.lend(chunks(0..1));
        dirty.lend(chunks(0..2));
        dirty.repay(chunks(0..1));
        assert_eq!(dirty.bits(0..8), [0b1100_0000]);
        dirty.repay(chunks(0..2));
        assert_eq!(dirty.bits(0..8), [0]);
    }

    #[test]
    fn the_last_chunk_may_be_short() {
        let mut dirty = Dirty::new(VOLUME, CHUNK + 4096);
        dirty.mark(Extent {
            offset: CHUNK,
            len: 4096,
        });
        assert_eq!(
            dirty.extent(&(1..2)),
            Extent {
                offset: CHUNK,
                len: 4096
            }
        );
        dirty.merge(0, &[0xff]);
        assert_eq!(dirty.bytes(), 2 * CHUNK);
    }
}
