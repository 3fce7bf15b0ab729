//! Bad input: noise, probes, floods; and that it does not matter how bytes are cut.

use super::harness::*;
use crate::interface::*;
use crate::pdu::*;
use crate::random::Random;
use alloc::vec::Vec;
use alloc::{format, vec};
use zerocopy::IntoBytes;

#[test]
fn a_port_probe_leaves_no_trace() {
    let mut world = World::new(settings());
    for probe in [&b""[..], b"\n", b"\0\0\0"] {
        let conn = world.connect(0);
        world.feed(conn, probe);
        world.close(conn);
        world.quiet();
    }
}

#[test]
fn another_protocol_is_closed_without_a_word() {
    let mut world = World::new(settings());
    let conn = world.connect(0);
    world.feed(
        conn,
        b"GET / HTTP/1.1\r\nHost: storage.example.org\r\nAccept: */*\r\n\r\n",
    );
    assert_eq!(world.event(), Output::Close { conn });
    world.quiet();
    assert_eq!(world.endpoint.want(conn), Want::Wait);
}

#[test]
fn a_flood_of_silent_connections_pushes_itself_out() {
    let mut world = World::new(settings());
    world.session(0, 1, "");
    let mut open = Vec::new();
    for slot in 1..100 {
        open.push(world.connect(slot));
        while let Some(event) = world.events.pop() {
            let Output::Close { conn } = event else {
                panic!("not {event:?}")
            };
            world.close(conn);
            open.retain(|other| *other != conn);
        }
        assert!(open.len() <= 4);
        world.now += Time::from_millis(1);
    }
    // Whoever logs in gets in.
    let conn = world.connect(200);
    let names = format!("InitiatorName={HOST}2 TargetName={TARGET}");
    assert_eq!(status(&world.login(conn, 0x87, &names)), 0);
    assert_eq!(world.endpoint.sessions().count(), 2);
}

#[test]
fn a_flood_spares_a_login_that_is_under_way() {
    let mut world = World::new(settings());
    let names = format!("InitiatorName={HOST} TargetName={TARGET}");
    let slow = world.connect(0);
    world.login(slow, 0x04, &names);
    for slot in 1..50 {
        world.connect(slot);
    }
    assert!(!world.events.contains(&Output::Close { conn: slow }));
    world.events.clear();
    assert_eq!(status(&world.login(slow, 0x87, "")), 0);
}

#[test]
fn a_flood_from_one_address_leaves_those_of_others_alone() {
    let mut world = World::new(settings());
    let names = format!("InitiatorName={HOST} TargetName={TARGET}");
    // It has not said a word yet when the flood begins.
    let other = world.connect(0);
    for slot in 1..50 {
        let conn = ConnId {
            slot,
            generation: 1,
        };
        world.connect_from(conn, "198.51.100.7:2000");
        while let Some(event) = world.events.pop() {
            let Output::Close { conn: closed } = event else {
                panic!("not {event:?}")
            };
            assert_ne!(closed, other);
            world.close(closed);
        }
        world.login(conn, 0x04, &names);
    }
    assert_eq!(status(&world.login(other, 0x87, &names)), 0);
}

#[test]
fn half_logins_that_never_end_do_not_keep_newcomers_out() {
    let mut world = World::new(settings());
    let names = format!("InitiatorName={HOST} TargetName={TARGET}");
    for slot in 0..4 {
        let conn = world.connect(slot);
        world.login(conn, 0x04, &names);
    }
    // Each new one puts out the oldest of those, not the one that came just before it.
    let mut newcomers = Vec::new();
    for slot in 4..7 {
        newcomers.push(world.connect(slot));
        let Output::Close { conn } = world.event() else {
            panic!("nobody made room")
        };
        assert!(conn.slot < 4, "{conn:?}");
        let last = newcomers[newcomers.len() - 1];
        world.login(last, 0x04, &names);
    }
    assert_eq!(status(&world.login(newcomers[2], 0x87, "")), 0);
}

#[test]
fn more_connections_than_allowed_are_turned_away() {
    let mut settings = settings();
    settings.max_connections = 3;
    let mut world = World::new(settings);
    for slot in 0..3 {
        world.session(slot, slot as u8, "");
    }
    for slot in 3..50 {
        let conn = world.connect(slot);
        assert!(world.events.contains(&Output::Close { conn }));
        world.close(conn);
    }
    let notes = world
        .events
        .iter()
        .filter(|event| matches!(event, Output::Note { .. }));
    assert_eq!(notes.count(), 4);
}

#[test]
fn a_segment_longer_than_declared_ends_the_connection() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    let mut header = client.command(5, WRITE, 1 << 20);
    header.data_length = U24::new(262_145);
    world.feed(client.conn, header.as_bytes());
    assert!(matches!(world.event(), Output::Note { .. }));
    assert_eq!(world.event(), Output::Close { conn: client.conn });
    let conn = world.connect(1);
    let mut header = login_request(1, 0, 0x87);
    header.data_length = U24::new(8193);
    world.feed(conn, header.as_bytes());
    assert_eq!(world.endpoint.want(conn), Want::Wait);
}

#[test]
fn stale_names_are_ignored() {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, "");
    let header = client.command(5, READ, 512);
    world.pdu(client.conn, &header, &[]);
    let task = world.command().task;
    world.respond(task, read(0));
    world.next();
    world.respond(task, read(512));
    world.dropped(task);
    world.expect_data(task, 512);
    let old = ConnId {
        slot: 0,
        generation: 0,
    };
    assert_eq!(world.endpoint.want(old), Want::Wait);
    world.call(|e, now, out| e.closed(now, old, out));
    world.quiet();
    assert_eq!(world.endpoint.want(client.conn), Want::Bytes(48));
}

/// An engine that answers whatever comes: some at once, some late, some never.
fn play_engine(world: &mut World, random: &mut Random, held: &mut Vec<TaskId>) {
    while !world.events.is_empty() {
        match world.event() {
            Output::Command(command) => match random.number() % 4 {
                0 => world.respond(command.task, good()),
                1 => held.push(command.task),
                _ if command.writes => {
                    world.expect_data(command.task, command.expected.min(1 << 16))
                }
                _ => {
                    world.buffers.insert(command.task, vec![0; 1 << 16]);
                    world.respond(command.task, read(command.expected.min(1 << 16)));
                }
            },
            Output::DataIn { task, .. } => world.respond(task, wrote(512)),
            Output::Abort { task } => {
                held.retain(|other| *other != task);
                world.dropped(task);
            }
            Output::Close { conn } => world.close(conn),
            _ => {}
        }
    }
}

/// A PDU in which most things are right.
fn noise(random: &mut Random, cmd_sn: &mut u32) -> (Vec<u8>, Vec<u8>) {
    let mut header: [u8; 48] = random.bytes();
    let choice = random.number();
    header[0] = match choice % 8 {
        0..3 => opcode::SCSI_COMMAND,
        3 => opcode::DATA_OUT,
        4 => opcode::TASK_MANAGEMENT | IMMEDIATE,
        5 => opcode::TEXT,
        6 => opcode::NOP_OUT | IMMEDIATE,
        _ => random.number() as u8,
    };
    if header[0] & OPCODE_MASK == opcode::LOGOUT {
        header[0] = opcode::SNACK;
    }
    if choice & 0x100 != 0 {
        header[1] |= FINAL;
    }
    header[4] = if choice & 0x7000 == 0 {
        random.number() as u8 % 5
    } else {
        0
    };
    let len = if choice & 0x600 == 0 {
        random.number() % 3000
    } else {
        0
    };
    header[5..8].copy_from_slice(U24::new(len).as_bytes());
    header[8..16].fill(0);
    header[16..20].copy_from_slice(&(random.number() % 12).to_be_bytes());
    if choice & 0x800 != 0 {
        header[20..24].copy_from_slice(&(random.number() % 5000).to_be_bytes());
    }
    if header[0] & OPCODE_MASK == opcode::DATA_OUT {
        header[20..24].fill(0xff);
        header[36..44].fill(0);
    } else {
        header[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
        if header[0] & IMMEDIATE == 0
            && matches!(
                header[0],
                opcode::SCSI_COMMAND | opcode::TEXT | opcode::NOP_OUT | opcode::TASK_MANAGEMENT
            )
        {
            *cmd_sn += 1;
        }
    }
    let mut data = vec![0; usize::from(header[4]) * 4];
    data.resize(
        data.len() + (len as usize).next_multiple_of(4),
        random.number() as u8,
    );
    (header.to_vec(), data)
}

/// Data for R2Ts: mostly right, sometimes with a wrong number, offset, length or end.
fn answer_r2ts(world: &mut World, conn: ConnId, random: &mut Random) {
    let asked: Vec<R2t> = world
        .sent
        .iter()
        .filter(|pdu| pdu.opcode() == opcode::R2T)
        .map(Pdu::as_)
        .collect();
    for ask in asked {
        let mut left = ask.desired_length.get();
        let mut offset = ask.offset.get();
        for data_sn in 0..8 {
            let len = left.min(if data_sn == 7 {
                left
            } else {
                1 + random.number() % 4096
            });
            left -= len;
            let mut header = data_out(
                ask.task_tag.get(),
                ask.transfer_tag.get(),
                data_sn,
                offset,
                left == 0,
            );
            match random.number() % 64 {
                0 => header.data_sn = 9.into(),
                1 => header.offset = 3.into(),
                2 => header.flags ^= FINAL,
                3 => header.transfer_tag = random.number().into(),
                4 => header.task_tag = 1.into(),
                _ => {}
            }
            offset += len;
            if world.endpoint.sessions().count() > 0 {
                world.pdu(conn, &header, &vec![1; len as usize]);
            }
            if left == 0 {
                break;
            }
        }
    }
}

#[test]
fn pseudo_random_pdus_do_no_harm() {
    let mut random = Random::new([42; 32]);
    let mut served = 0;
    for round in 0..200u32 {
        let mut world = World::new(settings());
        let keys = [
            "",
            "InitialR2T=No",
            "InitialR2T=No MaxOutstandingR2T=4 MaxBurstLength=1024",
        ];
        let client = world.session(round, 1, keys[round as usize % 3]);
        let mut held = Vec::new();
        let mut cmd_sn = 1;
        for _ in 0..200 {
            let (header, data) = noise(&mut random, &mut cmd_sn);
            world.feed(client.conn, &header);
            if world.endpoint.sessions().count() == 0 {
                break;
            }
            world.feed(client.conn, &data);
            play_engine(&mut world, &mut random, &mut held);
            answer_r2ts(&mut world, client.conn, &mut random);
            play_engine(&mut world, &mut random, &mut held);
            served += world
                .sent
                .drain(..)
                .filter(|pdu| pdu.opcode() != opcode::REJECT)
                .count();
            if random.number().is_multiple_of(4)
                && let Some(task) = held.pop()
            {
                world.respond(task, good());
            }
            if world.endpoint.sessions().count() == 0 {
                break;
            }
        }
        // Whatever came: everything ends.
        if world.endpoint.sessions().count() > 0 {
            world.close(client.conn);
        }
        play_engine(&mut world, &mut random, &mut held);
        for task in held {
            world.respond(task, good());
        }
        assert_eq!(world.endpoint.sessions().count(), 0);
    }
    assert!(
        served > 2000,
        "only {served} PDUs were answered: the noise is too wild to test anything"
    );
}

#[test]
fn pure_noise_at_the_door_does_no_harm() {
    let mut random = Random::new([7; 32]);
    for _ in 0..2000 {
        let mut world = World::new(settings());
        let conn = world.connect(0);
        let mut bytes = random.bytes::<300>();
        if random.number().is_multiple_of(2) {
            bytes[0] = opcode::LOGIN | IMMEDIATE;
            bytes[4..7].fill(0);
            bytes[3] = 0;
        }
        world.feed(conn, &bytes);
        assert!(world.endpoint.sessions().count() == 0);
        assert!(world.sent.len() <= 3);
    }
}

/// A good conversation as bytes: login, a write with immediate data and R2T, a read, a NOP.
fn conversation(world: &World, client: &mut Client) -> Vec<u8> {
    let mut bytes = Vec::new();
    let write = client.command(1, command_flags::WRITE, 3000);
    bytes.extend(world.encode(client.conn, &write, &pattern(1001)));
    let data = data_out(1, NO_TAG, 0, 1001, true);
    bytes.extend(world.encode(client.conn, &data, &pattern(1001)[..999]));
    // The first task's first burst: its tag is known before.
    let solicited = data_out(1, 0, 0, 2000, true);
    bytes.extend(world.encode(client.conn, &solicited, &pattern(1000)));
    let read = client.command(2, READ, 4096);
    bytes.extend(world.encode(client.conn, &read, &[]));
    let mut nop: NopOut = zerocopy::FromZeros::new_zeroed();
    nop.opcode = opcode::NOP_OUT | IMMEDIATE;
    nop.task_tag = 3.into();
    bytes.extend(world.encode(client.conn, &nop, b"hello"));
    bytes
}

/// Feeds the conversation in pieces; what the target sent and what the engine was told.
fn replay(ask: &str, cut: impl Fn(usize) -> usize) -> alloc::string::String {
    let mut world = World::new(settings());
    let mut client = world.session(0, 1, ask);
    let bytes = conversation(&world, &mut client);
    let mut told = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + cut(at).max(1)).min(bytes.len());
        world.queue(client.conn, &bytes[at..end]);
        at = end;
        while world.step(client.conn) {
            while !world.events.is_empty() {
                let event = world.event();
                told.push(format!("{event:?}"));
                match event {
                    Output::Command(command) if command.writes => {
                        world.buffers.insert(command.task, vec![0; 3000]);
                        world.call(|e, now, out| e.expect_data(now, command.task, 3000, out));
                    }
                    Output::Command(command) => {
                        world.buffers.insert(command.task, pattern(4096));
                        world.call(|e, now, out| e.respond(now, command.task, read(4096), out));
                    }
                    Output::DataIn { task, .. } => {
                        world.call(|e, now, out| e.respond(now, task, wrote(3000), out));
                    }
                    other => panic!("not {other:?}"),
                }
            }
        }
    }
    assert_eq!(world.unread(client.conn), 0);
    let opcodes: Vec<_> = world.sent.iter().map(Pdu::opcode).collect();
    assert_eq!(
        opcodes,
        [
            opcode::R2T,
            opcode::SCSI_RESPONSE,
            opcode::DATA_IN,
            opcode::NOP_IN
        ],
        "{told:?}"
    );
    format!("{told:?} {:?}", world.sent)
}

#[test]
fn it_does_not_matter_how_bytes_are_cut() {
    for digests in [
        "",
        "HeaderDigest=CRC32C",
        "HeaderDigest=CRC32C DataDigest=CRC32C",
    ] {
        let ask = format!("InitialR2T=No FirstBurstLength=2000 {digests}");
        let whole = replay(&ask, |_| usize::MAX >> 1);
        assert_eq!(replay(&ask, |_| 1), whole);
        for step in 2..200 {
            assert_eq!(
                replay(&ask, |at| at % step + step / 2),
                whole,
                "step {step}"
            );
        }
    }
}
