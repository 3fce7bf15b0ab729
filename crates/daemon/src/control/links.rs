//! The TCP connections that carry heartbeats and control frames: one a path, dialed by node 1,
//! accepted by node 2, dialed again as soon as they end. They only move bytes, and tell the
//! control thread what came and what went.
//!
//! After a cut the partner must be heard again before anybody goes alone. So a dial is short and
//! each has a socket of its own: the kernel repeats what was lost only after pauses that double,
//! but sends the first packet of a new connection at once.

use crate::config::ControlPath;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Two attempts to reach the partner begin at least so far apart.
const REDIAL: Duration = Duration::from_millis(250);

/// An address that has not answered by then is asked once more, from another socket. Links are local
/// networks; the kernel itself would repeat its question only after a second.
const DIAL_EVERY: Duration = Duration::from_millis(300);

/// How long an address may take to answer: a link may have become very slow.
const DIAL_TIMEOUT: Duration = Duration::from_millis(1500);

/// A witness may be far away.
const WITNESS_DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What was queued when a link is closed here has so long to leave. A kernel whose buffer is full
/// takes nothing, and the next link must not wait for it.
const CLOSE_GRACE: Duration = Duration::from_millis(100);

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

/// Where a link's bytes are sent; dropping it closes the link.
#[derive(Debug)]
pub(crate) struct LinkSender {
    pub(crate) link: u32,
    frames: mpsc::UnboundedSender<Vec<u8>>,
    /// Dropped with it, which tells the link's task even while its socket takes nothing.
    _open: oneshot::Sender<()>,
    /// Bounds `frames`, which has no bound of its own because sending must not wait.
    unsent: Arc<AtomicUsize>,
    /// Tells the task that dialed it.
    renew: Option<oneshot::Sender<()>>,
}

impl LinkSender {
    /// Queues bytes; `false`: the link is gone, or the partner does not read.
    pub(crate) fn send(&self, bytes: Vec<u8>) -> bool {
        let length = bytes.len();
        let waiting = self.unsent.fetch_add(length, Ordering::Relaxed);
        waiting + length <= UNSENT_MAX && self.frames.send(bytes).is_ok()
    }

    /// Has another link dialed beside it, if it was dialed here.
    pub(crate) fn renew(&mut self) {
        if let Some(renew) = self.renew.take() {
            // Without a receiver the link has ended, and is dialed anew for that.
            let _ = renew.send(());
        }
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
                    run(stream, path, None, &numbers, &out).await;
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

/// Keeps one link of a path connected until the runtime ends, and more than one for the time in
/// which an old one is renewed.
pub(crate) async fn dial(
    path: usize,
    ends: ControlPath,
    numbers: LinkNumbers,
    out: mpsc::Sender<LinkInput>,
) {
    loop {
        let next = Instant::now() + REDIAL;
        match connect(&ends).await {
            Ok(stream) => {
                let (renew, renewed) = oneshot::channel();
                let (numbers, out) = (numbers.clone(), out.clone());
                let link = tokio::spawn(async move {
                    run(stream, path, Some(renew), &numbers, &out).await;
                });
                tokio::select! {
                    _ = link => {}
                    // It goes on by itself until it is closed.
                    Ok(()) = renewed => {}
                }
            }
            Err(error) => {
                let why = error.to_string();
                if out.send(LinkInput::DialFailed { path, why }).await.is_err() {
                    return;
                }
            }
        }
        sleep_until(next).await;
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
        let connected = timeout(WITNESS_DIAL_TIMEOUT, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(no_answer(WITNESS_DIAL_TIMEOUT))) {
            Ok(stream) => run(stream, path, None, &numbers, &out).await,
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
                    run(stream, 0, None, &numbers, &out).await;
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

fn no_answer(within: Duration) -> io::Error {
    let text = format!("no answer within {} ms", within.as_millis());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// The first answer to several questions: a new one each [`DIAL_EVERY`], all of which are given up
/// with the oldest one.
async fn connect(ends: &ControlPath) -> io::Result<TcpStream> {
    let mut questions = JoinSet::new();
    loop {
        let (local, remote) = (ends.local.ip(), ends.remote);
        questions.spawn(ask(local, remote));
        let answer = timeout(DIAL_EVERY, questions.join_next());
        if let Ok(Some(answer)) = answer.await {
            return answer.unwrap_or_else(|error| Err(io::Error::other(error)));
        }
    }
}

async fn ask(local: IpAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if local.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // From our own address of that link, so that it really is that link.
    socket.bind(SocketAddr::new(local, 0))?;
    timeout(DIAL_TIMEOUT, socket.connect(remote))
        .await
        .unwrap_or_else(|_| Err(no_answer(DIAL_TIMEOUT)))
}

async fn run(
    stream: TcpStream,
    path: usize,
    renew: Option<oneshot::Sender<()>>,
    numbers: &LinkNumbers,
    out: &mpsc::Sender<LinkInput>,
) {
    let link = numbers.0.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a link that is gone already");
        return;
    }
    let (read, write) = stream.into_split();
    let (frames, queue) = mpsc::unbounded_channel();
    let (open, closed) = oneshot::channel();
    let unsent = Arc::new(AtomicUsize::new(0));
    let sender = LinkSender {
        link,
        frames,
        _open: open,
        unsent: Arc::clone(&unsent),
        renew,
    };
    if out.send(LinkInput::Up { path, sender }).await.is_err() {
        return;
    }
    let why = tokio::select! {
        why = receive(link, read, out) => why,
        why = transmit(write, queue, &unsent) => why,
        why = given_up(closed) => why,
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

/// Ends a while after the link was closed here.
async fn given_up(closed: oneshot::Receiver<()>) -> String {
    // Nothing is ever sent on it.
    let _ = closed.await;
    sleep(CLOSE_GRACE).await;
    "closed here".into()
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
    fn a_link_whose_socket_takes_nothing_does_not_hold_up_the_next_one() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let deaf = TcpListener::bind(free_port()).await.unwrap();
            let near = ControlPath {
                sync: true,
                local: free_port(),
                remote: deaf.local_addr().unwrap(),
            };
            let (out, mut inputs) = mpsc::channel(8);
            tokio::spawn(dial(0, near, LinkNumbers::default(), out));
            let first = up(&mut inputs).await;
            // Accepted, never read: the kernels' buffers fill, and the rest waits here.
            let _unread = deaf.accept().await.unwrap();
            assert!(first.send(vec![0; UNSENT_MAX]));
            tokio::task::yield_now().await;
            let number = first.link;
            drop(first);
            assert!(matches!(
                inputs.recv().await.unwrap(),
                LinkInput::Down { link, .. } if link == number
            ));
            assert_ne!(up(&mut inputs).await.link, number);
        });
    }

    #[test]
    fn a_partner_that_does_not_read_is_found_out() {
        let (frames, _queue) = mpsc::unbounded_channel();
        let sender = LinkSender {
            link: 0,
            frames,
            _open: oneshot::channel().0,
            unsent: Arc::new(AtomicUsize::new(0)),
            renew: None,
        };
        assert!(sender.send(vec![0; UNSENT_MAX]));
        assert!(!sender.send(vec![0]));
    }
}
