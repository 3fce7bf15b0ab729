//! Sessions that end: by a successor of the same name, by the network, by configuration.

use super::harness::*;
use crate::interface::*;
use crate::pdu::*;
use alloc::format;

fn names() -> alloc::string::String {
    format!("InitiatorName={HOST} TargetName={TARGET} SessionType=Normal")
}

fn down(client: &Client) -> Output {
    Output::NexusDown {
        nexus: client.nexus,
        target: TargetId(1),
    }
}

fn busy(world: &mut World) -> (Client, TaskId) {
    let mut client = world.session(0, 1, "");
    let header = client.command(5, READ, 512);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    (client, task)
}

#[test]
fn a_successor_waits_until_the_last_task_of_the_old_session_is_over() {
    let mut world = World::new(settings());
    let (client, task) = busy(&mut world);
    let conn = world.connect(1);
    world.pdu(conn, &login_request(1, 0, 0x87), keys(&names()).as_bytes());
    assert_eq!(world.event(), Output::Close { conn: client.conn });
    assert_eq!(world.event(), Output::Abort { task });
    assert_eq!(world.endpoint.want(conn), Want::Wait);
    world.quiet();
    world.close(client.conn);
    world.quiet();
    world.dropped(task);
    assert_eq!(world.event(), down(&client));
    assert!(matches!(world.event(), Output::NexusUp { nexus, .. } if nexus != client.nexus));
    let answer = world.next();
    assert_eq!((answer.conn, status(&answer)), (conn, 0));
    assert_eq!(world.endpoint.want(conn), Want::Bytes(48));
    world.quiet();
}

#[test]
fn the_old_session_is_left_alone_by_other_names() {
    let mut world = World::new(settings());
    let (_, _) = busy(&mut world);
    world.session(1, 2, "");
    let conn = world.connect(2);
    let other = format!("InitiatorName={HOST}2 TargetName={TARGET}");
    assert_eq!(status(&world.login(conn, 0x87, &other)), 0);
    let conn = world.connect(3);
    let other = format!("InitiatorName={HOST} TargetName={OTHER}");
    assert_eq!(status(&world.login(conn, 0x87, &other)), 0);
    assert_eq!(world.endpoint.sessions().count(), 4);
}

#[test]
fn of_two_successors_the_last_one_stays() {
    let mut world = World::new(settings());
    let (client, task) = busy(&mut world);
    let (a, b) = (world.connect(1), world.connect(2));
    world.pdu(a, &login_request(1, 0, 0x87), keys(&names()).as_bytes());
    world.pdu(b, &login_request(1, 0, 0x87), keys(&names()).as_bytes());
    world.events.clear();
    world.dropped(task);
    assert_eq!(world.event(), down(&client));
    assert_eq!(
        world
            .endpoint
            .sessions()
            .map(|session| session.conn)
            .collect::<alloc::vec::Vec<_>>(),
        [b]
    );
}

#[test]
fn a_successor_that_leaves_again_is_forgotten() {
    let mut world = World::new(settings());
    let (client, task) = busy(&mut world);
    let conn = world.connect(1);
    world.pdu(conn, &login_request(1, 0, 0x87), keys(&names()).as_bytes());
    world.close(conn);
    world.events.clear();
    world.dropped(task);
    assert_eq!(world.event(), down(&client));
    world.quiet();
}

#[test]
fn a_connection_is_reinstated_with_its_session() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    let conn = world.connect(1);
    let answer = world.login_as(conn, 1, client.tsih, 0x87, &names());
    let header: LoginResponse = answer.as_();
    assert_eq!((status(&answer), header.tsih.get()), (0, client.tsih));
    assert_eq!(world.event(), Output::Close { conn: client.conn });
    assert_eq!(world.event(), down(&client));
}

#[test]
fn a_second_connection_is_refused() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    let conn = world.connect(1);
    let mut request = login_request(1, client.tsih, 0x87);
    request.cid = 10.into();
    world.pdu(conn, &request, keys(&names()).as_bytes());
    assert_eq!(status(&world.next()), 0x0206);
    let conn = world.connect(2);
    assert_eq!(
        status(&world.login_as(conn, 1, client.tsih + 1, 0x87, &names())),
        0x020a
    );
    let conn = world.connect(3);
    assert_eq!(
        status(&world.login_as(conn, 7, client.tsih, 0x87, &names())),
        0x020a
    );
    assert_eq!(world.endpoint.sessions().count(), 1);
}

#[test]
fn a_lost_connection_ends_the_session_when_its_tasks_have() {
    let mut world = World::new(settings());
    let (client, task) = busy(&mut world);
    world.close(client.conn);
    assert_eq!(world.event(), Output::Abort { task });
    world.quiet();
    world.respond(task, read(512));
    assert_eq!(world.event(), down(&client));
    world.quiet();
}

#[test]
fn sessions_of_a_target_that_is_gone_end() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    let mut fewer = settings();
    fewer.targets.remove(0);
    world.call(|e, now, out| e.configure(now, fewer, out));
    assert_eq!(world.event(), Output::Close { conn: client.conn });
    assert_eq!(world.event(), down(&client));
    let conn = world.connect(1);
    assert_eq!(status(&world.login(conn, 0x87, &names())), 0x0203);
}

#[test]
fn sessions_can_be_dropped_by_target() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    world.call(|e, now, out| e.drop_sessions(now, TargetId(2), out));
    world.quiet();
    world.call(|e, now, out| e.drop_sessions(now, TargetId(1), out));
    assert_eq!(world.event(), Output::Close { conn: client.conn });
    assert_eq!(world.event(), down(&client));
}

#[test]
fn a_successor_is_refused_if_the_target_went_away_meanwhile() {
    let mut world = World::new(settings());
    let (client, task) = busy(&mut world);
    let conn = world.connect(1);
    world.pdu(conn, &login_request(1, 0, 0x87), keys(&names()).as_bytes());
    let mut fewer = settings();
    fewer.targets.remove(0);
    world.call(|e, now, out| e.configure(now, fewer, out));
    world.events.clear();
    world.dropped(task);
    assert_eq!(world.event(), down(&client));
    assert_eq!(status(&world.next()), 0x0204);
    assert!(matches!(world.event(), Output::Note { .. }));
    assert_eq!(world.event(), Output::Close { conn });
}

#[test]
fn sessions_that_cannot_end_do_not_pile_up() {
    let mut settings = settings();
    settings.max_connections = 2;
    let mut world = World::new(settings);
    for isid in 0..4 {
        let mut client = world.session(0, isid, "");
        let header = client.command(5, READ, 512);
        world.pdu(client.conn, &header, &[]);
        world.close(client.conn);
        world.events.clear();
    }
    let conn = world.connect(0);
    assert_eq!(status(&world.login_as(conn, 9, 0, 0x87, &names())), 0x0302);
    world.close(conn);
    // One that replaces an old one may wait for it.
    let conn = world.connect(0);
    world.pdu(conn, &login_request(0, 0, 0x87), keys(&names()).as_bytes());
    assert_eq!(
        (world.endpoint.want(conn), world.sent.len()),
        (Want::Wait, 0)
    );
}
