//! The thread that drives a `Shard`: one ring for its sockets and disks, one turn after the other.
//!
//! A turn waits in the ring, reads the clock, hands what happened to the shard, carries its
//! actions out until nothing more can be done at once, and queues one send a connection and one
//! flush a disk; all of that goes to the kernel with the wait of the next turn. The shard decides
//! everything; the control thread talks to it by [`ToThread`] and [`FromThread`].

mod byte_work;
mod closing;
mod connection;
mod dials;
mod door;
mod links;
mod portals;
mod sending;
mod tokens;
mod worker;

#[cfg(test)]
mod tests;

pub use worker::DriverCounters;

use crate::recorder::Recorder;
use crate::store::Disk;
use lockstep_engine::counters::Counters;
use lockstep_engine::interface::{FromShard, ToShard};
use lockstep_engine::pool::PoolClass;
use lockstep_mirror::control::{Time, VolumeId};
use lockstep_uring::{Errno, SetupError, Waker};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Orders that wait for the thread: its turns are at most 100 ms apart, so that more than this
/// means that it hangs.
const MAILBOX: usize = 4096;
/// Reports that wait in the channel to the control thread; a longer queue is kept in the thread.
const REPORTS: usize = 1024;

/// What a shard's thread is told at its start.
#[derive(Clone, Debug)]
pub struct ShardThreadConfig {
    /// This node's data portals; opened and closed by orders.
    pub portals: Vec<SocketAddr>,
    /// Where the partner's data connections arrive; always open.
    pub sync_listen: Vec<SocketAddr>,
    /// Both ends of each link to the partner, for dialling: our address, and where it listens.
    pub partner_sync: Vec<(IpAddr, SocketAddr)>,
    /// The buffer pool (see [`crate::pool_memory`]).
    pub pool: Vec<PoolClass>,
    /// Unpredictable bytes.
    pub seed: [u8; 32],
    /// The processor to stay on, if any.
    pub cpu: Option<usize>,
    /// A peer that reads nothing for so long while something is queued for it is given up.
    pub stall: Duration,
    /// Notes every event of the shard, if somebody wants to see the run again.
    pub recorder: Option<Recorder>,
}

/// Orders to the thread; carried out in their order.
#[derive(Debug)]
pub enum ToThread {
    /// To the shard.
    Order(Box<ToShard>),
    /// Listen at the data portals.
    OpenPortals,
    /// Refuse new connections at the data portals; those that exist stay.
    ClosePortals,
    /// Take a volume's disk over; before the shard's `Attach` of that volume.
    AttachDisk {
        /// Whose.
        volume: VolumeId,
        /// Open and locked.
        disk: Box<Disk>,
    },
    /// Let it go when nothing is in progress on it; answered by [`FromThread::DiskDetached`].
    DetachDisk(VolumeId),
    /// End; everything is closed, and the thread with it.
    Stop,
}

/// Reports from the thread.
#[derive(Debug)]
pub enum FromThread {
    /// From the shard.
    Shard(FromShard),
    /// A portal or sync address accepts connections.
    Listening {
        /// With the port that the kernel chose, if it was to choose.
        address: SocketAddr,
    },
    /// It cannot; tried again until it can. Said once for each reason.
    NotListening {
        /// As configured.
        address: SocketAddr,
        /// Why.
        error: Errno,
    },
    /// The disk is closed and its locks are let go.
    DiskDetached(VolumeId),
}

/// What the thread has counted, a few times a second.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By the shard.
    pub shard: Counters,
    /// By its driver.
    pub driver: DriverCounters,
}

/// Why there is no thread.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No ring.
    #[error("{0}")]
    Ring(SetupError),
    /// No memory for the pool.
    #[error(
        "no memory for the buffer pool of {bytes} bytes ({error}): make it smaller in lockstep.toml, or give the service more"
    )]
    Pool {
        /// Size of the pool.
        bytes: u64,
        /// What the kernel said.
        error: Errno,
    },
    /// The processor is not there, or not for us.
    #[error("cannot run on processor {cpu}: {error}")]
    Cpu {
        /// As configured.
        cpu: usize,
        /// What the kernel said.
        error: Errno,
    },
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The thread does not take orders: it has ended, or hangs.
#[derive(Debug, thiserror::Error)]
#[error("the shard's thread does not take orders any more")]
pub struct Unresponsive;

/// A running thread. Dropping the handle stops it.
#[derive(Debug)]
pub struct ShardHandle {
    mailbox: SyncSender<ToThread>,
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// What the thread shows to others while it runs.
#[derive(Debug, Default)]
struct Shared {
    stamp: AtomicU64,
    snapshot: Mutex<Snapshot>,
}

/// Starts a thread; its reports come by the receiver.
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn(
    config: ShardThreadConfig,
) -> Result<(ShardHandle, mpsc::Receiver<FromThread>), SpawnError> {
    let (mailbox, orders) = sync_channel(MAILBOX);
    let (reports, receiver) = mpsc::channel(REPORTS);
    let (started, ready) = sync_channel(1);
    let shared = Arc::new(Shared::default());
    let seen = Arc::clone(&shared);
    let body = move || match worker::Worker::new(config, orders, reports, seen) {
        Ok(worker) => {
            // The starter waits for it.
            let _gone = started.send(Ok(worker.waker()));
            worker.run();
        }
        Err(error) => {
            let _gone = started.send(Err(error));
        }
    };
    let thread = std::thread::Builder::new()
        .name("lockstep-shard".into())
        .spawn(body)
        .map_err(SpawnError::Thread)?;
    let waker = ready
        .recv()
        .map_err(|_| SpawnError::Thread(std::io::ErrorKind::BrokenPipe.into()))??;
    Ok((
        ShardHandle {
            mailbox,
            shared,
            waker,
            thread: Some(thread),
        },
        receiver,
    ))
}

impl ShardHandle {
    /// Sends an order and wakes the thread.
    ///
    /// # Errors
    /// The thread has ended or hangs.
    pub fn send(&self, order: ToThread) -> Result<(), Unresponsive> {
        self.mailbox.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Unresponsive,
        })?;
        self.waker.wake();
        Ok(())
    }

    /// When the thread last turned, in milliseconds of `CLOCK_BOOTTIME`. It turns at least every
    /// 100 ms.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.shared.stamp.load(Ordering::Relaxed)
    }

    /// What it counted, up to 200 ms ago.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared
            .snapshot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the thread and waits for it.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A thread that has ended needs no order; one that hangs is waited for.
            let _ended = self.mailbox.send(ToThread::Stop);
            self.waker.wake();
            let _panicked = thread.join();
        }
    }
}

impl Drop for ShardHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// `CLOCK_BOOTTIME`, by which leases are judged: it goes on while a machine sleeps.
#[must_use]
pub fn boot_time() -> Time {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |number: i64| u64::try_from(number).expect("time since boot is not negative");
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}
