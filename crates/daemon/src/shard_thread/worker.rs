//! The thread's loop.

use super::byte_work::ByteWork;
use super::connection::INBOX_BYTES;
use super::dials::Dials;
use super::links::{CONNECTIONS_MAX, Core, Links};
use super::portals::Portals;
use super::tokens::Owner;
use super::{FromThread, ShardThreadConfig, Shared, SpawnError, ToThread, boot_time};
use crate::pool_memory;
use crate::store::{Machine, Store, ZERO_BYTES};
use lockstep_engine::interface::IoKey;
use lockstep_engine::interface::{Action, Event};
use lockstep_engine::shard::Shard;
use lockstep_mirror::control::Time;
use lockstep_mirror::volume_io::{Io, Value};
use lockstep_uring::{Arena, Completion, Ring, SlotClass, Waker};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

/// Submissions between two system calls.
const SUBMISSIONS: u32 = 1024;
/// The longest wait: the stamp says that the thread lives.
const TURN_MAX: Duration = Duration::from_millis(100);
/// How often the snapshot is renewed.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(200);
/// Reports that are kept when the control thread does not take them. It takes them within
/// milliseconds; a control thread that hangs for longer than this lasts must not be served on.
const REPORTS_MAX: usize = 65_536;

/// What the driver counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Turns of the loop, and so calls of `io_uring_enter`.
    pub turns: u64,
    /// Bytes received from initiators and the partner.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Vectored sends.
    pub sends: u64,
    /// Connections that were closed at once: too many, or gone already.
    pub refused: u64,
    /// Connections that were given up because the peer did not read.
    pub stalled: u64,
}

pub(super) struct Worker {
    core: Core,
    links: Links,
    portals: Portals,
    dials: Dials,
    store: Store,
    byte_work: ByteWork,
    bytes_done: Vec<(IoKey, Value)>,
    /// The other half of `core.actions`.
    performing: Vec<Action>,
    orders: Receiver<ToThread>,
    reports: Sender<FromThread>,
    fresh_reports: Vec<FromThread>,
    kept_reports: VecDeque<FromThread>,
    shared: Arc<Shared>,
    next_housekeeping: Time,
    next_snapshot: Time,
    turns: u64,
}

impl Worker {
    pub(super) fn new(
        config: ShardThreadConfig,
        orders: Receiver<ToThread>,
        reports: Sender<FromThread>,
        shared: Arc<Shared>,
    ) -> Result<Self, SpawnError> {
        if let Some(cpu) = config.cpu {
            let mut set = rustix::thread::CpuSet::new();
            if cpu < rustix::thread::CpuSet::MAX_CPU {
                set.set(cpu);
            }
            rustix::thread::sched_setaffinity(None, &set)
                .map_err(|error| SpawnError::Cpu { cpu, error })?;
        }
        let shard = Shard::new(&config.pool, config.seed);
        if let Some(recorder) = &config.recorder {
            recorder.shard(&config.pool, config.seed);
        }
        // The shard's slots come first, so that their numbers are the arena's. Then those of our own.
        let mut classes: Vec<SlotClass> = shard
            .pool_layout()
            .iter()
            .map(|class| SlotClass {
                slots: class.slots,
                slot_bytes: class.slot_bytes,
            })
            .collect();
        let pool_slots: u32 = classes.iter().map(|class| class.slots).sum();
        classes.push(SlotClass {
            slots: CONNECTIONS_MAX,
            slot_bytes: INBOX_BYTES,
        });
        classes.push(SlotClass {
            slots: 1,
            slot_bytes: ZERO_BYTES,
        });
        let arena = Arena::new(&classes).map_err(|error| SpawnError::Pool {
            bytes: pool_memory::total(&config.pool),
            error,
        })?;
        let ring = Ring::new(SUBMISSIONS).map_err(SpawnError::Ring)?;
        let core = Core {
            ring,
            arena,
            shard,
            now: boot_time(),
            actions: Vec::new(),
            recorder: config.recorder,
        };
        Ok(Self {
            core,
            links: Links::new(pool_slots, config.stall),
            portals: Portals::new(&config.portals, &config.sync_listen),
            dials: Dials::new(config.partner_sync),
            store: Store::new(pool_slots + CONNECTIONS_MAX),
            byte_work: ByteWork::default(),
            bytes_done: Vec::new(),
            performing: Vec::new(),
            orders,
            reports,
            fresh_reports: Vec::new(),
            kept_reports: VecDeque::new(),
            shared,
            next_housekeeping: Time::ZERO,
            next_snapshot: Time::ZERO,
            turns: 0,
        })
    }

    pub(super) fn waker(&self) -> Waker {
        self.core.ring.waker()
    }

    /// Turns until it is told to stop.
    pub(super) fn run(mut self) {
        let mut completions = Vec::new();
        loop {
            let wait = self.wait();
            self.core
                .ring
                .turn(wait, &mut completions)
                .expect("the ring takes well-formed submissions");
            self.read_clock();
            self.turns += 1;
            let stamp = u64::try_from(self.core.now.as_millis()).expect("centuries fit");
            self.shared.stamp.store(stamp, Ordering::Relaxed);
            for completion in completions.drain(..) {
                self.completed(completion);
            }
            if self.take_orders() {
                return;
            }
            self.links.take_waiting(&mut self.core);
            self.keep_time();
            self.byte_work
                .turn(&mut self.core.arena, &mut self.bytes_done);
            self.work_off();
            self.links.flush(&mut self.core);
            self.store.settle(&mut Machine {
                ring: &mut self.core.ring,
                arena: &mut self.core.arena,
            });
            while let Some(volume) = self.store.take_detached() {
                self.fresh_reports.push(FromThread::DiskDetached(volume));
            }
            self.send_reports();
        }
    }

    /// Never goes back, and is read after what it is to judge.
    fn read_clock(&mut self) {
        self.core.now = self.core.now.max(boot_time());
    }

    /// How long nothing needs to be done.
    fn wait(&self) -> Duration {
        if self.byte_work.is_waiting() || self.links.may_take() {
            return Duration::ZERO;
        }
        let deadline = self
            .core
            .shard
            .next_deadline()
            .map_or(TURN_MAX, |at| at.saturating_sub(self.core.now));
        let retry = if self.kept_reports.is_empty() {
            TURN_MAX
        } else {
            Duration::from_millis(1)
        };
        deadline.min(retry).min(TURN_MAX)
    }

    fn completed(&mut self, completion: Completion) {
        if completion.token.0 & Store::TOKENS != 0 {
            let mut machine = Machine {
                ring: &mut self.core.ring,
                arena: &mut self.core.arena,
            };
            return self.store.completed(&mut machine, completion);
        }
        match Owner::of(completion.token) {
            Owner::Accept { listener, epoch } => {
                self.portals
                    .accepted(&mut self.core, &mut self.links, listener, epoch, completion);
            }
            Owner::Dial(index) => {
                self.dials
                    .completed(&mut self.core, &mut self.links, index, completion.result)
            }
            Owner::Receive(index) => {
                self.links.received(
                    &mut self.core,
                    index,
                    completion.result,
                    completion.nonempty,
                );
            }
            Owner::Send(index) => self.links.sent(&mut self.core, index, completion),
        }
    }

    /// Carries out what the control thread wants; true if that is to stop.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(ToThread::Order(order)) => {
                    self.core.event(Event::Order(*order));
                    // In order: what an order makes the shard do comes before the next one.
                    self.work_off();
                }
                Ok(ToThread::OpenPortals) => {
                    self.portals
                        .want_data(&mut self.core, true, &mut self.fresh_reports)
                }
                Ok(ToThread::ClosePortals) => {
                    self.links.door.turn_away();
                    self.portals
                        .want_data(&mut self.core, false, &mut self.fresh_reports)
                }
                Ok(ToThread::AttachDisk { volume, disk }) => self.store.attach(volume, *disk),
                Ok(ToThread::DetachDisk(volume)) => self.store.detach(volume),
                Ok(ToThread::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    /// Deadlines, and what is looked after some times a second.
    fn keep_time(&mut self) {
        let now = self.core.now;
        if self
            .core
            .shard
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.core.event(Event::Tick);
        }
        if self.next_housekeeping <= now {
            self.next_housekeeping = now + TURN_MAX;
            self.links.housekeeping(&mut self.core);
            self.portals
                .housekeeping(&mut self.core, &mut self.fresh_reports);
            self.dials.housekeeping(&mut self.core);
        }
        if self.next_snapshot <= now {
            // Somebody is reading it just now: the next turn will do.
            let Ok(mut snapshot) = self.shared.snapshot.try_lock() else {
                return;
            };
            self.next_snapshot = now + SNAPSHOT_EVERY;
            snapshot.shard.clone_from(self.core.shard.counters());
            snapshot.driver = DriverCounters {
                turns: self.turns,
                received_bytes: self.links.received_bytes,
                sent_bytes: self.links.sent_bytes,
                sends: self.links.sends,
                refused: self.links.refused,
                stalled: self.links.stalled,
            };
        }
    }

    /// Carries out actions and tells what came of them, until nothing more happens at once.
    fn work_off(&mut self) {
        loop {
            let mut worked = false;
            while !self.core.actions.is_empty() {
                worked = true;
                std::mem::swap(&mut self.core.actions, &mut self.performing);
                let mut actions = std::mem::take(&mut self.performing);
                for action in actions.drain(..) {
                    self.perform(action);
                }
                self.performing = actions;
            }
            // What was done at once was done after the clock was last read.
            self.read_clock();
            while let Some(done) = self.store.take_done() {
                self.core.event(Event::Io {
                    key: done.key,
                    result: done.result,
                });
                worked = true;
            }
            for (key, value) in std::mem::take(&mut self.bytes_done) {
                self.core.event(Event::Io {
                    key,
                    result: Ok(value),
                });
                worked = true;
            }
            worked |= self.links.work(&mut self.core);
            worked |= self.dials.work(&mut self.core);
            if !worked {
                return;
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send { conn, head, body } => self.links.queue(&self.core, conn, &head, body),
            Action::Close { conn } => self.links.close(&mut self.core, conn),
            Action::Abort { conn } => self.links.abort(&mut self.core, conn),
            Action::Dial { dial, address } => self.dials.dial(&mut self.core, dial, address),
            Action::Wake { conn } => self.links.wake(conn),
            Action::Report(report) => self.fresh_reports.push(FromThread::Shard(report)),
            Action::Io { key, volume, io } => match io {
                Io::Crc { .. }
                | Io::Hash { .. }
                | Io::Compare { .. }
                | Io::Fill { .. }
                | Io::Put { .. } => {
                    self.byte_work
                        .start(&mut self.core.arena, key, io, &mut self.bytes_done);
                }
                _ => {
                    let mut machine = Machine {
                        ring: &mut self.core.ring,
                        arena: &mut self.core.arena,
                    };
                    self.store.start(&mut machine, key, volume, io);
                }
            },
        }
    }

    fn send_reports(&mut self) {
        self.kept_reports.extend(self.fresh_reports.drain(..));
        while let Some(report) = self.kept_reports.pop_front() {
            match self.reports.try_send(report) {
                // Closed: nobody listens any more, and the order to stop will come.
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(report)) => {
                    self.kept_reports.push_front(report);
                    break;
                }
            }
        }
        assert!(
            self.kept_reports.len() < REPORTS_MAX,
            "the control thread takes no reports: the node must not serve on"
        );
    }
}
