//! libiscsi's tools and QEMU, with a real file system made on the spot.

use lockstep_api::pool::SetAccount;
use lockstep_api::quantity::Size;
use lockstep_api::volume::CreateVolume;
use lockstep_tests::LUN;
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::program::{Ended, run};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const SECRET: &str = "correct-horse-battery";

#[test]
fn iscsi_ls_and_iscsi_inq_see_both_nodes_and_one_disk() {
    let pair = Pair::with_volume("ls");
    for node in &pair.nodes {
        let listed = run(
            "iscsi-ls",
            ["-s", &format!("iscsi://{}/", node.portal)],
            LIMIT,
        )
        .success();
        for other in &pair.nodes {
            let line = format!(
                "Target:{} Portal:{},{}",
                pair.target, other.portal, other.number
            );
            assert!(listed.contains(&line), "{line}\nis not in\n{listed}");
        }
        assert!(listed.contains("Lun:0"), "{listed}");
    }
    let inquiries = [0, 1].map(|node| run("iscsi-inq", [pair.url(node)], LIMIT).success());
    assert_eq!(inquiries[0], inquiries[1]);
    assert!(inquiries[0].contains("Vendor:LOCKSTEP"), "{}", inquiries[0]);
    let serials = [0, 1].map(|node| {
        run(
            "iscsi-inq",
            ["-e", "1", "-c", "128", &pair.url(node)],
            LIMIT,
        )
        .success()
    });
    assert_eq!(serials[0], serials[1]);
}

/// An ext4 file system of the volume's size with this project's sources in it.
fn file_system(directory: &Path) -> PathBuf {
    let image = directory.join("ext4.img");
    let content = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates");
    let size = format!("{}k", SIZE >> 10);
    let arguments = ["-q", "-F", "-d", content, &image.to_string_lossy(), &size];
    let mkfs = if Path::new("/usr/sbin/mkfs.ext4").exists() {
        "/usr/sbin/mkfs.ext4"
    } else {
        "mkfs.ext4"
    };
    run(mkfs, arguments, LIMIT).success();
    image
}

/// Every call brings the file with the CHAP secret; an account that is not named is not used.
fn qemu_img(pair: &Pair, arguments: &[&str]) -> Ended {
    let file = pair.directory.path().join("chap");
    std::fs::write(&file, SECRET).expect("the test's directory can be written");
    let [verb, rest @ ..] = arguments else {
        panic!("qemu-img needs a verb")
    };
    let secret = format!("secret,id=chap,file={}", file.display());
    let all = [*verb, "--object", &secret].into_iter();
    run("qemu-img", all.chain(rest.iter().copied()), LIMIT)
}

/// How QEMU names the disk, with or without digests and an account.
fn qemu_url(pair: &Pair, node: usize, digest: &str, user: Option<&str>) -> String {
    let mut disk = serde_json::json!({
        "driver": "iscsi",
        "transport": "tcp",
        "portal": pair.nodes[node].portal.to_string(),
        "target": pair.target,
        "lun": LUN,
        "header-digest": digest,
    });
    if let Some(user) = user {
        disk["user"] = user.into();
        disk["password-secret"] = "chap".into();
    }
    format!(
        "json:{}",
        serde_json::json!({ "driver": "raw", "file": disk })
    )
}

fn written_through_one_read_through_the_other(
    pair: &Pair,
    digest: &str,
    user: Option<&str>,
) -> PathBuf {
    let image = file_system(pair.directory.path());
    let [one, two] = [0, 1].map(|node| qemu_url(pair, node, digest, user));
    let source = image.to_string_lossy();
    qemu_img(pair, &["convert", "-n", "-f", "raw", &source, &one]).success();
    for url in [&two, &one] {
        let compared = qemu_img(pair, &["compare", "-f", "raw", &source, url]).success();
        assert!(compared.contains("identical"), "{compared}");
    }
    image
}

#[test]
fn qemu_writes_a_file_system_through_one_node_and_reads_it_through_the_other() {
    let pair = Pair::with_volume("qemu");
    let image = written_through_one_read_through_the_other(&pair, "none", None);
    written_through_one_read_through_the_other(&pair, "crc32c", None);
    // The image is the plain disk: any tool reads it without us.
    for node in 0..2 {
        let same = lockstep_initiator::verify::first_difference(&image, &pair.image(node)).unwrap();
        assert_eq!(same, None, "image of node{}", node + 1);
    }
}

#[test]
fn qemu_logs_in_with_chap() {
    let mut pair = Pair::start("qemuchap");
    let account = SetAccount {
        name: "qemu".into(),
        secret: SECRET.into(),
    };
    pair.nodes[0].client().set_account(&account).unwrap();
    let volume = CreateVolume {
        size: Size(SIZE),
        accounts: vec!["qemu".into()],
        ..CreateVolume::default()
    };
    pair.create(&volume);
    written_through_one_read_through_the_other(&pair, "crc32c", Some("qemu"));
    let refused = qemu_img(&pair, &["info", &qemu_url(&pair, 0, "none", None)]);
    assert_ne!(refused.code, Some(0), "{}", refused.text);
}

#[test]
fn qemu_finds_its_file_system_after_a_kill_a_restart_and_a_resync() {
    let mut pair = Pair::with_volume("qemukill");
    let image = file_system(pair.directory.path());
    let source = image.to_string_lossy().into_owned();
    pair.nodes[0].kill();
    qemu_img(
        &pair,
        &[
            "convert",
            "-n",
            "-f",
            "raw",
            &source,
            &qemu_url(&pair, 1, "none", None),
        ],
    )
    .success();
    pair.nodes[0].start();
    pair.wait_mirrored();
    for node in [0, 1] {
        let compared = qemu_img(
            &pair,
            &[
                "compare",
                "-f",
                "raw",
                &source,
                &qemu_url(&pair, node, "none", None),
            ],
        )
        .success();
        assert!(compared.contains("identical"), "{compared}");
    }
}
