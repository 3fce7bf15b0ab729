//! How a command's data comes in: immediate, unsolicited, and asked for with R2Ts. All of it
//! arrives in the order of its offsets (DataPDUInOrder and DataSequenceInOrder are Yes, and R2Ts
//! are answered in their order, RFC 7143 §11.8), so a position is all there is to keep.

use crate::digest;
use crate::pdu::{DataOut, FINAL, NO_TAG};

/// What is wrong with data from the initiator. The command ends with CHECK CONDITION, sense key
/// ABORTED COMMAND; the connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A DataSN out of order, or a burst that ends early: DATA PHASE ERROR.
    Sequence,
    /// A target transfer tag that is not in use: INVALID TARGET PORT TRANSFER TAG RECEIVED.
    Tag,
    /// More than was asked for: TOO MUCH WRITE DATA.
    TooMuch,
    /// Not where it should be: DATA OFFSET ERROR.
    Offset,
    /// Unsolicited, though that was ruled out or limited: UNEXPECTED UNSOLICITED DATA.
    Unsolicited,
    /// Its digest is wrong: PROTOCOL SERVICE CRC ERROR.
    Digest,
}

impl Fault {
    /// Additional sense code and qualifier.
    pub(crate) fn sense_code(self) -> [u8; 2] {
        match self {
            Self::Sequence => [0x4b, 0x00],
            Self::Tag => [0x4b, 0x01],
            Self::TooMuch => [0x4b, 0x02],
            Self::Offset => [0x4b, 0x05],
            Self::Unsolicited => [0x0c, 0x0c],
            Self::Digest => [0x47, 0x05],
        }
    }
}

/// Limits that the session's login agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bursts {
    pub(crate) max_burst: u32,
    pub(crate) max_outstanding: u32,
}

/// One R2T to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Solicit {
    /// R2TSN, and the burst's number within the task.
    pub(crate) number: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// The incoming data of one command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transfer {
    /// Bytes that the engine wants; None until it has said so.
    wanted: Option<u32>,
    /// Offset at which the next data must begin.
    next: u32,
    /// Bytes that are in the buffer.
    landed: u32,
    /// CRC32C of those.
    crc: u32,
    /// DataSN of the next Data-Out.
    data_sn: u32,
    /// Data-Outs may come that nobody asked for: up to this offset, until one has the F bit.
    unsolicited: Option<u32>,
    /// End of what R2Ts have asked for.
    solicited: u32,
    bursts_sent: u32,
    bursts_done: u32,
    /// Where the burst ends that is coming in.
    burst_end: u32,
    /// The engine was told that everything is there.
    reported: bool,
}

impl Transfer {
    /// A command with `immediate` bytes in its own PDU. `unsolicited`: more comes without being
    /// asked for, up to this offset.
    pub(crate) fn new(immediate: u32, unsolicited: Option<u32>) -> Self {
        Self {
            next: immediate,
            unsolicited,
            ..Self::default()
        }
    }

    /// The engine has a place for `len` bytes.
    pub(crate) fn want(&mut self, len: u32) {
        self.wanted = Some(len);
    }

    pub(crate) fn is_decided(&self) -> bool {
        self.wanted.is_some()
    }

    /// How many of `len` bytes at `offset` go into the buffer; the rest is surplus.
    pub(crate) fn keep(&self, offset: u32, len: u32) -> u32 {
        self.wanted.unwrap_or(0).saturating_sub(offset).min(len)
    }

    /// A Data-Out with `len` bytes: its offset, or what is wrong with it. Either way it counts
    /// for [`Self::is_owed`].
    pub(crate) fn data_out(&mut self, header: &DataOut, burst: u32) -> Result<u32, Fault> {
        let (len, last) = (header.data_length.get(), header.flags & FINAL != 0);
        let offset = self.next;
        if header.transfer_tag.get() == NO_TAG {
            let Some(limit) = self.unsolicited else {
                return Err(Fault::Unsolicited);
            };
            if last {
                self.unsolicited = None;
            }
            self.place(header, len, limit, Fault::Unsolicited)?;
            if last {
                self.data_sn = 0;
            }
            return Ok(offset);
        }
        if self.bursts_done == self.bursts_sent {
            return Err(Fault::Tag);
        }
        if burst != self.bursts_done & 0xff {
            self.bursts_done += u32::from(last);
            return Err(Fault::Tag);
        }
        let placed = self.place(header, len, self.burst_end, Fault::TooMuch);
        if last {
            self.bursts_done += 1;
            self.data_sn = 0;
            placed?;
            if self.next != self.burst_end {
                return Err(Fault::Sequence);
            }
        }
        placed?;
        Ok(offset)
    }

    fn place(&mut self, header: &DataOut, len: u32, end: u32, excess: Fault) -> Result<(), Fault> {
        if header.data_sn.get() != self.data_sn {
            return Err(Fault::Sequence);
        }
        if header.offset.get() != self.next {
            return Err(Fault::Offset);
        }
        if len > end.saturating_sub(self.next) {
            return Err(excess);
        }
        self.next += len;
        self.data_sn += 1;
        Ok(())
    }

    /// `len` more bytes with this CRC are in the buffer.
    pub(crate) fn land(&mut self, len: u32, crc: u32) {
        self.crc = if self.landed == 0 {
            crc
        } else {
            digest::combine(self.crc, crc, u64::from(len))
        };
        self.landed += len;
    }

    /// The CRC32C of everything, once everything is in the buffer.
    pub(crate) fn complete(&self) -> Option<u32> {
        (self.landed >= self.wanted?).then_some(self.crc)
    }

    /// Whether the engine is still to be told of that; it is told once.
    pub(crate) fn report(&mut self) -> bool {
        !core::mem::replace(&mut self.reported, true)
    }

    /// The next R2T that may be sent.
    pub(crate) fn solicit(&mut self, limits: Bursts) -> Option<Solicit> {
        let wanted = self.wanted?;
        if self.unsolicited.is_some() {
            return None;
        }
        let outstanding = self.bursts_sent - self.bursts_done;
        if outstanding == 0 {
            self.solicited = self.next;
        }
        if self.solicited >= wanted || outstanding >= limits.max_outstanding {
            self.begin_burst(limits);
            return None;
        }
        let len = (wanted - self.solicited).min(limits.max_burst);
        let ask = Solicit {
            number: self.bursts_sent,
            offset: self.solicited,
            len,
        };
        self.bursts_sent += 1;
        self.solicited += len;
        self.begin_burst(limits);
        Some(ask)
    }

    /// Where the burst ends whose data comes next: bursts are full ones but for the last.
    fn begin_burst(&mut self, limits: Bursts) {
        if self.data_sn == 0 {
            self.burst_end = self
                .next
                .saturating_add(limits.max_burst)
                .min(self.solicited);
        }
    }

    /// Whether the initiator must still send something. RFC 7143 §11.4.2: a response waits for
    /// that, else the initiator could not tell late data from a later command's.
    pub(crate) fn is_owed(&self) -> bool {
        self.unsolicited.is_some() || self.bursts_done != self.bursts_sent
    }

    /// R2Ts that were sent.
    pub(crate) fn solicitations(&self) -> u32 {
        self.bursts_sent
    }
}

#[cfg(test)]
mod tests;
