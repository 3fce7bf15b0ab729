//! What `Node` and the control plane tell a shard, and the dialling of data connections.

use super::partner::{MAX_CHANNELS, Partner, Stage, head};
use super::{HANDSHAKE, Kind, PartnerSettings, REDIAL, Shard};
use crate::counters::PathCounters;
use crate::interface::{Action, Body, FromShard, ToShard};
use alloc::vec::Vec;
use lockstep_iscsi::interface::{ConnId, TargetId};
use lockstep_mirror::control::{Time, ToVolume};
use lockstep_mirror::hello::{Hello, Purpose, Side};
use lockstep_mirror::volume_action::ChannelId;

impl Shard {
    pub(super) fn order(&mut self, now: Time, order: ToShard, actions: &mut Vec<Action>) {
        match order {
            ToShard::Settings(settings) => {
                self.settings = (*settings).clone();
                self.session(|endpoint, out| endpoint.configure(now, *settings, out));
            }
            ToShard::Attach(settings) => self.attach(now, *settings),
            ToShard::Detach(id) => self.detach(now, id),
            ToShard::Volume(id, order) => {
                // None: an order that crossed the volume's detaching.
                if let Some(volume) = self.volume_index(id.0) {
                    let ask = matches!(order, ToVolume::Suspend | ToVolume::Ask);
                    self.mirror(volume, |mirror, out| mirror.order(now, order, out));
                    if ask {
                        let target = TargetId(self.volumes[volume].settings.target);
                        self.session(|endpoint, out| endpoint.ping_target(now, target, out));
                    }
                }
            }
            ToShard::Token { token, received } => {
                self.token = Some((token, received));
                for slot in self.volumes.iter_mut().filter(|slot| slot.live) {
                    slot.mirror.token(token, received);
                }
            }
            ToShard::PortGroups(id, groups) => {
                if let Some(volume) = self.volume_index(id.0) {
                    self.volumes[volume].disk.set_port_groups(groups);
                }
            }
            ToShard::Partner {
                node,
                me,
                incarnation,
                addresses,
                connections,
                dial,
                secret,
                cluster,
            } => {
                self.partner = Some(PartnerSettings {
                    node,
                    me,
                    incarnation,
                    secret: secret.into_vec(),
                    cluster,
                    addresses,
                    dial,
                });
                self.paths
                    .resize(usize::from(addresses), PathCounters::default());
                let dials = u32::from(addresses) * u32::from(connections);
                self.dials = (0..if dial { dials } else { 0 })
                    .map(|number| (number, now))
                    .collect();
                self.dial_again(now, actions);
            }
            ToShard::PathSilent { path, since } => self.path_silent(path, since, actions),
            ToShard::LogoutAll { by } => {
                if self.nexuses.is_empty() {
                    actions.push(Action::Report(FromShard::LoggedOut));
                } else {
                    self.logging_out = true;
                    self.session(|endpoint, out| endpoint.logout_all(now, by, out));
                }
            }
            ToShard::Welcome => {
                self.logging_out = false;
                self.session(|endpoint, _| endpoint.welcome());
            }
            ToShard::CloseSessions { target } => {
                self.session(|endpoint, out| endpoint.drop_sessions(now, TargetId(target), out));
            }
            ToShard::Sessions => {
                actions.push(Action::Report(FromShard::Sessions(self.session_list())))
            }
        }
    }

    /// Begins the handshake of a new data connection, or `None` when it is not wanted.
    pub(super) fn greet(
        &mut self,
        now: Time,
        conn: ConnId,
        path: u16,
        dial: Option<u32>,
        actions: &mut Vec<Action>,
    ) -> Option<Partner> {
        let nonce = self.nonce();
        let open = self
            .connections
            .iter()
            .flatten()
            .filter(|c| matches!(c.kind, Kind::Partner(_)))
            .count();
        let partner = self.partner.as_ref().filter(|_| open < MAX_CHANNELS)?;
        let me = Side {
            node: partner.me,
            incarnation: partner.incarnation,
            cluster: partner.cluster,
            purpose: Purpose::Data,
        };
        let hello = Hello::new(me, partner.node, &partner.secret, nonce);
        actions.push(Action::Send {
            conn,
            head: head(&hello.first()),
            body: Body::None,
        });
        let channel = ChannelId(self.next_channel);
        self.next_channel += 1;
        Some(Partner {
            stage: Stage::Hello(hello),
            channel,
            seals: None,
            incarnation: None,
            path,
            heard: now,
            dial,
            until: Some(now + HANDSHAKE),
            starved: None,
        })
    }

    /// Ends handshakes that the other side does not finish: a partner that vanished must not use
    /// up the connections that its next run needs.
    pub(super) fn end_stale_handshakes(&mut self, now: Time, actions: &mut Vec<Action>) {
        for connection in self.connections.iter_mut().flatten() {
            let Kind::Partner(partner) = &connection.kind else {
                continue;
            };
            if !connection.closing && partner.until.is_some_and(|until| until <= now) {
                connection.closing = true;
                actions.push(Action::Close {
                    conn: connection.id,
                });
            }
        }
    }

    /// When the next handshake is due to be finished.
    pub(super) fn handshake_deadline(&self) -> Option<Time> {
        let open = self
            .connections
            .iter()
            .flatten()
            .filter(|connection| !connection.closing);
        open.filter_map(|connection| match &connection.kind {
            Kind::Partner(partner) => partner.until,
            Kind::Initiator => None,
        })
        .min()
    }

    /// Dials again after a pause, if dialling is this node's part.
    pub(super) fn redial(&mut self, now: Time, dial: u32) {
        if self.partner.as_ref().is_some_and(|partner| partner.dial) {
            self.dials.insert(dial, now + REDIAL);
        }
    }

    pub(super) fn dial_again(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((&dial, _)) = self.dials.iter().find(|&(_, &due)| due <= now) {
            self.dials.remove(&dial);
            let address = self.path_of(dial);
            actions.push(Action::Dial { dial, address });
        }
    }

    /// The path over which a connection with this number goes: neighbours go over different ones,
    /// so that each has its first before any has its second.
    pub(super) fn path_of(&self, dial: u32) -> u16 {
        let addresses = self.partner.as_ref().map_or(1, |it| it.addresses.max(1));
        u16::try_from(dial % u32::from(addresses)).expect("less than a u16")
    }

    /// 32 bytes that were never used before by this run (SplitMix64 from the seed). The partner's
    /// nonce goes into the same key, and the secret is what keeps it; uniqueness is enough here.
    fn nonce(&mut self) -> [u8; 32] {
        let mut nonce = [0; 32];
        for part in nonce.chunks_exact_mut(8) {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.random;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            part.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        nonce
    }
}
