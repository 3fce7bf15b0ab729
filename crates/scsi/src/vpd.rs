//! Vital product data pages: identification, limits, provisioning (SPC-4 §7.8, SBC-3 §6.6).

use crate::inquiry::VENDOR;
use crate::interface::{Geometry, Identity, Port};
use crate::limits::{
    MAX_TRANSFER_BYTES, MAX_UNMAP_BYTES, MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BYTES,
    OPTIMAL_TRANSFER_BYTES,
};
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// All pages, sorted as page 00 lists them.
const PAGES: [u8; 7] = [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2];

/// Page 83 stays below this, or old initiators read only its first byte of length.
const MAX_IDENTIFICATION: usize = 255;

/// A page with its header, or nothing if there is none of that number.
pub(crate) fn page(
    page: u8,
    identity: &Identity,
    geometry: &Geometry,
    port: Port,
) -> Option<Vec<u8>> {
    let body = match page {
        0x00 => PAGES.to_vec(),
        0x80 => serial(identity).to_vec(),
        0x83 => identification(identity, port),
        0x86 => extended(geometry).to_vec(),
        0xb0 => BlockLimits::of(geometry).as_bytes().to_vec(),
        0xb1 => characteristics().to_vec(),
        0xb2 => provisioning(geometry).to_vec(),
        _ => return None,
    };
    let length = u8::try_from(body.len()).expect("no page is longer than 255 bytes");
    let mut data = vec![0, page, 0, length];
    data.extend_from_slice(&body);
    Some(data)
}

/// The unit serial number: the UUID as 32 lower-case hex digits.
fn serial(identity: &Identity) -> [u8; 32] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut serial = [0; 32];
    let mut rest = identity.uuid;
    for digit in serial.iter_mut().rev() {
        let nibble = usize::try_from(rest & 0xf).expect("four bits fit");
        *digit = DIGITS[nibble];
        rest >>= 4;
    }
    serial
}

/// The logical unit's NAA 6 designator (SPC-4 §7.8.6.6.5): the nibble 6, then the UUID's 32 hex
/// digits without the 13th. That one is the UUID's version, the same in every UUID of ours, so
/// two volumes never share a designator. The 24 bits of company id are UUID bits too.
fn naa(identity: &Identity) -> [u8; 16] {
    let before_version = identity.uuid >> 80;
    let after_version = identity.uuid & ((1 << 76) - 1);
    (6 << 124 | before_version << 76 | after_version).to_be_bytes()
}

/// Page 83. The NAA designator comes first, for tools that take the first they find; then T10
/// vendor id, the port's number, its group, and the target's name. Only port and group depend on
/// where the command came in.
fn identification(identity: &Identity, port: Port) -> Vec<u8> {
    let mut body = Vec::new();
    designator(&mut body, [0x01, 0x03], &naa(identity));
    let mut t10 = VENDOR.to_vec();
    t10.extend_from_slice(&serial(identity));
    designator(&mut body, [0x02, 0x01], &t10);
    designator(&mut body, [0x51, 0x94], &with_padding(port.relative));
    designator(&mut body, [0x51, 0x95], &with_padding(port.group));
    let name = name_string(identity.target_name.as_bytes());
    // A name too long for the page is left out; nothing depends on this designator.
    if 4 + body.len() + 4 + name.len() < MAX_IDENTIFICATION {
        designator(&mut body, [0x53, 0xa8], &name);
    }
    body
}

/// Protocol and code set, association and type, length, value (SPC-4 table 530).
fn designator(body: &mut Vec<u8>, kind: [u8; 2], value: &[u8]) {
    let length = u8::try_from(value.len()).expect("a designator is shorter than its page");
    body.extend_from_slice(&[kind[0], kind[1], 0, length]);
    body.extend_from_slice(value);
}

fn with_padding(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [0, 0, high, low]
}

/// A SCSI name string: at least one NUL at the end, a multiple of four in all.
fn name_string(name: &[u8]) -> Vec<u8> {
    let mut value = name.to_vec();
    value.resize((name.len() + 4) & !3, 0);
    value
}

/// Extended INQUIRY data: SIMPLE tasks only (SIMPSUP), and whether there is a volatile cache.
fn extended(geometry: &Geometry) -> [u8; 60] {
    let mut body = [0; 60];
    body[1] = 0x01;
    body[2] = u8::from(geometry.write_cache);
    body
}

/// Block limits, SBC-3 §6.6.3, without the page header.
#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct BlockLimits {
    /// WSNZ=0: WRITE SAME of zero blocks reaches to the end.
    write_same_nonzero: u8,
    max_compare_and_write: u8,
    granularity: U16,
    max_transfer: U32,
    optimal_transfer: U32,
    max_prefetch: U32,
    max_unmap_blocks: U32,
    max_unmap_descriptors: U32,
    unmap_granularity: U32,
    /// UGAVALID 80000000h and the alignment, zero.
    unmap_alignment: U32,
    max_write_same: U64,
    reserved: [u8; 20],
}
const _: () = assert!(size_of::<BlockLimits>() == 60);

impl BlockLimits {
    fn of(geometry: &Geometry) -> Self {
        let blocks = |bytes: u32| bytes / geometry.block_size;
        let physical = 1_u16 << (geometry.physical_exponent & 0x0f);
        let thin = |value: u32| U32::new(if geometry.unmap { value } else { 0 });
        Self {
            write_same_nonzero: 0,
            max_compare_and_write: 0,
            granularity: U16::new(physical),
            max_transfer: U32::new(blocks(MAX_TRANSFER_BYTES)),
            optimal_transfer: U32::new(blocks(OPTIMAL_TRANSFER_BYTES)),
            max_prefetch: U32::ZERO,
            max_unmap_blocks: thin(blocks(MAX_UNMAP_BYTES)),
            max_unmap_descriptors: thin(u32::from(MAX_UNMAP_DESCRIPTORS)),
            unmap_granularity: thin(u32::from(physical)),
            unmap_alignment: thin(0x8000_0000),
            max_write_same: U64::from(u64::from(blocks(MAX_WRITE_SAME_BYTES))),
            reserved: [0; 20],
        }
    }
}

/// Block device characteristics: rotation rate 1, which means that nothing rotates.
fn characteristics() -> [u8; 60] {
    let mut body = [0; 60];
    body[1] = 0x01;
    body
}

/// Logical block provisioning: LBPU, LBPWS, LBPWS10, LBPRZ and "thin", or nothing of it.
fn provisioning(geometry: &Geometry) -> [u8; 4] {
    if geometry.unmap {
        [0, 0xe4, 0x02, 0]
    } else {
        [0; 4]
    }
}
