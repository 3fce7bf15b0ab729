//! Whether full-size frames pass over a link that carries data. Where they do not, small frames
//! still do: heartbeats come, connections are made, and the first large write hangs. So as soon as
//! a path works each node sends the partner one datagram as large as its interface's frames, which
//! may not be cut in pieces, and a small one, and the partner says which of them came.
//!
//! It is a finding for the operator and nothing is decided by it; so it carries no MAC: it is
//! taken from the partner's address only, and with the number of our own question.

use crate::config::ControlPath;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

/// The two datagrams are sent so often before what was not answered counts as lost: one may be
/// dropped for another reason.
const TRIES: u32 = 4;

/// An answer comes within this, or not at all: links are local networks.
const PATIENCE: Duration = Duration::from_millis(250);

/// Pause before an address that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What a datagram begins with.
const MAGIC: &[u8; 8] = b"LOCKMTU1";
const ASK: u8 = 1;
const ANSWER: u8 = 2;
/// Magic, type, three zeroes, number of the question (8), MTU of the sender (4), and in an answer
/// the length of the datagram that came (4).
const LENGTH: usize = 28;

/// Largest frame that IP knows.
const LARGEST: u32 = 65_535;

/// What was found on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Largest frame that our interface sends.
    pub(crate) ours: u32,
    /// The same at the other end, as the partner says.
    pub(crate) theirs: u32,
    /// One of that size got there.
    pub(crate) passes: bool,
}

/// Answers the partner, and asks it each time that `again` says so, until the runtime ends.
pub(crate) async fn watch(ends: ControlPath, again: Arc<Notify>, out: impl AsyncFn(Finding)) {
    let socket = loop {
        match bind(&ends).await {
            Ok(socket) => break Arc::new(socket),
            Err(error) => {
                tracing::warn!(%error, address = %ends.local, "full-size frames are not checked");
                sleep(RETRY).await;
            }
        }
    };
    let (answers, mut answered) = mpsc::channel(8);
    tokio::spawn(listen(Arc::clone(&socket), ends.remote, answers));
    let mut number = 0;
    loop {
        again.notified().await;
        number += 1;
        if let Some(finding) = ask(&socket, ends.remote, number, &mut answered).await {
            out(finding).await;
        }
    }
}

/// A socket whose datagrams are never cut in pieces, whatever the kernel has heard of the path.
async fn bind(ends: &ControlPath) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(ends.local).await?;
    if ends.local.is_ipv4() {
        sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    } else {
        sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
    }
    Ok(socket)
}

/// What the partner said of a question.
struct Answer {
    number: u64,
    mtu: u32,
    came: u32,
}

/// Answers what the partner asks, and hands on what it answers.
async fn listen(socket: Arc<UdpSocket>, partner: SocketAddr, answers: mpsc::Sender<Answer>) {
    let mut buffer = vec![0; LARGEST as usize];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // A port that was closed when we sent; the next one may be open.
            sleep(PATIENCE).await;
            continue;
        };
        let Some((kind, number, mtu, came)) = parse(&buffer[..length]) else {
            continue;
        };
        if from.ip() != partner.ip() {
            continue;
        }
        if kind == ASK {
            let mine = largest_frame(&socket, from).await.unwrap_or(0);
            let length = u32::try_from(length).unwrap_or(0);
            let answer = datagram(ANSWER, number, mine, length);
            // Lost like any other.
            let _ = socket.send_to(&answer, from).await;
        } else if kind == ANSWER {
            // Nobody waits any more.
            let _ = answers.try_send(Answer { number, mtu, came });
        }
    }
}

async fn ask(
    socket: &UdpSocket,
    partner: SocketAddr,
    number: u64,
    answers: &mut mpsc::Receiver<Answer>,
) -> Option<Finding> {
    let ours = largest_frame(socket, partner).await?;
    let full = (ours - headers(partner)) as usize;
    let small = datagram(ASK, number, ours, 0);
    let mut large = small.clone();
    large.resize(full, 0);
    let mut finding = None;
    for _ in 0..TRIES {
        for bytes in [&large, &small] {
            // A device that is gone, or a full queue: as if it were lost.
            let _ = socket.send_to(bytes, partner).await;
        }
        let until = Instant::now() + PATIENCE;
        while let Ok(Some(answer)) = timeout_at(until, answers.recv()).await {
            if answer.number != number {
                continue;
            }
            let passes = answer.came as usize == full;
            finding = Some(Finding {
                ours,
                theirs: answer.mtu,
                passes,
            });
            if passes {
                return finding;
            }
        }
    }
    finding
}

/// Bytes before the payload of a datagram.
fn headers(to: SocketAddr) -> u32 {
    if to.is_ipv4() { 20 + 8 } else { 40 + 8 }
}

/// The MTU of the interface that leads there: the largest of all MTUs of this machine for which
/// the kernel does not refuse a datagram as too long for the device.
async fn largest_frame(socket: &UdpSocket, to: SocketAddr) -> Option<u32> {
    let mut known: Vec<u32> = std::fs::read_dir("/sys/class/net")
        .ok()?
        .flatten()
        .filter_map(|it| std::fs::read_to_string(it.path().join("mtu")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .map(|mtu: u32| mtu.min(LARGEST))
        .collect();
    known.sort_unstable();
    known.dedup();
    let room = headers(to) + u32::try_from(LENGTH).expect("small");
    for mtu in known.into_iter().rev().filter(|mtu| *mtu >= room) {
        let bytes = vec![0; (mtu - headers(to)) as usize];
        match socket.send_to(&bytes, to).await {
            Err(error) if error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) => {}
            _ => return Some(mtu),
        }
    }
    None
}

fn datagram(kind: u8, number: u64, mtu: u32, came: u32) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([kind, 0, 0, 0]);
    bytes.extend(number.to_be_bytes());
    bytes.extend(mtu.to_be_bytes());
    bytes.extend(came.to_be_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Option<(u8, u64, u32, u32)> {
    let (head, _) = bytes.split_first_chunk::<LENGTH>()?;
    let (magic, rest) = head.split_at(8);
    let number = |from: usize, to: usize| {
        let digits = rest[from..to].iter();
        digits.fold(0, |number, digit| number << 8 | u64::from(*digit))
    };
    let small = |from| u32::try_from(number(from, from + 4)).ok();
    (magic == MAGIC && rest[1..4] == [0; 3])
        .then_some(())
        .and_then(|()| Some((rest[0], number(4, 12), small(12)?, small(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_read_as_they_were_written() {
        let bytes = datagram(ANSWER, 0x1234_5678_9abc_def0, 9000, 8972);
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(
            parse(&bytes),
            Some((ANSWER, 0x1234_5678_9abc_def0, 9000, 8972))
        );
        let mut longer = bytes.clone();
        longer.resize(8972, 0);
        assert_eq!(parse(&longer), parse(&bytes));
        for damaged in 0..12 {
            let mut bytes = bytes.clone();
            bytes[damaged] ^= 1;
            let kind = parse(&bytes).map(|it| it.0);
            assert!(kind.is_none_or(|kind| damaged == 8 && kind != ANSWER));
        }
        assert_eq!(parse(&bytes[..LENGTH - 1]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn two_ends_of_loopback_find_that_its_largest_frames_pass() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let free = || {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.local_addr().unwrap()
            };
            let ends = [free(), free()];
            let (found, mut findings) = mpsc::channel(8);
            let notify = [(); 2].map(|()| Arc::new(Notify::new()));
            for side in 0..2 {
                let path = ControlPath {
                    sync: true,
                    local: ends[side],
                    remote: ends[1 - side],
                };
                let found = found.clone();
                let again = Arc::clone(&notify[side]);
                tokio::spawn(watch(path, again, async move |finding| {
                    found.send((side, finding)).await.unwrap();
                }));
            }
            sleep(Duration::from_millis(50)).await;
            for (side, again) in notify.iter().enumerate() {
                again.notify_one();
                let (from, finding) = findings.recv().await.unwrap();
                assert_eq!(from, side);
                assert!(finding.passes, "{finding:?}");
                assert_eq!(finding.ours, finding.theirs);
                assert!(finding.ours >= 16_384, "{finding:?}");
            }
        });
    }
}
