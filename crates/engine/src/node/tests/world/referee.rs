//! A real witness as the third machine of the world.

use super::*;
use crate::witness::{Action, Event, Pair, Witness};
use lockstep_mirror::control::WitnessId;

const SECRET: &[u8] = b"of the witness";
const CLUSTER: u128 = 7;

enum Letter {
    Up(LinkId),
    Down(LinkId),
    Bytes(LinkId, Vec<u8>),
    Stored(Vec<u8>),
}

pub(in crate::node::tests) struct Referee {
    machine: Option<Witness>,
    file: Option<Vec<u8>>,
    /// To node 1 and node 2. `true`: it works.
    pub(in crate::node::tests) wires: [bool; 2],
    links: [Option<(LinkId, Time)>; 2],
    dial_at: [Time; 2],
    queue: BTreeMap<(Time, u64), Letter>,
}

impl World {
    /// As `new`, with a witness.
    pub(in crate::node::tests) fn with_witness(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.referee = Some(Referee {
            machine: None,
            file: None,
            wires: [true, true],
            links: [None, None],
            dial_at: [Time::ZERO; 2],
            queue: BTreeMap::new(),
        });
        world.boot_witness();
        world.run(ms(100));
        world
    }

    /// Both nodes started and mirrored, with a witness.
    pub(in crate::node::tests) fn refereed(seed: u64) -> Self {
        let mut world = Self::with_witness(seed);
        world.boot(0);
        world.boot(1);
        world.run_until(ms(10_000), Self::is_mirrored);
        world
    }

    pub(in crate::node::tests) fn referee(&mut self) -> &mut Referee {
        self.referee.as_mut().expect("a world with a witness")
    }

    /// The life of the witness's votes.
    pub(in crate::node::tests) fn life(&self) -> Option<WitnessId> {
        let machine = self.referee.as_ref()?.machine.as_ref()?;
        machine.pairs().next().map(|it| it.1)
    }

    pub(in crate::node::tests) fn boot_witness(&mut self) {
        let seed = self.dice(1 << 60).to_be_bytes();
        let referee = self.referee();
        let pair = Pair {
            cluster: CLUSTER,
            secret: SECRET.into(),
            file: referee.file.clone(),
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed);
        referee.machine = Some(Witness::new(vec![pair], bytes).expect("a sound file"));
        self.referee_takes(Event::Tick);
    }

    pub(in crate::node::tests) fn crash_witness(&mut self) {
        let text = String::from("witness CRASH");
        self.say(text);
        let referee = self.referee();
        referee.machine = None;
        referee.queue.clear();
        for who in 0..2 {
            self.drop_witness_link(who);
        }
    }

    pub(in crate::node::tests) fn witness_runs(&self) -> bool {
        self.referee.as_ref().is_some_and(|it| it.machine.is_some())
    }

    /// Its disk is lost, and a new one put in.
    pub(in crate::node::tests) fn wipe_witness(&mut self) {
        assert!(!self.witness_runs(), "only a stopped one");
        self.referee().file = None;
    }

    pub(in crate::node::tests) fn cut_witness(&mut self, who: usize, works: bool) {
        self.say(alloc::format!("witness wire {} works: {works}", who + 1));
        self.referee().wires[who] = works;
        self.drop_witness_link(who);
    }

    fn drop_witness_link(&mut self, who: usize) {
        let at = self.now + ms(500);
        let referee = self.referee();
        let Some((link, _)) = referee.links[who].take() else {
            return;
        };
        referee.dial_at[who] = at;
        self.later(who, ms(1), Later::LinkDown { link });
        self.post(ms(1), Letter::Down(link));
    }

    fn post(&mut self, delay: Duration, letter: Letter) {
        self.counter += 1;
        let at = (self.now + delay, self.counter);
        self.referee().queue.insert(at, letter);
    }

    /// Whether that link leads to the witness; what a node sends on it goes there.
    pub(super) fn witness_link(&self, link: LinkId) -> Option<usize> {
        let links = &self.referee.as_ref()?.links;
        links
            .iter()
            .position(|it| it.is_some_and(|(id, _)| id == link))
    }

    pub(super) fn send_to_witness(&mut self, who: usize, link: LinkId, bytes: Vec<u8>) {
        if !self.referee().wires[who] {
            return;
        }
        let delay = self.in_order(who);
        self.post(delay, Letter::Bytes(link, bytes));
    }

    /// A delay that keeps the order of one connection, in both directions together.
    fn in_order(&mut self, who: usize) -> Duration {
        let (now, extra) = (self.now, ms(self.dice(8)));
        let Some((link, last)) = self.referee().links[who] else {
            return ms(1);
        };
        let at = last.max(now) + extra;
        self.referee().links[who] = Some((link, at));
        at.saturating_sub(now) + ms(1)
    }

    pub(super) fn close_witness_link(&mut self, who: usize) {
        self.drop_witness_link(who);
    }

    pub(super) fn referee_work(&mut self) {
        if self.referee.is_none() {
            return;
        }
        let now = self.now;
        for who in 0..2 {
            let alive = self.runs(who) && self.witness_runs();
            let referee = self.referee();
            let free = referee.links[who].is_none() && referee.wires[who];
            if alive && free && now >= referee.dial_at[who] {
                let link = LinkId(self.next_link);
                self.next_link += 1;
                self.referee().links[who] = Some((link, now));
                self.later(who, ms(2), Later::WitnessUp { link });
                self.post(ms(2), Letter::Up(link));
            }
        }
        while let Some(next) = self.referee().queue.first_entry() {
            if next.key().0 > now {
                break;
            }
            match next.remove() {
                Letter::Up(link) => self.referee_takes(Event::LinkUp { link }),
                Letter::Down(link) => self.referee_takes(Event::LinkDown { link }),
                Letter::Bytes(link, bytes) => self.referee_takes(Event::LinkBytes {
                    link,
                    bytes: &bytes,
                }),
                Letter::Stored(bytes) => {
                    self.referee().file = Some(bytes);
                    self.referee_takes(Event::Stored {
                        cluster: CLUSTER,
                        ok: true,
                    });
                }
            }
        }
        self.referee_takes(Event::Tick);
    }

    fn referee_takes(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        let now = self.now;
        let Some(machine) = &mut self.referee().machine else {
            return;
        };
        machine.handle(now, event, &mut actions);
        for action in actions {
            match action {
                Action::LinkSend { link, bytes } => {
                    let Some(who) = self.witness_link(link) else {
                        continue;
                    };
                    if self.referee().wires[who] {
                        let delay = self.in_order(who);
                        self.later(who, delay, Later::Bytes { link, bytes });
                    }
                }
                Action::LinkClose { link } => {
                    if let Some(who) = self.witness_link(link) {
                        self.drop_witness_link(who);
                    }
                }
                Action::Store { bytes, .. } => {
                    let delay = ms(self.dice(30) + 1);
                    self.post(delay, Letter::Stored(bytes));
                }
                Action::Event { text, .. } => self.say(alloc::format!("witness: {text}")),
            }
        }
    }

    /// What a node that starts is told of the witness.
    pub(super) fn introduce_witness(&mut self, who: usize) {
        if self.referee.is_some() {
            self.handle(who, NodeEvent::WitnessSecret(Some(SECRET.into())));
        }
    }
}
