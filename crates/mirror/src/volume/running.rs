//! Operations that have a number, until both copies are known to hold them.

use super::links::Asked;
use super::stage::{Role, Stage};
use super::turn::Turn;
use super::{Use, Volume};
use crate::control::{SlowPart, Time};
use crate::data_frame::DataFrame;
use crate::frame::HEADER_LEN;
use crate::intents::Begin;
use crate::operation::{Extent, Operation};
use crate::volume_action::{ChannelId, Refusal, Ticket, VolumeAction};
use crate::volume_io::{Io, IoError, Value};
use alloc::vec::Vec;

pub(super) struct Running {
    pub(super) operation: Operation,
    pub(super) origin: Origin,
    /// Its place in the range lock, where this node sequences.
    pub(super) order: Option<u64>,
    pub(super) local: Local,
    /// The partner is known to hold it, or need not.
    pub(super) confirmed: bool,
    /// Owner: where it was sent last.
    pub(super) channel: Option<ChannelId>,
    /// Where the answer goes that it is applied here: of a replica, and of an owner to a forward.
    pub(super) reply: Asked,
    /// Replica: where the owner's word that it is committed is awaited.
    pub(super) asked: Option<ChannelId>,
    /// Owner: the replica wants to know there when it is committed.
    pub(super) tell: Asked,
    /// Its chunks are lent to a mirrored write.
    pub(super) lent: bool,
    /// Its regions count it.
    pub(super) begun: bool,
    /// Its buffers were given back: the data is here, and nobody will be sent it again.
    pub(super) released: bool,
    /// A State that the engine has got.
    pub(super) handed_over: bool,
    pub(super) since: Time,
    /// When the disk here was asked to write it.
    at_disk: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// An initiator of this node, until it is answered.
    Here(Option<Ticket>),
    /// A forward of the partner, at the owner.
    Forward(u64),
    /// The owner's or source's, at the replica or target.
    Partner,
    /// Of a resync, at the source: a copy (which step), or SCSI state for the target.
    Copy(Option<u64>),
    /// Blocks that one member could not read, or that differed, from the other one, at the owner.
    /// `here`: this node writes them as well.
    Mend { id: u64, here: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Local {
    /// Too many regions are set, or an overlapping operation is still being applied.
    Waiting,
    /// Its intents are being made durable.
    Intent,
    Applying,
    Done,
}

impl Running {
    pub(super) const fn new(
        operation: Operation,
        origin: Origin,
        order: Option<u64>,
        since: Time,
    ) -> Self {
        Self {
            operation,
            origin,
            order,
            local: Local::Waiting,
            confirmed: false,
            channel: None,
            reply: Asked::Nowhere,
            asked: None,
            tell: Asked::Nowhere,
            lent: false,
            begun: false,
            released: false,
            handed_over: false,
            since,
            at_disk: since,
        }
    }

    /// Gives its buffers back, once.
    pub(super) fn release(&mut self, turn: &mut Turn<'_>) {
        if !core::mem::replace(&mut self.released, true) {
            Volume::release(&self.operation, turn);
        }
    }

    /// Bytes that it took on its way to the partner.
    pub(super) fn weight(&self) -> u64 {
        match self.origin {
            Origin::Forward(_) => HEADER_LEN as u64,
            _ => weight(&self.operation),
        }
    }

    /// Whether it goes to the partner only once its intents are durable here.
    pub(super) const fn is_kept_back(&self) -> bool {
        self.lent && matches!(self.local, Local::Waiting | Local::Intent)
    }

    const fn is_write(&self) -> bool {
        matches!(self.operation, Operation::Write { .. })
    }

    pub(super) fn overlaps(&self, extent: Extent) -> bool {
        self.operation
            .extent()
            .is_some_and(|mine| mine.overlaps(extent))
    }
}

/// Bytes of a frame that carries this operation.
pub(super) fn weight(operation: &Operation) -> u64 {
    HEADER_LEN as u64 + operation.carried()
}

impl Volume {
    /// Starts applying an operation here, as soon as its intents are durable.
    pub(super) fn begin_apply(&mut self, seq: u64, turn: &mut Turn<'_>) {
        let force = matches!(self.stage, Stage::Settling(_));
        let needs_intents = self.spec.partner.is_some() && !matches!(self.role(), Role::Target);
        let running = self
            .running
            .get_mut(&seq)
            .expect("it was just inserted or looked at");
        // What the source of a resync copies it holds already, and so does who heals the other.
        if matches!(
            running.origin,
            Origin::Copy(_) | Origin::Mend { here: false, .. }
        ) {
            running.local = Local::Done;
            return;
        }
        let Some(extent) = running.operation.extent() else {
            return self.apply_state(seq, turn);
        };
        if needs_intents && !running.begun {
            match self.intents.begin(extent, force) {
                Begin::Ready => running.begun = true,
                Begin::Wait => {
                    running.begun = true;
                    running.local = Local::Intent;
                    self.awaiting_intent.insert(seq);
                    return;
                }
                Begin::Full => {
                    self.stalled.insert(seq);
                    return;
                }
            }
        }
        self.apply(seq, turn);
    }

    fn apply(&mut self, seq: u64, turn: &mut Turn<'_>) {
        // ▲ A target keeps no intents of its own. Had it this write before the source's are durable,
        // and both lost their power, nothing would say that the copies differ here.
        if self.running.get(&seq).is_some_and(|it| it.lent) {
            self.send_sequenced(seq, Asked::Nowhere, turn);
        }
        let through = self.writes_through();
        let running = self
            .running
            .get_mut(&seq)
            .expect("it was just inserted or looked at");
        running.local = Local::Applying;
        running.at_disk = turn.now;
        let io = match running.operation {
            Operation::Write {
                extent,
                payload,
                fua,
            } => Io::Write {
                offset: extent.offset,
                payload,
                durable: through || fua,
            },
            Operation::Zero { extent, fua } => Io::Zero {
                extent,
                durable: through || fua,
            },
            Operation::Discard { extent } => Io::Discard {
                extent,
                durable: through,
            },
            Operation::CompareAndWrite { .. } | Operation::State { .. } => {
                unreachable!("refused, and never on a disk")
            }
        };
        self.applying += 1;
        self.start_io(Use::Apply(seq), io, turn);
    }

    /// Write-back is for two members only: alone, and while a copy is made, writes go through.
    fn writes_through(&self) -> bool {
        !self.answers_from_memory()
    }

    /// SCSI state has no place on the disk: it is applied by handing it to the engine. The owner
    /// does that at the commit.
    fn apply_state(&mut self, seq: u64, turn: &mut Turn<'_>) {
        if matches!(self.role(), Role::Replica | Role::Target) {
            self.hand_over_state(seq, turn);
        }
        self.applied_well(seq, turn);
    }

    pub(super) fn hand_over_state(&mut self, seq: u64, turn: &mut Turn<'_>) {
        let Some(running) = self.running.get_mut(&seq) else {
            return;
        };
        if let (Operation::State { kind, bytes }, false) = (&running.operation, running.handed_over)
        {
            running.handed_over = !matches!(running.origin, Origin::Copy(_));
            if !running.handed_over {
                return;
            }
            let kind = *kind;
            self.states.insert(kind, bytes.clone());
            turn.out.push(VolumeAction::State {
                kind,
                bytes: bytes.clone(),
            });
            self.state_changed(kind, turn);
        }
    }

    pub(super) fn applied(
        &mut self,
        seq: u64,
        result: &Result<Value, IoError>,
        turn: &mut Turn<'_>,
    ) {
        self.applying -= 1;
        // What a resync writes here may use the disk up, and what has no data takes its own time.
        if let (Ok(_), Some(running)) = (result, self.running.get(&seq))
            && running.is_write()
            && self.role() != Role::Target
        {
            let since = running.at_disk;
            self.took(SlowPart::Write, since, turn);
        }
        match result {
            Ok(_) => self.applied_well(seq, turn),
            // Alone, a write that did not happen is this initiator's affair; with a partner or a
            // target it makes the copies differ.
            Err(error @ (IoError::NoSpace | IoError::Corrupt)) if self.is_quite_alone() => {
                let refusal = if *error == IoError::NoSpace {
                    Refusal::NoSpace
                } else {
                    Refusal::Failed
                };
                self.apply_refused(seq, refusal, turn);
            }
            Err(_) => self.fail(turn),
        }
    }

    fn is_quite_alone(&self) -> bool {
        matches!(&self.stage, Stage::Alone(alone) if alone.source.is_none())
    }

    fn apply_refused(&mut self, seq: u64, refusal: Refusal, turn: &mut Turn<'_>) {
        let Some(running) = self.running.get_mut(&seq) else {
            return;
        };
        running.local = Local::Done;
        if let Origin::Here(ticket) = &mut running.origin
            && let Some(ticket) = ticket.take()
        {
            turn.complete(ticket, Err(refusal));
        }
        self.finish(seq, turn);
    }

    fn applied_well(&mut self, seq: u64, turn: &mut Turn<'_>) {
        let replica = self.role() == Role::Replica;
        // It may have been dropped with its configuration.
        let Some(running) = self.running.get_mut(&seq) else {
            return;
        };
        running.local = Local::Done;
        // The data of these is not sent any more. Kept until the commit is known, they could use
        // up the pool, and word of the commit waits behind a frame for which there is no buffer.
        if replica || matches!(running.origin, Origin::Forward(_)) {
            running.release(turn);
        }
        self.say_applied(seq, turn);
        self.acknowledge_if_alone(seq, turn);
        self.apply_those_behind(turn);
        self.finish(seq, turn);
    }

    /// Tells the partner that an operation is applied here. Suspended in write-back it is not
    /// told: the flush that let this node go on alone may have missed it.
    pub(super) fn say_applied(&self, seq: u64, turn: &mut Turn<'_>) {
        if self.suspended && self.answers_from_memory() {
            return;
        }
        let Some(running) = self
            .running
            .get(&seq)
            .filter(|running| running.local == Local::Done)
        else {
            return;
        };
        let reply = running.reply;
        match (self.role(), running.origin) {
            (Role::Owner, Origin::Forward(_)) => self.reply(reply, DataFrame::Done { seq }, turn),
            (Role::Replica | Role::Target, _) => self.reply(reply, DataFrame::Stored { seq }, turn),
            _ => {}
        }
    }

    /// While a copy is made the target's acknowledgement is not waited for.
    pub(super) fn acknowledge_if_alone(&mut self, seq: u64, turn: &mut Turn<'_>) {
        let alone = self.role() == Role::Alone && !self.suspended;
        let Some(running) = self
            .running
            .get_mut(&seq)
            .filter(|running| alone && running.local == Local::Done)
        else {
            return;
        };
        if let Origin::Here(ticket) = &mut running.origin
            && let Some(ticket) = ticket.take()
        {
            turn.complete(ticket, Ok(()));
        }
        self.reads.stirred = true;
    }

    /// The partner holds it too, or need not.
    pub(super) fn confirm(&mut self, seq: u64, turn: &mut Turn<'_>) {
        if let Some(running) = self.running.get_mut(&seq) {
            if !core::mem::replace(&mut running.confirmed, true) {
                self.links.relieve(running.channel, running.weight());
                let (origin, since) = (running.origin, running.since);
                if running.is_write() && self.asks_partner(origin) {
                    self.took(SlowPart::Partner, since, turn);
                }
            }
            self.finish(seq, turn);
        }
    }

    /// Whether the word that the partner holds an operation is an answer to this node.
    const fn asks_partner(&self, origin: Origin) -> bool {
        match self.role() {
            Role::Owner => true,
            Role::Replica => matches!(origin, Origin::Here(_)),
            Role::Alone | Role::Target | Role::Out => false,
        }
    }

    /// Ends an operation that both copies hold: the commit.
    pub(super) fn finish(&mut self, seq: u64, turn: &mut Turn<'_>) {
        let Some(running) = self.running.get(&seq) else {
            return;
        };
        if running.local != Local::Done || !running.confirmed {
            return;
        }
        // The commit is held, and with it all that the operation keeps from going on.
        if self.suspended {
            return;
        }
        if matches!(self.role(), Role::Owner | Role::Alone) {
            self.hand_over_state(seq, turn);
        }
        let mut running = self.running.remove(&seq).expect("looked at just now");
        self.bytes_running -= running.operation.carried();
        self.reads.stirred = true;
        if let Some(extent) = running.operation.extent() {
            if running.begun {
                self.intents.end(extent, turn.now);
            }
            if running.lent {
                self.dirty.repay(extent);
            }
        }
        running.release(turn);
        if let Origin::Here(Some(ticket)) = running.origin {
            turn.complete(ticket, Ok(()));
        }
        let low = self.low();
        self.reply(running.tell, DataFrame::Committed { seq, low }, turn);
        if let Some(order) = running.order {
            self.unlock(order, turn);
        }
        match running.origin {
            Origin::Copy(Some(step)) => self.copied(step),
            Origin::Mend { id, .. } => self.mended(id, turn),
            _ => {}
        }
    }

    /// Every operation below this number is committed.
    pub(super) fn low(&self) -> u64 {
        self.running.keys().next().copied().unwrap_or(self.next_seq)
    }

    /// Intents became durable, or some were cleared: whoever waited for that goes on.
    pub(super) fn apply_intended(&mut self, turn: &mut Turn<'_>) {
        for seq in self.awaiting_intent.iter().copied().collect::<Vec<_>>() {
            let extent = self
                .running
                .get(&seq)
                .and_then(|running| running.operation.extent());
            if extent.is_none_or(|extent| self.intents.durable(extent)) {
                self.awaiting_intent.remove(&seq);
                if extent.is_some() {
                    self.apply(seq, turn);
                }
            }
        }
    }

    /// Drops everything that has a number, as another configuration or a failure demands.
    /// Writes that the disk already has cannot be called back: `applying` counts them.
    pub(super) fn drop_running(&mut self, refusal: Refusal, turn: &mut Turn<'_>) {
        for (_, mut running) in core::mem::take(&mut self.running) {
            running.release(turn);
            if let Origin::Here(Some(ticket)) = running.origin {
                turn.complete(ticket, Err(refusal));
            }
            if let (true, Some(extent)) = (running.lent, running.operation.extent()) {
                self.dirty.mark(extent);
                self.dirty.repay(extent);
            }
        }
        self.bytes_running = 0;
        self.awaiting_intent.clear();
        self.intents.end_all(turn.now);
    }
}
