//! One node's control side: links to the partner, heartbeats and leases, the register, the
//! membership of every volume, the pool configuration. Pure, as a `Shard` is: `handle` takes an
//! event and appends actions. Whatever happened, the same look at all facts follows it.

mod certificate;
mod heart;
mod initiators;
mod links;
mod maintenance;
mod orders;
mod pool;
mod status;
#[cfg(test)]
mod tests;
mod told;
mod volumes;
mod votes;
mod witness;

use crate::interface::{FromShard, ToShard};
use crate::node_interface::{LinkId, NodeAction, NodeEvent, NodeSettings, Severity};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use certificate::Certificates;
use core::time::Duration;
use heart::Heart;
use links::Link;
use lockstep_mirror::control::{Time, VolumeId};
use lockstep_mirror::control_frame::ControlFrame;
use lockstep_mirror::hello::Random;
use maintenance::Leaving;
use orders::Stop;
use pool::Pool;
pub use pool::document_in_force;
use volumes::Volume;
use votes::Votes;
use witness::Witness;

/// The control side of one node.
pub struct Node {
    settings: NodeSettings,
    random: Random,
    started: Time,
    links: BTreeMap<LinkId, Link>,
    heart: Heart,
    certificates: Certificates,
    votes: Votes,
    witness: Witness,
    volumes: BTreeMap<VolumeId, Volume>,
    pool: Pool,
    portals_open: bool,
    stop: Option<Stop>,
    maintenance: Option<Leaving>,
    /// What keeps a partner from being believed, by path; forgotten when a link is established.
    refused: BTreeMap<u16, (String, Time)>,
    unavailable: BTreeMap<VolumeId, String>,
    /// Paths that fell silent, by when something last came on them.
    silent: BTreeMap<u16, Time>,
    /// Paths without a link, by when the last one ended.
    lost: BTreeMap<u16, Time>,
}

impl core::fmt::Debug for Node {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node")
            .field("node", &self.settings.node)
            .finish_non_exhaustive()
    }
}

/// What one `handle` works on.
struct Turn<'a> {
    now: Time,
    out: &'a mut Vec<NodeAction>,
    /// Volumes that something happened to.
    touched: BTreeSet<VolumeId>,
}

impl Turn<'_> {
    fn event(&mut self, severity: Severity, volume: Option<VolumeId>, text: String) {
        self.out.push(NodeAction::Event {
            text,
            severity,
            volume,
        });
    }

    fn order(&mut self, order: ToShard) {
        self.out.push(NodeAction::Order(order));
    }
}

impl Node {
    /// A node that has just started. `seed`: 32 random bytes.
    ///
    /// # Panics
    /// If the times of the settings do not fit each other (`Timing::check`).
    #[must_use]
    pub fn new(settings: NodeSettings, seed: [u8; 32], now: Time) -> Self {
        settings
            .timing
            .check()
            .expect("the configuration's times were checked");
        Self {
            random: Random::new(seed),
            started: now,
            links: BTreeMap::new(),
            heart: Heart::new(now),
            certificates: Certificates::default(),
            votes: Votes::new(settings.acceptor.as_deref()),
            witness: Witness::default(),
            volumes: BTreeMap::new(),
            pool: Pool::new(settings.pool.as_deref()),
            portals_open: false,
            stop: None,
            maintenance: settings.maintenance.then(Leaving::at_start),
            refused: BTreeMap::new(),
            unavailable: BTreeMap::new(),
            silent: BTreeMap::new(),
            lost: BTreeMap::new(),
            settings,
        }
    }

    /// Something happened; what is to be done about it is appended to `actions`.
    pub fn handle(&mut self, now: Time, event: NodeEvent<'_>, actions: &mut Vec<NodeAction>) {
        let turn = &mut Turn {
            now,
            out: actions,
            touched: BTreeSet::new(),
        };
        self.notice_time(turn);
        match event {
            NodeEvent::LinkUp { link, path } => self.link_up(turn, link, path),
            NodeEvent::WitnessUp { link } => self.witness_up(turn, link),
            NodeEvent::WitnessSecret(secret) => self.witness_secret(turn, secret),
            NodeEvent::Witness { volume, witness } => self.witness_for(turn, volume, witness),
            NodeEvent::LinkDown { link } => {
                self.link_down(turn, link);
                self.witness.down(link);
            }
            NodeEvent::LinkBytes { link, bytes } if self.witness.is(link) => {
                self.witness_bytes(turn, link, bytes)
            }
            NodeEvent::LinkBytes { link, bytes } => self.link_bytes(turn, link, bytes),
            NodeEvent::VolumeReady(ready) => self.volume_ready(turn, *ready),
            NodeEvent::VolumeUnavailable {
                volume,
                reason,
                settings,
            } => {
                turn.event(
                    Severity::Error,
                    Some(volume),
                    alloc::format!("volume cannot be opened here: {reason}"),
                );
                match settings {
                    Some(settings) => self.without_copy(turn, *settings, reason),
                    None => {
                        self.unavailable.insert(volume, reason);
                    }
                }
            }
            NodeEvent::CloseVolume { volume } => self.close_volume(turn, volume),
            NodeEvent::VolumeGone { volume } => self.volume_gone(turn, volume),
            NodeEvent::SuperblockWritten { volume, ok } => {
                self.superblock_written(turn, volume, ok)
            }
            NodeEvent::AcceptorWritten { ok } => self.acceptor_written(turn, ok),
            NodeEvent::ConfigStored { ok } => self.config_stored(turn, ok),
            NodeEvent::ProposeConfig { document } => self.propose_config(turn, document),
            NodeEvent::AskInitiators { number, volume } => self.ask_partner(turn, number, volume),
            NodeEvent::InitiatorsFound {
                link,
                number,
                found,
            } => self.tell_initiators(turn, link, number, found),
            NodeEvent::Portals { own, partner } => {
                (self.settings.portals, self.settings.partner_portals) = (own, partner);
            }
            NodeEvent::Stamp { oldest, wall } => {
                (self.heart.stamp, self.heart.wall) = (oldest, wall);
            }
            NodeEvent::Shard(FromShard::Volume(volume, word)) => {
                self.volume_said(turn, volume, &word)
            }
            NodeEvent::Shard(FromShard::LoggedOut) => self.logged_out(),
            NodeEvent::Shard(FromShard::Sessions(_) | FromShard::Note(_)) => {}
            NodeEvent::Stop => self.begin_stop(turn),
            NodeEvent::Operator(order) => self.operator(turn, &order),
            NodeEvent::Tick => {}
        }
        self.look(turn);
    }

    /// When `handle` wants to be called at the latest, with `Tick` if nothing else happened.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        Some(self.heart.deadline(&self.settings.timing))
    }

    /// Looks at everything that may go on.
    fn look(&mut self, turn: &mut Turn<'_>) {
        self.expire_links(turn);
        self.look_at_certificate(turn);
        self.witness.expire(turn);
        let due = self.next_deadline().is_some_and(|at| turn.now >= at);
        if turn.now >= self.heart.next_beat {
            self.beat(turn);
            self.beat_witness(turn);
        }
        let changed = self.look_at_contact(turn);
        if due || changed {
            turn.touched.extend(self.volumes.keys().copied());
        }
        self.step_maintenance(turn);
        self.step_volumes(turn);
        self.step_closing(turn);
        self.step_votes(turn);
        self.step_pool(turn);
        self.step_portals(turn);
        self.step_stop(turn);
    }

    /// Sends a frame on every established link: any of them may fail at any moment.
    fn send_all(&mut self, turn: &mut Turn<'_>, frame: &ControlFrame) {
        for (id, link) in &mut self.links {
            link.send(*id, frame, turn);
        }
    }

    /// Whether the partner counts as alive.
    #[must_use]
    pub const fn hears_partner(&self) -> bool {
        self.heart.hears()
    }

    fn has_partner(&self) -> bool {
        self.settings.partner.is_some()
    }

    fn since_start(&self, now: Time) -> Duration {
        now.saturating_sub(self.started)
    }
}
