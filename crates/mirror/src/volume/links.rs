//! The data channels. Nothing but `Ready` is sent or accepted on one before both sides said on it
//! that they are in the same configuration and attempt: what an older one left in a socket is
//! refused by its receiver, and what a newer one sends early is never sent.
//!
//! Frames are spread over all channels that are ready, and overtake each other: operations carry
//! numbers, and whoever receives them needs no other order.

use super::Volume;
use super::stage::Stage;
use super::turn::Turn;
use crate::control::{FromVolume, Incarnation};
use crate::data_frame::DataFrame;
use crate::volume_action::{ChannelId, VolumeAction};
use alloc::vec::Vec;

/// The channel in use is kept until so many more bytes are unanswered on it than on the emptiest
/// one: what small operations want sent in one turn leaves in one send, and large payloads spread.
const KEPT_AHEAD: u64 = 64 << 10;

#[derive(Default)]
pub(super) struct Links {
    all: Vec<Link>,
    /// Where the last frame went that asks for an answer.
    last: Option<ChannelId>,
}

struct Link {
    channel: ChannelId,
    incarnation: Incarnation,
    ready: bool,
    /// Proxy and host agreed on it.
    proxied: bool,
    /// Bytes of operations that were sent on it and not answered.
    load: u64,
}

/// On which channels a question came. It is asked again on another channel when the one died at
/// the asker, and what was under way on the dead one may come after that: ▲ so what was asked on
/// more than one is answered on all of them, for the one that came last may be the dead one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Asked {
    #[default]
    Nowhere,
    On(ChannelId),
    Repeatedly,
}

impl Asked {
    pub(super) fn on(&mut self, channel: ChannelId) {
        *self = match *self {
            Self::Nowhere => Self::On(channel),
            Self::On(before) if before == channel => *self,
            Self::On(_) | Self::Repeatedly => Self::Repeatedly,
        };
    }

    fn gone(&mut self, channel: ChannelId) {
        if *self == Self::On(channel) {
            *self = Self::Nowhere;
        }
    }
}

impl Links {
    fn find(&mut self, channel: ChannelId) -> Option<&mut Link> {
        self.all.iter_mut().find(|link| link.channel == channel)
    }

    pub(super) fn is_ready(&self, channel: ChannelId) -> bool {
        self.all
            .iter()
            .any(|link| link.channel == channel && link.ready)
    }

    pub(super) fn any_ready(&self) -> bool {
        self.all.iter().any(|link| link.ready)
    }

    /// Where the next question goes: the channel with the fewest unanswered bytes, or the last one
    /// while it has hardly more.
    pub(super) fn pick(&mut self) -> Option<ChannelId> {
        let ready = || self.all.iter().filter(|link| link.ready);
        let emptiest = ready().min_by_key(|link| link.load)?;
        let kept = ready().find(|link| Some(link.channel) == self.last);
        let link = kept
            .filter(|link| link.load <= emptiest.load + KEPT_AHEAD)
            .unwrap_or(emptiest);
        self.last = Some(link.channel);
        self.last
    }

    /// So many bytes were sent there.
    pub(super) fn charge(&mut self, channel: Option<ChannelId>, bytes: u64) {
        if let Some(link) = channel.and_then(|channel| self.find(channel)) {
            link.load += bytes;
        }
    }

    /// They are answered.
    pub(super) fn relieve(&mut self, channel: Option<ChannelId>, bytes: u64) {
        if let Some(link) = channel.and_then(|channel| self.find(channel)) {
            link.load = link.load.saturating_sub(bytes);
        }
    }

    /// Another configuration: nothing is agreed on any more.
    pub(super) fn forget(&mut self) {
        for link in &mut self.all {
            link.ready = false;
            link.load = 0;
        }
    }

    pub(super) fn is_proxied(&self, channel: ChannelId) -> bool {
        self.all
            .iter()
            .any(|link| link.channel == channel && link.proxied)
    }

    /// Whether there is a channel to that run of the partner.
    pub(super) fn reaches(&self, run: Incarnation) -> bool {
        self.all.iter().any(|link| link.incarnation == run)
    }

    pub(super) fn any_proxied(&self) -> bool {
        self.all.iter().any(|link| link.proxied)
    }

    pub(super) fn all_proxied(&self) -> bool {
        self.all.iter().all(|link| link.proxied)
    }

    /// Channels on which proxy and host agreed.
    pub(super) fn proxied(&self) -> Vec<ChannelId> {
        let agreed = self.all.iter().filter(|link| link.proxied);
        agreed.map(|link| link.channel).collect()
    }

    /// Channels to that run of the partner on which they did not agree yet.
    pub(super) fn not_proxied(&self, run: Incarnation) -> Vec<ChannelId> {
        let asked = |link: &&Link| !link.proxied && link.incarnation == run;
        let links = self.all.iter().filter(asked);
        links.map(|link| link.channel).collect()
    }

    pub(super) fn set_proxied(&mut self, channel: ChannelId) {
        if let Some(link) = self.find(channel) {
            link.proxied = true;
        }
    }

    pub(super) fn end_proxying(&mut self) {
        for link in &mut self.all {
            link.proxied = false;
        }
    }

    /// The channel with the fewest unanswered bytes on which proxy and host agreed.
    pub(super) fn pick_proxied(&self) -> Option<ChannelId> {
        let agreed = self.all.iter().filter(|link| link.proxied);
        let emptiest = agreed.min_by_key(|link| link.load);
        emptiest.map(|link| link.channel)
    }

    pub(super) fn incarnation(&self, channel: ChannelId) -> Option<Incarnation> {
        self.all
            .iter()
            .find(|link| link.channel == channel)
            .map(|link| link.incarnation)
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (
            self.all.len(),
            self.all.iter().filter(|link| link.ready).count(),
        )
    }
}

impl Volume {
    /// Which attempt this side is in, if it is in a configuration with the partner at all.
    pub(super) fn attempt(&self) -> Option<u64> {
        match &self.stage {
            Stage::Paired(_) => Some(0),
            Stage::Alone(alone) => alone.source.as_ref().map(|source| source.attempt),
            Stage::Target(target) => target.quiet.then_some(target.attempt),
            _ => None,
        }
    }

    pub(super) fn link_up(
        &mut self,
        channel: ChannelId,
        incarnation: Incarnation,
        turn: &mut Turn<'_>,
    ) {
        assert!(
            self.links.find(channel).is_none(),
            "a channel's name is never used again"
        );
        self.links.all.push(Link {
            channel,
            incarnation,
            ready: false,
            proxied: false,
            load: 0,
        });
        if self.links.all.len() == 1 {
            turn.tell(FromVolume::Channel { up: true });
        }
        self.say_ready(channel, false, turn);
    }

    pub(super) fn link_down(&mut self, channel: ChannelId, turn: &mut Turn<'_>) {
        if self.links.find(channel).is_none() {
            return;
        }
        self.links.all.retain(|link| link.channel != channel);
        if self.links.all.is_empty() {
            turn.tell(FromVolume::Channel { up: false });
        }
        self.lose_channel(channel);
        self.proxy.lose_channel(channel);
        self.resend(turn);
        self.resend_passed(turn);
        self.drop_unasserted(turn);
    }

    /// Whatever was sent on a channel and not answered has none now.
    fn lose_channel(&mut self, channel: ChannelId) {
        if let Some(link) = self.links.find(channel) {
            link.load = 0;
        }
        let gone = |on: &mut Option<ChannelId>| {
            on.take_if(|on| *on == channel);
        };
        for running in self.running.values_mut() {
            gone(&mut running.channel);
            gone(&mut running.asked);
            running.tell.gone(channel);
            running.reply.gone(channel);
        }
        for forwarded in self.forwards.values_mut() {
            gone(&mut forwarded.channel);
            gone(&mut forwarded.cancelled_on);
        }
        for flush in self.flushes.values_mut() {
            gone(&mut flush.channel);
        }
        if let Some(source) = self.source_mut() {
            source.channel_gone(channel);
        }
        self.mends.channel_gone(channel);
        if let Some(verification) = &mut self.verification {
            verification.channel_gone(channel);
        }
        self.forget_question();
    }

    /// Everything that waits for an answer and has no channel is sent again.
    pub(super) fn resend(&mut self, turn: &mut Turn<'_>) {
        if !self.links.any_ready() {
            return;
        }
        match &self.stage {
            Stage::Paired(paired) if paired.owner => self.resend_sequenced(turn),
            Stage::Paired(_) => {
                self.resend_forwards(turn);
                self.ask_again(turn);
            }
            Stage::Alone(_) => {
                self.resend_sequenced(turn);
                self.resend_steps(turn);
            }
            _ => {}
        }
        self.resend_flushes(turn);
        self.ask_for_mends(turn);
        self.send_looks(turn);
    }

    /// Says on a channel which configuration this side is in.
    pub(super) fn say_ready(&self, channel: ChannelId, answer: bool, turn: &mut Turn<'_>) {
        if let Some(attempt) = self.attempt()
            && self.links.incarnation(channel) == self.partner_incarnation
        {
            let frame = DataFrame::Ready {
                answer,
                lineage: self.lineage,
                attempt,
            };
            self.push_frame(channel, frame, turn);
        }
    }

    /// Says it on every channel: a new configuration or attempt begins.
    pub(super) fn say_ready_everywhere(&self, turn: &mut Turn<'_>) {
        for channel in self
            .links
            .all
            .iter()
            .map(|link| link.channel)
            .collect::<Vec<_>>()
        {
            self.say_ready(channel, false, turn);
        }
    }

    /// The partner said which configuration it is in, if it is this one.
    pub(super) fn ready_came(
        &mut self,
        channel: ChannelId,
        answer: bool,
        attempt: u64,
        turn: &mut Turn<'_>,
    ) {
        self.follow_attempt(attempt, turn);
        let Some(mine) = self.attempt() else { return };
        if attempt == mine {
            if let Some(link) = self.links.find(channel) {
                link.ready = true;
            }
            if !answer {
                self.say_ready(channel, true, turn);
            }
            self.reads.stirred = true;
            self.resend(turn);
        } else if !answer && self.source().is_some() {
            // A target that came late to this attempt, or began it anew: what was sent on this
            // channel it has dropped.
            if let Some(link) = self.links.find(channel) {
                link.ready = false;
            }
            self.lose_channel(channel);
            self.say_ready(channel, false, turn);
            self.resend(turn);
        }
    }

    /// Sends on any channel that is ready. `None`: there is none, it is sent once there is.
    pub(super) fn send(&mut self, frame: DataFrame, turn: &mut Turn<'_>) -> Option<ChannelId> {
        let channel = self.links.pick()?;
        self.push_frame(channel, frame, turn);
        Some(channel)
    }

    /// Answers on the channel that brought the question. If it died meanwhile, whoever asked
    /// asks again on another.
    pub(super) fn answer(&self, channel: Option<ChannelId>, frame: DataFrame, turn: &mut Turn<'_>) {
        if let Some(channel) = channel.filter(|channel| self.links.is_ready(*channel)) {
            self.push_frame(channel, frame, turn);
        }
    }

    /// As [`Self::answer`], wherever it was asked.
    pub(super) fn reply(&self, asked: Asked, frame: DataFrame, turn: &mut Turn<'_>) {
        match asked {
            Asked::Nowhere => {}
            Asked::On(channel) => self.answer(Some(channel), frame, turn),
            Asked::Repeatedly => {
                self.tell_everywhere(&frame, turn);
            }
        }
    }

    /// Sends the same on every channel that is ready; `false`: there is none.
    pub(super) fn tell_everywhere(&self, frame: &DataFrame, turn: &mut Turn<'_>) -> bool {
        let ready = self.links.all.iter().filter(|link| link.ready);
        for link in ready {
            self.push_frame(link.channel, frame.clone(), turn);
        }
        self.links.any_ready()
    }

    pub(super) fn push_frame(&self, channel: ChannelId, frame: DataFrame, turn: &mut Turn<'_>) {
        self.push_frame_of(self.epoch, channel, frame, turn);
    }

    pub(super) fn push_frame_of(
        &self,
        epoch: u64,
        channel: ChannelId,
        frame: DataFrame,
        turn: &mut Turn<'_>,
    ) {
        let (fields, body) = frame.encode(&self.spec, epoch);
        turn.out.push(VolumeAction::Send {
            channel,
            fields,
            body,
        });
    }
}
