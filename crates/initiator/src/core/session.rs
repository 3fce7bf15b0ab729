//! One iSCSI session over one connection (ErrorRecoveryLevel 0). The owner connects a socket,
//! calls [`Session::start`], feeds [`Session::received`], sends what [`Session::take_output`]
//! gives and reads [`Session::next_event`]; when it is over, the socket is closed and a new
//! session made.

use super::Time;
use super::command::Command;
use super::login::{Login, Step};
use super::task::Task;
use super::text;
use super::wire::{self, Digests, FINAL, Framer, Header, NO_TAG, encode, opcode};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

pub use super::login::{LoginError, Negotiated};
pub use parameters::{Parameters, Purpose};
pub use report::{Ended, Event, Function, Reply};

mod parameters;
mod report;

#[derive(Debug)]
enum State {
    Idle,
    Login(Login),
    Full,
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    parameters: Parameters,
    state: State,
    agreed: Negotiated,
    framer: Framer,
    out: Vec<u8>,
    events: VecDeque<Event>,
    tasks: BTreeMap<u32, Task>,
    managing: BTreeMap<u32, u64>,
    text: Vec<u8>,
    next_tag: u32,
    cmd_sn: u32,
    max_cmd_sn: u32,
    stat_sn: u32,
    /// When login must be done; then: when the target was last heard.
    since: Time,
    /// A NOP-Out waits for its answer since.
    ping: Option<Time>,
}

impl Session {
    /// A session that has not begun; `nonce` must differ each time (mutual CHAP challenge).
    pub fn new(parameters: Parameters, nonce: [u8; 16]) -> Self {
        let (login, flags, text) = Login::new(&parameters, nonce);
        let agreed = Negotiated {
            digests: Digests::default(),
            initial_r2t: true,
            immediate: false,
            max_send: 8192,
            max_burst: 262_144,
            first_burst: 65_536,
        };
        let mut session = Self {
            parameters,
            state: State::Idle,
            agreed,
            framer: Framer::default(),
            out: Vec::new(),
            events: VecDeque::new(),
            tasks: BTreeMap::new(),
            managing: BTreeMap::new(),
            text: Vec::new(),
            next_tag: 0,
            cmd_sn: 1,
            max_cmd_sn: 1,
            stat_sn: 0,
            since: Time::ZERO,
            ping: None,
        };
        session.send_login(flags, &text);
        session.state = State::Login(login);
        session
    }

    /// The socket is connected.
    pub fn start(&mut self, now: Time) {
        self.since = now;
    }

    /// Appends what must be sent to `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }

    /// The next thing that happened.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was agreed in the login.
    pub fn negotiated(&self) -> &Negotiated {
        &self.agreed
    }

    /// In full feature phase.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Full)
    }

    /// How many commands the target takes now.
    pub fn window(&self) -> u32 {
        if !self.is_ready() || wire::before(self.max_cmd_sn, self.cmd_sn) {
            return 0;
        }
        self.max_cmd_sn.wrapping_sub(self.cmd_sn) + 1
    }

    /// Commands without an answer yet.
    pub fn outstanding(&self) -> usize {
        self.tasks.len()
    }

    /// Sends a command.
    ///
    /// # Panics
    /// If [`Self::window`] is 0.
    pub fn command(&mut self, now: Time, id: u64, command: Command) {
        assert!(self.window() > 0, "the window is asked first");
        let tag = self.tag();
        let deadline = now + self.parameters.task_timeout;
        let task = Task {
            id,
            command,
            data_in: Vec::new(),
            received: 0,
            deadline,
        };
        task.start(tag, self.cmd_sn, self.stat_sn, &self.agreed, &mut self.out);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        self.tasks.insert(tag, task);
    }

    /// Sends a task management function as an immediate command.
    pub fn manage(&mut self, id: u64, lun: u8, function: Function) {
        let (code, reference) = match function {
            Function::AbortTask(id) => (
                1,
                self.tasks
                    .iter()
                    .find(|(_, task)| task.id == id)
                    .map_or(NO_TAG, |(tag, _)| *tag),
            ),
            Function::AbortTaskSet => (2, NO_TAG),
            Function::LunReset => (5, NO_TAG),
            Function::TargetWarmReset => (6, NO_TAG),
        };
        let tag = self.tag();
        self.managing.insert(tag, id);
        let header = Header {
            opcode: opcode::TASK_MANAGEMENT | opcode::IMMEDIATE,
            flags: FINAL | code,
            lun: [0, lun, 0, 0, 0, 0, 0, 0],
            task_tag: tag.into(),
            transfer_tag: reference.into(),
            tail: [self.cmd_sn.into(), 0.into(), 0.into(), 0.into()],
            ..Header::default()
        };
        self.send_immediate(header, &[]);
    }

    /// Asks for all targets (`SendTargets=All`).
    pub fn discover(&mut self) {
        let mut data = Vec::new();
        text::push(&mut data, "SendTargets", "All");
        let tag = self.tag();
        self.send_text(tag, NO_TAG, &data);
    }

    /// Closes the session in order; [`Ended::LoggedOut`] follows.
    pub fn logout(&mut self) {
        let tag = self.tag();
        let header = Header {
            opcode: opcode::LOGOUT | opcode::IMMEDIATE,
            flags: FINAL,
            task_tag: tag.into(),
            ..Header::default()
        };
        self.send_immediate(header, &[]);
    }

    /// Bytes from the socket.
    pub fn received(&mut self, now: Time, bytes: &[u8]) {
        let mut framer = core::mem::take(&mut self.framer);
        framer.push(bytes);
        while !matches!(self.state, State::Over) {
            match framer.next(self.agreed.digests) {
                Ok(Some((header, data))) => {
                    self.pdu(&header, data);
                    // Until then it is the beginning of the login, which must not be drawn out.
                    if self.is_ready() {
                        self.since = now;
                    }
                }
                Ok(None) => break,
                Err(error) => self.end(error.into()),
            }
        }
        self.framer = framer;
    }

    /// The socket was closed or failed.
    pub fn closed(&mut self) {
        self.end(Ended::Disconnected);
    }

    /// When [`Self::timer`] must be called at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.state {
            State::Idle | State::Over => None,
            State::Login(_) => Some(self.since + self.parameters.login_timeout),
            State::Full => {
                let ping = match self.ping {
                    Some(sent) => sent + self.parameters.nop_timeout,
                    None => self.since + self.parameters.nop_interval,
                };
                self.tasks
                    .values()
                    .map(|task| task.deadline)
                    .min()
                    .map_or(Some(ping), |task| Some(task.min(ping)))
            }
        }
    }

    /// Time has passed.
    pub fn timer(&mut self, now: Time) {
        match self.state {
            State::Login(_) if now >= self.since + self.parameters.login_timeout => {
                self.end(Ended::Timeout("login"))
            }
            State::Full => {
                if self.tasks.values().any(|task| now >= task.deadline) {
                    return self.end(Ended::Timeout("answer to a command"));
                }
                match self.ping {
                    Some(sent) if now >= sent + self.parameters.nop_timeout => {
                        self.end(Ended::Timeout("answer to a NOP-Out"))
                    }
                    None if now >= self.since + self.parameters.nop_interval => {
                        self.ping = Some(now);
                        let tag = self.tag();
                        self.send_nop(tag, NO_TAG, [0; 8], &[]);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn pdu(&mut self, header: &Header, data: &[u8]) {
        let code = header.opcode & 0x3f;
        if matches!(self.state, State::Login(_)) != (code == opcode::LOGIN_RESPONSE) {
            return self.end(Ended::Protocol("a login response belongs to a login"));
        }
        self.count(header, code);
        match code {
            opcode::LOGIN_RESPONSE => self.login_response(header, data),
            opcode::SCSI_RESPONSE => self.scsi_response(header, data),
            opcode::DATA_IN => self.data_in(header, data),
            opcode::R2T => self.ready_to_transfer(header),
            opcode::NOP_IN => {
                self.ping = None;
                let transfer = header.transfer_tag.get();
                if transfer != NO_TAG {
                    self.send_nop(NO_TAG, transfer, header.lun, data);
                }
            }
            opcode::TEXT_RESPONSE => self.text_response(header, data),
            opcode::TASK_MANAGEMENT_RESPONSE => {
                if let Some(id) = self.managing.remove(&header.task_tag.get()) {
                    self.events.push_back(Event::Managed {
                        id,
                        response: header.status[0],
                    });
                }
            }
            opcode::LOGOUT_RESPONSE => self.end(Ended::LoggedOut),
            opcode::REJECT => self.end(Ended::Rejected(header.status[0])),
            opcode::ASYNC => {
                let [event, ..] = header.tail[1].get().to_be_bytes();
                // 0 carries sense data (nothing to do), 4 wants a new negotiation (optional).
                if matches!(event, 1..=3) {
                    self.end(Ended::Asked(event));
                }
            }
            _ => self.end(Ended::Protocol("unknown opcode")),
        }
    }

    /// StatSN, ExpCmdSN and MaxCmdSN.
    fn count(&mut self, header: &Header, code: u8) {
        let has_status = match code {
            opcode::DATA_IN => header.flags & 1 != 0,
            opcode::R2T => false,
            opcode::NOP_IN => header.task_tag.get() != NO_TAG,
            _ => true,
        };
        if has_status {
            self.stat_sn = header.number.get().wrapping_add(1);
        }
        let [max, ..] = header.tail;
        if wire::before(self.max_cmd_sn, max.get()) || code == opcode::LOGIN_RESPONSE {
            self.max_cmd_sn = max.get();
        }
    }

    fn login_response(&mut self, header: &Header, data: &[u8]) {
        let State::Login(login) = &mut self.state else {
            unreachable!("checked by pdu")
        };
        let [class, detail, ..] = header.tail[1].get().to_be_bytes();
        match login.response(&self.parameters, header.flags, [class, detail], data) {
            Ok(Step::Send(flags, text)) => self.send_login(flags, &text),
            Ok(Step::Done(agreed)) => {
                self.agreed = agreed;
                self.state = State::Full;
                self.events.push_back(Event::Ready);
            }
            Err(error) => self.end(error.into()),
        }
    }

    fn scsi_response(&mut self, header: &Header, data: &[u8]) {
        let Some(task) = self.tasks.remove(&header.task_tag.get()) else {
            return self.end(Ended::Protocol("a response to no command"));
        };
        let [response, status] = header.status;
        let sense_len = data
            .get(..2)
            .map_or(0, |len| usize::from(u16::from_be_bytes([len[0], len[1]])));
        let sense = data.get(2..).unwrap_or_default();
        let sense = sense[..sense_len.min(sense.len())].to_vec();
        let reply = Reply {
            response,
            status,
            sense,
            data: task.data_in,
            residual: residual(header),
        };
        self.events.push_back(Event::Done { id: task.id, reply });
    }

    fn data_in(&mut self, header: &Header, data: &[u8]) {
        let tag = header.task_tag.get();
        let Some(task) = self.tasks.get_mut(&tag) else {
            return self.end(Ended::Protocol("data for no command"));
        };
        if task.data(header, data).is_err() {
            return self.end(Ended::Protocol(
                "data out of order or beyond the expected length",
            ));
        }
        if header.flags & 1 != 0 {
            let task = self.tasks.remove(&tag).expect("it was there");
            let status = header.status[1];
            let reply = Reply {
                status,
                data: task.data_in,
                residual: residual(header),
                ..Reply::default()
            };
            self.events.push_back(Event::Done { id: task.id, reply });
        }
    }

    fn ready_to_transfer(&mut self, header: &Header) {
        let tag = header.task_tag.get();
        let Some(task) = self.tasks.get_mut(&tag) else {
            return self.end(Ended::Protocol("R2T for no command"));
        };
        if task
            .ready(tag, header, self.stat_sn, &self.agreed, &mut self.out)
            .is_err()
        {
            self.end(Ended::Protocol("R2T for data that there is not"));
        }
    }

    fn text_response(&mut self, header: &Header, data: &[u8]) {
        if self.text.len() + data.len() > MAX_TEXT {
            return self.end(Ended::Protocol("a text without end"));
        }
        self.text.extend_from_slice(data);
        if header.flags & FINAL == 0 {
            return self.send_text(header.task_tag.get(), header.transfer_tag.get(), &[]);
        }
        let pairs = text::pairs(&core::mem::take(&mut self.text));
        self.events.push_back(Event::Targets(pairs));
    }

    fn end(&mut self, why: Ended) {
        if matches!(self.state, State::Over) {
            return;
        }
        self.state = State::Over;
        for task in core::mem::take(&mut self.tasks).into_values() {
            self.events.push_back(Event::Lost { id: task.id });
        }
        self.events.push_back(Event::Ended(why));
    }

    fn tag(&mut self) -> u32 {
        self.next_tag = if self.next_tag >= NO_TAG - 1 {
            1
        } else {
            self.next_tag + 1
        };
        self.next_tag
    }

    fn send_login(&mut self, flags: u8, text: &[u8]) {
        let mut lun = [0; 8];
        lun[..6].copy_from_slice(&self.parameters.isid);
        let header = Header {
            opcode: opcode::LOGIN | opcode::IMMEDIATE,
            flags,
            lun,
            ..Header::default()
        };
        self.send_immediate(header, text);
    }

    fn send_text(&mut self, tag: u32, transfer_tag: u32, data: &[u8]) {
        let header = Header {
            opcode: opcode::TEXT | opcode::IMMEDIATE,
            flags: FINAL,
            task_tag: tag.into(),
            transfer_tag: transfer_tag.into(),
            ..Header::default()
        };
        self.send_immediate(header, data);
    }

    fn send_nop(&mut self, tag: u32, transfer_tag: u32, lun: [u8; 8], data: &[u8]) {
        let header = Header {
            opcode: opcode::NOP_OUT | opcode::IMMEDIATE,
            flags: FINAL,
            lun,
            task_tag: tag.into(),
            transfer_tag: transfer_tag.into(),
            ..Header::default()
        };
        self.send_immediate(header, data);
    }

    fn send_immediate(&mut self, mut header: Header, data: &[u8]) {
        header.number = self.cmd_sn.into();
        header.expected = self.stat_sn.into();
        encode(header, data, self.agreed.digests, &mut self.out);
    }
}

/// A SendTargets answer is at most this long.
const MAX_TEXT: usize = 1 << 20;

fn residual(header: &Header) -> i64 {
    let count = i64::from(header.tail[3].get());
    match header.flags & 0x06 {
        0x02 => -count,
        0x04 => count,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
