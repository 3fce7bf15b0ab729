//! What the pretend data paths do with orders and with initiators' writes.

use super::*;
use lockstep_mirror::control::Configuration;

impl World {
    /// What must be durable at the moment of an order.
    pub(super) fn ordered(&mut self, who: usize, order: &ToVolume) {
        if !matches!(order, ToVolume::Lease { .. }) {
            self.say(alloc::format!("{} order {order:?}", who + 1));
        }
        if let ToVolume::Serve { configuration, .. } = *order {
            self.may_serve(who, configuration);
            if self.forced && configuration.members.count() == 2 {
                let source = usize::from(configuration.owner.0) - 1;
                self.acked[1 - source] = self.acked[source];
                self.forced = false;
            }
        }
    }

    fn may_serve(&self, who: usize, configuration: Configuration) {
        let durable = self.machines[who].superblock();
        assert_eq!(
            durable.configuration,
            configuration,
            "served before it was durable\n{}",
            self.story()
        );
        assert!(
            !durable.inconsistent && !durable.disk_failed && !durable.split_brain && !durable.clean,
            "{durable:?}"
        );
        assert!(
            !configuration.unilateral || durable.wrote,
            "`wrote` goes with a unilateral configuration"
        );
    }

    /// Whether that resync of `who` is still going on and the other one follows it.
    pub(super) fn copies(&self, who: usize, attempt: u32) -> bool {
        let Some(mine) = self.machines[who].path.serves(self.clock(who)) else {
            return false;
        };
        let follows = matches!(self.machines[1 - who].path.mode, Mode::Following { source } if source == mine);
        self.machines[who].path.attempt == attempt && follows && self.wires[0] && self.runs(1 - who)
    }

    /// A source learns what its target has marked, once that follows it.
    pub(super) fn collect(&mut self, who: usize) {
        let attempt = self.machines[who].path.attempt;
        let Some(everything) = self.machines[who]
            .path
            .collecting
            .filter(|_| self.copies(who, attempt))
        else {
            return;
        };
        self.machines[who].path.collecting = None;
        let theirs = self.machines[1 - who].disk.dirty | self.machines[1 - who].disk.intents;
        let disk = &mut self.machines[who].disk;
        disk.dirty |= theirs | disk.intents | if everything { 0xff } else { 0 };
        self.word(who, ms(20), FromVolume::UnionDurable { dirty: 1 });
    }

    /// Initiators of this node write something.
    pub(super) fn initiate(&mut self, who: usize) {
        if !self.machines[who].io {
            return;
        }
        let now = self.clock(who);
        if core::mem::take(&mut self.machines[who].path.asked) {
            self.word(who, ms(1), FromVolume::Reached);
        }
        let path = &mut self.machines[who].path;
        let waits = path.suspended || path.mode == Mode::Idle;
        if waits && !path.wanted_told {
            path.wanted_told = true;
            self.word(who, ms(1), FromVolume::Wanted);
        }
        let Some(configuration) = self.machines[who]
            .path
            .serves(now)
            .filter(|_| !self.machines[who].path.held)
        else {
            return;
        };
        let block = usize::try_from(self.dice(8)).unwrap();
        let id = self.next_write;
        if configuration.members.count() == 1 {
            self.next_write += 1;
            let disk = &mut self.machines[who].disk;
            disk.dirty |= 1 << block;
            disk.blocks[block] = id;
            if !self.apart {
                self.acked[who][block] = id;
                if !self.forced {
                    self.acked[1 - who][block] = id;
                }
            }
        } else if self.busy[block].is_none() && self.runs(1 - who) && self.wires[0] {
            self.next_write += 1;
            self.busy[block] = Some((id, who, configuration.generation));
            let disk = &mut self.machines[who].disk;
            disk.intents |= 1 << block;
            disk.blocks[block] = id;
            let delay = ms(self.dice(20) + 1);
            self.later(
                1 - who,
                delay,
                Later::PeerApply {
                    block,
                    id,
                    lineage: configuration.generation,
                },
            );
        }
    }

    pub(super) fn obey(&mut self, who: usize, order: &ToVolume) {
        let quick = ms(self.dice(5) + 1);
        match *order {
            ToVolume::Open { blank } => {
                let disk = &mut self.machines[who].disk;
                if blank {
                    (disk.dirty, disk.intents) = (0, 0);
                }
                self.machines[who].path.mode = Mode::Idle;
                self.word(
                    who,
                    quick,
                    FromVolume::Opened {
                        dirty: 0,
                        intents: 0,
                    },
                );
            }
            ToVolume::Serve {
                configuration,
                not_before,
                joined,
                ..
            } => self.serve(who, configuration, not_before, joined),
            ToVolume::Suspend => {
                let path = &mut self.machines[who].path;
                path.suspended = true;
                path.wanted_told = false;
                path.lease_until = Time::ZERO;
                self.word(who, quick, FromVolume::Suspended);
            }
            ToVolume::Ask => {
                let path = &mut self.machines[who].path;
                path.asked = true;
                path.wanted_told = false;
            }
            ToVolume::NoCopy
            | ToVolume::Pace(_)
            | ToVolume::Verify { .. }
            | ToVolume::EndVerify => {}
            ToVolume::Lease { until } => self.machines[who].path.lease_until = until,
            ToVolume::Collect { everything, .. } => {
                let path = &mut self.machines[who].path;
                path.attempt += 1;
                path.held = false;
                assert!(matches!(path.mode, Mode::Serving { .. }));
                path.collecting = Some(everything);
            }
            ToVolume::Copy => {
                let attempt = self.machines[who].path.attempt;
                for block in 0..BLOCKS {
                    if self.machines[who].disk.dirty & 1 << block != 0 {
                        let delay = ms(self.dice(300));
                        self.later(who, delay, Later::CopyBlock { attempt, block });
                    }
                }
                self.later(who, ms(320), Later::CopyEnd { attempt });
            }
            ToVolume::Alone => {
                let path = &mut self.machines[who].path;
                path.attempt += 1;
                path.collecting = None;
                path.held = false;
                path.suspended = false;
            }
            ToVolume::Proxy { host } => {
                let serves = self.machines[who].path.serves(self.clock(who)).is_some();
                assert!(
                    host.is_none() || !serves,
                    "a node that serves passes nothing on"
                );
                let up = host.is_some() && self.wires[0] && self.runs(1 - who);
                self.word(who, quick, FromVolume::Proxying { up });
            }
            ToVolume::Follow { source, .. } => {
                let path = &mut self.machines[who].path;
                path.mode = Mode::Following { source };
                path.suspended = false;
            }
            ToVolume::Drain { .. } => {
                let path = &mut self.machines[who].path;
                path.suspended = true;
                path.attempt += 1;
                self.word(who, ms(30), FromVolume::Drained { clean: true });
            }
            ToVolume::Close { covered } => {
                let heir = &self.machines[1 - who];
                let serves = matches!(heir.path.mode, Mode::Serving { configuration, .. }
                    if configuration.members.count() == 1);
                self.say(alloc::format!(
                    "{} closes, covered: {covered}, the other serves alone: {serves}",
                    who + 1
                ));
                // Nothing of the fake is ever in flight once it stands still for so long.
                let disk = &mut self.machines[who].disk;
                disk.dirty |= disk.intents;
                disk.intents = 0;
                self.machines[who].path.mode = Mode::Closed;
                self.word(who, ms(10), FromVolume::Closed { clean: true });
            }
        }
    }

    pub(super) fn serve(
        &mut self,
        who: usize,
        configuration: Configuration,
        not_before: Time,
        joined: bool,
    ) {
        let disk = &mut self.machines[who].disk;
        if configuration.members.count() == 1 {
            disk.dirty |= disk.intents;
        } else if joined {
            (disk.dirty, disk.intents) = (0, 0);
        }
        for busy in &mut self.busy {
            *busy = busy.filter(|it| it.2 == configuration.generation);
        }
        let path = &mut self.machines[who].path;
        path.mode = Mode::Serving {
            configuration,
            not_before,
        };
        path.suspended = false;
        path.held = false;
        path.collecting = None;
        path.attempt += 1;
        path.wanted_told = false;
        path.lease_until = Time::ZERO;
        // The window of unacknowledged writes is replayed.
        self.replay(0);
        self.replay(1);
        self.word(
            who,
            ms(2),
            FromVolume::Serving {
                epoch: configuration.epoch,
            },
        );
    }

    /// Sends what is in flight from this node once more.
    pub(super) fn replay(&mut self, who: usize) {
        let Some(configuration) = self.machines[who].path.serves(self.clock(who)) else {
            return;
        };
        for block in 0..BLOCKS {
            let mine =
                self.busy[block].filter(|it| it.1 == who && it.2 == configuration.generation);
            if let Some((id, from, lineage)) = mine {
                self.later(1 - from, ms(10), Later::PeerApply { block, id, lineage });
            }
        }
    }
}
