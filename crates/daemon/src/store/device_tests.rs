//! Block devices. They need a loop device and so root; elsewhere these tests say that they were
//! skipped, and pass.

use super::*;
use crate::provision::{self, NewVolume};
use lockstep_engine::interface::IoKey;
use lockstep_mirror::control::CacheMode;
use lockstep_mirror::control::VolumeId;
use lockstep_mirror::operation::{BufferId, Payload};
use lockstep_mirror::volume_io::Io;
use lockstep_uring::{Arena, Ring, SlotClass};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SIZE: u64 = 16 << 20;

/// A loop device with blocks of this size, gone when dropped.
struct Device {
    path: PathBuf,
    file: PathBuf,
}

impl Device {
    fn new(name: &str, block_size: u32) -> Option<Self> {
        let file =
            std::env::temp_dir().join(format!("lockstep-device-{}-{name}", std::process::id()));
        std::fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &block_size.to_string()])
            .arg(&file)
            .output()
            .ok()
            .filter(|output| output.status.success());
        let Some(output) = output else {
            std::fs::remove_file(&file).unwrap();
            println!("skipped: no loop device can be had here");
            return None;
        };
        let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        Some(Self { path, file })
    }

    fn volume(&self, block_size: u32) -> NewVolume {
        let metadata = provision::metadata_path(&self.path, &std::env::temp_dir());
        NewVolume {
            image: self.path.clone(),
            metadata,
            size: SIZE,
            block_size,
            prefill: true,
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status()
            .unwrap();
        assert!(detached.success());
        std::fs::remove_file(&self.file).unwrap();
    }
}

fn spec(volume: &NewVolume, cache: CacheMode) -> DiskSpec {
    let NewVolume {
        image,
        metadata,
        size,
        block_size,
        ..
    } = volume.clone();
    DiskSpec {
        image,
        metadata,
        size,
        block_size,
        cache,
    }
}

#[test]
fn a_device_is_provisioned_opened_exclusively_and_written() {
    let Some(device) = Device::new("plain", 512) else {
        return;
    };
    let volume = device.volume(512);
    std::fs::write(&device.file, vec![0xee; usize::try_from(SIZE).unwrap()]).unwrap();
    provision::create(&volume, &mut |_| true).unwrap();
    assert!(
        std::fs::read(&device.path)
            .unwrap()
            .iter()
            .all(|&byte| byte == 0)
    );
    for cache in [CacheMode::None, CacheMode::WriteThrough] {
        let disk = Disk::open(&spec(&volume, cache), Duration::ZERO).unwrap();
        assert_eq!(disk.manner.direct, cache == CacheMode::None);
        let refused = Disk::open(&spec(&volume, cache), Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("in use elsewhere"), "{refused}");
        let mut world = tests::World::with_disk(disk);
        tests::blocks_survive(&mut world, 512);
    }
    std::fs::remove_file(&volume.metadata).unwrap();
}

#[test]
fn blocks_smaller_than_the_devices_are_completed_by_the_page_cache() {
    let Some(device) = Device::new("coarse", 4096) else {
        return;
    };
    let small = NewVolume {
        block_size: 512,
        ..device.volume(4096)
    };
    let refused = provision::create(&small, &mut |_| true)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("has blocks of 4096 bytes"), "{refused}");
    // A volume that came from a disk with smaller blocks is served all the same.
    provision::create(&device.volume(4096), &mut |_| true).unwrap();
    let disk = Disk::open(&spec(&small, CacheMode::None), Duration::ZERO).unwrap();
    assert!(!disk.manner.direct);
    tests::blocks_survive(&mut tests::World::with_disk(disk), 512);
    std::fs::remove_file(&small.metadata).unwrap();
}

#[test]
fn a_volume_larger_than_its_device_is_refused() {
    let Some(device) = Device::new("small", 512) else {
        return;
    };
    let volume = NewVolume {
        size: SIZE + 512,
        ..device.volume(512)
    };
    let refused = provision::create(&volume, &mut |_| true)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("has 16777216 bytes and the volume needs 16777728"),
        "{refused}"
    );
    assert!(!volume.metadata.exists());
}

/// A file system on a device, on which writes can be made to wait.
struct Slow {
    device: Device,
    mounted: PathBuf,
}

impl Slow {
    fn new() -> Option<Self> {
        let device = Device::new("slow", 512)?;
        let mounted = std::env::temp_dir().join(format!("lockstep-slow-{}", std::process::id()));
        std::fs::create_dir(&mounted).unwrap();
        let made = run("mkfs.ext4", &["-q".as_ref(), &device.path]);
        if made && run("mount", &[&device.path, &mounted]) {
            return Some(Self { device, mounted });
        }
        std::fs::remove_dir(&mounted).unwrap();
        println!("skipped: no file system can be mounted here");
        None
    }

    fn freeze(&self, freeze: bool) -> bool {
        run(
            "fsfreeze",
            &[if freeze { "-f" } else { "-u" }.as_ref(), &self.mounted],
        )
    }

    fn spec(folder: &Path) -> DiskSpec {
        DiskSpec {
            image: folder.join("image"),
            metadata: folder.join("image.meta"),
            size: 1 << 20,
            block_size: 4096,
            cache: CacheMode::WriteBack,
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        // It is not frozen any more, unless a test has failed.
        self.freeze(false);
        assert!(
            run("umount", &[&self.mounted]),
            "{} stays mounted",
            self.device.path.display()
        );
        std::fs::remove_dir(&self.mounted).unwrap();
    }
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    let quiet = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

/// Names the folder for the child of the test below.
const CHILD: &str = "LOCKSTEP_TEST_SLOW_FOLDER";

#[test]
fn a_killed_daemon_holds_its_volume_until_its_last_write_has_ended() {
    let Some(slow) = Slow::new() else { return };
    let spec = Slow::spec(&slow.mounted);
    std::fs::write(&spec.image, vec![1; 1 << 20]).unwrap();
    std::fs::write(&spec.metadata, vec![0; 4096]).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "store::device_tests::child_that_writes",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD, &slow.mounted)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut hear = |word: &str| while lines.next().unwrap().unwrap() != word {};
    hear("open");
    let successor = std::fs::File::open(&spec.image).unwrap();
    assert!(slow.freeze(true));
    child.stdin.take().unwrap().write_all(b"write\n").unwrap();
    hear("submitted");
    child.kill().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let while_writing = lockstep_uring::file::lock(&successor);
    assert!(slow.freeze(false));
    child.wait().unwrap();
    assert_eq!(
        while_writing,
        Err(lockstep_uring::Errno::WOULDBLOCK),
        "its write has not ended"
    );
    drop(successor);
    drop(Disk::open(&spec, Duration::from_secs(5)).unwrap());
}

#[test]
#[ignore = "the other half of the test above, which runs it as a process of its own"]
fn child_that_writes() {
    let Some(folder) = std::env::var_os(CHILD) else {
        return;
    };
    let disk = Disk::open(&Slow::spec(Path::new(&folder)), Duration::ZERO).unwrap();
    let mut arena = Arena::new(&[SlotClass {
        slots: 2,
        slot_bytes: ZERO_BYTES,
    }])
    .unwrap();
    let mut ring = Ring::new(8).unwrap();
    let mut store = Store::new(1);
    store.attach(VolumeId(1), disk);
    println!("\nopen");
    std::io::stdin().lines().next().unwrap().unwrap();
    let bytes = arena.bytes_mut(0, 0, 4096);
    bytes.fill(2);
    let payload = Payload {
        buffer: BufferId {
            slot: 0,
            generation: 0,
        },
        at: 0,
        len: 4096,
        crc: crc32c::crc32c(bytes),
    };
    let mut machine = Machine {
        ring: &mut ring,
        arena: &mut arena,
    };
    let write = Io::Write {
        offset: 0,
        payload,
        durable: false,
    };
    store.start(&mut machine, IoKey { volume: 0, id: 0 }, VolumeId(1), write);
    let mut completions = Vec::new();
    ring.turn(Duration::from_millis(100), &mut completions)
        .unwrap();
    assert!(completions.is_empty(), "the file system is frozen");
    println!("submitted");
    std::thread::sleep(Duration::from_secs(30));
}
