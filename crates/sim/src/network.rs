//! A pretend network: links between hosts, and TCP-like streams over them. A stream keeps order
//! and loses nothing while it lives; but its bytes come in pieces and late, it stalls while its
//! link is cut, and after a cut until its sender tries again, after pauses that double; it is
//! reset, and one end may not notice that the other is gone.

mod stream;

use crate::prng::Prng;
use core::time::Duration;
use std::collections::VecDeque;
use stream::{Chunk, End, Load, Stream};

/// A machine: the index of a node or an initiator in the world's table.
pub type Host = usize;

/// A pair of directed channels between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub usize);

/// One end of a stream: its number, and whether it is the side that dialled (0) or listened (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndId {
    /// The stream.
    pub stream: usize,
    /// 0 dialled, 1 listened.
    pub side: usize,
}

impl EndId {
    const fn other(self) -> Self {
        Self {
            stream: self.stream,
            side: 1 - self.side,
        }
    }
}

/// What a host's kernel tells its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Somebody connected; the host answers with [`Network::accept`] or [`Network::refuse`].
    Incoming {
        /// This host's end.
        end: EndId,
        /// Over which link.
        link: LinkId,
        /// The port dialled.
        port: u16,
    },
    /// A dial succeeded.
    Opened(EndId),
    /// A dial failed.
    Refused(EndId),
    /// There are bytes to be taken.
    Readable(EndId),
    /// The other side closed, or the stream was reset or timed out.
    Closed(EndId),
}

/// What the network does at a later time.
#[derive(Clone, Copy, Debug)]
pub enum NetEvent {
    /// A dial tries to reach the other host.
    Syn {
        /// The dialling end.
        end: EndId,
        /// How long it waits before it tries again.
        pause: Duration,
    },
    /// A dial that was not answered is given up.
    GiveUp(EndId),
    /// The dial's answer arrives.
    SynAck(EndId),
    /// Something sent by this end may arrive.
    Deliver(EndId),
    /// The sender looks whether it has waited too long for an acknowledgement.
    Timeout(EndId),
    /// The kernel asks whether the other end of an idle stream is still there.
    Probe {
        /// Who asks.
        end: EndId,
        /// Since when nobody answers.
        silent_since: Option<Duration>,
    },
}

/// A link as it is at present.
#[derive(Clone, Debug)]
pub struct Link {
    /// The two hosts.
    pub hosts: [Host; 2],
    /// Whether bytes pass from the first to the second, and from the second to the first.
    pub up: [bool; 2],
    /// Shortest and longest time on the way, in microseconds.
    pub latency: (u64, u64),
    /// Thousandths of pieces that are lost at first and sent again after a time-out.
    pub loss: u64,
    /// Whether a piece may arrive with a wrong bit (thousandths); for links whose protocol notices.
    pub flips: u64,
    live: Vec<usize>,
}

/// Counts of what happened, for the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Pieces delivered.
    pub pieces: u64,
    /// Streams that were reset or timed out.
    pub resets: u64,
    /// Pieces that were late because they were lost at first.
    pub losses: u64,
    /// Bits flipped.
    pub flips: u64,
}

/// How long an ordinary program waits for a connection.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// After this time, doubled each time, a kernel asks again for a connection.
const SYN_PAUSE: Duration = Duration::from_secs(1);
/// After this time (milliseconds), doubled each time, a kernel sends again what was not
/// acknowledged: its smallest time-out, and a little more.
const RESEND_MS: (u64, u64) = (200, 260);
/// Bytes that may wait in one direction of a stream: far above any window of the protocols, so
/// that only an unbounded queue reaches it.
const MAX_QUEUED: usize = 64 << 20;

/// All links and streams.
#[derive(Debug)]
pub struct Network {
    links: Vec<Link>,
    on: Vec<bool>,
    streams: Vec<Stream>,
    timers: Vec<(Duration, NetEvent)>,
    notes: VecDeque<(Host, Note)>,
    prng: Prng,
    user_timeout: Duration,
    /// Time between two probes of an idle stream.
    keepalive: Duration,
    /// Counts for the report.
    pub traffic: Traffic,
}

impl Network {
    /// Hosts that are switched on, without links. `user_timeout`: how long a sender waits for an
    /// acknowledgement before it gives the stream up; idle streams are probed as often as to
    /// notice a silent other end in the same time.
    #[must_use]
    pub fn new(hosts: usize, user_timeout: Duration, prng: Prng) -> Self {
        Self {
            links: Vec::new(),
            on: vec![true; hosts],
            streams: Vec::new(),
            timers: Vec::new(),
            notes: VecDeque::new(),
            prng,
            user_timeout,
            keepalive: user_timeout / 3,
            traffic: Traffic::default(),
        }
    }

    /// A new link, up in both directions.
    pub fn add_link(&mut self, hosts: [Host; 2], latency: (u64, u64)) -> LinkId {
        self.links.push(Link {
            hosts,
            up: [true; 2],
            latency,
            loss: 0,
            flips: 0,
            live: Vec::new(),
        });
        LinkId(self.links.len() - 1)
    }

    /// A link, to look at it.
    #[must_use]
    pub fn link(&self, link: LinkId) -> &Link {
        &self.links[link.0]
    }

    /// A link, to change its latency, loss and flips.
    pub fn link_mut(&mut self, link: LinkId) -> &mut Link {
        &mut self.links[link.0]
    }

    /// What is to happen later; the world puts it on its wheel.
    pub fn take_timers(&mut self) -> Vec<(Duration, NetEvent)> {
        core::mem::take(&mut self.timers)
    }

    /// What hosts are to be told now.
    pub fn next_note(&mut self) -> Option<(Host, Note)> {
        self.notes.pop_front()
    }

    /// Opens a stream to the other host of the link; the program waits for so long.
    pub fn dial(
        &mut self,
        now: Duration,
        link: LinkId,
        from: Host,
        port: u16,
        patience: Duration,
    ) -> EndId {
        let hosts = self.links[link.0].hosts;
        let forward = usize::from(hosts[0] != from);
        assert_eq!(hosts[forward], from, "a host dials over its own links");
        let end = EndId {
            stream: self.streams.len(),
            side: 0,
        };
        self.streams
            .push(Stream::new(link, [from, hosts[1 - forward]], forward, port));
        let delay = self.latency(link);
        let syn = NetEvent::Syn {
            end,
            pause: SYN_PAUSE,
        };
        self.timers.push((now + delay, syn));
        self.timers.push((now + patience, NetEvent::GiveUp(end)));
        end
    }

    /// The listener takes the connection.
    pub fn accept(&mut self, now: Duration, end: EndId) {
        let stream = &mut self.streams[end.stream];
        stream.ends[1] = End::Open;
        let link = stream.link;
        self.links[link.0].live.push(end.stream);
        let delay = self.latency(link);
        self.timers
            .push((now + delay, NetEvent::SynAck(end.other())));
        for end in [end, end.other()] {
            let probe = NetEvent::Probe {
                end,
                silent_since: None,
            };
            self.timers.push((now + self.keepalive, probe));
        }
    }

    /// Nobody listens there.
    pub fn refuse(&mut self, end: EndId) {
        let stream = &mut self.streams[end.stream];
        stream.ends = [End::Gone; 2];
        let host = stream.hosts[0];
        self.notes.push_back((host, Note::Refused(end.other())));
    }

    /// Sends bytes; they arrive in order, in pieces.
    ///
    /// # Panics
    /// If more than [`MAX_QUEUED`] bytes wait: some queue has no bound.
    pub fn send(&mut self, now: Duration, end: EndId, bytes: &[u8]) {
        if self.streams[end.stream].ends[end.side] != End::Open || bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let cut = if rest.len() > 1 && self.prng.chance(200) {
                self.prng.index(rest.len() - 1) + 1
            } else {
                rest.len()
            };
            let (piece, after) = rest.split_at(cut);
            self.queue(now, end, Load::Bytes(piece.to_vec()));
            rest = after;
        }
        let waiting = self.streams[end.stream].queued(end.side);
        assert!(
            waiting <= MAX_QUEUED,
            "{waiting} bytes wait in one stream: a queue has no bound"
        );
        self.timers
            .push((now + self.user_timeout, NetEvent::Timeout(end)));
    }

    /// Bytes that have arrived here and were not taken yet.
    #[must_use]
    pub fn arrived(&self, end: EndId) -> &[u8] {
        self.streams[end.stream].inbox[end.side].bytes()
    }

    /// Takes the first `len` of them.
    pub fn take(&mut self, end: EndId, len: usize) {
        self.streams[end.stream].inbox[end.side].take(len);
    }

    /// Closes in order: what was sent still arrives, then the other side is told.
    pub fn close(&mut self, now: Duration, end: EndId) {
        if core::mem::replace(&mut self.streams[end.stream].ends[end.side], End::Gone) == End::Open
        {
            self.queue(now, end, Load::Fin);
        }
        self.streams[end.stream].inbox[end.side].clear();
    }

    /// Closes at once: what was not delivered is lost.
    pub fn abort(&mut self, now: Duration, end: EndId) {
        let stream = &mut self.streams[end.stream];
        if core::mem::replace(&mut stream.ends[end.side], End::Gone) == End::Open {
            stream.queue[end.side].clear();
            stream.inbox[end.side].clear();
            self.queue(now, end, Load::Reset);
        }
    }

    /// Both ends are told that the stream is gone.
    pub fn reset(&mut self, stream: usize) {
        self.traffic.resets += 1;
        for side in 0..2 {
            self.lose(EndId { stream, side });
        }
    }

    /// Live streams of a link.
    pub fn live(&mut self, link: LinkId) -> &[usize] {
        let streams = &self.streams;
        let link = &mut self.links[link.0];
        link.live
            .retain(|stream| streams[*stream].ends.contains(&End::Open));
        &link.live
    }

    /// Whether a stream to this port has something on its way.
    #[must_use]
    pub fn is_busy(&self, stream: usize, port: u16) -> bool {
        let stream = &self.streams[stream];
        stream.port == port && (0..2).any(|side| stream.queued(side) > 0)
    }

    /// The power of a host goes: nobody is told anything.
    pub fn switch_off(&mut self, host: Host) {
        self.on[host] = false;
        for stream in &mut self.streams {
            for side in (0..2).filter(|side| stream.hosts[*side] == host) {
                stream.ends[side] = End::Gone;
                stream.queue[side].clear();
                stream.inbox[side].clear();
            }
        }
    }

    /// Whether a host has power.
    #[must_use]
    pub fn is_on(&self, host: Host) -> bool {
        self.on[host]
    }

    /// It comes back.
    pub fn switch_on(&mut self, now: Duration, host: Host) {
        self.on[host] = true;
        let links: Vec<usize> = (0..self.links.len())
            .filter(|link| self.links[*link].hosts.contains(&host))
            .collect();
        for link in links {
            self.resume(now, LinkId(link));
        }
    }

    /// Cuts or mends one direction of a link.
    pub fn set_up(&mut self, now: Duration, link: LinkId, direction: usize, up: bool) {
        let before = core::mem::replace(&mut self.links[link.0].up[direction], up);
        if up && !before {
            self.resume(now, link);
        }
    }

    /// Carries out what was asked for by a timer.
    pub fn handle(&mut self, now: Duration, event: NetEvent) {
        match event {
            NetEvent::Syn { end, pause } => self.syn(now, end, pause),
            NetEvent::GiveUp(end) => self.give_up(end),
            NetEvent::SynAck(end) => self.syn_ack(end),
            NetEvent::Deliver(end) => self.deliver(now, end),
            NetEvent::Timeout(end) => self.timeout(now, end),
            NetEvent::Probe { end, silent_since } => self.probe(now, end, silent_since),
        }
    }

    fn syn(&mut self, now: Duration, end: EndId, pause: Duration) {
        let stream = &self.streams[end.stream];
        if stream.ends[0] != End::Dialing {
            return;
        }
        let (link, port, host) = (stream.link, stream.port, stream.hosts[1]);
        let lost = self.prng.chance(self.links[link.0].loss);
        if !lost && self.passes(end) && self.passes(end.other()) {
            self.notes.push_back((
                host,
                Note::Incoming {
                    end: end.other(),
                    link,
                    port,
                },
            ));
        } else {
            let again = NetEvent::Syn {
                end,
                pause: pause * 2,
            };
            self.timers.push((now + pause, again));
        }
    }

    fn give_up(&mut self, end: EndId) {
        if self.streams[end.stream].ends[end.side] == End::Dialing {
            self.lose(end);
        }
    }

    fn syn_ack(&mut self, end: EndId) {
        let reached = self.passes(end.other());
        let stream = &mut self.streams[end.stream];
        if stream.ends[0] != End::Dialing {
            return;
        }
        let host = stream.hosts[0];
        if reached {
            stream.ends[0] = End::Open;
            self.notes.push_back((host, Note::Opened(end)));
        }
        // Else the listener keeps an end that nobody will ever use: half open.
    }

    fn deliver(&mut self, now: Duration, from: EndId) {
        let to = from.other();
        loop {
            let passes = self.passes(from);
            let acknowledged = self.passes(to);
            let stream = &mut self.streams[from.stream];
            let host = stream.hosts[to.side];
            let Some(chunk) = stream.queue[from.side].front() else {
                return;
            };
            if chunk.due > now || !passes {
                return;
            }
            let chunk = stream.queue[from.side].pop_front().expect("there is one");
            if stream.ends[to.side] == End::Dialing {
                // What the listener sends at once overtakes nothing: it says that it has accepted.
                stream.ends[to.side] = End::Open;
                self.notes.push_back((host, Note::Opened(to)));
            }
            self.traffic.pieces += 1;
            if !acknowledged {
                let since = stream.unacknowledged[from.side].get_or_insert(chunk.sent);
                self.timers
                    .push((*since + self.user_timeout, NetEvent::Timeout(from)));
            }
            match (chunk.load, stream.ends[to.side]) {
                (Load::Bytes(bytes), End::Open) => {
                    stream.inbox[to.side].put(&bytes);
                    self.notes.push_back((host, Note::Readable(to)));
                }
                // A kernel that knows nothing of the stream says so.
                (Load::Bytes(_), _) => self.queue(now, to, Load::Reset),
                (Load::Fin, _) => self.lose(to),
                (Load::Reset, _) => {
                    self.traffic.resets += 1;
                    self.lose(to);
                }
            }
        }
    }

    fn timeout(&mut self, now: Duration, end: EndId) {
        let answered = self.passes(end) && self.passes(end.other());
        let stream = &mut self.streams[end.stream];
        if answered {
            stream.unacknowledged[end.side] = None;
        }
        let waiting = stream.queue[end.side]
            .front()
            .map(|chunk| chunk.sent)
            .or(stream.unacknowledged[end.side]);
        if waiting.is_some_and(|since| since + self.user_timeout <= now)
            && stream.ends[end.side] == End::Open
        {
            self.traffic.resets += 1;
            self.lose(end);
            self.streams[end.stream].queue[end.side].clear();
            self.queue(now, end, Load::Reset);
        }
    }

    fn probe(&mut self, now: Duration, end: EndId, silent_since: Option<Duration>) {
        if self.streams[end.stream].ends[end.side] != End::Open {
            return;
        }
        let answered = self.passes(end) && self.passes(end.other());
        let gone = self.streams[end.stream].ends[end.other().side] == End::Gone;
        let silent_since = if answered {
            None
        } else {
            silent_since.or(Some(now))
        };
        if answered && gone || silent_since.is_some_and(|since| since + self.user_timeout <= now) {
            self.traffic.resets += 1;
            self.lose(end);
        } else {
            self.timers
                .push((now + self.keepalive, NetEvent::Probe { end, silent_since }));
        }
    }

    /// This end's process is told that the stream is gone, if it still has it.
    fn lose(&mut self, end: EndId) {
        let stream = &mut self.streams[end.stream];
        let host = stream.hosts[end.side];
        match core::mem::replace(&mut stream.ends[end.side], End::Gone) {
            End::Open => self.notes.push_back((host, Note::Closed(end))),
            End::Dialing => self.notes.push_back((host, Note::Refused(end))),
            End::Gone => {}
        }
    }

    fn queue(&mut self, now: Duration, end: EndId, mut load: Load) {
        let link_id = self.streams[end.stream].link;
        let mut delay = self.latency(link_id);
        let link = &self.links[link_id.0];
        if self.prng.chance(link.loss) {
            self.traffic.losses += 1;
            delay += self.prng.millis(200, 600);
        }
        if let Load::Bytes(bytes) = &mut load
            && self.prng.chance(link.flips)
        {
            self.traffic.flips += 1;
            let at = self.prng.index(bytes.len());
            bytes[at] ^= 1 << self.prng.below(8);
        }
        let stream = &mut self.streams[end.stream];
        let last = stream.queue[end.side]
            .back()
            .map_or(Duration::ZERO, |chunk| chunk.due);
        let due = (now + delay).max(last);
        stream.queue[end.side].push_back(Chunk {
            load,
            due,
            sent: now,
        });
        self.timers.push((due, NetEvent::Deliver(end)));
    }

    /// After a cut: every stream sends again, when its sender would have tried the next time.
    fn resume(&mut self, now: Duration, link: LinkId) {
        for stream in self.live(link).to_vec() {
            for side in 0..2 {
                let Some(front) = self.streams[stream].queue[side].front() else {
                    continue;
                };
                let mut due = front.sent;
                let mut pause = self.prng.millis(RESEND_MS.0, RESEND_MS.1);
                while due <= now {
                    due += pause;
                    pause *= 2;
                }
                for chunk in &mut self.streams[stream].queue[side] {
                    chunk.due = chunk.due.max(due);
                }
                self.timers
                    .push((due, NetEvent::Deliver(EndId { stream, side })));
            }
        }
    }

    /// Whether something sent by this end arrives at present.
    fn passes(&self, end: EndId) -> bool {
        let stream = &self.streams[end.stream];
        let direction = stream.forward ^ end.side;
        self.links[stream.link.0].up[direction] && self.on[stream.hosts[1 - end.side]]
    }

    fn latency(&mut self, link: LinkId) -> Duration {
        let (low, high) = self.links[link.0].latency;
        self.prng.micros(low, high)
    }
}

#[cfg(test)]
mod tests;
