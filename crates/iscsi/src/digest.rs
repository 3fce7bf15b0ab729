//! CRC32C (RFC 7143 §13.1): of bytes, of more bytes, and of two pieces whose CRCs are known. On
//! the wire a digest is the little-endian CRC.

/// The CRC32C of some bytes.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// The CRC32C of what had `crc`, followed by `bytes`.
#[must_use]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

/// The CRC32C of two pieces in a row, of which the second has `second_len` bytes.
#[must_use]
pub fn combine(first: u32, second: u32, second_len: u64) -> u32 {
    multiply(shift_by(second_len), first) ^ second
}

/// The polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `a * b` modulo the polynomial, over GF(2).
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1u32 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 0 {
            b >> 1
        } else {
            (b >> 1) ^ POLYNOMIAL
        };
        bit >>= 1;
    }
    product
}

/// `POWERS[k]` = x^(8 * 2^k) modulo the polynomial.
const POWERS: [u32; 64] = {
    let mut powers = [0; 64];
    powers[0] = 1 << (31 - 8);
    let mut k = 1;
    while k < 64 {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
};

/// x^(8 * bytes) modulo the polynomial.
fn shift_by(bytes: u64) -> u32 {
    let mut product = 1 << 31;
    let mut left = bytes;
    while left != 0 {
        let lowest = left.trailing_zeros();
        product = multiply(POWERS[lowest as usize], product);
        left &= left - 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_values_of_rfc_7143_appendix_b() {
        assert_eq!(crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(crc32c(&[0xff; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
        let counting: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&counting).to_le_bytes(), [0x4e, 0x79, 0xdd, 0x46]);
    }

    #[test]
    fn pieces_combine_to_the_whole() {
        let bytes: Vec<u8> = (0u32..10_000)
            .map(|i| (i * 7 + i / 251).to_le_bytes()[0])
            .collect();
        for cut in [0, 1, 3, 512, 4096, 9_999, 10_000] {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(
                combine(crc32c(a), crc32c(b), b.len() as u64),
                crc32c(&bytes),
                "cut at {cut}"
            );
            assert_eq!(crc32c_append(crc32c(a), b), crc32c(&bytes));
        }
    }
}
