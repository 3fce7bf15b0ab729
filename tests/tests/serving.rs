//! One node without a partner serves a disk to any initiator.
#![expect(
    clippy::unwrap_used,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_api::quantity::Size;
use lockstep_api::volume::CreateVolume;
use lockstep_initiator::client::Client;
use lockstep_initiator::core::command::{Capacity, Command};
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::core::session::{Function, Parameters, Purpose};
use lockstep_initiator::core::wire::Digests;
use lockstep_initiator::driver::PathSettings;
use lockstep_initiator::load::Load;
use lockstep_initiator::verify;
use lockstep_tests::node::{Node, free_addresses};
use lockstep_tests::temporary::Directory;
use lockstep_tests::{INITIATOR, LUN, VOLUME, content};
use std::time::Duration;

const SIZE: u64 = 32 << 20;

/// A node alone, with its volume.
struct Alone {
    node: Node,
    target: String,
    _directory: Directory,
}

impl Alone {
    fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        let [portal, _] = free_addresses();
        let mut node = Node::prepare(directory.path(), 1, portal, None);
        node.start();
        let request = CreateVolume {
            name: VOLUME.into(),
            size: Size(SIZE),
            ..CreateVolume::default()
        };
        node.client().create_volume(&request).unwrap();
        let mut alone = Self {
            node,
            target: String::new(),
            _directory: directory,
        };
        alone.wait_serving();
        alone.target = alone.node.volume(VOLUME).unwrap().target;
        alone
    }

    fn wait_serving(&mut self) {
        self.node
            .wait_for("a served volume", Duration::from_secs(30), |node| {
                node.volume(VOLUME)
                    .is_ok_and(|volume| volume.state.starts_with("serving"))
            });
    }

    fn parameters(&self) -> Parameters {
        Parameters::new(
            INITIATOR,
            Purpose::Normal {
                target: self.target.clone(),
            },
        )
    }

    fn login(&self) -> Client {
        Client::login(self.node.portal, self.parameters()).unwrap()
    }
}

#[test]
fn it_is_found_and_says_what_it_is() {
    let alone = Alone::start("identity");
    let mut discovery = Client::login(
        alone.node.portal,
        Parameters::new(INITIATOR, Purpose::Discovery),
    )
    .unwrap();
    let found = discovery.discover().unwrap();
    discovery.logout().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].name, alone.target);
    assert_eq!(found[0].portals, [format!("{},1", alone.node.portal)]);

    let mut client = alone.login();
    let capacity = client
        .run_past_attentions(&Command::read_capacity(LUN))
        .unwrap();
    assert_eq!(
        Capacity::parse(&capacity.data),
        Some(Capacity {
            blocks: SIZE / 512,
            block_size: 512
        })
    );
    let inquiry = client.run(Command::inquiry(LUN)).unwrap().data;
    assert_eq!(&inquiry[8..32], b"LOCKSTEPMIRRORED VOLUME ");
    let luns = client.run(Command::report_luns()).unwrap().data;
    assert_eq!(luns, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    client.logout().unwrap();
}

#[test]
fn what_is_written_is_read_and_stands_in_the_image_with_every_negotiation() {
    let mut alone = Alone::start("negotiation");
    let image = alone.node.volume(VOLUME).unwrap().replicas[0].image.clone();
    let mut ledger = None;
    for (digests, initial_r2t, immediate, max_burst) in [
        (Digests::default(), false, true, 16_776_192),
        (
            Digests {
                header: true,
                data: true,
            },
            false,
            true,
            65_536,
        ),
        (
            Digests {
                header: true,
                data: false,
            },
            true,
            false,
            8192,
        ),
        (
            Digests {
                header: false,
                data: true,
            },
            true,
            true,
            262_144,
        ),
        (Digests::default(), false, false, 262_144),
    ] {
        let parameters = Parameters {
            digests,
            initial_r2t,
            immediate,
            max_burst,
            ..alone.parameters()
        };
        let asked = Client::login(alone.node.portal, parameters.clone()).unwrap();
        assert_eq!(asked.session().negotiated().digests, digests);
        asked.logout().unwrap();
        let path = PathSettings {
            address: alone.node.portal,
            parameters,
        };
        let settings = lockstep_initiator::load::LoadSettings {
            longest: 600,
            ..content::load(SIZE)
        };
        let load = Load::start(Options::default(), vec![path], settings, ledger.take());
        std::thread::sleep(Duration::from_secs(1));
        let mut report = load.finish().unwrap();
        content::assert_clean(&report);
        let findings = verify::image(image.as_ref(), &mut report.ledger).unwrap();
        assert!(findings.is_clean(), "{findings:?}");
        ledger = Some(report.ledger);
    }
    // A planned stop and a start change nothing.
    assert!(alone.node.terminate().success());
    alone.node.start();
    alone.wait_serving();
    let findings = verify::through(&mut alone.login(), LUN, 512, &mut ledger.unwrap()).unwrap();
    assert!(findings.is_clean() && findings.checked > 0, "{findings:?}");
}

#[test]
fn it_answers_questions_and_management() {
    let alone = Alone::start("management");
    let mut client = alone.login();
    assert_eq!(
        client
            .run_past_attentions(&Command::test_unit_ready(LUN))
            .unwrap()
            .status,
        0
    );
    assert_eq!(client.run(Command::flush(LUN)).unwrap().status, 0);
    let pages = client.run(Command::vital_page(LUN, 0)).unwrap().data;
    assert!(
        [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]
            .iter()
            .all(|page| pages[4..].contains(page)),
        "{pages:x?}"
    );
    assert_eq!(client.manage(LUN, Function::LunReset).unwrap(), 0);
    // 29h: the reset is told once.
    assert_eq!(client.run(Command::test_unit_ready(LUN)).unwrap().status, 2);
    assert_eq!(client.run(Command::test_unit_ready(LUN)).unwrap().status, 0);
    let beyond = client.run(Command::read(LUN, SIZE / 512, 1, 512)).unwrap();
    let sense = lockstep_initiator::core::sense::parse(&beyond.sense).unwrap();
    assert_eq!(sense.to_string(), "5/21/00");
    let other = client.run(Command::test_unit_ready(7)).unwrap();
    assert_eq!(
        lockstep_initiator::core::sense::parse(&other.sense)
            .unwrap()
            .to_string(),
        "5/25/00"
    );
    client.logout().unwrap();
}
