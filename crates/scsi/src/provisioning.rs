//! WRITE SAME and UNMAP: many blocks with few bytes (SBC-3 §5.28, §5.44).

use crate::cdb::{Cdb, Transfer, check_protect, check_range, transfer, view};
use crate::interface::{Blocks, Geometry, Operation, Step};
use crate::limits::{MAX_UNMAP_BYTES, MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BYTES};
use crate::sense::Sense;
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Flags of WRITE SAME, byte 1.
const ANCHOR: u8 = 0x10;
const UNMAP: u8 = 0x08;
/// PBDATA and LBDATA, obsolete: the address would be written into each block.
const ADDRESS_DATA: u8 = 0x06;
/// No data-out buffer, only in WRITE SAME(16): the block is all zero.
const NDOB: u8 = 0x01;
const WRITE_SAME_16: u8 = 0x93;

/// UNMAP, SBC-3 §5.28.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UnmapCdb {
    opcode: u8,
    anchor: u8,
    reserved: U32,
    group: u8,
    list_length: U16,
    control: u8,
}
const _: () = assert!(size_of::<UnmapCdb>() == 10);

/// UNMAP parameter list header.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UnmapHeader {
    data_length: U16,
    descriptors_length: U16,
    reserved: U32,
}
const _: () = assert!(size_of::<UnmapHeader>() == 8);

/// UNMAP block descriptor.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UnmapDescriptor {
    block: U64,
    count: U32,
    reserved: U32,
}
const _: () = assert!(size_of::<UnmapDescriptor>() == 16);

/// `expected` is how many bytes the initiator sends; a WRITE SAME with other than one block is
/// refused whole rather than guessed at.
pub(crate) fn write_same(geometry: &Geometry, cdb: &Cdb, expected: u32) -> Result<Step, Sense> {
    let Transfer { flags, blocks } = transfer(cdb);
    check_protect(flags)?;
    let unmap = flags & UNMAP != 0;
    if flags & (ANCHOR | ADDRESS_DATA) != 0 || unmap && !geometry.unmap {
        return Err(Sense::cdb_field(1));
    }
    let blocks = same_range(geometry, blocks)?;
    let without_data = cdb[0] == WRITE_SAME_16 && flags & NDOB != 0;
    if !without_data && expected != geometry.block_size {
        return Err(Sense::new(0x5, 0x24, 0x00));
    }
    if blocks.count == 0 {
        return Ok(Step::good());
    }
    let operation = match (unmap, without_data) {
        (true, _) => Operation::Unmap {
            ranges: vec![blocks],
            check: !without_data,
        },
        (false, true) => Operation::Zero { blocks },
        (false, false) => Operation::WriteSame { blocks },
    };
    let data_out = if without_data { 0 } else { geometry.block_size };
    Ok(Step::Operate {
        operation,
        data_out,
    })
}

/// A count of zero means "to the end" (WSNZ=0). However it is said, MAXIMUM WRITE SAME LENGTH
/// holds.
fn same_range(geometry: &Geometry, blocks: Blocks) -> Result<Blocks, Sense> {
    check_range(geometry, blocks)?;
    let count = if blocks.count == 0 {
        geometry.blocks - blocks.first
    } else {
        blocks.count
    };
    if count > u64::from(MAX_WRITE_SAME_BYTES / geometry.block_size) {
        return Err(Sense::new(0x5, 0x24, 0x00));
    }
    Ok(Blocks {
        first: blocks.first,
        count,
    })
}

/// UNMAP: how long its parameter list is.
pub(crate) fn unmap(cdb: &Cdb) -> Result<Step, Sense> {
    let cdb: &UnmapCdb = view(cdb);
    if cdb.anchor & 1 != 0 {
        return Err(Sense::cdb_field(1));
    }
    match cdb.list_length.get() {
        0 => Ok(Step::good()),
        1..8 => Err(Sense::LIST_LENGTH),
        length => Ok(Step::Parameters {
            len: u32::from(length),
        }),
    }
}

/// UNMAP, now with its parameter list. An incomplete last descriptor is ignored, as SBC-3 says;
/// empty ones are dropped after their address was checked.
pub(crate) fn unmap_list(geometry: &Geometry, cdb: &Cdb, list: &[u8]) -> Result<Step, Sense> {
    let length = view::<UnmapCdb>(cdb).list_length.get();
    let list = &list[..list.len().min(usize::from(length))];
    let Ok((header, rest)) = UnmapHeader::ref_from_prefix(list) else {
        return Err(Sense::LIST_LENGTH);
    };
    let described = usize::from(header.descriptors_length.get()).min(rest.len());
    let (descriptors, _) = rest[..described].as_chunks::<16>();
    if descriptors.len() > usize::from(MAX_UNMAP_DESCRIPTORS) {
        return Err(Sense::list_field(2));
    }
    let mut ranges = Vec::with_capacity(descriptors.len());
    let mut left = u64::from(MAX_UNMAP_BYTES / geometry.block_size);
    for (index, bytes) in descriptors.iter().enumerate() {
        let descriptor: &UnmapDescriptor = zerocopy::transmute_ref!(bytes);
        let blocks = Blocks {
            first: descriptor.block.get(),
            count: u64::from(descriptor.count.get()),
        };
        check_range(geometry, blocks)?;
        left = left
            .checked_sub(blocks.count)
            .ok_or_else(|| Sense::list_field(8 + 16 * index + 8))?;
        if blocks.count > 0 {
            ranges.push(blocks);
        }
    }
    if ranges.is_empty() {
        return Ok(Step::good());
    }
    Ok(Step::Operate {
        operation: Operation::Unmap {
            ranges,
            check: false,
        },
        data_out: 0,
    })
}
