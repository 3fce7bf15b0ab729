//! Data connections to the partner: handshake, framing, sealing. Which operation a frame belongs
//! to is the mirror's business; here bytes become fields and fields become bytes.

use super::{Kind, Shard};
use crate::counters::PathCounters;
use crate::interface::{Action, Body, FromShard, Head, Want};
use crate::pool::Purpose;
use alloc::format;
use alloc::vec::Vec;
use lockstep_iscsi::interface::ConnId;
use lockstep_mirror::control::{Incarnation, Time};
use lockstep_mirror::data_frame::{blocks_follow, may_be_refused};
use lockstep_mirror::fields::Fields;
use lockstep_mirror::frame::{HEADER_LEN, Opener, Sealer};
use lockstep_mirror::hello::{HELLO_LEN, Hello, PROOF_LEN};
use lockstep_mirror::operation::{BufferId, Payload};
use lockstep_mirror::volume_action::{ChannelId, FrameBody};

/// The most bytes that may follow a header without being blocks: lists, hashes, a state.
pub(super) const MAX_LIST_BYTES: u32 = 64 << 10;
/// The most blocks in one frame: the longest write.
const MAX_BLOCK_BYTES: u32 = lockstep_mirror::operation::MAX_WRITE_BYTES;
/// Data connections taken at once: as many as may be configured (16), each with a successor that
/// comes before the end of the one before is noticed.
pub(super) const MAX_CHANNELS: usize = 32;

/// How long blocks of the partner wait for a buffer before they are refused, if they may be: behind
/// them on their connection wait acknowledgements, and these may be what frees a buffer. Long
/// enough for a burst, and far below what makes an operation late
/// (`lockstep_mirror::volume::LATE_AFTER`).
const PARTNER_PATIENCE: Time = Time::from_secs(1);

/// How far a data connection is.
pub(super) enum Stage {
    /// The partner's hello is awaited.
    Hello(Hello),
    /// The proof that it knows the secret is awaited.
    Proof(Hello),
    /// A header is awaited.
    Header,
    /// A list follows these fields.
    List(Fields),
    /// No buffer was free for the blocks that follow.
    NoBuffer(Fields),
    /// Blocks follow, into this buffer.
    Blocks(Fields, BufferId),
    /// So many bytes of blocks follow that nobody here needs.
    Skipping(u32),
}

/// One data connection.
pub(super) struct Partner {
    pub(super) stage: Stage,
    pub(super) channel: ChannelId,
    pub(super) seals: Option<(Sealer, Opener)>,
    pub(super) incarnation: Option<Incarnation>,
    /// Which of the links between the nodes it uses.
    pub(super) path: u16,
    /// When something last came on it.
    pub(super) heard: Time,
    pub(super) dial: Option<u32>,
    /// The handshake's deadline, until it is finished.
    pub(super) until: Option<Time>,
    /// Since when no blocks on it have found a buffer.
    pub(super) starved: Option<Time>,
}

impl Partner {
    /// What the socket owes us next.
    pub(super) fn want(&self) -> Want {
        match &self.stage {
            Stage::Hello(_) => Want::Bytes(size(HELLO_LEN)),
            Stage::Proof(_) => Want::Bytes(size(PROOF_LEN)),
            Stage::Header => Want::Bytes(size(HEADER_LEN)),
            Stage::List(fields) => Want::Bytes(fields.payload_len),
            Stage::NoBuffer(_) => Want::Wait,
            Stage::Skipping(len) => Want::Skip(*len),
            Stage::Blocks(fields, buffer) => Want::Data {
                buffer: *buffer,
                at: 0,
                len: fields.payload_len,
            },
        }
    }
}

fn size(len: usize) -> u32 {
    u32::try_from(len).expect("headers are small")
}

impl Shard {
    /// Bytes that fulfil a want of the handshake or the framing.
    pub(super) fn partner_bytes(
        &mut self,
        now: Time,
        conn: ConnId,
        bytes: &[u8],
        actions: &mut Vec<Action>,
    ) {
        let partner = self.partner_mut(conn);
        partner.heard = now;
        let path = partner.path;
        self.count(path, |it| it.received_bytes += bytes.len() as u64);
        if let Err(why) = self.partner_step(now, conn, bytes, actions) {
            self.count(path, |it| it.refused += 1);
            self.refuse_partner(conn, &why, actions);
        }
    }

    fn count(&mut self, path: u16, add: impl FnOnce(&mut PathCounters)) {
        if let Some(counters) = self.paths.get_mut(usize::from(path)) {
            add(counters);
        }
    }

    /// A snapshot of what the paths count.
    pub(super) fn count_paths(&mut self) {
        for counters in &mut self.paths {
            counters.channels = 0;
        }
        for conn in self.channels.values().copied().collect::<Vec<_>>() {
            let path = self.partner_mut(conn).path;
            self.count(path, |it| it.channels += 1);
        }
        self.counters.paths.clone_from(&self.paths);
    }

    /// Gives up the channels of a path on which nothing has come since then. A connection that has
    /// lost something sends it again only after pauses that double; the others, or a new one, need
    /// not wait for that.
    pub(super) fn path_silent(&mut self, path: u16, since: Time, actions: &mut Vec<Action>) {
        let mut given_up = 0;
        for connection in self.connections.iter_mut().flatten() {
            let Kind::Partner(partner) = &connection.kind else {
                continue;
            };
            if partner.path == path && partner.heard <= since && !connection.closing {
                connection.closing = true;
                given_up += 1;
                let conn = connection.id;
                actions.push(Action::Abort { conn });
            }
        }
        self.count(path, |it| it.given_up += given_up);
    }

    fn partner_step(
        &mut self,
        now: Time,
        conn: ConnId,
        bytes: &[u8],
        actions: &mut Vec<Action>,
    ) -> Result<(), alloc::string::String> {
        let partner = self.partner_mut(conn);
        match core::mem::replace(&mut partner.stage, Stage::Header) {
            Stage::Hello(mut hello) => {
                let bytes = bytes.try_into().expect("the driver brings what was wanted");
                let proof = hello.received(bytes).map_err(|error| format!("{error}"))?;
                partner.stage = Stage::Proof(hello);
                actions.push(Action::Send {
                    conn,
                    head: head(&proof),
                    body: Body::None,
                });
            }
            Stage::Proof(mut hello) => {
                let bytes = bytes.try_into().expect("the driver brings what was wanted");
                let established = hello.proof(bytes).map_err(|error| format!("{error}"))?;
                let (channel, incarnation) = (partner.channel, established.partner_incarnation);
                partner.seals = Some((established.sealer, established.opener));
                partner.incarnation = Some(incarnation);
                partner.until = None;
                self.end_earlier_runs(incarnation, actions);
                self.channels.insert(channel, conn);
                self.each_volume(now, |volume, now, out| {
                    volume.channel_up(now, channel, incarnation, out)
                });
            }
            Stage::Header => {
                let bytes = bytes.try_into().expect("the driver brings what was wanted");
                let (_, opener) = partner
                    .seals
                    .as_mut()
                    .expect("frames come after the handshake");
                let fields = opener.header(bytes).map_err(|error| format!("{error}"))?;
                if fields.payload_len == 0 {
                    self.partner_frame(now, conn, fields, FrameBody::None);
                } else if !blocks_follow(fields.kind) {
                    if fields.payload_len > MAX_LIST_BYTES {
                        return Err(format!(
                            "a list of {} bytes, at most {MAX_LIST_BYTES} are taken",
                            fields.payload_len
                        ));
                    }
                    self.partner_mut(conn).stage = Stage::List(fields);
                } else if fields.payload_len > MAX_BLOCK_BYTES {
                    return Err(format!(
                        "{} bytes of blocks, at most {MAX_BLOCK_BYTES} are taken",
                        fields.payload_len
                    ));
                } else {
                    let stage = self.room_for(now, conn, fields);
                    self.partner_mut(conn).stage = stage;
                }
            }
            Stage::List(fields) => {
                let (_, opener) = partner
                    .seals
                    .as_mut()
                    .expect("frames come after the handshake");
                opener.payload(bytes).map_err(|error| format!("{error}"))?;
                self.partner_frame(now, conn, fields, FrameBody::Bytes(bytes.into()));
            }
            Stage::NoBuffer(_) | Stage::Blocks(..) | Stage::Skipping(_) => {
                unreachable!("these stages want no bytes")
            }
        }
        Ok(())
    }

    /// Where the blocks behind a header go: into a buffer, nowhere yet, or nowhere at all.
    ///
    /// Waiting here always ends. The buffer of an `Apply` comes back when this node's disk has the
    /// blocks, and for that nothing is needed that could wait behind it (but for a flush in
    /// write-back when intents of 65,536 regions are set: then the partner is late, and is put
    /// out); an `Apply` cannot be refused, for the owner gave it its number. The buffer of a `Forward` comes back when the
    /// operations before it are committed, for which the partner's `Stored` is needed, and that may
    /// wait behind this very frame. So a forward is refused when blocks on its connection have
    /// waited for [`PARTNER_PATIENCE`] (and blocks that this node had asked for are dropped, to be
    /// asked for again), and so is each one after it until one finds a buffer: an
    /// acknowledgement waits behind blocks for that time once, however many forwards come before.
    fn room_for(&mut self, now: Time, conn: ConnId, fields: Fields) -> Stage {
        if self.volume_index(fields.volume).is_none() {
            return Stage::Skipping(fields.payload_len);
        }
        let buffer = self.pool.take(fields.payload_len, Purpose::Partner);
        let partner = self.partner_mut(conn);
        if let Some(buffer) = buffer {
            partner.starved = None;
            return Stage::Blocks(fields, buffer);
        }
        let since = *partner.starved.get_or_insert(now);
        if may_be_refused(fields.kind) && now >= since + PARTNER_PATIENCE {
            return self.turn_forward_away(now, conn, &fields);
        }
        self.starved_partners.push_back(conn);
        Stage::NoBuffer(fields)
    }

    /// The blocks of a forward are thrown away, and it is refused: its initiator is told BUSY.
    fn turn_forward_away(&mut self, now: Time, conn: ConnId, fields: &Fields) -> Stage {
        let channel = self.partner_mut(conn).channel;
        if let Some(index) = self.volume_index(fields.volume) {
            self.mirror(index, |volume, out| {
                volume.frame_without_blocks(now, channel, fields, out)
            });
        }
        Stage::Skipping(fields.payload_len)
    }

    /// A forward that waits for a buffer on this connection, and when it is refused.
    fn starved_forward(&self, conn: ConnId) -> Option<(Time, Fields)> {
        let partner = self.partner_of(conn)?;
        match partner.stage {
            Stage::NoBuffer(fields) if may_be_refused(fields.kind) => {
                Some((partner.starved? + PARTNER_PATIENCE, fields))
            }
            _ => None,
        }
    }

    /// When `turn_away_forwards` has something to do.
    pub(super) fn starved_partner_deadline(&self) -> Option<Time> {
        let waiting = self.starved_partners.iter();
        waiting
            .filter_map(|&conn| self.starved_forward(conn))
            .map(|(deadline, _)| deadline)
            .min()
    }

    /// Refuses the forwards that have waited for a buffer for too long.
    pub(super) fn turn_away_forwards(&mut self, now: Time) {
        for place in (0..self.starved_partners.len()).rev() {
            let conn = self.starved_partners[place];
            let due = self.starved_forward(conn);
            if let Some((_, fields)) = due.filter(|&(deadline, _)| deadline <= now) {
                self.starved_partners.remove(place);
                let stage = self.turn_forward_away(now, conn, &fields);
                self.partner_mut(conn).stage = stage;
                self.touched.push(conn);
            }
        }
    }

    /// The blocks of a frame are in their buffer.
    pub(super) fn partner_data(
        &mut self,
        now: Time,
        conn: ConnId,
        crc: u32,
        actions: &mut Vec<Action>,
    ) {
        let partner = self.partner_mut(conn);
        partner.heard = now;
        let path = partner.path;
        let Stage::Blocks(fields, buffer) = core::mem::replace(&mut partner.stage, Stage::Header)
        else {
            unreachable!("only this stage wants data");
        };
        let bytes = u64::from(fields.payload_len);
        self.count(path, |it| it.received_bytes += bytes);
        if crc != fields.payload_crc {
            self.count(path, |it| it.refused += 1);
            self.release(buffer);
            self.refuse_partner(
                conn,
                "the payload's CRC32C does not match: a network between the nodes damages data",
                actions,
            );
            return;
        }
        let payload = Payload {
            buffer,
            at: 0,
            len: fields.payload_len,
            crc,
        };
        self.partner_frame(now, conn, fields, FrameBody::Blocks(payload));
    }

    fn partner_frame(&mut self, now: Time, conn: ConnId, fields: Fields, body: FrameBody) {
        let channel = self.partner_mut(conn).channel;
        match self.volume_index(fields.volume) {
            Some(index) => {
                let mut out = core::mem::take(&mut self.volume_scratch);
                self.volumes[index]
                    .mirror
                    .frame(now, channel, fields, body, &mut out);
                self.queue_volume_actions(index, out);
            }
            // The partner knows a volume that this node does not have yet, or not any more: its
            // frame is of no use here, and its blocks must not keep a buffer.
            None => {
                if let FrameBody::Blocks(payload) = body {
                    self.release(payload.buffer);
                }
            }
        }
    }

    /// A buffer has become free: go on with the frame that lacked one.
    pub(super) fn feed_partners(&mut self) {
        while let Some(&conn) = self.starved_partners.front() {
            let Some(partner) = self.partner_of(conn) else {
                self.starved_partners.pop_front();
                continue;
            };
            let Stage::NoBuffer(fields) = partner.stage else {
                self.starved_partners.pop_front();
                continue;
            };
            let Some(buffer) = self.pool.take(fields.payload_len, Purpose::Partner) else {
                return;
            };
            self.starved_partners.pop_front();
            let partner = self.partner_mut(conn);
            partner.starved = None;
            partner.stage = Stage::Blocks(fields, buffer);
            self.touched.push(conn);
        }
    }

    /// Sends one of the mirror's frames, unless its channel has gone meanwhile.
    pub(super) fn send_frame(
        &mut self,
        channel: ChannelId,
        fields: Fields,
        body: FrameBody,
        actions: &mut Vec<Action>,
    ) {
        let Some(&conn) = self.channels.get(&channel) else {
            return;
        };
        let partner = self.partner_mut(conn);
        let path = partner.path;
        let (sealer, _) = partner
            .seals
            .as_mut()
            .expect("a channel is up after its handshake");
        let bytes = match &body {
            FrameBody::Bytes(bytes) => Some(&bytes[..]),
            FrameBody::None | FrameBody::Blocks(_) => None,
        };
        let head = head(&sealer.seal(&fields, bytes));
        let bytes = u64::from(head.len) + u64::from(body_len(&body));
        self.count(path, |it| it.sent_bytes += bytes);
        let body = match body {
            FrameBody::None => Body::None,
            FrameBody::Bytes(bytes) => Body::Bytes(bytes.into_vec()),
            FrameBody::Blocks(Payload {
                buffer, at, len, ..
            }) => {
                self.pool.retain(buffer);
                Body::Blocks {
                    buffer,
                    at,
                    len,
                    pad: false,
                    digest: false,
                }
            }
        };
        actions.push(Action::Send { conn, head, body });
    }

    /// Channels to a run of the partner that is over are of no use, and may never notice it.
    fn end_earlier_runs(&mut self, incarnation: Incarnation, actions: &mut Vec<Action>) {
        for connection in self.connections.iter_mut().flatten() {
            let Kind::Partner(partner) = &connection.kind else {
                continue;
            };
            let earlier = partner
                .incarnation
                .is_some_and(|theirs| theirs != incarnation);
            if earlier && !connection.closing {
                connection.closing = true;
                actions.push(Action::Close {
                    conn: connection.id,
                });
            }
        }
    }

    fn refuse_partner(&mut self, conn: ConnId, why: &str, actions: &mut Vec<Action>) {
        if self.partner_refusals_noted < super::MAX_NOTES_A_PERIOD {
            self.partner_refusals_noted += 1;
            actions.push(Action::Report(FromShard::Note(format!(
                "data connection of the partner closed: {why}"
            ))));
        }
        actions.push(Action::Close { conn });
        self.mark_closing(conn);
    }
}

fn body_len(body: &FrameBody) -> u32 {
    match body {
        FrameBody::None => 0,
        FrameBody::Bytes(bytes) => size(bytes.len()),
        FrameBody::Blocks(payload) => payload.len,
    }
}

/// Puts a handshake message or a frame header into a head.
pub(super) fn head(bytes: &[u8]) -> Head {
    let mut head = Head {
        bytes: [0; 192],
        len: u8::try_from(bytes.len()).expect("headers have at most 192 bytes"),
    };
    head.bytes[..bytes.len()].copy_from_slice(bytes);
    head
}
