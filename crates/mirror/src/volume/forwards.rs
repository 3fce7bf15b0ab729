//! What this member forwarded to the owner and has no answer for. Everything about the operation
//! is kept until then: a grant may come long after the initiator was told BUSY.

use super::intake::{From, Held};
use super::running::weight;
use super::turn::Turn;
use super::{DROP_AGE, MAX_BYTES_IN_FLIGHT, MAX_IN_FLIGHT, Volume};
use crate::control::Time;
use crate::data_frame::DataFrame;
use crate::operation::Operation;
use crate::volume_action::{ChannelId, Refusal, Ticket};
use alloc::vec::Vec;

pub(super) struct Forwarded {
    pub(super) operation: Operation,
    /// Until it is answered.
    pub(super) ticket: Option<Ticket>,
    order: u64,
    received: Time,
    token: (u64, Time),
    pub(super) since: Time,
    /// Where it was sent last.
    pub(super) channel: Option<ChannelId>,
    cancelled: bool,
    /// Where the cancellation was sent last.
    pub(super) cancelled_on: Option<ChannelId>,
}

/// A forward that nobody is told of any more: its ticket, what it was, when it was received and with
/// which token, and whether its initiator gave up.
type Abandoned = (Ticket, Operation, Time, (u64, Time), bool);

/// From when on a token is expired on the owner's clock for certain, though that runs 5 % slower
/// than standard and ours 5 % faster.
pub(super) fn certainly_expired(token: (u64, Time), now: Time) -> bool {
    now > token.1 + DROP_AGE * 28 / 25
}

impl Volume {
    pub(super) fn forward_all(&mut self, turn: &mut Turn<'_>) {
        while let Some(order) = self.intake.first() {
            let held = self.intake.get(order).expect("it is the first");
            if self.too_old(held, turn.now) {
                self.counts.aged += 1;
                self.drop_held(order, Refusal::Busy, turn);
                continue;
            }
            let oldest = self
                .forwards
                .keys()
                .next()
                .copied()
                .unwrap_or(self.next_forward);
            let bytes = held.operation.carried();
            let full = self.next_forward - oldest >= MAX_IN_FLIGHT
                || (self.bytes_forwarded > 0 && self.bytes_forwarded + bytes > MAX_BYTES_IN_FLIGHT);
            if full || !self.links.any_ready() {
                return;
            }
            let held = self.intake.take(order).expect("looked at just now");
            self.forward(order, held, turn);
        }
    }

    fn forward(&mut self, order: u64, held: Held, turn: &mut Turn<'_>) {
        let From::Here(ticket) = held.from else {
            unreachable!("only an owner takes forwards")
        };
        let id = self.next_forward;
        self.next_forward += 1;
        self.counts.forwarded += 1;
        self.bytes_forwarded += held.operation.carried();
        let Held {
            operation,
            received,
            token,
            ..
        } = held;
        let forwarded = Forwarded {
            operation,
            ticket: Some(ticket),
            order,
            received,
            token,
            since: turn.now,
            channel: None,
            cancelled: false,
            cancelled_on: None,
        };
        self.forwards.insert(id, forwarded);
        self.send_forward(id, turn);
    }

    fn send_forward(&mut self, id: u64, turn: &mut Turn<'_>) {
        let forwarded = &self.forwards[&id];
        let frame = DataFrame::Forward {
            id,
            token: forwarded.token.0,
            operation: forwarded.operation.clone(),
        };
        let weight = weight(&forwarded.operation);
        let channel = self.send(frame, turn);
        self.links.charge(channel, weight);
        self.forwards
            .get_mut(&id)
            .expect("looked at just now")
            .channel = channel;
    }

    fn send_cancel(&mut self, id: u64, turn: &mut Turn<'_>) {
        let channel = self.send(DataFrame::Cancel { id }, turn);
        self.forwards
            .get_mut(&id)
            .expect("looked at just now")
            .cancelled_on = channel;
    }

    pub(super) fn resend_forwards(&mut self, turn: &mut Turn<'_>) {
        for id in self.forwards.keys().copied().collect::<Vec<_>>() {
            if self.forwards[&id].channel.is_none() {
                self.counts.resent += 1;
                self.send_forward(id, turn);
            }
            if self.forwards[&id].cancelled && self.forwards[&id].cancelled_on.is_none() {
                self.send_cancel(id, turn);
            }
        }
    }

    /// The owner will never sequence it.
    pub(super) fn refused(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(forwarded) = self.forwards.remove(&id) else {
            return;
        };
        self.bytes_forwarded -= forwarded.operation.carried();
        self.links
            .relieve(forwarded.channel, weight(&forwarded.operation));
        Self::release(&forwarded.operation, turn);
        if let Some(ticket) = forwarded.ticket {
            let refusal = if forwarded.cancelled {
                Refusal::Aborted
            } else {
                Refusal::Busy
            };
            turn.complete(ticket, Err(refusal));
        }
    }

    /// Only the owner knows whether it is sequenced: it is asked, and its word is the answer.
    pub(super) fn cancel_forwarded(&mut self, ticket: Ticket, turn: &mut Turn<'_>) {
        let found = self
            .forwards
            .iter_mut()
            .find(|(_, forwarded)| forwarded.ticket == Some(ticket));
        if let Some((id, forwarded)) = found
            && !forwarded.cancelled
        {
            forwarded.cancelled = true;
            let id = *id;
            self.send_cancel(id, turn);
        }
    }

    /// Those whose token the owner cannot accept any more are answered BUSY. A grant that is
    /// under way is still obeyed. One that was cancelled waits for the owner's word.
    pub(super) fn give_up_on_forwards(&mut self, turn: &mut Turn<'_>) {
        for forwarded in self.forwards.values_mut() {
            if !forwarded.cancelled
                && certainly_expired(forwarded.token, turn.now)
                && let Some(ticket) = forwarded.ticket.take()
            {
                turn.complete(ticket, Err(Refusal::Busy));
            }
        }
    }

    /// Another configuration: those that were not granted never will be under the old one, and
    /// go back with the time and token that they came with.
    pub(super) fn take_back_forwards(&mut self, turn: &mut Turn<'_>) {
        self.bytes_forwarded = 0;
        for (_, forwarded) in core::mem::take(&mut self.forwards) {
            match forwarded.ticket {
                Some(ticket) if !forwarded.cancelled => {
                    let Forwarded {
                        operation,
                        received,
                        token,
                        ..
                    } = forwarded;
                    self.intake.put(
                        forwarded.order,
                        Held {
                            from: From::Here(ticket),
                            operation,
                            received,
                            token,
                        },
                        false,
                    );
                }
                ticket => {
                    Self::release(&forwarded.operation, turn);
                    if let Some(ticket) = ticket {
                        turn.complete(ticket, Err(Refusal::Aborted));
                    }
                }
            }
        }
    }

    /// Takes out all that their initiators still wait for; nothing is sent about them any more.
    pub(super) fn abandon_forwards(&mut self, turn: &mut Turn<'_>) -> Vec<Abandoned> {
        self.bytes_forwarded = 0;
        let mut abandoned = Vec::new();
        for (_, forwarded) in core::mem::take(&mut self.forwards) {
            let Forwarded {
                operation,
                received,
                token,
                cancelled,
                ..
            } = forwarded;
            match forwarded.ticket {
                Some(ticket) => abandoned.push((ticket, operation, received, token, cancelled)),
                None => Self::release(&operation, turn),
            }
        }
        abandoned
    }

    pub(super) fn refuse_forwards(&mut self, refusal: Refusal, turn: &mut Turn<'_>) {
        self.bytes_forwarded = 0;
        for (_, forwarded) in core::mem::take(&mut self.forwards) {
            Self::release(&forwarded.operation, turn);
            if let Some(ticket) = forwarded.ticket {
                turn.complete(ticket, Err(refusal));
            }
        }
    }
}
