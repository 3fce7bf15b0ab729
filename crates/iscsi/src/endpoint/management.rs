//! Task management functions and logouts: the tasks they end, and the response that waits until
//! the last of those has ended.

use super::Endpoint;
use crate::interface::{ConnId, NexusId, Output, Reset, TargetId, TaskId, Time};
use crate::pdu::{
    FINAL, TaskManagementRequest, TaskManagementResponse, function, function_response, opcode,
    reject_reason,
};
use crate::session::{Session, same_lun};
use alloc::vec::Vec;
use zerocopy::{FromZeros, transmute};

/// Task management functions that a session may have waiting. Initiators send one at a time, and
/// each may name as many tasks as there are.
const MAX_WAITING: usize = 8;

/// What happens when the tasks have ended.
#[derive(Clone, Copy, Debug)]
enum Then {
    Respond,
    /// Respond, then end all sessions of the target.
    EndSessions(TargetId),
    Logout,
}

/// A request that waits for tasks to end.
#[derive(Debug)]
pub(super) struct Management {
    conn: ConnId,
    nexus: NexusId,
    task_tag: u32,
    waits_for: Vec<TaskId>,
    then: Then,
}

/// Which tasks a function ends.
#[derive(Clone, Copy)]
enum Scope {
    /// Those of the session on the logical unit.
    Mine,
    /// All on the logical unit.
    LogicalUnit,
    /// All.
    Target,
}

impl Endpoint {
    /// A Task Management Function Request.
    pub(super) fn manage(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        let Some(connection) = self.connection(conn) else {
            return;
        };
        let request: TaskManagementRequest = transmute!(connection.header);
        let task_tag = request.task_tag.get();
        let Some((nexus, target)) = self.nexus_of(conn) else {
            return;
        };
        let waiting = self.managements.iter().filter(|other| other.nexus == nexus);
        if waiting.count() >= MAX_WAITING {
            return self.reject(conn, reject_reason::TOO_MANY_IMMEDIATE, out);
        }
        let (scope, reset) = match request.flags & 0x7f {
            function::ABORT_TASK => return self.abort_one(now, conn, &request, out),
            function::ABORT_TASK_SET => (Scope::Mine, Reset::TaskSet { others: false }),
            function::CLEAR_TASK_SET => (Scope::LogicalUnit, Reset::TaskSet { others: true }),
            function::LOGICAL_UNIT_RESET => (Scope::LogicalUnit, Reset::LogicalUnit),
            function::TARGET_WARM_RESET => (Scope::Target, Reset::TargetWarm),
            function::TARGET_COLD_RESET => (Scope::Target, Reset::TargetCold),
            function::TASK_REASSIGN => {
                let response = function_response::NO_REASSIGN;
                return self.send_managed(conn, task_tag, response, out);
            }
            _ => {
                let response = function_response::NOT_SUPPORTED;
                return self.send_managed(conn, task_tag, response, out);
            }
        };
        let waits_for = self.tasks_in(scope, nexus, target, &request.lun);
        for &id in &waits_for {
            self.abort(now, id, out);
        }
        out.push(Output::Reset {
            nexus,
            target,
            lun: request.lun,
            reset,
        });
        let then = match reset {
            Reset::TargetCold => Then::EndSessions(target),
            _ => Then::Respond,
        };
        self.wait(
            now,
            Management {
                conn,
                nexus,
                task_tag,
                waits_for,
                then,
            },
            out,
        );
    }

    fn nexus_of(&self, conn: ConnId) -> Option<(NexusId, TargetId)> {
        let index = self.connection(conn)?.session()?;
        let session = self.sessions[index as usize].as_ref()?;
        Some((session.nexus, session.target?))
    }

    fn tasks_in(
        &self,
        scope: Scope,
        nexus: NexusId,
        target: TargetId,
        lun: &[u8; 8],
    ) -> Vec<TaskId> {
        let affected = |session: &&Session| match scope {
            Scope::Mine => session.nexus == nexus,
            Scope::LogicalUnit | Scope::Target => session.target == Some(target),
        };
        let on_unit = |id: &TaskId| {
            let task = self.tasks.get(*id);
            matches!(scope, Scope::Target) || task.is_some_and(|task| same_lun(&task.lun, lun))
        };
        let sessions = self.sessions.iter().flatten().filter(affected);
        sessions
            .flat_map(|session| session.tasks.ids().iter().copied())
            .filter(on_unit)
            .collect()
    }

    fn abort_one(
        &mut self,
        now: Time,
        conn: ConnId,
        request: &TaskManagementRequest,
        out: &mut Vec<Output>,
    ) {
        let Some((nexus, _)) = self.nexus_of(conn) else {
            return;
        };
        let Some(index) = self
            .connection(conn)
            .and_then(|connection| connection.session())
        else {
            return;
        };
        let Some(session) = self.sessions[index as usize].as_mut() else {
            return;
        };
        let task_tag = request.task_tag.get();
        let Some(id) = session.task(request.ref_task_tag.get()) else {
            // Never sent, and never to be sent: its number counts as received (§11.5.5).
            let skipped = session
                .window
                .skip(request.ref_cmd_sn.get(), request.cmd_sn.get());
            let response = if skipped {
                function_response::COMPLETE
            } else {
                function_response::NO_TASK
            };
            return self.send_managed(conn, task_tag, response, out);
        };
        let same_unit = self
            .tasks
            .get(id)
            .is_some_and(|task| same_lun(&task.lun, &request.lun));
        if !same_unit {
            return self.send_managed(conn, task_tag, function_response::NO_LUN, out);
        }
        self.abort(now, id, out);
        let waits_for = alloc::vec![id];
        let then = Then::Respond;
        self.wait(
            now,
            Management {
                conn,
                nexus,
                task_tag,
                waits_for,
                then,
            },
            out,
        );
    }

    /// A logout ends all tasks first.
    pub(super) fn begin_logout(
        &mut self,
        now: Time,
        conn: ConnId,
        task_tag: u32,
        out: &mut Vec<Output>,
    ) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        if core::mem::replace(&mut connection.logging_out, true) {
            return;
        }
        let Some(index) = connection.session() else {
            return;
        };
        let Some(session) = self.sessions[index as usize].as_ref() else {
            return;
        };
        let nexus = session.nexus;
        let waits_for = session.tasks.ids().to_vec();
        for &id in &waits_for {
            self.abort(now, id, out);
        }
        self.wait(
            now,
            Management {
                conn,
                nexus,
                task_tag,
                waits_for,
                then: Then::Logout,
            },
            out,
        );
    }

    /// Some of the tasks may be gone already: those that the engine had answered.
    fn wait(&mut self, now: Time, mut management: Management, out: &mut Vec<Output>) {
        management
            .waits_for
            .retain(|id| self.tasks.get(*id).is_some());
        if management.waits_for.is_empty() {
            self.done(now, &management, out);
        } else {
            self.managements.push(management);
        }
    }

    /// A task has ended.
    pub(super) fn one_less(&mut self, now: Time, id: TaskId, out: &mut Vec<Output>) {
        if self.managements.is_empty() {
            return;
        }
        for management in &mut self.managements {
            management.waits_for.retain(|waited| *waited != id);
        }
        while let Some(at) = self.managements.iter().position(|m| m.waits_for.is_empty()) {
            let management = self.managements.remove(at);
            self.done(now, &management, out);
        }
    }

    fn done(&mut self, now: Time, management: &Management, out: &mut Vec<Output>) {
        let conn = management.conn;
        // The session may have ended while it waited.
        let index = self
            .connection(conn)
            .and_then(|connection| connection.session());
        let session = index.and_then(|index| self.sessions[index as usize].as_ref());
        let there = session.is_some_and(|session| session.nexus == management.nexus);
        match management.then {
            Then::Logout if there => self.finish_logout(now, conn, management.task_tag, out),
            Then::Logout => {}
            Then::Respond | Then::EndSessions(_) => {
                if there {
                    self.send_managed(conn, management.task_tag, function_response::COMPLETE, out);
                }
                if let Then::EndSessions(target) = management.then {
                    self.drop_sessions(now, target, out);
                }
            }
        }
    }

    fn send_managed(&mut self, conn: ConnId, task_tag: u32, response: u8, out: &mut Vec<Output>) {
        let Some((exp_cmd_sn, max_cmd_sn)) = self.command_numbers(conn) else {
            return;
        };
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let mut header = TaskManagementResponse::new_zeroed();
        header.opcode = opcode::TASK_MANAGEMENT_RESPONSE;
        header.flags = FINAL;
        header.response = response;
        header.task_tag = task_tag.into();
        header.stat_sn = connection.next_stat_sn().into();
        header.exp_cmd_sn = exp_cmd_sn.into();
        header.max_cmd_sn = max_cmd_sn.into();
        connection.send(&header, out);
    }
}
