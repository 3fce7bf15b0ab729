//! Keys and values of login and text negotiation (RFC 7143 §6.1): `Key=Value`, each ended by a
//! zero byte; numbers in decimal, hexadecimal or base64; binary values in the latter two.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use thiserror::Error;

/// Longest name of a key, bytes (§6.1).
pub const MAX_KEY: usize = 63;
/// Longest value of a key that defines no other limit, bytes (§6.1).
pub const MAX_VALUE: usize = 255;

/// What is wrong with a text segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// A byte that is not UTF-8, or a control character.
    #[error("the text is not printable UTF-8")]
    NotText,
    /// A piece without `=`.
    #[error("a key has no value (\"=\" is missing)")]
    NoValue,
    /// An empty or too long key name.
    #[error("a key name is empty or longer than 63 bytes")]
    BadKey,
}

/// Splits a complete text segment. The last zero byte may be missing, empty pieces (padding that
/// was counted as data) are passed over.
///
/// # Errors
/// The first thing that is not `Key=Value`.
pub fn pairs(bytes: &[u8]) -> Result<Vec<(&str, &str)>, TextError> {
    let mut found = Vec::new();
    for piece in bytes.split(|&byte| byte == 0) {
        if piece.is_empty() {
            continue;
        }
        let piece = core::str::from_utf8(piece).map_err(|_| TextError::NotText)?;
        if piece.chars().any(char::is_control) {
            return Err(TextError::NotText);
        }
        let (key, value) = piece.split_once('=').ok_or(TextError::NoValue)?;
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(TextError::BadKey);
        }
        found.push((key, value));
    }
    Ok(found)
}

/// Appends `key=value` and its zero byte.
pub fn push(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// Appends a key with a number.
pub fn push_number(text: &mut Vec<u8>, key: &str, value: u32) {
    let mut digits = String::new();
    // Writing to a String can't fail.
    let _ = write!(digits, "{value}");
    push(text, key, &digits);
}

/// A number up to 2^64 - 1: decimal, or hexadecimal after `0x`.
#[must_use]
pub fn number(value: &str) -> Option<u64> {
    let (digits, radix) = match value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
    {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// `Yes` or `No`, spelled exactly so.
#[must_use]
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// A binary value of at most `limit` bytes: hexadecimal after `0x`, base64 after `0b`.
#[must_use]
pub fn binary(value: &str, limit: usize) -> Option<Vec<u8>> {
    let (prefix, digits) = value.split_at_checked(2)?;
    let bytes = match prefix {
        "0x" | "0X" => from_hex(digits.as_bytes()),
        "0b" | "0B" => from_base64(digits.as_bytes()),
        _ => None,
    }?;
    (!bytes.is_empty() && bytes.len() <= limit).then_some(bytes)
}

/// `0x` and the bytes in hexadecimal.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `0b` and the bytes in base64.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("0b");
    for group in bytes.chunks(3) {
        let mut bits = 0u32;
        for (i, byte) in group.iter().enumerate() {
            bits |= u32::from(*byte) << (16 - 8 * i);
        }
        for digit in 0..4 {
            if digit > group.len() {
                text.push('=');
            } else {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
            }
        }
    }
    text
}

/// An odd number of digits has a leading zero that was left out.
fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let nibble = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let (first, rest) = digits.split_at(digits.len() % 2);
    let mut bytes = Vec::with_capacity(digits.len().div_ceil(2));
    if let [digit] = first {
        bytes.push(nibble(*digit)?);
    }
    for pair in rest.chunks_exact(2) {
        bytes.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    Some(bytes)
}

fn from_base64(digits: &[u8]) -> Option<Vec<u8>> {
    let end = digits
        .iter()
        .rposition(|&digit| digit != b'=')
        .map_or(0, |last| last + 1);
    let padding = digits.len() - end;
    if padding > 2 || (padding > 0 && !digits.len().is_multiple_of(4)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    for group in digits[..end].chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let whole = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - group.len());
        let [_, a, b, c] = bits.to_be_bytes();
        bytes.extend_from_slice(&[a, b, c][..whole]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_their_order() {
        let text = b"InitiatorName=iqn.a\0X-empty=\0\0A=b=c";
        assert_eq!(
            pairs(text).unwrap(),
            [("InitiatorName", "iqn.a"), ("X-empty", ""), ("A", "b=c")]
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(pairs(b"nonsense\0"), Err(TextError::NoValue));
        assert_eq!(pairs(b"=x\0"), Err(TextError::BadKey));
        assert_eq!(pairs(b"a=\xff\0"), Err(TextError::NotText));
        assert_eq!(pairs(b"a=b\n\0"), Err(TextError::NotText));
        assert_eq!(pairs(&[b'k'; 70]), Err(TextError::NoValue));
    }

    #[test]
    fn numbers_in_both_notations() {
        assert_eq!(number("262144"), Some(262_144));
        assert_eq!(number("0x400"), Some(1024));
        for bad in ["", "0x", "+1", "-1", "12a", "1 ", "99999999999999999999"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn binary_survives_both_codings() {
        for len in 1..40u8 {
            let bytes: Vec<u8> = (0..len).map(|i| i.wrapping_mul(77)).collect();
            assert_eq!(binary(&to_hex(&bytes), 64).unwrap(), bytes);
            assert_eq!(binary(&to_base64(&bytes), 64).unwrap(), bytes);
            assert_eq!(
                binary(to_base64(&bytes).trim_end_matches('='), 64).unwrap(),
                bytes
            );
        }
    }

    #[test]
    fn bad_binary_is_refused() {
        for bad in [
            "", "0", "0x", "0b", "0xzz", "0b!!!!", "0bA", "0bAA===", "0bAAA==", "12", "é",
        ] {
            assert_eq!(binary(bad, 64), None, "{bad}");
        }
        assert_eq!(binary(&to_base64(&[1; 65]), 64), None);
    }
}
