//! Bursts, their borders, and data that is not what it should be.

use super::*;
use crate::pdu::U24;
use zerocopy::FromZeros;

const LIMITS: Bursts = Bursts {
    max_burst: 1000,
    max_outstanding: 2,
};

fn data(tag: u32, data_sn: u32, offset: u32, len: u32, last: bool) -> DataOut {
    let mut header = DataOut::new_zeroed();
    header.transfer_tag = tag.into();
    header.data_sn = data_sn.into();
    header.offset = offset.into();
    header.data_length = U24::new(len);
    header.flags = if last { FINAL } else { 0 };
    header
}

#[test]
fn bursts_follow_each_other_with_two_outstanding() {
    let mut transfer = Transfer::new(500, None);
    transfer.want(2700);
    transfer.land(500, 0);
    assert_eq!(
        transfer.solicit(LIMITS),
        Some(Solicit {
            number: 0,
            offset: 500,
            len: 1000
        })
    );
    assert_eq!(
        transfer.solicit(LIMITS),
        Some(Solicit {
            number: 1,
            offset: 1500,
            len: 1000
        })
    );
    assert_eq!(transfer.solicit(LIMITS), None);
    assert_eq!(transfer.data_out(&data(1, 0, 500, 600, false), 0), Ok(500));
    assert_eq!(transfer.solicit(LIMITS), None);
    assert_eq!(transfer.data_out(&data(1, 1, 1100, 400, true), 0), Ok(1100));
    assert_eq!(
        transfer.solicit(LIMITS),
        Some(Solicit {
            number: 2,
            offset: 2500,
            len: 200
        })
    );
    assert_eq!(
        transfer.data_out(&data(1, 0, 1500, 1000, true), 1),
        Ok(1500)
    );
    assert_eq!(transfer.solicit(LIMITS), None);
    assert_eq!(transfer.data_out(&data(1, 0, 2500, 200, true), 2), Ok(2500));
    assert!(!transfer.is_owed());
    assert_eq!(transfer.complete(), None);
    transfer.land(2200, 0);
    assert!(transfer.complete().is_some());
}

#[test]
fn an_r2t_waits_for_the_end_of_unsolicited_data() {
    let mut transfer = Transfer::new(0, Some(800));
    transfer.want(1000);
    assert_eq!(transfer.solicit(LIMITS), None);
    assert_eq!(transfer.data_out(&data(NO_TAG, 0, 0, 300, false), 0), Ok(0));
    assert_eq!(
        transfer.data_out(&data(NO_TAG, 1, 300, 200, true), 0),
        Ok(300)
    );
    assert_eq!(
        transfer.solicit(LIMITS),
        Some(Solicit {
            number: 0,
            offset: 500,
            len: 500
        })
    );
    assert_eq!(transfer.data_out(&data(7, 0, 500, 500, true), 0), Ok(500));
}

#[test]
fn what_the_engine_does_not_want_is_not_asked_for() {
    let mut transfer = Transfer::new(600, None);
    transfer.want(512);
    assert_eq!(transfer.keep(0, 600), 512);
    assert_eq!(transfer.keep(512, 88), 0);
    assert_eq!(transfer.solicit(LIMITS), None);
}

#[test]
fn faults_have_their_names() {
    let asked = || {
        let mut transfer = Transfer::new(0, None);
        transfer.want(1500);
        while transfer.solicit(LIMITS).is_some() {}
        transfer
    };
    assert_eq!(
        asked().data_out(&data(1, 1, 0, 500, false), 0),
        Err(Fault::Sequence)
    );
    assert_eq!(
        asked().data_out(&data(1, 0, 4, 500, false), 0),
        Err(Fault::Offset)
    );
    assert_eq!(
        asked().data_out(&data(1, 0, 0, 1001, false), 0),
        Err(Fault::TooMuch)
    );
    assert_eq!(
        asked().data_out(&data(1, 0, 0, 500, true), 0),
        Err(Fault::Sequence)
    );
    assert_eq!(
        asked().data_out(&data(1, 0, 0, 500, false), 1),
        Err(Fault::Tag)
    );
    assert_eq!(
        asked().data_out(&data(NO_TAG, 0, 0, 500, true), 0),
        Err(Fault::Unsolicited)
    );
    let mut limited = Transfer::new(0, Some(400));
    assert_eq!(
        limited.data_out(&data(NO_TAG, 0, 0, 500, true), 0),
        Err(Fault::Unsolicited)
    );
    assert!(!limited.is_owed());
}

#[test]
fn a_faulty_burst_is_owed_until_its_last_pdu() {
    let mut transfer = Transfer::new(0, None);
    transfer.want(1000);
    assert!(transfer.solicit(LIMITS).is_some());
    assert_eq!(
        transfer.data_out(&data(1, 9, 0, 500, false), 0),
        Err(Fault::Sequence)
    );
    assert!(transfer.is_owed());
    assert_eq!(
        transfer.data_out(&data(1, 10, 500, 500, true), 0),
        Err(Fault::Sequence)
    );
    assert!(!transfer.is_owed());
}
