//! Sense data: what went wrong, in fixed or descriptor format (SPC-4 §4.5).

use crate::interface::{Answer, Outcome, Step};
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// Status GOOD (SAM-5 §5.3).
pub(crate) const GOOD: u8 = 0x00;
/// Status CHECK CONDITION.
pub(crate) const CHECK_CONDITION: u8 = 0x02;
/// Status BUSY.
pub(crate) const BUSY: u8 = 0x08;

/// Which field of what the initiator sent is wrong (SPC-4 §4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// This byte of the CDB.
    Cdb(u16),
    /// This byte of the parameter list.
    List(u16),
}

/// One sense: key, code, qualifier and what is known besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sense {
    pub(crate) key: u8,
    pub(crate) code: u8,
    pub(crate) qualifier: u8,
    pub(crate) information: Option<u64>,
    pub(crate) field: Option<Field>,
}

/// In which format the logical unit reports sense (the D_SENSE bit of the control mode page).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Fixed,
    Descriptor,
}

impl Sense {
    pub(crate) const NONE: Self = Self::new(0x0, 0x00, 0x00);
    pub(crate) const TRANSITION: Self = Self::new(0x2, 0x04, 0x0a);
    pub(crate) const STANDBY: Self = Self::new(0x2, 0x04, 0x0b);
    pub(crate) const UNAVAILABLE: Self = Self::new(0x2, 0x04, 0x0c);
    pub(crate) const WRITE_ERROR: Self = Self::new(0x3, 0x0c, 0x00);
    pub(crate) const READ_ERROR: Self = Self::new(0x3, 0x11, 0x00);
    pub(crate) const LIST_LENGTH: Self = Self::new(0x5, 0x1a, 0x00);
    pub(crate) const INVALID_OPCODE: Self = Self::new(0x5, 0x20, 0x00);
    pub(crate) const OUT_OF_RANGE: Self = Self::new(0x5, 0x21, 0x00);
    pub(crate) const NO_LOGICAL_UNIT: Self = Self::new(0x5, 0x25, 0x00);
    pub(crate) const SAVING_UNSUPPORTED: Self = Self::new(0x5, 0x39, 0x00);
    pub(crate) const WRITE_PROTECTED: Self = Self::new(0x7, 0x27, 0x00);
    pub(crate) const NO_SPACE: Self = Self::new(0x7, 0x27, 0x07);
    pub(crate) const ABORTED: Self = Self::new(0xb, 0x00, 0x00);
    pub(crate) const BAD_DATA: Self = Self::new(0xb, 0x47, 0x05);
    pub(crate) const MISCOMPARE: Self = Self::new(0xe, 0x1d, 0x00);

    pub(crate) const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self {
            key,
            code,
            qualifier,
            information: None,
            field: None,
        }
    }

    /// INVALID FIELD IN CDB, pointing at this byte.
    pub(crate) const fn cdb_field(byte: u16) -> Self {
        Self {
            field: Some(Field::Cdb(byte)),
            ..Self::new(0x5, 0x24, 0x00)
        }
    }

    /// INVALID FIELD IN PARAMETER LIST, pointing at this byte.
    pub(crate) fn list_field(byte: usize) -> Self {
        let byte = u16::try_from(byte).unwrap_or(u16::MAX);
        Self {
            field: Some(Field::List(byte)),
            ..Self::new(0x5, 0x26, 0x00)
        }
    }

    /// The same, with a block address or an offset.
    pub(crate) const fn with_information(self, information: u64) -> Self {
        Self {
            information: Some(information),
            ..self
        }
    }

    pub(crate) fn encode(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Fixed => self.fixed(),
            Format::Descriptor => self.descriptor(),
        }
    }

    /// SPC-4 §4.5.3. An information value beyond 32 bits has no room here: VALID stays zero.
    fn fixed(&self) -> Vec<u8> {
        let information = self.information.and_then(|value| u32::try_from(value).ok());
        let valid = if information.is_some() { 0x80 } else { 0 };
        let data = FixedSense {
            response: 0x70 | valid,
            obsolete: 0,
            key: self.key,
            information: U32::new(information.unwrap_or(0)),
            additional_length: 10,
            command_specific: U32::ZERO,
            code: self.code,
            qualifier: self.qualifier,
            replaceable_unit: 0,
            key_specific: self.key_specific(),
        };
        data.as_bytes().to_vec()
    }

    /// SPC-4 §4.5.2: a header and a descriptor for each thing known besides.
    fn descriptor(&self) -> Vec<u8> {
        let mut data = vec![0x72, self.key, self.code, self.qualifier, 0, 0, 0, 0];
        if let Some(information) = self.information {
            data.extend_from_slice(&[0x00, 0x0a, 0x80, 0x00]);
            data.extend_from_slice(U64::new(information).as_bytes());
        }
        if self.field.is_some() {
            let specific = self.key_specific();
            data.extend_from_slice(&[0x02, 0x06, 0x00, 0x00]);
            data.extend_from_slice(specific.as_bytes());
            data.push(0);
        }
        data[7] = u8::try_from(data.len() - 8).expect("two descriptors are 20 bytes");
        data
    }

    /// The field pointer, or zeroes (SKSV=0).
    fn key_specific(&self) -> KeySpecific {
        let (flags, byte) = match self.field {
            None => (0, 0),
            Some(Field::Cdb(byte)) => (0xc0, byte),
            Some(Field::List(byte)) => (0x80, byte),
        };
        KeySpecific {
            flags,
            byte: U16::new(byte),
        }
    }
}

/// Fixed format sense data, SPC-4 §4.5.3.
#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct FixedSense {
    response: u8,
    obsolete: u8,
    key: u8,
    information: U32,
    additional_length: u8,
    command_specific: U32,
    code: u8,
    qualifier: u8,
    replaceable_unit: u8,
    key_specific: KeySpecific,
}
const _: () = assert!(size_of::<FixedSense>() == 18);

/// Sense key specific bytes as a field pointer: SKSV 80h, C/D 40h.
#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct KeySpecific {
    flags: u8,
    byte: U16,
}

impl Answer {
    /// Status GOOD with this data, cut to the CDB's allocation length.
    pub(crate) fn data(mut data: Vec<u8>, allocation: u32) -> Self {
        data.truncate(usize::try_from(allocation).unwrap_or(usize::MAX));
        Self {
            status: GOOD,
            sense: Vec::new(),
            data,
        }
    }

    /// Status GOOD and nothing else.
    pub(crate) fn good() -> Self {
        Self {
            status: GOOD,
            sense: Vec::new(),
            data: Vec::new(),
        }
    }

    /// CHECK CONDITION with this sense.
    pub(crate) fn check(sense: Sense, format: Format) -> Self {
        Self {
            status: CHECK_CONDITION,
            sense: sense.encode(format),
            data: Vec::new(),
        }
    }

    /// How an operation ended, in the initiator's terms.
    pub(crate) fn outcome(outcome: Outcome, format: Format) -> Self {
        let sense = match outcome {
            Outcome::Good => return Self::good(),
            Outcome::Busy => {
                return Self {
                    status: BUSY,
                    ..Self::good()
                };
            }
            Outcome::Unreadable { block } => Sense::READ_ERROR.with_information(block),
            Outcome::Miscompare { offset } => Sense::MISCOMPARE.with_information(offset),
            Outcome::WriteFailed => Sense::WRITE_ERROR,
            Outcome::NoSpace => Sense::NO_SPACE,
            Outcome::Transition => Sense::TRANSITION,
            Outcome::Unavailable => Sense::UNAVAILABLE,
            // TAS=0 in the control mode page: status TASK ABORTED is never used.
            Outcome::Aborted => Sense::ABORTED,
            Outcome::BadData => Sense::BAD_DATA,
        };
        Self::check(sense, format)
    }
}

impl Step {
    /// Answers with data, cut to the CDB's allocation length.
    pub(crate) fn data(data: Vec<u8>, allocation: impl Into<u32>) -> Self {
        Self::Answer(Answer::data(data, allocation.into()))
    }

    /// Answers GOOD.
    pub(crate) fn good() -> Self {
        Self::Answer(Answer::good())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_sense_points_at_the_cdb_byte() {
        let sense = Sense::cdb_field(2).encode(Format::Fixed);
        assert_eq!(
            sense,
            [
                0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xc0, 0, 2
            ]
        );
    }

    #[test]
    fn descriptor_sense_carries_64_bits_of_information() {
        let sense = Sense::READ_ERROR
            .with_information(0x1_0000_0002)
            .encode(Format::Descriptor);
        assert_eq!(sense[..8], [0x72, 3, 0x11, 0, 0, 0, 0, 12]);
        assert_eq!(sense[8..], [0, 0x0a, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        let pointed = Sense::list_field(0x105).encode(Format::Descriptor);
        assert_eq!(pointed[7..], [8, 2, 6, 0, 0, 0x80, 1, 5, 0]);
    }

    #[test]
    fn fixed_sense_is_valid_only_if_the_information_fits() {
        let fits = Sense::MISCOMPARE
            .with_information(0xffff_ffff)
            .encode(Format::Fixed);
        assert_eq!(fits[..7], [0xf0, 0, 0x0e, 0xff, 0xff, 0xff, 0xff]);
        let wide = Sense::READ_ERROR
            .with_information(1 << 32)
            .encode(Format::Fixed);
        assert_eq!(wide[..7], [0x70, 0, 3, 0, 0, 0, 0]);
    }

    #[test]
    fn busy_has_no_sense() {
        let answer = Answer::outcome(Outcome::Busy, Format::Fixed);
        assert_eq!((answer.status, answer.sense.len()), (8, 0));
    }
}
