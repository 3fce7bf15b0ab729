//! Data from the initiator: immediate, unsolicited, solicited, and what is wrong with it.

use super::harness::*;
use crate::digest::crc32c;
use crate::interface::*;
use crate::pdu::*;
use alloc::vec;

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
fn late_data_of_an_aborted_task_is_passed_over_in_silence() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "ImmediateData=No");
    let header = client.command(5, WRITE, 512);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    world.expect_data(task, 512);
    let tag = r2t(&world.next()).transfer_tag.get();
    let mut abort = client.manage(function::ABORT_TASK, 50);
    abort.ref_task_tag = 5.into();
    world.pdu(client.conn, &abort, &[]);
    assert_eq!(world.event(), Output::Abort { task });
    let late = data_out(5, tag, 0, 0, false);
    world.pdu(client.conn, &late, &pattern(256));
    world.dropped(task);
    world.next();
    world.pdu(client.conn, &late, &pattern(256));
    world.quiet();
    assert_eq!(world.unread(client.conn), 0);
    // The next task in the slot has another tag.
    let header = client.command(5, WRITE, 512);
    world.pdu(client.conn, &header, &[]);
    let next = world.command().task;
    assert_eq!(next.slot, task.slot);
    world.expect_data(next, 512);
    assert_ne!(r2t(&world.next()).transfer_tag.get(), tag);
}

#[test]
fn a_tag_that_was_not_given_out_ends_the_command() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "ImmediateData=No");
    let header = client.command(5, WRITE, 512);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    world.expect_data(task, 512);
    let tag = r2t(&world.next()).transfer_tag.get();
    let stray = data_out(5, tag ^ 0x1234_0000, 0, 0, true);
    world.pdu(client.conn, &stray, &pattern(512));
    assert_eq!(world.event(), Output::Abort { task });
    world.dropped(task);
    assert_eq!(sense_code(&world.next()), [0x0b, 0x4b, 0x01]);
}

#[test]
fn an_early_answer_waits_for_the_data_that_is_on_its_way() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    let header = client.command(5, WRITE, 4096);
    let bytes = world.encode(client.conn, &header, &pattern(4096));
    world.feed(client.conn, &bytes[..1000]);
    let task = world.command().task;
    world.expect_data(task, 4096);
    let want = world.endpoint.want(client.conn);
    world.respond(
        task,
        Response {
            status: 8,
            ..good()
        },
    );
    world.quiet();
    assert_eq!(world.endpoint.want(client.conn), want);
    world.feed(client.conn, &bytes[1000..]);
    assert_eq!(response(&world.next()).status, 8);
    assert_eq!(world.endpoint.want(client.conn), Want::Bytes(48));
}

#[test]
fn an_early_answer_is_swallowed_by_an_abort() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    let other = world.session(1, 2, "");
    for lost in [false, true] {
        let header = client.command(5, WRITE, 4096);
        let bytes = world.encode(client.conn, &header, &pattern(4096));
        world.feed(client.conn, &bytes[..1000]);
        let task = world.command().task;
        world.expect_data(task, 4096);
        world.respond(
            task,
            Response {
                status: 8,
                ..good()
            },
        );
        let reset = other.manage(function::LOGICAL_UNIT_RESET, 50);
        world.pdu(other.conn, &reset, &[]);
        assert!(matches!(world.event(), Output::Reset { .. }));
        world.quiet();
        if lost {
            world.close(client.conn);
            assert!(matches!(world.event(), Output::NexusDown { .. }));
        } else {
            world.feed(client.conn, &bytes[1000..]);
        }
        let answer = world.next();
        assert_eq!(
            (answer.conn, answer.opcode()),
            (other.conn, opcode::TASK_MANAGEMENT_RESPONSE)
        );
        world.quiet();
    }
}
