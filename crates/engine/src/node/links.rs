//! Control connections: handshake, framing, and what a broken or foreign one means. The driver
//! only moves bytes.

use super::{Node, Turn};
use crate::node_interface::{LinkId, NodeAction, Severity};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Incarnation, Time};
use lockstep_mirror::control_frame::{ControlFrame, MAX_PAYLOAD};
use lockstep_mirror::fields::Fields;
use lockstep_mirror::frame::{HEADER_LEN, Opener, Sealer, mac_required};
use lockstep_mirror::hello::{HELLO_LEN, Hello, PROOF_LEN, Purpose, Side};

/// A peer that has not proved itself by then is cut off: two round trips in a local network.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// Proven links at the same time: four paths, each with its successor while the old one dies.
const MAX_LINKS: usize = 8;
/// Links that have yet to prove themselves. One more puts out the oldest: strangers who hold
/// connections open must not keep the partner away.
const MAX_HALF_OPEN: usize = 8;
/// One refused peer is reported this often at most; a wrong secret dials again twice a second.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A control connection.
pub(super) struct Link {
    pub(super) path: u16,
    pub(super) state: State,
    since: Time,
    /// Bytes of an unfinished hello, proof or frame.
    buffer: Vec<u8>,
    /// When bytes last came, or when this node began to listen again.
    pub(super) listened: Time,
    pub(super) heard: Option<Time>,
    pub(super) round_trip: Option<Duration>,
}

/// How far it has come.
pub(super) enum State {
    Hello(Box<Hello>),
    Proof(Box<Hello>),
    Header(Box<Peer>),
    Payload(Box<Peer>, Fields),
    /// The driver was asked to close it.
    Closing,
}

/// The proven other end.
pub(super) struct Peer {
    sealer: Sealer,
    opener: Opener,
    pub(super) incarnation: Incarnation,
}

impl Link {
    /// Bytes that its next step takes.
    fn needs(&self) -> usize {
        match &self.state {
            State::Hello(_) => HELLO_LEN,
            State::Proof(_) => PROOF_LEN,
            State::Header(_) => HEADER_LEN,
            State::Payload(_, fields) => usize::try_from(fields.payload_len).unwrap_or(usize::MAX),
            State::Closing => usize::MAX,
        }
    }

    pub(super) fn peer(&self) -> Option<&Peer> {
        match &self.state {
            State::Header(peer) | State::Payload(peer, _) => Some(peer),
            _ => None,
        }
    }

    /// Sends a frame, if the link is established.
    pub(super) fn send(
        &mut self,
        id: LinkId,
        fields: &Fields,
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) {
        let (State::Header(peer) | State::Payload(peer, _)) = &mut self.state else {
            return;
        };
        let mut bytes = peer.sealer.seal(fields, Some(payload)).to_vec();
        bytes.extend_from_slice(payload);
        turn.out.push(NodeAction::LinkSend { link: id, bytes });
    }

    fn close(&mut self, id: LinkId, turn: &mut Turn<'_>, silent: bool) {
        self.state = State::Closing;
        self.buffer = Vec::new();
        turn.out.push(NodeAction::LinkClose { link: id, silent });
    }
}

impl Node {
    /// How many bytes a link needs next; more or fewer may be handed over all the same.
    #[must_use]
    pub fn want(&self, link: LinkId) -> Option<u32> {
        let link = self.links.get(&link)?;
        u32::try_from(link.needs().saturating_sub(link.buffer.len())).ok()
    }

    pub(super) fn link_up(&mut self, turn: &mut Turn<'_>, id: LinkId, path: u16) {
        let (proven, open): (Vec<_>, Vec<_>) = self
            .links
            .iter_mut()
            .filter(|(_, it)| !matches!(it.state, State::Closing))
            .partition(|(_, it)| it.peer().is_some());
        let Some(partner) = self.settings.partner.filter(|_| proven.len() < MAX_LINKS) else {
            turn.out.push(NodeAction::LinkClose {
                link: id,
                silent: false,
            });
            return;
        };
        if open.len() >= MAX_HALF_OPEN
            && let Some((oldest, link)) = open.into_iter().min_by_key(|(id, it)| (it.since, **id))
        {
            link.close(*oldest, turn, false);
        }
        let me = Side {
            node: self.settings.node,
            incarnation: self.settings.incarnation,
            cluster: self.settings.cluster,
            purpose: Purpose::Control,
        };
        let hello = Hello::new(me, partner, &self.settings.secret, self.random.bytes());
        turn.out.push(NodeAction::LinkSend {
            link: id,
            bytes: hello.first().to_vec(),
        });
        let link = Link {
            path,
            state: State::Hello(Box::new(hello)),
            since: turn.now,
            buffer: Vec::new(),
            listened: turn.now,
            heard: None,
            round_trip: None,
        };
        self.links.insert(id, link);
    }

    pub(super) fn link_down(&mut self, id: LinkId) {
        self.links.remove(&id);
    }

    pub(super) fn link_bytes(&mut self, turn: &mut Turn<'_>, id: LinkId, mut bytes: &[u8]) {
        if let Some(link) = self.links.get_mut(&id) {
            link.listened = turn.now;
        }
        while let Some(link) = self.links.get_mut(&id) {
            if matches!(link.state, State::Closing) {
                return;
            }
            let missing = link.needs() - link.buffer.len();
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            link.buffer.extend_from_slice(now);
            bytes = later;
            if now.len() < missing {
                return;
            }
            let whole = core::mem::take(&mut link.buffer);
            match self.link_step(turn, id, &whole) {
                Ok(Some(frame)) => self.frame(turn, id, frame),
                Ok(None) => {}
                Err(why) => self.link_refused(turn, id, why),
            }
        }
    }

    /// A whole hello, proof, header or payload is here.
    fn link_step(
        &mut self,
        turn: &mut Turn<'_>,
        id: LinkId,
        bytes: &[u8],
    ) -> Result<Option<ControlFrame>, String> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(None);
        };
        let state = core::mem::replace(&mut link.state, State::Closing);
        let exact = "a step is given exactly the bytes that it needs";
        match state {
            State::Hello(mut hello) => {
                let reply = hello
                    .received(bytes.try_into().expect(exact))
                    .map_err(|it| it.to_string())?;
                turn.out.push(NodeAction::LinkSend {
                    link: id,
                    bytes: reply.to_vec(),
                });
                link.state = State::Proof(hello);
            }
            State::Proof(mut hello) => {
                let met = hello
                    .proof(bytes.try_into().expect(exact))
                    .map_err(|it| it.to_string())?;
                let incarnation = met.partner_incarnation;
                link.state = State::Header(Box::new(Peer {
                    sealer: met.sealer,
                    opener: met.opener,
                    incarnation,
                }));
                let path = link.path;
                self.refused.remove(&path);
                self.established(turn, incarnation);
            }
            State::Header(mut peer) => {
                let fields = peer
                    .opener
                    .header(bytes.try_into().expect(exact))
                    .map_err(|it| it.to_string())?;
                let too_long = usize::try_from(fields.payload_len).is_ok_and(|it| it > MAX_PAYLOAD);
                if too_long || !mac_required(fields.kind) {
                    return Err(alloc::format!(
                        "control frame of kind {:#x} and {} bytes",
                        fields.kind,
                        fields.payload_len
                    ));
                }
                if fields.payload_len > 0 {
                    link.state = State::Payload(peer, fields);
                    return Ok(None);
                }
                link.state = State::Header(peer);
                return ControlFrame::decode(&fields, &[])
                    .map(Some)
                    .map_err(|it| it.to_string());
            }
            State::Payload(peer, fields) => {
                peer.opener.payload(bytes).map_err(|it| it.to_string())?;
                link.state = State::Header(peer);
                return ControlFrame::decode(&fields, bytes)
                    .map(Some)
                    .map_err(|it| it.to_string());
            }
            State::Closing => {}
        }
        Ok(None)
    }

    fn link_refused(&mut self, turn: &mut Turn<'_>, id: LinkId, why: String) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.close(id, turn, false);
        let path = link.path;
        let said = self
            .refused
            .get(&path)
            .is_some_and(|(text, at)| *text == why && turn.now < *at + REPORT_EVERY);
        if !said {
            turn.event(
                Severity::Warning,
                None,
                alloc::format!("control link on path {path} refused: {why}"),
            );
            self.refused.insert(path, (why, turn.now));
        }
    }

    /// Closes links on which nothing comes. A connection that has lost something sends it again
    /// only after pauses that double; a new one is there as soon as the cable is.
    pub(super) fn expire_links(&mut self, turn: &mut Turn<'_>) {
        let quiet = self.settings.timing.quiet();
        // What was sent to a process that did not run has yet to be read.
        let slept = turn.now >= self.heart.looked() + quiet / 2;
        for (id, link) in &mut self.links {
            if slept {
                link.listened = turn.now;
            }
            let late = match link.state {
                State::Hello(_) | State::Proof(_) => turn.now >= link.since + HANDSHAKE,
                State::Header(_) | State::Payload(..) => turn.now >= link.listened + quiet,
                State::Closing => false,
            };
            if late {
                link.close(*id, turn, true);
            }
        }
    }

    /// A link is proven: everything that the partner must know goes out anew.
    fn established(&mut self, turn: &mut Turn<'_>, incarnation: Incarnation) {
        for (id, link) in &mut self.links {
            if link.peer().is_some_and(|it| it.incarnation != incarnation) {
                // An earlier run of the partner; what still comes from it is the past.
                link.close(*id, turn, true);
            }
        }
        self.heart.partner_runs(incarnation);
        for volume in self.volumes.values_mut() {
            volume.report_due = turn.now;
        }
        turn.touched.extend(self.volumes.keys().copied());
        self.pool.announce();
        self.heart.next_beat = turn.now;
    }

    fn frame(&mut self, turn: &mut Turn<'_>, id: LinkId, frame: ControlFrame) {
        match frame {
            ControlFrame::Heartbeat {
                number,
                clock,
                stamp,
                incarnation,
            } => {
                self.heartbeat(turn, id, (number, clock, stamp, incarnation));
            }
            ControlFrame::HeartbeatAck { number, promises } => {
                self.heartbeat_ack(turn, id, number, &promises)
            }
            ControlFrame::Report(report) => self.report_in(turn, report),
            ControlFrame::Register(messages) => self.register_in(turn, messages),
            // Meant for a witness, which the partner is not.
            ControlFrame::Forget(_) => {}
            ControlFrame::PoolState(state) => self.pool_state_in(state),
            ControlFrame::PoolChunk {
                version,
                commit,
                total,
                offset,
                bytes,
            } => {
                self.pool_chunk_in((version, commit), total, offset, &bytes);
            }
            asked @ (ControlFrame::AskInitiators { .. } | ControlFrame::Initiators { .. }) => {
                Self::initiators_in(turn, id, asked);
            }
        }
    }
}
