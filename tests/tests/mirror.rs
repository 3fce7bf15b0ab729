//! Two nodes, one disk: every write is on both before it is acknowledged, whichever node dies.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_api::quantity::Size;
use lockstep_api::volume::{Cache, CreateVolume};
use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::ledger::Ledger;
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::load::{Load, LoadSettings};
use lockstep_tests::node::Node;
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::{LUN, VOLUME, content};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn what_is_written_through_one_node_is_read_through_the_other() {
    let pair = Pair::with_volume("mirror");
    let mut one = pair.login(0).unwrap();
    let mut two = pair.login(1).unwrap();
    for (round, (writer, reader)) in (1..=20).zip([(0, 1), (1, 0)].into_iter().cycle()) {
        let clients = [&mut one, &mut two];
        let data = vec![round; 4096];
        let [first, second] = clients;
        let (writer, reader) = if writer < reader {
            (first, second)
        } else {
            (second, first)
        };
        let written = writer
            .run_past_attentions(&Command::write(LUN, 64, 8, data.clone().into()))
            .unwrap();
        assert_eq!(written.status, 0, "round {round}");
        let read = reader
            .run_past_attentions(&Command::read(LUN, 64, 8, 4096))
            .unwrap();
        assert_eq!(read.data, data, "round {round}");
    }
    // SCSI identity: the same bytes on both nodes (page 83h differs only in its port designators).
    for page in [0x80, 0xb0, 0xb1, 0xb2] {
        let pages = [&mut one, &mut two]
            .map(|client| client.run(Command::vital_page(LUN, page)).unwrap().data);
        assert_eq!(pages[0], pages[1], "page {page:x}");
    }
    let names =
        [&mut one, &mut two].map(|client| client.run(Command::vital_page(LUN, 0x83)).unwrap().data);
    assert_eq!(
        names[0][4..24],
        names[1][4..24],
        "the NAA designator comes first"
    );
    assert_eq!(
        names[0][4..8],
        [0x01, 0x03, 0x00, 0x10],
        "binary, NAA, 16 bytes, of the logical unit"
    );
}

#[test]
fn a_verified_load_through_both_nodes_leaves_equal_images() {
    for cache in [Cache::WriteThrough, Cache::WriteBack, Cache::None] {
        let volume = CreateVolume {
            size: Size(SIZE),
            cache,
            ..CreateVolume::default()
        };
        let pair = Pair::with("load", &volume);
        let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
        std::thread::sleep(Duration::from_secs(2));
        let mut report = load.finish().unwrap();
        content::assert_clean(&report);
        content::assert_both_hold(&pair, &mut report.ledger);
    }
}

#[test]
fn a_volume_with_4096_byte_blocks_is_mirrored() {
    let volume = CreateVolume {
        size: Size(SIZE),
        block_size: Some(4096),
        ..CreateVolume::default()
    };
    let pair = Pair::with("blocks", &volume);
    let settings = LoadSettings {
        block_size: 4096,
        blocks: SIZE / 4096,
        ..content::load(SIZE)
    };
    let load = Load::start(Options::default(), pair.paths(), settings, None);
    std::thread::sleep(Duration::from_secs(2));
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

#[test]
fn killing_each_node_once_loses_nothing() {
    kill_cycles("kills", 2);
}

#[test]
#[ignore = "long: four minutes"]
fn long_twenty_kills_on_alternating_nodes_lose_nothing() {
    kill_cycles("cycles", 20);
}

/// Under load, kills one node, sees I/O go on, starts it again, waits until both hold
/// everything; alternating. Prints the longest silences that the initiator saw.
fn kill_cycles(name: &str, cycles: usize) {
    // The load leaves half of it alone: a resync that looks at that half looks at too much.
    let size = 4 * SIZE;
    let volume = CreateVolume {
        size: Size(size),
        ..CreateVolume::default()
    };
    let mut pair = Pair::with(name, &volume);
    let settings = LoadSettings {
        bytes_per_second: Some(24 << 20),
        ..content::load(2 * SIZE)
    };
    let load = Load::start(Options::default(), pair.paths(), settings, None);
    let (mut gaps, mut costs) = (Vec::new(), Vec::new());
    for cycle in 0..cycles {
        let victim = cycle % 2;
        std::thread::sleep(Duration::from_millis(1500));
        load.take_longest_gap();
        pair.nodes[victim].kill();
        let before = load.counters().writes.load(Ordering::Relaxed);
        let goes_on = |_: &Node| load.counters().writes.load(Ordering::Relaxed) >= before + 100;
        let what = format!("I/O to go on in cycle {cycle}");
        pair.nodes[1 - victim].wait_for(&what, Duration::from_secs(20), goes_on);
        gaps.push(load.take_longest_gap());
        pair.nodes[victim].start();
        pair.wait_mirrored();
        // The survivor's daemon was started in the cycle before: it counted this resync alone.
        // What it shows is a moment old.
        std::thread::sleep(Duration::from_millis(400));
        let survivor = pair.nodes[1 - victim].volume(VOLUME).unwrap();
        assert_eq!(survivor.full_resyncs, 0, "cycle {cycle}");
        assert!(
            (1..size).contains(&survivor.resync_compared)
                && survivor.resync_copied <= survivor.resync_compared,
            "cycle {cycle}: {} bytes compared, {} copied",
            survivor.resync_compared,
            survivor.resync_copied
        );
        costs.push((survivor.resync_compared, survivor.resync_copied));
    }
    let mut report = load.finish().unwrap();
    gaps.sort();
    println!(
        "{cycles} kills: {} writes, {} reads; longest gap between acknowledgements: median {:?}, maximum {:?}; slowest write {:?}",
        report.writes,
        report.reads,
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
        report.slowest
    );
    println!("bytes compared and copied in each resync: {costs:?}");
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

#[test]
fn both_nodes_killed_at_once_come_back_with_every_acknowledged_write() {
    let mut pair = Pair::with_volume("blackout");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    std::thread::sleep(Duration::from_secs(2));
    for node in &mut pair.nodes {
        node.kill();
    }
    for node in &mut pair.nodes {
        node.start();
    }
    pair.wait_mirrored();
    std::thread::sleep(Duration::from_secs(1));
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

#[test]
fn a_planned_stop_of_one_node_interrupts_nothing_for_long() {
    let mut pair = Pair::with_volume("handover");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    std::thread::sleep(Duration::from_secs(1));
    load.take_longest_gap();
    assert!(pair.nodes[1].terminate().success());
    std::thread::sleep(Duration::from_secs(6));
    let gap = load.take_longest_gap();
    assert!(gap < Duration::from_secs(10), "{gap:?}");
    pair.nodes[1].start();
    pair.wait_mirrored();
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

/// A stop of a node that only follows came to no end while the other one was written to: its ten
/// seconds ran out, and the copy was left as after a crash.
#[test]
fn a_replica_under_load_is_stopped_in_order() {
    let mut pair = Pair::with_volume("replica");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    std::thread::sleep(Duration::from_secs(1));
    // Whoever comes back is the replica of the one that stayed.
    for stops in 1..=2 {
        assert!(pair.nodes[1].terminate().success());
        let log = pair.nodes[1].log();
        let ends: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("nothing is left to do"))
            .collect();
        assert_eq!(ends.len(), stops, "{ends:?}");
        assert!(
            ends.iter().all(|line| line.contains("clean=true")),
            "{ends:?}"
        );
        pair.nodes[1].start();
        pair.wait_mirrored();
    }
    for node in &pair.nodes {
        assert!(!node.log().contains("everything is compared"));
    }
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

#[test]
fn after_an_orderly_stop_of_both_nothing_is_copied() {
    let mut pair = Pair::with_volume("orderly");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    std::thread::sleep(Duration::from_secs(1));
    let mut ledger: Ledger = load.finish().unwrap().ledger;
    for node in [1, 0] {
        assert!(pair.nodes[node].terminate().success());
    }
    for node in &mut pair.nodes {
        node.start();
    }
    pair.wait_mirrored();
    assert_eq!(pair.nodes[0].volume(VOLUME).unwrap().dirty, 0);
    content::assert_both_hold(&pair, &mut ledger);
}
