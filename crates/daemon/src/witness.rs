//! `lockstep witness`: the daemon of the third machine. It keeps the votes of its pairs in one
//! file each, and moves bytes; what they mean is in `lockstep_engine::witness`.

mod config;

pub use config::{WitnessConfig, WitnessPair};

use crate::control::links::{self, LinkInput, LinkNumbers, LinkSender};
use crate::secret::{self, PAIR_SECRET_MIN, SecretError};
use crate::shard_thread::boot_time;
use crate::{durable, uuid};
use lockstep_engine::node_interface::{LinkId, Severity};
use lockstep_engine::witness::{Action, Event, Pair, Witness};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Inputs that wait; what produces them waits when it is full.
const INPUTS: usize = 1024;
/// Silent connections are looked for so often.
const TICK: Duration = Duration::from_millis(500);

/// Why a witness does not run.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// A secret file.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The state directory, or a file in it.
    #[error("{}: {source}; make it writable for this user, or name another \
        state_directory", path.display())]
    State {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two witnesses with one state would vote twice.
    #[error("state directory {} is used by another witness; stop that one, or name \
        another state_directory", .0.display())]
    InUse(PathBuf),
    /// The votes of a pair.
    #[error("{}: {why}", path.display())]
    Votes {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An address that is not ours, or in use.
    #[error(
        "listen {address}: {source}; give this machine that address, or name one \
        that it has and nobody uses"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No runtime or signals.
    #[error("the witness cannot start: {0}")]
    Runtime(io::Error),
}

/// Runs a witness until it is told to stop (SIGTERM or SIGINT). Blocks.
///
/// # Errors
/// See [`WitnessError`].
pub fn run(config: &WitnessConfig) -> Result<(), WitnessError> {
    let _lock = lock(&config.state_directory)?;
    let mut pairs = Vec::new();
    for pair in &config.pairs {
        let path = file_of(config, pair.cluster.0);
        let file = durable::read_if_there(&path);
        pairs.push(Pair {
            cluster: pair.cluster.0,
            secret: secret::read(&pair.secret_file, PAIR_SECRET_MIN)?.into(),
            file: file.map_err(|source| WitnessError::State { path, source })?,
        });
    }
    let witness = Witness::new(pairs, uuid::random());
    let witness = witness.map_err(|(cluster, error)| WitnessError::Votes {
        path: file_of(config, cluster),
        why: error.to_string(),
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(WitnessError::Runtime)?;
    runtime.block_on(serve(config, witness))
}

fn file_of(config: &WitnessConfig, cluster: u128) -> PathBuf {
    let name = format!("{}.votes", uuid::format(cluster));
    config.state_directory.join(name)
}

fn lock(state: &Path) -> Result<File, WitnessError> {
    let lock = durable::lock_directory(state).map_err(|source| WitnessError::State {
        path: state.to_owned(),
        source,
    })?;
    lock.ok_or_else(|| WitnessError::InUse(state.to_owned()))
}

async fn serve(config: &WitnessConfig, witness: Witness) -> Result<(), WitnessError> {
    let (sender, mut inputs) = mpsc::channel(INPUTS);
    let numbers = LinkNumbers::default();
    for address in &config.listen {
        let address = address.0;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| WitnessError::Listen { address, source })?;
        tokio::spawn(links::accept_all(listener, numbers.clone(), sender.clone()));
        tracing::info!(%address, "listening");
    }
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (mut terminate, mut interrupt) = (
        signals.0.map_err(WitnessError::Runtime)?,
        signals.1.map_err(WitnessError::Runtime)?,
    );
    let mut driver = Driver {
        config,
        witness,
        senders: BTreeMap::new(),
    };
    driver.take(Event::Tick);
    for (cluster, life, _) in driver.witness.pairs() {
        let cluster = uuid::format(cluster);
        tracing::info!(%cluster, life = life.0, "votes for a pair");
    }
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            input = inputs.recv() => driver.input(input.expect("a sender is kept here")),
            _ = tick.tick() => driver.take(Event::Tick),
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

struct Driver<'a> {
    config: &'a WitnessConfig,
    witness: Witness,
    senders: BTreeMap<u32, LinkSender>,
}

impl Driver<'_> {
    fn input(&mut self, input: LinkInput) {
        match input {
            LinkInput::Up { sender, .. } => {
                let link = LinkId(sender.link.into());
                self.senders.insert(sender.link, sender);
                self.take(Event::LinkUp { link });
            }
            LinkInput::Bytes { link, bytes } => self.take(Event::LinkBytes {
                link: LinkId(link.into()),
                bytes: &bytes,
            }),
            LinkInput::Down { link, .. } => {
                self.senders.remove(&link);
                self.take(Event::LinkDown {
                    link: LinkId(link.into()),
                });
            }
            LinkInput::DialFailed { .. } => unreachable!("a witness dials nobody"),
        }
    }

    /// A file that was written brings more to do; nothing that is done here waits for long.
    fn take(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.witness.handle(boot_time(), event, &mut actions);
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::LinkSend { link, bytes } => self.send(link, bytes),
                Action::LinkClose { link } => drop(self.senders.remove(&number(link))),
                Action::Store { cluster, bytes } => {
                    let ok = self.store(cluster, &bytes);
                    let mut more = Vec::new();
                    let stored = Event::Stored { cluster, ok };
                    self.witness.handle(boot_time(), stored, &mut more);
                    actions.extend(more);
                }
                Action::Event { text, severity } => match severity {
                    Severity::Info => tracing::info!("{text}"),
                    Severity::Warning => tracing::warn!("{text}"),
                    Severity::Error => tracing::error!("{text}"),
                },
            }
        }
    }

    fn send(&mut self, link: LinkId, bytes: Vec<u8>) {
        let number = number(link);
        let sent = self.senders.get(&number).is_some_and(|it| it.send(bytes));
        if !sent {
            // Dropping the sender closes it; `LinkDown` follows from its task.
            self.senders.remove(&number);
        }
    }

    /// A few hundred bytes a volume, a few times a month.
    fn store(&self, cluster: u128, bytes: &[u8]) -> bool {
        let path = file_of(self.config, cluster);
        let stored = durable::replace(&path, bytes, 0o600);
        if let Err(error) = &stored {
            tracing::error!(path = %path.display(), %error, "the votes were not written");
        }
        stored.is_ok()
    }
}

/// Links are numbered by us, with 32 bits.
fn number(link: LinkId) -> u32 {
    u32::try_from(link.0).expect("a number that this driver gave")
}
