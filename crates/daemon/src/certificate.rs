//! `lockstep certificate`: run by the supervisor after the daemon has ended. It locks what that
//! run used, which nobody can as long as an operation of it is in flight, reads what it left, and
//! tells the partner, which then need not wait for the run's silence.
//!
//! The locks are kept to the end: as long as a partner may take the certificate, no new run of this
//! node has begun. A partner takes one for a second after it was asked on a connection.

use crate::config::Config;
use crate::control::links::{self, LinkInput, LinkNumbers, LinkSender};
use crate::control::local::Copy;
use crate::control::{INCARNATION_FILE, POOL_STATE_FILE};
use crate::pool::Pool;
use crate::secret::{self, PAIR_SECRET_MIN, SecretError};
use crate::store::Disk;
use crate::{durable, uuid};
use lockstep_engine::certificate::{Certificate, Certifier, Left};
use lockstep_engine::node::document_in_force;
use lockstep_mirror::control::{Incarnation, NodeId, VolumeId};
use lockstep_mirror::superblock::{Found, Superblock};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The last operations of a killed daemon end within this on a disk that is well. Whoever takes
/// longer is waited for by the partner, as without a certificate; a stop must not be held up.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often a lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// A partner that is there is connected within this: it dials four times a second, or listens.
const MEET: Duration = Duration::from_secs(1);
/// One that was met answers within this. It takes nothing a second after it was met; the rest is
/// for clocks that run unlike.
const ANSWER: Duration = Duration::from_millis(1200);
/// Words of links that wait.
const INPUTS: usize = 64;

/// Why nothing was certified, or nobody was told.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A node without partner.
    #[error("this node has no partner: nobody waits for its silence")]
    NoPartner,
    /// The secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file of the state directory.
    #[error("{}: {source}; the certificate is made by the user that the daemon runs as", path.display())]
    State {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon runs, or has not quite ended.
    #[error(
        "state directory {} is in use: the daemon runs, or has not quite ended; only the end of one \
         is certified", .0.display()
    )]
    InUse(PathBuf),
    /// No run has ever begun here.
    #[error("{}: no run of the daemon is on record: there is nothing to certify", .0.display())]
    NoRun(PathBuf),
    /// No runtime.
    #[error("the certificate cannot be sent: {0}")]
    Runtime(io::Error),
    /// The partner has met another run of this node since, or never met this one.
    #[error("the partner refused it: that run is not the last one that it met")]
    Refused,
    /// It is gone too, or no link works.
    #[error("no link to the partner: it will notice by itself, or is gone as well ({0})")]
    NotReached(String),
}

/// What was certified, and how long it took.
#[derive(Debug)]
pub struct Certified {
    /// The run that has ended.
    pub run: Incarnation,
    /// Volumes that the partner need not wait for.
    pub locked: Vec<String>,
    /// Those that could not be locked in time, each with the reason.
    pub skipped: Vec<String>,
    /// From the start to the partner's answer.
    pub took: Duration,
}

/// Certifies the end of the last run of this node's daemon to its partner. Blocks, for no more
/// than a few seconds.
///
/// # Errors
/// See [`CertificateError`].
pub fn certify(config: &Config) -> Result<Certified, CertificateError> {
    let begun = Instant::now();
    if !config.has_partner() {
        return Err(CertificateError::NoPartner);
    }
    let secret = secret::read(&config.partner.secret_file, PAIR_SECRET_MIN)?;
    let state = &config.node.state_directory;
    let _lock = lock(state, begun)?;
    let run = read_run(&state.join(INCARNATION_FILE))?;
    let held = hold_volumes(config, begun)?;
    let certificate = Certificate {
        node: NodeId(config.node.number),
        partner: NodeId(3 - config.node.number),
        cluster: config.cluster.uuid.0,
        secret: secret.into(),
        run,
        left: held.left,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CertificateError::Runtime)?;
    let told = runtime.block_on(tell(config, &certificate));
    runtime.shutdown_background();
    told?;
    Ok(Certified {
        run,
        locked: held.names,
        skipped: held.skipped,
        took: begun.elapsed(),
    })
}

/// The state directory, which a process leaves when all its threads have.
fn lock(state: &Path, begun: Instant) -> Result<File, CertificateError> {
    loop {
        let lock = durable::lock_directory(state).map_err(|source| CertificateError::State {
            path: state.to_owned(),
            source,
        })?;
        match lock {
            Some(lock) => return Ok(lock),
            None if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            None => return Err(CertificateError::InUse(state.to_owned())),
        }
    }
}

/// Notes which run begins; done before anybody is told of it.
pub(crate) fn note_run(state: &Path, run: Incarnation) -> io::Result<()> {
    let text = format!("{:016x}\n", run.0);
    durable::replace(&state.join(INCARNATION_FILE), text.as_bytes(), 0o600)
}

fn read_run(path: &Path) -> Result<Incarnation, CertificateError> {
    let failed = |source| CertificateError::State {
        path: path.to_owned(),
        source,
    };
    let bytes = durable::read_if_there(path).map_err(failed)?;
    let bytes = bytes.ok_or_else(|| CertificateError::NoRun(path.to_owned()))?;
    let text = str::from_utf8(&bytes).unwrap_or_default().trim_end();
    let hex = text.len() == 16 && text.bytes().all(|it| it.is_ascii_hexdigit());
    let number = u64::from_str_radix(text, 16).ok().filter(|_| hex);
    number
        .map(Incarnation)
        .ok_or_else(|| failed(io::Error::other("not 16 hexadecimal digits")))
}

/// What could be locked, and what could not.
#[derive(Default)]
struct Held {
    /// The locks.
    disks: Vec<Disk>,
    left: Vec<Left>,
    names: Vec<String>,
    skipped: Vec<String>,
}

/// Locks every copy of this node, all together within the patience.
fn hold_volumes(config: &Config, begun: Instant) -> Result<Held, CertificateError> {
    let path = config.node.state_directory.join(POOL_STATE_FILE);
    let read = durable::read_if_there(&path);
    let bytes = read.map_err(|source| CertificateError::State {
        path: path.clone(),
        source,
    })?;
    let mut held = Held::default();
    let document = bytes.as_deref().and_then(document_in_force);
    let text = document.and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(pool) = text.and_then(|text| Pool::parse(&text).ok()) else {
        // That the process has ended is worth knowing all the same.
        return Ok(held);
    };
    for volume in &pool.volumes {
        let Some(copy) = Copy::new(volume, config) else {
            continue;
        };
        let patience = LOCK_PATIENCE.saturating_sub(begun.elapsed());
        let id = VolumeId(volume.uuid.0);
        let found = copy.look(patience).map_err(|error| error.to_string());
        let found = found.and_then(|(disk, slots)| Ok((disk, superblock(id, &slots)?)));
        match found {
            Ok((disk, superblock)) => {
                held.left.push(Left::of(&superblock));
                held.names.push(volume.name.clone());
                held.disks.push(disk);
            }
            Err(why) => held.skipped.push(format!("{}: {why}", volume.name)),
        }
    }
    Ok(held)
}

fn superblock(volume: VolumeId, slots: &[Vec<u8>; 2]) -> Result<Superblock, String> {
    match Superblock::choose([&slots[0], &slots[1]]) {
        Ok(Found::Valid { superblock, .. }) if superblock.volume == volume => Ok(superblock),
        Ok(Found::Valid { .. }) => Err("its metadata is another volume's".into()),
        Ok(Found::Blank) => Err("it was never served".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// A link to the partner, and what it waits for.
struct Talk {
    sender: LinkSender,
    certifier: Certifier,
}

/// Sends the certificate on every link, until one has an answer.
async fn tell(config: &Config, certificate: &Certificate) -> Result<(), CertificateError> {
    let (sender, mut inputs) = mpsc::channel(INPUTS);
    let numbers = LinkNumbers::default();
    let mut problem = String::from("nobody came");
    for (index, path) in config.control_paths().into_iter().enumerate() {
        if config.node.number == 1 {
            let dial = links::dial(index, path, numbers.clone(), sender.clone());
            tokio::spawn(dial);
            continue;
        }
        match links::listen(&path).await {
            Ok(listener) => {
                let (numbers, sender) = (numbers.clone(), sender.clone());
                tokio::spawn(links::accept(listener, index, path.remote, numbers, sender));
            }
            Err(error) => problem = format!("{}: {error}", path.local),
        }
    }
    let mut talks: BTreeMap<u32, Talk> = BTreeMap::new();
    let mut until = Instant::now() + MEET;
    // However often it connects.
    let end = until + ANSWER;
    let mut refused = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(Some(input)) = tokio::time::timeout(left, inputs.recv()).await else {
            break;
        };
        match input {
            LinkInput::Up { sender, .. } => {
                let (certifier, first) = Certifier::new(certificate, uuid::random());
                let _ = sender.send(first);
                talks.insert(sender.link, Talk { sender, certifier });
            }
            LinkInput::Bytes { link, bytes } => {
                let Some(talk) = talks.get_mut(&link) else {
                    continue;
                };
                // From here on it may take the certificate, for so long.
                until = until.max(Instant::now() + ANSWER).min(end);
                match talk.certifier.take(&bytes) {
                    // One that does not take it is heard of again as `Down`.
                    Ok(reply) => {
                        let _ = reply.is_empty() || talk.sender.send(reply);
                    }
                    Err(why) => {
                        problem = why;
                        talks.remove(&link);
                    }
                }
                match talks.get(&link).and_then(|it| it.certifier.answer()) {
                    Some(true) => return Ok(()),
                    Some(false) => {
                        refused = true;
                        break;
                    }
                    None => {}
                }
            }
            LinkInput::Down { link, .. } => drop(talks.remove(&link)),
            LinkInput::DialFailed { why, .. } => problem = why,
        }
    }
    match refused {
        true => Err(CertificateError::Refused),
        false => Err(CertificateError::NotReached(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_is_read_as_it_was_noted_and_nothing_else_is_taken_for_one() {
        let state =
            std::env::temp_dir().join(format!("lockstep-certificate-{}", std::process::id()));
        durable::private_directory(&state).unwrap();
        let file = state.join(INCARNATION_FILE);
        assert!(matches!(read_run(&file), Err(CertificateError::NoRun(_))));
        for run in [0, 7, u64::MAX] {
            note_run(&state, Incarnation(run)).unwrap();
            assert_eq!(read_run(&file).unwrap(), Incarnation(run));
        }
        for text in [
            "",
            "\n",
            "7\n",
            "00000000000000070\n",
            "+000000000000007\n",
            "000000000000000g\n",
        ] {
            std::fs::write(&file, text).unwrap();
            let error = read_run(&file).unwrap_err();
            assert!(
                matches!(error, CertificateError::State { .. }),
                "{text:?}: {error}"
            );
        }
        std::fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn a_state_directory_in_use_is_not_certified() {
        let state = std::env::temp_dir().join(format!("lockstep-in-use-{}", std::process::id()));
        let daemon = durable::lock_directory(&state).unwrap();
        assert!(daemon.is_some());
        let error = lock(&state, Instant::now()).unwrap_err();
        assert!(matches!(error, CertificateError::InUse(_)), "{error}");
        drop(daemon);
        lock(&state, Instant::now()).unwrap();
        std::fs::remove_dir_all(state).unwrap();
    }
}
