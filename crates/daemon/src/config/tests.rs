//! What a configuration may say, and how a wrong one is refused.

use super::*;

fn parse(text: &str) -> Result<Config, Refusals> {
    Config::parse(Path::new("lockstep.toml"), text)
}

/// The least that is a configuration.
const SMALL: &str = "[cluster]\nuuid = \"6f0e4a1c-27f5-4d0b-9a36-0c1f5b7e9d42\"\n[node]\nnumber = 1\n[portals]\ndata = [\"192.0.2.1:3260\"]\n";

/// The example with one line exchanged; gives the message, which must name the line.
fn refused(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    let text = EXAMPLE.replacen(from, to, 1);
    let line = text
        .lines()
        .position(|line| line.contains(to) && !line.starts_with('#'))
        .unwrap()
        + 1;
    let message = parse(&text).unwrap_err().to_string();
    assert!(
        message.contains(&format!("lockstep.toml:{line}: ")),
        "line {line} of: {message}"
    );
    message
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let example: toml::Table = toml::from_str(EXAMPLE).unwrap();
    let defaults = toml::Table::try_from(parse(SMALL).unwrap()).unwrap();
    assert_eq!(example, defaults);
}

#[test]
fn every_key_of_the_example_stands_below_a_sentence() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(lines[index - 1].starts_with("# "), "{line}");
        }
    }
}

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    let message = refused("lease_ms = 1500", "lese_ms = 1500");
    assert!(
        message.contains("did you mean timeouts.lease_ms?"),
        "{message}"
    );
    let message = refused("[storage]", "[storrage]");
    assert!(message.contains("did you mean storage?"), "{message}");
    let message = refused("shards = 1", "threads_and_more = 1");
    assert!(
        message.contains("allowed here: pool_memory, shards"),
        "{message}"
    );
}

#[test]
fn a_key_in_the_wrong_section_is_pointed_home() {
    let message = refused("shards = 1", "lease_ms = 1500");
    assert!(
        message.contains("did you mean timeouts.lease_ms?"),
        "{message}"
    );
}

#[test]
fn wrong_values_are_refused_with_what_is_allowed() {
    let cases = [
        ("number = 1", "number = 3", "allowed: 1 or 2"),
        (
            "number = 1",
            "number = \"one\"",
            "node.number: invalid type",
        ),
        (
            "data = [\"192.0.2.1:3260\"]",
            "data = [\"192.0.2.1\"]",
            "allowed: IP:PORT",
        ),
        (
            "data = [\"192.0.2.1:3260\"]",
            "data = [\"192.0.2.1:99999\"]",
            "allowed: IP:PORT",
        ),
        (
            "data = [\"192.0.2.1:3260\"]",
            "data = [\"0.0.0.0:3260\"]",
            "one that others can connect to",
        ),
        (
            "priority = \"normal\"",
            "priority = \"urgent\"",
            "expected one of `low`, `normal`, `high`",
        ),
        ("every = \"\"", "every = \"monthly\"", "such as \"30d\""),
        ("every = \"\"", "every = \"0h\"", "allowed: 1h to 999d"),
        (
            "repair = \"report\"",
            "repair = \"mine\"",
            "expected one of `report`",
        ),
        ("floor = \"32MiB\"", "floor = \"1KiB\"", "allowed: 1MiB to"),
        (
            "data = [\"192.0.2.1:3260\"]",
            "data = []",
            "allowed: 1 to 32",
        ),
        (
            "data = [\"192.0.2.1:3260\"]",
            "data = [\"10.0.0.1:1\", \"10.0.0.1:1\"]",
            "used by portals.data already",
        ),
        (
            "pool_memory = \"256MiB\"",
            "pool_memory = \"1MiB\"",
            "allowed: 64MiB to 64GiB",
        ),
        (
            "pool_memory = \"256MiB\"",
            "pool_memory = \"256MeB\"",
            "is not a unit",
        ),
        ("uuid = \"6f0e", "uuid = \"6f0", "is not a UUID"),
        (
            "directories = [\"/var/lib",
            "directories = [\"var/lib",
            "begins with /",
        ),
        (
            "naming = \"com.example\"",
            "naming = \"Com Example\"",
            "reversed domain",
        ),
        (
            "sync_remote = []",
            "sync_remote = [\"10.0.0.2:7400\"]",
            "of which we have 0",
        ),
        ("connections = 2", "connections = 0", "allowed: 1 to 4"),
        ("connections = 2", "connections = 5", "allowed: 1 to 4"),
        ("lease_ms = 1500", "lease_ms = 500", "three heartbeats"),
        ("silent_ms = 2000", "silent_ms = 1000", "more than lease_ms"),
        ("path_ms = 5000", "path_ms = 4000", "more than 4000"),
        ("silent_ms = 2000", "silent_ms = 4000", "less than 4000"),
        ("shards = 1", "shards = 0", "allowed: 1 in this version"),
    ];
    for (from, to, expected) in cases {
        let message = refused(from, to);
        assert!(message.contains(expected), "{to}: {message}");
    }
}

#[test]
fn what_is_not_toml_is_refused_at_its_line() {
    let message = parse("[cluster]\nuuid = \n").unwrap_err().to_string();
    assert!(
        message.starts_with("lockstep.toml:2: not TOML"),
        "{message}"
    );
}

#[test]
fn what_has_no_default_must_be_there() {
    let message = parse(&SMALL.replace("number = 1", ""))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(":3: [node] lacks the key `number`"),
        "{message}"
    );
    let message =
        parse("[cluster]\nuuid = \"6f0e4a1c-27f5-4d0b-9a36-0c1f5b7e9d42\"\n").unwrap_err();
    assert!(
        message
            .to_string()
            .contains("the section [node] is missing"),
        "{message}"
    );
}

#[test]
fn several_mistakes_are_told_at_once_in_the_order_of_lines() {
    let text = EXAMPLE
        .replace("number = 1", "number = 7")
        .replace("shards = 1", "shards = 9");
    let refusals = parse(&text).unwrap_err().refusals;
    assert_eq!(refusals.len(), 2);
    assert!(refusals[0].line < refusals[1].line);
}

#[test]
fn heartbeats_use_the_port_after_a_sync_link() {
    let text = format!(
        "{SMALL}[partner]\nsync_local = [\"10.0.0.1:7400\"]\nsync_remote = [\"10.0.0.2:7400\"]\nheartbeat_local = [\"10.9.0.1:7500\"]\nheartbeat_remote = [\"10.9.0.2:7500\"]\n"
    );
    let paths = parse(&text).unwrap().control_paths();
    assert_eq!(paths[0].remote, "10.0.0.2:7401".parse().unwrap());
    assert_eq!(paths[1].remote, "10.9.0.2:7500".parse().unwrap());
    let clash = text.replace("10.9.0.1:7500", "10.0.0.1:7401");
    assert!(
        parse(&clash)
            .unwrap_err()
            .to_string()
            .contains("used by partner.sync_local already")
    );
}
