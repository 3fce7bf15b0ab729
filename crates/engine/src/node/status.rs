//! Everything that `lockstep status` shows.

use super::Node;
use crate::node_interface::{LinkStatus, NodeStatus, State};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use lockstep_mirror::control::{Time, VolumeId};

impl Node {
    /// Where a volume stands, if there is such a volume.
    #[must_use]
    pub fn state(&self, volume: VolumeId) -> Option<State> {
        self.volumes.get(&volume).map(|it| it.membership.state())
    }

    /// The state of this node as of now.
    #[must_use]
    pub fn status(&self, now: Time) -> NodeStatus {
        let links = self.links.iter().map(|(id, link)| LinkStatus {
            link: *id,
            path: link.path,
            established: link.works(),
            heard: link.heard.map(|at| now.saturating_sub(at)),
            round_trip: link.round_trip,
            since: link.proven.map(|at| now.saturating_sub(at)),
        });
        NodeStatus {
            node: self.settings.node,
            incarnation: self.settings.incarnation,
            partner: self.settings.partner,
            partner_heard: self.heart.heard.map(|at| now.saturating_sub(at)),
            partner_alive: self.heart.hears(),
            partner_wall: self.heart.partner_wall(now),
            links: links.collect(),
            lost: self
                .lost
                .iter()
                .map(|(path, at)| (*path, now.saturating_sub(*at)))
                .collect(),
            witness: self.witness.status(now),
            volumes: self
                .volumes
                .iter()
                .map(|(id, it)| (*id, it.membership.status(now)))
                .collect(),
            certificates: self.certificates.status(),
            pool: self.pool.status(),
            portals_open: self.portals_open,
            stopping: self.stop.is_some(),
            maintenance: self.maintenance_status(),
            problems: self.problems(now),
        }
    }

    fn problems(&self, now: Time) -> Vec<String> {
        let mut all = Vec::new();
        for (id, volume) in &self.volumes {
            let status = volume.membership.status(now);
            if status.alarm {
                all.push(format!("volume {:032x}: {}", id.0, status.detail));
            }
        }
        for (id, reason) in &self.unavailable {
            all.push(format!(
                "volume {:032x} cannot be opened here: {reason}",
                id.0
            ));
        }
        all.extend(self.pool.problem());
        all.extend(self.votes.problem());
        if let (Some(partner), false) = (self.settings.partner, self.heart.hears()) {
            let long = self
                .heart
                .heard
                .map_or_else(|| self.since_start(now), |at| now.saturating_sub(at));
            all.push(format!(
                "node {} is silent for {} s",
                partner.0,
                long.as_secs()
            ));
        }
        all.extend(self.certificates.problem(now));
        for (path, (why, _)) in &self.refused {
            all.push(format!("control link on path {path} refused: {why}"));
        }
        if let Some(permille) = self.heart.excessive_drift() {
            all.push(format!(
                "the partner's clock runs {permille}/1000 off this node's"
            ));
        }
        all.extend(self.heart.odd_clock(now).map(String::from));
        all
    }
}
