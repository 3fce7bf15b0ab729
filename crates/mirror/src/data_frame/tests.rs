//! Every frame survives the wire; what no honest partner sends is refused.

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
            unreadable: false,
        },
        DataFrame::Differs {
            step: 2,
            pieces: u64::MAX,
            unreadable: true,
        },
        DataFrame::AskBlocks {
            id: 5,
            extent: Extent {
                offset: 4096,
                len: 8192,
            },
        },
        DataFrame::Blocks {
            id: 5,
            extent: Extent {
                offset: 4096,
                len: 8192,
            },
            payload: Payload {
                buffer: BufferId {
                    slot: 3,
                    generation: 1,
                },
                at: 0,
                len: 8192,
                crc: 7,
            },
        },
        DataFrame::NoBlocks { id: 5 },
        DataFrame::AskMend {
            id: 6,
            extent: Extent {
                offset: 0,
                len: 4096,
            },
        },
        DataFrame::Mended { id: 6, good: true },
        DataFrame::Mended { id: 7, good: false },
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
