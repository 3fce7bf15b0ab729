//! What happens because time passes: slow logins, silent initiators, data that got stuck, and the
//! end of a planned stop.

use super::Endpoint;
use crate::connection::{Receive, State};
use crate::interface::{ConnId, Output, TargetId, Time};
use crate::pdu::{AsyncMessage, FINAL, NO_TAG, NopIn, async_event, opcode};
use alloc::string::String;
use alloc::vec::Vec;
use zerocopy::FromZeros;

impl Endpoint {
    /// There is something to do at `at`.
    pub(super) fn wake_at(&mut self, at: Time) {
        if at < Time::MAX {
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        }
    }

    pub(super) fn nop_interval(&self) -> Option<Time> {
        let seconds = u64::from(self.settings.nop_interval_s);
        (seconds > 0).then(|| Time::from_secs(seconds))
    }

    pub(super) fn run_timers(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.wake.is_none_or(|wake| now < wake) {
            return;
        }
        if self.stopping.is_some_and(|by| by <= now) {
            self.close_all(now, out);
        }
        for slot in 0..self.connections.len() {
            let due = self.connections[slot]
                .as_ref()
                .filter(|connection| connection.deadline <= now);
            if let Some(conn) = due.map(|connection| connection.id) {
                self.connection_due(now, conn, out);
            }
        }
        let earliest = self
            .connections
            .iter()
            .flatten()
            .map(|connection| connection.deadline)
            .min();
        let stop = self.stopping.filter(|by| now < *by);
        self.wake = earliest
            .into_iter()
            .chain(stop)
            .filter(|at| *at < Time::MAX)
            .min();
    }

    fn connection_due(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        let interval = self.nop_interval();
        let timeout = Time::from_secs(u64::from(self.settings.nop_timeout_s.max(1)));
        let login_timeout = self.settings.login_timeout_s;
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let peer = connection.peer;
        match connection.state {
            State::Closing => connection.deadline = Time::MAX,
            // Silent: port probes and floods are not worth a line.
            State::Login(ref state) if state.waiting.is_none() => self.close(now, conn, out),
            State::Login(ref state) => {
                let initiator = String::from(state.login.initiator());
                self.notes.add(
                    now,
                    format_args!(
                        "gave up a login of initiator {initiator:?} from {peer}: its old session \
                         did not end within {login_timeout} s"
                    ),
                    out,
                );
                self.close(now, conn, out);
            }
            State::Full { .. } if connection.stalled.is_some_and(|at| at <= now) => {
                self.protocol_error(now, conn, "only a part of a data segment for seconds", out);
            }
            State::Full { .. } => {
                // While we do not read, an answer can't arrive.
                if matches!(connection.receive, Receive::Undecided { .. }) {
                    connection.heard = now;
                }
                if connection.pinged.is_some_and(|at| connection.heard > at) {
                    connection.pinged = None;
                }
                let next = match (connection.pinged, interval) {
                    (Some(at), _) if at + timeout <= now => {
                        let silent = (now - connection.heard).as_secs();
                        self.notes.add(
                            now,
                            format_args!(
                                "closed the connection of {peer}: nothing was heard for {silent} s, \
                                 and a NOP-In was not answered"
                            ),
                            out,
                        );
                        return self.close(now, conn, out);
                    }
                    (Some(at), _) => at + timeout,
                    (None, None) => Time::MAX,
                    (None, Some(interval)) if connection.heard + interval <= now => {
                        connection.pinged = Some(now);
                        self.ping(conn, out);
                        now + timeout
                    }
                    (None, Some(interval)) => connection.heard + interval,
                };
                if let Some(connection) = self.connection_mut(conn) {
                    connection.deadline = next.min(connection.stalled.unwrap_or(Time::MAX));
                }
            }
        }
    }

    /// Asks the initiators of a target, unless they were asked already.
    pub(super) fn ping_sessions(&mut self, now: Time, target: TargetId, out: &mut Vec<Output>) {
        let timeout = Time::from_secs(u64::from(self.settings.nop_timeout_s.max(1)));
        let sessions = self.sessions.iter().flatten();
        let conns: Vec<ConnId> = sessions
            .filter(|session| session.target == Some(target))
            .map(|session| session.conn)
            .collect();
        for conn in conns {
            let asked = self.connection_mut(conn).filter(|connection| {
                matches!(connection.state, State::Full { .. }) && connection.pinged.is_none()
            });
            if let Some(connection) = asked {
                connection.pinged = Some(now);
                connection.deadline = connection.deadline.min(now + timeout);
                self.ping(conn, out);
                self.wake_at(now + timeout);
            }
        }
    }

    /// A NOP-In that wants an answer. It uses up no StatSN (§11.19.2).
    fn ping(&mut self, conn: ConnId, out: &mut Vec<Output>) {
        let Some((exp_cmd_sn, max_cmd_sn)) = self.command_numbers(conn) else {
            return;
        };
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let mut header = NopIn::new_zeroed();
        header.opcode = opcode::NOP_IN;
        header.flags = FINAL;
        header.task_tag = NO_TAG.into();
        header.transfer_tag = (connection.stat_sn & 0x7fff_ffff).into();
        header.stat_sn = connection.stat_sn.into();
        header.exp_cmd_sn = exp_cmd_sn.into();
        header.max_cmd_sn = max_cmd_sn.into();
        connection.send(&header, out);
    }

    /// A planned stop: sessions are asked to log out, everything else closes now.
    pub(super) fn stop(&mut self, now: Time, by: Time, out: &mut Vec<Output>) {
        self.stopping = Some(by);
        let seconds = u16::try_from(by.saturating_sub(now).as_secs()).unwrap_or(u16::MAX);
        for slot in 0..self.connections.len() {
            let Some(connection) = self.connections[slot].as_ref() else {
                continue;
            };
            let conn = connection.id;
            match connection.state {
                State::Closing => {}
                State::Login(_) => self.close(now, conn, out),
                State::Full { .. } => self.ask_for_logout(conn, seconds, out),
            }
        }
        self.wake_at(by);
    }

    fn ask_for_logout(&mut self, conn: ConnId, seconds: u16, out: &mut Vec<Output>) {
        let Some((exp_cmd_sn, max_cmd_sn)) = self.command_numbers(conn) else {
            return;
        };
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let mut header = AsyncMessage::new_zeroed();
        header.opcode = opcode::ASYNC_MESSAGE;
        header.flags = FINAL;
        header.task_tag = NO_TAG.into();
        header.stat_sn = connection.next_stat_sn().into();
        header.exp_cmd_sn = exp_cmd_sn.into();
        header.max_cmd_sn = max_cmd_sn.into();
        header.event = async_event::LOGOUT_REQUEST;
        header.parameter3 = seconds.into();
        connection.send(&header, out);
    }

    fn close_all(&mut self, now: Time, out: &mut Vec<Output>) {
        for slot in 0..self.connections.len() {
            if let Some(conn) = self.connections[slot]
                .as_ref()
                .map(|connection| connection.id)
            {
                self.close(now, conn, out);
            }
        }
    }
}
