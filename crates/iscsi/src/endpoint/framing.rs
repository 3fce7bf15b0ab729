//! Cuts a connection's bytes into PDUs: headers and their digests, additional segments, data
//! segments and theirs. What a PDU means is decided elsewhere.

use super::Endpoint;
use crate::connection::{Connection, DIGEST_LEN, Receive, State};
use crate::digest;
use crate::interface::{ConnId, Output, Time};
use crate::pdu::{Basic, HEADER_LEN, opcode};
use alloc::vec::Vec;
use zerocopy::transmute;

/// Largest data segment of a PDU that is handled here and not in a task's buffer, bytes.
pub(super) const MAX_SEGMENT: u32 = 65_536;

impl Endpoint {
    pub(super) fn read_bytes(
        &mut self,
        now: Time,
        conn: ConnId,
        bytes: &[u8],
        out: &mut Vec<Output>,
    ) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        if matches!(connection.state, State::Closing) {
            return;
        }
        let wanted = connection.want();
        assert!(
            matches!(wanted, crate::interface::Want::Bytes(len) if len as usize == bytes.len()),
            "{} bytes were handed over, but {wanted:?} was wanted",
            bytes.len()
        );
        connection.heard = now;
        match connection.receive {
            Receive::Header => self.header(now, conn, bytes, out),
            Receive::Additional { .. } => self.additional(now, conn, bytes, out),
            Receive::Segment { len } => {
                connection.receive = Receive::Header;
                let good = segment_is_good(connection, len, bytes);
                self.segment(now, conn, &bytes[..len as usize], good, out);
            }
            Receive::Tail { task, len, crc } => {
                connection.receive = Receive::Header;
                let pad = bytes.len() - if connection.data_digest { 4 } else { 0 };
                let (pad, sent) = bytes.split_at(pad);
                let crc_with_pad = digest::crc32c_append(crc, pad);
                let good = sent.is_empty() || sent == crc_with_pad.to_le_bytes();
                self.landed(now, conn, task, len, crc, good, out);
            }
            Receive::Undecided { .. } | Receive::Data { .. } | Receive::Skip { .. } => {}
        }
    }

    pub(super) fn read_data(&mut self, now: Time, conn: ConnId, crc: u32, out: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let Receive::Data {
            task, len, surplus, ..
        } = connection.receive
        else {
            return;
        };
        connection.heard = now;
        connection.stalled = None;
        let tail = connection.tail_len(len + surplus);
        if matches!(connection.state, State::Closing) {
            connection.receive = Receive::Header;
            self.buffer_is_free(now, task, out);
        } else if surplus > 0 {
            // The digest covers bytes that were thrown away, so it says nothing.
            connection.receive = Receive::Skip {
                len: surplus + tail,
            };
            self.landed(now, conn, task, len, crc, true, out);
        } else if tail > 0 {
            connection.receive = Receive::Tail { task, len, crc };
            self.ask_to_end(task, out);
        } else {
            connection.receive = Receive::Header;
            self.landed(now, conn, task, len, crc, true, out);
        }
    }

    pub(super) fn read_skipped(&mut self, now: Time, conn: ConnId, _: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        connection.heard = now;
        if matches!(connection.receive, Receive::Skip { .. }) {
            connection.receive = Receive::Header;
        }
    }

    fn header(&mut self, now: Time, conn: ConnId, bytes: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let (header, digest) = bytes.split_at(HEADER_LEN);
        connection.header.copy_from_slice(header);
        let basic: Basic = transmute!(connection.header);
        let length = basic.data_length.get();
        if matches!(connection.state, State::Login(_)) && basic.opcode() != opcode::LOGIN {
            // Not an initiator, or one that is confused: no answer would be understood.
            return self.close(now, conn, out);
        }
        let whole = basic.ahs_words == 0 && !digest.is_empty();
        if whole && digest != digest::crc32c(header).to_le_bytes() {
            return self.bad_header_digest(now, conn, out);
        }
        if length > connection.max_receive {
            return self.protocol_error(now, conn, "a data segment longer than was declared", out);
        }
        if basic.ahs_words > 0 {
            if let Ok(early) = digest.try_into() {
                connection.early = early;
            }
            connection.receive = Receive::Additional {
                len: u32::from(basic.ahs_words) * 4,
            };
            return;
        }
        self.complete_header(now, conn, &[], out);
    }

    /// Additional header segments. With a digest, its place behind the basic header was read
    /// already and held the first word of them.
    fn additional(&mut self, now: Time, conn: ConnId, bytes: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        connection.receive = Receive::Header;
        if !connection.header_digest {
            return self.complete_header(now, conn, bytes, out);
        }
        let (rest, digest) = bytes.split_at(bytes.len() - DIGEST_LEN as usize);
        let mut crc = digest::crc32c(&connection.header);
        let mut segments = connection.early.to_vec();
        segments.extend_from_slice(rest);
        crc = digest::crc32c_append(crc, &segments);
        if digest != crc.to_le_bytes() {
            return self.bad_header_digest(now, conn, out);
        }
        self.complete_header(now, conn, &segments, out);
    }

    /// A header is whole: commands and data are taken at once, the rest with their data.
    fn complete_header(&mut self, now: Time, conn: ConnId, ahs: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connection_mut(conn) else {
            return;
        };
        let basic: Basic = transmute!(connection.header);
        let length = basic.data_length.get();
        match basic.opcode() {
            opcode::SCSI_COMMAND => return self.command(now, conn, ahs, out),
            opcode::DATA_OUT => return self.data_out(now, conn, out),
            opcode::LOGIN | opcode::TEXT | opcode::NOP_OUT if length <= MAX_SEGMENT => {}
            // No other request has data that could matter.
            _ => {
                connection.skip_segment(length);
                return self.request(now, conn, &[], out);
            }
        }
        if length == 0 {
            connection.receive = Receive::Header;
            return self.request(now, conn, &[], out);
        }
        connection.receive = Receive::Segment { len: length };
    }

    fn segment(&mut self, now: Time, conn: ConnId, data: &[u8], good: bool, out: &mut Vec<Output>) {
        if good {
            self.request(now, conn, data, out);
        } else {
            self.reject(conn, crate::pdu::reject_reason::DATA_DIGEST, out);
        }
    }

    /// The length of what follows can't be trusted, so there is no way on.
    fn bad_header_digest(&mut self, now: Time, conn: ConnId, out: &mut Vec<Output>) {
        self.protocol_error(now, conn, "a header with a wrong digest", out);
    }

    /// Closes a connection whose initiator does what no initiator may.
    pub(super) fn protocol_error(
        &mut self,
        now: Time,
        conn: ConnId,
        what: &str,
        out: &mut Vec<Output>,
    ) {
        if let Some(connection) = self.connection(conn) {
            let peer = connection.peer;
            self.notes.add(
                now,
                format_args!("closed the connection of {peer}: it sent {what}"),
                out,
            );
        }
        self.close(now, conn, out);
    }
}

/// Whether a segment of `len` bytes, in front of its padding and digest, is what was sent.
fn segment_is_good(connection: &Connection, len: u32, bytes: &[u8]) -> bool {
    if !connection.data_digest || len == 0 {
        return true;
    }
    let (covered, sent) = bytes.split_at(bytes.len() - DIGEST_LEN as usize);
    sent == digest::crc32c(covered).to_le_bytes()
}
