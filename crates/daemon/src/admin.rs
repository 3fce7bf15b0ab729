//! What the admin API asks of the control thread, one request at a time, and how it is answered.
//! The HTTP around it is in `http`; the answers are made where the state is, in `control`.

use lockstep_api::ApiError;
use lockstep_api::node::EnterMaintenance;
use lockstep_api::pool::{SetAccount, SetDiscovery, SetWitness};
use lockstep_api::resync::Priority;
use lockstep_api::verify::Repair;
use lockstep_api::volume::{CreateVolume, SetAccess, Strategy};
use serde::Serialize;
use tokio::sync::oneshot;

/// One request.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Status,
    Volumes,
    Volume(String),
    Create(CreateVolume),
    Delete {
        name: String,
        confirm: String,
    },
    SetAccess(String, SetAccess),
    Events {
        after: u64,
    },
    Sessions,
    Config,
    Apply,
    KeepConfig,
    /// The other node, which was put out for slowness, may join again.
    Rejoin {
        /// The volume.
        name: String,
    },
    /// After a split brain: the copy of this node, by number or name, is the one.
    Resolve {
        name: String,
        keep: String,
        confirm: String,
    },
    /// This node's copy is served, whatever the other one holds.
    Force {
        name: String,
        confirm: String,
        corrupt: bool,
    },
    AddReplica {
        name: String,
        image: Option<String>,
    },
    RemoveReplica {
        name: String,
        node: String,
        confirm: String,
    },
    /// This node's copy.
    ReplaceReplica {
        name: String,
        image: Option<String>,
        confirm: String,
    },
    EnterMaintenance(EnterMaintenance),
    /// The node that is meant.
    LeaveMaintenance(String),
    Accounts,
    SetAccount(SetAccount),
    DeleteAccount(String),
    SetDiscovery(SetDiscovery),
    SetWitness(SetWitness),
    RemoveWitness,
    SetStrategy(String, Strategy),
    SetPriority(String, Option<Priority>),
    /// Compare both copies; `None`: end that.
    Verify(String, Option<Repair>),
    Metrics,
}

/// A body, or a refusal.
pub(crate) type Answer = Result<Vec<u8>, Refusal>;

/// A request with the place for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// A refusal and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) class: Class,
    pub(crate) error: ApiError,
}

/// Classes of refusals, as HTTP tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// 400: it can never work as it was said.
    Bad,
    /// 404: no such thing.
    Missing,
    /// 409: not in this state.
    Conflict,
    /// 503: not now.
    Unavailable,
    /// 500: our fault, or the machine's.
    Failed,
}

impl Class {
    /// The HTTP status.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::Bad => 400,
            Self::Missing => 404,
            Self::Conflict => 409,
            Self::Unavailable => 503,
            Self::Failed => 500,
        }
    }
}

impl Refusal {
    pub(crate) fn new(
        class: Class,
        what: impl Into<String>,
        why: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self {
            class,
            error: ApiError::new(what, why, todo),
        }
    }
}

/// The JSON of one of the API's types.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    Ok(serde_json::to_vec(value).expect("the API's types have string keys only"))
}
