//! A disk that can be broken: a [`Store`] behind the kernel's FUSE, with faults between the two.

mod mount;

use crate::random::Random;
use crate::store::{Store, Torn};
use anyhow::{Context, Result};
use fuser::BackgroundSession;
use mount::Mount;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How our mounts are called in `/proc/mounts`: this, the process, the machine.
const SOURCE: &str = "lockstep-faults";

/// What part of a machine's disk a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A volume's blocks.
    Image,
    /// What the mirror keeps beside them.
    Metadata,
    /// The state directory: votes, pool configuration, events.
    State,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads blocks.
    Read,
    /// Writes, zeroes or reserves them, or changes names.
    Write,
    /// Makes them durable.
    Flush,
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails so.
    Fail(Errno),
    /// It takes so much longer.
    Delay(Duration),
    /// It does not end until the fault is over.
    Hang,
    /// It is answered, and nothing is done: a disk that lies. Of flushes only.
    Ignore,
}

/// Which operations are hit, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFault {
    /// Of this part, or of all.
    pub part: Option<Part>,
    /// This one, or all.
    pub operation: Option<Operation>,
    /// What happens.
    pub effect: Effect,
}

/// An operation of the kernel that waits to be done and answered.
type Job = Box<dyn FnOnce(Result<&mut Store, Errno>) + Send>;

/// The three states of a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Nothing is answered: who asked must not act on it.
    Off,
    /// Who asked was killed: everything fails, so that it can go.
    Killed,
}

struct Inside {
    store: Store,
    fault: Option<DiskFault>,
    power: Power,
    /// Hang, or wait for the end of a power cut.
    parked: Vec<Job>,
    delayed: BTreeMap<(Instant, u64), Job>,
    count: u64,
    ended: bool,
    random: Random,
}

/// What the kernel's threads, the timer and the nemesis share.
struct Shared {
    inside: Mutex<Inside>,
    changed: Condvar,
}

/// A mounted disk. Unmounted when it is dropped.
pub struct Disk {
    shared: Arc<Shared>,
    mount: PathBuf,
    session: Option<BackgroundSession>,
    timer: Option<std::thread::JoinHandle<()>>,
}

impl Disk {
    /// Mounts a new, empty one. What is flushed lies in files of `backing`.
    ///
    /// # Errors
    /// The kernel has no FUSE, or does not let us mount.
    pub fn new(name: &str, mount: &Path, backing: &Path, seed: u64) -> Result<Self> {
        for directory in [mount, backing] {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let store = Store::new(backing.into(), Random::new(seed, 11));
        let inside = Inside {
            store,
            fault: None,
            power: Power::On,
            parked: Vec::new(),
            delayed: BTreeMap::new(),
            count: 0,
            ended: false,
            random: Random::new(seed, 12),
        };
        let shared = Arc::new(Shared {
            inside: Mutex::new(inside),
            changed: Condvar::new(),
        });
        let source = format!("{SOURCE}-{}-{name}", std::process::id());
        let session = mount::spawn(Mount::new(Arc::clone(&shared)), mount, source).context(
            "cannot mount a FUSE file system: these tests need root, /dev/fuse and a kernel with FUSE \
             (in a container: --device /dev/fuse --cap-add SYS_ADMIN)",
        )?;
        let for_timer = Arc::clone(&shared);
        let timer = std::thread::spawn(move || for_timer.run_delayed());
        Ok(Self {
            shared,
            mount: mount.into(),
            session: Some(session),
            timer: Some(timer),
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// From now on this happens to operations; `None`: nothing, and what hangs goes on.
    pub fn set_fault(&self, fault: Option<DiskFault>) {
        let mut inside = self.shared.lock();
        inside.fault = fault;
        if inside.power == Power::On {
            inside.release(None);
        }
    }

    /// A power cut begins: nothing is answered any more. Then kill who uses it.
    pub fn switch_off(&self) {
        let mut inside = self.shared.lock();
        inside.power = Power::Off;
        let delayed = std::mem::take(&mut inside.delayed);
        inside.parked.extend(delayed.into_values());
    }

    /// Who used it was killed: what was under way is done or not. Then wait until it is gone.
    pub fn forget_user(&self) {
        let mut inside = self.shared.lock();
        let done = inside.random.below(101);
        inside.release(Some(done));
        inside.power = Power::Killed;
    }

    /// The power is back: what was not flushed is lost or torn.
    ///
    /// # Errors
    /// The backing directory fails.
    pub fn switch_on(&self) -> Result<Torn> {
        let mut inside = self.shared.lock();
        let torn = inside
            .store
            .cut_power()
            .context("the backing directory of a disk")?;
        inside.power = Power::On;
        inside.fault = None;
        Ok(torn)
    }

    /// A file as it is now, read past the kernel.
    ///
    /// # Errors
    /// There is none.
    pub fn contents(&self, path: &str) -> Result<Vec<u8>> {
        let inside = self.shared.lock();
        let found = inside.store.contents(path);
        found.with_context(|| format!("{path} on the disk at {}", self.mount.display()))
    }
}

impl Inside {
    /// Ends what is parked; `killed`: who asked is dead, and so many in a hundred are done.
    fn release(&mut self, killed: Option<u64>) {
        for job in std::mem::take(&mut self.parked) {
            match killed {
                Some(done) if !self.random.percent(done) => job(Err(Errno::IO)),
                _ => job(Ok(&mut self.store)),
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does an operation now, later or never, as the fault of the moment says.
    fn gate(&self, part: Part, operation: Operation, job: Job) {
        let mut inside = self.lock();
        let hit = inside.fault.filter(|fault| {
            fault.part.is_none_or(|it| it == part)
                && fault.operation.is_none_or(|it| it == operation)
        });
        match hit.map(|fault| fault.effect) {
            _ if inside.power == Power::Off => inside.parked.push(job),
            _ if inside.power == Power::Killed => job(Err(Errno::IO)),
            None => job(Ok(&mut inside.store)),
            Some(Effect::Fail(error)) => job(Err(error)),
            Some(Effect::Hang) => inside.parked.push(job),
            Some(Effect::Delay(time)) => {
                inside.count += 1;
                let key = (Instant::now() + time, inside.count);
                inside.delayed.insert(key, job);
                self.changed.notify_one();
            }
            // The mount answers flushes that are interrupted as done.
            Some(Effect::Ignore) => job(Err(mount::IGNORED)),
        }
    }

    fn run_delayed(&self) {
        let mut inside = self.lock();
        while !inside.ended {
            let now = Instant::now();
            while inside
                .delayed
                .first_key_value()
                .is_some_and(|((due, _), _)| *due <= now)
            {
                let (_, job) = inside.delayed.pop_first().expect("it was just there");
                job(Ok(&mut inside.store));
            }
            let wait = inside
                .delayed
                .first_key_value()
                .map_or(Duration::from_secs(1), |((due, _), _)| {
                    due.saturating_duration_since(now)
                });
            let waited = self.changed.wait_timeout(inside, wait);
            inside = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.set_fault(None);
        {
            let mut inside = self.shared.lock();
            inside.power = Power::On;
            inside.release(None);
            inside.ended = true;
        }
        self.shared.changed.notify_one();
        if let Some(timer) = self.timer.take() {
            let _ended = timer.join();
        }
        if let Some(session) = self.session.take() {
            // Whoever still has it open keeps a lazily unmounted one; nobody waits for that.
            let _unmounted = std::process::Command::new("umount")
                .arg("-l")
                .arg(&self.mount)
                .status();
            drop(session);
        }
    }
}

/// Unmounts what runs left behind that were killed.
pub fn clear_up() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(source), Some(place)) = (words.next(), words.next()) else {
            continue;
        };
        let process = source
            .strip_prefix(SOURCE)
            .and_then(|it| it.split('-').nth(1));
        if process.is_some_and(|it| !Path::new("/proc").join(it).exists()) {
            let _unmounted = std::process::Command::new("umount")
                .args(["-l", place])
                .status();
        }
    }
}
