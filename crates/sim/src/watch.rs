//! What is said between a node's two machines, looked at from outside: who serves what, as the
//! checks need it.

use crate::context::Context;
use lockstep_engine::interface::{FromShard, ToShard};
use lockstep_mirror::control::{Configuration, FromVolume, ToVolume, Verified};

/// One node's data path, as its orders and reports describe it.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// What it was last told to serve, until it was told to stop.
    pub serving: Option<Configuration>,
    /// It has confirmed that.
    pub confirmed: bool,
    /// It is a resync target.
    pub following: bool,
    /// It is told to copy to the partner.
    pub copying: bool,
    /// It has said that the partner may join, and nothing undid it.
    pub join_ready: bool,
    /// The other node has agreed to serve its initiators.
    pub proxying: bool,
    /// All configurations that it was ever told to serve.
    pub served: Vec<Configuration>,
    /// What the last verification found, until somebody takes it.
    pub verified: Option<Verified>,
    /// It was told to compare everything.
    pub full_copies: u32,
}

impl Watch {
    /// A new run of the daemon begins: nothing is served.
    pub fn started(&mut self) {
        *self = Self {
            served: core::mem::take(&mut self.served),
            full_copies: self.full_copies,
            ..Self::default()
        };
    }

    /// Whether it may answer initiators without asking its partner.
    #[must_use]
    pub fn alone(&self) -> bool {
        self.serving
            .is_some_and(|configuration| configuration.members.count() == 1)
    }

    /// The node's control side tells the data path something.
    pub fn order(&mut self, ctx: &mut Context, host: usize, order: &ToShard) {
        let ToShard::Volume(_, order) = order else {
            return;
        };
        match order {
            ToVolume::Serve { configuration, .. } => self.serve(ctx, host, *configuration),
            ToVolume::Suspend => {
                ctx.count("suspended");
                self.serving = None;
            }
            ToVolume::Collect { everything, .. } => {
                ctx.count("resyncs");
                if *everything {
                    self.full_copies += 1;
                    ctx.count("full copies");
                }
            }
            ToVolume::Copy => self.copying = true,
            ToVolume::Alone => {
                self.copying = false;
                self.join_ready = false;
            }
            ToVolume::Follow { .. } => {
                self.serving = None;
                self.following = true;
            }
            ToVolume::Proxy { host } if host.is_some() => ctx.count("proxies"),
            ToVolume::Open { .. }
            | ToVolume::Proxy { .. }
            | ToVolume::Ask
            | ToVolume::Pace(_)
            | ToVolume::Verify { .. }
            | ToVolume::NoCopy
            | ToVolume::EndVerify
            | ToVolume::Lease { .. }
            | ToVolume::Drain { .. }
            | ToVolume::Close { .. } => {}
        }
    }

    /// The data path tells the control side something.
    pub fn report(&mut self, ctx: &mut Context, report: &FromShard) {
        let FromShard::Volume(_, report) = report else {
            return;
        };
        match report {
            FromVolume::Serving { epoch } => {
                self.confirmed |= self
                    .serving
                    .is_some_and(|configuration| configuration.epoch == *epoch);
            }
            FromVolume::JoinReady => self.join_ready = true,
            // From now on it answers nobody.
            FromVolume::Drained { .. } => self.serving = None,
            FromVolume::Proxying { up } => self.proxying = *up,
            FromVolume::Repaired { .. } => ctx.count("blocks repaired from the partner"),
            FromVolume::Unreadable { .. } => ctx.count("blocks that could not be read"),
            FromVolume::Differs { .. } => ctx.count("differences found"),
            FromVolume::Verified(found) => {
                ctx.count("verifications");
                self.verified = Some(*found);
            }
            FromVolume::Slow { begins: true, .. } => ctx.count("parts far slower than usual, told"),
            FromVolume::ResyncRestarted => ctx.count("resyncs that stood still, begun anew"),
            _ => {}
        }
    }

    fn serve(&mut self, ctx: &mut Context, host: usize, configuration: Configuration) {
        ctx.count(if configuration.members.count() == 1 {
            "serving alone"
        } else {
            "serving together"
        });
        if self
            .serving
            .is_some_and(|before| before.epoch > configuration.epoch)
        {
            ctx.violation(format!(
                "node {}: told to serve an older epoch: {configuration:?}",
                host + 1
            ));
        }
        if self.serving != Some(configuration) {
            self.confirmed = false;
        }
        self.serving = Some(configuration);
        self.following = false;
        self.copying = false;
        self.join_ready = false;
        self.proxying = false;
        if self.served.last() != Some(&configuration) {
            self.served.push(configuration);
        }
    }
}
