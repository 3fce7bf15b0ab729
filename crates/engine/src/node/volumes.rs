//! The volumes of this node: each has a membership that decides; what it decides is carried to
//! shard, disk and partner from here, and initiators are shown the right paths.

use super::told::told;
use super::votes::Questions;
use super::{Node, Turn};
use crate::interface::{ToShard, VolumeSettings};
use crate::node_interface::{NodeAction, Severity, VolumeReady};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use lockstep_mirror::control::{CacheMode, FromVolume, NodeId, Time, VolumeId};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::membership::report::Report;
use lockstep_mirror::membership::{self, Membership, Output};
use lockstep_mirror::superblock::{Found, Superblock};
use lockstep_scsi::interface::{AccessState, PortGroup};

/// An unchanged report is repeated this often: any message may be lost.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// "Transitioning" is said for no longer than this; initiators then take the path for dead. A node
/// that lacks a quorum by then sends them to the other one, which may have it.
const TRANSITION: Duration = Duration::from_secs(10);
/// And no longer than this by a node whose partner serves and does not take its initiators'
/// commands: there may be no way for data to it, but initiators have a path of their own.
const HOST_TRANSITION: Duration = Duration::from_secs(1);
/// What initiators have sent to a volume that is closed is committed within this time.
const CLOSE: Duration = Duration::from_secs(10);
/// Register messages in one frame: one a volume and phase.
const MAX_MESSAGES: usize = 512;

/// One volume.
pub(super) struct Volume {
    pub(super) membership: Membership,
    settings: VolumeSettings,
    last: Option<Report>,
    seq: u64,
    /// When the next report goes out even if nothing changed.
    pub(super) report_due: Time,
    groups: Vec<PortGroup>,
    servable: bool,
    /// Since when it is not served although it may be again in moments.
    passing_since: Option<Time>,
    /// Since when the partner serves and has not agreed to serve this node's initiators.
    awaiting_since: Option<Time>,
    /// The driver wants it closed.
    closing: bool,
}

impl Volume {
    pub(super) const fn is_replicated(&self) -> bool {
        self.settings.spec.partner.is_some()
    }

    /// Whether initiators may be served here now or soon enough to be kept. `states` comes first.
    fn servable(&self, now: Time) -> bool {
        let waited = self.passing_since.is_some_and(|at| now >= at + TRANSITION);
        let long = waited && self.membership.lacks_quorum() || self.lacks_host(now);
        self.membership.servable() && !long
    }

    /// Whether the host of this node's initiators cannot be reached.
    fn lacks_host(&self, now: Time) -> bool {
        self.awaiting_since
            .is_some_and(|at| now >= at + HOST_TRANSITION)
    }

    /// Access states of this node's and the partner's ports.
    fn states(&mut self, now: Time, me: NodeId, leaves: bool) -> (AccessState, AccessState) {
        let serving = self.membership.serving();
        // Of two that serve, initiators prefer the one that stays.
        let optimized = |leaves: bool| match leaves {
            true => AccessState::NonOptimized,
            false => AccessState::Optimized,
        };
        let both = serving.is_some_and(|it| it.count() == 2);
        let passes = serving.is_none() && self.membership.passes();
        if serving.is_some() || passes || !self.membership.servable() {
            self.passing_since = None;
        }
        match self.membership.awaits_host() {
            true => _ = self.awaiting_since.get_or_insert(now),
            false => self.awaiting_since = None,
        }
        let mine = if serving.is_some_and(|it| it.contains(me)) {
            optimized(leaves && both)
        } else if passes {
            AccessState::NonOptimized
        } else if self.membership.is_lazy() {
            // Only a command shows that an initiator needs this node. Whoever is refused sends
            // none, and one that reaches the other node as well prefers that.
            AccessState::NonOptimized
        } else if self.membership.servable()
            && !self.lacks_host(now)
            && now < *self.passing_since.get_or_insert(now) + TRANSITION
        {
            AccessState::Transitioning
        } else {
            AccessState::Unavailable
        };
        let theirs = match serving {
            Some(_) if both => optimized(self.membership.partner_leaves()),
            Some(_) if self.membership.partner_passes() => AccessState::NonOptimized,
            Some(_) => AccessState::Unavailable,
            None if passes || self.last_view_serves() => AccessState::Optimized,
            None if self.membership.is_lazy() => AccessState::Unavailable,
            None => mine,
        };
        (mine, theirs)
    }

    /// A target's, or an outdated node's, partner is the one that serves.
    const fn last_view_serves(&self) -> bool {
        self.membership.is_target()
    }
}

/// All port groups of a volume: group and relative port are node number × 256 + portal.
fn groups(node: NodeId, portals: u16, state: AccessState, into: &mut Vec<PortGroup>) {
    for portal in 0..portals {
        let number = u16::from(node.0) * 256 + portal;
        into.push(PortGroup {
            group: number,
            ports: alloc::vec![number],
            state,
        });
    }
}

impl Node {
    pub(super) fn volume_ready(&mut self, turn: &mut Turn<'_>, ready: VolumeReady) {
        let VolumeReady {
            settings,
            create,
            witness,
            superblocks,
        } = ready;
        let spec = settings.spec;
        self.unavailable.remove(&spec.id);
        let found = match Superblock::choose([&superblocks[0], &superblocks[1]]) {
            Ok(found) => found,
            Err(error) => {
                let why = format!("{error}");
                turn.event(Severity::Error, Some(spec.id), why.clone());
                return self.without_copy(turn, settings, why);
            }
        };
        let without = |it: &Volume| it.membership.is_without_copy() && !it.closing;
        if self.volumes.get(&spec.id).is_some_and(without) {
            // Its copy has come.
            self.volumes.remove(&spec.id);
            turn.order(ToShard::Detach(spec.id));
        }
        if self.volumes.contains_key(&spec.id) {
            turn.event(
                Severity::Warning,
                Some(spec.id),
                "the volume is attached already".into(),
            );
            return;
        }
        if matches!(found, Found::Valid { damaged: true, .. }) {
            let text = "one superblock slot was damaged; the other one serves, and the next write mends it";
            turn.event(Severity::Warning, Some(spec.id), text.into());
        }
        let mut control = self.settings_of(&settings);
        (control.create, control.witness) = (create, witness);
        let membership = Membership::new(control, found, self.votes.has(spec.id), self.started);
        self.add_volume(turn, settings, membership);
    }

    /// The copy of a volume cannot be used here. If there is another one, this node still has the
    /// volume, and passes its initiators' commands on.
    pub(super) fn without_copy(
        &mut self,
        turn: &mut Turn<'_>,
        settings: VolumeSettings,
        why: String,
    ) {
        let id = settings.spec.id;
        match self.volumes.get_mut(&id) {
            Some(known) if known.membership.is_without_copy() => {
                known.membership.lacks_copy(why);
                return;
            }
            None if settings.spec.partner.is_some() => {}
            _ => {
                self.unavailable.insert(id, why);
                return;
            }
        }
        let control = self.settings_of(&settings);
        let membership = Membership::without_copy(control, why, self.started);
        self.add_volume(turn, settings, membership);
    }

    fn settings_of(&self, settings: &VolumeSettings) -> membership::Settings {
        let spec = settings.spec;
        membership::Settings {
            volume: spec.id,
            me: spec.me,
            partner: spec.partner,
            incarnation: self.settings.incarnation,
            size: spec.size,
            block_size: spec.block_size,
            create: false,
            write_back: spec.cache == CacheMode::WriteBack,
            proxy: self.settings.proxy,
            witness: None,
            timing: self.settings.timing,
        }
    }

    fn add_volume(
        &mut self,
        turn: &mut Turn<'_>,
        settings: VolumeSettings,
        mut membership: Membership,
    ) {
        let id = settings.spec.id;
        membership.contact(self.heart.contact());
        membership.maintain(self.maintenance_of_volumes(turn.now));
        turn.order(ToShard::Attach(settings.clone().into()));
        turn.order(ToShard::Volume(id, membership.open()));
        let volume = Volume {
            membership,
            settings,
            last: None,
            seq: 0,
            report_due: turn.now,
            groups: Vec::new(),
            servable: false,
            passing_since: None,
            awaiting_since: None,
            closing: false,
        };
        self.volumes.insert(id, volume);
        turn.touched.insert(id);
    }

    pub(super) fn volume_gone(&mut self, turn: &mut Turn<'_>, id: VolumeId) {
        self.unavailable.remove(&id);
        self.votes.forget(id);
        self.witness.forget(turn, id);
        if self.volumes.remove(&id).is_some() {
            turn.order(ToShard::Detach(id));
        }
    }

    pub(super) fn close_volume(&mut self, turn: &mut Turn<'_>, id: VolumeId) {
        self.unavailable.remove(&id);
        match self.volumes.get_mut(&id) {
            Some(volume) => {
                volume.closing = true;
                volume.membership.stop(turn.now + CLOSE);
                turn.touched.insert(id);
            }
            None => turn.out.push(NodeAction::VolumeClosed { volume: id }),
        }
    }

    /// Lets go of volumes that are to be closed, once nothing of them is uncommitted here.
    pub(super) fn step_closing(&mut self, turn: &mut Turn<'_>) {
        let done =
            |(id, it): (&VolumeId, &Volume)| (it.closing && it.membership.stopped()).then_some(*id);
        let closed: Vec<VolumeId> = self.volumes.iter().filter_map(done).collect();
        for volume in closed {
            self.volumes.remove(&volume);
            turn.order(ToShard::Detach(volume));
            turn.out.push(NodeAction::VolumeClosed { volume });
        }
    }

    pub(super) fn superblock_written(&mut self, turn: &mut Turn<'_>, id: VolumeId, ok: bool) {
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.membership.superblock_written(ok);
            turn.touched.insert(id);
        }
    }

    pub(super) fn volume_said(&mut self, turn: &mut Turn<'_>, id: VolumeId, word: &FromVolume) {
        if let Some(volume) = self.volumes.get_mut(&id) {
            if let Some((severity, text)) = told(word, &volume.settings.spec) {
                turn.event(severity, Some(id), text);
            }
            volume.membership.volume_said(turn.now, word);
            turn.touched.insert(id);
        }
    }

    pub(super) fn report_in(&mut self, turn: &mut Turn<'_>, report: Report) {
        let id = report.record.volume;
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.membership.report_in(report);
            turn.touched.insert(id);
        }
    }

    /// Steps every volume that something happened to, and tells the partner what changed.
    pub(super) fn step_volumes(&mut self, turn: &mut Turn<'_>) {
        let touched: BTreeSet<_> = core::mem::take(&mut turn.touched);
        let mut asks = Questions::default();
        for id in touched {
            self.step_volume(turn, id);
            self.ask_acceptors(turn, id, &mut asks);
        }
        for chunk in asks.partner.chunks(MAX_MESSAGES) {
            self.send_all(turn, &ControlFrame::Register(chunk.to_vec()));
        }
        for chunk in asks.witness.chunks(MAX_MESSAGES) {
            self.witness
                .send(turn, &ControlFrame::Register(chunk.to_vec()));
        }
    }

    fn step_volume(&mut self, turn: &mut Turn<'_>, id: VolumeId) {
        let contact = self.heart.contact();
        let (vote, voting) = (self.votes.vote(id), self.votes.voting(id));
        let Some(volume) = self.volumes.get_mut(&id) else {
            return;
        };
        volume.membership.contact(contact);
        volume.membership.voting(voting);
        let mut out = Vec::new();
        let now = turn.now;
        volume.membership.step(&mut membership::Turn {
            now,
            vote,
            random: &mut self.random,
            out: &mut out,
        });
        for output in out {
            match output {
                Output::Order(order) => turn.order(ToShard::Volume(id, order)),
                Output::WriteSuperblock { slot, bytes } => {
                    turn.out.push(NodeAction::WriteSuperblock {
                        volume: id,
                        slot,
                        bytes,
                    });
                }
                Output::Forced(forced) => {
                    turn.out.push(NodeAction::Forced { volume: id, forced });
                }
                Output::Event { severity, text } => turn.event(severity, Some(id), text),
            }
        }
        self.show(turn, id);
        self.tell_partner(turn, id);
    }

    fn tell_partner(&mut self, turn: &mut Turn<'_>, id: VolumeId) {
        let vote = self.votes.vote(id);
        let Some(volume) = self.volumes.get_mut(&id).filter(|it| it.is_replicated()) else {
            return;
        };
        let Some(mut report) = volume.membership.report(vote) else {
            return;
        };
        if volume.last.as_ref() == Some(&report) && turn.now < volume.report_due {
            return;
        }
        volume.last = Some(report.clone());
        volume.seq += 1;
        volume.report_due = turn.now + REPORT_EVERY;
        report.seq = volume.seq;
        self.send_all(turn, &ControlFrame::Report(report));
    }

    /// Port groups, and an end to the sessions of a volume that is not served here any more.
    fn show(&mut self, turn: &mut Turn<'_>, id: VolumeId) {
        let (me, stopping) = (self.settings.node, self.stop.is_some());
        let leaves = self.maintenance.is_some();
        let Some(volume) = self.volumes.get_mut(&id) else {
            return;
        };
        let (mine, theirs) = volume.states(turn.now, me, leaves);
        let mut all = Vec::new();
        groups(me, self.settings.portals, mine, &mut all);
        if let Some(partner) = volume.settings.spec.partner {
            groups(partner, self.settings.partner_portals, theirs, &mut all);
        }
        if all != volume.groups {
            volume.groups.clone_from(&all);
            turn.order(ToShard::PortGroups(id, all));
        }
        let servable = volume.servable(turn.now);
        if volume.servable && !servable && !stopping {
            turn.order(ToShard::CloseSessions {
                target: volume.settings.target,
            });
        }
        volume.servable = servable;
    }

    /// The data portals are open while a volume is served here, and open only once this node
    /// knows that its pool configuration is the newest.
    pub(super) fn step_portals(&mut self, turn: &mut Turn<'_>) {
        let servable = self.stop.is_none()
            && !self.sends_away()
            && self.volumes.values().any(|it| it.servable(turn.now));
        let open = servable && (self.portals_open || self.config_is_settled());
        if open != self.portals_open {
            self.portals_open = open;
            turn.out.push(NodeAction::Portals { open });
        }
    }
}
