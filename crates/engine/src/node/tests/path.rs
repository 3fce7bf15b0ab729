//! A data path of eight blocks: intents, dirty bits, copies and acknowledged writes as the real
//! one keeps them, without its disk and wire.

use lockstep_mirror::control::{Configuration, Time};

pub(super) const BLOCKS: usize = 8;

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// The write that each block holds.
    pub(super) blocks: [u64; BLOCKS],
    pub(super) dirty: u8,
    pub(super) intents: u8,
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Closed,
    Idle,
    Serving {
        configuration: Configuration,
        not_before: Time,
    },
    Following {
        source: Configuration,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) mode: Mode,
    pub(super) suspended: bool,
    pub(super) lease_until: Time,
    /// Acknowledgements are held for a join.
    pub(super) held: bool,
    /// Asks the partner what it has marked; `true`: everything is to be marked.
    pub(super) collecting: Option<bool>,
    /// Counts resyncs, so that late answers of an earlier one are dropped.
    pub(super) attempt: u32,
    pub(super) wanted_told: bool,
    /// The next initiator that comes is to be reported.
    pub(super) asked: bool,
    pub(super) channel: Option<bool>,
}

impl Path {
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::Closed,
            suspended: false,
            lease_until: Time::ZERO,
            held: false,
            collecting: None,
            attempt: 0,
            wanted_told: false,
            asked: false,
            channel: None,
        }
    }

    /// The clock jumped: what is waited for is not over for that.
    pub(super) fn jumped(&mut self, before: Time, by: Time) {
        if let Mode::Serving { not_before, .. } = &mut self.mode
            && *not_before > before
        {
            *not_before += by;
        }
    }

    pub(super) fn serves(&self, now: Time) -> Option<Configuration> {
        match self.mode {
            Mode::Serving {
                configuration,
                not_before,
            } if !self.suspended && now >= not_before => Some(configuration),
            _ => None,
        }
    }

    /// Whether a read would be answered from this copy: by a source that holds its
    /// acknowledgements none is (`Source::holds`).
    pub(super) fn reads(&self, now: Time) -> bool {
        self.serves(now)
            .is_some_and(|it| !self.held && (it.members.count() == 1 || now < self.lease_until))
    }
}
