//! Lists of `key=value`, as login and text PDUs carry them (RFC 7143 §6.1).

use alloc::string::String;
use alloc::vec::Vec;

/// Appends `key=value` and the zero byte that ends it.
pub fn push(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value.as_bytes());
    out.push(0);
}

/// All pairs, in order; what is not `key=value` is left out.
pub fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            String::from_utf8_lossy(entry)
                .split_once('=')
                .map(|(key, value)| (key.into(), value.into()))
        })
        .collect()
}

/// The value of `key`.
pub fn find<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// A number as the RFC writes them: decimal or hexadecimal.
pub fn number(value: &str) -> Option<u32> {
    match value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
    {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_as_they_were_put() {
        let mut bytes = Vec::new();
        push(&mut bytes, "TargetName", "iqn.a:b=c");
        push(&mut bytes, "MaxBurstLength", "0x400");
        let pairs = pairs(&bytes);
        assert_eq!(find(&pairs, "TargetName"), Some("iqn.a:b=c"));
        assert_eq!(find(&pairs, "MaxBurstLength").and_then(number), Some(1024));
        assert_eq!(find(&pairs, "None"), None);
    }
}
