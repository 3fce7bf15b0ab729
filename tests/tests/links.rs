//! Two links that carry data and one that carries heartbeats: one fails, both fail, they come
//! back, and one lets no large frames pass.
#![expect(clippy::unwrap_used, reason = "a test speaks by failing")]

use lockstep_api::status::{PathStatus, Status};
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::load::Load;
use lockstep_tests::cable::{Cable, Cables};
use lockstep_tests::node::START_LIMIT;
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::{VOLUME, content};
use std::time::Duration;

/// The cables that carry data; the third one leads to the initiators and carries heartbeats.
const DATA: [usize; 2] = [0, 1];
const FRONT: usize = 2;
const PORT: u16 = 3260;
const SYNC_PORT: u16 = 7400;
/// Links and membership have settled by then, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(30);

/// Node 2 at the far end of three cables.
fn pair(cables: &Cables) -> Pair {
    let portals = cables.addresses(FRONT, PORT);
    let mut pair = Pair::at(&cables.namespace, portals);
    for number in 0..2 {
        let node = &mut pair.nodes[number];
        let list = |end: usize| {
            let ends = DATA.map(|which| cables.addresses(which, SYNC_PORT)[end].to_string());
            format!("[\"{}\"]", ends.join("\", \""))
        };
        let single = |end: usize| {
            let mut address = portals[end];
            address.set_port(PORT + 1);
            format!("[\"{address}\"]")
        };
        let mut text = node.config();
        for (key, end) in [("sync_local", number), ("sync_remote", 1 - number)] {
            let before = format!("{key} = {}", single(end));
            assert!(text.contains(&before), "{before} in {text}");
            text = text.replace(&before, &format!("{key} = {}", list(end)));
        }
        node.write_config(&text);
    }
    pair.nodes[1].namespace = Some(cables.namespace.clone());
    pair.started()
}

fn status(pair: &Pair, node: usize) -> Status {
    pair.nodes[node].client().status().unwrap()
}

fn sync_paths(pair: &Pair, node: usize) -> Vec<PathStatus> {
    let mut paths = status(pair, node).partner.paths;
    paths.retain(|path| path.kind == "sync");
    paths
}

fn wait_for_paths(pair: &mut Pair, what: &str, holds: impl Fn(&[PathStatus]) -> bool) {
    for node in &mut pair.nodes {
        node.wait_for(what, LIMIT, |node| {
            node.client().status().is_ok_and(|it| {
                let mut paths = it.partner.paths;
                paths.retain(|path| path.kind == "sync");
                holds(&paths)
            })
        });
    }
}

fn both_up(paths: &[PathStatus]) -> bool {
    paths.iter().all(|path| path.up && path.channels == 2)
}

#[test]
#[ignore = "cable_: needs root"]
fn cable_after_cable_fails_and_the_pair_goes_on() {
    let mut cables = Cables::new();
    cables.add();
    // Pulled out of a switch: no end loses its carrier.
    cables.add_through_switch(1500);
    cables.add();
    let mut pair = pair(&cables);
    pair.create(&lockstep_api::volume::CreateVolume {
        size: lockstep_api::quantity::Size(SIZE),
        ..Default::default()
    });
    wait_for_paths(&mut pair, "two connections over each link", both_up);
    let epoch = pair.nodes[0].volume(VOLUME).unwrap().epoch;
    let before = sync_paths(&pair, 0);
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    std::thread::sleep(Duration::from_secs(2));
    println!(
        "the longest pause with both links: {:?}",
        load.take_longest_gap()
    );
    for (path, before) in sync_paths(&pair, 0).iter().zip(&before) {
        let bytes = path.sent_bytes - before.sent_bytes;
        println!(
            "{} MiB went over {} - {}",
            bytes >> 20,
            path.local,
            path.remote
        );
        assert!(bytes > 1 << 20, "data are spread over both links");
        assert!(path.round_trip_us.is_some() && path.changed_s.is_some());
    }
    for cut in DATA {
        load.take_longest_gap();
        cables.pull(cut);
        wait_for_paths(&mut pair, "a link that is down", |paths| !paths[cut].up);
        std::thread::sleep(Duration::from_secs(3));
        println!(
            "link {cut} pulled: the longest pause was {:?}",
            load.take_longest_gap()
        );
        cables.plug(cut);
        wait_for_paths(&mut pair, "both links", both_up);
        println!("and plugged in: {:?}", load.take_longest_gap());
    }
    for node in 0..2 {
        let volume = pair.nodes[node].volume(VOLUME).unwrap();
        assert_eq!(volume.epoch, epoch, "nobody was put out");
        assert_eq!(volume.members.len(), 2);
        assert_eq!((volume.resync_compared, volume.resync_copied), (0, 0));
    }
    let given_up: u64 = sync_paths(&pair, 0).iter().map(|path| path.given_up).sum();
    assert!(given_up >= 2, "{given_up}");
    // No data channel is left, but heartbeats come over the initiators' network.
    load.take_longest_gap();
    for cut in DATA {
        cables.pull(cut);
    }
    pair.nodes[0].wait_for("serving alone", LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.state == "serving-alone")
    });
    pair.nodes[1].wait_for("stepping down", LIMIT, |node| {
        node.volume(VOLUME).is_ok_and(|it| it.state != "serving")
    });
    assert!(status(&pair, 0).partner.up, "heartbeats come");
    let acknowledged = load
        .counters()
        .writes
        .load(std::sync::atomic::Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(3));
    println!(
        "both links pulled: the longest pause was {:?}",
        load.take_longest_gap()
    );
    let now = load
        .counters()
        .writes
        .load(std::sync::atomic::Ordering::Relaxed);
    assert!(now > acknowledged, "node1 serves alone");
    for cut in DATA {
        cables.plug(cut);
    }
    pair.wait_mirrored();
    wait_for_paths(&mut pair, "both links", both_up);
    println!("and plugged in: {:?}", load.take_longest_gap());
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
    let volume = pair.nodes[0].volume(VOLUME).unwrap();
    assert_eq!(volume.full_resyncs, 0);
    println!(
        "{} writes acknowledged, {} commands sent again, {} KiB copied",
        report.writes,
        report.sent_again,
        volume.resync_copied >> 10
    );
}

#[test]
#[ignore = "cable_: needs root"]
fn cable_with_too_small_frames_is_named_at_both_ends() {
    let mut cables = Cables::new();
    cables.add();
    cables.add_through_switch(1500);
    cables.add();
    cables.set_mtu(0, 9000, 1500);
    cables.set_mtu(1, 9000, 9000);
    let mut pair = pair(&cables);
    wait_for_paths(&mut pair, "what frames do", |paths| {
        paths.iter().all(|path| path.mtu.is_some())
    });
    for (node, smaller) in [
        (0, "the partner's is the smaller one"),
        (1, "this one is the smaller one"),
    ] {
        let paths = sync_paths(&pair, node);
        let found: Vec<_> = paths.iter().map(|path| path.mtu.clone().unwrap()).collect();
        let ends = if node == 0 {
            (9000, 1500)
        } else {
            (1500, 9000)
        };
        assert_eq!((found[0].here, found[0].there), ends);
        assert!(found[0].warning.contains(smaller), "{}", found[0].warning);
        assert_eq!(
            (found[1].here, found[1].there, found[1].passes),
            (9000, 9000, false)
        );
        assert!(
            found[1].warning.contains("something between them"),
            "{}",
            found[1].warning
        );
        let concerns = status(&pair, node).concerns;
        for path in &paths {
            let named = concerns.iter().any(|it| {
                it.what.contains(&path.local)
                    && it.what.contains(&path.remote)
                    && it.todo.contains("MTU")
            });
            assert!(named, "{} in {concerns:#?}", path.local);
        }
    }
    // Mended and made anew, they are right.
    cables.set_mtu(0, 9000, 9000);
    cables.pull(0);
    wait_for_paths(&mut pair, "a link that is down", |paths| !paths[0].up);
    cables.plug(0);
    wait_for_paths(&mut pair, "a link without complaint", |paths| {
        paths[0].up
            && paths[0]
                .mtu
                .as_ref()
                .is_some_and(|it| it.passes && it.warning.is_empty())
    });
}

/// How long a write waits when the only cable is pulled for less than a silence.
#[test]
#[ignore = "cable_: needs root"]
fn cable_that_comes_back_soon_makes_no_write_wait_long() {
    let cable = Cable::through_switch();
    let mut pair = Pair::over(&cable, 1);
    let epoch = pair.nodes[0].volume(VOLUME).unwrap().epoch;
    let mut ledger = None;
    for cut in [1000, 1250, 1500] {
        let load = Load::start(
            Options::default(),
            pair.paths(),
            content::load(SIZE),
            ledger.take(),
        );
        std::thread::sleep(Duration::from_secs(1));
        load.take_longest_gap();
        cable.pull();
        std::thread::sleep(Duration::from_millis(cut));
        cable.plug();
        std::thread::sleep(Duration::from_secs(5));
        let gap = load.take_longest_gap();
        let mut report = load.finish().unwrap();
        println!(
            "pulled for {cut} ms: no write for {gap:?}, the slowest took {:?}",
            report.slowest
        );
        content::assert_clean(&report);
        content::assert_both_hold(&pair, &mut report.ledger);
        ledger = Some(report.ledger);
    }
    for node in &mut pair.nodes {
        node.wait_for("its partner", START_LIMIT, |node| {
            node.client().status().is_ok_and(|it| it.partner.up)
        });
        let volume = node.volume(VOLUME).unwrap();
        assert_eq!(volume.epoch, epoch, "nobody was put out");
    }
}
