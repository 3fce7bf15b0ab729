//! Resyncs of the real daemon: how fast they are, and what they leave to initiators.
#![expect(
    clippy::unwrap_used,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_api::quantity::Size;
use lockstep_api::resync::Priority;
use lockstep_api::verify::Repair;
use lockstep_api::volume::CreateVolume;
use lockstep_initiator::core::command::Command;
use lockstep_initiator::verify;
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::{LUN, VOLUME};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// What a plain copy of an image over loopback takes: read, sent, received, written.
fn plain_copy(from: &Path, to: &Path) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let to = to.to_owned();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut file = File::create(to).unwrap();
        let mut piece = vec![0; MIB];
        loop {
            let count = stream.read(&mut piece).unwrap();
            if count == 0 {
                return file.sync_all().unwrap();
            }
            file.write_all(&piece[..count]).unwrap();
        }
    });
    let begin = Instant::now();
    let mut file = File::open(from).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut piece = vec![0; MIB];
    loop {
        let count = file.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        stream.write_all(&piece[..count]).unwrap();
    }
    drop(stream);
    receiver.join().unwrap();
    begin.elapsed()
}

/// Writes all of the volume through the first node while the second one is away.
fn fill(pair: &Pair, size: u64, round: u8) {
    let mut client = pair.login(0).unwrap();
    let mut chance = 0x9e37_79b9_7f4a_7c15 ^ u64::from(round);
    let blocks = u32::try_from(MIB / 512).unwrap();
    for at in 0..size / MIB as u64 {
        let mut data = vec![0; MIB];
        for word in data.chunks_exact_mut(8) {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            word.copy_from_slice(&chance.to_ne_bytes());
        }
        let write = Command::write(LUN, at * u64::from(blocks), blocks, data.into());
        let written = client.run_past_attentions(&write).unwrap();
        assert_eq!(written.status, 0);
    }
    client.logout().unwrap();
}

/// From the first progress to two members.
fn resync(pair: &mut Pair) -> (Duration, Vec<String>) {
    pair.nodes[1].spawn();
    let (mut begin, mut last) = (None, None);
    let (mut log, limit) = (Vec::new(), Instant::now() + Duration::from_secs(120));
    loop {
        assert!(Instant::now() < limit, "no resync in two minutes");
        let volume = pair.nodes[0].volume(VOLUME).unwrap();
        if begin.is_none() && volume.state == "resyncing" && volume.resync.is_some() {
            begin = Some(Instant::now());
        }
        if begin.is_some() && volume.members.len() == 2 {
            break;
        }
        if volume.resync != last {
            log.push(format!(
                "{:?} {:?}",
                begin.map(|at| at.elapsed()),
                volume.resync
            ));
            last = volume.resync;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    (begin.unwrap().elapsed(), log)
}

#[test]
fn a_verification_finds_what_rotted_and_repairs_it_and_the_priority_can_be_changed() {
    let pair = Pair::with_volume("verify");
    let mut client = pair.login(0).unwrap();
    let write = Command::write(LUN, 4096, 8, vec![7; 4096].into());
    assert_eq!(client.run_past_attentions(&write).unwrap().status, 0);
    client.logout().unwrap();
    let owner = usize::from(pair.nodes[0].volume(VOLUME).unwrap().owner) - 1;
    let (right, wrong) = (owner, 1 - owner);
    let api = pair.nodes[owner].client();
    let ended = |pair: &Pair| {
        let limit = Instant::now() + Duration::from_secs(120);
        // What a node shows is a moment old.
        std::thread::sleep(Duration::from_secs(1));
        loop {
            let found = pair.nodes[owner].volume(VOLUME).unwrap().verify.unwrap();
            if !found.running {
                return found;
            }
            assert!(
                Instant::now() < limit,
                "a verification that does not end: {found:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    api.verify_volume(VOLUME, Repair::Report).unwrap();
    let found = ended(&pair);
    assert!(
        found.complete && found.differing == 0 && found.done == SIZE,
        "{found:?}"
    );

    let rotten = File::options().write(true).open(pair.image(wrong)).unwrap();
    rotten.write_all_at(b"rotten", 4096 * 512 + 100).unwrap();
    rotten.write_all_at(b"rotten", SIZE - 6).unwrap();
    api.verify_volume(VOLUME, Repair::Report).unwrap();
    let found = ended(&pair);
    assert!(
        found.complete && (found.differing, found.repaired) == (2, 0),
        "{found:?}"
    );
    let events = api.events(0).unwrap();
    assert!(
        events.iter().any(|event| event
            .text
            .contains("the copies differ in blocks 4096 to 4223")),
        "{events:#?}"
    );
    api.verify_volume(VOLUME, Repair::Owner).unwrap();
    let found = ended(&pair);
    assert!(
        found.complete && (found.differing, found.repaired) == (2, 2),
        "{found:?}"
    );
    let images = [right, wrong].map(|node| pair.image(node));
    assert_eq!(
        verify::first_difference(&images[0], &images[1]).unwrap(),
        None
    );

    let refused = pair.nodes[wrong]
        .client()
        .verify_volume(VOLUME, Repair::Owner);
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("orders its writes"), "{why}");
    assert_eq!(
        pair.nodes[0].volume(VOLUME).unwrap().priority,
        Priority::Normal
    );
    api.set_priority(VOLUME, Some(Priority::High)).unwrap();
    let mut pair = pair;
    for node in &mut pair.nodes {
        node.wait_for("its priority", Duration::from_secs(20), |node| {
            node.volume(VOLUME)
                .is_ok_and(|volume| volume.priority == Priority::High)
        });
    }
}

#[test]
#[ignore = "long: measures, on a machine that has nothing else to do"]
fn long_a_resync_is_as_fast_as_the_link_and_hashing_allow() {
    let size = 1 << 30;
    let mut pair = Pair::with(
        "speed",
        &CreateVolume {
            size: Size(size),
            ..CreateVolume::default()
        },
    );
    let images = [pair.image(0), pair.image(1)];
    for equal in [false, true] {
        pair.nodes[1].kill();
        fill(&pair, size, u8::from(equal));
        let scratch = pair.directory.path().join("scratch");
        let plain = (0..3)
            .map(|_| plain_copy(&images[0], &scratch))
            .min()
            .unwrap();
        if equal {
            std::fs::copy(&images[0], &images[1]).unwrap();
        }
        let (took, log) = resync(&mut pair);
        pair.wait_mirrored();
        let volume = pair.nodes[0].volume(VOLUME).unwrap();
        println!(
            "equal {equal}: resync {took:?}, plain copy {plain:?}: {:.2} of its speed; {} compared {} copied",
            plain.as_secs_f64() / took.as_secs_f64(),
            volume.resync_compared,
            volume.resync_copied,
        );
        for line in log {
            println!("  {line}");
        }
    }
}

/// The median, the 95th percentile and the maximum of one write at a time, and how many there were.
fn write_latencies(pair: &Pair, mut goes_on: impl FnMut() -> bool) -> (Vec<Duration>, usize) {
    let mut client = pair.login(0).unwrap();
    let (mut chance, mut all) = (0x9e37_79b9_7f4a_7c15_u64, Vec::new());
    while goes_on() {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let block = chance % (1 << 18) * 8;
        let write = Command::write(LUN, block, 8, vec![9; 4096].into());
        let begin = Instant::now();
        assert_eq!(client.run_past_attentions(&write).unwrap().status, 0);
        all.push(begin.elapsed());
    }
    client.logout().unwrap();
    all.sort_unstable();
    let at = |permille: usize| all[(all.len() - 1) * permille / 1000];
    (vec![at(500), at(950), at(1000)], all.len())
}

#[test]
#[ignore = "long: measures, on a machine that has nothing else to do"]
fn long_initiators_are_served_during_a_resync() {
    let size = 1 << 30;
    let mut pair = Pair::with(
        "foreground",
        &CreateVolume {
            size: Size(size),
            ..CreateVolume::default()
        },
    );
    let show = |what: &str, (times, count): (Vec<Duration>, usize)| {
        println!("{what}: median, p95 and maximum {times:?} of {count} writes");
    };
    let until = Instant::now() + Duration::from_secs(5);
    let before = write_latencies(&pair, || Instant::now() < until);
    show("without a resync", before);
    pair.nodes[1].kill();
    fill(&pair, size, 3);
    pair.nodes[1].spawn();
    let seen = |pair: &Pair| pair.nodes[0].volume(VOLUME).unwrap();
    pair.nodes[0].wait_for("a resync", Duration::from_secs(30), |node| {
        node.volume(VOLUME)
            .is_ok_and(|volume| volume.resync.is_some())
    });
    // Asking the daemon how far it is costs time as well, so it is asked by somebody else.
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let pair = &pair;
        let watch = scope.spawn(move || {
            while seen(pair).members.len() < 2 {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        show("during one", write_latencies(pair, || !watch.is_finished()));
    });
    println!("1 GiB in {:?}", begin.elapsed());
    pair.wait_mirrored();
    let until = Instant::now() + Duration::from_secs(5);
    let after = write_latencies(&pair, || Instant::now() < until);
    show("after it", after);
}
