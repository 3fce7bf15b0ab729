//! Time: logins that take too long, initiators that fall silent, a planned stop.

use super::harness::*;
use crate::interface::*;
use crate::pdu::*;
use alloc::format;
use zerocopy::FromZeros;

#[test]
fn a_slow_login_is_closed_without_a_word() {
    let mut world = World::new(settings());
    let conn = world.connect(0);
    world.feed(conn, &[0x43; 47]);
    world.wait(14);
    world.quiet();
    world.wait(2);
    assert_eq!(world.event(), Output::Close { conn });
    world.quiet();
    world.close(conn);
    assert_eq!(world.endpoint.next_deadline(), None);
}

#[test]
fn a_silent_initiator_is_asked_and_then_left() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    world.wait(5);
    let ping = world.next();
    let header: NopIn = ping.as_();
    assert_eq!(
        (ping.opcode(), header.task_tag.get()),
        (opcode::NOP_IN, NO_TAG)
    );
    assert_ne!(header.transfer_tag.get(), NO_TAG);
    assert_eq!(header.stat_sn.get(), client.stat_sn.wrapping_add(1));
    world.wait(4);
    world.quiet();
    world.wait(2);
    assert!(matches!(world.event(), Output::Note { .. }));
    assert_eq!(world.event(), Output::Close { conn: client.conn });
    assert!(matches!(world.event(), Output::NexusDown { .. }));
}

#[test]
fn an_answered_ping_is_no_reason_to_leave() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    for _ in 0..20 {
        world.wait(6);
        let header: NopIn = world.next().as_();
        let mut answer = NopOut::new_zeroed();
        answer.opcode = opcode::NOP_OUT | IMMEDIATE;
        answer.flags = FINAL;
        answer.task_tag = NO_TAG.into();
        answer.transfer_tag = header.transfer_tag;
        answer.cmd_sn = 1.into();
        world.pdu(client.conn, &answer, &[]);
        assert!(matches!(world.event(), Output::Alive { .. }));
        world.quiet();
    }
}

#[test]
fn a_busy_initiator_is_not_asked() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    for tag in 0..20 {
        world.wait(3);
        let header = client.command(tag, FINAL, 0);
        world.pdu(client.conn, &header, &[]);
        let task = world.command().task;
        world.respond(task, good());
        world.next();
        world.quiet();
    }
}

#[test]
fn a_planned_stop_asks_first_and_closes_then() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    let half = world.connect(1);
    let by = world.now + Time::from_secs(10);
    world.call(|e, now, out| e.logout_all(now, by, out));
    assert_eq!(world.event(), Output::Close { conn: half });
    let message = world.next();
    let header: AsyncMessage = message.as_();
    assert_eq!(message.opcode(), opcode::ASYNC_MESSAGE);
    assert_eq!(
        (header.event, header.parameter3.get()),
        (async_event::LOGOUT_REQUEST, 10)
    );
    world.quiet();
    let late = world.connect(2);
    assert!(matches!(world.event(), Output::Note { .. }));
    assert_eq!(world.event(), Output::Close { conn: late });
    world.wait(4);
    world.quiet();
    world.now = by;
    world.call(|e, now, out| e.timer(now, out));
    assert!(world.events.contains(&Output::Close { conn: client.conn }));
    assert_eq!(world.endpoint.sessions().count(), 0);
}

#[test]
fn waiting_for_an_old_session_has_an_end() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    let header = client.command(5, READ, 512);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    let conn = world.connect(1);
    let names = format!("InitiatorName={HOST} TargetName={TARGET}");
    world.pdu(conn, &login_request(1, 0, 0x87), keys(&names).as_bytes());
    world.events.clear();
    world.wait(16);
    let Output::Note { text } = world.event() else {
        panic!()
    };
    assert!(text.contains(HOST), "{text}");
    assert_eq!(world.event(), Output::Close { conn });
    world.dropped(task);
    assert!(matches!(world.event(), Output::NexusDown { .. }));
    world.quiet();
}

#[test]
fn new_settings_do_not_end_logins_and_are_followed_at_once() {
    let mut settings = settings();
    settings.nop_interval_s = 0;
    let mut world = World::new(settings.clone());
    world.session(0, 1, "");
    world.wait(1000);
    world.quiet();
    let conn = world.connect(1);
    settings.nop_interval_s = 5;
    world.call(|e, now, out| e.configure(now, settings, out));
    world.wait(0);
    assert_eq!(world.next().opcode(), opcode::NOP_IN);
    assert_ne!(world.endpoint.want(conn), Want::Wait);
    world.quiet();
}
