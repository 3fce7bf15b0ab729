//! The replica's half of the write path: what the owner sequenced is applied in its order, each
//! number once, and acknowledged on the channel that brought it.

use super::links::Asked;
use super::running::{Local, Origin, Running, weight};
use super::stage::{Fresh, Question, Role, Stage};
use super::turn::Turn;
use super::{MAX_IN_FLIGHT, Volume};
use crate::control::Time;
use crate::data_frame::DataFrame;
use crate::operation::Operation;
use crate::volume_action::ChannelId;
use alloc::vec::Vec;

/// How long the owner's word about its last number lets reads go on here: as long as a lease.
const FRESH_FOR: Time = Time::from_millis(1500);

impl Volume {
    /// The owner or source sent an operation.
    pub(super) fn apply_for_partner(
        &mut self,
        seq: u64,
        operation: Operation,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        if !self.is_believable(seq) {
            self.counts.bad_frames += 1;
            return Self::release(&operation, turn);
        }
        if !self.received.insert(seq) {
            Self::release(&operation, turn);
            return self.acknowledge_again(seq, channel, turn);
        }
        self.take_numbered(
            seq,
            Running::new(operation, Origin::Partner, None, turn.now),
            channel,
            turn,
        );
    }

    /// The owner gave a forward its number.
    pub(super) fn granted(&mut self, seq: u64, id: u64, channel: ChannelId, turn: &mut Turn<'_>) {
        if self.received.contains(seq) {
            return self.acknowledge_again(seq, channel, turn);
        }
        if !self.is_believable(seq) || !self.forwards.contains_key(&id) {
            self.counts.bad_frames += 1;
            return;
        }
        let forwarded = self.forwards.remove(&id).expect("looked at just now");
        self.received.insert(seq);
        self.bytes_forwarded -= forwarded.operation.carried();
        self.links
            .relieve(forwarded.channel, weight(&forwarded.operation));
        let mut running = Running::new(
            forwarded.operation,
            Origin::Here(forwarded.ticket),
            None,
            turn.now,
        );
        running.asked = Some(channel);
        self.take_numbered(seq, running, channel, turn);
    }

    /// Whether an honest owner can be that far: what it runs ahead of is not answered yet. (A
    /// source gives numbers to operations that it does not send.) A wrong number here would make
    /// right ones look like duplicates.
    fn is_believable(&self, seq: u64) -> bool {
        self.role() == Role::Target || seq <= self.received.floor() + 2 * MAX_IN_FLIGHT
    }

    fn take_numbered(
        &mut self,
        seq: u64,
        mut running: Running,
        channel: ChannelId,
        turn: &mut Turn<'_>,
    ) {
        self.counts.replicated += 1;
        running.reply = Asked::On(channel);
        // A target serves nobody: nothing of it waits for the commit.
        running.confirmed = self.role() == Role::Target;
        self.spoil_reads(running.operation.extent());
        self.insert_at(seq, running);
        self.stalled.insert(seq);
        self.apply_those_behind(turn);
        self.reads.stirred = true;
    }

    fn acknowledge_again(&mut self, seq: u64, channel: ChannelId, turn: &mut Turn<'_>) {
        self.counts.duplicates += 1;
        if let Some(running) = self.running.get_mut(&seq) {
            running.reply.on(channel);
            self.say_applied(seq, turn);
        } else {
            self.answer(Some(channel), DataFrame::Stored { seq }, turn);
        }
    }

    /// Starts those that waited for an overlapping one before them, or for room among the intents.
    pub(super) fn apply_those_behind(&mut self, turn: &mut Turn<'_>) {
        for seq in self.stalled.iter().copied().collect::<Vec<_>>() {
            let Some(running) = self
                .running
                .get(&seq)
                .filter(|running| running.local == Local::Waiting)
            else {
                self.stalled.remove(&seq);
                continue;
            };
            let extent = super::intake::lock_extent(&running.operation);
            let behind = self.running.range(..seq).any(|(_, before)| {
                before.local != Local::Done
                    && super::intake::lock_extent(&before.operation).overlaps(extent)
            });
            if !behind {
                self.begin_apply(seq, turn);
                if self
                    .running
                    .get(&seq)
                    .is_none_or(|running| running.local != Local::Waiting)
                {
                    self.stalled.remove(&seq);
                }
            }
        }
    }

    /// The owner holds it too.
    pub(super) fn committed(&mut self, seq: u64, turn: &mut Turn<'_>) {
        self.confirm(seq, turn);
    }

    /// Every operation below this number is committed.
    pub(super) fn committed_below(&mut self, low: u64, turn: &mut Turn<'_>) {
        for seq in self
            .running
            .range(..low)
            .map(|(seq, _)| *seq)
            .collect::<Vec<_>>()
        {
            self.confirm(seq, turn);
        }
    }

    /// Asks the owner to say when an operation is committed, unless it will anyway.
    pub(super) fn ask_committed(&mut self, seq: u64, turn: &mut Turn<'_>) {
        let Some(running) = self.running.get(&seq) else {
            return;
        };
        if running.confirmed || running.asked.is_some() {
            return;
        }
        let channel = self.send(DataFrame::AskCommitted { seq }, turn);
        self.running
            .get_mut(&seq)
            .expect("looked at just now")
            .asked = channel;
    }

    /// Own operations whose channel died with the owner's word on it, asked for again.
    pub(super) fn ask_again(&mut self, turn: &mut Turn<'_>) {
        let lost: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, running)| {
                matches!(running.origin, Origin::Here(_)) && running.asked.is_none()
            })
            .map(|(seq, _)| *seq)
            .collect();
        for seq in lost {
            self.ask_committed(seq, turn);
        }
    }

    fn fresh_mut(&mut self) -> Option<&mut Fresh> {
        match &mut self.stage {
            Stage::Paired(paired) => Some(&mut paired.fresh),
            _ => None,
        }
    }

    /// Whether everything that the owner had sequenced a moment ago was received here. Asks in
    /// time before the answer runs out.
    pub(super) fn is_fresh(&mut self, turn: &mut Turn<'_>) -> bool {
        let received = self.received.floor();
        let Some(fresh) = self.fresh_mut() else {
            return false;
        };
        if let Some((seq, until)) = fresh.pending
            && received >= seq
        {
            fresh.until = fresh.until.max(until);
            fresh.pending = None;
        }
        let good = turn.now < fresh.until;
        // An answer that speaks of what has not come yet is waited for: asking again at once would
        // bring the same word, as fast as the network carries it.
        let known = fresh.pending.map_or(fresh.until, |(_, until)| until);
        if turn.now + FRESH_FOR / 2 >= known && fresh.asked.is_none() {
            self.ask_latest(turn);
        }
        good
    }

    fn ask_latest(&mut self, turn: &mut Turn<'_>) {
        let Some(fresh) = self.fresh_mut() else {
            return;
        };
        fresh.next += 1;
        let id = fresh.next;
        // On every channel: one of them may be stuck, and the first answer is as good as any.
        if self.tell_everywhere(&DataFrame::AskLatest { id }, turn)
            && let Some(fresh) = self.fresh_mut()
        {
            fresh.asked = Some(Question { id, at: turn.now });
        }
    }

    /// The owner's last number: it counts from when it was asked for.
    pub(super) fn latest(&mut self, id: u64, seq: u64) {
        let Some(fresh) = self.fresh_mut() else {
            return;
        };
        if let Some(question) = fresh.asked.take_if(|question| question.id == id) {
            fresh.pending = Some((seq, question.at + FRESH_FOR));
            self.reads.stirred = true;
        }
    }

    /// A channel died: the question is asked again.
    pub(super) fn forget_question(&mut self) {
        if let Some(fresh) = self.fresh_mut() {
            fresh.asked = None;
        }
        self.reads.stirred = true;
    }
}
