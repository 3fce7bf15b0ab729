//! Copies of a volume come, go and are replaced while it is served.
#![expect(clippy::unwrap_used, reason = "a test speaks by failing")]

use lockstep_api::client::ClientError;
use lockstep_api::node::EnterMaintenance;
use lockstep_api::node::MaintenanceState;
use lockstep_api::quantity::Size;
use lockstep_api::volume::{CreateVolume, ReplicaAt, ReplicaPlace};
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::load::{Load, LoadSettings};
use lockstep_tests::node::START_LIMIT;
use lockstep_tests::pair::{Pair, RESYNC_LIMIT, SIZE};
use lockstep_tests::{VOLUME, content};
use std::time::Duration;

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer.unwrap_err() {
        ClientError::Refused(error) => error.to_string(),
        other => panic!("{other}"),
    }
}

fn slow(size: u64) -> LoadSettings {
    LoadSettings {
        bytes_per_second: Some(8 << 20),
        ..content::load(size)
    }
}

fn meant() -> ReplicaAt {
    ReplicaAt {
        image: None,
        confirm: VOLUME.into(),
    }
}

#[test]
fn a_single_copy_gets_a_second_one_and_loses_it_again_while_it_is_served() {
    let mut pair = Pair::start("replicas");
    let request = CreateVolume {
        name: VOLUME.into(),
        size: Size(SIZE),
        replicas: vec![ReplicaPlace {
            node: 1,
            image: "disk.img".into(),
        }],
        ..CreateVolume::default()
    };
    let client = pair.nodes[0].client();
    client.create_volume(&request).unwrap();
    pair.nodes[0].wait_for("its service", START_LIMIT, |node| {
        node.volume(VOLUME).is_ok_and(|it| it.state == "serving")
    });
    pair.target = pair.nodes[0].volume(VOLUME).unwrap().target;
    let path = vec![pair.paths().remove(0)];
    let load = Load::start(Options::default(), path, slow(SIZE), None);
    std::thread::sleep(Duration::from_secs(1));

    let why = refused(
        pair.nodes[1]
            .client()
            .add_replica(VOLUME, &ReplicaAt::default()),
    );
    assert!(why.contains("on the other node"), "{why}");
    let why = refused(client.replace_replica(VOLUME, &meant()));
    assert!(why.contains("its only copy"), "{why}");
    client.add_replica(VOLUME, &ReplicaAt::default()).unwrap();
    pair.wait_mirrored();
    let why = refused(client.add_replica(VOLUME, &ReplicaAt::default()));
    assert!(why.contains("a copy on each node"), "{why}");
    let why = refused(client.replace_replica(VOLUME, &meant()));
    assert!(why.contains("well and in use"), "{why}");
    let report = load.finish().unwrap();
    content::assert_clean(&report);
    let mut ledger = report.ledger;
    content::assert_both_hold(&pair, &mut ledger);
    let second = pair.image(1);

    // The other node's copy goes again, once this node serves without it.
    let path = vec![pair.paths().remove(0)];
    let load = Load::start(Options::default(), path, slow(SIZE), Some(ledger));
    let why = refused(client.remove_replica(VOLUME, "2", VOLUME));
    assert!(why.contains("node 2 serves it as well"), "{why}");
    assert!(
        why.contains("maintenance enter on node 2, then this"),
        "{why}"
    );
    let wish = EnterMaintenance::default();
    pair.nodes[1].client().enter_maintenance(&wish).unwrap();
    pair.nodes[1].wait_for("maintenance", RESYNC_LIMIT, |node| {
        let status = node.client().status();
        status.is_ok_and(|it| it.maintenance == MaintenanceState::On)
    });
    assert!(refused(client.remove_replica(VOLUME, "1", VOLUME)).contains("of the other node"));
    assert!(refused(client.remove_replica(VOLUME, "2", "")).contains("was not repeated"));
    client.remove_replica(VOLUME, "2", VOLUME).unwrap();
    pair.nodes[0].wait_for("a single copy", START_LIMIT, |node| {
        let volume = node.volume(VOLUME);
        volume.is_ok_and(|it| it.state == "serving" && it.replicas.len() == 1)
    });
    pair.nodes[1].client().leave_maintenance("").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let report = load.finish().unwrap();
    content::assert_clean(&report);
    assert!(second.exists(), "the image stays");
    // It may be given one again; an image that is there is not overwritten.
    client.add_replica(VOLUME, &ReplicaAt::default()).unwrap();
    pair.nodes[1].wait_for("a word on the image", START_LIMIT, |node| {
        let volume = node.volume(VOLUME);
        volume.is_ok_and(|it| it.state == "failed" && it.reason.contains("exists already"))
    });
}

#[test]
fn a_lost_disk_and_a_moved_one_are_replaced_under_load() {
    let mut pair = Pair::with_volume("replaced");
    let load = Load::start(Options::default(), pair.paths(), slow(SIZE), None);
    std::thread::sleep(Duration::from_secs(1));
    pair.nodes[1].kill();
    let image = pair.directory.path().join("node2/images");
    for entry in std::fs::read_dir(&image).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    pair.nodes[1].start();
    pair.nodes[1].wait_for("a word on the lost image", START_LIMIT, |node| {
        node.volume(VOLUME).is_ok_and(|it| it.state == "failed")
    });
    pair.nodes[1].wait_for("its partner", START_LIMIT, |node| {
        node.client().status().is_ok_and(|it| it.partner.up)
    });
    // Before that nothing may be given up: nobody could serve it.
    pair.nodes[0].wait_for("serving alone", START_LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.state == "serving-alone")
    });
    pair.nodes[1].wait_for("that, as its partner says", START_LIMIT, |node| {
        let repeated = ReplicaAt::default();
        let answer = node.client().replace_replica(VOLUME, &repeated);
        answer.is_err_and(|it| it.to_string().contains("was not repeated"))
    });
    let client = pair.nodes[1].client();
    let why = refused(client.replace_replica(VOLUME, &ReplicaAt::default()));
    assert!(why.contains("was not repeated"), "{why}");
    client.replace_replica(VOLUME, &meant()).unwrap();
    pair.wait_mirrored();
    assert!(pair.nodes[0].volume(VOLUME).unwrap().full_resyncs >= 1);

    // A planned change of the disk: out of service, another place, and back.
    client
        .enter_maintenance(&EnterMaintenance::default())
        .unwrap();
    pair.nodes[1].wait_for("maintenance", RESYNC_LIMIT, |node| {
        let status = node.client().status();
        status.is_ok_and(|it| it.maintenance == MaintenanceState::On)
    });
    let moved = ReplicaAt {
        image: Some("moved.img".into()),
        ..meant()
    };
    client.replace_replica(VOLUME, &moved).unwrap();
    client.leave_maintenance("").unwrap();
    pair.wait_mirrored();
    assert!(pair.image(1).ends_with("moved.img"));
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

#[test]
fn the_copy_of_a_node_that_is_gone_is_given_up_and_not_taken_back() {
    let mut pair = Pair::with_volume("gone");
    let image = pair.image(1);
    pair.nodes[1].kill();
    let client = pair.nodes[0].client();
    // Nobody uses it, so nobody has decided yet that this node goes on without the other one.
    pair.nodes[0].wait_for("the silence", START_LIMIT, |node| {
        let volume = node.volume(VOLUME);
        volume.is_ok_and(|it| it.reason.contains("as soon as an initiator needs"))
    });
    assert!(refused(client.remove_replica(VOLUME, "2", "")).contains("was not repeated"));
    let why = refused(client.remove_replica(VOLUME, "2", VOLUME));
    assert!(
        why.contains("told to go on alone") && why.contains("again"),
        "{why}"
    );
    pair.nodes[0].wait_for("its decision", START_LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.state == "serving-alone")
    });
    client.remove_replica(VOLUME, "node2", VOLUME).unwrap();
    pair.nodes[0].wait_for("a single copy", START_LIMIT, |node| {
        let volume = node.volume(VOLUME);
        volume.is_ok_and(|it| it.state == "serving" && it.replicas.len() == 1)
    });
    let load = Load::start(
        Options::default(),
        vec![pair.paths().remove(0)],
        slow(SIZE),
        None,
    );
    std::thread::sleep(Duration::from_secs(1));
    // It returns: it learns that its copy is none any more, and keeps its hands off.
    pair.nodes[1].start();
    pair.nodes[1].wait_for("the news", START_LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.replicas.len() == 1 && it.state != "serving")
    });
    let report = load.finish().unwrap();
    content::assert_clean(&report);
    assert!(image.exists(), "the image stays");
    let status = pair.nodes[0].client().status().unwrap();
    assert!(
        !status.concerns.iter().any(|it| it.what.contains(VOLUME)),
        "{:?}",
        status.concerns
    );
}

#[test]
fn a_copy_that_may_be_the_newest_is_not_given_up() {
    let mut pair = Pair::with_volume("newest");
    pair.nodes[0].kill();
    let load = Load::start(
        Options::default(),
        vec![pair.paths().remove(1)],
        slow(SIZE),
        None,
    );
    pair.nodes[1].wait_for("going on alone", START_LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.state == "serving-alone")
    });
    load.finish().unwrap();
    pair.nodes[1].kill();
    pair.nodes[0].start();
    pair.nodes[0].wait_for("what it waits for", START_LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.state == "unavailable")
    });
    let why = refused(pair.nodes[0].client().remove_replica(VOLUME, "2", VOLUME));
    assert!(
        why.contains("waits for node 2") && why.contains("force-activate"),
        "{why}"
    );
}
