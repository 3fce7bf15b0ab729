//! The TCP connections that carry heartbeats and control frames: one a path, dialed by node 1,
//! accepted by node 2, dialed again 500 ms after they end. They only move bytes, and tell the
//! control thread what came and what went.

use crate::config::ControlPath;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

/// Time between two attempts to reach the partner.
const REDIAL: Duration = Duration::from_millis(500);

/// An address that has not answered by then will not: links are local networks.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Heartbeats come several times a second; a link without a byte for so long is dead or foreign.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Links of one path at the same time: the partner has one, and one more while it reconnects;
/// the rest bounds what strangers can hold.
const ACCEPTED_MAX: usize = 8;

/// Connections to a witness at the same time: two nodes of more pairs than one machine witnesses
/// for, and room for strangers, whom the witness closes.
const WITNESS_ACCEPTED_MAX: usize = 512;

/// Bytes that wait to be sent. A partner that leaves so much unread does not read at all.
const UNSENT_MAX: usize = 8 << 20;

/// One read from a socket.
const READ_BYTES: usize = 16 << 10;

/// What happened on a link, in order.
#[derive(Debug)]
pub(crate) enum LinkInput {
    /// It is connected.
    Up { path: usize, sender: LinkSender },
    /// These bytes came, in this order.
    Bytes { link: u32, bytes: Vec<u8> },
    /// It is gone; once for each `Up`.
    Down { link: u32, why: String },
    /// The partner could not be reached on this path.
    DialFailed { path: usize, why: String },
}

/// Where a link's bytes are sent; dropping it closes the link once everything was sent.
#[derive(Debug)]
pub(crate) struct LinkSender {
    pub(crate) link: u32,
    frames: mpsc::UnboundedSender<Vec<u8>>,
    /// Bounds `frames`, which has no bound of its own because sending must not wait.
    unsent: Arc<AtomicUsize>,
}

impl LinkSender {
    /// Queues bytes; `false`: the link is gone, or the partner does not read.
    pub(crate) fn send(&self, bytes: Vec<u8>) -> bool {
        let length = bytes.len();
        let waiting = self.unsent.fetch_add(length, Ordering::Relaxed);
        waiting + length <= UNSENT_MAX && self.frames.send(bytes).is_ok()
    }
}

/// Gives every link of this run its own number.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkNumbers(Arc<AtomicU32>);

/// Listens on our end of a path.
pub(crate) async fn listen(path: &ControlPath) -> io::Result<TcpListener> {
    TcpListener::bind(path.local).await
}

/// Accepts links of one path until the runtime ends.
pub(crate) async fn accept(
    listener: TcpListener,
    path: usize,
    expected: SocketAddr,
    numbers: LinkNumbers,
    out: mpsc::Sender<LinkInput>,
) {
    let room = Arc::new(Semaphore::new(ACCEPTED_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) if peer.ip() == expected.ip() => {
                let (numbers, out) = (numbers.clone(), out.clone());
                tokio::spawn(async move {
                    run(stream, path, &numbers, &out).await;
                    drop(permit);
                });
            }
            Ok((_, peer)) => tracing::debug!(%peer, "not the partner's address: closed"),
            Err(error) => {
                tracing::warn!(%error, "a control link was not accepted");
                sleep(REDIAL).await;
            }
        }
    }
}

/// Keeps one link of a path connected until the runtime ends.
pub(crate) async fn dial(
    path: usize,
    ends: ControlPath,
    numbers: LinkNumbers,
    out: mpsc::Sender<LinkInput>,
) {
    loop {
        match connect(&ends).await {
            Ok(stream) => run(stream, path, &numbers, &out).await,
            Err(error) => {
                let why = error.to_string();
                if out.send(LinkInput::DialFailed { path, why }).await.is_err() {
                    return;
                }
            }
        }
        sleep(REDIAL).await;
    }
}

/// As [`dial`], to a witness, from whatever address leads there.
pub(crate) async fn dial_witness(
    path: usize,
    address: SocketAddr,
    numbers: LinkNumbers,
    out: mpsc::Sender<LinkInput>,
) {
    loop {
        let connected = timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(no_answer())) {
            Ok(stream) => run(stream, path, &numbers, &out).await,
            Err(error) => {
                let why = error.to_string();
                if out.send(LinkInput::DialFailed { path, why }).await.is_err() {
                    return;
                }
            }
        }
        sleep(REDIAL).await;
    }
}

/// Accepts links from anywhere until the runtime ends: what the nodes of many pairs dial.
pub(crate) async fn accept_all(
    listener: TcpListener,
    numbers: LinkNumbers,
    out: mpsc::Sender<LinkInput>,
) {
    let room = Arc::new(Semaphore::new(WITNESS_ACCEPTED_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (numbers, out) = (numbers.clone(), out.clone());
                tokio::spawn(async move {
                    run(stream, 0, &numbers, &out).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(REDIAL).await;
            }
        }
    }
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer within 2 s")
}

async fn connect(ends: &ControlPath) -> io::Result<TcpStream> {
    let socket = if ends.local.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // From our own address of that link, so that it really is that link.
    socket.bind(SocketAddr::new(ends.local.ip(), 0))?;
    timeout(DIAL_TIMEOUT, socket.connect(ends.remote))
        .await
        .unwrap_or_else(|_| Err(no_answer()))
}

async fn run(stream: TcpStream, path: usize, numbers: &LinkNumbers, out: &mpsc::Sender<LinkInput>) {
    let link = numbers.0.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a link that is gone already");
        return;
    }
    let (read, write) = stream.into_split();
    let (frames, queue) = mpsc::unbounded_channel();
    let unsent = Arc::new(AtomicUsize::new(0));
    let sender = LinkSender {
        link,
        frames,
        unsent: Arc::clone(&unsent),
    };
    if out.send(LinkInput::Up { path, sender }).await.is_err() {
        return;
    }
    let why = tokio::select! {
        why = receive(link, read, out) => why,
        why = transmit(write, queue, &unsent) => why,
    };
    // If nobody listens any more, the daemon is stopping.
    let _ = out.send(LinkInput::Down { link, why }).await;
}

async fn receive(link: u32, mut read: OwnedReadHalf, out: &mpsc::Sender<LinkInput>) -> String {
    loop {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        match timeout(READ_TIMEOUT, read.read_buf(&mut bytes)).await {
            Ok(Ok(0)) => return "the partner closed the connection".into(),
            Ok(Ok(_)) => {
                if out.send(LinkInput::Bytes { link, bytes }).await.is_err() {
                    return "this daemon is stopping".into();
                }
            }
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "nothing came for 10 s".into(),
        }
    }
}

async fn transmit(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    unsent: &AtomicUsize,
) -> String {
    while let Some(bytes) = queue.recv().await {
        if let Err(error) = write.write_all(&bytes).await {
            return error.to_string();
        }
        unsent.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
    "closed here".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_port() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    async fn up(inputs: &mut mpsc::Receiver<LinkInput>) -> LinkSender {
        loop {
            match inputs.recv().await.unwrap() {
                LinkInput::Up { sender, .. } => return sender,
                LinkInput::DialFailed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn bytes_cross_and_a_closed_link_is_dialed_again() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (here, there) = (free_port(), free_port());
            let near = ControlPath {
                sync: true,
                local: here,
                remote: there,
            };
            let far = ControlPath {
                sync: true,
                local: there,
                remote: here,
            };
            let (near_out, mut near_in) = mpsc::channel(8);
            let (far_out, mut far_in) = mpsc::channel(8);
            tokio::spawn(dial(0, near, LinkNumbers::default(), near_out));
            let listener = listen(&far).await.unwrap();
            tokio::spawn(accept(
                listener,
                0,
                far.remote,
                LinkNumbers::default(),
                far_out,
            ));
            let dialed = up(&mut near_in).await;
            let accepted = up(&mut far_in).await;
            assert!(dialed.send(b"hello".to_vec()));
            let LinkInput::Bytes { bytes, .. } = far_in.recv().await.unwrap() else {
                panic!()
            };
            assert_eq!(bytes, b"hello");
            drop(accepted);
            assert!(matches!(
                far_in.recv().await.unwrap(),
                LinkInput::Down { .. }
            ));
            assert!(matches!(
                near_in.recv().await.unwrap(),
                LinkInput::Down { .. }
            ));
            assert_ne!(up(&mut near_in).await.link, dialed.link);
        });
    }

    #[test]
    fn a_partner_that_does_not_read_is_found_out() {
        let (frames, _queue) = mpsc::unbounded_channel();
        let sender = LinkSender {
            link: 0,
            frames,
            unsent: Arc::new(AtomicUsize::new(0)),
        };
        assert!(sender.send(vec![0; UNSENT_MAX]));
        assert!(!sender.send(vec![0]));
    }
}
