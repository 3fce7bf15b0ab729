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
    assert!(why.contains("node 2 may have what it lacks"), "{why}");
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
