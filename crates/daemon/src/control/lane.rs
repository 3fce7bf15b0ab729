//! Durable writes beside the control thread: in order within a lane, and no lane waits for
//! another, so that a disk that hangs does not hold up the vote of the other volumes.

use std::sync::mpsc;

/// A job of a lane.
type Job = Box<dyn FnOnce() + Send>;

/// One thread that does one job after the other. It ends when the lane is dropped and its jobs
/// are done.
#[derive(Debug)]
pub(crate) struct Lane {
    jobs: mpsc::Sender<Job>,
}

impl Lane {
    /// Starts a lane; `name` is its thread's, of which Linux shows 15 bytes.
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let body = move || queue.into_iter().for_each(|job| job());
        std::thread::Builder::new().name(name.into()).spawn(body)?;
        Ok(Self { jobs })
    }

    /// Queues a job. `Node` asks for the next write of a file only when the one before has ended,
    /// so the queue stays short.
    ///
    /// # Panics
    /// If a job panicked: then a file may be half written, and half a node must not live.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.jobs
            .send(Box::new(job))
            .expect("a lane ends only when it is dropped");
    }
}
