//! The third machine: the daemon's own `Witness`, its clock, its file and its connections. As
//! `lockstep witness` it dials nobody; the file of its votes is replaced as a whole, and a kill or
//! a power cut leaves the old one or the new one.

use crate::clock::Clock;
use crate::context::{Context, What};
use crate::machine::control::{CLUSTER, WITNESS_SECRET};
use crate::network::{EndId, LinkId as WireId, Note};
use crate::prng::Prng;
use crate::world::VOLUME;
use core::time::Duration;
use lockstep_engine::node_interface::LinkId;
use lockstep_engine::witness::file::File;
use lockstep_engine::witness::{Action, Event, Pair, Witness};
use lockstep_mirror::control::WitnessId;
use lockstep_mirror::register::Ballot;
use std::collections::BTreeMap;

/// The port that the nodes dial.
pub const PORT_WITNESS: u16 = 7003;
/// How often it is told the time, as the daemon does.
const TICK: Duration = Duration::from_millis(500);

/// What happens to the witness's process.
#[derive(Clone, Copy, Debug)]
pub enum WitnessEvent {
    /// Time goes by.
    Tick,
    /// The write of the file with this number has ended.
    Stored(u64),
    /// The kernel says something.
    Note(Note),
    /// The pause ends.
    Resume,
}

/// The machine, and its process while it runs.
pub struct WitnessMachine {
    /// Its number in the network.
    pub host: usize,
    /// The links to node 1 and node 2.
    pub links: [WireId; 2],
    /// Its disk takes nothing more: the file cannot be written.
    pub full: bool,
    clock: Clock,
    file: Option<Vec<u8>>,
    /// The ballot that was last accepted for the volume, to count votes.
    accepted: Ballot,
    process: Option<Process>,
    runs: u64,
    prng: Prng,
}

struct Process {
    run: u64,
    witness: Witness,
    ends: BTreeMap<u64, EndId>,
    next_link: u64,
    writes: BTreeMap<u64, Vec<u8>>,
    next_write: u64,
    /// Events that came while it was stopped.
    stopped: Option<Vec<WitnessEvent>>,
}

impl WitnessMachine {
    /// A machine that has yet to be started, with an empty disk.
    #[must_use]
    pub const fn new(host: usize, links: [WireId; 2], speed: u64, prng: Prng) -> Self {
        Self {
            host,
            links,
            full: false,
            clock: Clock::new(Duration::ZERO, speed),
            file: None,
            accepted: Ballot(0),
            process: None,
            runs: 0,
            prng,
        }
    }

    /// Whether its process is there, stopped or not.
    #[must_use]
    pub const fn exists(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it runs, is not stopped, and can write its file.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let running = |it: &Process| it.stopped.is_none();
        !self.full && self.process.as_ref().is_some_and(running)
    }

    /// The life of its votes, while it runs.
    #[must_use]
    pub fn life(&self) -> Option<WitnessId> {
        let (_, life, _) = self.process.as_ref()?.witness.pairs().next()?;
        Some(life)
    }

    /// Starts it, and switches the machine on if it has no power.
    ///
    /// # Panics
    /// If it runs, or its file is not what it has written.
    pub fn start(&mut self, ctx: &mut Context, speed: u64) {
        assert!(self.process.is_none(), "one witness at a time");
        if !ctx.network.is_on(self.host) {
            ctx.network.switch_on(ctx.now, self.host);
            self.clock = Clock::new(ctx.now, speed);
        }
        self.runs += 1;
        ctx.trace("witness", || format!("starts, run {}", self.runs));
        let pair = Pair {
            cluster: CLUSTER,
            secret: WITNESS_SECRET.into(),
            file: self.file.clone(),
        };
        let witness = Witness::new(vec![pair], self.prng.seed());
        self.process = Some(Process {
            run: self.runs,
            witness: witness.expect("the file is what was written"),
            ends: BTreeMap::new(),
            next_link: 1,
            writes: BTreeMap::new(),
            next_write: 0,
            stopped: None,
        });
        self.event(ctx, self.runs, WitnessEvent::Tick);
    }

    /// Its process is killed; the kernel closes what was open.
    pub fn kill(&mut self, ctx: &mut Context) {
        ctx.trace("witness", || "is killed");
        for end in self.end() {
            if self.prng.chance(500) {
                ctx.network.close(ctx.now, end);
            } else {
                ctx.network.abort(ctx.now, end);
            }
        }
    }

    /// The machine loses its power; nobody is told.
    pub fn power_cut(&mut self, ctx: &mut Context) {
        ctx.trace("witness", || "loses its power");
        self.end();
        ctx.network.switch_off(self.host);
    }

    /// Its disk is replaced by an empty one.
    ///
    /// # Panics
    /// If it runs.
    pub fn wipe(&mut self, ctx: &Context) {
        assert!(self.process.is_none(), "only a stopped one loses its disk");
        ctx.trace("witness", || "has lost its disk");
        self.file = None;
        self.accepted = Ballot(0);
    }

    /// It stands still for a while.
    pub fn pause(&mut self, ctx: &mut Context, time: Duration) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.stopped.is_none() {
            ctx.trace("witness", || format!("stands still for {time:?}"));
            process.stopped = Some(Vec::new());
            self.soon(ctx, time, WitnessEvent::Resume);
        }
    }

    /// The process is gone: a write under way has happened or not. Gives its connections.
    fn end(&mut self) -> Vec<EndId> {
        let Some(process) = self.process.take() else {
            return Vec::new();
        };
        for bytes in process.writes.into_values() {
            if !self.full && self.prng.chance(500) {
                self.file = Some(bytes);
            }
        }
        process.ends.into_values().collect()
    }

    fn soon(&self, ctx: &mut Context, delay: Duration, event: WitnessEvent) {
        if let Some(process) = &self.process {
            let run = process.run;
            ctx.after(delay, What::Witness { run, event });
        }
    }

    /// The kernel says something about a connection.
    pub fn note(&mut self, ctx: &mut Context, note: Note) {
        if let Note::Incoming { end, port, .. } = note {
            if self.process.is_none() || port != PORT_WITNESS {
                return ctx.network.refuse(end);
            }
            ctx.network.accept(ctx.now, end);
        }
        self.event(ctx, self.runs, WitnessEvent::Note(note));
    }

    /// Something happens in run `run`.
    pub fn event(&mut self, ctx: &mut Context, run: u64, event: WitnessEvent) {
        let Some(process) = self.process.as_mut().filter(|it| it.run == run) else {
            return;
        };
        if let WitnessEvent::Resume = event {
            let events = process.stopped.take().unwrap_or_default();
            ctx.trace("witness", || {
                format!("goes on with {} events", events.len())
            });
            for event in events {
                self.event(ctx, run, event);
            }
            return self.read_all(ctx);
        }
        if let Some(stopped) = &mut process.stopped {
            // That a socket is readable is looked at anyway when it goes on.
            if !matches!(event, WitnessEvent::Note(Note::Readable(_))) {
                stopped.push(event);
            }
            return;
        }
        match event {
            WitnessEvent::Tick => {
                self.soon(ctx, TICK, WitnessEvent::Tick);
                self.tell(ctx, Event::Tick);
            }
            WitnessEvent::Stored(number) => self.stored(ctx, number),
            WitnessEvent::Note(Note::Incoming { end, .. }) => {
                let link = process.next_link;
                process.next_link += 1;
                process.ends.insert(link, end);
                self.tell(ctx, Event::LinkUp { link: LinkId(link) });
                self.readable(ctx, end);
            }
            WitnessEvent::Note(Note::Readable(end)) => self.readable(ctx, end),
            WitnessEvent::Note(Note::Closed(end)) => {
                self.readable(ctx, end);
                self.close(ctx, end);
            }
            WitnessEvent::Note(Note::Opened(_) | Note::Refused(_)) | WitnessEvent::Resume => {}
        }
    }

    fn link_of(&self, end: EndId) -> Option<u64> {
        let mut ends = self.process.as_ref()?.ends.iter();
        ends.find(|(_, it)| **it == end).map(|(link, _)| *link)
    }

    fn readable(&mut self, ctx: &mut Context, end: EndId) {
        let Some(link) = self.link_of(end) else {
            return;
        };
        let bytes = ctx.network.arrived(end).to_vec();
        if !bytes.is_empty() {
            ctx.network.take(end, bytes.len());
            let link = LinkId(link);
            self.tell(
                ctx,
                Event::LinkBytes {
                    link,
                    bytes: &bytes,
                },
            );
        }
    }

    fn read_all(&mut self, ctx: &mut Context) {
        let Some(process) = &self.process else { return };
        let ends: Vec<EndId> = process.ends.values().copied().collect();
        for end in ends {
            self.readable(ctx, end);
        }
    }

    fn close(&mut self, ctx: &mut Context, end: EndId) {
        let Some(link) = self.link_of(end) else {
            return;
        };
        if let Some(process) = &mut self.process {
            process.ends.remove(&link);
        }
        ctx.network.close(ctx.now, end);
        self.tell(ctx, Event::LinkDown { link: LinkId(link) });
    }

    fn tell(&mut self, ctx: &mut Context, event: Event<'_>) {
        let now = self.clock.read(ctx.now);
        let Some(process) = &mut self.process else {
            return;
        };
        let mut actions = Vec::new();
        process.witness.handle(now, event, &mut actions);
        for action in actions {
            self.carry_out(ctx, action);
        }
    }

    fn carry_out(&mut self, ctx: &mut Context, action: Action) {
        let Some(process) = &mut self.process else {
            return;
        };
        match action {
            Action::LinkSend { link, bytes } => {
                if let Some(end) = process.ends.get(&link.0) {
                    ctx.network.send(ctx.now, *end, &bytes);
                }
            }
            Action::LinkClose { link } => {
                if let Some(end) = process.ends.get(&link.0).copied() {
                    self.close(ctx, end);
                }
            }
            Action::Store { bytes, .. } => {
                process.next_write += 1;
                let number = process.next_write;
                process.writes.insert(number, bytes);
                let time = self.prng.micros(100, 30_000);
                self.soon(ctx, time, WitnessEvent::Stored(number));
            }
            Action::Event { text, severity } => {
                ctx.trace("witness", || format!("EVENT {severity:?}: {text}"));
            }
        }
    }

    fn stored(&mut self, ctx: &mut Context, number: u64) {
        let process = self.process.as_mut();
        let Some(bytes) = process.and_then(|it| it.writes.remove(&number)) else {
            return;
        };
        let ok = !self.full;
        if ok {
            self.count_vote(ctx, &bytes);
            self.file = Some(bytes);
        }
        let cluster = CLUSTER;
        self.tell(ctx, Event::Stored { cluster, ok });
    }

    fn count_vote(&mut self, ctx: &mut Context, bytes: &[u8]) {
        let Ok(file) = File::decode(bytes) else {
            return ctx.violation("the witness's file cannot be read".to_owned());
        };
        let vote = file.acceptor.vote(VOLUME);
        if vote.ballot != self.accepted {
            self.accepted = vote.ballot;
            ctx.count("witness: values accepted");
            ctx.trace("witness", || format!("accepts {:?}", vote.value));
        }
    }

    /// For messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.process {
            Some(it) => format!(
                "witness: {:?}, stopped {}, full {}",
                it.witness.pairs().collect::<Vec<_>>(),
                it.stopped.is_some(),
                self.full
            ),
            None => "witness: does not run".to_owned(),
        }
    }
}
