//! Clocks since boot that are not where they were: in another run, in another machine, after a
//! pause. As root, for time namespaces. (The clock of a process that runs cannot be moved, and the
//! machine's own must not be; jumps are thrown by the stories and the simulator.)
use lockstep_api::quantity::Size;
use lockstep_api::volume::CreateVolume;
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::load::Load;
use lockstep_tests::VOLUME;
use lockstep_tests::content;
use lockstep_tests::node::START_LIMIT;
use lockstep_tests::pair::{Pair, SIZE};
use rustix::process::Signal;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn runs_whose_clocks_are_years_apart_lose_nothing_and_compare_little() {
    assert!(
        rustix::process::geteuid().is_root(),
        "as root: time namespaces"
    );
    let mut pair = Pair::prepare("yearsapart");
    pair.nodes[1].ahead = Some(DAY * 4000);
    let mut pair = pair.started();
    pair.create(&CreateVolume {
        size: Size(SIZE),
        ..CreateVolume::default()
    });
    let mut ledger = None;
    // Each run of either node begins on another clock: ahead of the run before, and behind it.
    for (node, ahead) in [
        (0, Some(DAY * 9000)),
        (1, None),
        (0, Some(DAY)),
        (1, Some(DAY * 10_000)),
        (0, None),
    ] {
        let load = Load::start(
            Options::default(),
            pair.paths(),
            content::load(SIZE),
            ledger.take(),
        );
        std::thread::sleep(Duration::from_millis(700));
        pair.nodes[node].kill();
        std::thread::sleep(Duration::from_millis(700));
        pair.nodes[node].ahead = ahead;
        pair.nodes[node].start();
        pair.wait_mirrored();
        let report = load.finish().unwrap();
        content::assert_clean(&report);
        let mut written = report.ledger;
        content::assert_both_hold(&pair, &mut written);
        ledger = Some(written);
    }
    for node in &pair.nodes {
        let volume = node.volume(VOLUME).unwrap();
        assert_eq!(volume.full_resyncs, 0, "node {}", node.number);
    }
}

#[test]
fn a_node_that_was_paused_says_so_and_serves_again() {
    let mut pair = Pair::with_volume("paused");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    std::thread::sleep(Duration::from_millis(500));
    for node in [1, 0] {
        pair.nodes[node].signal(Signal::STOP);
        std::thread::sleep(Duration::from_secs(6));
        pair.nodes[node].signal(Signal::CONT);
        pair.nodes[node].wait_for("a word about the pause", START_LIMIT, |node| {
            node.client().status().is_ok_and(|status| {
                let mut said = status.concerns.iter();
                said.any(|it| it.why.contains("did not run, or its clock jumped"))
            })
        });
        pair.wait_mirrored();
    }
    let report = load.finish().unwrap();
    content::assert_clean(&report);
    let mut ledger = report.ledger;
    content::assert_both_hold(&pair, &mut ledger);
}
