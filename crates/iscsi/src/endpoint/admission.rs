//! Which connections are taken, and how they go. Whoever connects and says nothing (a port probe)
//! leaves no trace.

use super::Endpoint;
use crate::connection::{Connection, LoggingIn, Receive, State, Texts};
use crate::interface::{ConnId, Output, Time};
use crate::login::Login;
use crate::parameters::DEFAULT_SEGMENT;
use crate::pdu::HEADER_LEN;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// So many times fewer than half-open connections are allowed count as newcomers.
const NEWCOMERS: u64 = 4;

impl Endpoint {
    pub(super) fn admit(
        &mut self,
        now: Time,
        conn: ConnId,
        portal: u16,
        group: u16,
        peer: SocketAddr,
        out: &mut Vec<Output>,
    ) {
        let slot = conn.slot as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        assert!(
            self.connections[slot].is_none(),
            "the driver reused a slot before it was closed"
        );
        let login = Login::new(group, &self.settings);
        let refused = self.stopping.is_some() || self.open >= self.settings.max_connections;
        let crowded = self.half_open >= self.settings.max_half_open.max(1);
        let deadline = now + Time::from_secs(u64::from(self.settings.login_timeout_s));
        if refused {
            self.notes.add(
                now,
                format_args!(
                    "{peer} was turned away: {}",
                    if self.stopping.is_some() {
                        "the node is being stopped"
                    } else {
                        "as many connections as allowed are open (see max_connections)"
                    }
                ),
                out,
            );
        } else if crowded {
            self.close_a_half_open(now, out);
        }
        let number = self.admitted;
        self.admitted += 1;
        self.open += 1;
        self.half_open += 1;
        self.connections[slot] = Some(Connection {
            id: conn,
            portal,
            number,
            peer,
            state: State::Login(Box::new(LoggingIn {
                login,
                waiting: None,
            })),
            receive: Receive::Header,
            header: [0; HEADER_LEN],
            early: [0; 4],
            header_digest: false,
            data_digest: false,
            max_receive: DEFAULT_SEGMENT,
            stat_sn: self.random.number(),
            unsolicited: VecDeque::new(),
            texts: Texts::default(),
            logging_out: false,
            heard: now,
            pinged: None,
            stalled: None,
            deadline,
        });
        self.wake_at(deadline);
        if refused {
            self.close(now, conn, out);
        }
    }

    /// Whoever floods the port loses connections first: the address that holds most of them. Of its
    /// connections the oldest that has said nothing, or the oldest of all if only newcomers have
    /// not: a newcomer is heard before it is judged, and those who hold places by half a login do
    /// not keep newcomers out.
    fn close_a_half_open(&mut self, now: Time, out: &mut Vec<Output>) {
        let half_open = |connection: &&Connection| {
            let State::Login(login) = &connection.state else {
                return false;
            };
            login.waiting.is_none()
        };
        let all = || self.connections.iter().flatten().filter(half_open);
        let mut held = BTreeMap::<IpAddr, u32>::new();
        for connection in all() {
            *held.entry(connection.peer.ip()).or_default() += 1;
        }
        let most = held.values().max();
        let newcomers = u64::from(self.settings.max_half_open) / NEWCOMERS;
        let victim = all()
            .filter(|connection| held.get(&connection.peer.ip()) == most)
            .min_by_key(|connection| {
                let newcomer = connection.number + newcomers >= self.admitted;
                let silent = matches!(&connection.state, State::Login(it) if !it.login.has_begun());
                (newcomer || !silent, connection.number)
            })
            .map(|connection| connection.id);
        if let Some(victim) = victim {
            self.close(now, victim, out);
        }
    }

    /// Closes a connection from our side; its session, if it had one, ends.
    pub(super) fn close(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let before = core::mem::replace(&mut connection.state, State::Closing);
        connection.deadline = Time::MAX;
        match before {
            State::Closing => return,
            State::Login(_) => self.half_open -= 1,
            State::Full { .. } => {}
        }
        out.push(Output::Close { conn });
        if let State::Full { session } = before {
            self.end_session(now, session as usize, out);
        }
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        let Some(place) = self.connections.get_mut(conn.slot as usize) else {
            return;
        };
        let Some(connection) = place.take_if(|connection| connection.id == conn) else {
            return;
        };
        self.open -= 1;
        match connection.state {
            State::Login(_) => self.half_open -= 1,
            State::Full { session } => self.end_session(now, session as usize, out),
            State::Closing => {}
        }
        // A task whose buffer was being filled could not end before.
        if let Receive::Data { task, .. } = connection.receive {
            self.buffer_is_free(now, task, out);
        }
    }
}
