//! What happens to the nodes when the demo ends in a way that it can't act on: a daemon gets the
//! kernel's word to die with its parent, and a sweeper, in a process group of its own, notices
//! the end of its standard input, ends nodes that somebody restarted, and removes the directory.

use anyhow::{Context, Error};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Turns this process into `lockstep daemon`; comes back only if that fails.
pub(super) fn become_daemon(file: &Path, record: Option<&Path>) -> Error {
    let prepared = set_parent_process_death_signal(Some(Signal::KILL))
        .context("the kernel does not promise to end the node with the demo")
        .and_then(|()| std::env::current_exe().context("this program does not find itself"));
    match prepared {
        // Its log goes to a file, where colours are only noise.
        Ok(program) => {
            let mut command = Command::new(program);
            command
                .args(["daemon", "--config"])
                .arg(file)
                .env("NO_COLOR", "1");
            if let Some(record) = record {
                command.arg("--record").arg(record);
            }
            command.exec().into()
        }
        Err(error) => error,
    }
}

/// Starts the sweeper; it acts when the returned child's standard input is closed.
pub(super) fn start(directory: &Path, remove: bool) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["demo", "--sweep"])
        .arg(directory)
        .process_group(0);
    if remove {
        command.arg("--sweep-all");
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .spawn()
        .context("cannot start a copy of this program")
}

/// How often a process is asked whether it is gone.
const POLL: Duration = Duration::from_millis(20);
/// How long a killed process may take to go (its last writes must end).
const ATTEMPTS: u32 = 500;

/// The sweeper's own life.
pub(super) fn sweep(directory: &Path, remove: bool) {
    let mut nothing = [0; 64];
    let mut input = std::io::stdin();
    while !matches!(input.read(&mut nothing), Ok(0) | Err(_)) {}
    for attempt in 0..ATTEMPTS {
        let nodes = nodes_below(directory);
        if nodes.is_empty() {
            break;
        }
        if attempt % 50 == 0 {
            for node in nodes {
                let _ = kill_process(node, Signal::KILL);
            }
        }
        std::thread::sleep(POLL);
    }
    if remove {
        let _ = std::fs::remove_dir_all(directory);
    }
}

/// Processes of this program whose configuration lies in `directory`.
fn nodes_below(directory: &Path) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line
            .split(|byte| *byte == 0)
            .skip_while(|word| *word != b"--config")
            .skip(1);
        words
            .next()
            .is_some_and(|file| Path::new(OsStr::from_bytes(file)).starts_with(directory))
    })
    .filter_map(Pid::from_raw)
    .collect()
}
