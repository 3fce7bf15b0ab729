//! A node's buffer pool as the driver has it: the bytes behind the handles, and the closed set of
//! operations on them. A handle older than the slot's last use stops the run, and so does one that
//! was released. A released slot is overwritten: whoever is given it next and does not fill it sees
//! the pattern, not blocks of before that might pass for right ones.

use crate::prng::Prng;
use lockstep_engine::pool::PoolClass;
use lockstep_mirror::operation::BufferId;
use std::collections::BTreeSet;

/// What a released slot is filled with; no initiator writes blocks of it.
const RELEASED: u8 = 0xdb;

/// The slots' bytes; a slot that was never used takes no memory.
#[derive(Debug)]
pub struct Memory {
    classes: Vec<PoolClass>,
    slots: Vec<Slot>,
    /// Touched, and not known to be released.
    touched: BTreeSet<BufferId>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    generation: u32,
    /// That use of it is over.
    released: bool,
    bytes: Option<Box<[u8]>>,
}

impl Memory {
    /// Room for these classes.
    #[must_use]
    pub fn new(classes: &[PoolClass]) -> Self {
        let slots = classes.iter().map(|class| size(class.slots)).sum();
        Self {
            classes: classes.to_vec(),
            slots: vec![Slot::default(); slots],
            touched: BTreeSet::new(),
        }
    }

    /// Overwrites the slots that nobody `holds` any more.
    pub fn reclaim(&mut self, holds: impl Fn(BufferId) -> bool) {
        let slots = &mut self.slots;
        self.touched.retain(|&buffer| {
            let held = holds(buffer);
            if !held {
                let slot = &mut slots[size(buffer.slot)];
                slot.released = true;
                slot.bytes.as_mut().expect("it was touched").fill(RELEASED);
            }
            held
        });
    }

    /// A piece of a buffer.
    ///
    /// # Panics
    /// If the handle is stale or released, or the piece lies outside the slot: the engine's mistake.
    pub fn piece(&mut self, buffer: BufferId, at: u32, len: u32) -> &mut [u8] {
        let bytes = self.class_of(buffer.slot);
        let slot = &mut self.slots[size(buffer.slot)];
        assert!(
            slot.generation <= buffer.generation,
            "{buffer:?} is used after its slot was handed out again as generation {}",
            slot.generation
        );
        assert!(
            slot.generation < buffer.generation || !slot.released,
            "{buffer:?} is used after it was released"
        );
        (slot.generation, slot.released) = (buffer.generation, false);
        self.touched.insert(buffer);
        let slot = slot
            .bytes
            .get_or_insert_with(|| vec![0; size(bytes)].into_boxed_slice());
        &mut slot[size(at)..size(at) + size(len)]
    }

    /// CRC32C of a piece.
    pub fn crc(&mut self, buffer: BufferId, at: u32, len: u32) -> u32 {
        crc32c::crc32c(self.piece(buffer, at, len))
    }

    /// 16 bytes for each `piece` bytes, the last one shorter. Not SHA-256 but equally blind to
    /// chance, and faster: pretend nodes hash a lot.
    pub fn hashes(&mut self, buffer: BufferId, at: u32, len: u32, piece: u32) -> Box<[u8]> {
        self.piece(buffer, at, len)
            .chunks(size(piece))
            .flat_map(hash)
            .collect()
    }

    /// Offset of the first difference of two pieces.
    pub fn difference(
        &mut self,
        left: (BufferId, u32),
        right: (BufferId, u32),
        len: u32,
    ) -> Option<u32> {
        let left = self.piece(left.0, left.1, len).to_vec();
        let right = self.piece(right.0, right.1, len);
        let at = left
            .iter()
            .zip(right)
            .position(|(left, right)| left != right)?;
        Some(u32::try_from(at).expect("it is below a length of 32 bits"))
    }

    /// Repeats the first `pattern` bytes until `len` bytes are filled.
    pub fn fill(&mut self, buffer: BufferId, at: u32, pattern: u32, len: u32) {
        let piece = self.piece(buffer, at, len);
        for index in size(pattern)..piece.len() {
            piece[index] = piece[index - size(pattern)];
        }
    }

    fn class_of(&self, slot: u32) -> u32 {
        let mut first = 0;
        for class in &self.classes {
            first += class.slots;
            if slot < first {
                return class.slot_bytes;
            }
        }
        panic!("there is no slot {slot}");
    }
}

fn hash(piece: &[u8]) -> [u8; 16] {
    let mut state = (
        Prng::new(u64::try_from(piece.len()).expect("small")).bits(),
        0x6c62_272e_07bb_0142_u64,
    );
    let (words, rest) = piece.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        state.0 = (state.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        state.1 = (state.1.rotate_left(17) ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
    }
    for byte in rest {
        state.0 = (state.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&(state.0 ^ state.0 >> 31).to_le_bytes());
    hash[8..].copy_from_slice(&(state.1 ^ state.1 >> 29).to_le_bytes());
    hash
}

/// An index or length that came as u32.
pub(crate) fn size(number: u32) -> usize {
    usize::try_from(number).expect("usize has 32 bits or more")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory::new(&[
            PoolClass {
                slots: 2,
                slot_bytes: 8,
            },
            PoolClass {
                slots: 2,
                slot_bytes: 32,
            },
        ])
    }

    fn buffer(slot: u32, generation: u32) -> BufferId {
        BufferId { slot, generation }
    }

    #[test]
    fn slots_are_numbered_through_the_classes() {
        let mut memory = memory();
        memory.piece(buffer(1, 0), 0, 8)[0] = 1;
        memory.piece(buffer(2, 0), 24, 8)[0] = 2;
        assert_eq!(memory.piece(buffer(1, 0), 0, 1), [1]);
    }

    #[test]
    #[should_panic(expected = "after its slot was handed out again")]
    fn a_stale_handle_stops_the_run() {
        let mut memory = memory();
        memory.piece(buffer(0, 1), 0, 1);
        memory.piece(buffer(0, 0), 0, 1);
    }

    #[test]
    #[should_panic(expected = "after it was released")]
    fn a_released_handle_stops_the_run() {
        let mut memory = memory();
        memory.piece(buffer(0, 1), 0, 1);
        memory.reclaim(|_| false);
        memory.piece(buffer(0, 1), 0, 1);
    }

    #[test]
    fn the_next_user_of_a_slot_does_not_see_what_was_there() {
        let mut memory = memory();
        memory.piece(buffer(0, 1), 0, 8).fill(7);
        memory.piece(buffer(1, 1), 0, 8).fill(7);
        memory.reclaim(|it| it == buffer(1, 1));
        assert_eq!(memory.piece(buffer(0, 2), 0, 8), [RELEASED; 8]);
        assert_eq!(memory.piece(buffer(1, 1), 0, 8), [7; 8]);
    }

    #[test]
    fn hashes_tell_pieces_apart() {
        let mut memory = memory();
        let same = memory.hashes(buffer(2, 0), 0, 32, 16);
        assert_eq!(same[..16], same[16..]);
        memory.piece(buffer(2, 0), 20, 1)[0] = 1;
        let differ = memory.hashes(buffer(2, 0), 0, 32, 16);
        assert_eq!(differ[..16], same[..16]);
        assert_ne!(differ[16..], same[16..]);
    }

    #[test]
    fn a_pattern_is_repeated_and_the_first_difference_found() {
        let mut memory = memory();
        memory.piece(buffer(2, 0), 0, 3).copy_from_slice(b"abc");
        memory.fill(buffer(2, 0), 0, 3, 8);
        assert_eq!(memory.piece(buffer(2, 0), 0, 8), b"abcabcab");
        memory
            .piece(buffer(3, 0), 0, 8)
            .copy_from_slice(b"abcabXab");
        assert_eq!(
            memory.difference((buffer(2, 0), 0), (buffer(3, 0), 0), 8),
            Some(5)
        );
        assert_eq!(
            memory.difference((buffer(2, 0), 0), (buffer(3, 0), 0), 5),
            None
        );
    }
}
