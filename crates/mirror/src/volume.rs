//! The data path of one mirrored volume: takes initiators' operations, gives them their order,
//! applies them here and at the partner, and says when they are done. Pure: disk, partner and
//! `Node` are actions and events. Who may serve is `Node`'s decision; this file only obeys.
//!
//! ```text
//!  New ──Open──► Opening ──► Idle ──Serve──► Settling ──┬──► Alone (may be a resync's source)
//!                             │                 ▲       └──► Paired (owner or replica)
//!                             └──Follow──► Target ──Serve joined──┘
//!  any ──write or flush failed──► Failed            any ──Close──► Closing ──► Closed
//! ```
//! Each event does its own work and then calls `pump`, which looks at everything that may go on:
//! nothing waits for an edge that might never come.

mod admission;
mod clock;
mod closing;
mod copy;
mod counts;
mod flushes;
mod forwards;
mod frames;
mod host;
mod intake;
mod latency;
mod links;
mod mend;
mod metadata;
mod opening;
mod orders;
mod owner;
mod pace;
mod proxy;
mod reads;
mod replica;
mod running;
mod settle;
mod source;
mod stage;
mod target;
#[cfg(test)]
mod tests;
mod tokens;
mod turn;
mod verify;
mod watchdog;
mod window;

pub use crate::data_frame::blocks_follow;
pub use counts::{Counts, ResyncStatus, VolumeStatus};
pub use latency::{Slow, Slowness};
pub use pace::{PaceReason, PaceStatus};
pub use verify::VerifyStatus;
pub use watchdog::ResyncWait;

use crate::control::{FromVolume, Incarnation, Time, ToVolume, VolumeSpec};
use crate::dirty::Dirty;
use crate::fields::Fields;
use crate::intents::{Intents, MAX_SET};
use crate::operation::{BufferId, Extent, Operation};
use crate::volume_action::{ChannelId, FrameBody, Refusal, Ticket, VolumeAction};
use crate::volume_io::{Io, IoError, IoId, Value};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use flushes::Flush;
use forwards::Forwarded;
use intake::Intake;
use links::Links;
use owner::Verdict;
use reads::Reads;
use running::Running;
use stage::Stage;
use tokens::Tokens;
use turn::Turn;
use window::Window;

/// Most operations of one volume that are sequenced and not committed, and most forwards without
/// an answer: enough for eight sessions of queue depth 128, and the bound of everything that is
/// remembered to drop duplicates.
pub const MAX_IN_FLIGHT: u64 = 1024;
/// Most bytes of blocks in those operations: what is resent when a channel dies.
pub const MAX_BYTES_IN_FLIGHT: u64 = 64 << 20;
/// A write that was not sequenced within this time never will be: an initiator may have given up
/// its path, and what it writes next elsewhere must not be overwritten.
pub const DROP_AGE: Time = Time::from_secs(4);
/// An operation that waits longer for the partner is late.
pub const LATE_AFTER: Time = Time::from_secs(5);

/// What an I/O was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// The local application of the operation of that number.
    Apply(u64),
    Read(u64),
    /// Our half of a flush.
    Flush(u64),
    /// A flush that the partner asked for.
    PartnerFlush {
        id: u64,
        channel: ChannelId,
    },
    Intents,
    Dirty,
    /// Loading or formatting the metadata area.
    Opening,
    Settling,
    /// Before `Suspended`.
    Suspending,
    Closing,
    /// A step of a resync, at the source.
    Step(u64),
    /// A comparison at the target, or at a replica.
    Comparison(u64),
    /// The checksum of a read for the partner.
    Fetch(Ticket),
    /// Blocks that the partner cannot read, or that differ.
    Mend(u64),
    /// Blocks that the owner asked for.
    Asked(u64),
    /// A step of a verification, at the owner.
    Look(u64),
}

/// The data path of one volume on this node.
pub struct Volume {
    spec: VolumeSpec,
    stage: Stage,
    /// Nothing is admitted or acknowledged until the next `Serve`.
    suspended: bool,
    drain: Option<closing::Drain>,
    wanted_told: bool,
    /// Since it was suspended or asked, an initiator has shown that it reaches this node.
    initiator_seen: bool,
    /// The next initiator that shows itself is reported.
    asked: bool,
    /// The configuration whose numbers are in use, also a source's that is followed.
    epoch: u64,
    lineage: u64,
    partner_incarnation: Option<Incarnation>,
    links: Links,
    intake: Intake,
    running: BTreeMap<u64, Running>,
    watches: latency::Watches,
    bytes_running: u64,
    next_seq: u64,
    /// Numbers received from the owner or source.
    received: Window,
    /// What was decided of the partner's forwards.
    verdicts: BTreeMap<u64, Verdict>,
    forwards: BTreeMap<u64, Forwarded>,
    bytes_forwarded: u64,
    next_forward: u64,
    /// What the partner carries out for this node, and this node for the partner.
    proxy: proxy::Proxy,
    host: host::Host,
    /// Applied before this configuration, answered once it is in force.
    inherited: Vec<Ticket>,
    reads: Reads,
    flushes: BTreeMap<u64, Flush>,
    next_flush: u64,
    ios: BTreeMap<u64, Use>,
    next_io: u64,
    /// Writes to the data area that have not ended, of whatever epoch.
    applying: usize,
    awaiting_intent: BTreeSet<u64>,
    /// Behind an overlapping operation, or waiting until there is room among the intents.
    stalled: BTreeSet<u64>,
    intents: Intents,
    dirty: Dirty,
    cleaning: metadata::Cleaning,
    /// When idle regions are looked for next.
    clean_at: Time,
    tokens: Tokens,
    /// The last State operation of each kind: what a joining partner is given.
    states: BTreeMap<u16, Box<[u8]>>,
    attempts: u64,
    next_request: u64,
    tick_at: Option<Time>,
    /// When this data path last did anything, and when that last came after more than a second.
    turned: Time,
    awake: Time,
    late_told: Time,
    counts: Counts,
    pace: pace::Pace,
    mends: mend::Mends,
    /// Comparisons that the owner or a resync's source asked for.
    comparisons: target::Comparisons,
    verification: Option<verify::Verification>,
    /// How the last one ended.
    verified: Option<VerifyStatus>,
}

impl Volume {
    /// A volume that has not been opened.
    #[must_use]
    pub fn new(spec: VolumeSpec) -> Self {
        assert!(
            spec.size > 0 && spec.size.is_multiple_of(u64::from(spec.block_size)),
            "a volume has whole blocks"
        );
        Self {
            spec,
            stage: Stage::New,
            suspended: false,
            drain: None,
            wanted_told: false,
            initiator_seen: false,
            asked: false,
            epoch: 0,
            lineage: 0,
            partner_incarnation: None,
            links: Links::default(),
            intake: Intake::default(),
            running: BTreeMap::new(),
            watches: latency::Watches::default(),
            bytes_running: 0,
            next_seq: 1,
            received: Window::default(),
            verdicts: BTreeMap::new(),
            forwards: BTreeMap::new(),
            bytes_forwarded: 0,
            next_forward: 1,
            proxy: proxy::Proxy::default(),
            host: host::Host::default(),
            inherited: Vec::new(),
            reads: Reads::default(),
            flushes: BTreeMap::new(),
            next_flush: 1,
            ios: BTreeMap::new(),
            next_io: 1,
            applying: 0,
            awaiting_intent: BTreeSet::new(),
            stalled: BTreeSet::new(),
            intents: Intents::new(spec.id, spec.size, MAX_SET),
            dirty: Dirty::new(spec.id, spec.size),
            cleaning: metadata::Cleaning::default(),
            clean_at: Time::ZERO,
            tokens: Tokens::default(),
            states: BTreeMap::new(),
            attempts: 0,
            next_request: 1,
            tick_at: None,
            turned: Time::ZERO,
            awake: Time::ZERO,
            late_told: Time::ZERO,
            counts: Counts::default(),
            pace: pace::Pace::default(),
            mends: mend::Mends::default(),
            comparisons: target::Comparisons::default(),
            verification: None,
            verified: None,
        }
    }

    /// `Node` gives an order.
    pub fn order(&mut self, now: Time, order: ToVolume, out: &mut Vec<VolumeAction>) {
        let turn = &mut self.turn(now, out);
        self.obey(order, turn);
        self.pump(turn);
    }

    /// An initiator's Write, Zero, Discard or State. The volume takes over one reference to each
    /// buffer named and gives it back with `Release`.
    pub fn submit(
        &mut self,
        now: Time,
        ticket: Ticket,
        operation: Operation,
        out: &mut Vec<VolumeAction>,
    ) {
        self.submit_received(now, now, ticket, operation, out);
    }

    /// As [`Self::submit`], for an operation whose command was received at an earlier time: from
    /// then on counts how old it is, and the token that it is forwarded with is of then.
    pub fn submit_received(
        &mut self,
        now: Time,
        received: Time,
        ticket: Ticket,
        operation: Operation,
        out: &mut Vec<VolumeAction>,
    ) {
        // A command shows that its initiator is there, as an answer to a ping does: a session that
        // began later was never pinged.
        let turn = &mut self.turn(now, out);
        self.seen(turn);
        if matches!(operation, Operation::Write { .. }) {
            self.pace.entered(now, ticket);
        }
        self.take_in(ticket, operation, received, turn);
        self.pump(turn);
    }

    /// An initiator's read into `buffer` from `at` on. The buffer stays the caller's.
    pub fn read(
        &mut self,
        now: Time,
        ticket: Ticket,
        extent: Extent,
        buffer: BufferId,
        at: u32,
        out: &mut Vec<VolumeAction>,
    ) {
        let turn = &mut self.turn(now, out);
        self.seen(turn);
        self.pace.entered(now, ticket);
        self.take_read(ticket, extent, buffer, at, turn);
        self.pump(turn);
    }

    /// An initiator's SYNCHRONIZE CACHE.
    pub fn flush(&mut self, now: Time, ticket: Ticket, out: &mut Vec<VolumeAction>) {
        let turn = &mut self.turn(now, out);
        self.seen(turn);
        self.take_flush(ticket, turn);
        self.pump(turn);
    }

    /// Ends what has this ticket, if that is still possible. A `Complete` always follows (or came
    /// before): `Aborted` if it was never sequenced, else its real end.
    pub fn cancel(&mut self, now: Time, ticket: Ticket, out: &mut Vec<VolumeAction>) {
        let turn = &mut self.turn(now, out);
        self.cancel_ticket(ticket, turn);
        self.pump(turn);
    }

    /// An I/O has ended.
    pub fn io_done(
        &mut self,
        now: Time,
        id: IoId,
        result: Result<Value, IoError>,
        out: &mut Vec<VolumeAction>,
    ) {
        let turn = &mut self.turn(now, out);
        let Some(purpose) = self.ios.remove(&id.0) else {
            return;
        };
        match purpose {
            Use::Apply(seq) => self.applied(seq, &result, turn),
            Use::Read(read) => self.read_done(read, &result, turn),
            Use::Flush(flush) => self.flushed_here(flush, &result, turn),
            Use::PartnerFlush { id, channel } => {
                self.flushed_for_partner(id, channel, &result, turn)
            }
            Use::Intents => self.intents_written(&result, turn),
            Use::Dirty => self.dirty_written(&result, turn),
            Use::Opening => self.opening_done(result, turn),
            Use::Settling => self.settle_flushed(&result, turn),
            Use::Suspending => self.suspend_flushed(&result, turn),
            Use::Closing => self.close_flushed(&result, turn),
            Use::Step(step) => self.step_done(step, result, turn),
            Use::Comparison(step) => self.comparison_done(step, result, turn),
            Use::Fetch(ticket) => self.fetch_summed(ticket, &result, turn),
            Use::Mend(id) => self.mend_io_done(id, &result, turn),
            Use::Asked(request) => self.asked_io_done(request, &result, turn),
            Use::Look(step) => self.look_done(step, result, turn),
        }
        self.pump(turn);
    }

    /// The answer to `NeedBuffer`: one reference to a buffer of the length asked for.
    pub fn buffer(
        &mut self,
        now: Time,
        request: u64,
        buffer: BufferId,
        out: &mut Vec<VolumeAction>,
    ) {
        let turn = &mut self.turn(now, out);
        self.buffer_came(request, buffer, turn);
        self.pump(turn);
    }

    /// A data connection to the partner is up; its hello named the partner's run.
    pub fn channel_up(
        &mut self,
        now: Time,
        channel: ChannelId,
        partner_incarnation: Incarnation,
        out: &mut Vec<VolumeAction>,
    ) {
        let turn = &mut self.turn(now, out);
        self.link_up(channel, partner_incarnation, turn);
        self.pump(turn);
    }

    /// A data connection is gone, with whatever was still on it.
    pub fn channel_down(&mut self, now: Time, channel: ChannelId, out: &mut Vec<VolumeAction>) {
        let turn = &mut self.turn(now, out);
        self.link_down(channel, turn);
        self.pump(turn);
    }

    /// A frame of a kind below 0x100 came. With blocks the volume takes over one reference.
    pub fn frame(
        &mut self,
        now: Time,
        channel: ChannelId,
        fields: Fields,
        body: FrameBody,
        out: &mut Vec<VolumeAction>,
    ) {
        let turn = &mut self.turn(now, out);
        self.receive(channel, &fields, body, turn);
        self.pump(turn);
    }

    /// The header of a frame came whose blocks were thrown away for want of room. Only what may be
    /// refused ends so (`data_frame::may_be_refused`); it is.
    pub fn frame_without_blocks(
        &mut self,
        now: Time,
        channel: ChannelId,
        fields: &Fields,
        out: &mut Vec<VolumeAction>,
    ) {
        let turn = &mut self.turn(now, out);
        self.receive_without_blocks(channel, fields, turn);
        self.pump(turn);
    }

    /// A heartbeat token of the partner and when it came. A token is the partner's own boot time
    /// in microseconds when it sent the heartbeat.
    pub fn token(&mut self, token: u64, received: Time) {
        self.tokens.came(token, received);
    }

    /// An initiator has answered, or logged in, just now: it reaches this node. An operation that
    /// has waited since the partner fell silent does not show that.
    pub fn initiator_seen(&mut self, now: Time, out: &mut Vec<VolumeAction>) {
        if self.asked || self.suspended && !self.initiator_seen {
            let turn = &mut self.turn(now, out);
            self.seen(turn);
            self.pump(turn);
        }
    }

    fn seen(&mut self, turn: &mut Turn<'_>) {
        self.initiator_seen |= self.suspended;
        if core::mem::take(&mut self.asked) {
            turn.tell(FromVolume::Reached);
        }
    }

    /// A deadline has passed, or nothing in particular.
    pub fn timer(&mut self, now: Time, out: &mut Vec<VolumeAction>) {
        let turn = &mut self.turn(now, out);
        self.look_around(turn);
        self.pump(turn);
    }

    /// When `timer` is to be called at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.tick_at
    }

    /// Goes on with whatever can go on.
    fn pump(&mut self, turn: &mut Turn<'_>) {
        self.advance(turn);
        self.admit(turn);
        self.advance_proxy(turn);
        self.start_flushes(turn);
        self.read_again(turn);
        self.advance_mends(turn);
        self.advance_verification(turn);
        self.write_metadata(turn);
        self.tell_wanted(turn);
        self.answer_guests(turn);
        let steps = self.source().map_or(0, |source| source.steps.len());
        self.pace.steps_now(turn.now, steps);
        self.note_ends(turn.now, turn.out);
        self.plan_tick(turn.now);
    }

    fn start_io(&mut self, purpose: Use, io: Io, turn: &mut Turn<'_>) {
        let id = self.next_io;
        self.next_io += 1;
        self.ios.insert(id, purpose);
        turn.out.push(VolumeAction::Io { id: IoId(id), io });
    }

    fn release(operation: &Operation, turn: &mut Turn<'_>) {
        for buffer in operation.buffers().into_iter().flatten() {
            turn.out.push(VolumeAction::Release { buffer });
        }
    }

    /// A write or flush failed: what this disk holds is suspect, and nothing is tried again.
    /// Everything is answered, and nothing more is said to the partner.
    fn fail(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.stage, Stage::Failed) {
            return;
        }
        let refusal = self.failure_refusal();
        self.keep_forwards_open(turn);
        self.end_everything(refusal, turn);
        self.stage = Stage::Failed;
        turn.tell(FromVolume::DiskFailed);
    }

    /// With another path to the data an initiator must not hear of a hardware error.
    const fn failure_refusal(&self) -> Refusal {
        match &self.stage {
            Stage::Alone(_) => Refusal::Failed,
            _ if self.spec.partner.is_none() => Refusal::Failed,
            _ => Refusal::NotServed,
        }
    }
}
