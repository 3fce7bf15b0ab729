//! An initiator with two paths: `lockstep_initiator`'s own core, sockets of the pretend network,
//! and a load of stamped writes and reads of which the ledger keeps the history.

use crate::context::{Context, What};
use crate::disk::SECTOR;
use crate::ledger::{Ledger, Moment, Stamp};
use crate::machine::PORT_ISCSI;
use crate::network::{EndId, LinkId, Note, PATIENCE};
use crate::prng::Prng;
use core::time::Duration;
use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::multipath::{Action, Done, Link, Multipath, Options, Outcome};
use lockstep_initiator::core::session::{Parameters, Purpose};
use lockstep_initiator::core::wire::Digests;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an initiator does at some time.
#[derive(Clone, Copy, Debug)]
pub enum ClientEvent {
    /// Its deadline, as it was known then.
    Wake(Duration),
    /// The next command is due.
    Submit,
}

/// What the load looks like.
#[derive(Clone, Debug)]
pub struct Load {
    /// Sectors of the volume.
    pub sectors: u64,
    /// Sectors a block.
    pub block: u64,
    /// Most commands at once.
    pub depth: usize,
    /// Longest pause before the next command, in milliseconds.
    pub think_ms: u64,
    /// Most blocks in an ordinary command.
    pub blocks: u64,
    /// Size of the part of the volume that most commands go to, in sectors.
    pub hot: u64,
    /// Places far from each other to which commands go, one after the other; with more than one
    /// the rest of the volume is at rest.
    pub spots: u64,
    /// For how long they go to one of them, in milliseconds.
    pub dwell_ms: u64,
    /// Thousandths of commands that are writes.
    pub writes: u64,
    /// Whether commands go to a path by chance rather than to the active one.
    pub both_paths: bool,
}

struct Running {
    sectors: core::ops::Range<u64>,
    began: Moment,
    since: Duration,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write(Stamp),
    Other,
}

/// One initiator.
pub struct Client {
    /// Its number in the network.
    pub host: usize,
    /// The links to each node's portal.
    pub links: [LinkId; 2],
    /// No new command is made before.
    pub rest_until: Duration,
    /// Whether new commands are made.
    pub running: bool,
    /// Commands that have ended, and those of them that were answered well.
    pub ended: (u64, u64),
    /// When a command was last answered well.
    pub last_good: Duration,
    multipath: Multipath,
    load: Load,
    ends: [Option<(EndId, Link)>; 2],
    commands: BTreeMap<u64, Running>,
    next: u64,
    wake: Option<Duration>,
    prng: Prng,
    /// The paths' states as they were last seen, for the trace.
    seen: [String; 2],
}

impl Client {
    /// An initiator that logs in as soon as its first deadline has come.
    #[must_use]
    pub fn new(host: usize, links: [LinkId; 2], target: &str, load: Load, mut prng: Prng) -> Self {
        let name = format!("iqn.2026-11.test.sim:host{host}");
        let mut parameters = Parameters::new(
            &name,
            Purpose::Normal {
                target: target.to_owned(),
            },
        );
        parameters.digests = Digests {
            header: prng.chance(300),
            data: prng.chance(300),
        };
        parameters.initial_r2t = prng.chance(300);
        parameters.immediate = prng.chance(700);
        parameters.max_receive = 512 << prng.below(10);
        parameters.first_burst = 512 << prng.below(9);
        parameters.max_burst = parameters.first_burst.max(8192 << prng.below(7));
        parameters.nop_interval = Duration::from_secs(prng.between(2, 5));
        parameters.nop_timeout = Duration::from_secs(prng.between(2, 5));
        parameters.login_timeout = Duration::from_secs(5);
        parameters.task_timeout = Duration::from_secs(prng.between(6, 30));
        let options = Options {
            give_up_after: Duration::from_secs(*prng.pick(&[20, 60, 120])),
            reconnect_every: prng.millis(100, 1000),
            ..Options::default()
        };
        // As a host's two interfaces would be, the two paths are two sessions of one initiator.
        let second = Parameters {
            isid: [0x80, 0, 0, 0, 0, 2],
            ..parameters.clone()
        };
        let multipath = Multipath::new(options, vec![parameters, second], prng.bits());
        Self {
            host,
            links,
            rest_until: Duration::ZERO,
            running: true,
            ended: (0, 0),
            last_good: Duration::ZERO,
            multipath,
            load,
            ends: [None; 2],
            commands: BTreeMap::new(),
            next: 1,
            wake: None,
            prng,
            seen: Default::default(),
        }
    }

    /// Begins to connect and to work.
    pub fn start(&mut self, ctx: &mut Context) {
        self.turn(ctx, &mut Ledger::new());
        for _ in 0..self.load.depth {
            self.submit_later(ctx);
        }
    }

    /// Commands not ended yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.commands.len()
    }

    /// When the oldest command that has not ended was made.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        self.commands.values().map(|command| command.since).min()
    }

    /// Its time has come.
    pub fn event(&mut self, ctx: &mut Context, ledger: &mut Ledger, event: ClientEvent) {
        match event {
            ClientEvent::Wake(at) if self.wake == Some(at) => {
                self.wake = None;
                self.multipath.timer(ctx.now);
            }
            ClientEvent::Wake(_) => {}
            ClientEvent::Submit if ctx.now < self.rest_until => {
                let again = self.rest_until + self.prng.millis(0, 1000);
                let event = ClientEvent::Submit;
                ctx.wheel.push(
                    again,
                    What::Initiator {
                        host: self.host,
                        event,
                    },
                );
            }
            ClientEvent::Submit if self.running => self.submit(ctx, ledger),
            ClientEvent::Submit => {}
        }
        self.turn(ctx, ledger);
    }

    /// The kernel tells it something about a stream.
    pub fn note(&mut self, ctx: &mut Context, ledger: &mut Ledger, note: Note) {
        match note {
            Note::Incoming { end, .. } => return ctx.network.refuse(end),
            Note::Opened(end) => {
                if let Some(link) = self.link_of(end) {
                    self.multipath.connected(ctx.now, link);
                }
            }
            Note::Readable(end) => {
                let bytes = ctx.network.arrived(end).to_vec();
                ctx.network.take(end, bytes.len());
                if let Some(link) = self.link_of(end)
                    && !bytes.is_empty()
                {
                    self.multipath.received(ctx.now, link, &bytes);
                }
            }
            Note::Closed(end) | Note::Refused(end) => {
                if let Some(link) = self.link_of(end) {
                    self.ends[link.path] = None;
                    self.multipath.closed(ctx.now, link);
                }
            }
        }
        self.turn(ctx, ledger);
    }

    /// Reads a range by one path, for the last look at everything.
    pub fn read_by(&mut self, ctx: &mut Context, sectors: core::ops::Range<u64>, path: usize) {
        let id = self.begin(ctx, sectors.clone(), Kind::Read);
        let command = self.read_command(&sectors);
        self.multipath.submit(ctx.now, id, command, Some(path));
        self.turn(ctx, &mut Ledger::new());
    }

    fn link_of(&self, end: EndId) -> Option<Link> {
        self.ends
            .iter()
            .flatten()
            .find(|(of, _)| *of == end)
            .map(|(_, link)| *link)
    }

    /// Does what the core wants done, takes what has ended, and arms its clock.
    fn turn(&mut self, ctx: &mut Context, ledger: &mut Ledger) {
        while let Some(action) = self.multipath.next_action() {
            match action {
                Action::Connect(link) => {
                    let end = ctx.network.dial(
                        ctx.now,
                        self.links[link.path],
                        self.host,
                        PORT_ISCSI,
                        PATIENCE,
                    );
                    self.ends[link.path] = Some((end, link));
                }
                Action::Disconnect(link) => {
                    if let Some((end, _)) =
                        self.ends[link.path].take_if(|(_, of)| of.generation <= link.generation)
                    {
                        ctx.network.abort(ctx.now, end);
                    }
                }
            }
        }
        while let Some(done) = self.multipath.next_done() {
            self.done(ctx, ledger, &done);
        }
        for (end, link) in self.ends.into_iter().flatten() {
            let mut bytes = Vec::new();
            self.multipath.take_output(link, &mut bytes);
            ctx.network.send(ctx.now, end, &bytes);
        }
        if ctx.tracing {
            self.trace_paths(ctx);
        }
        if let Some(deadline) = self.multipath.next_deadline() {
            let at = deadline.max(ctx.now + Duration::from_micros(1));
            if self.wake.is_none_or(|armed| at < armed) {
                self.wake = Some(at);
                ctx.wheel.push(
                    at,
                    What::Initiator {
                        host: self.host,
                        event: ClientEvent::Wake(at),
                    },
                );
            }
        }
    }

    fn trace_paths(&mut self, ctx: &Context) {
        for path in 0..2 {
            let state = format!(
                "{:?}, {:?}",
                self.multipath.state(path),
                self.multipath.history(path)
            );
            if state != self.seen[path] {
                ctx.trace(self.host, || format!("path {path}: {state}"));
                self.seen[path] = state;
            }
        }
    }

    fn submit_later(&mut self, ctx: &mut Context) {
        let pause = self.prng.micros(1, self.load.think_ms * 1000);
        ctx.after(
            pause,
            What::Initiator {
                host: self.host,
                event: ClientEvent::Submit,
            },
        );
    }

    fn submit(&mut self, ctx: &Context, ledger: &mut Ledger) {
        let load = &self.load;
        let most = if self.prng.chance(30) {
            load.blocks * 16
        } else {
            load.blocks
        };
        // The longest command is one mebibyte.
        let count = self.prng.between(1, most) * load.block;
        let count = count.min(2048).min(load.sectors);
        let spot = load.sectors / load.spots;
        let space = if self.prng.chance(750) {
            load.hot.max(count)
        } else {
            spot
        };
        let now = u64::try_from(ctx.now.as_millis()).expect("runs last minutes");
        let base = now / load.dwell_ms % load.spots * spot;
        let first = base + self.prng.below((space - count) / load.block + 1) * load.block;
        let sectors = first..first + count;
        let path = (self.load.both_paths && self.prng.chance(700)).then(|| self.prng.index(2));
        let command = if self.prng.chance(self.load.writes) {
            let stamp = u64::try_from(self.host).expect("few hosts") << 32 | self.next;
            let id = self.begin(ctx, sectors.clone(), Kind::Write(stamp));
            ledger.write_began(ctx.step, stamp, sectors.clone());
            (id, self.write_command(&sectors, stamp))
        } else if self.prng.chance(80) {
            (self.begin(ctx, sectors, Kind::Other), Command::flush(0))
        } else {
            let command = self.read_command(&sectors);
            (self.begin(ctx, sectors, Kind::Read), command)
        };
        self.multipath.submit(ctx.now, command.0, command.1, path);
    }

    fn begin(&mut self, ctx: &Context, sectors: core::ops::Range<u64>, kind: Kind) -> u64 {
        let id = self.next;
        self.next += 1;
        ctx.trace(self.host, || match kind {
            Kind::Write(stamp) => format!("begins {id}: write {stamp:#x} to {sectors:?}"),
            Kind::Read => format!("begins {id}: read {sectors:?}"),
            Kind::Other => format!("begins {id}: flush"),
        });
        self.commands.insert(
            id,
            Running {
                sectors,
                began: ctx.step,
                since: ctx.now,
                kind,
            },
        );
        id
    }

    fn read_command(&self, sectors: &core::ops::Range<u64>) -> Command {
        let (lba, blocks, bytes) = self.place(sectors);
        Command::read(0, lba, blocks, bytes)
    }

    fn write_command(&mut self, sectors: &core::ops::Range<u64>, stamp: Stamp) -> Command {
        let (lba, blocks, bytes) = self.place(sectors);
        if self.prng.chance(40) {
            let block = fill(stamp, usize::try_from(bytes / blocks).expect("a block"));
            return Command::write_same(0, lba, blocks, &block);
        }
        let data = Arc::from(fill(
            stamp,
            usize::try_from(bytes).expect("one mebibyte at most"),
        ));
        if self.prng.chance(100) {
            Command::write_fua(0, lba, blocks, data)
        } else {
            Command::write(0, lba, blocks, data)
        }
    }

    fn place(&self, sectors: &core::ops::Range<u64>) -> (u64, u32, u32) {
        let count = sectors.end - sectors.start;
        let narrow = |number: u64| u32::try_from(number).expect("commands are short");
        (
            sectors.start / self.load.block,
            narrow(count / self.load.block),
            narrow(count * SECTOR as u64),
        )
    }

    fn done(&mut self, ctx: &mut Context, ledger: &mut Ledger, done: &Done) {
        let Some(command) = self.commands.remove(&done.id) else {
            return;
        };
        self.ended.0 += 1;
        ctx.trace(self.host, || match &done.outcome {
            Outcome::Good(_) => format!("ends {} by path {:?}", done.id, done.path),
            other => format!("ends {} by path {:?}: {other:?}", done.id, done.path),
        });
        match (&done.outcome, command.kind) {
            (Outcome::Good(data), Kind::Read) => self.saw(ctx, ledger, &command, data),
            (Outcome::Good(_), Kind::Write(stamp)) => ledger.write_ended(ctx.step, stamp),
            (Outcome::Good(_), Kind::Other) => {}
            (Outcome::NotSent, Kind::Write(stamp)) => ledger.write_refused(stamp),
            (Outcome::Failed { status, sense }, _) => {
                ctx.violation(format!(
                    "host {}: command {} failed with status {status:02x}, sense {sense:?}",
                    self.host, done.id
                ));
            }
            (Outcome::Unknown | Outcome::NotSent, _) => ctx.count("commands given up"),
        }
        if let Outcome::Good(_) = done.outcome {
            self.ended.1 += 1;
            self.last_good = ctx.now;
        }
        if done.attempts > 1 {
            ctx.count("commands sent again");
            if let Kind::Write(stamp) = command.kind {
                ledger.write_repeated(stamp);
            }
        }
        if self.running {
            self.submit_later(ctx);
        }
    }

    fn saw(&self, ctx: &mut Context, ledger: &mut Ledger, command: &Running, data: &[u8]) {
        let (contents, rest) = data.as_chunks::<SECTOR>();
        if !rest.is_empty() || contents.len() as u64 != command.sectors.end - command.sectors.start
        {
            return ctx.violation(format!(
                "host {}: a read of {:?} brought {} bytes",
                self.host,
                command.sectors,
                data.len()
            ));
        }
        for (sector, contents) in command.sectors.clone().zip(contents) {
            match stamp_of(contents) {
                Some(stamp) => ledger.read(command.began, ctx.step, sector, stamp),
                None => ctx.violation(format!(
                    "host {}: sector {sector} holds no whole stamp",
                    self.host
                )),
            }
        }
    }
}

/// Data of which every sector says who wrote it.
fn fill(stamp: Stamp, len: usize) -> Vec<u8> {
    stamp
        .to_le_bytes()
        .iter()
        .copied()
        .cycle()
        .take(len)
        .collect()
}

/// The stamp that fills a sector, if only one does.
#[must_use]
pub fn stamp_of(sector: &[u8; SECTOR]) -> Option<Stamp> {
    let (words, _) = sector.as_chunks::<8>();
    words
        .iter()
        .all(|word| word == &words[0])
        .then(|| Stamp::from_le_bytes(words[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_of_two_writes_has_no_stamp() {
        let mut sector: [u8; SECTOR] = fill(7, SECTOR).try_into().unwrap();
        assert_eq!(stamp_of(&sector), Some(7));
        sector[100] ^= 1;
        assert_eq!(stamp_of(&sector), None);
        assert_eq!(stamp_of(&[0; SECTOR]), Some(0));
    }
}
