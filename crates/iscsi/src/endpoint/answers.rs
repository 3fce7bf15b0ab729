//! Responses: data in pieces that the initiator takes, the status with the last of them if it is
//! GOOD, and what was too much or too little.

use super::Endpoint;
use crate::connection::Connection;
use crate::interface::{ConnId, DataIn, Output, Response, TaskId};
use crate::pdu::{
    self, FINAL, NO_TAG, ScsiCommand, ScsiResponse, U24, data_in_flags, opcode, response_flags,
};
use crate::tasks::Task;
use alloc::vec::Vec;
use zerocopy::FromZeros;

const GOOD: u8 = 0x00;

/// Residual count with its flags, which are the same in responses and Data-Ins.
#[derive(Clone, Copy)]
struct Residual {
    flags: u8,
    count: u32,
}

impl Residual {
    /// `expected` bytes were announced and `actual` were asked for or returned.
    fn new(expected: u32, actual: u32) -> Self {
        let flags = match actual.cmp(&expected) {
            core::cmp::Ordering::Less => response_flags::UNDERFLOW,
            core::cmp::Ordering::Equal => 0,
            core::cmp::Ordering::Greater => response_flags::OVERFLOW,
        };
        Self {
            flags,
            count: expected.abs_diff(actual),
        }
    }
}

const _: () = assert!(
    response_flags::UNDERFLOW == data_in_flags::UNDERFLOW
        && response_flags::OVERFLOW == data_in_flags::OVERFLOW
);

/// What both sequence numbers of a session are when a PDU goes out.
#[derive(Clone, Copy)]
struct Numbers {
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
}

impl Endpoint {
    /// Sends a task's response; the task has left the table already, so that the window that is
    /// announced has its place.
    pub(super) fn send_answer(
        &mut self,
        id: TaskId,
        task: &Task,
        response: Response,
        out: &mut Vec<Output>,
    ) {
        let Some(session) = self.sessions[task.session as usize].as_ref() else {
            return;
        };
        let numbers = Numbers {
            exp_cmd_sn: session.window.expected,
            max_cmd_sn: session.window.max,
        };
        let (max_send, max_burst) = (session.parameters.max_send, session.parameters.max_burst);
        let conn = session.conn;
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        if connection.session() != Some(task.session) {
            return;
        }
        let returned = match &response.data_in {
            DataIn::None => 0,
            DataIn::Bytes(bytes) => u32::try_from(bytes.len()).unwrap_or(U24::MAX),
            DataIn::Buffer { len } => *len,
        };
        let length = if task.reads {
            returned.min(task.expected)
        } else {
            0
        };
        let residual = match (task.reads, task.writes) {
            (true, _) => Residual::new(task.expected, returned),
            // A command that reads although the initiator announced a write: nothing of what it
            // announced was used.
            (false, true) => Residual::new(task.expected, response.data_out),
            (false, false) => Residual::new(0, returned.max(response.data_out)),
        };
        let mut pieces = Pieces {
            length,
            offset: 0,
            max_send,
            max_burst,
            number: 0,
        };
        let collapse = response.status == GOOD && length > 0;
        let mut bytes = match response.data_in {
            DataIn::Bytes(mut bytes) => {
                bytes.truncate(length as usize);
                Some(bytes)
            }
            _ => None,
        };
        while let Some(piece) = pieces.next() {
            let mut header = pdu::DataIn::new_zeroed();
            header.opcode = opcode::DATA_IN;
            header.flags = if piece.ends_burst { FINAL } else { 0 };
            header.task_tag = task.task_tag.into();
            header.transfer_tag = NO_TAG.into();
            header.exp_cmd_sn = numbers.exp_cmd_sn.into();
            header.max_cmd_sn = numbers.max_cmd_sn.into();
            header.data_sn = piece.number.into();
            header.offset = piece.offset.into();
            if piece.last && collapse {
                header.flags |= data_in_flags::STATUS | residual.flags;
                header.status = response.status;
                header.stat_sn = connection.next_stat_sn().into();
                header.residual = residual.count.into();
            }
            match &mut bytes {
                None => connection.send_data(&header, id, piece.offset, piece.len, out),
                Some(bytes) if piece.last && piece.offset == 0 => {
                    connection.send_bytes(&header, core::mem::take(bytes), out);
                }
                Some(bytes) => {
                    let begin = piece.offset as usize;
                    let part = bytes[begin..begin + piece.len as usize].to_vec();
                    connection.send_bytes(&header, part, out);
                }
            }
        }
        if !collapse {
            let data_pdus = pieces.number + task.transfer.solicitations();
            let done = Done {
                task_tag: task.task_tag,
                status: response.status,
                residual,
                data_pdus,
            };
            send_response(connection, numbers, done, &response.sense, out);
        }
    }

    /// A status for a command that never became a task.
    pub(super) fn answer_without_task(
        &mut self,
        conn: ConnId,
        command: &ScsiCommand,
        status: u8,
        out: &mut Vec<Output>,
    ) {
        let Some(numbers) = self.numbers(conn) else {
            return;
        };
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let residual = Residual::new(command.expected_length.get(), 0);
        let done = Done {
            task_tag: command.task_tag.get(),
            status,
            residual,
            data_pdus: 0,
        };
        send_response(connection, numbers, done, &[], out);
    }

    fn numbers(&self, conn: ConnId) -> Option<Numbers> {
        let (exp_cmd_sn, max_cmd_sn) = self.command_numbers(conn)?;
        Some(Numbers {
            exp_cmd_sn,
            max_cmd_sn,
        })
    }

    /// ExpCmdSN and MaxCmdSN of the session on this connection.
    pub(super) fn command_numbers(&self, conn: ConnId) -> Option<(u32, u32)> {
        let index = self.connection(conn)?.session()?;
        let session = self.sessions.get(index as usize)?.as_ref()?;
        Some((session.window.expected, session.window.max))
    }
}

struct Done {
    task_tag: u32,
    status: u8,
    residual: Residual,
    data_pdus: u32,
}

fn send_response(
    connection: &mut Connection,
    numbers: Numbers,
    done: Done,
    sense: &[u8],
    out: &mut Vec<Output>,
) {
    let mut header = ScsiResponse::new_zeroed();
    header.opcode = opcode::SCSI_RESPONSE;
    header.flags = FINAL | done.residual.flags;
    header.status = done.status;
    header.task_tag = done.task_tag.into();
    header.stat_sn = connection.next_stat_sn().into();
    header.exp_cmd_sn = numbers.exp_cmd_sn.into();
    header.max_cmd_sn = numbers.max_cmd_sn.into();
    header.exp_data_sn = done.data_pdus.into();
    header.residual = done.residual.count.into();
    let mut data = Vec::new();
    if let (false, Ok(length)) = (sense.is_empty(), u16::try_from(sense.len())) {
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(sense);
    }
    connection.send_bytes(&header, data, out);
}

/// Cuts data for the initiator at its MaxRecvDataSegmentLength and at the ends of bursts.
struct Pieces {
    length: u32,
    offset: u32,
    max_send: u32,
    max_burst: u32,
    number: u32,
}

struct Piece {
    offset: u32,
    len: u32,
    number: u32,
    ends_burst: bool,
    last: bool,
}

impl Pieces {
    fn next(&mut self) -> Option<Piece> {
        let left = self.length - self.offset;
        if left == 0 {
            return None;
        }
        let burst_left = self.max_burst - self.offset % self.max_burst;
        let len = left.min(self.max_send).min(burst_left);
        let last = len == left;
        let piece = Piece {
            offset: self.offset,
            len,
            number: self.number,
            ends_burst: last || len == burst_left,
            last,
        };
        self.offset += len;
        self.number += 1;
        Some(piece)
    }
}
