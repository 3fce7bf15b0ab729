//! READ, WRITE, VERIFY, PRE-FETCH and SYNCHRONIZE CACHE (SBC-3 §5).

use crate::cdb::{Cdb, Transfer, check_protect, check_range, transfer};
use crate::interface::{Geometry, Operation, Step};
use crate::limits::MAX_TRANSFER_BYTES;
use crate::sense::Sense;

/// Force unit access, bit 3 of byte 1. DPO (bit 4) is a hint about a cache we do not have.
const FUA: u8 = 0x08;

pub(crate) fn read(geometry: &Geometry, cdb: &Cdb) -> Result<Step, Sense> {
    let Transfer { flags, blocks } = checked(geometry, cdb)?;
    if blocks.count == 0 {
        return Ok(Step::good());
    }
    let operation = Operation::Read {
        blocks,
        fua: flags & FUA != 0,
    };
    Ok(Step::Operate {
        operation,
        data_out: 0,
    })
}

pub(crate) fn write(geometry: &Geometry, cdb: &Cdb) -> Result<Step, Sense> {
    let Transfer { flags, blocks } = checked(geometry, cdb)?;
    if blocks.count == 0 {
        return Ok(Step::good());
    }
    let data_out = bytes(geometry, blocks.count)?;
    let operation = Operation::Write {
        blocks,
        fua: flags & FUA != 0,
    };
    Ok(Step::Operate {
        operation,
        data_out,
    })
}

/// BYTCHK says with what the medium is compared: 0 nothing, 1 as many blocks, 3 one block with
/// each; 2 is reserved (SBC-3 table 111).
pub(crate) fn verify(geometry: &Geometry, cdb: &Cdb) -> Result<Step, Sense> {
    let byte_check = cdb[1] >> 1 & 3;
    if byte_check == 2 {
        return Err(Sense::cdb_field(1));
    }
    let blocks = checked(geometry, cdb)?.blocks;
    if blocks.count == 0 {
        return Ok(Step::good());
    }
    let (operation, data_out) = match byte_check {
        0 => (Operation::Verify { blocks }, 0),
        1 => (
            Operation::Compare {
                blocks,
                one_block: false,
            },
            bytes(geometry, blocks.count)?,
        ),
        _ => (
            Operation::Compare {
                blocks,
                one_block: true,
            },
            geometry.block_size,
        ),
    };
    Ok(Step::Operate {
        operation,
        data_out,
    })
}

/// GOOD says that not all of it was brought into a cache (SBC-3 §5.8), which is the truth here.
pub(crate) fn prefetch(geometry: &Geometry, cdb: &Cdb) -> Result<Step, Sense> {
    check_range(geometry, transfer(cdb).blocks)?;
    Ok(Step::good())
}

/// A flush is of the whole disk whatever the range. IMMED allows an answer before it is done, and
/// an answer after it is done is never wrong.
pub(crate) fn synchronize_cache(geometry: &Geometry, cdb: &Cdb) -> Result<Step, Sense> {
    check_range(geometry, transfer(cdb).blocks)?;
    Ok(Step::Operate {
        operation: Operation::Flush,
        data_out: 0,
    })
}

/// Protection, range and length, in this order.
fn checked(geometry: &Geometry, cdb: &Cdb) -> Result<Transfer, Sense> {
    let transfer = transfer(cdb);
    check_protect(transfer.flags)?;
    check_range(geometry, transfer.blocks)?;
    bytes(geometry, transfer.blocks.count)?;
    Ok(transfer)
}

/// The transfer in bytes, if one command may ask for so much.
fn bytes(geometry: &Geometry, count: u64) -> Result<u32, Sense> {
    count
        .checked_mul(u64::from(geometry.block_size))
        .and_then(|bytes| u32::try_from(bytes).ok())
        .filter(|bytes| *bytes <= MAX_TRANSFER_BYTES)
        .ok_or(const { Sense::new(0x5, 0x24, 0x00) })
}
