//! The only member carries out what the partner's initiators want, as if its own had asked: the
//! same queue, the same range lock, the same waiting for promises and joins. A write comes with the
//! token of the time at which the partner received it, and is sequenced once or never.
//!
//! It is sequenced only when the partner has said, after its range was locked here, that its
//! initiator still waits. Else a write that lies in a socket while the partner dies could follow
//! what the initiator, which saw the death at once, wrote through this node meanwhile.
//!
//! What a run of the partner has asked is remembered for as long as it could ask it again; a read
//! is simply done again.

use super::intake::{From, Held};
use super::owner::token_expired;
use super::stage::Role;
use super::turn::Turn;
use super::{MAX_IN_FLIGHT, Use, Volume};
use crate::control::Incarnation;
use crate::data_frame::DataFrame;
use crate::data_frame::proxy::{ProxyFrame, STATE_VERSIONS};
use crate::operation::{BufferId, Extent, Operation, Payload};
use crate::volume_action::{ChannelId, Refusal, Ticket, VolumeAction};
use crate::volume_io::{Io, IoError, Value};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Commands remembered: two windows, for a run of the partner and the one before it. An honest
/// partner never has more.
const MAX_ASKED: usize = 2048;
const _: () = assert!(MAX_ASKED as u64 == 2 * MAX_IN_FLIGHT);

/// A run of the partner, and its number for a command.
type Key = (Incarnation, u64);

#[derive(Default)]
pub(super) struct Host {
    asked: BTreeMap<Key, Asked>,
    /// Those that are at work, by the name under which this volume knows them.
    tickets: BTreeMap<Ticket, Key>,
    next: u64,
    /// Counts the changes of the SCSI state here.
    version: u64,
}

struct Asked {
    /// Where the answer goes.
    channel: ChannelId,
    ticket: Ticket,
    what: What,
}

enum What {
    Write(Go),
    /// Answered so; the same words again if it is asked again.
    Ended(Result<(), Refusal>),
    Flush,
    Read {
        extent: Extent,
        request: u64,
        buffer: Option<BufferId>,
    },
}

/// Whether a write may be sequenced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Go {
    /// Its range is not locked yet.
    Unasked,
    /// It holds its range, and its sender was asked.
    Asked,
    Given,
}

impl Volume {
    /// A frame of a proxy, whose run is the one that the channel's hello named.
    pub(super) fn host_frame(
        &mut self,
        channel: ChannelId,
        run: Incarnation,
        epoch: u64,
        frame: ProxyFrame,
        turn: &mut Turn<'_>,
    ) {
        let current = self.role() == Role::Alone && epoch == self.epoch;
        let agreed = current && self.links.is_proxied(channel);
        match frame {
            ProxyFrame::AskHost { lineage } if current && lineage == self.lineage => {
                self.be_host(channel, turn);
            }
            ProxyFrame::Pass {
                id,
                token,
                version,
                operation,
            } if agreed => {
                let held = (operation, token, version);
                self.take_passed((run, id), held, channel, turn);
            }
            ProxyFrame::PassRead {
                id,
                version,
                extent,
            } if agreed => self.take_passed_read((run, id), version, extent, channel, turn),
            ProxyFrame::PassFlush { id, version } if agreed => {
                self.take_passed_flush((run, id), version, channel, turn);
            }
            ProxyFrame::Go { id } if agreed => self.go_came((run, id)),
            ProxyFrame::PassCancel { id } if agreed => {
                self.cancel_passed((run, id), channel, turn);
            }
            ProxyFrame::Pass { operation, .. } => {
                self.counts.stale += 1;
                Self::release(&operation, turn);
            }
            _ => self.counts.stale += 1,
        }
    }

    /// Takes commands on this channel from now on. The SCSI state goes first.
    fn be_host(&mut self, channel: ChannelId, turn: &mut Turn<'_>) {
        self.links.set_proxied(channel);
        for (kind, bytes) in &self.states {
            let frame = ProxyFrame::HostState {
                kind: *kind,
                version: self.host.version,
                bytes: bytes.clone(),
            };
            self.push_frame(channel, frame.into(), turn);
        }
        let frame = ProxyFrame::Host {
            lineage: self.lineage,
            version: self.host.version,
        };
        self.push_frame(channel, frame.into(), turn);
    }

    /// A part of the SCSI state changed here. A proxy hears of it on every channel, so that on each
    /// of them it comes before the answer to the command that made the change.
    pub(super) fn state_changed(&mut self, kind: u16, turn: &mut Turn<'_>) {
        self.host.version += 1;
        if self.role() != Role::Alone {
            return;
        }
        for channel in self.links.proxied() {
            let frame = ProxyFrame::HostState {
                kind,
                version: self.host.version,
                bytes: self.states[&kind].clone(),
            };
            self.push_frame(channel, frame.into(), turn);
        }
    }

    fn say_passed(
        &self,
        key: Key,
        result: Result<(), Refusal>,
        on: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        if self.links.is_proxied(on) {
            let frame = ProxyFrame::Passed { id: key.1, result };
            self.push_frame(on, frame.into(), turn);
        }
    }

    /// Whether this was asked before: then the answer goes to this channel, now or later. A new one
    /// makes forgotten what its sender has certainly had an answer to.
    fn is_known(&mut self, key: Key, channel: ChannelId, turn: &mut Turn<'_>) -> bool {
        if let Some(asked) = self.host.asked.get_mut(&key) {
            self.counts.duplicates += 1;
            asked.channel = channel;
            match asked.what {
                What::Ended(result) => self.say_passed(key, result, channel, turn),
                What::Write(Go::Asked) => self.ask_go(key, turn),
                _ => {}
            }
            return true;
        }
        let (run, id) = key;
        let newest = self.host.asked.range((run, 0)..=(run, u64::MAX));
        let newest = newest.last().map_or(0, |((_, id), _)| *id);
        if id.saturating_add(MAX_IN_FLIGHT) <= newest {
            self.counts.duplicates += 1;
            return true;
        }
        while let Some((key, asked)) = self.host.asked.range((run, 0)..(run, id)).next()
            && key.1.saturating_add(MAX_IN_FLIGHT) <= id
            && matches!(asked.what, What::Ended(_))
        {
            let over = *key;
            self.host.asked.remove(&over);
        }
        if self.host.asked.len() >= MAX_ASKED {
            // Those of an earlier run that are over: nothing of it can come any more that this
            // node would still sequence.
            self.host
                .asked
                .retain(|(of, _), asked| *of == run || !matches!(asked.what, What::Ended(_)));
        }
        self.host.asked.len() >= MAX_ASKED
    }

    fn new_guest(&mut self, key: Key, channel: ChannelId, what: What) -> Ticket {
        self.host.next += 1;
        let ticket = Ticket::guest(self.host.next);
        let asked = Asked {
            channel,
            ticket,
            what,
        };
        self.host.asked.insert(key, asked);
        self.host.tickets.insert(ticket, key);
        ticket
    }

    /// Whether a command was let in by the SCSI state that is in force.
    const fn fits_state(&self, version: u64) -> bool {
        self.host.version % STATE_VERSIONS == version
    }

    fn take_passed(
        &mut self,
        key: Key,
        (operation, token, version): (Operation, u64, u64),
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        if self.is_known(key, channel, turn) {
            return Self::release(&operation, turn);
        }
        if token_expired(token, turn.now) || !self.fits_state(version) {
            Self::release(&operation, turn);
            return self.refuse_passed(key, channel, turn);
        }
        self.counts.hosted_writes += 1;
        let ticket = self.new_guest(key, channel, What::Write(Go::Unasked));
        if let Some(refusal) = self.refuses(&operation) {
            Self::release(&operation, turn);
            return turn.complete(ticket, Err(refusal));
        }
        let order = self.intake.next_order();
        let held = Held {
            from: From::Here(ticket),
            operation,
            received: turn.now,
            token: (token, turn.now),
        };
        self.intake.put(order, held, self.sequences());
    }

    /// The turn of an operation has come. One of the partner's waits for its word; it keeps its
    /// range, so what its initiator writes elsewhere meanwhile comes after it.
    pub(super) fn may_be_sequenced(&mut self, order: u64, turn: &mut Turn<'_>) -> bool {
        let Some(From::Here(ticket)) = self.intake.get(order).map(|held| held.from) else {
            return true;
        };
        let Some(key) = self.host.tickets.get(&ticket).copied() else {
            return !ticket.is_guest();
        };
        match self.host.asked.get_mut(&key).map(|asked| &mut asked.what) {
            Some(What::Write(Go::Given)) => return true,
            Some(What::Write(go)) => *go = Go::Asked,
            _ => {}
        }
        self.intake.runnable.remove(&order);
        self.ask_go(key, turn);
        false
    }

    fn ask_go(&self, key: Key, turn: &mut Turn<'_>) {
        let channel = self.host.asked[&key].channel;
        if self.links.is_proxied(channel) {
            self.push_frame(channel, ProxyFrame::AskGo { id: key.1 }.into(), turn);
        }
    }

    fn go_came(&mut self, key: Key) {
        if let Some(asked) = self.host.asked.get_mut(&key)
            && let What::Write(go @ Go::Asked) = &mut asked.what
            && let Some(order) = self.intake.of_ticket(asked.ticket)
        {
            *go = Go::Given;
            self.intake.runnable.insert(order);
        }
    }

    /// No channel to that run of the partner is left: what it has not said Go for is dropped, so
    /// that nobody waits for its range.
    pub(super) fn drop_unasserted(&mut self, turn: &mut Turn<'_>) {
        let guests = self.host.tickets.iter();
        let lost: Vec<Ticket> = guests
            .filter(|(_, key)| !self.links.reaches(key.0))
            .filter(|(_, key)| {
                let asked = self.host.asked.get(key);
                asked
                    .is_some_and(|asked| matches!(asked.what, What::Write(Go::Unasked | Go::Asked)))
            })
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in lost {
            if let Some(order) = self.intake.of_ticket(ticket) {
                self.drop_held(order, Refusal::Busy, turn);
            }
        }
    }

    /// It was not sequenced and never will be.
    fn refuse_passed(&mut self, key: Key, channel: ChannelId, turn: &mut Turn<'_>) {
        self.counts.refused += 1;
        let refused = Err(Refusal::Busy);
        let asked = Asked {
            channel,
            ticket: Ticket::guest(0),
            what: What::Ended(refused),
        };
        self.host.asked.insert(key, asked);
        self.say_passed(key, refused, channel, turn);
    }

    /// The blocks of a write found no room.
    pub(super) fn turn_pass_away(
        &mut self,
        id: u64,
        run: Incarnation,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        let theirs = self.links.incarnation(channel) == Some(run);
        let agreed = self.role() == Role::Alone && self.links.is_proxied(channel);
        if theirs && agreed && !self.is_known((run, id), channel, turn) {
            self.refuse_passed((run, id), channel, turn);
        }
    }

    fn take_passed_read(
        &mut self,
        key: Key,
        version: u64,
        extent: Extent,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        if self.is_known(key, channel, turn) {
            return;
        }
        if !self.fits_state(version) {
            return self.say_passed(key, Err(Refusal::Busy), channel, turn);
        }
        self.counts.hosted_reads += 1;
        let request = self.next_request;
        self.next_request += 1;
        let what = What::Read {
            extent,
            request,
            buffer: None,
        };
        self.new_guest(key, channel, what);
        let len = u32::try_from(extent.len).expect("checked when it was decoded");
        turn.out.push(VolumeAction::NeedBuffer { request, len });
    }

    /// A buffer for a read of the partner. False: it is for somebody else.
    pub(super) fn buffer_to_host(
        &mut self,
        request: u64,
        buffer: BufferId,
        turn: &mut Turn<'_>,
    ) -> bool {
        let waits = |asked: &&mut Asked| matches!(asked.what, What::Read { request: of, .. } if of == request);
        let Some(asked) = self.host.asked.values_mut().find(waits) else {
            return false;
        };
        let ticket = asked.ticket;
        let What::Read {
            extent, buffer: at, ..
        } = &mut asked.what
        else {
            return false;
        };
        *at = Some(buffer);
        let extent = *extent;
        self.take_read(ticket, extent, buffer, 0, turn);
        true
    }

    fn take_passed_flush(
        &mut self,
        key: Key,
        version: u64,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        if self.is_known(key, channel, turn) {
            return;
        }
        if !self.fits_state(version) {
            return self.say_passed(key, Err(Refusal::Busy), channel, turn);
        }
        let ticket = self.new_guest(key, channel, What::Flush);
        self.take_flush(ticket, turn);
    }

    /// The partner's initiator gave up a write. What is not sequenced never will be.
    fn cancel_passed(&mut self, key: Key, channel: ChannelId, turn: &mut Turn<'_>) {
        if let Some(asked) = self.host.asked.get(&key) {
            let (ticket, at_work) = (asked.ticket, !matches!(asked.what, What::Ended(_)));
            if at_work && let Some(order) = self.intake.of_ticket(ticket) {
                self.drop_held(order, Refusal::Aborted, turn);
            }
        }
        // It may also have overtaken its command on another channel.
        if !self.is_known(key, channel, turn) {
            self.refuse_passed(key, channel, turn);
        }
    }

    /// Says what came of the partner's commands that ended in this turn.
    pub(super) fn answer_guests(&mut self, turn: &mut Turn<'_>) {
        for (ticket, result) in core::mem::take(&mut turn.answers) {
            let Some(key) = self.host.tickets.remove(&ticket) else {
                // Of a configuration that is over.
                continue;
            };
            let Some(asked) = self.host.asked.get_mut(&key) else {
                continue;
            };
            let channel = asked.channel;
            match (&asked.what, result) {
                (What::Write(_), _) => {
                    asked.what = What::Ended(result);
                    self.say_passed(key, result, channel, turn);
                }
                (
                    What::Read {
                        extent,
                        buffer: Some(buffer),
                        ..
                    },
                    Ok(()),
                ) => {
                    let (buffer, extent) = (*buffer, *extent);
                    let len = u32::try_from(extent.len).expect("checked when it was decoded");
                    self.host.tickets.insert(ticket, key);
                    let sum = Io::Crc { buffer, at: 0, len };
                    self.start_io(Use::Fetch(ticket), sum, turn);
                }
                (What::Read { buffer, .. }, _) => {
                    if let Some(buffer) = *buffer {
                        turn.release(buffer);
                    }
                    self.host.asked.remove(&key);
                    self.say_passed(key, result, channel, turn);
                }
                (What::Flush | What::Ended(_), _) => {
                    self.host.asked.remove(&key);
                    self.say_passed(key, result, channel, turn);
                }
            }
        }
    }

    /// The checksum of a read's blocks: they go to the partner.
    pub(super) fn fetch_summed(
        &mut self,
        ticket: Ticket,
        result: &Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        let Some(key) = self.host.tickets.remove(&ticket) else {
            return;
        };
        let Some(asked) = self.host.asked.remove(&key) else {
            return;
        };
        let What::Read {
            extent,
            buffer: Some(buffer),
            ..
        } = asked.what
        else {
            return;
        };
        match result {
            Ok(Value::Crc(crc)) if self.links.is_proxied(asked.channel) => {
                let payload = Payload {
                    buffer,
                    at: 0,
                    len: u32::try_from(extent.len).expect("checked when it was decoded"),
                    crc: *crc,
                };
                let frame = ProxyFrame::Fetched {
                    id: key.1,
                    extent,
                    payload,
                };
                self.push_frame(asked.channel, DataFrame::Proxy(frame), turn);
            }
            // Asked again on another channel it is read again.
            _ => {}
        }
        turn.release(buffer);
    }

    /// Another configuration: what of the partner's commands is not sequenced never will be here,
    /// and nothing more is said about the others.
    pub(super) fn forget_guests(&mut self, turn: &mut Turn<'_>) {
        self.links.end_proxying();
        let guest = |held: &Held| matches!(held.from, From::Here(ticket) if ticket.is_guest());
        for order in self.intake.orders(guest) {
            self.drop_held(order, Refusal::NotServed, turn);
        }
        for (_, asked) in core::mem::take(&mut self.host.asked) {
            match asked.what {
                What::Read { buffer, .. } => {
                    self.cancel_read(asked.ticket, turn);
                    if let Some(buffer) = buffer {
                        turn.release(buffer);
                    }
                }
                What::Flush => drop(self.cancel_flush(asked.ticket, turn)),
                What::Write(_) | What::Ended(_) => {}
            }
        }
        self.host.tickets.clear();
    }
}
