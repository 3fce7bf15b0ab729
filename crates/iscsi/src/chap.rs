//! CHAP with MD5 (RFC 1994; RFC 7143 §12.1.3): the arithmetic of both sides, and what both must
//! refuse. Which step comes when is the login's business.

use alloc::vec::Vec;
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// CHAP_A of MD5 in the registry of PPP authentication algorithms.
pub const MD5: &str = "5";
/// Longest challenge and longest response that is taken, bytes (RFC 7143 §12.1.3).
pub const MAX_BINARY: usize = 1024;
/// Bytes in an MD5 response.
pub const RESPONSE_LEN: usize = 16;

/// CHAP_R: the MD5 of identifier, secret and challenge.
#[must_use]
pub fn response(identifier: u8, secret: &[u8], challenge: &[u8]) -> [u8; RESPONSE_LEN] {
    let mut hash = Md5::new();
    hash.update([identifier]);
    hash.update(secret);
    hash.update(challenge);
    hash.finalize().into()
}

/// Whether `given` answers the challenge. The time taken does not depend on where they differ.
#[must_use]
pub fn verify(identifier: u8, secret: &[u8], challenge: &[u8], given: &[u8]) -> bool {
    response(identifier, secret, challenge)
        .as_slice()
        .ct_eq(given)
        .into()
}

/// Whether two secrets are the same, which CHAP in both directions forbids.
#[must_use]
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// A challenge that was sent and may be answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// CHAP_I.
    pub identifier: u8,
    /// CHAP_C.
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_the_md5_of_its_parts() {
        // printf '\x01secretabc' | md5sum
        let expected = [
            0xea, 0x64, 0x46, 0x9e, 0x3d, 0x69, 0x9c, 0xe7, 0x88, 0x4d, 0x07, 0xb0, 0xe6, 0xb1,
            0xed, 0xb3,
        ];
        assert_eq!(response(1, b"secret", b"abc"), expected);
        assert!(verify(1, b"secret", b"abc", &expected));
    }

    #[test]
    fn anything_else_is_refused() {
        let good = response(1, b"secret", b"abc");
        assert!(!verify(2, b"secret", b"abc", &good));
        assert!(!verify(1, b"Secret", b"abc", &good));
        assert!(!verify(1, b"secret", b"abd", &good));
        assert!(!verify(1, b"secret", b"abc", &good[..15]));
        assert!(!verify(1, b"secret", b"abc", b""));
    }
}
