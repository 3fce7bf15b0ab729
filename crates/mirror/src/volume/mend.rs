//! Rewriting blocks that one of two members cannot read, or that differ, with what the other one
//! holds. The owner does it, whichever member is in need, under the range lock: nothing overlapping
//! is under way then, so both copies are what they will stay. What is rewritten is sent with a
//! number of its own, like a write: an overlapping write of an initiator comes after it and wins.
//!
//! ```text
//! owner in need:    lock ─ AskBlocks ──► replica reads ─ Blocks ──► a write on both
//! replica in need:  AskMend ──► lock ─ owner reads ─ a write on the replica ─ Mended
//! ```

use super::running::{Origin, Running};
use super::stage::{Role, Stage};
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{FromVolume, Time};
use crate::data_frame::DataFrame;
use crate::operation::{BufferId, Extent, Operation, Payload};
use crate::volume_action::{ChannelId, VolumeAction};
use crate::volume_io::{Io, IoError, Value};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// More repairs of this node's copy within [`REPAIRS_WITHIN`] mean that its disk is failing: it is
/// put out while the other copy is still whole.
pub(super) const REPAIRS_MAX: usize = 64;
/// See [`REPAIRS_MAX`].
pub(super) const REPAIRS_WITHIN: Time = Time::from_secs(3600);
/// Most mends at an owner, and most answers that a replica prepares for them at once; more wait,
/// or are asked for again.
const MENDS_MAX: usize = 16;
/// What was asked of the partner and not answered is asked again.
const ASK_AGAIN: Time = Time::from_secs(1);

#[derive(Default)]
pub(super) struct Mends {
    /// At the owner.
    all: BTreeMap<u64, Mend>,
    /// At a replica: what it asked the owner for.
    wanted: BTreeMap<u64, Wanted>,
    /// At a replica: blocks that the owner asked for.
    asked: BTreeMap<u64, Asked>,
    /// When blocks of this node's copy were rewritten, the latest ones.
    repairs: VecDeque<Time>,
}

struct Mend {
    extent: Extent,
    order: u64,
    why: Why,
    /// Which copy is right.
    from: Side,
    buffer: Option<BufferId>,
    state: State,
    /// When the partner was first asked.
    asked_at: Time,
}

/// One of the two members, as the owner sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Here,
    There,
}

/// What a mend is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// A read here could not be answered.
    Read,
    /// The replica asked, with that number.
    Asked { id: u64, channel: ChannelId },
    /// A verification found it, in that step.
    Verify(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Locking,
    NeedBuffer,
    Reading,
    Summing,
    Asking {
        channel: Option<ChannelId>,
    },
    /// To be sent as soon as there is room.
    Ready(Payload),
    Sent,
}

struct Wanted {
    extent: Extent,
    channel: Option<ChannelId>,
    since: Time,
}

struct Asked {
    /// The owner's number.
    id: u64,
    extent: Extent,
    channel: ChannelId,
    buffer: Option<BufferId>,
}

impl Mends {
    /// Whether the partner owes an answer for too long, while a range is locked for it.
    pub(super) fn late(&self, before: Time) -> bool {
        self.all
            .values()
            .any(|mend| matches!(mend.state, State::Asking { .. }) && mend.asked_at < before)
    }

    /// Whether anything of it waits for time to pass.
    pub(super) fn wait(&self) -> bool {
        !(self.all.is_empty() && self.wanted.is_empty())
    }

    pub(super) fn channel_gone(&mut self, gone: ChannelId) {
        for mend in self.all.values_mut() {
            if let State::Asking { channel } = &mut mend.state {
                channel.take_if(|channel| *channel == gone);
            }
        }
        for wanted in self.wanted.values_mut() {
            wanted.channel.take_if(|channel| *channel == gone);
        }
    }
}

impl Volume {
    /// Has a range that this node cannot read rewritten from the partner; names the request.
    pub(super) fn have_mended(&mut self, extent: Extent, turn: &mut Turn<'_>) -> u64 {
        if self.role() == Role::Owner {
            let known = self.mends.all.iter().find(|(_, mend)| {
                mend.why == Why::Read && mend.state != State::Sent && mend.extent == extent
            });
            return match known {
                Some((id, _)) => *id,
                None => self.start_mend(extent, None, Side::There, Why::Read, turn),
            };
        }
        let known = self.mends.wanted.iter();
        if let Some((id, _)) = known.into_iter().find(|(_, it)| it.extent == extent) {
            return *id;
        }
        let id = self.next_request;
        self.next_request += 1;
        let wanted = Wanted {
            extent,
            channel: None,
            since: turn.now,
        };
        self.mends.wanted.insert(id, wanted);
        self.ask_to_mend(id, turn);
        id
    }

    fn ask_to_mend(&mut self, id: u64, turn: &mut Turn<'_>) {
        let extent = self.mends.wanted[&id].extent;
        let channel = self.send(DataFrame::AskMend { id, extent }, turn);
        if let Some(wanted) = self.mends.wanted.get_mut(&id) {
            wanted.channel = channel;
            wanted.since = turn.now;
        }
    }

    /// A replica cannot read a range. What it asked before it asks again only in its old place.
    pub(super) fn mend_asked(
        &mut self,
        id: u64,
        extent: Extent,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        let known = self
            .mends
            .all
            .values_mut()
            .find_map(|mend| match &mut mend.why {
                Why::Asked { id: other, channel } if *other == id => Some(channel),
                _ => None,
            });
        if let Some(place) = known {
            *place = channel;
        } else if self.mends.all.len() < MENDS_MAX {
            self.start_mend(extent, None, Side::Here, Why::Asked { id, channel }, turn);
        }
        // Else it asks again.
    }

    /// Begins to rewrite a range from one side; `order`: its place in the range lock, if that is
    /// held already.
    pub(super) fn start_mend(
        &mut self,
        extent: Extent,
        order: Option<u64>,
        from: Side,
        why: Why,
        turn: &mut Turn<'_>,
    ) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        let held = order.is_some();
        let order = order.unwrap_or_else(|| self.intake.next_order());
        let mend = Mend {
            extent,
            order,
            why,
            from,
            buffer: None,
            state: State::Locking,
            asked_at: turn.now,
        };
        self.mends.all.insert(id, mend);
        if held || self.intake.lock.enter(order, extent) {
            self.mend_granted(order, turn);
        }
        id
    }

    /// A mend holds its range.
    pub(super) fn mend_granted(&mut self, order: u64, turn: &mut Turn<'_>) -> bool {
        let found = self
            .mends
            .all
            .iter_mut()
            .find(|(_, mend)| mend.order == order && mend.state == State::Locking);
        let Some((id, mend)) = found else {
            return false;
        };
        let id = *id;
        if mend.from == Side::There {
            mend.state = State::Asking { channel: None };
            mend.asked_at = turn.now;
            self.ask_for_blocks(id, turn);
        } else {
            mend.state = State::NeedBuffer;
            let len = small(mend.extent);
            turn.out.push(VolumeAction::NeedBuffer { request: id, len });
        }
        true
    }

    fn ask_for_blocks(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(mend) = self.mends.all.get(&id) else {
            return;
        };
        let extent = mend.extent;
        if mend.state != (State::Asking { channel: None }) {
            return;
        }
        let channel = self.send(DataFrame::AskBlocks { id, extent }, turn);
        if let Some(mend) = self.mends.all.get_mut(&id) {
            mend.state = State::Asking { channel };
        }
    }

    /// A buffer that may be for a mend, or for an answer to the owner. False: it is for neither.
    pub(super) fn buffer_to_mend(
        &mut self,
        request: u64,
        buffer: BufferId,
        turn: &mut Turn<'_>,
    ) -> bool {
        let (extent, purpose) = if let Some(mend) = self.mends.all.get_mut(&request)
            && mend.state == State::NeedBuffer
        {
            mend.buffer = Some(buffer);
            mend.state = State::Reading;
            (mend.extent, Use::Mend(request))
        } else if let Some(asked) = self.mends.asked.get_mut(&request)
            && asked.buffer.is_none()
        {
            asked.buffer = Some(buffer);
            (asked.extent, Use::Asked(request))
        } else {
            return false;
        };
        let read = Io::Read {
            extent,
            buffer,
            at: 0,
        };
        self.start_io(purpose, read, turn);
        true
    }

    pub(super) fn mend_io_done(
        &mut self,
        id: u64,
        result: &Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        let Some(mend) = self.mends.all.get_mut(&id) else {
            return;
        };
        let Some(buffer) = mend.buffer else { return };
        let len = small(mend.extent);
        match (mend.state, result) {
            (State::Reading, Ok(_)) => {
                mend.state = State::Summing;
                self.start_io(Use::Mend(id), Io::Crc { buffer, at: 0, len }, turn);
            }
            (State::Summing, Ok(Value::Crc(crc))) => {
                mend.buffer = None;
                mend.state = State::Ready(Payload {
                    buffer,
                    at: 0,
                    len,
                    crc: *crc,
                });
            }
            // Neither copy has it.
            _ => self.end_mend(id, false, turn),
        }
    }

    // ---- at the replica: blocks for the owner

    pub(super) fn blocks_asked(
        &mut self,
        id: u64,
        extent: Extent,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        let known = self.mends.asked.values_mut().find(|asked| asked.id == id);
        if let Some(asked) = known {
            asked.channel = channel;
            return;
        }
        if self.mends.asked.len() >= MENDS_MAX {
            self.counts.bad_frames += 1;
            return;
        }
        let request = self.next_request;
        self.next_request += 1;
        let asked = Asked {
            id,
            extent,
            channel,
            buffer: None,
        };
        self.mends.asked.insert(request, asked);
        let len = small(extent);
        turn.out.push(VolumeAction::NeedBuffer { request, len });
    }

    pub(super) fn asked_io_done(
        &mut self,
        request: u64,
        result: &Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        let Some(asked) = self.mends.asked.get(&request) else {
            return;
        };
        let (id, extent, channel, buffer) = (asked.id, asked.extent, asked.channel, asked.buffer);
        let Some(buffer) = buffer else { return };
        let len = small(extent);
        let frame = match result {
            Ok(Value::Done) => {
                return self.start_io(Use::Asked(request), Io::Crc { buffer, at: 0, len }, turn);
            }
            Ok(Value::Crc(crc)) => {
                let payload = Payload {
                    buffer,
                    at: 0,
                    len,
                    crc: *crc,
                };
                DataFrame::Blocks {
                    id,
                    extent,
                    payload,
                }
            }
            _ => DataFrame::NoBlocks { id },
        };
        self.answer(Some(channel), frame, turn);
        self.mends.asked.remove(&request);
        turn.release(buffer);
    }
}

// ---- at the owner: what came, and the rest of the way
impl Volume {
    pub(super) fn blocks_came(
        &mut self,
        id: u64,
        extent: Extent,
        payload: Payload,
        turn: &mut Turn<'_>,
    ) {
        let wanted = self
            .mends
            .all
            .get_mut(&id)
            .filter(|mend| matches!(mend.state, State::Asking { .. }) && mend.extent == extent);
        match wanted {
            Some(mend) => mend.state = State::Ready(payload),
            // It was asked for twice, or is of no use any more.
            None => turn.release(payload.buffer),
        }
    }

    /// The partner cannot read it either.
    pub(super) fn no_blocks(&mut self, id: u64, turn: &mut Turn<'_>) {
        let asking = self
            .mends
            .all
            .get(&id)
            .is_some_and(|mend| matches!(mend.state, State::Asking { .. }));
        if asking {
            self.end_mend(id, false, turn);
        }
    }

    /// There was no room for the blocks that were asked for: they are asked for again.
    pub(super) fn blocks_found_no_room(&mut self, id: u64) {
        if let Some(mend) = self.mends.all.get_mut(&id)
            && let State::Asking { channel } = &mut mend.state
        {
            *channel = None;
        }
    }

    /// Sends what is ready, as an operation of its own.
    pub(super) fn advance_mends(&mut self, turn: &mut Turn<'_>) {
        if self.mends.all.is_empty() || self.role() != Role::Owner || !self.admits(turn.now) {
            return;
        }
        if !self.links.any_ready() {
            return;
        }
        for id in self.mends.all.keys().copied().collect::<Vec<_>>() {
            let mend = &self.mends.all[&id];
            let State::Ready(payload) = mend.state else {
                continue;
            };
            let (extent, order, from) = (mend.extent, mend.order, mend.from);
            if !self.has_room(extent.len) {
                return;
            }
            self.mends.all.get_mut(&id).expect("listed just now").state = State::Sent;
            let operation = Operation::Write {
                extent,
                payload,
                fua: true,
            };
            // Reads that the disk has at present may see half of it.
            self.spoil_reads(Some(extent));
            let here = from == Side::There;
            let origin = Origin::Mend { id, here };
            let seq = self.insert(Running::new(operation, origin, Some(order), turn.now));
            self.send_sequenced(seq, super::links::Asked::Nowhere, turn);
            self.begin_apply(seq, turn);
        }
    }

    /// Both copies hold it; its range was let go.
    pub(super) fn mended(&mut self, id: u64, turn: &mut Turn<'_>) {
        self.end_mend(id, true, turn);
    }

    fn end_mend(&mut self, id: u64, good: bool, turn: &mut Turn<'_>) {
        let Some(mend) = self.mends.all.remove(&id) else {
            return;
        };
        if let Some(buffer) = mend.buffer {
            turn.release(buffer);
        }
        if mend.state != State::Sent {
            self.unlock(mend.order, turn);
        }
        if good && mend.from == Side::There {
            let unreadable = match mend.why {
                Why::Verify(step) => self.mends_unreadable(step),
                _ => true,
            };
            self.repaired_here(mend.extent, unreadable, turn);
        }
        match mend.why {
            Why::Read => self.reads_mended(id, good, turn),
            Why::Asked { id, channel } => {
                self.counts.mended_there += u64::from(good);
                self.answer(Some(channel), DataFrame::Mended { id, good }, turn);
            }
            Why::Verify(step) => self.verified_mended(step, good),
        }
    }

    /// A replica's wish was fulfilled, or cannot be.
    pub(super) fn mended_there(&mut self, id: u64, good: bool, turn: &mut Turn<'_>) {
        let Some(wanted) = self.mends.wanted.remove(&id) else {
            return;
        };
        if good {
            self.repaired_here(wanted.extent, true, turn);
        }
        self.reads_mended(id, good, turn);
    }

    /// This node's copy was rewritten. A disk on which that happens too often is about to go.
    fn repaired_here(&mut self, extent: Extent, unreadable: bool, turn: &mut Turn<'_>) {
        self.counts.repaired += 1;
        turn.tell(FromVolume::Repaired { extent });
        let before = turn.now.saturating_sub(REPAIRS_WITHIN);
        let repairs = &mut self.mends.repairs;
        while repairs.front().is_some_and(|at| *at < before) {
            repairs.pop_front();
        }
        if unreadable {
            repairs.push_back(turn.now);
        }
        if repairs.len() > REPAIRS_MAX && matches!(self.stage, Stage::Paired(_)) {
            self.fail(turn);
        }
    }

    /// What was lost on the way is asked for again.
    pub(super) fn ask_for_mends(&mut self, turn: &mut Turn<'_>) {
        if !self.mends.wait() {
            return;
        }
        let before = turn.now.saturating_sub(ASK_AGAIN);
        for id in self.mends.all.keys().copied().collect::<Vec<_>>() {
            self.ask_for_blocks(id, turn);
        }
        let lost: Vec<u64> = self
            .mends
            .wanted
            .iter()
            .filter(|(_, wanted)| wanted.channel.is_none() || wanted.since < before)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.ask_to_mend(id, turn);
        }
    }

    /// Another configuration, or the end: what was begun is forgotten. What was sent already is an
    /// operation like any other and goes its way.
    pub(super) fn end_mends(&mut self, turn: &mut Turn<'_>) {
        for (_, mend) in core::mem::take(&mut self.mends.all) {
            if let Some(buffer) = mend.buffer {
                turn.release(buffer);
            }
            match mend.state {
                State::Ready(payload) => {
                    turn.release(payload.buffer);
                    self.unlock(mend.order, turn);
                }
                State::Sent => {}
                _ => self.unlock(mend.order, turn),
            }
        }
        self.mends.wanted.clear();
        for (_, asked) in core::mem::take(&mut self.mends.asked) {
            if let Some(buffer) = asked.buffer {
                turn.release(buffer);
            }
        }
        self.unmend_reads();
    }
}

fn small(extent: Extent) -> u32 {
    u32::try_from(extent.len).expect("an initiator's read and a step are at most 1 MiB")
}
