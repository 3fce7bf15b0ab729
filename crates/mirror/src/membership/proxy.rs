//! A node that is no member passes its initiators' commands to the partner, if that serves alone:
//! while its copy is brought up to date, and for as long as its disk has failed.

use super::report::Report;
use super::{Contact, Maintenance, Membership, Output, Role, Turn, Why};
use crate::control::{Configuration, Incarnation, Members, ToVolume};
use crate::decide::Plan;

/// To whom commands are passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proxy {
    /// As the data path was told.
    host: Option<(Configuration, Incarnation)>,
    /// The partner has agreed.
    up: bool,
    /// Initiators were served through this node in this run.
    shown: bool,
}

impl Membership {
    /// The data path says whether the partner takes commands.
    pub(super) fn proxying(&mut self, up: bool) {
        self.proxy.up = up && self.proxy.host.is_some();
        self.proxy.shown |= self.proxy.up;
    }

    /// This node serves: its data path passes nothing on any more.
    pub(super) fn served_here(&mut self) {
        self.proxy = Proxy {
            shown: true,
            ..Proxy::default()
        };
    }

    /// Whether initiators are served through this node by the partner.
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.proxy.up
    }

    /// Whether the partner says that it passes its initiators' commands to this node. One that is
    /// heard and says nothing of this volume has no copy that it could use, and does so too.
    #[must_use]
    pub fn partner_passes(&self) -> bool {
        let heard = matches!(self.contact, Contact::Heard { .. });
        self.current_view()
            .map_or(heard && self.settings.proxy, |it| it.proxies)
    }

    /// Whether initiators that were served through this node may be again, by the partner, in
    /// moments.
    #[must_use]
    pub fn awaits_host(&self) -> bool {
        let able = self.settings.proxy && self.proxy.shown && !self.proxy.up;
        let waits = match self.role {
            Role::Target { .. } => true,
            Role::Idle => matches!(
                self.why,
                Why::AwaitingSource | Why::Outdated | Why::DiskFailed | Why::Refused
            ),
            Role::Member | Role::Alone(_) => false,
        };
        let heard = matches!(self.contact, Contact::Heard { .. });
        able && waits && heard && self.stopping.is_none()
    }

    /// Tells the data path whom to pass commands to, if that changed.
    pub(super) fn look_at_proxy(&mut self, turn: &mut Turn<'_>) {
        let host = self.host(turn);
        if host != self.proxy.host {
            self.proxy.host = host;
            self.proxy.up = false;
            turn.out.push(Output::Order(ToVolume::Proxy { host }));
        }
    }

    fn host(&self, turn: &Turn<'_>) -> Option<(Configuration, Incarnation)> {
        let serves = matches!(self.role, Role::Member | Role::Alone(_));
        let leaves = self.maintenance != Maintenance::Off;
        let barred = serves || leaves || self.stopping.is_some() || self.durable.split_brain;
        if !self.settings.proxy || barred || !self.quiet() {
            return None;
        }
        let view = self.current_view()?;
        if let Some((configuration, incarnation)) = self.proxy.host
            && incarnation == view.incarnation()
            && self.goes_on(&view, &configuration)
        {
            return self.proxy.host;
        }
        let theirs = view.record.configuration;
        let partner = view.record.node;
        let alone = view.serving && view.settled && theirs.members == Members::only(partner);
        if !alone || view.record.split_brain || view.stopping {
            return None;
        }
        if self.refused.is_some() {
            // There is no copy here to compare it with. It serves its own initiators, and these
            // see the very same.
            let same = (view.record.size, view.record.block_size)
                == (self.settings.size, self.settings.block_size);
            return same.then_some((theirs, view.incarnation()));
        }
        // Never to a copy that is about to be found the older one.
        match self.plan(turn, &view) {
            Plan::Source { node, .. } if node == partner => Some((theirs, view.incarnation())),
            _ => None,
        }
    }

    /// The host still serves what it served when it was chosen, or this copy is joining it.
    fn goes_on(&self, view: &Report, configuration: &Configuration) -> bool {
        let same = view.record.configuration.lineage() == configuration.lineage();
        let joining = matches!(self.role, Role::Target { .. })
            && view.record.configuration.members.contains(self.settings.me);
        view.serving && (same || joining)
    }
}
