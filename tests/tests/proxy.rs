//! A node whose copy may not be used keeps its paths: the partner serves its initiators through it.
#![expect(clippy::unwrap_used, reason = "a test speaks by failing")]

use lockstep_api::quantity::Size;
use lockstep_api::volume::CreateVolume;
use lockstep_initiator::client::Client;
use lockstep_initiator::core::command::Command;
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::{LUN, VOLUME};
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: u32 = 1 << 20;
/// What happens within moments happens within this, on a busy machine too.
const SOON: Duration = Duration::from_secs(60);

fn write(client: &mut Client, block: u64, fill: u8, bytes: u32) -> u8 {
    let data = vec![fill; usize::try_from(bytes).unwrap()];
    let command = Command::write(LUN, block, bytes / 512, data.into());
    client.run_past_attentions(&command).unwrap().status
}

/// As an initiator does it: what is not ready at the moment is asked again.
fn read(client: &mut Client, block: u64, bytes: u32) -> Vec<u8> {
    let start = Instant::now();
    loop {
        let command = Command::read(LUN, block, bytes / 512, bytes);
        let answer = client.run_past_attentions(&command).unwrap();
        if answer.status == 0 {
            return answer.data;
        }
        assert!(start.elapsed() < SOON, "sense {:x?}", answer.sense);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The access state of the port group with this number (SPC-4 §6.37).
fn access_state(client: &mut Client, group: u16) -> u8 {
    let cdb = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let command = Command::raw(LUN, &cdb, &[], 256);
    let list = client.run_past_attentions(&command).unwrap().data;
    let groups = list[4..].chunks(12);
    let found = groups
        .filter(|it| it.len() == 12)
        .find(|it| u16::from_be_bytes([it[2], it[3]]) == group);
    found.unwrap()[0] & 0x0f
}

/// A session through a node whose portals open in moments.
fn login_soon(pair: &Pair, node: usize) -> Client {
    let start = Instant::now();
    loop {
        match pair.login(node) {
            Ok(client) => return client,
            Err(error) => assert!(start.elapsed() < SOON, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_target_of_a_resync_passes_commands_to_its_source() {
    let volume = CreateVolume {
        size: Size(16 * SIZE),
        ..CreateVolume::default()
    };
    let mut pair = Pair::with("passes", &volume);
    pair.nodes[1].kill();
    let mut one = pair.login(0).unwrap();
    // What the other node lacks: enough for a resync of seconds.
    for piece in 0..512 {
        assert_eq!(write(&mut one, piece * 2048, 1, MIB), 0);
    }
    pair.nodes[1].start();
    let mut two = login_soon(&pair, 1);
    let (mut passed, mut round) = (0, 1);
    while pair.nodes[0].volume(VOLUME).unwrap().members.len() == 1 {
        round = round % 200 + 1;
        assert_eq!(
            read(&mut two, 511 * 2048 + 8, 4096),
            read(&mut one, 511 * 2048 + 8, 4096)
        );
        while write(&mut two, 511 * 2048 + 8, round, 4096) != 0 {}
        assert_eq!(read(&mut one, 511 * 2048 + 8, 4096), vec![round; 4096]);
        let node = pair.nodes[1].volume(VOLUME).unwrap();
        passed = node.proxied_reads.min(node.proxied_writes).max(passed);
    }
    assert!(
        passed > 0,
        "the resync was over before anything was passed on"
    );
    pair.wait_mirrored();
    assert_eq!(read(&mut two, 511 * 2048 + 8, 4096), vec![round; 4096]);
    assert_eq!(read(&mut two, 0, MIB), vec![1; MIB as usize]);
}

#[test]
fn a_node_that_starts_without_its_image_keeps_its_paths() {
    let mut pair = Pair::with_volume("noimage");
    let mut one = pair.login(0).unwrap();
    assert_eq!(write(&mut one, 0, 7, 4096), 0);
    let image = pair.image(1);
    pair.nodes[1].kill();
    // Its disk is not there when the daemon starts.
    let away = pair.directory.path().join("away");
    std::fs::rename(&image, &away).unwrap();
    pair.nodes[1].start();
    // The other node goes on alone as soon as an initiator needs it.
    let start = Instant::now();
    while write(&mut one, 16, 6, 4096) != 0 {
        assert!(
            start.elapsed() < SOON,
            "{:#?}",
            pair.nodes[0].client().status()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut two = login_soon(&pair, 1);
    let start = Instant::now();
    while write(&mut two, 8, 5, 4096) != 0 {
        assert!(
            start.elapsed() < SOON,
            "{:#?}",
            pair.nodes[1].client().status()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    for client in [&mut one, &mut two] {
        assert_eq!(read(client, 0, 4096), vec![7; 4096]);
        assert_eq!(read(client, 8, 4096), vec![5; 4096]);
        assert_eq!(access_state(client, 256), 0x0);
        assert_eq!(access_state(client, 512), 0x1);
    }
    // It is named, with who serves meanwhile; and nothing was made in its place.
    let volume = pair.nodes[1].volume(VOLUME).unwrap();
    assert_eq!(volume.state, "failed");
    assert!(
        volume.reason.contains(&image.display().to_string())
            && volume
                .reason
                .contains("node 1 serves this node's initiators"),
        "{}",
        volume.reason
    );
    assert!(!image.exists());
    std::fs::rename(&away, &image).unwrap();
    // It is tried again by itself, and what was written meanwhile is copied.
    pair.wait_mirrored();
    let volume = pair.nodes[1].volume(VOLUME).unwrap();
    assert_eq!((volume.full_resyncs, volume.state.as_str()), (0, "serving"));
    for node in [0, 1] {
        // The sessions of before may have ended: nobody answered their pings meanwhile.
        let mut client = login_soon(&pair, node);
        assert_eq!(read(&mut client, 8, 4096), vec![5; 4096]);
    }
}

/// A file system of its own for the images of a node.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(path: &'a Path, bytes: u64) -> Self {
        let size = format!("size={bytes}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "lockstep-test"])
            .arg(path)
            .status();
        assert!(
            mounted.unwrap().success(),
            "this test mounts a tmpfs: run it as root"
        );
        Self(path)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Lazily: the daemon may still have its image open.
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0)
            .status();
    }
}

#[test]
#[ignore = "long: mounts a file system, so only as root"]
fn long_a_node_with_a_failed_disk_keeps_its_paths() {
    let pair = Pair::prepare("failed");
    let images = pair.nodes[1].directory.join("images");
    let _mount = Mount::new(&images, SIZE + (32 << 20));
    let mut pair = pair.started();
    pair.create(&CreateVolume {
        size: Size(SIZE),
        ..CreateVolume::default()
    });
    let (mut one, mut two) = (pair.login(0).unwrap(), pair.login(1).unwrap());
    assert_eq!(write(&mut two, 0, 7, 4096), 0);
    // The image loses what it was given, and another file takes the room: the next write there
    // finds none.
    let image = std::fs::OpenOptions::new()
        .write(true)
        .open(pair.image(1))
        .unwrap();
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&image, punch, SIZE / 2, SIZE / 2).unwrap();
    let filler = vec![1; 1 << 20];
    let mut file = std::fs::File::create(images.join("filler")).unwrap();
    while std::io::Write::write_all(&mut file, &filler).is_ok() {}
    // The write that finds the disk full is answered by one node or the other, or BUSY.
    let place = SIZE / 2 / 512 + 64;
    let start = Instant::now();
    while write(&mut two, place, 9, 4096) != 0 {
        assert!(
            start.elapsed() < SOON,
            "{:#?}",
            pair.nodes[1].client().status()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(pair.nodes[1].volume(VOLUME).unwrap().state, "failed");
    for client in [&mut one, &mut two] {
        assert_eq!(read(client, place, 4096), vec![9; 4096]);
        assert_eq!(read(client, 0, 4096), vec![7; 4096]);
    }
    assert_eq!(write(&mut two, 8, 5, 4096), 0);
    assert_eq!(read(&mut one, 8, 4096), vec![5; 4096]);
    // Node number × 256: optimized through the node that serves, non-optimized through the other.
    for client in [&mut one, &mut two] {
        assert_eq!(access_state(client, 256), 0x0);
        assert_eq!(access_state(client, 512), 0x1);
    }
    // What it shows is a moment old.
    pair.nodes[1].wait_for("what was passed on to be counted", SOON, |node| {
        let volume = node.volume(VOLUME).unwrap();
        volume.proxied_reads > 0 && volume.proxied_writes > 0
    });
}
