//! What comes before a command's own fields: attentions, opcode, ALUA, protection.

use super::*;

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];
const REPORT_LUNS: [u8; 12] = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];

#[test]
fn power_on_is_told_once_and_not_on_inquiry_or_report_luns() {
    let mut disk = disk();
    disk.nexus_up(9, "iqn.1993-08.org.debian:01:third");
    assert_eq!(data(disk.command(9, PORT, &INQUIRY, 96)).len(), 96);
    assert_eq!(data(disk.command(9, PORT, &REPORT_LUNS, 64)).len(), 16);
    assert_eq!(sense(disk.command(9, PORT, &[0xff; 16], 0)), (6, 0x29, 0));
    assert!(matches!(
        disk.command(9, PORT, &READ, 512),
        Step::Operate { .. }
    ));
    assert!(matches!(
        disk.command(ME, PORT, &READ, 512),
        Step::Operate { .. }
    ));
}

#[test]
fn request_sense_returns_the_attention_as_data() {
    let mut disk = disk();
    disk.resize(1 << 22);
    let fixed = data(run(&mut disk, &[3, 0, 0, 0, 252, 0]));
    assert_eq!(
        (fixed[0], fixed[2], fixed[12], fixed[13]),
        (0x70, 6, 0x2a, 9)
    );
    let none = data(run(&mut disk, &[3, 1, 0, 0, 252, 0]));
    assert_eq!(none, [0x72, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(data(run(&mut disk, &[3, 0, 0, 0, 4, 0])).len(), 4);
}

#[test]
fn resets_are_told_to_everyone() {
    let mut disk = disk();
    disk.reset(ResetCause::LogicalUnit, ME);
    assert_eq!(sense(disk.command(ME, PORT, &[0; 6], 0)), (6, 0x29, 3));
    assert_eq!(sense(disk.command(OTHER, PORT, &[0; 6], 0)), (6, 0x29, 3));
    disk.reset(ResetCause::Target, ME);
    assert_eq!(sense(disk.command(OTHER, PORT, &[0; 6], 0)), (6, 0x29, 2));
}

#[test]
fn cleared_tasks_are_told_to_the_others_and_a_loss_to_the_loser() {
    let mut disk = disk();
    disk.reset(ResetCause::TasksCleared, ME);
    assert_eq!(data(disk.command(ME, PORT, &[0; 6], 0)), []);
    assert_eq!(sense(disk.command(OTHER, PORT, &[0; 6], 0)), (6, 0x2f, 0));
    disk.reset(ResetCause::NexusLost, ME);
    assert_eq!(data(disk.command(OTHER, PORT, &[0; 6], 0)), []);
    assert_eq!(sense(disk.command(ME, PORT, &[0; 6], 0)), (6, 0x29, 7));
}

#[test]
fn changed_luns_are_told_until_they_are_listed() {
    let mut disk = disk();
    disk.set_luns(vec![0, 7]);
    let list = data(disk.command(ME, PORT, &REPORT_LUNS, 64));
    assert_eq!(list[16..], [0, 7, 0, 0, 0, 0, 0, 0]);
    assert_eq!(data(disk.command(ME, PORT, &[0; 6], 0)), []);
    assert_eq!(
        sense(disk.command(OTHER, PORT, &[0; 6], 0)),
        (6, 0x3f, 0x0e)
    );
}

#[test]
fn a_changed_group_is_told_to_everyone() {
    let mut disk = disk();
    disk.set_port_groups(groups(AccessState::Optimized));
    assert_eq!(data(run(&mut disk, &[0; 6])), []);
    disk.set_port_groups(groups(AccessState::Standby));
    assert_eq!(
        sense(disk.command(OTHER, PARTNER, &[0; 6], 0)),
        (6, 0x2a, 6)
    );
    assert_eq!(data(disk.command(OTHER, PARTNER, &[0; 6], 0)), []);
}

#[test]
fn every_alua_state_answers_as_the_matrix_says() {
    let states = [
        (AccessState::Standby, (2, 4, 0x0b)),
        (AccessState::Unavailable, (2, 4, 0x0c)),
        (AccessState::Transitioning, (2, 4, 0x0a)),
    ];
    for (state, refusal) in states {
        let mut disk = Disk::new(identity(), geometry());
        disk.set_port_groups(groups(state));
        for entry in &TABLE {
            let mut cdb = [0; 16];
            cdb[0] = entry.opcode();
            cdb[1] = entry.action.unwrap_or(0);
            let allowed = match entry.opcode() {
                0x03 | 0x12 | 0xa0 | 0xa3 => true,
                0x1a | 0x5a | 0x25 | 0x9e => state == AccessState::Standby,
                _ => false,
            };
            let refused = refused_with(disk.command(ME, PORT, &cdb, 0), refusal);
            assert_eq!(refused, !allowed, "{state:?} {cdb:x?}");
        }
        assert!(matches!(
            disk.command(ME, PARTNER, &READ, 512),
            Step::Operate { .. }
        ));
    }
}

#[test]
fn a_port_in_no_group_serves_nothing() {
    let mut disk = Disk::new(identity(), geometry());
    assert_eq!(sense(disk.command(ME, PORT, &READ, 512)), (2, 4, 0x0c));
    assert_eq!(data(disk.command(ME, PORT, &INQUIRY, 96)).len(), 96);
}

#[test]
fn a_read_only_disk_refuses_writes_before_it_looks_at_them() {
    let mut disk = disk_of(Geometry {
        read_only: true,
        ..geometry()
    });
    for entry in &TABLE {
        let mut cdb = [0xff; 16];
        cdb[0] = entry.opcode();
        cdb[entry.usage.len() - 1] = 0;
        let writes = matches!(
            entry.opcode(),
            0x0a | 0x2a | 0xaa | 0x8a | 0x41 | 0x93 | 0x42
        );
        let refused = refused_with(disk.command(ME, PORT, &cdb, 512), (7, 0x27, 0));
        assert_eq!(refused, writes, "{cdb:x?}");
    }
}

#[test]
fn protection_that_comes_with_the_parameter_list_still_counts() {
    let mut disk = disk();
    let cdb = cdb10(0x42, 0, 0, 24);
    assert_eq!(
        disk.command(ME, PORT, &cdb, 24),
        Step::Parameters { len: 24 }
    );
    disk.set_port_groups(groups(AccessState::Unavailable));
    assert_eq!(
        sense(disk.parameters(ME, PORT, &cdb, &[0; 24])),
        (2, 4, 0x0c)
    );
}

#[test]
fn naca_is_refused() {
    let mut disk = disk();
    assert_eq!(sense(run(&mut disk, &[0, 0, 0, 0, 0, 4])), (5, 0x24, 0));
    let mut read = cdb16(0x88, 0, 0, 4);
    read[15] = 4;
    assert_eq!(sense(run(&mut disk, &read)), (5, 0x24, 0));
}

#[test]
fn outcomes_have_their_sense() {
    let disk = disk();
    let rows = [
        (Outcome::Unreadable { block: 7 }, (3, 0x11, 0)),
        (Outcome::Miscompare { offset: 9 }, (0x0e, 0x1d, 0)),
        (Outcome::WriteFailed, (3, 0x0c, 0)),
        (Outcome::NoSpace, (7, 0x27, 7)),
        (Outcome::Transition, (2, 4, 0x0a)),
        (Outcome::Unavailable, (2, 4, 0x0c)),
        (Outcome::Aborted, (0x0b, 0, 0)),
        (Outcome::BadData, (0x0b, 0x47, 5)),
    ];
    for (outcome, expected) in rows {
        assert_eq!(sense(Step::Answer(disk.finish(ME, outcome))), expected);
    }
    assert_eq!(disk.finish(ME, Outcome::Good).status, 0);
    assert_eq!(disk.finish(ME, Outcome::Busy).status, 8);
}

/// Whatever comes in, what goes down is within the disk and within the limits.
fn assert_in_bounds(disk: &Disk, step: &Step) {
    let Step::Operate {
        operation,
        data_out,
    } = step
    else {
        return;
    };
    assert!(*data_out <= crate::limits::MAX_TRANSFER_BYTES);
    let ranges = match operation {
        Operation::Read { blocks, .. }
        | Operation::Write { blocks, .. }
        | Operation::Verify { blocks }
        | Operation::Compare { blocks, .. }
        | Operation::WriteSame { blocks }
        | Operation::Zero { blocks } => vec![*blocks],
        Operation::Unmap { ranges, .. } => ranges.clone(),
        Operation::Flush => return,
    };
    assert!(!ranges.is_empty());
    for blocks in ranges {
        assert!(blocks.count > 0 && blocks.first + blocks.count <= disk.geometry().blocks);
    }
}

#[test]
fn random_commands_never_panic_and_stay_within_the_disk() {
    let mut disk = disk();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    let mut operations = 0;
    for round in 0..100_000_usize {
        let mut cdb = [random(), random()].concat();
        // Half of them with a known opcode and mostly small numbers, the rest with anything.
        if round % 2 == 0 {
            let entry = &TABLE[round / 2 % TABLE.len()];
            let sparse = random();
            cdb.iter_mut()
                .enumerate()
                .for_each(|(index, byte)| *byte &= sparse[index % 8] & sparse[7]);
            cdb[0] = entry.opcode();
            cdb[1] = entry.action.unwrap_or(cdb[1]);
            cdb[entry.usage.len() - 1] = 0;
        }
        cdb.truncate(usize::from(random()[0] % 32));
        let mut step = disk.command(ME, PORT, &cdb, 512);
        if let Step::Parameters { len } = step {
            let mut list: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| random()).collect();
            let zeroes = list.len().min(usize::from(random()[0] % 16));
            list[..zeroes].fill(0);
            step = disk.parameters(ME, PORT, &cdb, &list);
        }
        assert_in_bounds(&disk, &step);
        operations += usize::from(matches!(step, Step::Operate { .. }));
        if let Some((kind, bytes)) = disk.take_state() {
            disk.apply_state(kind, &bytes);
        }
    }
    assert!(operations > 1000, "only {operations} rounds got anywhere");
}
