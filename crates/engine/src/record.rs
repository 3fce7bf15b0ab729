//! A run written down, and played again. The driver notes each event with a digest of the actions
//! that it brought; `Replay` gives the same events to machines made anew and demands the same
//! actions. A run that went wrong on somebody's machine can so be looked at on another one.
//!
//! A recording holds what the machines were told, secrets and names among it, but no block of any
//! volume.

use crate::interface::{Action, Event, IoKey, Origin, ToShard};
use crate::node::Node;
use crate::node_interface::{
    Initiators, LinkId, NodeAction, NodeEvent, NodeSettings, Operator, VolumeReady,
};
use crate::pool::PoolClass;
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::net::SocketAddr;
use lockstep_iscsi::interface::ConnId;
use lockstep_mirror::control::{Time, VolumeId, WitnessId};
use lockstep_mirror::operation::BufferId;
use lockstep_mirror::volume_io::{IoError, Value};
use serde::{Deserialize, Serialize};

/// One line of a recording. Not printable: it may hold secrets.
#[derive(Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are those of the calls that are noted"
)]
pub enum Line {
    /// A shard was made.
    Shard {
        classes: Vec<PoolClass>,
        seed: [u8; 32],
    },
    /// A shard took an event.
    ToShard {
        now: Time,
        event: ShardEvent,
        actions: u32,
    },
    /// A node was made.
    Node {
        settings: Box<NodeSettings>,
        seed: [u8; 32],
        now: Time,
    },
    /// A node took an event.
    ToNode {
        now: Time,
        event: OwnedNodeEvent,
        actions: u32,
    },
}

/// [`Event`] with its bytes.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "see Event")]
pub enum ShardEvent {
    Connected {
        conn: ConnId,
        origin: Origin,
        peer: SocketAddr,
    },
    DialFailed {
        dial: u32,
    },
    Bytes {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    Data {
        conn: ConnId,
        crc: u32,
    },
    Skipped {
        conn: ConnId,
    },
    Sent {
        buffer: BufferId,
    },
    Closed {
        conn: ConnId,
    },
    Io {
        key: IoKey,
        result: Result<Value, IoError>,
    },
    Order(Box<ToShard>),
    Tick,
}

impl From<&Event<'_>> for ShardEvent {
    fn from(event: &Event<'_>) -> Self {
        match event {
            Event::Connected { conn, origin, peer } => Self::Connected {
                conn: *conn,
                origin: *origin,
                peer: *peer,
            },
            Event::DialFailed { dial } => Self::DialFailed { dial: *dial },
            Event::Bytes { conn, bytes } => Self::Bytes {
                conn: *conn,
                bytes: bytes.to_vec(),
            },
            Event::Data { conn, crc } => Self::Data {
                conn: *conn,
                crc: *crc,
            },
            Event::Skipped { conn } => Self::Skipped { conn: *conn },
            Event::Sent { buffer } => Self::Sent { buffer: *buffer },
            Event::Closed { conn } => Self::Closed { conn: *conn },
            Event::Io { key, result } => Self::Io {
                key: *key,
                result: result.clone(),
            },
            Event::Order(order) => Self::Order(Box::new(order.clone())),
            Event::Tick => Self::Tick,
        }
    }
}

impl ShardEvent {
    fn event(&self) -> Event<'_> {
        match self {
            Self::Connected { conn, origin, peer } => Event::Connected {
                conn: *conn,
                origin: *origin,
                peer: *peer,
            },
            Self::DialFailed { dial } => Event::DialFailed { dial: *dial },
            Self::Bytes { conn, bytes } => Event::Bytes { conn: *conn, bytes },
            Self::Data { conn, crc } => Event::Data {
                conn: *conn,
                crc: *crc,
            },
            Self::Skipped { conn } => Event::Skipped { conn: *conn },
            Self::Sent { buffer } => Event::Sent { buffer: *buffer },
            Self::Closed { conn } => Event::Closed { conn: *conn },
            Self::Io { key, result } => Event::Io {
                key: *key,
                result: result.clone(),
            },
            Self::Order(order) => Event::Order((**order).clone()),
            Self::Tick => Event::Tick,
        }
    }
}

/// [`NodeEvent`] with its bytes.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "see NodeEvent")]
pub enum OwnedNodeEvent {
    LinkUp {
        link: LinkId,
        path: u16,
    },
    WitnessUp {
        link: LinkId,
    },
    WitnessSecret(Option<Box<[u8]>>),
    Witness {
        volume: VolumeId,
        witness: Option<WitnessId>,
    },
    LinkDown {
        link: LinkId,
    },
    LinkBytes {
        link: LinkId,
        bytes: Vec<u8>,
    },
    VolumeReady(Box<VolumeReady>),
    VolumeUnavailable {
        volume: VolumeId,
        reason: String,
        #[serde(default)]
        settings: Option<Box<crate::interface::VolumeSettings>>,
    },
    VolumeGone {
        volume: VolumeId,
    },
    CloseVolume {
        volume: VolumeId,
    },
    SuperblockWritten {
        volume: VolumeId,
        ok: bool,
    },
    AcceptorWritten {
        ok: bool,
    },
    ConfigStored {
        ok: bool,
    },
    ProposeConfig {
        document: Vec<u8>,
    },
    AskInitiators {
        number: u64,
        volume: VolumeId,
    },
    InitiatorsFound {
        link: LinkId,
        number: u64,
        found: Initiators,
    },
    Portals {
        own: u16,
        partner: u16,
    },
    Stamp {
        oldest: Time,
        #[serde(default)]
        wall: u64,
    },
    Shard(Box<crate::interface::FromShard>),
    Stop,
    Operator(Operator),
    Tick,
}

impl From<&NodeEvent<'_>> for OwnedNodeEvent {
    fn from(event: &NodeEvent<'_>) -> Self {
        match event {
            NodeEvent::LinkUp { link, path } => Self::LinkUp {
                link: *link,
                path: *path,
            },
            NodeEvent::WitnessUp { link } => Self::WitnessUp { link: *link },
            NodeEvent::WitnessSecret(secret) => Self::WitnessSecret(secret.clone()),
            NodeEvent::Witness { volume, witness } => Self::Witness {
                volume: *volume,
                witness: *witness,
            },
            NodeEvent::LinkDown { link } => Self::LinkDown { link: *link },
            NodeEvent::LinkBytes { link, bytes } => Self::LinkBytes {
                link: *link,
                bytes: bytes.to_vec(),
            },
            NodeEvent::VolumeReady(ready) => Self::VolumeReady(ready.clone()),
            NodeEvent::VolumeUnavailable {
                volume,
                reason,
                settings,
            } => Self::VolumeUnavailable {
                volume: *volume,
                reason: reason.clone(),
                settings: settings.clone(),
            },
            NodeEvent::VolumeGone { volume } => Self::VolumeGone { volume: *volume },
            NodeEvent::CloseVolume { volume } => Self::CloseVolume { volume: *volume },
            NodeEvent::SuperblockWritten { volume, ok } => Self::SuperblockWritten {
                volume: *volume,
                ok: *ok,
            },
            NodeEvent::AcceptorWritten { ok } => Self::AcceptorWritten { ok: *ok },
            NodeEvent::ConfigStored { ok } => Self::ConfigStored { ok: *ok },
            NodeEvent::ProposeConfig { document } => Self::ProposeConfig {
                document: document.clone(),
            },
            NodeEvent::AskInitiators { number, volume } => Self::AskInitiators {
                number: *number,
                volume: *volume,
            },
            NodeEvent::InitiatorsFound {
                link,
                number,
                found,
            } => Self::InitiatorsFound {
                link: *link,
                number: *number,
                found: found.clone(),
            },
            NodeEvent::Portals { own, partner } => Self::Portals {
                own: *own,
                partner: *partner,
            },
            NodeEvent::Stamp { oldest, wall } => Self::Stamp {
                oldest: *oldest,
                wall: *wall,
            },
            NodeEvent::Shard(word) => Self::Shard(Box::new(word.clone())),
            NodeEvent::Stop => Self::Stop,
            NodeEvent::Operator(order) => Self::Operator(order.clone()),
            NodeEvent::Tick => Self::Tick,
        }
    }
}

impl OwnedNodeEvent {
    fn event(&self) -> NodeEvent<'_> {
        match self {
            Self::LinkUp { link, path } => NodeEvent::LinkUp {
                link: *link,
                path: *path,
            },
            Self::WitnessUp { link } => NodeEvent::WitnessUp { link: *link },
            Self::WitnessSecret(secret) => NodeEvent::WitnessSecret(secret.clone()),
            Self::Witness { volume, witness } => NodeEvent::Witness {
                volume: *volume,
                witness: *witness,
            },
            Self::LinkDown { link } => NodeEvent::LinkDown { link: *link },
            Self::LinkBytes { link, bytes } => NodeEvent::LinkBytes { link: *link, bytes },
            Self::VolumeReady(ready) => NodeEvent::VolumeReady(ready.clone()),
            Self::VolumeUnavailable {
                volume,
                reason,
                settings,
            } => NodeEvent::VolumeUnavailable {
                volume: *volume,
                reason: reason.clone(),
                settings: settings.clone(),
            },
            Self::VolumeGone { volume } => NodeEvent::VolumeGone { volume: *volume },
            Self::CloseVolume { volume } => NodeEvent::CloseVolume { volume: *volume },
            Self::SuperblockWritten { volume, ok } => NodeEvent::SuperblockWritten {
                volume: *volume,
                ok: *ok,
            },
            Self::AcceptorWritten { ok } => NodeEvent::AcceptorWritten { ok: *ok },
            Self::ConfigStored { ok } => NodeEvent::ConfigStored { ok: *ok },
            Self::ProposeConfig { document } => NodeEvent::ProposeConfig {
                document: document.clone(),
            },
            Self::AskInitiators { number, volume } => NodeEvent::AskInitiators {
                number: *number,
                volume: *volume,
            },
            Self::InitiatorsFound {
                link,
                number,
                found,
            } => NodeEvent::InitiatorsFound {
                link: *link,
                number: *number,
                found: found.clone(),
            },
            Self::Portals { own, partner } => NodeEvent::Portals {
                own: *own,
                partner: *partner,
            },
            Self::Stamp { oldest, wall } => NodeEvent::Stamp {
                oldest: *oldest,
                wall: *wall,
            },
            Self::Shard(word) => NodeEvent::Shard((**word).clone()),
            Self::Stop => NodeEvent::Stop,
            Self::Operator(order) => NodeEvent::Operator(order.clone()),
            Self::Tick => NodeEvent::Tick,
        }
    }
}

/// What is noted of actions: CRC32C of the way they are printed.
pub fn digest(actions: &[impl Debug]) -> u32 {
    actions.iter().fold(0, |crc, action| {
        crc32c::crc32c_append(crc, format!("{action:?}").as_bytes())
    })
}

/// Why a recording does not play.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The machine did something else.
    #[error("event {number} brings other actions than were recorded: {event}\nnow: {actions}")]
    Differs {
        /// How many events this machine took before.
        number: u64,
        /// The event.
        event: String,
        /// What it brings now.
        actions: String,
    },
    /// An event for a machine that was not made.
    #[error("the recording has events before the machine's start: its beginning is missing")]
    NoMachine,
}

/// Machines made anew, which take the events of a recording.
#[derive(Default)]
pub struct Replay {
    shard: Option<Shard>,
    node: Option<Node>,
    /// Events taken by the shard and by the node.
    pub events: (u64, u64),
}

impl Replay {
    /// Plays one line.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn line(&mut self, line: Line) -> Result<(), ReplayError> {
        match line {
            Line::Shard { classes, seed } => self.shard = Some(Shard::new(&classes, seed)),
            Line::Node {
                settings,
                seed,
                now,
            } => self.node = Some(Node::new(*settings, seed, now)),
            Line::ToShard {
                now,
                event,
                actions: noted,
            } => {
                let shard = self.shard.as_mut().ok_or(ReplayError::NoMachine)?;
                let mut actions: Vec<Action> = Vec::new();
                shard.handle(now, event.event(), &mut actions);
                compare(self.events.0, &event, &actions, noted)?;
                self.events.0 += 1;
            }
            Line::ToNode {
                now,
                event,
                actions: noted,
            } => {
                let node = self.node.as_mut().ok_or(ReplayError::NoMachine)?;
                let mut actions: Vec<NodeAction> = Vec::new();
                node.handle(now, event.event(), &mut actions);
                compare(self.events.1, &event, &actions, noted)?;
                self.events.1 += 1;
            }
        }
        Ok(())
    }
}

fn compare(
    number: u64,
    event: &impl Debug,
    actions: &[impl Debug],
    noted: u32,
) -> Result<(), ReplayError> {
    if digest(actions) == noted {
        return Ok(());
    }
    let (event, actions) = (format!("{event:?}"), format!("{actions:#?}"));
    Err(ReplayError::Differs {
        number,
        event,
        actions,
    })
}
