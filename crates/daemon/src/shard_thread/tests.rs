//! The thread with a real shard, real sockets and real files, and an initiator by bytes.

mod initiator;

use super::*;
use crate::pool_memory;
use crate::provision::{self, NewVolume};
use crate::store::DiskSpec;
use initiator::Initiator;
use lockstep_engine::interface::VolumeSettings;
use lockstep_engine::interface::iscsi::{Settings, TargetId, TargetSettings};
use lockstep_engine::interface::scsi::{AccessState, Identity, PortGroup};
use lockstep_mirror::control::{
    CacheMode, Configuration, FromVolume, Incarnation, Members, NodeId, ToVolume, VolumeSpec,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::time::Instant;

const VOLUME: VolumeId = VolumeId(0x1234_5678_9abc);
const SIZE: u64 = 32 << 20;
const TARGET: &str = "iqn.2026-11.test:disk";
const ME: NodeId = NodeId(1);

/// A node of one shard that serves one volume without a partner.
struct Node {
    shard: ShardHandle,
    reports: mpsc::Receiver<FromThread>,
    portal: SocketAddr,
    folder: PathBuf,
}

impl Node {
    fn start(root: &Path, cache: CacheMode, stall: Duration) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = root.join(format!("lockstep-thread-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (image, metadata) = (folder.join("image"), folder.join("image.meta"));
        let new = NewVolume {
            image: image.clone(),
            metadata: metadata.clone(),
            size: SIZE,
            block_size: 4096,
            prefill: false,
        };
        provision::create(&new, &mut |_| true).unwrap();
        let disk = Disk::open(
            &DiskSpec {
                image,
                metadata,
                size: SIZE,
                block_size: 4096,
                cache,
            },
            Duration::ZERO,
        )
        .unwrap();
        let (shard, reports) = spawn(ShardThreadConfig {
            portals: vec!["127.0.0.1:0".parse().unwrap()],
            sync_listen: Vec::new(),
            partner_sync: Vec::new(),
            pool: pool_memory::classes(pool_memory::POOL_MIN),
            seed: [7; 32],
            cpu: None,
            stall,
            recorder: None,
        })
        .unwrap();
        let mut node = Self {
            shard,
            reports,
            portal: "127.0.0.1:1".parse().unwrap(),
            folder,
        };
        node.serve(disk, cache);
        node
    }

    /// What the control thread would say.
    fn serve(&mut self, disk: Disk, cache: CacheMode) {
        let target = TargetSettings {
            id: TargetId(0),
            name: TARGET.into(),
            alias: String::new(),
            chap: Vec::new(),
            mutual: None,
            allow: Vec::new(),
        };
        let settings = Settings {
            targets: vec![target],
            group: 1,
            login_timeout_s: 10,
            max_receive: 65_536,
            max_burst: 262_144,
            first_burst: 65_536,
            command_window: 64,
            max_connections: 64,
            max_half_open: 16,
            ..Settings::default()
        };
        let spec = VolumeSpec {
            id: VOLUME,
            size: SIZE,
            block_size: 4096,
            cache,
            me: ME,
            partner: None,
            incarnation: Incarnation(1),
        };
        let volume = VolumeSettings {
            spec,
            identity: Identity {
                uuid: VOLUME.0,
                target_name: TARGET.into(),
            },
            target: 0,
            lun: 0,
            unmap: true,
            physical_exponent: 0,
        };
        let configuration = Configuration {
            epoch: 1,
            generation: 1,
            members: Members::only(ME),
            owner: ME,
            unilateral: false,
            witness: None,
        };
        let groups = vec![PortGroup {
            group: 256,
            ports: vec![256],
            state: AccessState::Optimized,
        }];
        self.order(ToShard::Settings(Box::new(settings)));
        self.send(ToThread::AttachDisk {
            volume: VOLUME,
            disk: Box::new(disk),
        });
        self.order(ToShard::Attach(Box::new(volume)));
        self.order(ToShard::PortGroups(VOLUME, groups));
        self.order(ToShard::Volume(VOLUME, ToVolume::Open { blank: true }));
        self.hear(|report| {
            matches!(
                report,
                FromThread::Shard(FromShard::Volume(_, FromVolume::Opened { .. }))
            )
        });
        self.order(ToShard::Volume(
            VOLUME,
            ToVolume::Serve {
                configuration,
                partner_incarnation: None,
                not_before: Time::ZERO,
                joined: false,
            },
        ));
        self.hear(|report| {
            matches!(
                report,
                FromThread::Shard(FromShard::Volume(_, FromVolume::Serving { .. }))
            )
        });
        self.open();
    }

    fn open(&mut self) {
        self.send(ToThread::OpenPortals);
        let FromThread::Listening { address } =
            self.hear(|report| matches!(report, FromThread::Listening { .. }))
        else {
            unreachable!("heard")
        };
        self.portal = address;
    }

    fn send(&self, order: ToThread) {
        self.shard.send(order).unwrap();
    }

    fn order(&self, order: ToShard) {
        self.send(ToThread::Order(Box::new(order)));
    }

    /// Waits for a report.
    fn hear(&mut self, wanted: impl Fn(&FromThread) -> bool) -> FromThread {
        let begin = Instant::now();
        loop {
            match self.reports.try_recv() {
                Ok(report) if wanted(&report) => return report,
                Ok(_) => {}
                Err(_) => {
                    assert!(
                        begin.elapsed() < Duration::from_secs(10),
                        "a report that never comes"
                    );
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shard.end();
        // A failing test says why; what it leaves behind is of no importance then.
        let _left_behind = std::fs::remove_dir_all(&self.folder);
    }
}

fn disk() -> PathBuf {
    std::env::temp_dir()
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| u8::try_from((n / 4096 * 31 + n % 4096 * 7 + seed) % 251).unwrap())
        .collect()
}

#[test]
fn what_an_initiator_writes_is_read_back_and_stands_in_the_image() {
    let roots = [
        (disk(), CacheMode::None),
        (disk(), CacheMode::WriteBack),
        ("/dev/shm".into(), CacheMode::WriteThrough),
    ];
    for (root, cache) in roots {
        for digests in [false, true] {
            let node = Node::start(&root, cache, Duration::from_secs(10));
            let mut initiator = Initiator::login(node.portal, TARGET, digests).unwrap();
            for (seed, blocks) in [1, 2, 16, 17, 64, 255].into_iter().enumerate() {
                let data = pattern(seed, blocks * 4096);
                assert_eq!(initiator.write(100, &data).status, 0);
                let answer = initiator.read(100, u16::try_from(blocks).unwrap());
                assert!(answer.status == 0 && answer.data == data, "{blocks} blocks");
            }
            let last = pattern(5, 255 * 4096);
            let mut sync = [0; 16];
            sync[0] = 0x35;
            assert_eq!(initiator.command(&sync, &[], 0).status, 0);
            let image = std::fs::read(node.folder.join("image")).unwrap();
            assert!(
                image[100 * 4096..][..last.len()] == last
                    && image[..100 * 4096].iter().all(|&byte| byte == 0)
            );
        }
    }
}

#[test]
fn many_commands_at_once_share_sends() {
    let node = Node::start(
        Path::new("/dev/shm"),
        CacheMode::WriteThrough,
        Duration::from_secs(10),
    );
    let mut initiator = Initiator::login(node.portal, TARGET, false).unwrap();
    let data = pattern(3, 32 * 4096);
    assert_eq!(initiator.write(0, &data).status, 0);
    for _ in 0..50 {
        for block in 0..32 {
            let mut cdb = [0; 16];
            (cdb[0], cdb[5], cdb[8]) = (0x28, block, 1);
            initiator.start(&cdb, &[], 4096);
        }
        for block in 0..32 {
            let (header, got) = initiator.receive();
            assert_eq!((header[0] & 0x3f, header[3]), (0x25, 0));
            assert!(got == data[block * 4096..][..4096]);
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    let Snapshot { shard, driver } = node.shard.snapshot();
    assert_eq!(shard.sessions, 1);
    assert!(
        driver.sends < 1600,
        "{} sends for 1600 answers",
        driver.sends
    );
}

#[test]
fn a_connection_that_talks_nonsense_is_closed_and_others_go_on() {
    let node = Node::start(
        Path::new("/dev/shm"),
        CacheMode::WriteThrough,
        Duration::from_secs(10),
    );
    let mut initiator = Initiator::login(node.portal, TARGET, false).unwrap();
    assert_eq!(
        Initiator::login(node.portal, "iqn.2026-11.test:none", false).err(),
        Some(0x0203),
        "no such target"
    );
    let mut stranger = TcpStream::connect(node.portal).unwrap();
    stranger.write_all(&[0xff; 4096]).unwrap();
    stranger
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let ended = stranger.read_to_end(&mut Vec::new());
    assert!(
        ended.is_ok()
            || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    assert_eq!(initiator.read(0, 1).status, 0);
}

#[test]
fn a_peer_that_does_not_read_is_given_up_and_others_go_on() {
    let node = Node::start(
        Path::new("/dev/shm"),
        CacheMode::WriteThrough,
        Duration::from_millis(500),
    );
    let mut initiator = Initiator::login(node.portal, TARGET, false).unwrap();
    let mut deaf = Initiator::login(node.portal, TARGET, false).unwrap();
    let mut cdb = [0; 16];
    (cdb[0], cdb[8]) = (0x28, 255);
    for _ in 0..40 {
        deaf.start(&cdb, &[], 255 * 4096);
    }
    let begin = Instant::now();
    while node.shard.snapshot().driver.stalled == 0 {
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "it is never given up"
        );
        assert_eq!(initiator.read(1, 1).status, 0);
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        (
            node.shard.snapshot().shard.sessions,
            node.shard.snapshot().shard.buffers
        ),
        (1, 0)
    );
}

#[test]
fn closed_portals_refuse_and_existing_connections_stay() {
    let mut node = Node::start(
        Path::new("/dev/shm"),
        CacheMode::WriteThrough,
        Duration::from_secs(10),
    );
    let mut initiator = Initiator::login(node.portal, TARGET, false).unwrap();
    node.send(ToThread::ClosePortals);
    let begin = Instant::now();
    while TcpStream::connect(node.portal).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it still accepts");
    }
    assert_eq!(initiator.read(0, 1).status, 0);
    node.open();
    assert_eq!(
        Initiator::login(node.portal, TARGET, false)
            .unwrap()
            .read(0, 1)
            .status,
        0
    );
}

#[test]
fn an_address_that_is_not_ours_is_reported_once_and_tried_again() {
    let (shard, mut reports) = spawn(ShardThreadConfig {
        portals: vec!["192.0.2.1:3260".parse().unwrap()],
        sync_listen: Vec::new(),
        partner_sync: Vec::new(),
        pool: pool_memory::classes(0),
        seed: [0; 32],
        cpu: None,
        stall: Duration::from_secs(1),
        recorder: None,
    })
    .unwrap();
    shard.send(ToThread::OpenPortals).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let Ok(FromThread::NotListening { error, .. }) = reports.try_recv() else {
        panic!("a refusal")
    };
    assert_eq!(error, Errno::ADDRNOTAVAIL);
    assert!(reports.try_recv().is_err(), "said once");
    shard.stop();
}

#[test]
fn the_stamp_goes_on_while_nothing_happens_and_stops_with_the_thread() {
    let mut node = Node::start(
        Path::new("/dev/shm"),
        CacheMode::WriteThrough,
        Duration::from_secs(1),
    );
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(60));
        let now = u64::try_from(boot_time().as_millis()).unwrap();
        assert!(
            now - node.shard.stamp() < 200,
            "it turns at least every 100 ms"
        );
    }
    node.shard.end();
    assert!(node.shard.send(ToThread::OpenPortals).is_err());
}

#[test]
fn a_stopped_thread_lets_the_volume_go() {
    let mut node = Node::start(&disk(), CacheMode::None, Duration::from_secs(1));
    let spec = DiskSpec {
        image: node.folder.join("image"),
        metadata: node.folder.join("image.meta"),
        size: SIZE,
        block_size: 4096,
        cache: CacheMode::None,
    };
    assert!(Disk::open(&spec, Duration::ZERO).is_err());
    node.shard.end();
    Disk::open(&spec, Duration::ZERO).unwrap();
}

#[test]
fn two_threads_find_each_other_and_a_dial_to_nobody_is_tried_again() {
    let secret: Box<[u8]> = Box::from([9; 32]);
    let partner = |node, me, dial| ToShard::Partner {
        node: NodeId(node),
        me: NodeId(me),
        incarnation: Incarnation(u64::from(me)),
        addresses: 1,
        connections: 1,
        dial,
        secret: secret.clone(),
        cluster: 5,
    };
    let config = |sync_listen: Vec<SocketAddr>, partner_sync: Vec<SocketAddr>| ShardThreadConfig {
        portals: Vec::new(),
        sync_listen,
        partner_sync: partner_sync.into_iter().map(|to| (to.ip(), to)).collect(),
        pool: pool_memory::classes(0),
        seed: [3; 32],
        cpu: None,
        stall: Duration::from_secs(5),
        recorder: None,
    };
    // An address of which nobody but us knows.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (dialer, _dialer_reports) = spawn(config(Vec::new(), vec![address])).unwrap();
    dialer
        .send(ToThread::Order(Box::new(partner(2, 1, true))))
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let (listener, mut reports) = spawn(config(vec![address], Vec::new())).unwrap();
    listener
        .send(ToThread::Order(Box::new(partner(1, 2, false))))
        .unwrap();
    assert!(matches!(
        reports.blocking_recv(),
        Some(FromThread::Listening { .. })
    ));
    let begin = Instant::now();
    while dialer.snapshot().shard.channels != 1 || listener.snapshot().shard.channels != 1 {
        assert!(begin.elapsed() < Duration::from_secs(10), "they never meet");
        std::thread::sleep(Duration::from_millis(20));
    }
    dialer.stop();
    while listener.snapshot().shard.channels != 0 {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "a lost channel goes unnoticed"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A slot was handed to a new connection before the shard had heard that the old one was closed,
/// when both came out of the ring in the same turn.
#[test]
fn connections_that_come_and_go_in_one_turn_do_not_share_a_name() {
    let node = Node::start(
        Path::new("/dev/shm"),
        CacheMode::WriteThrough,
        Duration::from_secs(10),
    );
    let portal = node.portal;
    let churn = || {
        for _ in 0..300 {
            // Refused is as good: it must only go on.
            let _stranger =
                TcpStream::connect(portal).and_then(|mut stranger| stranger.write_all(&[0xff; 48]));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(churn);
        }
    });
    // The strangers that still wait to be accepted would push a login out: some turns without any.
    let begin = Instant::now();
    let mut quiet_since = u64::MAX;
    loop {
        let Snapshot { shard, driver } = node.shard.snapshot();
        quiet_since = if shard.connections > 0 {
            u64::MAX
        } else {
            quiet_since.min(driver.turns)
        };
        if quiet_since != u64::MAX && driver.turns >= quiet_since + 8 {
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "strangers that never go"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut initiator = Initiator::login(portal, TARGET, false).unwrap();
    assert_eq!(initiator.read(0, 1).status, 0);
}
