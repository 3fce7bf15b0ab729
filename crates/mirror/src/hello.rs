//! The handshake at the start of every connection between partners. Both sides send a hello at
//! once; each answers the other's with a proof that it knows the pair's secret, made over both
//! hellos; both then derive the keys of the two directions. The secret itself never travels.

use crate::control::{Incarnation, NodeId};
use crate::frame::{Key, Opener, Sealer, hmac};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zerocopy::network_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the protocol between partners; both must speak the same.
pub const VERSION: u16 = 3;
/// Bytes of a hello.
pub const HELLO_LEN: usize = 80;
/// Bytes of a proof.
pub const PROOF_LEN: usize = 32;
const MAGIC: [u8; 8] = *b"LOCKHELO";
const CRC_AT: usize = HELLO_LEN - 4;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Operations and resync of volumes; ends in a `Shard`.
    Data,
    /// Heartbeats, register, membership, pool configuration; ends in `Node`.
    Control,
    /// A death certificate, made after the run that the hello names has ended; ends in `Node`.
    Certificate,
}

impl Purpose {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Control => 2,
            Self::Certificate => 3,
        }
    }
}

/// One end of a connection, as it introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// This node's number.
    pub node: NodeId,
    /// This run of this node.
    pub incarnation: Incarnation,
    /// The cluster's id.
    pub cluster: u128,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// A hello as it is on the wire, big-endian.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Message {
    magic: [u8; 8],
    version: U16,
    purpose: u8,
    node: u8,
    to: u8,
    reserved_1: [u8; 3],
    incarnation: U64,
    cluster: U128,
    nonce: [u8; 32],
    reserved_2: [u8; 4],
    crc: U32,
}
const _: () = assert!(size_of::<Message>() == HELLO_LEN);

/// Why a handshake was refused; the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// The peer speaks another protocol altogether.
    #[error("the peer is not a Lockstep node (wrong address or port?)")]
    NotLockstep,
    /// The hello was damaged.
    #[error(
        "the peer's hello was damaged on the way: its CRC is wrong (check cables, switches and network cards)"
    )]
    Damaged,
    /// Another version.
    #[error(
        "the peer speaks protocol version {theirs}, this node {VERSION}: {todo}",
        theirs = .0,
        todo = older(*.0)
    )]
    OtherVersion(u16),
    /// Another pair.
    #[error(
        "the peer belongs to cluster {theirs:032x}, this node to {ours:032x}: check `cluster` in both lockstep.toml"
    )]
    OtherCluster {
        /// The peer's.
        theirs: u128,
        /// This node's.
        ours: u128,
    },
    /// Our own words came back.
    #[error("this node's own hello came back: the partner's address leads to this very node")]
    Reflected,
    /// Not the node that we expect.
    #[error(
        "the peer is node {got}, node {expected} was expected: check the node numbers and addresses in both lockstep.toml"
    )]
    OtherNode {
        /// Who it says it is.
        got: u8,
        /// Who was expected.
        expected: u8,
    },
    /// It looks for somebody else.
    #[error(
        "the peer looks for node {wanted}, this is node {me}: check the node numbers and addresses in both lockstep.toml"
    )]
    NotForUs {
        /// Whom it wanted.
        wanted: u8,
        /// Who this is.
        me: u8,
    },
    /// A data connection arrived at the control port, or the reverse.
    #[error(
        "the peer opened a connection for another purpose: check the control and sync ports in both lockstep.toml"
    )]
    OtherPurpose,
    /// It does not know our secret, or not the same one.
    #[error("the peer does not have this pair's secret: copy the same secret file to both nodes")]
    WrongSecret,
}

/// Numbers that nobody can guess, for nonces and names of configurations: HMAC of a counter
/// under a seed that the driver takes from the operating system.
#[derive(Clone)]
pub struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl core::fmt::Debug for Random {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Random(..)")
    }
}

impl Random {
    /// A stream of its own for each seed.
    #[must_use]
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// The next 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        self.counter += 1;
        hmac(
            &self.seed,
            &[b"lockstep random", &self.counter.to_be_bytes()],
        )
    }

    /// The next number.
    pub fn number(&mut self) -> u128 {
        let mut number = [0; 16];
        number.copy_from_slice(&self.bytes()[..16]);
        u128::from_be_bytes(number)
    }
}

/// Whose release is to be upgraded where the peer speaks another version.
pub(crate) const fn older(theirs: u16) -> &'static str {
    if theirs > VERSION {
        "upgrade Lockstep on this node, whose release is the older one"
    } else {
        "upgrade Lockstep on the peer's machine, whose release is the older one"
    }
}

fn parse(bytes: &[u8; HELLO_LEN]) -> Result<Message, HelloError> {
    let theirs: Message = zerocopy::transmute!(*bytes);
    if theirs.magic != MAGIC {
        return Err(HelloError::NotLockstep);
    }
    if theirs.version.get() != VERSION {
        return Err(HelloError::OtherVersion(theirs.version.get()));
    }
    if crc32c::crc32c(&bytes[..CRC_AT]) != theirs.crc.get() {
        return Err(HelloError::Damaged);
    }
    Ok(theirs)
}

/// The cluster and the node that a hello names: a witness of many pairs must know which secret
/// is meant before it can answer. Nothing is proved by it.
///
/// # Errors
/// When it is no hello of this protocol.
pub fn introduces(bytes: &[u8; HELLO_LEN]) -> Result<(u128, NodeId), HelloError> {
    let theirs = parse(bytes)?;
    Ok((theirs.cluster.get(), NodeId(theirs.node)))
}

/// The proof to send in answer to a hello.
pub type Reply = [u8; PROOF_LEN];

/// A finished handshake.
#[derive(Clone, Debug)]
pub struct Established {
    /// For the frames that this side sends.
    pub sealer: Sealer,
    /// For the frames that the partner sends.
    pub opener: Opener,
    /// Who the partner is.
    pub partner: NodeId,
    /// Which run of it.
    pub partner_incarnation: Incarnation,
}

/// One side of the handshake of one connection:
/// send `first`, feed the peer's to `received`, send the reply, feed the peer's to `proof`.
pub struct Hello {
    me: Side,
    expect: NodeId,
    secret: alloc::boxed::Box<[u8]>,
    mine: Message,
    theirs: Option<Message>,
    certifiable: bool,
}

impl core::fmt::Debug for Hello {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Hello")
            .field("me", &self.me)
            .field("expect", &self.expect)
            .finish_non_exhaustive()
    }
}

impl Hello {
    /// A handshake with node `expect_node`. `nonce`: 32 random bytes, fresh for each connection.
    ///
    /// # Panics
    /// If a node is to talk to itself.
    #[must_use]
    pub fn new(me: Side, expect_node: NodeId, secret: &[u8], nonce: [u8; 32]) -> Self {
        assert_ne!(me.node, expect_node, "a node has no handshake with itself");
        let mut mine = Message {
            magic: MAGIC,
            version: VERSION.into(),
            purpose: me.purpose.code(),
            node: me.node.0,
            to: expect_node.0,
            reserved_1: [0; 3],
            incarnation: me.incarnation.0.into(),
            cluster: me.cluster.into(),
            nonce,
            reserved_2: [0; 4],
            crc: 0.into(),
        };
        mine.crc = crc32c::crc32c(&mine.as_bytes()[..CRC_AT]).into();
        Self {
            me,
            expect: expect_node,
            secret: secret.into(),
            mine,
            theirs: None,
            certifiable: false,
        }
    }

    /// The peer may be a certifier as well, which then says so in its hello.
    #[must_use]
    pub fn or_certifier(mut self) -> Self {
        self.certifiable = true;
        self
    }

    /// The peer's hello said that it brings a death certificate.
    #[must_use]
    pub fn meets_certifier(&self) -> bool {
        let code = Purpose::Certificate.code();
        self.theirs.as_ref().is_some_and(|it| it.purpose == code)
    }

    /// What this side sends as soon as it is connected.
    #[must_use]
    pub fn first(&self) -> [u8; HELLO_LEN] {
        zerocopy::transmute!(self.mine.clone())
    }

    /// The peer's hello came; the reply is to be sent.
    ///
    /// # Errors
    /// When the peer is not the node that this connection is meant for.
    pub fn received(&mut self, bytes: &[u8; HELLO_LEN]) -> Result<Reply, HelloError> {
        let theirs = parse(bytes)?;
        if theirs.cluster.get() != self.me.cluster {
            return Err(HelloError::OtherCluster {
                theirs: theirs.cluster.get(),
                ours: self.me.cluster,
            });
        }
        if theirs.node == self.me.node.0 {
            return Err(HelloError::Reflected);
        }
        if theirs.node != self.expect.0 {
            return Err(HelloError::OtherNode {
                got: theirs.node,
                expected: self.expect.0,
            });
        }
        if theirs.to != self.me.node.0 {
            return Err(HelloError::NotForUs {
                wanted: theirs.to,
                me: self.me.node.0,
            });
        }
        let due = match self.me.purpose {
            Purpose::Certificate => Purpose::Control,
            other => other,
        };
        let certifier = self.certifiable && theirs.purpose == Purpose::Certificate.code();
        if theirs.purpose != due.code() && !certifier {
            return Err(HelloError::OtherPurpose);
        }
        let reply = self.derive(b"lockstep proof", self.me.node.0, &theirs);
        self.theirs = Some(theirs);
        Ok(reply)
    }

    /// The peer's proof came: the connection may carry frames.
    ///
    /// # Errors
    /// When the peer does not know the secret.
    ///
    /// # Panics
    /// If the peer's hello was not received before.
    pub fn proof(&mut self, bytes: &[u8; PROOF_LEN]) -> Result<Established, HelloError> {
        let theirs = self.theirs.as_ref().expect("a proof follows a hello");
        let due = self.derive(b"lockstep proof", theirs.node, theirs);
        if !bool::from(due.as_slice().ct_eq(bytes)) {
            return Err(HelloError::WrongSecret);
        }
        let key = |sender| Key(self.derive(b"lockstep frames", sender, theirs));
        Ok(Established {
            sealer: Sealer::new(self.me.cluster, key(self.me.node.0)),
            opener: Opener::new(self.me.cluster, key(theirs.node)),
            partner: NodeId(theirs.node),
            partner_incarnation: Incarnation(theirs.incarnation.get()),
        })
    }

    /// HMAC under the pair's secret over a label, the sender, and both hellos, the lower node
    /// number's first: nothing made for one direction, purpose or connection fits another.
    fn derive(&self, label: &[u8], sender: u8, theirs: &Message) -> [u8; 32] {
        let (low, high) = if self.mine.node < theirs.node {
            (&self.mine, theirs)
        } else {
            (theirs, &self.mine)
        };
        hmac(
            &self.secret,
            &[label, &[0, sender], low.as_bytes(), high.as_bytes()],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;
    use crate::frame::FrameError;

    const SECRET: &[u8] = b"correct horse battery staple";

    fn side(node: u8) -> Side {
        Side {
            node: NodeId(node),
            incarnation: Incarnation(100 + u64::from(node)),
            cluster: 42,
            purpose: Purpose::Control,
        }
    }

    fn hello(node: u8, secret: &[u8]) -> Hello {
        Hello::new(side(node), NodeId(3 - node), secret, [node; 32])
    }

    fn shake(mut a: Hello, mut b: Hello) -> Result<(Established, Established), HelloError> {
        let (first_a, first_b) = (a.first(), b.first());
        let (proof_a, proof_b) = (a.received(&first_b)?, b.received(&first_a)?);
        Ok((a.proof(&proof_b)?, b.proof(&proof_a)?))
    }

    #[test]
    fn two_partners_meet_and_talk_both_ways() {
        let (mut a, mut b) = shake(hello(1, SECRET), hello(2, SECRET)).unwrap();
        assert_eq!(
            (a.partner, a.partner_incarnation),
            (NodeId(2), Incarnation(102))
        );
        assert_eq!(
            (b.partner, b.partner_incarnation),
            (NodeId(1), Incarnation(101))
        );
        let fields = Fields {
            kind: 0x100,
            aux: 9,
            ..Fields::default()
        };
        assert_eq!(
            b.opener.header(&a.sealer.seal(&fields, Some(b""))),
            Ok(fields)
        );
        assert_eq!(
            a.opener.header(&b.sealer.seal(&fields, Some(b""))),
            Ok(fields)
        );
    }

    #[test]
    fn a_frame_reflected_to_its_sender_is_refused() {
        let (mut a, _) = shake(hello(1, SECRET), hello(2, SECRET)).unwrap();
        let frame = a.sealer.seal(
            &Fields {
                kind: 0x100,
                ..Fields::default()
            },
            Some(b""),
        );
        assert_eq!(a.opener.header(&frame), Err(FrameError::Mac));
    }

    #[test]
    fn a_frame_of_another_connection_is_refused() {
        let (mut a, _) = shake(hello(1, SECRET), hello(2, SECRET)).unwrap();
        let other = Hello::new(side(2), NodeId(1), SECRET, [7; 32]);
        let (_, mut b) = shake(hello(1, SECRET), other).unwrap();
        let frame = a.sealer.seal(
            &Fields {
                kind: 0x100,
                ..Fields::default()
            },
            Some(b""),
        );
        assert_eq!(b.opener.header(&frame), Err(FrameError::Mac));
    }

    #[test]
    fn each_wrong_peer_is_named() {
        let meet = |b: Hello| shake(hello(1, SECRET), b).map(|_| ()).unwrap_err();
        assert_eq!(meet(hello(2, b"guess")), HelloError::WrongSecret);
        let other = Side {
            cluster: 43,
            ..side(2)
        };
        assert_eq!(
            meet(Hello::new(other, NodeId(1), SECRET, [2; 32])),
            HelloError::OtherCluster {
                theirs: 43,
                ours: 42
            }
        );
        let witness = Side {
            node: NodeId(3),
            ..side(2)
        };
        assert_eq!(
            meet(Hello::new(witness, NodeId(1), SECRET, [2; 32])),
            HelloError::OtherNode {
                got: 3,
                expected: 2
            }
        );
        assert_eq!(
            meet(Hello::new(side(2), NodeId(3), SECRET, [2; 32])),
            HelloError::NotForUs { wanted: 3, me: 1 }
        );
        let data = Side {
            purpose: Purpose::Data,
            ..side(2)
        };
        assert_eq!(
            meet(Hello::new(data, NodeId(1), SECRET, [2; 32])),
            HelloError::OtherPurpose
        );
    }

    #[test]
    fn a_certifier_is_met_only_where_it_may_be() {
        let certifier = || {
            let side = Side {
                purpose: Purpose::Certificate,
                ..side(2)
            };
            Hello::new(side, NodeId(1), SECRET, [2; 32])
        };
        let met = shake(hello(1, SECRET), certifier()).map(|_| ());
        assert_eq!(met.unwrap_err(), HelloError::OtherPurpose);
        let mut a = hello(1, SECRET).or_certifier();
        let mut b = certifier();
        let (to_a, to_b) = (b.first(), a.first());
        assert!(!a.meets_certifier());
        let (proof_a, proof_b) = (a.received(&to_a).unwrap(), b.received(&to_b).unwrap());
        assert!(a.meets_certifier() && !b.meets_certifier());
        // The purpose is part of what is proved.
        assert_eq!(
            a.proof(&proof_b).unwrap().partner_incarnation,
            Incarnation(102)
        );
        assert!(b.proof(&proof_a).is_ok());
        // A certifier has nothing to say to another one, nor to a data connection.
        assert_eq!(
            certifier().received(
                &Hello::new(
                    Side {
                        purpose: Purpose::Certificate,
                        ..side(1)
                    },
                    NodeId(2),
                    SECRET,
                    [1; 32]
                )
                .first()
            ),
            Err(HelloError::OtherPurpose)
        );
    }

    #[test]
    fn our_own_hello_and_proof_sent_back_are_refused() {
        let mut a = hello(1, SECRET);
        let first = a.first();
        assert_eq!(a.received(&first), Err(HelloError::Reflected));
        // A peer without the secret that answers with what it just heard.
        let proof = a.received(&hello(2, b"guess").first()).unwrap();
        assert_eq!(a.proof(&proof).map(|_| ()), Err(HelloError::WrongSecret));
    }

    #[test]
    fn another_version_and_damage_are_named() {
        let mut a = hello(1, SECRET);
        let good = hello(2, SECRET).first();
        let mut other = good;
        other[9] = 9;
        assert_eq!(a.received(&other), Err(HelloError::OtherVersion(9)));
        let text = |version| alloc::format!("{}", HelloError::OtherVersion(version));
        assert!(
            text(VERSION + 1).contains("version 4, this node 3: upgrade Lockstep on this node")
        );
        assert!(text(VERSION - 1).contains("upgrade Lockstep on the peer's machine"));
        for bit in 80..HELLO_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(a.received(&bad), Err(HelloError::Damaged), "bit {bit}");
        }
        assert_eq!(a.received(&[b'G'; HELLO_LEN]), Err(HelloError::NotLockstep));
    }
}
