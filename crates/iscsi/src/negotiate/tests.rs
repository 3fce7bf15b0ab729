//! One story for each rule of the table of keys.

use super::*;
use alloc::string::String;

const OFFER: Offer = Offer {
    max_receive: 1 << 18,
    max_burst: 1 << 20,
    first_burst: 1 << 18,
};

/// What we answer to `ask`, separated by spaces, and what was agreed on.
fn negotiate(ask: &str) -> (String, Parameters) {
    let mut negotiation = Negotiation::new(OFFER);
    let mut reply = Vec::new();
    let keys: Vec<_> = ask
        .split(' ')
        .map(|pair| pair.split_once('=').unwrap())
        .collect();
    negotiation.answer(&keys, &mut reply).unwrap();
    let text = String::from_utf8(reply).unwrap();
    (
        text.trim_end_matches('\0').replace('\0', " "),
        negotiation.finish(),
    )
}

fn answer(ask: &str) -> String {
    negotiate(ask).0
}

#[test]
fn digests_are_the_first_that_both_know() {
    assert_eq!(answer("HeaderDigest=CRC32C,None"), "HeaderDigest=CRC32C");
    assert_eq!(answer("HeaderDigest=None,CRC32C"), "HeaderDigest=None");
    assert_eq!(answer("DataDigest=SHA9,CRC32C"), "DataDigest=CRC32C");
    assert_eq!(answer("DataDigest=SHA9"), "DataDigest=Reject");
    assert!(negotiate("DataDigest=CRC32C").1.data_digest);
    assert!(!negotiate("HeaderDigest=SHA9").1.header_digest);
}

#[test]
fn numbers_take_the_smaller_side() {
    assert_eq!(answer("MaxBurstLength=16776192"), "MaxBurstLength=1048576");
    assert_eq!(answer("MaxBurstLength=0x1000"), "MaxBurstLength=4096");
    assert_eq!(answer("MaxOutstandingR2T=1000"), "MaxOutstandingR2T=16");
    assert_eq!(answer("MaxConnections=8"), "MaxConnections=1");
    assert_eq!(answer("ErrorRecoveryLevel=2"), "ErrorRecoveryLevel=0");
    assert_eq!(answer("DefaultTime2Retain=20"), "DefaultTime2Retain=0");
    assert_eq!(answer("DefaultTime2Wait=7"), "DefaultTime2Wait=7");
    assert_eq!(answer("iSCSIProtocolLevel=2"), "iSCSIProtocolLevel=1");
}

#[test]
fn values_outside_of_their_range_are_rejected_and_change_nothing() {
    for bad in [
        "MaxBurstLength=511",
        "MaxBurstLength=16777216",
        "MaxBurstLength=much",
        "MaxOutstandingR2T=0",
        "MaxConnections=0",
        "ErrorRecoveryLevel=3",
        "DefaultTime2Wait=3601",
        "DefaultTime2Retain=-1",
        "InitialR2T=yes",
        "ImmediateData=1",
        "DataPDUInOrder=",
        "IFMarker=perhaps",
        "TaskReporting=Never",
    ] {
        let (answer, result) = negotiate(bad);
        assert!(answer.ends_with("=Reject"), "{bad} was answered {answer}");
        assert_eq!(result, Parameters::default());
    }
}

#[test]
fn booleans_follow_their_function() {
    assert_eq!(answer("InitialR2T=No"), "InitialR2T=No");
    assert_eq!(answer("InitialR2T=Yes"), "InitialR2T=Yes");
    assert_eq!(answer("ImmediateData=No"), "ImmediateData=No");
    assert_eq!(answer("ImmediateData=Yes"), "ImmediateData=Yes");
    assert_eq!(answer("DataPDUInOrder=No"), "DataPDUInOrder=Yes");
    assert_eq!(answer("DataSequenceInOrder=No"), "DataSequenceInOrder=Yes");
}

#[test]
fn the_first_burst_fits_the_burst_in_any_order() {
    let (answer, result) = negotiate("FirstBurstLength=262144 MaxBurstLength=65536");
    assert_eq!(answer, "MaxBurstLength=65536 FirstBurstLength=65536");
    assert_eq!(result.first_burst, 65_536);
    assert_eq!(negotiate("MaxBurstLength=512").1.first_burst, 512);
}

#[test]
fn the_first_burst_is_irrelevant_without_unsolicited_data() {
    let (answer, _) = negotiate("FirstBurstLength=262144 InitialR2T=Yes ImmediateData=No");
    assert_eq!(
        answer,
        "InitialR2T=Yes ImmediateData=No FirstBurstLength=Irrelevant"
    );
}

#[test]
fn markers_are_declined() {
    assert_eq!(
        answer("IFMarker=Yes OFMarker=No"),
        "IFMarker=No OFMarker=No"
    );
    assert_eq!(answer("OFMarkInt=1~65535"), "OFMarkInt=Irrelevant");
}

#[test]
fn task_reporting_is_the_first_we_know() {
    assert_eq!(
        answer("TaskReporting=FastAbort,RFC3720"),
        "TaskReporting=RFC3720"
    );
    assert_eq!(
        answer("TaskReporting=ResponseFence,RFC3720"),
        "TaskReporting=ResponseFence"
    );
}

#[test]
fn a_declaration_is_not_answered_but_must_be_right() {
    let (answer, result) = negotiate("MaxRecvDataSegmentLength=4096");
    assert_eq!((answer.as_str(), result.max_send), ("", 4096));
    let mut negotiation = Negotiation::new(OFFER);
    let bad = [("MaxRecvDataSegmentLength", "100")];
    assert_eq!(
        negotiation.answer(&bad, &mut Vec::new()),
        Err(NegotiationError::SegmentLength)
    );
}

#[test]
fn each_key_comes_once() {
    let mut negotiation = Negotiation::new(OFFER);
    let twice = [("InitialR2T", "No"), ("InitialR2T", "No")];
    assert_eq!(
        negotiation.answer(&twice, &mut Vec::new()),
        Err(NegotiationError::Twice)
    );
}

#[test]
fn ours_is_declared_once() {
    let mut negotiation = Negotiation::new(OFFER);
    let mut reply = Vec::new();
    negotiation.declare(&mut reply);
    negotiation.declare(&mut reply);
    assert_eq!(reply, b"MaxRecvDataSegmentLength=262144\0");
    assert_eq!(negotiation.finish().max_receive, 262_144);
}
