//! Puts PDUs together for sending: lengths, digests, padding.

use crate::connection::Connection;
use crate::digest;
use crate::interface::{Body, Head, Output, TaskId};
use crate::pdu::{HEADER_LEN, U24, padding};
use alloc::vec::Vec;
use zerocopy::{Immutable, IntoBytes};

impl Connection {
    /// A PDU without data.
    pub(crate) fn send<H: IntoBytes + Immutable>(&self, header: &H, out: &mut Vec<Output>) {
        let head = self.head(header, 0);
        out.push(Output::Send {
            conn: self.id,
            head,
            body: Body::None,
        });
    }

    /// A PDU with these data bytes; the length is put into the header here.
    pub(crate) fn send_bytes<H: IntoBytes + Immutable>(
        &self,
        header: &H,
        mut data: Vec<u8>,
        out: &mut Vec<Output>,
    ) {
        let len = u32::try_from(data.len()).expect("segments are bounded by what they answer");
        if len == 0 {
            return self.send(header, out);
        }
        data.resize(data.len() + padding(len) as usize, 0);
        if self.data_digest {
            let digest = digest::crc32c(&data);
            data.extend_from_slice(&digest.to_le_bytes());
        }
        let head = self.head(header, len);
        out.push(Output::Send {
            conn: self.id,
            head,
            body: Body::Bytes(data),
        });
    }

    /// A PDU with a piece of a task's buffer.
    pub(crate) fn send_data<H: IntoBytes + Immutable>(
        &self,
        header: &H,
        task: TaskId,
        offset: u32,
        len: u32,
        out: &mut Vec<Output>,
    ) {
        let head = self.head(header, len);
        let body = Body::Data {
            task,
            offset,
            len,
            digest: self.data_digest,
        };
        out.push(Output::Send {
            conn: self.id,
            head,
            body,
        });
    }

    fn head<H: IntoBytes + Immutable>(&self, header: &H, data_length: u32) -> Head {
        let mut bytes = [0; 52];
        bytes[..HEADER_LEN].copy_from_slice(header.as_bytes());
        bytes[5..8].copy_from_slice(U24::new(data_length).as_bytes());
        if !self.header_digest {
            return Head { bytes, len: 48 };
        }
        let digest = digest::crc32c(&bytes[..HEADER_LEN]);
        bytes[HEADER_LEN..].copy_from_slice(&digest.to_le_bytes());
        Head { bytes, len: 52 }
    }

    /// StatSN for a PDU that carries a status.
    pub(crate) fn next_stat_sn(&mut self) -> u32 {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.wrapping_add(1);
        stat_sn
    }
}
