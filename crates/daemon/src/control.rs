//! The control thread: it drives `Node`, keeps its durable files, makes and opens the copies of
//! this node, and answers the admin API. Tasks and lanes bring inputs; `apply` takes one after
//! the other, hands it to `Node`, and carries out what `Node` wants. It decides nothing.

mod actions;
mod answers;
mod damage;
mod deletion;
mod facts;
mod forced;
mod frames;
mod lane;
pub(crate) mod links;
pub(crate) mod local;
mod operators;
mod paths;
mod pool_in_force;
mod replicas;
mod schedule;
mod start;
mod verdict;
mod verify;
mod view;
mod watchdog;
mod witness_link;

pub use start::{RunError, run};

use crate::admin::{Answer, Asked, Class, Refusal, Request};
use crate::config::Config;
use crate::events::Events;
use crate::pool::Pool;
use crate::pool::file::PoolFile;
use crate::pool::settings::TargetNumbers;
use crate::recorder::{self, Recorder};
use crate::secret::PAIR_SECRET_MIN;
use crate::shard_thread::{FromThread, ShardHandle, ToThread, boot_time};
use crate::store::Metadata;
use crate::{certificate, durable, uuid, wall_clock};
use deletion::{Deletion, Question};
use frames::Finding;
use lane::Lane;
use links::{LinkInput, LinkNumbers, LinkSender};
use local::{LocalError, LocalState, Ready};
use lockstep_api::status::Level;
use lockstep_engine::interface::{FromShard, SessionInfo, ToShard};
use lockstep_engine::node::Node;
use lockstep_engine::node_interface::{ConfigRefusal, NodeAction, NodeEvent, NodeSettings};
use lockstep_mirror::control::{FromVolume, Incarnation, NodeId, Time, VolumeId};
use lockstep_mirror::lease::Timing;
use paths::Path;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use watchdog::Watchdog;
use witness_link::WitnessLink;

/// `Node` is told at least so often when the shard last turned.
const STAMP_EVERY: Duration = Duration::from_millis(100);

/// The list of sessions is asked for so often, for the status.
const SESSIONS_EVERY: Duration = Duration::from_secs(1);

/// Changes that wait for the one under way; an operator's are a few a day.
const CHANGES_WAITING: usize = 16;

/// What the control thread takes, one after the other.
#[derive(Debug)]
pub(crate) enum Input {
    /// From the links to the partner.
    Link(LinkInput),
    /// From the shard's thread.
    Shard(FromThread),
    /// From the admin API.
    Asked(Asked),
    /// A copy was made, only opening is left.
    Opening(VolumeId),
    /// A copy is open, or cannot be used.
    Prepared(VolumeId, Box<Result<Ready, LocalError>>),
    /// A durable write has ended.
    Written(Written, Result<(), String>),
    /// What full-size frames do on this path.
    Frames(usize, Finding),
    /// SIGTERM or SIGINT.
    Stop,
}

/// Which durable write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Superblock(VolumeId),
    Acceptor,
    Config,
    Maintenance,
    Forced,
}

/// A copy on this node, with what is needed to write its superblock.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) state: LocalState,
    copy: local::Copy,
    /// It was opened as one of two.
    mirrored: bool,
    /// Why it could not be used the last time, as it was said.
    said: Option<String>,
    /// The thread of its superblock's writes, while it is open.
    lane: Option<Lane>,
    metadata: Option<Arc<Metadata>>,
}

/// One connection to the partner.
#[derive(Debug)]
struct Link {
    path: usize,
    sender: LinkSender,
}

/// A change that `Node` has been asked for.
#[derive(Debug)]
struct Change {
    what: String,
    request: Option<Request>,
    reply: Option<oneshot::Sender<Answer>>,
    /// The generation that it became, or why not, once `Node` said so.
    outcome: Option<Result<u64, ConfigRefusal>>,
}

/// The control thread's state.
pub(crate) struct Control {
    config: Config,
    incarnation: Incarnation,
    started: Instant,
    /// The same moment on the shard's clock.
    born: Time,
    node: Node,
    recorder: Option<Recorder>,
    actions: Vec<NodeAction>,
    shard: ShardHandle,
    inputs: mpsc::Sender<Input>,
    state_lane: Lane,
    events: Events,
    watchdog: Watchdog,
    /// The pool configuration in force, its text and its number.
    pool: Pool,
    text: String,
    generation: u64,
    /// It came into force just now and was not made real yet.
    pool_is_new: bool,
    file: PoolFile,
    numbers: TargetNumbers,
    locals: BTreeMap<VolumeId, Local>,
    links: BTreeMap<u32, Link>,
    witness: WitnessLink,
    link_numbers: LinkNumbers,
    /// What is known of each path besides what `Node` knows.
    paths: Vec<Path>,
    /// Data portals that should be open and sync addresses, with the reason where they are not.
    listening: BTreeMap<SocketAddr, Option<String>>,
    sessions: Vec<SessionInfo>,
    sessions_due: Instant,
    /// Requests that wait for the list of sessions.
    awaiting_sessions: Vec<Asked>,
    change: Option<Change>,
    /// Waits for the partner's word; and how many times it was asked in this run.
    deletion: Option<Deletion>,
    questions: u64,
    /// What the partner wants to know.
    partner_questions: Vec<Question>,
    awaiting_change: VecDeque<Asked>,
    /// When this node looks whether it has to enter itself into the pool configuration.
    entry_due: Instant,
    /// Since when the partner is there.
    partner_since: Option<Instant>,
    schedule: schedule::Schedule,
    notes: forced::Notes,
    places: damage::Places,
    /// `Node` said that nothing is left to do.
    stopped: bool,
    stopping: bool,
    failure: Option<RunError>,
}

impl Control {
    /// Reads the durable state and starts `Node` with it.
    fn new(
        config: Config,
        secret: Vec<u8>,
        recorder: Option<Recorder>,
        mut events: Events,
        file: PoolFile,
        shard: ShardHandle,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self, RunError> {
        assert!(
            secret.is_empty() || secret.len() >= PAIR_SECRET_MIN,
            "checked when it was read"
        );
        let incarnation = Incarnation(u64::from_be_bytes(uuid::random()));
        let state = config.node.state_directory.clone();
        certificate::note_run(&state, incarnation).map_err(|source| RunError::State {
            path: state.join(INCARNATION_FILE),
            source,
        })?;
        let read = |name: &str| {
            let path = state.join(name);
            durable::read_if_there(&path).map_err(|source| RunError::State { path, source })
        };
        let t = &config.timeouts;
        let ms = |value: u32| Duration::from_millis(value.into());
        let defaults = Timing::default();
        let timing = Timing {
            heartbeat: ms(t.heartbeat_ms),
            lease: ms(t.lease_ms),
            silence: ms(t.silent_ms),
            precedence: defaults.precedence.max(ms(t.heartbeat_ms)),
            ..defaults
        };
        let me = config.node.number;
        let partner = config.has_partner().then_some(NodeId(3 - me));
        let settings = NodeSettings {
            node: NodeId(me),
            partner,
            cluster: config.cluster.uuid.0,
            secret: secret.clone().into(),
            incarnation,
            portals: u16::try_from(config.portals.data.len()).expect("at most 32"),
            partner_portals: 0,
            proxy: config.partner.proxy,
            timing,
            acceptor: read(ACCEPTOR_FILE)?,
            pool: read(POOL_STATE_FILE)?,
            maintenance: read(MAINTENANCE_FILE)?.is_some(),
        };
        let born = boot_time();
        let seed = uuid::random();
        if let Some(recorder) = &recorder {
            recorder.node(&settings, seed, born);
        }
        let node = Node::new(settings, seed, born);
        let lane = Lane::start("lockstep-state").map_err(RunError::Runtime)?;
        if let Some(partner) = partner {
            let addresses = u16::try_from(config.partner.sync_remote.len()).expect("at most 8");
            let order = ToShard::Partner {
                node: partner,
                me: NodeId(me),
                incarnation,
                addresses,
                connections: config.partner.connections,
                dial: me < partner.0,
                secret: secret.into(),
                cluster: config.cluster.uuid.0,
            };
            shard
                .send(ToThread::Order(Box::new(order)))
                .map_err(|_| RunError::ShardGone)?;
        }
        let name = config.node_name();
        events.add(
            Level::Ok,
            "node",
            &name,
            &format!("started, version {}", env!("CARGO_PKG_VERSION")),
        );
        let now = Instant::now();
        Ok(Self {
            paths: config
                .control_paths()
                .iter()
                .map(|_| Path::default())
                .collect(),
            pool: Pool::empty(config.cluster.uuid),
            text: String::new(),
            config,
            incarnation,
            started: now,
            born,
            node,
            recorder,
            actions: Vec::new(),
            shard,
            inputs,
            state_lane: lane,
            events,
            watchdog: Watchdog::new(now),
            generation: 0,
            pool_is_new: false,
            file,
            numbers: TargetNumbers::default(),
            locals: BTreeMap::new(),
            links: BTreeMap::new(),
            witness: WitnessLink::default(),
            link_numbers: LinkNumbers::default(),
            listening: BTreeMap::new(),
            sessions: Vec::new(),
            sessions_due: now,
            awaiting_sessions: Vec::new(),
            change: None,
            deletion: None,
            questions: 0,
            partner_questions: Vec::new(),
            awaiting_change: VecDeque::new(),
            entry_due: now,
            partner_since: None,
            schedule: schedule::Schedule::default(),
            notes: forced::Notes::read(&state)?,
            places: damage::Places::default(),
            stopped: false,
            stopping: false,
            failure: None,
        })
    }

    fn config(&self) -> &Config {
        &self.config
    }

    /// Takes inputs until `Node` has stopped or something failed that it cannot live without.
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> Result<(), RunError> {
        self.in_force_at_start();
        self.tell(NodeEvent::Tick);
        loop {
            self.routine();
            if let Some(failure) = self.failure.take() {
                self.events.add(
                    Level::Critical,
                    "node",
                    &self.config.node_name(),
                    &failure.to_string(),
                );
                self.events.sync();
                return Err(failure);
            }
            if self.stopped {
                break;
            }
            let now = boot_time();
            let deadline = self.node.next_deadline().unwrap_or(now + STAMP_EVERY);
            let wait = deadline.saturating_sub(now).min(STAMP_EVERY);
            match tokio::time::timeout(wait, inputs.recv()).await {
                Ok(Some(input)) => self.apply(input),
                Ok(None) => unreachable!("this thread keeps a sender"),
                Err(_elapsed) => {}
            }
        }
        self.events.add(
            Level::Ok,
            "node",
            &self.config.node_name(),
            "stopped in order",
        );
        self.events.sync();
        self.shard.stop();
        Ok(())
    }

    /// What is due by time: the shard's stamp, `Node`'s timers, sessions, the watchdog.
    fn routine(&mut self) {
        // A shard that has not turned yet has just been started.
        let stamp = Duration::from_millis(self.shard.stamp()).max(self.born);
        let wall = wall_clock::seconds();
        self.tell(NodeEvent::Stamp {
            oldest: stamp,
            wall,
        });
        let now = Instant::now();
        if now >= self.sessions_due {
            self.sessions_due = now + SESSIONS_EVERY;
            self.order(ToShard::Sessions);
            self.retry_copies(now);
            self.verify_by_schedule();
            self.forget_forced();
        }
        if now >= self.entry_due {
            self.enter_myself(now);
            self.admit_witness();
        }
        let lag = boot_time().saturating_sub(stamp);
        if self.watchdog.due(now) {
            let verdict = self.status();
            self.watchdog.report(now, lag, &verdict);
        }
    }

    /// Hands an event to `Node` and carries out what it wants.
    fn tell(&mut self, event: NodeEvent<'_>) {
        let mut actions = std::mem::take(&mut self.actions);
        let now = boot_time();
        match &self.recorder {
            Some(recorder) => {
                let noted = recorder::of_node(&event);
                self.node.handle(now, event, &mut actions);
                recorder.to_node(now, noted, &actions);
            }
            None => self.node.handle(now, event, &mut actions),
        }
        for action in actions.drain(..) {
            self.carry_out(action);
        }
        self.actions = actions;
        // Not before everything that `Node` wanted has been done: what follows tells it more.
        if std::mem::take(&mut self.pool_is_new) {
            self.make_real();
        }
        self.settle_change();
        self.settle_deletion();
    }

    fn apply(&mut self, input: Input) {
        match input {
            Input::Link(input) => self.link(input),
            Input::Shard(report) => self.shard_said(report),
            Input::Asked(asked) => self.asked(asked),
            Input::Opening(id) => {
                if let Some(local) = self.locals.get_mut(&id)
                    && matches!(local.state, LocalState::Making { .. })
                {
                    local.state = LocalState::Opening;
                }
            }
            Input::Prepared(id, result) => self.prepared(id, *result),
            Input::Written(what, result) => self.written(what, result),
            Input::Frames(path, found) => self.frames_found(path, found),
            Input::Stop => {
                if !self.stopping {
                    self.stopping = true;
                    self.watchdog.stopping();
                    self.tell(NodeEvent::Stop);
                }
            }
        }
    }

    fn shard_said(&mut self, report: FromThread) {
        match report {
            FromThread::Shard(FromShard::Sessions(sessions)) => {
                self.sessions = sessions;
                for asked in std::mem::take(&mut self.awaiting_sessions) {
                    self.asked_with_sessions(asked);
                }
                self.answer_partner();
            }
            FromThread::Shard(FromShard::Note(text)) => {
                self.events
                    .add(Level::Ok, "initiator", &self.config.node_name(), &text);
            }
            FromThread::Shard(report) => {
                let opened = match &report {
                    FromShard::Volume(id, FromVolume::Opened { .. }) => Some(*id),
                    _ => None,
                };
                let verified = match &report {
                    FromShard::Volume(id, FromVolume::Verified(found)) => Some((*id, *found)),
                    _ => None,
                };
                if let FromShard::Volume(id, word) = &report {
                    self.places.note(*id, word, forced::since_1970());
                }
                self.tell(NodeEvent::Shard(report));
                if let Some((id, found)) = verified {
                    self.verified(id, &found);
                }
                if let Some(id) = opened {
                    self.pace(id);
                }
            }
            FromThread::Listening { address } => {
                tracing::info!(%address, "listening");
                self.listening.insert(address, None);
            }
            FromThread::NotListening { address, error } => {
                let text = format!("{address} does not accept connections: {error}");
                self.events
                    .add(Level::Critical, "node", &self.config.node_name(), &text);
                self.listening.insert(address, Some(error.to_string()));
            }
            FromThread::DiskDetached(id) => self.detached(id),
        }
    }

    /// Sends an order to the shard; a shard that takes none ends the daemon.
    fn order(&mut self, order: ToShard) {
        self.send_to_thread(ToThread::Order(Box::new(order)));
    }

    fn send_to_thread(&mut self, order: ToThread) {
        if self.shard.send(order).is_err() {
            self.failure.get_or_insert(RunError::ShardGone);
        }
    }

    /// Keeps a request until the shard has said who is logged in.
    fn ask_sessions(&mut self, asked: Asked) {
        if self.awaiting_sessions.is_empty() {
            self.order(ToShard::Sessions);
        }
        self.awaiting_sessions.push(asked);
    }

    /// Asks `Node` for a change of the pool configuration. One at a time.
    fn propose(
        &mut self,
        next: &Pool,
        what: String,
        request: Request,
        reply: oneshot::Sender<Answer>,
    ) {
        assert!(self.change.is_none(), "others wait");
        self.change = Some(Change {
            what,
            request: Some(request),
            reply: Some(reply),
            outcome: None,
        });
        self.tell(NodeEvent::ProposeConfig {
            document: next.text().into_bytes(),
        });
    }

    fn wait_for_change(&mut self, asked: Asked) {
        if self.awaiting_change.len() < CHANGES_WAITING {
            self.awaiting_change.push_back(asked);
            return;
        }
        let refusal = Refusal::new(
            Class::Unavailable,
            "the pool configuration",
            "many changes wait for the one under way",
            "repeat it in a few seconds",
        );
        // Whoever asked may have gone.
        let _ = asked.reply.send(Err(refusal));
    }

    /// Answers a change that was refused, or that is in force here by now.
    fn settle_change(&mut self) {
        let ended = |change: &Change| match change.outcome {
            Some(Ok(generation)) => generation <= self.generation,
            Some(Err(_)) => true,
            None => false,
        };
        if !self.change.as_ref().is_some_and(ended) {
            return;
        }
        let change = self.change.take().expect("looked at just now");
        let answer = match change.outcome.expect("looked at just now") {
            Ok(_) => Ok(self.change_answer(change.request.as_ref())),
            Err(refusal) => Err(refusal),
        };
        match (change.reply, answer) {
            (Some(reply), Ok(answer)) => {
                self.events.add(Level::Ok, "operator", "pool", &change.what);
                // Whoever asked may have gone.
                let _ = reply.send(answer);
            }
            (Some(reply), Err(refusal)) => drop(reply.send(Err(in_words(refusal)))),
            (None, Ok(_)) => {}
            (None, Err(refusal)) => tracing::debug!(%refusal, "this node is not entered yet"),
        }
        self.next_change();
    }

    fn next_change(&mut self) {
        if let Some(asked) = self.awaiting_change.pop_front() {
            self.asked(asked);
        }
    }

    fn state_file(&self, name: &str) -> PathBuf {
        self.config.node.state_directory.join(name)
    }
}

/// A refusal as the API tells it: what follows the colon in `Node`'s words is what to do.
fn in_words(refusal: ConfigRefusal) -> Refusal {
    let class = match refusal {
        ConfigRefusal::TooLarge => Class::Bad,
        ConfigRefusal::Conflict => Class::Conflict,
        ConfigRefusal::NotStored => Class::Failed,
        _ => Class::Unavailable,
    };
    let text = refusal.to_string();
    let (why, todo) = text
        .split_once(": ")
        .unwrap_or((&text, "lockstep status says how things are"));
    Refusal::new(class, "the pool configuration", why, todo)
}

/// Which run of the daemon this is; the last one's, when none runs.
pub(crate) const INCARNATION_FILE: &str = "incarnation";

/// The register's votes.
const ACCEPTOR_FILE: &str = "register";

/// It is there while this node is in maintenance.
const MAINTENANCE_FILE: &str = "maintenance";

/// The pool configuration as `Node` keeps it: in force, and prepared.
pub(crate) const POOL_STATE_FILE: &str = "pool.state";
