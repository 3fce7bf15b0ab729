//! Block devices. They need a loop device and so root; elsewhere these tests say that they were
//! skipped, and pass.

use super::*;
use crate::provision::{self, NewVolume};
use lockstep_mirror::control::CacheMode;
use std::path::PathBuf;
use std::process::Command;
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
