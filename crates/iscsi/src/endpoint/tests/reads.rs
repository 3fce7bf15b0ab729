//! Data for the initiator: pieces, bursts, residuals, sense.

use super::harness::*;
use crate::interface::DataIn;
use crate::interface::*;
use crate::pdu::*;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

#[test]
fn a_read_is_one_data_in_with_its_status() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    let header = client.command(5, READ, 4096);
    world.pdu(client.conn, &header, &[]);
    let command = world.command();
    assert_eq!(
        (command.expected, command.reads, command.writes),
        (4096, true, false)
    );
    assert_eq!(
        (command.nexus, command.attribute, command.cdb[0]),
        (client.nexus, 1, 0x28)
    );
    world.buffers.insert(command.task, pattern(4096));
    world.respond(command.task, read(4096));
    let pdu = world.next();
    let header: crate::pdu::DataIn = pdu.as_();
    assert_eq!(
        (pdu.opcode(), header.flags, header.status),
        (opcode::DATA_IN, 0x81, 0)
    );
    assert_eq!(
        (header.task_tag.get(), header.transfer_tag.get()),
        (5, NO_TAG)
    );
    assert_eq!((header.exp_cmd_sn.get(), header.max_cmd_sn.get()), (2, 9));
    client.counts(header.stat_sn);
    assert_eq!(pdu.data, pattern(4096));
    world.quiet();
}

#[test]
fn a_long_read_is_cut_at_segments_and_bursts() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "MaxRecvDataSegmentLength=1024 MaxBurstLength=2560");
    let header = client.command(5, READ, 6000);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    world.buffers.insert(task, pattern(6000));
    world.respond(task, read(6000));
    let mut whole = Vec::new();
    let mut cuts = Vec::new();
    while let Some(pdu) = world.sent.pop_front() {
        let header: crate::pdu::DataIn = pdu.as_();
        assert_eq!(header.data_sn.get() as usize, cuts.len());
        assert_eq!(header.offset.get() as usize, whole.len());
        cuts.push((pdu.data.len(), header.flags));
        whole.extend(pdu.data);
    }
    let cut = |flags| (1024, flags);
    assert_eq!(
        cuts,
        [
            cut(0),
            cut(0),
            (512, 0x80),
            cut(0),
            cut(0),
            (512, 0x80),
            (880, 0x81)
        ]
    );
    assert_eq!(whole, pattern(6000));
}

#[test]
fn parameter_data_is_cut_the_same_way() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "MaxRecvDataSegmentLength=512 DataDigest=CRC32C");
    let header = client.command(5, READ, 700);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    world.respond(
        task,
        Response {
            data_in: DataIn::Bytes(pattern(700)),
            ..good()
        },
    );
    let (a, b) = (world.next(), world.next());
    assert_eq!([a.data, b.data].concat(), pattern(700));
    assert_eq!(b.header[1], 0x81);
}

#[test]
fn residuals_of_reads() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    for (expected, returned, flags, residual, sent) in [
        (4096, 4096, 0x81, 0, 4096),
        (10_000, 512, 0x83, 9488, 512),
        (200, 512, 0x85, 312, 200),
    ] {
        let header = client.command(5, READ, expected);
        world.pdu(client.conn, &header, &[]);
        let task = world.command().task;
        world.buffers.insert(task, pattern(returned as usize));
        world.respond(task, read(returned));
        let pdu = world.next();
        let header: crate::pdu::DataIn = pdu.as_();
        assert_eq!(
            (header.flags, header.residual.get(), pdu.data.len()),
            (flags, residual, sent)
        );
    }
    // Nothing fits: a response with the whole as overflow.
    for flags in [READ, FINAL] {
        let header = client.command(5, flags, 0);
        world.pdu(client.conn, &header, &[]);
        let task = world.command().task;
        world.respond(task, read(512));
        let header = response(&world.next());
        assert_eq!((header.flags, header.residual.get()), (0x84, 512));
    }
}

#[test]
fn an_error_comes_with_sense_and_without_data() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    let header = client.command(5, READ, 512);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    world.respond(
        task,
        Response {
            status: 2,
            sense: vec![0x70, 0, 5],
            ..good()
        },
    );
    let pdu = world.next();
    let header = response(&pdu);
    assert_eq!(
        (header.flags, header.status, header.residual.get()),
        (0x82, 2, 512)
    );
    assert_eq!(pdu.data, [0, 3, 0x70, 0, 5]);
    client.counts(header.stat_sn);
}

#[test]
fn many_tasks_are_answered_in_any_order() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    for round in 0..200 {
        let mut tasks: Vec<_> = (0..8)
            .map(|tag| {
                let header = client.command(tag, READ, 512);
                world.pdu(client.conn, &header, &[]);
                (tag, world.command().task)
            })
            .collect();
        tasks.rotate_left(round % 8);
        for (tag, task) in tasks {
            world.buffers.insert(task, vec![tag as u8; 512]);
            world.respond(task, read(512));
            let pdu = world.next();
            assert_eq!(pdu.as_::<crate::pdu::DataIn>().task_tag.get(), tag);
            assert_eq!(pdu.data, vec![tag as u8; 512]);
            client.counts(pdu.as_::<crate::pdu::DataIn>().stat_sn);
        }
    }
    assert!(format!("{:?}", world.endpoint.want(client.conn)).contains("48"));
}
