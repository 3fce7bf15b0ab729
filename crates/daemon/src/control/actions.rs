//! Carrying out what `Node` wants: bytes to links, orders to the shard, durable writes, events.

use super::{ACCEPTOR_FILE, Control, Input, MAINTENANCE_FILE, POOL_STATE_FILE, RunError, Written};
use crate::durable;
use crate::shard_thread::ToThread;
use lockstep_api::status::Level;
use lockstep_engine::node_interface::{LinkId, NodeAction, NodeEvent, Severity};
use lockstep_mirror::control::VolumeId;
use lockstep_mirror::metadata_layout::SUPERBLOCK_OFFSETS;
use std::sync::Arc;

impl Control {
    pub(super) fn carry_out(&mut self, action: NodeAction) {
        match action {
            NodeAction::LinkSend { link, bytes } => {
                let number = number(link);
                if self.witness.is(number) {
                    return self.witness.send(number, bytes);
                }
                let paths = &mut self.paths;
                let gone = self.links.get(&number).is_some_and(|link| {
                    paths[link.path].sent += bytes.len() as u64;
                    !link.sender.send(bytes)
                });
                if gone {
                    // Dropping the sender closes it; `LinkDown` follows from its task.
                    self.close(number, "the partner does not read");
                }
            }
            NodeAction::LinkRenew { link } => {
                if let Some(link) = self.links.get_mut(&number(link)) {
                    link.sender.renew();
                }
            }
            NodeAction::LinkClose { link, silent: true } => {
                self.witness.close(number(link));
                self.close(number(link), "nothing came on it any more")
            }
            NodeAction::LinkClose { link, .. } => {
                self.witness.close(number(link));
                self.close(number(link), "refused; lockstep events says why")
            }
            NodeAction::Order(order) => self.order(order),
            NodeAction::WriteSuperblock {
                volume,
                slot,
                bytes,
            } => {
                self.write_superblock(volume, slot, bytes);
            }
            NodeAction::WriteAcceptor { bytes } => {
                self.write_state(ACCEPTOR_FILE, bytes, Written::Acceptor);
            }
            NodeAction::Forced { volume, forced } => self.note_forced(volume, forced),
            NodeAction::VolumeClosed { volume } => self.volume_closed(volume),
            NodeAction::StoreMaintenance { on } => self.store_maintenance(on),
            NodeAction::StoreConfig { bytes } => {
                self.write_state(POOL_STATE_FILE, bytes, Written::Config);
            }
            NodeAction::ConfigCommitted {
                generation,
                document,
            } => {
                self.committed(generation, &document);
            }
            NodeAction::ConfigOutcome(outcome) => {
                if let Some(change) = &mut self.change {
                    change.outcome = Some(outcome);
                }
            }
            NodeAction::FindInitiators {
                link,
                number,
                volume,
            } => self.find_initiators(link, number, volume),
            NodeAction::PartnerInitiators { number, found } => self.partner_said(number, found),
            NodeAction::Portals { open } => {
                self.send_to_thread(if open {
                    ToThread::OpenPortals
                } else {
                    ToThread::ClosePortals
                });
                for address in &self.config.portals.data {
                    self.listening.remove(&address.0);
                }
                let text = if open {
                    "data portals opened"
                } else {
                    "data portals closed"
                };
                self.events
                    .add(Level::Ok, "node", &self.config.node_name(), text);
            }
            NodeAction::Event {
                text,
                severity,
                volume,
            } => {
                let level = match severity {
                    Severity::Info => Level::Ok,
                    Severity::Warning => Level::Degraded,
                    Severity::Error => Level::Critical,
                };
                let subject =
                    volume.map_or_else(|| self.config.node_name(), |id| self.volume_name(id));
                if let (Some(id), Level::Critical) = (volume, level) {
                    self.note_refusal(id, &text);
                }
                self.events.add(level, "node", &subject, &text);
            }
            NodeAction::Stopped { clean } => {
                tracing::info!(clean, "nothing is left to do");
                self.stopped = true;
            }
        }
    }

    fn close(&mut self, link: u32, why: &str) {
        if let Some(gone) = self.links.remove(&link) {
            why.clone_into(&mut self.paths[gone.path].error);
        }
    }

    pub(super) fn volume_name(&self, id: VolumeId) -> String {
        let volume = self
            .pool
            .volumes
            .iter()
            .find(|volume| volume.uuid.0 == id.0);
        volume.map_or_else(|| crate::uuid::format(id.0), |volume| volume.name.clone())
    }

    fn write_state(&self, name: &str, bytes: Vec<u8>, what: Written) {
        let path = self.state_file(name);
        let inputs = self.inputs.clone();
        self.state_lane.run(move || {
            let result = durable::replace(&path, &bytes, 0o600).map_err(|error| error.to_string());
            // Nobody listens once the daemon is ending.
            let _ = inputs.blocking_send(Input::Written(what, result));
        });
    }

    /// The file says by being there that the next run begins in maintenance.
    fn store_maintenance(&self, on: bool) {
        let path = self.state_file(MAINTENANCE_FILE);
        let inputs = self.inputs.clone();
        self.state_lane.run(move || {
            let result = match on {
                true => durable::replace(&path, b"in maintenance\n", 0o600),
                false => durable::remove(&path),
            };
            let result = result.map_err(|error| error.to_string());
            let _ = inputs.blocking_send(Input::Written(Written::Maintenance, result));
        });
    }

    fn write_superblock(&self, id: VolumeId, slot: u8, bytes: Vec<u8>) {
        let local = self.locals.get(&id);
        let open = local.and_then(|it| Some((it.lane.as_ref()?, it.metadata.as_ref()?, &it.copy)));
        let Some((lane, metadata, copy)) = open else {
            // The volume was deleted meanwhile.
            tracing::debug!(volume = %crate::uuid::format(id.0), "a superblock of a volume that is gone");
            return;
        };
        let (metadata, copy, inputs) = (Arc::clone(metadata), copy.clone(), self.inputs.clone());
        let offset = SUPERBLOCK_OFFSETS[usize::from(slot)];
        lane.run(move || {
            let result = metadata
                .write(offset, &bytes)
                .map_err(|error| error.to_string())
                .and_then(|()| copy.in_use().map_err(|error| error.to_string()));
            let _ = inputs.blocking_send(Input::Written(Written::Superblock(id), result));
        });
    }

    pub(super) fn written(&mut self, what: Written, result: Result<(), String>) {
        let ok = result.is_ok();
        match what {
            Written::Superblock(volume) => {
                if let Err(why) = result {
                    let name = self.volume_name(volume);
                    let text = format!("its superblock could not be written: {why}");
                    self.events.add(Level::Critical, "disk", &name, &text);
                }
                self.tell(NodeEvent::SuperblockWritten { volume, ok });
            }
            Written::Maintenance => {
                if let Err(why) = result {
                    let text = format!(
                        "maintenance could not be noted, and a restart may not know of it: {why}"
                    );
                    self.events
                        .add(Level::Critical, "disk", &self.config.node_name(), &text);
                }
            }
            Written::Forced => {
                if let Err(why) = result {
                    let text = format!(
                        "an operator's decision could not be noted, and a restart may not show it: {why}"
                    );
                    self.events
                        .add(Level::Critical, "disk", &self.config.node_name(), &text);
                }
            }
            Written::Acceptor => {
                self.fail_unless_durable("the register's file", result);
                self.tell(NodeEvent::AcceptorWritten { ok });
            }
            Written::Config => {
                if let Err(why) = result {
                    let text = format!("the pool configuration could not be stored: {why}");
                    self.events
                        .add(Level::Critical, "disk", &self.config.node_name(), &text);
                }
                self.tell(NodeEvent::ConfigStored { ok });
            }
        }
    }

    /// A node that cannot keep its votes must not go on: its next answer could contradict one
    /// that a crash would forget.
    fn fail_unless_durable(&mut self, what: &str, result: Result<(), String>) {
        if let Err(why) = result {
            self.failure.get_or_insert_with(|| RunError::NotDurable {
                what: what.into(),
                why,
            });
        }
    }
}

/// Links are numbered by us, with 32 bits.
fn number(link: LinkId) -> u32 {
    u32::try_from(link.0).expect("a number that this driver gave")
}
