//! Data from the initiator: into the task's buffer, asked for with R2Ts, or thrown away.

use super::Endpoint;
use crate::connection::Receive;
use crate::interface::{ConnId, Output, TaskId, Time};
use crate::pdu::{DataOut, FINAL, NO_TAG, R2t, opcode, reject_reason};
use crate::tasks::{Phase, transfer_tag};
use crate::transfer::{Fault, Solicit};
use alloc::vec::Vec;
use zerocopy::{FromZeros, transmute};

impl Endpoint {
    pub(super) fn data_out(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let header: DataOut = transmute!(connection.header);
        let length = header.data_length.get();
        connection.skip_segment(length);
        // Data for a task that has ended meanwhile is passed over in silence.
        let Some((id, burst)) = self.task_of(conn, &header) else {
            return;
        };
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        let placed = task.transfer.data_out(&header, burst);
        let undecided = !task.transfer.is_decided();
        let in_engine = matches!(task.phase, Phase::Engine);
        if header.transfer_tag.get() == NO_TAG
            && header.flags & FINAL != 0
            && let Some(connection) = self.connection_mut(conn)
        {
            connection.unsolicited.retain(|queued| *queued != id);
        }
        match placed {
            Ok(offset) if in_engine && length > 0 => {
                if let Some(connection) = self.connection_mut(conn) {
                    connection.receive = Receive::Undecided {
                        task: id,
                        offset,
                        len: length,
                    };
                }
                if !undecided {
                    self.decided(conn, id);
                }
            }
            Ok(_) if in_engine => self.advance(id, out),
            Err(fault) if in_engine => self.fault(now, id, fault, out),
            _ => self.release_held(now, id, out),
        }
    }

    /// The task that a Data-Out belongs to, and the number of its burst.
    fn task_of(&self, conn: ConnId, header: &DataOut) -> Option<(TaskId, u32)> {
        let (tag, task_tag) = (header.transfer_tag.get(), header.task_tag.get());
        let connection = self.connection(conn)?;
        let index = connection.session()?;
        if tag != NO_TAG {
            if let Some((id, burst)) = self.tasks.by_transfer_tag(tag) {
                let task = self.tasks.get(id)?;
                if task.task_tag == task_tag && task.session == index {
                    return Some((id, burst));
                }
            }
            // A tag that we did not give out, for a task that exists: not a burst's number.
            let id = self
                .sessions
                .get(index as usize)?
                .as_ref()?
                .task(task_tag)?;
            return Some((id, u32::MAX));
        }
        let mine = |id: &&TaskId| {
            self.tasks
                .get(**id)
                .is_some_and(|task| task.task_tag == task_tag)
        };
        let queued = connection.unsolicited.iter().find(mine).copied();
        let id = match queued {
            Some(id) => id,
            None => self
                .sessions
                .get(index as usize)?
                .as_ref()?
                .task(task_tag)?,
        };
        Some((id, 0))
    }

    /// A data segment of a task is in its buffer; `good`: its digest is right.
    #[expect(
        clippy::too_many_arguments,
        reason = "what the framing knows of the segment"
    )]
    pub(super) fn landed(
        &mut self,
        now: Time,
        conn: ConnId,
        id: TaskId,
        len: u32,
        crc: u32,
        good: bool,
        out: &mut Vec<Output>,
    ) {
        if !good {
            self.reject(conn, reject_reason::DATA_DIGEST, out);
        }
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        match task.phase {
            Phase::Engine if good => {
                task.transfer.land(len, crc);
                self.advance(id, out);
            }
            Phase::Engine => self.fault(now, id, Fault::Digest, out),
            Phase::Ending { .. } => self.ask_to_end(id, out),
            Phase::Held(_) => self.release_held(now, id, out),
        }
    }

    /// The engine can take `len` bytes.
    pub(super) fn fetch(&mut self, _: Time, id: TaskId, len: u32, out: &mut Vec<Output>) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        if !matches!(task.phase, Phase::Engine) || task.transfer.is_decided() {
            return;
        }
        let available = if task.writes { task.expected } else { 0 };
        task.transfer.want(len.min(available));
        let session = task.session;
        self.advance(id, out);
        if let Some(session) = self.sessions[session as usize].as_ref() {
            self.decided(session.conn, id);
        }
    }

    /// Tells the engine if everything is there, else asks for what may be asked for.
    fn advance(&mut self, id: TaskId, out: &mut Vec<Output>) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        if let Some(crc) = task.transfer.complete() {
            // Surplus that is still to come is passed over when it does.
            if task.transfer.report() {
                out.push(Output::DataIn { task: id, crc });
            }
            return;
        }
        let index = task.session as usize;
        let Some(bursts) = self.sessions[index]
            .as_ref()
            .map(crate::session::Session::bursts)
        else {
            return;
        };
        while let Some(ask) = self
            .tasks
            .get_mut(id)
            .and_then(|task| task.transfer.solicit(bursts))
        {
            self.send_r2t(id, ask, out);
        }
    }

    fn send_r2t(&self, id: TaskId, ask: Solicit, out: &mut Vec<Output>) {
        let Some(task) = self.tasks.get(id) else {
            return;
        };
        let Some(session) = self.sessions[task.session as usize].as_ref() else {
            return;
        };
        let Some(connection) = self.connection(session.conn) else {
            return;
        };
        let mut header = R2t::new_zeroed();
        header.opcode = opcode::R2T;
        header.flags = FINAL;
        header.lun = task.lun;
        header.task_tag = task.task_tag.into();
        header.transfer_tag = transfer_tag(id, ask.number).into();
        // An R2T shows the next StatSN without using it up (§11.8.3).
        header.stat_sn = connection.stat_sn.into();
        header.exp_cmd_sn = session.window.expected.into();
        header.max_cmd_sn = session.window.max.into();
        header.r2t_sn = ask.number.into();
        header.offset = ask.offset.into();
        header.desired_length = ask.len.into();
        connection.send(&header, out);
    }
}
