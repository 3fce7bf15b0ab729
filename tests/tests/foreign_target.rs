//! Our initiator against a target that is not ours (Debian's tgt), so that what it says of our
//! daemons can be believed.

use lockstep_initiator::client::Client;
use lockstep_initiator::core::chap::Account;
use lockstep_initiator::core::command::{Capacity, Command};
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::core::session::{Parameters, Purpose};
use lockstep_initiator::core::wire::Digests;
use lockstep_initiator::driver::PathSettings;
use lockstep_initiator::load::{Load, LoadSettings};
use lockstep_initiator::verify;
use lockstep_tests::node::free_addresses;
use lockstep_tests::temporary::Directory;
use lockstep_tests::wait_for;
use std::net::SocketAddr;
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const TARGET: &str = "iqn.2026-11.test.foreign:disk";
const SIZE: u64 = 16 << 20;

/// A running tgtd with one LUN (1) and two portals.
struct Tgtd {
    child: Child,
    control: String,
    portals: [SocketAddr; 2],
    directory: Directory,
}

impl Tgtd {
    fn start() -> Self {
        let directory = Directory::new("tgtd");
        let portals = free_addresses();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let control = std::process::id() % 1000 * 30 + NEXT.fetch_add(1, Ordering::Relaxed);
        let control = control.to_string();
        let portal = format!("portal={}", portals[0]);
        let child = Process::new("tgtd")
            .args(["-f", "-C", &control, "--iscsi", &portal])
            .stderr(Stdio::null())
            .spawn();
        let child = child.expect("tgtd: apt-get install tgt");
        let image = directory.path().join("image");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(SIZE))
            .expect("the test's directory can be written");
        let target = Self {
            child,
            control,
            portals,
            directory,
        };
        wait_for("tgtd", Duration::from_secs(10), || {
            target.admin("--mode system --op show")
        });
        let admin = |arguments: &str| assert!(target.admin(arguments), "tgtadm {arguments}");
        admin(&format!(
            "--lld iscsi --mode target --op new --tid 1 -T {TARGET}"
        ));
        admin(&format!(
            "--lld iscsi --mode logicalunit --op new --tid 1 --lun 1 -b {}",
            image.display()
        ));
        admin("--lld iscsi --mode target --op bind --tid 1 -I ALL");
        admin(&format!(
            "--lld iscsi --mode portal --op new --param portal={}",
            target.portals[1]
        ));
        target
    }

    fn admin(&self, arguments: &str) -> bool {
        let mut process = Process::new("tgtadm");
        process
            .args(["-C", &self.control])
            .args(arguments.split(' '))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        process.status().is_ok_and(|status| status.success())
    }

    fn parameters() -> Parameters {
        Parameters::new(
            "iqn.2026-11.test:initiator",
            Purpose::Normal {
                target: TARGET.into(),
            },
        )
    }
}

impl Drop for Tgtd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "foreign_: needs Debian's tgt, which takes port 3260 once it is installed"]
fn it_finds_and_reads_a_foreign_disk() {
    let target = Tgtd::start();
    let discovery = Parameters::new("iqn.2026-11.test:initiator", Purpose::Discovery);
    let mut client = Client::login(target.portals[0], discovery).unwrap();
    let found = client.discover().unwrap();
    assert_eq!(found[0].name, TARGET);
    client.logout().unwrap();

    let mut client = Client::login(target.portals[1], Tgtd::parameters()).unwrap();
    let capacity = client
        .run_past_attentions(&Command::read_capacity(1))
        .unwrap();
    assert_eq!(
        Capacity::parse(&capacity.data),
        Some(Capacity {
            blocks: SIZE / 512,
            block_size: 512
        })
    );
    let inquiry = client.run(Command::inquiry(1)).unwrap();
    assert_eq!(&inquiry.data[8..11], b"IET");
    client.logout().unwrap();
}

#[test]
#[ignore = "foreign_: needs Debian's tgt, which takes port 3260 once it is installed"]
fn a_verified_load_by_two_paths_is_clean_with_and_without_digests() {
    let target = Tgtd::start();
    for digests in [
        Digests::default(),
        Digests {
            header: true,
            data: true,
        },
    ] {
        let offer = if digests.header { "CRC32C" } else { "None" };
        for key in ["HeaderDigest", "DataDigest"] {
            assert!(target.admin(&format!(
                "--lld iscsi --mode target --op update --tid 1 -n {key} -v {offer}"
            )));
        }
        let paths = [1, 2].map(|path| {
            let isid = [0x80, 0, 0, 0, 0, path];
            let parameters = Parameters {
                digests,
                isid,
                initial_r2t: path == 1,
                max_burst: 65_536,
                ..Tgtd::parameters()
            };
            PathSettings {
                address: target.portals[usize::from(path) - 1],
                parameters,
            }
        });
        let settings = LoadSettings {
            volume: 1,
            lun: 1,
            block_size: 512,
            blocks: SIZE / 512,
            depth: 32,
            longest: 600,
            reads_percent: 50,
            zeroes_percent: 0,
            reads_beside_writes: false,
            seed: 7,
            bytes_per_second: None,
        };
        std::fs::write(
            target.directory.path().join("image"),
            vec![0; usize::try_from(SIZE).unwrap()],
        )
        .unwrap();
        let load = Load::start(Options::default(), paths.to_vec(), settings, None);
        std::thread::sleep(Duration::from_secs(2));
        let mut report = load.finish().unwrap();
        assert!(report.findings.is_clean(), "{:?}", report.findings.named);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(
            report.writes > 100 && report.reads > 100,
            "{} writes, {} reads",
            report.writes,
            report.reads
        );
        assert!(
            report.by_path.iter().all(|count| *count > 100),
            "{:?}",
            report.by_path
        );
        let findings =
            verify::image(&target.directory.path().join("image"), &mut report.ledger).unwrap();
        assert!(findings.is_clean(), "{:?}", findings.named);
        let mut client = Client::login(target.portals[0], Tgtd::parameters()).unwrap();
        assert_eq!(client.session().negotiated().digests, Digests::default());
        let findings = verify::through(&mut client, 1, 512, &mut report.ledger).unwrap();
        assert!(
            findings.is_clean() && findings.checked > 1000,
            "{findings:?}"
        );
    }
}

#[test]
#[ignore = "foreign_: needs Debian's tgt, which takes port 3260 once it is installed"]
fn chap_lets_in_who_knows_the_secret_and_nobody_else() {
    let target = Tgtd::start();
    assert!(
        target.admin("--lld iscsi --mode account --op new --user alice --password wonderland123")
    );
    assert!(target.admin("--lld iscsi --mode account --op bind --tid 1 --user alice"));
    let login = |secret: &[u8]| {
        let chap = Some(Account {
            name: "alice".into(),
            secret: secret.into(),
        });
        Client::login(
            target.portals[0],
            Parameters {
                chap,
                ..Tgtd::parameters()
            },
        )
        .map(drop)
    };
    login(b"wonderland123").unwrap();
    let refused = login(b"wonderland124").unwrap_err().to_string();
    assert!(refused.contains("authentication failure"), "{refused}");
}
