//! How connections end: by the shard's wish, by the peer, or by our patience.

use super::connection::{Connection, INBOX_BYTES, Phase, Receiving};
use super::links::{Core, Links, Slot};
use super::tokens::Owner;
use lockstep_engine::interface::iscsi::ConnId;
use lockstep_uring::{Op, net};
use std::rc::Rc;
use std::time::Duration;

/// How long a connection that was told to close may take to send what is queued.
const FLUSH_TIME: Duration = Duration::from_secs(2);
/// How long the peer may take to close its side after that.
const LINGER_TIME: Duration = Duration::from_secs(1);

impl Links {
    /// The shard wants the connection closed when everything queued was sent.
    pub(super) fn close(&mut self, core: &mut Core, conn: ConnId) {
        if self
            .of(conn)
            .is_some_and(|connection| connection.phase == Phase::Open)
        {
            self.wind_up(core, conn.slot);
        }
    }

    /// The shard wants the connection gone, with whatever is still on its way: the kernel would
    /// send it again and again for minutes, and the peer would learn of the end only behind it.
    pub(super) fn abort(&mut self, core: &mut Core, conn: ConnId) {
        if let Some(connection) = self.of(conn) {
            net::reset_when_closed(&*connection.socket);
            self.die(core, conn.slot);
        }
    }

    /// Nothing more is taken from the peer; what is queued for it still goes out, also when it
    /// has ended its own side.
    pub(super) fn wind_up(&mut self, core: &mut Core, index: u32) {
        let by = core.now + FLUSH_TIME;
        let connection = self.expect(index);
        if !connection.spoken {
            // There is nothing that could be lost.
            return self.die(core, index);
        }
        connection.phase = Phase::Flushing { by };
        // The wanted buffer may be needed elsewhere soon.
        if let Some((op, Receiving::Buffer { .. })) = connection.receiving {
            core.ring.cancel(op);
        }
        self.linger(core, index);
    }

    /// If everything is sent: says so to the peer, and waits for its end of the stream. Closing
    /// with unread data would reset the connection, and what we sent last might be lost.
    pub(super) fn linger(&mut self, core: &mut Core, index: u32) {
        let now = core.now;
        let connection = self.expect(index);
        if !matches!(connection.phase, Phase::Flushing { .. })
            || connection.sending.is_some()
            || !connection.outgoing.is_empty()
        {
            return;
        }
        net::finish(&*connection.socket);
        connection.phase = Phase::Lingering {
            by: now + LINGER_TIME,
        };
        if connection.receiving.is_none() {
            self.discard(core, index);
        }
    }

    /// Ends the connection that has lingered longest.
    pub(super) fn end_a_lingering(&mut self, core: &mut Core) {
        let lingering = |slot: &Slot| match slot.connection.as_ref()?.phase {
            Phase::Lingering { by } => Some(by),
            _ => None,
        };
        let oldest = (0..)
            .zip(&self.slots)
            .filter_map(|(index, slot)| Some((lingering(slot)?, index)))
            .min();
        if let Some((_, index)) = oldest {
            self.die(core, index);
        }
    }

    /// Receives what nobody will look at.
    pub(super) fn discard(&mut self, core: &mut Core, index: u32) {
        let inbox = self.first_inbox + index;
        let connection = self.expect(index);
        let into = core.arena.lend_mut(inbox, 0, INBOX_BYTES);
        let socket = Rc::clone(&connection.socket);
        let op = Op::Receive {
            socket,
            into,
            all: false,
            empty: false,
        };
        let op = core.ring.submit(Owner::Receive(index).token(), op);
        connection.receiving = Some((op, Receiving::Inbox(INBOX_BYTES)));
    }

    /// Ends a connection; its name goes when the kernel has let go of everything.
    pub(super) fn die(&mut self, core: &mut Core, index: u32) {
        let connection = self.expect(index);
        if connection.phase == Phase::Dying {
            return;
        }
        connection.phase = Phase::Dying;
        net::shut(&*connection.socket);
        if let Some((op, _)) = connection.receiving {
            core.ring.cancel(op);
        }
        if let Some(sending) = &connection.sending {
            core.ring.cancel(sending.op);
        }
        let never_sent = std::mem::take(&mut connection.outgoing);
        for parcel in never_sent {
            self.recycle(parcel);
        }
        self.bury(index);
    }

    pub(super) fn bury(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.connection.as_ref().is_some_and(Connection::is_idle)
            && let Some(connection) = slot.connection.take()
        {
            self.closed.push(connection.id);
        }
    }

    /// Gives up peers that do not read or do not close. To be called some times a second.
    pub(super) fn housekeeping(&mut self, core: &mut Core) {
        for index in 0..u32::try_from(self.slots.len()).expect("at most CONNECTIONS_MAX") {
            let Some(connection) = self.slots[index as usize].connection.as_ref() else {
                continue;
            };
            let overdue = match connection.phase {
                Phase::Flushing { by } | Phase::Lingering { by } => by <= core.now,
                Phase::Open | Phase::Dying => false,
            };
            let stalled =
                connection.sending.is_some() && connection.progress + self.stall <= core.now;
            if stalled && connection.phase == Phase::Open {
                self.stalled += 1;
            }
            if overdue || stalled {
                self.die(core, index);
            }
        }
    }
}
