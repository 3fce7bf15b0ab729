//! What happens to a machine, and what its node wants done.

use super::*;
use crate::node_interface::Initiators;

impl World {
    pub(super) fn happen(&mut self, who: usize, what: Later) {
        match what {
            Later::Bytes { link, bytes } => {
                // Split somewhere: pieces of any size must do.
                let at =
                    usize::try_from(self.dice(u64::try_from(bytes.len()).unwrap() + 1)).unwrap();
                self.handle(
                    who,
                    NodeEvent::LinkBytes {
                        link,
                        bytes: &bytes[..at],
                    },
                );
                self.handle(
                    who,
                    NodeEvent::LinkBytes {
                        link,
                        bytes: &bytes[at..],
                    },
                );
            }
            Later::LinkUp { link, path } => self.handle(who, NodeEvent::LinkUp { link, path }),
            Later::WitnessUp { link } => self.handle(who, NodeEvent::WitnessUp { link }),
            Later::LinkDown { link } => self.handle(who, NodeEvent::LinkDown { link }),
            Later::SuperblockDone { slot, bytes } => {
                self.machines[who].slots[usize::from(slot)] = bytes;
                let superblock = self.machines[who].superblock();
                self.machines[who].journal.push(superblock);
                self.handle(
                    who,
                    NodeEvent::SuperblockWritten {
                        volume: VOLUME,
                        ok: true,
                    },
                );
            }
            Later::AcceptorDone { bytes } => {
                self.machines[who].acceptor = Some(bytes);
                self.handle(who, NodeEvent::AcceptorWritten { ok: true });
            }
            Later::ConfigDone { bytes } => {
                self.machines[who].pool = Some(bytes);
                self.handle(who, NodeEvent::ConfigStored { ok: true });
            }
            Later::Order(order) => self.obey(who, &order),
            Later::Word(word) => {
                self.handle(who, NodeEvent::Shard(FromShard::Volume(VOLUME, word)))
            }
            Later::CopyBlock { attempt, block } => {
                if self.copies(who, attempt) {
                    let target = self.machines[1 - who].superblock();
                    assert!(
                        target.inconsistent,
                        "recorded before the first copied block"
                    );
                    self.machines[1 - who].disk.blocks[block] =
                        self.machines[who].disk.blocks[block];
                }
            }
            Later::CopyEnd { attempt } => {
                if self.copies(who, attempt) {
                    for block in 0..BLOCKS {
                        if self.machines[who].disk.dirty & 1 << block != 0 {
                            self.machines[1 - who].disk.blocks[block] =
                                self.machines[who].disk.blocks[block];
                        }
                    }
                    self.machines[who].path.held = true;
                    self.word(who, ms(1), FromVolume::JoinReady);
                }
            }
            Later::PeerApply { block, id, lineage } => {
                let mine = self.machines[who]
                    .path
                    .serves(self.clock(who))
                    .is_some_and(|it| it.generation == lineage);
                if mine && self.busy[block].is_some_and(|it| it.0 == id) && self.wires[0] {
                    let disk = &mut self.machines[who].disk;
                    disk.intents |= 1 << block;
                    disk.blocks[block] = id;
                    if self.runs(1 - who) {
                        let delay = ms(self.dice(20) + 1);
                        self.later(1 - who, delay, Later::Acked { block, id, lineage });
                    }
                }
            }
            Later::Acked { block, id, lineage } => {
                let mine = self.machines[who]
                    .path
                    .serves(self.clock(who))
                    .is_some_and(|it| it.generation == lineage);
                if mine && self.busy[block].is_some_and(|it| it.0 == id) && self.wires[0] {
                    self.acked.iter_mut().for_each(|it| it[block] = id);
                    self.busy[block] = None;
                    if self.dice(2) == 0 {
                        for machine in &mut self.machines {
                            machine.disk.intents &= !(1 << block);
                        }
                    }
                }
            }
        }
    }

    pub(in crate::node::tests) fn handle(&mut self, who: usize, event: NodeEvent<'_>) {
        let mut actions = Vec::new();
        let now = self.clock(who);
        let Some(node) = &mut self.machines[who].node else {
            return;
        };
        node.handle(now, event, &mut actions);
        for action in actions {
            self.act(who, action);
        }
    }

    pub(super) fn act(&mut self, who: usize, action: NodeAction) {
        match action {
            NodeAction::LinkSend { link, mut bytes } => {
                if self.witness_link(link) == Some(who) {
                    return self.send_to_witness(who, link, bytes);
                }
                if self.ghosts.contains_key(&link) {
                    return self.send_to_ghost(who, link, &bytes);
                }
                if self.certifiers.contains_key(&link) {
                    return self.send_to_certifier(link, &bytes);
                }
                if self.muted == Some(who) {
                    return self.held.push((link, bytes));
                }
                let report = bytes.get(10..12) == Some(&[1, 0x10]);
                if let Some((_, forged)) = self.tamper.filter(|it| it.0 == who && report) {
                    self.tamper = None;
                    if forged {
                        // The flag `yields`, in the second byte of the report's flags.
                        bytes[192 + 38] ^= 4;
                    } else {
                        bytes.extend_from_within(..);
                    }
                }
                if self.wire_of(link).is_some_and(|wire| self.wires[wire]) {
                    let (now, latency, jitter) = (self.now, self.latency, ms(self.dice(3)));
                    // In order on one link.
                    let last = self.last(link).expect("it has a wire");
                    let at = (*last).max(now + latency) + jitter;
                    *last = at;
                    self.later(
                        1 - who,
                        at.saturating_sub(self.now) + ms(1),
                        Later::Bytes { link, bytes },
                    );
                }
            }
            NodeAction::LinkRenew { link } => {
                if let Some(wire) = self.wire_of(link) {
                    self.renew_link(who, wire);
                }
            }
            NodeAction::LinkClose { link, .. } => {
                if self.witness_link(link) == Some(who) {
                    return self.close_witness_link(who);
                }
                self.close_link(link);
            }
            NodeAction::WriteSuperblock {
                volume,
                slot,
                bytes,
            } => {
                assert_eq!(volume, VOLUME);
                let delay = ms(self.dice(30) + 1 + self.machines[who].slow);
                self.later(who, delay, Later::SuperblockDone { slot, bytes });
            }
            NodeAction::WriteAcceptor { bytes } => {
                let delay = ms(self.dice(30) + 1);
                self.later(who, delay, Later::AcceptorDone { bytes });
            }
            NodeAction::VolumeClosed { .. } => self.say(alloc::format!("{} closed", who + 1)),
            NodeAction::StoreMaintenance { on } => self.machines[who].maintenance = on,
            NodeAction::StoreConfig { bytes } => {
                let delay = ms(self.dice(30) + 1);
                self.later(who, delay, Later::ConfigDone { bytes });
            }
            NodeAction::ConfigCommitted {
                generation,
                document,
            } => {
                self.machines[who].document = Some((generation, document));
            }
            NodeAction::ConfigOutcome(outcome) => self.machines[who].outcomes.push(outcome),
            NodeAction::FindInitiators {
                link,
                number,
                volume,
            } => {
                let found = Initiators {
                    count: u32::try_from(volume.0 % 7).unwrap(),
                    first: alloc::format!("iqn.2026-11.test:at{}", who + 1),
                };
                self.handle(
                    who,
                    NodeEvent::InitiatorsFound {
                        link,
                        number,
                        found,
                    },
                );
            }
            NodeAction::PartnerInitiators { number, found } => {
                self.say(alloc::format!("{} heard {number}: {found:?}", who + 1));
            }
            NodeAction::Forced { forced, .. } => {
                self.say(alloc::format!("{} {forced:?}", who + 1));
            }
            NodeAction::Portals { open } => {
                self.say(alloc::format!("{} portals {open}", who + 1));
                self.machines[who].portals = open;
            }
            NodeAction::Event { text, .. } => self.say(alloc::format!("{} event: {text}", who + 1)),
            NodeAction::Stopped { clean } => {
                self.say(alloc::format!("{} stopped, clean: {clean}", who + 1));
                self.machines[who].stopped = Some(clean);
            }
            NodeAction::Order(ToShard::PathSilent { path, .. }) => {
                self.given_up.push((who, path));
            }
            NodeAction::Order(ToShard::Volume(_, order)) => {
                self.ordered(who, &order);
                let at = self.machines[who]
                    .order_at
                    .max(self.now + ms(self.dice(self.shard_delay)));
                self.machines[who].order_at = at;
                self.later(who, at.saturating_sub(self.now), Later::Order(order));
            }
            NodeAction::Order(ToShard::LogoutAll { .. }) => {
                self.handle(who, NodeEvent::Shard(FromShard::LoggedOut));
            }
            NodeAction::Order(ToShard::PortGroups(_, groups)) => {
                self.machines[who].access = groups.first().map(|it| it.state);
            }
            NodeAction::Order(_) => {}
        }
    }
}
