//! MODE SELECT: what an initiator wants changed, checked bit by bit (SPC-4 §6.11).

use crate::cdb::{Cdb, view};
use crate::interface::{Geometry, Step};
use crate::mode::{D_SENSE, Mode, SWP, changeable, exists, header_length, page};
use crate::sense::Sense;
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// PF 10h: pages are in the standard's format.
const PAGE_FORMAT: u8 = 0x10;
/// RTD 02h: revert to defaults; SP 01h: save. Neither is offered.
const UNSUPPORTED: u8 = 0x03;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ModeSelect6Cdb {
    opcode: u8,
    flags: u8,
    reserved: U16,
    list_length: u8,
    control: u8,
}
const _: () = assert!(size_of::<ModeSelect6Cdb>() == 6);

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ModeSelect10Cdb {
    opcode: u8,
    flags: u8,
    reserved: [u8; 5],
    list_length: U16,
    control: u8,
}
const _: () = assert!(size_of::<ModeSelect10Cdb>() == 10);

/// How long the parameter list is.
pub(crate) fn mode_select(cdb: &Cdb) -> Result<Step, Sense> {
    if cdb[1] & UNSUPPORTED != 0 {
        return Err(Sense::cdb_field(1));
    }
    match list_length(cdb) {
        0 => Ok(Step::good()),
        _ if cdb[1] & PAGE_FORMAT == 0 => Err(Sense::cdb_field(1)),
        length => Ok(Step::Parameters {
            len: u32::from(length),
        }),
    }
}

fn list_length(cdb: &Cdb) -> u16 {
    match is_short(cdb) {
        true => u16::from(view::<ModeSelect6Cdb>(cdb).list_length),
        false => view::<ModeSelect10Cdb>(cdb).list_length.get(),
    }
}

fn is_short(cdb: &Cdb) -> bool {
    cdb[0] == 0x15
}

/// The mode that the parameter list asks for. A list that changes anything unchangeable is
/// refused whole.
pub(crate) fn mode_select_list(
    geometry: &Geometry,
    mode: Mode,
    cdb: &Cdb,
    list: &[u8],
) -> Result<Mode, Sense> {
    let list = &list[..list.len().min(usize::from(list_length(cdb)))];
    let mut at = skip_blocks(geometry, cdb, list)?;
    let mut wanted = mode;
    while at < list.len() {
        at += apply_page(geometry, &mut wanted, list, at)?;
    }
    Ok(wanted)
}

/// Checks header and block descriptors; says where the first page begins.
fn skip_blocks(geometry: &Geometry, cdb: &Cdb, list: &[u8]) -> Result<usize, Sense> {
    let (header, long, blocks) = match (is_short(cdb), list) {
        (true, [_, _, _, blocks, ..]) => (4, false, usize::from(*blocks)),
        (false, [_, _, _, _, long, _, high, low, ..]) => (
            8,
            long & 1 != 0,
            usize::from(u16::from_be_bytes([*high, *low])),
        ),
        _ => return Err(Sense::LIST_LENGTH),
    };
    let descriptor = list
        .get(header..header + blocks)
        .ok_or(Sense::LIST_LENGTH)?;
    let (count_matches, size) = match (descriptor, long) {
        ([], _) => return Ok(header),
        ([a, b, c, d, _, x, y, z], false) => {
            let count = u32::from_be_bytes([*a, *b, *c, *d]);
            let current = u32::try_from(geometry.blocks).unwrap_or(u32::MAX);
            (
                count == 0 || count == u32::MAX || count == current,
                [0, *x, *y, *z],
            )
        }
        ([a, b, c, d, e, f, g, h, _, _, _, _, w, x, y, z], true) => {
            let count = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (
                count == 0 || count == u64::MAX || count == geometry.blocks,
                [*w, *x, *y, *z],
            )
        }
        _ => return Err(Sense::list_field(header - 1)),
    };
    // The size of a mirrored volume is not an initiator's to change.
    if !count_matches || u32::from_be_bytes(size) != geometry.block_size {
        return Err(Sense::list_field(header));
    }
    Ok(header + blocks)
}

/// Takes one page over into `wanted`; says how long it was.
fn apply_page(
    geometry: &Geometry,
    wanted: &mut Mode,
    list: &[u8],
    at: usize,
) -> Result<usize, Sense> {
    let rest = &list[at..];
    // SPF (40h) says whether the second byte is a subpage; PS (80h) is reserved here.
    let code = (
        rest[0] & 0x3f,
        if rest[0] & 0x40 == 0 {
            0
        } else {
            *rest.get(1).ok_or(Sense::LIST_LENGTH)?
        },
    );
    if !exists(code) || (rest[0] & 0x40 != 0) != (code.1 != 0) {
        return Err(Sense::list_field(at));
    }
    let current = page(code, *wanted, geometry);
    let mask = changeable(code, geometry);
    let header = header_length(code);
    let given = rest.get(..header).ok_or(Sense::LIST_LENGTH)?;
    if given[1..] != current[1..header] {
        return Err(Sense::list_field(at + 1));
    }
    let given = rest.get(..current.len()).ok_or(Sense::LIST_LENGTH)?;
    for index in header..current.len() {
        if (given[index] ^ current[index]) & !mask[index] != 0 {
            return Err(Sense::list_field(at + index));
        }
    }
    if code == (0x0a, 0) {
        wanted.descriptor_sense = given[2] & D_SENSE != 0;
        wanted.write_protect = given[4] & SWP != 0;
    }
    Ok(current.len())
}
