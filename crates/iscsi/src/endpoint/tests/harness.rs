//! A driver that carries wants out, an initiator that builds PDUs and an engine that records.

use crate::digest::crc32c;
use crate::endpoint::Endpoint;
use crate::interface::DataIn;
use crate::interface::*;
use crate::pdu::*;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const TARGET: &str = "iqn.2026-11.org.example:disk";
pub(super) const OTHER: &str = "iqn.2026-11.org.example:other";
pub(super) const HOST: &str = "iqn.2026-11.org.example:host";

pub(super) fn target(id: u32, name: &str) -> TargetSettings {
    TargetSettings {
        id: TargetId(id),
        name: name.to_string(),
        alias: String::new(),
        chap: Vec::new(),
        mutual: None,
        allow: Vec::new(),
    }
}

pub(super) fn account(name: &str, secret: &str) -> ChapSecret {
    ChapSecret {
        name: name.to_string(),
        secret: secret.as_bytes().to_vec(),
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        targets: vec![target(1, TARGET), target(2, OTHER)],
        portals: vec![
            Portal {
                address: "10.0.0.1:3260".parse().unwrap(),
                group: 1,
            },
            Portal {
                address: "[fd00::2]:3260".parse().unwrap(),
                group: 2,
            },
        ],
        group: 1,
        discovery_chap: Vec::new(),
        discovery_mutual: None,
        nop_interval_s: 5,
        nop_timeout_s: 5,
        login_timeout_s: 15,
        max_receive: 262_144,
        max_burst: 1_048_576,
        first_burst: 65_536,
        command_window: 8,
        max_connections: 16,
        max_half_open: 4,
    }
}

/// A PDU that the target sent.
#[derive(Clone, Debug)]
pub(super) struct Pdu {
    pub(super) conn: ConnId,
    pub(super) header: [u8; 48],
    pub(super) data: Vec<u8>,
}

impl Pdu {
    pub(super) fn opcode(&self) -> u8 {
        self.header[0]
    }

    pub(super) fn as_<T: FromBytes + KnownLayout + Immutable + Unaligned + Copy>(&self) -> T {
        *T::ref_from_bytes(&self.header).unwrap()
    }

    pub(super) fn text(&self) -> String {
        let text = String::from_utf8(self.data.clone()).unwrap();
        text.trim_end_matches('\0').replace('\0', " ")
    }
}

pub(super) struct World {
    pub(super) endpoint: Endpoint,
    pub(super) now: Time,
    /// What came out besides PDUs, in order.
    pub(super) events: Vec<Output>,
    pub(super) sent: VecDeque<Pdu>,
    pub(super) buffers: BTreeMap<TaskId, Vec<u8>>,
    streams: BTreeMap<ConnId, VecDeque<u8>>,
    /// Digests that each connection agreed on.
    digests: BTreeMap<ConnId, (bool, bool)>,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            endpoint: Endpoint::new(settings, [3; 32]),
            now: Time::from_secs(100),
            events: Vec::new(),
            sent: VecDeque::new(),
            buffers: BTreeMap::new(),
            streams: BTreeMap::new(),
            digests: BTreeMap::new(),
        }
    }

    pub(super) fn call<R>(
        &mut self,
        what: impl FnOnce(&mut Endpoint, Time, &mut Vec<Output>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let result = what(&mut self.endpoint, self.now, &mut out);
        for output in out {
            match output {
                Output::Send { conn, head, body } => self.keep(conn, head, body),
                other => self.events.push(other),
            }
        }
        result
    }

    fn keep(&mut self, conn: ConnId, head: Head, body: Body) {
        let (header_digest, data_digest) = self.digests.get(&conn).copied().unwrap_or_default();
        let header: [u8; 48] = head.bytes[..48].try_into().unwrap();
        assert_eq!(head.len, if header_digest { 52 } else { 48 });
        if header_digest {
            assert_eq!(head.bytes[48..52], crc32c(&header).to_le_bytes());
        }
        let basic = *Basic::ref_from_bytes(&header).unwrap();
        let length = basic.data_length.get() as usize;
        let data = match body {
            Body::None => Vec::new(),
            Body::Bytes(mut bytes) => {
                if data_digest {
                    let digest = bytes.split_off(bytes.len() - 4);
                    assert_eq!(digest, crc32c(&bytes).to_le_bytes());
                }
                assert_eq!(bytes.len(), length.next_multiple_of(4));
                bytes.truncate(length);
                bytes
            }
            Body::Data {
                task,
                offset,
                len,
                digest,
            } => {
                assert_eq!(digest, data_digest);
                let buffer = &self.buffers[&task];
                buffer[offset as usize..(offset + len) as usize].to_vec()
            }
        };
        assert_eq!(data.len(), length);
        self.sent.push_back(Pdu { conn, header, data });
    }

    pub(super) fn connect(&mut self, slot: u32) -> ConnId {
        let conn = ConnId {
            slot,
            generation: 1,
        };
        let peer = format!("192.0.2.{}:40000", slot % 250 + 1);
        self.connect_from(conn, &peer)
    }

    pub(super) fn connect_from(&mut self, conn: ConnId, peer: &str) -> ConnId {
        let peer = peer.parse().unwrap();
        self.call(|endpoint, now, out| endpoint.connected(now, conn, 0, 1, peer, out));
        self.streams.insert(conn, VecDeque::new());
        conn
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        self.call(|endpoint, now, out| endpoint.closed(now, conn, out));
        self.streams.remove(&conn);
    }

    /// Hands bytes to the driver and lets it fulfil what it can.
    pub(super) fn feed(&mut self, conn: ConnId, bytes: &[u8]) {
        self.queue(conn, bytes);
        self.pump(conn);
    }

    pub(super) fn queue(&mut self, conn: ConnId, bytes: &[u8]) {
        self.streams.get_mut(&conn).unwrap().extend(bytes);
    }

    pub(super) fn unread(&self, conn: ConnId) -> usize {
        self.streams[&conn].len()
    }

    pub(super) fn pump(&mut self, conn: ConnId) {
        while self.step(conn) {}
    }

    /// Fulfils one want; false: it can't be.
    pub(super) fn step(&mut self, conn: ConnId) -> bool {
        let want = self.endpoint.want(conn);
        let (Want::Bytes(len) | Want::Data { len, .. } | Want::Skip(len)) = want else {
            return false;
        };
        assert!(len > 0);
        let stream = self.streams.get_mut(&conn).unwrap();
        if stream.len() < len as usize {
            return false;
        }
        let bytes: Vec<u8> = stream.drain(..len as usize).collect();
        match want {
            Want::Skip(_) => self.call(|e, now, out| e.skipped(now, conn, out)),
            Want::Data { task, offset, .. } => {
                let buffer = self
                    .buffers
                    .get_mut(&task)
                    .expect("data for a task with a buffer");
                let offset = offset as usize;
                buffer[offset..offset + bytes.len()].copy_from_slice(&bytes);
                self.call(|e, now, out| e.data(now, conn, crc32c(&bytes), out));
            }
            _ => self.call(|e, now, out| e.bytes(now, conn, &bytes, out)),
        }
        true
    }

    /// Sends a PDU as the initiator would, with the digests that were agreed on.
    pub(super) fn pdu<H: IntoBytes + Immutable>(&mut self, conn: ConnId, header: &H, data: &[u8]) {
        let bytes = self.encode(conn, header, data);
        self.feed(conn, &bytes);
    }

    pub(super) fn encode<H: IntoBytes + Immutable>(
        &self,
        conn: ConnId,
        header: &H,
        data: &[u8],
    ) -> Vec<u8> {
        let (header_digest, data_digest) = self.digests.get(&conn).copied().unwrap_or_default();
        let mut bytes = header.as_bytes().to_vec();
        bytes[5..8].copy_from_slice(U24::new(data.len() as u32).as_bytes());
        if header_digest {
            bytes.extend(crc32c(&bytes).to_le_bytes());
        }
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(4), 0);
        bytes.extend(&padded);
        if data_digest && !data.is_empty() {
            bytes.extend(crc32c(&padded).to_le_bytes());
        }
        bytes
    }

    pub(super) fn set_digests(&mut self, conn: ConnId, header: bool, data: bool) {
        self.digests.insert(conn, (header, data));
    }

    /// The oldest PDU that was not looked at yet.
    pub(super) fn next(&mut self) -> Pdu {
        self.sent.pop_front().expect("the target sends something")
    }

    pub(super) fn quiet(&self) {
        assert!(self.sent.is_empty(), "unexpected {:x?}", self.sent);
        assert!(self.events.is_empty(), "unexpected {:?}", self.events);
    }

    pub(super) fn event(&mut self) -> Output {
        assert!(!self.events.is_empty(), "something happens");
        self.events.remove(0)
    }

    pub(super) fn command(&mut self) -> Command {
        match self.event() {
            Output::Command(command) => command,
            other => panic!("a command was expected, not {other:?}"),
        }
    }

    pub(super) fn expect_data(&mut self, task: TaskId, len: u32) {
        self.buffers.insert(task, vec![0; len as usize]);
        self.call(|e, now, out| e.expect_data(now, task, len, out));
        for conn in self.streams.keys().copied().collect::<Vec<_>>() {
            self.pump(conn);
        }
    }

    pub(super) fn respond(&mut self, task: TaskId, response: Response) {
        self.call(|e, now, out| e.respond(now, task, response, out));
        for conn in self.streams.keys().copied().collect::<Vec<_>>() {
            self.pump(conn);
        }
    }

    pub(super) fn dropped(&mut self, task: TaskId) {
        self.call(|e, now, out| e.dropped(now, task, out));
    }

    /// Lets time pass, with the timers on it.
    pub(super) fn wait(&mut self, seconds: u64) {
        let until = self.now + Time::from_secs(seconds);
        while let Some(at) = self.endpoint.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.call(|e, now, out| e.timer(now, out));
            assert!(
                self.endpoint.next_deadline().is_none_or(|next| next > at),
                "timers advance"
            );
        }
        self.now = until;
    }

    /// One Login Request and its answer.
    pub(super) fn login(&mut self, conn: ConnId, flags: u8, text: &str) -> Pdu {
        self.login_as(conn, 1, 0, flags, text)
    }

    pub(super) fn login_as(
        &mut self,
        conn: ConnId,
        isid: u8,
        tsih: u16,
        flags: u8,
        text: &str,
    ) -> Pdu {
        let header = login_request(isid, tsih, flags);
        self.pdu(conn, &header, keys(text).as_bytes());
        let answer = self.next();
        assert_eq!(answer.opcode(), opcode::LOGIN_RESPONSE);
        answer
    }

    /// A normal session with these operational keys.
    pub(super) fn session(&mut self, slot: u32, isid: u8, ask: &str) -> Client {
        let conn = self.connect(slot);
        let names = format!("InitiatorName={HOST} TargetName={TARGET} SessionType=Normal");
        let answer = self.login_as(conn, isid, 0, 0x87, &format!("{names} {ask}"));
        assert_eq!(status(&answer), login_status::SUCCESS, "{}", answer.text());
        let text = answer.text();
        self.set_digests(
            conn,
            text.contains("HeaderDigest=CRC32C"),
            text.contains("DataDigest=CRC32C"),
        );
        let nexus = match self.event() {
            Output::NexusUp {
                nexus, conn: up, ..
            } => {
                assert_eq!(up, conn);
                nexus
            }
            other => panic!("not {other:?}"),
        };
        self.quiet();
        let header: LoginResponse = answer.as_();
        Client {
            conn,
            nexus,
            tsih: header.tsih.get(),
            cmd_sn: 1,
            stat_sn: header.stat_sn.get(),
        }
    }
}

/// An initiator's side of a session.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) conn: ConnId,
    pub(super) nexus: NexusId,
    pub(super) tsih: u16,
    pub(super) cmd_sn: u32,
    pub(super) stat_sn: u32,
}

pub(super) const READ: u8 = FINAL | command_flags::READ;
pub(super) const WRITE: u8 = FINAL | command_flags::WRITE;

impl Client {
    pub(super) fn command(&mut self, tag: u32, flags: u8, expected: u32) -> ScsiCommand {
        let mut header = ScsiCommand::new_zeroed();
        header.opcode = opcode::SCSI_COMMAND;
        header.flags = flags | 1;
        header.task_tag = tag.into();
        header.expected_length = expected.into();
        header.cmd_sn = self.cmd_sn.into();
        header.cdb[0] = 0x28;
        self.cmd_sn += 1;
        header
    }

    pub(super) fn manage(&self, function: u8, tag: u32) -> TaskManagementRequest {
        let mut header = TaskManagementRequest::new_zeroed();
        header.opcode = opcode::TASK_MANAGEMENT | IMMEDIATE;
        header.flags = FINAL | function;
        header.task_tag = tag.into();
        header.ref_task_tag = NO_TAG.into();
        header.cmd_sn = self.cmd_sn.into();
        header
    }

    /// Each status has the next StatSN.
    pub(super) fn counts(&mut self, stat_sn: zerocopy::network_endian::U32) {
        self.stat_sn = self.stat_sn.wrapping_add(1);
        assert_eq!(stat_sn.get(), self.stat_sn);
    }
}

/// `A=1 B=2` with zero bytes.
pub(super) fn keys(text: &str) -> String {
    text.split(' ')
        .filter(|key| !key.is_empty())
        .map(|key| format!("{key}\0"))
        .collect()
}

pub(super) fn login_request(isid: u8, tsih: u16, flags: u8) -> LoginRequest {
    let mut header = LoginRequest::new_zeroed();
    header.opcode = opcode::LOGIN | IMMEDIATE;
    header.flags = flags;
    header.isid = [0x80, 0, 0, 0, 0, isid];
    header.tsih = tsih.into();
    header.task_tag = 0x77.into();
    header.cid = 9.into();
    header.cmd_sn = 1.into();
    header
}

pub(super) fn status(answer: &Pdu) -> u16 {
    let header: LoginResponse = answer.as_();
    u16::from_be_bytes([header.status_class, header.status_detail])
}

pub(super) fn data_out(
    tag: u32,
    transfer_tag: u32,
    data_sn: u32,
    offset: u32,
    last: bool,
) -> DataOut {
    let mut header = DataOut::new_zeroed();
    header.opcode = opcode::DATA_OUT;
    header.flags = if last { FINAL } else { 0 };
    header.task_tag = tag.into();
    header.transfer_tag = transfer_tag.into();
    header.data_sn = data_sn.into();
    header.offset = offset.into();
    header
}

/// Bytes that differ wherever they stand.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 256 * 7) as u8).collect()
}

pub(super) fn good() -> Response {
    Response {
        status: 0,
        sense: Vec::new(),
        data_in: DataIn::None,
        data_out: 0,
    }
}

pub(super) fn wrote(data_out: u32) -> Response {
    Response { data_out, ..good() }
}

pub(super) fn read(len: u32) -> Response {
    Response {
        data_in: DataIn::Buffer { len },
        ..good()
    }
}

pub(super) fn response(pdu: &Pdu) -> ScsiResponse {
    assert_eq!(pdu.opcode(), opcode::SCSI_RESPONSE, "{pdu:x?}");
    pdu.as_()
}
