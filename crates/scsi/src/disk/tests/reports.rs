//! REPORT commands and READ DEFECT DATA.

use super::*;
use crate::{no_lun, well_known};

fn opcodes_cdb(options: u8, opcode: u8, action: u8, allocation: u16) -> [u8; 12] {
    let [high, low] = allocation.to_be_bytes();
    [
        0xa3, 0x0c, options, opcode, 0, action, 0, 0, high, low, 0, 0,
    ]
}

#[test]
fn what_is_listed_is_dispatched_and_nothing_else() {
    let mut disk = disk();
    let all = data(run(&mut disk, &opcodes_cdb(0, 0, 0, 0xffff)));
    assert_eq!(all.len(), 4 + 8 * TABLE.len());
    assert_eq!(
        usize::from(u16::from_be_bytes([all[2], all[3]])),
        all.len() - 4
    );
    let listed: Vec<_> = all[4..]
        .chunks(8)
        .map(|row| (row[0], row[3], row[5] & 1 == 1))
        .collect();
    assert!(listed.is_sorted());
    for opcode in 0..=255_u8 {
        let known = listed.iter().any(|row| row.0 == opcode);
        for action in 0..32 {
            let mut cdb = [0; 16];
            cdb[0] = opcode;
            cdb[1] = action;
            let refused = refused_with(disk.command(ME, PORT, &cdb, 0), (5, 0x20, 0));
            assert_eq!(refused, !known, "{opcode:x} {action:x}");
        }
    }
}

#[test]
fn a_thick_disk_does_not_list_unmap() {
    let mut disk = disk_of(Geometry {
        unmap: false,
        ..geometry()
    });
    let all = data(run(&mut disk, &opcodes_cdb(0, 0, 0, 0xffff)));
    assert!(all[4..].chunks(8).all(|row| row[0] != 0x42));
    assert_eq!(
        data(run(&mut disk, &opcodes_cdb(1, 0x42, 0, 64))),
        [0, 1, 0, 0]
    );
}

#[test]
fn one_command_shows_its_cdb() {
    let mut disk = disk();
    for entry in &TABLE {
        let action = entry.action.unwrap_or(0);
        let (right, wrong) = if entry.action.is_some() {
            (2, 1)
        } else {
            (1, 2)
        };
        for options in [right, 3] {
            let one = data(run(
                &mut disk,
                &opcodes_cdb(options, entry.opcode(), action, 255),
            ));
            assert_eq!(
                one[..4],
                [0, 3, 0, u8::try_from(entry.usage.len()).unwrap()]
            );
            assert_eq!(one[4..], *entry.usage);
        }
        let step = run(&mut disk, &opcodes_cdb(wrong, entry.opcode(), action, 255));
        assert_eq!(sense(step), (5, 0x24, 0));
    }
    assert_eq!(
        data(run(&mut disk, &opcodes_cdb(1, 0x5e, 0, 255))),
        [0, 1, 0, 0]
    );
    assert_eq!(
        data(run(&mut disk, &opcodes_cdb(2, 0x9e, 0x12, 255))),
        [0, 1, 0, 0]
    );
    assert_eq!(
        data(run(&mut disk, &opcodes_cdb(3, 0x28, 1, 255))),
        [0, 1, 0, 0]
    );
    assert_eq!(
        sense(run(&mut disk, &opcodes_cdb(4, 0x28, 0, 255))),
        (5, 0x24, 0)
    );
    assert_eq!(
        sense(run(&mut disk, &opcodes_cdb(0, 0, 0, 3))),
        (5, 0x24, 0)
    );
}

#[test]
fn usage_has_the_length_of_its_group_and_the_right_action() {
    for entry in &TABLE {
        let length = match entry.opcode() >> 5 {
            0 => 6,
            1 | 2 => 10,
            4 => 16,
            _ => 12,
        };
        assert_eq!(entry.usage.len(), length, "{entry:x?}");
        if let Some(action) = entry.action {
            assert_eq!(entry.usage[1] & 0x1f, action);
        }
    }
}

#[test]
fn usage_tells_the_truth_about_dpo_and_fua() {
    let mut disk = disk();
    for opcode in [0x28, 0x2a, 0xa8, 0xaa, 0x88, 0x8a] {
        let one = data(run(&mut disk, &opcodes_cdb(1, opcode, 0, 255)));
        assert_eq!(one[5] & 0x18, 0x18, "{opcode:x}");
    }
    for opcode in [0x2f, 0xaf, 0x8f] {
        let one = data(run(&mut disk, &opcodes_cdb(1, opcode, 0, 255)));
        assert_eq!(one[5] & 0x1e, 0x16, "{opcode:x}");
    }
}

#[test]
fn timeouts_come_when_they_are_asked_for() {
    let mut disk = disk();
    let all = data(run(&mut disk, &opcodes_cdb(0x80, 0, 0, 0xffff)));
    assert_eq!(all.len(), 4 + 20 * TABLE.len());
    assert!(
        all[4..]
            .chunks(20)
            .all(|row| row[5] & 2 == 2 && row[8..10] == [0, 10])
    );
    let one = data(run(&mut disk, &opcodes_cdb(0x81, 0x00, 0, 255)));
    assert_eq!(one[..4], [0, 0x83, 0, 6]);
    assert_eq!(one[10..], [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn port_groups_of_both_nodes_are_listed() {
    let mut disk = disk();
    let expected = [
        0, 0, 0, 24, //
        0, 0x8f, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1, //
        1, 0x8f, 2, 1, 0, 0, 0, 1, 0, 0, 2, 1,
    ];
    let cdb = |format: u8, allocation| {
        [
            0xa3,
            format << 5 | 0x0a,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            allocation,
            0,
            0,
        ]
    };
    assert_eq!(data(run(&mut disk, &cdb(0, 255))), expected);
    let extended = data(run(&mut disk, &cdb(1, 255)));
    assert_eq!(extended[..8], [0, 0, 0, 28, 0x10, 60, 0, 0]);
    assert_eq!(extended[8..], expected[4..]);
    assert_eq!(sense(run(&mut disk, &cdb(2, 255))), (5, 0x24, 0));
    for allocation in 0..28 {
        let cut = data(run(&mut disk, &cdb(0, allocation)));
        assert_eq!(
            cut,
            expected[..usize::from(allocation)],
            "cut in the middle of a group"
        );
    }
    disk.set_port_groups(groups(AccessState::Transitioning));
    assert_eq!(sense(run(&mut disk, &cdb(0, 255))), (6, 0x2a, 6));
    assert_eq!(
        data(run(&mut disk, &cdb(0, 255)))[4..12],
        [0x0f, 0x8f, 1, 1, 0, 2, 0, 1]
    );
}

#[test]
fn luns_are_selected() {
    let cdb = |select, allocation| [0xa0, 0, select, 0, 0, 0, 0, 0, 0, allocation, 0, 0];
    let mut disk = disk();
    assert_eq!(
        data(run(&mut disk, &cdb(0, 255))),
        [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        data(run(&mut disk, &cdb(1, 255)))[..12],
        [0, 0, 0, 8, 0, 0, 0, 0, 0xc1, 1, 0, 0]
    );
    let both = no_lun(&cdb(2, 255), &[0, 5]);
    assert_eq!(both.data[..10], [0, 0, 0, 24, 0, 0, 0, 0, 0xc1, 1]);
    assert_eq!(
        both.data[16..],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(data(run(&mut disk, &cdb(0, 17))).len(), 16);
    assert_eq!(sense(run(&mut disk, &cdb(3, 255))), (5, 0x24, 0));
    assert_eq!(sense(run(&mut disk, &cdb(0, 15))), (5, 0x24, 0));
}

#[test]
fn task_management_is_reported() {
    let cdb = |extended, allocation| [0xa3, 0x0d, extended, 0, 0, 0, 0, 0, 0, allocation, 0, 0];
    let mut disk = disk();
    assert_eq!(data(run(&mut disk, &cdb(0, 64))), [0xda, 0, 0, 0]);
    let extended = data(run(&mut disk, &cdb(0x80, 64)));
    assert_eq!(
        (extended.len(), &extended[..4]),
        (16, &[0xda, 0, 0, 12][..])
    );
    assert_eq!(sense(run(&mut disk, &cdb(0, 3))), (5, 0x24, 0));
}

#[test]
fn there_are_no_defects() {
    let mut disk = disk();
    assert_eq!(
        data(run(&mut disk, &[0x37, 0, 0x1d, 0, 0, 0, 0, 0, 32, 0])),
        [0, 0x1d, 0, 0]
    );
    let long = data(run(&mut disk, &[0xb7, 0x0d, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]));
    assert_eq!(long, [0, 0x0d, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn nothing_is_there_but_it_answers() {
    let inquiry = no_lun(&[0x12, 0, 0, 0, 36, 0], &[0]);
    assert_eq!(
        (inquiry.status, inquiry.data.len(), inquiry.data[0]),
        (0, 36, 0x7f)
    );
    assert_eq!(
        no_lun(&[0x12, 1, 0, 0, 36, 0], &[0]).data,
        [0x7f, 0, 0, 1, 0]
    );
    assert_eq!(
        sense(Step::Answer(no_lun(&[0x12, 1, 0x83, 0, 36, 0], &[0]))),
        (5, 0x24, 0)
    );
    assert_eq!(sense(Step::Answer(no_lun(&[0; 6], &[0]))), (5, 0x25, 0));
    let sensed = no_lun(&[3, 0, 0, 0, 18, 0], &[0]);
    assert_eq!(
        (sensed.status, sensed.data[2], sensed.data[12]),
        (0, 5, 0x25)
    );
    assert_eq!(sense(Step::Answer(no_lun(&[], &[0]))), (5, 0x25, 0));
}

#[test]
fn the_well_known_unit_lists_luns() {
    assert_eq!(well_known(&[0x12, 0, 0, 0, 36, 0], &[0]).data[0], 0x1e);
    assert_eq!(well_known(&[0; 6], &[0]).status, 0);
    assert_eq!(
        well_known(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], &[0])
            .data
            .len(),
        16
    );
    assert_eq!(
        sense(Step::Answer(well_known(&[0x28; 10], &[0]))),
        (5, 0x20, 0)
    );
}
