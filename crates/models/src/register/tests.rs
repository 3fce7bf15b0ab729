//! The register at a small scope, and each rule left out.

use super::*;
use crate::search::{Bounds, search};

const SMALL: Register = Register {
    acceptors: 3,
    rounds: [1, 1],
    crashes: 1,
    losses: 0,
    slow_files: [false; 3],
    rules: ALL,
};
const ALL: Rules = Rules {
    answers_after_file: true,
    own_first: true,
    silent_when_lost: true,
    leap: true,
    read_completes: true,
    quorum: true,
    old_links_close: true,
};

fn holds(model: &Register) {
    let report = search(model, Bounds::default());
    assert!(report.broken.is_none() && report.complete, "{report}");
}

fn broken(model: &Register) -> String {
    let report = search(model, Bounds::default());
    match report.broken {
        Some(broken) => broken.promise,
        None => panic!("not found: {model:?}"),
    }
}

#[test]
fn two_nodes_and_a_witness_decide_one_line() {
    holds(&SMALL);
}

#[test]
fn two_nodes_decide_one_line() {
    holds(&Register {
        acceptors: 2,
        rounds: [2, 1],
        ..SMALL
    });
}

#[test]
fn one_lost_file_makes_no_difference() {
    holds(&Register {
        crashes: 0,
        losses: 1,
        ..SMALL
    });
}

#[test]
fn an_answer_before_its_file_is_found() {
    let rules = Rules {
        answers_after_file: false,
        ..ALL
    };
    let found = broken(&Register {
        slow_files: [false, false, true],
        rules,
        ..SMALL
    });
    assert!(found.contains("no quorum"), "{found}");
}

#[test]
fn an_acceptor_that_votes_again_after_it_lost_its_file_is_found() {
    let rules = Rules {
        silent_when_lost: false,
        ..ALL
    };
    let found = broken(&Register {
        losses: 1,
        rules,
        ..SMALL
    });
    assert!(found.contains("both decided"), "{found}");
}

#[test]
fn a_quorum_of_one_is_found() {
    let rules = Rules {
        quorum: false,
        ..ALL
    };
    let found = broken(&Register { rules, ..SMALL });
    assert!(found.contains("no quorum"), "{found}");
}

#[test]
fn a_read_that_ends_with_the_promises_is_found() {
    let rules = Rules {
        read_completes: false,
        ..ALL
    };
    let found = broken(&Register {
        rounds: [2, 1],
        rules,
        ..SMALL
    });
    assert!(found.contains("no quorum"), "{found}");
}

#[test]
fn a_question_of_a_run_that_ended_is_found() {
    let rules = Rules {
        old_links_close: false,
        ..ALL
    };
    let found = broken(&Register {
        acceptors: 2,
        rounds: [2, 0],
        crashes: 0,
        losses: 1,
        rules,
        ..SMALL
    });
    assert!(found.contains("no quorum"), "{found}");
}

#[test]
#[ignore = "slow: part `long`"]
fn long_two_lost_files_are_more_than_one_fault() {
    let found = broken(&Register {
        acceptors: 2,
        rounds: [2, 2],
        crashes: 0,
        losses: 2,
        ..SMALL
    });
    assert!(found.contains("both decided"), "{found}");
}

/// Larger than a debug build searches in seconds.
#[test]
#[ignore = "slow: part `long`"]
fn long_a_ballot_that_is_used_twice_is_found() {
    for (rounds, losses, rules) in [
        (
            [2, 1],
            0,
            Rules {
                own_first: false,
                ..ALL
            },
        ),
        ([3, 0], 1, Rules { leap: false, ..ALL }),
    ] {
        let found = broken(&Register {
            rounds,
            losses,
            rules,
            ..SMALL
        });
        assert!(found.contains("no quorum"), "{found}");
    }
}
