//! A witness's file for one pair: the life of its votes, and the votes.

use alloc::vec::Vec;
use core::num::NonZeroU32;
use lockstep_mirror::control::WitnessId;
use lockstep_mirror::register::Acceptor;
use thiserror::Error;

const MAGIC: [u8; 8] = *b"LOCKWIT1";
const LIFE_AT: usize = MAGIC.len();
const HEAD_LEN: usize = LIFE_AT + 4;

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// Not what was written.
    #[error(
        "the votes are damaged: remove the file to begin with none; the pair then admits this \
         witness anew as soon as both its nodes are up"
    )]
    Damaged,
}

/// The contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Drawn when there was no file.
    pub life: WitnessId,
    /// The votes of that life.
    pub acceptor: Acceptor,
}

impl File {
    /// A new life without votes.
    #[must_use]
    pub fn new(life: WitnessId) -> Self {
        Self {
            life,
            acceptor: Acceptor::default(),
        }
    }

    /// The bytes; the votes as `Acceptor::encode` gives them, which end in their own CRC's cover.
    #[must_use]
    pub fn encode(life: WitnessId, acceptor: &[u8]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&life.0.get().to_be_bytes());
        file.extend_from_slice(acceptor);
        let crc = crc32c::crc32c(&file);
        file.extend_from_slice(&crc.to_be_bytes());
        file
    }

    /// Reads them.
    ///
    /// # Errors
    /// When they are not exactly what was written.
    pub fn decode(file: &[u8]) -> Result<Self, FileError> {
        let (body, crc) = file.split_last_chunk::<4>().ok_or(FileError::Damaged)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) || !body.starts_with(&MAGIC) {
            return Err(FileError::Damaged);
        }
        let life = body.get(LIFE_AT..HEAD_LEN).ok_or(FileError::Damaged)?;
        let life = u32::from_be_bytes(life.try_into().map_err(|_| FileError::Damaged)?);
        let life = NonZeroU32::new(life)
            .map(WitnessId)
            .ok_or(FileError::Damaged)?;
        let acceptor = Acceptor::decode(&body[HEAD_LEN..]).map_err(|_| FileError::Damaged)?;
        Ok(Self { life, acceptor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_read() {
        let life = WitnessId(NonZeroU32::new(7).expect("not zero"));
        let file = File::encode(life, &Acceptor::default().encode());
        assert_eq!(File::decode(&file), Ok(File::new(life)));
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert_eq!(File::decode(&bad), Err(FileError::Damaged), "byte {at}");
            assert_eq!(File::decode(&file[..at]), Err(FileError::Damaged));
        }
    }
}
