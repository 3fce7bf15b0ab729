//! Who is the source when two copies of a volume meet: one pure function, evaluated by both
//! nodes on the same two records and the register's value, with the same result on both
//! (`docs/replication.md`, reconnect and start).

use crate::control::{Configuration, Incarnation, NodeId, VolumeId};
use crate::superblock::{HISTORY_LEN, Lineage, Past, Superblock};
use alloc::vec::Vec;

/// What one side says of its copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which node.
    pub node: NodeId,
    /// Which run of it.
    pub incarnation: Incarnation,
    /// Which volume.
    pub volume: VolumeId,
    /// Exported size in bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Nothing was ever written to this copy, and it is not about to be created.
    pub blank: bool,
    /// Both replicas may be taken as zero: the volume is being created.
    pub create: bool,
    /// This run found no clean flag and has not been resynchronised since.
    pub crashed: bool,
    /// See [`Superblock::inconsistent`].
    pub inconsistent: bool,
    /// See [`Superblock::disk_failed`].
    pub disk_failed: bool,
    /// See [`Superblock::split_brain`].
    pub split_brain: bool,
    /// After a split brain, a person chose this copy to be kept.
    pub keep: bool,
    /// After a split brain, a person chose the other node's copy.
    pub give_up: bool,
    /// See [`Superblock::wrote`].
    pub wrote: bool,
    /// See [`Superblock::configuration`].
    pub configuration: Configuration,
    /// See [`Superblock::prepared`].
    pub prepared: Option<Configuration>,
    /// See [`Superblock::history`].
    pub history: Vec<Past>,
    /// See [`Superblock::base`].
    pub base: u64,
    /// The run of the partner with which this run has served the present configuration.
    pub with: Option<Incarnation>,
}

impl Record {
    /// The record of a copy; what the superblock does not hold is left at its default.
    #[must_use]
    pub fn of(superblock: &Superblock, incarnation: Incarnation) -> Self {
        Self {
            node: superblock.node,
            incarnation,
            volume: superblock.volume,
            size: superblock.size,
            block_size: superblock.block_size,
            blank: superblock.configuration.epoch == 0 && superblock.prepared.is_none(),
            create: false,
            crashed: false,
            inconsistent: superblock.inconsistent,
            disk_failed: superblock.disk_failed,
            split_brain: superblock.split_brain,
            keep: false,
            give_up: false,
            wrote: superblock.wrote,
            configuration: superblock.configuration,
            prepared: superblock.prepared,
            history: superblock.history.clone(),
            base: superblock.base,
            with: None,
        }
    }

    fn remembers(&self, lineage: Lineage) -> bool {
        self.configuration.lineage() == lineage
            || self.history.iter().any(|past| past.lineage == lineage)
    }

    /// Whether this copy's line includes the other's configuration. One so old that it fell out
    /// of a full history counts: it means "compare everything", never "refuse".
    fn succeeds(&self, other: &Self) -> bool {
        let theirs = other.configuration.lineage();
        self.remembers(theirs)
            || self.history.len() >= HISTORY_LEN && self.history[0].lineage.epoch > theirs.epoch
    }

    /// Whether this copy holds every write acknowledged under `truth`.
    fn eligible(&self, truth: &Configuration) -> bool {
        let adopted = self.configuration.lineage() == truth.lineage() && !self.inconsistent;
        let prepared = self
            .prepared
            .is_some_and(|it| it.lineage() == truth.lineage());
        let sound = !self.disk_failed && !self.split_brain;
        truth.members.contains(self.node) && sound && (adopted || prepared)
    }
}

/// How a target is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// What either side's dirty bits and intents name.
    Marked,
    /// Compare everything: the target is blank, or the source does not know where it stands.
    Everything,
    /// Not at all: its disk has failed.
    Never,
}

/// In what the two sides differ although they must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Different volumes.
    Volume,
    /// Different sizes.
    Size,
    /// Different block sizes.
    BlockSize,
}

/// What is to be done. It names nodes, so both sides must come to the very same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Row 0.
    Refuse(Mismatch),
    /// Row 1: both blank. `agreed`: the pool configuration says that it is new, so both begin.
    Create {
        /// Otherwise the operator is needed.
        agreed: bool,
    },
    /// Row 2: both went their own way; nothing is overwritten.
    SplitBrain,
    /// Row 4: nobody holds every acknowledged write. `needed`: the members of the newest known
    /// configuration, whose copy would help.
    Unavailable {
        /// That configuration.
        truth: Configuration,
    },
    /// Row 5: go on as before.
    Resume,
    /// Rows 6 and 7.
    Source {
        /// Who holds everything.
        node: NodeId,
        /// What the other one needs.
        copy: Copy,
    },
}

/// Which rows of the table in `docs/membership.md` led to a plan: a row that is never met is a hole
/// in the tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows(u16);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Different volumes or sizes.
    Refused,
    /// Both blank.
    BothBlank,
    /// Both went their own way.
    SplitBrain,
    /// They did, and a person has chosen.
    Resolved,
    /// They did, and at most one wrote.
    OneWrote,
    /// Neither holds everything.
    NobodyEligible,
    /// Both go on as before.
    NoRestart,
    /// Both hold everything, and one of them has stepped down.
    SteppedDown,
    /// Both hold everything, one of them crashed.
    OneCrashed,
    /// Both hold everything, the owner is the source.
    BothRestarted,
    /// One holds everything.
    OneEligible,
}

impl Rows {
    /// Notes one more.
    pub const fn note(&mut self, row: Row) {
        self.0 |= 1 << row as u16;
    }

    /// Notes all of these.
    pub const fn join(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether it was met.
    #[must_use]
    pub const fn has(self, row: Row) -> bool {
        self.0 & 1 << row as u16 != 0
    }
}

/// The plan for two copies. `register`: the value that a completed read of the register would
/// give, that is the one accepted with the highest ballot by either node.
#[must_use]
pub fn decide(mine: &Record, theirs: &Record, register: Option<Configuration>) -> Plan {
    decide_preferring(mine, theirs, register, None)
}

/// As [`decide`], but where both copies would do (rows 5 and 6), `prefer` is the source: the
/// other side has stepped down.
#[must_use]
pub fn decide_preferring(
    mine: &Record,
    theirs: &Record,
    register: Option<Configuration>,
    prefer: Option<NodeId>,
) -> Plan {
    explain(mine, theirs, register, prefer).0
}

/// As [`decide_preferring`], with the reasons.
#[must_use]
pub fn explain(
    mine: &Record,
    theirs: &Record,
    register: Option<Configuration>,
    prefer: Option<NodeId>,
) -> (Plan, Rows) {
    let mut rows = Rows::default();
    let plan = plan(mine, theirs, register, prefer, &mut rows);
    (plan, rows)
}

fn plan(
    mine: &Record,
    theirs: &Record,
    register: Option<Configuration>,
    prefer: Option<NodeId>,
    rows: &mut Rows,
) -> Plan {
    // The lower node number comes first: what follows cannot depend on who evaluates it.
    let (a, b) = if mine.node < theirs.node {
        (mine, theirs)
    } else {
        (theirs, mine)
    };
    let mismatch = match () {
        () if a.volume != b.volume => Some(Mismatch::Volume),
        () if a.size != b.size => Some(Mismatch::Size),
        () if a.block_size != b.block_size => Some(Mismatch::BlockSize),
        () => None,
    };
    if let Some(mismatch) = mismatch {
        rows.note(Row::Refused);
        return Plan::Refuse(mismatch);
    }
    if let Some(plan) = split(a, b) {
        rows.note(match plan {
            Plan::SplitBrain => Row::SplitBrain,
            _ => Row::Resolved,
        });
        return plan;
    }
    let truth = match (a.configuration.epoch > 0, b.configuration.epoch > 0) {
        (false, false) => match register {
            None => {
                rows.note(Row::BothBlank);
                return Plan::Create {
                    agreed: a.create && b.create,
                };
            }
            Some(value) => value,
        },
        (true, false) => truth(a, b, a, register),
        (false, true) => truth(a, b, b, register),
        (true, true) => match newest(a, b) {
            Some(newest) => {
                if !a.succeeds(b) && !b.succeeds(a) {
                    rows.note(Row::OneWrote);
                }
                truth(a, b, newest, register)
            }
            None => {
                rows.note(Row::SplitBrain);
                return Plan::SplitBrain;
            }
        },
    };
    match (a.eligible(&truth), b.eligible(&truth)) {
        (false, false) => {
            rows.note(Row::NobodyEligible);
            Plan::Unavailable { truth }
        }
        (true, false) => {
            rows.note(Row::OneEligible);
            source(a, b, &truth)
        }
        (false, true) => {
            rows.note(Row::OneEligible);
            source(b, a, &truth)
        }
        (true, true) => {
            // A copy that is inconsistent does not resume, whatever record it has open besides.
            let adopted = [a, b]
                .iter()
                .all(|it| it.configuration.lineage() == truth.lineage() && !it.inconsistent);
            let together = a.with == Some(b.incarnation) && b.with == Some(a.incarnation);
            if adopted && together && prefer.is_none() {
                rows.note(Row::NoRestart);
                return Plan::Resume;
            }
            let (from, row) = match (a.crashed, b.crashed, prefer) {
                (_, _, Some(node)) if node == b.node => (b, Row::SteppedDown),
                (_, _, Some(_)) => (a, Row::SteppedDown),
                (true, false, _) => (b, Row::OneCrashed),
                (false, true, _) => (a, Row::OneCrashed),
                _ if truth.owner == b.node => (b, Row::BothRestarted),
                _ => (a, Row::BothRestarted),
            };
            rows.note(row);
            source(from, if from.node == a.node { b } else { a }, &truth)
        }
    }
}

/// Row 2, once it is on record: nothing is paired until a person keeps one copy, whose line then
/// takes in the other's. `None`: there is no split, or it was resolved so.
fn split(a: &Record, b: &Record) -> Option<Plan> {
    // The choice may have been told to either node.
    let fit = |it: &Record, other: &Record| {
        let chosen = it.keep || other.give_up;
        chosen && !it.inconsistent && !it.disk_failed && it.configuration.epoch > 0
    };
    let resolved = match (a.split_brain, b.split_brain) {
        (false, false) => true,
        (true, false) => b.remembers(a.configuration.lineage()),
        (false, true) => a.remembers(b.configuration.lineage()),
        (true, true) => false,
    };
    if resolved {
        return None;
    }
    let (from, to) = match (fit(a, b), fit(b, a)) {
        (true, false) => (a, b),
        (false, true) => (b, a),
        _ => return Some(Plan::SplitBrain),
    };
    // Since they parted both have marked what they wrote.
    let copy = match () {
        () if to.disk_failed => Copy::Never,
        () if to.base == from.base && !to.blank => Copy::Marked,
        () => Copy::Everything,
    };
    Some(Plan::Source {
        node: from.node,
        copy,
    })
}

/// The side whose line includes the other's, or whose line is to win (row 3). `None`: row 2.
fn newest<'a>(a: &'a Record, b: &'a Record) -> Option<&'a Record> {
    match (a.succeeds(b), b.succeeds(a)) {
        (true, false) => Some(a),
        (false, true) => Some(b),
        // The same configuration, or two histories that name each other's (after a resync that
        // was cut short): the greater one is the newer.
        (true, true) if a.configuration.lineage() < b.configuration.lineage() => Some(b),
        (true, true) => Some(a),
        (false, false) => {
            let unilateral = a.configuration.unilateral && b.configuration.unilateral;
            if !unilateral || a.wrote && b.wrote {
                return None;
            }
            Some(if b.wrote { b } else { a })
        }
    }
}

/// The configuration that counts: the newest line's, or the register's if that is newer still.
fn truth(
    a: &Record,
    b: &Record,
    newest: &Record,
    register: Option<Configuration>,
) -> Configuration {
    let Some(value) = register else {
        return newest.configuration;
    };
    // A node that went alone never accepted a value without itself, so such a value was never
    // decided (one that it accepted later is known to the other side, whose line is then newer).
    let never_decided = [a, b]
        .iter()
        .any(|it| it.configuration.unilateral && !value.members.contains(it.node));
    let newer = value.epoch > newest.configuration.epoch && !newest.remembers(value.lineage());
    if newer && !never_decided {
        value
    } else {
        newest.configuration
    }
}

fn source(from: &Record, to: &Record, truth: &Configuration) -> Plan {
    let known = |lineage: Lineage| {
        let line = from.remembers(lineage)
            || lineage == truth.lineage()
            || from.prepared.is_some_and(|it| it.lineage() == lineage);
        line && lineage.epoch >= from.base
    };
    let copy = if to.disk_failed {
        Copy::Never
    } else if !to.blank
        && (known(to.configuration.lineage()) || to.prepared.is_some_and(|it| known(it.lineage())))
    {
        Copy::Marked
    } else {
        Copy::Everything
    };
    Plan::Source {
        node: from.node,
        copy,
    }
}

#[cfg(test)]
mod tests;
