//! Two memberships at a small scope, and rules left out.

use super::*;
use crate::search::{Bounds, search};

const fn small() -> Pair {
    Pair {
        witness: true,
        faults: 1,
        kinds: Kinds {
            crashes: true,
            ..Kinds::NONE
        },
        writes: 1,
        ticks: 4,
        drift: [5, -5],
        timing: DEFAULT,
        calm: 0,
        rules: ALL,
    }
}

const ALL: Rules = Rules {
    leases: true,
    not_before: true,
    intents_to_dirty: true,
    both_hold: true,
};
const PAUSES: Kinds = Kinds {
    pauses: true,
    ..Kinds::NONE
};

fn holds(model: &Pair) {
    let report = search(model, Bounds::default());
    assert!(report.broken.is_none() && report.complete, "{report}");
    assert!(report.states > 200, "{report}");
}

fn broken(model: &Pair) -> String {
    let report = search(model, Bounds::default());
    match report.broken {
        Some(broken) => broken.promise,
        None => panic!("not found: {:?}: {report}", model.rules),
    }
}

#[test]
fn a_crash_at_any_moment_loses_nothing() {
    holds(&small());
    holds(&Pair {
        witness: false,
        ..small()
    });
}

#[test]
fn names_and_moments_do_not_make_another_state() {
    let report = search(
        &Pair {
            faults: 0,
            writes: 0,
            ticks: 50,
            ..small()
        },
        Bounds::default(),
    );
    assert!(report.complete && report.states < 20, "{report}");
}

#[test]
fn a_read_without_a_lease_is_found() {
    let rules = Rules {
        leases: false,
        ..ALL
    };
    let found = broken(&Pair {
        kinds: PAUSES,
        ticks: 8,
        rules,
        ..small()
    });
    assert!(found.contains("lacks write"), "{found}");
}

#[test]
fn a_promise_that_is_not_waited_out_is_found() {
    let rules = Rules {
        not_before: false,
        ..ALL
    };
    let found = broken(&Pair {
        timing: HASTY,
        kinds: Kinds {
            isolation: true,
            ..Kinds::NONE
        },
        ticks: 6,
        rules,
        ..small()
    });
    assert!(found.starts_with("both nodes serve"), "{found}");
}

#[test]
fn an_intent_that_does_not_become_dirty_is_found() {
    let rules = Rules {
        intents_to_dirty: false,
        ..ALL
    };
    let found = broken(&Pair {
        kinds: PAUSES,
        ticks: 8,
        rules,
        ..small()
    });
    assert!(found.contains("neither node has it marked"), "{found}");
}

#[test]
fn a_write_that_only_one_node_holds_is_found() {
    let rules = Rules {
        both_hold: false,
        ..ALL
    };
    let found = broken(&Pair { rules, ..small() });
    assert!(found.contains("lacks write"), "{found}");
}
