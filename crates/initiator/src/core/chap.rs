//! CHAP with MD5 (RFC 1994; RFC 7143 §12.1.3).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use md5::{Digest, Md5};

/// A name and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// `CHAP_N`.
    pub name: String,
    /// Never shown.
    pub secret: Vec<u8>,
}

impl core::fmt::Debug for Account {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Account({})", self.name)
    }
}

/// The response to a challenge.
pub fn response(id: u8, secret: &[u8], challenge: &[u8]) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update([id]);
    hash.update(secret);
    hash.update(challenge);
    hash.finalize().into()
}

/// As `0x…`.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::from("0x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// From `0x…` or `0b…` (base64).
pub fn binary(text: &str) -> Option<Vec<u8>> {
    let (prefix, digits) = text.split_at_checked(2)?;
    match prefix {
        "0x" | "0X" => {
            let odd = digits.len() % 2;
            let ends = (odd..=digits.len()).step_by(2);
            ends.filter(|end| *end > 0)
                .map(|end| u8::from_str_radix(digits.get(end.saturating_sub(2)..end)?, 16).ok())
                .collect()
        }
        "0b" | "0B" => base64(digits),
        _ => None,
    }
}

fn base64(digits: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for digit in digits.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(((bits >> count) & 0xff) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_kinds_are_read() {
        assert_eq!(binary("0x0aFf").unwrap(), [10, 255]);
        assert_eq!(binary("0xaff").unwrap(), [10, 255]);
        assert_eq!(binary("0bTG9jaw==").unwrap(), b"Lock");
        assert_eq!(binary("lock"), None);
        assert_eq!(binary("0xzz"), None);
        assert_eq!(hex(&[1, 255]), "0x01ff");
    }

    #[test]
    fn the_response_is_md5_of_id_secret_and_challenge() {
        assert_eq!(
            hex(&response(b'a', b"b", b"c")),
            "0x900150983cd24fb0d6963f7d28e17f72"
        );
    }
}
