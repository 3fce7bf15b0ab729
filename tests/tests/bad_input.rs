//! Whatever strangers send: others are served, memory stays bounded, the log stays short.
#![expect(
    clippy::unwrap_used,
    reason = "a test speaks by failing, and prints what it measured"
)]

use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::multipath::Options;
use lockstep_initiator::core::wire::{Digests, FINAL, Framer, HEADER_LEN, Header, NO_TAG, opcode};
use lockstep_initiator::load::Load;
use lockstep_tests::pair::{Pair, SIZE};
use lockstep_tests::{LUN, content, wait_for};
use rustix::net::{self, AddressFamily, SocketType};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A node may grow by so much under abuse (KiB), beyond what it has taken before.
const GROWTH_KIB: u64 = 64 << 10;
/// One line a kind of abuse and a few for what the test itself does.
const LINES: usize = 20;

/// What the node was before, to be compared with what it is after.
struct Before {
    memory_kib: u64,
    lines: usize,
}

impl Before {
    fn look(pair: &Pair) -> Self {
        Self {
            memory_kib: pair.nodes[0].memory_kib(),
            lines: pair.nodes[0].log().lines().count(),
        }
    }

    /// The node serves, and has neither grown nor talked much.
    fn compare(&self, pair: &mut Pair) {
        assert!(
            pair.nodes[0].runs(),
            "the daemon died:\n{}",
            pair.nodes[0].log()
        );
        let mut client = pair.login(0).expect("others are served");
        let reply = client
            .run_past_attentions(&Command::read(LUN, 0, 8, 4096))
            .expect("others are served");
        assert_eq!((reply.status, reply.data.len()), (0, 4096));
        client.logout().expect("others are served");
        let grown = pair.nodes[0].memory_kib().saturating_sub(self.memory_kib);
        assert!(grown < GROWTH_KIB, "the daemon grew by {grown} KiB");
        let log = pair.nodes[0].log();
        let new: Vec<&str> = log.lines().skip(self.lines).collect();
        assert!(
            new.len() <= LINES,
            "{} new lines in the log:\n{}",
            new.len(),
            new.join("\n")
        );
    }
}

/// Sends bytes and reads until the node closes, at most so long; true: it closed.
fn send(portal: SocketAddr, bytes: &[u8], limit: Duration) -> bool {
    let mut stream = TcpStream::connect(portal).expect("the portal is open");
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a socket has a timeout");
    let _ = stream.write_all(bytes);
    let start = Instant::now();
    let mut answer = [0; 4096];
    while start.elapsed() < limit {
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return true,
            _ => {}
        }
    }
    false
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
        };
        (0..len).map(|_| next()).collect()
    }
}

fn login_pdu(text: &[u8]) -> Vec<u8> {
    let header = Header {
        opcode: opcode::LOGIN | opcode::IMMEDIATE,
        flags: FINAL | 1 << 2 | 3,
        lun: [0x80, 0, 0, 0, 0, 9, 0, 0],
        ..Header::default()
    };
    let mut bytes = Vec::new();
    lockstep_initiator::core::wire::encode(header, text, Default::default(), &mut bytes);
    bytes
}

#[test]
fn random_bytes_end_their_own_connection_only() {
    let mut pair = Pair::with_volume("random");
    let before = Before::look(&pair);
    let mut random = Random(42);
    for round in 0..300 {
        let len = 1 + round * 7;
        let mut bytes = random.bytes(len);
        if round % 3 == 0 && len > 8 {
            // A valid opcode and length lead deeper in.
            bytes[0] = opcode::LOGIN | opcode::IMMEDIATE;
            (bytes[4], bytes[5]) = (0, 0);
        }
        let mut stream = TcpStream::connect(pair.nodes[0].portal).unwrap();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    before.compare(&mut pair);
}

#[test]
fn a_line_feed_and_a_close_leave_no_trace() {
    let mut pair = Pair::with_volume("linefeed");
    let before = Before::look(&pair);
    for _ in 0..100 {
        let mut stream = TcpStream::connect(pair.nodes[0].portal).unwrap();
        stream.write_all(b"\n").unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    let lines = pair.nodes[0].log().lines().count();
    assert_eq!(lines, before.lines, "{}", pair.nodes[0].log());
    before.compare(&mut pair);
}

#[test]
fn truncated_and_oversized_pdus_are_the_end_of_the_connection() {
    let mut pair = Pair::with_volume("pdus");
    let before = Before::look(&pair);
    let portal = pair.nodes[0].portal;
    let limit = Duration::from_secs(20);
    let good = login_pdu(
        format!(
            "InitiatorName=iqn.2026-11.test:x\0TargetName={}\0",
            pair.target
        )
        .as_bytes(),
    );
    // Cut anywhere and closed.
    for cut in (1..good.len()).step_by(5) {
        let mut stream = TcpStream::connect(portal).unwrap();
        stream.write_all(&good[..cut]).unwrap();
    }
    // A data segment of 16 MiB, and additional headers of 1020 bytes, before login.
    let mut long = good.clone();
    (long[5], long[6], long[7]) = (0xff, 0xff, 0xff);
    assert!(
        send(portal, &long, limit),
        "a data segment of 16 MiB in a login is refused"
    );
    let mut headers = good;
    headers[4] = 0xff;
    headers.resize(headers.len() + 2048, 0x41);
    assert!(
        send(portal, &headers, limit),
        "additional headers in a login are refused"
    );
    // Login text that never ends.
    let mut endless = login_pdu(&[b'a'; 8000]);
    endless[1] = 0x40 | 1 << 2;
    assert!(
        send(portal, &endless.repeat(40), limit),
        "endless login text is refused"
    );
    // A command before login.
    let header = Header {
        opcode: opcode::SCSI_COMMAND,
        flags: FINAL,
        ..Header::default()
    };
    assert!(
        send(portal, &bytes_of(&header), limit),
        "a command before login is refused"
    );
    before.compare(&mut pair);
}

fn bytes_of(header: &Header) -> Vec<u8> {
    let mut bytes = Vec::new();
    lockstep_initiator::core::wire::encode(*header, &[], Default::default(), &mut bytes);
    bytes
}

#[test]
fn a_login_that_takes_its_time_is_closed_while_others_work() {
    let mut pair = Pair::with_volume("slow");
    let before = Before::look(&pair);
    let portal = pair.nodes[0].portal;
    let bytes = login_pdu(b"InitiatorName=iqn.2026-11.test:slow\0");
    let mut slow: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(portal).unwrap())
        .collect();
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    let start = Instant::now();
    // One byte each now and then: 15 s are allowed for a login.
    for byte in &bytes[..40] {
        slow.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
        std::thread::sleep(Duration::from_millis(450));
    }
    wait_for("the end of slow logins", Duration::from_secs(10), || {
        slow.retain_mut(|stream| stream.write_all(&[0]).is_ok());
        slow.is_empty()
    });
    assert!(
        start.elapsed() > Duration::from_secs(10),
        "nobody was given time: {:?}",
        start.elapsed()
    );
    let report = load.finish().unwrap();
    content::assert_clean(&report);
    before.compare(&mut pair);
}

/// The address of a host that has gone mad.
const FLOODER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 66, 0, 1)), 0);
/// Its connections, which never log in.
const FLOOD: usize = 10_000;

/// Connects from an address of ours, unless there is no room.
fn connect_from(source: SocketAddr, portal: SocketAddr) -> Option<TcpStream> {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    net::bind(&socket, &source).unwrap();
    net::connect(&socket, &portal).ok()?;
    Some(socket.into())
}

#[test]
fn ten_thousand_connections_that_never_log_in_stop_nobody() {
    let mut pair = Pair::with_volume("halfopen");
    let load = Load::start(Options::default(), pair.paths(), content::load(SIZE), None);
    std::thread::sleep(Duration::from_millis(500));
    let before = Before::look(&pair);
    load.take_longest_gap();
    let portal = pair.nodes[0].portal;
    let (logins, open) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut open = VecDeque::new();
            for _ in 0..FLOOD {
                open.extend(connect_from(FLOODER, portal));
                // As many as this process may have at a time.
                if open.len() > 500 {
                    open.pop_front();
                }
            }
            open
        });
        // Who knows what he wants gets in among them, each time and at the first attempt.
        let mut logins = 0;
        while !flood.is_finished() || logins < 10 {
            let mut client = pair
                .login(0)
                .unwrap_or_else(|error| panic!("login {logins} in the flood: {error}"));
            let ready = client.run_past_attentions(&Command::test_unit_ready(LUN));
            assert_eq!(ready.unwrap().status, 0);
            client.logout().unwrap();
            logins += 1;
        }
        (logins, flood.join().unwrap())
    });
    println!("{logins} logins while {FLOOD} connections came and said nothing");
    let gap = load.take_longest_gap();
    assert!(
        gap < Duration::from_secs(2),
        "writes stood still for {gap:?}"
    );
    let report = load.finish().unwrap();
    content::assert_clean(&report);
    drop(open);
    before.compare(&mut pair);
}

/// An initiator by bytes that is logged in.
struct Raw {
    stream: TcpStream,
    framer: Framer,
}

impl Raw {
    fn login(pair: &Pair, number: u8) -> Self {
        let text = format!(
            "InitiatorName=iqn.2026-11.test:raw{number}\0TargetName={}\0SessionType=Normal\0",
            pair.target
        );
        let mut stream = TcpStream::connect(pair.nodes[0].portal).unwrap();
        stream.write_all(&login_pdu(text.as_bytes())).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let framer = Framer::default();
        let mut raw = Self { stream, framer };
        let (header, _) = raw.receive();
        assert_eq!(
            (header.opcode, header.tail[1].get() >> 16),
            (opcode::LOGIN_RESPONSE, 0)
        );
        raw
    }

    /// The next PDU.
    fn receive(&mut self) -> (Header, Vec<u8>) {
        let mut bytes = [0; 65_536];
        loop {
            if let Some((header, data)) = self.framer.next(Digests::default()).unwrap() {
                return (header, data.to_vec());
            }
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the daemon closed the connection");
            self.framer.push(&bytes[..count]);
        }
    }
}

/// Data of a ping, bytes.
const PING: usize = 4096;

/// A NOP-Out that wants its data back.
fn ping(tag: u32) -> Vec<u8> {
    let header = Header {
        opcode: opcode::NOP_OUT | opcode::IMMEDIATE,
        flags: FINAL,
        task_tag: tag.into(),
        transfer_tag: NO_TAG.into(),
        ..Header::default()
    };
    let mut bytes = Vec::new();
    lockstep_initiator::core::wire::encode(header, &[0x5a; PING], Default::default(), &mut bytes);
    bytes
}

#[test]
fn an_initiator_that_asks_and_never_reads_is_not_listened_to_and_costs_no_memory() {
    /// More than all buffers of all sockets on the way, and far less than seconds of flooding.
    const BLOCKED_BY: usize = 96 << 20;
    let mut pair = Pair::with_volume("deaf");
    let before = Before::look(&pair);
    let mut others = pair.login(0).unwrap();
    let mut floods: Vec<(Raw, u32)> = (0..4)
        .map(|number| (Raw::login(&pair, number), 0))
        .collect();
    for (raw, pings) in &mut floods {
        raw.stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let mut sent = 0;
        // The daemon stops reading: nothing moves for a whole second.
        while let Ok(()) = raw.stream.write_all(&ping(*pings)) {
            *pings += 1;
            sent += HEADER_LEN + PING;
            assert!(
                sent < BLOCKED_BY,
                "{sent} bytes were taken although none was read"
            );
        }
        let read = others.run_past_attentions(&Command::read(LUN, 0, 8, 4096));
        assert_eq!(read.expect("others are served").status, 0);
    }
    before.compare(&mut pair);
    // Who reads at last is listened to again, and has every answer.
    for (raw, pings) in &mut floods {
        for tag in 0..*pings {
            let (mut header, mut data) = raw.receive();
            // A ping of the target's own, to one who has said nothing for a while.
            while header.task_tag.get() == u32::MAX {
                (header, data) = raw.receive();
            }
            assert_eq!(
                (header.opcode, header.task_tag.get()),
                (opcode::NOP_IN, tag)
            );
            assert!(data == [0x5a; PING]);
        }
    }
}
