//! The connection to the witness: one at a time, over which the register's questions go. Without
//! it nothing changes for a pair that is well.

use super::{Node, Turn};
use crate::channel::{Channel, Heard};
use crate::node_interface::{LinkId, NodeAction, Severity, WitnessStatus};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::time::Duration;
use lockstep_mirror::control::{Incarnation, Time, VolumeId, WITNESS, WitnessId};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::hello::{Hello, Purpose, Side};
use lockstep_mirror::lease::Heartbeats;

/// A witness that has not proved itself by then is not one.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// Without an answer for this long the connection is taken for dead and made anew.
const SILENCE: Duration = Duration::from_secs(2);

struct Connection {
    link: LinkId,
    channel: Channel,
    id: Option<WitnessId>,
    since: Time,
    heard: Time,
}

/// The connection to the witness.
#[derive(Default)]
pub(super) struct Witness {
    secret: Option<Box<[u8]>>,
    connection: Option<Connection>,
    sent: Heartbeats,
    round_trip: Option<Duration>,
    heard: Option<Time>,
    refused: Option<String>,
}

impl Witness {
    /// The life of the votes of the witness that is connected.
    pub(super) fn id(&self) -> Option<WitnessId> {
        self.connection.as_ref().and_then(|it| it.id)
    }

    pub(super) fn is(&self, link: LinkId) -> bool {
        self.connection.as_ref().is_some_and(|it| it.link == link)
    }

    pub(super) fn down(&mut self, link: LinkId) {
        self.connection = self.connection.take().filter(|it| it.link != link);
    }

    fn close(&mut self, turn: &mut Turn<'_>) {
        if let Some(connection) = self.connection.take() {
            turn.out.push(NodeAction::LinkClose {
                link: connection.link,
                silent: false,
            });
        }
    }

    pub(super) fn expire(&mut self, turn: &mut Turn<'_>) {
        let dead = self.connection.as_ref().is_some_and(|it| match it.id {
            None => turn.now >= it.since + HANDSHAKE,
            Some(_) => turn.now >= it.heard + SILENCE,
        });
        if dead {
            self.close(turn);
        }
    }

    pub(super) fn send(&mut self, turn: &mut Turn<'_>, frame: &ControlFrame) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Some(bytes) = connection.channel.seal(frame) {
            let link = connection.link;
            turn.out.push(NodeAction::LinkSend { link, bytes });
        }
    }

    pub(super) fn forget(&mut self, turn: &mut Turn<'_>, volume: VolumeId) {
        self.send(turn, &ControlFrame::Forget([volume].into()));
    }

    pub(super) fn status(&self, now: Time) -> WitnessStatus {
        WitnessStatus {
            id: self.id(),
            heard: self.heard.map(|at| now.saturating_sub(at)),
            round_trip: self.round_trip,
            refused: self.refused.clone(),
        }
    }
}

impl Node {
    pub(super) fn witness_secret(&mut self, turn: &mut Turn<'_>, secret: Option<Box<[u8]>>) {
        if self.witness.secret != secret {
            self.witness.close(turn);
            self.witness.secret = secret;
            self.witness.refused = None;
        }
    }

    pub(super) fn witness_for(
        &mut self,
        turn: &mut Turn<'_>,
        volume: VolumeId,
        witness: Option<WitnessId>,
    ) {
        if let Some(it) = self.volumes.get_mut(&volume) {
            it.membership.desire(witness);
            turn.touched.insert(volume);
        }
    }

    pub(super) fn witness_up(&mut self, turn: &mut Turn<'_>, link: LinkId) {
        self.witness.close(turn);
        let Some(secret) = &self.witness.secret else {
            let silent = false;
            turn.out.push(NodeAction::LinkClose { link, silent });
            return;
        };
        let me = Side {
            node: self.settings.node,
            incarnation: self.settings.incarnation,
            cluster: self.settings.cluster,
            purpose: Purpose::Control,
        };
        let hello = Hello::new(me, WITNESS, secret, self.random.bytes());
        let (channel, bytes) = Channel::new(hello);
        turn.out.push(NodeAction::LinkSend { link, bytes });
        self.witness.connection = Some(Connection {
            link,
            channel,
            id: None,
            since: turn.now,
            heard: turn.now,
        });
    }

    pub(super) fn witness_bytes(&mut self, turn: &mut Turn<'_>, link: LinkId, bytes: &[u8]) {
        let Some(connection) = &mut self.witness.connection else {
            return;
        };
        let mut heard = Vec::new();
        let taken = connection.channel.take(bytes, &mut heard);
        for it in heard {
            match it {
                Heard::Reply(bytes) => turn.out.push(NodeAction::LinkSend { link, bytes }),
                Heard::Proven(Incarnation(life)) => self.witness_proven(turn, life),
                Heard::Frame(frame) => self.witness_frame(turn, frame),
                // Refused by the handshake: a witness certifies nothing.
                Heard::Certifier => {}
            }
        }
        if let Err(why) = taken {
            self.witness.close(turn);
            if self.witness.refused.as_ref() != Some(&why) {
                let text = format!("the witness was refused: {why}");
                turn.event(Severity::Warning, None, text);
                self.witness.refused = Some(why);
            }
        }
    }

    /// The run that a witness names is the life of its votes.
    fn witness_proven(&mut self, turn: &mut Turn<'_>, life: u64) {
        let life = u32::try_from(life).ok().and_then(NonZeroU32::new);
        let Some((connection, life)) = self.witness.connection.as_mut().zip(life) else {
            self.witness.close(turn);
            return;
        };
        connection.id = Some(WitnessId(life));
        connection.heard = turn.now;
        self.witness.heard = Some(turn.now);
        self.witness.refused = None;
        self.votes.ask_again(WITNESS);
        turn.touched.extend(self.volumes.keys().copied());
    }

    fn witness_frame(&mut self, turn: &mut Turn<'_>, frame: ControlFrame) {
        let Some(connection) = &mut self.witness.connection else {
            return;
        };
        connection.heard = turn.now;
        self.witness.heard = Some(turn.now);
        let id = connection.id;
        match (frame, id) {
            (ControlFrame::Register(messages), Some(id)) => self.witness_votes(turn, id, messages),
            (ControlFrame::HeartbeatAck { number, .. }, _) => {
                let sent = self.witness.sent.sent_at(number);
                self.witness.round_trip = sent.map(|it| turn.now.saturating_sub(it));
            }
            // A newer witness may say more than this node understands.
            _ => {}
        }
    }

    pub(super) fn beat_witness(&mut self, turn: &mut Turn<'_>) {
        if self.witness.id().is_none() {
            return;
        }
        let number = self.witness.sent.send(turn.now);
        let frame = ControlFrame::Heartbeat {
            number,
            clock: turn.now,
            stamp: Duration::ZERO,
            incarnation: self.settings.incarnation,
            wall: 0,
        };
        self.witness.send(turn, &frame);
    }
}
