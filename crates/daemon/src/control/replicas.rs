//! Copies that come, go and are replaced while the volume is served. A copy that is to be opened in
//! another way (with a partner, without one, blank) is let go in order first.

use super::Control;
use super::local::{Copy, LocalState};
use crate::admin::{Answer, Class, Refusal, Request, json};
use crate::pool::{Pool, PoolVolume};
use crate::shard_thread::{ToThread, boot_time};
use lockstep_api::status::Level;
use lockstep_engine::node_interface::{NodeEvent, Operator, Standing};
use lockstep_mirror::control::VolumeId;

impl Control {
    pub(super) fn is_mirrored(&self, id: VolumeId) -> bool {
        let mut volumes = self.pool.volumes.iter();
        volumes.any(|volume| volume.uuid.0 == id.0 && volume.replicas.len() > 1)
    }

    /// What came into force may say of a copy here that it has a partner now, or none any more, or
    /// lies elsewhere.
    pub(super) fn reopen_changed(&mut self) {
        let mut changed = Vec::new();
        for volume in &self.pool.volumes {
            let id = VolumeId(volume.uuid.0);
            let Some(local) = self.locals.get(&id) else {
                continue;
            };
            let moved = Copy::new(volume, &self.config).is_some_and(|it| !it.is_at(&local.copy));
            let settled = !matches!(
                local.state,
                LocalState::Leaving | LocalState::Reopening { .. }
            );
            if settled && (moved || local.mirrored != (volume.replicas.len() > 1)) {
                changed.push((id, moved));
            }
        }
        for (id, blank) in changed {
            self.reopen(id, blank);
        }
    }

    /// Lets the copy here go, and opens it anew.
    fn reopen(&mut self, id: VolumeId, blank: bool) {
        let Some(local) = self.locals.get_mut(&id) else {
            return;
        };
        local.state = LocalState::Reopening { blank };
        self.tell(NodeEvent::CloseVolume { volume: id });
    }

    /// `Node` has let go of it; the shard follows.
    pub(super) fn volume_closed(&mut self, id: VolumeId) {
        let Some(local) = self.locals.get_mut(&id) else {
            return;
        };
        let open = local.lane.take().is_some();
        local.metadata = None;
        match open {
            true => self.send_to_thread(ToThread::DetachDisk(id)),
            false => self.reopen_detached(id),
        }
    }

    pub(super) fn reopen_detached(&mut self, id: VolumeId) {
        let state = self.locals.get(&id).map(|local| &local.state);
        let Some(LocalState::Reopening { blank }) = state else {
            return;
        };
        let blank = *blank;
        let volume = self.pool.volumes.iter().find(|it| it.uuid.0 == id.0);
        if let Some(copy) = volume.and_then(|it| Copy::new(it, &self.config)) {
            self.prepare_as(id, copy, blank);
        }
    }

    /// The copy on this node is lost, or its disk failed: a blank one takes its place. `Ok(None)`:
    /// it lies elsewhere from now on, which both nodes must agree on.
    pub(super) fn replace_replica(
        &mut self,
        name: &str,
        image: Option<&str>,
        confirm: &str,
    ) -> Result<Option<Answer>, Refusal> {
        let what = format!("volume {name}");
        let volume = self.named_volume(name)?;
        let id = VolumeId(volume.uuid.0);
        let no = |why: String, todo: &str| Err(Refusal::new(Class::Conflict, &what, why, todo));
        if volume.replica(self.config.node.number).is_none() {
            return no(
                "it has no copy on this node".into(),
                "run the command on the node whose copy is to be replaced",
            );
        }
        if volume.replicas.len() < 2 {
            return no(
                "this node has its only copy".into(),
                "give it a second one first: lockstep replica add",
            );
        }
        let node = self.node.status(boot_time());
        let known = node.volumes.iter().find(|(other, _)| *other == id);
        match known.map(|(_, status)| status) {
            Some(it) if it.standing == Standing::Mirrored && !it.disk_failed => {
                return no(
                    "the copy here is well and in use".into(),
                    "if its disk is to be changed: lockstep node maintenance enter, then this, \
                    then lockstep node maintenance leave",
                );
            }
            Some(it) if it.needed.is_some() => {
                let why = it.needed.clone().unwrap_or_default();
                return no(
                    format!("nobody else could serve it: {why}"),
                    "bring the other node back first; nothing was changed",
                );
            }
            None if !node.partner_alive => {
                return no(
                    format!(
                        "{} is not heard, and would have the only copy",
                        self.partner_name()
                    ),
                    "bring the other node back first; nothing was changed",
                );
            }
            _ => {}
        }
        if confirm != name {
            return Err(Refusal::new(
                Class::Bad,
                what,
                "its name was not repeated, and what only the copy here holds would be lost",
                format!("if it is meant: lockstep replica replace {name} --confirm {name}"),
            ));
        }
        if image.is_some() {
            return Ok(None);
        }
        let text = "the copy on this node is replaced by a blank one";
        self.events.add(Level::Critical, "operator", name, text);
        self.reopen(id, true);
        Ok(Some(json(&self.change_note())))
    }

    /// The pool configuration with a copy more, less, or elsewhere, and the change in words.
    pub(super) fn changed_replicas(&self, change: &Request) -> Result<(Pool, String), Refusal> {
        let me = self.config.node.number;
        let other = 3 - me;
        match change {
            Request::AddReplica { name, image } => {
                let volume = self.named_volume(name)?;
                self.may_add(&volume)?;
                let next = self.pool.with_replica(name, other, image.as_deref());
                let next = next.map_err(|error| super::answers::refusal(name, error))?;
                Ok((next, format!("volume {name} gets a copy on node {other}")))
            }
            Request::RemoveReplica {
                name,
                node,
                confirm,
            } => {
                let volume = self.named_volume(name)?;
                self.may_remove(&volume, node, confirm)?;
                let next = self.pool.without_replica(name, other);
                let next = next.map_err(|error| super::answers::refusal(name, error))?;
                Ok((
                    next,
                    format!("the copy of volume {name} on node {other} is given up"),
                ))
            }
            Request::ReplaceReplica { name, image, .. } => {
                let next = self.pool.with_replica(name, me, image.as_deref());
                let next = next.map_err(|error| super::answers::refusal(name, error))?;
                Ok((
                    next,
                    format!("the copy of volume {name} on node {me} is replaced"),
                ))
            }
            _ => unreachable!("only these change copies"),
        }
    }

    /// A copy is given up while the other node is silent and nobody has needed the volume since:
    /// only who serves it alone may do that, and nobody has had to yet. `Some`: it was asked to.
    pub(super) fn is_needed_first(&mut self, change: &Request) -> Option<Refusal> {
        let Request::RemoveReplica { name, .. } = change else {
            return None;
        };
        let id = VolumeId(self.pool.volume(name)?.uuid.0);
        let status = self.node.status(boot_time());
        let (_, known) = status.volumes.iter().find(|(it, _)| *it == id)?;
        if !known.lazy {
            return None;
        }
        self.tell(NodeEvent::Operator(Operator::Need { volume: id }));
        Some(Refusal::new(
            Class::Conflict,
            format!("volume {name}"),
            format!(
                "{} is silent, and this node was only now told to go on alone",
                self.partner_name()
            ),
            "give the command again in some seconds; nothing was changed",
        ))
    }

    fn may_add(&self, volume: &PoolVolume) -> Result<(), Refusal> {
        let what = format!("volume {}", volume.name);
        let no = |why: &str, todo: &str| Err(Refusal::new(Class::Conflict, &what, why, todo));
        if volume.replicas.len() > 1 {
            return no("it has a copy on each node", "nothing is to be added");
        }
        if volume.replica(self.config.node.number).is_none() {
            return no(
                "its copy is on the other node",
                "run the command on that node",
            );
        }
        if !self.config.has_partner() {
            return no(
                "this node has no partner in its lockstep.toml",
                "configure the partner on both nodes, and start them again",
            );
        }
        if !self.node.status(boot_time()).partner_alive {
            return no(
                "the other node is not heard",
                "start it, or mend the links to it; lockstep status says more",
            );
        }
        Ok(())
    }

    fn may_remove(&self, volume: &PoolVolume, node: &str, confirm: &str) -> Result<(), Refusal> {
        let name = &volume.name;
        let what = format!("volume {name}");
        let other = 3 - self.config.node.number;
        let no = |why: String, todo: String| Err(Refusal::new(Class::Conflict, &what, why, todo));
        if volume.replicas.len() < 2 {
            return no(
                "it has one copy only".into(),
                format!("to take it out of service for good: lockstep volume delete {name}"),
            );
        }
        if self.node_number(node) != Some(other) {
            return no(
                format!("the copy of the other node, {other}, is removed from here"),
                format!("run the command on the node that keeps its copy, with --node {other}"),
            );
        }
        let status = self.node.status(boot_time());
        let id = VolumeId(volume.uuid.0);
        let known = status.volumes.iter().find(|(it, _)| *it == id);
        match known.map(|(_, it)| (it.standing, it)) {
            Some((Standing::Alone, _)) => {}
            Some((Standing::Waiting, it)) if it.lazy => {}
            Some((Standing::Mirrored | Standing::Source, it)) => {
                return no(
                    match it.standing {
                        Standing::Source => format!(
                            "the copy of node {other} is being brought up to date at this moment"
                        ),
                        _ => {
                            format!("node {other} serves it as well, and has to hand it over first")
                        }
                    },
                    format!(
                        "lockstep node maintenance enter on node {other}, then this, then lockstep \
                        node maintenance leave there"
                    ),
                );
            }
            Some((Standing::Target, _)) => {
                return no(
                    format!("node {other} serves it, and brings the copy here up to date"),
                    "wait until lockstep status says that both nodes hold it".into(),
                );
            }
            Some((Standing::Waiting, it)) => {
                return no(
                    format!(
                        "it is not served here, and node {other} may have what it lacks: {}",
                        it.detail
                    ),
                    format!(
                        "bring back what it waits for; only if that never returns: lockstep volume \
                        force-activate {name}, then this"
                    ),
                );
            }
            None => {
                return no(
                    format!(
                        "the copy here cannot be used, and that of node {other} may be the only one"
                    ),
                    "lockstep status names what is wrong with it".into(),
                );
            }
        }
        if confirm != name {
            return Err(Refusal::new(
                Class::Bad,
                &what,
                "its name was not repeated, and this node would have its only copy",
                format!(
                    "if it is meant: lockstep replica remove {name} --node {other} --confirm {name}"
                ),
            ));
        }
        Ok(())
    }
}
