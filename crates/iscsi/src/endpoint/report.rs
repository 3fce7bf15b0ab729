//! What can be told about the sessions.

use super::Endpoint;
use crate::interface::{ConnId, NexusId, TargetId};
use core::net::SocketAddr;

/// One session, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionReport<'a> {
    /// Its nexus.
    pub nexus: NexusId,
    /// None: a discovery session.
    pub target: Option<TargetId>,
    /// InitiatorName, in lower case.
    pub initiator: &'a str,
    /// The initiator's part of the session's name.
    pub isid: [u8; 6],
    /// The target's part.
    pub tsih: u16,
    /// Its connection.
    pub conn: ConnId,
    /// Where the initiator is; None while the connection is already gone.
    pub peer: Option<SocketAddr>,
    /// The portal it came through.
    pub portal: Option<u16>,
    /// Commands in progress.
    pub tasks: u32,
}

impl Endpoint {
    pub(super) fn reports(&self) -> impl Iterator<Item = SessionReport<'_>> {
        self.sessions.iter().flatten().map(|session| {
            let connection = self.connection(session.conn);
            SessionReport {
                nexus: session.nexus,
                target: session.target,
                initiator: &session.initiator,
                isid: session.isid,
                tsih: session.tsih,
                conn: session.conn,
                peer: connection.map(|connection| connection.peer),
                portal: connection.map(|connection| connection.portal),
                tasks: u32::try_from(session.tasks.ids().len()).unwrap_or(u32::MAX),
            }
        })
    }
}
