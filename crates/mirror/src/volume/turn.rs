//! One event's time and the actions that it leads to.

use crate::control::{FromVolume, Time};
use crate::operation::BufferId;
use crate::volume_action::{Refusal, Ticket, VolumeAction};
use alloc::vec::Vec;

pub(super) struct Turn<'a> {
    pub(super) now: Time,
    pub(super) out: &'a mut Vec<VolumeAction>,
    /// Commands of the partner that have ended; it is told at the end of the turn.
    pub(super) answers: Vec<(Ticket, Result<(), Refusal>)>,
}

impl<'a> Turn<'a> {
    pub(super) const fn new(now: Time, out: &'a mut Vec<VolumeAction>) -> Self {
        Self {
            now,
            out,
            answers: Vec::new(),
        }
    }
}

impl Turn<'_> {
    pub(super) fn tell(&mut self, word: FromVolume) {
        self.out.push(VolumeAction::Tell(word));
    }

    pub(super) fn complete(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        if ticket.is_guest() {
            self.answers.push((ticket, result));
        } else {
            self.out.push(VolumeAction::Complete { ticket, result });
        }
    }

    pub(super) fn release(&mut self, buffer: BufferId) {
        self.out.push(VolumeAction::Release { buffer });
    }
}
