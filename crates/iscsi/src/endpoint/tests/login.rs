//! Logging in: stages, keys, names, CHAP.

use super::harness::*;
use crate::chap;
use crate::interface::*;
use crate::pdu::*;
use crate::text;
use alloc::format;
use alloc::string::{String, ToString};

fn names() -> String {
    format!("InitiatorName={HOST} TargetName={TARGET} SessionType=Normal")
}

/// Refused with this status, closed, and the operator can read why.
fn refused(world: &mut World, answer: &Pdu, expected: u16, why: &str) {
    assert_eq!(status(answer), expected);
    let Output::Note { text } = world.event() else {
        panic!("a note comes first")
    };
    assert!(text.contains(why), "{text}");
    assert_eq!(world.event(), Output::Close { conn: answer.conn });
    world.quiet();
}

#[test]
fn one_request_can_be_a_whole_login() {
    let mut world = World::new(settings());
    let conn = world.connect(0);
    let ask = format!(
        "{} HeaderDigest=None,CRC32C InitialR2T=No MaxBurstLength=16776192 X-new=1 Odd=2",
        names()
    );
    let answer = world.login(conn, 0x87, &ask);
    assert_eq!(
        answer.text(),
        "TargetPortalGroupTag=1 HeaderDigest=None InitialR2T=No MaxBurstLength=1048576 \
         X-new=NotUnderstood Odd=NotUnderstood MaxRecvDataSegmentLength=262144"
    );
    let header: LoginResponse = answer.as_();
    assert_eq!((header.flags, status(&answer)), (0x87, 0));
    assert_ne!(header.tsih.get(), 0);
    assert_eq!((header.exp_cmd_sn.get(), header.max_cmd_sn.get()), (1, 8));
    let Output::NexusUp {
        target,
        initiator,
        isid,
        ..
    } = world.event()
    else {
        panic!()
    };
    assert_eq!(
        (target, initiator.as_str(), isid),
        (TargetId(1), HOST, [0x80, 0, 0, 0, 0, 1])
    );
}

#[test]
fn stages_follow_each_other_and_names_may_be_repeated() {
    let mut world = World::new(settings());
    let conn = world.connect(0);
    let first = world.login(conn, 0x81, &format!("{} AuthMethod=CHAP,None", names()));
    let header: LoginResponse = first.as_();
    assert_eq!((header.flags, header.tsih.get()), (0x81, 0));
    assert_eq!(first.text(), "TargetPortalGroupTag=1 AuthMethod=None");
    let second = world.login(conn, 0x04, &format!("{} ImmediateData=Yes", names()));
    assert_eq!(second.as_::<LoginResponse>().flags, 0x04);
    assert_eq!(
        second.text(),
        "ImmediateData=Yes MaxRecvDataSegmentLength=262144"
    );
    let third = world.login(conn, 0x87, "");
    assert_eq!(third.as_::<LoginResponse>().flags, 0x87);
    assert!(third.data.is_empty());
    assert!(matches!(world.event(), Output::NexusUp { .. }));
}

#[test]
fn text_may_come_in_pieces() {
    let mut world = World::new(settings());
    let conn = world.connect(0);
    let text = keys(&names());
    let (a, b) = text.as_bytes().split_at(20);
    world.pdu(conn, &login_request(1, 0, 0x44), a);
    let answer = world.next();
    assert_eq!(
        (answer.as_::<LoginResponse>().flags, answer.data.len()),
        (0x04, 0)
    );
    world.pdu(conn, &login_request(1, 0, 0x87), b);
    assert_eq!(status(&world.next()), 0);
}

#[test]
fn what_is_missing_or_unknown_is_said() {
    for (text, expected, why) in [
        (
            "TargetName=iqn.x SessionType=Normal".to_string(),
            0x0207,
            "InitiatorName",
        ),
        (format!("InitiatorName={HOST}"), 0x0207, "TargetName"),
        (
            format!("InitiatorName={HOST} TargetName=iqn.no"),
            0x0203,
            "no target \"iqn.no\"",
        ),
        (
            format!("InitiatorName={HOST} SessionType=Odd"),
            0x0209,
            "Odd",
        ),
        (
            format!("{} InitialR2T=No InitialR2T=No", names()),
            0x0200,
            "twice",
        ),
        (
            format!("{} MaxRecvDataSegmentLength=5", names()),
            0x0200,
            "MaxRecvDataSegmentLength",
        ),
        (
            format!("InitiatorName={HOST} TargetName={TARGET} InitiatorName=iqn.b"),
            0x0200,
            "twice",
        ),
        (format!("InitiatorName={}", "x".repeat(224)), 0x0200, "223"),
        ("nonsense".to_string(), 0x0200, "\"=\" is missing"),
    ] {
        let mut world = World::new(settings());
        let conn = world.connect(0);
        let answer = world.login(conn, 0x87, &text);
        refused(&mut world, &answer, expected, why);
    }
}

#[test]
fn headers_that_no_login_has_are_refused() {
    for (flags, version, expected) in [
        (0x87, 1, 0x0205),
        (0x88, 0, 0x020b),
        (0x84, 0, 0x020b),
        (0x86, 0, 0x020b),
        (0xc7, 0, 0x020b),
    ] {
        let mut world = World::new(settings());
        let conn = world.connect(0);
        let mut header = login_request(1, 0, flags);
        header.version_min = version;
        world.pdu(conn, &header, keys(&names()).as_bytes());
        let answer = world.next();
        assert_eq!(status(&answer), expected, "flags {flags:x}");
    }
}

#[test]
fn a_login_never_goes_back_and_never_changes_its_name() {
    let mut world = World::new(settings());
    let conn = world.connect(0);
    world.login(conn, 0x04, &names());
    let answer = world.login(conn, 0x81, "");
    refused(&mut world, &answer, 0x020b, "out of order");

    let conn = world.connect(1);
    world.login(conn, 0x04, &names());
    let answer = world.login_as(conn, 2, 0, 0x87, "");
    refused(&mut world, &answer, 0x020b, "changed");
}

#[test]
fn an_endless_login_is_ended() {
    let mut world = World::new(settings());
    let conn = world.connect(0);
    world.login(conn, 0x04, &names());
    let mut requests = 1;
    while status(&world.login(conn, 0x04, "")) == 0 {
        requests += 1;
    }
    assert_eq!(requests, 64);

    let conn = world.connect(1);
    let mut pieces = 0;
    loop {
        world.pdu(conn, &login_request(1, 0, 0x44), &[b'a'; 1000]);
        if status(&world.next()) != 0 {
            break;
        }
        pieces += 1;
    }
    assert_eq!(pieces, 8);
}

#[test]
fn only_allowed_initiators_get_in() {
    let mut settings = settings();
    settings.targets[0].allow = alloc::vec!["IQN.2026-11.org.example:HOST".to_string()];
    let mut world = World::new(settings);
    world.session(0, 1, "");
    let conn = world.connect(1);
    let ask = format!("InitiatorName=iqn.stranger TargetName={TARGET}");
    let answer = world.login(conn, 0x87, &ask);
    refused(&mut world, &answer, 0x0202, "iqn.stranger");
}

fn chap_settings() -> Settings {
    let mut settings = settings();
    settings.targets[0].chap = alloc::vec![
        account("other", "xxxxxxxxxxxx"),
        account("0x75", "secretsecret")
    ];
    settings.targets[0].mutual = Some(account("target", "mutualmutual"));
    settings.discovery_chap = alloc::vec![account("finder", "findersecret")];
    settings.discovery_mutual = Some(account("portal", "portalsecret"));
    settings
}

/// Up to our challenge: the identifier and the challenge.
fn challenge(world: &mut World, conn: ConnId, names: &str) -> (u8, alloc::vec::Vec<u8>) {
    let answer = world.login(conn, 0x81, &format!("{names} AuthMethod=None,CHAP"));
    assert_eq!(answer.as_::<LoginResponse>().flags, 0);
    assert!(answer.text().contains("AuthMethod=CHAP"));
    let answer = world.login(conn, 0, "CHAP_A=7,5");
    let reply = answer.data;
    let pairs = text::pairs(&reply).unwrap();
    assert_eq!(pairs[0], ("CHAP_A", "5"));
    let identifier = pairs[1].1.parse().unwrap();
    (identifier, text::binary(pairs[2].1, 64).unwrap())
}

#[test]
fn chap_lets_in_who_knows_the_secret_in_either_coding() {
    for code in [text::to_hex as fn(&[u8]) -> String, text::to_base64] {
        let mut world = World::new(chap_settings());
        let conn = world.connect(0);
        let (identifier, bytes) = challenge(&mut world, conn, &names());
        let response = chap::response(identifier, b"secretsecret", &bytes);
        let answer = world.login(
            conn,
            0x81,
            &format!("CHAP_N=0x75 CHAP_R={}", code(&response)),
        );
        assert_eq!(
            (status(&answer), answer.as_::<LoginResponse>().flags),
            (0, 0x81)
        );
        assert_eq!(status(&world.login(conn, 0x87, "InitialR2T=No")), 0);
    }
}

#[test]
fn chap_keeps_out_who_does_not() {
    for (name, secret) in [
        ("0x75", "wrongwrong12"),
        ("nobody", "secretsecret"),
        ("other", "secretsecret"),
    ] {
        let mut world = World::new(chap_settings());
        let conn = world.connect(0);
        let (identifier, bytes) = challenge(&mut world, conn, &names());
        let response = text::to_hex(&chap::response(identifier, secret.as_bytes(), &bytes));
        let answer = world.login(conn, 0x81, &format!("CHAP_N={name} CHAP_R={response}"));
        refused(&mut world, &answer, 0x0201, name);
    }
}

#[test]
fn chap_cannot_be_avoided() {
    for (flags, ask, why) in [
        (0x87, "InitialR2T=No", "skipped the security stage"),
        (0x83, "", "does not offer CHAP"),
        (0x83, "AuthMethod=None", "does not offer CHAP"),
        (0x83, "CHAP_N=0x75 CHAP_R=0x00", "out of order"),
        (0x83, "AuthMethod=CHAP CHAP_A=6", "MD5"),
    ] {
        let mut world = World::new(chap_settings());
        let conn = world.connect(0);
        let answer = world.login(conn, flags, &format!("{} {ask}", names()));
        refused(&mut world, &answer, 0x0201, why);
    }
    // Wanting to go on does not help while the response is missing.
    let mut world = World::new(chap_settings());
    let conn = world.connect(0);
    challenge(&mut world, conn, &names());
    assert_eq!(world.login(conn, 0x83, "").as_::<LoginResponse>().flags, 0);
}

#[test]
fn an_oversized_or_badly_coded_response_is_refused() {
    for response in [
        text::to_base64(&[1; 17]),
        "0b!!".to_string(),
        "0x".to_string(),
        "12".to_string(),
    ] {
        let mut world = World::new(chap_settings());
        let conn = world.connect(0);
        challenge(&mut world, conn, &names());
        let answer = world.login(conn, 0x81, &format!("CHAP_N=0x75 CHAP_R={response}"));
        refused(&mut world, &answer, 0x0201, "badly coded");
    }
}

#[test]
fn the_target_proves_itself_too() {
    let mut world = World::new(chap_settings());
    let conn = world.connect(0);
    let (identifier, bytes) = challenge(&mut world, conn, &names());
    let response = text::to_hex(&chap::response(identifier, b"secretsecret", &bytes));
    let ask = format!(
        "CHAP_N=0x75 CHAP_R={response} CHAP_I=200 CHAP_C=0b{}",
        "AAEC"
    );
    let answer = world.login(conn, 0x81, &ask);
    let expected = text::to_hex(&chap::response(200, b"mutualmutual", &[0, 1, 2]));
    assert_eq!(answer.text(), format!("CHAP_N=target CHAP_R={expected}"));
}

#[test]
fn a_reflected_challenge_is_refused() {
    let mut world = World::new(chap_settings());
    let conn = world.connect(0);
    let (identifier, bytes) = challenge(&mut world, conn, &names());
    let response = text::to_hex(&chap::response(identifier, b"secretsecret", &bytes));
    let back = text::to_base64(&bytes);
    let ask = format!("CHAP_N=0x75 CHAP_R={response} CHAP_I={identifier} CHAP_C={back}");
    let answer = world.login(conn, 0x81, &ask);
    refused(&mut world, &answer, 0x0201, "our own CHAP challenge");
}

#[test]
fn both_directions_need_different_secrets() {
    let mut settings = chap_settings();
    settings.targets[0].mutual = Some(account("target", "secretsecret"));
    let mut world = World::new(settings);
    let conn = world.connect(0);
    let (identifier, bytes) = challenge(&mut world, conn, &names());
    let response = text::to_hex(&chap::response(identifier, b"secretsecret", &bytes));
    let ask = format!("CHAP_N=0x75 CHAP_R={response} CHAP_I=1 CHAP_C=0x0102");
    let answer = world.login(conn, 0x81, &ask);
    refused(&mut world, &answer, 0x0201, "same secret");
}

#[test]
fn challenges_never_repeat() {
    let mut world = World::new(chap_settings());
    let (a, b) = (world.connect(0), world.connect(1));
    assert_ne!(
        challenge(&mut world, a, &names()),
        challenge(&mut world, b, &names())
    );
}

#[test]
fn discovery_has_its_own_accounts() {
    let mut world = World::new(chap_settings());
    let conn = world.connect(0);
    let names = format!("InitiatorName={HOST} SessionType=Discovery");
    let (identifier, bytes) = challenge(&mut world, conn, &names);
    let response = text::to_hex(&chap::response(identifier, b"findersecret", &bytes));
    let answer = world.login(conn, 0x83, &format!("CHAP_N=finder CHAP_R={response}"));
    assert_eq!(
        (status(&answer), answer.as_::<LoginResponse>().flags),
        (0, 0x83)
    );
    // No nexus: there are no logical units in a discovery session.
    world.quiet();
}

#[test]
fn discovery_proves_itself_with_a_secret_of_its_own() {
    let names = format!("InitiatorName={HOST} SessionType=Discovery");
    let mut world = World::new(chap_settings());
    let conn = world.connect(0);
    let (identifier, bytes) = challenge(&mut world, conn, &names);
    let response = text::to_hex(&chap::response(identifier, b"findersecret", &bytes));
    let ask = format!("CHAP_N=finder CHAP_R={response} CHAP_I=9 CHAP_C=0x010203");
    let answer = world.login(conn, 0x83, &ask);
    let expected = text::to_hex(&chap::response(9, b"portalsecret", &[1, 2, 3]));
    assert_eq!(answer.text(), format!("CHAP_N=portal CHAP_R={expected}"));
    assert_eq!(answer.as_::<LoginResponse>().flags, 0x83);

    // Without such a secret who asks for it is refused, and told why.
    let mut settings = chap_settings();
    settings.discovery_mutual = None;
    let mut world = World::new(settings);
    let conn = world.connect(0);
    let (identifier, bytes) = challenge(&mut world, conn, &names);
    let response = text::to_hex(&chap::response(identifier, b"findersecret", &bytes));
    let ask = format!("CHAP_N=finder CHAP_R={response} CHAP_I=9 CHAP_C=0x010203");
    let answer = world.login(conn, 0x83, &ask);
    refused(&mut world, &answer, 0x0201, "no secret for that");
}

#[test]
fn an_initiator_that_insists_on_chap_is_told_that_none_is_configured() {
    let mut world = World::new(settings());
    let conn = world.connect(0);
    let answer = world.login(conn, 0x81, &format!("{} AuthMethod=CHAP", names()));
    refused(&mut world, &answer, 0x0201, "no account is configured");
}
