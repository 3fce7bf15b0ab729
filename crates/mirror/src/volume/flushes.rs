//! Flushes. With write-through whatever was answered is durable already; with write-back both
//! copies are flushed. A resync flushes both before the target joins.

use super::stage::{Role, Stage};
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{CacheMode, SlowPart, Time};
use crate::data_frame::DataFrame;
use crate::volume_action::{ChannelId, Refusal, Ticket};
use crate::volume_io::{Io, IoError, Value};
use alloc::vec::Vec;

pub(super) struct Flush {
    pub(super) purpose: Purpose,
    started: bool,
    here: bool,
    there: bool,
    pub(super) channel: Option<ChannelId>,
    pub(super) since: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// An initiator asked.
    Ticket(Ticket),
    /// Before intents are cleared.
    Clean,
    /// Before the target of a resync joins.
    Join,
}

impl Volume {
    pub(super) fn take_flush(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        match &self.stage {
            _ if self.proxy.is_on() => self.pass_flush(ticket, turn),
            Stage::Failed => turn.complete(ticket, Err(self.failure_refusal())),
            Stage::Target(_) | Stage::Closing(_) | Stage::Closed | Stage::New => {
                turn.complete(ticket, Err(Refusal::NotServed))
            }
            _ => self.add_flush(Purpose::Ticket(ticket), turn.now),
        }
    }

    pub(super) fn add_flush(&mut self, purpose: Purpose, now: Time) {
        let id = self.next_flush;
        self.next_flush += 1;
        self.flushes.insert(
            id,
            Flush {
                purpose,
                started: false,
                here: false,
                there: false,
                channel: None,
                since: now,
            },
        );
    }

    /// Starts or ends every flush for which that is possible.
    pub(super) fn start_flushes(&mut self, turn: &mut Turn<'_>) {
        if self.flushes.is_empty() || self.suspended {
            return;
        }
        for id in self.flushes.keys().copied().collect::<Vec<_>>() {
            let flush = &self.flushes[&id];
            match flush.purpose {
                Purpose::Ticket(_) if !self.serves(turn.now) => {}
                Purpose::Ticket(ticket) if !self.answers_from_memory() => {
                    self.flushes.remove(&id);
                    turn.complete(ticket, Ok(()));
                }
                _ if !flush.started => self.start_flush(id, turn),
                _ => self.end_flush(id, turn),
            }
        }
    }

    /// Only two members in write-back answer before the disk has it.
    pub(super) fn answers_from_memory(&self) -> bool {
        self.spec.cache == CacheMode::WriteBack
            && matches!(self.role(), Role::Owner | Role::Replica)
    }

    fn start_flush(&mut self, id: u64, turn: &mut Turn<'_>) {
        let channel = self.send(DataFrame::Flush { id }, turn);
        let flush = self.flushes.get_mut(&id).expect("looked at just now");
        flush.started = true;
        flush.since = turn.now;
        flush.channel = channel;
        self.start_io(Use::Flush(id), Io::Flush, turn);
    }

    pub(super) fn flushed_here(
        &mut self,
        id: u64,
        result: &Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        if result.is_err() {
            return self.fail(turn);
        }
        if let Some(flush) = self.flushes.get_mut(&id) {
            flush.here = true;
            let since = flush.since;
            self.took(SlowPart::Flush, since, turn);
        }
    }

    pub(super) fn flushed_there(&mut self, id: u64, turn: &mut Turn<'_>) {
        if let Some(flush) = self.flushes.get_mut(&id)
            && !core::mem::replace(&mut flush.there, true)
        {
            let since = flush.since;
            self.took(SlowPart::PartnerFlush, since, turn);
        }
    }

    fn end_flush(&mut self, id: u64, turn: &mut Turn<'_>) {
        let flush = &self.flushes[&id];
        if !(flush.here && flush.there) {
            return;
        }
        let purpose = flush.purpose;
        self.flushes.remove(&id);
        match purpose {
            Purpose::Ticket(ticket) => turn.complete(ticket, Ok(())),
            Purpose::Clean => self.flushed_to_clean(),
            Purpose::Join => self.flushed_to_join(turn),
        }
    }

    pub(super) fn flush_for_partner(&mut self, id: u64, channel: ChannelId, turn: &mut Turn<'_>) {
        self.start_io(Use::PartnerFlush { id, channel }, Io::Flush, turn);
    }

    pub(super) fn flushed_for_partner(
        &mut self,
        id: u64,
        channel: ChannelId,
        result: &Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        if result.is_err() {
            return self.fail(turn);
        }
        self.answer(Some(channel), DataFrame::Flushed { id }, turn);
    }

    /// Another configuration: initiators' flushes begin again under it, ours are forgotten.
    pub(super) fn restart_flushes(&mut self, now: Time) {
        for (_, flush) in core::mem::take(&mut self.flushes) {
            if let Purpose::Ticket(_) = flush.purpose {
                self.add_flush(flush.purpose, now);
            }
        }
    }

    pub(super) fn resend_flushes(&mut self, turn: &mut Turn<'_>) {
        let unsent: Vec<u64> = self
            .flushes
            .iter()
            .filter(|(_, flush)| flush.started && !flush.there && flush.channel.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in unsent {
            let channel = self.send(DataFrame::Flush { id }, turn);
            if let Some(flush) = self.flushes.get_mut(&id) {
                flush.channel = channel;
            }
        }
    }

    pub(super) fn late_flush(&self, before: Time) -> bool {
        self.flushes
            .values()
            .any(|flush| flush.started && !flush.there && flush.since < before)
    }

    pub(super) fn cancel_flush(&mut self, ticket: Ticket, turn: &mut Turn<'_>) -> bool {
        let Some(id) = self
            .flushes
            .iter()
            .find(|(_, flush)| flush.purpose == Purpose::Ticket(ticket))
            .map(|(id, _)| *id)
        else {
            return false;
        };
        self.flushes.remove(&id);
        turn.complete(ticket, Err(Refusal::Aborted));
        true
    }

    /// Takes the initiators' flushes out, to be done elsewhere.
    pub(super) fn take_flushes(&mut self) -> Vec<Ticket> {
        let of = |flush: &Flush| match flush.purpose {
            Purpose::Ticket(ticket) => Some(ticket),
            Purpose::Clean | Purpose::Join => None,
        };
        let tickets = self.flushes.values().filter_map(of).collect();
        self.flushes.retain(|_, flush| of(flush).is_none());
        tickets
    }

    pub(super) fn refuse_flushes(&mut self, refusal: Refusal, turn: &mut Turn<'_>) {
        for (_, flush) in core::mem::take(&mut self.flushes) {
            if let Purpose::Ticket(ticket) = flush.purpose {
                turn.complete(ticket, Err(refusal));
            }
        }
    }
}
