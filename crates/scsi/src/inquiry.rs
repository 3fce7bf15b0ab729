//! INQUIRY: who the disk is (SPC-4 §6.6). The bytes are an initiator's key to its configuration
//! and never change: not with the node, not with a failover, not with the software's version.

use crate::cdb::{Cdb, view};
use crate::interface::{Geometry, Identity, Port, Step};
use crate::sense::Sense;
use crate::vpd;
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// T10 vendor identification.
pub(crate) const VENDOR: [u8; 8] = *b"LOCKSTEP";
/// Product identification.
pub(crate) const PRODUCT: [u8; 16] = *b"MIRRORED VOLUME ";
/// Product revision level: fixed, whatever the software's version.
pub(crate) const REVISION: [u8; 4] = *b"1   ";

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct InquiryCdb {
    opcode: u8,
    /// EVPD 01h; CMDDT 02h is obsolete.
    flags: u8,
    page: u8,
    allocation: U16,
    control: u8,
}
const _: () = assert!(size_of::<InquiryCdb>() == 6);

/// Standard INQUIRY data, SPC-4 table 178.
#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct Standard {
    /// Qualifier and device type: 00h a disk, 1Eh a well known logical unit, 7Fh nothing here.
    peripheral: u8,
    removable: u8,
    /// 06h: SPC-4.
    version: u8,
    /// HISUP 10h, response data format 2.
    format: u8,
    additional_length: u8,
    /// TPGS 10h: implicit asymmetric access.
    access: u8,
    /// MULTIP 10h: several ports.
    ports: u8,
    /// CMDQUE 02h.
    queueing: u8,
    vendor: [u8; 8],
    product: [u8; 16],
    revision: [u8; 4],
    vendor_specific: [u8; 20],
    clocking: u8,
    reserved: u8,
    versions: [U16; 8],
    reserved2: [u8; 22],
}
const _: () = assert!(size_of::<Standard>() == 96);

/// SAM-5, iSCSI, SPC-4, SBC-3, none claiming a certain revision.
const VERSIONS: [u16; 4] = [0x00a0, 0x0960, 0x0460, 0x04c0];

/// What sits at a LUN, as far as INQUIRY tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peripheral {
    Disk,
    WellKnown,
    Nothing,
}

/// The disk's INQUIRY, standard or a page.
pub(crate) fn inquiry(
    identity: &Identity,
    geometry: &Geometry,
    port: Port,
    cdb: &Cdb,
) -> Result<Step, Sense> {
    match requested(cdb)? {
        (None, allocation) => Ok(Step::data(standard(Peripheral::Disk).to_vec(), allocation)),
        (Some(page), allocation) => {
            let data =
                vpd::page(page, identity, geometry, port).ok_or(const { Sense::cdb_field(2) })?;
            Ok(Step::data(data, allocation))
        }
    }
}

/// The page asked for (none: standard data) and the allocation length.
pub(crate) fn requested(cdb: &Cdb) -> Result<(Option<u8>, U16), Sense> {
    let cdb: &InquiryCdb = view(cdb);
    match (cdb.flags & 3, cdb.page) {
        (0, 0) => Ok((None, cdb.allocation)),
        (0, _) => Err(Sense::cdb_field(2)),
        (1, page) => Ok((Some(page), cdb.allocation)),
        _ => Err(Sense::cdb_field(1)),
    }
}

/// Standard INQUIRY data.
pub(crate) fn standard(peripheral: Peripheral) -> [u8; 96] {
    let mut versions = [U16::ZERO; 8];
    for (slot, version) in versions.iter_mut().zip(VERSIONS) {
        *slot = U16::new(version);
    }
    let data = Standard {
        peripheral: match peripheral {
            Peripheral::Disk => 0x00,
            Peripheral::WellKnown => 0x1e,
            Peripheral::Nothing => 0x7f,
        },
        removable: 0,
        version: 0x06,
        format: 0x12,
        additional_length: 96 - 5,
        access: if peripheral == Peripheral::Disk {
            0x10
        } else {
            0
        },
        ports: 0x10,
        queueing: 0x02,
        vendor: VENDOR,
        product: PRODUCT,
        revision: REVISION,
        vendor_specific: [0; 20],
        clocking: 0,
        reserved: 0,
        versions,
        reserved2: [0; 22],
    };
    zerocopy::transmute!(data)
}
