//! One real daemon: its configuration file, its process, its log.

use crate::program::{self, Ended};
use lockstep_api::volume::Volume;
use lockstep_api::{Client, ClientError};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Ports of a node, counted from its data portal: sync, its heartbeats, heartbeats alone, metrics.
const PORTS: u16 = 5;
const PORT: u16 = 3260;
/// A daemon answers within this.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// A node and, while it runs, its process. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    /// 1 or 2.
    pub number: u8,
    /// Where initiators reach it.
    pub portal: SocketAddr,
    /// Its own directory: configuration, state, images, log.
    pub directory: PathBuf,
    /// The network namespace that it runs in; `None`: the same as ours.
    pub namespace: Option<String>,
    /// By how much its clocks since boot are ahead of the machine's (a time namespace; root only).
    pub ahead: Option<Duration>,
    child: Option<Child>,
}

/// Two addresses of loopback that nobody uses. They are this process's until it ends: tests run at
/// the same time, each in a process of its own, and a node that was killed leaves its ports open
/// for whoever looks.
///
/// # Panics
/// If there are none.
pub fn free_addresses() -> [SocketAddr; 2] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 16;
        let [_, high, low, _] = (step << 10).to_be_bytes();
        let pair = [1, 2]
            .map(|host| SocketAddr::from((Ipv4Addr::new(127, 84 | high & 3, low | 1, host), PORT)));
        let free = |address: SocketAddr| {
            (0..PORTS).all(|offset| TcpListener::bind(at(address, offset)).is_ok())
        };
        // An abstract name has one holder in the machine, and goes with it.
        let name = format!("lockstep-test-{}", pair[0].ip());
        let name = unix::SocketAddr::from_abstract_name(name).expect("a short name");
        let Ok(claim) = UnixListener::bind_addr(&name) else {
            continue;
        };
        if pair.into_iter().all(free) {
            CLAIMS.lock().expect("nobody panics with it").push(claim);
            return pair;
        }
    }
}

fn at(address: SocketAddr, offset: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + offset)
}

impl Node {
    /// Writes the configuration; starts nothing. `partner`: its portal, and the file with the
    /// pair's secret.
    ///
    /// # Panics
    /// If the directory can't be written.
    pub fn prepare(
        directory: &Path,
        number: u8,
        portal: SocketAddr,
        partner: Option<(SocketAddr, &Path)>,
    ) -> Self {
        let directory = directory.join(format!("node{number}"));
        for part in ["state", "images"] {
            std::fs::create_dir_all(directory.join(part))
                .expect("the test's directory can be written");
        }
        let node = Self {
            number,
            portal,
            directory,
            namespace: None,
            ahead: None,
            child: None,
        };
        node.write_config(&node.configuration(partner));
        node
    }

    fn configuration(&self, partner: Option<(SocketAddr, &Path)>) -> String {
        let Self {
            number,
            portal,
            directory,
            ..
        } = self;
        let mut text = format!(
            "[cluster]\nuuid = \"6f0e4a1c-27f5-4d0b-9a36-0c1f5b7e9d42\"\nname = \"tests\"\n\n\
             [node]\nnumber = {number}\nname = \"node{number}\"\nstate_directory = \"{dir}/state\"\n\n\
             [admin]\nsocket = \"{dir}/admin.sock\"\nmetrics = \"{metrics}\"\n\n\
             [portals]\ndata = [\"{portal}\"]\n\n\
             [storage]\ndirectories = [\"{dir}/images\"]\n\n\
             [engine]\npool_memory = \"64MiB\"\n",
            dir = directory.display(),
            metrics = self.metrics(),
        );
        if let Some((partner, secret)) = partner {
            text += &format!(
                "\n[partner]\nsync_local = [\"{}\"]\nsync_remote = [\"{}\"]\n\
                 heartbeat_local = [\"{}\"]\nheartbeat_remote = [\"{}\"]\nsecret_file = \"{}\"\n",
                at(*portal, 1),
                at(partner, 1),
                at(*portal, 3),
                at(partner, 3),
                secret.display()
            );
        }
        text
    }

    /// The Prometheus endpoint.
    pub fn metrics(&self) -> SocketAddr {
        at(self.portal, 4)
    }

    /// The configuration's text.
    ///
    /// # Panics
    /// If it can't be read.
    pub fn config(&self) -> String {
        std::fs::read_to_string(self.config_file()).expect("the configuration was written")
    }

    /// Replaces the configuration.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn write_config(&self, text: &str) {
        std::fs::write(self.config_file(), text).expect("the test's directory can be written");
    }

    /// `lockstep.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("lockstep.toml")
    }

    /// What its supervisor does once the daemon has ended: `lockstep certificate`.
    pub fn certify(&self) -> Ended {
        let mut command = self.program();
        command
            .arg("certificate")
            .arg("--config")
            .arg(self.config_file());
        program::run_command(command, Duration::from_secs(20))
    }

    fn command(&self) -> Command {
        let mut command = match self.ahead {
            Some(ahead) => {
                let seconds = ahead.as_secs().to_string();
                let mut command = Command::new("unshare");
                command.args(["--time", "--fork", "--kill-child"]);
                command.args(["--boottime", &seconds, "--monotonic", &seconds]);
                command.arg(program::lockstep());
                command
            }
            None => self.program(),
        };
        // The demo's way to start a node: it ends with the test, however that ends.
        command
            .args(["demo", "--run-daemon"])
            .arg(self.config_file());
        command
    }

    /// Our program, in the node's network.
    fn program(&self) -> Command {
        match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]);
                command.arg(program::lockstep());
                command
            }
            None => Command::new(program::lockstep()),
        }
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Panics
    /// If it does not, with the end of its log.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_for("its admin socket", START_LIMIT, |node| {
            node.client().status().is_ok()
        });
    }

    /// Starts the daemon and waits for nothing.
    ///
    /// # Panics
    /// If it can't be started, or runs already.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "node{} runs already", self.number);
        let open = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file());
        let log = open.expect("the test's directory can be written");
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the program can be started"));
    }

    /// Starts a daemon that is expected to refuse; what it said, and its exit code.
    pub fn refusal(&self) -> (Option<i32>, String) {
        let ended = program::run_command(self.command(), Duration::from_secs(10));
        assert!(
            !ended.late,
            "node{} did not refuse to start: {}",
            self.number, ended.text
        );
        (ended.code, ended.text)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// If it does not run, or does not end within 20 s.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "node{} ignores SIGTERM",
                self.number
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("it runs"));
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// Its process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Whether its process is still there.
    pub fn runs(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The admin API.
    pub fn client(&self) -> Client {
        Client::new(self.directory.join("admin.sock"))
    }

    /// A volume as this node sees it.
    ///
    /// # Errors
    /// The node does not run, or has no such volume.
    pub fn volume(&self, name: &str) -> Result<Volume, ClientError> {
        self.client().volume(name)
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// If it does not, with the node's state and the end of its log.
    pub fn wait_for(&mut self, what: &str, limit: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            let runs = self.runs();
            assert!(
                runs && start.elapsed() < limit,
                "node{} (running: {runs}) waited {:?} for {what}\nstatus: {:#?}\nlog:\n{}",
                self.number,
                start.elapsed(),
                self.client().status(),
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// If it does not run.
    pub fn memory_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("the kernel says so");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
