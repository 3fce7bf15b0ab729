//! Operations that are not sequenced yet: initiators' own, and the partner's forwards where this
//! node is the owner. They keep the time and the token with which they came.

use super::Volume;
use super::links::Asked;
use super::stage::{Role, Stage};
use super::turn::Turn;
use super::{DROP_AGE, owner};
use crate::control::Time;
use crate::operation::{Extent, Operation};
use crate::range_lock::RangeLock;
use crate::volume_action::{ChannelId, Refusal, Ticket};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// State operations are ordered among themselves: all of them lock this place past any volume.
const STATE_PLACE: Extent = Extent {
    offset: u64::MAX - 1,
    len: 1,
};

/// Most operations held before they are sequenced; more are answered BUSY. Sessions' command
/// windows bound them first, so this is a second fence.
pub(super) const MAX_HELD: usize = 16 << 10;

#[derive(Default)]
pub(super) struct Intake {
    held: BTreeMap<u64, Held>,
    /// Orders only the operations of a node that sequences.
    pub(super) lock: RangeLock,
    /// Hold their range, wait for room in the window.
    pub(super) runnable: BTreeSet<u64>,
    next: u64,
}

pub(super) struct Held {
    pub(super) from: From,
    pub(super) operation: Operation,
    pub(super) received: Time,
    /// The newest heartbeat token held at receipt, and when that token came.
    pub(super) token: (u64, Time),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum From {
    /// An initiator of this node.
    Here(Ticket),
    /// The partner forwarded it.
    Partner { id: u64, asked: Asked },
}

impl Intake {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn next_order(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.held.keys().next().copied()
    }

    pub(super) fn get(&self, order: u64) -> Option<&Held> {
        self.held.get(&order)
    }

    /// Puts one in its place; only a node that sequences locks.
    pub(super) fn put(&mut self, order: u64, held: Held, locking: bool) {
        if locking && self.lock.enter(order, lock_extent(&held.operation)) {
            self.runnable.insert(order);
        }
        self.held.insert(order, held);
    }

    /// Takes one out to be sequenced; its range stays locked.
    pub(super) fn take(&mut self, order: u64) -> Option<Held> {
        self.runnable.remove(&order);
        self.held.remove(&order)
    }

    /// Another role: whoever sequences locks the ranges of all that wait, in their order.
    pub(super) fn relock(&mut self, locking: bool) {
        self.lock.clear();
        self.runnable.clear();
        if locking {
            for (order, held) in &self.held {
                if self.lock.enter(*order, lock_extent(&held.operation)) {
                    self.runnable.insert(*order);
                }
            }
        }
    }

    pub(super) fn of_ticket(&self, ticket: Ticket) -> Option<u64> {
        self.held
            .iter()
            .find(|(_, held)| held.from == From::Here(ticket))
            .map(|(order, _)| *order)
    }

    pub(super) fn of_forward(&self, forward: u64) -> Option<u64> {
        self.held
            .iter()
            .find(|(_, held)| matches!(held.from, From::Partner { id, .. } if id == forward))
            .map(|(order, _)| *order)
    }

    /// This forward came once more, there.
    pub(super) fn forward_again(&mut self, forward: u64, channel: ChannelId) {
        for held in self.held.values_mut() {
            if let From::Partner { id, asked } = &mut held.from
                && *id == forward
            {
                asked.on(channel);
            }
        }
    }

    pub(super) fn orders(&self, want: impl Fn(&Held) -> bool) -> Vec<u64> {
        self.held
            .iter()
            .filter(|(_, held)| want(held))
            .map(|(order, _)| *order)
            .collect()
    }

    pub(super) fn waits_for_service(&self) -> bool {
        self.held
            .values()
            .any(|held| matches!(held.from, From::Here(ticket) if !ticket.is_guest()))
    }
}

pub(super) const fn lock_extent(operation: &Operation) -> Extent {
    match operation.extent() {
        Some(extent) => extent,
        None => STATE_PLACE,
    }
}

impl Volume {
    pub(super) fn take_in(
        &mut self,
        ticket: Ticket,
        operation: Operation,
        received: Time,
        turn: &mut Turn<'_>,
    ) {
        if self.proxy.is_on() {
            return self.pass_operation(ticket, operation, received, turn);
        }
        if let Some(refusal) = self.refuses(&operation) {
            Self::release(&operation, turn);
            turn.complete(ticket, Err(refusal));
            return;
        }
        let order = self.intake.next_order();
        let held = Held {
            from: From::Here(ticket),
            operation,
            received,
            token: self.tokens.at(received),
        };
        self.intake.put(order, held, self.sequences());
    }

    /// Whether this node gives operations their numbers.
    pub(super) fn sequences(&self) -> bool {
        matches!(self.role(), Role::Alone | Role::Owner)
    }

    pub(super) fn refuses(&self, operation: &Operation) -> Option<Refusal> {
        if let Some(extent) = operation.extent() {
            assert!(
                extent.len > 0 && extent.end() <= self.spec.size,
                "the SCSI layer checks every range"
            );
        }
        match &self.stage {
            Stage::Failed => Some(self.failure_refusal()),
            Stage::Target(_) | Stage::Closing(_) | Stage::Closed | Stage::New => {
                Some(Refusal::NotServed)
            }
            _ if matches!(operation, Operation::CompareAndWrite { .. }) => Some(Refusal::NotServed),
            _ if self.intake.len() >= MAX_HELD => Some(Refusal::Busy),
            _ => None,
        }
    }

    /// Drops one that is not sequenced, whoever sent it.
    pub(super) fn drop_held(&mut self, order: u64, refusal: Refusal, turn: &mut Turn<'_>) {
        let Some(held) = self.intake.take(order) else {
            return;
        };
        self.unlock(order, turn);
        Self::release(&held.operation, turn);
        match held.from {
            From::Here(ticket) => turn.complete(ticket, Err(refusal)),
            From::Partner { id, asked } => self.refuse_forward(id, asked, turn),
        }
    }

    /// Whether one that is not sequenced has become too old ever to be. With a single replica
    /// there is no other path on which the initiator could have gone on.
    pub(super) fn too_old(&self, held: &Held, now: Time) -> bool {
        match held.from {
            From::Here(ticket) if ticket.is_guest() => owner::token_expired(held.token.0, now),
            From::Here(_) => self.spec.partner.is_some() && now > held.received + DROP_AGE,
            From::Partner { .. } => owner::token_expired(held.token.0, now),
        }
    }

    pub(super) fn drop_aged(&mut self, turn: &mut Turn<'_>) {
        for order in self.intake.orders(|held| self.too_old(held, turn.now)) {
            self.counts.aged += 1;
            self.drop_held(order, Refusal::Busy, turn);
        }
    }

    pub(super) fn cancel_ticket(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        if let Some(order) = self.intake.of_ticket(ticket) {
            self.drop_held(order, Refusal::Aborted, turn);
        } else if !self.cancel_read(ticket, turn)
            && !self.cancel_flush(ticket, turn)
            && !self.cancel_passed_on(ticket, turn)
        {
            self.cancel_forwarded(ticket, turn);
        }
    }

    /// A range is free: those that waited for it go on.
    pub(super) fn unlock(&mut self, order: u64, turn: &mut Turn<'_>) {
        let mut granted = Vec::new();
        self.intake.lock.leave(order, &mut granted);
        for next in granted {
            if self.intake.get(next).is_some() {
                self.intake.runnable.insert(next);
            } else if !self.mend_granted(next, turn) && !self.look_granted(next, turn) {
                self.copy_granted(next, turn);
            }
        }
    }
}
