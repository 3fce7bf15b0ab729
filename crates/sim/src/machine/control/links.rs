//! The control links, to the partner and to the witness: made, read, and let go of when nothing
//! comes on them any more.

use super::in_force::WITNESS_PATH;
use super::{ControlEvent, Dialing, Machine, SILENCE, Wire};
use crate::context::Context;
use crate::network::{EndId, LinkId as WireId};
use lockstep_engine::node_interface::{LinkId, NodeEvent};

impl Machine {
    pub(in crate::machine) fn control_connected(
        &mut self,
        ctx: &mut Context,
        end: EndId,
        wire: WireId,
    ) {
        let path = self
            .control_links
            .iter()
            .position(|link| *link == wire)
            .expect("nodes use these links");
        let again = ctx.now;
        self.link_up(ctx, end, Dialing { path, again });
    }

    pub(in crate::machine) fn control_opened(&mut self, ctx: &mut Context, end: EndId) {
        match self.control().dials.remove(&end) {
            Some(dialing) => {
                self.forget_dials(ctx, dialing.path);
                self.link_up(ctx, end, dialing)
            }
            None => ctx.network.abort(ctx.now, end),
        }
    }

    pub(in crate::machine) fn control_refused(&mut self, ctx: &mut Context, end: EndId) {
        if let Some(Dialing { path, again }) = self.control().dials.remove(&end) {
            self.forget_dials(ctx, path);
            let pause = again.saturating_sub(ctx.now);
            self.control_soon(ctx, pause, ControlEvent::Dial(path));
        }
    }

    /// The first answer counts; all dials of a path end with it.
    fn forget_dials(&mut self, ctx: &mut Context, path: usize) {
        let dials = &mut self.control().dials;
        for (end, _) in dials.extract_if(.., |_, it| it.path == path) {
            ctx.network.abort(ctx.now, end);
        }
    }

    pub(super) fn renew_link(&mut self, ctx: &mut Context, link: u64) {
        let dials = self.host == 0;
        let Some(wire) = self.control().links.get_mut(&link).filter(|_| dials) else {
            return;
        };
        wire.renewed = true;
        let (path, pause) = (wire.path, wire.again.saturating_sub(ctx.now));
        ctx.count("links made beside old ones");
        self.control_soon(ctx, pause, ControlEvent::Dial(path));
    }

    fn link_up(&mut self, ctx: &mut Context, end: EndId, made: Dialing) {
        let Dialing { path, again } = made;
        let heard = ctx.now;
        let control = self.control();
        let link = control.next_link;
        control.next_link += 1;
        let wire = Wire {
            end,
            path,
            heard,
            again,
            renewed: false,
        };
        control.links.insert(link, wire);
        let link = LinkId(link);
        let event = match path {
            WITNESS_PATH => NodeEvent::WitnessUp { link },
            path => NodeEvent::LinkUp {
                link,
                path: u16::try_from(path).expect("few links"),
            },
        };
        self.tell(ctx, event);
        self.control_readable(ctx, end);
    }

    pub(in crate::machine) fn control_readable(&mut self, ctx: &mut Context, end: EndId) {
        let now = ctx.now;
        let Some(control) = self.process.as_mut().map(|process| &mut process.control) else {
            return;
        };
        let Some(link) = control.link_of(end) else {
            return;
        };
        let bytes = ctx.network.arrived(end).to_vec();
        if bytes.is_empty() {
            return;
        }
        ctx.network.take(end, bytes.len());
        control.links.get_mut(&link).expect("found just now").heard = now;
        self.tell(
            ctx,
            NodeEvent::LinkBytes {
                link: LinkId(link),
                bytes: &bytes,
            },
        );
    }

    pub(in crate::machine) fn control_closed(&mut self, ctx: &mut Context, end: EndId) {
        self.control_readable(ctx, end);
        let Some(process) = &self.process else { return };
        if let Some(link) = process.control.link_of(end) {
            self.drop_link(ctx, link);
        }
    }

    pub(super) fn drop_link(&mut self, ctx: &mut Context, link: u64) {
        let Some(wire) = self.control().links.remove(&link) else {
            return;
        };
        ctx.network.close(ctx.now, wire.end);
        if !wire.renewed && (self.host == 0 || wire.path == WITNESS_PATH) {
            let pause = wire.again.saturating_sub(ctx.now);
            self.control_soon(ctx, pause, ControlEvent::Dial(wire.path));
        }
        self.tell(ctx, NodeEvent::LinkDown { link: LinkId(link) });
    }

    pub(super) fn listen(&mut self, ctx: &mut Context) {
        let now = ctx.now;
        let silent = |(_, wire): &(&u64, &Wire)| wire.heard + SILENCE <= now;
        let silent: Vec<u64> = self
            .control()
            .links
            .iter()
            .filter(silent)
            .map(|(link, _)| *link)
            .collect();
        for link in silent {
            self.drop_link(ctx, link);
        }
        if self.process.is_some() {
            self.control_soon(ctx, SILENCE / 4, ControlEvent::Listen);
        }
    }

    /// What came while the process stood still.
    pub(in crate::machine) fn control_pump_all(&mut self, ctx: &mut Context) {
        let Some(process) = &self.process else { return };
        let ends: Vec<EndId> = process
            .control
            .links
            .values()
            .map(|wire| wire.end)
            .collect();
        for end in ends {
            self.control_readable(ctx, end);
        }
    }
}
