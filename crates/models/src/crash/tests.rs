//! The story with a crash at its steps, and rules left out.

use super::*;

fn broken(rules: Rules) -> String {
    let report = enumerate(&Crash {
        rules,
        ..Crash::default()
    });
    report
        .broken
        .unwrap_or_else(|| panic!("not found: {rules:?}"))
        .0
}

// Each step is the part `models` of `cargo xtask test`; here a few, at which both may happen.

#[test]
fn the_story_comes_to_its_end_in_many_orders() {
    let report = enumerate(&Crash {
        crashes: 0,
        detours: 1,
        every: 5,
        ..Crash::default()
    });
    assert!(report.broken.is_none() && report.complete, "{report}");
    assert!(report.runs > 10, "{report}");
}

#[test]
fn nothing_is_lost_or_unmarked_wherever_the_power_goes() {
    let report = enumerate(&Crash {
        every: 11,
        ..Crash::default()
    });
    assert!(report.broken.is_none() && report.complete, "{report}");
    assert!(report.crashes > 50, "{report}");
}

#[test]
fn metadata_that_were_never_flushed_are_missed() {
    let broken = broken(Rules {
        metadata_durable: false,
        ..Rules::default()
    });
    assert!(broken.contains("neither has it marked"), "{broken}");
}

#[test]
fn marks_that_a_start_drops_are_missed() {
    let broken = broken(Rules {
        marks_loaded: false,
        ..Rules::default()
    });
    assert!(broken.contains("differ at the end"), "{broken}");
}
