//! The header that every message between partners begins with (`docs/wire-format.md`). A
//! [`Sealer`] adds to a frame's own fields what each frame of a connection carries: magic,
//! version, cluster, counter, CRC and, for everything that decides who may serve, a MAC. An
//! [`Opener`] checks them on the other side. Both come out of the handshake in `hello`.

use crate::fields::Fields;
use crate::hello::{VERSION, older};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zerocopy::network_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of every header.
pub const HEADER_LEN: usize = 192;
/// Frames of this kind and above belong to `Node` and always carry a MAC.
pub const FIRST_CONTROL_KIND: u16 = 0x100;
const MAGIC: [u8; 8] = *b"LOCKSTEP";
/// Length of the truncated MAC in bytes.
const MAC_LEN: usize = 16;
/// What the header CRC covers: everything before it.
const CRC_AT: usize = 172;
/// What the MAC covers of the header: everything before it.
const MAC_AT: usize = HEADER_LEN - MAC_LEN;

/// The header as it is on the wire, big-endian.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U16,
    kind: U16,
    flags: U16,
    reserved_1: [u8; 2],
    cluster: U128,
    volume: U128,
    epoch: U64,
    seq: U64,
    incarnation: U64,
    offset: U64,
    length: U64,
    aux: U64,
    counter: U64,
    payload_len: U32,
    payload_crc: U32,
    reserved_2: [u8; 60],
    header_crc: U32,
    mac: [u8; MAC_LEN],
}
const _: () = assert!(size_of::<Header>() == HEADER_LEN);

/// Whether frames of this kind must carry a MAC: heartbeats, leases, register, step-down, join
/// and pool configuration cross the initiators' network.
#[must_use]
pub const fn mac_required(kind: u16) -> bool {
    kind >= FIRST_CONTROL_KIND
}

/// Why a frame was refused. After any of these the connection must be closed: what follows in
/// the stream cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The stream is not ours, or has lost its place.
    #[error(
        "not a partner frame: the magic is wrong (is something else connected to the sync port?)"
    )]
    Magic,
    /// Sent by another version of the protocol.
    #[error(
        "partner frame of protocol version {theirs}, this node speaks {VERSION}: {todo}",
        theirs = .0,
        todo = older(*.0)
    )]
    Version(u16),
    /// Damaged between the two nodes.
    #[error(
        "partner frame header damaged on the way: its CRC is wrong (check cables, switches and network cards)"
    )]
    HeaderCrc,
    /// Sent by a member of another cluster.
    #[error("partner frame of cluster {0:032x}: the peer belongs to another pair")]
    Cluster(u128),
    /// A frame seen before, or one that skips others.
    #[error("partner frame number {got} where {expected} was due: replayed, or frames were lost")]
    Counter {
        /// The number that the frame carries.
        got: u64,
        /// The number that was due.
        expected: u64,
    },
    /// The payload has another length than its header says.
    #[error("partner frame payload of {got} bytes where the header says {expected}")]
    PayloadLength {
        /// Bytes handed over.
        got: usize,
        /// Bytes announced.
        expected: u32,
    },
    /// The payload was damaged.
    #[error(
        "partner frame payload damaged on the way: its CRC is wrong (check cables, switches and network cards)"
    )]
    PayloadCrc,
    /// The frame was not made with this connection's key.
    #[error("partner frame with a wrong MAC: forged, or altered on the way")]
    Mac,
}

/// The key of one direction of one connection.
#[derive(Clone)]
pub(crate) struct Key(pub(crate) [u8; 32]);

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// HMAC-SHA-256 over consecutive parts.
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn truncated(mac: [u8; 32]) -> [u8; MAC_LEN] {
    let mut short = [0; MAC_LEN];
    short.copy_from_slice(&mac[..MAC_LEN]);
    short
}

/// Makes the headers of one direction of one connection.
#[derive(Clone, Debug)]
pub struct Sealer {
    cluster: u128,
    key: Key,
    counter: u64,
}

impl Sealer {
    pub(crate) const fn new(cluster: u128, key: Key) -> Self {
        Self {
            cluster,
            key,
            counter: 0,
        }
    }

    /// The header of the next frame. `mac_over`: the payload, for frames that carry a MAC;
    /// `None` leaves the MAC zero, which only data frames may.
    ///
    /// Headers must be sent in the order in which they were made.
    ///
    /// # Panics
    /// If the kind demands a MAC and gets none, or the payload is not the one of the fields.
    pub fn seal(&mut self, fields: &Fields, mac_over: Option<&[u8]>) -> [u8; HEADER_LEN] {
        assert!(
            mac_over.is_some() || !mac_required(fields.kind),
            "control frames carry a MAC"
        );
        self.counter += 1;
        let mut header = Header {
            magic: MAGIC,
            version: VERSION.into(),
            kind: fields.kind.into(),
            flags: fields.flags.into(),
            reserved_1: [0; 2],
            cluster: self.cluster.into(),
            volume: fields.volume.into(),
            epoch: fields.epoch.into(),
            seq: fields.seq.into(),
            incarnation: fields.incarnation.into(),
            offset: fields.offset.into(),
            length: fields.length.into(),
            aux: fields.aux.into(),
            counter: self.counter.into(),
            payload_len: fields.payload_len.into(),
            payload_crc: fields.payload_crc.into(),
            reserved_2: [0; 60],
            header_crc: 0.into(),
            mac: [0; MAC_LEN],
        };
        header.header_crc = crc32c::crc32c(&header.as_bytes()[..CRC_AT]).into();
        if let Some(payload) = mac_over {
            assert_eq!(
                u32::try_from(payload.len()),
                Ok(fields.payload_len),
                "the payload named in the header"
            );
            header.mac = truncated(hmac(&self.key.0, &[&header.as_bytes()[..MAC_AT], payload]));
        }
        zerocopy::transmute!(header)
    }
}

/// Checks the frames of one direction of one connection.
#[derive(Clone, Debug)]
pub struct Opener {
    cluster: u128,
    key: Key,
    counter: u64,
    last: Option<[u8; HEADER_LEN]>,
}

impl Opener {
    pub(crate) const fn new(cluster: u128, key: Key) -> Self {
        Self {
            cluster,
            key,
            counter: 0,
            last: None,
        }
    }

    /// The fields of the next frame. For a kind that carries a MAC and has a payload, nothing of
    /// it may be believed before [`Self::payload`] has agreed; without payload the MAC is
    /// checked here.
    ///
    /// # Errors
    /// When the frame is damaged, foreign, replayed or forged.
    pub fn header(&mut self, bytes: &[u8; HEADER_LEN]) -> Result<Fields, FrameError> {
        let header: &Header = zerocopy::transmute_ref!(bytes);
        if header.magic != MAGIC {
            return Err(FrameError::Magic);
        }
        if header.version.get() != VERSION {
            return Err(FrameError::Version(header.version.get()));
        }
        if crc32c::crc32c(&bytes[..CRC_AT]) != header.header_crc.get() {
            return Err(FrameError::HeaderCrc);
        }
        if header.cluster.get() != self.cluster {
            return Err(FrameError::Cluster(header.cluster.get()));
        }
        let (got, expected) = (header.counter.get(), self.counter + 1);
        if got != expected {
            return Err(FrameError::Counter { got, expected });
        }
        if mac_required(header.kind.get()) && header.payload_len.get() == 0 {
            self.check_mac(bytes, &[])?;
        }
        self.counter = got;
        self.last = Some(*bytes);
        Ok(Fields {
            kind: header.kind.get(),
            flags: header.flags.get(),
            volume: header.volume.get(),
            epoch: header.epoch.get(),
            seq: header.seq.get(),
            incarnation: header.incarnation.get(),
            offset: header.offset.get(),
            length: header.length.get(),
            aux: header.aux.get(),
            payload_len: header.payload_len.get(),
            payload_crc: header.payload_crc.get(),
        })
    }

    /// Checks the payload of the last header: length, CRC, and MAC where its kind demands one.
    /// (Blocks that went straight into a buffer are compared by their CRC alone, by the caller.)
    ///
    /// # Errors
    /// When the payload is not the one that the header was made for.
    ///
    /// # Panics
    /// If there was no header yet.
    pub fn payload(&self, bytes: &[u8]) -> Result<(), FrameError> {
        let raw = self.last.as_ref().expect("a payload follows a header");
        let header: &Header = zerocopy::transmute_ref!(raw);
        let expected = header.payload_len.get();
        if u32::try_from(bytes.len()) != Ok(expected) {
            return Err(FrameError::PayloadLength {
                got: bytes.len(),
                expected,
            });
        }
        if crc32c::crc32c(bytes) != header.payload_crc.get() {
            return Err(FrameError::PayloadCrc);
        }
        if mac_required(header.kind.get()) {
            self.check_mac(raw, bytes)?;
        }
        Ok(())
    }

    fn check_mac(&self, header: &[u8; HEADER_LEN], payload: &[u8]) -> Result<(), FrameError> {
        let due = truncated(hmac(&self.key.0, &[&header[..MAC_AT], payload]));
        if bool::from(due.as_slice().ct_eq(&header[MAC_AT..])) {
            Ok(())
        } else {
            Err(FrameError::Mac)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: u128 = 77;

    fn pair() -> (Sealer, Opener) {
        (
            Sealer::new(CLUSTER, Key([9; 32])),
            Opener::new(CLUSTER, Key([9; 32])),
        )
    }

    fn control(payload: &[u8]) -> Fields {
        Fields {
            kind: 0x101,
            flags: 3,
            volume: 0x1234,
            epoch: 5,
            seq: 6,
            incarnation: 7,
            offset: 8,
            length: 9,
            aux: 10,
            payload_len: u32::try_from(payload.len()).unwrap(),
            payload_crc: crc32c::crc32c(payload),
        }
    }

    #[test]
    fn a_frame_arrives_as_it_was_sent() {
        let (mut sealer, mut opener) = pair();
        for payload in [b"".as_slice(), b"who may serve"] {
            let fields = control(payload);
            let header = sealer.seal(&fields, Some(payload));
            assert_eq!(opener.header(&header), Ok(fields));
            assert_eq!(opener.payload(payload), Ok(()));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_control_frame_is_refused() {
        let payload = b"vote";
        let (mut sealer, opener) = pair();
        let header = sealer.seal(&control(payload), Some(payload));
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = header;
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut opener = opener.clone();
            let refused = opener.header(&bad).is_err() || opener.payload(payload).is_err();
            assert!(refused, "bit {bit} went through");
        }
        for bit in 0..payload.len() * 8 {
            let mut bad = *payload;
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut opener = opener.clone();
            opener.header(&header).unwrap();
            assert!(
                opener.payload(&bad).is_err(),
                "payload bit {bit} went through"
            );
        }
    }

    #[test]
    fn a_replayed_a_lost_and_a_reordered_frame_are_refused() {
        let (mut sealer, mut opener) = pair();
        let frames: [_; 3] = core::array::from_fn(|_| sealer.seal(&control(b""), Some(b"")));
        opener.header(&frames[0]).unwrap();
        assert_eq!(
            opener.header(&frames[0]),
            Err(FrameError::Counter {
                got: 1,
                expected: 2
            })
        );
        assert_eq!(
            opener.header(&frames[2]),
            Err(FrameError::Counter {
                got: 3,
                expected: 2
            })
        );
        assert!(opener.header(&frames[1]).is_ok());
    }

    #[test]
    fn a_forger_without_the_key_is_refused() {
        let (_, mut opener) = pair();
        let mut forger = Sealer::new(CLUSTER, Key([8; 32]));
        assert_eq!(
            opener.header(&forger.seal(&control(b""), Some(b""))),
            Err(FrameError::Mac)
        );
        let mut forger = Sealer::new(CLUSTER, Key([8; 32]));
        opener
            .header(&forger.seal(&control(b"x"), Some(b"x")))
            .unwrap();
        assert_eq!(opener.payload(b"x"), Err(FrameError::Mac));
    }

    #[test]
    fn another_cluster_is_named() {
        let (_, mut opener) = pair();
        let mut other = Sealer::new(5, Key([9; 32]));
        assert_eq!(
            opener.header(&other.seal(&control(b""), Some(b""))),
            Err(FrameError::Cluster(5))
        );
    }

    #[test]
    fn a_data_frame_needs_no_mac_but_its_payload_crc() {
        let (mut sealer, mut opener) = pair();
        let fields = Fields {
            kind: 1,
            ..control(b"blocks")
        };
        let header = sealer.seal(&fields, None);
        assert_eq!(opener.header(&header), Ok(fields));
        assert_eq!(opener.payload(b"blockz"), Err(FrameError::PayloadCrc));
        assert_eq!(
            opener.payload(b"block"),
            Err(FrameError::PayloadLength {
                got: 5,
                expected: 6
            })
        );
        assert_eq!(opener.payload(b"blocks"), Ok(()));
    }

    #[test]
    #[should_panic(expected = "control frames carry a MAC")]
    fn a_control_frame_is_never_sealed_without_mac() {
        let _ = pair().0.seal(&control(b""), None);
    }
}
