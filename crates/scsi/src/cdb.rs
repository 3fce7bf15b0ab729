//! Command descriptor blocks of the block commands: four layouts, one meaning (SBC-3 §5).

use crate::interface::{Blocks, Geometry};
use crate::sense::Sense;
use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// A CDB, filled up with zeroes where the initiator's is shorter.
pub(crate) type Cdb = [u8; 16];

/// READ(6), WRITE(6).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Block6 {
    opcode: u8,
    /// Upper five bits of the block address.
    high: u8,
    low: U16,
    length: u8,
    control: u8,
}
const _: () = assert!(size_of::<Block6>() == 6);

/// READ(10) and its like.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Block10 {
    opcode: u8,
    flags: u8,
    block: U32,
    group: u8,
    length: U16,
    control: u8,
}
const _: () = assert!(size_of::<Block10>() == 10);

/// READ(12) and its like.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Block12 {
    opcode: u8,
    flags: u8,
    block: U32,
    length: U32,
    group: u8,
    control: u8,
}
const _: () = assert!(size_of::<Block12>() == 12);

/// READ(16) and its like.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Block16 {
    opcode: u8,
    flags: u8,
    block: U64,
    length: U32,
    group: u8,
    control: u8,
}
const _: () = assert!(size_of::<Block16>() == 16);

/// What all of them say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// Byte 1; zero in the 6-byte form, which has no flags.
    pub(crate) flags: u8,
    /// First block and count as the CDB has them (READ(6)'s zero is already 256).
    pub(crate) blocks: Blocks,
}

/// Looks at a CDB through one of its layouts.
pub(crate) fn view<T: FromBytes + Immutable + KnownLayout + Unaligned>(cdb: &Cdb) -> &T {
    match T::ref_from_prefix(cdb) {
        Ok((layout, _)) => layout,
        Err(_) => unreachable!("no layout is longer than 16 bytes"),
    }
}

/// The CDB as 16 bytes, whatever its length.
pub(crate) fn padded(bytes: &[u8]) -> Cdb {
    let mut cdb = [0; 16];
    let length = bytes.len().min(16);
    cdb[..length].copy_from_slice(&bytes[..length]);
    cdb
}

/// Reads a block command by its group code (the top three bits of the opcode).
pub(crate) fn transfer(cdb: &Cdb) -> Transfer {
    let (flags, first, count) = match cdb[0] >> 5 {
        0 => {
            let cdb: &Block6 = view(cdb);
            let first = u64::from(cdb.high & 0x1f) << 16 | u64::from(cdb.low.get());
            let count = if cdb.length == 0 {
                256
            } else {
                u64::from(cdb.length)
            };
            (0, first, count)
        }
        4 => {
            let cdb: &Block16 = view(cdb);
            (cdb.flags, cdb.block.get(), u64::from(cdb.length.get()))
        }
        5 => {
            let cdb: &Block12 = view(cdb);
            (
                cdb.flags,
                u64::from(cdb.block.get()),
                u64::from(cdb.length.get()),
            )
        }
        _ => {
            let cdb: &Block10 = view(cdb);
            (
                cdb.flags,
                u64::from(cdb.block.get()),
                u64::from(cdb.length.get()),
            )
        }
    };
    Transfer {
        flags,
        blocks: Blocks { first, count },
    }
}

/// Refuses blocks past the end. No blocks at all just behind the last one are fine (SBC-3 says
/// nothing about them, and suites send them).
pub(crate) fn check_range(geometry: &Geometry, blocks: Blocks) -> Result<(), Sense> {
    match blocks.first.checked_add(blocks.count) {
        Some(end) if end <= geometry.blocks => Ok(()),
        _ => Err(Sense::OUT_OF_RANGE),
    }
}

/// Refuses protection information: the disk has none (PROT_EN=0).
pub(crate) fn check_protect(flags: u8) -> Result<(), Sense> {
    if flags & 0xe0 == 0 {
        Ok(())
    } else {
        Err(Sense::cdb_field(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_says_the_same() {
        let rows: [(&[u8], u8, u64, u64); 5] = [
            (&[0x08, 0xff, 0x23, 0x45, 7, 0], 0, 0x1f_2345, 7),
            (&[0x0a, 0, 0, 1, 0, 0], 0, 1, 256),
            (&[0x28, 8, 1, 2, 3, 4, 0, 5, 6, 0], 8, 0x0102_0304, 0x0506),
            (
                &[0xa8, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0],
                8,
                0x0102_0304,
                0x0506_0708,
            ),
            (
                &[0x88, 8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 0, 0],
                8,
                0x0102_0304_0506_0708,
                0x0901_0203,
            ),
        ];
        for (bytes, flags, first, count) in rows {
            let blocks = Blocks { first, count };
            assert_eq!(transfer(&padded(bytes)), Transfer { flags, blocks });
        }
    }
}
