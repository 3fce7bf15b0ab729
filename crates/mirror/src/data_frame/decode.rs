//! Understanding what the partner sent: checked once, here, so that nothing behind it checks again.

use super::proxy::{ProxyFrame, is_proxy};
use super::{
    ANSWER, APPLY, ASK_BITS, ASK_BLOCKS, ASK_COMMITTED, ASK_LATEST, ASK_MEND, BITS, BITS_SPAN,
    BLOCKS, BadFrame, CANCEL, COMMITTED, DIFFERS, DISCARD, DONE, DataFrame, FLUSH, FLUSHED,
    FORWARD, FUA, GOOD, GRANT, HASHES, LATEST, MENDED, NO_BLOCKS, READY, REFUSED, STATE, STORED,
    UNREADABLE, WRITE, ZERO,
};
use crate::control::VolumeSpec;
use crate::fields::Fields;
use crate::operation::{Extent, MAX_RANGE_BYTES, MAX_STATE_BYTES, MAX_WRITE_BYTES, Operation};
use crate::volume_action::FrameBody;
use alloc::boxed::Box;

impl DataFrame {
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
            kind if is_proxy(kind) => {
                return ProxyFrame::decode(fields, body, spec).map(Self::Proxy);
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
            BLOCKS => {
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
                return Ok(Self::Blocks {
                    id: fields.seq,
                    extent,
                    payload,
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
                unreadable: fields.flags & UNREADABLE != 0,
            },
            ASK_BLOCKS => Self::AskBlocks {
                id: seq,
                extent: take_extent(fields, spec, u64::from(MAX_WRITE_BYTES))?,
            },
            ASK_MEND => Self::AskMend {
                id: seq,
                extent: take_extent(fields, spec, u64::from(MAX_WRITE_BYTES))?,
            },
            NO_BLOCKS => Self::NoBlocks { id: seq },
            MENDED => Self::Mended {
                id: seq,
                good: fields.flags & GOOD != 0,
            },
            kind => return Err(BadFrame::Kind(kind)),
        })
    }
}

pub(super) fn take_operation(
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

pub(super) fn take_bytes(body: FrameBody) -> Option<Box<[u8]>> {
    match body {
        FrameBody::Bytes(bytes) => Some(bytes),
        FrameBody::None => Some(Box::default()),
        FrameBody::Blocks(_) => None,
    }
}

pub(super) fn take_extent(
    fields: &Fields,
    spec: &VolumeSpec,
    most: u64,
) -> Result<Extent, BadFrame> {
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
