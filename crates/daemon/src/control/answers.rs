//! How each request of the admin API is answered. Reading is answered at once; a change is first
//! proposed, and answered when `Node` has committed or refused it.

use super::{Control, facts, verdict, view};
use crate::admin::{Answer, Asked, Class, Refusal, Request, json};
use crate::config::Uuid;
use crate::pool::file::{Edited, differences};
use crate::pool::{Pool, PoolError, mask};
use crate::shard_thread::boot_time;
use crate::{metrics, uuid};
use lockstep_api::pool::{Changed, PoolNode, PoolView};
use lockstep_api::status::{Level, Session, Status};
use lockstep_api::volume::Volume;
use lockstep_engine::node_interface::{NodeEvent, Operator};
use lockstep_mirror::control::VolumeId;
use tokio::sync::oneshot;

impl Control {
    /// Answers, or keeps the request until it can be answered.
    pub(super) fn asked(&mut self, asked: Asked) {
        let Asked { request, reply } = asked;
        let answer = match request {
            Request::Status => json(&self.status()),
            Request::Volumes => json(&self.volumes()),
            Request::Volume(name) => self.volume(&name),
            Request::Events { after } => json(&self.events.after(after)),
            Request::Config => json(&self.pool_view()),
            Request::Accounts => json(&view::accounts(&self.pool)),
            Request::Metrics => Ok(metrics::text(&self.status(), &self.shard.snapshot().shard)),
            // Both need to know who is logged in at this moment.
            Request::Sessions | Request::Delete { .. } => {
                self.ask_sessions(Asked { request, reply });
                return;
            }
            Request::Rejoin { name } => self.rejoin(&name),
            Request::Resolve {
                name,
                keep,
                confirm,
            } => self.resolve(&name, &keep, &confirm),
            Request::Force {
                name,
                confirm,
                corrupt,
            } => self.force_activate(&name, &confirm, corrupt),
            Request::EnterMaintenance(wish) => self.enter_maintenance(&wish),
            Request::LeaveMaintenance(node) => self.leave_maintenance(&node),
            Request::KeepConfig => self.keep_config(),
            Request::Verify(name, repair) => self.verify(&name, repair),
            Request::Create(_) if self.entries_are_coming() => {
                self.wait_for_change(Asked { request, reply });
                return;
            }
            change if self.change.is_some() => {
                self.wait_for_change(Asked {
                    request: change,
                    reply,
                });
                return;
            }
            Request::ReplaceReplica {
                ref name,
                ref image,
                ref confirm,
            } => match self.replace_replica(name, image.as_deref(), confirm) {
                Ok(Some(answer)) => answer,
                Ok(None) => return self.propose_change(request, reply),
                Err(refusal) => Err(refusal),
            },
            change => return self.propose_change(change, reply),
        };
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    }

    /// Has both nodes agree on a change, or refuses it.
    fn propose_change(&mut self, change: Request, reply: oneshot::Sender<Answer>) {
        let changed = self.changed(&change).and_then(|it| {
            let first = self.is_needed_first(&change);
            first.map_or(Ok(it), Err)
        });
        match changed {
            Ok((next, what)) => self.propose(&next, what, change, reply),
            // Whoever asked may have gone.
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    /// Answers a request that had to wait for the list of sessions.
    pub(super) fn asked_with_sessions(&mut self, asked: Asked) {
        match asked.request {
            Request::Delete { .. } => self.delete(asked),
            // Whoever asked may have gone.
            _ => drop(asked.reply.send(json(&self.sessions_view()))),
        }
    }

    /// After two nodes changed the pool configuration apart: ours is the one.
    fn keep_config(&mut self) -> Answer {
        if self.node.status(boot_time()).pool.conflict.is_none() {
            return Err(Refusal::new(
                Class::Conflict,
                "the pool configuration",
                "the two nodes do not hold different ones",
                "nothing is to be chosen; lockstep config show prints it",
            ));
        }
        self.events.add(
            Level::Ok,
            "operator",
            "pool",
            "this node's pool configuration is kept",
        );
        self.tell(NodeEvent::Operator(Operator::KeepConfig));
        json(&self.change_note())
    }

    /// The other node was put out for slowness, and waits.
    fn rejoin(&mut self, name: &str) -> Answer {
        let Some(volume) = self.pool.volume(name) else {
            let error = PoolError::Unknown {
                kind: "volume",
                name: name.into(),
            };
            return Err(refusal(&format!("volume {name}"), error));
        };
        let volume = VolumeId(volume.uuid.0);
        self.tell(NodeEvent::Operator(Operator::Rejoin { volume }));
        json(&self.change_note())
    }

    /// The pool configuration that a change would bring, and the change in words.
    fn changed(&self, change: &Request) -> Result<(Pool, String), Refusal> {
        let refused = |error| refusal(&change_name(change), error);
        let nodes: &[u8] = if self.config.has_partner() {
            &[1, 2]
        } else {
            &[self.config.node.number]
        };
        match change {
            Request::Create(create) => {
                let naming = &self.config.cluster.naming;
                let next = self
                    .pool
                    .with_volume(create, Uuid(uuid::new()), naming, nodes);
                let next = next.map_err(refused)?;
                let volume = next.volume(&create.name).expect("it was just added");
                if volume
                    .replicas
                    .iter()
                    .any(|replica| !nodes.contains(&replica.node))
                {
                    return Err(Refusal::new(
                        Class::Bad,
                        change_name(change),
                        "this node has no partner in its lockstep.toml",
                        "leave --replica out, or configure the partner",
                    ));
                }
                Ok((
                    next,
                    format!("volume {} created, {}", create.name, create.size),
                ))
            }
            Request::SetAccess(name, access) => {
                let next = self.pool.with_access(name, access).map_err(refused)?;
                Ok((next, format!("access to volume {name} changed")))
            }
            Request::SetAccount(account) => {
                let next = self.pool.with_account(account).map_err(refused)?;
                Ok((next, format!("account {} set", account.name)))
            }
            Request::DeleteAccount(name) => {
                let next = self.pool.without_account(name).map_err(refused)?;
                Ok((next, format!("account {name} deleted")))
            }
            Request::SetDiscovery(discovery) => {
                let next = self.pool.with_discovery(discovery).map_err(refused)?;
                Ok((next, "accounts for discovery changed".into()))
            }
            Request::SetWitness(witness) => {
                let address = witness.address.parse().map_err(|_| {
                    Refusal::new(
                        Class::Bad,
                        change_name(change),
                        format!("{:?} is no address with a port", witness.address),
                        "write it like 192.0.2.9:7410",
                    )
                })?;
                let next = self.pool.with_witness(Some((address, &witness.secret)));
                Ok((
                    next.map_err(refused)?,
                    format!("the witness is at {address}"),
                ))
            }
            Request::RemoveWitness => {
                let next = self.pool.with_witness(None).map_err(refused)?;
                Ok((next, "the witness was removed".into()))
            }
            Request::SetStrategy(name, strategy) => {
                let next = self.pool.with_strategy(name, *strategy).map_err(refused)?;
                let text = format!("strategy of volume {name}: {}", strategy.word());
                Ok((next, text))
            }
            Request::AddReplica { .. }
            | Request::RemoveReplica { .. }
            | Request::ReplaceReplica { .. } => self.changed_replicas(change),
            Request::SetPriority(name, priority) => {
                let next = self.pool.with_priority(name, *priority).map_err(refused)?;
                let word = priority.map_or("that of each node", |it| it.word());
                let text = format!("priority of resyncs of volume {name}: {word}");
                Ok((next, text))
            }
            Request::Apply => Ok((self.edited_pool()?, "the edited pool file applied".into())),
            _ => unreachable!("everything else is answered at once"),
        }
    }

    /// The answer to a change that is in force here.
    pub(super) fn change_answer(&self, change: Option<&Request>) -> Answer {
        match change {
            Some(Request::Create(create)) => self.volume(&create.name),
            Some(Request::Delete { .. }) => {
                let mut changed = self.change_note();
                if !changed.note.is_empty() {
                    changed.note = format!(
                        "{} is not reached: nobody knows whether initiators are logged in there; \
                        it lets the volume go when it returns, and their sessions end then",
                        self.partner_name()
                    );
                }
                json(&changed)
            }
            _ => json(&self.change_note()),
        }
    }

    pub(super) fn change_note(&self) -> Changed {
        let status = self.node.status(boot_time());
        let away = status.partner.is_some() && !status.partner_alive;
        let note = if away {
            "the partner is away and takes it when it returns"
        } else {
            ""
        };
        Changed {
            generation: self.generation,
            note: note.into(),
        }
    }

    fn edited_pool(&self) -> Result<Pool, Refusal> {
        let what = self.file.path().display().to_string();
        let read = self.file.edited(&self.text).map_err(|error| {
            Refusal::new(
                Class::Failed,
                &what,
                error.to_string(),
                "make the file readable for the daemon",
            )
        })?;
        let Edited::Yes(text) = read else {
            return Err(Refusal::new(
                Class::Conflict,
                what,
                "it is what is in force already",
                "edit it first; nothing was changed",
            ));
        };
        let next = Pool::parse(&text).map_err(|error| refusal(&what, error))?;
        if next.cluster != self.pool.cluster {
            return Err(Refusal::new(
                Class::Bad,
                what,
                "it names another cluster",
                "take the file of this pair",
            ));
        }
        for volume in &self.pool.volumes {
            let Some(edited) = next.volumes.iter().find(|other| other.uuid == volume.uuid) else {
                return Err(Refusal::new(
                    Class::Bad,
                    &what,
                    format!("volume {} is missing in it", volume.name),
                    "put it back; volumes are deleted with lockstep volume delete",
                ));
            };
            // What initiators have seen, and what is on the disks, cannot be edited.
            let fixed = edited.size == volume.size
                && edited.block_size == volume.block_size
                && edited.target == volume.target
                && edited.lun == volume.lun
                && edited.cache == volume.cache
                && edited.replicas == volume.replicas;
            if !fixed {
                return Err(Refusal::new(
                    Class::Bad,
                    &what,
                    format!(
                        "size, block size, cache, target, LUN or replicas of volume {} were edited",
                        volume.name
                    ),
                    "put them back; what may be edited is names, access rules, accounts and \
                    discovery",
                ));
            }
        }
        Ok(next)
    }

    /// The whole state.
    pub(super) fn status(&self) -> Status {
        let snapshot = self.shard.snapshot();
        let node = self.node.status(boot_time());
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            cluster: self.config.cluster.name.clone(),
            node: self.config.node.number,
            name: self.config.node_name(),
            pid: std::process::id(),
            maintenance: self.maintenance(),
            uptime_s: self.started.elapsed().as_secs(),
            partner: facts::partner(
                &node,
                &self.config,
                &self.pool,
                &self.paths,
                &snapshot.shard.paths,
            ),
            witness: facts::witness(&node, &self.pool, &self.witness.error),
            volumes: self.volumes(),
            sessions: snapshot.shard.sessions,
            generation: self.generation,
            portals: self
                .config
                .portals
                .data
                .iter()
                .map(|address| address.0.to_string())
                .collect(),
            ..Status::default()
        };
        let edited = !matches!(self.file.edited(&self.text), Ok(Edited::No));
        let mut general = facts::general_problems(&node);
        // What it said before a silence says nothing now.
        if let (Some(partner), Some(said), true) =
            (node.partner, node.partner_wall, node.partner_alive)
        {
            let wall = crate::wall_clock::seconds();
            general.extend(facts::wall_clocks(partner.0, said, wall));
        }
        general.extend(facts::deaf(&self.listening));
        verdict::judge(&mut status, edited, general);
        status
    }

    fn volumes(&self) -> Vec<Volume> {
        let snapshot = self.shard.snapshot();
        let sessions = self.sessions_view();
        let node = self.node.status(boot_time());
        let view = |volume: &crate::pool::PoolVolume| {
            let id = VolumeId(volume.uuid.0);
            let path = snapshot
                .shard
                .volumes
                .iter()
                .find(|(other, ..)| *other == id);
            let here = sessions
                .iter()
                .filter(|session| session.target == volume.target)
                .count();
            let local = self.locals.get(&id).map(|local| &local.state);
            let mut decided = facts::decided(&node, volume, self.config.node.number);
            if let Some(decided) = &mut decided {
                self.unless_reachable(decided, node.portals_open);
            }
            let view = view::volume(
                volume,
                &self.config,
                local,
                decided.as_ref(),
                path.map(|(_, _, status)| status),
                u32::try_from(here).unwrap_or(u32::MAX),
            );
            Volume {
                forced: self.notes.of(id).cloned(),
                damage: self.places.of(id, volume.block_size),
                slow: path.map_or_else(Vec::new, |(_, _, status)| {
                    facts::slow(&status.slow, boot_time())
                }),
                ..view
            }
        };
        self.pool.volumes.iter().map(view).collect()
    }

    /// A volume that is served, at portals that do not answer yet, is not served.
    fn unless_reachable(&self, decided: &mut view::Decided, portals_open: bool) {
        let portals = &self.config.portals.data;
        let known = portals
            .iter()
            .all(|portal| self.listening.contains_key(&portal.0));
        if decided.is_served() && !(portals_open && known) {
            decided.state = "opening";
            decided.reason = "this node's data portals are being opened".into();
        }
    }

    pub(super) fn volume(&self, name: &str) -> Answer {
        match self
            .volumes()
            .into_iter()
            .find(|volume| volume.name == name)
        {
            Some(volume) => json(&volume),
            None => Err(refusal(
                &format!("volume {name}"),
                PoolError::Unknown {
                    kind: "volume",
                    name: name.into(),
                },
            )),
        }
    }

    pub(super) fn sessions_view(&self) -> Vec<Session> {
        let sessions = self.sessions.iter().map(|info| {
            let target = self.numbers.name(info.target).unwrap_or_default();
            view::session(info, &self.pool, target, &self.config)
        });
        sessions.collect()
    }

    fn pool_view(&self) -> PoolView {
        let edited = match self.file.edited(&self.text) {
            Ok(Edited::No) => Vec::new(),
            Ok(Edited::Yes(text)) => differences(&self.text, &text),
            Err(error) => vec![format!("the file cannot be read: {error}")],
        };
        let node = |node: &crate::pool::PoolNode| PoolNode {
            number: node.number,
            name: node.name.clone(),
            portals: node
                .portals
                .iter()
                .map(|address| address.0.to_string())
                .collect(),
        };
        PoolView {
            generation: self.generation,
            cluster: uuid::format(self.pool.cluster.0),
            file: self.file.path().display().to_string(),
            edited,
            discovery_accounts: self.pool.discovery_accounts.clone(),
            discovery_mutual: self.pool.discovery_mutual.clone(),
            accounts: self
                .pool
                .accounts
                .iter()
                .map(|account| account.name.clone())
                .collect(),
            nodes: self.pool.nodes.iter().map(node).collect(),
            text: mask(&self.text),
        }
    }
}

fn change_name(change: &Request) -> String {
    match change {
        Request::Create(create) => format!("volume {}", create.name),
        Request::SetAccess(name, _) => format!("volume {name}"),
        Request::SetAccount(account) => format!("account {}", account.name),
        Request::DeleteAccount(name) => format!("account {name}"),
        Request::SetDiscovery(_) => "discovery".into(),
        Request::SetWitness(_) | Request::RemoveWitness => "witness".into(),
        Request::SetStrategy(name, _) | Request::SetPriority(name, _) => format!("volume {name}"),
        _ => "the pool configuration".into(),
    }
}

pub(super) fn refusal(what: &str, error: PoolError) -> Refusal {
    let (class, todo) = match &error {
        PoolError::Unknown { kind: "volume", .. } => {
            (Class::Missing, "lockstep volume list shows those there are")
        }
        PoolError::Unknown { .. } => (
            Class::Missing,
            "lockstep account list shows those there are",
        ),
        PoolError::Exists { .. } => (
            Class::Conflict,
            "take another name, or delete that one first",
        ),
        PoolError::InUse { .. } => (Class::Conflict, "take it out there first"),
        PoolError::Syntax(_) | PoolError::Rules(_) => {
            (Class::Bad, "mend that and repeat; nothing was changed")
        }
    };
    Refusal::new(class, what, error.to_string(), todo)
}
