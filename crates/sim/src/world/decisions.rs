//! An operator serves a copy whose partner is gone, and the partner comes back all the same; then
//! one of the two copies is chosen. What a decision loses is what the copy did not hold at that
//! moment: from then on its image is what the disk held at first, and nothing else is excused.

use super::{VOLUME, World};
use crate::client::stamp_of;
use crate::disk::SECTOR;
use core::time::Duration;

/// The node that comes back, the split, the choice and the resync end within this time.
const AT_MOST: Duration = Duration::from_secs(40);

impl World {
    /// The operator is sure that the other node is gone.
    pub(super) fn decide_for(&mut self, node: usize) {
        if self.machines[1 - node].process.is_some() {
            return self.ctx.count("decisions by force not needed");
        }
        if !self.machines[node].force(&mut self.ctx) {
            return self.ctx.count("decisions by force refused");
        }
        self.ctx.count("copies served by force");
        // Nothing else goes wrong until it is seen what came of it: two lines that do not meet
        // serve both.
        self.rejoin();
        self.set_losses(0);
        self.deciding = Some(self.ctx.now + AT_MOST);
        self.chosen = false;
        self.plan.until += AT_MOST;
        self.begin_line_of(node);
    }

    /// From now on that image is the truth. What is under way may still take effect.
    fn begin_line_of(&mut self, node: usize) {
        for machine in &mut self.machines {
            machine.watch.served.clear();
        }
        let Some(files) = self.machines[node].volumes.get(&VOLUME.0) else {
            return;
        };
        let held = |sector: u64| {
            let mut bytes = [0; SECTOR];
            files.image.read(sector * SECTOR as u64, &mut bytes);
            stamp_of(&bytes).unwrap_or_default()
        };
        let (step, before) = (self.ctx.step, self.line_before.as_ref());
        let line = self.ledger.beginning_with(step, before, held);
        self.line_before = Some(core::mem::replace(&mut self.ledger, line));
    }

    /// Chooses a copy once both nodes know that they were written apart.
    pub(super) fn decide_between(&mut self) {
        if self.deciding.is_none() {
            return;
        }
        if self.together() {
            self.deciding = None;
            return;
        }
        let known = |machine: &crate::machine::Machine| machine.knows_of_split();
        if self.chosen || !self.machines.iter().all(known) {
            return;
        }
        self.chosen = true;
        let (told, kept) = (self.chance.index(2), self.chance.index(2));
        self.ctx
            .trace("operator", || format!("node {} is kept", kept + 1));
        self.ctx.count("splits resolved");
        self.begin_line_of(kept);
        self.machines[told].keep(&mut self.ctx, told == kept);
    }
}
