//! One vectored send: owned bytes (headers, padding, digests) and lent pieces of slots, in order.
//! A message is built, sent, perhaps resumed after a short send, cleared and used again, so that
//! sending costs no allocation once its vectors have grown.

use crate::prepare::Iovecs;
use crate::sys::Lent;
use std::ops::Range;

/// A piece of a message.
pub(crate) enum Part {
    /// These bytes of `owned`.
    Owned(Range<usize>),
    /// A piece of a slot.
    Lent(Lent),
}

/// What one `sendmsg` carries.
#[derive(Default)]
pub struct Message {
    pub(crate) owned: Vec<u8>,
    pub(crate) parts: Vec<Part>,
    pub(crate) iovecs: Iovecs,
    len: usize,
    sent: usize,
}

impl Message {
    /// The most pieces that the kernel takes at once (`IOV_MAX`).
    pub const PARTS_MAX: usize = 1024;

    /// Appends a copy of these bytes; joins them to owned bytes just before.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let start = self.owned.len();
        self.owned.extend_from_slice(bytes);
        let end = self.owned.len();
        match self.parts.last_mut() {
            Some(Part::Owned(range)) => range.end = end,
            _ => self.parts.push(Part::Owned(start..end)),
        }
        self.len += bytes.len();
    }

    /// Appends a lent piece of a slot.
    pub fn push_lent(&mut self, lent: Lent) {
        self.len += lent.len();
        self.parts.push(Part::Lent(lent));
    }

    /// Whether this many more pieces fit.
    #[must_use]
    pub const fn has_room(&self, parts: usize) -> bool {
        self.parts.len() + parts <= Self::PARTS_MAX
    }

    /// Bytes not yet sent.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.len - self.sent
    }

    /// Nothing was put in.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Notes that the kernel took this many bytes; what is left goes out with the next send.
    pub fn advance(&mut self, bytes: usize) {
        assert!(
            bytes <= self.remaining(),
            "the kernel took more than it was given"
        );
        self.sent += bytes;
    }

    /// Bytes that earlier sends of this message took.
    pub(crate) const fn sent(&self) -> usize {
        self.sent
    }

    /// Ends its loans and makes it empty; keeps its memory.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.owned.clear();
        self.iovecs.clear();
        self.len = 0;
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_bytes_in_a_row_are_one_piece() {
        let mut message = Message::default();
        message.push_bytes(b"header");
        message.push_bytes(b"text");
        assert_eq!(message.parts.len(), 1);
        message.advance(7);
        assert_eq!(message.remaining(), 3);
        message.clear();
        assert!(message.is_empty() && message.remaining() == 0);
    }
}
