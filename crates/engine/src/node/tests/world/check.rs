//! What may never happen.

use super::*;

impl World {
    pub(super) fn check(&self) {
        let serving: [Option<_>; 2] = core::array::from_fn(|who| {
            let machine = &self.machines[who];
            machine
                .path
                .serves(self.clock(who))
                .filter(|_| self.runs(who) && machine.paused_until <= self.now)
                .filter(|_| self.blind != Some(who))
        });
        if let [Some(a), Some(b)] = serving {
            // Serving means reading or acknowledging; a member without lease or vote does neither.
            // A source that holds its acknowledgements for a join changes nothing either.
            let acts = |who: usize| {
                let path = &self.machines[who].path;
                path.reads(self.clock(who)) && !path.held
            };
            let both = a.lineage() != b.lineage() && acts(0) && acts(1);
            assert!(
                !both || self.apart,
                "two lines serve: {a:?} {b:?}\n{}",
                self.story()
            );
        }
        if self.apart {
            return;
        }
        for (who, served) in serving.iter().enumerate() {
            let machine = &self.machines[who];
            if served.is_none() || !machine.path.reads(self.clock(who)) {
                continue;
            }
            for block in 0..BLOCKS {
                let held = machine.disk.blocks[block];
                assert!(
                    held >= self.acked[who][block],
                    "node {} serves block {block} as {held}, acknowledged was {}\n{}",
                    who + 1,
                    self.acked[who][block],
                    self.story()
                );
            }
        }
    }
}

impl World {
    /// An operator decides for this copy: from now on it is a line of its own, in which is lost
    /// what it lacks now, and nothing else. Which line survives is seen when both nodes serve.
    pub(in crate::node::tests) fn excuse_line_of(&mut self, who: usize) {
        self.forced = true;
        for (acked, held) in self.acked[who]
            .iter_mut()
            .zip(self.machines[who].disk.blocks)
        {
            *acked = held.min(*acked);
        }
    }
}
