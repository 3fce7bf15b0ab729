//! What a target answers where no disk is: at a LUN that is not there, and at the REPORT LUNS
//! well known logical unit. It must answer GOOD to INQUIRY and REPORT LUNS anywhere (SPC-4 §5.3).

use crate::cdb::{Cdb, padded};
use crate::inquiry::{Peripheral, requested, standard};
use crate::interface::{Answer, Step};
use crate::report::report_luns;
use crate::sense::{Format, Sense};

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const INQUIRY: u8 = 0x12;
const REPORT_LUNS: u8 = 0xa0;

/// Answers a command to a LUN that is not there, on a target with these LUNs: INQUIRY says
/// qualifier 3 (7Fh), REPORT LUNS lists what is there, REQUEST SENSE returns 5/25/00 as data,
/// everything else ends with 5/25/00.
pub fn no_lun(cdb: &[u8], luns: &[u8]) -> Answer {
    let cdb = padded(cdb);
    let answered = match cdb[0] {
        INQUIRY => inquiry(&cdb, Peripheral::Nothing),
        REPORT_LUNS => report_luns(&cdb, luns),
        REQUEST_SENSE => Ok(request_sense(&cdb, Sense::NO_LOGICAL_UNIT)),
        _ => Err(Sense::NO_LOGICAL_UNIT),
    };
    finished(answered)
}

/// Answers a command to the REPORT LUNS well known logical unit (LUN C1 01 00 00 00 00 00 00).
/// It never changes and keeps no unit attentions.
pub fn well_known(cdb: &[u8], luns: &[u8]) -> Answer {
    let cdb = padded(cdb);
    let answered = match cdb[0] {
        INQUIRY => inquiry(&cdb, Peripheral::WellKnown),
        REPORT_LUNS => report_luns(&cdb, luns),
        REQUEST_SENSE => Ok(request_sense(&cdb, Sense::NONE)),
        TEST_UNIT_READY => Ok(Step::good()),
        _ => Err(Sense::INVALID_OPCODE),
    };
    finished(answered)
}

/// Standard data, or page 00 with nothing else in it.
fn inquiry(cdb: &Cdb, peripheral: Peripheral) -> Result<Step, Sense> {
    let data = standard(peripheral);
    match requested(cdb)? {
        (None, allocation) => Ok(Step::data(data.to_vec(), allocation)),
        (Some(0x00), allocation) => {
            Ok(Step::data([data[0], 0x00, 0, 1, 0x00].to_vec(), allocation))
        }
        (Some(_), _) => Err(Sense::cdb_field(2)),
    }
}

/// REQUEST SENSE: sense data as parameter data, in the format that the DESC bit asks for.
pub(crate) fn request_sense(cdb: &Cdb, sense: Sense) -> Step {
    let format = if cdb[1] & 1 == 0 {
        Format::Fixed
    } else {
        Format::Descriptor
    };
    Step::data(sense.encode(format), cdb[4])
}

fn finished(answered: Result<Step, Sense>) -> Answer {
    match answered {
        Ok(Step::Answer(answer)) => answer,
        Ok(_) => unreachable!("none of these commands moves blocks"),
        Err(sense) => Answer::check(sense, Format::Fixed),
    }
}
