//! REPORT LUNS, REPORT TARGET PORT GROUPS and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
//! (SPC-4 §6.33, §6.37, §6.36).

use crate::cdb::{Cdb, view};
use crate::interface::{AccessState, PortGroup, Step};
use crate::sense::Sense;
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// REPORT LUNS, and the maintenance commands with a service action in byte 1.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReportCdb {
    opcode: u8,
    /// Service action; its upper three bits are REPORT TARGET PORT GROUPS' data format.
    action: u8,
    /// SELECT REPORT, or REPD 80h.
    option: u8,
    reserved: [u8; 3],
    allocation: U32,
    reserved2: u8,
    control: u8,
}
const _: () = assert!(size_of::<ReportCdb>() == 12);

/// The REPORT LUNS well known logical unit (SAM-5 §4.6.12).
const WELL_KNOWN: [u8; 8] = [0xc1, 0x01, 0, 0, 0, 0, 0, 0];

/// SELECT REPORT 0: logical units, 1: well known ones, 2: both.
pub(crate) fn report_luns(cdb: &Cdb, luns: &[u8]) -> Result<Step, Sense> {
    let cdb: &ReportCdb = view(cdb);
    if cdb.option > 2 {
        return Err(Sense::cdb_field(2));
    }
    if cdb.allocation.get() < 16 {
        return Err(Sense::cdb_field(6));
    }
    let mut list = Vec::new();
    if cdb.option != 0 {
        list.extend_from_slice(&WELL_KNOWN);
    }
    if cdb.option != 1 {
        for lun in luns {
            list.extend_from_slice(&[0, *lun, 0, 0, 0, 0, 0, 0]);
        }
    }
    let length = u32::try_from(list.len()).expect("a target has at most 256 logical units");
    let mut data = vec![0; 8];
    data[..4].copy_from_slice(&length.to_be_bytes());
    data.append(&mut list);
    Ok(Step::data(data, cdb.allocation))
}

/// One target port group descriptor, followed by its ports (SPC-4 table 310).
#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct GroupDescriptor {
    state: u8,
    /// T, U, S, AN and AO: every state that a node can be in.
    supported: u8,
    group: U16,
    reserved: u8,
    /// Why the state is as it is: 0 nothing to say, 2 changed by the device.
    status: u8,
    vendor_specific: u8,
    ports: u8,
}
const _: () = assert!(size_of::<GroupDescriptor>() == 8);

const SUPPORTED_STATES: u8 = 0x8f;
/// Seconds that an initiator shall wait for an implicit transition to end before it gives up.
const TRANSITION_SECONDS: u8 = 60;

/// `changed`: a state has changed since this disk came up.
pub(crate) fn report_port_groups(
    cdb: &Cdb,
    groups: &[PortGroup],
    changed: bool,
) -> Result<Step, Sense> {
    let cdb: &ReportCdb = view(cdb);
    let mut data = match cdb.action >> 5 {
        0 => vec![0; 4],
        1 => vec![0, 0, 0, 0, 0x10, TRANSITION_SECONDS, 0, 0],
        _ => return Err(Sense::cdb_field(1)),
    };
    for group in groups {
        let ports = u8::try_from(group.ports.len()).unwrap_or(u8::MAX);
        let descriptor = GroupDescriptor {
            state: state_code(group.state),
            supported: SUPPORTED_STATES,
            group: U16::new(group.group),
            reserved: 0,
            status: if changed { 2 } else { 0 },
            vendor_specific: 0,
            ports,
        };
        data.extend_from_slice(descriptor.as_bytes());
        for port in group.ports.iter().take(usize::from(ports)) {
            let [high, low] = port.to_be_bytes();
            data.extend_from_slice(&[0, 0, high, low]);
        }
    }
    let length = u32::try_from(data.len() - 4).unwrap_or(u32::MAX);
    data[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Step::data(data, cdb.allocation))
}

fn state_code(state: AccessState) -> u8 {
    match state {
        AccessState::Optimized => 0x0,
        AccessState::NonOptimized => 0x1,
        AccessState::Standby => 0x2,
        AccessState::Unavailable => 0x3,
        AccessState::Transitioning => 0xf,
    }
}

/// ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET.
const TASK_MANAGEMENT: u8 = 0x80 | 0x40 | 0x10 | 0x08 | 0x02;

pub(crate) fn report_task_management(cdb: &Cdb) -> Result<Step, Sense> {
    let cdb: &ReportCdb = view(cdb);
    if cdb.allocation.get() < 4 {
        return Err(Sense::cdb_field(6));
    }
    let mut data = vec![TASK_MANAGEMENT, 0, 0, 0];
    if cdb.option & 0x80 != 0 {
        // Extended data: twelve more bytes of time-outs, none of which is claimed.
        data[3] = 12;
        data.resize(16, 0);
    }
    Ok(Step::data(data, cdb.allocation))
}
