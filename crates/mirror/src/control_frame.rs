//! The frames of `Node`: kinds from 0x100 on, always with a MAC (`docs/wire-format.md`). Each is
//! the fields of a header and a payload of fixed-size records.

use crate::control::{Incarnation, NodeId, Time, VolumeId};
use crate::decide::Record;
use crate::fields::Fields;
use crate::membership::Left;
use crate::membership::report::Report;
use crate::register::{Ballot, Message};
use crate::superblock::{HISTORY_LEN, Lineage, Met, Past, RawConfiguration, RawPast};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zerocopy::network_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest payload of a control frame in bytes; a pool configuration travels in chunks.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Bytes of a pool configuration in one frame.
pub const CHUNK_LEN: usize = 32 << 10;

const HEARTBEAT: u16 = 0x100;
const HEARTBEAT_ACK: u16 = 0x101;
const CERTIFICATE: u16 = 0x102;
const CERTIFICATE_ANSWER: u16 = 0x103;
const REPORT: u16 = 0x110;
const REGISTER: u16 = 0x120;
const FORGET: u16 = 0x121;
const POOL_STATE: u16 = 0x130;
const POOL_CHUNK: u16 = 0x131;
const ASK_INITIATORS: u16 = 0x140;
const INITIATORS: u16 = 0x141;
/// Volumes of one certificate; of more there are several.
pub const MAX_CERTIFIED: usize = 1024;
/// Longest iSCSI name in bytes (RFC 7143 §4.2.7.1).
pub const MAX_NAME: usize = 223;

/// Names one version of the pool configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PoolVersion {
    /// Counts the changes.
    pub generation: u64,
    /// SHA-256 of the document, truncated to 16 bytes.
    pub hash: u128,
}

impl PoolVersion {
    /// The version of a document that is the `generation`th.
    #[must_use]
    pub fn of(generation: u64, document: &[u8]) -> Self {
        let digest = Sha256::digest(document);
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self {
            generation,
            hash: u128::from_be_bytes(hash),
        }
    }
}

/// What a node says about its pool configuration.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PoolState {
    /// The version in force.
    pub committed: PoolVersion,
    /// The version that is kept ready to be put in force.
    pub prepared: Option<PoolVersion>,
    /// Versions that were in force before, oldest first.
    pub history: Vec<PoolVersion>,
}

/// A frame of `Node`.
#[expect(
    clippy::large_enum_variant,
    reason = "it is made, sent or taken apart at once"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlFrame {
    /// "I am here."
    Heartbeat {
        /// Its number.
        number: u64,
        /// The sender's clock, which is also the token that forwarded writes carry.
        clock: Time,
        /// How long ago the sender's slowest shard turned.
        stamp: Duration,
        /// The sender's run.
        incarnation: Incarnation,
        /// Seconds since 1970 on the sender's wall clock, for people; 0: not said, as by builds
        /// that knew nothing of it.
        wall: u64,
    },
    /// "I heard you, and will not act without you for L" for each volume listed with its epoch.
    HeartbeatAck {
        /// The heartbeat.
        number: u64,
        /// Volumes and epochs promised.
        promises: Vec<(VolumeId, u64)>,
    },
    /// The run that the sender's hello names has ended, all its I/O on these volumes too; what it
    /// left of them.
    Certificate(Vec<Left>),
    /// Whether that run is the one that the answering node last met.
    CertificateAnswer {
        /// It is, and is taken for dead.
        taken: bool,
    },
    /// The state of one volume.
    Report(Report),
    /// Messages of the register.
    Register(Vec<(VolumeId, Message)>),
    /// To the witness: these volumes were deleted, and their votes are of no use any more.
    Forget(Vec<VolumeId>),
    /// The versions of the pool configuration.
    PoolState(PoolState),
    /// A piece of a pool configuration document.
    PoolChunk {
        /// Which version.
        version: PoolVersion,
        /// Whether it is to be put in force at once (the receiver is behind) or only prepared.
        commit: bool,
        /// Bytes of the whole document.
        total: u32,
        /// Where this piece begins.
        offset: u32,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// Which initiators are logged in to a volume at the receiver?
    AskInitiators {
        /// Names the question.
        number: u64,
        /// The volume.
        volume: VolumeId,
    },
    /// These are.
    Initiators {
        /// The question's.
        number: u64,
        /// Sessions.
        count: u32,
        /// The initiator of one of them, at most [`MAX_NAME`] bytes; empty: there is none.
        first: String,
    },
}

/// Why a control frame was refused although its MAC was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ControlFrameError {
    /// A data frame, or one of a newer release.
    #[error("frame of kind {0:#x} on a control connection")]
    Kind(u16),
    /// The payload does not fit the kind.
    #[error("control frame of kind {0:#x} with a payload that does not fit")]
    Payload(u16),
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPromise {
    volume: U128,
    epoch: U64,
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLeft {
    volume: U128,
    epoch: U64,
    generation: U128,
    flags: U32,
    reserved: [u8; 4],
}

/// The copy has no open record, and nothing is wrong with it.
const PLAIN: u32 = 1;

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMessage {
    volume: U128,
    ballot: U64,
    other: U64,
    kind: u8,
    reserved: [u8; 7],
    value: RawConfiguration,
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawVersion {
    generation: U64,
    hash: U128,
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawReport {
    seq: U64,
    volume: U128,
    size: U64,
    block_size: U32,
    flags: U32,
    incarnation: U64,
    with: U64,
    base: U64,
    ballot: U64,
    dirty: U64,
    offer: U32,
    following: U32,
    node: u8,
    reserved: [u8; 7],
    configuration: RawConfiguration,
    prepared: RawConfiguration,
    value: RawConfiguration,
    stamp: U64,
    met_stamp: U64,
    met_epoch: U64,
    met_generation: U128,
}

const _: () = assert!(size_of::<RawReport>() == 232 && size_of::<RawMessage>() == 72);
const _: () = assert!(size_of::<RawPromise>() == 24 && size_of::<RawVersion>() == 24);
const _: () = assert!(size_of::<RawLeft>() == 48 && MAX_CERTIFIED * 48 <= MAX_PAYLOAD);

const BLANK: u32 = 1;
const CREATE: u32 = 1 << 1;
const CRASHED: u32 = 1 << 2;
const INCONSISTENT: u32 = 1 << 3;
const DISK_FAILED: u32 = 1 << 4;
const SPLIT_BRAIN: u32 = 1 << 5;
const WROTE: u32 = 1 << 6;
const HAS_WITH: u32 = 1 << 7;
const SERVING: u32 = 1 << 8;
const DEMANDS: u32 = 1 << 9;
const YIELDS: u32 = 1 << 10;
const STOPPING: u32 = 1 << 11;
const KEEP: u32 = 1 << 12;
const SETTLED: u32 = 1 << 13;
const PROXIES: u32 = 1 << 16;
const GIVE_UP: u32 = 1 << 14;
const LEAVES: u32 = 1 << 15;

impl From<PoolVersion> for RawVersion {
    fn from(it: PoolVersion) -> Self {
        Self {
            generation: it.generation.into(),
            hash: it.hash.into(),
        }
    }
}

impl From<&RawVersion> for PoolVersion {
    fn from(it: &RawVersion) -> Self {
        Self {
            generation: it.generation.get(),
            hash: it.hash.get(),
        }
    }
}

/// A duration as whole nanoseconds; what does not fit is as good as for ever.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl ControlFrame {
    /// The fields of its header, and its payload.
    #[must_use]
    pub fn encode(&self) -> (Fields, Vec<u8>) {
        let mut fields = Fields::default();
        let mut payload = Vec::new();
        match self {
            Self::Heartbeat {
                number,
                clock,
                stamp,
                incarnation,
                wall,
            } => {
                fields.kind = HEARTBEAT;
                fields.offset = *wall;
                fields.seq = *number;
                fields.aux = nanos(*clock);
                fields.length = nanos(*stamp);
                fields.incarnation = incarnation.0;
            }
            Self::HeartbeatAck { number, promises } => {
                fields.kind = HEARTBEAT_ACK;
                fields.seq = *number;
                for (volume, epoch) in promises {
                    let raw = RawPromise {
                        volume: volume.0.into(),
                        epoch: (*epoch).into(),
                    };
                    payload.extend_from_slice(raw.as_bytes());
                }
            }
            Self::Certificate(volumes) => {
                fields.kind = CERTIFICATE;
                for left in volumes {
                    let raw = RawLeft {
                        volume: left.volume.0.into(),
                        epoch: left.lineage.epoch.into(),
                        generation: left.lineage.generation.into(),
                        flags: (if left.plain { PLAIN } else { 0 }).into(),
                        reserved: [0; 4],
                    };
                    payload.extend_from_slice(raw.as_bytes());
                }
            }
            Self::CertificateAnswer { taken } => {
                fields.kind = CERTIFICATE_ANSWER;
                fields.flags = u16::from(*taken);
            }
            Self::Report(report) => {
                fields.kind = REPORT;
                fields.volume = report.record.volume.0;
                payload = encode_report(report);
            }
            Self::Register(messages) => {
                fields.kind = REGISTER;
                for (volume, message) in messages {
                    payload.extend_from_slice(encode_message(*volume, *message).as_bytes());
                }
            }
            Self::Forget(volumes) => {
                fields.kind = FORGET;
                for volume in volumes {
                    payload.extend_from_slice(U128::from(volume.0).as_bytes());
                }
            }
            Self::PoolState(state) => {
                fields.kind = POOL_STATE;
                fields.flags = u16::from(state.prepared.is_some());
                let own = [Some(state.committed), state.prepared];
                for version in own
                    .into_iter()
                    .flatten()
                    .chain(state.history.iter().copied())
                {
                    payload.extend_from_slice(RawVersion::from(version).as_bytes());
                }
            }
            Self::PoolChunk {
                version,
                commit,
                total,
                offset,
                bytes,
            } => {
                fields.kind = POOL_CHUNK;
                fields.flags = u16::from(*commit);
                fields.seq = version.generation;
                fields.volume = version.hash;
                fields.length = u64::from(*total);
                fields.offset = u64::from(*offset);
                payload.clone_from(bytes);
            }
            Self::AskInitiators { number, volume } => {
                fields.kind = ASK_INITIATORS;
                fields.seq = *number;
                fields.volume = volume.0;
            }
            Self::Initiators {
                number,
                count,
                first,
            } => {
                fields.kind = INITIATORS;
                fields.seq = *number;
                fields.length = u64::from(*count);
                payload.extend(first.bytes().take(MAX_NAME));
            }
        }
        fields.payload_len = u32::try_from(payload.len()).expect("control payloads are bounded");
        fields.payload_crc = crc32c::crc32c(&payload);
        (fields, payload)
    }

    /// The frame that these stand for.
    ///
    /// # Errors
    /// When the kind is not one of `Node`'s or the payload does not fit it.
    pub fn decode(fields: &Fields, payload: &[u8]) -> Result<Self, ControlFrameError> {
        let misfit = || ControlFrameError::Payload(fields.kind);
        let small = |it: u64| u32::try_from(it).map_err(|_| misfit());
        Ok(match fields.kind {
            HEARTBEAT => Self::Heartbeat {
                number: fields.seq,
                clock: Duration::from_nanos(fields.aux),
                stamp: Duration::from_nanos(fields.length),
                incarnation: Incarnation(fields.incarnation),
                wall: fields.offset,
            },
            HEARTBEAT_ACK => {
                let promises = <[RawPromise]>::ref_from_bytes(payload).map_err(|_| misfit())?;
                let promise = |it: &RawPromise| (VolumeId(it.volume.get()), it.epoch.get());
                Self::HeartbeatAck {
                    number: fields.seq,
                    promises: promises.iter().map(promise).collect(),
                }
            }
            CERTIFICATE => {
                let volumes = <[RawLeft]>::ref_from_bytes(payload).map_err(|_| misfit())?;
                let left = |it: &RawLeft| Left {
                    volume: VolumeId(it.volume.get()),
                    lineage: Lineage {
                        epoch: it.epoch.get(),
                        generation: it.generation.get(),
                    },
                    plain: it.flags.get() & PLAIN != 0,
                };
                Self::Certificate(volumes.iter().map(left).collect())
            }
            CERTIFICATE_ANSWER if payload.is_empty() => Self::CertificateAnswer {
                taken: fields.flags & 1 != 0,
            },
            CERTIFICATE_ANSWER => return Err(misfit()),
            REPORT => Self::Report(decode_report(payload).ok_or_else(misfit)?),
            REGISTER => {
                let messages = <[RawMessage]>::ref_from_bytes(payload).map_err(|_| misfit())?;
                let messages = messages.iter().map(decode_message).collect::<Option<_>>();
                Self::Register(messages.ok_or_else(misfit)?)
            }
            FORGET => {
                let volumes = <[U128]>::ref_from_bytes(payload).map_err(|_| misfit())?;
                Self::Forget(volumes.iter().map(|it| VolumeId(it.get())).collect())
            }
            POOL_STATE => {
                let versions = <[RawVersion]>::ref_from_bytes(payload).map_err(|_| misfit())?;
                let mut versions = versions.iter().map(PoolVersion::from);
                let committed = versions.next().ok_or_else(misfit)?;
                let prepared = if fields.flags & 1 != 0 {
                    Some(versions.next().ok_or_else(misfit)?)
                } else {
                    None
                };
                Self::PoolState(PoolState {
                    committed,
                    prepared,
                    history: versions.collect(),
                })
            }
            POOL_CHUNK => Self::PoolChunk {
                version: PoolVersion {
                    generation: fields.seq,
                    hash: fields.volume,
                },
                commit: fields.flags & 1 != 0,
                total: small(fields.length)?,
                offset: small(fields.offset)?,
                bytes: payload.to_vec(),
            },
            ASK_INITIATORS if payload.is_empty() => Self::AskInitiators {
                number: fields.seq,
                volume: VolumeId(fields.volume),
            },
            ASK_INITIATORS => return Err(misfit()),
            INITIATORS => {
                let name = str::from_utf8(payload).map_err(|_| misfit())?;
                if name.len() > MAX_NAME || name.contains('\0') {
                    return Err(misfit());
                }
                Self::Initiators {
                    number: fields.seq,
                    count: small(fields.length)?,
                    first: name.into(),
                }
            }
            other => return Err(ControlFrameError::Kind(other)),
        })
    }
}

fn encode_message(volume: VolumeId, message: Message) -> RawMessage {
    let (kind, ballot, other, value) = match message {
        Message::Prepare { ballot } => (1, ballot, Ballot(0), None),
        Message::Promise {
            ballot,
            accepted,
            value,
        } => (2, ballot, accepted, value),
        Message::Accept { ballot, value } => (3, ballot, Ballot(0), Some(value)),
        Message::Accepted { ballot } => (4, ballot, Ballot(0), None),
        Message::Refused { ballot, promised } => (5, ballot, promised, None),
    };
    RawMessage {
        volume: volume.0.into(),
        ballot: ballot.0.into(),
        other: other.0.into(),
        kind,
        reserved: [0; 7],
        value: RawConfiguration::of(value),
    }
}

fn decode_message(raw: &RawMessage) -> Option<(VolumeId, Message)> {
    let (ballot, other) = (Ballot(raw.ballot.get()), Ballot(raw.other.get()));
    let message = match (raw.kind, raw.value.get()) {
        (1, None) => Message::Prepare { ballot },
        (2, value) => Message::Promise {
            ballot,
            accepted: other,
            value,
        },
        (3, Some(value)) => Message::Accept { ballot, value },
        (4, None) => Message::Accepted { ballot },
        (5, None) => Message::Refused {
            ballot,
            promised: other,
        },
        _ => return None,
    };
    Some((VolumeId(raw.volume.get()), message))
}

fn encode_report(report: &Report) -> Vec<u8> {
    let record = &report.record;
    let mut flags = 0;
    for (set, bit) in [
        (record.blank, BLANK),
        (record.create, CREATE),
        (record.crashed, CRASHED),
        (record.inconsistent, INCONSISTENT),
        (record.disk_failed, DISK_FAILED),
        (record.split_brain, SPLIT_BRAIN),
        (record.wrote, WROTE),
        (record.keep, KEEP),
        (record.give_up, GIVE_UP),
        (record.with.is_some(), HAS_WITH),
        (report.serving, SERVING),
        (report.settled, SETTLED),
        (report.demands, DEMANDS),
        (report.yields, YIELDS),
        (report.stopping, STOPPING),
        (report.proxies, PROXIES),
        (report.leaves, LEAVES),
    ] {
        flags |= if set { bit } else { 0 };
    }
    let raw = RawReport {
        seq: report.seq.into(),
        volume: record.volume.0.into(),
        size: record.size.into(),
        block_size: record.block_size.into(),
        flags: flags.into(),
        incarnation: record.incarnation.0.into(),
        with: record.with.map_or(0, |it| it.0).into(),
        base: record.base.into(),
        ballot: report.ballot.0.into(),
        dirty: report.dirty.into(),
        offer: report.offer.into(),
        following: report.following.into(),
        node: record.node.0,
        reserved: [0; 7],
        configuration: record.configuration.into(),
        prepared: RawConfiguration::of(record.prepared),
        value: RawConfiguration::of(report.value),
        stamp: record.stamp.into(),
        met_stamp: record.met.map_or(0, |it| it.stamp).into(),
        met_epoch: record.met.map_or(0, |it| it.lineage.epoch).into(),
        met_generation: record.met.map_or(0, |it| it.lineage.generation).into(),
    };
    let mut bytes = raw.as_bytes().to_vec();
    for past in &record.history {
        bytes.extend_from_slice(RawPast::from(past).as_bytes());
    }
    bytes
}

fn decode_report(payload: &[u8]) -> Option<Report> {
    let (raw, rest) = RawReport::ref_from_prefix(payload).ok()?;
    let history = <[RawPast]>::ref_from_bytes(rest).ok()?;
    if history.len() > HISTORY_LEN {
        return None;
    }
    let flag = |bit: u32| raw.flags.get() & bit != 0;
    let met = Met {
        lineage: Lineage {
            epoch: raw.met_epoch.get(),
            generation: raw.met_generation.get(),
        },
        stamp: raw.met_stamp.get(),
    };
    Some(Report {
        seq: raw.seq.get(),
        record: Record {
            node: NodeId(raw.node),
            incarnation: Incarnation(raw.incarnation.get()),
            volume: VolumeId(raw.volume.get()),
            size: raw.size.get(),
            block_size: raw.block_size.get(),
            blank: flag(BLANK),
            create: flag(CREATE),
            crashed: flag(CRASHED),
            inconsistent: flag(INCONSISTENT),
            disk_failed: flag(DISK_FAILED),
            split_brain: flag(SPLIT_BRAIN),
            wrote: flag(WROTE),
            keep: flag(KEEP),
            give_up: flag(GIVE_UP),
            configuration: raw.configuration.into(),
            prepared: raw.prepared.get(),
            history: history.iter().map(Past::from).collect(),
            base: raw.base.get(),
            stamp: raw.stamp.get(),
            met: (met.lineage.epoch != 0).then_some(met),
            with: flag(HAS_WITH).then(|| Incarnation(raw.with.get())),
        },
        ballot: Ballot(raw.ballot.get()),
        value: raw.value.get(),
        serving: flag(SERVING),
        settled: flag(SETTLED),
        proxies: flag(PROXIES),
        demands: flag(DEMANDS),
        yields: flag(YIELDS),
        stopping: flag(STOPPING),
        leaves: flag(LEAVES),
        dirty: raw.dirty.get(),
        offer: raw.offer.get(),
        following: raw.following.get(),
    })
}

#[cfg(test)]
mod tests;
