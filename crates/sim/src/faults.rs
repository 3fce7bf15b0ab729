//! What goes wrong, and when. Each run allows a random subset of faults and throws them at random
//! times; what would make a split brain inevitable in heartbeat mode (no channel between the nodes
//! is left while initiators reach both) is thrown only while a witness excludes it.

mod majority;

use crate::prng::Prng;
use core::time::Duration;

/// One thing that goes wrong, or right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Choose a fault, throw it, and come back later.
    Next,
    /// The daemon of a node is killed; its kernel lives on.
    Kill(usize),
    /// The supervisor of a node certifies that a run has ended: the last one, or so many before.
    Certify(usize, usize),
    /// A node loses its power: what was not flushed is lost.
    PowerCut(usize),
    /// The daemon of a node starts again (after a power cut, with its machine).
    Start(usize),
    /// A node is asked to stop in order.
    Stop(usize),
    /// An operator has a node's copy served, for the other node is gone.
    Force(usize),
    /// An operator takes a node out of service, and puts it back.
    Enter(usize),
    /// See above.
    Leave(usize),
    /// A node's process stands still for some milliseconds.
    Pause(usize, u64),
    /// A node's clock shows some milliseconds more at once.
    Jump(usize, u64),
    /// A node's machine stands still for some milliseconds, and its clock with it.
    StandStill(usize, u64),
    /// One direction of a link between the nodes goes, and comes back.
    Cut(usize, usize),
    /// See above.
    Mend(usize, usize),
    /// A path of an initiator goes in one direction, and comes back.
    CutPath(usize, usize),
    /// See above.
    MendPath(usize, usize),
    /// A node is cut off from everything, and comes back.
    Isolate(usize),
    /// See above.
    Rejoin(usize),
    /// All links that carry data go, and come back; heartbeats go on over the others.
    CutSync,
    /// See above.
    MendSync,
    /// All links that carry heartbeats only go, and come back.
    CutHeartbeats,
    /// See above.
    MendHeartbeats,
    /// A link between the nodes takes long, and is as before.
    SlowLink(usize),
    /// See above.
    NormalLink(usize),
    /// A random stream is reset.
    Reset,
    /// A data channel is reset while something is on its way; so many more milliseconds one is
    /// waited for.
    ResetData(u64),
    /// A node's disks become slow, and normal again.
    SlowDisks(usize),
    /// See above.
    NormalDisks(usize),
    /// For so many milliseconds a node's disk takes longer for each write than the other one waits:
    /// it is put out, and again when it tries to join.
    CrawlDisk(usize, u64),
    /// An operator says that what made a node slow is mended, on the node that serves.
    Pardon,
    /// A node's disk fails every write and flush from now on.
    FailDisk(usize),
    /// It is replaced by an empty one, and the daemon started anew.
    ReplaceDisk(usize),
    /// A snapshot is taken of what is durable on a node's disk.
    Snapshot(usize),
    /// It is put back, while the daemon does not run.
    PutBack(usize),
    /// Some sectors of a node's disk cannot be read any more, until they are written.
    Unreadable(usize),
    /// What a node's disks are asked to read they do not answer for some milliseconds.
    HangReads(usize, u64),
    /// The nodes are cut off from each other, in both directions (0) or in one (1, 2), and back.
    /// If the second number is not 0, nothing else is begun for so many milliseconds: one node
    /// then has to serve.
    Part(usize, u64),
    /// See above.
    Reunite,
    /// One direction of the link between a node and the witness goes, and comes back.
    CutWitness(usize, usize),
    /// See above.
    MendWitness(usize, usize),
    /// The witness is killed.
    KillWitness,
    /// The witness loses its power.
    PowerCutWitness,
    /// The witness starts again, with its machine if need be.
    StartWitness,
    /// The witness stands still for some milliseconds.
    PauseWitness(u64),
    /// The witness, which does not run, loses its disk and gets an empty one.
    WipeWitness,
    /// The witness cannot write its file, and can again.
    FillWitness,
    /// See above.
    EmptyWitness,
    /// An operator changes the strategy of the volume; `true`: to majority.
    Strategy(usize, bool),
    /// The initiators do nothing for some milliseconds: what is done only in quiet times is done.
    Nap(u64),
    /// All links lose pieces for a while.
    Losses,
    /// They stop doing so.
    NoLosses,
    /// No more faults: everything is mended.
    Calm,
}

/// A node whose machine stood still is cut off for this long after it moves again: leases, on the
/// slowest clock.
pub const LEASES_END: Duration = Duration::from_millis(1800);

/// So long in milliseconds may a clock stand still while initiators use the node: the partner
/// waits for 2 s, leases last 1.5 s, and either clock runs up to 5 % wrong.
pub const STILL_BORNE_MS: u64 = 300;

/// Which faults a run throws, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    kinds: Vec<Kind>,
    pause: (u64, u64),
    /// When the last fault is thrown.
    pub until: Duration,
}

/// Sorts of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    CertifiedKill,
    OldCertificate,
    PowerCut,
    BothDown,
    CrashLoop,
    Stop,
    Maintenance,
    Decide,
    Pause,
    LongPause,
    ClockJump,
    StandStill,
    Cut,
    OneWay,
    Flap,
    Sync,
    Heartbeats,
    SlowLink,
    ResetData,
    CutPath,
    Isolate,
    Reset,
    SlowDisks,
    CrawlDisk,
    FailedDisk,
    OldDisk,
    HangReads,
    Unreadable,
    Losses,
    Nap,
    Majority(majority::Kind),
}

const KINDS: [Kind; 31] = [
    Kind::Kill,
    Kind::CertifiedKill,
    Kind::OldCertificate,
    Kind::PowerCut,
    Kind::BothDown,
    Kind::CrashLoop,
    Kind::Stop,
    Kind::Maintenance,
    Kind::Decide,
    Kind::Pause,
    Kind::LongPause,
    Kind::ClockJump,
    Kind::StandStill,
    Kind::Cut,
    Kind::OneWay,
    Kind::Flap,
    Kind::Sync,
    Kind::Heartbeats,
    Kind::SlowLink,
    Kind::ResetData,
    Kind::CutPath,
    Kind::Isolate,
    Kind::Reset,
    Kind::SlowDisks,
    Kind::CrawlDisk,
    Kind::FailedDisk,
    Kind::OldDisk,
    Kind::HangReads,
    Kind::Unreadable,
    Kind::Losses,
    Kind::Nap,
];

/// What a plan must know of the world to throw a fault.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Which daemons run.
    pub running: [bool; 2],
    /// Links between the nodes, and which of them pass in both directions.
    pub links: usize,
    /// How many of them pass in both directions.
    pub whole: usize,
    /// How many of those carry heartbeats only.
    pub whole_heartbeats: usize,
    /// Initiators.
    pub clients: usize,
    /// A node is cut off from everything.
    pub isolated: Option<usize>,
    /// Both nodes serve together.
    pub together: bool,
    /// A disk was replaced in this run; that takes long.
    pub replaced: bool,
    /// A disk has crawled once in this run; that takes long.
    pub crawled: bool,
    /// The initiators have rested once in this run; that takes long.
    pub rested: bool,
    /// A power cut now may not take acknowledged writes along (cache mode).
    pub power_cut_allowed: bool,
    /// Two of three decide: the nodes may be cut off from each other.
    pub majority: bool,
    /// The witness runs.
    pub witness: bool,
    /// The nodes are cut off from each other.
    pub parted: bool,
    /// They were for long; that takes long.
    pub parted_long: bool,
}

impl Plan {
    /// A random plan; `witness`: there is one, which may fail as well.
    #[must_use]
    pub fn new(prng: &mut Prng, witness: bool) -> Self {
        let share = *prng.pick(&[150, 300, 600]);
        let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| prng.chance(share)).collect();
        // Kills are what this program is for: nearly every run has them.
        if prng.chance(800) {
            kinds.push(Kind::Kill);
        }
        if witness {
            let more = majority::KINDS.into_iter().filter(|_| prng.chance(share));
            kinds.extend(more.map(Kind::Majority));
        }
        let low = prng.between(200, 3000);
        let pause = (low, low + prng.between(1000, 8000));
        Self {
            kinds,
            pause,
            until: prng.millis(20_000, 45_000),
        }
    }

    /// Without faults at all.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            kinds: Vec::new(),
            pause: (1000, 2000),
            until: Duration::from_secs(10),
        }
    }

    /// When the next fault comes.
    pub fn pause(&self, prng: &mut Prng) -> Duration {
        prng.millis(self.pause.0, self.pause.1)
    }

    /// Chooses a fault: what happens now and what after which time.
    pub fn choose(&self, prng: &mut Prng, now: &Situation) -> Vec<(Duration, Fault)> {
        if self.kinds.is_empty() {
            return Vec::new();
        }
        let kind = *prng.pick(&self.kinds);
        let node = prng.index(2);
        let link = prng.index(now.links);
        let soon = Duration::ZERO;
        let long = if prng.chance(500) {
            prng.millis(10, 3000)
        } else {
            prng.millis(1000, 12_000)
        };
        let down = if now.power_cut_allowed && prng.chance(500) {
            Fault::PowerCut
        } else {
            Fault::Kill
        };
        // Cutting the last whole link would leave both nodes alone with initiators on both.
        let may_cut = (now.majority || now.whole > 1) && now.isolated.is_none();
        match kind {
            Kind::Majority(kind) => kind.faults(prng, now, node, long),
            Kind::Kill if now.running[node] => {
                vec![(soon, Fault::Kill(node)), (long, Fault::Start(node))]
            }
            Kind::CertifiedKill if now.running[node] => {
                // At once, as a supervisor does; or so late that the next run has begun.
                let late = prng.chance(200);
                let after = if late {
                    long + prng.millis(0, 5000)
                } else {
                    prng.millis(5, 300)
                };
                vec![
                    (soon, Fault::Kill(node)),
                    (after, Fault::Certify(node, 0)),
                    (long, Fault::Start(node)),
                ]
            }
            Kind::OldCertificate => vec![(soon, Fault::Certify(node, prng.index(3)))],
            Kind::PowerCut if now.running[node] && now.power_cut_allowed => {
                vec![
                    (soon, Fault::PowerCut(node)),
                    (long + Duration::from_secs(1), Fault::Start(node)),
                ]
            }
            Kind::BothDown => {
                let between = prng.millis(0, 3000);
                let back = between + prng.millis(10, 6000);
                vec![
                    (soon, down(node)),
                    (between, down(1 - node)),
                    (back, Fault::Start(prng.index(2))),
                    (back + prng.millis(0, 8000), Fault::Start(0)),
                    (back + prng.millis(0, 8000), Fault::Start(1)),
                ]
            }
            Kind::CrashLoop => {
                let mut at = soon;
                let mut faults = Vec::new();
                for _ in 0..prng.between(2, 5) {
                    faults.push((at, down(node)));
                    at += prng.millis(1, 500);
                    faults.push((at, Fault::Start(node)));
                    at += prng.millis(1, 4000);
                }
                faults
            }
            Kind::Stop if now.running[node] => {
                vec![
                    (soon, Fault::Stop(node)),
                    (long + Duration::from_secs(12), Fault::Start(node)),
                ]
            }
            Kind::Decide if now.running == [true; 2] && now.isolated.is_none() => {
                // The other one goes on alone, and is gone as well when this one returns.
                let alone = prng.millis(0, 9000);
                let back = alone + prng.millis(10, 3000);
                let force = back + prng.millis(2500, 20_000);
                vec![
                    (soon, Fault::Kill(node)),
                    (alone, down(1 - node)),
                    (back, Fault::Start(node)),
                    (force, Fault::Force(node)),
                    (force + prng.millis(10, 8000), Fault::Start(1 - node)),
                ]
            }
            Kind::Maintenance if now.running == [true; 2] => {
                // A restart in the middle, at times: the new version.
                let mut faults = vec![(soon, Fault::Enter(node)), (long * 2, Fault::Leave(node))];
                if prng.chance(500) {
                    faults.push((long, Fault::Stop(node)));
                    faults.push((long + Duration::from_secs(12), Fault::Start(node)));
                    faults.push((long + Duration::from_secs(14), Fault::Leave(node)));
                }
                faults
            }
            Kind::Pause if now.running[node] => {
                vec![(soon, Fault::Pause(node, prng.between(10, 1500)))]
            }
            Kind::LongPause if now.running[node] => {
                vec![(soon, Fault::Pause(node, prng.between(1500, 20_000)))]
            }
            Kind::ClockJump => {
                let most = *prng.pick(&[1000, 6000, 60_000, 10_000_000]);
                vec![(soon, Fault::Jump(node, prng.between(1, most)))]
            }
            Kind::StandStill if now.running[node] && prng.chance(300) => {
                let ms = prng.between(10, STILL_BORNE_MS);
                vec![(soon, Fault::StandStill(node, ms))]
            }
            Kind::StandStill if now.isolated.is_none() && now.whole == now.links => {
                let ms = prng.between(200, 15_000);
                let back = Duration::from_millis(ms) + LEASES_END;
                vec![
                    (soon, Fault::Isolate(node)),
                    (soon, Fault::StandStill(node, ms)),
                    (back, Fault::Rejoin(node)),
                ]
            }
            Kind::Cut if may_cut => vec![
                (soon, Fault::Cut(link, 0)),
                (soon, Fault::Cut(link, 1)),
                (long, Fault::Mend(link, 0)),
                (long, Fault::Mend(link, 1)),
            ],
            Kind::OneWay if may_cut => {
                let direction = prng.index(2);
                vec![
                    (soon, Fault::Cut(link, direction)),
                    (long, Fault::Mend(link, direction)),
                ]
            }
            Kind::Flap if may_cut => {
                let mut at = soon;
                let mut faults = Vec::new();
                for _ in 0..prng.between(2, 8) {
                    faults.extend([(at, Fault::Cut(link, 0)), (at, Fault::Cut(link, 1))]);
                    at += prng.millis(1, 800);
                    faults.extend([(at, Fault::Mend(link, 0)), (at, Fault::Mend(link, 1))]);
                    at += prng.millis(1, 800);
                }
                faults
            }
            Kind::Sync if may_cut && (now.majority || now.whole_heartbeats > 0) => {
                vec![(soon, Fault::CutSync), (long, Fault::MendSync)]
            }
            Kind::Heartbeats if may_cut && (1..now.whole).contains(&now.whole_heartbeats) => {
                vec![(soon, Fault::CutHeartbeats), (long, Fault::MendHeartbeats)]
            }
            Kind::SlowLink => {
                vec![
                    (soon, Fault::SlowLink(link)),
                    (long, Fault::NormalLink(link)),
                ]
            }
            Kind::ResetData => vec![(soon, Fault::ResetData(500))],
            Kind::CutPath => {
                let path = prng.index(now.clients * 2);
                let directions: &[usize] = if prng.chance(500) { &[0, 1] } else { &[0] };
                let cut = directions
                    .iter()
                    .map(|direction| (soon, Fault::CutPath(path, *direction)));
                cut.chain(
                    directions
                        .iter()
                        .map(|direction| (long, Fault::MendPath(path, *direction))),
                )
                .collect()
            }
            Kind::Isolate if now.isolated.is_none() && now.whole == now.links => {
                // The hardest moment to come back is that at which the others decide.
                let back = if prng.chance(500) {
                    prng.millis(800, 3200)
                } else {
                    long
                };
                vec![(soon, Fault::Isolate(node)), (back, Fault::Rejoin(node))]
            }
            Kind::Reset => vec![(soon, Fault::Reset)],
            Kind::SlowDisks => vec![
                (soon, Fault::SlowDisks(node)),
                (long, Fault::NormalDisks(node)),
            ],
            Kind::CrawlDisk if now.together && !now.crawled => {
                // The first wait is 30 s. The longer one is slow still when the node comes back.
                let ms = match prng.chance(500) {
                    true => prng.between(8000, 20_000),
                    false => prng.between(38_000, 55_000),
                };
                vec![(soon, Fault::CrawlDisk(node, ms))]
            }
            Kind::FailedDisk if now.together && !now.replaced => vec![
                (soon, Fault::FailDisk(node)),
                (long + prng.millis(3000, 12_000), Fault::ReplaceDisk(node)),
            ],
            Kind::OldDisk if now.together && !now.replaced => {
                let used = prng.millis(100, 40_000);
                let back = used + long;
                vec![
                    (soon, Fault::Snapshot(node)),
                    (used, down(node)),
                    (back, Fault::PutBack(node)),
                    (back + prng.millis(10, 2000), Fault::Start(node)),
                ]
            }
            Kind::Unreadable => vec![(soon, Fault::Unreadable(node))],
            Kind::HangReads => {
                // The longer ones are for the watchdog of a resync: it should be at one.
                let (after, ms) = match prng.chance(500) {
                    true => (long, prng.between(31_000, 40_000)),
                    false => (soon, prng.between(100, 5000)),
                };
                let hang = Fault::HangReads(node, ms);
                match after {
                    Duration::ZERO => vec![(soon, hang)],
                    _ => vec![
                        (soon, Fault::Kill(1 - node)),
                        (after, Fault::Start(1 - node)),
                        (after + prng.millis(0, 1500), hang),
                    ],
                }
            }
            Kind::Losses => vec![(soon, Fault::Losses), (long, Fault::NoLosses)],
            Kind::Nap if !now.rested => {
                // Intents of idle regions are let go after 30 s: a crash comes when they just were.
                let ms = prng.between(32_000, 45_000);
                let crash = Duration::from_millis(ms - prng.between(0, 3000));
                vec![
                    (soon, Fault::Nap(ms)),
                    (crash, down(node)),
                    (crash + long, Fault::Start(node)),
                ]
            }
            _ => Vec::new(),
        }
    }
}

impl Fault {
    /// Whether a node may be lost to the other one by it.
    #[must_use]
    pub const fn takes_a_node_away(self) -> bool {
        matches!(
            self,
            Self::Kill(_)
                | Self::PowerCut(_)
                | Self::Stop(_)
                | Self::Pause(..)
                | Self::StandStill(..)
                | Self::Cut(..)
                | Self::Isolate(_)
                | Self::Part(..)
        )
    }

    /// Its name in the counts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kills",
            Self::Certify(..) => "certificates",
            Self::PowerCut(_) => "power cuts",
            Self::Start(_) => "starts",
            Self::Stop(_) => "orderly stops",
            Self::Force(_) => "decisions by force",
            Self::Enter(_) => "maintenance",
            Self::Pause(..) => "pauses",
            Self::Jump(..) => "clocks that jump",
            Self::StandStill(..) => "clocks that stand still",
            Self::Cut(..) => "sync links cut (one way each)",
            Self::CutPath(..) => "paths cut (one way each)",
            Self::Isolate(_) => "nodes cut off",
            Self::CutSync => "all sync links cut",
            Self::CutHeartbeats => "all heartbeat links cut",
            Self::SlowLink(_) => "links slow",
            Self::ResetData(_) => "data channels reset under way",
            Self::Reset => "streams reset",
            Self::SlowDisks(_) => "disks slow",
            Self::CrawlDisk(..) => "disks that crawl",
            Self::Pardon => "pardons of a slow node",
            Self::FailDisk(_) => "disks failed",
            Self::ReplaceDisk(_) => "disks replaced",
            Self::Snapshot(_) => "snapshots of disks",
            Self::PutBack(_) => "older disks put back",
            Self::Unreadable(_) => "sectors become unreadable",
            Self::HangReads(..) => "disks that hang",
            Self::Losses => "links lossy",
            Self::Nap(_) => "initiators at rest",
            Self::Part(0, _) => "nodes parted",
            Self::Part(..) => "nodes parted one way",
            Self::CutWitness(..) => "witness: links cut (one way each)",
            Self::KillWitness => "witness: kills",
            Self::PowerCutWitness => "witness: power cuts",
            Self::StartWitness => "witness: starts",
            Self::PauseWitness(_) => "witness: pauses",
            Self::WipeWitness => "witness: disks lost",
            Self::FillWitness => "witness: disks full",
            Self::Strategy(_, true) => "strategy: to majority",
            Self::Strategy(_, false) => "strategy: to heartbeat",
            Self::Next
            | Self::Mend(..)
            | Self::MendPath(..)
            | Self::MendSync
            | Self::MendHeartbeats
            | Self::NormalLink(_)
            | Self::Leave(_)
            | Self::Rejoin(_)
            | Self::Reunite
            | Self::MendWitness(..)
            | Self::EmptyWitness
            | Self::NormalDisks(_)
            | Self::NoLosses
            | Self::Calm => "mended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Situation = Situation {
        running: [true; 2],
        links: 3,
        whole: 3,
        whole_heartbeats: 1,
        clients: 1,
        isolated: None,
        together: true,
        replaced: false,
        crawled: false,
        rested: false,
        power_cut_allowed: true,
        majority: false,
        witness: true,
        parted: false,
        parted_long: false,
    };

    #[test]
    fn the_last_whole_link_is_never_cut() {
        let plan = Plan {
            kinds: KINDS.to_vec(),
            pause: (1, 2),
            until: Duration::ZERO,
        };
        let mut prng = Prng::new(1);
        for _ in 0..2000 {
            let faults = plan.choose(&mut prng, &Situation { whole: 1, ..QUIET });
            assert!(
                !faults
                    .iter()
                    .any(|(_, fault)| matches!(fault, Fault::Cut(..) | Fault::Isolate(_)))
            );
        }
    }

    #[test]
    fn every_fault_is_thrown_by_some_run() {
        let mut prng = Prng::new(2);
        for (witness, kinds) in [(false, 29), (true, 40)] {
            let mut seen = std::collections::BTreeSet::new();
            let now = Situation {
                majority: witness,
                ..QUIET
            };
            for _ in 0..200 {
                let plan = Plan::new(&mut prng, witness);
                for _ in 0..20 {
                    let faults = plan.choose(&mut prng, &now);
                    seen.extend(faults.iter().map(|(_, fault)| fault.name()));
                }
            }
            assert_eq!(seen.len(), kinds, "{seen:?}");
        }
    }
}
