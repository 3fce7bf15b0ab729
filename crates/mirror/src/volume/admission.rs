//! Admission: an operation gets its number, or goes to the owner to get one.

use super::intake::{From, Held};
use super::links::Asked;
use super::running::{Local, Origin, Running};
use super::stage::Role;
use super::turn::Turn;
use super::{MAX_BYTES_IN_FLIGHT, MAX_IN_FLIGHT, Volume};
use crate::volume_action::Refusal;

impl Volume {
    /// Sequences or forwards whatever may go now.
    pub(super) fn admit(&mut self, turn: &mut Turn<'_>) {
        if self.intake.len() == 0 || !self.admits(turn.now) {
            return;
        }
        match self.role() {
            Role::Alone => self.sequence_all(turn),
            // Without a channel an operation could not be committed: it stays where its age counts.
            Role::Owner if self.links.any_ready() => self.sequence_all(turn),
            Role::Replica => self.forward_all(turn),
            _ => {}
        }
    }

    fn sequence_all(&mut self, turn: &mut Turn<'_>) {
        while let Some(order) = self.intake.runnable.first().copied() {
            let held = self.intake.get(order).expect("what is runnable is held");
            if !self.has_room(held.operation.carried()) {
                return;
            }
            if self.too_old(held, turn.now) {
                self.counts.aged += 1;
                self.drop_held(order, Refusal::Busy, turn);
                continue;
            }
            if !self.may_be_sequenced(order, turn) {
                continue;
            }
            let held = self.intake.take(order).expect("looked at just now");
            self.sequence(order, held, turn);
        }
    }

    /// The window, which bounds what is resent and what must be remembered.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let few = (self.running.len() as u64) < MAX_IN_FLIGHT;
        let small = self.bytes_running == 0 || self.bytes_running + bytes <= MAX_BYTES_IN_FLIGHT;
        // Alone, only what is sent to a target is bounded by what the target remembers.
        few && small && (self.role() == Role::Alone || self.may_send(self.next_seq))
    }

    /// Whether the receiver of this number still remembers the oldest unanswered one.
    pub(super) fn may_send(&self, seq: u64) -> bool {
        let oldest = self.running.keys().next().copied().unwrap_or(seq);
        seq - oldest < MAX_IN_FLIGHT
    }

    fn sequence(&mut self, order: u64, held: Held, turn: &mut Turn<'_>) {
        let (origin, asked) = match held.from {
            From::Here(ticket) => (Origin::Here(Some(ticket)), Asked::Nowhere),
            From::Partner { id, asked } => (Origin::Forward(id), asked),
        };
        let operation = held.operation;
        self.spoil_reads(operation.extent());
        let seq = self.insert(Running::new(operation, origin, Some(order), turn.now));
        self.counts.sequenced += 1;
        match self.role() {
            Role::Owner => self.send_sequenced(seq, asked, turn),
            _ => self.mirror_or_mark(seq),
        }
        self.begin_apply(seq, turn);
    }

    /// Gives the next number.
    pub(super) fn insert(&mut self, running: Running) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.insert_at(seq, running);
        seq
    }

    pub(super) fn insert_at(&mut self, seq: u64, running: Running) {
        self.bytes_running += running.operation.carried();
        assert!(
            running.local != Local::Done,
            "an operation starts unapplied"
        );
        let before = self.running.insert(seq, running);
        assert!(before.is_none(), "a number is given once");
    }
}
