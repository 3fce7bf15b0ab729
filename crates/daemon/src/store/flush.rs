//! One flush for all that wait. What waits when a flush begins is covered by it; what comes
//! meanwhile waits for the next one.

use lockstep_uring::Handle;

/// Who waits for the flushes of one file.
pub(super) struct Flushes {
    pub(super) file: Handle,
    waiting: Vec<usize>,
    covered: Vec<usize>,
    running: bool,
}

impl Flushes {
    pub(super) const fn new(file: Handle) -> Self {
        Self {
            file,
            waiting: Vec::new(),
            covered: Vec::new(),
            running: false,
        }
    }

    /// This request's writes have completed; it wants them on stable storage. True if the file
    /// had nobody waiting before.
    pub(super) fn wait(&mut self, request: usize) -> bool {
        self.waiting.push(request);
        self.waiting.len() == 1
    }

    /// Whether a flush is to be started now; if so, it covers all that wait.
    pub(super) fn begin(&mut self) -> bool {
        if self.running || self.waiting.is_empty() {
            return false;
        }
        std::mem::swap(&mut self.waiting, &mut self.covered);
        self.running = true;
        true
    }

    /// The flush has ended: takes out those whom it covered. `end` gives the vector back.
    pub(super) fn take_covered(&mut self) -> Vec<usize> {
        self.running = false;
        std::mem::take(&mut self.covered)
    }

    /// Keeps the memory for the next flush.
    pub(super) fn give_back(&mut self, mut covered: Vec<usize>) {
        covered.clear();
        self.covered = covered;
    }

    pub(super) const fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) const fn is_idle(&self) -> bool {
        !self.running && self.waiting.is_empty()
    }
}
