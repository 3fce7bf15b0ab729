//! One logical unit with all its nexuses: takes CDBs, says what they mean.
//! The order of checks is the initiators' contract: unit attention, opcode, ALUA state, write
//! protection, then the command's own fields, range and length.

use crate::cdb::{Cdb, padded};
use crate::interface::{
    AccessState, Answer, Geometry, Identity, Outcome, Port, PortGroup, ResetCause, Step,
};
use crate::mode::{Mode, mode_sense};
use crate::mode_select::{mode_select, mode_select_list};
use crate::no_lun::request_sense;
use crate::opcodes::{Command, Entry, find};
use crate::sense::Sense;
use crate::unit_attention::{Queue, UnitAttention};
use crate::{
    capacity, defects, inquiry, provisioning, read_write, report, report_opcodes, start_stop,
};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// The kind of a replicated SCSI state that holds the mode pages, for `Disk::take_state`.
pub const STATE_MODE: u16 = 1;

/// An initiator's session with this disk.
#[derive(Debug)]
struct Nexus {
    initiator: String,
    attentions: Queue,
}

/// A change of the mode pages on its way to both nodes, and who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    mode: Mode,
    /// None: a reset brings the defaults back.
    by: Option<u32>,
}

/// One logical unit.
#[derive(Debug)]
pub struct Disk {
    identity: Identity,
    geometry: Geometry,
    mode: Mode,
    groups: Vec<PortGroup>,
    /// A port group has changed since the disk came up.
    groups_changed: bool,
    /// LUNs of the target, as REPORT LUNS lists them.
    luns: Vec<u8>,
    nexuses: BTreeMap<u32, Nexus>,
    /// Decided, not yet taken by `take_state`.
    wanted: Option<Change>,
    /// Taken, not yet seen by `apply_state`.
    sequenced: Option<Change>,
}

impl Disk {
    /// A disk that answers through no port yet (02/04/0C) until `set_port_groups`.
    ///
    /// # Panics
    /// If the geometry has no blocks or a block size other than 512 or 4096.
    pub fn new(identity: Identity, geometry: Geometry) -> Self {
        assert!(geometry.blocks > 0, "a disk has at least one block");
        assert!(
            matches!(geometry.block_size, 512 | 4096),
            "a block has 512 or 4096 bytes"
        );
        Self {
            identity,
            geometry,
            mode: Mode::default(),
            groups: Vec::new(),
            groups_changed: false,
            luns: vec![0],
            nexuses: BTreeMap::new(),
            wanted: None,
            sequenced: None,
        }
    }

    /// A session begins; its first command hears 29/00.
    pub fn nexus_up(&mut self, nexus: u32, initiator: &str) {
        let mut attentions = Queue::default();
        attentions.raise(UnitAttention::PowerOn);
        self.nexuses.insert(
            nexus,
            Nexus {
                initiator: initiator.into(),
                attentions,
            },
        );
    }

    /// A session ended.
    pub fn nexus_down(&mut self, nexus: u32) {
        self.nexuses.remove(&nexus);
    }

    /// Every nexus with its initiator's name.
    pub fn nexuses(&self) -> impl Iterator<Item = (u32, &str)> {
        self.nexuses
            .iter()
            .map(|(nexus, state)| (*nexus, state.initiator.as_str()))
    }

    /// Something was reset by nexus `by`. A reset of the unit or the target also takes the mode
    /// pages back to their defaults: look at `take_state` afterwards.
    pub fn reset(&mut self, cause: ResetCause, by: u32) {
        match cause {
            ResetCause::LogicalUnit => self.raise(UnitAttention::LogicalUnitReset, None),
            ResetCause::Target => self.raise(UnitAttention::TargetReset, None),
            ResetCause::TasksCleared => self.raise(UnitAttention::CommandsCleared, Some(by)),
            ResetCause::NexusLost => {
                if let Some(nexus) = self.nexuses.get_mut(&by) {
                    nexus.attentions.raise(UnitAttention::NexusLost);
                }
            }
        }
        if matches!(cause, ResetCause::LogicalUnit | ResetCause::Target) {
            let is_default = self.mode == Mode::default();
            self.wanted = (!is_default).then_some(Change {
                mode: Mode::default(),
                by: None,
            });
        }
    }

    /// All port groups, of both nodes. Any change raises 2A/06 for every nexus.
    pub fn set_port_groups(&mut self, groups: Vec<PortGroup>) {
        if self.groups == groups {
            return;
        }
        self.groups_changed |= !self.groups.is_empty();
        self.groups = groups;
        self.raise(UnitAttention::AccessStateChanged, None);
    }

    /// All LUNs of the target, for REPORT LUNS. A change raises 3F/0E. LUN 0 alone until set.
    pub fn set_luns(&mut self, luns: Vec<u8>) {
        if self.luns != luns {
            self.luns = luns;
            self.raise(UnitAttention::LunsChanged, None);
        }
    }

    /// The disk has another size, on both nodes already. Raises 2A/09.
    ///
    /// # Panics
    /// If there are no blocks.
    pub fn resize(&mut self, blocks: u64) {
        assert!(blocks > 0, "a disk has at least one block");
        if self.geometry.blocks != blocks {
            self.geometry.blocks = blocks;
            self.raise(UnitAttention::CapacityChanged, None);
        }
    }

    /// Size and shape as they are now.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What a command means. `expected`: bytes that the initiator is ready to send or receive.
    pub fn command(&mut self, nexus: u32, port: Port, cdb: &[u8], expected: u32) -> Step {
        let cdb = padded(cdb);
        let step = self
            .admit(nexus, port, &cdb)
            .and_then(|entry| self.begin(entry.command, nexus, port, &cdb, expected));
        self.settled(step)
    }

    /// The parameter list that `Step::Parameters` asked for, of the same command. State and
    /// protection may have changed while it came, so both are looked at again.
    pub fn parameters(&mut self, nexus: u32, port: Port, cdb: &[u8], list: &[u8]) -> Step {
        let cdb = padded(cdb);
        let step = find(&self.geometry, &cdb).and_then(|entry| {
            self.check_admission(entry, port)?;
            self.parameters_of(entry.command, nexus, &cdb, list)
        });
        self.settled(step)
    }

    /// How an operation ended, in the initiator's terms and sense format.
    pub fn finish(&self, _nexus: u32, outcome: Outcome) -> Answer {
        Answer::outcome(outcome, self.mode.sense_format())
    }

    /// A change of SCSI state that both nodes must have before the command that made it is
    /// answered: its kind and its bytes. Look here after `parameters` and after `reset`.
    pub fn take_state(&mut self) -> Option<(u16, Vec<u8>)> {
        let change = self.wanted.take()?;
        self.sequenced = Some(change);
        Some((STATE_MODE, change.mode.encode()))
    }

    /// The whole SCSI state as it is now, for a partner that joins.
    pub fn state(&self) -> Vec<(u16, Vec<u8>)> {
        vec![(STATE_MODE, self.mode.encode())]
    }

    /// A change of either node was committed. Every nexus but the one that asked hears 2A/01.
    /// Kinds and encodings of a later version are left alone.
    pub fn apply_state(&mut self, kind: u16, bytes: &[u8]) {
        if kind != STATE_MODE {
            return;
        }
        let Some(mode) = Mode::decode(bytes) else {
            return;
        };
        let by = self
            .sequenced
            .take_if(|change| change.mode == mode)
            .and_then(|change| change.by);
        if self.mode != mode {
            self.mode = mode;
            self.raise(UnitAttention::ModeChanged, by);
        }
    }

    /// Unit attention, opcode, control byte, then what depends on the port and the protection.
    fn admit(&mut self, nexus: u32, port: Port, cdb: &Cdb) -> Result<&'static Entry, Sense> {
        let found = find(&self.geometry, cdb);
        let exempt = found.is_ok_and(|entry| {
            matches!(
                entry.command,
                Command::Inquiry | Command::ReportLuns | Command::RequestSense
            )
        });
        if !exempt && let Some(attention) = self.next_attention(nexus) {
            return Err(attention);
        }
        let entry = found?;
        entry.check_control(cdb)?;
        self.check_admission(entry, port)?;
        Ok(entry)
    }

    fn check_admission(&self, entry: &Entry, port: Port) -> Result<(), Sense> {
        entry.check_access(self.access_state(port))?;
        if entry.writes && (self.geometry.read_only || self.mode.write_protect) {
            return Err(Sense::WRITE_PROTECTED);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        command: Command,
        nexus: u32,
        port: Port,
        cdb: &Cdb,
        expected: u32,
    ) -> Result<Step, Sense> {
        let geometry = &self.geometry;
        match command {
            Command::TestUnitReady => Ok(Step::good()),
            Command::RequestSense => {
                let sense = self.next_attention(nexus).unwrap_or(Sense::NONE);
                Ok(request_sense(cdb, sense))
            }
            Command::Inquiry => inquiry::inquiry(&self.identity, geometry, port, cdb),
            Command::ModeSelect => mode_select(cdb),
            Command::ModeSense => mode_sense(geometry, self.mode, cdb),
            Command::StartStopUnit => start_stop::start_stop(geometry, cdb),
            Command::ReadCapacity10 => capacity::read_capacity_10(geometry, cdb),
            Command::ReadCapacity16 => capacity::read_capacity_16(geometry, cdb),
            Command::Read => read_write::read(geometry, cdb),
            Command::Write => read_write::write(geometry, cdb),
            Command::Verify => read_write::verify(geometry, cdb),
            Command::Prefetch => read_write::prefetch(geometry, cdb),
            Command::SynchronizeCache => read_write::synchronize_cache(geometry, cdb),
            Command::WriteSame => provisioning::write_same(geometry, cdb, expected),
            Command::Unmap => provisioning::unmap(cdb),
            Command::ReadDefectData10 => Ok(defects::read_defect_data_10(cdb)),
            Command::ReadDefectData12 => Ok(defects::read_defect_data_12(cdb)),
            Command::ReportLuns => self.report_luns(nexus, cdb),
            Command::ReportTargetPortGroups => {
                report::report_port_groups(cdb, &self.groups, self.groups_changed)
            }
            Command::ReportOpcodes => report_opcodes::report_opcodes(geometry, cdb),
            Command::ReportTaskManagement => report::report_task_management(cdb),
        }
    }

    fn parameters_of(
        &mut self,
        command: Command,
        nexus: u32,
        cdb: &Cdb,
        list: &[u8],
    ) -> Result<Step, Sense> {
        match command {
            Command::Unmap => provisioning::unmap_list(&self.geometry, cdb, list),
            Command::ModeSelect => {
                let mode = mode_select_list(&self.geometry, self.mode, cdb, list)?;
                if mode != self.mode {
                    self.wanted = Some(Change {
                        mode,
                        by: Some(nexus),
                    });
                }
                Ok(Step::good())
            }
            other => unreachable!("{other:?} has no parameter list"),
        }
    }

    /// The answer carries the news of 3F/0E, so it need not be told again.
    fn report_luns(&mut self, nexus: u32, cdb: &Cdb) -> Result<Step, Sense> {
        let step = report::report_luns(cdb, &self.luns)?;
        if let Some(nexus) = self.nexuses.get_mut(&nexus) {
            nexus.attentions.forget(UnitAttention::LunsChanged);
        }
        Ok(step)
    }

    /// The state of the group that the port is in; a port that nobody has placed serves nothing.
    fn access_state(&self, port: Port) -> AccessState {
        let group = self.groups.iter().find(|group| group.group == port.group);
        group.map_or(AccessState::Unavailable, |group| group.state)
    }

    fn next_attention(&mut self, nexus: u32) -> Option<Sense> {
        let attention = self.nexuses.get_mut(&nexus)?.attentions.take()?;
        Some(attention.sense())
    }

    fn raise(&mut self, attention: UnitAttention, except: Option<u32>) {
        for (nexus, state) in &mut self.nexuses {
            if Some(*nexus) != except {
                state.attentions.raise(attention);
            }
        }
    }

    fn settled(&self, step: Result<Step, Sense>) -> Step {
        step.unwrap_or_else(|sense| Step::Answer(Answer::check(sense, self.mode.sense_format())))
    }
}

#[cfg(test)]
mod tests;
