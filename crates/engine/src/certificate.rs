//! The sender of a death certificate: one connection to the partner, as bytes in and bytes out.
//! It speaks for a run of this node that has ended, after everything that the run used could be
//! locked; the locks are kept until this is over.

use crate::channel::{Channel, Heard};
use alloc::string::String;
use alloc::vec::Vec;
use lockstep_mirror::control::{Incarnation, NodeId};
use lockstep_mirror::control_frame::{ControlFrame, MAX_CERTIFIED};
use lockstep_mirror::hello::{Hello, Purpose, Side};
pub use lockstep_mirror::membership::Left;

/// What is certified, and by whom.
#[derive(Clone)]
pub struct Certificate {
    /// The node on which the run was.
    pub node: NodeId,
    /// The one that is told.
    pub partner: NodeId,
    /// The cluster's id.
    pub cluster: u128,
    /// The pair's secret.
    pub secret: alloc::boxed::Box<[u8]>,
    /// The run that has ended.
    pub run: Incarnation,
    /// The volumes that it can write no more, as it left them.
    pub left: Vec<Left>,
}

impl core::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Certificate")
            .field("node", &self.node)
            .field("run", &self.run)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// One connection over which a certificate is sent.
pub struct Certifier {
    channel: Channel,
    left: Vec<Left>,
    asked: usize,
    answers: usize,
    taken: bool,
}

impl core::fmt::Debug for Certifier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Certifier")
            .field("answer", &self.answer())
            .finish_non_exhaustive()
    }
}

impl Certifier {
    /// A new connection, and what it sends first. `nonce`: 32 random bytes, fresh for each.
    #[must_use]
    pub fn new(certificate: &Certificate, nonce: [u8; 32]) -> (Self, Vec<u8>) {
        let me = Side {
            node: certificate.node,
            incarnation: certificate.run,
            cluster: certificate.cluster,
            purpose: Purpose::Certificate,
        };
        let hello = Hello::new(me, certificate.partner, &certificate.secret, nonce);
        let (channel, first) = Channel::new(hello);
        let certifier = Self {
            channel,
            left: certificate.left.clone(),
            asked: 0,
            answers: 0,
            taken: false,
        };
        (certifier, first)
    }

    /// Takes bytes in pieces of any size; gives what is to be sent in return.
    ///
    /// # Errors
    /// Why the connection is of no use.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut heard = Vec::new();
        let taken = self.channel.take(bytes, &mut heard);
        let mut out = Vec::new();
        for it in heard {
            match it {
                Heard::Reply(bytes) => out.extend(bytes),
                Heard::Proven(_) => self.send(&mut out),
                Heard::Frame(ControlFrame::CertificateAnswer { taken }) => {
                    self.answers += 1;
                    self.taken |= taken;
                }
                // Nothing else is for a run that has ended.
                Heard::Frame(_) | Heard::Certifier => {}
            }
        }
        taken.map(|()| out)
    }

    fn send(&mut self, out: &mut Vec<u8>) {
        // A node without volumes certifies too: its partner then knows that it is gone.
        let none: &[Left] = &[];
        let parts = self.left.chunks(MAX_CERTIFIED);
        let parts: Vec<_> = if self.left.is_empty() {
            Vec::from([none])
        } else {
            parts.collect()
        };
        for part in parts {
            let frame = ControlFrame::Certificate(part.to_vec());
            out.extend(self.channel.seal(&frame).expect("the peer is proven"));
            self.asked += 1;
        }
    }

    /// Whether the partner has taken the certificate; `None`: it has not answered yet.
    #[must_use]
    pub const fn answer(&self) -> Option<bool> {
        if self.asked > 0 && self.answers >= self.asked {
            Some(self.taken)
        } else {
            None
        }
    }
}
