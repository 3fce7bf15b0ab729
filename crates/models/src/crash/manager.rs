//! The story, what `Node` decides in it, and the adversary.

use super::machine::{Machine, Sent, sum};
use super::{BLOCK, Choice, Crash, Rules, unmarked};
use lockstep_mirror::control::{Configuration, FromVolume, Members, NodeId, Time, ToVolume};
use lockstep_mirror::fields::Fields;
use lockstep_mirror::operation::{Extent, Operation, Payload};
use lockstep_mirror::volume_action::{ChannelId, FrameBody, Ticket};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A run that takes longer never ends.
const MAX_STEPS: u64 = 5000;
/// Longer than an intent outlives the last write of its region.
const IDLE: Duration = Duration::from_secs(31);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Down,
    Opening,
    Open,
    /// One of two.
    Member,
    Suspending,
    Suspended,
    Alone,
    Target,
}

/// What happens in the story, each when everything before has come to rest.
#[derive(Clone, Copy, Debug)]
enum Chapter {
    /// Writes of nodes to blocks, at once.
    Writes(&'static [(usize, u64)]),
    /// Node 2 is not heard any more, and put out.
    Part,
    /// Nothing is written for long.
    Rest,
    /// The nodes hear each other again, and a resync follows.
    Meet,
}

/// Blocks of two regions, several chunks, one block twice and twice at once.
const STORY: [Chapter; 8] = [
    Chapter::Writes(&[(0, 3), (1, 4100)]),
    Chapter::Writes(&[(0, 3), (1, 3)]),
    Chapter::Part,
    Chapter::Writes(&[(0, 5), (0, 4200)]),
    Chapter::Rest,
    Chapter::Writes(&[(0, 20)]),
    Chapter::Meet,
    Chapter::Writes(&[(1, 7), (0, 20)]),
];
/// Written while the source copies: what was copied, and what has yet to be.
const WHILE_COPYING: &[(usize, u64)] = &[(0, 5), (0, 4300)];

struct Channel {
    id: ChannelId,
    /// To each node.
    queues: [VecDeque<(u64, Fields, Sent)>; 2],
}

pub(super) struct Manager {
    machines: [Machine; 2],
    modes: [Mode; 2],
    now: Time,
    order: u64,
    channel: Option<Channel>,
    channels: u64,
    epoch: u64,
    /// The only member; none: both are members.
    sole: Option<usize>,
    /// It serves alone, and what may differ is durably marked.
    settled: bool,
    /// A resync goes on.
    joining: bool,
    parted: bool,
    chapter: usize,
    /// Each write: block, value, and the smallest that may be there once it is acknowledged.
    tickets: BTreeMap<Ticket, (u64, u64)>,
    values: u64,
    /// Per block, no smaller value may be found any more.
    floors: BTreeMap<u64, u64>,
    detours: u8,
    pub(super) steps: u64,
    pub(super) crashes: u8,
    pub(super) trace: Vec<String>,
    rules: Rules,
}

const fn id(node: usize) -> NodeId {
    if node == 0 { NodeId(1) } else { NodeId(2) }
}

impl Manager {
    pub(super) fn new(scope: &Crash) -> Self {
        Self {
            machines: [Machine::new(id(0)), Machine::new(id(1))],
            modes: [Mode::Down; 2],
            now: Duration::from_secs(1000),
            order: 0,
            channel: None,
            channels: 0,
            epoch: 1,
            sole: None,
            settled: false,
            joining: false,
            parted: false,
            chapter: 0,
            tickets: BTreeMap::new(),
            values: 0,
            floors: BTreeMap::new(),
            detours: 0,
            steps: 0,
            crashes: 0,
            trace: Vec::new(),
            rules: scope.rules,
        }
    }

    /// One run.
    pub(super) fn live(&mut self, scope: &Crash, choice: &mut Choice) -> Result<(), String> {
        for _ in 0..MAX_STEPS {
            self.steps += 1;
            self.now += Duration::from_millis(1);
            self.take_up()?;
            // The beginning holds nothing yet.
            let there = self.chapter > 0 && self.steps.is_multiple_of(scope.every);
            if self.crashes < scope.crashes && there {
                let who: &[usize] = match choice.of(4) {
                    0 => &[],
                    1 => &[0],
                    2 => &[1],
                    _ => &[0, 1],
                };
                if !who.is_empty() {
                    self.crash(who, choice)?;
                    continue;
                }
            }
            let items = self.items();
            if items.is_empty() {
                if self.act(choice)? {
                    return self.at_the_end();
                }
                continue;
            }
            let mut which = 0;
            if self.detours < scope.detours && there {
                which = choice.of(items.len());
                self.detours += u8::from(which > 0);
            }
            self.happen(items[which].1);
        }
        Err(String::from("the nodes never come to serve together"))
    }

    // ---- what waits

    /// Operations of the disks and frames that may come next, the oldest first.
    fn items(&self) -> Vec<(u64, Item)> {
        let mut items = Vec::new();
        for (node, machine) in self.machines.iter().enumerate() {
            for (which, flight) in machine.flights.iter().enumerate() {
                items.push((flight.order, Item::Disk(node, which)));
            }
        }
        for to in 0..2 {
            let queue = self.channel.as_ref().map(|it| &it.queues[to]);
            if let Some((order, ..)) = queue.and_then(VecDeque::front) {
                items.push((*order, Item::Frame(to)));
            }
        }
        items.sort_unstable_by_key(|it| it.0);
        items
    }

    fn happen(&mut self, item: Item) {
        match item {
            Item::Disk(node, which) => {
                let what = name(&self.machines[node].flights[which].io);
                self.note(format!("node {}: {what} is done", node + 1));
                let honest = self.rules.metadata_durable;
                let (now, order) = (self.now, &mut self.order);
                self.machines[node].complete(which, now, order, honest);
            }
            Item::Frame(to) => {
                let Some(channel) = &mut self.channel else {
                    return;
                };
                let Some((_, fields, sent)) = channel.queues[to].pop_front() else {
                    return;
                };
                let id = channel.id;
                self.note(format!(
                    "node {} gets a frame of kind {:#x}",
                    to + 1,
                    fields.kind
                ));
                let machine = &mut self.machines[to];
                let body = match sent {
                    Sent::Body(body) => body,
                    Sent::Blocks(values, crc) => {
                        let len =
                            u32::try_from(values.len() as u64 * BLOCK).expect("a short frame");
                        let buffer = machine.buffer_of(values);
                        FrameBody::Blocks(Payload {
                            buffer,
                            at: 0,
                            len,
                            crc,
                        })
                    }
                };
                machine.with(self.now, &mut self.order, |volume, now, out| {
                    volume.frame(now, id, fields, body, out);
                });
            }
        }
    }

    /// Words, answers and frames that the last step brought.
    fn take_up(&mut self) -> Result<(), String> {
        for node in 0..2 {
            for (channel, fields, sent) in std::mem::take(&mut self.machines[node].sent) {
                if let Some(known) = self.channel.as_mut().filter(|it| it.id == channel) {
                    self.order += 1;
                    known.queues[1 - node].push_back((self.order, fields, sent));
                }
            }
            for (ticket, result) in std::mem::take(&mut self.machines[node].completed) {
                let Some((block, floor)) = self.tickets.remove(&ticket) else {
                    return Err(String::from("an operation is answered twice"));
                };
                self.note(format!(
                    "node {} answers block {block}: {result:?}",
                    node + 1
                ));
                if result.is_ok() {
                    let known = self.floors.entry(block).or_default();
                    *known = floor.max(*known);
                }
            }
            while let Some(word) = self.machines[node].words.pop_front() {
                self.hear(node, &word)?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, node: usize, word: &FromVolume) -> Result<(), String> {
        match *word {
            FromVolume::Opened { .. } => self.modes[node] = Mode::Open,
            FromVolume::Suspended => self.modes[node] = Mode::Suspended,
            FromVolume::Serving { epoch } if epoch == self.epoch && self.sole == Some(node) => {
                self.settled = true;
            }
            FromVolume::UnionDurable { .. } if self.joining && self.sole == Some(node) => {
                self.order(node, ToVolume::Copy);
                if self.crashes == 0 {
                    self.write_all(WHILE_COPYING);
                }
            }
            FromVolume::JoinReady if self.joining && self.sole == Some(node) => self.joined(),
            FromVolume::DiskFailed => {
                return Err(format!("node {} finds its disk failed", node + 1));
            }
            _ => {}
        }
        Ok(())
    }

    /// The register has it: both hold everything.
    fn joined(&mut self) {
        self.note(String::from("the join is decided"));
        self.epoch += 1;
        self.sole = None;
        self.joining = false;
    }

    // ---- what Node does

    /// Nothing is under way: the next order, or the next chapter. Whether the run is over.
    fn act(&mut self, choice: &mut Choice) -> Result<bool, String> {
        for node in 0..2 {
            if self.modes[node] == Mode::Down {
                self.start(node);
                return Ok(false);
            }
        }
        if self.channel.is_none() && !self.parted {
            self.connect();
            return Ok(false);
        }
        if self.modes.contains(&Mode::Opening) || self.modes.contains(&Mode::Suspending) {
            return self.wait();
        }
        match self.sole {
            None => self.act_together(choice),
            Some(source) => self.act_alone(source),
        }
    }

    fn act_together(&mut self, choice: &mut Choice) -> Result<bool, String> {
        let joins = |it: &Mode| matches!(it, Mode::Alone | Mode::Target | Mode::Member);
        let first = self.epoch == 1 && self.modes == [Mode::Open; 2] && self.chapter == 0;
        if first || self.modes.iter().all(joins) {
            if let Some(node) = (0..2).find(|it| self.modes[*it] != Mode::Member) {
                self.serve(node, true);
                return Ok(false);
            }
            return self.turn_the_page();
        }
        // One of them crashed: the other one goes on, or either.
        let survivor = (0..2).find(|it| self.modes[*it] != Mode::Open);
        let source = match survivor {
            Some(node) => node,
            None => choice.of(2),
        };
        if self.modes[source] != Mode::Open && self.modes[source] != Mode::Suspended {
            self.modes[source] = Mode::Suspending;
            self.order(source, ToVolume::Suspend);
            return Ok(false);
        }
        self.swap(source);
        Ok(false)
    }

    fn swap(&mut self, source: usize) {
        self.note(format!("node {} becomes the only member", source + 1));
        self.epoch += 1;
        self.sole = Some(source);
        self.settled = false;
        self.joining = false;
        self.serve(source, false);
    }

    fn act_alone(&mut self, source: usize) -> Result<bool, String> {
        let target = 1 - source;
        if self.modes[source] != Mode::Alone {
            self.serve(source, false);
            return Ok(false);
        }
        if !self.settled || self.joining {
            // A target that is another run than the one that followed makes the source begin anew.
            if self.joining && self.modes[target] != Mode::Target {
                self.joining = false;
                self.order(source, ToVolume::Alone);
                self.serve(source, false);
                return Ok(false);
            }
            return self.wait();
        }
        if self.parted {
            return self.turn_the_page();
        }
        if self.modes[target] == Mode::Target {
            self.modes[target] = Mode::Suspending;
            self.order(target, ToVolume::Suspend);
            return Ok(false);
        }
        self.modes[target] = Mode::Target;
        let follow = ToVolume::Follow {
            source: self.configuration(),
            source_incarnation: self.machines[source].incarnation(),
        };
        self.order(target, follow);
        self.joining = true;
        let collect = ToVolume::Collect {
            partner_incarnation: self.machines[target].incarnation(),
            everything: false,
        };
        self.order(source, collect);
        Ok(false)
    }

    /// Everything is at rest: the next chapter. After a crash the run is over once both serve.
    fn turn_the_page(&mut self) -> Result<bool, String> {
        let over = self.chapter == STORY.len() || self.crashes > 0;
        if over && self.sole.is_none() {
            return Ok(true);
        }
        if self.crashes > 0 {
            self.parted = false;
            return Ok(false);
        }
        let chapter = STORY[self.chapter];
        self.chapter += 1;
        self.note(format!("{chapter:?}"));
        match chapter {
            Chapter::Writes(writes) => self.write_all(writes),
            Chapter::Part => {
                self.parted = true;
                self.disconnect();
                for node in 0..2 {
                    self.modes[node] = Mode::Suspending;
                    self.order(node, ToVolume::Suspend);
                }
                self.sole = Some(0);
                self.epoch += 1;
                self.settled = false;
            }
            Chapter::Rest => {
                self.now += IDLE;
                self.timers();
            }
            Chapter::Meet => self.parted = false,
        }
        Ok(false)
    }

    /// Nothing can go on before a clock has.
    fn wait(&mut self) -> Result<bool, String> {
        let volumes = self.machines.iter().filter_map(|it| it.volume.as_ref());
        let due = volumes.filter_map(|it| it.next_deadline()).min();
        let Some(due) = due else {
            return Err(format!("nothing goes on: {:?}", self.modes));
        };
        self.now = self.now.max(due);
        self.timers();
        Ok(false)
    }

    fn timers(&mut self) {
        for machine in &mut self.machines {
            machine.with(self.now, &mut self.order, |volume, now, out| {
                volume.timer(now, out);
            });
        }
    }

    fn configuration(&self) -> Configuration {
        let both = Members::only(id(0)).with(id(1));
        Configuration {
            epoch: self.epoch,
            generation: u128::from(self.epoch) << 64 | u128::from(self.epoch),
            members: self.sole.map_or(both, |it| Members::only(id(it))),
            owner: id(self.sole.unwrap_or(0)),
            unilateral: false,
            witness: None,
        }
    }

    fn serve(&mut self, node: usize, joined: bool) {
        let paired = self.sole.is_none();
        self.modes[node] = if paired { Mode::Member } else { Mode::Alone };
        let order = ToVolume::Serve {
            configuration: self.configuration(),
            partner_incarnation: paired.then(|| self.machines[1 - node].incarnation()),
            not_before: self.now,
            joined,
        };
        self.order(node, order);
    }

    fn order(&mut self, node: usize, order: ToVolume) {
        self.note(format!("node {}: {}", node + 1, brief(&order)));
        self.machines[node].with(self.now, &mut self.order, |volume, now, out| {
            volume.order(now, order, out);
        });
    }

    fn start(&mut self, node: usize) {
        let first = self.machines[node].run == 0;
        self.machines[node].start();
        self.modes[node] = Mode::Opening;
        let blank = first || !self.rules.marks_loaded;
        self.order(node, ToVolume::Open { blank });
    }

    fn connect(&mut self) {
        self.channels += 1;
        let channel = ChannelId(self.channels);
        self.channel = Some(Channel {
            id: channel,
            queues: Default::default(),
        });
        for node in 0..2 {
            let partner = self.machines[1 - node].incarnation();
            self.machines[node].with(self.now, &mut self.order, |volume, now, out| {
                volume.channel_up(now, channel, partner, out);
            });
        }
    }

    fn disconnect(&mut self) {
        let Some(channel) = self.channel.take() else {
            return;
        };
        for machine in &mut self.machines {
            machine.with(self.now, &mut self.order, |volume, now, out| {
                volume.channel_down(now, channel.id, out);
            });
        }
    }

    fn write_all(&mut self, writes: &[(usize, u64)]) {
        // Of writes to one block at the same time either may be the last.
        let mut floors: BTreeMap<u64, u64> = BTreeMap::new();
        for (node, block) in writes {
            self.values += 1;
            let value = self.values;
            let floor = *floors.entry(*block).or_insert(value);
            let ticket = Ticket(value);
            self.tickets.insert(ticket, (*block, floor));
            let token = u64::try_from(self.now.as_micros()).expect("a short run");
            let machine = &mut self.machines[*node];
            let buffer = machine.buffer_of(vec![value]);
            let operation = Operation::Write {
                extent: Extent {
                    offset: block * BLOCK,
                    len: BLOCK,
                },
                payload: Payload {
                    buffer,
                    at: 0,
                    len: 4096,
                    crc: sum(&[value]),
                },
                fua: false,
            };
            machine.with(self.now, &mut self.order, |volume, now, out| {
                volume.token(token, now);
                volume.submit(now, ticket, operation, out);
            });
        }
    }

    // ---- the adversary, and what is promised

    fn crash(&mut self, who: &[usize], choice: &mut Choice) -> Result<(), String> {
        self.crashes += 1;
        self.parted = false;
        for node in who {
            self.note(format!("NODE {} LOSES POWER", node + 1));
            self.modes[*node] = Mode::Down;
            self.machines[*node].crash(choice);
        }
        self.disconnect();
        if self.sole.is_some_and(|it| who.contains(&it)) {
            self.settled = false;
            self.joining = false;
        }
        unmarked(&self.machines).map_or(Ok(()), Err)
    }

    /// Both serve together, and nothing is under way.
    fn at_the_end(&self) -> Result<(), String> {
        let [first, second] = &self.machines;
        if first.image != second.image {
            return Err(format!(
                "the images differ at the end: {:?} and {:?}",
                first.image, second.image
            ));
        }
        for (block, floor) in &self.floors {
            let value = first.image.get(block).copied().unwrap_or(0);
            if value < *floor {
                return Err(format!(
                    "block {block} is {value} at the end, and write {floor} was acknowledged"
                ));
            }
        }
        Ok(())
    }

    fn note(&mut self, line: String) {
        self.trace.push(line);
    }
}

#[derive(Clone, Copy)]
enum Item {
    Disk(usize, usize),
    Frame(usize),
}

fn name(io: &lockstep_mirror::volume_io::Io) -> String {
    use lockstep_mirror::volume_io::Io;
    match io {
        Io::Write { offset, .. } => format!("the write of block {}", offset / BLOCK),
        Io::WriteMeta { offset, .. } => format!("the write of metadata at {offset}"),
        Io::Read { extent, .. } => format!("the read of block {}", extent.offset / BLOCK),
        Io::ReadMeta { .. } => String::from("a read of metadata"),
        Io::Flush => String::from("a flush"),
        _ => String::from("work on a buffer"),
    }
}

fn brief(order: &ToVolume) -> String {
    match order {
        ToVolume::Serve { configuration, .. } => format!(
            "serve epoch {} with {} member(s)",
            configuration.epoch,
            configuration.members.count()
        ),
        ToVolume::Follow { source, .. } => format!("follow epoch {}", source.epoch),
        order => format!("{order:?}"),
    }
}
