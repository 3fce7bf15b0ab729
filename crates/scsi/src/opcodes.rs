//! The table of commands: what is dispatched, what REPORT SUPPORTED OPERATION CODES lists, and
//! in which ALUA state and under which write protection each may run.

use crate::cdb::Cdb;
use crate::interface::{AccessState, Geometry};
use crate::sense::Sense;

/// A command that this disk knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    TestUnitReady,
    RequestSense,
    Inquiry,
    ModeSelect,
    ModeSense,
    StartStopUnit,
    ReadCapacity10,
    ReadCapacity16,
    Read,
    Write,
    Verify,
    Prefetch,
    SynchronizeCache,
    WriteSame,
    Unmap,
    ReadDefectData10,
    ReadDefectData12,
    ReportLuns,
    ReportTargetPortGroups,
    ReportOpcodes,
    ReportTaskManagement,
}

/// Where a command may run: on a port in any state, also in standby, or only where I/O is served
/// (SPC-4 §5.15.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Always,
    Standby,
    Active,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) command: Command,
    pub(crate) access: Access,
    /// Refused with 7/27/00 while the disk is write protected.
    pub(crate) writes: bool,
    /// The service action, for opcodes that have them.
    pub(crate) action: Option<u8>,
    /// CDB usage data (SPC-4 §6.35.3): opcode and service action as they are, every other bit set
    /// that is looked at. Its length is the CDB's.
    pub(crate) usage: &'static [u8],
}

impl Entry {
    pub(crate) fn opcode(&self) -> u8 {
        self.usage[0]
    }

    /// Offered on this disk? UNMAP is only where blocks can be given back.
    pub(crate) fn is_offered(&self, geometry: &Geometry) -> bool {
        geometry.unmap || self.command != Command::Unmap
    }

    /// Refuses NACA=1 (ACA is not offered, NORMACA=0).
    pub(crate) fn check_control(&self, cdb: &Cdb) -> Result<(), Sense> {
        let control = self.usage.len() - 1;
        if cdb[control] & NACA == 0 {
            return Ok(());
        }
        Err(Sense::cdb_field(
            u16::try_from(control).expect("a CDB has at most 16 bytes"),
        ))
    }

    /// Refuses what the port's state does not allow.
    pub(crate) fn check_access(&self, state: AccessState) -> Result<(), Sense> {
        match state {
            AccessState::Optimized | AccessState::NonOptimized => Ok(()),
            _ if self.access == Access::Always => Ok(()),
            AccessState::Standby if self.access == Access::Standby => Ok(()),
            AccessState::Standby => Err(Sense::STANDBY),
            AccessState::Unavailable => Err(Sense::UNAVAILABLE),
            AccessState::Transitioning => Err(Sense::TRANSITION),
        }
    }
}

/// The bit of the control byte that is looked at.
const NACA: u8 = 0x04;

/// Finds the row of a CDB: 5/20/00 for an unknown opcode, 5/24/00 for an unknown service action.
pub(crate) fn find(geometry: &Geometry, cdb: &Cdb) -> Result<&'static Entry, Sense> {
    let mut rows = rows(geometry, cdb[0]).peekable();
    if rows.peek().is_none() {
        return Err(Sense::INVALID_OPCODE);
    }
    rows.find(|entry| entry.action.is_none_or(|action| action == cdb[1] & 0x1f))
        .ok_or(const { Sense::cdb_field(1) })
}

/// All rows of an opcode that this disk offers.
pub(crate) fn rows(geometry: &Geometry, opcode: u8) -> impl Iterator<Item = &'static Entry> {
    let geometry = *geometry;
    TABLE
        .iter()
        .filter(move |entry| entry.opcode() == opcode && entry.is_offered(&geometry))
}

const fn row(command: Command, access: Access, usage: &'static [u8]) -> Entry {
    Entry {
        command,
        access,
        writes: false,
        action: None,
        usage,
    }
}

const fn write(command: Command, usage: &'static [u8]) -> Entry {
    Entry {
        command,
        access: Access::Active,
        writes: true,
        action: None,
        usage,
    }
}

const fn action(command: Command, access: Access, action: u8, usage: &'static [u8]) -> Entry {
    Entry {
        command,
        access,
        writes: false,
        action: Some(action),
        usage,
    }
}

/// Every command, in the order of opcodes. READ CAPACITY and MODE SENSE answer in standby too,
/// so that a path that comes up there gets its size and its cache type at once.
#[rustfmt::skip]
pub(crate) static TABLE: [Entry; 34] = [
    row(Command::TestUnitReady, Access::Active, &[0x00, 0, 0, 0, 0, NACA]),
    row(Command::RequestSense, Access::Always, &[0x03, 0x01, 0, 0, 0xff, NACA]),
    row(Command::Read, Access::Active, &[0x08, 0x1f, 0xff, 0xff, 0xff, NACA]),
    write(Command::Write, &[0x0a, 0x1f, 0xff, 0xff, 0xff, NACA]),
    row(Command::Inquiry, Access::Always, &[0x12, 0x03, 0xff, 0xff, 0xff, NACA]),
    row(Command::ModeSelect, Access::Active, &[0x15, 0x13, 0, 0, 0xff, NACA]),
    row(Command::ModeSense, Access::Standby, &[0x1a, 0x08, 0xff, 0xff, 0xff, NACA]),
    row(Command::StartStopUnit, Access::Active, &[0x1b, 0, 0, 0, 0xf7, NACA]),
    row(Command::ReadCapacity10, Access::Standby, &[0x25, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, NACA]),
    row(Command::Read, Access::Active, &[0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]),
    write(Command::Write, &[0x2a, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]),
    row(Command::Verify, Access::Active, &[0x2f, 0xf6, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]),
    row(Command::Prefetch, Access::Active, &[0x34, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]),
    row(Command::SynchronizeCache, Access::Active, &[0x35, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]),
    row(Command::ReadDefectData10, Access::Active, &[0x37, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, NACA]),
    write(Command::WriteSame, &[0x41, 0xfe, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, NACA]),
    write(Command::Unmap, &[0x42, 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, NACA]),
    row(Command::ModeSelect, Access::Active, &[0x55, 0x13, 0, 0, 0, 0, 0, 0xff, 0xff, NACA]),
    row(Command::ModeSense, Access::Standby, &[0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, NACA]),
    row(Command::Read, Access::Active, &[0x88, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    write(Command::Write, &[0x8a, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    row(Command::Verify, Access::Active, &[0x8f, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    row(Command::Prefetch, Access::Active, &[0x90, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    row(Command::SynchronizeCache, Access::Active, &[0x91, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    write(Command::WriteSame, &[0x93, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    action(Command::ReadCapacity16, Access::Standby, 0x10, &[0x9e, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, NACA]),
    row(Command::ReportLuns, Access::Always, &[0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    action(Command::ReportTargetPortGroups, Access::Always, 0x0a, &[0xa3, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    action(Command::ReportOpcodes, Access::Always, 0x0c, &[0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    action(Command::ReportTaskManagement, Access::Always, 0x0d, &[0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    row(Command::Read, Access::Active, &[0xa8, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    write(Command::Write, &[0xaa, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    row(Command::Verify, Access::Active, &[0xaf, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
    row(Command::ReadDefectData12, Access::Active, &[0xb7, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, NACA]),
];
