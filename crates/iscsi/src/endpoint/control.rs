//! Requests that are no SCSI commands: who handles which, NOP, Logout, and Reject.

use super::Endpoint;
use crate::connection::State;
use crate::interface::{ConnId, Output, Time};
use crate::pdu::{
    Basic, FINAL, LogoutRequest, LogoutResponse, NO_TAG, NopIn, NopOut, Reject, logout_reason,
    opcode, reject_reason,
};
use crate::sequence::Arrival;
use alloc::vec::Vec;
use zerocopy::{FromZeros, transmute};

/// Responses to a Logout Request, §11.15.1.
const LOGOUT_DONE: u8 = 0;
const LOGOUT_CID_NOT_FOUND: u8 = 1;
const LOGOUT_NO_RECOVERY: u8 = 2;

impl Endpoint {
    /// A PDU that is neither command nor data, with its data segment.
    pub(super) fn request(&mut self, now: Time, conn: ConnId, data: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connection(conn) else {
            return;
        };
        let basic: Basic = transmute!(connection.header);
        if matches!(connection.state, State::Login(_)) {
            return self.login(now, conn, data, out);
        }
        let Some(index) = connection.session() else {
            return;
        };
        let discovery = self.sessions[index as usize]
            .as_ref()
            .is_some_and(|s| s.target.is_none());
        let numbered = matches!(
            basic.opcode(),
            opcode::NOP_OUT | opcode::TEXT | opcode::LOGOUT | opcode::TASK_MANAGEMENT
        );
        if numbered && !basic.immediate() && !self.take_number(now, conn, out) {
            return;
        }
        let missing = basic.data_length.get() as usize != data.len();
        match basic.opcode() {
            // Longer than anything that is kept here.
            opcode::NOP_OUT | opcode::TEXT if missing => {
                self.reject(conn, reject_reason::LONG_OPERATION, out);
            }
            opcode::NOP_OUT => self.nop_out(conn, data, out),
            opcode::TEXT => self.text(conn, data, out),
            opcode::LOGOUT => self.logout(now, conn, out),
            opcode::TASK_MANAGEMENT if !discovery => self.manage(now, conn, out),
            opcode::TASK_MANAGEMENT | opcode::LOGIN => {
                self.reject(conn, reject_reason::PROTOCOL, out);
            }
            opcode::SNACK => self.reject(conn, reject_reason::SNACK, out),
            _ => self.reject(conn, reject_reason::NOT_SUPPORTED, out),
        }
    }

    /// Checks and uses up the CmdSN of a request that is not immediate. All of them have it at
    /// the same place.
    fn take_number(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) -> bool {
        let Some(connection) = self.connection(conn) else {
            return false;
        };
        let header: NopOut = transmute!(connection.header);
        let Some(index) = connection.session() else {
            return false;
        };
        let Some(session) = self.sessions[index as usize].as_mut() else {
            return false;
        };
        match session.window.judge(header.cmd_sn.get()) {
            Arrival::Next => {
                session.window.take();
                session.window.release();
                true
            }
            Arrival::Ignored => false,
            Arrival::Gap => {
                self.protocol_error(now, conn, "requests out of order", out);
                false
            }
        }
    }

    fn nop_out(&mut self, conn: ConnId, data: &[u8], out: &mut Vec<Output>) {
        let Some((exp_cmd_sn, max_cmd_sn)) = self.command_numbers(conn) else {
            return;
        };
        let limit = self.max_send(conn);
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let request: NopOut = transmute!(connection.header);
        if request.task_tag.get() == NO_TAG {
            // The answer to our own, or a sign of life: it wants none.
            let asked = connection.pinged.take().is_some();
            let session = connection.session().filter(|_| asked);
            let session = session.and_then(|index| self.sessions[index as usize].as_ref());
            if let Some((nexus, target)) = session.and_then(|it| Some((it.nexus, it.target?))) {
                out.push(Output::Alive { nexus, target });
            }
            return;
        }
        let mut header = NopIn::new_zeroed();
        header.opcode = opcode::NOP_IN;
        header.flags = FINAL;
        header.lun = request.lun;
        header.task_tag = request.task_tag;
        header.transfer_tag = NO_TAG.into();
        header.stat_sn = connection.next_stat_sn().into();
        header.exp_cmd_sn = exp_cmd_sn.into();
        header.max_cmd_sn = max_cmd_sn.into();
        let echo = data[..data.len().min(limit)].to_vec();
        connection.send_bytes(&header, echo, out);
    }

    /// Largest data segment that the initiator takes.
    pub(super) fn max_send(&self, conn: ConnId) -> usize {
        let session = self
            .connection(conn)
            .and_then(|connection| connection.session())
            .and_then(|index| self.sessions[index as usize].as_ref());
        session.map_or(0, |session| session.parameters.max_send as usize)
    }

    fn logout(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let request: LogoutRequest = transmute!(connection.header);
        let task_tag = request.task_tag.get();
        let Some(index) = connection.session() else {
            return;
        };
        let Some(session) = self.sessions[index as usize].as_ref() else {
            return;
        };
        match request.flags & 0x7f {
            logout_reason::CLOSE_CONNECTION if request.cid.get() != session.cid => {
                self.send_logout(conn, task_tag, LOGOUT_CID_NOT_FOUND, out);
            }
            // The only connection is the session.
            logout_reason::CLOSE_SESSION | logout_reason::CLOSE_CONNECTION => {
                self.begin_logout(now, conn, task_tag, out);
            }
            logout_reason::REMOVE_FOR_RECOVERY => {
                self.send_logout(conn, task_tag, LOGOUT_NO_RECOVERY, out);
            }
            _ => self.reject(conn, reject_reason::INVALID_FIELD, out),
        }
    }

    /// All tasks have ended: the response, and the end of the session.
    pub(super) fn finish_logout(
        &mut self,
        now: Time,
        conn: ConnId,
        task_tag: u32,
        out: &mut Vec<Output>,
    ) {
        self.send_logout(conn, task_tag, LOGOUT_DONE, out);
        self.close(now, conn, out);
    }

    fn send_logout(&mut self, conn: ConnId, task_tag: u32, response: u8, out: &mut Vec<Output>) {
        let Some((exp_cmd_sn, max_cmd_sn)) = self.command_numbers(conn) else {
            return;
        };
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let mut header = LogoutResponse::new_zeroed();
        header.opcode = opcode::LOGOUT_RESPONSE;
        header.flags = FINAL;
        header.response = response;
        header.task_tag = task_tag.into();
        header.stat_sn = connection.next_stat_sn().into();
        header.exp_cmd_sn = exp_cmd_sn.into();
        header.max_cmd_sn = max_cmd_sn.into();
        connection.send(&header, out);
    }

    /// Refuses the PDU whose header is being handled, and sends the header back.
    pub(super) fn reject(&mut self, conn: ConnId, reason: u8, out: &mut Vec<Output>) {
        let Some((exp_cmd_sn, max_cmd_sn)) = self.command_numbers(conn) else {
            return;
        };
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let mut header = Reject::new_zeroed();
        header.opcode = opcode::REJECT;
        header.flags = FINAL;
        header.reason = reason;
        header.task_tag = NO_TAG.into();
        header.stat_sn = connection.next_stat_sn().into();
        header.exp_cmd_sn = exp_cmd_sn.into();
        header.max_cmd_sn = max_cmd_sn.into();
        let refused = connection.header.to_vec();
        connection.send_bytes(&header, refused, out);
    }
}
