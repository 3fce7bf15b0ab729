//! Control connections to the partner: which are believed, and what a broken, foreign or silent one
//! means. [`Channel`] has the handshake and the framing; the driver only moves bytes.

use super::{Node, Turn};
use crate::channel::{Channel, Heard};
use crate::interface::ToShard;
use crate::node_interface::{LinkId, NodeAction, Severity};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{Incarnation, Time};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::hello::{Hello, Purpose, Side};

/// A peer that has not proved itself by then is cut off: two round trips on a link that has become
/// very slow.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// Proven links at the same time: sixteen paths, each with its successor while the old one dies.
const MAX_LINKS: usize = 32;
/// Links that have yet to prove themselves. One more puts out the oldest: strangers who hold
/// connections open must not keep the partner away.
const MAX_HALF_OPEN: usize = 32;
/// One refused peer is reported this often at most; a wrong secret dials again twice a second.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// And for another reason than the last one: strangers may think of many.
const REPORT_CHANGE_EVERY: Duration = Duration::from_secs(10);

/// A control connection.
pub(super) struct Link {
    pub(super) path: u16,
    /// `None`: the driver was asked to close it.
    channel: Option<Channel>,
    /// The run of the partner that proved itself, and when.
    incarnation: Option<Incarnation>,
    pub(super) proven: Option<Time>,
    /// Somebody on the partner's machine who brings a death certificate, not the partner.
    certifier: bool,
    /// He has proved that he speaks for this run.
    certifies: Option<Incarnation>,
    since: Time,
    /// When bytes last came, or when this node began to listen again.
    listened: Time,
    /// When a heartbeat was last answered, or when this node began to listen again.
    answered: Time,
    /// Another one was asked for.
    renewed: bool,
    pub(super) heard: Option<Time>,
    pub(super) round_trip: Option<Duration>,
}

impl Link {
    /// The other end has proved itself, and the link is not being closed.
    pub(super) const fn is_proven(&self) -> bool {
        self.channel.is_some() && self.incarnation.is_some()
    }

    /// The same, and something comes on it.
    pub(super) const fn works(&self) -> bool {
        self.is_proven() && !self.renewed
    }

    /// Whether it is a proven link to this run.
    pub(super) fn leads_to(&self, run: Incarnation) -> bool {
        self.is_proven() && self.incarnation == Some(run)
    }

    /// A heartbeat was answered.
    pub(super) fn answered(&mut self, now: Time, round_trip: Duration) {
        self.answered = now;
        self.round_trip = Some(round_trip);
    }

    /// Since when it carries nothing, in one direction at least.
    fn quiet_since(&self) -> Time {
        match self.incarnation {
            None => self.since,
            Some(_) => self.listened.min(self.answered),
        }
    }

    /// Sends a frame, if the link is established.
    pub(super) fn send(&mut self, id: LinkId, frame: &ControlFrame, turn: &mut Turn<'_>) {
        if !self.certifier {
            self.answer(id, frame, turn);
        }
    }

    /// As `send`, to a certifier too.
    pub(super) fn answer(&mut self, id: LinkId, frame: &ControlFrame, turn: &mut Turn<'_>) {
        if let Some(bytes) = self.channel.as_mut().and_then(|it| it.seal(frame)) {
            turn.out.push(NodeAction::LinkSend { link: id, bytes });
        }
    }

    fn close(&mut self, id: LinkId, turn: &mut Turn<'_>, silent: bool) {
        self.channel = None;
        turn.out.push(NodeAction::LinkClose { link: id, silent });
    }
}

impl Node {
    pub(super) fn link_up(&mut self, turn: &mut Turn<'_>, id: LinkId, path: u16) {
        let (proven, open): (Vec<_>, Vec<_>) = self
            .links
            .iter_mut()
            .filter(|(_, it)| it.channel.is_some())
            .partition(|(_, it)| it.is_proven());
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
        let hello = hello.or_certifier();
        let (channel, bytes) = Channel::new(hello);
        turn.out.push(NodeAction::LinkSend { link: id, bytes });
        let link = Link {
            path,
            channel: Some(channel),
            incarnation: None,
            certifier: false,
            certifies: None,
            since: turn.now,
            proven: None,
            listened: turn.now,
            answered: turn.now,
            renewed: false,
            heard: None,
            round_trip: None,
        };
        self.links.insert(id, link);
    }

    pub(super) fn link_down(&mut self, turn: &Turn<'_>, id: LinkId) {
        let gone = self.links.remove(&id);
        let Some(gone) = gone.filter(|it| it.incarnation.is_some()) else {
            return;
        };
        if !self
            .links
            .values()
            .any(|it| it.path == gone.path && it.is_proven())
        {
            self.lost.insert(gone.path, turn.now);
        }
    }

    pub(super) fn link_bytes(&mut self, turn: &mut Turn<'_>, id: LinkId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.listened = turn.now;
        let Some(channel) = &mut link.channel else {
            return;
        };
        if link.renewed {
            // It was only slow.
            self.silent.remove(&link.path);
        }
        let mut heard = Vec::new();
        let taken = channel.take(bytes, &mut heard);
        for it in heard {
            match it {
                Heard::Reply(bytes) => turn.out.push(NodeAction::LinkSend { link: id, bytes }),
                Heard::Certifier => self.certifier(id),
                Heard::Proven(incarnation) => self.proven(turn, id, incarnation),
                Heard::Frame(frame) => match self.links.get(&id).and_then(|it| it.certifies) {
                    Some(run) => self.certificate_in(turn, id, run, frame),
                    None => self.frame(turn, id, frame),
                },
            }
        }
        if let Err(why) = taken {
            self.link_refused(turn, id, why);
        }
    }

    fn certifier(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.certifier = true;
        }
    }

    fn proven(&mut self, turn: &mut Turn<'_>, id: LinkId, incarnation: Incarnation) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.certifier {
            link.certifies = Some(incarnation);
        } else if self.heart.has_ended(incarnation) {
            let why = "a run of the partner that has ended, as its machine certified, speaks; is a copy of that node's state directory used elsewhere?";
            self.link_refused(turn, id, why.into());
        } else {
            self.established(turn, id, incarnation);
        }
    }

    pub(super) fn link_refused(&mut self, turn: &mut Turn<'_>, id: LinkId, why: String) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.close(id, turn, false);
        if link.certifier {
            return self.certificates.refuse(turn, &why);
        }
        let path = link.path;
        let known = self.refused.get(&path);
        let patience = match known.is_some_and(|(text, _)| *text == why) {
            true => REPORT_EVERY,
            false => REPORT_CHANGE_EVERY,
        };
        let said = known.map(|it| it.1).filter(|at| turn.now < *at + patience);
        if said.is_none() {
            turn.event(
                Severity::Warning,
                None,
                alloc::format!("control link on path {path} refused: {why}"),
            );
        }
        // The status shows the last reason, said or not.
        self.refused.insert(path, (why, said.unwrap_or(turn.now)));
    }

    /// Asks for a successor of links on which nothing comes, and closes them once that has been
    /// heard or too much time has passed. A connection that has lost something sends it again only
    /// after pauses that double; a new one is there as soon as the cable is. ▲ But the old one stays
    /// until then: a link that has become slow needs longer for a new connection than either node
    /// waits before it takes the partner for dead.
    pub(super) fn expire_links(&mut self, turn: &mut Turn<'_>) {
        let timing = self.settings.timing;
        // What was sent to a process that did not run has yet to be read.
        let slept = turn.now >= self.heart.looked() + timing.quiet() / 2;
        let newest = self.newest_links();
        for (id, link) in &mut self.links {
            if slept {
                (link.listened, link.answered) = (turn.now, turn.now);
            }
            if link.channel.is_none() {
                continue;
            }
            let due = match link.incarnation {
                None => link.since + HANDSHAKE,
                Some(_) => link.listened + timing.silence,
            };
            let succeeded = link.renewed && newest.get(&link.path).is_some_and(|it| it != id);
            if turn.now >= due || succeeded && link.is_proven() {
                link.close(*id, turn, true);
            } else if !link.renewed && turn.now >= link.quiet_since() + timing.quiet() {
                link.renewed = true;
                if link.incarnation.is_some() {
                    self.silent.insert(link.path, link.quiet_since());
                }
                turn.out.push(NodeAction::LinkRenew { link: *id });
            }
        }
        self.give_up_channels(turn);
    }

    /// Of each path the newest link on which both ends have proved themselves: a heartbeat was
    /// answered.
    fn newest_links(&self) -> BTreeMap<u16, LinkId> {
        let links = self.links.iter();
        let mutual = links.filter(|(_, it)| it.is_proven() && it.round_trip.is_some());
        let mut newest = BTreeMap::<u16, (Time, LinkId)>::new();
        for (id, link) in mutual {
            let known = newest.entry(link.path).or_insert((link.since, *id));
            *known = (*known).max((link.since, *id));
        }
        let ids = newest.into_iter();
        ids.map(|(path, (_, id))| (path, id)).collect()
    }

    /// Data channels of a path that has fallen silent are given up as soon as the partner is known
    /// to live: from what comes on another path, or once this one is there again.
    fn give_up_channels(&mut self, turn: &mut Turn<'_>) {
        let timing = &self.settings.timing;
        let Some(heard) = self.heart.heard else {
            return;
        };
        let lives = |_: &u16, last: &mut Time| heard >= *last + timing.quiet() / 2;
        for (path, last) in self.silent.extract_if(.., lives) {
            // By then a heartbeat would have come at the latest.
            let since = last + timing.quiet() * 3 / 5;
            turn.out
                .push(NodeAction::Order(ToShard::PathSilent { path, since }));
        }
    }

    /// A link is proven: everything that the partner must know goes out anew.
    fn established(&mut self, turn: &mut Turn<'_>, id: LinkId, incarnation: Incarnation) {
        for (other, link) in &mut self.links {
            if *other == id {
                link.incarnation = Some(incarnation);
                link.proven = Some(turn.now);
                link.answered = turn.now;
                self.refused.remove(&link.path);
            } else if link.is_proven() && link.incarnation != Some(incarnation) {
                // An earlier run of the partner; what still comes from it is the past.
                link.close(*other, turn, true);
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
                wall,
            } => {
                self.heartbeat(turn, id, (number, clock, stamp, incarnation, wall));
            }
            ControlFrame::HeartbeatAck { number, promises } => {
                self.heartbeat_ack(turn, id, number, &promises)
            }
            ControlFrame::Report(report) => self.report_in(turn, report),
            ControlFrame::Register(messages) => self.register_in(turn, messages),
            // Meant for a witness, which the partner is not; or not for a node that lives.
            ControlFrame::Forget(_)
            | ControlFrame::Certificate(_)
            | ControlFrame::CertificateAnswer { .. } => {}
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
