//! How a session logs in, and how patient it is.

use crate::core::chap::Account;
#[cfg(doc)]
use crate::core::wire;
use crate::core::wire::Digests;
use alloc::string::String;
use core::time::Duration;

/// What a session is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// SendTargets only.
    Discovery,
    /// Commands to a target.
    Normal {
        /// Its iSCSI name.
        target: String,
    },
}

/// How to log in, and how patient to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// This initiator's iSCSI name.
    pub initiator: String,
    /// Initiator session id; the same one again replaces the former session.
    pub isid: [u8; 6],
    /// What for.
    pub purpose: Purpose,
    /// Proves us to the target.
    pub chap: Option<Account>,
    /// What the target must prove (needs `chap`).
    pub mutual: Option<Account>,
    /// Digests to ask for.
    pub digests: Digests,
    /// Offered InitialR2T.
    pub initial_r2t: bool,
    /// Offered ImmediateData.
    pub immediate: bool,
    /// Declared MaxRecvDataSegmentLength, at most [`wire::MAX_SEGMENT`].
    pub max_receive: u32,
    /// Offered MaxBurstLength.
    pub max_burst: u32,
    /// Offered FirstBurstLength.
    pub first_burst: u32,
    /// Offered MaxOutstandingR2T.
    pub max_r2t: u32,
    /// From connection to full feature phase.
    pub login_timeout: Duration,
    /// A command without an answer for so long breaks the session.
    pub task_timeout: Duration,
    /// A NOP-Out goes out after so long without a word from the target.
    pub nop_interval: Duration,
    /// It must be answered within.
    pub nop_timeout: Duration,
}

impl Parameters {
    /// What open-iscsi offers and waits for.
    pub fn new(initiator: &str, purpose: Purpose) -> Self {
        Self {
            initiator: initiator.into(),
            isid: [0x80, 0, 0, 0, 0, 1],
            purpose,
            chap: None,
            mutual: None,
            digests: Digests::default(),
            initial_r2t: false,
            immediate: true,
            max_receive: 262_144,
            max_burst: 16_776_192,
            first_burst: 262_144,
            max_r2t: 4,
            login_timeout: Duration::from_secs(15),
            task_timeout: Duration::from_secs(30),
            nop_interval: Duration::from_secs(5),
            nop_timeout: Duration::from_secs(5),
        }
    }
}
