//! What this node passes to the partner, because it is no member and the partner serves alone.
//! Nothing of it touches the copy here: the partner carries it out as if its own initiators had
//! asked, and its word is the answer.
//!
//! A write that was sent is answered by the partner's word, or BUSY once its token has certainly
//! expired, or when this node joined: the partner admits nothing between the end of the copy and the
//! join. It is never sent to another run or configuration, and never carried out here: the partner
//! may have done it long ago, and others may have written over it since. What was not sent, and
//! reads and flushes, may go anywhere.

use super::forwards::certainly_expired;
use super::intake::{From, Held, MAX_HELD};
use super::running::Origin;
use super::stage::Stage;
use super::turn::Turn;
use super::{DROP_AGE, MAX_BYTES_IN_FLIGHT, MAX_IN_FLIGHT, Volume};
use crate::control::{Configuration, FromVolume, Incarnation, Time};
use crate::data_frame::proxy::ProxyFrame;
use crate::fields::Fields;
use crate::operation::{BufferId, Extent, Operation, Payload};
use crate::volume_action::{ChannelId, Refusal, Ticket, VolumeAction};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// Most commands that the partner has and did not answer: each read takes a buffer there.
const MAX_PASSED: usize = 128;
/// Most bytes in them.
const MAX_PASSED_BYTES: u64 = MAX_BYTES_IN_FLIGHT / 4;
/// How often the partner is asked on a channel on which it has not agreed yet.
const ASK_EVERY: Time = Time::from_millis(300);
/// A command without an answer for this long is sent again once the host says again that it takes
/// commands: it may not have when the command came.
const REPEAT_AFTER: Time = Time::from_secs(2);
/// What came here waits for so long for a host that no channel leads to: heartbeats may come where
/// data do not, and the initiator's other path may lead to the host.
const HOST_AGE: Time = Time::from_secs(1);

/// Whose commands are passed on: one configuration, in one run of the partner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name {
    epoch: u64,
    lineage: u64,
    incarnation: Incarnation,
}

#[derive(Default)]
pub(super) struct Proxy {
    host: Option<Name>,
    /// `Node` knows that the partner has agreed.
    told: bool,
    waiting: VecDeque<Passed>,
    sent: BTreeMap<u64, Passed>,
    bytes: u64,
    /// The last number given, see [`Self::next_number`].
    last: u64,
    /// The host's SCSI state as it is known here, and since when.
    version: u64,
    since: Time,
    kinds: BTreeMap<u16, u64>,
    ask_at: Time,
}

struct Passed {
    ticket: Ticket,
    what: What,
    received: Time,
    token: (u64, Time),
    /// The state by which it was let in here.
    version: u64,
    /// To whom it was sent.
    host: Option<Name>,
    channel: Option<ChannelId>,
    /// When it was sent last.
    since: Time,
    cancelled: bool,
    cancelled_on: Option<ChannelId>,
}

#[derive(Clone)]
enum What {
    Operation(Operation),
    Read {
        extent: Extent,
        buffer: BufferId,
        at: u32,
    },
    Flush,
}

impl Passed {
    const fn bytes(&self) -> u64 {
        match &self.what {
            What::Operation(operation) => operation.carried(),
            What::Read { extent, .. } => extent.len,
            What::Flush => 0,
        }
    }

    const fn is_write(&self) -> bool {
        matches!(self.what, What::Operation(_))
    }

    /// Answers it, with what it was given back.
    fn end(self, result: Result<(), Refusal>, turn: &mut Turn<'_>) {
        if let What::Operation(operation) = &self.what {
            Volume::release(operation, turn);
        }
        let result = match result {
            Err(_) if self.cancelled => Err(Refusal::Aborted),
            other => other,
        };
        turn.complete(self.ticket, result);
    }
}

impl Proxy {
    /// Whether commands are passed on.
    pub(super) const fn is_on(&self) -> bool {
        self.host.is_some()
    }

    /// Whether time must be looked at.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.sent.is_empty()
    }

    /// Commands that are not answered.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    /// A number that this run has not used for this volume. ▲ Also not before the volume was closed
    /// and opened again, as the replacement of a copy does: the host remembers what this run asked,
    /// and would answer a new write with what came of an old one. So the first number is the time in
    /// microseconds, which an earlier opening did not reach: that would take a command each.
    fn next_number(&mut self, now: Time) -> u64 {
        if self.last == 0 {
            self.last = u64::try_from(now.as_micros()).expect("the node has not run for ages");
        }
        self.last += 1;
        self.last
    }

    fn known_at(&self, time: Time) -> u64 {
        if time >= self.since {
            self.version
        } else {
            self.version.wrapping_sub(1)
        }
    }

    fn take_out(&mut self, id: u64) -> Option<Passed> {
        let passed = self.sent.remove(&id)?;
        self.bytes -= passed.bytes();
        Some(passed)
    }

    pub(super) fn lose_channel(&mut self, gone: ChannelId) {
        for passed in self.sent.values_mut() {
            passed.channel.take_if(|channel| *channel == gone);
            passed.cancelled_on.take_if(|channel| *channel == gone);
        }
    }
}

impl Volume {
    // ---- orders

    pub(super) fn pass_to(
        &mut self,
        host: Option<(Configuration, Incarnation)>,
        turn: &mut Turn<'_>,
    ) {
        let host = host.map(|(configuration, incarnation)| Name {
            epoch: configuration.epoch,
            lineage: super::orders::lineage(&configuration),
            incarnation,
        });
        if self.proxy.host == host {
            return;
        }
        self.leave_host(turn);
        if host.is_none() {
            return;
        }
        self.forget_guests(turn);
        // A target has forgotten its own, and may hold what the source sent for the join.
        if !matches!(self.stage, Stage::Target(_)) {
            self.forget_states(turn);
        }
        self.proxy.host = host;
        self.proxy.ask_at = turn.now;
        self.hand_to_proxy(turn);
    }

    /// No host any more. What may go elsewhere waits again.
    fn leave_host(&mut self, turn: &mut Turn<'_>) {
        let proxy = &mut self.proxy;
        if proxy.host.take().is_none() {
            return;
        }
        (proxy.version, proxy.since) = (0, Time::ZERO);
        proxy.kinds.clear();
        self.links.end_proxying();
        if core::mem::take(&mut proxy.told) {
            turn.tell(FromVolume::Proxying { up: false });
        }
        let again: Vec<u64> = self
            .proxy
            .sent
            .iter()
            .filter(|(_, passed)| !passed.is_write())
            .map(|(id, _)| *id)
            .collect();
        for id in again.into_iter().rev() {
            let passed = self.proxy.take_out(id).expect("listed just now");
            self.proxy.waiting.push_front(passed);
        }
    }

    /// What initiators sent while nobody served goes to the partner. What had a number, or was
    /// forwarded, was decided in the configuration before: its initiators ask again.
    fn hand_to_proxy(&mut self, turn: &mut Turn<'_>) {
        let own = |held: &Held| matches!(held.from, From::Here(_));
        for order in self.intake.orders(own) {
            let held = self.intake.take(order).expect("listed just now");
            self.unlock(order, turn);
            if let From::Here(ticket) = held.from {
                let what = What::Operation(held.operation);
                self.pass(ticket, what, (held.received, held.token), turn);
            }
        }
        let origin = (turn.now, self.tokens.at(turn.now));
        for (ticket, extent, buffer, at) in self.take_reads() {
            self.pass(ticket, What::Read { extent, buffer, at }, origin, turn);
        }
        for ticket in self.take_flushes() {
            self.pass(ticket, What::Flush, origin, turn);
        }
        self.refuse_forwards(Refusal::NotServed, turn);
        for ticket in core::mem::take(&mut self.inherited) {
            turn.complete(ticket, Err(Refusal::NotServed));
        }
        for running in self.running.values_mut() {
            if let Origin::Here(ticket) = &mut running.origin
                && let Some(ticket) = ticket.take()
            {
                turn.complete(ticket, Err(Refusal::NotServed));
            }
        }
    }

    /// This node serves, `together` with the partner or alone: what was not sent is its own affair
    /// now.
    pub(super) fn end_proxy(&mut self, together: bool, turn: &mut Turn<'_>) {
        if !self.proxy.is_on() && !self.proxy.is_busy() {
            return;
        }
        self.proxy.told = false;
        self.leave_host(turn);
        for passed in core::mem::take(&mut self.proxy.waiting) {
            match passed.what {
                What::Operation(operation) => {
                    let order = self.intake.next_order();
                    let held = Held {
                        from: From::Here(passed.ticket),
                        operation,
                        received: passed.received,
                        token: passed.token,
                    };
                    let sequences = self.sequences();
                    self.intake.put(order, held, sequences);
                }
                What::Read { extent, buffer, at } => {
                    self.take_read(passed.ticket, extent, buffer, at, turn);
                }
                What::Flush => self.take_flush(passed.ticket, turn),
            }
        }
        if together {
            // The host has answered, and taken back its word, before it let this node join; it
            // sequences nothing under the old configuration any more.
            self.proxy.bytes = 0;
            for (_, passed) in core::mem::take(&mut self.proxy.sent) {
                passed.end(Err(Refusal::Busy), turn);
            }
        }
    }

    /// The volume is gone: everything is answered.
    pub(super) fn refuse_passed_on(&mut self, turn: &mut Turn<'_>) {
        self.proxy.host = None;
        self.proxy.bytes = 0;
        let waiting = core::mem::take(&mut self.proxy.waiting).into_iter();
        for passed in waiting.chain(core::mem::take(&mut self.proxy.sent).into_values()) {
            passed.end(Err(Refusal::NotServed), turn);
        }
    }

    /// The disk failed, and nothing more is said to the owner: whether it sequences what was
    /// forwarded to it nobody will hear. So that is answered BUSY once it certainly has not, or has
    /// long since.
    pub(super) fn keep_forwards_open(&mut self, turn: &mut Turn<'_>) {
        for (ticket, operation, received, token, cancelled) in self.abandon_forwards(turn) {
            let id = self.proxy.next_number(turn.now);
            self.proxy.bytes += operation.carried();
            let passed = Passed {
                ticket,
                what: What::Operation(operation),
                received,
                token,
                version: 0,
                host: None,
                channel: None,
                since: turn.now,
                cancelled,
                cancelled_on: None,
            };
            self.proxy.sent.insert(id, passed);
        }
    }

    // ---- initiators' commands

    pub(super) fn pass_operation(
        &mut self,
        ticket: Ticket,
        operation: Operation,
        received: Time,
        turn: &mut Turn<'_>,
    ) {
        let token = self.tokens.at(received);
        self.pass(ticket, What::Operation(operation), (received, token), turn);
    }

    pub(super) fn pass_read(
        &mut self,
        ticket: Ticket,
        extent: Extent,
        buffer: BufferId,
        at: u32,
        turn: &mut Turn<'_>,
    ) {
        let origin = (turn.now, self.tokens.at(turn.now));
        self.pass(ticket, What::Read { extent, buffer, at }, origin, turn);
    }

    pub(super) fn pass_flush(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let origin = (turn.now, self.tokens.at(turn.now));
        self.pass(ticket, What::Flush, origin, turn);
    }

    fn pass(
        &mut self,
        ticket: Ticket,
        what: What,
        (received, token): (Time, (u64, Time)),
        turn: &mut Turn<'_>,
    ) {
        let passed = Passed {
            ticket,
            what,
            received,
            token,
            version: self.proxy.known_at(received),
            host: None,
            channel: None,
            since: turn.now,
            cancelled: false,
            cancelled_on: None,
        };
        if self.proxy.waiting.len() >= MAX_HELD {
            return passed.end(Err(Refusal::Busy), turn);
        }
        self.proxy.waiting.push_back(passed);
    }

    /// Whether the ticket was passed on. A write that was sent is answered with the host's word.
    pub(super) fn cancel_passed_on(&mut self, ticket: Ticket, turn: &mut Turn<'_>) -> bool {
        let named = |passed: &Passed| passed.ticket == ticket;
        if let Some(place) = self.proxy.waiting.iter().position(named) {
            let passed = self.proxy.waiting.remove(place).expect("found just now");
            passed.end(Err(Refusal::Aborted), turn);
            return true;
        }
        let found = self.proxy.sent.iter_mut().find(|(_, it)| named(it));
        let Some((id, passed)) = found else {
            return false;
        };
        let id = *id;
        if !passed.is_write() {
            let passed = self.proxy.take_out(id).expect("found just now");
            passed.end(Err(Refusal::Aborted), turn);
        } else if !core::mem::replace(&mut passed.cancelled, true) {
            self.send_cancel_passed(id, turn);
        }
        true
    }

    // ---- sending

    /// Asks for agreement, and sends what may go.
    pub(super) fn advance_proxy(&mut self, turn: &mut Turn<'_>) {
        let Some(host) = self.proxy.host else { return };
        if turn.now >= self.proxy.ask_at {
            self.proxy.ask_at = turn.now + ASK_EVERY;
            let before = turn.now.saturating_sub(REPEAT_AFTER);
            let late = self
                .proxy
                .sent
                .values()
                .filter(|passed| passed.since < before && passed.host == Some(host))
                .filter_map(|passed| passed.channel);
            let late: BTreeSet<ChannelId> = late.collect();
            let new = self.links.not_proxied(host.incarnation);
            for channel in new.into_iter().chain(late) {
                let lineage = host.lineage;
                self.say_to_host(channel, ProxyFrame::AskHost { lineage }, turn);
            }
        }
        while let Some(first) = self.proxy.waiting.front() {
            let bytes = first.bytes();
            let oldest = self.proxy.sent.keys().next().copied();
            let far = oldest.is_some_and(|oldest| self.proxy.last - oldest + 1 >= MAX_IN_FLIGHT);
            let full = self.proxy.sent.len() >= MAX_PASSED
                || self.proxy.bytes > 0 && self.proxy.bytes + bytes > MAX_PASSED_BYTES;
            if far || full || !self.links.any_proxied() {
                return;
            }
            let mut passed = self.proxy.waiting.pop_front().expect("looked at just now");
            match passed.what {
                What::Read { .. } => self.counts.proxied_reads += 1,
                What::Operation(_) => self.counts.proxied_writes += 1,
                What::Flush => {}
            }
            passed.host = Some(host);
            let id = self.proxy.next_number(turn.now);
            self.proxy.bytes += bytes;
            self.proxy.sent.insert(id, passed);
            self.send_passed(id, turn);
        }
    }

    fn say_to_host(&self, channel: ChannelId, frame: ProxyFrame, turn: &mut Turn<'_>) {
        if let Some(host) = self.proxy.host {
            self.push_frame_of(host.epoch, channel, frame.into(), turn);
        }
    }

    fn send_passed(&mut self, id: u64, turn: &mut Turn<'_>) {
        let channel = self.links.pick_proxied();
        let passed = self.proxy.sent.get_mut(&id).expect("it was just put there");
        passed.channel = channel;
        passed.since = turn.now;
        let Some(channel) = channel else { return };
        let version = passed.version;
        let frame = match passed.what.clone() {
            What::Operation(operation) => ProxyFrame::Pass {
                id,
                token: passed.token.0,
                version,
                operation,
            },
            What::Read { extent, .. } => ProxyFrame::PassRead {
                id,
                version,
                extent,
            },
            What::Flush => ProxyFrame::PassFlush { id, version },
        };
        self.say_to_host(channel, frame, turn);
    }

    fn send_cancel_passed(&mut self, id: u64, turn: &mut Turn<'_>) {
        let host = self.proxy.host;
        let Some(passed) = self.proxy.sent.get_mut(&id) else {
            return;
        };
        if host.is_none() || passed.host != host {
            return;
        }
        let channel = self.links.pick_proxied();
        passed.cancelled_on = channel;
        if let Some(channel) = channel {
            self.say_to_host(channel, ProxyFrame::PassCancel { id }, turn);
        }
    }

    /// Sends again what lost its channel.
    pub(super) fn resend_passed(&mut self, turn: &mut Turn<'_>) {
        let Some(host) = self.proxy.host else { return };
        if !self.links.any_proxied() {
            if core::mem::take(&mut self.proxy.told) {
                turn.tell(FromVolume::Proxying { up: false });
            }
            return;
        }
        for id in self.proxy.sent.keys().copied().collect::<Vec<_>>() {
            let passed = &self.proxy.sent[&id];
            if passed.host != Some(host) {
                continue;
            }
            let cancel = passed.cancelled && passed.cancelled_on.is_none();
            if passed.channel.is_none() {
                self.counts.resent += 1;
                self.send_passed(id, turn);
            }
            if cancel {
                self.send_cancel_passed(id, turn);
            }
        }
    }

    // ---- the host's words

    pub(super) fn proxy_frame(
        &mut self,
        channel: ChannelId,
        run: Incarnation,
        epoch: u64,
        frame: ProxyFrame,
        turn: &mut Turn<'_>,
    ) {
        let host = self.proxy.host;
        let host = host.filter(|host| host.epoch == epoch && host.incarnation == run);
        match (host, frame) {
            (Some(host), ProxyFrame::Host { lineage, version }) if lineage == host.lineage => {
                self.agreed(channel, version, turn);
            }
            (
                Some(_),
                ProxyFrame::HostState {
                    kind,
                    version,
                    bytes,
                },
            ) => self.take_host_state(kind, version, bytes, turn),
            (Some(host), ProxyFrame::AskGo { id }) => {
                let sent = self.proxy.sent.get(&id);
                let waits = sent.is_some_and(|it| it.host == Some(host) && !it.cancelled);
                let frame = match waits {
                    true => ProxyFrame::Go { id },
                    false => ProxyFrame::PassCancel { id },
                };
                self.say_to_host(channel, frame, turn);
            }
            (Some(host), ProxyFrame::Passed { id, result }) => {
                self.passed_came(host, id, result, turn);
            }
            (
                Some(_),
                ProxyFrame::Fetched {
                    id,
                    extent,
                    payload,
                },
            ) => self.fetched(id, extent, payload, turn),
            (None, ProxyFrame::Fetched { payload, .. }) => {
                self.counts.stale += 1;
                turn.release(payload.buffer);
            }
            _ => self.counts.stale += 1,
        }
    }

    /// The host takes commands on this channel. What it did not answer for long may have come to it
    /// before it did.
    fn agreed(&mut self, channel: ChannelId, version: u64, turn: &mut Turn<'_>) {
        self.links.set_proxied(channel);
        self.know_version(version, turn.now);
        if !core::mem::replace(&mut self.proxy.told, true) {
            turn.tell(FromVolume::Proxying { up: true });
        }
        let before = turn.now.saturating_sub(REPEAT_AFTER);
        for passed in self.proxy.sent.values_mut() {
            let late = passed.since < before;
            passed.channel.take_if(|on| late && *on == channel);
        }
        self.resend_passed(turn);
    }

    fn know_version(&mut self, version: u64, now: Time) {
        let proxy = &mut self.proxy;
        if version > proxy.version {
            (proxy.version, proxy.since) = (version, now);
        }
    }

    fn take_host_state(&mut self, kind: u16, version: u64, bytes: Box<[u8]>, turn: &mut Turn<'_>) {
        let proxy = &mut self.proxy;
        let newer = proxy.kinds.get(&kind).is_none_or(|known| *known < version);
        if newer {
            proxy.kinds.insert(kind, version);
            self.states.insert(kind, bytes.clone());
            turn.out.push(VolumeAction::State { kind, bytes });
        }
        self.know_version(version, turn.now);
    }

    fn passed_came(
        &mut self,
        host: Name,
        id: u64,
        result: Result<(), Refusal>,
        turn: &mut Turn<'_>,
    ) {
        let sent = self.proxy.sent.get(&id);
        let Some(passed) = sent.filter(|passed| passed.host == Some(host)) else {
            self.counts.stale += 1;
            return;
        };
        let blocks_missing = matches!(passed.what, What::Read { .. }) && result.is_ok();
        let passed = self.proxy.take_out(id).expect("looked at just now");
        if blocks_missing {
            self.counts.bad_frames += 1;
            return passed.end(Err(Refusal::Busy), turn);
        }
        passed.end(result, turn);
    }

    fn fetched(&mut self, id: u64, extent: Extent, payload: Payload, turn: &mut Turn<'_>) {
        let asked =
            |passed: &Passed| matches!(passed.what, What::Read { extent: of, .. } if of == extent);
        if self.proxy.sent.get(&id).is_some_and(asked) && payload.at == 0 {
            let passed = self.proxy.take_out(id).expect("looked at just now");
            turn.out.push(VolumeAction::Fetched {
                ticket: passed.ticket,
                buffer: payload.buffer,
            });
            passed.end(Ok(()), turn);
        } else {
            self.counts.stale += 1;
            turn.release(payload.buffer);
        }
    }

    /// The blocks of a read came and found no room here: the initiator asks again.
    pub(super) fn turn_fetched_away(
        &mut self,
        channel: ChannelId,
        fields: &Fields,
        turn: &mut Turn<'_>,
    ) {
        let id = fields.seq;
        let is_read = |passed: &Passed| !passed.is_write() && passed.channel == Some(channel);
        if self.proxy.sent.get(&id).is_some_and(is_read) {
            let passed = self.proxy.take_out(id).expect("looked at just now");
            passed.end(Err(Refusal::Busy), turn);
        }
    }

    // ---- time

    /// What was not sent in time is answered BUSY, or that nobody serves here if no channel leads to
    /// the host; what was sent is, once it is certain that the host does not sequence it any more. A
    /// cancelled one waits for the word of a host that there still is.
    pub(super) fn give_up_on_passed(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let (age, refusal) = match self.proxy.is_on() && !self.links.any_proxied() {
            true => (HOST_AGE, Refusal::NotServed),
            false => (DROP_AGE, Refusal::Busy),
        };
        for _ in 0..self.proxy.waiting.len() {
            let Some(passed) = self.proxy.waiting.pop_front() else {
                break;
            };
            if now > passed.received + age {
                self.counts.aged += 1;
                passed.end(Err(refusal), turn);
            } else {
                self.proxy.waiting.push_back(passed);
            }
        }
        let host = self.proxy.host;
        let over: Vec<u64> = self
            .proxy
            .sent
            .iter()
            .filter(|(_, passed)| passed.is_write() && certainly_expired(passed.token, now))
            .filter(|(_, passed)| !passed.cancelled || host.is_none() || passed.host != host)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            let passed = self.proxy.take_out(id).expect("listed just now");
            passed.end(Err(Refusal::Busy), turn);
        }
    }
}
