//! UUIDs as people write them, and random numbers from the kernel.

use std::io::Read;

/// Reads a UUID, with or without hyphens; `None` unless it is exactly 32 hexadecimal digits with
/// hyphens at the usual places or none at all.
#[must_use]
pub fn parse(text: &str) -> Option<u128> {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let digits = parts.concat();
    let shaped = lengths == [32] || lengths == [8, 4, 4, 4, 12];
    if !shaped || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok()
}

/// Writes it with hyphens, in lower case.
#[must_use]
pub fn format(uuid: u128) -> String {
    let hex = format!("{uuid:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// So many random bytes from the kernel.
///
/// # Panics
/// Without `/dev/urandom` nothing here can be made safely.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("/dev/urandom is there on every Linux");
    bytes
}

/// A random UUID (version 4).
#[must_use]
pub fn new() -> u128 {
    let mut bytes: [u8; 16] = random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_reads_back() {
        let uuid = new();
        assert_eq!(parse(&format(uuid)), Some(uuid));
        assert_eq!(parse(&format(uuid).replace('-', "")), Some(uuid));
        assert_eq!(format(uuid).as_bytes()[14], b'4');
        assert_ne!(new(), new());
    }

    #[test]
    fn what_only_looks_like_one_is_refused() {
        for bad in [
            "",
            "12",
            "6f0e4a1c-27f5-4d0b-9a36-0c1f5b7e9d4",
            "+f0e4a1c27f54d0b9a360c1f5b7e9d42",
            "6f0e4a1-c27f5-4d0b-9a36-0c1f5b7e9d42",
            "zf0e4a1c-27f5-4d0b-9a36-0c1f5b7e9d42",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
