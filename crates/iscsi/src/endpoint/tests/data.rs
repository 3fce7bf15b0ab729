//! Reads and writes: pieces, bursts, residuals, digests, numbers.

use super::harness::*;
use crate::digest::crc32c;
use crate::interface::DataIn;
use crate::interface::*;
use crate::pdu::*;
use crate::session::MAX_IMMEDIATE;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

fn response(pdu: &Pdu) -> ScsiResponse {
    assert_eq!(pdu.opcode(), opcode::SCSI_RESPONSE, "{pdu:x?}");
    pdu.as_()
}

fn r2t(pdu: &Pdu) -> R2t {
    assert_eq!(pdu.opcode(), opcode::R2T, "{pdu:x?}");
    pdu.as_()
}

fn sense_code(pdu: &Pdu) -> [u8; 3] {
    assert_eq!(response(pdu).status, 2);
    assert_eq!(pdu.data[..2], [0, 18]);
    [pdu.data[2 + 2], pdu.data[2 + 12], pdu.data[2 + 13]]
}

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
fn a_write_with_all_its_data_immediate() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    let header = client.command(5, WRITE, 4096);
    world.pdu(client.conn, &header, &pattern(4096));
    let command = world.command();
    // The engine has no buffer yet: the socket waits.
    assert_eq!(world.endpoint.want(client.conn), Want::Wait);
    world.expect_data(command.task, 4096);
    assert_eq!(
        world.event(),
        Output::DataIn {
            task: command.task,
            crc: crc32c(&pattern(4096))
        }
    );
    assert_eq!(world.buffers[&command.task], pattern(4096));
    world.quiet();
    world.respond(command.task, wrote(4096));
    let header = response(&world.next());
    assert_eq!(
        (header.flags, header.status, header.residual.get()),
        (0x80, 0, 0)
    );
}

#[test]
fn immediate_then_solicited_data_with_two_bursts_outstanding() {
    let mut world = World::new(settings());
    let mut client = world.session(
        0,
        1,
        "MaxOutstandingR2T=2 MaxBurstLength=1024 InitialR2T=Yes HeaderDigest=CRC32C DataDigest=CRC32C",
    );
    let bytes = pattern(3001);
    let header = client.command(5, WRITE, 3001);
    world.pdu(client.conn, &header, &bytes[..501]);
    let task = world.command().task;
    world.expect_data(task, 3001);
    let (first, second) = (r2t(&world.next()), r2t(&world.next()));
    assert_eq!(
        (
            first.offset.get(),
            first.desired_length.get(),
            first.r2t_sn.get()
        ),
        (501, 1024, 0)
    );
    assert_eq!(
        (
            second.offset.get(),
            second.desired_length.get(),
            second.r2t_sn.get()
        ),
        (1525, 1024, 1)
    );
    assert_ne!(first.transfer_tag.get(), second.transfer_tag.get());
    world.quiet();
    let (a, b) = (first.transfer_tag.get(), second.transfer_tag.get());
    world.pdu(
        client.conn,
        &data_out(5, a, 0, 501, false),
        &bytes[501..1001],
    );
    world.pdu(
        client.conn,
        &data_out(5, a, 1, 1001, true),
        &bytes[1001..1525],
    );
    let third = r2t(&world.next());
    assert_eq!(
        (third.offset.get(), third.desired_length.get()),
        (2549, 452)
    );
    world.pdu(
        client.conn,
        &data_out(5, b, 0, 1525, true),
        &bytes[1525..2549],
    );
    world.quiet();
    world.pdu(
        client.conn,
        &data_out(5, third.transfer_tag.get(), 0, 2549, true),
        &bytes[2549..],
    );
    assert_eq!(
        world.event(),
        Output::DataIn {
            task,
            crc: crc32c(&bytes)
        }
    );
    assert_eq!(world.buffers[&task], bytes);
    world.respond(task, wrote(3001));
    assert_eq!(response(&world.next()).exp_data_sn.get(), 3);
}

#[test]
fn unsolicited_data_then_an_r2t_for_the_rest() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "InitialR2T=No FirstBurstLength=1024");
    let bytes = pattern(2048);
    let header = client.command(5, command_flags::WRITE, 2048);
    world.pdu(client.conn, &header, &bytes[..512]);
    let task = world.command().task;
    world.expect_data(task, 2048);
    world.quiet();
    world.pdu(
        client.conn,
        &data_out(5, NO_TAG, 0, 512, true),
        &bytes[512..1024],
    );
    let ask = r2t(&world.next());
    assert_eq!((ask.offset.get(), ask.desired_length.get()), (1024, 1024));
    world.pdu(
        client.conn,
        &data_out(5, ask.transfer_tag.get(), 0, 1024, true),
        &bytes[1024..],
    );
    assert_eq!(
        world.event(),
        Output::DataIn {
            task,
            crc: crc32c(&bytes)
        }
    );
}

#[test]
fn unsolicited_data_waits_for_the_buffer() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "InitialR2T=No");
    let header = client.command(5, command_flags::WRITE, 512);
    world.pdu(client.conn, &header, &[]);
    world.pdu(client.conn, &data_out(5, NO_TAG, 0, 0, true), &pattern(512));
    assert_eq!(world.endpoint.want(client.conn), Want::Wait);
    let task = world.command().task;
    world.expect_data(task, 512);
    assert_eq!(
        world.event(),
        Output::DataIn {
            task,
            crc: crc32c(&pattern(512))
        }
    );
}

#[test]
fn residuals_of_writes() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    // The CDB takes less than the initiator sends.
    let header = client.command(5, WRITE, 1000);
    world.pdu(client.conn, &header, &pattern(1000));
    let task = world.command().task;
    world.expect_data(task, 512);
    assert_eq!(
        world.event(),
        Output::DataIn {
            task,
            crc: crc32c(&pattern(512))
        }
    );
    world.respond(task, wrote(512));
    let header = response(&world.next());
    assert_eq!((header.flags, header.residual.get()), (0x82, 488));
    // It takes more.
    let header = client.command(6, WRITE, 512);
    world.pdu(client.conn, &header, &pattern(512));
    let task = world.command().task;
    world.expect_data(task, 1024);
    assert_eq!(
        world.event(),
        Output::DataIn {
            task,
            crc: crc32c(&pattern(512))
        }
    );
    world.respond(task, wrote(1024));
    let header = response(&world.next());
    assert_eq!((header.flags, header.residual.get()), (0x84, 512));
    // It wants data, and none are announced.
    let header = client.command(7, FINAL, 0);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    world.expect_data(task, 512);
    assert_eq!(world.event(), Output::DataIn { task, crc: 0 });
    world.respond(task, wrote(512));
    let header = response(&world.next());
    assert_eq!((header.flags, header.residual.get()), (0x84, 512));
}

#[test]
fn a_refused_write_passes_its_data_over() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "InitialR2T=No FirstBurstLength=1024");
    let header = client.command(5, command_flags::WRITE, 1024);
    world.pdu(client.conn, &header, &pattern(512));
    let task = world.command().task;
    world.respond(
        task,
        Response {
            status: 2,
            sense: vec![0x70],
            ..good()
        },
    );
    // The initiator still owes 512 bytes; the response waits for them.
    assert_eq!((world.unread(client.conn), world.sent.len()), (0, 0));
    world.pdu(
        client.conn,
        &data_out(5, NO_TAG, 0, 512, true),
        &pattern(512),
    );
    assert_eq!(response(&world.next()).status, 2);
    let header = client.command(6, FINAL, 0);
    world.pdu(client.conn, &header, &[]);
    world.command();
}

#[test]
fn a_bad_data_sn_ends_the_command_and_not_the_connection() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "ImmediateData=No");
    let header = client.command(5, WRITE, 1024);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    world.expect_data(task, 1024);
    let tag = r2t(&world.next()).transfer_tag.get();
    world.pdu(client.conn, &data_out(5, tag, 7, 0, false), &pattern(512));
    assert_eq!(world.event(), Output::Abort { task });
    world.dropped(task);
    // The rest of the burst is still owed.
    world.quiet();
    world.pdu(client.conn, &data_out(5, tag, 8, 512, true), &pattern(512));
    assert_eq!(sense_code(&world.next()), [0x0b, 0x4b, 0x00]);
    let header = client.command(6, FINAL, 0);
    world.pdu(client.conn, &header, &[]);
    assert_eq!(world.command().expected, 0);
}

#[test]
fn data_that_was_ruled_out_ends_the_command() {
    for (ask, flags, immediate) in [
        ("ImmediateData=No", WRITE, 512),
        ("InitialR2T=Yes", command_flags::WRITE, 0),
        ("FirstBurstLength=512", WRITE, 1024),
    ] {
        let mut world = World::new(settings());
        let mut client = world.session(0, 1, ask);
        let header = client.command(5, flags, 1024);
        world.pdu(client.conn, &header, &pattern(immediate));
        let task = world.command().task;
        assert_eq!(world.event(), Output::Abort { task });
        world.dropped(task);
        world.pump(client.conn);
        if immediate == 0 {
            world.pdu(
                client.conn,
                &data_out(5, NO_TAG, 0, 0, true),
                &pattern(1024),
            );
        }
        assert_eq!(sense_code(&world.next()), [0x0b, 0x0c, 0x0c], "{ask}");
        assert_eq!(world.unread(client.conn), 0);
    }
}

#[test]
fn a_bad_data_digest_is_rejected_and_ends_the_command() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "DataDigest=CRC32C");
    let header = client.command(5, WRITE, 511);
    let mut bytes = world.encode(client.conn, &header, &pattern(511));
    bytes[48 + 100] ^= 1;
    world.feed(client.conn, &bytes);
    let task = world.command().task;
    world.expect_data(task, 511);
    let reject = world.next();
    assert_eq!(
        (reject.opcode(), reject.header[2]),
        (opcode::REJECT, reject_reason::DATA_DIGEST)
    );
    assert_eq!(reject.data, bytes[..48]);
    assert_eq!(world.event(), Output::Abort { task });
    world.dropped(task);
    assert_eq!(sense_code(&world.next()), [0x0b, 0x47, 0x05]);
}

#[test]
fn a_bad_header_digest_ends_the_connection() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "HeaderDigest=CRC32C");
    let header = client.command(5, READ, 511);
    let mut bytes = world.encode(client.conn, &header, &[]);
    bytes[20] ^= 1;
    world.feed(client.conn, &bytes);
    assert!(matches!(world.event(), Output::Note { .. }));
    assert_eq!(world.event(), Output::Close { conn: client.conn });
    assert!(matches!(world.event(), Output::NexusDown { .. }));
}

#[test]
fn a_long_cdb_comes_in_an_additional_segment() {
    for digest in ["HeaderDigest=None", "HeaderDigest=CRC32C"] {
        let mut world = World::new(settings());
        let mut client = world.session(0, 1, digest);
        let mut header = client.command(5, READ, 512);
        header.ahs_words = 5;
        let mut bytes = zerocopy::IntoBytes::as_bytes(&header).to_vec();
        bytes.extend([0, 17, 1, 0]);
        bytes.extend(0x10..0x20);
        if digest.ends_with('C') {
            bytes.extend(crc32c(&bytes).to_le_bytes());
        }
        world.feed(client.conn, &bytes);
        let cdb = world.command().cdb;
        assert_eq!(cdb[0], 0x28);
        assert_eq!(cdb[16..], (0x10..0x20).collect::<Vec<u8>>());
    }
}

#[test]
fn additional_segments_that_make_no_sense_are_rejected() {
    for segment in [
        [0, 17, 1, 0],
        [0, 1, 2, 0],
        [0xff, 0xff, 1, 0],
        [0, 0, 1, 0],
    ] {
        let mut world = World::new(settings());
        let mut client = world.session(0, 1, "");
        let mut header = client.command(5, READ, 512);
        header.ahs_words = 1;
        let mut bytes = zerocopy::IntoBytes::as_bytes(&header).to_vec();
        bytes.extend(segment);
        world.feed(client.conn, &bytes);
        let reject = world.next();
        assert_eq!(
            (reject.opcode(), reject.header[2]),
            (opcode::REJECT, reject_reason::INVALID_FIELD)
        );
        // The command's number is used up all the same.
        assert_eq!(reject.as_::<Reject>().exp_cmd_sn.get(), 2);
        assert_eq!(reject.as_::<Reject>().max_cmd_sn.get(), 9);
    }
}

#[test]
fn commands_outside_of_the_window_are_ignored() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    for cmd_sn in [0, 9, 1000, u32::MAX] {
        let mut header = client.command(5, WRITE, 512);
        header.cmd_sn = cmd_sn.into();
        world.pdu(client.conn, &header, &pattern(512));
        world.quiet();
    }
    client.cmd_sn = 1;
    for tag in 0..8 {
        let header = client.command(tag, FINAL, 0);
        world.pdu(client.conn, &header, &[]);
    }
    let ninth = client.command(8, FINAL, 0);
    world.pdu(client.conn, &ninth, &[]);
    assert_eq!(world.events.len(), 8);
    let task = world.command().task;
    world.respond(task, good());
    let header = response(&world.next());
    assert_eq!((header.exp_cmd_sn.get(), header.max_cmd_sn.get()), (9, 9));
    world.pdu(client.conn, &ninth, &[]);
    assert_eq!(world.events.len(), 8);
}

#[test]
fn a_gap_in_the_numbers_ends_the_connection() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    client.cmd_sn = 3;
    let header = client.command(5, FINAL, 0);
    world.pdu(client.conn, &header, &[]);
    assert!(matches!(world.event(), Output::Note { .. }));
    assert_eq!(world.event(), Output::Close { conn: client.conn });
}

#[test]
fn immediate_commands_take_no_place_but_are_limited() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    for tag in 0..MAX_IMMEDIATE {
        let mut header = client.command(tag, FINAL, 0);
        header.opcode |= IMMEDIATE;
        client.cmd_sn = 1;
        world.pdu(client.conn, &header, &[]);
    }
    let first = world.command().task;
    let mut header = client.command(99, FINAL, 0);
    header.opcode |= IMMEDIATE;
    world.pdu(client.conn, &header, &[]);
    let reject = world.next();
    assert_eq!(reject.header[2], reject_reason::TOO_MANY_IMMEDIATE);
    assert_eq!(reject.as_::<Reject>().exp_cmd_sn.get(), 1);
    world.respond(first, good());
    assert_eq!(response(&world.next()).max_cmd_sn.get(), 8);
    world.events.clear();
    world.pdu(client.conn, &header, &[]);
    world.command();
}

#[test]
fn contradictory_commands_are_rejected() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    let header = client.command(5, FINAL, 0);
    world.pdu(client.conn, &header, &[]);
    world.command();
    for (tag, flags, expected, len, reason) in [
        (5, FINAL, 0, 0, reject_reason::TASK_IN_PROGRESS),
        (NO_TAG, FINAL, 0, 0, reject_reason::INVALID_FIELD),
        (6, READ | WRITE, 512, 0, reject_reason::INVALID_FIELD),
        (6, READ, 512, 512, reject_reason::INVALID_FIELD),
        (6, WRITE, 511, 512, reject_reason::INVALID_FIELD),
    ] {
        let header = client.command(tag, flags, expected);
        world.pdu(client.conn, &header, &pattern(len));
        let reject = world.next();
        assert_eq!(
            (reject.opcode(), reject.header[2]),
            (opcode::REJECT, reason)
        );
        assert_eq!(reject.as_::<Reject>().exp_cmd_sn.get(), client.cmd_sn);
        world.quiet();
    }
}

#[test]
fn late_data_does_not_meet_the_next_task_in_the_slot() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "ImmediateData=No");
    let mut tags = Vec::new();
    for round in 0..3 {
        let header = client.command(5, WRITE, 512);
        world.pdu(client.conn, &header, &[]);
        let task = world.command().task;
        world.expect_data(task, 512);
        let tag = r2t(&world.next()).transfer_tag.get();
        for old in &tags {
            // Same task tag, same slot, but a transfer tag of a task that has gone.
            let Some(old) = Some(*old).filter(|_| round < 2) else {
                continue;
            };
            assert_ne!(old, tag);
        }
        tags.push(tag);
        world.pdu(client.conn, &data_out(5, tag, 0, 0, true), &pattern(512));
        assert_eq!(
            world.event(),
            Output::DataIn {
                task,
                crc: crc32c(&pattern(512))
            }
        );
        world.respond(task, wrote(512));
        world.next();
        world.pdu(client.conn, &data_out(5, tag, 0, 0, true), &pattern(512));
        world.quiet();
    }
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
