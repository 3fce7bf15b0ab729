//! A target of a few lines for the tests of this crate: no checks, no authentication, one disk in
//! memory, and answers that a test may choose.

use super::wire::{Digests, FINAL, Framer, Header, NO_TAG, encode, opcode};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

/// Bytes a block, to keep tests readable.
pub(super) const BLOCK: usize = 512;

#[derive(Debug, Default)]
pub(super) struct FakeTarget {
    framer: Framer,
    pub(super) out: Vec<u8>,
    pub(super) disk: BTreeMap<u64, Vec<u8>>,
    /// Status and sense for the next commands, instead of carrying them out.
    pub(super) answers: VecDeque<(u8, Vec<u8>)>,
    /// Takes everything and says nothing.
    pub(super) mute: bool,
    /// Data come by R2T only, so many bytes each.
    pub(super) burst: Option<u32>,
    /// Commands that may be outstanding.
    pub(super) window: u32,
    /// Login texts, one after the other; by default one that agrees to nothing.
    pub(super) login: VecDeque<(u8, Vec<u8>)>,
    /// Opcodes of everything that came.
    pub(super) seen: Vec<u8>,
    stat_sn: u32,
    exp_cmd_sn: u32,
    writes: BTreeMap<u32, (Header, Vec<u8>)>,
    /// R2Ts sent for a task.
    requests: BTreeMap<u32, u32>,
}

impl FakeTarget {
    pub(super) fn new() -> Self {
        Self {
            window: 32,
            ..Self::default()
        }
    }

    /// A new connection begins.
    pub(super) fn reset(&mut self) {
        self.framer.clear();
        self.out.clear();
        self.writes.clear();
        self.requests.clear();
        (self.stat_sn, self.exp_cmd_sn) = (0, 1);
    }

    pub(super) fn received(&mut self, bytes: &[u8]) {
        let mut framer = core::mem::take(&mut self.framer);
        framer.push(bytes);
        while let Some((header, data)) = framer.next(Digests::default()).unwrap() {
            self.seen.push(header.opcode & 0x3f);
            if !self.mute {
                self.pdu(&header, data);
            }
        }
        self.framer = framer;
    }

    fn pdu(&mut self, header: &Header, data: &[u8]) {
        match header.opcode & 0x3f {
            opcode::LOGIN => {
                let (flags, text) = self
                    .login
                    .pop_front()
                    .unwrap_or((FINAL | 1 << 2 | 3, Vec::new()));
                self.send(
                    Header {
                        opcode: opcode::LOGIN_RESPONSE,
                        flags,
                        ..*header
                    },
                    [0; 2],
                    &text,
                );
            }
            opcode::SCSI_COMMAND => {
                self.exp_cmd_sn = header.number.get() + 1;
                self.command(header, data);
            }
            opcode::DATA_OUT => {
                let tag = header.task_tag.get();
                let (command, so_far) = self.writes.get_mut(&tag).unwrap();
                assert_eq!(header.tail[2].get() as usize, so_far.len(), "data in order");
                so_far.extend_from_slice(data);
                let command = *command;
                if header.flags & FINAL != 0 {
                    self.more(&command);
                }
            }
            opcode::NOP_OUT => self.send(
                Header {
                    opcode: opcode::NOP_IN,
                    ..*header
                },
                [0; 2],
                data,
            ),
            opcode::LOGOUT => self.send(
                Header {
                    opcode: opcode::LOGOUT_RESPONSE,
                    ..*header
                },
                [0; 2],
                &[],
            ),
            opcode::TASK_MANAGEMENT => {
                self.send(
                    Header {
                        opcode: opcode::TASK_MANAGEMENT_RESPONSE,
                        flags: FINAL,
                        ..*header
                    },
                    [0; 2],
                    &[],
                );
            }
            other => panic!("no such request: {other:x}"),
        }
    }

    fn command(&mut self, header: &Header, data: &[u8]) {
        if let Some((status, sense)) = self.answers.pop_front() {
            let mut segment = Vec::new();
            if !sense.is_empty() {
                segment.extend_from_slice(&u16::try_from(sense.len()).unwrap().to_be_bytes());
                segment.extend_from_slice(&sense);
            }
            let response = Header {
                opcode: opcode::SCSI_RESPONSE,
                flags: FINAL,
                ..*header
            };
            return self.send(response, [0, status], &segment);
        }
        match header.tail[0].get() >> 24 {
            0x8a => {
                self.writes
                    .insert(header.task_tag.get(), (*header, data.to_vec()));
                if header.flags & FINAL != 0 {
                    self.more(header);
                }
            }
            0x88 => {
                let (lba, blocks) = range(header);
                let zero = vec![0; BLOCK];
                let blocks = (lba..lba + blocks)
                    .flat_map(|lba| self.disk.get(&lba).unwrap_or(&zero).clone());
                let data: Vec<u8> = blocks.collect();
                let response = Header {
                    opcode: opcode::DATA_IN,
                    flags: FINAL | 1,
                    transfer_tag: NO_TAG.into(),
                    ..*header
                };
                self.send(response, [0, 0], &data);
            }
            _ => self.send(
                Header {
                    opcode: opcode::SCSI_RESPONSE,
                    flags: FINAL,
                    ..*header
                },
                [0; 2],
                &[],
            ),
        }
    }

    /// Asks for the rest of a write's data, or carries it out.
    fn more(&mut self, header: &Header) {
        let tag = header.task_tag.get();
        let have = u32::try_from(self.writes[&tag].1.len()).unwrap();
        let missing = header.transfer_tag.get() - have;
        if missing == 0 {
            let (_, data) = self.writes.remove(&tag).unwrap();
            let (lba, _) = range(header);
            self.disk
                .extend((lba..).zip(data.chunks(BLOCK).map(<[u8]>::to_vec)));
            return self.send(
                Header {
                    opcode: opcode::SCSI_RESPONSE,
                    flags: FINAL,
                    ..*header
                },
                [0; 2],
                &[],
            );
        }
        let burst = self.burst.unwrap_or(missing);
        let sn = self.requests.entry(tag).or_default();
        let sn = core::mem::replace(sn, *sn + 1);
        let request = Header {
            opcode: opcode::R2T,
            flags: FINAL,
            transfer_tag: 0x77.into(),
            number: self.stat_sn.into(),
            expected: self.exp_cmd_sn.into(),
            task_tag: header.task_tag,
            tail: [
                self.max_cmd_sn().into(),
                sn.into(),
                have.into(),
                missing.min(burst).into(),
            ],
            ..Header::default()
        };
        encode(request, &[], Digests::default(), &mut self.out);
    }

    fn max_cmd_sn(&self) -> u32 {
        self.exp_cmd_sn + self.window - 1
    }

    fn send(&mut self, header: Header, status: [u8; 2], data: &[u8]) {
        let response = Header {
            status,
            number: self.stat_sn.into(),
            expected: self.exp_cmd_sn.into(),
            tail: [self.max_cmd_sn().into(), 0.into(), 0.into(), 0.into()],
            ..header
        };
        self.stat_sn += 1;
        encode(response, data, Digests::default(), &mut self.out);
    }
}

fn range(header: &Header) -> (u64, u64) {
    let lba =
        u64::from(header.tail[0].get() & 0xffff) << 48 | u64::from(header.tail[1].get()) << 16;
    (
        lba | u64::from(header.tail[2].get() >> 16),
        u64::from(header.tail[2].get() & 0xffff) << 16 | u64::from(header.tail[3].get() >> 16),
    )
}
