//! The program as a person uses it, without a daemon: exit codes, refusals, completions.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as loudly as tests do"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn lockstep(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(arguments)
        .env_remove("LOCKSTEP_SOCKET")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory that is gone afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lockstep-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn config(&self, change: impl Fn(String) -> String) -> PathBuf {
        let example = include_str!("../../../config/lockstep.toml");
        let text = example.replace("/var/lib/lockstep", self.0.to_str().unwrap());
        let file = self.0.join("lockstep.toml");
        std::fs::create_dir_all(self.0.join("volumes")).unwrap();
        std::fs::write(&file, change(text)).unwrap();
        file
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn check(file: &Path) -> Output {
    lockstep(&["config", "check", file.to_str().unwrap()])
}

#[test]
fn a_good_configuration_is_called_good() {
    let directory = Directory::new("good");
    let output = check(&directory.config(|text| text));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("good; node 1")
    );
}

#[test]
fn a_bad_configuration_is_refused_with_its_line() {
    let directory = Directory::new("bad");
    let file = directory.config(|text| text.replace("pool_memory", "pool_memroy"));
    let output = check(&file);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(
        said.contains("lockstep.toml:") && said.contains("did you mean engine.pool_memory?"),
        "{said}"
    );
}

#[test]
fn a_missing_secret_and_a_missing_store_are_named_together() {
    let directory = Directory::new("files");
    let file = directory.config(|text| {
        text.replace("sync_local = []", "sync_local = [\"192.0.2.1:7400\"]")
            .replace("sync_remote = []", "sync_remote = [\"192.0.2.2:7400\"]")
            .replace("/etc/lockstep/pair.secret", "/nowhere/pair.secret")
            .replace("/volumes\"", "/not-mounted\"")
    });
    let output = check(&file);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(
        said.contains("/nowhere/pair.secret") && said.contains("not-mounted"),
        "{said}"
    );
}

#[test]
fn no_daemon_is_exit_code_1_and_wrong_usage_is_2() {
    let directory = Directory::new("codes");
    let socket = directory.0.join("admin.sock");
    let output = lockstep(&["--socket", socket.to_str().unwrap(), "status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("systemctl start lockstep"),
        "{}",
        said(&output)
    );
    for wrong in [
        &["volume", "create", "a", "--size", "much"][..],
        &["volumes"],
        &["volume", "delete", "a"],
    ] {
        assert_eq!(lockstep(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn completions_know_the_commands() {
    let output = lockstep(&["completions", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("lockstep__subcmd__volume")
    );
}
