//! Connections: what each wants from its socket, and to whom goes what came.

use super::partner::{self, Partner};
use super::tasks::Place;
use super::{Connection, Kind, Shard, count, index};
use crate::interface::{Action, Origin, Want};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;
use lockstep_iscsi::interface::{ConnId, Want as SessionWant};
use lockstep_mirror::control::Time;
use lockstep_mirror::operation::BufferId;

impl Shard {
    pub(super) fn connected(
        &mut self,
        now: Time,
        conn: ConnId,
        origin: Origin,
        peer: SocketAddr,
        actions: &mut Vec<Action>,
    ) {
        let kind = match origin {
            Origin::Portal(portal) => {
                let group = self.settings.group;
                self.session(|endpoint, out| {
                    endpoint.connected(now, conn, portal, group, peer, out)
                });
                Kind::Initiator
            }
            Origin::Partner(path) => match self.greet(now, conn, path, None, actions) {
                Some(partner) => Kind::Partner(Box::new(partner)),
                None => return self.insert_refused(conn, actions),
            },
            Origin::Dialed(dial) => {
                match self.greet(now, conn, self.path_of(dial), Some(dial), actions) {
                    Some(partner) => Kind::Partner(Box::new(partner)),
                    None => return self.insert_refused(conn, actions),
                }
            }
        };
        self.insert(Connection {
            id: conn,
            kind,
            want: Want::Wait,
            filling: None,
            closing: false,
        });
    }

    /// A connection that is not wanted is known until the driver has closed it.
    pub(super) fn insert_refused(&mut self, conn: ConnId, actions: &mut Vec<Action>) {
        self.insert(Connection {
            id: conn,
            kind: Kind::Initiator,
            want: Want::Wait,
            filling: None,
            closing: true,
        });
        actions.push(Action::Close { conn });
    }

    pub(super) fn insert(&mut self, connection: Connection) {
        let slot = index(connection.id.slot);
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        assert!(
            self.connections[slot].is_none(),
            "the driver reuses a connection's slot after Closed"
        );
        self.touched.push(connection.id);
        self.connections[slot] = Some(connection);
    }

    pub(super) fn connection(&self, conn: ConnId) -> Option<&Connection> {
        self.connections
            .get(index(conn.slot))?
            .as_ref()
            .filter(|connection| connection.id == conn)
    }

    pub(super) fn connection_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.connections
            .get_mut(index(conn.slot))?
            .as_mut()
            .filter(|connection| connection.id == conn)
    }

    pub(super) fn partner_of(&self, conn: ConnId) -> Option<&Partner> {
        match &self.connection(conn)?.kind {
            Kind::Partner(partner) => Some(partner),
            Kind::Initiator => None,
        }
    }

    pub(super) fn partner_mut(&mut self, conn: ConnId) -> &mut Partner {
        match self
            .connection_mut(conn)
            .map(|connection| &mut connection.kind)
        {
            Some(Kind::Partner(partner)) => partner,
            _ => unreachable!("the caller knows that this is a data connection"),
        }
    }

    /// Nothing more is read from a connection that was told to close.
    pub(super) fn mark_closing(&mut self, conn: ConnId) {
        if let Some(connection) = self.connection_mut(conn) {
            connection.closing = true;
        }
    }

    pub(super) fn bytes(
        &mut self,
        now: Time,
        conn: ConnId,
        bytes: &[u8],
        actions: &mut Vec<Action>,
    ) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        assert_eq!(
            connection.want,
            Want::Bytes(count(bytes.len())),
            "the driver brings what was wanted"
        );
        connection.want = Want::Wait;
        if connection.closing {
            return;
        }
        let from_partner = matches!(connection.kind, Kind::Partner(_));
        self.touched.push(conn);
        match from_partner {
            true => self.partner_bytes(now, conn, bytes, actions),
            false => match self.endpoint.want(conn) {
                // A parameter list or the one block of WRITE SAME: kept as bytes.
                SessionWant::Data { task, offset, .. } => {
                    self.keep_bytes(task, offset, bytes);
                    let crc = crc32c::crc32c(bytes);
                    self.session(|endpoint, out| endpoint.data(now, conn, crc, out));
                }
                // The task was aborted while its parameters came in.
                SessionWant::Skip(_) => {
                    self.session(|endpoint, out| endpoint.skipped(now, conn, out))
                }
                SessionWant::Bytes(_) => {
                    self.session(|endpoint, out| endpoint.bytes(now, conn, bytes, out))
                }
                SessionWant::Wait => {
                    unreachable!("the session wanted something when the driver was told")
                }
            },
        }
    }

    pub(super) fn data(&mut self, now: Time, conn: ConnId, crc: u32, actions: &mut Vec<Action>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let Want::Data { .. } = connection.want else {
            unreachable!("the driver brings what was wanted")
        };
        connection.want = Want::Wait;
        let closing = connection.closing;
        let filled = connection.filling.take();
        let from_partner = matches!(connection.kind, Kind::Partner(_));
        self.touched.push(conn);
        if !closing {
            if from_partner {
                self.partner_data(now, conn, crc, actions);
            } else {
                match self.endpoint.want(conn) {
                    // The task was aborted while its data came in: they are of no use any more.
                    SessionWant::Skip(_) => {
                        self.session(|endpoint, out| endpoint.skipped(now, conn, out))
                    }
                    _ => self.session(|endpoint, out| endpoint.data(now, conn, crc, out)),
                }
            }
        }
        if let Some(buffer) = filled {
            self.release(buffer);
        }
    }

    pub(super) fn skipped(&mut self, now: Time, conn: ConnId) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        connection.want = Want::Wait;
        if connection.closing {
            return;
        }
        if let Kind::Partner(partner) = &mut connection.kind {
            partner.stage = partner::Stage::Header;
            partner.heard = now;
        } else {
            self.session(|endpoint, out| endpoint.skipped(now, conn, out));
        }
        self.touched.push(conn);
    }

    pub(super) fn closed(&mut self, now: Time, conn: ConnId) {
        if self.connection(conn).is_none() {
            return;
        }
        let Some(connection) = self.connections[index(conn.slot)].take() else {
            return;
        };
        if let Some(buffer) = connection.filling {
            self.release(buffer);
        }
        match connection.kind {
            Kind::Initiator => self.session(|endpoint, out| endpoint.closed(now, conn, out)),
            Kind::Partner(partner) => {
                if let partner::Stage::Blocks(_, buffer) = partner.stage {
                    self.release(buffer);
                }
                if self.channels.remove(&partner.channel).is_some() {
                    self.each_volume(now, |volume, now, out| {
                        volume.channel_down(now, partner.channel, out)
                    });
                }
                if let Some(dial) = partner.dial {
                    self.redial(now, dial);
                }
            }
        }
    }

    /// Tells the driver's next want of each connection that had something happen to it.
    pub(super) fn renew_wants(&mut self, actions: &mut Vec<Action>) {
        let mut touched = core::mem::take(&mut self.touched);
        for conn in touched.drain(..) {
            let Some(connection) = self.connection(conn) else {
                continue;
            };
            if connection.want != Want::Wait || connection.closing {
                continue;
            }
            let (want, filling) = match &connection.kind {
                Kind::Partner(partner) => {
                    let want = partner.want();
                    let filling = if let Want::Data { buffer, .. } = want {
                        Some(buffer)
                    } else {
                        None
                    };
                    (want, filling)
                }
                Kind::Initiator => self.session_want(conn),
            };
            if let Some(buffer) = filling {
                self.pool.retain(buffer);
            }
            if want != Want::Wait {
                let connection = self
                    .connection_mut(conn)
                    .expect("it was there a moment ago");
                connection.want = want;
                connection.filling = filling;
                actions.push(Action::Wake { conn });
            }
        }
        self.touched = touched;
    }

    pub(super) fn session_want(&self, conn: ConnId) -> (Want, Option<BufferId>) {
        match self.endpoint.want(conn) {
            SessionWant::Bytes(len) => (Want::Bytes(len), None),
            SessionWant::Skip(len) => (Want::Skip(len), None),
            SessionWant::Wait => (Want::Wait, None),
            SessionWant::Data { task, offset, len } => match self.place(task) {
                Place::Bytes => (Want::Bytes(len), None),
                Place::Buffer(buffer) => (
                    Want::Data {
                        buffer,
                        at: offset,
                        len,
                    },
                    Some(buffer),
                ),
            },
        }
    }
}
