//! Commands that move or touch blocks.

use super::*;

const LAST: u64 = (1 << 21) - 1;

#[test]
fn reads_and_writes_become_operations() {
    let read = |first, count, fua| {
        operate(
            Operation::Read {
                blocks: Blocks { first, count },
                fua,
            },
            0,
        )
    };
    let write = |first, count: u32, fua| {
        let blocks = Blocks {
            first,
            count: u64::from(count),
        };
        operate(Operation::Write { blocks, fua }, count * 512)
    };
    let mut disk = disk();
    assert_eq!(
        run(&mut disk, &[0x08, 0x01, 0x02, 0x03, 4, 0]),
        read(0x1_0203, 4, false)
    );
    assert_eq!(run(&mut disk, &[0x08, 0, 0, 0, 0, 0]), read(0, 256, false));
    assert_eq!(run(&mut disk, &[0x0a, 0, 0, 9, 0, 0]), write(9, 256, false));
    assert_eq!(run(&mut disk, &cdb10(0x28, 0x18, 5, 8)), read(5, 8, true));
    assert_eq!(run(&mut disk, &cdb10(0x2a, 0x10, 5, 8)), write(5, 8, false));
    assert_eq!(
        run(&mut disk, &[0xa8, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]),
        read(1, 2, false)
    );
    assert_eq!(
        run(&mut disk, &[0xaa, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]),
        write(1, 2, true)
    );
    assert_eq!(
        run(&mut disk, &cdb16(0x88, 0, LAST, 1)),
        read(LAST, 1, false)
    );
    assert_eq!(
        run(&mut disk, &cdb16(0x8a, 8, LAST, 1)),
        write(LAST, 1, true)
    );
}

#[test]
fn protection_comes_before_range_and_range_before_length() {
    let mut disk = disk();
    for opcode in [0x88, 0x8a, 0x8f, 0x93] {
        assert_eq!(
            sense(run(&mut disk, &cdb16(opcode, 0x20, u64::MAX, 1))),
            (5, 0x24, 0)
        );
        assert_eq!(
            sense(run(&mut disk, &cdb16(opcode, 0, u64::MAX, u32::MAX))),
            (5, 0x21, 0)
        );
        assert_eq!(
            sense(run(&mut disk, &cdb16(opcode, 0, LAST, 2))),
            (5, 0x21, 0)
        );
        assert_eq!(
            sense(run(&mut disk, &cdb16(opcode, 0, LAST + 2, 0))),
            (5, 0x21, 0)
        );
    }
    for opcode in [0x90, 0x91] {
        assert_eq!(
            sense(run(&mut disk, &cdb16(opcode, 0, LAST + 2, 0))),
            (5, 0x21, 0)
        );
        assert_eq!(
            sense(run(&mut disk, &cdb16(opcode, 0, LAST, 2))),
            (5, 0x21, 0)
        );
    }
}

#[test]
fn a_transfer_has_at_most_one_mebibyte() {
    let mut disk = disk();
    for opcode in [0x88, 0x8a, 0x8f] {
        assert!(matches!(
            run(&mut disk, &cdb16(opcode, 0, 0, 2048)),
            Step::Operate { .. }
        ));
        assert_eq!(
            sense(run(&mut disk, &cdb16(opcode, 0, 0, 2049))),
            (5, 0x24, 0)
        );
    }
}

#[test]
fn no_blocks_are_good_up_to_the_end() {
    let mut disk = disk();
    for opcode in [0x88, 0x8a, 0x8f, 0x90] {
        assert_eq!(run(&mut disk, &cdb16(opcode, 0, 0, 0)), Step::good());
        assert_eq!(run(&mut disk, &cdb16(opcode, 0, LAST + 1, 0)), Step::good());
    }
}

#[test]
fn verify_compares_what_is_sent() {
    let mut disk = disk();
    let blocks = Blocks { first: 3, count: 4 };
    assert_eq!(
        run(&mut disk, &cdb10(0x2f, 0x10, 3, 4)),
        operate(Operation::Verify { blocks }, 0)
    );
    let each = Operation::Compare {
        blocks,
        one_block: false,
    };
    assert_eq!(
        run(&mut disk, &cdb10(0x2f, 0x02, 3, 4)),
        operate(each, 2048)
    );
    assert_eq!(
        sense(run(&mut disk, &cdb10(0x2f, 0x04, 3, 4))),
        (5, 0x24, 0)
    );
    let one = Operation::Compare {
        blocks,
        one_block: true,
    };
    assert_eq!(run(&mut disk, &cdb10(0x2f, 0x06, 3, 4)), operate(one, 512));
    assert_eq!(run(&mut disk, &cdb10(0x2f, 0x02, 3, 0)), Step::good());
}

#[test]
fn write_same_repeats_zeroes_or_unmaps() {
    let mut disk = disk();
    let blocks = Blocks {
        first: 8,
        count: 16,
    };
    let same = Operation::WriteSame { blocks };
    assert_eq!(
        run(&mut disk, &cdb10(0x41, 0, 8, 16)),
        operate(same.clone(), 512)
    );
    assert_eq!(run(&mut disk, &cdb16(0x93, 0, 8, 16)), operate(same, 512));
    assert_eq!(
        run(&mut disk, &cdb16(0x93, 1, 8, 16)),
        operate(Operation::Zero { blocks }, 0)
    );
    let unmap = |check| Operation::Unmap {
        ranges: vec![blocks],
        check,
    };
    assert_eq!(
        run(&mut disk, &cdb10(0x41, 0x08, 8, 16)),
        operate(unmap(true), 512)
    );
    assert_eq!(
        run(&mut disk, &cdb16(0x93, 0x09, 8, 16)),
        operate(unmap(false), 0)
    );
}

#[test]
fn write_same_refuses_what_it_does_not_do() {
    let mut disk = disk();
    for flags in [0x02, 0x04, 0x10, 0x18, 0x20] {
        assert_eq!(
            sense(run(&mut disk, &cdb16(0x93, flags, 0, 1))),
            (5, 0x24, 0),
            "{flags:x}"
        );
    }
    for expected in [0, 256, 1024] {
        let step = disk.command(ME, PORT, &cdb10(0x41, 0, 0, 1), expected);
        assert_eq!(
            sense(step),
            (5, 0x24, 0),
            "{expected} bytes are not one block"
        );
    }
    let limit = 16 * 2048;
    assert!(matches!(
        run(&mut disk, &cdb16(0x93, 0, 0, limit)),
        Step::Operate { .. }
    ));
    assert_eq!(
        sense(run(&mut disk, &cdb16(0x93, 0, 0, limit + 1))),
        (5, 0x24, 0)
    );
}

#[test]
fn write_same_of_no_blocks_reaches_to_the_end() {
    let mut disk = disk();
    let first = LAST - 99;
    let blocks = Blocks { first, count: 100 };
    let step = run(&mut disk, &cdb16(0x93, 0, first, 0));
    assert_eq!(step, operate(Operation::WriteSame { blocks }, 512));
    let limit = 16 * 2048;
    let too_many = run(&mut disk, &cdb16(0x93, 0, LAST - limit, 0));
    assert_eq!(sense(too_many), (5, 0x24, 0));
    assert_eq!(run(&mut disk, &cdb16(0x93, 1, LAST + 1, 0)), Step::good());
}

/// An UNMAP parameter list with these ranges.
fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let bytes = u16::try_from(ranges.len() * 16).unwrap();
    let mut list = (bytes + 6).to_be_bytes().to_vec();
    list.extend_from_slice(&bytes.to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    for (first, count) in ranges {
        list.extend_from_slice(&first.to_be_bytes());
        list.extend_from_slice(&count.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    list
}

fn unmap(disk: &mut Disk, list: &[u8]) -> Step {
    let length = u16::try_from(list.len()).unwrap();
    let cdb = cdb10(0x42, 0, 0, length);
    match disk.command(ME, PORT, &cdb, u32::from(length)) {
        Step::Parameters { len } => {
            assert_eq!(len, u32::from(length));
            disk.parameters(ME, PORT, &cdb, list)
        }
        step => step,
    }
}

#[test]
fn unmap_takes_every_range_that_is_not_empty() {
    let mut disk = disk();
    let step = unmap(&mut disk, &unmap_list(&[(0, 8), (LAST + 1, 0), (100, 1)]));
    let ranges = vec![
        Blocks { first: 0, count: 8 },
        Blocks {
            first: 100,
            count: 1,
        },
    ];
    assert_eq!(
        step,
        operate(
            Operation::Unmap {
                ranges,
                check: false
            },
            0
        )
    );
    assert_eq!(unmap(&mut disk, &unmap_list(&[])), Step::good());
    assert_eq!(
        unmap(&mut disk, &unmap_list(&[(LAST + 1, 0)])),
        Step::good()
    );
    assert_eq!(unmap(&mut disk, &[]), Step::good());
}

#[test]
fn unmap_refuses_what_is_out_of_bounds() {
    let mut disk = disk();
    assert_eq!(
        sense(unmap(&mut disk, &unmap_list(&[(0, 8), (LAST, 2)]))),
        (5, 0x21, 0)
    );
    assert_eq!(
        sense(unmap(&mut disk, &unmap_list(&[(LAST + 2, 0)]))),
        (5, 0x21, 0)
    );
    assert_eq!(
        sense(unmap(&mut disk, &unmap_list(&[(0, 1); 257]))),
        (5, 0x26, 0)
    );
    assert!(matches!(
        unmap(&mut disk, &unmap_list(&[(0, 1 << 19); 2])),
        Step::Operate { .. }
    ));
    let too_many = unmap_list(&[(0, 1 << 19), (0, 1 << 19), (0, 1)]);
    assert_eq!(sense(unmap(&mut disk, &too_many)), (5, 0x26, 0));
    assert_eq!(sense(unmap(&mut disk, &[0; 7])), (5, 0x1a, 0));
    assert_eq!(sense(run(&mut disk, &cdb10(0x42, 1, 0, 24))), (5, 0x24, 0));
}

#[test]
fn unmap_ignores_an_incomplete_descriptor_and_believes_no_length() {
    let mut disk = disk();
    let mut list = unmap_list(&[(5, 1)]);
    list[2..4].copy_from_slice(&0xffff_u16.to_be_bytes());
    list.extend_from_slice(&[0xff; 15]);
    let ranges = vec![Blocks { first: 5, count: 1 }];
    assert_eq!(
        unmap(&mut disk, &list),
        operate(
            Operation::Unmap {
                ranges,
                check: false
            },
            0
        )
    );
}

#[test]
fn a_thick_disk_does_not_know_unmap() {
    let mut disk = disk_of(Geometry {
        unmap: false,
        ..geometry()
    });
    assert_eq!(
        sense(unmap(&mut disk, &unmap_list(&[(0, 8)]))),
        (5, 0x20, 0)
    );
    assert_eq!(
        sense(run(&mut disk, &cdb16(0x93, 0x08, 0, 8))),
        (5, 0x24, 0)
    );
    assert!(matches!(
        run(&mut disk, &cdb16(0x93, 0, 0, 8)),
        Step::Operate { .. }
    ));
}

#[test]
fn flushes_are_real_and_prefetch_costs_nothing() {
    let mut disk = disk();
    assert_eq!(
        run(&mut disk, &cdb10(0x35, 2, 0, 0)),
        operate(Operation::Flush, 0)
    );
    assert_eq!(
        run(&mut disk, &cdb16(0x91, 0, 8, 8)),
        operate(Operation::Flush, 0)
    );
    assert_eq!(run(&mut disk, &cdb10(0x34, 0, 0, 8)), Step::good());
}

#[test]
fn stopping_flushes_and_ejecting_is_refused() {
    let mut disk = disk();
    let stop = |flags| [0x1b, 1, 0, 0, flags, 0];
    assert_eq!(run(&mut disk, &stop(0x00)), operate(Operation::Flush, 0));
    assert_eq!(run(&mut disk, &stop(0x04)), Step::good());
    assert_eq!(run(&mut disk, &stop(0x01)), Step::good());
    assert_eq!(sense(run(&mut disk, &stop(0x02))), (5, 0x24, 0));
    assert_eq!(sense(run(&mut disk, &stop(0x20))), (5, 0x24, 0));
    let mut through = disk_of(Geometry {
        write_cache: false,
        ..geometry()
    });
    assert_eq!(run(&mut through, &stop(0x00)), Step::good());
}
