//! What an operator does with a pair that serves: takes a node out and puts it back, stops and
//! starts in any order, decides where nobody else can.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_api::client::ClientError;
use lockstep_api::node::{EnterMaintenance, MaintenanceState};
use lockstep_api::status::Level;
use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::load::{Load, LoadSettings};
use lockstep_tests::node::{Node, START_LIMIT};
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::{LUN, VOLUME, content};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Initiators are given seconds to leave, and the machine may be busy.
const ENTER_LIMIT: Duration = Duration::from_secs(60);

fn enter(node: &mut Node) {
    let wish = EnterMaintenance::default();
    node.client().enter_maintenance(&wish).unwrap();
    node.wait_for("maintenance", ENTER_LIMIT, is_in_maintenance);
}

fn is_in_maintenance(node: &Node) -> bool {
    let status = node.client().status();
    status.is_ok_and(|it| it.maintenance == MaintenanceState::On)
}

fn leave(pair: &mut Pair, node: usize) {
    pair.nodes[node].client().leave_maintenance("").unwrap();
    pair.wait_mirrored();
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer.unwrap_err() {
        ClientError::Refused(error) => error.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn both_nodes_are_upgraded_under_load_and_no_initiator_sees_an_error() {
    let mut pair = Pair::with_volume("rolling");
    let settings = LoadSettings {
        bytes_per_second: Some(16 << 20),
        ..content::load(SIZE)
    };
    let load = Load::start(Options::default(), pair.paths(), settings, None);
    for node in [0, 1] {
        std::thread::sleep(Duration::from_secs(1));
        enter(&mut pair.nodes[node]);
        let writes = load.counters().writes.load(Ordering::Relaxed);
        let other = &mut pair.nodes[1 - node];
        other.wait_for("I/O to go on", START_LIMIT, |node| {
            let alone = node
                .volume(VOLUME)
                .is_ok_and(|it| it.state == "serving-alone");
            alone && load.counters().writes.load(Ordering::Relaxed) > writes + 20
        });
        let reason = other.volume(VOLUME).unwrap().reason;
        assert!(reason.contains("in maintenance"), "{reason}");
        // The new version is started, and stands aside until it is told to come back.
        assert!(pair.nodes[node].terminate().success());
        pair.nodes[node].start();
        pair.nodes[node].wait_for("maintenance to be shown", START_LIMIT, |node| {
            let status = node.client().status();
            let shown = |it: &lockstep_api::status::Concern| it.todo.contains("maintenance leave");
            status.is_ok_and(|it| {
                it.maintenance == MaintenanceState::On
                    && it.level == Level::Degraded
                    && it.concerns.iter().any(shown)
            })
        });
        leave(&mut pair, node);
    }
    for node in &pair.nodes {
        let log = node.log();
        assert!(!log.contains("everything is compared"), "{log}");
        assert!(!log.contains("going on alone (epoch"), "{log}");
        assert!(log.contains("clean=true") && !log.contains("clean=false"));
    }
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

#[test]
fn a_planned_hand_over_is_hardly_noticed_on_the_other_path() {
    hand_overs("pause", 2);
}

#[test]
#[ignore = "long: five minutes"]
fn long_twenty_planned_hand_overs() {
    hand_overs("pauses", 20);
}

/// Offers the surviving path one write at a time, hands over, and prints the longest gap between
/// two acknowledgements. The node that leaves is the owner every other time.
fn hand_overs(name: &str, cycles: usize) {
    let mut pair = Pair::with_volume(name);
    let mut gaps = Vec::new();
    let mut ledger = None;
    for cycle in 0..cycles {
        let leaving = cycle % 2;
        let survivor = pair.paths().remove(1 - leaving);
        let settings = LoadSettings {
            depth: 1,
            longest: 8,
            reads_percent: 0,
            zeroes_percent: 0,
            seed: cycle as u64,
            ..content::load(SIZE)
        };
        let load = Load::start(Options::default(), vec![survivor], settings, ledger.take());
        std::thread::sleep(Duration::from_secs(1));
        load.take_longest_gap();
        enter(&mut pair.nodes[leaving]);
        gaps.push(load.take_longest_gap());
        let report = load.finish().unwrap();
        content::assert_clean(&report);
        ledger = Some(report.ledger);
        leave(&mut pair, leaving);
    }
    for node in &pair.nodes {
        assert!(
            !node.log().contains("is silent on every channel"),
            "no node waited for silence"
        );
    }
    gaps.sort();
    println!(
        "{cycles} planned hand-overs: longest gap between acknowledgements on the surviving path: median {:?}, worst {:?}",
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1]
    );
    content::assert_both_hold(&pair, &mut ledger.unwrap());
}

#[test]
fn maintenance_that_would_take_a_volume_away_is_refused_with_its_name() {
    let mut pair = Pair::with_volume("needed");
    let named = EnterMaintenance {
        node: "2".into(),
        ..EnterMaintenance::default()
    };
    let client = pair.nodes[0].client();
    let why = refused(client.enter_maintenance(&named));
    assert!(
        why.contains("on node 2: lockstep node maintenance enter"),
        "{why}"
    );
    let why = refused(client.leave_maintenance("node2"));
    assert!(
        why.contains("on node 2: lockstep node maintenance leave"),
        "{why}"
    );
    let why = refused(client.leave_maintenance("nobody"));
    assert!(why.contains("no node has this number or name"), "{why}");
    pair.nodes[1].kill();
    pair.nodes[0].wait_for("the partner's absence", START_LIMIT, |node| {
        node.client().status().is_ok_and(|it| !it.partner.up)
    });
    let why = refused(client.enter_maintenance(&EnterMaintenance::default()));
    assert!(
        why.contains(VOLUME) && why.contains("node 2 is not heard"),
        "{why}"
    );
    assert!(why.contains("--confirm node1"), "{why}");
    let meant = EnterMaintenance {
        confirm: "node1".into(),
        ..EnterMaintenance::default()
    };
    client.enter_maintenance(&meant).unwrap();
    pair.nodes[0].wait_for("maintenance", ENTER_LIMIT, is_in_maintenance);
    pair.nodes[1].start();
    leave(&mut pair, 0);
}

#[test]
fn stopped_and_started_in_any_order_they_serve_again_with_nothing_compared() {
    let mut pair = Pair::with_volume("orders");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    std::thread::sleep(Duration::from_secs(1));
    let mut ledger = load.finish().unwrap().ledger;
    // What the load has just written is compared once, for its regions are still in use.
    assert!(pair.nodes[1].terminate().success());
    pair.nodes[1].start();
    pair.wait_mirrored();
    for stops in [[0, 1], [1, 0]] {
        for starts in [[0, 1], [1, 0]] {
            for node in stops {
                assert!(pair.nodes[node].terminate().success());
            }
            let [first, second] = starts;
            pair.nodes[first].start();
            // The one that stopped last went on alone, and serves by itself.
            let waits = first == stops[0];
            let other = format!("node {}", second + 1);
            pair.nodes[first].wait_for("what it says of the other one", START_LIMIT, |node| {
                node.volume(VOLUME).is_ok_and(|it| match waits {
                    true => it.state == "unavailable" && it.reason.contains(&other),
                    false => it.state == "serving-alone" && it.reason.contains(&other),
                })
            });
            if waits {
                let status = pair.nodes[first].client().status().unwrap();
                let concern = status.concerns.iter().find(|it| it.what.contains(VOLUME));
                let concern = concern.unwrap();
                assert!(
                    concern.why.contains(&format!("waits for {other}")),
                    "{concern:?}"
                );
            }
            pair.nodes[second].start();
            pair.wait_mirrored();
            for node in &pair.nodes {
                let volume = node.volume(VOLUME).unwrap();
                assert_eq!(
                    (volume.dirty, volume.resync_compared),
                    (0, 0),
                    "{stops:?} {starts:?}"
                );
            }
        }
        // One alone, and back.
        for node in [0, 1] {
            assert!(pair.nodes[node].terminate().success());
            pair.nodes[node].start();
            pair.wait_mirrored();
        }
    }
    content::assert_both_hold(&pair, &mut ledger);
}

fn write(pair: &Pair, node: usize, fill: u8) {
    let data = vec![fill; 4096];
    let mut client = pair.login(node).unwrap();
    let command = Command::write(LUN, 64, 8, data.into());
    let written = client.run_past_attentions(&command).unwrap();
    assert_eq!(written.status, 0);
}

fn read(pair: &Pair, node: usize) -> u8 {
    let mut client = pair.login(node).unwrap();
    let command = Command::read(LUN, 64, 8, 4096);
    client.run_past_attentions(&command).unwrap().data[0]
}

/// Node 2 went on alone with newer data and is gone; node 1 waits for it.
fn outdated(name: &str) -> Pair {
    let mut pair = Pair::with_volume(name);
    write(&pair, 0, 1);
    pair.nodes[0].kill();
    let load = Load::start(
        Options::default(),
        vec![pair.paths().remove(1)],
        LoadSettings {
            // Away from the block that is looked at.
            seed: 3,
            ..content::load(SIZE)
        },
        None,
    );
    pair.nodes[1].wait_for("going on alone", START_LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.state == "serving-alone")
    });
    load.finish().unwrap();
    write(&pair, 1, 2);
    pair.nodes[1].kill();
    pair.nodes[0].start();
    pair.nodes[0].wait_for("what it waits for", START_LIMIT, |node| {
        let volume = node.volume(VOLUME);
        volume.is_ok_and(|it| it.state == "unavailable" && it.reason.contains("waits for node 2"))
    });
    pair
}

/// A scrape of the node.
fn metrics(node: &Node) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(node.metrics()).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// What was decided is in the volume, among the concerns and in the metrics.
fn assert_shown(node: &Node, what: &str, lost: &str) {
    let forced = node.volume(VOLUME).unwrap().forced.unwrap();
    let sentence = forced.sentence();
    assert!(
        sentence.contains(what) && sentence.contains(lost),
        "{sentence}"
    );
    let concerns = node.client().status().unwrap().concerns;
    assert!(concerns.iter().any(|it| it.why == sentence), "{concerns:?}");
    let gauge = format!("lockstep_volume_forced{{volume=\"{VOLUME}\"}} 1");
    assert!(metrics(node).contains(&gauge));
}

#[test]
fn a_copy_is_served_by_force_and_kept_when_the_other_one_returns() {
    force_and_keep(1);
}

#[test]
fn a_copy_is_served_by_force_and_given_up_when_the_other_one_returns() {
    force_and_keep(2);
}

/// Node 1 serves by force what is out of date; when node 2 returns, the two are never mixed, and
/// one of them is kept.
fn force_and_keep(kept: u8) {
    let mut pair = outdated("force");
    let client = pair.nodes[0].client();
    let todo = client.status().unwrap().concerns.into_iter();
    let todo: Vec<String> = todo.map(|it| it.todo).collect();
    assert!(
        todo.iter()
            .any(|it| it.contains(&format!("force-activate {VOLUME}"))),
        "{todo:?}"
    );
    // It may still be heard for some moments; then only the confirmation is missing.
    pair.nodes[0].wait_for("a word on the confirmation", START_LIMIT, |node| {
        let why = refused(node.client().force_activate(VOLUME, "", false));
        why.contains("its name was not repeated")
    });
    client.force_activate(VOLUME, VOLUME, false).unwrap();
    pair.nodes[0].wait_for("its service", START_LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.state == "serving-alone")
    });
    assert_eq!(read(&pair, 0), 1, "what the other copy alone holds is lost");
    write(&pair, 0, 3);
    assert_shown(&pair.nodes[0], "by force since", "only node 2 holds");
    // A restart does not forget it.
    pair.nodes[0].kill();
    pair.nodes[0].start();
    pair.nodes[0].wait_for("its service", START_LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.state == "serving-alone")
    });
    assert_shown(&pair.nodes[0], "by force since", "only node 2 holds");
    let why = refused(client.force_activate(VOLUME, VOLUME, false));
    assert!(why.contains("it is served here"), "{why}");
    pair.nodes[1].start();
    for node in &mut pair.nodes {
        node.wait_for("split brain", START_LIMIT, |node| {
            let volume = node.volume(VOLUME);
            volume.is_ok_and(|it| it.state == "split-brain" && it.partner_dirty.is_some())
        });
    }
    let volume = pair.nodes[0].volume(VOLUME).unwrap();
    assert!(
        volume.dirty > 0 && volume.partner_dirty > Some(0),
        "{volume:?}"
    );
    let keep = kept.to_string();
    let why = refused(client.resolve_volume(VOLUME, &keep, ""));
    assert!(why.contains(&format!("node {}", 3 - kept)), "{why}");
    assert!(refused(client.resolve_volume(VOLUME, "9", VOLUME)).contains("no node"));
    client
        .resolve_volume(VOLUME, &format!("node{kept}"), VOLUME)
        .unwrap();
    pair.wait_mirrored();
    // Only now nothing is at stake any more; each node had shown what was given up.
    let given_up = format!("what node {} wrote apart", 3 - kept);
    for node in &mut pair.nodes {
        node.wait_for("the end of what was forced", START_LIMIT, |node| {
            node.volume(VOLUME).is_ok_and(|it| it.forced.is_none())
        });
        let metrics = metrics(node);
        let gauge = format!("lockstep_volume_forced{{volume=\"{VOLUME}\"}} 0");
        assert!(metrics.contains(&gauge), "{metrics}");
        assert!(node.log().contains(&given_up), "{}", node.log());
    }
    for node in 0..2 {
        assert_eq!(read(&pair, node), if kept == 1 { 3 } else { 2 });
    }
    let log = pair.nodes[0].log() + &pair.nodes[1].log();
    assert!(
        !log.contains("everything is compared"),
        "both had marked what they wrote"
    );
    assert_eq!(
        lockstep_initiator::verify::first_difference(&pair.image(0), &pair.image(1)).unwrap(),
        None
    );
}
