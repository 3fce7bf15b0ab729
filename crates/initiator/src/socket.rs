//! One non-blocking TCP socket and what still has to go out on it.

use alloc::vec::Vec;
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    connecting: bool,
    pub(crate) unsent: Vec<u8>,
}

/// What became of a socket in a turn.
pub(crate) enum Progress {
    /// Nothing new.
    Idle,
    /// The connection stands.
    Connected,
    /// Bytes came, into the caller's buffer.
    Received(usize),
    /// Closed or failed.
    Closed,
}

impl Socket {
    /// Begins to connect.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            connecting: true,
            unsent: Vec::new(),
        })
    }

    /// What to wait for.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        let out = if self.connecting || !self.unsent.is_empty() {
            PollFlags::OUT
        } else {
            PollFlags::empty()
        };
        PollFd::new(&self.stream, out | PollFlags::IN)
    }

    /// Looks at a socket that `poll` named.
    pub(crate) fn ready(&mut self, flags: PollFlags, buffer: &mut [u8]) -> Progress {
        if flags.is_empty() {
            return Progress::Idle;
        }
        if self.connecting {
            return match self.stream.take_error() {
                Ok(None) if flags.contains(PollFlags::OUT) && !flags.contains(PollFlags::HUP) => {
                    self.connecting = false;
                    Progress::Connected
                }
                Ok(None) => Progress::Idle,
                _ => Progress::Closed,
            };
        }
        match self.stream.read(buffer) {
            Ok(0) => Progress::Closed,
            Ok(len) => Progress::Received(len),
            Err(error) if passes(&error) => Progress::Idle,
            Err(_) => Progress::Closed,
        }
    }

    /// Sends what is unsent, as far as the kernel takes it; false: the connection failed.
    pub(crate) fn flush(&mut self) -> bool {
        if self.connecting {
            return true;
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return false,
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return passes(&error),
            }
        }
        true
    }
}

fn passes(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
