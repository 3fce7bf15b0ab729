//! From a configuration to a running node, and in order down again. Whatever cannot be had is
//! refused here, before anything is served.

use super::{Control, Input, frames, links};
use crate::config::Config;
use crate::events::Events;
use crate::pool::file::PoolFile;
use crate::recorder::Recorder;
use crate::secret::{self, PAIR_SECRET_MIN, SecretError};
use crate::shard_thread::{FromThread, ShardThreadConfig, SpawnError};
use crate::{durable, http, pool_memory, preflight, shard_thread, uuid};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Inputs that wait for the control thread; what produces them waits when it is full.
const INPUTS: usize = 1024;

/// A peer that reads nothing for so long while something is queued for it is given up.
const STALL: Duration = Duration::from_secs(30);

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Files or directories of the configuration.
    #[error("{}", .0.join("\n"))]
    Preflight(Vec<String>),
    /// The state directory.
    #[error("state directory {}: {source}; make it writable for this user, or name \
        another one as node.state_directory", path.display())]
    State {
        /// Which file or directory in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two daemons with one state would vote twice.
    #[error("state directory {} is used by another daemon; stop that one, or give \
        this one its own as node.state_directory", .0.display())]
    StateInUse(PathBuf),
    /// The secret was changed since the preflight.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// No shard.
    #[error("the shard cannot start: {0}")]
    Shard(#[from] SpawnError),
    /// No admin socket.
    #[error("admin.socket {}: {source}; stop whoever has it, or name another one", path.display())]
    Admin {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An address that is not ours, or in use.
    #[error(
        "{key} {address}: {source}; give this machine that address, or name one \
        that it has and nobody uses"
    )]
    Listen {
        /// Which key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The recording.
    #[error("--record {}: {source}; name a file that is not there yet, in a \
        directory that is", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No runtime or signals.
    #[error("the control thread cannot start: {0}")]
    Runtime(io::Error),
    /// The shard's thread is gone or hangs; half a node must not live.
    #[error(
        "the shard's thread does not take orders any more; the daemon ends so \
        that it can be started anew"
    )]
    ShardGone,
    /// A durable file of this node could not be written: it may not vote or serve any more.
    #[error(
        "{what} could not be written: {why}; see whether the file system of the \
        state directory is full or broken"
    )]
    NotDurable {
        /// Which file.
        what: String,
        /// What the system said.
        why: String,
    },
}

/// Runs a node until it is told to stop (SIGTERM or SIGINT), in order. Blocks.
///
/// `record`: write every event of the run there, for the simulator.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: Config, record: Option<&Path>) -> Result<(), RunError> {
    let problems = preflight(&config);
    if !problems.is_empty() {
        return Err(RunError::Preflight(problems));
    }
    let state = config.node.state_directory.clone();
    let _lock = lock_state(&state)?;
    let secret = match config.has_partner() {
        true => secret::read(&config.partner.secret_file, PAIR_SECRET_MIN)?,
        false => Vec::new(),
    };
    let in_state = |path: &Path| {
        let path = path.to_owned();
        move |source| RunError::State { path, source }
    };
    let events = Events::open(&state).map_err(in_state(&state))?;
    let file = PoolFile::new(&state).map_err(in_state(&state))?;
    try_addresses(&config)?;
    let recorder = record.map(start_recording).transpose()?;
    let (shard, reports) = shard_thread::spawn(shard_config(&config, recorder.clone()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let ended = runtime.block_on(async {
        let (sender, inputs) = mpsc::channel(INPUTS);
        let control = Control::new(
            config,
            secret,
            recorder,
            events,
            file,
            shard,
            sender.clone(),
        )?;
        start_tasks(&control, sender, reports).await?;
        control.run(inputs).await
    });
    // A copy that is still being made, or waits for a lock, must not hold up the end.
    runtime.shutdown_background();
    ended
}

/// The shard listens later and keeps trying; what cannot work is refused now.
fn try_addresses(config: &Config) -> Result<(), RunError> {
    let data = config
        .portals
        .data
        .iter()
        .map(|address| ("portals.data", address.0));
    let sync = config
        .partner
        .sync_local
        .iter()
        .map(|address| ("partner.sync_local", address.0));
    for (key, address) in data.chain(sync) {
        bind_patiently(address).map_err(|source| RunError::Listen {
            key,
            address,
            source,
        })?;
    }
    Ok(())
}

/// How long a killed predecessor's ring may keep its sockets: the kernel ends it after the
/// process, in its own time.
const PREDECESSOR: Duration = Duration::from_secs(6);

fn bind_patiently(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let until = Instant::now() + PREDECESSOR;
    loop {
        match std::net::TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            ended => return ended,
        }
    }
}

fn lock_state(state: &Path) -> Result<File, RunError> {
    let failed = |source| RunError::State {
        path: state.to_owned(),
        source,
    };
    let lock = durable::lock_directory(state).map_err(failed)?;
    for part in ["metadata", "volumes"] {
        durable::private_directory(&state.join(part)).map_err(failed)?;
    }
    lock.ok_or_else(|| RunError::StateInUse(state.to_owned()))
}

fn start_recording(path: &Path) -> Result<Recorder, RunError> {
    Recorder::create(path).map_err(|source| RunError::Record {
        path: path.to_owned(),
        source,
    })
}

fn shard_config(config: &Config, recorder: Option<Recorder>) -> ShardThreadConfig {
    let plain = |list: &[crate::config::Address]| list.iter().map(|address| address.0).collect();
    let sync = &config.partner;
    let ends = sync.sync_local.iter().zip(&sync.sync_remote);
    let sync_links = ends.map(|(local, remote)| (local.0.ip(), remote.0));
    ShardThreadConfig {
        portals: plain(&config.portals.data),
        sync_listen: plain(&config.partner.sync_local),
        partner_sync: sync_links.collect(),
        pool: pool_memory::classes(config.engine.pool_memory.0),
        seed: uuid::random(),
        cpu: None,
        stall: STALL,
        recorder,
    }
}

/// Everything that produces inputs: links, shard, API, metrics, signals.
async fn start_tasks(
    control: &Control,
    inputs: mpsc::Sender<Input>,
    reports: mpsc::Receiver<FromThread>,
) -> Result<(), RunError> {
    let config = control.config();
    let (link_sender, link_inputs) = mpsc::channel(INPUTS);
    let numbers = control.link_numbers.clone();
    for (index, path) in config.control_paths().into_iter().enumerate() {
        if path.sync {
            let check = Arc::clone(&control.paths[index].check);
            let inputs = inputs.clone();
            tokio::spawn(frames::watch(path, check, async move |found| {
                // Nobody listens once the daemon is ending.
                let _ = inputs.send(Input::Frames(index, found)).await;
            }));
        }
        if config.node.number == 1 {
            tokio::spawn(links::dial(
                index,
                path,
                numbers.clone(),
                link_sender.clone(),
            ));
            continue;
        }
        let key = if path.sync {
            "partner.sync_local"
        } else {
            "partner.heartbeat_local"
        };
        let listener = links::listen(&path)
            .await
            .map_err(|source| RunError::Listen {
                key,
                address: path.local,
                source,
            })?;
        tokio::spawn(links::accept(
            listener,
            index,
            path.remote,
            numbers.clone(),
            link_sender.clone(),
        ));
    }
    tokio::spawn(forward(link_inputs, inputs.clone(), Input::Link));
    tokio::spawn(forward(reports, inputs.clone(), Input::Shard));
    let (asker, asked) = mpsc::channel(http::REQUESTS_WAITING);
    tokio::spawn(forward(asked, inputs.clone(), Input::Asked));
    let path = config.admin.socket.clone();
    let listener = http::bind_admin(&path).map_err(|source| RunError::Admin { path, source })?;
    tokio::spawn(http::serve_admin(listener, asker.clone()));
    if let Some(address) = config.admin.metrics.0 {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| RunError::Listen {
                key: "admin.metrics",
                address,
                source,
            })?;
        tokio::spawn(http::serve_metrics(listener, asker));
    }
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(RunError::Runtime)?;
        let inputs = inputs.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if inputs.send(Input::Stop).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// Moves what one channel brings into the one that the control thread reads.
async fn forward<T>(
    mut from: mpsc::Receiver<T>,
    to: mpsc::Sender<Input>,
    wrap: impl Fn(T) -> Input,
) {
    while let Some(item) = from.recv().await {
        if to.send(wrap(item)).await.is_err() {
            return;
        }
    }
}
