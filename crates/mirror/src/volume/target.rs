//! A resync, at the target: answers what it may lack, compares hashes, applies what the source
//! sends. It serves nobody and keeps its own dirty bits and intents until it is a member.
//! A replica compares hashes in the same way for an owner that verifies.

use super::links::Asked;
use super::stage::Stage;
use super::turn::Turn;
use super::{Use, Volume};
use crate::data_frame::{BITS_SPAN, DataFrame};
use crate::metadata_layout::{CHUNK, REGION};
use crate::operation::{BufferId, Extent};
use crate::volume_action::{ChannelId, Refusal, VolumeAction};
use crate::volume_io::{Io, IoError, Value};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// Most comparisons at once; a source has fewer steps, and a verification asks for no more.
pub(super) const MAX_COMPARISONS: usize = 32;

#[derive(Default)]
pub(super) struct Target {
    /// The source's attempt that is followed; it numbers them from 1.
    pub(super) attempt: u64,
    /// Nothing of before is still being written here.
    pub(super) quiet: bool,
}

/// Comparisons that the partner asked for: a resync's source, or an owner that verifies.
#[derive(Default)]
pub(super) struct Comparisons(BTreeMap<u64, Comparison>);

struct Comparison {
    extent: Extent,
    hashes: Box<[u8]>,
    asked: Asked,
    buffer: Option<BufferId>,
    request: u64,
}

impl Volume {
    fn target_mut(&mut self) -> Option<&mut Target> {
        match &mut self.stage {
            Stage::Target(target) => Some(target),
            _ => None,
        }
    }

    /// The source begins an attempt: what an older one sent is not applied any more.
    pub(super) fn follow_attempt(&mut self, attempt: u64, turn: &mut Turn<'_>) {
        if self
            .target_mut()
            .is_none_or(|target| attempt <= target.attempt)
        {
            return;
        }
        self.end_target(turn);
        self.drop_running(Refusal::NotServed, turn);
        self.stalled.clear();
        self.links.forget();
        self.received = super::window::Window::default();
        self.stage = Stage::Target(Target {
            attempt,
            quiet: false,
        });
        self.advance_target(turn);
    }

    /// The source's SCSI state is the one that counts: it comes before the join, and what does
    /// not come is at its default.
    pub(super) fn forget_states(&mut self, turn: &mut Turn<'_>) {
        for (kind, _) in core::mem::take(&mut self.states) {
            turn.out.push(VolumeAction::State {
                kind,
                bytes: Box::default(),
            });
        }
    }

    pub(super) fn end_target(&mut self, turn: &mut Turn<'_>) {
        for (_, comparison) in core::mem::take(&mut self.comparisons.0) {
            if let Some(buffer) = comparison.buffer {
                turn.release(buffer);
            }
        }
    }

    /// Once the disk has nothing more of before, the source is told that this side is ready.
    pub(super) fn advance_target(&mut self, turn: &mut Turn<'_>) {
        let applying = self.applying;
        let Some(target) = self.target_mut() else {
            return;
        };
        if !target.quiet && applying == 0 {
            target.quiet = true;
            self.say_ready_everywhere(turn);
        }
    }

    /// The source asks what may differ: own dirty bits and whole regions with an intent.
    pub(super) fn bits_asked(&self, offset: u64, channel: ChannelId, turn: &mut Turn<'_>) {
        let first = offset / CHUNK;
        let mut bits = self.dirty.bits(first..first + BITS_SPAN / CHUNK);
        let per_region = REGION / CHUNK / 8;
        for region in self
            .intents
            .regions()
            .filter(|region| (offset..offset + BITS_SPAN).contains(&(region * REGION)))
        {
            let start =
                usize::try_from((region * REGION - offset) / CHUNK / 8).expect("less than 64 KiB");
            let end = bits
                .len()
                .min(start + usize::try_from(per_region).expect("32"));
            bits[start..end].fill(0xff);
        }
        self.answer(
            Some(channel),
            DataFrame::Bits {
                offset,
                bits: bits.into_boxed_slice(),
            },
            turn,
        );
    }

    pub(super) fn hashes_came(
        &mut self,
        step: u64,
        extent: Extent,
        hashes: Box<[u8]>,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        let request = self.next_request;
        let comparisons = &mut self.comparisons.0;
        if let Some(comparison) = comparisons.get_mut(&step) {
            comparison.asked.on(channel);
            return;
        }
        if comparisons.len() >= MAX_COMPARISONS || !extent.offset.is_multiple_of(CHUNK) {
            self.counts.bad_frames += 1;
            return;
        }
        comparisons.insert(
            step,
            Comparison {
                extent,
                hashes,
                asked: Asked::On(channel),
                buffer: None,
                request,
            },
        );
        self.next_request += 1;
        let len = u32::try_from(extent.len).expect("checked when it was decoded");
        turn.out.push(VolumeAction::NeedBuffer { request, len });
    }

    pub(super) fn buffer_to_compare(
        &mut self,
        request: u64,
        buffer: BufferId,
        turn: &mut Turn<'_>,
    ) {
        let waiting = self
            .comparisons
            .0
            .iter_mut()
            .find(|(_, comparison)| comparison.request == request);
        let Some((step, comparison)) = waiting else {
            // Whoever asked is gone.
            return turn.release(buffer);
        };
        comparison.buffer = Some(buffer);
        let (step, extent) = (*step, comparison.extent);
        self.start_io(
            Use::Comparison(step),
            Io::Read {
                extent,
                buffer,
                at: 0,
            },
            turn,
        );
    }

    pub(super) fn comparison_done(
        &mut self,
        step: u64,
        result: Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        let Some(comparison) = self.comparisons.0.get(&step) else {
            return;
        };
        let Some(buffer) = comparison.buffer else {
            return;
        };
        let (pieces, unreadable) = match result {
            Ok(Value::Done) => {
                let len =
                    u32::try_from(comparison.extent.len).expect("checked when it was decoded");
                return self.start_io(
                    Use::Comparison(step),
                    Io::Hash {
                        buffer,
                        at: 0,
                        len,
                        piece: 64 << 10,
                    },
                    turn,
                );
            }
            Ok(Value::Hashes(mine)) => (differing(&mine, &comparison.hashes), false),
            // What cannot be read here is written anew.
            _ => (u64::MAX, true),
        };
        let asked = comparison.asked;
        self.comparisons.0.remove(&step);
        turn.release(buffer);
        let answer = DataFrame::Differs {
            step,
            pieces,
            unreadable,
        };
        self.reply(asked, answer, turn);
    }
}

/// One bit for each pair of hashes that differ.
fn differing(mine: &[u8], theirs: &[u8]) -> u64 {
    let pairs = mine.chunks(16).zip(theirs.chunks(16)).enumerate();
    pairs.fold(0, |bits, (piece, (mine, theirs))| {
        bits | u64::from(mine != theirs) << piece
    })
}
