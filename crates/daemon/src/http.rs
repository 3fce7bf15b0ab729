//! HTTP around the admin API and the metrics: routes, bodies and refusals. Every request becomes
//! one `admin::Request` to the control thread; nothing is decided here.

use crate::admin::{Answer, Asked, Class, Refusal, Request};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use lockstep_api::resync::SetPriority;
use lockstep_api::verify::StartVerify;
use lockstep_api::volume::{ReplicaAt, SetStrategy};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path as FilePath;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the control thread; more are made to wait in their sockets.
pub(crate) const REQUESTS_WAITING: usize = 64;

/// Largest body: the longest request names a few hundred initiators.
const BODY_MAX: usize = 1 << 20;

/// Who may use the socket: the daemon's user and group.
const SOCKET_MODE: u32 = 0o660;

type Asker = mpsc::Sender<Asked>;

/// Listens on the admin socket. One that a dead daemon left is replaced; a living one is not.
pub(crate) fn bind_admin(path: &FilePath) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(parent)?;
    }
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(io::Error::other(
                "there is a file with that name that is no socket",
            ));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::other("another daemon answers on it"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Serves the admin API until the runtime ends.
pub(crate) async fn serve_admin(listener: UnixListener, asker: Asker) {
    if let Err(error) = axum::serve(listener, admin(asker)).await {
        tracing::error!(%error, "the admin API has ended");
    }
}

/// Serves the metrics until the runtime ends.
pub(crate) async fn serve_metrics(listener: TcpListener, asker: Asker) {
    let metrics = |State(asker): State<Asker>| async move {
        match ask(&asker, Request::Metrics).await {
            Ok(text) => {
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
            }
            Err(refusal) => refused(&refusal),
        }
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .fallback(no_route)
        .with_state(asker);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the metrics endpoint has ended");
    }
}

fn admin(asker: Asker) -> Router {
    Router::new()
        .route("/v1/status", get(|s| simple(s, Request::Status)))
        .route(
            "/v1/volumes",
            get(|s| simple(s, Request::Volumes)).post(create),
        )
        .route("/v1/volumes/{name}", get(volume).delete(delete_volume))
        .route("/v1/volumes/{name}/access", put(access))
        .route("/v1/volumes/{name}/rejoin", post(rejoin_volume))
        .route("/v1/volumes/{name}/resolve", post(resolve))
        .route("/v1/volumes/{name}/force-activate", post(force_activate))
        .route(
            "/v1/volumes/{name}/replica",
            post(add_replica)
                .put(replace_replica)
                .delete(remove_replica),
        )
        .route(
            "/v1/node/maintenance",
            post(enter_maintenance).delete(leave_maintenance),
        )
        .route("/v1/events", get(events))
        .route("/v1/sessions", get(|s| simple(s, Request::Sessions)))
        .route("/v1/config", get(|s| simple(s, Request::Config)))
        .route("/v1/config/apply", post(|s| simple(s, Request::Apply)))
        .route(
            "/v1/accounts",
            get(|s| simple(s, Request::Accounts)).post(set_account),
        )
        .route("/v1/config/keep", post(|s| simple(s, Request::KeepConfig)))
        .route("/v1/accounts/{name}", delete(delete_account))
        .route("/v1/discovery", put(discovery))
        .route("/v1/witness", put(witness).delete(remove_witness))
        .route("/v1/volumes/{name}/strategy", put(strategy))
        .route("/v1/volumes/{name}/resync", put(priority))
        .route(
            "/v1/volumes/{name}/verify",
            post(verify).delete(stop_verifying),
        )
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(asker)
}

async fn ask(asker: &Asker, request: Request) -> Answer {
    let stopping = || {
        Refusal::new(
            Class::Unavailable,
            "the daemon",
            "it is stopping",
            "start it again and repeat",
        )
    };
    let (reply, answer) = oneshot::channel();
    asker
        .send(Asked { request, reply })
        .await
        .map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}

async fn simple(State(asker): State<Asker>, request: Request) -> Response {
    respond(ask(&asker, request).await)
}

async fn create(State(asker): State<Asker>, body: Bytes) -> Response {
    match parse(&body) {
        Ok(request) => {
            let mut response = respond(ask(&asker, Request::Create(request)).await);
            if response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::ACCEPTED;
            }
            response
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn volume(State(asker): State<Asker>, Path(name): Path<String>) -> Response {
    respond(ask(&asker, Request::Volume(name)).await)
}

async fn delete_volume(
    State(asker): State<Asker>,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let confirm = query.get("confirm").cloned().unwrap_or_default();
    respond(ask(&asker, Request::Delete { name, confirm }).await)
}

async fn rejoin_volume(State(asker): State<Asker>, Path(name): Path<String>) -> Response {
    respond(ask(&asker, Request::Rejoin { name }).await)
}

/// What a query says, or nothing.
fn said(query: &BTreeMap<String, String>, key: &str) -> String {
    query.get(key).cloned().unwrap_or_default()
}

async fn resolve(
    State(asker): State<Asker>,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let (keep, confirm) = (said(&query, "keep"), said(&query, "confirm"));
    let request = Request::Resolve {
        name,
        keep,
        confirm,
    };
    respond(ask(&asker, request).await)
}

async fn force_activate(
    State(asker): State<Asker>,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let (confirm, corrupt) = (said(&query, "confirm"), said(&query, "corrupt") == "true");
    let request = Request::Force {
        name,
        confirm,
        corrupt,
    };
    respond(ask(&asker, request).await)
}

async fn add_replica(
    State(asker): State<Asker>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    match parse::<ReplicaAt>(&body) {
        Ok(ReplicaAt { image, .. }) => {
            respond(ask(&asker, Request::AddReplica { name, image }).await)
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn replace_replica(
    State(asker): State<Asker>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    match parse::<ReplicaAt>(&body) {
        Ok(ReplicaAt { image, confirm }) => {
            let request = Request::ReplaceReplica {
                name,
                image,
                confirm,
            };
            respond(ask(&asker, request).await)
        }
        Err(refusal) => refused(&refusal),
    }
}

async fn remove_replica(
    State(asker): State<Asker>,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let (node, confirm) = (said(&query, "node"), said(&query, "confirm"));
    let request = Request::RemoveReplica {
        name,
        node,
        confirm,
    };
    respond(ask(&asker, request).await)
}

async fn enter_maintenance(State(asker): State<Asker>, body: Bytes) -> Response {
    match parse(&body) {
        Ok(wish) => respond(ask(&asker, Request::EnterMaintenance(wish)).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn leave_maintenance(
    asker: State<Asker>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    simple(asker, Request::LeaveMaintenance(said(&query, "node"))).await
}

async fn access(State(asker): State<Asker>, Path(name): Path<String>, body: Bytes) -> Response {
    match parse(&body) {
        Ok(access) => respond(ask(&asker, Request::SetAccess(name, access)).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn events(
    State(asker): State<Asker>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let after = match query.get("after").map(|text| text.parse()) {
        None => 0,
        Some(Ok(after)) => after,
        Some(Err(_)) => {
            let refusal = Refusal::new(
                Class::Bad,
                "after",
                "it is no number",
                "give the number of the last event that you have",
            );
            return refused(&refusal);
        }
    };
    respond(ask(&asker, Request::Events { after }).await)
}

async fn set_account(State(asker): State<Asker>, body: Bytes) -> Response {
    match parse(&body) {
        Ok(account) => respond(ask(&asker, Request::SetAccount(account)).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn delete_account(State(asker): State<Asker>, Path(name): Path<String>) -> Response {
    respond(ask(&asker, Request::DeleteAccount(name)).await)
}

async fn discovery(State(asker): State<Asker>, body: Bytes) -> Response {
    match parse(&body) {
        Ok(discovery) => respond(ask(&asker, Request::SetDiscovery(discovery)).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn witness(State(asker): State<Asker>, body: Bytes) -> Response {
    match parse(&body) {
        Ok(witness) => respond(ask(&asker, Request::SetWitness(witness)).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn remove_witness(asker: State<Asker>) -> Response {
    simple(asker, Request::RemoveWitness).await
}

async fn strategy(State(asker): State<Asker>, Path(name): Path<String>, body: Bytes) -> Response {
    match parse::<SetStrategy>(&body) {
        Ok(set) => respond(ask(&asker, Request::SetStrategy(name, set.strategy)).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn priority(State(asker): State<Asker>, Path(name): Path<String>, body: Bytes) -> Response {
    match parse::<SetPriority>(&body) {
        Ok(set) => respond(ask(&asker, Request::SetPriority(name, set.priority)).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn verify(State(asker): State<Asker>, Path(name): Path<String>, body: Bytes) -> Response {
    match parse::<StartVerify>(&body) {
        Ok(start) => respond(ask(&asker, Request::Verify(name, Some(start.repair))).await),
        Err(refusal) => refused(&refusal),
    }
}

async fn stop_verifying(State(asker): State<Asker>, Path(name): Path<String>) -> Response {
    respond(ask(&asker, Request::Verify(name, None)).await)
}

async fn no_route(uri: Uri) -> Response {
    refused(&Refusal::new(
        Class::Missing,
        format!("path {}", uri.path()),
        "there is no such thing",
        "begin with GET /v1/status",
    ))
}

async fn no_method(method: Method, uri: Uri) -> Response {
    let mut response = refused(&Refusal::new(
        Class::Bad,
        format!("path {}", uri.path()),
        format!("it does not take {method}"),
        "use the method that the operations manual names",
    ));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// Never repeats the body, for it may hold a secret: serde names fields and types only, and its
/// values are left out.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let why = if error.is_data() {
            format!("line {} column {}: {error}", error.line(), error.column())
        } else {
            format!(
                "it is no JSON (line {} column {})",
                error.line(),
                error.column()
            )
        };
        Refusal::new(
            Class::Bad,
            "the request's body",
            why,
            "send what the operations manual shows",
        )
    })
}

fn respond(answer: Answer) -> Response {
    match answer {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.class.status()).expect("five known ones");
    let json = serde_json::to_vec(&refusal.error).expect("three strings");
    (status, [(header::CONTENT_TYPE, "application/json")], json).into_response()
}

#[cfg(test)]
mod tests;
