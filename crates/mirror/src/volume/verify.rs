//! Verification of a volume that both members serve: the owner has both copies read and compared
//! from end to end. It looks first without the range lock, so that initiators feel nothing but the
//! disks' work; where the copies seem to differ it looks again under the lock, where no write is
//! under way, so a write in flight is never taken for a difference.
//!
//! A step: read and hash here, hash and compare at the replica. Differences are reported, or
//! rewritten from the copy that is said to be right; what one member cannot read is always
//! rewritten from the other.

use super::mend::{Side, Why};
use super::pace::at_rate;
use super::stage::Role;
use super::target::MAX_COMPARISONS;
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{FromVolume, Repair, Time, Verified};
use crate::data_frame::DataFrame;
use crate::operation::{BufferId, Extent};
use crate::volume_action::{ChannelId, VolumeAction};
use crate::volume_io::{Io, IoError, Value};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Bytes in a step: the longest write.
const STEP: u64 = 1 << 20;
/// Bytes in one hash.
const PIECE: u32 = 64 << 10;
/// Steps at once: they hide the round trip, and leave the disks to initiators.
const LOOKS: usize = 4;
/// Most differences of one verification that are named one by one; all are counted.
const NAMED_MAX: u64 = 100;
/// An answer that has not come is asked for again.
const ASK_AGAIN: Time = Time::from_secs(10);

pub(super) struct Verification {
    repair: Repair,
    cursor: u64,
    looks: BTreeMap<u64, Look>,
    found: Verified,
    /// When the next step may begin.
    pub(super) next_at: Time,
    named: u64,
    ending: bool,
}

struct Look {
    extent: Extent,
    /// Its place in the range lock, at the second look.
    order: Option<u64>,
    buffer: Option<BufferId>,
    state: State,
    since: Time,
    /// Pieces that the mend of this step is for; 0: blocks that could not be read.
    mending: u32,
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    Locking,
    NeedBuffer,
    Reading,
    Hashing,
    Asking {
        hashes: Box<[u8]>,
        channel: Option<ChannelId>,
    },
    Mending,
}

/// How a verification goes, or how the last one ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyStatus {
    /// One runs.
    pub running: bool,
    /// What it found so far, or in the end.
    pub found: Verified,
}

impl Verification {
    /// Whether the partner owes an answer for too long, while a range is locked for it.
    pub(super) fn late(&self, before: Time) -> bool {
        self.looks.values().any(|look| {
            matches!(look.state, State::Asking { .. })
                && look.order.is_some()
                && look.since < before
        })
    }

    /// Comparisons that the partner was asked for.
    fn asked(&self) -> usize {
        let asked = |it: &&Look| {
            matches!(
                it.state,
                State::Asking {
                    channel: Some(_),
                    ..
                }
            )
        };
        self.looks.values().filter(asked).count()
    }

    pub(super) fn channel_gone(&mut self, gone: ChannelId) {
        for look in self.looks.values_mut() {
            if let State::Asking { channel, .. } = &mut look.state {
                channel.take_if(|channel| *channel == gone);
            }
        }
    }
}

impl Volume {
    /// Begins, if this node is the owner of a volume with two members.
    pub(super) fn verify(&mut self, repair: Repair, turn: &mut Turn<'_>) {
        if self.verification.is_some() {
            return;
        }
        self.verification = Some(Verification {
            repair,
            cursor: 0,
            looks: BTreeMap::new(),
            found: Verified::default(),
            next_at: turn.now,
            named: 0,
            ending: false,
        });
        if self.role() != Role::Owner {
            self.end_verification(turn);
        }
    }

    /// An operator has had enough.
    pub(super) fn stop_verifying(&mut self) {
        if let Some(verification) = &mut self.verification {
            verification.ending = true;
        }
    }

    /// Ends it where it is.
    pub(super) fn end_verification(&mut self, turn: &mut Turn<'_>) {
        let Some(verification) = self.verification.take() else {
            return;
        };
        for (_, look) in verification.looks {
            if let Some(order) = look.order {
                self.unlock(order, turn);
            }
            if let Some(buffer) = look.buffer {
                turn.release(buffer);
            }
        }
        let found = verification.found;
        self.verified = Some(VerifyStatus {
            running: false,
            found,
        });
        turn.tell(FromVolume::Verified(found));
    }

    pub(super) fn verify_status(&self) -> Option<VerifyStatus> {
        let running = self.verification.as_ref().map(|it| VerifyStatus {
            running: true,
            found: it.found,
        });
        running.or(self.verified)
    }

    /// Begins steps as fast as is allowed: where initiators are at work, at the floor.
    pub(super) fn advance_verification(&mut self, turn: &mut Turn<'_>) {
        if self.role() != Role::Owner || !self.admits(turn.now) || !self.links.any_ready() {
            return;
        }
        let in_use = self.pace.in_use(turn.now);
        let floor = self.pace.floor();
        let size = self.spec.size;
        let Some(verification) = &mut self.verification else {
            return;
        };
        if verification.looks.is_empty() && (verification.ending || verification.cursor >= size) {
            verification.found.complete = verification.cursor >= size;
            return self.end_verification(turn);
        }
        let most = if in_use { 1 } else { LOOKS };
        let mut begun = Vec::new();
        while verification.looks.len() + begun.len() < most
            && verification.cursor < size
            && !verification.ending
            && turn.now >= verification.next_at
        {
            let extent = Extent {
                offset: verification.cursor,
                len: (size - verification.cursor).min(STEP),
            };
            verification.cursor = extent.end();
            if in_use {
                verification.next_at = turn.now + at_rate(extent.len, floor);
            }
            begun.push(extent);
        }
        for extent in begun {
            self.begin_look(extent, turn);
        }
    }

    fn look(&mut self, step: u64) -> Option<&mut Look> {
        self.verification.as_mut()?.looks.get_mut(&step)
    }

    /// A buffer that may be for a step. False: it is not.
    pub(super) fn buffer_to_look(
        &mut self,
        request: u64,
        buffer: BufferId,
        turn: &mut Turn<'_>,
    ) -> bool {
        let waiting = self
            .look(request)
            .filter(|look| look.state == State::NeedBuffer);
        let Some(look) = waiting else { return false };
        look.buffer = Some(buffer);
        look.state = State::Reading;
        let extent = look.extent;
        self.read_to_look(request, extent, buffer, turn);
        true
    }

    fn read_to_look(&mut self, step: u64, extent: Extent, buffer: BufferId, turn: &mut Turn<'_>) {
        let read = Io::Read {
            extent,
            buffer,
            at: 0,
        };
        self.start_io(Use::Look(step), read, turn);
    }

    pub(super) fn look_done(
        &mut self,
        step: u64,
        result: Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        let Some(look) = self.look(step) else { return };
        let Some(buffer) = look.buffer else { return };
        let (extent, order) = (look.extent, look.order);
        match (&look.state, result) {
            (State::Reading, Ok(_)) => {
                look.state = State::Hashing;
                let hash = Io::Hash {
                    buffer,
                    at: 0,
                    len: length(extent),
                    piece: PIECE,
                };
                self.start_io(Use::Look(step), hash, turn);
            }
            (State::Hashing, Ok(Value::Hashes(hashes))) => {
                look.state = State::Asking {
                    hashes,
                    channel: None,
                };
                look.since = turn.now;
                self.send_look(step, turn);
            }
            // The other copy has what cannot be read here.
            _ => self.unreadable_look(step, extent, order, Side::There, turn),
        }
    }

    fn send_look(&mut self, step: u64, turn: &mut Turn<'_>) {
        // The partner passes over what is more: it is asked when others are answered.
        let full = self
            .verification
            .as_ref()
            .is_some_and(|it| it.asked() >= MAX_COMPARISONS);
        let Some(look) = self.look(step) else { return };
        let State::Asking {
            hashes,
            channel: None,
        } = &look.state
        else {
            return;
        };
        if full {
            look.since = turn.now;
            return;
        }
        let frame = DataFrame::Hashes {
            step,
            extent: look.extent,
            hashes: hashes.clone(),
        };
        let sent = self.send(frame, turn);
        if let Some(look) = self.look(step)
            && let State::Asking { channel, .. } = &mut look.state
        {
            *channel = sent;
        }
    }

    /// Asks for what was lost on the way.
    pub(super) fn send_looks(&mut self, turn: &mut Turn<'_>) {
        let steps = self
            .verification
            .as_ref()
            .map(|it| it.looks.keys().copied());
        for step in steps.into_iter().flatten().collect::<Vec<_>>() {
            self.send_look(step, turn);
        }
    }

    pub(super) fn look_after_verification(&mut self, turn: &mut Turn<'_>) {
        let before = turn.now.saturating_sub(ASK_AGAIN);
        let Some(verification) = &mut self.verification else {
            return;
        };
        for look in verification.looks.values_mut() {
            if let State::Asking { channel, .. } = &mut look.state
                && look.since < before
            {
                *channel = None;
            }
        }
        self.send_looks(turn);
    }

    /// The replica compared a step.
    pub(super) fn looked_there(
        &mut self,
        step: u64,
        pieces: u64,
        unreadable: bool,
        turn: &mut Turn<'_>,
    ) {
        let Some(look) = self
            .look(step)
            .filter(|look| matches!(look.state, State::Asking { .. }))
        else {
            return;
        };
        let (extent, order) = (look.extent, look.order);
        let count = extent.len.div_ceil(u64::from(PIECE));
        let differing = pieces & (u64::MAX >> (64 - count));
        if unreadable {
            return self.unreadable_look(step, extent, order, Side::Here, turn);
        }
        if differing == 0 {
            return self.end_look(step, extent.len, turn);
        }
        let range = span(extent, differing);
        if order.is_none() {
            // A write may have been under way: once more, where none can be.
            let order = self.intake.next_order();
            let look = self.look(step).expect("looked at just now");
            look.order = Some(order);
            look.state = State::Locking;
            if self.intake.lock.enter(order, extent) {
                self.look_granted(order, turn);
            }
            return;
        }
        let me = self.spec.me;
        let Some(verification) = &mut self.verification else {
            return;
        };
        verification.found.differing += u64::from(differing.count_ones());
        self.counts.verify_differing += u64::from(differing.count_ones());
        if verification.named < NAMED_MAX {
            verification.named += 1;
            turn.tell(FromVolume::Differs { extent: range });
        }
        let right = match verification.repair {
            Repair::Report => return self.end_look(step, extent.len, turn),
            Repair::Owner => Side::Here,
            Repair::Node(node) if node == me => Side::Here,
            Repair::Node(_) => Side::There,
        };
        self.mend_look(step, range, order, right, differing.count_ones(), turn);
    }

    /// A step holds its range: nothing is being written there on either node.
    pub(super) fn look_granted(&mut self, granted: u64, turn: &mut Turn<'_>) -> bool {
        let found = self.verification.as_mut().and_then(|it| {
            it.looks
                .iter_mut()
                .find(|(_, look)| look.order == Some(granted) && look.state == State::Locking)
        });
        let Some((step, look)) = found else {
            return false;
        };
        let step = *step;
        let Some(buffer) = look.buffer else {
            return false;
        };
        look.state = State::Reading;
        let extent = look.extent;
        self.read_to_look(step, extent, buffer, turn);
        true
    }

    /// One copy of a step cannot be read. It is looked at in halves, until no more than a piece is
    /// rewritten from the other copy: that one may have rotted next to it, unnoticed.
    fn unreadable_look(
        &mut self,
        step: u64,
        extent: Extent,
        order: Option<u64>,
        right: Side,
        turn: &mut Turn<'_>,
    ) {
        let piece = u64::from(PIECE);
        if extent.len <= piece {
            return self.mend_look(step, extent, order, right, 0, turn);
        }
        self.drop_look(step, turn);
        let first = extent.len.div_ceil(piece) / 2 * piece;
        let halves = [
            Extent {
                offset: extent.offset,
                len: first,
            },
            Extent {
                offset: extent.offset + first,
                len: extent.len - first,
            },
        ];
        for half in halves {
            self.begin_look(half, turn);
        }
    }

    fn begin_look(&mut self, extent: Extent, turn: &mut Turn<'_>) {
        let request = self.next_request;
        let Some(verification) = &mut self.verification else {
            return;
        };
        self.next_request += 1;
        let look = Look {
            extent,
            order: None,
            buffer: None,
            state: State::NeedBuffer,
            since: turn.now,
            mending: 0,
        };
        verification.looks.insert(request, look);
        let len = length(extent);
        turn.out.push(VolumeAction::NeedBuffer { request, len });
    }

    /// Has a range rewritten; the lock that the step holds, if it does, goes with it.
    fn mend_look(
        &mut self,
        step: u64,
        range: Extent,
        order: Option<u64>,
        right: Side,
        pieces: u32,
        turn: &mut Turn<'_>,
    ) {
        let Some(look) = self.look(step) else { return };
        look.state = State::Mending;
        look.mending = pieces;
        look.order = None;
        if let Some(buffer) = look.buffer.take() {
            turn.release(buffer);
        }
        if pieces == 0
            && let Some(verification) = &mut self.verification
        {
            verification.found.unreadable += 1;
        }
        self.start_mend(range, order, right, Why::Verify(step), turn);
    }

    /// Whether the mend of a step is for blocks that could not be read.
    pub(super) fn mends_unreadable(&mut self, step: u64) -> bool {
        self.look(step).is_none_or(|look| look.mending == 0)
    }

    /// What a step found was rewritten, or could be read on neither side.
    pub(super) fn verified_mended(&mut self, step: u64, good: bool) {
        let Some(verification) = &mut self.verification else {
            return;
        };
        let Some(look) = verification.looks.remove(&step) else {
            return;
        };
        verification.found.done += look.extent.len;
        self.counts.verify_compared += look.extent.len;
        if good {
            verification.found.repaired += u64::from(look.mending);
        }
    }

    fn end_look(&mut self, step: u64, len: u64, turn: &mut Turn<'_>) {
        if let Some(verification) = &mut self.verification {
            verification.found.done += len;
            self.counts.verify_compared += len;
        }
        self.drop_look(step, turn);
    }

    fn drop_look(&mut self, step: u64, turn: &mut Turn<'_>) {
        let known = self.verification.as_mut();
        let Some(look) = known.and_then(|it| it.looks.remove(&step)) else {
            return;
        };
        if let Some(buffer) = look.buffer {
            turn.release(buffer);
        }
        if let Some(order) = look.order {
            self.unlock(order, turn);
        }
    }
}

/// From the first to the last piece that differs.
fn span(extent: Extent, differing: u64) -> Extent {
    let piece = u64::from(PIECE);
    let first = extent.offset + u64::from(differing.trailing_zeros()) * piece;
    let last = extent.offset + u64::from(64 - differing.leading_zeros()) * piece;
    Extent {
        offset: first,
        len: last.min(extent.end()) - first,
    }
}

fn length(extent: Extent) -> u32 {
    u32::try_from(extent.len).expect("a step is at most 1 MiB")
}
