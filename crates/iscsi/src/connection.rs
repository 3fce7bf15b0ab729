//! One TCP connection: what it reads next, and the state of its login or its session.

use crate::interface::{ConnId, TaskId, Time, Want};
use crate::login::Login;
use crate::pdu::{HEADER_LEN, LoginRequest};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Bytes in a digest.
pub(crate) const DIGEST_LEN: u32 = 4;

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    /// A basic header segment, with its digest.
    Header,
    /// Additional header segments of a header without digest, or what is left of both when the
    /// digest's four bytes were read with the header: the same number of bytes.
    Additional { len: u32 },
    /// A data segment of `len` bytes that is handled here.
    Segment { len: u32 },
    /// A data segment of a task about which the engine has not decided yet.
    Undecided { task: TaskId, offset: u32, len: u32 },
    /// `len` bytes of a task's data; then `surplus` bytes that nobody needs.
    Data {
        task: TaskId,
        offset: u32,
        len: u32,
        surplus: u32,
    },
    /// Padding and digest behind a task's data.
    Tail { task: TaskId, len: u32, crc: u32 },
    /// Bytes that nobody needs.
    Skip { len: u32 },
}

/// A login and what the connection waits for.
#[derive(Debug)]
pub(crate) struct LoggingIn {
    pub(crate) login: Login,
    /// The last request, while an old session must end before it is answered.
    pub(crate) waiting: Option<Box<Waiting>>,
}

/// A login whose last answer has to wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: LoginRequest,
    pub(crate) flags: u8,
    pub(crate) text: Vec<u8>,
}

/// How far the connection is.
#[derive(Debug)]
pub(crate) enum State {
    Login(Box<LoggingIn>),
    /// In full feature phase, with the index of its session.
    Full {
        session: u32,
    },
    /// `Output::Close` went out; what comes in is ignored.
    Closing,
}

/// A text negotiation over several PDUs.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// Text that goes on in the next request (C bit).
    pub(crate) partial: Vec<u8>,
    /// The rest of an answer that did not fit one PDU.
    pub(crate) pending: Vec<u8>,
    /// The tag of the negotiation that goes on.
    pub(crate) tag: Option<u32>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) portal: u16,
    /// How many connections came before it.
    pub(crate) number: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) state: State,
    pub(crate) receive: Receive,
    /// The header of the PDU that is being read.
    pub(crate) header: [u8; HEADER_LEN],
    /// The first word of additional header segments that was read in the place of a digest.
    pub(crate) early: [u8; 4],
    pub(crate) header_digest: bool,
    pub(crate) data_digest: bool,
    /// Largest data segment that we take.
    pub(crate) max_receive: u32,
    /// StatSN of the next response.
    pub(crate) stat_sn: u32,
    /// Tasks whose unsolicited data has not ended, oldest first.
    pub(crate) unsolicited: VecDeque<TaskId>,
    pub(crate) texts: Texts,
    /// A Logout Request is being carried out.
    pub(crate) logging_out: bool,
    /// When anything came in last.
    pub(crate) heard: Time,
    /// A NOP-In was sent at this time and has not been answered.
    pub(crate) pinged: Option<Time>,
    /// A task must end, but its data is stuck half-way: close then.
    pub(crate) stalled: Option<Time>,
    /// When to look at it next.
    pub(crate) deadline: Time,
}

impl Connection {
    /// What it needs next. Once something else than `Wait` was wanted, it stays wanted.
    pub(crate) fn want(&self) -> Want {
        match (&self.state, self.receive) {
            (
                _,
                Receive::Data {
                    task, offset, len, ..
                },
            ) => Want::Data { task, offset, len },
            (State::Closing, _) | (_, Receive::Undecided { .. }) => Want::Wait,
            (State::Login(login), _) if login.waiting.is_some() => Want::Wait,
            (_, Receive::Header) if self.header_digest => Want::Bytes(52),
            (_, Receive::Header) => Want::Bytes(48),
            (_, Receive::Additional { len }) => Want::Bytes(len),
            (_, Receive::Segment { len }) => Want::Bytes(len + self.tail_len(len)),
            (_, Receive::Tail { len, .. }) => Want::Bytes(self.tail_len(len)),
            (_, Receive::Skip { len }) => Want::Skip(len),
        }
    }

    /// Padding and digest behind a data segment of `len` bytes.
    pub(crate) fn tail_len(&self, len: u32) -> u32 {
        if len == 0 {
            return 0;
        }
        crate::pdu::padding(len) + if self.data_digest { DIGEST_LEN } else { 0 }
    }

    /// Reads on after `len` data bytes (and what is behind them) that nobody needs.
    pub(crate) fn skip_segment(&mut self, len: u32) {
        self.receive = match len {
            0 => Receive::Header,
            _ => Receive::Skip {
                len: len + self.tail_len(len),
            },
        };
    }

    /// Whether the driver is writing into this task's buffer.
    pub(crate) fn is_filling(&self, id: TaskId) -> bool {
        matches!(self.receive, Receive::Data { task, .. } if task == id)
    }

    pub(crate) fn session(&self) -> Option<u32> {
        match self.state {
            State::Full { session } => Some(session),
            _ => None,
        }
    }
}
