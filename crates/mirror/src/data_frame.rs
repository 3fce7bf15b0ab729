//! The frames of a volume's data path, to and from [`Fields`] and a body.
//!
//! What a frame means is told in `docs/replication.md`; the numbers stand in
//! `docs/wire-format.md`. Kinds from 0x100 on are `Node`'s.

use crate::control::{Incarnation, VolumeSpec};
use crate::fields::Fields;
use crate::operation::{
    Extent, MAX_RANGE_BYTES, MAX_STATE_BYTES, MAX_WRITE_BYTES, Operation, Payload,
};
use crate::volume_action::FrameBody;
use alloc::boxed::Box;
use thiserror::Error;

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
    },
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

/// The five operations, added to `APPLY` or `FORWARD`.
const WRITE: u16 = 0;
const ZERO: u16 = 1;
const DISCARD: u16 = 2;
const COMPARE_AND_WRITE: u16 = 3;
const STATE: u16 = 4;

/// Flag of `Ready`.
const ANSWER: u16 = 1;
/// Flag of an operation: durable before it is answered.
const FUA: u16 = 1;

/// Whether a frame of this kind carries blocks, received into a buffer, rather than bytes.
#[must_use]
pub const fn blocks_follow(kind: u16) -> bool {
    matches!(kind, 0x10 | 0x13 | 0x20 | 0x23)
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
            Self::Differs { step, pieces } => {
                *fields = Fields {
                    kind: DIFFERS,
                    seq: step,
                    aux: pieces,
                    ..*fields
                }
            }
        }
        FrameBody::None
    }

    /// Understands a frame that was received for this volume.
    ///
    /// # Errors
    /// Whatever an honest partner does not send; the body's buffer is then still the caller's.
    pub fn decode(fields: &Fields, body: FrameBody, spec: &VolumeSpec) -> Result<Self, BadFrame> {
        let kind = fields.kind;
        let bad_body = BadFrame::Body(kind);
        match kind {
            0x10..=0x14 => {
                let operation = take_operation(fields, body, kind - APPLY, spec)?;
                return Ok(Self::Apply {
                    seq: fields.seq,
                    low: fields.aux,
                    operation,
                });
            }
            0x20..=0x24 => {
                let operation = take_operation(fields, body, kind - FORWARD, spec)?;
                return Ok(Self::Forward {
                    id: fields.seq,
                    token: fields.aux,
                    operation,
                });
            }
            BITS => {
                let bits = take_bytes(body).ok_or(bad_body)?;
                if bits.len() > 64 << 10 || !fields.offset.is_multiple_of(BITS_SPAN) {
                    return Err(bad_body);
                }
                return Ok(Self::Bits {
                    offset: fields.offset,
                    bits,
                });
            }
            HASHES => {
                let hashes = take_bytes(body).ok_or(bad_body)?;
                let extent = take_extent(fields, spec, u64::from(MAX_WRITE_BYTES))?;
                if hashes.len() as u64 != extent.len.div_ceil(64 << 10) * 16 {
                    return Err(bad_body);
                }
                return Ok(Self::Hashes {
                    step: fields.seq,
                    extent,
                    hashes,
                });
            }
            _ if body != FrameBody::None => return Err(bad_body),
            _ => {}
        }
        let Fields {
            seq, aux, offset, ..
        } = *fields;
        Ok(match kind {
            READY => Self::Ready {
                answer: fields.flags & ANSWER != 0,
                lineage: aux,
                attempt: seq,
            },
            GRANT => Self::Grant {
                seq,
                id: aux,
                low: offset,
            },
            STORED => Self::Stored { seq },
            DONE => Self::Done { seq },
            REFUSED => Self::Refused { id: seq },
            CANCEL => Self::Cancel { id: seq },
            ASK_COMMITTED => Self::AskCommitted { seq },
            COMMITTED => Self::Committed { seq, low: aux },
            ASK_LATEST => Self::AskLatest { id: aux },
            LATEST => Self::Latest { id: aux, seq },
            FLUSH => Self::Flush { id: aux },
            FLUSHED => Self::Flushed { id: aux },
            ASK_BITS if offset.is_multiple_of(BITS_SPAN) && offset < spec.size => {
                Self::AskBits { offset }
            }
            ASK_BITS => return Err(BadFrame::Extent(offset, offset)),
            DIFFERS => Self::Differs {
                step: seq,
                pieces: aux,
            },
            kind => return Err(BadFrame::Kind(kind)),
        })
    }
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

fn take_operation(
    fields: &Fields,
    body: FrameBody,
    code: u16,
    spec: &VolumeSpec,
) -> Result<Operation, BadFrame> {
    let bad_body = BadFrame::Body(fields.kind);
    let fua = fields.flags & FUA != 0;
    match code {
        WRITE => {
            let extent = take_extent(fields, spec, u64::from(MAX_WRITE_BYTES))?;
            let FrameBody::Blocks(payload) = body else {
                return Err(bad_body);
            };
            if u64::from(payload.len) != extent.len
                || payload.len != fields.payload_len
                || payload.crc != fields.payload_crc
            {
                return Err(bad_body);
            }
            Ok(Operation::Write {
                extent,
                payload,
                fua,
            })
        }
        ZERO | DISCARD => {
            let extent = take_extent(fields, spec, MAX_RANGE_BYTES)?;
            if body != FrameBody::None {
                return Err(bad_body);
            }
            Ok(if code == ZERO {
                Operation::Zero { extent, fua }
            } else {
                Operation::Discard { extent }
            })
        }
        STATE => {
            let bytes = take_bytes(body).ok_or(bad_body)?;
            let kind = u16::try_from(fields.offset).map_err(|_| bad_body)?;
            if bytes.len() > MAX_STATE_BYTES {
                return Err(bad_body);
            }
            Ok(Operation::State { kind, bytes })
        }
        _ => Err(BadFrame::Reserved),
    }
}

fn take_bytes(body: FrameBody) -> Option<Box<[u8]>> {
    match body {
        FrameBody::Bytes(bytes) => Some(bytes),
        FrameBody::None => Some(Box::default()),
        FrameBody::Blocks(_) => None,
    }
}

fn take_extent(fields: &Fields, spec: &VolumeSpec, most: u64) -> Result<Extent, BadFrame> {
    let Fields {
        offset,
        length: len,
        ..
    } = *fields;
    let block = u64::from(spec.block_size);
    let whole = offset.is_multiple_of(block) && len.is_multiple_of(block);
    let inside = offset.checked_add(len).is_some_and(|end| end <= spec.size);
    if whole && inside && len > 0 && len <= most {
        Ok(Extent { offset, len })
    } else {
        Err(BadFrame::Extent(offset, offset.saturating_add(len)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{CacheMode, NodeId, VolumeId};
    use crate::operation::BufferId;

    fn spec() -> VolumeSpec {
        VolumeSpec {
            id: VolumeId(7),
            size: 1 << 30,
            block_size: 512,
            cache: CacheMode::WriteThrough,
            me: NodeId(1),
            partner: Some(NodeId(2)),
            incarnation: Incarnation(99),
        }
    }

    fn payload(len: u32) -> Payload {
        Payload {
            buffer: BufferId {
                slot: 3,
                generation: 1,
            },
            at: 0,
            len,
            crc: 5,
        }
    }

    #[test]
    fn every_frame_survives_the_wire() {
        let extent = Extent {
            offset: 4096,
            len: 1024,
        };
        let write = Operation::Write {
            extent,
            payload: payload(1024),
            fua: true,
        };
        let state = Operation::State {
            kind: 9,
            bytes: Box::from(*b"page"),
        };
        let frames = [
            DataFrame::Ready {
                answer: true,
                lineage: 1,
                attempt: 2,
            },
            DataFrame::Apply {
                seq: 1,
                low: 1,
                operation: write.clone(),
            },
            DataFrame::Apply {
                seq: 2,
                low: 1,
                operation: Operation::Zero { extent, fua: false },
            },
            DataFrame::Apply {
                seq: 3,
                low: 1,
                operation: Operation::Discard { extent },
            },
            DataFrame::Apply {
                seq: 4,
                low: 1,
                operation: state.clone(),
            },
            DataFrame::Forward {
                id: 1,
                token: 77,
                operation: write,
            },
            DataFrame::Forward {
                id: 2,
                token: 77,
                operation: state,
            },
            DataFrame::Grant {
                seq: 5,
                id: 1,
                low: 4,
            },
            DataFrame::Stored { seq: 5 },
            DataFrame::Done { seq: 5 },
            DataFrame::Refused { id: 1 },
            DataFrame::Cancel { id: 1 },
            DataFrame::AskCommitted { seq: 5 },
            DataFrame::Committed { seq: 5, low: 6 },
            DataFrame::AskLatest { id: 8 },
            DataFrame::Latest { id: 8, seq: 5 },
            DataFrame::Flush { id: 3 },
            DataFrame::Flushed { id: 3 },
            DataFrame::AskBits { offset: 0 },
            DataFrame::Bits {
                offset: 0,
                bits: Box::from([1, 2, 3]),
            },
            DataFrame::Hashes {
                step: 1,
                extent: Extent {
                    offset: 0,
                    len: 128 << 10,
                },
                hashes: Box::from([7; 32]),
            },
            DataFrame::Differs {
                step: 1,
                pieces: 0b10,
            },
        ];
        for frame in frames {
            let (fields, body) = frame.clone().encode(&spec(), 4);
            assert_eq!(sender(&fields), (4, Incarnation(99)));
            assert_eq!(blocks_follow(fields.kind), blocks(&body).is_some());
            assert_eq!(DataFrame::decode(&fields, body, &spec()), Ok(frame));
        }
    }

    #[test]
    fn an_extent_outside_the_volume_is_refused() {
        let operation = Operation::Zero {
            extent: Extent {
                offset: 0,
                len: 512,
            },
            fua: false,
        };
        let (good, body) = DataFrame::Apply {
            seq: 1,
            low: 1,
            operation,
        }
        .encode(&spec(), 1);
        for (offset, length) in [
            (1 << 30, 512),
            (u64::MAX - 511, 512),
            (1, 512),
            (0, 513),
            (0, 0),
            (0, 65 << 20),
        ] {
            let fields = Fields {
                offset,
                length,
                ..good
            };
            assert!(
                matches!(
                    DataFrame::decode(&fields, body.clone(), &spec()),
                    Err(BadFrame::Extent(..))
                ),
                "{offset} {length}"
            );
        }
    }

    #[test]
    fn a_body_that_does_not_fit_is_refused() {
        let operation = Operation::Write {
            extent: Extent {
                offset: 0,
                len: 1024,
            },
            payload: payload(1024),
            fua: false,
        };
        let (fields, _) = DataFrame::Apply {
            seq: 1,
            low: 1,
            operation,
        }
        .encode(&spec(), 1);
        let wrong_crc = Payload {
            crc: 6,
            ..payload(1024)
        };
        for body in [
            FrameBody::None,
            FrameBody::Blocks(payload(512)),
            FrameBody::Blocks(wrong_crc),
            FrameBody::Bytes(Box::default()),
        ] {
            assert_eq!(
                DataFrame::decode(&fields, body, &spec()),
                Err(BadFrame::Body(0x10))
            );
        }
    }

    #[test]
    fn a_reserved_or_unknown_kind_is_refused() {
        let reserved = Fields {
            kind: 0x13,
            ..Fields::default()
        };
        assert_eq!(
            DataFrame::decode(&reserved, FrameBody::None, &spec()),
            Err(BadFrame::Reserved)
        );
        let unknown = Fields {
            kind: 0x99,
            ..Fields::default()
        };
        assert_eq!(
            DataFrame::decode(&unknown, FrameBody::None, &spec()),
            Err(BadFrame::Kind(0x99))
        );
    }
}
