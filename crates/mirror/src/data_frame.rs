//! The frames of a volume's data path, to and from [`Fields`] and a body.
//!
//! What a frame means is told in `docs/replication.md`; the numbers stand in
//! `docs/wire-format.md`. Kinds from 0x100 on are `Node`'s.

use crate::control::{Incarnation, VolumeSpec};
use crate::fields::Fields;
use crate::operation::{Extent, Operation, Payload};
use crate::volume_action::FrameBody;
use alloc::boxed::Box;
use thiserror::Error;

mod decode;
pub mod proxy;
#[cfg(test)]
mod tests;

/// A frame of the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataFrame {
    /// "I am in this configuration (and attempt of a resync) and take its frames on this channel."
    /// Nothing else is sent on a channel before both sides said so.
    Ready {
        /// Whether this answers the other side's own.
        answer: bool,
        /// The low half of the configuration's generation: equal epochs of two lineages differ.
        lineage: u64,
        /// Which attempt of a resync; 0 between members.
        attempt: u64,
    },
    /// Owner (or source of a resync) to replica: apply this.
    Apply {
        /// Its place in the epoch's order.
        seq: u64,
        /// Every operation below this one is committed.
        low: u64,
        /// What.
        operation: Operation,
    },
    /// Member to owner: sequence this for me.
    Forward {
        /// The sender's number for it; never reused in the sender's run.
        id: u64,
        /// The newest heartbeat token held when the command was received.
        token: u64,
        /// What.
        operation: Operation,
    },
    /// Owner: the forward has this place; apply it.
    Grant {
        /// Its place.
        seq: u64,
        /// The forward's number.
        id: u64,
        /// Every operation below this one is committed.
        low: u64,
    },
    /// Replica: applied, as durable as the cache mode asks.
    Stored {
        /// Which.
        seq: u64,
    },
    /// Owner: a granted forward is stored here too.
    Done {
        /// Which.
        seq: u64,
    },
    /// Owner: this forward was not sequenced and never will be.
    Refused {
        /// Which.
        id: u64,
    },
    /// Member: do not sequence this forward if you have not yet; say which it is.
    Cancel {
        /// Which.
        id: u64,
    },
    /// Replica: tell me when this is committed.
    AskCommitted {
        /// Which.
        seq: u64,
    },
    /// Owner: this is committed.
    Committed {
        /// Which.
        seq: u64,
        /// Every operation below this one is committed too.
        low: u64,
    },
    /// Replica: what is your last number?
    AskLatest {
        /// Names the question.
        id: u64,
    },
    /// Owner: nothing after this number is sequenced yet.
    Latest {
        /// The question.
        id: u64,
        /// The last number given.
        seq: u64,
    },
    /// Either: flush your copy.
    Flush {
        /// Names the request.
        id: u64,
    },
    /// Either: the copy is flushed.
    Flushed {
        /// The request.
        id: u64,
    },
    /// Source: what may differ in [`BITS_SPAN`] bytes from here?
    AskBits {
        /// First byte.
        offset: u64,
    },
    /// Target: one bit for each 64 KiB from here on, most significant bit first.
    Bits {
        /// First byte.
        offset: u64,
        /// At most 64 KiB of bits.
        bits: Box<[u8]>,
    },
    /// Source: hashes of pieces of 64 KiB, 16 bytes each.
    Hashes {
        /// Names the step.
        step: u64,
        /// Which bytes.
        extent: Extent,
        /// The hashes.
        hashes: Box<[u8]>,
    },
    /// Target: which pieces of a step differ, bit 0 being the first.
    Differs {
        /// The step.
        step: u64,
        /// One bit a piece.
        pieces: u64,
        /// This side could not read it.
        unreadable: bool,
    },
    /// Owner: send these blocks as you hold them.
    AskBlocks {
        /// Names the request.
        id: u64,
        /// Which bytes.
        extent: Extent,
    },
    /// Replica: here they are.
    Blocks {
        /// The request.
        id: u64,
        /// Which bytes.
        extent: Extent,
        /// The blocks.
        payload: Payload,
    },
    /// Replica: they cannot be read here.
    NoBlocks {
        /// The request.
        id: u64,
    },
    /// Replica: these blocks cannot be read here; write them anew.
    AskMend {
        /// Names the request.
        id: u64,
        /// Which bytes.
        extent: Extent,
    },
    /// Owner: they were written anew, or cannot be read here either.
    Mended {
        /// The request.
        id: u64,
        /// They were written.
        good: bool,
    },
    /// Between a proxy and its host.
    Proxy(proxy::ProxyFrame),
}

/// How many bytes of a volume one `Bits` frame covers: 64 KiB of bits at 64 KiB a bit.
pub const BITS_SPAN: u64 = (64 << 10) * 8 * (64 << 10);

const READY: u16 = 0x01;
const APPLY: u16 = 0x10;
const FORWARD: u16 = 0x20;
const GRANT: u16 = 0x30;
const STORED: u16 = 0x31;
const DONE: u16 = 0x32;
const REFUSED: u16 = 0x33;
const CANCEL: u16 = 0x34;
const ASK_COMMITTED: u16 = 0x35;
const COMMITTED: u16 = 0x36;
const ASK_LATEST: u16 = 0x37;
const LATEST: u16 = 0x38;
const FLUSH: u16 = 0x40;
const FLUSHED: u16 = 0x41;
const ASK_BITS: u16 = 0x50;
const BITS: u16 = 0x51;
const HASHES: u16 = 0x52;
const DIFFERS: u16 = 0x53;
const ASK_BLOCKS: u16 = 0x54;
const BLOCKS: u16 = 0x55;
const NO_BLOCKS: u16 = 0x56;
const ASK_MEND: u16 = 0x57;
const MENDED: u16 = 0x58;

/// The five operations, added to `APPLY` or `FORWARD`.
const WRITE: u16 = 0;
const ZERO: u16 = 1;
const DISCARD: u16 = 2;
const COMPARE_AND_WRITE: u16 = 3;
const STATE: u16 = 4;

/// Flag of `Ready`.
const ANSWER: u16 = 1;
/// Flag of `Differs`: it could not be read.
const UNREADABLE: u16 = 1;
/// Flag of `Mended`: it was written anew.
const GOOD: u16 = 1;
/// Flag of an operation: durable before it is answered.
const FUA: u16 = 1;

/// Whether a frame of this kind carries blocks, received into a buffer, rather than bytes.
#[must_use]
pub const fn blocks_follow(kind: u16) -> bool {
    matches!(kind, 0x10 | 0x13 | 0x20 | 0x23 | BLOCKS) || proxy::has_blocks(kind)
}

/// Whether this kind is a forward.
#[must_use]
pub const fn is_forward(kind: u16) -> bool {
    matches!(kind, 0x20..=0x24)
}

/// Whether the receiver may do without the blocks of this kind: a forward is refused, and what was
/// asked for is asked for again. Other blocks have to be waited for.
#[must_use]
pub const fn may_be_refused(kind: u16) -> bool {
    is_forward(kind) || kind == BLOCKS || proxy::may_be_refused(kind)
}

/// Whether this kind brings blocks that were asked for.
#[must_use]
pub const fn is_blocks(kind: u16) -> bool {
    kind == BLOCKS
}

/// A frame that an honest partner of this version never sends. It is counted and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadFrame {
    /// Unknown kind.
    #[error("a data frame of the unknown kind {0:#x}")]
    Kind(u16),
    /// An extent that is not whole blocks of this volume, or too long.
    #[error("a data frame names bytes {0} to {1}, which are not whole blocks of this volume")]
    Extent(u64, u64),
    /// The body is missing, has another form or length than the header says, or another CRC.
    #[error("a data frame of kind {0:#x} has a body that does not fit its header")]
    Body(u16),
    /// An operation that is only reserved.
    #[error("a data frame carries an operation that this version does not know how to apply")]
    Reserved,
}

impl DataFrame {
    /// Header fields and body for sending.
    #[must_use]
    pub fn encode(self, spec: &VolumeSpec, epoch: u64) -> (Fields, FrameBody) {
        let mut fields = Fields {
            volume: spec.id.0,
            epoch,
            incarnation: spec.incarnation.0,
            ..Fields::default()
        };
        let body = self.fill(&mut fields);
        match &body {
            FrameBody::None => {}
            FrameBody::Bytes(bytes) => {
                fields.payload_len =
                    u32::try_from(bytes.len()).expect("a body of bytes is at most 64 KiB");
                fields.payload_crc = crc32c::crc32c(bytes);
            }
            FrameBody::Blocks(payload) => {
                fields.payload_len = payload.len;
                fields.payload_crc = payload.crc;
            }
        }
        (fields, body)
    }

    fn fill(self, fields: &mut Fields) -> FrameBody {
        match self {
            Self::Ready {
                answer,
                lineage,
                attempt,
            } => {
                *fields = Fields {
                    kind: READY,
                    flags: if answer { ANSWER } else { 0 },
                    seq: attempt,
                    aux: lineage,
                    ..*fields
                };
            }
            Self::Apply {
                seq,
                low,
                operation,
            } => {
                *fields = Fields {
                    kind: APPLY,
                    seq,
                    aux: low,
                    ..*fields
                };
                return fill_operation(fields, operation);
            }
            Self::Forward {
                id,
                token,
                operation,
            } => {
                *fields = Fields {
                    kind: FORWARD,
                    seq: id,
                    aux: token,
                    ..*fields
                };
                return fill_operation(fields, operation);
            }
            Self::Grant { seq, id, low } => {
                *fields = Fields {
                    kind: GRANT,
                    seq,
                    aux: id,
                    offset: low,
                    ..*fields
                }
            }
            Self::Stored { seq } => {
                *fields = Fields {
                    kind: STORED,
                    seq,
                    ..*fields
                }
            }
            Self::Done { seq } => {
                *fields = Fields {
                    kind: DONE,
                    seq,
                    ..*fields
                }
            }
            Self::Refused { id } => {
                *fields = Fields {
                    kind: REFUSED,
                    seq: id,
                    ..*fields
                }
            }
            Self::Cancel { id } => {
                *fields = Fields {
                    kind: CANCEL,
                    seq: id,
                    ..*fields
                }
            }
            Self::AskCommitted { seq } => {
                *fields = Fields {
                    kind: ASK_COMMITTED,
                    seq,
                    ..*fields
                }
            }
            Self::Committed { seq, low } => {
                *fields = Fields {
                    kind: COMMITTED,
                    seq,
                    aux: low,
                    ..*fields
                }
            }
            Self::AskLatest { id } => {
                *fields = Fields {
                    kind: ASK_LATEST,
                    aux: id,
                    ..*fields
                }
            }
            Self::Latest { id, seq } => {
                *fields = Fields {
                    kind: LATEST,
                    aux: id,
                    seq,
                    ..*fields
                }
            }
            Self::Flush { id } => {
                *fields = Fields {
                    kind: FLUSH,
                    aux: id,
                    ..*fields
                }
            }
            Self::Flushed { id } => {
                *fields = Fields {
                    kind: FLUSHED,
                    aux: id,
                    ..*fields
                }
            }
            Self::AskBits { offset } => {
                *fields = Fields {
                    kind: ASK_BITS,
                    offset,
                    ..*fields
                }
            }
            Self::Bits { offset, bits } => {
                *fields = Fields {
                    kind: BITS,
                    offset,
                    ..*fields
                };
                return FrameBody::Bytes(bits);
            }
            Self::Hashes {
                step,
                extent,
                hashes,
            } => {
                *fields = Fields {
                    kind: HASHES,
                    seq: step,
                    offset: extent.offset,
                    length: extent.len,
                    ..*fields
                };
                return FrameBody::Bytes(hashes);
            }
            Self::Differs {
                step,
                pieces,
                unreadable,
            } => {
                *fields = Fields {
                    kind: DIFFERS,
                    flags: if unreadable { UNREADABLE } else { 0 },
                    seq: step,
                    aux: pieces,
                    ..*fields
                }
            }
            Self::Proxy(frame) => return frame.fill(fields),
            Self::AskBlocks { id, extent } => place(fields, ASK_BLOCKS, id, extent),
            Self::AskMend { id, extent } => place(fields, ASK_MEND, id, extent),
            Self::Blocks {
                id,
                extent,
                payload,
            } => {
                place(fields, BLOCKS, id, extent);
                return FrameBody::Blocks(payload);
            }
            Self::NoBlocks { id } => {
                *fields = Fields {
                    kind: NO_BLOCKS,
                    seq: id,
                    ..*fields
                }
            }
            Self::Mended { id, good } => {
                *fields = Fields {
                    kind: MENDED,
                    flags: if good { GOOD } else { 0 },
                    seq: id,
                    ..*fields
                }
            }
        }
        FrameBody::None
    }
}

fn place(fields: &mut Fields, kind: u16, id: u64, extent: Extent) {
    fields.kind = kind;
    fields.seq = id;
    fields.offset = extent.offset;
    fields.length = extent.len;
}

/// Who sent a frame, and in which epoch.
#[must_use]
pub const fn sender(fields: &Fields) -> (u64, Incarnation) {
    (fields.epoch, Incarnation(fields.incarnation))
}

fn fill_operation(fields: &mut Fields, operation: Operation) -> FrameBody {
    let (code, extent, fua) = match &operation {
        Operation::Write { extent, fua, .. } => (WRITE, *extent, *fua),
        Operation::Zero { extent, fua } => (ZERO, *extent, *fua),
        Operation::Discard { extent } => (DISCARD, *extent, false),
        Operation::CompareAndWrite { extent, .. } => (COMPARE_AND_WRITE, *extent, false),
        Operation::State { kind, .. } => (
            STATE,
            Extent {
                offset: u64::from(*kind),
                len: 0,
            },
            false,
        ),
    };
    fields.kind += code;
    fields.flags = if fua { FUA } else { 0 };
    fields.offset = extent.offset;
    fields.length = extent.len;
    match operation {
        Operation::Write { payload, .. } | Operation::CompareAndWrite { write: payload, .. } => {
            FrameBody::Blocks(payload)
        }
        Operation::Zero { .. } | Operation::Discard { .. } => FrameBody::None,
        Operation::State { bytes, .. } => FrameBody::Bytes(bytes),
    }
}

/// The payload of blocks in a body, if there is one.
#[must_use]
pub const fn blocks(body: &FrameBody) -> Option<Payload> {
    match body {
        FrameBody::Blocks(payload) => Some(*payload),
        FrameBody::None | FrameBody::Bytes(_) => None,
    }
}
