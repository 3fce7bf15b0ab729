//! Plain numbers about a volume's data path, for status and metrics.

use super::Volume;
use super::latency::Slow;
use super::pace::PaceStatus;
use super::stage::Stage;
use super::verify::VerifyStatus;
use super::watchdog::ResyncWait;

/// Counted since the volume was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations given a number here.
    pub sequenced: u64,
    /// Operations applied for an owner or source.
    pub replicated: u64,
    /// Operations forwarded to the owner.
    pub forwarded: u64,
    /// Forwards that this owner refused.
    pub refused: u64,
    /// Operations dropped unsequenced because of their age.
    pub aged: u64,
    /// Frames sent again because their channel died.
    pub resent: u64,
    /// Frames that had come before.
    pub duplicates: u64,
    /// Frames of another epoch, run or attempt.
    pub stale: u64,
    /// Frames that an honest partner does not send.
    pub bad_frames: u64,
    /// Reads done again because a write came between.
    pub reread: u64,
    /// Writes of intents and of dirty pages.
    pub metadata_writes: u64,
    /// Bytes that resyncs compared with the partner's copy, as their source.
    pub resync_compared: u64,
    /// Bytes among them that differed and were copied to the partner.
    pub resync_copied: u64,
    /// Reads that the partner served for this node, which was no member.
    pub proxied_reads: u64,
    /// Writes and other operations that the partner carried out for this node.
    pub proxied_writes: u64,
    /// Reads served here for the partner.
    pub hosted_reads: u64,
    /// Writes and other operations carried out here for the partner.
    pub hosted_writes: u64,
    /// Bytes among those that were sent without asking what differs, because everything before
    /// had differed.
    pub resync_blind: u64,
    /// Resyncs that had to take all of the volume as different.
    pub full_resyncs: u64,
    /// Reads of initiators that found blocks unreadable here while the partner was a member.
    pub unreadable: u64,
    /// Reads that no copy could answer, neither this one nor the partner's.
    pub unreadable_lost: u64,
    /// Times that blocks here were rewritten from the partner.
    pub repaired: u64,
    /// Times that the partner's blocks were rewritten from here because it asked.
    pub mended_there: u64,
    /// Pieces of 64 KiB that verifications found different.
    pub verify_differing: u64,
    /// Bytes that verifications compared.
    pub verify_compared: u64,
    /// Attempts of resyncs that stood still and were begun anew.
    pub resync_restarts: u64,
}

/// A copy under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResyncStatus {
    /// Whether this node is the source.
    pub source: bool,
    /// Bytes still dirty (source only).
    pub dirty: u64,
    /// Bytes compared or copied in this attempt (source only).
    pub done: u64,
    /// Whether everything is copied and the partner may join.
    pub ready: bool,
    /// Where it is, in one word: `collecting`, `persisting`, `waiting`, `copying`, `draining`,
    /// `flushing`, `ready`, or `following` at the target.
    pub phase: &'static str,
    /// Steps under way (source only).
    pub steps: usize,
    /// What it waits for, as of the last tick, if that has a name (source only).
    pub waits: Option<ResyncWait>,
    /// How fast it may go, and why (source only).
    pub pace: PaceStatus,
}

/// How a volume's data path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeStatus {
    /// One word for the state: `closed`, `opening`, `idle`, `settling`, `alone`, `owner`,
    /// `replica`, `target`, `failed`.
    pub state: &'static str,
    /// Whether `Suspend` holds everything.
    pub suspended: bool,
    /// Epoch in force, or 0.
    pub epoch: u64,
    /// Operations sequenced (or received) and not finished.
    pub running: usize,
    /// Operations not sequenced yet.
    pub waiting: usize,
    /// Operations that wait for the owner's answer.
    pub forwards: usize,
    /// Reads in progress or waiting.
    pub reads: usize,
    /// Commands that the partner carries out for this node, or will.
    pub passed: usize,
    /// Data channels to the partner, and those agreed on this configuration.
    pub channels: (usize, usize),
    /// Bytes that the partner may lack.
    pub dirty: u64,
    /// Regions with a set intent.
    pub intents: usize,
    /// A verification that runs, or the last one.
    pub verify: Option<VerifyStatus>,
    /// A copy, if one is under way.
    pub resync: Option<ResyncStatus>,
    /// What is much slower than usual.
    pub slow: Slow,
    /// Counters.
    pub counts: Counts,
}

impl Volume {
    /// Plain numbers for status and metrics.
    #[must_use]
    pub fn status(&self) -> VolumeStatus {
        VolumeStatus {
            state: match &self.stage {
                Stage::New | Stage::Closing(_) | Stage::Closed => "closed",
                Stage::Opening(_) => "opening",
                Stage::Idle => "idle",
                Stage::Settling(_) => "settling",
                Stage::Alone(_) => "alone",
                Stage::Paired(paired) if paired.owner => "owner",
                Stage::Paired(_) => "replica",
                Stage::Target(_) => "target",
                Stage::Failed => "failed",
            },
            suspended: self.suspended,
            epoch: self.epoch,
            running: self.running.len(),
            waiting: self.intake.len(),
            forwards: self.forwards.len(),
            reads: self.reads.len(),
            passed: self.proxy.len(),
            channels: self.links.counts(),
            dirty: self.dirty.bytes(),
            intents: self.intents.count(),
            verify: self.verify_status(),
            resync: self.resync_status(),
            slow: self.watches.slow(),
            counts: self.counts,
        }
    }
}
