//! The kernel's form of operations. Making pointers is safe; that they stay valid until the
//! completion is the promise of [`Work`], on which `sys.rs` relies when it submits.

use crate::message::{Message, Part};
use crate::op::{Allocate, Handle, Op, Token};
use crate::sys::empty_header;
use io_uring::{opcode, squeue, types};
use rustix::net::SocketAddrAny;
use std::os::fd::AsRawFd;

/// An operation in progress. All memory that [`prepare`] names lies on the heap or in an arena and
/// is owned from here, so the value may move, but nothing in it may be touched until it is over.
pub(crate) struct Work {
    pub(crate) token: Token,
    pub(crate) op: Op,
    /// The address of a `Connect`, where the kernel finds it.
    address: Vec<SocketAddrAny>,
}

impl Work {
    pub(crate) const fn new(token: Token, op: Op) -> Self {
        Self {
            token,
            op,
            address: Vec::new(),
        }
    }
}

/// The kernel's view of a message; meaningful only while the message is in a ring's entry.
pub(crate) struct Iovecs {
    pieces: Vec<libc::iovec>,
    /// One element once used: on the heap, so that it stays where it is when the entry moves.
    header: Vec<libc::msghdr>,
}

impl Default for Iovecs {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            header: Vec::with_capacity(1),
        }
    }
}

impl Iovecs {
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.header.clear();
    }
}

/// Builds what `sendmsg` is given, less what was sent before.
fn describe(message: &mut Message) -> *const libc::msghdr {
    let mut skip = message.sent();
    message.iovecs.clear();
    for part in &message.parts {
        let (base, len) = match part {
            Part::Owned(range) => (
                message.owned[range.clone()].as_ptr().cast_mut(),
                range.len(),
            ),
            Part::Lent(lent) => (lent.pointer(), lent.len()),
        };
        let over = skip.min(len);
        skip -= over;
        if over < len {
            // The kernel only reads what a message names.
            message.iovecs.pieces.push(libc::iovec {
                iov_base: base.wrapping_add(over).cast(),
                iov_len: len - over,
            });
        }
    }
    let mut header = empty_header();
    header.msg_iov = message.iovecs.pieces.as_mut_ptr();
    header.msg_iovlen = message.iovecs.pieces.len().min(Message::PARTS_MAX);
    message.iovecs.header.push(header);
    message.iovecs.header.as_ptr()
}

/// `IORING_RECVSEND_POLL_FIRST`: wait for data before the first attempt.
const POLL_FIRST: u16 = 1;
const FALLOC_ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
const FALLOC_PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

fn fd(handle: &Handle) -> types::Fd {
    types::Fd(handle.as_raw_fd())
}

/// The kernel's form of an operation. Every pointer in it leads to memory owned by `work.op`:
/// arena bytes on loan, or a heap block of a box or vector that is not touched until completion.
pub(crate) fn prepare(work: &mut Work) -> squeue::Entry {
    match &mut work.op {
        Op::Accept { socket } => opcode::AcceptMulti::new(fd(socket))
            .flags(libc::SOCK_CLOEXEC)
            .build(),
        Op::Connect { socket, address } => {
            let stored = vec![SocketAddrAny::from(*address)];
            let (pointer, len) = (stored[0].as_ptr().cast(), stored[0].addr_len());
            work.address = stored;
            opcode::Connect::new(fd(socket), pointer, len).build()
        }
        Op::Receive {
            socket,
            into,
            all,
            empty,
        } => opcode::Recv::new(fd(socket), into.pointer(), into.len())
            .flags(if *all { libc::MSG_WAITALL } else { 0 })
            .ioprio(if *empty { POLL_FIRST } else { 0 })
            .build(),
        Op::Send { socket, message } => {
            let header = describe(message);
            opcode::SendMsg::new(fd(socket), header)
                .flags(libc::MSG_NOSIGNAL as u32)
                .build()
        }
        Op::Read { file, into, offset } => opcode::Read::new(fd(file), into.pointer(), into.len())
            .offset(*offset)
            .build(),
        Op::Write {
            file,
            from,
            offset,
            durable,
        } => opcode::Write::new(fd(file), from.pointer(), from.len32())
            .offset(*offset)
            .rw_flags(if *durable { libc::RWF_DSYNC } else { 0 })
            .build(),
        Op::ReadBytes {
            file,
            bytes,
            offset,
        } => opcode::Read::new(fd(file), bytes.as_mut_ptr(), len32(bytes))
            .offset(*offset)
            .build(),
        Op::WriteBytes {
            file,
            bytes,
            offset,
        } => opcode::Write::new(fd(file), bytes.as_ptr(), len32(bytes))
            .offset(*offset)
            .build(),
        Op::Sync { file } => opcode::Fsync::new(fd(file))
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Op::Allocate {
            file,
            offset,
            len,
            mode,
        } => opcode::Fallocate::new(fd(file), *len)
            .offset(*offset)
            .mode(match mode {
                Allocate::Reserve => 0,
                Allocate::Zero => FALLOC_ZERO,
                Allocate::Punch => FALLOC_PUNCH,
            })
            .build(),
    }
}

fn len32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("single transfers stay below 4 GiB")
}
