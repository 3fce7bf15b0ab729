//! How tasks and sessions end. A task that is to end is asked back from the engine, and is gone
//! only when the engine has let go of it; a session is gone when its last task is, and only then
//! may a successor of the same name begin.

use super::Endpoint;
use crate::connection::State;
use crate::interface::{DataIn, Output, Response, TaskId, Time};
use crate::tasks::Phase;
use crate::transfer::Fault;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// How long a task that must end may wait for data that is on its way into its buffer, before the
/// connection is closed. Data in flight needs milliseconds; initiators wait 15 s and more for a
/// task management function.
const STALL: Time = Time::from_secs(5);
const CHECK_CONDITION: u8 = 0x02;

impl Endpoint {
    /// The engine has answered (`Some`) or let go of a task (`None`).
    pub(super) fn answered(
        &mut self,
        now: Time,
        id: TaskId,
        response: Option<Response>,
        out: &mut Vec<Output>,
    ) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        let response = match (&task.phase, response) {
            (Phase::Engine, None) => {
                panic!("the engine let go of a task that it was not asked to abort")
            }
            (Phase::Engine, response) => response,
            (
                Phase::Ending {
                    fault: Some(fault), ..
                },
                _,
            ) => Some(faulted(*fault)),
            (Phase::Ending { fault: None, .. }, _) => None,
            (Phase::Held(_), _) => return,
        };
        let filling = self.filling_connection(id).is_some();
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        if !filling && (response.is_none() || !task.transfer.is_owed()) {
            return self.finish(now, id, response, out);
        }
        task.phase = Phase::Held(response.map(Box::new));
        if let Some(conn) = self.connection_of(id) {
            self.decided(conn, id);
        }
    }

    /// Ends a task that the engine has answered, if nothing is owed any more.
    pub(super) fn release_held(&mut self, now: Time, id: TaskId, out: &mut Vec<Output>) {
        if self.filling_connection(id).is_some() {
            return;
        }
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        let owed = task.transfer.is_owed();
        let Phase::Held(response) = &mut task.phase else {
            return;
        };
        if response.is_some() && owed {
            return;
        }
        let response = response.take();
        self.finish(now, id, response.map(|response| *response), out);
    }

    /// The driver no longer writes into a task's buffer: what waited for that goes on.
    pub(super) fn buffer_is_free(&mut self, now: Time, id: TaskId, out: &mut Vec<Output>) {
        self.ask_to_end(id, out);
        self.release_held(now, id, out);
    }

    /// The initiator's data is wrong: the command ends with CHECK CONDITION.
    pub(super) fn fault(&mut self, now: Time, id: TaskId, fault: Fault, out: &mut Vec<Output>) {
        self.end(now, id, Some(fault), out);
    }

    /// The task ends without a response.
    pub(super) fn abort(&mut self, now: Time, id: TaskId, out: &mut Vec<Output>) {
        self.end(now, id, None, out);
    }

    fn end(&mut self, now: Time, id: TaskId, fault: Option<Fault>, out: &mut Vec<Output>) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        match &mut task.phase {
            Phase::Engine => {
                task.phase = Phase::Ending {
                    asked: false,
                    fault,
                }
            }
            // An abort outdoes a fault, not the other way round.
            Phase::Ending { fault: before, .. } => *before = before.and(fault),
            Phase::Held(_) if fault.is_some() => return,
            Phase::Held(response) => {
                *response = None;
                self.mark_stalled(now, id);
                return self.release_held(now, id, out);
            }
        }
        self.mark_stalled(now, id);
        self.ask_to_end(id, out);
        if let Some(conn) = self.connection_of(id) {
            self.decided(conn, id);
        }
    }

    /// Asks the engine for a task that is to end, unless the driver is writing into its buffer:
    /// then this is called again when it has done so.
    pub(super) fn ask_to_end(&mut self, id: TaskId, out: &mut Vec<Output>) {
        if self.filling_connection(id).is_some() {
            return;
        }
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        if let Phase::Ending { asked, .. } = &mut task.phase
            && !core::mem::replace(asked, true)
        {
            out.push(Output::Abort { task: id });
        }
    }

    fn connection_of(&self, id: TaskId) -> Option<crate::interface::ConnId> {
        let task = self.tasks.get(id)?;
        self.sessions[task.session as usize]
            .as_ref()
            .map(|session| session.conn)
    }

    fn filling_connection(&self, id: TaskId) -> Option<crate::interface::ConnId> {
        let conn = self.connection_of(id)?;
        self.connection(conn)
            .filter(|connection| connection.is_filling(id))
            .map(|_| conn)
    }

    fn mark_stalled(&mut self, now: Time, id: TaskId) {
        let Some(conn) = self.filling_connection(id) else {
            return;
        };
        let at = now + STALL;
        if let Some(connection) = self.connection_mut(conn) {
            connection.stalled.get_or_insert(at);
            connection.deadline = connection.deadline.min(at);
        }
        self.wake_at(at);
    }

    /// A task is over: it leaves the table, is answered (or not), and whoever waited for its end
    /// goes on.
    fn finish(&mut self, now: Time, id: TaskId, response: Option<Response>, out: &mut Vec<Output>) {
        let Some(task) = self.tasks.remove(id) else {
            return;
        };
        let index = task.session as usize;
        let Some(session) = self.sessions[index].as_mut() else {
            return;
        };
        if let Some(moved) = session.tasks.remove(task.place)
            && let Some(moved) = self.tasks.get_mut(moved)
        {
            moved.place = task.place;
        }
        if task.immediate {
            session.immediate -= 1;
        } else {
            session.window.release();
        }
        let conn = session.conn;
        if let Some(connection) = self.connection_mut(conn)
            && !connection.unsolicited.is_empty()
        {
            connection.unsolicited.retain(|queued| *queued != id);
        }
        // A segment that waited for the engine's decision is not needed.
        self.decided(conn, id);
        if let Some(response) = response {
            self.send_answer(id, &task, response, out);
        }
        self.one_less(now, id, out);
        self.bury(now, index, out);
    }

    /// Ends a session: its connection closes, its tasks are aborted.
    pub(super) fn end_session(&mut self, now: Time, index: usize, out: &mut Vec<Output>) {
        let Some(session) = self.sessions[index].as_mut() else {
            return;
        };
        if core::mem::replace(&mut session.ending, true) {
            return;
        }
        let conn = session.conn;
        let tasks = session.tasks.ids().to_vec();
        if let Some(connection) = self.connection_mut(conn)
            && matches!(connection.state, State::Full { .. })
        {
            connection.state = State::Closing;
            connection.deadline = Time::MAX;
            out.push(Output::Close { conn });
        }
        for id in tasks {
            self.abort(now, id, out);
        }
        self.bury(now, index, out);
    }

    /// An ending session without tasks is over.
    fn bury(&mut self, now: Time, index: usize, out: &mut Vec<Output>) {
        let over =
            |session: &mut crate::session::Session| session.ending && session.tasks.is_empty();
        let Some(session) = self.sessions[index].take_if(over) else {
            return;
        };
        if let Some(target) = session.target {
            out.push(Output::NexusDown {
                nexus: session.nexus,
                target,
            });
        }
        self.resume_logins(now, out);
    }
}

/// CHECK CONDITION, ABORTED COMMAND, fixed format (SPC-4 §4.5.3).
fn faulted(fault: Fault) -> Response {
    let [code, qualifier] = fault.sense_code();
    let mut sense = alloc::vec![0; 18];
    sense[0] = 0x70;
    sense[2] = 0x0b;
    sense[7] = 10;
    sense[12] = code;
    sense[13] = qualifier;
    Response {
        status: CHECK_CONDITION,
        sense,
        data_in: DataIn::None,
        data_out: 0,
    }
}
