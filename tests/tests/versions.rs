//! A partner or a disk of another version is refused, and it is said which side is to be upgraded.
#![expect(clippy::unwrap_used, reason = "a test speaks by failing")]

use lockstep_tests::VOLUME;
use lockstep_tests::node::START_LIMIT;
use lockstep_tests::pair::Pair;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Bytes of a hello; the version stands in bytes 8 and 9, and is looked at before anything else.
const HELLO: usize = 80;

/// Answers every caller with its own hello, as if spoken by that version.
fn speak(at: SocketAddr, version: u16) {
    let listener = TcpListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut hello = [0; HELLO];
            // A caller that goes away is followed by the next.
            if stream.read_exact(&mut hello).is_ok() {
                hello[8..10].copy_from_slice(&version.to_be_bytes());
                let _ = stream.write_all(&hello);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
}

#[test]
fn a_partner_of_another_version_is_refused_with_the_side_to_upgrade() {
    let cases = [
        (1, "upgrade Lockstep on the peer's machine"),
        (999, "upgrade Lockstep on this node"),
    ];
    for (version, todo) in cases {
        let mut pair = Pair::prepare("versions");
        // Node 2's control address for heartbeats.
        let portal = pair.nodes[1].portal;
        speak(SocketAddr::new(portal.ip(), portal.port() + 3), version);
        pair.nodes[0].start();
        pair.nodes[0].wait_for("a word on the version", START_LIMIT, |node| {
            let Ok(status) = node.client().status() else {
                return false;
            };
            let said = format!("protocol version {version}");
            let named = |text: &str| text.contains(&said) && text.contains(todo);
            !status.partner.up
                && status.partner.paths.iter().any(|path| named(&path.error))
                && status.concerns.iter().any(|it| named(&it.why))
        });
        let events = pair.nodes[0].client().events(0).unwrap();
        assert!(
            events.iter().any(|event| event.text.contains(todo)),
            "{events:?}"
        );
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn a_disk_of_another_version_is_refused_and_left_untouched() {
    let mut pair = Pair::with_volume("formats");
    assert!(pair.nodes[1].terminate().success());
    let images = pair.directory.path().join("node2/images");
    let files = std::fs::read_dir(images)
        .unwrap()
        .map(|it| it.unwrap().path());
    let mut metadata = files.filter(|path| path.extension().is_none_or(|it| it != "img"));
    let path = metadata.next().unwrap();
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    for (format, todo) in [
        (7_u16, "upgrade Lockstep on this node"),
        (0, "start the release that wrote it"),
    ] {
        for slot in [0, 4096] {
            let mut bytes = [0; 4096];
            file.read_exact_at(&mut bytes, slot).unwrap();
            bytes[8..10].copy_from_slice(&format.to_be_bytes());
            let crc = crc32c(&bytes[..4092]);
            bytes[4092..].copy_from_slice(&crc.to_be_bytes());
            file.write_all_at(&bytes, slot).unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        pair.nodes[1].start();
        pair.nodes[1].wait_for("a word on the format", START_LIMIT, |node| {
            let Ok(volume) = node.volume(VOLUME) else {
                return false;
            };
            let named = volume.reason.contains(&format!("has format {format}"));
            volume.state == "failed" && named && volume.reason.contains(todo)
        });
        assert!(pair.nodes[1].terminate().success());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
