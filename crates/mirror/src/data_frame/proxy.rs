//! The frames by which a node that is no member has the partner, which serves alone, carry out
//! its initiators' commands: the one is the *proxy*, the other its *host*.

use super::decode::{take_bytes, take_extent, take_operation};
use super::{BadFrame, DataFrame, fill_operation};
use crate::control::VolumeSpec;
use crate::fields::Fields;
use crate::operation::{Extent, MAX_WRITE_BYTES, Operation, Payload};
use crate::volume_action::{FrameBody, Refusal};
use alloc::boxed::Box;

/// How many different versions of the SCSI state a command can name.
pub const STATE_VERSIONS: u64 = 1 << 15;

/// A frame between proxy and host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyFrame {
    /// Proxy: do you serve this configuration alone, and take my commands on this channel?
    AskHost {
        /// The low half of the configuration's generation.
        lineage: u64,
    },
    /// Host: yes. The whole SCSI state came before it on this channel.
    Host {
        /// The low half of the configuration's generation.
        lineage: u64,
        /// The version of that state.
        version: u64,
    },
    /// Host: a part of the SCSI state is this.
    HostState {
        /// Which part.
        kind: u16,
        /// Counts the host's changes of state; from now on commands name it.
        version: u64,
        /// What it is; nothing: as at power on.
        bytes: Box<[u8]>,
    },
    /// Proxy: carry this out as if your own initiator had sent it.
    Pass {
        /// The proxy's number for it; never reused in the proxy's run.
        id: u64,
        /// The newest heartbeat token held when the command was received.
        token: u64,
        /// The version of the SCSI state by which the command was let in, modulo [`STATE_VERSIONS`].
        version: u64,
        /// What.
        operation: Operation,
    },
    /// Proxy: read this for me.
    PassRead {
        /// The proxy's number for it.
        id: u64,
        /// As in `Pass`.
        version: u64,
        /// Which blocks.
        extent: Extent,
    },
    /// Proxy: flush.
    PassFlush {
        /// The proxy's number for it.
        id: u64,
        /// As in `Pass`.
        version: u64,
    },
    /// Proxy: its initiator gave up; say what became of it.
    PassCancel {
        /// The proxy's number for it.
        id: u64,
    },
    /// Host: the operation's turn has come, and its range is locked; does your initiator still wait?
    AskGo {
        /// The proxy's number for it.
        id: u64,
    },
    /// Proxy: it does.
    Go {
        /// The proxy's number for it.
        id: u64,
    },
    /// Host: what the proxy's initiator is to be told.
    Passed {
        /// The proxy's number for it.
        id: u64,
        /// How it ended.
        result: Result<(), Refusal>,
    },
    /// Host: the blocks of a read.
    Fetched {
        /// The proxy's number for it.
        id: u64,
        /// Which blocks.
        extent: Extent,
        /// Their contents.
        payload: Payload,
    },
}

const PASS: u16 = 0x80;
const PASS_READ: u16 = 0x85;
const PASS_FLUSH: u16 = 0x86;
const PASS_CANCEL: u16 = 0x87;
const ASK_HOST: u16 = 0x88;
const HOST: u16 = 0x89;
const HOST_STATE: u16 = 0x8a;
const PASSED: u16 = 0x8b;
const FETCHED: u16 = 0x8c;
const ASK_GO: u16 = 0x8d;
const GO: u16 = 0x8e;

/// Whether a kind is of these frames.
pub(super) const fn is_proxy(kind: u16) -> bool {
    matches!(kind, PASS..=GO)
}

/// Whether blocks follow a frame of this kind.
pub(super) const fn has_blocks(kind: u16) -> bool {
    matches!(kind, 0x80 | 0x83 | FETCHED)
}

/// Whether the receiver of a frame of this kind may refuse it for want of a buffer.
#[must_use]
pub const fn may_be_refused(kind: u16) -> bool {
    matches!(kind, 0x80..=0x84 | FETCHED)
}

/// Whether this kind brings a host the blocks of a write, rather than a proxy those of a read.
#[must_use]
pub const fn is_pass(kind: u16) -> bool {
    matches!(kind, 0x80..=0x84)
}

/// The version in the flags of a command.
const fn in_flags(version: u64) -> u16 {
    ((version % STATE_VERSIONS) as u16) << 1
}

const fn code(result: Result<(), Refusal>) -> u64 {
    match result {
        Ok(()) => 0,
        Err(Refusal::Aborted) => 1,
        Err(Refusal::Busy) => 2,
        Err(Refusal::NotServed) => 3,
        Err(Refusal::Unreadable) => 4,
        Err(Refusal::Failed) => 5,
        Err(Refusal::NoSpace) => 6,
    }
}

const fn result(code: u64) -> Option<Result<(), Refusal>> {
    Some(match code {
        0 => Ok(()),
        1 => Err(Refusal::Aborted),
        2 => Err(Refusal::Busy),
        3 => Err(Refusal::NotServed),
        4 => Err(Refusal::Unreadable),
        5 => Err(Refusal::Failed),
        6 => Err(Refusal::NoSpace),
        _ => return None,
    })
}

impl ProxyFrame {
    pub(super) fn fill(self, fields: &mut Fields) -> FrameBody {
        match self {
            Self::AskHost { lineage } => (fields.kind, fields.aux) = (ASK_HOST, lineage),
            Self::Host { lineage, version } => {
                (fields.kind, fields.aux, fields.seq) = (HOST, lineage, version);
            }
            Self::HostState {
                kind,
                version,
                bytes,
            } => {
                (fields.kind, fields.aux) = (HOST_STATE, version);
                fields.offset = u64::from(kind);
                return FrameBody::Bytes(bytes);
            }
            Self::Pass {
                id,
                token,
                version,
                operation,
            } => {
                (fields.kind, fields.seq, fields.aux) = (PASS, id, token);
                let body = fill_operation(fields, operation);
                fields.flags |= in_flags(version);
                return body;
            }
            Self::PassRead {
                id,
                version,
                extent,
            } => {
                (fields.kind, fields.seq) = (PASS_READ, id);
                (fields.offset, fields.length) = (extent.offset, extent.len);
                fields.flags = in_flags(version);
            }
            Self::PassFlush { id, version } => {
                (fields.kind, fields.seq, fields.flags) = (PASS_FLUSH, id, in_flags(version));
            }
            Self::AskGo { id } => (fields.kind, fields.seq) = (ASK_GO, id),
            Self::Go { id } => (fields.kind, fields.seq) = (GO, id),
            Self::PassCancel { id } => (fields.kind, fields.seq) = (PASS_CANCEL, id),
            Self::Passed { id, result } => {
                (fields.kind, fields.seq, fields.aux) = (PASSED, id, code(result));
            }
            Self::Fetched {
                id,
                extent,
                payload,
            } => {
                (fields.kind, fields.seq) = (FETCHED, id);
                (fields.offset, fields.length) = (extent.offset, extent.len);
                return FrameBody::Blocks(payload);
            }
        }
        FrameBody::None
    }

    /// Understands a frame of these kinds. On an error the body's buffer is still the caller's.
    pub(super) fn decode(
        fields: &Fields,
        body: FrameBody,
        spec: &VolumeSpec,
    ) -> Result<Self, BadFrame> {
        let bad_body = BadFrame::Body(fields.kind);
        let version = u64::from(fields.flags >> 1);
        let id = fields.seq;
        Ok(match fields.kind {
            0x80..=0x84 => Self::Pass {
                id,
                token: fields.aux,
                version,
                operation: take_operation(fields, body, fields.kind - PASS, spec)?,
            },
            HOST_STATE => Self::HostState {
                kind: u16::try_from(fields.offset).map_err(|_| bad_body)?,
                version: fields.aux,
                bytes: take_bytes(body).ok_or(bad_body)?,
            },
            FETCHED => {
                let extent = take_extent(fields, spec, u64::from(MAX_WRITE_BYTES))?;
                match body {
                    FrameBody::Blocks(payload) if u64::from(payload.len) == extent.len => {
                        Self::Fetched {
                            id,
                            extent,
                            payload,
                        }
                    }
                    _ => return Err(bad_body),
                }
            }
            _ if body != FrameBody::None => return Err(bad_body),
            PASS_READ => Self::PassRead {
                id,
                version,
                extent: take_extent(fields, spec, u64::from(MAX_WRITE_BYTES))?,
            },
            PASS_FLUSH => Self::PassFlush { id, version },
            PASS_CANCEL => Self::PassCancel { id },
            ASK_GO => Self::AskGo { id },
            GO => Self::Go { id },
            ASK_HOST => Self::AskHost {
                lineage: fields.aux,
            },
            HOST => Self::Host {
                lineage: fields.aux,
                version: fields.seq,
            },
            PASSED => Self::Passed {
                id,
                result: result(fields.aux).ok_or(bad_body)?,
            },
            kind => return Err(BadFrame::Kind(kind)),
        })
    }
}

impl From<ProxyFrame> for DataFrame {
    fn from(frame: ProxyFrame) -> Self {
        Self::Proxy(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{CacheMode, Incarnation, NodeId, VolumeId};
    use crate::operation::BufferId;
    use alloc::vec::Vec;

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
        let buffer = BufferId {
            slot: 3,
            generation: 1,
        };
        Payload {
            buffer,
            at: 0,
            len,
            crc: 5,
        }
    }

    fn all() -> Vec<ProxyFrame> {
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
        let operations = [write, Operation::Zero { extent, fua: false }, state];
        let mut frames: Vec<ProxyFrame> = operations
            .into_iter()
            .map(|operation| ProxyFrame::Pass {
                id: 4,
                token: 77,
                version: STATE_VERSIONS - 1,
                operation,
            })
            .collect();
        frames.extend((0..=6).map(|code| ProxyFrame::Passed {
            id: code,
            result: result(code).unwrap(),
        }));
        frames.extend([
            ProxyFrame::AskHost { lineage: 1 },
            ProxyFrame::Host {
                lineage: 2,
                version: 3,
            },
            ProxyFrame::HostState {
                kind: 1,
                version: 3,
                bytes: Box::from(*b"state"),
            },
            ProxyFrame::PassRead {
                id: 1,
                version: 2,
                extent,
            },
            ProxyFrame::PassFlush { id: 2, version: 3 },
            ProxyFrame::PassCancel { id: 3 },
            ProxyFrame::AskGo { id: 4 },
            ProxyFrame::Go { id: 5 },
            ProxyFrame::Fetched {
                id: 9,
                extent,
                payload: payload(1024),
            },
        ]);
        frames
    }

    #[test]
    fn every_frame_survives_the_wire() {
        for frame in all() {
            let sent = DataFrame::Proxy(frame);
            let (fields, body) = sent.clone().encode(&spec(), 12);
            let blocks = matches!(body, FrameBody::Blocks(_));
            assert_eq!(super::super::blocks_follow(fields.kind), blocks);
            assert_eq!(DataFrame::decode(&fields, body, &spec()), Ok(sent));
        }
    }

    #[test]
    fn what_no_honest_partner_sends_is_refused() {
        let extent = Extent {
            offset: 4096,
            len: 1024,
        };
        let fetched = ProxyFrame::Fetched {
            id: 9,
            extent,
            payload: payload(512),
        };
        let (fields, body) = DataFrame::Proxy(fetched).encode(&spec(), 12);
        assert_eq!(
            DataFrame::decode(&fields, body, &spec()),
            Err(BadFrame::Body(FETCHED))
        );
        let unknown = Fields {
            kind: PASSED,
            aux: 7,
            ..Fields::default()
        };
        assert!(DataFrame::decode(&unknown, FrameBody::None, &spec()).is_err());
        let outside = Fields {
            kind: PASS_READ,
            offset: 1 << 30,
            length: 512,
            ..Fields::default()
        };
        assert!(DataFrame::decode(&outside, FrameBody::None, &spec()).is_err());
    }
}
