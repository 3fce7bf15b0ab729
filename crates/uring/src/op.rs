//! What can be asked of the ring, and what comes back.

use crate::Message;
use crate::sys::{Lent, LentMut};
use rustix::io::Errno;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// A descriptor that operations in progress keep open.
pub type Handle = Rc<OwnedFd>;

/// What the caller calls an operation; comes back with its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What the ring calls an operation in progress, for [`crate::Ring::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId(pub(crate) u64);

/// One operation, with everything that it needs until it completes.
pub enum Op {
    /// Accept connections, one completion each ([`Gift::Socket`]), until cancelled or failed.
    Accept {
        /// A listening socket.
        socket: Handle,
    },
    /// Connect a stream socket.
    Connect {
        /// Unconnected.
        socket: Handle,
        /// Where to.
        address: SocketAddr,
    },
    /// Receive into a piece of a slot; 0 bytes is the end of the stream.
    Receive {
        /// Connected.
        socket: Handle,
        /// Where to put it.
        into: LentMut,
        /// Complete only when the piece is full (or the stream has ended).
        all: bool,
        /// The socket is known to be empty: wait for data first.
        empty: bool,
    },
    /// Send a message; completes with the number of bytes taken, which may be fewer.
    Send {
        /// Connected.
        socket: Handle,
        /// Comes back as [`Gift::Message`].
        message: Message,
    },
    /// Read a piece of a file into a piece of a slot.
    Read {
        /// Which file.
        file: Handle,
        /// Where to put it.
        into: LentMut,
        /// First byte in the file.
        offset: u64,
    },
    /// Write a piece of a slot into a file.
    Write {
        /// Which file.
        file: Handle,
        /// What.
        from: Lent,
        /// First byte in the file.
        offset: u64,
        /// Stable storage has it before completion (`RWF_DSYNC`).
        durable: bool,
    },
    /// Read a piece of a file into memory of its own; comes back as [`Gift::Bytes`].
    ReadBytes {
        /// Which file.
        file: Handle,
        /// Filled up to its length; the completion says how far.
        bytes: Box<[u8]>,
        /// First byte in the file.
        offset: u64,
    },
    /// Write memory of its own into a file; comes back as [`Gift::Bytes`].
    WriteBytes {
        /// Which file.
        file: Handle,
        /// What.
        bytes: Box<[u8]>,
        /// First byte in the file.
        offset: u64,
    },
    /// `fdatasync`.
    Sync {
        /// Which file.
        file: Handle,
    },
    /// `fallocate`.
    Allocate {
        /// Which file.
        file: Handle,
        /// First byte.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// What to do with them.
        mode: Allocate,
    },
}

/// What `fallocate` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Reserve space.
    Reserve,
    /// Make the range read as zeroes and keep its space.
    Zero,
    /// Give the space back; the range reads as zeroes.
    Punch,
}

/// Something owned that a completion brings.
pub enum Gift {
    /// Nothing.
    None,
    /// The message of a send, not yet advanced.
    Message(Message),
    /// The memory of `ReadBytes` or `WriteBytes`.
    Bytes(Box<[u8]>),
    /// An accepted connection.
    Socket(OwnedFd),
}

/// The end of an operation, or one result of many (`more`).
pub struct Completion {
    /// Whose.
    pub token: Token,
    /// Bytes moved (0 where that means nothing), or why not.
    pub result: Result<u32, Errno>,
    /// The operation goes on.
    pub more: bool,
    /// After a receive: the socket holds still more.
    pub nonempty: bool,
    /// What was lent with the operation and is owned.
    pub gift: Gift,
}
