//! What must hold at every moment, and what must hold at the end.

use super::{FIRST_CLIENT, LIVENESS, Phase, SETTLE, VOLUME, World};
use crate::disk::SECTOR;
use core::time::Duration;
use lockstep_mirror::control::{Configuration, NodeId, Repair, ToVolume};
use std::collections::BTreeSet;

/// Sectors that one read of the last look covers.
const LAST_LOOK: u64 = 2048;

impl World {
    /// Looks at everything from outside.
    pub(super) fn inspect(&mut self) {
        self.measure_gap();
        self.no_two_truths();
        self.inconsistent_disks_do_not_serve();
        self.differences_are_marked();
        self.inspect_majority();
        self.count_slowness();
        self.decide_between();
        if self.together() {
            self.older = false;
            if self.isolated.is_none() {
                self.cut_off = None;
            }
        }
        match self.phase {
            Phase::Making if self.is_made() => self.begin_faults(),
            Phase::Making if self.ctx.now < SETTLE => self.make(),
            Phase::Making if self.ctx.now > SETTLE => {
                self.violation("the volume was not made in time".to_owned())
            }
            Phase::Calm(since) => self.check_calm(since),
            Phase::Ending if self.clients.iter().all(|client| client.outstanding() == 0) => {
                self.rot_and_verify()
            }
            Phase::Verifying(since) => self.check_verification(since),
            Phase::Reading if self.clients.iter().all(|client| client.outstanding() == 0) => {
                self.last_checks()
            }
            Phase::Making | Phase::Faults | Phase::Ending | Phase::Reading | Phase::Over => {}
        }
    }

    fn violation(&mut self, what: String) {
        self.ctx.violation(what);
    }

    fn measure_gap(&mut self) {
        let waiting = self
            .clients
            .iter()
            .filter_map(crate::client::Client::oldest)
            .min();
        if let Some(oldest) = waiting {
            let since = self.last_answer.max(oldest);
            self.longest_gap = self.longest_gap.max(self.ctx.now.saturating_sub(since));
        }
    }

    /// Both nodes serve the same configuration, with both as members.
    pub(super) fn together(&self) -> bool {
        let [one, two] = [0, 1].map(|node| &self.machines[node].watch);
        one.confirmed
            && two.confirmed
            && one.serving.is_some()
            && one.serving == two.serving
            && !one.alone()
            && self.machines.iter().all(super::Machine::is_running)
    }

    /// At most one configuration an epoch, and never two nodes that both serve without the other.
    fn no_two_truths(&mut self) {
        let serving = [0, 1].map(|node| self.machines[node].watch.serving);
        if let [Some(one), Some(two)] = serving
            && one.members.count() == 1
            && two.members.count() == 1
        {
            self.violation(format!("both nodes serve alone: {one:?} and {two:?}"));
        }
        let other = &self.machines[1].watch.served;
        let clash = |mine: &&Configuration| {
            other
                .iter()
                .find(|theirs| theirs.epoch == mine.epoch && theirs.generation != mine.generation)
                .copied()
        };
        let two = self.machines[0]
            .watch
            .served
            .iter()
            .find_map(|mine| clash(&mine).map(|theirs| (*mine, theirs)));
        if let Some((mine, theirs)) = two {
            self.violation(format!(
                "two configurations of one epoch: {mine:?} and {theirs:?}"
            ));
        }
    }

    fn inconsistent_disks_do_not_serve(&mut self) {
        for node in 0..2 {
            let machine = &self.machines[node];
            if machine.process.is_some() && machine.watch.alone() && machine.is_inconsistent(VOLUME)
            {
                self.violation(format!(
                    "node {} serves alone from an inconsistent disk",
                    node + 1
                ));
            }
        }
    }

    /// Wherever the two images differ, some node knows it.
    fn differences_are_marked(&mut self) {
        for machine in &mut self.machines {
            if let Some(files) = machine.volumes.get_mut(&VOLUME.0) {
                self.differing.extend(files.image.take_changed());
            }
        }
        let [Some(one), Some(two)] = [0, 1].map(|node| self.machines[node].volumes.get(&VOLUME.0))
        else {
            return;
        };
        let size = self.shape.size;
        let marks = [0, 1].map(|node| self.machines[node].marks(VOLUME, size));
        let mut still = BTreeSet::new();
        let mut unmarked = None;
        // A node without a configuration of the volume says so, and everything is compared, as
        // with a snapshot that was put back.
        let blank = (0..2).any(|node| self.machines[node].is_blank(VOLUME)) && self.replaced;
        let blank = blank || self.older;
        for sector in one.image.differences_in(&two.image, &self.differing) {
            still.insert(usize::try_from(sector / (4096 / SECTOR as u64)).expect("small"));
            let byte = sector * SECTOR as u64;
            if !blank && marks.iter().all(|marks| !marks.covers(byte)) {
                unmarked = unmarked.or(Some(sector));
            }
        }
        self.differing = still;
        // What rots is marked by nobody: it is to be found.
        if self.rotten.is_some() {
            return;
        }
        if let Some(sector) = unmarked {
            self.violation(format!(
                "sector {sector} differs, but neither node has marked it"
            ));
        }
    }

    /// Counts nodes that are put out for slowness. Their wait is bounded, and ends by itself.
    fn count_slowness(&mut self) {
        for node in 0..2 {
            let (times, wait) = self.machines[node].slowness(&self.ctx).unwrap_or_default();
            for _ in self.ejected[node]..times {
                self.ctx.count("nodes put out for slowness");
                self.put_out = true;
            }
            self.ejected[node] = times;
            // Its clock may be slower than ours.
            self.waits_until = self.waits_until.max(self.ctx.now + wait * 11 / 10);
        }
    }

    fn check_calm(&mut self, since: Duration) {
        let now = self.ctx.now;
        if now > since + Duration::from_secs(5) {
            self.restart_stopped();
        }
        let oldest = self
            .clients
            .iter()
            .filter_map(crate::client::Client::oldest)
            .min();
        if now > since + LIVENESS && oldest.is_some_and(|oldest| oldest.max(since) + LIVENESS < now)
        {
            let waits = oldest.unwrap_or_default();
            let state = [0, 1].map(|node| self.machines[node].describe(&self.ctx));
            return self.violation(format!(
                "a command of {waits:?} was not answered {LIVENESS:?} after the last fault: {} / {}",
                state[0], state[1]
            ));
        }
        if now > since + Duration::from_secs(5) && self.together() {
            if self.put_out {
                self.ctx.count("runs in which such a node came back");
            }
            self.phase = Phase::Ending;
            self.ctx.trace("world", || "both serve: the load ends");
            for client in &mut self.clients {
                client.running = false;
            }
        } else if now > since.max(self.waits_until) + SETTLE {
            let state = [0, 1].map(|node| self.machines[node].describe(&self.ctx));
            self.violation(format!(
                "the nodes did not come together within {SETTLE:?}: {} / {}",
                state[0], state[1]
            ));
        }
    }

    /// On one node's disk, a few sectors are not what was written (bits rotted, or a write of others
    /// went there), and both copies are compared. In some runs nothing is wrong.
    fn rot_and_verify(&mut self) {
        self.phase = Phase::Verifying(self.ctx.now);
        let sectors = self.shape.size / SECTOR as u64;
        if self.chance.chance(700) {
            let node = self.chance.index(2);
            let count = self.chance.between(1, 4);
            for _ in 0..count {
                let (to, from) = (self.chance.below(sectors), self.chance.below(sectors));
                // Next to it the other copy cannot be read: then nobody has the truth.
                let piece = to / 128 * 128..to / 128 * 128 + 128;
                if self.machines[1 - node].bad.range(piece).next().is_some() {
                    continue;
                }
                let image = &mut self.machines[node].volumes.get_mut(&VOLUME.0);
                let image = &mut image.as_mut().expect("it was made").image;
                let mut contents = [0; SECTOR];
                image.read(from * SECTOR as u64, &mut contents);
                if self.chance.chance(500) {
                    self.ctx.count("bits that rot");
                    contents[self.chance.index(SECTOR)] ^= 1 << self.chance.below(8);
                } else {
                    self.ctx.count("writes that went astray");
                }
                image.put_silently(to * SECTOR as u64, &contents);
            }
            self.rotten = Some((node, count));
        }
        self.verify();
    }

    fn verify(&mut self) {
        self.asked_to_verify = false;
        let owner = self.machines[0].watch.serving.map(|it| it.owner);
        let (Some(owner), true) = (owner, self.together()) else {
            return;
        };
        self.asked_to_verify = true;
        let right = self.rotten.map_or(0, |(node, _)| 1 - node);
        let repair = Repair::Node(NodeId(u8::try_from(right).expect("0 or 1") + 1));
        let host = usize::from(owner.0) - 1;
        let ctx = &mut self.ctx;
        self.machines[host].order_volume(ctx, VOLUME, ToVolume::Verify { repair });
    }

    fn check_verification(&mut self, since: Duration) {
        let found = self
            .machines
            .iter_mut()
            .filter_map(|machine| machine.watch.verified.take())
            .next_back();
        match found {
            Some(found) if found.complete => {
                let [one, two] = [0, 1].map(|node| &self.machines[node].volumes[&VOLUME.0].image);
                if let Some(sector) = one.first_difference(two, self.shape.size) {
                    return self.violation(format!(
                        "sector {sector} still differs after a verification with repair: {found:?}"
                    ));
                }
                if self.rotten.is_none() && found.differing > 0 {
                    return self.violation(format!(
                        "a verification found what does not differ: {found:?}"
                    ));
                }
                self.rotten = None;
                self.read_all();
            }
            // Interrupted: a node took the other one for slow, and only two that serve compare.
            Some(_) => self.asked_to_verify = false,
            None if self.ctx.now > since + SETTLE => {
                self.violation("a verification did not come to its end".to_owned());
            }
            None if !self.asked_to_verify => self.verify(),
            None => {}
        }
    }

    /// Reads everything through each node.
    fn read_all(&mut self) {
        self.phase = Phase::Reading;
        let sectors = self.shape.size / SECTOR as u64;
        for path in 0..2 {
            for first in (0..sectors).step_by(usize::try_from(LAST_LOOK).expect("small")) {
                let range = first..(first + LAST_LOOK).min(sectors);
                // Where neither node ever wrote anything there is nothing to be seen.
                let images = self.machines.iter().map(|it| &it.volumes[&VOLUME.0].image);
                if first == 0 || images.into_iter().any(|it| it.was_written(&range)) {
                    self.clients[0].read_by(&mut self.ctx, range, path);
                }
            }
        }
    }

    fn last_checks(&mut self) {
        self.phase = Phase::Over;
        let [one, two] = [0, 1].map(|node| &self.machines[node].volumes[&VOLUME.0].image);
        if let Some(sector) = one.first_difference(two, self.shape.size) {
            self.violation(format!(
                "the images differ at the end, first in sector {sector}"
            ));
        }
        for violation in self.ledger.violations().into_iter().take(3) {
            let history = self.ledger.history(violation.sector);
            self.violation(format!("{violation}\n{history}"));
        }
        let full: u32 = self
            .machines
            .iter()
            .map(|machine| machine.watch.full_copies)
            .sum();
        if full > 0 && !self.replaced {
            self.violation(format!("{full} full copies, and no disk was replaced"));
        }
        self.ctx.trace("world", || "over");
    }
}

const _: () = assert!(FIRST_CLIENT > 1, "the nodes come first");
