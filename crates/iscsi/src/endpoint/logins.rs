//! From a Login Request to a session: what the login machine decides is carried out here, and an
//! older session of the same name is ended first.

use super::Endpoint;
use crate::connection::{State, Waiting};
use crate::interface::{ConnId, NexusId, Output, Time};
use crate::login::{Refusal, Step};
use crate::pdu::{LoginRequest, LoginResponse, login_flags, login_status, opcode};
use crate::sequence::CommandWindow;
use crate::session::{Session, TaskList};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use zerocopy::{FromZeros, transmute};

/// Most and fewest commands that a session may have outstanding, whatever the settings say.
const WINDOW: core::ops::RangeInclusive<u32> = 2..=4096;

impl Endpoint {
    /// A Login Request on a connection that is logging in.
    pub(super) fn login(&mut self, now: Time, conn: ConnId, data: &[u8], out: &mut Vec<Output>) {
        let Self {
            settings,
            random,
            connections,
            ..
        } = self;
        let Some(connection) = connections
            .get_mut(conn.slot as usize)
            .and_then(Option::as_mut)
        else {
            return;
        };
        let request: LoginRequest = transmute!(connection.header);
        let State::Login(state) = &mut connection.state else {
            return;
        };
        match state.login.request(&request, data, settings, random) {
            Step::Answer(answer) => {
                let header = response(&request, answer.flags, login_status::SUCCESS);
                self.send_login(conn, header, answer.text, out);
            }
            Step::Finish(answer) => {
                let waiting = Waiting {
                    request,
                    flags: answer.flags,
                    text: answer.text,
                };
                match self.predecessor(conn, &request) {
                    Ok(None) => self.begin_session(now, conn, waiting, out),
                    Ok(Some(_)) => self.wait_for_predecessor(now, conn, waiting, out),
                    Err(refusal) => self.refuse(now, conn, &request, &refusal, out),
                }
            }
            Step::Refuse(refusal) => self.refuse(now, conn, &request, &refusal, out),
        }
    }

    /// The session that a finished login replaces: one of the same name (RFC 7143 §6.3.5), or, as
    /// a session has one connection only, the one that it wants to join with the same CID.
    fn predecessor(&self, conn: ConnId, request: &LoginRequest) -> Result<Option<usize>, Refusal> {
        if self.stopping.is_some() {
            return Err(Refusal::Stopping);
        }
        let same = self.same_name(conn);
        // Sessions that can't end (their tasks hang in a dead disk) must not pile up.
        let limit = self.settings.max_connections as usize * 2;
        if same.is_none() && self.sessions.iter().flatten().count() >= limit {
            return Err(Refusal::OutOfResources);
        }
        let tsih = request.tsih.get();
        if tsih == 0 {
            return Ok(same);
        }
        let session = same.and_then(|index| self.sessions[index].as_ref());
        match session {
            Some(session) if session.tsih != tsih || session.ending => Err(Refusal::NoSession),
            Some(session) if session.cid != request.cid.get() => Err(Refusal::TooManyConnections),
            Some(_) => Ok(same),
            None => Err(Refusal::NoSession),
        }
    }

    /// The session with the initiator name, ISID and target of a login. Discovery sessions have
    /// nothing that a second one could harm.
    fn same_name(&self, conn: ConnId) -> Option<usize> {
        let State::Login(state) = &self.connection(conn)?.state else {
            return None;
        };
        let target = state.login.target_id()?;
        self.sessions.iter().position(|session| {
            session.as_ref().is_some_and(|session| {
                session.target == Some(target)
                    && session.isid == state.login.isid()
                    && session.initiator == state.login.initiator()
            })
        })
    }

    fn wait_for_predecessor(
        &mut self,
        now: Time,
        conn: ConnId,
        waiting: Waiting,
        out: &mut Vec<Output>,
    ) {
        let predecessor = self.same_name(conn);
        if let Some(State::Login(state)) = self.connection_mut(conn).map(|found| &mut found.state) {
            state.waiting = Some(Box::new(waiting));
        }
        // It may be over at once; the login then goes on from within.
        if let Some(index) = predecessor {
            self.end_session(now, index, out);
        }
    }

    /// A session is over: logins that waited for that go on.
    pub(super) fn resume_logins(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.half_open == 0 {
            return;
        }
        for slot in 0..self.connections.len() {
            let Some(connection) = self.connections[slot].as_ref() else {
                continue;
            };
            let conn = connection.id;
            let State::Login(state) = &connection.state else {
                continue;
            };
            if state.waiting.is_none() {
                continue;
            }
            // Two logins of the same name: the later one replaces the earlier.
            if let Some(index) = self.same_name(conn) {
                self.end_session(now, index, out);
                continue;
            }
            let Some(State::Login(state)) = self.connection_mut(conn).map(|found| &mut found.state)
            else {
                continue;
            };
            let Some(waiting) = state.waiting.take() else {
                continue;
            };
            let target = state.login.target_id();
            let there = self
                .settings
                .targets
                .iter()
                .any(|known| Some(known.id) == target);
            if self.stopping.is_some() {
                self.refuse(now, conn, &waiting.request, &Refusal::Stopping, out);
            } else if !there {
                self.refuse(now, conn, &waiting.request, &Refusal::Removed, out);
            } else {
                self.begin_session(now, conn, *waiting, out);
            }
        }
    }

    fn begin_session(&mut self, now: Time, conn: ConnId, last: Waiting, out: &mut Vec<Output>) {
        let tsih = match last.request.tsih.get() {
            0 => self.new_tsih(),
            joined => joined,
        };
        let index = self.free_session();
        let nexus = NexusId(self.next_nexus);
        let idle = self.nop_interval().unwrap_or(Time::MAX);
        let size = self
            .settings
            .command_window
            .clamp(*WINDOW.start(), *WINDOW.end());
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let slot = u32::try_from(index).expect("there are fewer sessions than connections");
        let State::Login(state) =
            core::mem::replace(&mut connection.state, State::Full { session: slot })
        else {
            return;
        };
        let (identity, parameters) = state.login.finish();
        connection.deadline = now.saturating_add(idle);
        connection.max_receive = parameters.max_receive;
        let (peer, portal, deadline) = (connection.peer, connection.portal, connection.deadline);
        let digests = (parameters.header_digest, parameters.data_digest);
        self.half_open -= 1;
        self.next_nexus += 1;
        self.wake_at(deadline);
        if let Some(target) = identity.target {
            out.push(Output::NexusUp {
                nexus,
                target,
                conn,
                initiator: identity.initiator.clone(),
                isid: last.request.isid,
                portal,
                peer,
            });
        }
        self.sessions[index] = Some(Session {
            nexus,
            target: identity.target,
            initiator: identity.initiator,
            isid: last.request.isid,
            tsih,
            cid: last.request.cid.get(),
            conn,
            parameters,
            window: CommandWindow::new(last.request.cmd_sn.get(), size),
            tasks: TaskList::default(),
            immediate: 0,
            ending: false,
        });
        let mut header = response(&last.request, last.flags, login_status::SUCCESS);
        header.tsih = tsih.into();
        self.send_login(conn, header, last.text, out);
        // From the next PDU on, both ways (RFC 7143 §13.1).
        if let Some(connection) = self.connection_mut(conn) {
            (connection.header_digest, connection.data_digest) = digests;
        }
    }

    fn refuse(
        &mut self,
        now: Time,
        conn: ConnId,
        request: &LoginRequest,
        refusal: &Refusal,
        out: &mut Vec<Output>,
    ) {
        let Some(connection) = self.connection(conn) else {
            return;
        };
        if let State::Login(state) = &connection.state {
            let (initiator, peer) = (String::from(state.login.initiator()), connection.peer);
            self.notes.add(
                now,
                format_args!("login of initiator {initiator:?} from {peer} refused: {refusal}"),
                out,
            );
        }
        let stage = request.flags & login_flags::STAGES & !3;
        self.send_login(
            conn,
            response(request, stage, refusal.status()),
            Vec::new(),
            out,
        );
        self.close(now, conn, out);
    }

    /// Fills in the numbers and sends.
    fn send_login(
        &mut self,
        conn: ConnId,
        mut header: LoginResponse,
        text: Vec<u8>,
        out: &mut Vec<Output>,
    ) {
        // Before there is a session, the next command is the one whose number the login shows.
        let numbers = self.command_numbers(conn);
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let request: LoginRequest = transmute!(connection.header);
        let cmd_sn = request.cmd_sn.get();
        let (expected, max) = numbers.unwrap_or((cmd_sn, cmd_sn));
        header.stat_sn = connection.next_stat_sn().into();
        header.exp_cmd_sn = expected.into();
        header.max_cmd_sn = max.into();
        connection.send_bytes(&header, text, out);
    }

    /// A handle that no session has.
    fn new_tsih(&mut self) -> u16 {
        loop {
            self.next_tsih = self.next_tsih.wrapping_add(1);
            let used = |session: &Session| session.tsih == self.next_tsih;
            // There are fewer sessions than numbers: connections are limited.
            if self.next_tsih != 0 && !self.sessions.iter().flatten().any(used) {
                return self.next_tsih;
            }
        }
    }

    fn free_session(&mut self) -> usize {
        match self.sessions.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.sessions.push(None);
                self.sessions.len() - 1
            }
        }
    }
}

fn response(request: &LoginRequest, flags: u8, status: u16) -> LoginResponse {
    let mut header = LoginResponse::new_zeroed();
    header.opcode = opcode::LOGIN_RESPONSE;
    header.flags = flags;
    header.isid = request.isid;
    header.tsih = request.tsih;
    header.task_tag = request.task_tag;
    [header.status_class, header.status_detail] = status.to_be_bytes();
    header
}
