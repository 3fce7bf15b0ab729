//! READ CAPACITY(10) and (16): size and shape (SBC-3 §5.15, §5.16).

use crate::cdb::{Cdb, view};
use crate::interface::{Geometry, Step};
use crate::sense::Sense;
use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReadCapacity10Cdb {
    opcode: u8,
    reserved: u8,
    block: U32,
    reserved2: U16,
    /// PMI, partial medium indicator.
    partial: u8,
    control: u8,
}
const _: () = assert!(size_of::<ReadCapacity10Cdb>() == 10);

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReadCapacity16Cdb {
    opcode: u8,
    action: u8,
    block: U64,
    allocation: U32,
    partial: u8,
    control: u8,
}
const _: () = assert!(size_of::<ReadCapacity16Cdb>() == 16);

#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct Capacity10 {
    last_block: U32,
    block_size: U32,
}
const _: () = assert!(size_of::<Capacity10>() == 8);

#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct Capacity16 {
    last_block: U64,
    block_size: U32,
    /// P_TYPE and PROT_EN: no protection information.
    protection: u8,
    /// Low four bits: log2 of logical blocks a physical block.
    exponent: u8,
    /// LBPME 8000h, LBPRZ 4000h; lowest aligned block zero.
    provisioning: U16,
    reserved: [u8; 16],
}
const _: () = assert!(size_of::<Capacity16>() == 32);

/// A disk too large for 32 bits says FFFFFFFFh, which means "ask with READ CAPACITY(16)".
pub(crate) fn read_capacity_10(geometry: &Geometry, cdb: &Cdb) -> Result<Step, Sense> {
    let cdb: &ReadCapacity10Cdb = view(cdb);
    if cdb.partial & 1 == 0 && cdb.block.get() != 0 {
        return Err(Sense::cdb_field(2));
    }
    let last = u32::try_from(last_block(geometry)).unwrap_or(u32::MAX);
    let data = Capacity10 {
        last_block: U32::new(last),
        block_size: U32::new(geometry.block_size),
    };
    Ok(Step::data(data.as_bytes().to_vec(), 8_u32))
}

pub(crate) fn read_capacity_16(geometry: &Geometry, cdb: &Cdb) -> Result<Step, Sense> {
    let cdb: &ReadCapacity16Cdb = view(cdb);
    if cdb.partial & 1 == 0 && cdb.block.get() != 0 {
        return Err(Sense::cdb_field(2));
    }
    let data = Capacity16 {
        last_block: U64::new(last_block(geometry)),
        block_size: U32::new(geometry.block_size),
        protection: 0,
        exponent: geometry.physical_exponent & 0x0f,
        provisioning: U16::new(if geometry.unmap { 0xc000 } else { 0 }),
        reserved: [0; 16],
    };
    Ok(Step::data(data.as_bytes().to_vec(), cdb.allocation))
}

fn last_block(geometry: &Geometry) -> u64 {
    geometry.blocks - 1
}
