//! Two nodes as child processes: their addresses, their configuration files, their lives.

use super::{DemoArgs, sweeper};
use anyhow::{Context, Result, bail, ensure};
use lockstep_api::pool::SetAccount;
use lockstep_api::quantity::Size;
use lockstep_api::volume::{Cache, CreateVolume, Volume};
use lockstep_api::{Client, ClientError};
use lockstep_initiator::core::chap::Account;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The mirrored volume.
pub(super) const VOLUME: &str = "demo";
/// Ports of a node: data, sync, heartbeats beside sync, heartbeats alone, metrics.
const PORTS: u16 = 5;
/// A daemon answers its admin socket within this.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Provisioning writes nothing but reserves the space; on a slow disk that takes a while.
const CREATE_LIMIT: Duration = Duration::from_secs(30);
/// How often a state is looked at.
pub(super) const POLL: Duration = Duration::from_millis(50);

/// Both nodes and their volume.
pub(super) struct Pair {
    pub(super) nodes: [Node; 2],
    pub(super) target: String,
    pub(super) lun: u8,
    pub(super) size: u64,
    pub(super) cache: Cache,
    directory: PathBuf,
    temporary: bool,
    sweeper: Child,
}

/// One node.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) portal: SocketAddr,
    directory: PathBuf,
    image: PathBuf,
    child: Option<Child>,
    /// Where each of its runs is recorded, and how many there were.
    record: Option<PathBuf>,
    runs: u32,
}

impl Pair {
    /// Starts both nodes and creates the volume.
    pub(super) fn start(args: &DemoArgs, chap: Option<&Account>) -> Result<Self> {
        let temporary = args.dir.is_none();
        let directory = match &args.dir {
            Some(directory) => empty_directory("--dir", directory)?,
            None => temporary_directory()?,
        };
        let record = args.record.as_deref();
        let record = record
            .map(|directory| empty_directory("--record", directory))
            .transpose()?;
        let sweeper = sweeper::start(&directory, temporary)?;
        let portals = portals(args.portal_base)?;
        let nodes = [1, 2].map(|number: usize| Node {
            name: format!("node{number}"),
            portal: portals[number - 1],
            directory: directory.join(format!("node{number}")),
            image: PathBuf::new(),
            child: None,
            record: record.clone(),
            runs: 0,
        });
        let (target, lun) = (String::new(), 0);
        let mut pair = Self {
            nodes,
            target,
            lun,
            size: args.volume_size.0,
            cache: args.cache,
            directory,
            temporary,
            sweeper,
        };
        pair.write_files()?;
        for node in &mut pair.nodes {
            node.start()?;
        }
        for node in &mut pair.nodes {
            node.wait_for("its partner", START_LIMIT, |node| {
                node.client().status().is_ok_and(|status| status.partner.up)
            })?;
            // Each node enters itself, once; discovery tells of both from then on.
            node.wait_for("both nodes in the pool", START_LIMIT, |node| {
                node.client()
                    .config()
                    .is_ok_and(|pool| pool.nodes.len() == 2)
            })?;
        }
        pair.create(args.volume_size, args.cache, chap)?;
        Ok(pair)
    }

    fn create(&mut self, size: Size, cache: Cache, chap: Option<&Account>) -> Result<()> {
        let client = self.nodes[0].client();
        if let Some(account) = chap {
            let secret =
                String::from_utf8(account.secret.clone()).context("the CHAP secret is no text")?;
            client.set_account(&SetAccount {
                name: account.name.clone(),
                secret,
            })?;
        }
        let accounts = chap.iter().map(|account| account.name.clone()).collect();
        client.create_volume(&CreateVolume {
            name: VOLUME.into(),
            size,
            cache,
            accounts,
            ..CreateVolume::default()
        })?;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.wait_for("the mirrored volume", CREATE_LIMIT, |node| {
                node.volume().is_ok_and(|volume| is_mirrored(&volume))
            })?;
            let volume = node.volume()?;
            let replica = volume
                .replicas
                .iter()
                .find(|replica| usize::from(replica.node) == index + 1);
            node.image = replica
                .context("the volume has no copy on this node")?
                .image
                .clone()
                .into();
            (self.target, self.lun) = (volume.target, volume.lun);
        }
        Ok(())
    }

    fn write_files(&self) -> Result<()> {
        let secret = self.directory.join("pair.secret");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&secret)?;
        writeln!(file, "{}", random_hex()?)?;
        let uuid = random_hex()?;
        for (number, node) in (1..).zip(&self.nodes) {
            for part in ["state", "images"] {
                std::fs::create_dir_all(node.directory.join(part))?;
            }
            let partner = self.nodes[2 - number].portal;
            let text = node.configuration(number, &uuid[..32], partner, &secret);
            std::fs::write(node.config_file(), text)?;
        }
        Ok(())
    }

    /// Total time that both images and logs may be looked at ends here.
    fn stop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        // The end of its input tells the sweeper to look for what is left, and to remove it.
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Both nodes hold every acknowledged write, and this one serves.
pub(super) fn is_mirrored(volume: &Volume) -> bool {
    volume.members.len() == 2 && volume.state == "serving"
}

impl Node {
    /// Starts the daemon and waits until it answers.
    pub(super) fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["demo", "--run-daemon"])
            .arg(self.config_file());
        self.runs += 1;
        if let Some(directory) = &self.record {
            let file = directory.join(format!("{}-run{}.jsonl", self.name, self.runs));
            command.arg("--record-daemon").arg(file);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(
            command
                .spawn()
                .context("cannot start a copy of this program")?,
        );
        self.wait_for("its admin socket", START_LIMIT, |node| {
            node.client().status().is_ok()
        })
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its process, if it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its admin API.
    pub(super) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// The volume as it sees it.
    pub(super) fn volume(&self) -> Result<Volume, ClientError> {
        self.client().volume(VOLUME)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    pub(super) fn image(&self) -> PathBuf {
        self.image.clone()
    }

    fn config_file(&self) -> PathBuf {
        self.directory.join("lockstep.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What a person types to start it again, after it was killed.
    pub(super) fn restart_command(&self) -> Result<String> {
        let program = quoted(&std::env::current_exe()?);
        let (config, log) = (quoted(&self.config_file()), quoted(&self.log_file()));
        Ok(format!(
            "setsid {program} daemon --config {config} >>{log} 2>&1 </dev/null &"
        ))
    }

    /// Waits until something holds; says why not from the node's status and log.
    pub(super) fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !holds(self) {
            if let Some(ended) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
                bail!(
                    "{} ended with {ended}; the end of its log:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            if start.elapsed() > limit {
                let volume = self
                    .volume()
                    .map(|volume| format!("{}: {}", volume.state, volume.reason));
                let state = volume.unwrap_or_else(|error| error.to_string());
                bail!(
                    "{} waited {limit:?} for {what} ({state}); the end of its log:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn configuration(
        &self,
        number: usize,
        uuid: &str,
        partner: SocketAddr,
        secret: &Path,
    ) -> String {
        let mine = |offset| text(port(self.portal, offset));
        let theirs = |offset| text(port(partner, offset));
        let path = |part: &str| text(self.directory.join(part).display());
        format!(
            "[cluster]\nuuid = {uuid}\nname = \"demo\"\n\n\
             [node]\nnumber = {number}\nname = {name}\nstate_directory = {state}\n\n\
             [admin]\nsocket = {socket}\nmetrics = {metrics}\n\n\
             [portals]\ndata = [{portal}]\n\n\
             [partner]\nsync_local = [{sync}]\nsync_remote = [{their_sync}]\n\
             heartbeat_local = [{beat}]\nheartbeat_remote = [{their_beat}]\nsecret_file = {secret}\n\n\
             [storage]\ndirectories = [{images}]\n\n\
             [engine]\npool_memory = \"64MiB\"\n",
            uuid = text(hyphenated(uuid)),
            name = text(&self.name),
            state = path("state"),
            socket = path("admin.sock"),
            metrics = mine(4),
            portal = mine(0),
            sync = mine(1),
            their_sync = theirs(1),
            beat = mine(3),
            their_beat = theirs(3),
            secret = text(secret.display()),
            images = path("images"),
        )
    }
}

/// A TOML string.
fn text(value: impl std::fmt::Display) -> String {
    toml::Value::String(value.to_string()).to_string()
}

fn hyphenated(hex: &str) -> String {
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..32]
    )
}

/// A shell word.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

fn port(address: SocketAddr, offset: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + offset)
}

/// 64 hexadecimal digits from the kernel.
fn random_hex() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn empty_directory(option: &str, directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("{option} {}: cannot be made", directory.display()))?;
    let directory = directory.canonicalize()?;
    let empty = std::fs::read_dir(&directory)?.next().is_none();
    ensure!(
        empty,
        "{option} {}: is not empty; name a new or an empty directory",
        directory.display()
    );
    Ok(directory)
}

fn temporary_directory() -> Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("lockstep-demo-{}", std::process::id()));
    // A user's own directory: the secrets below it are nobody else's business.
    let made = std::fs::DirBuilder::new().mode(0o700).create(&directory);
    made.with_context(|| format!("{}: cannot be made", directory.display()))?;
    Ok(directory.canonicalize()?)
}

/// Where initiators reach the two nodes.
fn portals(base: Option<SocketAddr>) -> Result<[SocketAddr; 2]> {
    if let Some(base) = base {
        ensure!(
            base.port() <= u16::MAX - PORTS,
            "--portal-base {base}: needs {PORTS} ports from this one on"
        );
        let pair = [following(base, 1)?, following(base, 2)?];
        for node in pair {
            in_use(node).with_context(|| {
                format!("--portal-base {base}: {node} can't be used for a node")
            })?;
        }
        return Ok(pair);
    }
    // Loopback networks that nobody else is likely to use; begun at a different one each time.
    let [first, ..] = std::process::id().to_le_bytes();
    for third in (0..=255).map(|step: u8| step.wrapping_add(first)) {
        let base = SocketAddr::from((Ipv4Addr::new(127, 83, third, 0), 3260));
        let pair = [following(base, 1)?, following(base, 2)?];
        if pair.iter().all(|node| in_use(*node).is_ok()) {
            return Ok(pair);
        }
    }
    bail!("no free loopback address in 127.83.0.0/16; name one with --portal-base IP:PORT")
}

fn following(base: SocketAddr, step: u8) -> Result<SocketAddr> {
    let ip = match base.ip() {
        IpAddr::V4(ip) => u32::from(ip)
            .checked_add(step.into())
            .map(|ip| IpAddr::V4(ip.into())),
        IpAddr::V6(ip) => u128::from(ip)
            .checked_add(step.into())
            .map(|ip| IpAddr::V6(ip.into())),
    };
    let ip = ip.with_context(|| format!("--portal-base {base}: no address follows"))?;
    Ok(SocketAddr::new(ip, base.port()))
}

/// Tries all ports of a node.
fn in_use(node: SocketAddr) -> std::io::Result<()> {
    (0..PORTS).try_for_each(|offset| TcpListener::bind(port(node, offset)).map(drop))
}
