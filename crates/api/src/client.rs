//! A small blocking client: one request, one connection, one answer. Made for a command line and
//! for tests; nothing is kept between requests.

use crate::error::ApiError;
use crate::node::{EnterMaintenance, MaintenanceState};
use crate::pool::{Account, Changed, PoolView, SetAccount, SetDiscovery, SetWitness};
use crate::resync::{Priority, SetPriority};
use crate::status::{Event, Session, Status};
use crate::verify::{Repair, StartVerify};
use crate::volume::{CreateVolume, ReplicaAt, SetAccess, SetStrategy, Strategy, Volume};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// A request that a living daemon has not answered by then never will be.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Largest answer that is read: a full page of events is far below it.
const ANSWER_LIMIT: usize = 16 << 20;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon answers on {}: {source}; start it (systemctl start lockstep), \
        or name its socket with --socket",
        socket.display()
    )]
    NotRunning {
        /// The socket that was tried.
        socket: PathBuf,
        /// What connecting brought.
        source: std::io::Error,
    },
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The connection broke, or what came is not what this version understands.
    #[error("the daemon's answer on {} cannot be used: {why}; compare `lockstep \
        --version` with the daemon's", socket.display())]
    Broken {
        /// The socket that was used.
        socket: PathBuf,
        /// In what way.
        why: String,
    },
}

/// Talks to the daemon behind one Unix socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Names the socket; nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The whole state in one answer.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status")
    }

    /// All volumes.
    pub fn volumes(&self) -> Result<Vec<Volume>, ClientError> {
        self.get("/v1/volumes")
    }

    /// One volume.
    pub fn volume(&self, name: &str) -> Result<Volume, ClientError> {
        self.get(&format!("/v1/volumes/{}", escape(name)))
    }

    /// Creates one; its provisioning goes on afterwards (`Volume::provisioning`).
    pub fn create_volume(&self, request: &CreateVolume) -> Result<Volume, ClientError> {
        self.send(Method::POST, "/v1/volumes", request)
    }

    /// Takes a volume out of the pool; its images stay. `confirm` must be its name once more.
    pub fn delete_volume(&self, name: &str, confirm: &str) -> Result<Changed, ClientError> {
        let path = format!("/v1/volumes/{}?confirm={}", escape(name), escape(confirm));
        self.request(Method::DELETE, &path, Bytes::new())
    }

    /// After a split brain: the copy of node `keep` (number or name) is the one, and what the other
    /// one wrote since they parted is lost. `confirm` must be the volume's name once more.
    pub fn resolve_volume(
        &self,
        name: &str,
        keep: &str,
        confirm: &str,
    ) -> Result<Changed, ClientError> {
        let path = format!(
            "/v1/volumes/{}/resolve?keep={}&confirm={}",
            escape(name),
            escape(keep),
            escape(confirm)
        );
        self.request(Method::POST, &path, Bytes::new())
    }

    /// This node's copy is served although nobody knows whether it is the newest; `corrupt`: even
    /// one in the middle of a resync. `confirm` must be the volume's name once more.
    pub fn force_activate(
        &self,
        name: &str,
        confirm: &str,
        corrupt: bool,
    ) -> Result<Volume, ClientError> {
        let path = format!(
            "/v1/volumes/{}/force-activate?confirm={}&corrupt={corrupt}",
            escape(name),
            escape(confirm)
        );
        self.request(Method::POST, &path, Bytes::new())
    }

    /// Lets the other node, which was put out for slowness, join again at once. To be asked of the
    /// node that serves alone.
    pub fn rejoin_volume(&self, name: &str) -> Result<Changed, ClientError> {
        let path = format!("/v1/volumes/{}/rejoin", escape(name));
        self.request(Method::POST, &path, Bytes::new())
    }

    /// A volume that has its only copy on this node gets one on the other node.
    pub fn add_replica(&self, name: &str, at: &ReplicaAt) -> Result<Changed, ClientError> {
        let path = format!("/v1/volumes/{}/replica", escape(name));
        self.send(Method::POST, &path, at)
    }

    /// This node's copy of a volume is replaced by a blank one.
    pub fn replace_replica(&self, name: &str, at: &ReplicaAt) -> Result<Changed, ClientError> {
        let path = format!("/v1/volumes/{}/replica", escape(name));
        self.send(Method::PUT, &path, at)
    }

    /// The other node's copy of a volume is given up; its image stays there.
    pub fn remove_replica(
        &self,
        name: &str,
        node: &str,
        confirm: &str,
    ) -> Result<Changed, ClientError> {
        let path = format!(
            "/v1/volumes/{}/replica?node={}&confirm={}",
            escape(name),
            escape(node),
            escape(confirm)
        );
        self.request(Method::DELETE, &path, Bytes::new())
    }

    /// This node begins to hand its volumes to the partner; the status tells when that is done.
    pub fn enter_maintenance(
        &self,
        wish: &EnterMaintenance,
    ) -> Result<MaintenanceState, ClientError> {
        self.send(Method::POST, "/v1/node/maintenance", wish)
    }

    /// This node serves again. `node`: the one that is meant; empty: the one that is asked.
    pub fn leave_maintenance(&self, node: &str) -> Result<MaintenanceState, ClientError> {
        let path = format!("/v1/node/maintenance?node={}", escape(node));
        self.request(Method::DELETE, &path, Bytes::new())
    }

    /// Replaces whom a volume lets in.
    pub fn set_access(&self, name: &str, access: &SetAccess) -> Result<Changed, ClientError> {
        self.send(
            Method::PUT,
            &format!("/v1/volumes/{}/access", escape(name)),
            access,
        )
    }

    /// Events with a number above `after`, oldest first, a bounded number of them.
    pub fn events(&self, after: u64) -> Result<Vec<Event>, ClientError> {
        self.get(&format!("/v1/events?after={after}"))
    }

    /// Open iSCSI sessions of this node.
    pub fn sessions(&self) -> Result<Vec<Session>, ClientError> {
        self.get("/v1/sessions")
    }

    /// The pool configuration, secrets masked.
    pub fn config(&self) -> Result<PoolView, ClientError> {
        self.get("/v1/config")
    }

    /// Puts the hand-edited pool file in force, on both nodes or neither.
    pub fn apply_config(&self) -> Result<Changed, ClientError> {
        self.request(Method::POST, "/v1/config/apply", Bytes::new())
    }

    /// After two nodes changed the pool configuration apart: this node's is the one.
    pub fn keep_config(&self) -> Result<Changed, ClientError> {
        self.request(Method::POST, "/v1/config/keep", Bytes::new())
    }

    /// All accounts, without secrets.
    pub fn accounts(&self) -> Result<Vec<Account>, ClientError> {
        self.get("/v1/accounts")
    }

    /// Makes an account or changes its secret.
    pub fn set_account(&self, account: &SetAccount) -> Result<Changed, ClientError> {
        self.send(Method::POST, "/v1/accounts", account)
    }

    /// Removes an account that nothing uses.
    pub fn delete_account(&self, name: &str) -> Result<Changed, ClientError> {
        self.request(
            Method::DELETE,
            &format!("/v1/accounts/{}", escape(name)),
            Bytes::new(),
        )
    }

    /// Says which accounts open discovery.
    pub fn set_discovery(&self, discovery: &SetDiscovery) -> Result<Changed, ClientError> {
        self.send(Method::PUT, "/v1/discovery", discovery)
    }

    /// Says which machine is the witness.
    pub fn set_witness(&self, witness: &SetWitness) -> Result<Changed, ClientError> {
        self.send(Method::PUT, "/v1/witness", witness)
    }

    /// The pair has no witness any more.
    pub fn remove_witness(&self) -> Result<Changed, ClientError> {
        self.request(Method::DELETE, "/v1/witness", Bytes::new())
    }

    /// Changes who decides when the nodes do not see each other.
    pub fn set_strategy(&self, name: &str, strategy: Strategy) -> Result<Changed, ClientError> {
        let path = format!("/v1/volumes/{}/strategy", escape(name));
        self.send(Method::PUT, &path, &SetStrategy { strategy })
    }

    /// Changes how much resyncs of a volume may take from initiators; `None`: what each node's
    /// configuration says.
    pub fn set_priority(
        &self,
        name: &str,
        priority: Option<Priority>,
    ) -> Result<Changed, ClientError> {
        let path = format!("/v1/volumes/{}/resync", escape(name));
        self.send(Method::PUT, &path, &SetPriority { priority })
    }

    /// Has both copies of a volume compared.
    pub fn verify_volume(&self, name: &str, repair: Repair) -> Result<Changed, ClientError> {
        let path = format!("/v1/volumes/{}/verify", escape(name));
        self.send(Method::POST, &path, &StartVerify { repair })
    }

    /// Ends that early.
    pub fn stop_verifying(&self, name: &str) -> Result<Changed, ClientError> {
        let path = format!("/v1/volumes/{}/verify", escape(name));
        self.request(Method::DELETE, &path, Bytes::new())
    }

    /// GET of any path.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, Bytes::new())
    }

    fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let json = serde_json::to_vec(body).expect("the API's types have string keys only");
        self.request(method, path, Bytes::from(json))
    }

    fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.broken(&error))?;
        let (status, answer) = runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, self.exchange(method, path, body))
                .await
                .unwrap_or_else(|_| Err(self.broken(&"no answer within 60 s")))
        })?;
        if status.is_success() {
            serde_json::from_slice(&answer).map_err(|error| self.broken(&error))
        } else {
            let refusal: ApiError = serde_json::from_slice(&answer)
                .map_err(|_| self.broken(&format_args!("HTTP status {status}")))?;
            Err(refusal.into())
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::NotRunning {
                    socket: self.socket.clone(),
                    source,
                })?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|error| self.broken(&error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "lockstep")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| self.broken(&error))?;
        Ok((status, answer.to_bytes()))
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            why: why.to_string(),
        }
    }
}

/// Percent-encodes whatever is not plainly allowed in a path or a query value.
fn escape(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Answers one request with these bytes; gives back the request's first line.
    fn serve_once(socket: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            text.lines().next().unwrap().to_owned()
        })
    }

    fn socket(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("lockstep-client-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn a_refusal_comes_back_as_it_was_said() {
        let path = socket("refusal");
        let server = serve_once(
            &path,
            "HTTP/1.1 404 Not Found\r\ncontent-length: 54\r\n\r\n{\"what\":\"volume \
            a b\",\"why\":\"unknown\",\"do\":\"list them\"}",
        );
        let error = Client::new(&path).volume("a b").unwrap_err();
        assert_eq!(server.join().unwrap(), "GET /v1/volumes/a%20b HTTP/1.1");
        assert_eq!(error.to_string(), "volume a b: unknown; list them");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_missing_daemon_and_a_foreign_server_are_told_apart() {
        let path = socket("missing");
        assert!(matches!(
            Client::new(&path).status(),
            Err(ClientError::NotRunning { .. })
        ));
        let server = serve_once(&path, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
        assert!(matches!(
            Client::new(&path).status(),
            Err(ClientError::Broken { .. })
        ));
        server.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
