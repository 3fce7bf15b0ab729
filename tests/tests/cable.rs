//! The only cable to one node is pulled under load, and plugged in again at about the moment at
//! which the nodes decide who goes on: no split brain, nothing lost.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::load::Load;
use lockstep_tests::cable::Cable;
use lockstep_tests::content;
use lockstep_tests::pair::{Pair, SIZE};
use std::time::Duration;

/// Pulls the cable of one node (0 or 1) for each of these times (milliseconds).
fn pull(far: usize, times: &[u64]) {
    let cable = Cable::new();
    let mut pair = Pair::over(&cable, far);
    let mut ledger = None;
    for cut in times {
        let load = Load::start(
            Options::default(),
            pair.paths(),
            content::load(SIZE),
            ledger.take(),
        );
        std::thread::sleep(Duration::from_secs(1));
        cable.pull();
        std::thread::sleep(Duration::from_millis(*cut));
        cable.plug();
        // The unilateral step of whoever would take it wrongly comes within this time.
        std::thread::sleep(Duration::from_secs(5));
        pair.wait_mirrored();
        for node in &pair.nodes {
            assert!(
                !node.log().contains("split brain"),
                "node{} was cut off for {cut} ms\n{}",
                far + 1,
                node.log()
            );
        }
        let mut report = load.finish().unwrap();
        content::assert_clean(&report);
        content::assert_both_hold(&pair, &mut report.ledger);
        println!(
            "node{} was cut off for {cut} ms: the slowest write took {:?}",
            far + 1,
            report.slowest
        );
        ledger = Some(report.ledger);
    }
}

#[test]
#[ignore = "cable_: needs root"]
fn cable_of_the_first_node_comes_back_when_the_pair_decides() {
    pull(0, &[1900]);
}

#[test]
#[ignore = "cable_: needs root"]
fn cable_of_the_second_node_comes_back_when_the_pair_decides() {
    pull(1, &[1900]);
}

#[test]
#[ignore = "long: five minutes, and needs root"]
fn long_cables_that_come_back_at_any_moment_split_nobody() {
    for far in [0, 1] {
        pull(
            far,
            &[
                1000, 1600, 1800, 1950, 2000, 2050, 2200, 2400, 2500, 2600, 4000,
            ],
        );
    }
}
