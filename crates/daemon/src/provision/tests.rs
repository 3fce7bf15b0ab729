//! Images are made whole or refused with a reason.

use super::*;
use crate::store::{Disk, DiskSpec};
use lockstep_mirror::control::CacheMode;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "lockstep-provision-{}-{number}",
            std::process::id()
        ));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn volume(&self, size: u64) -> NewVolume {
        let image = self.0.join("disk.img");
        let metadata = metadata_path(&image, Path::new("/var/lib/lockstep"));
        NewVolume {
            image,
            metadata,
            size,
            block_size: 4096,
            prefill: false,
        }
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn always(_: Progress) -> bool {
    true
}

#[test]
fn a_new_volume_is_thick_zero_and_can_be_opened() {
    for prefill in [false, true] {
        let folder = Folder::new();
        let volume = NewVolume {
            prefill,
            ..folder.volume(12 << 20)
        };
        let mut last = None;
        create(&volume, &mut |progress| {
            assert!(last.is_none_or(|last: Progress| last.done < progress.done));
            last = Some(progress);
            true
        })
        .unwrap();
        let last = last.unwrap();
        assert_eq!(last.done, last.total);
        let stat = std::fs::metadata(&volume.image).unwrap();
        assert!(
            stat.len() == 12 << 20
                && stat.blocks() * 512 >= 12 << 20
                && stat.mode() & 0o777 == 0o600
        );
        assert!(
            std::fs::read(&volume.image)
                .unwrap()
                .iter()
                .all(|&byte| byte == 0)
        );
        assert_eq!(
            std::fs::metadata(folder.0.join("disk.img.meta"))
                .unwrap()
                .len(),
            metadata_len(12 << 20)
        );
        let NewVolume {
            image,
            metadata,
            size,
            block_size,
            ..
        } = volume.clone();
        let spec = DiskSpec {
            image,
            metadata,
            size,
            block_size,
            cache: CacheMode::None,
        };
        let disk = Disk::open(&spec, Duration::ZERO).unwrap();
        let refused = remove(&volume.image, &volume.metadata)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("in use elsewhere"), "{refused}");
        drop(disk);
        remove(&volume.image, &volume.metadata).unwrap();
        assert!(folder.is_empty());
    }
}

#[test]
fn what_cannot_be_made_is_refused_with_reason_and_leaves_nothing() {
    let folder = Folder::new();
    let refusal = |volume: &NewVolume| create(volume, &mut always).unwrap_err().to_string();
    let full = refusal(&folder.volume(1 << 60));
    assert!(
        full.contains("bytes free and ") && full.contains("are needed"),
        "{full}"
    );
    let none = refusal(&folder.volume(4095));
    assert!(none.contains("not a whole number of blocks"), "{none}");
    let folderless = NewVolume {
        image: folder.0.join("no/disk.img"),
        ..folder.volume(4096)
    };
    assert!(refusal(&folderless).contains("/no does not exist"));
    assert!(folder.is_empty());
    std::fs::write(folder.0.join("disk.img"), b"mine").unwrap();
    assert!(refusal(&folder.volume(4096)).contains("exists already"));
    assert_eq!(std::fs::read(folder.0.join("disk.img")).unwrap(), b"mine");
}

#[test]
fn a_creation_that_is_cancelled_or_fails_late_leaves_nothing_of_its_own() {
    let folder = Folder::new();
    let volume = folder.volume(1 << 20);
    let cancelled = create(&volume, &mut |_| false).unwrap_err().to_string();
    assert!(
        cancelled.contains("was cancelled") && folder.is_empty(),
        "{cancelled}"
    );
    std::fs::write(&volume.metadata, b"of another").unwrap();
    let refused = create(&volume, &mut always).unwrap_err().to_string();
    assert!(
        refused.contains("disk.img.meta exists already"),
        "{refused}"
    );
    assert!(!volume.image.exists() && volume.metadata.exists());
}
