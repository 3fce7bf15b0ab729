//! A data path of a few blocks. Block n is written once, by write n: its content is one bit.

use super::*;
use lockstep_mirror::control::{FromVolume, ToVolume};

/// What a node's disk and metadata area hold; all of it is durable at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) blocks: u8,
    pub(super) dirty: u8,
    pub(super) intents: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Idle,
    Serving {
        configuration: Configuration,
        not_before: Time,
    },
    Following {
        source: Lineage,
    },
}

/// The data path of a running node.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    pub(super) mode: Mode,
    pub(super) suspended: bool,
    pub(super) lease_until: Time,
    /// Written here, and not known to be held by both.
    pub(super) open: u8,
    /// Of these, what initiators of this node wait for.
    pub(super) own: u8,
    /// Collecting both sides' marks; everything is to be compared.
    pub(super) collecting: Option<bool>,
    pub(super) copying: bool,
    /// Acknowledgements are held for a join.
    pub(super) held: bool,
    pub(super) asked: bool,
    pub(super) wanted_told: bool,
    pub(super) channel: Option<bool>,
    pub(super) words: VecDeque<FromVolume>,
}

impl Path {
    pub(super) fn configuration(&self) -> Option<Configuration> {
        match self.mode {
            Mode::Serving { configuration, .. } => Some(configuration),
            Mode::Idle | Mode::Following { .. } => None,
        }
    }

    /// Whether it may answer operations under this configuration now.
    pub(super) fn answers(&self, now: Time, rules: &Rules) -> Option<Configuration> {
        let Mode::Serving {
            configuration,
            not_before,
        } = self.mode
        else {
            return None;
        };
        let due = now >= not_before || !rules.not_before;
        (!self.suspended && due).then_some(configuration)
    }

    /// Whether it may read now: alone, or with the partner while the lease holds.
    pub(super) fn reads(&self, now: Time, rules: &Rules) -> Option<Configuration> {
        let it = self.answers(now, rules)?;
        let leased = now < self.lease_until || !rules.leases;
        (it.members.count() == 1 || leased).then_some(it)
    }

    pub(super) fn obey(&mut self, disk: &mut Disk, order: &ToVolume, rules: &Rules) {
        match *order {
            ToVolume::Open { blank } => {
                if blank {
                    (disk.dirty, disk.intents) = (0, 0);
                }
                self.words.push_back(FromVolume::Opened {
                    dirty: u64::from(disk.dirty),
                    intents: disk.intents.count_ones(),
                });
            }
            ToVolume::Serve {
                configuration,
                not_before,
                joined,
                ..
            } => self.serve(disk, configuration, not_before, joined, rules),
            ToVolume::Suspend => {
                self.suspended = true;
                self.wanted_told = false;
                self.lease_until = Time::ZERO;
                self.words.push_back(FromVolume::Suspended);
            }
            ToVolume::Ask => {
                self.asked = true;
                self.wanted_told = false;
            }
            ToVolume::Lease { until } => self.lease_until = until,
            ToVolume::Collect { everything, .. } => {
                self.collecting = Some(everything);
                self.copying = false;
                self.held = false;
            }
            ToVolume::Copy => self.copying = true,
            ToVolume::Alone => {
                self.collecting = None;
                self.copying = false;
                self.held = false;
                self.suspended = false;
            }
            ToVolume::Follow { source, .. } => {
                self.mode = Mode::Following {
                    source: source.lineage(),
                };
                self.suspended = false;
                (self.open, self.own) = (0, 0);
            }
            // Neither stops nor scrubs are a part of this model, nor is what a proxy passes on.
            ToVolume::Drain { .. }
            | ToVolume::Proxy { .. }
            | ToVolume::Close { .. }
            | ToVolume::Verify { .. }
            | ToVolume::NoCopy
            | ToVolume::EndVerify
            | ToVolume::Pace(_) => {}
        }
    }

    fn serve(
        &mut self,
        disk: &mut Disk,
        configuration: Configuration,
        not_before: Time,
        joined: bool,
        rules: &Rules,
    ) {
        let before = self.configuration().map(|it| it.lineage());
        if configuration.members.count() == 1 {
            if rules.intents_to_dirty {
                disk.dirty |= disk.intents;
            }
            disk.intents = 0;
        } else if joined {
            (disk.dirty, disk.intents) = (0, 0);
            (self.open, self.own) = (0, 0);
        }
        if before != Some(configuration.lineage()) {
            self.lease_until = Time::ZERO;
        }
        self.mode = Mode::Serving {
            configuration,
            not_before,
        };
        self.suspended = false;
        self.collecting = None;
        self.copying = false;
        self.held = false;
        self.wanted_told = false;
        self.lease_until = Time::ZERO;
        self.words.push_back(FromVolume::Serving {
            epoch: configuration.epoch,
        });
    }
}

impl World {
    /// An initiator writes the next block through this node.
    pub(super) fn write(&mut self, model: &Pair, who: usize) {
        let block = 1 << self.written;
        self.written += 1;
        let Machine {
            process: Some(process),
            disk,
            now,
            ..
        } = &mut self.nodes[who]
        else {
            return;
        };
        let path = &mut process.path;
        let Some(configuration) = path.answers(*now, &model.rules) else {
            return;
        };
        disk.blocks |= block;
        if configuration.members.count() == 1 {
            disk.dirty |= block;
            self.acknowledged |= block;
            return;
        }
        disk.intents |= block;
        path.open |= block;
        path.own |= block;
        if !model.rules.both_hold {
            self.acknowledged |= block;
        }
        let frame = Frame::Apply(block, configuration.lineage());
        self.wires[1 - who].push_back(frame);
    }

    /// A frame of the partner's data path.
    pub(super) fn data_frame(&mut self, model: &Pair, who: usize, frame: &Frame) {
        let now = self.nodes[who].now;
        let Machine {
            process: Some(process),
            disk,
            ..
        } = &mut self.nodes[who]
        else {
            return;
        };
        let path = &mut process.path;
        let under = path.configuration().map(|it| it.lineage());
        let answers = path.answers(now, &model.rules).is_some();
        match *frame {
            // Also while suspended: the owner may answer what is durable here.
            Frame::Apply(block, lineage) if under == Some(lineage) => {
                if disk.blocks & block == 0 {
                    disk.intents |= block;
                    disk.blocks |= block;
                    path.open |= block;
                }
                self.wires[1 - who].push_back(Frame::Stored(block, lineage));
            }
            Frame::Stored(block, lineage) if under == Some(lineage) && answers => {
                path.open &= !block;
                if path.own & block != 0 {
                    self.acknowledged |= block;
                    path.own &= !block;
                }
                self.wires[1 - who].push_back(Frame::Committed(block, lineage));
            }
            Frame::Committed(block, lineage) if under == Some(lineage) => path.open &= !block,
            _ => {}
        }
    }

    /// What is in flight is sent once more on a new connection, or in a configuration resumed.
    pub(super) fn replay(&mut self, who: usize) {
        let Some(process) = &self.nodes[who].process else {
            return;
        };
        let Some(configuration) = process.path.configuration() else {
            return;
        };
        if configuration.members.count() != 2 {
            return;
        }
        let own = process.path.own;
        for block in (0..8).map(|it| 1 << it).filter(|it| own & it != 0) {
            let frame = Frame::Apply(block, configuration.lineage());
            self.wires[1 - who].push_back(frame);
        }
    }

    /// What a data path alone inherited is answered when its time has come.
    pub(super) fn answer_inherited(&mut self, model: &Pair, who: usize) {
        let now = self.nodes[who].now;
        let Some(process) = &mut self.nodes[who].process else {
            return;
        };
        let alone = process.path.answers(now, &model.rules);
        if alone.is_some_and(|it| it.members.count() == 1) {
            self.acknowledged |= process.path.own;
            (process.path.open, process.path.own) = (0, 0);
        }
    }

    /// Whether the resync of this node has something to do now.
    pub(super) fn resync_due(&self, who: usize) -> Option<&'static str> {
        let process = self.nodes[who].process.as_ref()?;
        let mine = process.path.configuration()?;
        let other = self.nodes[1 - who].process.as_ref()?;
        let follows = other.path.mode
            == Mode::Following {
                source: mine.lineage(),
            };
        let linked = self.stalled == [None; 2] && !self.nodes.iter().any(|it| it.paused);
        if !follows || !linked || process.path.suspended {
            return None;
        }
        match (process.path.collecting, process.path.copying) {
            (Some(_), false) => Some(NAMES[who].0),
            (None, true) if !process.path.held => Some(NAMES[who].1),
            _ => None,
        }
    }

    pub(super) fn resync(&mut self, who: usize) {
        let target = self.nodes[1 - who].disk;
        let Machine {
            process: Some(process),
            disk,
            ..
        } = &mut self.nodes[who]
        else {
            return;
        };
        if let Some(everything) = process.path.collecting.take() {
            if everything {
                self.harm = Some(String::from("everything was to be compared"));
            }
            disk.dirty |= target.dirty | target.intents | disk.intents;
            let word = FromVolume::UnionDurable {
                dirty: u64::from(disk.dirty),
            };
            process.path.words.push_back(word);
            return;
        }
        process.path.held = true;
        process.path.words.push_back(FromVolume::JoinReady);
        let (source, marked) = (disk.blocks, disk.dirty);
        let target = &mut self.nodes[1 - who].disk;
        target.blocks = target.blocks & !marked | source & marked;
    }
}

const NAMES: [(&str, &str); 2] = [
    ("node 1 collects both sides' marks", "node 1 copies"),
    ("node 2 collects both sides' marks", "node 2 copies"),
];
