//! Task management: who is asked to end, and when the answer comes.

use super::harness::*;
use crate::interface::*;
use crate::pdu::*;
use alloc::vec::Vec;

fn managed(pdu: &Pdu) -> (u32, u8) {
    assert_eq!(pdu.opcode(), opcode::TASK_MANAGEMENT_RESPONSE, "{pdu:x?}");
    let header: TaskManagementResponse = pdu.as_();
    (header.task_tag.get(), header.response)
}

/// A session with a command in the engine.
fn busy(world: &mut World, slot: u32, lun: u8) -> (Client, TaskId) {
    let mut client = world.session(slot, slot as u8, "");
    let task = another(world, &mut client, 5, lun);
    (client, task)
}

fn another(world: &mut World, client: &mut Client, tag: u32, lun: u8) -> TaskId {
    let mut header = client.command(tag, READ, 512);
    header.lun[1] = lun;
    world.pdu(client.conn, &header, &[]);
    world.command().task
}

#[test]
fn an_aborted_task_is_not_answered_and_the_abort_is_when_it_is_over() {
    let mut world = World::new(settings());
    let (client, task) = busy(&mut world, 0, 0);
    let mut abort = client.manage(function::ABORT_TASK, 50);
    abort.ref_task_tag = 5.into();
    world.pdu(client.conn, &abort, &[]);
    assert_eq!(world.event(), Output::Abort { task });
    world.quiet();
    world.dropped(task);
    assert_eq!(managed(&world.next()), (50, function_response::COMPLETE));
    world.quiet();
}

#[test]
fn an_abort_that_comes_too_late_swallows_the_response() {
    let mut world = World::new(settings());
    let (client, task) = busy(&mut world, 0, 0);
    let mut abort = client.manage(function::ABORT_TASK, 50);
    abort.ref_task_tag = 5.into();
    world.pdu(client.conn, &abort, &[]);
    world.event();
    world.respond(task, read(512));
    assert_eq!(managed(&world.next()), (50, function_response::COMPLETE));
    world.quiet();
    // The place in the window is free again.
    let mut nop = zerocopy::FromZeros::new_zeroed();
    let header: &mut NopOut = &mut nop;
    header.opcode = opcode::NOP_OUT | IMMEDIATE;
    header.flags = FINAL;
    world.pdu(client.conn, &nop, &[]);
    assert_eq!(world.next().as_::<NopIn>().max_cmd_sn.get(), 9);
}

#[test]
fn a_task_that_is_not_there_cannot_be_aborted() {
    let mut world = World::new(settings());
    let (client, _) = busy(&mut world, 0, 0);
    let mut abort = client.manage(function::ABORT_TASK, 50);
    abort.ref_task_tag = 6.into();
    world.pdu(client.conn, &abort, &[]);
    assert_eq!(managed(&world.next()), (50, function_response::NO_TASK));
    abort.ref_task_tag = 5.into();
    abort.lun[1] = 3;
    world.pdu(client.conn, &abort, &[]);
    assert_eq!(managed(&world.next()), (50, function_response::NO_LUN));
}

#[test]
fn a_command_that_was_never_sent_counts_as_received_once_aborted() {
    let mut world = World::new(settings());
    let (mut client, _) = busy(&mut world, 0, 0);
    client.cmd_sn = 3;
    let mut abort = client.manage(function::ABORT_TASK, 50);
    abort.ref_task_tag = 6.into();
    abort.ref_cmd_sn = 2.into();
    world.pdu(client.conn, &abort, &[]);
    let pdu = world.next();
    assert_eq!(managed(&pdu), (50, function_response::COMPLETE));
    assert_eq!(pdu.as_::<TaskManagementResponse>().exp_cmd_sn.get(), 3);
    another(&mut world, &mut client, 7, 0);
}

#[test]
fn abort_task_set_ends_ones_own_tasks_on_one_unit() {
    let mut world = World::new(settings());
    let (mut client, task) = busy(&mut world, 0, 0);
    let (_, _) = busy(&mut world, 1, 0);
    another(&mut world, &mut client, 6, 1);
    world.pdu(
        client.conn,
        &client.manage(function::ABORT_TASK_SET, 50),
        &[],
    );
    assert_eq!(world.event(), Output::Abort { task });
    let reset = Reset::TaskSet { others: false };
    let target = TargetId(1);
    assert_eq!(
        world.event(),
        Output::Reset {
            nexus: client.nexus,
            target,
            lun: [0; 8],
            reset
        }
    );
    world.quiet();
    world.dropped(task);
    assert_eq!(managed(&world.next()), (50, function_response::COMPLETE));
}

#[test]
fn resets_end_the_tasks_of_all_sessions_before_they_are_answered() {
    for (function, reset, on_unit_1) in [
        (
            function::CLEAR_TASK_SET,
            Reset::TaskSet { others: true },
            false,
        ),
        (function::LOGICAL_UNIT_RESET, Reset::LogicalUnit, false),
        (function::TARGET_WARM_RESET, Reset::TargetWarm, true),
    ] {
        let mut world = World::new(settings());
        let (mut client, mine) = busy(&mut world, 0, 0);
        let (_, theirs) = busy(&mut world, 1, 0);
        let elsewhere = another(&mut world, &mut client, 6, 1);
        world.pdu(client.conn, &client.manage(function, 50), &[]);
        let mut ended = alloc::vec![mine, theirs];
        if on_unit_1 {
            ended.push(elsewhere);
        }
        let mut asked: Vec<_> = ended
            .iter()
            .map(|_| match world.event() {
                Output::Abort { task } => task,
                other => panic!("not {other:?}"),
            })
            .collect();
        asked.sort();
        ended.sort();
        assert_eq!(asked, ended);
        assert!(matches!(world.event(), Output::Reset { reset: told, .. } if told == reset));
        let last = ended.pop().unwrap();
        for task in ended {
            world.dropped(task);
            world.quiet();
        }
        world.dropped(last);
        assert_eq!(managed(&world.next()), (50, function_response::COMPLETE));
        world.quiet();
    }
}

#[test]
fn a_cold_reset_ends_all_sessions_of_the_target() {
    let mut world = World::new(settings());
    let (client, task) = busy(&mut world, 0, 0);
    let other = world.session(1, 1, "");
    world.pdu(
        client.conn,
        &client.manage(function::TARGET_COLD_RESET, 50),
        &[],
    );
    assert_eq!(world.event(), Output::Abort { task });
    assert!(matches!(
        world.event(),
        Output::Reset {
            reset: Reset::TargetCold,
            ..
        }
    ));
    world.dropped(task);
    assert_eq!(managed(&world.next()), (50, function_response::COMPLETE));
    for session in [client, other] {
        assert_eq!(world.event(), Output::Close { conn: session.conn });
        assert_eq!(
            world.event(),
            Output::NexusDown {
                nexus: session.nexus,
                target: TargetId(1)
            }
        );
    }
    assert_eq!(world.endpoint.sessions().count(), 0);
}

#[test]
fn what_we_do_not_know_is_not_supported() {
    let mut world = World::new(settings());
    let client = world.session(0, 1, "");
    for (function, response) in [(3, 5), (8, 4), (9, 5), (11, 5), (127, 5)] {
        world.pdu(client.conn, &client.manage(function, 50), &[]);
        assert_eq!(managed(&world.next()), (50, response));
    }
}

#[test]
fn an_abort_outdoes_a_fault() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "ImmediateData=No");
    let header = client.command(5, WRITE, 512);
    world.pdu(client.conn, &header, &pattern(512));
    let task = world.command().task;
    assert_eq!(world.event(), Output::Abort { task });
    let mut abort = client.manage(function::ABORT_TASK, 50);
    abort.ref_task_tag = 5.into();
    world.pdu(client.conn, &abort, &[]);
    world.quiet();
    world.dropped(task);
    assert_eq!(managed(&world.next()), (50, function_response::COMPLETE));
    world.quiet();
}

#[test]
fn a_task_is_not_asked_back_while_the_driver_writes_into_its_buffer() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 0, "");
    let other = world.session(1, 1, "");
    let header = client.command(5, WRITE, 4096);
    let bytes = world.encode(client.conn, &header, &pattern(4096));
    world.feed(client.conn, &bytes[..1000]);
    let task = world.command().task;
    world.expect_data(task, 4096);
    let want = world.endpoint.want(client.conn);
    assert_eq!(
        want,
        Want::Data {
            task,
            offset: 0,
            len: 4096
        }
    );
    world.pdu(
        other.conn,
        &other.manage(function::LOGICAL_UNIT_RESET, 50),
        &[],
    );
    assert!(matches!(world.event(), Output::Reset { .. }));
    world.quiet();
    assert_eq!(world.endpoint.want(client.conn), want);
    world.feed(client.conn, &bytes[1000..]);
    assert_eq!(world.event(), Output::Abort { task });
    world.dropped(task);
    assert_eq!(managed(&world.next()), (50, function_response::COMPLETE));
}

#[test]
fn data_that_never_comes_costs_the_connection() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 0, "");
    let other = world.session(1, 1, "");
    let header = client.command(5, WRITE, 4096);
    let bytes = world.encode(client.conn, &header, &pattern(4096));
    world.feed(client.conn, &bytes[..1000]);
    let task = world.command().task;
    world.expect_data(task, 4096);
    world.pdu(
        other.conn,
        &other.manage(function::LOGICAL_UNIT_RESET, 50),
        &[],
    );
    world.events.clear();
    world.wait(6);
    assert!(world.events.contains(&Output::Close { conn: client.conn }));
    assert!(!world.events.contains(&Output::Abort { task }));
    world.events.clear();
    world.sent.clear();
    world.close(client.conn);
    assert_eq!(world.event(), Output::Abort { task });
    world.dropped(task);
    assert_eq!(managed(&world.next()), (50, function_response::COMPLETE));
    assert!(matches!(world.event(), Output::NexusDown { .. }));
}

#[test]
fn resets_do_not_pile_up_behind_a_task_that_hangs() {
    let mut world = World::new(settings());
    let (client, task) = busy(&mut world, 0, 0);
    let reset = client.manage(function::LOGICAL_UNIT_RESET, 50);
    for _ in 0..8 {
        world.pdu(client.conn, &reset, &[]);
        assert!(world.sent.is_empty());
    }
    world.pdu(client.conn, &reset, &[]);
    assert_eq!(world.next().header[2], reject_reason::TOO_MANY_IMMEDIATE);
    world.events.clear();
    world.dropped(task);
    assert_eq!(world.sent.len(), 8);
}
