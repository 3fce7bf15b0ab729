//! NOP, text, discovery, logout, Reject.

use super::harness::*;
use crate::interface::*;
use crate::pdu::*;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use zerocopy::FromZeros;

fn discovery(world: &mut World, ask: &str) -> ConnId {
    let conn = world.connect(0);
    let answer = world.login(
        conn,
        0x87,
        &format!("InitiatorName={HOST} SessionType=Discovery {ask}"),
    );
    assert_eq!(status(&answer), 0);
    world.quiet();
    conn
}

fn text_request(tag: u32, flags: u8, cmd_sn: u32) -> TextRequest {
    let mut header = TextRequest::new_zeroed();
    header.opcode = opcode::TEXT;
    header.flags = flags;
    header.task_tag = 3.into();
    header.transfer_tag = tag.into();
    header.cmd_sn = cmd_sn.into();
    header
}

fn nop(tag: u32, transfer_tag: u32) -> NopOut {
    let mut header = NopOut::new_zeroed();
    header.opcode = opcode::NOP_OUT | IMMEDIATE;
    header.flags = FINAL;
    header.task_tag = tag.into();
    header.transfer_tag = transfer_tag.into();
    header.cmd_sn = 1.into();
    header
}

fn logout(reason: u8, cid: u16, cmd_sn: u32) -> LogoutRequest {
    let mut header = LogoutRequest::new_zeroed();
    header.opcode = opcode::LOGOUT;
    header.flags = FINAL | reason;
    header.task_tag = 9.into();
    header.cid = cid.into();
    header.cmd_sn = cmd_sn.into();
    header
}

#[test]
fn discovery_lists_all_portals_of_both_nodes() {
    let mut world = World::new(settings());
    let conn = discovery(&mut world, "");
    let portals = "TargetAddress=10.0.0.1:3260,1 TargetAddress=[fd00::2]:3260,2";
    world.pdu(conn, &text_request(NO_TAG, FINAL, 1), b"SendTargets=All\0");
    let answer = world.next();
    assert_eq!(
        answer.text(),
        format!("TargetName={TARGET} {portals} TargetName={OTHER} {portals}")
    );
    assert_eq!(answer.as_::<TextResponse>().flags, FINAL);
    assert_eq!(answer.as_::<TextResponse>().exp_cmd_sn.get(), 2);
    world.pdu(
        conn,
        &text_request(NO_TAG, FINAL, 2),
        format!("SendTargets={OTHER}\0").as_bytes(),
    );
    assert_eq!(world.next().text(), format!("TargetName={OTHER} {portals}"));
    world.pdu(
        conn,
        &text_request(NO_TAG, FINAL, 3),
        b"SendTargets=iqn.none\0",
    );
    assert_eq!(world.next().text(), "");
}

#[test]
fn discovery_hides_what_the_initiator_may_not_have() {
    let mut settings = settings();
    settings.targets[0].allow = vec![String::from("iqn.someone.else")];
    let mut world = World::new(settings);
    let conn = discovery(&mut world, "");
    world.pdu(conn, &text_request(NO_TAG, FINAL, 1), b"SendTargets=All\0");
    let text = world.next().text();
    assert!(!text.contains(TARGET) && text.contains(OTHER), "{text}");
}

#[test]
fn a_long_list_comes_in_pieces() {
    let mut settings = settings();
    settings.targets = (0..50)
        .map(|i| target(i, &format!("{TARGET}{i}")))
        .collect();
    let mut world = World::new(settings);
    let conn = discovery(&mut world, "MaxRecvDataSegmentLength=512");
    world.pdu(conn, &text_request(NO_TAG, FINAL, 1), b"SendTargets=All\0");
    let mut whole = Vec::new();
    let mut cmd_sn = 2;
    loop {
        let piece = world.next();
        assert!(piece.data.len() <= 512);
        whole.extend_from_slice(&piece.data);
        let header: TextResponse = piece.as_();
        if header.flags == FINAL {
            assert_eq!(header.transfer_tag.get(), NO_TAG);
            break;
        }
        assert_eq!(header.flags, text_flags::CONTINUE);
        world.pdu(
            conn,
            &text_request(header.transfer_tag.get(), FINAL, cmd_sn),
            b"",
        );
        cmd_sn += 1;
    }
    let text = String::from_utf8(whole).unwrap();
    assert_eq!(text.matches("TargetName=").count(), 50);
    assert_eq!(text.matches("TargetAddress=").count(), 100);
}

#[test]
fn a_second_question_before_the_whole_answer_is_refused() {
    let mut world = World::new(settings());
    let conn = discovery(&mut world, "MaxRecvDataSegmentLength=512");
    let mut more = settings();
    more.targets = (0..50)
        .map(|i| target(i, &format!("{TARGET}{i}")))
        .collect();
    world.call(|e, now, out| e.configure(now, more, out));
    world.pdu(conn, &text_request(NO_TAG, FINAL, 1), b"SendTargets=All\0");
    let tag = world.next().as_::<TextResponse>().transfer_tag.get();
    world.pdu(conn, &text_request(tag, FINAL, 2), b"SendTargets=All\0");
    assert_eq!(world.next().header[2], reject_reason::PROTOCOL);
}

#[test]
fn a_request_may_come_in_pieces_too() {
    let mut world = World::new(settings());
    let conn = discovery(&mut world, "");
    world.pdu(
        conn,
        &text_request(NO_TAG, text_flags::CONTINUE, 1),
        b"SendTar",
    );
    let answer = world.next();
    assert_eq!(
        (answer.as_::<TextResponse>().flags, answer.data.len()),
        (0, 0)
    );
    let tag = answer.as_::<TextResponse>().transfer_tag.get();
    assert_ne!(tag, NO_TAG);
    world.pdu(conn, &text_request(tag, FINAL, 2), b"gets=All\0");
    assert!(world.next().text().contains(OTHER));
    world.pdu(conn, &text_request(tag, FINAL, 3), b"");
    assert_eq!(world.next().opcode(), opcode::REJECT);
}

#[test]
fn a_normal_session_sees_its_own_target_only() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    let mut cmd_sn = 1;
    for value in ["All", "", TARGET] {
        world.pdu(
            client.conn,
            &text_request(NO_TAG, FINAL, cmd_sn),
            format!("SendTargets={value}\0").as_bytes(),
        );
        let text = world.next().text();
        assert!(
            text.starts_with(&format!("TargetName={TARGET} TargetAddress=")),
            "{text}"
        );
        assert!(!text.contains(OTHER));
        cmd_sn += 1;
    }
    for bad in [
        "SendTargetsPlease=All",
        "SendTargets=Alle",
        "sendtargets=All",
        "nonsense",
    ] {
        world.pdu(
            client.conn,
            &text_request(NO_TAG, FINAL, cmd_sn),
            format!("{bad}\0").as_bytes(),
        );
        assert_eq!(world.next().opcode(), opcode::REJECT, "{bad}");
        cmd_sn += 1;
    }
}

#[test]
fn what_a_login_settled_stays_but_the_segment_length_may_change() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    world.pdu(
        client.conn,
        &text_request(NO_TAG, FINAL, 1),
        b"MaxRecvDataSegmentLength=512\0MaxBurstLength=512\0X-what=1\0",
    );
    assert_eq!(
        world.next().text(),
        "MaxBurstLength=Reject X-what=NotUnderstood"
    );
    client.cmd_sn = 2;
    let header = client.command(5, READ, 1024);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    world.buffers.insert(task, pattern(1024));
    world.respond(task, read(1024));
    assert_eq!(world.sent.len(), 2);
}

#[test]
fn a_nop_is_echoed_up_to_what_the_initiator_takes() {
    let mut world = World::new(settings());
    let mut client = world.session(
        0,
        1,
        "MaxRecvDataSegmentLength=512 DataDigest=CRC32C HeaderDigest=CRC32C",
    );
    world.pdu(client.conn, &nop(8, NO_TAG), &pattern(601));
    let answer = world.next();
    let header: NopIn = answer.as_();
    assert_eq!(
        (header.task_tag.get(), header.transfer_tag.get()),
        (8, NO_TAG)
    );
    assert_eq!(answer.data, pattern(512));
    client.counts(header.stat_sn);
    assert_eq!(header.exp_cmd_sn.get(), 1);
    // One that wants no answer gets none.
    world.pdu(client.conn, &nop(NO_TAG, NO_TAG), &[]);
    world.quiet();
    // Not immediate: it uses up a number.
    let mut numbered = nop(8, NO_TAG);
    numbered.opcode = opcode::NOP_OUT;
    world.pdu(client.conn, &numbered, &[]);
    assert_eq!(world.next().as_::<NopIn>().exp_cmd_sn.get(), 2);
    world.pdu(client.conn, &numbered, &[]);
    world.quiet();
}

#[test]
fn a_nop_longer_than_we_keep_is_rejected() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    world.pdu(client.conn, &nop(8, NO_TAG), &pattern(70_000));
    assert_eq!(world.next().header[2], reject_reason::LONG_OPERATION);
    assert_eq!(world.unread(client.conn), 0);
    world.pdu(client.conn, &nop(8, NO_TAG), &[]);
    assert_eq!(world.next().opcode(), opcode::NOP_IN);
}

#[test]
fn a_logout_ends_the_tasks_and_then_the_session() {
    for (reason, cid) in [
        (logout_reason::CLOSE_SESSION, 0),
        (logout_reason::CLOSE_CONNECTION, 9),
    ] {
        let mut world = World::new(settings());
        let mut client = world.session(0, 1, "");
        let header = client.command(5, READ, 512);
        world.pdu(client.conn, &header, &[]);
        let task = world.command().task;
        world.pdu(client.conn, &logout(reason, cid, 2), &[]);
        assert_eq!(world.event(), Output::Abort { task });
        world.quiet();
        let header = client.command(6, READ, 512);
        let mut header = header;
        header.cmd_sn = 3.into();
        world.pdu(client.conn, &header, &[]);
        assert_eq!(world.next().header[2], reject_reason::WAITING_FOR_LOGOUT);
        world.dropped(task);
        let answer = world.next();
        let header: LogoutResponse = answer.as_();
        assert_eq!(
            (answer.opcode(), header.response),
            (opcode::LOGOUT_RESPONSE, 0)
        );
        assert_eq!(header.exp_cmd_sn.get(), 4);
        assert_eq!(world.event(), Output::Close { conn: client.conn });
        assert_eq!(
            world.event(),
            Output::NexusDown {
                nexus: client.nexus,
                target: TargetId(1)
            }
        );
        world.close(client.conn);
        world.quiet();
    }
}

#[test]
fn logouts_that_cannot_be_are_said_so() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    world.pdu(
        client.conn,
        &logout(logout_reason::CLOSE_CONNECTION, 8, 1),
        &[],
    );
    assert_eq!(world.next().as_::<LogoutResponse>().response, 1);
    world.pdu(
        client.conn,
        &logout(logout_reason::REMOVE_FOR_RECOVERY, 9, 2),
        &[],
    );
    assert_eq!(world.next().as_::<LogoutResponse>().response, 2);
    world.pdu(client.conn, &logout(77, 9, 3), &[]);
    assert_eq!(world.next().header[2], reject_reason::INVALID_FIELD);
    world.quiet();
}

#[test]
fn a_discovery_session_takes_no_commands() {
    let mut world = World::new(settings());
    let conn = discovery(&mut world, "");
    let mut header = ScsiCommand::new_zeroed();
    header.opcode = opcode::SCSI_COMMAND;
    header.flags = WRITE;
    header.expected_length = 512.into();
    header.cmd_sn = 1.into();
    world.pdu(conn, &header, &pattern(512));
    assert_eq!(world.next().header[2], reject_reason::PROTOCOL);
    let mut header = TaskManagementRequest::new_zeroed();
    header.opcode = opcode::TASK_MANAGEMENT | IMMEDIATE;
    header.flags = FINAL | function::LOGICAL_UNIT_RESET;
    world.pdu(conn, &header, &[]);
    assert_eq!(world.next().header[2], reject_reason::PROTOCOL);
    world.pdu(conn, &nop(8, NO_TAG), &[]);
    assert_eq!(world.next().opcode(), opcode::NOP_IN);
    world.pdu(conn, &logout(0, 0, 2), &[]);
    assert_eq!(world.next().opcode(), opcode::LOGOUT_RESPONSE);
    assert_eq!(world.event(), Output::Close { conn });
    world.quiet();
}

#[test]
fn what_we_do_not_know_is_rejected_with_its_header() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    for (code, reason) in [
        (0x1c, reject_reason::NOT_SUPPORTED),
        (opcode::SNACK, reject_reason::SNACK),
        (opcode::LOGIN, reject_reason::PROTOCOL),
        (opcode::DATA_IN, reject_reason::NOT_SUPPORTED),
    ] {
        let mut header = nop(8, NO_TAG);
        header.opcode = code | IMMEDIATE;
        world.pdu(client.conn, &header, &pattern(9));
        let answer = world.next();
        assert_eq!(
            (answer.opcode(), answer.header[2]),
            (opcode::REJECT, reason)
        );
        assert_eq!(answer.data[..4], [code | IMMEDIATE, FINAL, 0, 0]);
        assert_eq!(world.unread(client.conn), 0);
    }
}
