//! One command in progress: what has come, what was sent, and the data PDUs that carry it.

use super::Time;
use super::command::Command;
use super::login::Negotiated;
use super::wire::{FINAL, Header, NO_TAG, encode, opcode};
use alloc::vec::Vec;

/// R bit of a SCSI command.
const READS: u8 = 0x40;
/// W bit.
const WRITES: u8 = 0x20;
/// Task attribute SIMPLE.
const SIMPLE: u8 = 1;

#[derive(Debug)]
pub(super) struct Task {
    /// The caller's name for it.
    pub(super) id: u64,
    pub(super) command: Command,
    pub(super) data_in: Vec<u8>,
    /// Next DataSN or R2TSN that the target will use.
    pub(super) received: u32,
    pub(super) deadline: Time,
}

/// The target asked for data it can't want.
#[derive(Debug)]
pub(super) struct BadRequest;

impl Task {
    /// The command PDU, its immediate data and what may follow unsolicited.
    pub(super) fn start(
        &self,
        tag: u32,
        cmd_sn: u32,
        stat_sn: u32,
        agreed: &Negotiated,
        out: &mut Vec<u8>,
    ) {
        let data = &self.command.data_out;
        let unsolicited = data.len().min(agreed.first_burst as usize);
        let immediate = if agreed.immediate {
            unsolicited.min(agreed.max_send as usize)
        } else {
            0
        };
        let more = !agreed.initial_r2t && immediate < unsolicited;
        let mut header = Header {
            opcode: opcode::SCSI_COMMAND,
            flags: SIMPLE
                | if data.is_empty() { 0 } else { WRITES }
                | if self.command.expect_in == 0 {
                    0
                } else {
                    READS
                }
                | if more { 0 } else { FINAL },
            lun: [0, self.command.lun, 0, 0, 0, 0, 0, 0],
            task_tag: tag.into(),
            transfer_tag: if data.is_empty() {
                self.command.expect_in
            } else {
                length(data)
            }
            .into(),
            number: cmd_sn.into(),
            expected: stat_sn.into(),
            ..Header::default()
        };
        for (word, bytes) in header.tail.iter_mut().zip(self.command.cdb.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes).into();
        }
        encode(header, &data[..immediate], agreed.digests, out);
        if more {
            self.send(tag, NO_TAG, stat_sn, immediate..unsolicited, agreed, out);
        }
    }

    /// Answers an R2T.
    pub(super) fn ready(
        &mut self,
        tag: u32,
        request: &Header,
        stat_sn: u32,
        agreed: &Negotiated,
        out: &mut Vec<u8>,
    ) -> Result<(), BadRequest> {
        let offset = request.tail[2].get() as usize;
        let len = request.tail[3].get() as usize;
        let end = offset.checked_add(len).ok_or(BadRequest)?;
        let in_order = request.tail[1].get() == self.received;
        if len == 0
            || end > self.command.data_out.len()
            || len > agreed.max_burst as usize
            || !in_order
        {
            return Err(BadRequest);
        }
        self.received += 1;
        self.send(
            tag,
            request.transfer_tag.get(),
            stat_sn,
            offset..end,
            agreed,
            out,
        );
        Ok(())
    }

    /// Takes in a Data-In PDU.
    pub(super) fn data(&mut self, header: &Header, data: &[u8]) -> Result<(), BadRequest> {
        let offset = header.tail[2].get() as usize;
        let in_order = header.tail[1].get() == self.received && offset == self.data_in.len();
        if !in_order || offset + data.len() > self.command.expect_in as usize {
            return Err(BadRequest);
        }
        self.received += 1;
        self.data_in.extend_from_slice(data);
        Ok(())
    }

    fn send(
        &self,
        tag: u32,
        transfer_tag: u32,
        stat_sn: u32,
        range: core::ops::Range<usize>,
        agreed: &Negotiated,
        out: &mut Vec<u8>,
    ) {
        let data = &self.command.data_out[range.clone()];
        let pieces = data.chunks(agreed.max_send as usize);
        let last = pieces.len() - 1;
        let mut offset = range.start;
        for (number, piece) in pieces.enumerate() {
            let header = Header {
                opcode: opcode::DATA_OUT,
                flags: if number == last { FINAL } else { 0 },
                lun: [0, self.command.lun, 0, 0, 0, 0, 0, 0],
                task_tag: tag.into(),
                transfer_tag: transfer_tag.into(),
                expected: stat_sn.into(),
                tail: [
                    0.into(),
                    count(number).into(),
                    count(offset).into(),
                    0.into(),
                ],
                ..Header::default()
            };
            encode(header, piece, agreed.digests, out);
            offset += piece.len();
        }
    }
}

fn length(data: &[u8]) -> u32 {
    count(data.len())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("a command carries less than 4 GiB")
}
