//! What the session layer says: commands, sessions that begin and end, resets, and what is sent.

use super::tasks::{NOBODY, lun_number};
use super::{Nexus, Shard, VolumeSlot, count, index};
use crate::interface::{Action, Body, FromShard, Head, SessionInfo};
use alloc::vec::Vec;
use lockstep_iscsi::interface::{
    Body as SessionBody, ConnId, Head as SessionHead, NexusId, Output, Reset, TargetId,
};
use lockstep_mirror::control::Time;
use lockstep_mirror::operation::Operation;
use lockstep_scsi::interface::ResetCause;

impl Shard {
    pub(super) fn session_output(&mut self, now: Time, output: Output, actions: &mut Vec<Action>) {
        match output {
            Output::Send { conn, head, body } => self.send_pdu(conn, &head, body, actions),
            Output::Close { conn } => {
                self.mark_closing(conn);
                actions.push(Action::Close { conn });
            }
            Output::Command(command) => self.command(now, &command, actions),
            Output::DataIn { task, crc } => self.data_complete(now, task, crc, actions),
            Output::Abort { task } => self.abort(now, task),
            Output::Reset {
                nexus,
                target,
                lun,
                reset,
            } => self.reset(now, nexus, target, lun, reset),
            Output::NexusUp {
                nexus,
                target,
                conn,
                initiator,
                portal,
                peer,
                ..
            } => {
                for slot in self
                    .volumes
                    .iter_mut()
                    .filter(|slot| slot.live && slot.settings.target == target.0)
                {
                    slot.disk.nexus_up(nexus.0, &initiator);
                }
                self.nexuses.insert(
                    nexus,
                    Nexus {
                        conn,
                        target,
                        initiator,
                        portal,
                        peer,
                        tasks: 0,
                    },
                );
                self.initiator_seen(now, target);
            }
            Output::NexusDown { nexus, .. } => {
                for slot in &mut self.volumes {
                    slot.disk.nexus_down(nexus.0);
                }
                self.nexuses.remove(&nexus);
                if self.logging_out && self.nexuses.is_empty() {
                    self.logging_out = false;
                    actions.push(Action::Report(FromShard::LoggedOut));
                }
            }
            Output::Alive { target, .. } => self.initiator_seen(now, target),
            Output::Note { text } => {
                if self.notes < super::MAX_NOTES_A_PERIOD {
                    self.notes += 1;
                    actions.push(Action::Report(FromShard::Note(text)));
                }
            }
        }
    }

    /// An initiator of the target reaches this node now: its volumes may say that they are wanted.
    pub(super) fn initiator_seen(&mut self, now: Time, target: TargetId) {
        for index in 0..self.volumes.len() {
            let slot = &self.volumes[index];
            if slot.live && slot.settings.target == target.0 {
                self.mirror(index, |volume, out| volume.initiator_seen(now, out));
            }
        }
    }

    pub(super) fn send_pdu(
        &mut self,
        conn: ConnId,
        pdu: &SessionHead,
        body: SessionBody,
        actions: &mut Vec<Action>,
    ) {
        let body = match body {
            SessionBody::None => Body::None,
            SessionBody::Bytes(bytes) => Body::Bytes(bytes),
            SessionBody::Data {
                task,
                offset,
                len,
                digest,
            } => {
                let buffer = self
                    .task(task)
                    .and_then(|task| task.buffer)
                    .expect("data is sent by tasks that read it");
                self.pool.retain(buffer);
                Body::Blocks {
                    buffer,
                    at: offset,
                    len,
                    pad: true,
                    digest,
                }
            }
        };
        let mut head = Head {
            bytes: [0; 192],
            len: pdu.len,
        };
        head.bytes[..pdu.bytes.len()].copy_from_slice(&pdu.bytes);
        actions.push(Action::Send { conn, head, body });
    }

    pub(super) fn reset(
        &mut self,
        now: Time,
        nexus: NexusId,
        target: TargetId,
        lun: [u8; 8],
        reset: Reset,
    ) {
        let cause = match reset {
            Reset::TaskSet { others: false } => return,
            Reset::TaskSet { others: true } => ResetCause::TasksCleared,
            Reset::LogicalUnit => ResetCause::LogicalUnit,
            Reset::TargetWarm | Reset::TargetCold => ResetCause::Target,
        };
        let whole = matches!(reset, Reset::TargetWarm | Reset::TargetCold);
        let number = lun_number(lun);
        let concerned = |slot: &&mut VolumeSlot| {
            slot.live
                && slot.settings.target == target.0
                && (whole || Some(slot.settings.lun) == number)
        };
        for slot in self.volumes.iter_mut().filter(concerned) {
            slot.disk.reset(cause, nexus.0);
        }
        // A reset takes the mode pages back to their defaults, on both nodes; nobody waits for it.
        for number in 0..self.volumes.len() {
            if self.volumes[number].live
                && let Some((kind, bytes)) = self.volumes[number].disk.take_state()
            {
                let operation = Operation::State {
                    kind,
                    bytes: bytes.into(),
                };
                self.mirror(number, |mirror, out| {
                    mirror.submit(now, NOBODY, operation, out)
                });
            }
        }
    }

    /// The LUNs of a target, ascending.
    pub(super) fn luns_of(&self, target: u32) -> Vec<u8> {
        self.luns
            .range((target, 0)..=(target, u8::MAX))
            .map(|(&(_, lun), _)| lun)
            .collect()
    }

    /// Node number × 256 + portal (see "Identity" in docs/wire-format.md).
    pub(super) fn relative_port(&self, nexus: NexusId) -> u16 {
        let portal = self.nexuses.get(&nexus).map_or(0, |nexus| nexus.portal);
        self.settings.group * 256 + portal.min(255)
    }

    pub(super) fn session_list(&self) -> Vec<SessionInfo> {
        let describe = |nexus: &Nexus| SessionInfo {
            initiator: nexus.initiator.clone(),
            target: nexus.target.0,
            peer: nexus.peer,
            portal: nexus.portal,
            tasks: count(index(nexus.tasks)),
        };
        self.nexuses.values().map(describe).collect()
    }
}
