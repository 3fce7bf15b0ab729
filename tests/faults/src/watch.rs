//! Looks at both nodes all the time: what resyncs cost, and that nobody is ever split.

use crate::cluster::VOLUME;
use lockstep_api::Client;
use lockstep_api::status::Status;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often each node is asked.
const PERIOD: Duration = Duration::from_millis(200);

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Answers of both nodes.
    pub answers: u64,
    /// Bytes compared by resyncs.
    pub compared: u64,
    /// Bytes copied by them.
    pub copied: u64,
    /// Resyncs that compared all of the volume.
    pub full: u64,
    /// Times at which a node began to serve alone.
    pub alone: u64,
    /// What must never be seen.
    pub wrong: Vec<String>,
}

/// The counters of one daemon's run, as they were last seen.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    pid: u32,
    compared: u64,
    copied: u64,
    full: u64,
    alone: bool,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Starts to look at these nodes.
    #[must_use]
    pub fn start(clients: Vec<Client>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let look = |client: Client| {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut run = Run::default();
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(status) = client.status() {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        note(&mut seen, &mut run, &status);
                    }
                    std::thread::sleep(PERIOD);
                }
            })
        };
        let threads = clients.into_iter().map(look).collect();
        Self {
            seen,
            stop,
            threads,
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn note(seen: &mut Seen, run: &mut Run, status: &Status) {
    seen.answers += 1;
    let Some(volume) = status.volumes.iter().find(|volume| volume.name == VOLUME) else {
        return;
    };
    if run.pid != status.pid {
        *run = Run {
            pid: status.pid,
            ..Run::default()
        };
    }
    // The counters begin anew with each run, and with each volume of that name.
    let grown = |now: u64, before: u64| if now >= before { now - before } else { now };
    seen.compared += grown(volume.resync_compared, run.compared);
    seen.copied += grown(volume.resync_copied, run.copied);
    seen.full += grown(volume.full_resyncs, run.full);
    let alone = volume.state == "serving-alone" || volume.state == "resyncing";
    seen.alone += u64::from(alone && !run.alone);
    *run = Run {
        pid: run.pid,
        compared: volume.resync_compared,
        copied: volume.resync_copied,
        full: volume.full_resyncs,
        alone,
    };
    if volume.state == "split-brain" && seen.wrong.len() < 5 {
        seen.wrong.push(format!(
            "node{} says split-brain: {}",
            status.node, volume.reason
        ));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A node that is paused answers never; its thread ends when the process is gone.
            if thread.is_finished() {
                let _ended = thread.join();
            }
        }
    }
}
