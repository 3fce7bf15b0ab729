//! Commands: numbers, long CDBs, contradictions.

use super::harness::*;
use crate::digest::crc32c;
use crate::interface::*;
use crate::pdu::*;
use crate::session::MAX_IMMEDIATE;
use alloc::vec::Vec;

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
