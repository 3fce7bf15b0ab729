//! Unpredictable bytes from a secret seed: the ChaCha20 key stream (RFC 8439 §2.3) with the seed
//! as key and an all-zero nonce. Each block is used once, so an initiator that sees any number of
//! CHAP challenges learns nothing of the next.

/// A stream of random bytes.
pub(crate) struct Random {
    key: [u32; 8],
    counter: u64,
    block: [u8; 64],
    used: usize,
}

impl Random {
    /// The stream of this seed; the seed must be secret and never used twice.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut key = [0; 8];
        for (word, bytes) in key.iter_mut().zip(seed.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self {
            key,
            counter: 0,
            block: [0; 64],
            used: 64,
        }
    }

    /// The next `N` bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            if self.used == self.block.len() {
                self.block = block(&self.key, self.counter);
                self.counter += 1;
                self.used = 0;
            }
            // What was handed out does not stay in memory.
            *byte = core::mem::take(&mut self.block[self.used]);
            self.used += 1;
        }
        bytes
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }
}

/// One block of the key stream; the counter fills words 12 and 13, as in the original ChaCha.
fn block(key: &[u32; 8], counter: u64) -> [u8; 64] {
    let [low, high] = [counter & 0xffff_ffff, counter >> 32]
        .map(|half| u32::try_from(half).expect("half of 64 bits"));
    let mut start = [0; 16];
    start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    start[4..12].copy_from_slice(key);
    start[12..14].copy_from_slice(&[low, high]);
    let mut words = start;
    for _ in 0..10 {
        for column in 0..4 {
            quarter_round(&mut words, [column, column + 4, column + 8, column + 12]);
        }
        for diagonal in 0..4 {
            quarter_round(
                &mut words,
                [
                    diagonal,
                    (diagonal + 1) % 4 + 4,
                    (diagonal + 2) % 4 + 8,
                    (diagonal + 3) % 4 + 12,
                ],
            );
        }
    }
    let mut bytes = [0; 64];
    for (out, (word, first)) in bytes
        .as_chunks_mut::<4>()
        .0
        .iter_mut()
        .zip(words.iter().zip(start))
    {
        *out = word.wrapping_add(first).to_le_bytes();
    }
    bytes
}

fn quarter_round(words: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (add, from, mixed, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        words[add] = words[add].wrapping_add(words[from]);
        words[mixed] = (words[mixed] ^ words[add]).rotate_left(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_of_the_zero_key_is_that_of_rfc_8439() {
        let bytes: [u8; 16] = Random::new([0; 32]).bytes();
        let expected = [
            0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86,
            0xbd, 0x28,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn blocks_and_seeds_differ() {
        let mut random = Random::new([7; 32]);
        let first: [u8; 64] = random.bytes();
        let second: [u8; 64] = random.bytes();
        assert_ne!(first, second);
        assert_ne!(first, Random::new([8; 32]).bytes());
        assert_eq!(first, Random::new([7; 32]).bytes());
    }
}
