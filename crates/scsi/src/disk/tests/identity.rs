//! The bytes that never change.

use super::*;

fn page(disk: &mut Disk, port: Port, page: u8) -> Vec<u8> {
    data(disk.command(ME, port, &[0x12, 1, page, 1, 0, 0], 256))
}

#[test]
fn standard_inquiry_is_these_bytes() {
    let mut expected = vec![0, 0, 6, 0x12, 91, 0x10, 0x10, 0x02];
    expected.extend_from_slice(b"LOCKSTEPMIRRORED VOLUME 1   ");
    expected.resize(58, 0);
    expected.extend_from_slice(&[0x00, 0xa0, 0x09, 0x60, 0x04, 0x60, 0x04, 0xc0]);
    expected.resize(96, 0);
    assert_eq!(data(run(&mut disk(), &[0x12, 0, 0, 1, 0, 0])), expected);
    for length in [0, 5, 36, 95] {
        let cut = data(run(&mut disk(), &[0x12, 0, 0, 0, length, 0]));
        assert_eq!(cut, expected[..usize::from(length)]);
    }
}

#[test]
fn serial_is_the_uuid() {
    let mut expected = vec![0, 0x80, 0, 32];
    expected.extend_from_slice(b"0123456789ab4def8123456789abcdef");
    assert_eq!(page(&mut disk(), PORT, 0x80), expected);
}

#[test]
fn identification_is_these_bytes() {
    let mut expected = vec![0, 0x83, 0, 0];
    // NAA 6: the UUID 01234567-89ab-4def-8123-456789abcdef without its version, the first 4.
    expected.extend_from_slice(&[0x01, 0x03, 0, 16]);
    expected.extend_from_slice(&0x6012_3456_789a_bdef_8123_4567_89ab_cdef_u128.to_be_bytes());
    expected.extend_from_slice(&[0x02, 0x01, 0, 40]);
    expected.extend_from_slice(b"LOCKSTEP0123456789ab4def8123456789abcdef");
    expected.extend_from_slice(&[0x51, 0x94, 0, 4, 0, 0, 1, 1]);
    expected.extend_from_slice(&[0x51, 0x95, 0, 4, 0, 0, 1, 1]);
    expected.extend_from_slice(&[0x53, 0xa8, 0, 24]);
    expected.extend_from_slice(b"iqn.2026-11.example:v1\0\0");
    expected[3] = u8::try_from(expected.len() - 4).unwrap();
    assert_eq!(page(&mut disk(), PORT, 0x83), expected);
}

#[test]
fn only_port_and_group_differ_between_the_nodes() {
    let mut disk = disk();
    let (here, there) = (page(&mut disk, PORT, 0x83), page(&mut disk, PARTNER, 0x83));
    let differing: Vec<_> = (0..here.len())
        .filter(|index| here[*index] != there[*index])
        .collect();
    assert_eq!(differing, [74, 82]);
    for number in [0x00, 0x80, 0x86, 0xb0, 0xb1, 0xb2] {
        assert_eq!(
            page(&mut disk, PORT, number),
            page(&mut disk, PARTNER, number)
        );
    }
}

#[test]
fn identification_stays_short_with_any_name() {
    for length in 0..=223 {
        let target_name = "n".repeat(length);
        let mut disk = Disk::new(
            Identity {
                target_name,
                ..identity()
            },
            geometry(),
        );
        let data = page(&mut disk, PORT, 0x83);
        assert!(data.len() < 255);
        assert_eq!((usize::from(data[3]) + 4, data[2]), (data.len(), 0));
        assert_eq!(data.len() % 4, 0);
    }
}

#[test]
fn every_listed_page_is_there_and_no_other() {
    let mut disk = disk();
    let listed = page(&mut disk, PORT, 0x00)[4..].to_vec();
    assert_eq!(listed, [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
    for number in 0..=255 {
        let step = run(&mut disk, &[0x12, 1, number, 1, 0, 0]);
        if listed.contains(&number) {
            let data = data(step);
            assert_eq!((data[1], usize::from(data[3]) + 4), (number, data.len()));
        } else {
            assert_eq!(sense(step), (5, 0x24, 0));
        }
    }
    assert_eq!(
        sense(run(&mut disk, &[0x12, 0, 0x80, 0, 96, 0])),
        (5, 0x24, 0)
    );
    assert_eq!(sense(run(&mut disk, &[0x12, 2, 0, 0, 96, 0])), (5, 0x24, 0));
}

#[test]
fn limits_are_in_blocks() {
    let mut expected = vec![0, 0xb0, 0, 60, 0, 0, 0, 8];
    for number in [
        2048_u32,
        2048,
        0,
        1 << 20,
        256,
        8,
        0x8000_0000,
        0,
        16 * 2048,
    ] {
        expected.extend_from_slice(&number.to_be_bytes());
    }
    expected.resize(64, 0);
    assert_eq!(page(&mut disk(), PORT, 0xb0), expected);

    let thick = Geometry {
        block_size: 4096,
        physical_exponent: 0,
        unmap: false,
        ..geometry()
    };
    let limits = page(&mut disk_of(thick), PORT, 0xb0);
    assert_eq!(limits[6..16], [0, 1, 0, 0, 1, 0, 0, 0, 1, 0]);
    assert_eq!(limits[20..36], [0; 16]);
    assert_eq!(limits[36..44], 4096_u64.to_be_bytes());
}

#[test]
fn provisioning_and_cache_are_told_truly() {
    assert_eq!(
        page(&mut disk(), PORT, 0xb2),
        [0, 0xb2, 0, 4, 0, 0xe4, 2, 0]
    );
    assert_eq!(page(&mut disk(), PORT, 0x86)[4..8], [0, 1, 1, 0]);
    let mut thick = disk_of(Geometry {
        unmap: false,
        write_cache: false,
        ..geometry()
    });
    assert_eq!(page(&mut thick, PORT, 0xb2), [0, 0xb2, 0, 4, 0, 0, 0, 0]);
    assert_eq!(page(&mut thick, PORT, 0x86)[4..8], [0, 1, 0, 0]);
    assert_eq!(page(&mut thick, PORT, 0xb1)[4..8], [0, 1, 0, 0]);
}

#[test]
fn capacity_says_where_the_last_block_is() {
    let mut disk = disk();
    assert_eq!(
        data(run(&mut disk, &cdb10(0x25, 0, 0, 0))),
        [0, 0x1f, 0xff, 0xff, 0, 0, 2, 0]
    );
    assert_eq!(sense(run(&mut disk, &cdb10(0x25, 0, 1, 0))), (5, 0x24, 0));
    let mut expected = vec![0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0, 0];
    expected.resize(32, 0);
    assert_eq!(data(run(&mut disk, &cdb16(0x9e, 0x10, 0, 255))), expected);
    assert_eq!(
        data(run(&mut disk, &cdb16(0x9e, 0x10, 0, 12))),
        expected[..12]
    );
    assert_eq!(
        sense(run(&mut disk, &cdb16(0x9e, 0x10, 1, 32))),
        (5, 0x24, 0)
    );
    assert_eq!(
        sense(run(&mut disk, &cdb16(0x9e, 0x11, 0, 32))),
        (5, 0x24, 0)
    );

    let shape = Geometry {
        block_size: 4096,
        physical_exponent: 0,
        unmap: false,
        ..geometry()
    };
    let mut disk = disk_of(Geometry {
        blocks: (1 << 32) + 1,
        ..shape
    });
    assert_eq!(
        data(run(&mut disk, &cdb10(0x25, 0, 0, 0))),
        [0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0]
    );
    let long = data(run(&mut disk, &cdb16(0x9e, 0x10, 0, 32)));
    assert_eq!(
        long[..16],
        [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0]
    );
}
