//! Our session talks to our target's iSCSI layer, without sockets, in pieces of every size: what
//! one says the other must understand, whatever they agree on.
#![expect(clippy::unwrap_used, reason = "a test speaks by failing")]

use lockstep_initiator::core::chap::Account;
use lockstep_initiator::core::command::Command;
use lockstep_initiator::core::session::{Ended, Event, Function, Parameters, Purpose, Session};
use lockstep_initiator::core::wire::Digests;
use lockstep_iscsi::endpoint::Endpoint;
use lockstep_iscsi::interface::{
    Body, ChapSecret, ConnId, DataIn, Output, Portal, Response, Settings, TargetId, TargetSettings,
    TaskId, Want,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(100);
const TARGET: &str = "iqn.2026-11.test:disk";
const CONN: ConnId = ConnId {
    slot: 0,
    generation: 1,
};

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 3260))
}

fn settings(chap: Vec<ChapSecret>, mutual: Option<ChapSecret>) -> Settings {
    let target = TargetSettings {
        id: TargetId(0),
        name: TARGET.into(),
        alias: String::new(),
        chap,
        mutual,
        allow: vec![],
    };
    Settings {
        targets: vec![target],
        portals: vec![
            Portal {
                address: address(1),
                group: 1,
            },
            Portal {
                address: address(2),
                group: 2,
            },
        ],
        group: 1,
        discovery_chap: vec![],
        discovery_mutual: None,
        nop_interval_s: 10,
        nop_timeout_s: 10,
        login_timeout_s: 15,
        max_receive: 65_536,
        max_burst: 262_144,
        first_burst: 65_536,
        command_window: 8,
        max_connections: 4,
        max_half_open: 4,
    }
}

fn parameters() -> Parameters {
    Parameters::new(
        "iqn.2026-11.test:initiator",
        Purpose::Normal {
            target: TARGET.into(),
        },
    )
}

/// Both sides and the wire between them; the target's disk is a map of 512-byte blocks.
struct Wire {
    session: Session,
    endpoint: Endpoint,
    /// Bytes on their way to the target.
    stream: Vec<u8>,
    buffers: BTreeMap<TaskId, ([u8; 32], Vec<u8>)>,
    disk: BTreeMap<u64, Vec<u8>>,
    closed: bool,
    piece: usize,
}

impl Wire {
    fn new(settings: Settings, parameters: Parameters, piece: usize) -> Self {
        let mut endpoint = Endpoint::new(settings, [3; 32]);
        let mut out = Vec::new();
        endpoint.connected(NOW, CONN, 0, 1, address(9), &mut out);
        let mut session = Session::new(parameters, [9; 16]);
        session.start(NOW);
        let (stream, buffers, disk) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut wire = Self {
            session,
            endpoint,
            stream,
            buffers,
            disk,
            closed: false,
            piece,
        };
        wire.carry_out(out);
        wire.pump();
        wire
    }

    fn pump(&mut self) {
        loop {
            let mut sent = Vec::new();
            self.session.take_output(&mut sent);
            self.stream.extend_from_slice(&sent);
            if !self.fulfil() && sent.is_empty() {
                return;
            }
        }
    }

    /// Gives the target what it wants, once; false: it wants more than there is.
    fn fulfil(&mut self) -> bool {
        if self.closed {
            return false;
        }
        let mut out = Vec::new();
        let mut take = |len: u32| {
            let len = len as usize;
            (self.stream.len() >= len).then(|| self.stream.drain(..len).collect::<Vec<u8>>())
        };
        match self.endpoint.want(CONN) {
            Want::Bytes(len) => {
                let Some(bytes) = take(len) else { return false };
                self.endpoint.bytes(NOW, CONN, &bytes, &mut out);
            }
            Want::Data { task, offset, len } => {
                let Some(bytes) = take(len) else { return false };
                let (_, buffer) = self.buffers.get_mut(&task).expect("it was asked for");
                buffer[offset as usize..(offset + len) as usize].copy_from_slice(&bytes);
                self.endpoint
                    .data(NOW, CONN, crc32c::crc32c(&bytes), &mut out);
            }
            Want::Skip(len) => {
                let Some(_) = take(len) else { return false };
                self.endpoint.skipped(NOW, CONN, &mut out);
            }
            Want::Wait => return false,
        }
        self.carry_out(out);
        true
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let mut more = Vec::new();
            match output {
                Output::Send { head, body, .. } => {
                    let mut bytes = head.bytes[..usize::from(head.len)].to_vec();
                    match body {
                        Body::None => {}
                        Body::Bytes(body) => bytes.extend_from_slice(&body),
                        Body::Data {
                            task,
                            offset,
                            len,
                            digest,
                        } => {
                            let (_, buffer) = &self.buffers[&task];
                            let start = bytes.len();
                            bytes.extend_from_slice(
                                &buffer[offset as usize..(offset + len) as usize],
                            );
                            bytes.resize(start + (len as usize).next_multiple_of(4), 0);
                            if digest {
                                let crc = crc32c::crc32c(&bytes[start..]);
                                bytes.extend_from_slice(&crc.to_le_bytes());
                            }
                        }
                    }
                    for piece in bytes.chunks(self.piece) {
                        self.session.received(NOW, piece);
                    }
                }
                Output::Close { .. } => {
                    self.closed = true;
                    self.session.closed();
                    self.endpoint.closed(NOW, CONN, &mut more);
                }
                Output::Command(command) => {
                    let (lba, blocks) = range(&command.cdb);
                    let len = u32::try_from(blocks * 512).unwrap();
                    match command.cdb[0] {
                        0x8a => {
                            self.buffers
                                .insert(command.task, (command.cdb, vec![0; len as usize]));
                            self.endpoint.expect_data(NOW, command.task, len, &mut more);
                        }
                        0x88 => {
                            let zero = vec![0; 512];
                            let blocks = (lba..lba + blocks)
                                .flat_map(|lba| self.disk.get(&lba).unwrap_or(&zero).clone());
                            self.buffers
                                .insert(command.task, (command.cdb, blocks.collect()));
                            self.answer(command.task, DataIn::Buffer { len }, 0, &mut more);
                        }
                        _ => self.answer(command.task, DataIn::None, 0, &mut more),
                    }
                }
                Output::DataIn { task, crc } => {
                    let (cdb, data) = &self.buffers[&task];
                    assert_eq!(crc, crc32c::crc32c(data), "the layer's CRC of the whole");
                    let ((lba, _), len) = (range(cdb), u32::try_from(data.len()).unwrap());
                    self.disk
                        .extend((lba..).zip(data.chunks(512).map(<[u8]>::to_vec)));
                    self.answer(task, DataIn::None, len, &mut more);
                }
                Output::Abort { task } => self.endpoint.dropped(NOW, task, &mut more),
                Output::Alive { .. }
                | Output::Reset { .. }
                | Output::NexusUp { .. }
                | Output::NexusDown { .. }
                | Output::Note { .. } => {}
            }
            self.carry_out(more);
        }
    }

    fn answer(&mut self, task: TaskId, data_in: DataIn, data_out: u32, out: &mut Vec<Output>) {
        self.endpoint.respond(
            NOW,
            task,
            Response {
                status: 0,
                sense: vec![],
                data_in,
                data_out,
            },
            out,
        );
    }

    fn run(&mut self, command: Command) -> Vec<u8> {
        assert!(self.session.window() > 0, "the window is open again");
        self.session.command(NOW, 1, command);
        self.pump();
        loop {
            match self.session.next_event().expect("an answer") {
                Event::Done { id: 1, reply } => {
                    assert_eq!((reply.response, reply.status, reply.residual), (0, 0, 0));
                    return reply.data;
                }
                Event::Ready => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn ended(&mut self) -> Ended {
        loop {
            if let Event::Ended(why) = self.session.next_event().expect("it is over") {
                return why;
            }
        }
    }
}

fn range(cdb: &[u8]) -> (u64, u64) {
    let lba = u64::from_be_bytes(cdb[2..10].try_into().unwrap());
    (
        lba,
        u32::from_be_bytes(cdb[10..14].try_into().unwrap()).into(),
    )
}

#[test]
fn what_is_written_is_read_whatever_was_agreed() {
    for bits in 0..16_u8 {
        let bit = |number: u8| bits >> number & 1 != 0;
        let digests = Digests {
            header: bit(0),
            data: bit(1),
        };
        for (max_receive, max_burst, first_burst) in [
            (262_144, 16_776_192, 262_144),
            (512, 1024, 512),
            (4096, 65_536, 8192),
        ] {
            let offer = Parameters {
                digests,
                initial_r2t: bit(2),
                immediate: bit(3),
                max_receive,
                max_burst,
                first_burst,
                ..parameters()
            };
            let mut wire = Wire::new(settings(vec![], None), offer, 1 + usize::from(bits) * 37);
            assert!(wire.session.is_ready(), "{digests:?}");
            assert_eq!(wire.session.negotiated().digests, digests);
            let data: Vec<u8> = (0..200 * 512_u32)
                .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
                .collect();
            wire.run(Command::write(0, 5, 200, data.clone().into()));
            wire.run(Command::write(0, 7, 1, vec![0xee; 512].into()));
            let read = wire.run(Command::read(0, 5, 200, 200 * 512));
            assert!(
                read[..1024] == data[..1024]
                    && read[1536..] == data[1536..]
                    && read[1024..1536] == [0xee; 512]
            );
            assert_eq!(wire.session.outstanding(), 0);
        }
    }
}

#[test]
fn chap_is_understood_both_ways() {
    let secret = |name: &str, secret: &[u8]| ChapSecret {
        name: name.into(),
        secret: secret.to_vec(),
    };
    let account = |name: &str, secret: &[u8]| {
        Some(Account {
            name: name.into(),
            secret: secret.to_vec(),
        })
    };
    let target = || {
        settings(
            vec![secret("alice", b"wonderland123")],
            Some(secret("target", b"looking glass")),
        )
    };
    let login = |chap, mutual| {
        Wire::new(
            target(),
            Parameters {
                chap,
                mutual,
                ..parameters()
            },
            7,
        )
    };
    assert!(
        login(account("alice", b"wonderland123"), None)
            .session
            .is_ready()
    );
    assert!(
        login(
            account("alice", b"wonderland123"),
            account("target", b"looking glass")
        )
        .session
        .is_ready()
    );
    for (chap, mutual, says) in [
        (
            account("alice", b"wonderland124"),
            None,
            "authentication failure",
        ),
        (
            account("bob", b"wonderland123"),
            None,
            "authentication failure",
        ),
        (None, None, "authentication failure"),
        (
            account("alice", b"wonderland123"),
            account("target", b"broken glass"),
            "did not prove itself",
        ),
    ] {
        let said = login(chap, mutual).ended().to_string();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn discovery_lists_the_portals_of_both_nodes() {
    let mut wire = Wire::new(
        settings(vec![], None),
        Parameters::new("iqn.2026-11.test:i", Purpose::Discovery),
        3,
    );
    wire.session.discover();
    wire.pump();
    let found = core::iter::from_fn(|| wire.session.next_event()).find_map(|event| match event {
        Event::Targets(pairs) => Some(pairs),
        _ => None,
    });
    let text: Vec<String> = found
        .unwrap()
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let expected = [
        "TargetName=iqn.2026-11.test:disk",
        "TargetAddress=192.0.2.1:3260,1",
        "TargetAddress=192.0.2.2:3260,2",
    ];
    assert_eq!(text, expected);
}

#[test]
fn management_and_logout_are_answered() {
    let mut wire = Wire::new(settings(vec![], None), parameters(), 48);
    wire.session.manage(4, 0, Function::LunReset);
    wire.pump();
    wire.session.logout();
    wire.pump();
    let events: Vec<Event> = core::iter::from_fn(|| wire.session.next_event()).collect();
    assert_eq!(
        events[..2],
        [Event::Ready, Event::Managed { id: 4, response: 0 }]
    );
    assert_eq!(events[2..], [Event::Ended(Ended::LoggedOut)]);
}
