//! What `lockstep demo` promises beside its own checks, which `cargo demo` runs.
#![expect(
    clippy::unwrap_used,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_initiator::client::Client;
use lockstep_initiator::core::chap::Account;
use lockstep_initiator::core::command::{Capacity, Command};
use lockstep_initiator::core::session::{Parameters, Purpose};
use lockstep_sim::replay::play;
use lockstep_tests::node::free_addresses;
use lockstep_tests::program::{self, run};
use lockstep_tests::temporary::Directory;
use lockstep_tests::{INITIATOR, LUN, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

/// Starts `lockstep demo --keep --json` with more arguments; the object that it prints.
fn keep(arguments: &[&str]) -> (Child, Value) {
    let mut command = Process::new(program::lockstep());
    command
        .args(["demo", "--keep", "--json"])
        .args(arguments)
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (
        child,
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}")),
    )
}

fn portal(ready: &Value, node: usize) -> SocketAddr {
    ready["nodes"][node]["portal"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn login(ready: &Value, node: usize, chap: Option<Account>) -> Client {
    let target = ready["target"].as_str().unwrap().into();
    let parameters = Parameters {
        chap,
        ..Parameters::new(INITIATOR, Purpose::Normal { target })
    };
    Client::login(portal(ready, node), parameters).unwrap()
}

/// The portal of the first node, and the base from which the demo counts it: what one demo finds
/// free by itself, another one that starts at the same moment may find as well.
fn portal_base() -> (SocketAddr, String) {
    let [first, _] = free_addresses();
    let IpAddr::V4(ip) = first.ip() else {
        unreachable!("loopback")
    };
    let base = Ipv4Addr::from(u32::from(ip) - 1);
    (first, format!("{base}:{}", first.port()))
}

fn process(value: &Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_u64().unwrap()).unwrap()).unwrap()
}

#[test]
fn a_kept_pair_serves_is_restarted_by_its_own_command_and_goes_with_the_demo() {
    let directory = Directory::new("kept");
    let secret = directory.path().join("chap");
    std::fs::write(&secret, "a secret of some length\n").unwrap();
    let (first, base) = portal_base();
    let below = directory.path().join("pair");
    let (mut demo, ready) = keep(&[
        "--volume-size",
        "16MiB",
        "--cache",
        "write-back",
        "--portal-base",
        &base,
        "--chap-user",
        "alice",
        "--secret-file",
        &secret.to_string_lossy(),
        "--dir",
        &below.to_string_lossy(),
    ]);
    assert_eq!(portal(&ready, 0), first);
    let chap = Some(Account {
        name: "alice".into(),
        secret: b"a secret of some length".to_vec(),
    });
    for (node, entry) in ready["nodes"].as_array().unwrap().iter().enumerate() {
        let mut client = login(&ready, node, chap.clone());
        let capacity = client
            .run_past_attentions(&Command::read_capacity(LUN))
            .unwrap();
        assert_eq!(
            Capacity::parse(&capacity.data).unwrap().blocks,
            (16 << 20) / 512
        );
        client.logout().unwrap();
        let image = Path::new(entry["image"].as_str().unwrap());
        assert!(
            image.starts_with(&below) && image.metadata().unwrap().len() == 16 << 20,
            "{entry}"
        );
        assert!(Path::new(entry["admin"].as_str().unwrap()).exists());
    }
    kill_process(process(&ready["nodes"][1]["pid"]), Signal::KILL).unwrap();
    wait_for("the end of node2", Duration::from_secs(5), || {
        TcpStream::connect(portal(&ready, 1)).is_err()
    });
    run(
        "sh",
        ["-c", ready["nodes"][1]["restart"].as_str().unwrap()],
        Duration::from_secs(5),
    )
    .success();
    wait_for("node2 again", Duration::from_secs(30), || {
        TcpStream::connect(portal(&ready, 1)).is_ok()
    });
    login(&ready, 1, chap).logout().unwrap();

    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert!(demo.wait().unwrap().success(), "Ctrl-C is its orderly end");
    for node in 0..2 {
        wait_for("the end of the nodes", Duration::from_secs(10), || {
            TcpStream::connect(portal(&ready, node)).is_err()
        });
    }
    assert!(below.exists(), "--dir stays");
}

#[test]
fn what_the_demo_records_plays_again_to_the_same_actions() {
    let directory = Directory::new("recorded");
    let tapes = directory.path().join("tapes");
    let (_, base) = portal_base();
    let program = program::lockstep();
    let ended = run(
        &program.to_string_lossy(),
        [
            "demo",
            "--json",
            "--volume-size",
            "32MiB",
            "--portal-base",
            &base,
            "--record",
            &tapes.to_string_lossy(),
        ],
        Duration::from_secs(120),
    );
    let outcome: Value = serde_json::from_str(&ended.success()).unwrap();
    assert_eq!(outcome["ok"], true, "{outcome:#}");
    let mut played: Vec<(String, u64, u64)> = std::fs::read_dir(&tapes)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let (shard, node) = play(BufReader::new(File::open(&path).unwrap()))
                .unwrap_or_else(|why| panic!("{}: {why}", path.display()));
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, shard, node)
        })
        .collect();
    played.sort();
    // Both nodes, and the second run of the one that was killed.
    assert_eq!(played.len(), 3, "{played:?}");
    assert!(
        played
            .iter()
            .all(|(_, shard, node)| *shard > 1000 && *node > 100),
        "{played:?}"
    );
}

#[test]
fn nothing_is_left_when_the_demo_itself_is_killed() {
    let (mut demo, ready) = keep(&["--volume-size", "16MiB"]);
    let image = ready["nodes"][0]["image"].as_str().unwrap().to_owned();
    assert!(Path::new(&image).exists());
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_for("the end of everything", Duration::from_secs(10), || {
        !Path::new(&image).exists()
            && (0..2).all(|node| TcpStream::connect(portal(&ready, node)).is_err())
    });
}

#[test]
fn arguments_that_make_no_sense_are_refused_with_what_is_allowed() {
    let program = program::lockstep();
    let demo = |arguments: &[&str]| {
        let all = ["demo"].iter().chain(arguments);
        let ended = run(&program.to_string_lossy(), all, Duration::from_secs(10));
        assert!(
            ended.code.is_some_and(|code| code != 0),
            "{arguments:?}: {}",
            ended.text
        );
        ended.text
    };
    assert!(demo(&["--volume-size", "1MiB"]).contains("8MiB and more"));
    assert!(demo(&["--volume-size", "many"]).contains("10GiB"));
    assert!(demo(&["--cache", "sometimes"]).contains("write-through"));
    assert!(demo(&["--chap-user", "alice"]).contains("--secret-file"));
    assert!(demo(&["--portal-base", "203.0.113.0:3260"]).contains("203.0.113.1:3260"));
    assert!(demo(&["--dir", "/proc"]).contains("not empty"));
}
