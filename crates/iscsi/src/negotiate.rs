//! The operational keys of a login (RFC 7143 §13): for each key that the initiator sends, our
//! answer and the result. We only ever answer, and declare what must be declared.

use crate::parameters::{DEFAULT_SEGMENT, LEAST_LENGTH, MAX_OUTSTANDING_R2T, Offer, Parameters};
use crate::pdu::U24;
use crate::text;
use alloc::vec::Vec;
use thiserror::Error;

/// A key that ends the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum NegotiationError {
    #[error("a key was negotiated twice")]
    Twice,
    #[error("MaxRecvDataSegmentLength is not a number from 512 to 16777215")]
    SegmentLength,
}

/// Every operational key that has a rule. The order is that of the bits in `seen`.
const KEYS: [&str; 21] = [
    "HeaderDigest",
    "DataDigest",
    "MaxConnections",
    "InitialR2T",
    "ImmediateData",
    "MaxRecvDataSegmentLength",
    "MaxBurstLength",
    "FirstBurstLength",
    "DefaultTime2Wait",
    "DefaultTime2Retain",
    "MaxOutstandingR2T",
    "DataPDUInOrder",
    "DataSequenceInOrder",
    "ErrorRecoveryLevel",
    "TaskReporting",
    "iSCSIProtocolLevel",
    "IFMarker",
    "OFMarker",
    "IFMarkInt",
    "OFMarkInt",
    "SendTargets",
];

/// The state of the operational negotiation of one login.
#[derive(Debug)]
pub(crate) struct Negotiation {
    offer: Offer,
    seen: u32,
    declared: bool,
    pub(crate) result: Parameters,
}

impl Negotiation {
    pub(crate) fn new(offer: Offer) -> Self {
        Self {
            offer,
            seen: 0,
            declared: false,
            result: Parameters::default(),
        }
    }

    /// Whether `key` is negotiated here.
    pub(crate) fn knows(key: &str) -> bool {
        KEYS.contains(&key)
    }

    /// Answers the operational keys of one request, in their order.
    ///
    /// # Errors
    /// What ends the login.
    pub(crate) fn answer(
        &mut self,
        keys: &[(&str, &str)],
        reply: &mut Vec<u8>,
    ) -> Result<(), NegotiationError> {
        // FirstBurstLength depends on three others, which may stand behind it.
        for pass in 0..2 {
            for &(key, value) in keys.iter().filter(|(key, _)| Self::knows(key)) {
                if (key == "FirstBurstLength") == (pass == 1) {
                    self.one(key, value, reply)?;
                }
            }
        }
        Ok(())
    }

    /// Declares our MaxRecvDataSegmentLength, once.
    pub(crate) fn declare(&mut self, reply: &mut Vec<u8>) {
        if !self.declared {
            self.declared = true;
            self.result.max_receive = self.offer.max_receive;
            text::push_number(reply, "MaxRecvDataSegmentLength", self.offer.max_receive);
        }
    }

    /// What was agreed on. FirstBurstLength never exceeds MaxBurstLength, in whichever order
    /// they were settled.
    pub(crate) fn finish(mut self) -> Parameters {
        self.result.first_burst = self.result.first_burst.min(self.result.max_burst);
        self.result
    }

    fn one(&mut self, key: &str, value: &str, reply: &mut Vec<u8>) -> Result<(), NegotiationError> {
        // An answer to something that we declared; nothing to answer.
        if matches!(value, "NotUnderstood" | "Irrelevant" | "Reject") {
            return Ok(());
        }
        let bit = KEYS
            .iter()
            .position(|&known| known == key)
            .map_or(0, |index| 1 << index);
        if self.seen & bit != 0 {
            return Err(NegotiationError::Twice);
        }
        self.seen |= bit;
        let offer = self.offer;
        let result = &mut self.result;
        let answered = match key {
            "HeaderDigest" => digest(key, value, &mut result.header_digest, reply),
            "DataDigest" => digest(key, value, &mut result.data_digest, reply),
            "InitialR2T" => either(key, value, false, &mut result.initial_r2t, reply),
            "ImmediateData" => both(key, value, true, &mut result.immediate_data, reply),
            "DataPDUInOrder" | "DataSequenceInOrder" => either(key, value, true, &mut false, reply),
            "MaxRecvDataSegmentLength" => {
                result.max_send = in_range(value, LEAST_LENGTH, U24::MAX)
                    .ok_or(NegotiationError::SegmentLength)?;
                true
            }
            "MaxBurstLength" => {
                let ours = (LEAST_LENGTH, U24::MAX, offer.max_burst);
                least(key, value, ours, &mut result.max_burst, reply)
            }
            "FirstBurstLength" if result.initial_r2t && !result.immediate_data => {
                text::push(reply, key, "Irrelevant");
                true
            }
            "FirstBurstLength" => {
                let ours = (
                    LEAST_LENGTH,
                    U24::MAX,
                    offer.first_burst.min(result.max_burst),
                );
                least(key, value, ours, &mut result.first_burst, reply)
            }
            "MaxOutstandingR2T" => {
                let ours = (1, 65_535, MAX_OUTSTANDING_R2T);
                least(key, value, ours, &mut result.max_outstanding_r2t, reply)
            }
            // One connection a session, no recovery within it, and no task outlives it.
            "MaxConnections" => least(key, value, (1, 65_535, 1), &mut 0, reply),
            "ErrorRecoveryLevel" => least(key, value, (0, 2, 0), &mut 0, reply),
            "DefaultTime2Retain" => least(key, value, (0, 3600, 0), &mut 0, reply),
            "DefaultTime2Wait" => match in_range(value, 0, 3600) {
                Some(seconds) => {
                    text::push_number(reply, key, seconds);
                    true
                }
                None => false,
            },
            "iSCSIProtocolLevel" => least(key, value, (0, 31, 1), &mut 0, reply),
            "TaskReporting" => match first_of(value, &["RFC3720", "ResponseFence"]) {
                Some(chosen) => {
                    text::push(reply, key, chosen);
                    true
                }
                None => false,
            },
            // Markers are gone since RFC 7143, but old initiators still ask.
            "IFMarker" | "OFMarker" => {
                either(key, value, false, &mut false, &mut Vec::new()) && {
                    text::push(reply, key, "No");
                    true
                }
            }
            "IFMarkInt" | "OFMarkInt" => {
                text::push(reply, key, "Irrelevant");
                true
            }
            _ => false,
        };
        if !answered {
            text::push(reply, key, "Reject");
        }
        Ok(())
    }
}

/// MaxRecvDataSegmentLength as it may be declared again in full feature phase.
pub(crate) fn segment_length(value: &str) -> Option<u32> {
    in_range(value, LEAST_LENGTH, U24::MAX)
}

fn in_range(value: &str, low: u32, high: u32) -> Option<u32> {
    let number = u32::try_from(text::number(value)?).ok()?;
    (low..=high).contains(&number).then_some(number)
}

/// The smaller of both values.
fn least(
    key: &str,
    value: &str,
    (low, high, ours): (u32, u32, u32),
    result: &mut u32,
    reply: &mut Vec<u8>,
) -> bool {
    let Some(theirs) = in_range(value, low, high) else {
        return false;
    };
    *result = theirs.min(ours);
    text::push_number(reply, key, *result);
    true
}

fn either(key: &str, value: &str, ours: bool, result: &mut bool, reply: &mut Vec<u8>) -> bool {
    let Some(theirs) = text::boolean(value) else {
        return false;
    };
    *result = theirs || ours;
    text::push(reply, key, if *result { "Yes" } else { "No" });
    true
}

fn both(key: &str, value: &str, ours: bool, result: &mut bool, reply: &mut Vec<u8>) -> bool {
    let Some(theirs) = text::boolean(value) else {
        return false;
    };
    *result = theirs && ours;
    text::push(reply, key, if *result { "Yes" } else { "No" });
    true
}

fn digest(key: &str, value: &str, result: &mut bool, reply: &mut Vec<u8>) -> bool {
    let Some(chosen) = first_of(value, &["None", "CRC32C"]) else {
        return false;
    };
    *result = chosen == "CRC32C";
    text::push(reply, key, chosen);
    true
}

/// The first in the initiator's list that we know.
pub(crate) fn first_of<'a>(list: &'a str, known: &[&str]) -> Option<&'a str> {
    list.split(',').find(|item| known.contains(item))
}

const _: () = assert!(DEFAULT_SEGMENT >= LEAST_LENGTH && KEYS.len() <= 32);

#[cfg(test)]
mod tests;
