//! One session on one blocking connection, for a few commands one after the other.

use crate::core::command::Command;
use crate::core::session::{Ended, Event, Function, Parameters, Reply, Session};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    session: Session,
    start: Instant,
    buffer: Vec<u8>,
    next_id: u64,
}

/// Why a client can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket.
    #[error("the connection to {0} failed: {1}")]
    Socket(SocketAddr, io::Error),
    /// The session.
    #[error("the session ended: {0}")]
    Ended(#[from] Ended),
}

/// A target that discovery found, with its portals as they were listed (`address:port,group`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its iSCSI name.
    pub name: String,
    /// Where it is.
    pub portals: Vec<String>,
}

/// The session's timers are looked at this often while nothing comes.
const TICK: Duration = Duration::from_millis(20);

impl Client {
    /// Connects and logs in.
    ///
    /// # Errors
    /// No connection, or no login.
    pub fn login(address: SocketAddr, parameters: Parameters) -> Result<Self, ClientError> {
        let socket_error = |error| ClientError::Socket(address, error);
        let stream =
            TcpStream::connect_timeout(&address, parameters.login_timeout).map_err(socket_error)?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(TICK)))
            .map_err(socket_error)?;
        let start = Instant::now();
        let nonce = u128::from(std::process::id()) << 64
            | u128::from(stream.local_addr().map_or(0, |a| a.port()));
        let mut session = Session::new(parameters, nonce.to_le_bytes());
        session.start(Duration::ZERO);
        let mut client = Self {
            stream,
            session,
            start,
            buffer: vec![0; 64 << 10],
            next_id: 0,
        };
        match client.next_event()? {
            Event::Ready => Ok(client),
            event => unreachable!("a session begins with Ready, not {event:?}"),
        }
    }

    /// Runs a command.
    ///
    /// # Errors
    /// The session ended before the answer.
    pub fn run(&mut self, command: Command) -> Result<Reply, ClientError> {
        while self.session.window() == 0 {
            self.exchange()?;
        }
        self.next_id += 1;
        let wanted = self.next_id;
        self.session.command(self.start.elapsed(), wanted, command);
        loop {
            match self.next_event()? {
                Event::Done { id, reply } if id == wanted => return Ok(reply),
                _ => {}
            }
        }
    }

    /// Runs a command, again for each UNIT ATTENTION that waits (at most 8).
    ///
    /// # Errors
    /// The session ended before the answer.
    pub fn run_past_attentions(&mut self, command: &Command) -> Result<Reply, ClientError> {
        for _ in 0..8 {
            let reply = self.run(command.clone())?;
            if crate::core::sense::parse(&reply.sense).is_none_or(|sense| sense.key != 6) {
                return Ok(reply);
            }
        }
        self.run(command.clone())
    }

    /// Runs a task management function; its response code.
    ///
    /// # Errors
    /// The session ended before the answer.
    pub fn manage(&mut self, lun: u8, function: Function) -> Result<u8, ClientError> {
        self.next_id += 1;
        let wanted = self.next_id;
        self.session.manage(wanted, lun, function);
        loop {
            match self.next_event()? {
                Event::Managed { id, response } if id == wanted => return Ok(response),
                _ => {}
            }
        }
    }

    /// SendTargets=All.
    ///
    /// # Errors
    /// The session ended before the answer.
    pub fn discover(&mut self) -> Result<Vec<Found>, ClientError> {
        self.session.discover();
        loop {
            if let Event::Targets(pairs) = self.next_event()? {
                let mut found: Vec<Found> = Vec::new();
                for (key, value) in pairs {
                    match (key.as_str(), found.last_mut()) {
                        ("TargetName", _) => found.push(Found {
                            name: value,
                            portals: Vec::new(),
                        }),
                        ("TargetAddress", Some(target)) => target.portals.push(value),
                        _ => {}
                    }
                }
                return Ok(found);
            }
        }
    }

    /// Logs out.
    ///
    /// # Errors
    /// The session ended in another way.
    pub fn logout(mut self) -> Result<(), ClientError> {
        self.session.logout();
        loop {
            match self.next_event() {
                Err(ClientError::Ended(Ended::LoggedOut)) => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
    }

    /// The session, to look at.
    pub fn session(&self) -> &Session {
        &self.session
    }

    fn next_event(&mut self) -> Result<Event, ClientError> {
        loop {
            match self.session.next_event() {
                Some(Event::Ended(why)) => return Err(why.into()),
                Some(event) => return Ok(event),
                None => self.exchange()?,
            }
        }
    }

    fn exchange(&mut self) -> Result<(), ClientError> {
        let mut out = Vec::new();
        self.session.take_output(&mut out);
        if self.stream.write_all(&out).is_err() {
            self.session.closed();
            return Ok(());
        }
        match self.stream.read(&mut self.buffer) {
            Ok(0) => self.session.closed(),
            Ok(len) => self
                .session
                .received(self.start.elapsed(), &self.buffer[..len]),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                self.session.timer(self.start.elapsed());
            }
            Err(_) => self.session.closed(),
        }
        Ok(())
    }
}
