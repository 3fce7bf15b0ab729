//! A wrong configuration is refused at the start: with file, line, what is wrong, what is allowed.

use lockstep_tests::node::{Node, free_addresses};
use lockstep_tests::pair::{Pair, write_secret};
use lockstep_tests::temporary::Directory;

fn node(directory: &Directory) -> Node {
    let [portal, partner] = free_addresses();
    let secret = directory.path().join("secret");
    write_secret(&secret, "sixteen bytes and more");
    Node::prepare(directory.path(), 1, portal, Some((partner, &secret)))
}

/// The line on which `text` first holds `part`, counted from 1.
fn line_of(text: &str, part: &str) -> usize {
    1 + text
        .lines()
        .position(|line| line.contains(part))
        .expect("it is there")
}

#[test]
fn every_wrong_line_is_named_with_what_is_allowed() {
    let directory = Directory::new("config");
    let node = node(&directory);
    let right = node.config();
    let size = "pool_memory = \"64MiB\"";
    for (from, to, says) in [
        (size, "pool_memroy = \"64MiB\"", "pool_memory"),
        (size, "pool_memory = \"64MiBytes\"", "MiB"),
        (size, "pool_memory = \"1KiB\"", "64MiB to 64GiB"),
        (size, "pool_memory = 64 MiB", ""),
        ("number = 1", "number = 3", "1 or 2"),
        ("number = 1", "number = \"one\"", ""),
        (":3260\"]", ":326000\"]", "IP:PORT"),
        (":3260\"]", ":0\"]", "1 to 65535"),
        ("uuid = \"6f0e", "uuid = \"zzzz", "hexadecimal"),
        (
            "state_directory = \"/",
            "state_directory = \"",
            "begins with /",
        ),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from} is in the configuration");
        node.write_config(&wrong);
        let (code, said) = node.refusal();
        assert!(code.is_some_and(|code| code != 0), "{to}: {said}");
        let place = format!("{}:{}", node.config_file().display(), line_of(&wrong, to));
        assert!(said.contains(&place), "{to}: {place} is not named: {said}");
        assert!(said.contains(says), "{to}: {says:?} is not said: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_file_that_is_missing_or_no_text_is_named() {
    let directory = Directory::new("nofile");
    let node = node(&directory);
    std::fs::write(node.config_file(), [0xff, 0xfe, 0, 1]).unwrap();
    std::fs::remove_file(directory.path().join("secret")).unwrap();
    for _ in 0..2 {
        let (code, said) = node.refusal();
        assert!(code.is_some_and(|code| code != 0), "{said}");
        assert!(
            said.contains(&*node.config_file().to_string_lossy()),
            "{said}"
        );
        let _ = std::fs::remove_file(node.config_file());
    }
}

#[test]
fn a_secret_that_is_short_missing_or_readable_by_others_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("secret");
    let node = node(&directory);
    let secret = directory.path().join("secret");
    write_secret(&secret, "short");
    let (_, said) = node.refusal();
    assert!(
        said.contains(&*secret.to_string_lossy()) && said.contains("16"),
        "{said}"
    );
    assert!(
        !said.contains("short;") && !said.contains("\"short\""),
        "the secret is shown: {said}"
    );
    write_secret(&secret, "sixteen bytes and more");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (_, said) = node.refusal();
    assert!(said.contains(&*secret.to_string_lossy()), "{said}");
    std::fs::remove_file(&secret).unwrap();
    let (_, said) = node.refusal();
    assert!(said.contains(&*secret.to_string_lossy()), "{said}");
}

#[test]
fn an_address_in_use_is_named() {
    let pair = Pair::prepare("inuse");
    let _taken = std::net::TcpListener::bind(pair.nodes[0].portal).unwrap();
    let (code, said) = pair.nodes[0].refusal();
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(said.contains(&pair.nodes[0].portal.to_string()), "{said}");
}

#[test]
fn there_is_nothing_to_choose_while_both_nodes_hold_the_same() {
    let pair = Pair::start("nochoice");
    let why = pair.nodes[0]
        .client()
        .keep_config()
        .expect_err("both hold the same")
        .to_string();
    assert!(why.contains("do not hold different ones"), "{why}");
}
