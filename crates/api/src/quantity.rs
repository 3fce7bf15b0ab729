//! Sizes as people write them: `10GiB`, `512 MiB`, `4096`, `1TB`; and as they read them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// Number of bytes; in text a number with an optional unit (`B KiB MiB GiB TiB PiB`, powers of
/// 1024, of which the `iB` may be left out; `kB MB GB TB PB`, powers of 1000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No digits where the number should be.
    #[error("\"{0}\" does not begin with a number; write it like 10GiB, 512MiB or 4096")]
    NoNumber(String),
    /// A unit that is not in the list.
    #[error("\"{0}\" is not a unit; allowed are B, KiB, MiB, GiB, TiB, PiB and kB, MB, GB, TB, PB")]
    UnknownUnit(String),
    /// More than 2^63 bytes.
    #[error("\"{0}\" is larger than 8 EiB")]
    TooLarge(String),
    /// A fraction that leaves part of a byte.
    #[error("\"{0}\" is not a whole number of bytes")]
    Fraction(String),
}

/// Units in the order in which they are matched.
const UNITS: [(&str, u64); 17] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("p", 1 << 50),
    ("pib", 1 << 50),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
];

/// Longest fraction that is read ("1.125TiB"); keeps the arithmetic within 128 bits.
const FRACTION_DIGITS: usize = 9;

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let trimmed = text.trim();
        let end = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || fraction.len() > FRACTION_DIGITS {
            return Err(SizeError::NoNumber(text.into()));
        }
        let unit = unit.trim();
        let factor = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|&(_, factor)| u128::from(factor))
            .ok_or_else(|| SizeError::UnknownUnit(unit.into()))?;
        let digits: u128 = format!("{whole}{fraction}")
            .parse()
            .map_err(|_| SizeError::TooLarge(text.into()))?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).expect("bounded above"));
        let scaled = digits
            .checked_mul(factor)
            .ok_or_else(|| SizeError::TooLarge(text.into()))?;
        if scaled % scale != 0 {
            return Err(SizeError::Fraction(text.into()));
        }
        let bytes = scaled / scale;
        match u64::try_from(bytes) {
            Ok(bytes) if bytes <= 1 << 63 => Ok(Self(bytes)),
            _ => Err(SizeError::TooLarge(text.into())),
        }
    }
}

/// Exact: the largest unit of which it is a whole multiple, so that it can be read back.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (50, "PiB"),
            (40, "TiB"),
            (30, "GiB"),
            (20, "MiB"),
            (10, "KiB"),
        ];
        for (shift, unit) in units {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Size {
    /// Rounded to a tenth of the largest fitting unit, for tables: `9.8 GiB`.
    #[must_use]
    pub fn rounded(self) -> String {
        let units = [
            (50, "PiB"),
            (40, "TiB"),
            (30, "GiB"),
            (20, "MiB"),
            (10, "KiB"),
        ];
        for (shift, unit) in units {
            if self.0 >> shift == 0 {
                continue;
            }
            let tenths = (u128::from(self.0) * 10 + (1 << (shift - 1))) >> shift;
            return if tenths % 10 == 0 {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
        format!("{} B", self.0)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From text with a unit, or from a plain number of bytes.
impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"10GiB\", or a number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes)
                    .map(Size)
                    .map_err(|_| E::custom(format!("{bytes} is negative; a size is at least 0")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("10GiB", 10 << 30),
            ("10 gib", 10 << 30),
            ("10G", 10 << 30),
            ("1.5MiB", 3 << 19),
            ("2TB", 2_000_000_000_000),
            ("512kB", 512_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_a_reason() {
        assert!(matches!("".parse::<Size>(), Err(SizeError::NoNumber(_))));
        assert!(matches!("GiB".parse::<Size>(), Err(SizeError::NoNumber(_))));
        assert!(matches!("-1".parse::<Size>(), Err(SizeError::NoNumber(_))));
        assert!(matches!(
            "1.2.3G".parse::<Size>(),
            Err(SizeError::NoNumber(_))
        ));
        assert!(matches!(
            "10GiBs".parse::<Size>(),
            Err(SizeError::UnknownUnit(_))
        ));
        assert!(matches!(
            "9000000PiB".parse::<Size>(),
            Err(SizeError::TooLarge(_))
        ));
        assert!(matches!(
            "0.3B".parse::<Size>(),
            Err(SizeError::Fraction(_))
        ));
    }

    #[test]
    fn what_is_shown_exactly_can_be_read_back() {
        for bytes in [
            0,
            1,
            1023,
            1 << 10,
            (10 << 30) + 512,
            10 << 30,
            3 << 40,
            1 << 63,
        ] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        assert_eq!(Size((98 << 30) / 10).rounded(), "9.8 GiB");
        assert_eq!(Size(10 << 30).rounded(), "10 GiB");
    }
}
