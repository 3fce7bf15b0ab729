//! What only an operator decides: maintenance of this node, which copy is kept after a split
//! brain, and a copy that is served although nobody knows whether it is the newest. Each is refused
//! with the reason unless it can be done and was meant.

use super::Control;
use super::answers::refusal;
use crate::admin::{Answer, Class, Refusal, json};
use crate::pool::{PoolError, PoolVolume};
use crate::shard_thread::boot_time;
use lockstep_api::node::{EnterMaintenance, MaintenanceState};
use lockstep_api::status::Level;
use lockstep_engine::node_interface::{MaintenanceStatus, NodeEvent, Operator};
use lockstep_mirror::control::VolumeId;
use lockstep_mirror::membership::ForceRefusal;

impl Control {
    pub(super) fn maintenance(&self) -> MaintenanceState {
        match self.node.status(boot_time()).maintenance {
            MaintenanceStatus::Off => MaintenanceState::Off,
            MaintenanceStatus::Entering => MaintenanceState::Entering,
            MaintenanceStatus::On => MaintenanceState::On,
        }
    }

    /// Begins to leave the volumes to the partner. The status tells when that is done.
    pub(super) fn enter_maintenance(&mut self, wish: &EnterMaintenance) -> Answer {
        self.is_this_node(&wish.node, "enter")?;
        let name = self.config.node_name();
        if self.maintenance() != MaintenanceState::Off {
            return json(&self.maintenance());
        }
        let needed = self.node.needed_for(boot_time());
        let force = wish.confirm == name;
        if let Some((id, why)) = needed.first()
            && !force
        {
            let volume = self.volume_name(*id);
            let others = match needed.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            return Err(Refusal::new(
                Class::Conflict,
                format!("maintenance of {name}"),
                format!("volume {volume} would be served by nobody: {why}{others}"),
                format!(
                    "wait until lockstep status says that every volume is held by both nodes; or, \
                    if it is meant: lockstep node maintenance enter --confirm {name}"
                ),
            ));
        }
        let text = match needed.is_empty() {
            true => "maintenance of this node begins",
            false => {
                "maintenance of this node begins, although the partner cannot serve everything"
            }
        };
        self.events.add(Level::Degraded, "operator", &name, text);
        self.tell(NodeEvent::Operator(Operator::Maintenance {
            enter: true,
            force,
        }));
        json(&self.maintenance())
    }

    pub(super) fn leave_maintenance(&mut self, node: &str) -> Answer {
        self.is_this_node(node, "leave")?;
        let name = self.config.node_name();
        if self.maintenance() != MaintenanceState::Off {
            let text = "maintenance of this node ends";
            self.events.add(Level::Ok, "operator", &name, text);
            let (enter, force) = (false, false);
            let order = Operator::Maintenance { enter, force };
            self.tell(NodeEvent::Operator(order));
        }
        json(&self.maintenance())
    }

    /// A node is commanded at its own socket only: what it gives away, its own operator decides.
    fn is_this_node(&self, named: &str, command: &str) -> Result<(), Refusal> {
        let me = self.config.node.number;
        let what = format!("node {named}");
        let here = format!("this daemon is node {me}, {}", self.config.node_name());
        match self.node_number(named) {
            _ if named.is_empty() => Ok(()),
            Some(number) if number == me => Ok(()),
            Some(number) => Err(Refusal::new(
                Class::Bad,
                what,
                format!("{here}, and a node is put into maintenance and back by its own daemon"),
                format!(
                    "on node {number}: lockstep node maintenance {command} (or name its admin \
                    socket with --socket)"
                ),
            )),
            None => Err(Refusal::new(
                Class::Bad,
                what,
                format!("no node has this number or name; {here}"),
                "lockstep status names both nodes",
            )),
        }
    }

    /// A node as a person names it: by number or by name.
    pub(super) fn node_number(&self, named: &str) -> Option<u8> {
        let number = named.parse().ok().filter(|it| [1, 2].contains(it));
        let known = self.pool.nodes.iter().find(|node| node.name == named);
        let own = (named == self.config.node_name()).then_some(self.config.node.number);
        number.or(own).or_else(|| known.map(|node| node.number))
    }

    /// The volume of a command, or a refusal that names it.
    pub(super) fn named_volume(&self, name: &str) -> Result<PoolVolume, Refusal> {
        let unknown = || PoolError::Unknown {
            kind: "volume",
            name: name.into(),
        };
        let found = self.pool.volume(name).cloned();
        found.ok_or_else(|| refusal(&format!("volume {name}"), unknown()))
    }

    /// After a split brain: that node's copy is the one.
    pub(super) fn resolve(&mut self, name: &str, keep: &str, confirm: &str) -> Answer {
        let what = format!("volume {name}");
        let volume = self.named_volume(name)?;
        let id = VolumeId(volume.uuid.0);
        let status = self.node.status(boot_time());
        let parted = status
            .volumes
            .iter()
            .any(|(other, status)| *other == id && status.split_brain);
        if !parted {
            return Err(Refusal::new(
                Class::Conflict,
                what,
                "its copies have not gone their own ways",
                "nothing is to be chosen; lockstep volume show says what it waits for",
            ));
        }
        let Some(kept) = self.node_number(keep) else {
            return Err(Refusal::new(
                Class::Bad,
                what,
                format!("there is no node {keep:?}"),
                "name the node whose copy is kept by its number or name, as lockstep status does",
            ));
        };
        let me = self.config.node.number;
        if !status.partner_alive {
            return Err(Refusal::new(
                Class::Conflict,
                what,
                format!(
                    "{} is not heard, and both copies are needed for it",
                    self.partner_name()
                ),
                format!(
                    "bring it back; if it never returns and the copy here is the one: lockstep \
                    volume force-activate {name}"
                ),
            ));
        }
        if confirm != name {
            return Err(Refusal::new(
                Class::Bad,
                what,
                format!(
                    "its name was not repeated, and what node {} wrote apart would be lost",
                    3 - kept
                ),
                format!(
                    "if it is meant: lockstep volume resolve {name} --keep {kept} --confirm {name}"
                ),
            ));
        }
        let text = format!(
            "the copy of node {kept} is kept; what node {} wrote apart is given up",
            3 - kept
        );
        self.events.add(Level::Critical, "operator", name, &text);
        self.tell(NodeEvent::Operator(Operator::KeepCopy {
            volume: id,
            mine: kept == me,
        }));
        json(&self.change_note())
    }

    /// The copy here is served whatever the other one holds.
    pub(super) fn force_activate(&mut self, name: &str, confirm: &str, corrupt: bool) -> Answer {
        let what = format!("volume {name}");
        let volume = self.named_volume(name)?;
        let id = VolumeId(volume.uuid.0);
        match self.node.may_force(boot_time(), id, corrupt) {
            Ok(()) => {}
            Err(ForceRefusal::No(why)) => {
                return Err(Refusal::new(
                    Class::Conflict,
                    what,
                    why,
                    "lockstep volume show names what it waits for; nothing was changed",
                ));
            }
            Err(ForceRefusal::Inconsistent) => {
                return Err(Refusal::new(
                    Class::Conflict,
                    what,
                    "a resync has begun to write into the copy here and did not end: it is a \
                    mixture of old and new blocks, and file systems on it may be corrupt",
                    format!(
                        "bring the other node back; if it never returns and a corrupt copy is \
                        better than none: lockstep volume force-activate {name} --may-be-corrupt"
                    ),
                ));
            }
        }
        if confirm != name {
            return Err(Refusal::new(
                Class::Bad,
                what,
                "its name was not repeated, and acknowledged writes that only the other copy \
                holds would be lost",
                format!("if it is meant: lockstep volume force-activate {name} --confirm {name}"),
            ));
        }
        let text = "the copy of this node is served by force, whatever the other one holds";
        self.events.add(Level::Critical, "operator", name, text);
        self.tell(NodeEvent::Operator(Operator::ForceActivate {
            volume: id,
            corrupt,
        }));
        self.volume(name)
    }
}
