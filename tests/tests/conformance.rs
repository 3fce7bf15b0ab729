//! libiscsi's conformance suite (Debian's `iscsi-test-cu` 1.19) through each node. A test that
//! need not pass stands in `expectations.tsv` with its reason; that list can only shrink.
#![expect(
    clippy::print_stdout,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_tests::pair::Pair;
use lockstep_tests::suite::{self, Verdict};
use std::collections::BTreeMap;

const EXCUSES: &str = include_str!("../expectations.tsv");
/// Fewer passed tests than this are a step back, whatever the list says.
const PASSED_AT_LEAST: usize = 110;

fn whole_suite(name: &str, node: usize) {
    let mut pair = Pair::with_volume(name);
    let url = pair.url(node);
    let tests = suite::list();
    assert!(
        tests.len() >= 230,
        "the suite has only {} tests",
        tests.len()
    );
    let mut results = BTreeMap::new();
    for test in tests {
        let result = suite::run(&test, &url);
        assert!(
            pair.nodes[node].runs(),
            "{test} killed the daemon:\n{}",
            pair.nodes[node].log()
        );
        results.insert(test, result);
    }
    let count = |verdict| {
        results
            .values()
            .filter(|(found, _)| *found == verdict)
            .count()
    };
    let passed = count(Verdict::Pass);
    println!(
        "passed {passed} failed {} skipped {}",
        count(Verdict::Fail) + count(Verdict::Broken),
        count(Verdict::Skip)
    );
    let complaints = suite::complaints(&results, &suite::excuses(EXCUSES));
    assert!(
        complaints.is_empty(),
        "{} complaints:\n{}\n{}",
        complaints.len(),
        complaints.join("\n"),
        pair.nodes[node].log()
    );
    assert!(passed >= PASSED_AT_LEAST, "only {passed} passed");
}

#[test]
fn the_suite_passes_through_node_1() {
    whole_suite("suite1", 0);
}

#[test]
fn the_suite_passes_through_node_2() {
    whole_suite("suite2", 1);
}
