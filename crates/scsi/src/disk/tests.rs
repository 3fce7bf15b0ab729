//! CDB bytes in, meaning out.

use super::*;
use crate::interface::{Blocks, Operation};
use crate::opcodes::TABLE;

const ME: u32 = 1;
const OTHER: u32 = 2;
const PORT: Port = Port {
    relative: 0x0101,
    group: 0x0101,
};
const PARTNER: Port = Port {
    relative: 0x0201,
    group: 0x0201,
};
const UUID: u128 = 0x0123_4567_89ab_4def_8123_4567_89ab_cdef;

fn identity() -> Identity {
    Identity {
        uuid: UUID,
        target_name: "iqn.2026-11.example:v1".into(),
    }
}

fn geometry() -> Geometry {
    Geometry {
        blocks: 1 << 21,
        block_size: 512,
        physical_exponent: 3,
        write_cache: true,
        unmap: true,
        read_only: false,
    }
}

fn groups(mine: AccessState) -> Vec<PortGroup> {
    vec![
        PortGroup {
            group: 0x0101,
            ports: vec![0x0101],
            state: mine,
        },
        PortGroup {
            group: 0x0201,
            ports: vec![0x0201],
            state: AccessState::NonOptimized,
        },
    ]
}

/// A disk with two sessions that have heard their power-on already.
fn disk_of(geometry: Geometry) -> Disk {
    let mut disk = Disk::new(identity(), geometry);
    disk.set_port_groups(groups(AccessState::Optimized));
    for nexus in [ME, OTHER] {
        disk.nexus_up(nexus, "iqn.1993-08.org.debian:01:host");
        assert_eq!(sense(disk.command(nexus, PORT, &[0; 6], 0)), (6, 0x29, 0));
    }
    disk
}

fn disk() -> Disk {
    disk_of(geometry())
}

/// Key, code and qualifier of a CHECK CONDITION in either format.
fn sense(step: Step) -> (u8, u8, u8) {
    let Step::Answer(answer) = step else {
        panic!("no answer: {step:?}")
    };
    assert_eq!(answer.status, 2, "{answer:?}");
    let sense = answer.sense;
    if sense[0] & 0x7f == 0x72 {
        (sense[1], sense[2], sense[3])
    } else {
        (sense[2], sense[12], sense[13])
    }
}

/// Ended with exactly this sense, rather than otherwise.
fn refused_with(step: Step, expected: (u8, u8, u8)) -> bool {
    matches!(&step, Step::Answer(answer) if answer.status == 2) && sense(step) == expected
}

fn data(step: Step) -> Vec<u8> {
    let Step::Answer(answer) = step else {
        panic!("no answer: {step:?}")
    };
    assert_eq!(answer.status, 0, "{:x?}", answer.sense);
    answer.data
}

fn run(disk: &mut Disk, cdb: &[u8]) -> Step {
    disk.command(ME, PORT, cdb, 512)
}

fn operate(operation: Operation, data_out: u32) -> Step {
    Step::Operate {
        operation,
        data_out,
    }
}

/// A 16-byte CDB of a block command.
fn cdb16(opcode: u8, flags: u8, first: u64, count: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..10].copy_from_slice(&first.to_be_bytes());
    cdb[10..14].copy_from_slice(&count.to_be_bytes());
    cdb
}

fn cdb10(opcode: u8, flags: u8, first: u32, count: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[1] = flags;
    cdb[2..6].copy_from_slice(&first.to_be_bytes());
    cdb[7..9].copy_from_slice(&count.to_be_bytes());
    cdb
}

mod admission;
mod blocks;
mod identity;
mod modes;
mod reports;
