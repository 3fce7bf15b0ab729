//! The pool configuration's file: the version in force, a prepared one, and the names of earlier
//! ones, with a CRC over all of it.

use alloc::vec::Vec;
use lockstep_mirror::control_frame::PoolVersion;
use zerocopy::network_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"LOCKPOL1";

/// The document in force in a pool configuration's file; `None`: it is none, or a damaged one.
#[must_use]
pub fn document_in_force(file: &[u8]) -> Option<Vec<u8>> {
    Stored::decode(file).map(|it| it.committed.document)
}

/// A document and its name.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Version {
    pub(super) version: PoolVersion,
    pub(super) document: Vec<u8>,
}

impl Version {
    pub(super) fn new(generation: u64, document: Vec<u8>) -> Self {
        Self {
            version: PoolVersion::of(generation, &document),
            document,
        }
    }
}

/// Everything that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Stored {
    pub(super) committed: Version,
    pub(super) prepared: Option<Version>,
    pub(super) history: Vec<PoolVersion>,
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    crc: U32,
    history: U32,
    generation: U64,
    length: U64,
    has_prepared: U64,
    prepared_generation: U64,
    prepared_length: U64,
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Past {
    generation: U64,
    hash: U128,
}

const CRC_FROM: usize = 12;

impl Stored {
    pub(super) fn encode(&self) -> Vec<u8> {
        let length = |it: &Version| {
            U64::new(u64::try_from(it.document.len()).expect("documents are bounded"))
        };
        let prepared = self.prepared.as_ref();
        let head = Head {
            magic: MAGIC,
            crc: 0.into(),
            history: u32::try_from(self.history.len())
                .expect("the history is bounded")
                .into(),
            generation: self.committed.version.generation.into(),
            length: length(&self.committed),
            has_prepared: u64::from(prepared.is_some()).into(),
            prepared_generation: prepared.map_or(0, |it| it.version.generation).into(),
            prepared_length: prepared.map_or(U64::new(0), length),
        };
        let mut bytes = head.as_bytes().to_vec();
        for past in &self.history {
            let past = Past {
                generation: past.generation.into(),
                hash: past.hash.into(),
            };
            bytes.extend_from_slice(past.as_bytes());
        }
        bytes.extend_from_slice(&self.committed.document);
        if let Some(prepared) = prepared {
            bytes.extend_from_slice(&prepared.document);
        }
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[8..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None`: not what was written.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = Head::ref_from_prefix(bytes).ok()?;
        if head.magic != MAGIC || crc32c::crc32c(&bytes[CRC_FROM..]) != head.crc.get() {
            return None;
        }
        let size = |it: U64| usize::try_from(it.get()).ok();
        let past_len = usize::try_from(head.history.get())
            .ok()?
            .checked_mul(size_of::<Past>())?;
        let (past, rest) = rest.split_at_checked(past_len)?;
        let (committed, rest) = rest.split_at_checked(size(head.length)?)?;
        let (prepared, rest) = rest.split_at_checked(size(head.prepared_length)?)?;
        let past = <[Past]>::ref_from_bytes(past).ok()?;
        let committed = if head.generation.get() == 0 {
            Version::default()
        } else {
            Version::new(head.generation.get(), committed.to_vec())
        };
        rest.is_empty().then(|| Self {
            committed,
            prepared: (head.has_prepared.get() != 0)
                .then(|| Version::new(head.prepared_generation.get(), prepared.to_vec())),
            history: past
                .iter()
                .map(|it| PoolVersion {
                    generation: it.generation.get(),
                    hash: it.hash.get(),
                })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_it_was_written_and_damage_is_noticed() {
        let full = Stored {
            committed: Version::new(3, b"targets".to_vec()),
            prepared: Some(Version::new(4, Vec::new())),
            history: alloc::vec![PoolVersion::of(2, b"before")],
        };
        for stored in [full, Stored::default()] {
            let file = stored.encode();
            assert_eq!(Stored::decode(&file), Some(stored));
            for at in 0..file.len() {
                let mut bad = file.clone();
                bad[at] ^= 4;
                assert_eq!(Stored::decode(&bad), None, "byte {at}");
                assert_eq!(Stored::decode(&file[..at]), None, "cut at {at}");
            }
        }
    }
}
