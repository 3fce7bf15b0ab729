//! What a login has agreed on (RFC 7143 §13), and what we would agree to.

use crate::interface::Settings;
use crate::pdu::U24;

/// Most R2Ts that one task has outstanding. The pay-off ends where a network's delay is filled;
/// 16 bursts of 256 KiB are 4 MiB in flight for one command.
pub(crate) const MAX_OUTSTANDING_R2T: u32 = 16;
/// Bytes in a data segment, before anything else is declared.
pub(crate) const DEFAULT_SEGMENT: u32 = 8192;
/// Least value of the length keys (RFC 7143 §13.12 to §13.14).
pub(crate) const LEAST_LENGTH: u32 = 512;

/// The result of a negotiation; begins with the defaults of RFC 7143.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) header_digest: bool,
    pub(crate) data_digest: bool,
    pub(crate) initial_r2t: bool,
    pub(crate) immediate_data: bool,
    /// MaxRecvDataSegmentLength that the initiator declared: what we may send.
    pub(crate) max_send: u32,
    /// The one that we declared: what we take.
    pub(crate) max_receive: u32,
    pub(crate) max_burst: u32,
    pub(crate) first_burst: u32,
    pub(crate) max_outstanding_r2t: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            initial_r2t: true,
            immediate_data: true,
            max_send: DEFAULT_SEGMENT,
            max_receive: DEFAULT_SEGMENT,
            max_burst: 262_144,
            first_burst: 65_536,
            max_outstanding_r2t: 1,
        }
    }
}

/// Our side of the bargain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) max_receive: u32,
    pub(crate) max_burst: u32,
    pub(crate) first_burst: u32,
}

impl Offer {
    /// From the settings, brought into the ranges that the RFC allows.
    pub(crate) fn new(settings: &Settings) -> Self {
        let length = |value: u32| value.clamp(LEAST_LENGTH, U24::MAX);
        let max_burst = length(settings.max_burst);
        Self {
            max_receive: length(settings.max_receive),
            max_burst,
            first_burst: length(settings.first_burst).min(max_burst),
        }
    }
}
