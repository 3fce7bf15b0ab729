//! [`Multipath`] on real sockets: one thread, non-blocking TCP and `poll`. Dropping it ends
//! everything at once, without a logout.

use crate::core::Time;
use crate::core::command::Command;
use crate::core::multipath::{Action, Done, Link, Multipath, Options};
use crate::core::session::Parameters;
use crate::socket::{Progress, Socket};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use rustix::event::{PollFlags, Timespec, poll};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// Where a path leads, and how to log in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSettings {
    /// The portal.
    pub address: SocketAddr,
    /// For the session.
    pub parameters: Parameters,
}

/// See the module.
#[derive(Debug)]
pub struct Driver {
    multipath: Multipath,
    addresses: Vec<SocketAddr>,
    sockets: Vec<Option<(Link, Socket)>>,
    buffer: Vec<u8>,
    start: Instant,
}

/// One read from a socket takes at most this much.
const RECEIVE: usize = 256 << 10;

impl Driver {
    /// A disk by these paths.
    ///
    /// # Panics
    /// Without any path.
    pub fn new(options: Options, paths: &[PathSettings], seed: u64) -> Self {
        let parameters = paths.iter().map(|path| path.parameters.clone()).collect();
        Self {
            multipath: Multipath::new(options, parameters, seed),
            addresses: paths.iter().map(|path| path.address).collect(),
            sockets: paths.iter().map(|_| None).collect(),
            buffer: vec![0; RECEIVE],
            start: Instant::now(),
        }
    }

    /// Time since this was made.
    pub fn now(&self) -> Time {
        self.start.elapsed()
    }

    /// The paths and what waits for them.
    pub fn multipath(&self) -> &Multipath {
        &self.multipath
    }

    /// Takes a command; see [`Multipath::submit`].
    pub fn submit(&mut self, id: u64, command: Command, prefer: Option<usize>) {
        self.multipath.submit(self.now(), id, command, prefer);
    }

    /// The next finished command.
    pub fn next_done(&mut self) -> Option<Done> {
        self.multipath.next_done()
    }

    /// Moves everything on; waits for at most `at_most` if there is nothing to do.
    ///
    /// # Errors
    /// Only if this process has run out of something (descriptors, memory).
    pub fn turn(&mut self, at_most: Duration) -> io::Result<()> {
        self.multipath.timer(self.now());
        self.act();
        self.send();
        let wait = match self.multipath.next_deadline() {
            Some(deadline) => deadline.saturating_sub(self.now()).min(at_most),
            None => at_most,
        };
        let ready = self.wait(wait)?;
        for (path, flags) in ready {
            self.look(path, flags);
        }
        self.act();
        self.send();
        Ok(())
    }

    /// Logs out of all paths and waits for that, at most so long.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub fn close(mut self, at_most: Duration) -> io::Result<()> {
        self.multipath.close();
        let end = self.now() + at_most;
        while self.now() < end && self.sockets.iter().any(Option::is_some) {
            self.turn(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn wait(&self, at_most: Duration) -> io::Result<Vec<(usize, PollFlags)>> {
        let open = self
            .sockets
            .iter()
            .enumerate()
            .filter_map(|(path, socket)| Some((path, socket.as_ref()?)));
        let (paths, mut fds): (Vec<_>, Vec<_>) = open
            .map(|(path, (_, socket))| (path, socket.poll_fd()))
            .unzip();
        let timeout = Timespec::try_from(at_most).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(paths
            .into_iter()
            .zip(fds.iter().map(rustix::event::PollFd::revents))
            .collect())
    }

    fn look(&mut self, path: usize, flags: PollFlags) {
        let now = self.start.elapsed();
        let Some((link, socket)) = &mut self.sockets[path] else {
            return;
        };
        let link = *link;
        match socket.ready(flags, &mut self.buffer) {
            Progress::Idle => {}
            Progress::Connected => self.multipath.connected(now, link),
            Progress::Received(len) => self.multipath.received(now, link, &self.buffer[..len]),
            Progress::Closed => {
                self.sockets[path] = None;
                self.multipath.closed(now, link);
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.multipath.next_action() {
            match action {
                Action::Connect(link) => match Socket::connect(self.addresses[link.path]) {
                    Ok(socket) => self.sockets[link.path] = Some((link, socket)),
                    Err(_) => self.multipath.closed(self.start.elapsed(), link),
                },
                Action::Disconnect(link) => {
                    if self.sockets[link.path]
                        .as_ref()
                        .is_some_and(|(open, _)| *open == link)
                    {
                        self.sockets[link.path] = None;
                    }
                }
            }
        }
    }

    fn send(&mut self) {
        for path in 0..self.sockets.len() {
            let Some((link, socket)) = &mut self.sockets[path] else {
                continue;
            };
            let link = *link;
            self.multipath.take_output(link, &mut socket.unsent);
            if !socket.flush() {
                self.sockets[path] = None;
                self.multipath.closed(self.start.elapsed(), link);
            }
        }
    }
}
