//! An initiator of a few lines: it logs in, sends commands, and keeps what comes back.

use super::world::{BLOCK, TARGET, World};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use lockstep_iscsi::interface::ConnId;
use lockstep_iscsi::pdu::{
    Basic, DataIn, DataOut, FINAL, HEADER_LEN, LoginRequest, NO_TAG, NopIn, NopOut, R2t,
    ScsiCommand, ScsiResponse, U24, opcode,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The W and R bits of a SCSI Command (RFC 7143 §11.3.1).
const WRITES: u8 = 0x20;
const READS: u8 = 0x40;
/// T bit, from the operational stage to full feature phase (§11.12.3).
const LAST_STAGE: u8 = 0x87;
/// The S bit of a Data-In (§11.7.3).
const WITH_STATUS: u8 = 0x01;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u8,
    /// Sense key, additional sense code and qualifier.
    pub(super) sense: Option<[u8; 3]>,
    pub(super) data: Vec<u8>,
}

pub(super) const GOOD: Answer = Answer {
    status: 0x00,
    sense: None,
    data: Vec::new(),
};
pub(super) const BUSY: Answer = Answer {
    status: 0x08,
    sense: None,
    data: Vec::new(),
};
/// CHECK CONDITION, ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED.
pub(super) const NO_UNIT: Answer = Answer {
    status: 0x02,
    sense: Some([0x05, 0x25, 0x00]),
    data: Vec::new(),
};

/// One session.
pub(super) struct Session {
    node: usize,
    conn: ConnId,
    cmd_sn: u32,
    next_tag: u32,
    received: Vec<u8>,
    data: BTreeMap<u32, Vec<u8>>,
    answers: BTreeMap<u32, Answer>,
    /// Transfer tag of the R2T that came for a command.
    asked: BTreeMap<u32, u32>,
    /// Signs of life that are wanted: LUN and transfer tag.
    pings: Vec<([u8; 8], u32)>,
}

fn block(value: u8) -> Vec<u8> {
    [value].repeat(BLOCK as usize)
}

fn read_write(code: u8, block: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = code;
    cdb[2..6].copy_from_slice(&block.to_be_bytes());
    cdb[8] = 1;
    cdb
}

impl Session {
    pub(super) fn login(world: &mut World, node: usize) -> Self {
        let conn = world.connect(node);
        let text = format!(
            "InitiatorName=iqn.2026-11.org.example:host\0SessionType=Normal\0TargetName={TARGET}\0"
        );
        let mut request = LoginRequest::new_zeroed();
        request.opcode = opcode::LOGIN | 0x40;
        request.flags = LAST_STAGE;
        request.data_length = U24::new(u32::try_from(text.len()).unwrap());
        request.isid = [0x80, 0, 0, 0, 0, 1];
        let mut bytes = request.as_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        world.feed(node, conn, &bytes);
        let answer = world.output(node, conn);
        assert_eq!(answer[0], opcode::LOGIN_RESPONSE);
        assert_eq!((answer[1], &answer[36..38]), (LAST_STAGE, &[0, 0][..]));
        let mut session = Self {
            node,
            conn,
            cmd_sn: 0,
            next_tag: 1,
            received: Vec::new(),
            data: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: BTreeMap::new(),
            pings: Vec::new(),
        };
        // The unit attention that every new nexus gets.
        for lun in 0..2 {
            session.command(world, lun, [0; 16], 0, 0, &[]);
        }
        session
    }

    fn command(
        &mut self,
        world: &mut World,
        lun: u8,
        cdb: [u8; 16],
        flags: u8,
        expected: u32,
        data: &[u8],
    ) -> u32 {
        let mut command = ScsiCommand::new_zeroed();
        command.opcode = opcode::SCSI_COMMAND;
        command.flags = FINAL | flags;
        command.data_length = U24::new(u32::try_from(data.len()).unwrap());
        command.lun[1] = lun;
        command.task_tag = self.next_tag.into();
        command.expected_length = expected.into();
        command.cmd_sn = self.cmd_sn.into();
        command.cdb = cdb;
        self.next_tag += 1;
        self.cmd_sn += 1;
        let mut bytes = command.as_bytes().to_vec();
        bytes.extend(data);
        world.feed(self.node, self.conn, &bytes);
        self.next_tag - 1
    }

    /// WRITE (10) of a block full of this value, with its data; its tag.
    pub(super) fn write(&mut self, world: &mut World, lun: u8, at: u32, value: u8) -> u32 {
        let cdb = read_write(0x2a, at);
        self.command(world, lun, cdb, WRITES, BLOCK, &block(value))
    }

    /// The same, but its data waits to be asked for.
    pub(super) fn announce(&mut self, world: &mut World, lun: u8, at: u32) -> u32 {
        self.command(world, lun, read_write(0x2a, at), WRITES, BLOCK, &[])
    }

    /// Sends the data of a write that was announced and is asked for.
    pub(super) fn send(&mut self, world: &mut World, tag: u32, value: u8) {
        self.listen(world);
        let mut out = DataOut::new_zeroed();
        out.opcode = opcode::DATA_OUT;
        out.flags = FINAL;
        out.data_length = U24::new(BLOCK);
        out.task_tag = tag.into();
        out.transfer_tag = self.asked[&tag].into();
        let mut bytes = out.as_bytes().to_vec();
        bytes.extend(block(value));
        world.feed(self.node, self.conn, &bytes);
    }

    /// READ (10) of a block; its tag.
    pub(super) fn read(&mut self, world: &mut World, lun: u8, at: u32) -> u32 {
        self.command(world, lun, read_write(0x28, at), READS, BLOCK, &[])
    }

    /// SYNCHRONIZE CACHE (10) of everything; its tag.
    pub(super) fn flush(&mut self, world: &mut World, lun: u8) -> u32 {
        self.raw(world, lun, &[0x35], 0)
    }

    /// Any command that sends nothing; its tag.
    pub(super) fn raw(&mut self, world: &mut World, lun: u8, cdb: &[u8], expected: u32) -> u32 {
        let mut padded = [0; 16];
        padded[..cdb.len()].copy_from_slice(cdb);
        let flags = if expected == 0 { 0 } else { READS };
        self.command(world, lun, padded, flags, expected, &[])
    }

    /// The connection was closed by the node.
    pub(super) fn is_closed(&self, world: &mut World) -> bool {
        !world.is_open(self.node, self.conn)
    }

    /// How a command ended, if it did.
    pub(super) fn answer(&mut self, world: &mut World, tag: u32) -> Option<Answer> {
        self.listen(world);
        self.answers.get(&tag).cloned()
    }

    fn listen(&mut self, world: &mut World) {
        self.received.extend(world.output(self.node, self.conn));
        while self.received.len() >= HEADER_LEN {
            let (header, rest) = self.received.split_at(HEADER_LEN);
            let basic = *Basic::ref_from_bytes(header).unwrap();
            let len = basic.data_length.get() as usize;
            let (header, body) = (header.to_vec(), rest[..len].to_vec());
            self.received.drain(..HEADER_LEN + len.next_multiple_of(4));
            self.take(&basic, &header, &body);
        }
        for (lun, tag) in core::mem::take(&mut self.pings) {
            let mut pong = NopOut::new_zeroed();
            (pong.opcode, pong.flags, pong.lun) = (opcode::NOP_OUT | 0x40, FINAL, lun);
            (pong.task_tag, pong.transfer_tag) = (NO_TAG.into(), tag.into());
            pong.cmd_sn = self.cmd_sn.into();
            world.feed(self.node, self.conn, pong.as_bytes());
        }
    }

    fn take(&mut self, basic: &Basic, header: &[u8], body: &[u8]) {
        let tag = basic.task_tag.get();
        match basic.opcode() {
            opcode::SCSI_RESPONSE => {
                let response = ScsiResponse::ref_from_bytes(header).unwrap();
                // Two bytes of length, then fixed format sense data (SPC-4 §4.5.3).
                let sense = (!body.is_empty()).then(|| [body[4] & 0x0f, body[14], body[15]]);
                self.ended(tag, response.status, sense);
            }
            opcode::DATA_IN => {
                self.data.entry(tag).or_default().extend(body);
                let data_in = DataIn::ref_from_bytes(header).unwrap();
                if data_in.flags & WITH_STATUS != 0 {
                    self.ended(tag, data_in.status, None);
                }
            }
            opcode::R2T => {
                let r2t = R2t::ref_from_bytes(header).unwrap();
                assert_ne!(r2t.transfer_tag.get(), NO_TAG);
                self.asked.insert(tag, r2t.transfer_tag.get());
            }
            opcode::NOP_IN => {
                let ping = NopIn::ref_from_bytes(header).unwrap();
                self.pings.push((ping.lun, ping.transfer_tag.get()));
            }
            other => panic!("opcode {other:#x} was not expected"),
        }
    }

    fn ended(&mut self, tag: u32, status: u8, sense: Option<[u8; 3]>) {
        let data = self.data.remove(&tag).unwrap_or_default();
        let answer = Answer {
            status,
            sense,
            data,
        };
        let before = self.answers.insert(tag, answer);
        assert_eq!(before, None, "a command is answered once");
    }
}
