//! SCSI Commands: numbering, and what is wrong with them before anybody looks at the CDB.

use super::Endpoint;
use crate::connection::Receive;
use crate::interface::{Command, ConnId, Output, TaskId, Time};
use crate::pdu::{FINAL, NO_TAG, ScsiCommand, command_flags, reject_reason};
use crate::sequence::Arrival;
use crate::session::MAX_IMMEDIATE;
use crate::tasks::{Phase, Task};
use crate::transfer::{Fault, Transfer};
use alloc::vec::Vec;
use zerocopy::transmute;

/// SCSI status TASK SET FULL.
const TASK_SET_FULL: u8 = 0x28;
/// Additional header segment types, RFC 7143 §11.2.2.
const EXTENDED_CDB: u8 = 1;

impl Endpoint {
    pub(super) fn command(&mut self, now: Time, conn: ConnId, ahs: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let header: ScsiCommand = transmute!(connection.header);
        let length = header.data_length.get();
        // Whatever becomes of the command, its data must be passed over.
        connection.skip_segment(length);
        let logging_out = connection.logging_out;
        let Some(index) = connection.session() else {
            return;
        };
        let Some(session) = self.sessions[index as usize].as_mut() else {
            return;
        };
        let immediate = header.opcode & crate::pdu::IMMEDIATE != 0;
        if !immediate {
            match session.window.judge(header.cmd_sn.get()) {
                Arrival::Next => session.window.take(),
                Arrival::Ignored => return,
                Arrival::Gap => {
                    return self.protocol_error(now, conn, "commands out of order", out);
                }
            }
        }
        let refuse = if session.target.is_none() {
            // A discovery session has no logical units (RFC 7143 §4.3).
            Some(reject_reason::PROTOCOL)
        } else if logging_out {
            Some(reject_reason::WAITING_FOR_LOGOUT)
        } else if immediate && session.immediate >= MAX_IMMEDIATE {
            Some(reject_reason::TOO_MANY_IMMEDIATE)
        } else if session.task(header.task_tag.get()).is_some() {
            Some(reject_reason::TASK_IN_PROGRESS)
        } else {
            None
        };
        let cdb = match refuse {
            Some(reason) => Err(reason),
            None => check(&header).and_then(|()| whole_cdb(&header, ahs)),
        };
        match cdb {
            Ok(cdb) => self.accept(now, conn, index, &header, cdb, out),
            Err(reason) => {
                if !immediate {
                    session.window.release();
                }
                self.reject(conn, reason, out);
            }
        }
    }

    fn accept(
        &mut self,
        now: Time,
        conn: ConnId,
        index: u32,
        header: &ScsiCommand,
        cdb: [u8; 32],
        out: &mut Vec<Output>,
    ) {
        let Some(session) = self.sessions[index as usize].as_mut() else {
            return;
        };
        let Some(target) = session.target else { return };
        let immediate = header.opcode & crate::pdu::IMMEDIATE != 0;
        let writes = header.flags & command_flags::WRITE != 0;
        let reads = header.flags & command_flags::READ != 0;
        let expected = header.expected_length.get();
        let length = header.data_length.get();
        let first_burst = session.parameters.first_burst.min(expected);
        // The F bit says that no unsolicited Data-Out follows (§11.3.1).
        let more = writes && header.flags & FINAL == 0;
        let unsolicited = (more && length < first_burst).then_some(first_burst);
        let uninvited = (length > 0 && !session.parameters.immediate_data)
            || length > first_burst
            || (more && session.parameters.initial_r2t && expected > 0);
        let inserted = self.tasks.insert(Task {
            session: index,
            place: session.tasks.next_place(),
            task_tag: header.task_tag.get(),
            lun: header.lun,
            expected,
            reads,
            writes,
            immediate,
            phase: Phase::Engine,
            transfer: Transfer::new(length, unsolicited),
        });
        let Some(task) = inserted else {
            if !immediate {
                session.window.release();
            }
            return self.answer_without_task(conn, header, TASK_SET_FULL, out);
        };
        session.tasks.push(header.task_tag.get(), task);
        session.immediate += u32::from(immediate);
        let nexus = session.nexus;
        if let Some(connection) = self.connection_mut(conn) {
            if unsolicited.is_some() {
                connection.unsolicited.push_back(task);
            }
            if length > 0 {
                connection.receive = Receive::Undecided {
                    task,
                    offset: 0,
                    len: length,
                };
            }
        }
        out.push(Output::Command(Command {
            task,
            nexus,
            target,
            lun: header.lun,
            cdb,
            expected,
            reads,
            writes,
            attribute: header.flags & command_flags::ATTRIBUTE,
        }));
        if uninvited {
            self.fault(now, task, Fault::Unsolicited, out);
        }
    }

    /// Where a task stands whose data segment waits for the engine's decision: read it, or not.
    pub(super) fn decided(&mut self, conn: ConnId, id: TaskId) {
        let (keep, waits) = match self.connection(conn).map(|connection| connection.receive) {
            Some(Receive::Undecided { task, offset, len }) if task == id => {
                let keep = match self.tasks.get(id) {
                    Some(Task {
                        phase: Phase::Engine,
                        transfer,
                        ..
                    }) => {
                        if !transfer.is_decided() {
                            return;
                        }
                        transfer.keep(offset, len)
                    }
                    _ => 0,
                };
                (keep, (offset, len))
            }
            _ => return,
        };
        let (offset, len) = waits;
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        if keep == 0 {
            connection.skip_segment(len);
        } else {
            connection.receive = Receive::Data {
                task: id,
                offset,
                len: keep,
                surplus: len - keep,
            };
        }
    }
}

/// Fields that contradict each other.
fn check(header: &ScsiCommand) -> Result<(), u8> {
    let writes = header.flags & command_flags::WRITE != 0;
    let reads = header.flags & command_flags::READ != 0;
    let length = header.data_length.get();
    let senseless = header.task_tag.get() == NO_TAG
        || (reads && writes)
        || (length > 0 && !writes)
        || length > header.expected_length.get();
    if senseless {
        Err(reject_reason::INVALID_FIELD)
    } else {
        Ok(())
    }
}

/// The CDB with what an extended CDB segment adds to it (§11.2.2.3).
fn whole_cdb(header: &ScsiCommand, mut ahs: &[u8]) -> Result<[u8; 32], u8> {
    let mut cdb = [0; 32];
    cdb[..16].copy_from_slice(&header.cdb);
    while let [high, low, kind, rest @ ..] = ahs {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let segment = rest.get(..length).ok_or(reject_reason::INVALID_FIELD)?;
        if *kind != EXTENDED_CDB {
            // Bidirectional commands are not offered; others are not defined.
            return Err(reject_reason::INVALID_FIELD);
        }
        // The first byte is reserved.
        let more = segment.get(1..).ok_or(reject_reason::INVALID_FIELD)?;
        let place = cdb
            .get_mut(16..16 + more.len())
            .ok_or(reject_reason::INVALID_FIELD)?;
        place.copy_from_slice(more);
        // Length, type and contents are padded to four bytes.
        ahs = ahs.get((3 + length).next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(cdb)
}
