//! Mode pages and MODE SENSE (SPC-4 §7.5, §6.13; SBC-3 §6.5).
//! Two bits can be changed: D_SENSE and SWP, both in the control page.

use crate::cdb::{Cdb, view};
use crate::interface::{Geometry, Step};
use crate::sense::{Format, Sense};
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// D_SENSE, byte 2 of the control page.
pub(crate) const D_SENSE: u8 = 0x04;
/// SWP, byte 4 of the control page.
pub(crate) const SWP: u8 = 0x08;
/// Write cache enabled, byte 2 of the caching page.
const WCE: u8 = 0x04;

/// What initiators can change; the same on both nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Sense data in descriptor format.
    pub(crate) descriptor_sense: bool,
    /// Every write is refused.
    pub(crate) write_protect: bool,
}

/// The layout's version, the first byte of an encoded mode.
const ENCODING: u8 = 1;

impl Mode {
    pub(crate) fn sense_format(self) -> Format {
        if self.descriptor_sense {
            Format::Descriptor
        } else {
            Format::Fixed
        }
    }

    /// Two bytes: version, then bit 0 D_SENSE, bit 1 SWP.
    pub(crate) fn encode(self) -> Vec<u8> {
        vec![
            ENCODING,
            u8::from(self.descriptor_sense) | u8::from(self.write_protect) << 1,
        ]
    }

    /// Nothing if the bytes are of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [ENCODING, bits, ..] => Some(Self {
                descriptor_sense: bits & 1 != 0,
                write_protect: bits & 2 != 0,
            }),
            _ => None,
        }
    }
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ModeSense6Cdb {
    opcode: u8,
    /// DBD 08h: no block descriptors.
    flags: u8,
    /// Page control in the upper two bits.
    page: u8,
    subpage: u8,
    allocation: u8,
    control: u8,
}
const _: () = assert!(size_of::<ModeSense6Cdb>() == 6);

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ModeSense10Cdb {
    opcode: u8,
    /// LLBAA 10h: a long block descriptor is fine; DBD 08h.
    flags: u8,
    page: u8,
    subpage: u8,
    reserved: [u8; 3],
    allocation: U16,
    control: u8,
}
const _: () = assert!(size_of::<ModeSense10Cdb>() == 10);

/// Control mode page, SPC-4 §7.5.8.
#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct Control {
    code: u8,
    length: u8,
    /// TST 0: one task set for all; D_SENSE; GLTSD 02h: nothing is logged.
    sense: u8,
    /// Queue algorithm modifier 1: commands may be reordered.
    queueing: u8,
    protect: u8,
    /// TAS 0.
    aborts: u8,
    obsolete: U16,
    /// FFFFh: busy for an unlimited time.
    busy_timeout: U16,
    self_test_seconds: U16,
}
const _: () = assert!(size_of::<Control>() == 12);

/// Control extension page, SPC-4 §7.5.9.
#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct ControlExtension {
    code: u8,
    subpage: u8,
    length: U16,
    /// IALUAE 01h: implicit asymmetric access.
    flags: u8,
    priority: u8,
    max_sense: u8,
    reserved: [u8; 25],
}
const _: () = assert!(size_of::<ControlExtension>() == 32);

/// A page's number: page code and subpage.
pub(crate) type PageCode = (u8, u8);

/// Every page, in the order in which page 3Fh returns them.
const PAGES: [PageCode; 5] = [(0x01, 0), (0x08, 0), (0x0a, 0), (0x0a, 1), (0x1c, 0)];

/// A page as it would be in this mode.
pub(crate) fn page(code: PageCode, mode: Mode, geometry: &Geometry) -> Vec<u8> {
    match code {
        // AWRE and ARRE: what is unreadable here is read from the partner and mended.
        (0x01, _) => fill::<12>(&[0x01, 0x0a, 0xc0]),
        (0x08, _) => fill::<20>(&[0x08, 0x12, if geometry.write_cache { WCE } else { 0 }]),
        (0x0a, 0) => {
            let page = Control {
                code: 0x0a,
                length: 0x0a,
                sense: 0x02 | if mode.descriptor_sense { D_SENSE } else { 0 },
                queueing: 0x10,
                protect: if mode.write_protect { SWP } else { 0 },
                aborts: 0,
                obsolete: U16::ZERO,
                busy_timeout: U16::new(0xffff),
                self_test_seconds: U16::ZERO,
            };
            page.as_bytes().to_vec()
        }
        (0x0a, _) => {
            let page = ControlExtension {
                code: 0x4a,
                subpage: 0x01,
                length: U16::new(28),
                flags: 0x01,
                priority: 0,
                max_sense: 0,
                reserved: [0; 25],
            };
            page.as_bytes().to_vec()
        }
        // DEXCPT: no exceptions are predicted.
        _ => fill::<12>(&[0x1c, 0x0a, 0x08]),
    }
}

/// The mask of bits in a page that MODE SELECT may change; its header is the page's own.
pub(crate) fn changeable(code: PageCode, geometry: &Geometry) -> Vec<u8> {
    let mut mask = page(code, Mode::default(), geometry);
    let header = header_length(code);
    mask[header..].fill(0);
    if code == (0x0a, 0) {
        mask[2] = D_SENSE;
        mask[4] = SWP;
    }
    mask
}

/// Bytes before a page's parameters: subpages have two more.
pub(crate) fn header_length(code: PageCode) -> usize {
    if code.1 == 0 { 2 } else { 4 }
}

/// Is there such a page?
pub(crate) fn exists(code: PageCode) -> bool {
    PAGES.contains(&code)
}

fn fill<const N: usize>(start: &[u8]) -> Vec<u8> {
    let mut page = start.to_vec();
    page.resize(N, 0);
    page
}

/// MODE SENSE(6) and (10). WP is set while writes are refused for any reason; DPOFUA always is.
pub(crate) fn mode_sense(geometry: &Geometry, mode: Mode, cdb: &Cdb) -> Result<Step, Sense> {
    let short = cdb[0] == 0x1a;
    let (long_blocks, allocation) = if short {
        (false, u16::from(view::<ModeSense6Cdb>(cdb).allocation))
    } else {
        let cdb: &ModeSense10Cdb = view(cdb);
        (cdb.flags & 0x10 != 0, cdb.allocation.get())
    };
    let pages = requested_pages(geometry, mode, cdb[2], cdb[3])?;
    let blocks = match (cdb[1] & 0x08 != 0, long_blocks) {
        (true, _) => Vec::new(),
        (false, false) => short_descriptor(geometry),
        (false, true) => long_descriptor(geometry),
    };
    let device = 0x10
        | if geometry.read_only || mode.write_protect {
            0x80
        } else {
            0
        };
    let block_bytes = u8::try_from(blocks.len()).expect("a block descriptor has 8 or 16 bytes");
    let content = blocks.len() + pages.len();
    let mut data = if short {
        let length = u8::try_from(3 + content).expect("all pages together are below 255 bytes");
        vec![length, 0, device, block_bytes]
    } else {
        let length = u16::try_from(6 + content).expect("all pages together are below 255 bytes");
        let [high, low] = length.to_be_bytes();
        vec![
            high,
            low,
            0,
            device,
            u8::from(long_blocks && block_bytes > 0),
            0,
            0,
            block_bytes,
        ]
    };
    data.extend_from_slice(&blocks);
    data.extend_from_slice(&pages);
    Ok(Step::data(data, allocation))
}

/// The pages asked for. `selection` is page control and page code.
fn requested_pages(
    geometry: &Geometry,
    mode: Mode,
    selection: u8,
    subpage: u8,
) -> Result<Vec<u8>, Sense> {
    let wanted = |code: &PageCode| match (selection & 0x3f, subpage) {
        (0x3f, 0x00) => code.1 == 0,
        (0x3f, 0xff) => true,
        (page, 0xff) => code.0 == page,
        exact => *code == exact,
    };
    let mut data = Vec::new();
    for code in PAGES.iter().copied().filter(wanted) {
        match selection >> 6 {
            0 => data.extend_from_slice(&page(code, mode, geometry)),
            1 => data.extend_from_slice(&changeable(code, geometry)),
            2 => data.extend_from_slice(&page(code, Mode::default(), geometry)),
            _ => return Err(Sense::SAVING_UNSUPPORTED),
        }
    }
    if !data.is_empty() {
        return Ok(data);
    }
    // A known page with an unknown subpage: the subpage is what is wrong.
    let known = PAGES.iter().any(|code| code.0 == selection & 0x3f) || selection & 0x3f == 0x3f;
    Err(if known {
        Sense::cdb_field(3)
    } else {
        Sense::cdb_field(2)
    })
}

/// Short block descriptor, SBC-3 §6.5.2.2.
fn short_descriptor(geometry: &Geometry) -> Vec<u8> {
    let blocks = u32::try_from(geometry.blocks).unwrap_or(u32::MAX);
    let mut data = U32::new(blocks).as_bytes().to_vec();
    // A reserved byte, then 24 bits: block sizes have no more.
    data.extend_from_slice(&geometry.block_size.to_be_bytes());
    data
}

/// Long block descriptor, SBC-3 §6.5.2.3.
fn long_descriptor(geometry: &Geometry) -> Vec<u8> {
    let mut data = U64::new(geometry.blocks).as_bytes().to_vec();
    data.extend_from_slice(&[0; 4]);
    data.extend_from_slice(&geometry.block_size.to_be_bytes());
    data
}
