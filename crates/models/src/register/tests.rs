//! The register at a small scope, and each rule left out.

use super::*;
use crate::search::{Bounds, search};

fn holds(model: Register) -> crate::search::Report {
    let report = search(&model, Bounds::default());
    assert!(report.broken.is_none() && report.complete, "{report}");
    report
}

fn breaks(rules: Rules, scope: Register) {
    let model = Register { rules, ..scope };
    let report = search(&model, Bounds::default());
    assert!(report.broken.is_some(), "not found: {rules:?}: {report}");
}

#[test]
fn a_witness_and_two_nodes_decide_one_line() {
    let report = holds(Register::default());
    println!("{report}");
}

#[test]
fn probe() {
    let base = Register::default();
    let all = Rules::default();
    for model in [
        Register { acceptors: 2, rounds: [2, 1], crashes: 1, losses: 1, slow_files: [false, true, false], ..base },
    ] {
        println!("{model:?}\n{}", search(&model, Bounds { states: 2_000_000, ..Bounds::default() }));
    }
}
