//! What goes out: everything that is queued on a connection in a turn leaves in one vectored send.

use super::connection::{Parcel, Phase, Sending};
use super::links::{Core, Links};
use super::tokens::Owner;
use crate::crc;
use lockstep_engine::interface::iscsi::ConnId;
use lockstep_engine::interface::{Body, Head};
use lockstep_uring::{Arena, Completion, Errno, Gift, Message, Op};
use std::rc::Rc;

/// The longest parcel in bytes: a few times what a socket takes at once.
const PARCEL_BYTES: usize = 1 << 20;
/// Pieces of one body: the head, the blocks, and padding with digest.
const PIECES: usize = 3;
/// Parcels that are kept for their memory.
const SPARE_MAX: usize = 64;

impl Links {
    /// Queues a head and a body.
    pub(super) fn queue(&mut self, core: &Core, conn: ConnId, head: &Head, body: Body) {
        let spare = self.spare.pop();
        let Some(connection) = self
            .of(conn)
            .filter(|connection| connection.phase == Phase::Open)
        else {
            self.spare.extend(spare);
            if let Body::Blocks { buffer, .. } = body {
                self.released.push(buffer);
            }
            return;
        };
        let fits = |parcel: &Parcel| {
            parcel.message.has_room(PIECES) && parcel.message.remaining() < PARCEL_BYTES
        };
        if connection.outgoing.back().is_some_and(fits) {
            self.spare.extend(spare);
        } else {
            connection.outgoing.push_back(spare.unwrap_or_default());
        }
        let connection = self.of(conn).expect("it was there above");
        let parcel = connection
            .outgoing
            .back_mut()
            .expect("one was added if there was none");
        let before = parcel.message.remaining();
        parcel.append(&core.arena, head, body);
        let added = parcel.message.remaining() - before;
        connection.queues(added);
        if !connection.unsent {
            connection.unsent = true;
            self.unsent.push(conn.slot);
        }
    }

    /// At the end of a turn: one send for each connection that has something new.
    pub(super) fn flush(&mut self, core: &mut Core) {
        while let Some(index) = self.unsent.pop() {
            let Some(connection) = self.at(index) else {
                continue;
            };
            connection.unsent = false;
            if connection.sending.is_none() {
                connection.progress = core.now;
                self.send(core, index);
            }
        }
    }

    /// Sends the next parcel, if there is one.
    fn send(&mut self, core: &mut Core, index: u32) {
        let Some(connection) = self.at(index) else {
            return;
        };
        let Some(Parcel { message, buffers }) = connection.outgoing.pop_front() else {
            return;
        };
        let socket = Rc::clone(&connection.socket);
        let op = core
            .ring
            .submit(Owner::Send(index).token(), Op::Send { socket, message });
        connection.sending = Some(Sending { op, buffers });
        self.sends += 1;
    }

    /// A send has ended.
    pub(super) fn sent(&mut self, core: &mut Core, index: u32, completion: Completion) {
        let Gift::Message(mut message) = completion.gift else {
            unreachable!("sends give their message back")
        };
        let connection = self
            .at(index)
            .expect("a connection stays until the kernel has nothing of it");
        let Sending { buffers, .. } = connection.sending.take().expect("one send at a time");
        let dying = connection.phase == Phase::Dying;
        let taken = match completion.result {
            Ok(count) => Some(count),
            Err(Errno::INTR | Errno::AGAIN) => Some(0),
            Err(_) => None,
        };
        if let Some(count) = taken {
            message.advance(count as usize);
            if count > 0 {
                connection.progress = core.now;
            }
        }
        if connection.took(taken.unwrap_or(0)) {
            self.touch(index);
        }
        if taken.is_some() && !dying && message.remaining() > 0 {
            let connection = self.expect(index);
            connection.outgoing.push_front(Parcel { message, buffers });
            self.send(core, index);
        } else {
            self.recycle(Parcel { message, buffers });
            if dying {
                self.bury(index);
            } else if taken.is_none() {
                self.die(core, index);
            } else {
                self.send(core, index);
                self.linger(core, index);
            }
        }
        self.sent_bytes += u64::from(taken.unwrap_or(0));
    }

    /// The kernel needs a parcel no more, or never will.
    pub(super) fn recycle(&mut self, mut parcel: Parcel) {
        parcel.message.clear();
        self.released.append(&mut parcel.buffers);
        if self.spare.len() < SPARE_MAX {
            self.spare.push(parcel);
        }
    }
}

impl Parcel {
    fn append(&mut self, arena: &Arena, head: &Head, body: Body) {
        let message: &mut Message = &mut self.message;
        message.push_bytes(&head.bytes[..usize::from(head.len)]);
        match body {
            Body::None => {}
            Body::Bytes(bytes) => message.push_bytes(&bytes),
            Body::Blocks {
                buffer,
                at,
                len,
                pad,
                digest,
            } => {
                message.push_lent(arena.lend(buffer.slot, at, len));
                let padding = if pad {
                    &[0; 3][..len.next_multiple_of(4) as usize - len as usize]
                } else {
                    &[]
                };
                message.push_bytes(padding);
                if digest {
                    let crc = crc::crc32c(arena.bytes(buffer.slot, at, len));
                    message.push_bytes(&crc::append(crc, padding).to_le_bytes());
                }
                self.buffers.push(buffer);
            }
        }
    }
}
