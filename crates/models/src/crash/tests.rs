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

#[test]
fn the_story_comes_to_its_end_in_many_orders() {
    let report = enumerate(&Crash {
        crashes: 0,
        detours: 1,
        time: Duration::from_secs(10),
        ..Crash::default()
    });
    assert!(report.broken.is_none(), "{report}");
    assert!(report.runs > 50, "{report}");
}

#[test]
fn nothing_is_lost_or_unmarked_wherever_the_power_goes() {
    // The whole enumeration is the part `models` of `cargo xtask test`.
    let report = enumerate(&Crash {
        time: Duration::from_secs(15),
        ..Crash::default()
    });
    assert!(report.broken.is_none(), "{report}");
    assert!(report.crashes > 100, "{report}");
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
