//! Sense data, as far as an initiator decides by it (SPC-4 §4.5).

/// Sense key, additional sense code and its qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// 0 to Fh.
    pub key: u8,
    /// ASC.
    pub code: u8,
    /// ASCQ.
    pub qualifier: u8,
}

impl core::fmt::Display for Sense {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:X}/{:02X}/{:02X}", self.key, self.code, self.qualifier)
    }
}

/// From fixed (70h, 71h) or descriptor format (72h, 73h).
pub fn parse(sense: &[u8]) -> Option<Sense> {
    let (key, code, qualifier) = match sense.first()? & 0x7f {
        0x70 | 0x71 => (sense.get(2)?, sense.get(12)?, sense.get(13)?),
        0x72 | 0x73 => (sense.get(1)?, sense.get(2)?, sense.get(3)?),
        _ => return None,
    };
    Some(Sense {
        key: key & 0xf,
        code: *code,
        qualifier: *qualifier,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_say_the_same() {
        let mut fixed = [0; 18];
        (fixed[0], fixed[2], fixed[12], fixed[13]) = (0xf0, 0x02, 0x04, 0x0a);
        assert_eq!(parse(&fixed), parse(&[0x72, 0x02, 0x04, 0x0a, 0, 0, 0, 0]));
        assert_eq!(parse(&fixed[..12]), None);
        assert_eq!(parse(&[]), None);
    }
}
