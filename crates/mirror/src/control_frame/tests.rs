//! Control frames arrive as they were sent, and nonsense is refused.

use super::*;
use crate::control::{Configuration, Members};
use crate::superblock::Superblock;
use alloc::vec;

fn configuration(epoch: u64) -> Configuration {
    Configuration {
        epoch,
        generation: 7 << 99,
        members: Members(6),
        owner: NodeId(2),
        unilateral: true,
        witness: None,
    }
}

fn report() -> Report {
    let mut superblock = Superblock::new(VolumeId(1 << 127), NodeId(1), 1 << 40, 4096);
    (1..70).for_each(|epoch| superblock.adopt(configuration(epoch)));
    superblock.prepared = Some(configuration(80));
    superblock.inconsistent = true;
    let mut record = Record::of(&superblock, Incarnation(u64::MAX));
    record.with = Some(Incarnation(0));
    Report {
        seq: 9,
        record,
        ballot: Ballot(0x301),
        value: Some(configuration(3)),
        serving: true,
        settled: true,
        proxies: true,
        demands: false,
        yields: true,
        stopping: false,
        leaves: true,
        dirty: 1 << 40,
        offer: 4,
        following: 0,
    }
}

fn all() -> Vec<ControlFrame> {
    let version = PoolVersion {
        generation: 4,
        hash: 5 << 90,
    };
    let ballot = Ballot(77);
    vec![
        ControlFrame::Heartbeat {
            number: 3,
            clock: Duration::from_nanos(1_234_567_891),
            stamp: Duration::from_millis(3),
            incarnation: Incarnation(8),
            wall: 1_795_000_000,
        },
        ControlFrame::HeartbeatAck {
            number: 3,
            promises: vec![(VolumeId(1), 2), (VolumeId(u128::MAX), u64::MAX)],
        },
        ControlFrame::Certificate(vec![
            Left {
                volume: VolumeId(5 << 100),
                lineage: configuration(6).lineage(),
                plain: true,
            },
            Left {
                volume: VolumeId(6),
                lineage: configuration(7).lineage(),
                plain: false,
            },
        ]),
        ControlFrame::Certificate(Vec::new()),
        ControlFrame::CertificateAnswer { taken: true },
        ControlFrame::CertificateAnswer { taken: false },
        ControlFrame::Report(report()),
        ControlFrame::Register(vec![
            (VolumeId(1), Message::Prepare { ballot }),
            (
                VolumeId(2),
                Message::Promise {
                    ballot,
                    accepted: Ballot(5),
                    value: Some(configuration(2)),
                },
            ),
            (
                VolumeId(2),
                Message::Promise {
                    ballot,
                    accepted: Ballot(0),
                    value: None,
                },
            ),
            (
                VolumeId(3),
                Message::Accept {
                    ballot,
                    value: configuration(3),
                },
            ),
            (VolumeId(4), Message::Accepted { ballot }),
            (
                VolumeId(5),
                Message::Refused {
                    ballot,
                    promised: Ballot(99),
                },
            ),
        ]),
        ControlFrame::PoolState(PoolState {
            committed: version,
            prepared: Some(version),
            history: vec![version],
        }),
        ControlFrame::PoolState(PoolState::default()),
        ControlFrame::PoolChunk {
            version,
            commit: true,
            total: 9,
            offset: 4,
            bytes: vec![1, 2, 3],
        },
        ControlFrame::AskInitiators {
            number: 7,
            volume: VolumeId(8),
        },
        ControlFrame::Initiators {
            number: 7,
            count: 2,
            first: "iqn.2026-11.org.example:host".into(),
        },
        ControlFrame::Initiators {
            number: 8,
            count: 0,
            first: "".into(),
        },
    ]
}

#[test]
fn every_frame_is_read_as_it_was_written() {
    for frame in all() {
        let (fields, payload) = frame.encode();
        assert!(crate::frame::mac_required(fields.kind));
        assert_eq!(ControlFrame::decode(&fields, &payload), Ok(frame));
    }
}

#[test]
fn payloads_that_do_not_fit_are_refused() {
    for frame in all() {
        let (fields, mut payload) = frame.encode();
        if matches!(
            frame,
            ControlFrame::Heartbeat { .. } | ControlFrame::PoolChunk { .. }
        ) {
            continue;
        }
        payload.push(0);
        assert_eq!(
            ControlFrame::decode(&fields, &payload),
            Err(ControlFrameError::Payload(fields.kind))
        );
    }
    let data = Fields {
        kind: 5,
        ..Fields::default()
    };
    assert_eq!(
        ControlFrame::decode(&data, &[]),
        Err(ControlFrameError::Kind(5))
    );
}

#[test]
fn a_report_is_small_enough_for_a_frame() {
    let (_, payload) = ControlFrame::Report(report()).encode();
    assert!(payload.len() < MAX_PAYLOAD / 16, "{}", payload.len());
}
