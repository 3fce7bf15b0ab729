//! What every 512-byte block says of itself, so that a wrong, stale, torn or lost one has a name.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a stamped block.
pub const BLOCK: usize = 512;
const MAGIC: [u8; 8] = *b"LOCKSTMP";

/// Who wrote a block, and when in the order of that writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Any number that the volume goes by.
    pub volume: u64,
    /// Where it was meant to go.
    pub lba: u64,
    /// The write, counted by the writer from 1.
    pub sequence: u64,
    /// The path it was first sent on.
    pub path: u16,
}

impl core::fmt::Display for Stamp {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "write {} to block {} by path {}",
            self.sequence, self.lba, self.path
        )
    }
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Block {
    magic: [u8; 8],
    volume: U64,
    lba: U64,
    sequence: U64,
    path: U32,
    /// Differs from write to write, so that a block made of two writes fails its CRC.
    filler: [[u8; 8]; 58],
    padding: [u8; 8],
    crc: U32,
}
const _: () = assert!(size_of::<Block>() == BLOCK);

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// 512 zeroes: never written.
    Zero,
    /// A whole stamped block.
    Stamped(Stamp),
    /// Neither: torn or foreign.
    Damaged,
}

impl core::fmt::Display for Content {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Zero => f.write_str("zeroes"),
            Self::Stamped(stamp) => stamp.fmt(f),
            Self::Damaged => f.write_str("a torn or foreign block"),
        }
    }
}

impl Stamp {
    /// Fills a block.
    ///
    /// # Panics
    /// If `block` is not [`BLOCK`] bytes long.
    pub fn write(&self, block: &mut [u8]) {
        let block = Block::mut_from_bytes(block).expect("a block has 512 bytes");
        block.magic = MAGIC;
        block.volume = self.volume.into();
        block.lba = self.lba.into();
        block.sequence = self.sequence.into();
        block.path = u32::from(self.path).into();
        let pattern =
            (self.sequence ^ self.lba.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        block.filler = [pattern.to_le_bytes(); 58];
        block.padding = [0; 8];
        block.crc = 0.into();
        let crc = crc32c::crc32c(block.as_bytes());
        block.crc = crc.into();
    }

    /// Reads a block.
    ///
    /// # Panics
    /// If `block` is not [`BLOCK`] bytes long.
    pub fn read(block: &[u8]) -> Content {
        let bytes: &[u8; BLOCK] = block.try_into().expect("a block has 512 bytes");
        let (body, crc) = bytes.split_at(BLOCK - 4);
        let block = Block::ref_from_bytes(bytes).expect("a block has 512 bytes");
        if block.magic != MAGIC {
            return if bytes.iter().all(|byte| *byte == 0) {
                Content::Zero
            } else {
                Content::Damaged
            };
        }
        let expected = crc32c::crc32c_append(crc32c::crc32c(body), &[0; 4]);
        let path = u16::try_from(block.path.get());
        match path {
            Ok(path) if expected.to_le_bytes() == *crc => Content::Stamped(Self {
                volume: block.volume.get(),
                lba: block.lba.get(),
                sequence: block.sequence.get(),
                path,
            }),
            _ => Content::Damaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        volume: 1,
        lba: 77,
        sequence: 5,
        path: 1,
    };

    #[test]
    fn a_block_says_what_it_is() {
        let mut block = [0; BLOCK];
        assert_eq!(Stamp::read(&block), Content::Zero);
        STAMP.write(&mut block);
        assert_eq!(Stamp::read(&block), Content::Stamped(STAMP));
    }

    #[test]
    fn half_of_one_write_and_half_of_another_is_neither() {
        let (mut old, mut new) = ([0; BLOCK], [0; BLOCK]);
        STAMP.write(&mut old);
        Stamp {
            sequence: 6,
            ..STAMP
        }
        .write(&mut new);
        for cut in [1, 9, 26, 40, 256, 400, 508, 510] {
            let mut torn = new;
            torn[cut..].copy_from_slice(&old[cut..]);
            let whole = torn == old || torn == new;
            assert_eq!(
                Stamp::read(&torn) == Content::Damaged,
                !whole,
                "cut at {cut}"
            );
        }
    }
}
