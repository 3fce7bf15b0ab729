//! One disk by several paths, as dm-multipath over open-iscsi uses it: a command whose path
//! broke is sent again, on the same path once it is back or on another after a while; without any
//! path commands wait; paths are connected and logged in again in the background.

use super::Time;
use super::command::Command;
use super::path::Path;
use super::sense::{self, Sense};
use super::session::{Ended, Event, Parameters, Reply, Session};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

pub use super::path::{Link, PathState};

/// How patient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A command that changes blocks and whose path broke goes to another path only after this
    /// long (open-iscsi's replacement time-out). A target that promises to drop what it received
    /// but has not begun within 4 s needs more than that here.
    pub replace_after: Duration,
    /// Between two attempts to connect a path.
    pub reconnect_every: Duration,
    /// For the TCP connection.
    pub connect_timeout: Duration,
    /// Between two questions to a path that may not serve.
    pub probe_every: Duration,
    /// A command that is nowhere for so long ends without result.
    pub give_up_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replace_after: Duration::from_secs(5),
            reconnect_every: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(3),
            probe_every: Duration::from_secs(1),
            give_up_after: Duration::from_secs(120),
        }
    }
}

/// What to do with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect this path; answer with [`Multipath::connected`] or [`Multipath::closed`].
    Connect(Link),
    /// Close it; no answer.
    Disconnect(Link),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Status GOOD, with what came back.
    Good(Vec<u8>),
    /// The target refused or failed it for good.
    Failed {
        /// SCSI status.
        status: u8,
        /// Sense, with CHECK CONDITION.
        sense: Option<Sense>,
    },
    /// Given up: it was sent at least once and may have been, or may yet be, carried out.
    Unknown,
    /// Given up: it was never sent.
    NotSent,
}

/// A finished command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// As given to [`Multipath::submit`].
    pub id: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The path that answered, or that it was last sent on.
    pub path: Option<usize>,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was submitted.
    pub submitted: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In `queue`.
    Queued,
    /// In `later`, until then; `held`: since that path broke.
    Later { until: Time, held: Option<usize> },
    /// With a path's session.
    Sent,
}

#[derive(Debug)]
struct Pending {
    command: Command,
    prefer: Option<usize>,
    place: Place,
    path: Option<usize>,
    attempts: u32,
    submitted: Time,
}

/// Name of our own TEST UNIT READY in a session; callers must not use it.
const PROBE: u64 = u64::MAX;
/// UNIT ATTENTIONs come one by one, a handful at most; a target with more is asked less often.
const PROMPT_RETRIES: u32 = 8;
/// BUSY and the like are asked again after this long.
const BUSY_DELAY: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Multipath {
    options: Options,
    paths: Vec<Path>,
    active: usize,
    pending: BTreeMap<u64, Pending>,
    queue: VecDeque<u64>,
    later: BTreeSet<(Time, u64)>,
    actions: VecDeque<Action>,
    done: VecDeque<Done>,
    nonce: u64,
    closing: bool,
}

impl Multipath {
    /// A disk by these paths; the first that works is the active one. `seed` makes CHAP challenges.
    ///
    /// # Panics
    /// Without any path.
    pub fn new(options: Options, paths: Vec<Parameters>, seed: u64) -> Self {
        assert!(!paths.is_empty(), "a disk needs a path");
        Self {
            options,
            paths: paths.into_iter().map(Path::new).collect(),
            active: 0,
            pending: BTreeMap::new(),
            queue: VecDeque::new(),
            later: BTreeSet::new(),
            actions: VecDeque::new(),
            done: VecDeque::new(),
            nonce: seed,
            closing: false,
        }
    }

    /// Takes a command; `prefer` names the path to use while it is up.
    ///
    /// # Panics
    /// If `id` is in use.
    pub fn submit(&mut self, now: Time, id: u64, command: Command, prefer: Option<usize>) {
        let pending = Pending {
            command,
            prefer,
            place: Place::Queued,
            path: None,
            attempts: 0,
            submitted: now,
        };
        let former = self.pending.insert(id, pending);
        assert!(
            former.is_none() && id != PROBE,
            "command {id} is already there"
        );
        self.queue.push_back(id);
        self.dispatch(now);
    }

    /// A path's socket is connected.
    pub fn connected(&mut self, now: Time, link: Link) {
        if !self.is_current(link) {
            return;
        }
        let nonce = self.nonce();
        let path = &mut self.paths[link.path];
        let mut session = Session::new(path.parameters.clone(), nonce);
        session.start(now);
        path.session = Some(session);
        path.state = PathState::LoggingIn;
    }

    /// A path's socket could not be connected, was closed, or failed.
    pub fn closed(&mut self, now: Time, link: Link) {
        if !self.is_current(link) {
            return;
        }
        match &mut self.paths[link.path].session {
            Some(session) => session.closed(),
            None => self.down(now, link.path, Ended::Disconnected),
        }
        self.drain(now, link.path);
        self.dispatch(now);
    }

    /// Bytes from a path's socket.
    pub fn received(&mut self, now: Time, link: Link, bytes: &[u8]) {
        if !self.is_current(link) {
            return;
        }
        if let Some(session) = &mut self.paths[link.path].session {
            session.received(now, bytes);
        }
        self.drain(now, link.path);
        self.dispatch(now);
    }

    /// Appends what this path's connection must send.
    pub fn take_output(&mut self, link: Link, out: &mut Vec<u8>) {
        if self.is_current(link)
            && let Some(session) = &mut self.paths[link.path].session
        {
            session.take_output(out);
        }
    }

    /// The next thing to do with a socket.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next finished command.
    pub fn next_done(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    /// Commands not finished.
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// Logs out of all paths; they are not connected again.
    pub fn close(&mut self) {
        self.closing = true;
        for session in self
            .paths
            .iter_mut()
            .filter_map(|path| path.session.as_mut())
            .filter(|session| session.is_ready())
        {
            session.logout();
        }
    }

    /// A path's state.
    pub fn state(&self, path: usize) -> PathState {
        self.paths[path].state
    }

    /// How often a path was logged in, and why it last ended.
    pub fn history(&self, path: usize) -> (u64, Option<&Ended>) {
        (self.paths[path].logins, self.paths[path].last_end.as_ref())
    }

    /// The session of a path, if it has one.
    pub fn session(&self, path: usize) -> Option<&Session> {
        self.paths[path].session.as_ref()
    }

    /// When [`Self::timer`] must be called at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let paths = self.paths.iter().filter_map(Path::next_deadline);
        let paths =
            paths.filter(|_| !self.closing || self.paths.iter().any(|path| path.session.is_some()));
        let later = self.later.first().map(|(until, _)| *until);
        let idle = self
            .pending
            .values()
            .filter(|pending| pending.place != Place::Sent);
        let given_up = idle.map(|pending| pending.submitted + self.options.give_up_after);
        paths.chain(later).chain(given_up).min()
    }

    /// Time has passed.
    pub fn timer(&mut self, now: Time) {
        for path in 0..self.paths.len() {
            match self.paths[path].state {
                PathState::Down { until } if now >= until && !self.closing => {
                    self.connect(now, path)
                }
                PathState::Connecting { by } if now >= by => {
                    let link = self.link(path);
                    self.actions.push_back(Action::Disconnect(link));
                    self.down(now, path, Ended::Timeout("connection"));
                }
                PathState::Ghost { probe_at } if now >= probe_at => self.probe(now, path),
                _ => {}
            }
            if let Some(session) = &mut self.paths[path].session {
                session.timer(now);
            }
            self.drain(now, path);
        }
        self.due(now);
        self.give_up(now);
        self.dispatch(now);
    }

    fn due(&mut self, now: Time) {
        while let Some((until, id)) = self.later.first().copied()
            && now >= until
        {
            self.later.pop_first();
            self.enqueue(id);
        }
    }

    fn connect(&mut self, now: Time, path: usize) {
        self.paths[path].generation += 1;
        self.paths[path].state = PathState::Connecting {
            by: now + self.options.connect_timeout,
        };
        let link = self.link(path);
        self.actions.push_back(Action::Connect(link));
    }

    fn probe(&mut self, now: Time, index: usize) {
        let path = &mut self.paths[index];
        let Some(session) = &mut path.session else {
            return;
        };
        if !path.probing && session.window() > 0 {
            path.probing = true;
            session.command(now, PROBE, Command::test_unit_ready(0));
        }
        path.state = PathState::Ghost {
            probe_at: now + self.options.probe_every,
        };
    }

    /// Takes what a session reports.
    fn drain(&mut self, now: Time, index: usize) {
        while let Some(event) = self.paths[index]
            .session
            .as_mut()
            .and_then(Session::next_event)
        {
            match event {
                Event::Ready => {
                    let path = &mut self.paths[index];
                    path.state = PathState::Up;
                    path.logins += 1;
                    self.release(index);
                }
                Event::Done { id: PROBE, reply } => self.probed(now, index, &reply),
                Event::Done { id, reply } => self.answered(now, index, id, reply),
                Event::Lost { id: PROBE } => {}
                Event::Lost { id } => self.lost(now, index, id),
                Event::Ended(why) => {
                    let link = self.link(index);
                    self.actions.push_back(Action::Disconnect(link));
                    self.down(now, index, why);
                }
                Event::Targets(_) | Event::Managed { .. } => {}
            }
        }
    }

    fn down(&mut self, now: Time, index: usize, why: Ended) {
        let path = &mut self.paths[index];
        path.session = None;
        path.probing = false;
        path.generation += 1;
        path.last_end = Some(why);
        path.state = PathState::Down {
            until: now + self.options.reconnect_every,
        };
    }

    /// The path is back: what was sent on it before may go there again at once, for the login
    /// has ended the session in which it was sent.
    fn release(&mut self, index: usize) {
        let held = |pending: &Pending| matches!(pending.place, Place::Later { held: Some(path), .. } if path == index);
        let ids: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| held(pending))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let pending = self.pending.get_mut(&id).expect("it was just found");
            if let Place::Later { until, .. } = pending.place {
                self.later.remove(&(until, id));
            }
            pending.prefer = Some(index);
            self.enqueue(id);
        }
    }

    fn lost(&mut self, now: Time, index: usize, id: u64) {
        let changes = self
            .pending
            .get(&id)
            .is_some_and(|pending| changes_blocks(&pending.command));
        let wait = if changes {
            self.options.replace_after
        } else {
            Duration::ZERO
        };
        self.postpone(id, now + wait, Some(index));
    }

    fn probed(&mut self, now: Time, index: usize, reply: &Reply) {
        let path = &mut self.paths[index];
        path.probing = false;
        if reply.response == 0 && reply.status == 0 {
            path.state = PathState::Up;
            self.release(index);
        } else if sense::parse(&reply.sense).is_some_and(|sense| sense.key == 6) {
            path.state = PathState::Ghost { probe_at: now };
        }
    }

    fn answered(&mut self, now: Time, index: usize, id: u64, reply: Reply) {
        let attempts = self.pending[&id].attempts;
        let sense = sense::parse(&reply.sense);
        match (reply.response, reply.status, sense) {
            (0, 0, _) => self.finish(id, Outcome::Good(reply.data)),
            (0, 8 | 0x28 | 0x40, _) => self.postpone(id, now + BUSY_DELAY, None),
            // Unit attention: says what happened before, the command was not carried out.
            (0, 2, Some(Sense { key: 6, .. })) => {
                let delay = if attempts > PROMPT_RETRIES {
                    BUSY_DELAY
                } else {
                    Duration::ZERO
                };
                self.postpone(id, now + delay, None);
            }
            // Standby and unavailable: this path does not serve now.
            (
                0,
                2,
                Some(Sense {
                    key: 2,
                    code: 4,
                    qualifier: 0x0b | 0x0c,
                }),
            ) => {
                let path = &mut self.paths[index];
                if path.is_up() {
                    path.state = PathState::Ghost {
                        probe_at: now + self.options.probe_every,
                    };
                }
                self.postpone(id, now, None);
            }
            // Not ready for another passing reason, or aborted.
            (0, 2, Some(Sense { key: 2 | 0xb, .. })) => self.postpone(id, now + BUSY_DELAY, None),
            (_, status, sense) => self.finish(id, Outcome::Failed { status, sense }),
        }
    }

    fn postpone(&mut self, id: u64, until: Time, held: Option<usize>) {
        let pending = self
            .pending
            .get_mut(&id)
            .expect("a session answers only what it was given");
        pending.place = Place::Later { until, held };
        self.later.insert((until, id));
    }

    fn enqueue(&mut self, id: u64) {
        let pending = self
            .pending
            .get_mut(&id)
            .expect("only pending commands wait");
        pending.place = Place::Queued;
        self.queue.push_back(id);
    }

    fn give_up(&mut self, now: Time) {
        let late = |pending: &Pending| {
            pending.place != Place::Sent && now >= pending.submitted + self.options.give_up_after
        };
        let ids: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| late(pending))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let pending = &self.pending[&id];
            let outcome = if pending.attempts == 0 {
                Outcome::NotSent
            } else {
                Outcome::Unknown
            };
            if let Place::Later { until, .. } = pending.place {
                self.later.remove(&(until, id));
            }
            self.queue.retain(|queued| *queued != id);
            self.finish(id, outcome);
        }
    }

    fn finish(&mut self, id: u64, outcome: Outcome) {
        let Pending {
            path,
            attempts,
            submitted,
            ..
        } = self.pending.remove(&id).expect("a command ends once");
        self.done.push_back(Done {
            id,
            outcome,
            path,
            attempts,
            submitted,
        });
    }

    /// Sends what can be sent.
    fn dispatch(&mut self, now: Time) {
        self.due(now);
        if !self.paths[self.active].is_up()
            && let Some(other) = self.paths.iter().position(Path::is_up)
        {
            self.active = other;
        }
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else {
                break;
            };
            let pending = self
                .pending
                .get_mut(&id)
                .expect("what is queued is pending");
            let preferred = pending.prefer.filter(|path| self.paths[*path].is_up());
            let index = preferred.unwrap_or(self.active);
            let path = &mut self.paths[index];
            match &mut path.session {
                Some(session) if path.state == PathState::Up && session.window() > 0 => {
                    session.command(now, id, pending.command.clone());
                    pending.place = Place::Sent;
                    pending.path = Some(index);
                    pending.attempts += 1;
                }
                _ => self.queue.push_back(id),
            }
        }
    }

    fn link(&self, path: usize) -> Link {
        Link {
            path,
            generation: self.paths[path].generation,
        }
    }

    fn is_current(&self, link: Link) -> bool {
        self.paths[link.path].generation == link.generation
    }

    fn nonce(&mut self) -> [u8; 16] {
        // SplitMix64, twice: different each time is all that is needed of it.
        let mut nonce = [0; 16];
        for half in nonce.chunks_mut(8) {
            self.nonce = self.nonce.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.nonce;
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            half.copy_from_slice(&(word ^ word >> 31).to_le_bytes());
        }
        nonce
    }
}

/// Everything with data to send, and WRITE SAME, which may have none.
fn changes_blocks(command: &Command) -> bool {
    !command.data_out.is_empty() || matches!(command.cdb[0], 0x41 | 0x93)
}

#[cfg(test)]
mod tests;
