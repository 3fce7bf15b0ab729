//! A partner, a disk, a secret or metadata that are not what they should be: each is refused or
//! repaired, named in `status` or in the events, and nothing is lost. The table is in
//! `docs/testing.md`.
#![expect(
    clippy::unwrap_used,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_api::quantity::Size;
use lockstep_api::status::Level;
use lockstep_api::volume::CreateVolume;
use lockstep_initiator::core::ledger::Ledger;
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::load::Load;
use lockstep_initiator::verify;
use lockstep_tests::node::{Node, START_LIMIT};
use lockstep_tests::pair::{Pair, SIZE, write_secret};
use lockstep_tests::{LUN, VOLUME, content};
use rustix::net::{self, AddressFamily, SocketType};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A second volume, of the same size.
const OTHER: &str = "other";
/// It settles within this, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(30);

fn metadata(pair: &Pair, node: usize, volume: &str) -> PathBuf {
    let directory = pair.nodes[node].directory.join("images");
    let files = std::fs::read_dir(directory).unwrap().flatten();
    let mut paths = files.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(volume) && !name.ends_with(".img")
    });
    paths.next().expect("metadata lie beside the image")
}

/// What a load of a second left.
fn written(pair: &Pair, former: Option<Ledger>) -> Ledger {
    let load = Load::start(
        Options::default(),
        pair.paths(),
        content::load(SIZE),
        former,
    );
    std::thread::sleep(Duration::from_secs(1));
    let report = load.finish().unwrap();
    content::assert_clean(&report);
    report.ledger
}

/// Whether a concern of the status says so.
fn names(node: &Node, text: &str) -> bool {
    let Ok(status) = node.client().status() else {
        return false;
    };
    status.level > Level::Ok && status.concerns.iter().any(|it| it.why.contains(text))
}

fn has_event(node: &Node, text: &str) -> bool {
    let events = node.client().events(0).unwrap();
    events.iter().any(|it| it.text.contains(text))
}

/// Connects from the partner's address.
fn as_partner(from: SocketAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    net::bind(&socket, &SocketAddr::new(from.ip(), 0)).unwrap();
    net::connect(&socket, &to).ok()?;
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    Some(stream)
}

/// A hello of this protocol, damaged or of another one.
fn hello(version: u16, damaged: bool) -> Vec<u8> {
    let mut bytes = vec![0; 80];
    bytes[..8].copy_from_slice(b"LOCKHELO");
    bytes[8..10].copy_from_slice(&version.to_be_bytes());
    if damaged {
        bytes[40] = 0xff;
    }
    bytes
}

#[test]
fn a_partner_that_speaks_nonsense_is_refused_and_named_and_nobody_waits_for_it() {
    let mut pair = Pair::with_volume("nonsense");
    let mut ledger = written(&pair, None);
    pair.nodes[0].kill();
    let [one, two] = [0, 1].map(|node| pair.nodes[node].portal);
    let ports = [1, 2, 3].map(|offset| SocketAddr::new(two.ip(), two.port() + offset));
    let nonsense = [
        b"GET / HTTP/1.1\r\n\r\n".repeat(8),
        hello(99, false),
        hello(1, true),
        vec![0xa5; 100_000],
        b"LOCKHELO".repeat(4096),
    ];
    let memory = pair.nodes[1].memory_kib();
    for round in 0..40 {
        for port in ports {
            let Some(mut stream) = as_partner(one, port) else {
                continue;
            };
            let _ = stream.write_all(&nonsense[round % nonsense.len()]);
            if round % 8 == 0 {
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
            }
        }
    }
    pair.nodes[1].wait_for("the reason", START_LIMIT, |node| {
        let paths = node.client().status().unwrap().partner.paths;
        let reasons = ["not a Lockstep node", "protocol version", "damaged"];
        paths
            .iter()
            .any(|path| reasons.iter().any(|it| path.error.contains(it)))
    });
    let grown = pair.nodes[1].memory_kib().saturating_sub(memory);
    assert!(grown < 64 << 10, "the daemon grew by {grown} KiB");
    let lines = pair.nodes[1].log().lines().count();
    assert!(lines < 100, "{lines} lines:\n{}", pair.nodes[1].log());
    pair.nodes[0].start();
    pair.wait_mirrored();
    content::assert_both_hold(&pair, &mut ledger);
}

#[test]
fn a_secret_changed_on_one_side_only_is_named_and_ends_nothing_but_the_mirroring() {
    let mut pair = Pair::with_volume("rotated");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    let secret = pair.directory.path().join("secret2");
    write_secret(&secret, "the new secret of node 2 only");
    assert!(pair.nodes[1].terminate().success());
    pair.nodes[1].start();
    for node in &mut pair.nodes {
        node.wait_for("a word about it", LIMIT, |it| names(it, "secret"));
    }
    pair.nodes[0].wait_for("the other node", LIMIT, |node| {
        node.volume(VOLUME).unwrap().state == "serving-alone"
    });
    assert!(pair.login(1).is_err(), "the one that left is behind");
    write_secret(&secret, "the same secret for both nodes");
    assert!(pair.nodes[1].terminate().success());
    pair.nodes[1].start();
    pair.wait_mirrored();
    let mut report = load.finish().unwrap();
    content::assert_clean(&report);
    content::assert_both_hold(&pair, &mut report.ledger);
}

#[test]
fn two_nodes_with_the_same_number_do_not_pair_and_neither_serves_apart() {
    let mut pair = Pair::with_volume("samenumber");
    let mut ledger = written(&pair, None);
    for node in &mut pair.nodes {
        assert!(node.terminate().success());
    }
    let right = pair.nodes[1].config();
    let wrong = right.replace("number = 2", "number = 1");
    assert_ne!(wrong, right);
    pair.nodes[1].write_config(&wrong);
    for node in &mut pair.nodes {
        node.start();
    }
    for node in &mut pair.nodes {
        node.wait_for("a word about it", LIMIT, |node| {
            let status = node.client().status().unwrap();
            let named = status
                .concerns
                .iter()
                .any(|it| it.todo.contains("node.number"));
            !status.partner.up && status.level == Level::Critical && named
        });
    }
    std::thread::sleep(Duration::from_secs(3));
    for node in 0..2 {
        assert!(pair.login(node).is_err(), "nobody serves");
    }
    for node in &mut pair.nodes {
        assert!(node.terminate().success());
    }
    pair.nodes[1].write_config(&right);
    for node in &mut pair.nodes {
        node.start();
    }
    pair.wait_mirrored();
    content::assert_both_hold(&pair, &mut ledger);
}

#[test]
fn an_older_clone_of_a_disk_is_never_the_source() {
    let mut pair = Pair::with_volume("clone");
    let ledger = written(&pair, None);
    assert!(pair.nodes[1].terminate().success());
    let files = [pair_image(&pair, 1), metadata(&pair, 1, VOLUME)];
    let clones: Vec<Vec<u8>> = files.iter().map(|it| std::fs::read(it).unwrap()).collect();
    pair.nodes[1].start();
    pair.wait_mirrored();
    let mut ledger = written(&pair, Some(ledger));
    for node in [1, 0] {
        assert!(pair.nodes[node].terminate().success());
    }
    for (path, bytes) in files.iter().zip(&clones) {
        std::fs::write(path, bytes).unwrap();
    }
    // Alone it serves nothing, and says whom it needs.
    pair.nodes[1].start();
    pair.nodes[1].wait_for("the reason", LIMIT, |node| {
        node.volume(VOLUME)
            .is_ok_and(|it| it.reason.contains("waits for node 1"))
    });
    std::thread::sleep(Duration::from_secs(3));
    assert!(pair.login(1).is_err());
    pair.nodes[0].start();
    pair.wait_mirrored();
    content::assert_both_hold(&pair, &mut ledger);
}

/// Without asking the node, which does not run.
fn pair_image(pair: &Pair, node: usize) -> PathBuf {
    let name = format!("{VOLUME}.img");
    pair.nodes[node].directory.join("images").join(name)
}

#[test]
fn metadata_of_another_volume_are_refused_and_both_disks_left_as_they_are() {
    let mut pair = Pair::with_volume("swapped");
    let request = CreateVolume {
        name: OTHER.into(),
        size: Size(SIZE),
        ..CreateVolume::default()
    };
    pair.nodes[0].client().create_volume(&request).unwrap();
    pair.nodes[1].wait_for("the other volume", LIMIT, |node| {
        node.volume(OTHER).is_ok_and(|it| it.state == "serving")
    });
    let mut ledger = written(&pair, None);
    assert!(pair.nodes[1].terminate().success());
    let image = std::fs::read(pair_image(&pair, 1)).unwrap();
    let files = [metadata(&pair, 1, VOLUME), metadata(&pair, 1, OTHER)];
    let contents = files.clone().map(|it| std::fs::read(it).unwrap());
    std::fs::write(&files[0], &contents[1]).unwrap();
    std::fs::write(&files[1], &contents[0]).unwrap();
    pair.nodes[1].start();
    pair.nodes[1].wait_for("the reason", LIMIT, |node| {
        names(node, "the metadata belongs to volume")
    });
    assert!(std::fs::read(pair_image(&pair, 1)).unwrap() == image);
    assert!(
        std::fs::read(&files[0]).unwrap() == contents[1],
        "nothing was changed"
    );
    let findings = verify::through(&mut pair.login(0).unwrap(), LUN, 512, &mut ledger).unwrap();
    assert!(findings.is_clean(), "{findings:?}");
    assert!(pair.nodes[1].terminate().success());
    for (path, bytes) in files.iter().zip(&contents) {
        std::fs::write(path, bytes).unwrap();
    }
    pair.nodes[1].start();
    pair.wait_mirrored();
    content::assert_both_hold(&pair, &mut ledger);
}

/// Where the intents of a small volume lie, and how long a sector of them is.
const INTENTS: (u64, usize) = (64 << 10, 512);
/// After one page of intents: the dirty bits.
const DIRTY: (u64, usize) = (68 << 10, 4096);

#[test]
fn damaged_intents_are_named_and_what_they_stand_for_compared() {
    put_over(INTENTS, None);
}

#[test]
fn misdirected_intents_are_named_and_what_they_stand_for_compared() {
    put_over(INTENTS, Some(DIRTY));
}

#[test]
fn damaged_dirty_bits_are_named_and_what_they_stand_for_compared() {
    put_over(DIRTY, None);
}

#[test]
fn misdirected_dirty_bits_are_named_and_what_they_stand_for_compared() {
    put_over(DIRTY, Some(INTENTS));
}

/// Writes noise, or what lies elsewhere, over a part of the metadata of a node that is behind.
fn put_over((at, len): (u64, usize), elsewhere: Option<(u64, usize)>) {
    let mut pair = Pair::with_volume("sector");
    let ledger = written(&pair, None);
    // What it is out of step with is in these very bits.
    pair.nodes[1].kill();
    let mut ledger = written_through(&pair, 0, ledger);
    let file = metadata(&pair, 1, VOLUME);
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&file)
        .unwrap();
    let bytes = if let Some((from, _)) = elsewhere {
        let mut other = vec![0; len];
        open.read_exact_at(&mut other, from).unwrap();
        other
    } else {
        vec![0xa5; len / 4]
    };
    open.write_all_at(&bytes, at).unwrap();
    pair.nodes[1].start();
    pair.wait_mirrored();
    assert!(has_event(
        &pair.nodes[1],
        "parts of its metadata were damaged"
    ));
    content::assert_both_hold(&pair, &mut ledger);
}

/// A load of a second once that node serves alone.
fn written_through(pair: &Pair, node: usize, former: Ledger) -> Ledger {
    let paths = vec![pair.paths().swap_remove(node)];
    let load = Load::start(Options::default(), paths, content::load(SIZE), Some(former));
    let begun = Instant::now();
    while pair.nodes[node].volume(VOLUME).unwrap().state != "serving-alone" {
        assert!(begun.elapsed() < LIMIT, "it does not go on alone");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(1));
    let report = load.finish().unwrap();
    content::assert_clean(&report);
    report.ledger
}

#[test]
fn a_superblock_written_to_the_wrong_slot_or_from_another_node_is_not_taken() {
    const SLOT: u64 = 4096;
    let mut pair = Pair::with_volume("misplaced");
    let mut ledger = written(&pair, None);
    assert!(pair.nodes[1].terminate().success());
    let file = metadata(&pair, 1, VOLUME);
    let right = std::fs::read(&file).unwrap();
    // The other node's superblocks: right in every bit, and of another copy.
    let theirs = std::fs::read(metadata(&pair, 0, VOLUME)).unwrap();
    let open = OpenOptions::new().write(true).open(&file).unwrap();
    open.write_all_at(&theirs[..2 * 4096], 0).unwrap();
    pair.nodes[1].start();
    pair.nodes[1].wait_for("the reason", LIMIT, |node| {
        names(node, "the metadata was written by node 1, this is node 2")
    });
    assert!(pair.nodes[1].terminate().success());
    // One slot's contents in both places: the older one is lost, which is what two are for.
    open.write_all_at(&right[..4096], 0).unwrap();
    open.write_all_at(&right[..4096], SLOT).unwrap();
    pair.nodes[1].start();
    pair.wait_mirrored();
    content::assert_both_hold(&pair, &mut ledger);
}
