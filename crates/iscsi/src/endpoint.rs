//! The iSCSI layer of one shard: all its connections, sessions and tasks, and what happens when
//! something comes in. Handlers append [`Output`]s, which the caller carries out in their order.
//! Everything is addressed by slot; nothing is searched per command but a session's short list of
//! tasks (for a task tag that is in use twice).

mod admission;
mod answers;
mod commands;
mod control;
mod data_out;
mod endings;
mod framing;
mod logins;
mod management;
mod notes;
mod report;
mod texts;
mod timers;

#[cfg(test)]
mod tests;

pub use report::SessionReport;

use crate::connection::Connection;
use crate::interface::{ConnId, Output, Response, Settings, TargetId, TaskId, Time, Want};
use crate::random::Random;
use crate::session::Session;
use crate::tasks::TaskTable;
use alloc::vec::Vec;
use core::net::SocketAddr;
use management::Management;
use notes::Notes;

/// The iSCSI layer of one shard.
pub struct Endpoint {
    settings: Settings,
    random: Random,
    /// By the driver's slot.
    connections: Vec<Option<Connection>>,
    /// Connections in the table, and those among them that have not logged in.
    open: u32,
    half_open: u32,
    /// Connections that ever came.
    admitted: u64,
    sessions: Vec<Option<Session>>,
    next_nexus: u32,
    next_tsih: u16,
    tasks: TaskTable,
    /// Task management functions and logouts that wait for tasks to end; a few a session.
    managements: Vec<Management>,
    notes: Notes,
    /// `logout_all` was called: no new connections, and the old ones end at this time.
    stopping: Option<Time>,
    /// No deadline is earlier than this.
    wake: Option<Time>,
}

impl Endpoint {
    /// An endpoint without connections. `seed` must be random and secret: challenges, first
    /// StatSNs and session handles come from it.
    #[must_use]
    pub fn new(settings: Settings, seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        let next_tsih = u16::from_le_bytes(random.bytes());
        Self {
            settings,
            random,
            connections: Vec::new(),
            open: 0,
            half_open: 0,
            admitted: 0,
            sessions: Vec::new(),
            next_nexus: 1,
            next_tsih,
            tasks: TaskTable::default(),
            managements: Vec::new(),
            notes: Notes::default(),
            stopping: None,
            wake: None,
        }
    }

    /// Replaces the settings. Sessions of targets that are gone end; all others go on with what
    /// they have agreed on, and new logins follow the new settings.
    pub fn configure(&mut self, now: Time, settings: Settings, out: &mut Vec<Output>) {
        self.settings = settings;
        for index in 0..self.sessions.len() {
            let gone = self.sessions[index]
                .as_ref()
                .and_then(|session| session.target)
                .filter(|target| {
                    !self
                        .settings
                        .targets
                        .iter()
                        .any(|known| known.id == *target)
                });
            if gone.is_some() {
                self.end_session(now, index, out);
            }
        }
        // The interval between NOP-Ins may have become shorter.
        for connection in self.connections.iter_mut().flatten() {
            if connection.session().is_some() {
                connection.deadline = now;
            }
        }
        self.wake_at(now);
    }

    /// A connection was accepted at the portal with this index (its number appears in
    /// `NexusUp`), which belongs to the portal group `local_group`.
    pub fn connected(
        &mut self,
        now: Time,
        conn: ConnId,
        portal: u16,
        local_group: u16,
        peer: SocketAddr,
        out: &mut Vec<Output>,
    ) {
        self.admit(now, conn, portal, local_group, peer, out);
    }

    /// What the connection needs next. Once it is something else than `Wait`, it stays so until
    /// it is fulfilled or the connection closes.
    #[must_use]
    pub fn want(&self, conn: ConnId) -> Want {
        self.connection(conn).map_or(Want::Wait, Connection::want)
    }

    /// Fulfils `Want::Bytes`; other lengths than that wanted are a mistake of the caller.
    pub fn bytes(&mut self, now: Time, conn: ConnId, bytes: &[u8], out: &mut Vec<Output>) {
        self.read_bytes(now, conn, bytes, out);
    }

    /// Fulfils `Want::Data`; `crc` is the CRC32C of exactly those bytes.
    pub fn data(&mut self, now: Time, conn: ConnId, crc: u32, out: &mut Vec<Output>) {
        self.read_data(now, conn, crc, out);
    }

    /// Fulfils `Want::Skip`.
    pub fn skipped(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        self.read_skipped(now, conn, out);
    }

    /// The connection is gone, and the driver no longer writes into any buffer for it.
    pub fn closed(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        self.lost(now, conn, out);
    }

    /// The engine has a buffer for the `len` bytes that the command's CDB asks for; the layer
    /// fetches at most what the initiator said it would send.
    pub fn expect_data(&mut self, now: Time, task: TaskId, len: u32, out: &mut Vec<Output>) {
        self.fetch(now, task, len, out);
    }

    /// The engine's answer to a command.
    pub fn respond(&mut self, now: Time, task: TaskId, response: Response, out: &mut Vec<Output>) {
        self.answered(now, task, Some(response), out);
    }

    /// The engine has let go of a task that it was asked to abort.
    pub fn dropped(&mut self, now: Time, task: TaskId, out: &mut Vec<Output>) {
        self.answered(now, task, None, out);
    }

    /// Ends all sessions of a target.
    pub fn drop_sessions(&mut self, now: Time, target: TargetId, out: &mut Vec<Output>) {
        for index in 0..self.sessions.len() {
            if self.sessions[index]
                .as_ref()
                .is_some_and(|session| session.target == Some(target))
            {
                self.end_session(now, index, out);
            }
        }
    }

    /// Asks every initiator of a target for a sign of life; `Output::Alive` follows for each that
    /// answers.
    pub fn ping_target(&mut self, now: Time, target: TargetId, out: &mut Vec<Output>) {
        self.ping_sessions(now, target, out);
    }

    /// Asks all initiators to log out, and closes what is left at `by`. From now on no connection
    /// is taken until `welcome`: this comes before the end of the process, or before maintenance.
    pub fn logout_all(&mut self, now: Time, by: Time, out: &mut Vec<Output>) {
        self.stop(now, by, out);
    }

    /// Undoes `logout_all`: connections are taken again. What is still open of before stays.
    pub const fn welcome(&mut self) {
        self.stopping = None;
    }

    /// Carries out what has become due.
    pub fn timer(&mut self, now: Time, out: &mut Vec<Output>) {
        self.run_timers(now, out);
    }

    /// When `timer` must be called at the latest; calling it earlier is harmless.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.wake
    }

    /// All sessions, for reports.
    pub fn sessions(&self) -> impl Iterator<Item = SessionReport<'_>> {
        self.reports()
    }

    fn connection(&self, conn: ConnId) -> Option<&Connection> {
        let connection = self.connections.get(conn.slot as usize)?.as_ref()?;
        (connection.id == conn).then_some(connection)
    }

    fn connection_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(conn.slot as usize)?.as_mut()?;
        (connection.id == conn).then_some(connection)
    }
}
