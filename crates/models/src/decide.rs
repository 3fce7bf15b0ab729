//! `decide` over its small state space: every combination of lines, flags, open records and
//! register values that two copies of a volume can hold, and many that they cannot.
//!
//! Looked at for each pair of records: the same plan on both sides; no panic; and for each row
//! what it may never do. Whether the source of a *reachable* pair holds every acknowledged write
//! is looked at by `pair`, in each of its states (`World::if_they_met`).

use lockstep_mirror::control::{Configuration, Incarnation, Members, NodeId, VolumeId};
use lockstep_mirror::decide::{Copy, Plan, Record, decide_preferring};
use lockstep_mirror::superblock::{Lineage, Met, Past, Superblock};
use std::collections::BTreeMap;
use std::fmt;

#[cfg(test)]
mod tests;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// What is searched: `decide` itself, or a damaged one.
pub type Decide = fn(&Record, &Record, Option<Configuration>, Option<NodeId>) -> Plan;

/// How many combinations.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Of the nine flags of a record, so many are set at once at most.
    pub flags: u32,
    /// Also every preference of a side that has not stepped down.
    pub preferences: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Pairs of records with a register value and a preference.
    pub pairs: u64,
    /// How often each plan was made.
    pub plans: BTreeMap<&'static str, u64>,
    /// The first promise found broken, and by what.
    pub broken: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plans: Vec<_> = self
            .plans
            .iter()
            .map(|(plan, times)| format!("{times} {plan}"))
            .collect();
        write!(f, "{} pairs ({}): ", self.pairs, plans.join(", "))?;
        match &self.broken {
            None => f.write_str("every promise holds"),
            Some(broken) => write!(f, "BROKEN: {broken}"),
        }
    }
}

const fn configuration(
    epoch: u64,
    generation: u128,
    members: u8,
    owner: NodeId,
    unilateral: bool,
) -> Configuration {
    Configuration {
        epoch,
        generation,
        members: Members(members << 1),
        owner,
        unilateral,
        witness: None,
    }
}

const BOTH: Configuration = configuration(1, 1, 3, A, false);
const A_ALONE: Configuration = configuration(2, 2, 1, A, false);
const A_UNILATERAL: Configuration = configuration(2, 3, 1, A, true);
const B_UNILATERAL: Configuration = configuration(2, 4, 2, B, true);
const B_ALONE: Configuration = configuration(2, 5, 2, B, false);
const AGAIN: Configuration = configuration(3, 6, 3, B, false);
const B_AGAIN: Configuration = configuration(3, 8, 2, B, true);
const FOREIGN: Configuration = configuration(7, 7, 3, A, false);

/// The lines that a copy can have lived, each with its base.
const LINES: [(&[Configuration], u64); 10] = [
    (&[], 0),
    (&[BOTH], 1),
    (&[BOTH, A_ALONE], 1),
    (&[BOTH, A_UNILATERAL], 1),
    (&[BOTH, B_UNILATERAL], 1),
    (&[BOTH, B_ALONE], 1),
    (&[BOTH, A_ALONE, AGAIN], 3),
    (&[BOTH, B_ALONE, AGAIN], 3),
    (&[BOTH, B_ALONE, B_AGAIN], 1),
    (&[FOREIGN], 7),
];
const OPEN: [Option<Configuration>; 4] = [None, Some(A_ALONE), Some(B_ALONE), Some(AGAIN)];
/// Inconsistent, failed, crashed, wrote, told to create, served with the other one's present run,
/// split brain, kept, has met a newer copy of the other one.
const FLAGS: u32 = 9;

fn records(node: NodeId, space: Space) -> Vec<Record> {
    let mut all = Vec::new();
    for (line, base) in LINES {
        for flags in 0..1_u32 << FLAGS {
            if flags.count_ones() > space.flags {
                continue;
            }
            for prepared in OPEN {
                all.extend(record(node, line, base, flags, prepared));
            }
        }
    }
    all
}

/// `None`: the flags contradict each other.
fn record(
    node: NodeId,
    line: &[Configuration],
    base: u64,
    flags: u32,
    prepared: Option<Configuration>,
) -> Option<Record> {
    let flag = |bit: u32| flags & 1 << bit != 0;
    let superblock = Superblock::new(VolumeId(9), node, 1 << 20, 512);
    let mut it = Record::of(&superblock, Incarnation(u64::from(node.0)));
    if let Some(last) = line.last() {
        it.configuration = *last;
    }
    it.blank = line.is_empty() && prepared.is_none();
    it.history = line.iter().map(past).collect();
    it.base = base;
    it.prepared = prepared;
    it.inconsistent = flag(0);
    it.disk_failed = flag(1);
    it.crashed = flag(2);
    it.wrote = flag(3);
    it.create = flag(4);
    it.with = flag(5).then_some(Incarnation(u64::from(3 - node.0)));
    it.split_brain = flag(6);
    it.keep = flag(7);
    let together = line.iter().rev().find(|it| it.members.count() == 2);
    it.met = together.filter(|_| flag(8)).map(|it| Met {
        lineage: it.lineage(),
        stamp: 1,
    });
    let contradicts = it.wrote && !it.configuration.unilateral
        || it.create && !line.is_empty()
        || it.keep && !it.split_brain
        || flag(8) && it.met.is_none()
        || it.blank && (it.inconsistent || it.split_brain || it.crashed);
    (!contradicts).then_some(it)
}

const fn past(it: &Configuration) -> Past {
    Past {
        lineage: it.lineage(),
        members: it.members,
        unilateral: it.unilateral,
    }
}

fn registers() -> Vec<Option<Configuration>> {
    let mut all = vec![None];
    for (line, _) in LINES {
        let decided = line.last().filter(|it| !it.unilateral).copied();
        if decided.is_some() && !all.contains(&decided) {
            all.push(decided);
        }
    }
    all
}

/// Makes the plan of every pair, until one breaks a promise.
#[must_use]
pub fn enumerate(space: Space, decide: Decide) -> Report {
    let mut report = Report::default();
    let (firsts, seconds) = (records(A, space), records(B, space));
    let preferences: &[Option<NodeId>] = match space.preferences {
        true => &[None, Some(A), Some(B)],
        false => &[None],
    };
    for register in registers() {
        for prefer in preferences {
            for a in &firsts {
                for b in &seconds {
                    let plan = decide(a, b, register, *prefer);
                    report.pairs += 1;
                    *report.plans.entry(name(&plan)).or_default() += 1;
                    let other = decide(b, a, register, *prefer);
                    let fault = if other == plan {
                        wrong(&plan, a, b, register)
                    } else {
                        Some("the two sides come to different plans")
                    };
                    if let Some(fault) = fault {
                        report.broken = Some(format!(
                            "{fault}: {plan:?} and {other:?} of\n  {a:?}\n  {b:?}\n  {register:?}, preferring {prefer:?}"
                        ));
                        return report;
                    }
                }
            }
        }
    }
    report
}

/// As `enumerate`, of `decide` itself.
#[must_use]
pub fn enumerate_real(space: Space) -> Report {
    enumerate(space, decide_preferring)
}

const fn name(plan: &Plan) -> &'static str {
    match plan {
        Plan::Refuse(_) => "refused",
        Plan::Create { .. } => "created",
        Plan::SplitBrain => "split",
        Plan::Unavailable { .. } => "unavailable",
        Plan::Resume => "resumed",
        Plan::Source {
            copy: Copy::Marked, ..
        } => "marked",
        Plan::Source {
            copy: Copy::Everything,
            ..
        } => "everything",
        Plan::Source {
            copy: Copy::Never, ..
        } => "never",
    }
}

fn knows(it: &Record, lineage: Lineage) -> bool {
    it.configuration.lineage() == lineage || it.history.iter().any(|past| past.lineage == lineage)
}

/// What this plan may never be.
fn wrong(
    plan: &Plan,
    a: &Record,
    b: &Record,
    register: Option<Configuration>,
) -> Option<&'static str> {
    let split = a.split_brain || b.split_brain;
    let apart = |x: &Record, y: &Record| {
        x.configuration.unilateral && x.wrote && !knows(y, x.configuration.lineage())
    };
    let both_wrote = apart(a, b) && apart(b, a);
    match *plan {
        Plan::Refuse(_) => Some("two copies of one volume are refused"),
        Plan::Create { .. } if a.configuration.epoch + b.configuration.epoch > 0 => {
            Some("a volume that was written is created anew")
        }
        Plan::Create { .. } if register.is_some() => Some("the register remembers the volume"),
        Plan::Create { agreed } if agreed != (a.create && b.create) => {
            Some("a volume is created without both being told so")
        }
        Plan::Create { .. } | Plan::SplitBrain => None,
        Plan::Unavailable { .. } => [(a, b), (b, a)]
            .into_iter()
            .filter(|(it, other)| !is_older(it, other))
            .any(|(it, _)| fit(it) && Some(it.configuration) == register && only_line(it, a, b))
            .then_some("a copy under the register's own configuration is passed over"),
        Plan::Resume => {
            let same = a.configuration.lineage() == b.configuration.lineage();
            let together = a.with == Some(b.incarnation) && b.with == Some(a.incarnation);
            (!same || !together || !fit(a) || !fit(b) || is_older(a, b) || is_older(b, a))
                .then_some("two copies resume that may differ")
        }
        Plan::Source { node, copy } => {
            let (from, to) = if node == A { (a, b) } else { (b, a) };
            source_wrong(from, to, copy, split).or_else(|| {
                (both_wrote && !from.keep && !resolved(from, to))
                    .then_some("two lines that were both written are paired")
            })
        }
    }
}

/// The other one has met a newer state of this copy.
fn is_older(it: &Record, other: &Record) -> bool {
    let lives = |met: &Met| {
        let prepared = it.prepared.map(|it| it.lineage());
        it.configuration.lineage() == met.lineage || prepared == Some(met.lineage)
    };
    other.met.as_ref().is_some_and(lives)
}

fn fit(it: &Record) -> bool {
    !it.inconsistent && !it.disk_failed && !it.split_brain
}

/// The other record names no other line.
fn only_line(it: &Record, a: &Record, b: &Record) -> bool {
    let other = if it.node == a.node { b } else { a };
    it.configuration.members.contains(it.node)
        && !other.split_brain
        && (other.configuration.epoch == 0 || knows(it, other.configuration.lineage()))
        && !(it.wrote || other.wrote)
}

/// A split that was resolved: the source's line has taken in the other's.
fn resolved(from: &Record, to: &Record) -> bool {
    knows(from, to.configuration.lineage())
}

fn source_wrong(from: &Record, to: &Record, copy: Copy, split: bool) -> Option<&'static str> {
    if from.disk_failed {
        return Some("a failed disk is the source");
    }
    if is_older(from, to) && !split {
        return Some("an older clone is the source");
    }
    if is_older(to, from) && copy == Copy::Marked {
        return Some("of an older clone only what is marked is compared");
    }
    if from.blank {
        return Some("a blank copy is the source");
    }
    if from.split_brain && !from.keep {
        return Some("a copy of a split brain that nobody kept is the source");
    }
    if from.inconsistent && (from.prepared.is_none() || from.keep) {
        return Some("an inconsistent copy without an open record is the source");
    }
    if (copy == Copy::Never) != to.disk_failed {
        return Some("a failed disk is the target, or a sound one is not");
    }
    if to.blank && copy == Copy::Marked {
        return Some("a blank target is given only what is marked");
    }
    let ahead = knows(to, from.configuration.lineage())
        && to.configuration.lineage() != from.configuration.lineage()
        && !knows(from, to.configuration.lineage());
    if ahead && from.prepared.is_none() && !split {
        return Some("a copy that is behind is the source");
    }
    None
}
