//! The ring against real sockets, files and pipes.

use super::*;
use crate::Message;
use crate::net;
use crate::op::Allocate;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

const CLASSES: [SlotClass; 2] = [
    SlotClass {
        slots: 4,
        slot_bytes: 8192,
    },
    SlotClass {
        slots: 2,
        slot_bytes: 1 << 20,
    },
];
const SOON: Duration = Duration::from_secs(5);

fn arena() -> Arena {
    Arena::new(&CLASSES).unwrap()
}

fn ring() -> Ring {
    Ring::new(8).unwrap()
}

/// Waits for this many completions.
fn take(ring: &mut Ring, count: usize) -> Vec<Completion> {
    let mut all = Vec::new();
    let begin = Instant::now();
    while all.len() < count {
        ring.turn(SOON, &mut all).unwrap();
        assert!(
            begin.elapsed() < SOON,
            "{} of {count} completions",
            all.len()
        );
    }
    all
}

fn pair() -> (Handle, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Rc::new(OwnedFd::from(listener.accept().unwrap().0)), far)
}

#[test]
fn slots_are_aligned_zero_and_apart() {
    let mut arena = arena();
    assert_eq!(
        (arena.slots(), arena.slot_bytes(3), arena.slot_bytes(4)),
        (6, 8192, 1 << 20)
    );
    for slot in 0..6 {
        let len = arena.slot_bytes(slot);
        let bytes = arena.bytes_mut(slot, 0, len);
        assert_eq!(bytes.as_ptr().align_offset(PAGE), 0);
        assert!(bytes.iter().all(|&byte| byte == 0));
        bytes.fill(u8::try_from(slot).unwrap() + 1);
    }
    assert!(arena.bytes(2, 0, 8192).iter().all(|&byte| byte == 3));
    arena.copy((2, 0), (5, 4096), 8192);
    assert_eq!(arena.bytes(5, 4095, 2), [6, 3]);
}

#[test]
#[should_panic(expected = "lent to the kernel")]
fn what_is_lent_cannot_be_changed() {
    let mut arena = arena();
    let _loan = arena.lend(1, 0, 512);
    let _ = arena.bytes_mut(1, 511, 1);
}

#[test]
#[should_panic(expected = "being filled by the kernel")]
fn what_the_kernel_fills_cannot_be_read() {
    let mut arena = arena();
    let _loan = arena.lend_mut(1, 0, 512);
    let _ = arena.bytes(1, 0, 4);
}

#[test]
#[should_panic(expected = "reaches beyond slot")]
fn a_slot_ends_where_it_ends() {
    let _ = arena().bytes(0, 8191, 2);
}

#[test]
fn a_message_of_heads_and_blocks_arrives_in_order() {
    let (mut arena, mut ring, (near, mut far)) = (arena(), ring(), pair());
    arena.bytes_mut(0, 0, 8192).fill(7);
    let mut message = Message::default();
    message.push_bytes(b"head");
    message.push_lent(arena.lend(0, 100, 3));
    message.push_bytes(b"tail");
    message.push_lent(arena.lend(0, 101, 2));
    ring.submit(
        Token(9),
        Op::Send {
            socket: near,
            message,
        },
    );
    let done = take(&mut ring, 1).remove(0);
    assert_eq!((done.token, done.result), (Token(9), Ok(13)));
    let Gift::Message(mut message) = done.gift else {
        panic!("the message comes back")
    };
    message.advance(13);
    assert_eq!((message.remaining(), arena.loans()), (0, 2));
    message.clear();
    assert_eq!(arena.loans(), 0);
    let mut got = [0; 13];
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"head\x07\x07\x07tail\x07\x07");
}

#[test]
fn a_short_send_goes_on_where_it_stopped() {
    let (mut arena, mut ring, (near, mut far)) = (arena(), ring(), pair());
    for (n, byte) in arena.bytes_mut(4, 0, 1 << 20).iter_mut().enumerate() {
        *byte = u8::try_from(n % 251).unwrap();
    }
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        std::thread::sleep(Duration::from_millis(50));
        far.read_to_end(&mut all).unwrap();
        all
    });
    let mut message = Message::default();
    for _ in 0..24 {
        message.push_bytes(b"x");
        message.push_lent(arena.lend(4, 0, 1 << 20));
    }
    let mut sends = 0;
    while message.remaining() > 0 {
        ring.submit(
            Token(0),
            Op::Send {
                socket: Rc::clone(&near),
                message,
            },
        );
        let done = take(&mut ring, 1).remove(0);
        let Gift::Message(back) = done.gift else {
            panic!("the message comes back")
        };
        message = back;
        message.advance(done.result.unwrap() as usize);
        sends += 1;
    }
    drop((message, near));
    let all = reader.join().unwrap();
    assert!(sends > 1, "24 MiB do not fit a socket's buffer");
    assert_eq!(all.len(), 24 * ((1 << 20) + 1));
    for piece in all.chunks((1 << 20) + 1) {
        assert_eq!(piece[0], b'x');
        assert!(
            piece[1..]
                .iter()
                .enumerate()
                .all(|(n, &byte)| usize::from(byte) == n % 251)
        );
    }
}

#[test]
fn receives_fill_exactly_or_what_is_there_and_see_the_end() {
    let (mut arena, mut ring, (near, mut far)) = (arena(), ring(), pair());
    let receive = |arena: &mut Arena, ring: &mut Ring, at, len, all| {
        let into = arena.lend_mut(0, at, len);
        ring.submit(
            Token(1),
            Op::Receive {
                socket: Rc::clone(&near),
                into,
                all,
                empty: false,
            },
        )
    };
    far.write_all(b"abc").unwrap();
    receive(&mut arena, &mut ring, 0, 8192, false);
    assert_eq!(take(&mut ring, 1)[0].result, Ok(3));
    receive(&mut arena, &mut ring, 3, 6, true);
    far.write_all(b"def").unwrap();
    ring.turn(Duration::from_millis(20), &mut Vec::new())
        .unwrap();
    assert_eq!(ring.in_progress(), 1, "half of it is not enough");
    far.write_all(b"ghi").unwrap();
    assert_eq!(take(&mut ring, 1)[0].result, Ok(6));
    assert_eq!(arena.bytes(0, 0, 9), b"abcdefghi");
    drop(far);
    receive(&mut arena, &mut ring, 0, 10, true);
    assert_eq!(take(&mut ring, 1)[0].result, Ok(0));
}

#[test]
fn connections_are_made_and_accepted_many_at_a_time() {
    let mut ring = ring();
    let listener = Rc::new(net::listen("127.0.0.1:0".parse().unwrap()).unwrap());
    let address = net::local(&listener).unwrap();
    let accept = ring.submit(
        Token(1),
        Op::Accept {
            socket: Rc::clone(&listener),
        },
    );
    for n in 0..3 {
        let socket = Rc::new(net::stream(address).unwrap());
        ring.submit(Token(10 + n), Op::Connect { socket, address });
    }
    let all = take(&mut ring, 6);
    let sockets: Vec<_> = all
        .iter()
        .filter(|done| matches!(done.gift, Gift::Socket(_)))
        .collect();
    assert!(
        sockets.len() == 3
            && sockets
                .iter()
                .all(|done| done.more && done.token == Token(1))
    );
    assert!(
        all.iter()
            .filter(|done| done.token.0 >= 10)
            .all(|done| done.result == Ok(0))
    );
    ring.cancel(accept);
    let last = take(&mut ring, 1).remove(0);
    assert!(!last.more && last.result == Err(Errno::CANCELED));
}

#[test]
fn nobody_listens() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    drop(listener);
    let socket = Rc::new(net::stream(address).unwrap());
    ring.submit(Token(5), Op::Connect { socket, address });
    assert_eq!(take(&mut ring, 1)[0].result, Err(Errno::CONNREFUSED));
}

fn scratch_file(name: &str) -> (std::path::PathBuf, Handle) {
    let path = std::env::temp_dir().join(format!("lockstep-uring-{}-{name}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    (path, Rc::new(OwnedFd::from(file)))
}

#[test]
fn files_are_written_flushed_zeroed_and_read() {
    let (mut arena, mut ring) = (arena(), ring());
    let (path, file) = scratch_file("rw");
    let at = |offset| (Rc::clone(&file), offset);
    arena.bytes_mut(0, 0, 8192).fill(0x5a);
    let ((file_a, offset_a), (file_b, offset_b)) = (at(0), at(8192));
    ring.submit(
        Token(1),
        Op::Allocate {
            file: Rc::clone(&file),
            offset: 0,
            len: 16384,
            mode: Allocate::Reserve,
        },
    );
    assert_eq!(take(&mut ring, 1)[0].result, Ok(0));
    ring.submit(
        Token(2),
        Op::Write {
            file: file_a,
            from: arena.lend(0, 0, 8192),
            offset: offset_a,
            durable: true,
        },
    );
    ring.submit(
        Token(3),
        Op::WriteBytes {
            file: file_b,
            bytes: Box::from(*b"meta"),
            offset: offset_b,
        },
    );
    assert!(
        take(&mut ring, 2)
            .iter()
            .all(|done| done.result.is_ok_and(|bytes| bytes == 8192 || bytes == 4))
    );
    ring.submit(
        Token(4),
        Op::Sync {
            file: Rc::clone(&file),
        },
    );
    ring.submit(
        Token(5),
        Op::Allocate {
            file: Rc::clone(&file),
            offset: 0,
            len: 4096,
            mode: Allocate::Zero,
        },
    );
    assert!(take(&mut ring, 2).iter().all(|done| done.result == Ok(0)));
    let into = arena.lend_mut(1, 0, 8192);
    ring.submit(
        Token(6),
        Op::Read {
            file: Rc::clone(&file),
            into,
            offset: 0,
        },
    );
    ring.submit(
        Token(7),
        Op::ReadBytes {
            file: Rc::clone(&file),
            bytes: Box::from([0; 4]),
            offset: 8192,
        },
    );
    for done in take(&mut ring, 2) {
        match done.gift {
            Gift::Bytes(bytes) => assert_eq!(&*bytes, b"meta"),
            _ => assert_eq!(done.result, Ok(8192)),
        }
    }
    assert!(arena.bytes(1, 0, 4096).iter().all(|&byte| byte == 0));
    assert!(arena.bytes(1, 4096, 4096).iter().all(|&byte| byte == 0x5a));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn more_submissions_than_the_queue_holds_all_complete() {
    let (arena, mut ring) = (arena(), ring());
    let (path, file) = scratch_file("many");
    for n in 0..500 {
        let from = arena.lend(0, 0, 512);
        ring.submit(
            Token(n),
            Op::Write {
                file: Rc::clone(&file),
                from,
                offset: n * 512,
                durable: false,
            },
        );
    }
    let mut tokens: Vec<u64> = take(&mut ring, 500)
        .iter()
        .map(|done| done.token.0)
        .collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..500));
    assert_eq!((arena.loans(), crate::file::size(&file)), (0, Ok(256_000)));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn another_thread_wakes_the_ring_again_and_again() {
    let mut ring = ring();
    let waker = ring.waker();
    for _ in 0..3 {
        let waker = waker.clone();
        let begin = Instant::now();
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        ring.turn(SOON, &mut Vec::new()).unwrap();
        assert!(begin.elapsed() < SOON / 2 && begin.elapsed() >= Duration::from_millis(19));
        other.join().unwrap();
    }
    let begin = Instant::now();
    ring.turn(Duration::from_millis(30), &mut Vec::new())
        .unwrap();
    assert!(
        begin.elapsed() >= Duration::from_millis(29),
        "nobody woke it"
    );
}

#[test]
fn a_ring_that_is_dropped_takes_its_loans_back() {
    let (mut arena, mut ring, (near, far)) = (arena(), ring(), pair());
    let into = arena.lend_mut(0, 0, 8192);
    ring.submit(
        Token(1),
        Op::Receive {
            socket: Rc::clone(&near),
            into,
            all: true,
            empty: true,
        },
    );
    ring.turn(Duration::from_millis(1), &mut Vec::new())
        .unwrap();
    assert_eq!(arena.loans(), 1);
    drop(ring);
    assert_eq!((arena.loans(), Rc::strong_count(&near)), (0, 1));
    drop(far);
}

#[test]
fn a_lock_outlives_its_descriptor_until_the_last_operation_has_ended() {
    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
    // A FIFO, because an operation on it takes as long as we like.
    let path = std::env::temp_dir().join(format!("lockstep-uring-{}-fifo", std::process::id()));
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let end = || open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let (mut arena, mut ring, other) = (arena(), ring(), end());
    let file = Rc::new(end());
    crate::file::lock(&file).unwrap();
    let into = arena.lend_mut(0, 0, 4);
    ring.submit(
        Token(1),
        Op::Read {
            file,
            into,
            offset: u64::MAX,
        },
    );
    ring.turn(Duration::from_millis(20), &mut Vec::new())
        .unwrap();
    assert_eq!(crate::file::lock(&other), Err(Errno::WOULDBLOCK));
    rustix::io::write(&other, b"late").unwrap();
    assert_eq!(take(&mut ring, 1)[0].result, Ok(4));
    crate::file::lock(&other).unwrap();
    std::fs::remove_file(path).unwrap();
}
