//! REPORT SUPPORTED OPERATION CODES, straight from the table (SPC-4 §6.35).

use crate::cdb::{Cdb, view};
use crate::interface::{Geometry, Step};
use crate::opcodes::{Entry, TABLE, rows};
use crate::sense::Sense;
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReportOpcodesCdb {
    opcode: u8,
    action: u8,
    /// RCTD 80h, reporting options 07h.
    options: u8,
    requested_opcode: u8,
    requested_action: U16,
    allocation: U32,
    reserved: u8,
    control: u8,
}
const _: () = assert!(size_of::<ReportOpcodesCdb>() == 12);

/// Return command time-outs descriptors too.
const RCTD: u8 = 0x80;
/// A command time-outs descriptor that claims nothing: no nominal, no recommended time.
const TIMEOUTS: [u8; 12] = [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(crate) fn report_opcodes(geometry: &Geometry, cdb: &Cdb) -> Result<Step, Sense> {
    let cdb: &ReportOpcodesCdb = view(cdb);
    if cdb.allocation.get() < 4 {
        return Err(Sense::cdb_field(6));
    }
    let timeouts = cdb.options & RCTD != 0;
    let mut of_opcode = rows(geometry, cdb.requested_opcode).peekable();
    let has_actions = of_opcode.peek().map(|entry| entry.action.is_some());
    let with_action = of_opcode.find(|entry| {
        entry
            .action
            .is_some_and(|action| cdb.requested_action == u16::from(action))
    });
    let first = || rows(geometry, cdb.requested_opcode).next();
    let found = match (cdb.options & 0x07, has_actions) {
        (0, _) => return Ok(Step::data(all(geometry, timeouts), cdb.allocation)),
        // The option must fit the opcode: 1 has no service action, 2 has one, 3 takes either.
        (1, Some(true)) | (2, Some(false)) => return Err(Sense::cdb_field(2)),
        (1..=3, None) => None,
        (1, Some(false)) => first(),
        (2 | 3, Some(true)) => with_action,
        (3, Some(false)) => first().filter(|_| cdb.requested_action.get() == 0),
        _ => return Err(Sense::cdb_field(2)),
    };
    Ok(Step::data(one(found, timeouts), cdb.allocation))
}

/// Option 0: a list with a descriptor for each command.
fn all(geometry: &Geometry, timeouts: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for entry in TABLE.iter().filter(|entry| entry.is_offered(geometry)) {
        let action = entry.action.unwrap_or(0);
        // CTDP 02h: a time-outs descriptor follows; SERVACTV 01h: the service action counts.
        let flags = u8::from(timeouts) << 1 | u8::from(entry.action.is_some());
        data.extend_from_slice(&[entry.opcode(), 0, 0, action, 0, flags, 0, cdb_length(entry)]);
        if timeouts {
            data.extend_from_slice(&TIMEOUTS);
        }
    }
    let length = u32::try_from(data.len() - 4).expect("the table is short");
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

/// Options 1 to 3: one command. SUPPORT is 3 (as the standard says) or 1 (not supported).
fn one(entry: Option<&Entry>, timeouts: bool) -> Vec<u8> {
    let Some(entry) = entry else {
        return vec![0, 0x01, 0, 0];
    };
    let mut data = vec![0, u8::from(timeouts) << 7 | 0x03, 0, cdb_length(entry)];
    data.extend_from_slice(entry.usage);
    if timeouts {
        data.extend_from_slice(&TIMEOUTS);
    }
    data
}

fn cdb_length(entry: &Entry) -> u8 {
    u8::try_from(entry.usage.len()).expect("a CDB has at most 16 bytes")
}
