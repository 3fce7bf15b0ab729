//! The store against real files: on the disk's file system in every cache mode, and in memory.

use super::*;
use lockstep_engine::interface::IoKey;
use lockstep_mirror::control::{CacheMode, VolumeId};
use lockstep_mirror::operation::{BufferId, Extent, Payload};
use lockstep_mirror::volume_io::{Io, IoError, Value};
use lockstep_uring::{Arena, Ring, SlotClass};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const VOLUME: VolumeId = VolumeId(7);
const SIZE: u64 = 8 << 20;
const ZEROES: u32 = 4;

/// A directory that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(root: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("lockstep-store-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        File::create(path.join("image"))
            .unwrap()
            .set_len(SIZE)
            .unwrap();
        File::create(path.join("image.meta"))
            .unwrap()
            .set_len(65536)
            .unwrap();
        Self(path)
    }

    fn spec(&self, cache: CacheMode) -> DiskSpec {
        DiskSpec {
            image: self.0.join("image"),
            metadata: self.0.join("image.meta"),
            size: SIZE,
            block_size: 4096,
            cache,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

pub(super) struct World {
    ring: Ring,
    arena: Arena,
    store: Store,
    next: u64,
    folder: Folder,
}

impl World {
    /// With a disk that the caller has opened.
    pub(super) fn with_disk(disk: Disk) -> Self {
        Self::of(Folder::new(&std::env::temp_dir()), disk)
    }

    fn new(root: &str, cache: CacheMode) -> Self {
        let folder = Folder::new(Path::new(root));
        let disk = Disk::open(&folder.spec(cache), Duration::ZERO).unwrap();
        Self::of(folder, disk)
    }

    fn of(folder: Folder, disk: Disk) -> Self {
        let classes = [
            SlotClass {
                slots: 4,
                slot_bytes: 1 << 20,
            },
            SlotClass {
                slots: 1,
                slot_bytes: 256 << 10,
            },
        ];
        let mut store = Store::new(ZEROES);
        store.attach(VOLUME, disk);
        Self {
            ring: Ring::new(64).unwrap(),
            arena: Arena::new(&classes).unwrap(),
            store,
            next: 0,
            folder,
        }
    }

    fn start(&mut self, io: Io) -> IoKey {
        self.next += 1;
        let key = IoKey {
            volume: 3,
            id: self.next,
        };
        let mut machine = Machine {
            ring: &mut self.ring,
            arena: &mut self.arena,
        };
        self.store.start(&mut machine, key, VOLUME, io);
        key
    }

    fn turn(&mut self) {
        let mut completions = Vec::new();
        let mut machine = Machine {
            ring: &mut self.ring,
            arena: &mut self.arena,
        };
        self.store.settle(&mut machine);
        machine
            .ring
            .turn(Duration::from_millis(200), &mut completions)
            .unwrap();
        for completion in completions {
            self.store.completed(&mut machine, completion);
        }
    }

    fn end(&mut self) -> IoDone {
        let begin = Instant::now();
        loop {
            if let Some(done) = self.store.take_done() {
                return done;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "an operation never ends"
            );
            self.turn();
        }
    }

    fn run(&mut self, io: Io) -> Result<Value, IoError> {
        let key = self.start(io);
        let done = self.end();
        assert_eq!(done.key, key);
        done.result
    }

    fn payload(&mut self, slot: u32, byte: u8, len: u32) -> Payload {
        let bytes = self.arena.bytes_mut(slot, 0, len);
        bytes.fill(byte);
        Payload {
            buffer: buffer(slot),
            at: 0,
            len,
            crc: crc32c::crc32c(bytes),
        }
    }
}

fn buffer(slot: u32) -> BufferId {
    BufferId {
        slot,
        generation: 0,
    }
}

/// Single blocks keep what was written to them while their neighbours are written and zeroed.
pub(super) fn blocks_survive(world: &mut World, block: u32) {
    for number in 0..24u8 {
        let payload = world.payload(0, number + 1, block);
        let write = Io::Write {
            offset: u64::from(number) * u64::from(block),
            payload,
            durable: number % 2 == 0,
        };
        assert_eq!(world.run(write), Ok(Value::Done));
    }
    let zero = Extent {
        offset: 5 * u64::from(block),
        len: u64::from(block),
    };
    assert_eq!(
        world.run(Io::Zero {
            extent: zero,
            durable: true
        }),
        Ok(Value::Done)
    );
    let long = Extent {
        offset: 30 * u64::from(block),
        len: (1 << 20) + u64::from(block),
    };
    assert_eq!(
        world.run(Io::Zero {
            extent: long,
            durable: true
        }),
        Ok(Value::Done)
    );
    let read = Io::Read {
        extent: Extent {
            offset: 0,
            len: 24 * u64::from(block),
        },
        buffer: buffer(1),
        at: 0,
    };
    assert_eq!(world.run(read), Ok(Value::Done));
    for (number, bytes) in (1u8..).zip(world.arena.bytes(1, 0, 24 * block).chunks(block as usize)) {
        let expected = if number == 6 { 0 } else { number };
        assert!(bytes.iter().all(|&byte| byte == expected), "block {number}");
    }
}

/// Every manner of I/O that the store knows.
fn worlds() -> Vec<World> {
    let disk = std::env::temp_dir();
    let disk = disk.to_str().unwrap();
    let mut worlds: Vec<World> = [
        CacheMode::None,
        CacheMode::WriteThrough,
        CacheMode::WriteBack,
    ]
    .into_iter()
    .map(|cache| World::new(disk, cache))
    .collect();
    worlds.push(World::new("/dev/shm", CacheMode::WriteThrough));
    worlds
}

#[test]
fn what_is_written_is_read_and_stands_in_the_plain_file() {
    for mut world in worlds() {
        let payload = world.payload(0, 0xa5, 16384);
        assert_eq!(
            world.run(Io::Write {
                offset: 8192,
                payload,
                durable: true
            }),
            Ok(Value::Done)
        );
        let read = Io::Read {
            extent: Extent {
                offset: 4096,
                len: 24576,
            },
            buffer: buffer(1),
            at: 4096,
        };
        assert_eq!(world.run(read), Ok(Value::Done));
        let got = world.arena.bytes(1, 4096, 24576);
        let expected = |at: usize| if (4096..20480).contains(&at) { 0xa5 } else { 0 };
        assert!(
            got.iter()
                .enumerate()
                .all(|(at, &byte)| byte == expected(at))
        );
        let image = std::fs::read(world.folder.0.join("image")).unwrap();
        assert!(image[8192..24576].iter().all(|&byte| byte == 0xa5) && image[24576] == 0);
    }
}

#[test]
fn ranges_are_zeroed_whatever_their_length() {
    for mut world in worlds() {
        for offset in (0..SIZE).step_by(1 << 20) {
            let payload = world.payload(0, 0xff, 1 << 20);
            assert_eq!(
                world.run(Io::Write {
                    offset,
                    payload,
                    durable: false
                }),
                Ok(Value::Done)
            );
        }
        let short = Extent {
            offset: 4096,
            len: 8192,
        };
        let long = Extent {
            offset: 1 << 20,
            len: 5 << 20,
        };
        assert_eq!(
            world.run(Io::Zero {
                extent: short,
                durable: true
            }),
            Ok(Value::Done)
        );
        assert_eq!(
            world.run(Io::Discard {
                extent: long,
                durable: false
            }),
            Ok(Value::Done)
        );
        assert_eq!(world.run(Io::Flush), Ok(Value::Done));
        let image = std::fs::read(world.folder.0.join("image")).unwrap();
        for (at, &byte) in (0u64..).zip(&image) {
            let zero = [short, long]
                .iter()
                .any(|extent| extent.offset <= at && at < extent.end());
            assert_eq!(byte == 0, zero, "byte {at}");
        }
    }
}

#[test]
fn a_buffer_that_changed_is_not_written() {
    for mut world in worlds() {
        let payload = world.payload(0, 1, 4096);
        world.arena.bytes_mut(0, 4095, 1)[0] = 2;
        assert_eq!(
            world.run(Io::Write {
                offset: 0,
                payload,
                durable: true
            }),
            Err(IoError::Corrupt)
        );
        assert_eq!(std::fs::read(world.folder.0.join("image")).unwrap()[0], 0);
    }
}

#[test]
fn metadata_is_written_and_read() {
    for mut world in worlds() {
        let bytes: Box<[u8]> = (0..=255).collect();
        assert_eq!(
            world.run(Io::WriteMeta {
                offset: 4000,
                bytes: bytes.clone()
            }),
            Ok(Value::Done)
        );
        assert_eq!(
            world.run(Io::ReadMeta {
                offset: 4000,
                len: 256
            }),
            Ok(Value::Bytes(bytes))
        );
        assert_eq!(
            world.run(Io::ReadMeta {
                offset: 65536 - 8,
                len: 16
            }),
            Err(IoError::Unreadable),
            "beyond its end"
        );
    }
}

#[test]
fn many_durable_writes_share_flushes_and_all_end() {
    for mut world in worlds() {
        let payload = world.payload(0, 9, 4096);
        let mut keys: Vec<IoKey> = (0..64)
            .map(|n| {
                world.start(Io::Write {
                    offset: n * 4096,
                    payload,
                    durable: true,
                })
            })
            .collect();
        keys.push(world.start(Io::WriteMeta {
            offset: 0,
            bytes: Box::from([1; 512]),
        }));
        keys.push(world.start(Io::Flush));
        let mut ended: Vec<IoKey> = keys
            .iter()
            .map(|_| world.end())
            .map(|done| (done.key, done.result.unwrap()).0)
            .collect();
        ended.sort_unstable();
        assert_eq!(ended, keys);
        assert_eq!((world.ring.in_progress(), world.arena.loans()), (0, 0));
    }
}

#[test]
fn a_file_that_was_cut_is_unreadable_and_not_read_as_something_else() {
    for mut world in worlds() {
        File::options()
            .write(true)
            .open(world.folder.0.join("image"))
            .unwrap()
            .set_len(4096)
            .unwrap();
        let read = Io::Read {
            extent: Extent {
                offset: 0,
                len: 8192,
            },
            buffer: buffer(1),
            at: 0,
        };
        assert_eq!(world.run(read), Err(IoError::Unreadable));
    }
}

#[test]
fn a_volume_in_use_cannot_be_opened_until_it_is_let_go() {
    for mut world in worlds() {
        let spec = world.folder.spec(CacheMode::WriteThrough);
        let refused = Disk::open(&spec, Duration::ZERO).unwrap_err();
        assert!(
            refused.to_string().contains("in use elsewhere"),
            "{refused}"
        );
        let payload = world.payload(0, 1, 4096);
        world.start(Io::Write {
            offset: 0,
            payload,
            durable: true,
        });
        world.store.detach(VOLUME);
        assert_eq!(world.end().result, Ok(Value::Done));
        while world.store.take_detached().is_none() {
            world.turn();
        }
        Disk::open(&spec, Duration::ZERO).unwrap();
        let read = Io::Read {
            extent: Extent {
                offset: 0,
                len: 4096,
            },
            buffer: buffer(1),
            at: 0,
        };
        assert_eq!(
            world.run(read),
            Err(IoError::Unreadable),
            "nothing is attached any more"
        );
    }
}

#[test]
fn refusals_name_the_path_and_the_reason() {
    let folder = Folder::new(&std::env::temp_dir());
    let spec = folder.spec(CacheMode::None);
    let open = |spec: &DiskSpec| Disk::open(spec, Duration::ZERO).unwrap_err().to_string();
    let missing = open(&DiskSpec {
        image: folder.0.join("nothing"),
        ..spec.clone()
    });
    assert!(missing.contains("nothing does not exist"), "{missing}");
    let small = open(&DiskSpec {
        size: SIZE + 1,
        ..spec.clone()
    });
    assert!(
        small.contains("has 8388608 bytes and the volume needs 8388609"),
        "{small}"
    );
    let wrong = open(&DiskSpec {
        image: folder.0.clone(),
        ..spec.clone()
    });
    assert!(
        wrong.contains("neither a file nor a block device"),
        "{wrong}"
    );
    let no_metadata = open(&DiskSpec {
        metadata: folder.0.join("gone.meta"),
        ..spec
    });
    assert!(
        no_metadata.contains("gone.meta does not exist"),
        "{no_metadata}"
    );
}

#[test]
fn the_control_plane_reads_and_writes_metadata_beside_the_shard() {
    let folder = Folder::new(&std::env::temp_dir());
    let disk = Disk::open(&folder.spec(CacheMode::None), Duration::ZERO).unwrap();
    let metadata = disk.metadata().unwrap();
    metadata.write(4096, b"superblock").unwrap();
    let mut bytes = [0; 10];
    metadata.read(4096, &mut bytes).unwrap();
    assert_eq!(&bytes, b"superblock");
    assert!(metadata.read(65530, &mut bytes).is_err());
}
