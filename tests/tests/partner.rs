//! A partner that is not the right one, and metadata that is not whole.
#![expect(
    clippy::unwrap_used,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_api::status::Level;
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::load::Load;
use lockstep_initiator::verify;
use lockstep_tests::node::START_LIMIT;
use lockstep_tests::pair::{Pair, SIZE, write_secret};
use lockstep_tests::{LUN, VOLUME, content};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn a_partner_with_another_secret_is_refused_and_named() {
    let mut pair = Pair::prepare("wrongsecret");
    write_secret(
        &pair.directory.path().join("secret2"),
        "another secret for the second",
    );
    for node in &mut pair.nodes {
        node.start();
    }
    for node in &mut pair.nodes {
        node.wait_for("a word about the secret", START_LIMIT, |node| {
            let Ok(status) = node.client().status() else {
                return false;
            };
            let said = status
                .partner
                .paths
                .iter()
                .any(|path| path.error.contains("secret"));
            let concern = status
                .concerns
                .iter()
                .any(|concern| concern.why.contains("secret"));
            !status.partner.up && status.level > Level::Ok && said && concern
        });
        assert!(node.log().contains("secret"), "the log says so too");
        assert!(
            !node.log().contains("another secret for"),
            "the secret itself stands in the log"
        );
        let lines = node
            .log()
            .lines()
            .filter(|line| line.contains("secret"))
            .count();
        assert!(lines < 20, "it is said {lines} times");
    }
}

#[test]
fn a_node_of_another_cluster_is_refused_and_named() {
    let mut pair = Pair::prepare("othercluster");
    let other = pair.nodes[1].config().replace("6f0e4a1c", "7f0e4a1c");
    pair.nodes[1].write_config(&other);
    for node in &mut pair.nodes {
        node.start();
    }
    pair.nodes[0].wait_for("a word about the cluster", START_LIMIT, |node| {
        let Ok(status) = node.client().status() else {
            return false;
        };
        !status.partner.up
            && status
                .partner
                .paths
                .iter()
                .any(|path| path.error.contains("cluster"))
    });
}

/// Who is connected to this address and port, as the kernel lists it: `2101007F:0CBD`.
fn connected_to(address: SocketAddr) -> Vec<Ipv4Addr> {
    let number = |text: &str| u32::from_str_radix(text, 16).unwrap();
    let end = |text: &str| {
        let (ip, port) = text.split_once(':').unwrap();
        (Ipv4Addr::from(number(ip).to_ne_bytes()), number(port))
    };
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut peers = Vec::new();
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = end(columns[1]);
        if ip == address.ip() && port == u32::from(address.port()) && columns[3] == ESTABLISHED {
            peers.push(end(columns[2]).0);
        }
    }
    peers
}

#[test]
fn the_partner_is_dialed_from_our_own_end_of_each_link() {
    let pair = Pair::with_volume("source");
    let [one, two] = [0, 1].map(|node| pair.nodes[node].portal);
    // Data, the control connection beside it, and the one for heartbeats alone.
    for offset in 1..=3 {
        let listener = SocketAddr::new(two.ip(), two.port() + offset);
        let peers = connected_to(listener);
        assert!(!peers.is_empty(), "nobody is connected to {listener}");
        assert!(
            peers.iter().all(|peer| *peer == one.ip()),
            "{peers:?} are connected to {listener}, not {}",
            one.ip()
        );
    }
}

/// The metadata file beside an image (or wherever the node keeps it).
fn metadata(pair: &Pair, node: usize) -> PathBuf {
    let directory = pair.nodes[node].directory.join("images");
    let image = pair.image(node);
    let files = std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let mut others = files.filter(|path| *path != image && path.is_file());
    others.next().expect("metadata lie beside the image")
}

/// Superblock slots: two of 4 KiB at the start of the metadata area.
const SLOT: u64 = 4096;

#[test]
fn with_one_superblock_slot_damaged_the_other_serves() {
    for slot in 0..2 {
        let mut pair = Pair::with_volume("oneslot");
        let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
        std::thread::sleep(Duration::from_millis(500));
        let mut ledger = load.finish().unwrap().ledger;
        let file = metadata(&pair, 1);
        assert!(pair.nodes[1].terminate().success());
        let open = OpenOptions::new().write(true).open(&file).unwrap();
        open.write_all_at(&[0xa5; 512], slot * SLOT + 100).unwrap();
        pair.nodes[1].start();
        pair.wait_mirrored();
        content::assert_both_hold(&pair, &mut ledger);
    }
}

#[test]
fn with_both_superblock_slots_damaged_the_volume_is_refused_and_the_image_untouched() {
    let mut pair = Pair::with_volume("bothslots");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    std::thread::sleep(Duration::from_millis(500));
    let mut ledger = load.finish().unwrap().ledger;
    let (file, image) = (metadata(&pair, 1), pair.image(1));
    assert!(pair.nodes[1].terminate().success());
    let before = std::fs::read(&image).unwrap();
    let open = OpenOptions::new().write(true).open(&file).unwrap();
    for slot in 0..2 {
        open.write_all_at(&[0xa5; 512], slot * SLOT + 100).unwrap();
    }
    pair.nodes[1].start();
    pair.nodes[1].wait_for("a word about it", START_LIMIT, |node| {
        let Ok(status) = node.client().status() else {
            return false;
        };
        status.level == Level::Critical
            && status
                .concerns
                .iter()
                .any(|concern| concern.what.contains(VOLUME))
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(
        std::fs::read(&image).unwrap() == before,
        "the image was touched"
    );
    // The other node serves on, through this one as well.
    pair.nodes[0].wait_for("the other node", Duration::from_secs(20), |node| {
        node.volume(VOLUME)
            .is_ok_and(|volume| volume.state.starts_with("serving"))
    });
    pair.nodes[1].wait_for("a way to the other node", START_LIMIT, |node| {
        node.volume(VOLUME).is_ok_and(|volume| {
            volume.state == "failed" && volume.reason.contains("serves this node's initiators")
        })
    });
    for node in [0, 1] {
        let mut client = pair.login(node).unwrap();
        let findings = verify::through(&mut client, LUN, 512, &mut ledger).unwrap();
        assert!(findings.is_clean(), "{findings:?}");
    }
    assert!(
        std::fs::read(&image).unwrap() == before,
        "the image was touched"
    );
}
