//! What the API shows, put together from the pool configuration, what `Node` decided, what the
//! shard counts and how the copies on this node are. Nothing is remembered here.

use super::local::LocalState;
use crate::config::Config;
use crate::pool::{Pool, PoolVolume};
use lockstep_api::pool::Account;
use lockstep_api::resync::Pace;
use lockstep_api::status::Session;
use lockstep_api::verify::Verify;
use lockstep_api::volume::{Progress, Replica, Strategy, Volume};
use lockstep_engine::interface::SessionInfo;
use lockstep_mirror::volume::{ResyncStatus, VolumeStatus};

/// What `Node` says about a volume, in the words of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decided {
    /// A state of `lockstep_api::volume::Volume::state`.
    pub(crate) state: &'static str,
    /// Why, and what it waits for.
    pub(crate) reason: String,
    /// The strategy that the configuration in force was decided with.
    pub(crate) strategy: Strategy,
    pub(crate) epoch: u64,
    pub(crate) members: Vec<u8>,
    pub(crate) owner: u8,
    /// Bytes that the partner may lack.
    pub(crate) dirty: u64,
    /// Bytes that are marked on the partner's copy, as it says.
    pub(crate) partner_dirty: Option<u64>,
    /// A copy under way.
    pub(crate) resync: Option<Progress>,
    /// State of each copy, by node number - 1.
    pub(crate) replicas: [&'static str; 2],
}

impl Decided {
    /// Initiators are served here.
    pub(crate) fn is_served(&self) -> bool {
        ["serving", "serving-alone", "resyncing"].contains(&self.state)
    }
}

/// One volume as the API shows it.
pub(crate) fn volume(
    volume: &PoolVolume,
    config: &Config,
    local: Option<&LocalState>,
    decided: Option<&Decided>,
    path: Option<&VolumeStatus>,
    sessions: u32,
) -> Volume {
    let me = config.node.number;
    let known = decided.cloned().unwrap_or_default();
    let (state, reason, provisioning) = state(volume, me, local, decided);
    let replicas = volume.replicas.iter().map(|replica| {
        let image = if replica.node == me {
            let path = volume.image(config).expect("this node has a copy");
            path.to_string_lossy().into_owned()
        } else {
            replica.image.clone()
        };
        let word = known
            .replicas
            .get(usize::from(replica.node) - 1)
            .copied()
            .unwrap_or_default();
        let state = if word.is_empty() { "unknown" } else { word };
        Replica {
            node: replica.node,
            image,
            state: state.into(),
        }
    });
    let dirty = dirty(&known, path);
    let counts = path.map(|path| path.counts).unwrap_or_default();
    let copying = path.and_then(|path| path.resync).filter(|it| it.source);
    // Both figures of one moment: else the sum of what is done and what is left jumps about.
    let resync = known.resync.map(|copy| {
        let done = copying.map_or(copy.done, |it| it.done);
        Progress {
            done,
            total: done.saturating_add(dirty),
            ..copy
        }
    });
    Volume {
        name: volume.name.clone(),
        uuid: crate::uuid::format(volume.uuid.0),
        size: volume.size.0,
        block_size: volume.block_size,
        cache: volume.cache,
        strategy: volume.strategy,
        strategy_in_force: known.strategy,
        target: volume.target.clone(),
        lun: volume.lun,
        state: state.into(),
        reason,
        epoch: known.epoch,
        members: known.members.clone(),
        owner: known.owner,
        forced: None,
        dirty,
        partner_dirty: known.partner_dirty,
        resync: resync.filter(|copy| copy.total > 0),
        priority: volume.priority.unwrap_or(config.resync.priority),
        pace: copying.as_ref().map(pace),
        resync_restarts: counts.resync_restarts,
        verify: path.and_then(|path| path.verify).map(|it| Verify {
            running: it.running,
            complete: it.found.complete,
            done: it.found.done,
            total: volume.size.0,
            differing: it.found.differing,
            repaired: it.found.repaired,
            unreadable: it.found.unreadable,
        }),
        unreadable: counts.unreadable,
        repaired: counts.repaired,
        unreadable_lost: counts.unreadable_lost,
        damage: Vec::new(),
        slow: Vec::new(),
        resync_compared: counts.resync_compared,
        resync_copied: counts.resync_copied,
        full_resyncs: counts.full_resyncs,
        proxied_reads: counts.proxied_reads,
        proxied_writes: counts.proxied_writes,
        provisioning,
        sessions,
        accounts: volume.accounts.clone(),
        allow: volume.allow.clone(),
        replicas: replicas.collect(),
    }
}

/// How fast a copy may go, and why.
fn pace(copy: &ResyncStatus) -> Pace {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let because = match copy.waits {
        Some(wait) => wait.sentence(),
        None => copy.pace.reason.sentence(),
    };
    Pace {
        phase: copy.phase.into(),
        steps: u32::try_from(copy.steps).unwrap_or(u32::MAX),
        limit: copy.pace.limit,
        reason: copy.pace.reason.word().into(),
        because: because.into(),
        calm_us: micros(copy.pace.calm),
        under_way_us: micros(copy.pace.under_way),
    }
}

/// The data path knows best, but what is known of it may be older than the configuration; then
/// `Node` has a number, and nothing is dirty where a configuration names both.
fn dirty(known: &Decided, path: Option<&VolumeStatus>) -> u64 {
    match path.filter(|path| path.epoch == known.epoch) {
        Some(path) => path.dirty,
        None if known.members.len() > 1 && known.state == "serving" => 0,
        None => known.dirty,
    }
}

fn state(
    volume: &PoolVolume,
    me: u8,
    local: Option<&LocalState>,
    decided: Option<&Decided>,
) -> (&'static str, String, Option<Progress>) {
    match (local, decided) {
        (Some(LocalState::Making { gauge, since }), _) => (
            "provisioning",
            "its image on this node is being made".into(),
            Some(gauge.progress(volume.size.0, since.elapsed())),
        ),
        (Some(LocalState::Opening), _) => (
            "opening",
            "its image on this node is being opened".into(),
            None,
        ),
        (Some(LocalState::Failed { why, .. }), decided) => {
            // `Node` says besides whether the other node serves this one's initiators.
            let more = decided.filter(|it| it.reason.starts_with(why.as_str()));
            let reason = more.map_or(why, |it| &it.reason);
            ("failed", reason.clone(), None)
        }
        (Some(LocalState::Reopening { .. }), _) => (
            "opening",
            "its copy here is let go and opened again".into(),
            None,
        ),
        (Some(LocalState::Leaving), _) => ("waiting", "it is being deleted".into(), None),
        (_, Some(decided)) => (decided.state, decided.reason.clone(), None),
        (None, None) if volume.replica(me).is_none() => (
            "waiting",
            "it has no copy on this node; ask the other one".into(),
            None,
        ),
        (_, None) => ("opening", "nothing is decided yet".into(), None),
    }
}

/// One session as the API shows it.
pub(crate) fn session(info: &SessionInfo, pool: &Pool, target: &str, config: &Config) -> Session {
    let volume = pool.volumes.iter().find(|volume| volume.target == target);
    let portal = config.portals.data.get(usize::from(info.portal));
    Session {
        initiator: info.initiator.clone(),
        volume: volume.map(|volume| volume.name.clone()).unwrap_or_default(),
        target: target.into(),
        peer: info.peer.to_string(),
        portal: portal
            .map(|address| address.0.to_string())
            .unwrap_or_default(),
        tasks: info.tasks,
    }
}

/// All accounts, without secrets.
pub(crate) fn accounts(pool: &Pool) -> Vec<Account> {
    let uses = |volume: &PoolVolume, name: &String| {
        volume.accounts.contains(name) || volume.mutual.as_ref() == Some(name)
    };
    let account = |name: &String| Account {
        name: name.clone(),
        volumes: pool
            .volumes
            .iter()
            .filter(|volume| uses(volume, name))
            .map(|volume| volume.name.clone())
            .collect(),
        discovery: pool.discovery_accounts.contains(name)
            || pool.discovery_mutual.as_ref() == Some(name),
    };
    pool.accounts
        .iter()
        .map(|entry| account(&entry.name))
        .collect()
}
