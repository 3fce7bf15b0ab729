//! What is searched at which scope.

use crate::crash::{self, Crash};
use crate::decide::{self, Space};
use crate::pair::{HASTY, Kinds, Pair};
use crate::register::Register;
use crate::search::{Bounds, Model, search};
use std::fmt;
use std::time::Duration;

/// How much is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// For every change: less than two minutes, less than 1 GB.
    Usual,
    /// For the long run: less than ten minutes, less than 6 GB.
    Long,
}

/// One search: its name, and what came of it as text; `Err` if a promise was broken.
pub type Search = (&'static str, fn() -> Result<String, String>);

/// Longer than any one of these takes on a slow machine: one that is cut short has not shown what
/// it says.
const TIME: Duration = Duration::from_secs(1200);

const MINUTE: Duration = Duration::from_secs(60);

fn told(report: &impl fmt::Display, well: bool) -> Result<String, String> {
    let text = report.to_string();
    if well { Ok(text) } else { Err(text) }
}

fn register(model: &Register) -> Result<String, String> {
    let report = search(model, bounds());
    told(&report, report.complete)
}

fn pair(model: &Pair) -> Result<String, String> {
    let report = search(model, bounds());
    told(&report, report.complete)
}

fn crash(scope: &Crash) -> Result<String, String> {
    let report = crash::enumerate(scope);
    told(&report, report.complete)
}

/// As far as a minute goes, the shortest ways first: a scope that no patience exhausts.
fn for_a_minute<M: Model>(model: &M) -> Result<String, String> {
    let report = search(
        model,
        Bounds {
            time: MINUTE,
            ..Bounds::default()
        },
    );
    told(&report, report.broken.is_none())
}

fn decide(space: Space) -> Result<String, String> {
    let report = decide::enumerate_real(space);
    told(&report, report.broken.is_none())
}

fn bounds() -> Bounds {
    Bounds {
        time: TIME,
        ..Bounds::default()
    }
}

/// The searches of a scope.
#[must_use]
pub fn searches(scope: Scope) -> Vec<Search> {
    let mut all = USUAL.to_vec();
    if scope == Scope::Long {
        all.extend(LONG);
    }
    all
}

const USUAL: [Search; 9] = [
    ("register, 3 acceptors, 2 + 1 rounds, 1 crash", || {
        register(&Register::default())
    }),
    ("register, 3 acceptors, 2 crashes, 1 lost file", || {
        register(&Register {
            rounds: [1, 1],
            crashes: 2,
            losses: 1,
            ..Register::default()
        })
    }),
    ("register, 2 acceptors, 2 + 2 rounds, 1 crash", || {
        register(&Register {
            acceptors: 2,
            rounds: [2, 2],
            ..Register::default()
        })
    }),
    ("decide, at most two flags of a record", || {
        decide(Space {
            flags: 2,
            preferences: true,
        })
    }),
    ("two nodes and a witness, 1 fault", || {
        pair(&Pair {
            ticks: 16,
            ..Pair::default()
        })
    }),
    ("the same, a silence hardly longer than a lease", || {
        pair(&Pair {
            ticks: 12,
            calm: 0,
            timing: HASTY,
            ..Pair::default()
        })
    }),
    ("two nodes, heartbeat strategy, 1 fault", || {
        pair(&Pair {
            witness: false,
            ticks: 16,
            kinds: Kinds::HEARTBEAT,
            ..Pair::default()
        })
    }),
    ("two data paths, power lost once", || {
        crash(&Crash::default())
    }),
    ("two data paths, out of order once", || {
        crash(&Crash {
            crashes: 0,
            detours: 1,
            ..Crash::default()
        })
    }),
];

const LONG: [Search; 7] = [
    ("register, a slow file at node 1, for a minute", || {
        for_a_minute(&Register {
            rounds: [1, 1],
            slow_files: [true, false, false],
            ..Register::default()
        })
    }),
    ("register, 2 acceptors, 1 crash, 1 lost file", || {
        register(&Register {
            acceptors: 2,
            rounds: [2, 2],
            losses: 1,
            ..Register::default()
        })
    }),
    ("decide, every flag", || {
        decide(Space {
            flags: 8,
            preferences: false,
        })
    }),
    (
        "two nodes and a witness, 1 fault, 2 writes, 40 ticks",
        || {
            pair(&Pair {
                ticks: 40,
                writes: 2,
                ..Pair::default()
            })
        },
    ),
    (
        "two nodes and a witness, 2 faults of the network, for a minute",
        || {
            for_a_minute(&Pair {
                faults: 2,
                ticks: 8,
                calm: 0,
                timing: HASTY,
                kinds: Kinds {
                    parting: true,
                    witness: true,
                    ..Kinds::NONE
                },
                ..Pair::default()
            })
        },
    ),
    (
        "two nodes, heartbeat strategy, pauses and crashes, for a minute",
        || {
            for_a_minute(&Pair {
                witness: false,
                faults: 2,
                ticks: 10,
                calm: 0,
                kinds: Kinds {
                    crashes: true,
                    pauses: true,
                    ..Kinds::NONE
                },
                ..Pair::default()
            })
        },
    ),
    (
        "two data paths, power lost once, out of order once, for a minute",
        || {
            let report = crash::enumerate(&Crash {
                detours: 1,
                time: MINUTE,
                ..Crash::default()
            });
            told(&report, report.broken.is_none())
        },
    ),
];
