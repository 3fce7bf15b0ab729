//! READ DEFECT DATA: there are no defects that an initiator could see (SBC-3 §5.17, §5.18).

use crate::cdb::{Cdb, view};
use crate::interface::Step;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReadDefectData10Cdb {
    opcode: u8,
    reserved: u8,
    /// PLIST 10h, GLIST 08h, format of the list.
    lists: u8,
    reserved2: U32,
    allocation: U16,
    control: u8,
}
const _: () = assert!(size_of::<ReadDefectData10Cdb>() == 10);

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReadDefectData12Cdb {
    opcode: u8,
    lists: u8,
    first: U32,
    allocation: U32,
    reserved: u8,
    control: u8,
}
const _: () = assert!(size_of::<ReadDefectData12Cdb>() == 12);

/// An empty list has no format to be wrong in: lists and format are returned as they were asked.
pub(crate) fn read_defect_data_10(cdb: &Cdb) -> Step {
    let cdb: &ReadDefectData10Cdb = view(cdb);
    Step::data([0, cdb.lists & 0x1f, 0, 0].to_vec(), cdb.allocation)
}

pub(crate) fn read_defect_data_12(cdb: &Cdb) -> Step {
    let cdb: &ReadDefectData12Cdb = view(cdb);
    Step::data(
        [0, cdb.lists & 0x1f, 0, 0, 0, 0, 0, 0].to_vec(),
        cdb.allocation,
    )
}
