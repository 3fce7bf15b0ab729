//! Frames from the partner: what is stale or malformed is dropped, the rest goes where it belongs.

use super::Volume;
use super::stage::Role;
use super::turn::Turn;
use crate::data_frame::proxy::ProxyFrame;
use crate::data_frame::{self, DataFrame};
use crate::fields::Fields;
use crate::volume_action::{ChannelId, FrameBody};

impl Volume {
    pub(super) fn receive(
        &mut self,
        channel: ChannelId,
        fields: &Fields,
        body: FrameBody,
        turn: &mut Turn<'_>,
    ) {
        let blocks = data_frame::blocks(&body);
        let frame = match DataFrame::decode(fields, body, &self.spec) {
            Ok(DataFrame::Proxy(frame)) => {
                return self.receive_of_proxy(channel, fields, frame, turn);
            }
            Ok(frame) if self.is_current(channel, fields, &frame) => Some(frame),
            Ok(_) => {
                self.counts.stale += 1;
                None
            }
            Err(_) => {
                self.counts.bad_frames += 1;
                None
            }
        };
        match frame {
            Some(frame) => self.act_on(channel, frame, turn),
            None => {
                if let Some(payload) = blocks {
                    turn.release(payload.buffer);
                }
            }
        }
    }

    /// The blocks behind this header of a forward were thrown away, because there was no room for
    /// them for too long: it is refused, unless it is one that was decided before. Anything else
    /// is dropped, as it would have been with its blocks.
    pub(super) fn receive_without_blocks(
        &mut self,
        channel: ChannelId,
        fields: &Fields,
        turn: &mut Turn<'_>,
    ) {
        if data_frame::proxy::may_be_refused(fields.kind) {
            let (epoch, run) = data_frame::sender(fields);
            match data_frame::proxy::is_pass(fields.kind) {
                true if epoch == self.epoch => self.turn_pass_away(fields.seq, run, channel, turn),
                true => self.counts.stale += 1,
                false => self.turn_fetched_away(channel, fields, turn),
            }
            return;
        }
        let forward = data_frame::is_forward(fields.kind) && self.role() == Role::Owner;
        if forward && self.is_from_partner(channel, fields) && self.is_agreed(channel) {
            self.turn_forward_away(fields.seq, channel, turn);
        } else if data_frame::is_blocks(fields.kind) && self.is_from_partner(channel, fields) {
            self.blocks_found_no_room(fields.seq);
        } else {
            self.counts.stale += 1;
        }
    }

    /// What proxy and host say to each other holds for a run of the partner and a configuration,
    /// whatever becomes of a resync meanwhile.
    fn receive_of_proxy(
        &mut self,
        channel: ChannelId,
        fields: &Fields,
        frame: ProxyFrame,
        turn: &mut Turn<'_>,
    ) {
        let (epoch, run) = data_frame::sender(fields);
        let theirs = self.links.incarnation(channel) == Some(run);
        match frame {
            frame if !theirs => {
                self.counts.stale += 1;
                let (_, body) = DataFrame::Proxy(frame).encode(&self.spec, epoch);
                if let Some(payload) = data_frame::blocks(&body) {
                    turn.release(payload.buffer);
                }
            }
            frame @ (ProxyFrame::Host { .. }
            | ProxyFrame::HostState { .. }
            | ProxyFrame::AskGo { .. }
            | ProxyFrame::Passed { .. }
            | ProxyFrame::Fetched { .. }) => self.proxy_frame(channel, run, epoch, frame, turn),
            frame => self.host_frame(channel, run, epoch, frame, turn),
        }
    }

    /// Of this epoch and lineage, from the partner's right run, on a channel where both agreed.
    fn is_current(&self, channel: ChannelId, fields: &Fields, frame: &DataFrame) -> bool {
        let agreed = match frame {
            DataFrame::Ready { lineage, .. } => *lineage == self.lineage,
            _ => self.is_agreed(channel),
        };
        self.is_from_partner(channel, fields) && agreed
    }

    fn is_from_partner(&self, channel: ChannelId, fields: &Fields) -> bool {
        let (epoch, incarnation) = data_frame::sender(fields);
        epoch == self.epoch
            && self.links.incarnation(channel) == Some(incarnation)
            && self.partner_incarnation == Some(incarnation)
    }

    fn is_agreed(&self, channel: ChannelId) -> bool {
        self.links.is_ready(channel) && self.attempt().is_some()
    }

    fn act_on(&mut self, channel: ChannelId, frame: DataFrame, turn: &mut Turn<'_>) {
        use Role::{Alone, Owner, Replica, Target};
        match (self.role(), frame) {
            (
                _,
                DataFrame::Ready {
                    answer, attempt, ..
                },
            ) => self.ready_came(channel, answer, attempt, turn),

            (
                Replica | Target,
                DataFrame::Apply {
                    seq,
                    low,
                    operation,
                },
            ) => {
                self.committed_below(low, turn);
                self.apply_for_partner(seq, operation, channel, turn);
            }
            (Replica, DataFrame::Grant { seq, id, low }) => {
                self.committed_below(low, turn);
                self.granted(seq, id, channel, turn);
            }
            (Replica, DataFrame::Done { seq }) => self.committed(seq, turn),
            (Replica, DataFrame::Refused { id }) => self.refused(id, turn),
            (Replica, DataFrame::Committed { seq, low }) => {
                self.committed_below(low, turn);
                self.committed(seq, turn);
            }
            (Replica, DataFrame::Latest { id, seq }) => self.latest(id, seq),

            (Owner | Alone, DataFrame::Stored { seq }) => self.confirm(seq, turn),
            (
                Owner,
                DataFrame::Forward {
                    id,
                    token,
                    operation,
                },
            ) => self.take_forward(id, token, operation, channel, turn),
            (Owner, DataFrame::Cancel { id }) => self.cancel_forward(id, channel, turn),
            (Owner, DataFrame::AskCommitted { seq }) => self.committed_asked(seq, channel, turn),
            (Owner, DataFrame::AskLatest { id }) => self.latest_asked(id, channel, turn),

            (Owner | Replica | Target, DataFrame::Flush { id }) => {
                self.flush_for_partner(id, channel, turn)
            }
            (Owner | Replica | Alone, DataFrame::Flushed { id }) => self.flushed_there(id, turn),

            (Target, DataFrame::AskBits { offset }) => self.bits_asked(offset, channel, turn),
            (Alone, DataFrame::Bits { offset, bits }) => self.bits_came(offset, &bits, turn),
            (
                Target | Replica,
                DataFrame::Hashes {
                    step,
                    extent,
                    hashes,
                },
            ) => self.hashes_came(step, extent, hashes, channel, turn),
            (Alone, DataFrame::Differs { step, pieces, .. }) => self.differs(step, pieces, turn),
            (
                Owner,
                DataFrame::Differs {
                    step,
                    pieces,
                    unreadable,
                },
            ) => self.looked_there(step, pieces, unreadable, turn),

            (Replica, DataFrame::AskBlocks { id, extent }) => {
                self.blocks_asked(id, extent, channel, turn)
            }
            (
                Owner,
                DataFrame::Blocks {
                    id,
                    extent,
                    payload,
                },
            ) => self.blocks_came(id, extent, payload, turn),
            (Owner, DataFrame::NoBlocks { id }) => self.no_blocks(id, turn),
            (Owner, DataFrame::AskMend { id, extent }) => {
                self.mend_asked(id, extent, channel, turn)
            }
            (Replica, DataFrame::Mended { id, good }) => self.mended_there(id, good, turn),

            (_, DataFrame::Blocks { payload, .. }) => {
                self.counts.stale += 1;
                turn.release(payload.buffer);
            }
            (_, DataFrame::Apply { operation, .. } | DataFrame::Forward { operation, .. }) => {
                self.counts.stale += 1;
                Self::release(&operation, turn);
            }
            _ => self.counts.stale += 1,
        }
    }
}
