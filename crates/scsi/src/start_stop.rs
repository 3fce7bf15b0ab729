//! START STOP UNIT: nothing spins here, so it only keeps the promise about the cache (SBC-3 §5.25).

use crate::cdb::{Cdb, view};
use crate::interface::{Geometry, Operation, Step};
use crate::sense::Sense;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

const START: u8 = 0x01;
const LOAD_EJECT: u8 = 0x02;
const NO_FLUSH: u8 = 0x04;
const POWER_CONDITION: u8 = 0xf0;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StartStopCdb {
    opcode: u8,
    immediate: u8,
    reserved: u8,
    modifier: u8,
    flags: u8,
    control: u8,
}
const _: () = assert!(size_of::<StartStopCdb>() == 6);

/// Starting and stopping are accepted and change nothing: other hosts share the disk. The medium
/// is not removable and there are no power conditions. A stop flushes a volatile cache.
pub(crate) fn start_stop(geometry: &Geometry, cdb: &Cdb) -> Result<Step, Sense> {
    let flags = view::<StartStopCdb>(cdb).flags;
    if flags & (POWER_CONDITION | LOAD_EJECT) != 0 {
        return Err(Sense::cdb_field(4));
    }
    if flags & (START | NO_FLUSH) == 0 && geometry.write_cache {
        return Ok(Step::Operate {
            operation: Operation::Flush,
            data_out: 0,
        });
    }
    Ok(Step::good())
}
