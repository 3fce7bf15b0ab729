//! MODE SENSE and MODE SELECT.

use super::*;

fn sense6(disk: &mut Disk, flags: u8, page: u8, subpage: u8) -> Vec<u8> {
    data(run(disk, &[0x1a, flags, page, subpage, 255, 0]))
}

fn select6(disk: &mut Disk, nexus: u32, list: &[u8]) -> Step {
    let cdb = [0x15, 0x10, 0, 0, u8::try_from(list.len()).unwrap(), 0];
    assert!(matches!(
        disk.command(nexus, PORT, &cdb, 0),
        Step::Parameters { .. }
    ));
    disk.parameters(nexus, PORT, &cdb, list)
}

/// The control page as MODE SENSE returned it, ready for MODE SELECT, with these bits.
fn control_page(disk: &mut Disk, d_sense: bool, swp: bool) -> Vec<u8> {
    let mut list = sense6(disk, 8, 0x0a, 0);
    list[0] = 0;
    list[6] = list[6] & !4 | u8::from(d_sense) << 2;
    list[8] = list[8] & !8 | u8::from(swp) << 3;
    list
}

fn commit(disk: &mut Disk) {
    let (kind, bytes) = disk.take_state().expect("a change");
    assert_eq!(kind, STATE_MODE);
    disk.apply_state(kind, &bytes);
}

#[test]
fn all_pages_come_with_a_block_descriptor() {
    let mut disk = disk();
    let data = sense6(&mut disk, 0, 0x3f, 0);
    assert_eq!(usize::from(data[0]) + 1, data.len());
    assert_eq!(data[1..12], [0, 0x10, 8, 0, 0x20, 0, 0, 0, 0, 2, 0]);
    let mut codes = Vec::new();
    let mut at = 12;
    while at < data.len() {
        codes.push(data[at]);
        at += 2 + usize::from(data[at + 1]);
    }
    assert_eq!((codes, at), (vec![0x01, 0x08, 0x0a, 0x1c], data.len()));
    assert!(
        sense6(&mut disk, 0, 0x3f, 0xff)
            .windows(4)
            .any(|bytes| bytes == [0x4a, 1, 0, 28])
    );
}

#[test]
fn the_long_form_has_a_long_descriptor_when_it_is_welcome() {
    let mut disk = disk();
    let long = data(run(&mut disk, &[0x5a, 0x10, 0x08, 0, 0, 0, 0, 1, 0, 0]));
    assert_eq!(long[..8], [0, 42, 0, 0x10, 1, 0, 0, 16]);
    assert_eq!(
        long[8..24],
        [0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]
    );
    assert_eq!(long[24..27], [0x08, 0x12, 0x04]);
    let short = data(run(&mut disk, &[0x5a, 0x00, 0x08, 0, 0, 0, 0, 1, 0, 0]));
    assert_eq!((short[4], short[7], short.len()), (0, 8, 36));
    let none = data(run(&mut disk, &[0x5a, 0x18, 0x08, 0, 0, 0, 0, 1, 0, 0]));
    assert_eq!((none[4], none[7], none.len()), (0, 0, 28));
}

#[test]
fn page_control_tells_current_from_changeable_default_and_saved() {
    let mut disk = disk();
    let list = control_page(&mut disk, true, false);
    assert_eq!(data(select6(&mut disk, ME, &list)), []);
    commit(&mut disk);
    assert_eq!(
        sense6(&mut disk, 8, 0x0a, 0)[4..10],
        [0x0a, 10, 0x06, 0x10, 0, 0]
    );
    assert_eq!(
        sense6(&mut disk, 8, 0x4a, 0)[4..],
        [0x0a, 10, 4, 0, 8, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        sense6(&mut disk, 8, 0x8a, 0)[4..10],
        [0x0a, 10, 0x02, 0x10, 0, 0]
    );
    assert_eq!(
        sense(run(&mut disk, &[0x1a, 8, 0xca, 0, 255, 0])),
        (5, 0x39, 0)
    );
    assert_eq!(sense6(&mut disk, 8, 0x48, 0)[4..7], [0x08, 0x12, 0]);
}

#[test]
fn unknown_pages_are_refused() {
    let mut disk = disk();
    for (page, subpage) in [(0x02, 0), (0x00, 0), (0x0a, 2), (0x3f, 1), (0x08, 1)] {
        assert_eq!(
            sense(run(&mut disk, &[0x1a, 0, page, subpage, 255, 0])),
            (5, 0x24, 0)
        );
    }
}

#[test]
fn the_write_cache_is_what_the_geometry_says() {
    let mut cached = disk();
    assert_eq!(sense6(&mut cached, 8, 0x08, 0)[4..7], [0x08, 0x12, 0x04]);
    let mut through = disk_of(Geometry {
        write_cache: false,
        read_only: true,
        ..geometry()
    });
    let page = sense6(&mut through, 8, 0x08, 0);
    assert_eq!((page[2], &page[4..7]), (0x90, &[0x08, 0x12, 0x00][..]));
}

#[test]
fn software_write_protection_holds_once_committed_and_is_told_to_the_others() {
    let mut disk = disk();
    let write = cdb10(0x2a, 0, 0, 1);
    let list = control_page(&mut disk, false, true);
    assert_eq!(data(select6(&mut disk, ME, &list)), []);
    assert!(
        matches!(run(&mut disk, &write), Step::Operate { .. }),
        "not committed yet"
    );
    commit(&mut disk);
    assert_eq!(sense(run(&mut disk, &write)), (7, 0x27, 0));
    assert_eq!(sense6(&mut disk, 8, 0x0a, 0)[2], 0x90);
    assert_eq!(sense(disk.command(OTHER, PORT, &[0; 6], 0)), (6, 0x2a, 1));
    let list = control_page(&mut disk, false, false);
    assert_eq!(data(select6(&mut disk, ME, &list)), []);
    commit(&mut disk);
    assert!(matches!(run(&mut disk, &write), Step::Operate { .. }));
}

#[test]
fn descriptor_sense_is_used_for_every_refusal() {
    let mut disk = disk();
    let list = control_page(&mut disk, true, false);
    select6(&mut disk, ME, &list);
    commit(&mut disk);
    let Step::Answer(answer) = run(&mut disk, &[0xff; 6]) else {
        panic!("an unknown opcode ran")
    };
    assert_eq!(answer.sense, [0x72, 5, 0x20, 0, 0, 0, 0, 0]);
    let answer = disk.finish(ME, Outcome::Unreadable { block: 5 });
    assert_eq!(answer.sense[..4], [0x72, 3, 0x11, 0]);
}

#[test]
fn a_change_by_the_partner_is_told_to_everyone_here() {
    let (mut here, mut there) = (disk(), disk());
    let list = control_page(&mut here, false, true);
    select6(&mut here, ME, &list);
    let (kind, bytes) = here.take_state().unwrap();
    there.apply_state(kind, &bytes);
    here.apply_state(kind, &bytes);
    assert_eq!(sense(there.command(ME, PORT, &[0; 6], 0)), (6, 0x2a, 1));
    assert_eq!(data(here.command(ME, PORT, &[0; 6], 0)), []);
    assert_eq!(here.state(), there.state());
}

#[test]
fn selecting_what_is_there_already_changes_nothing() {
    let mut disk = disk();
    let mut list = sense6(&mut disk, 0, 0x3f, 0xff);
    list[0] = 0;
    assert_eq!(data(select6(&mut disk, ME, &list)), []);
    assert_eq!(disk.take_state(), None);
    let mut list = data(run(&mut disk, &[0x5a, 0x10, 0x3f, 0, 0, 0, 0, 1, 0, 0]));
    list[..2].fill(0);
    let cdb = cdb10(0x55, 0x10, 0, u16::try_from(list.len()).unwrap());
    assert!(matches!(run(&mut disk, &cdb), Step::Parameters { .. }));
    assert_eq!(data(disk.parameters(ME, PORT, &cdb, &list)), []);
}

#[test]
fn a_list_that_changes_anything_else_is_refused_whole() {
    let mut disk = disk();
    let good = control_page(&mut disk, true, true);
    for (index, bit) in [
        (4, 0x01),
        (4, 0x40),
        (5, 1),
        (6, 0x20),
        (7, 0x20),
        (8, 0x01),
        (12, 1),
    ] {
        let mut list = good.clone();
        list[index] ^= bit;
        assert_eq!(
            sense(select6(&mut disk, ME, &list)),
            (5, 0x26, 0),
            "byte {index}"
        );
    }
    for length in [1, 3, 5, 15] {
        assert_eq!(
            sense(select6(&mut disk, ME, &good[..length])),
            (5, 0x1a, 0),
            "{length} bytes"
        );
    }
    let mut resized = vec![0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 2, 0];
    assert_eq!(sense(select6(&mut disk, ME, &resized)), (5, 0x26, 0));
    resized[4..].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0x10, 0]);
    assert_eq!(sense(select6(&mut disk, ME, &resized)), (5, 0x26, 0));
    assert_eq!(disk.take_state(), None);
    assert_eq!(
        sense(run(&mut disk, &[0x15, 0x11, 0, 0, 16, 0])),
        (5, 0x24, 0)
    );
    assert_eq!(
        sense(run(&mut disk, &[0x15, 0x00, 0, 0, 16, 0])),
        (5, 0x24, 0)
    );
}

#[test]
fn a_reset_brings_the_defaults_back() {
    let mut disk = disk();
    disk.reset(ResetCause::LogicalUnit, ME);
    assert_eq!(disk.take_state(), None);
    assert_eq!(sense(run(&mut disk, &[0; 6])), (6, 0x29, 3));
    let list = control_page(&mut disk, true, true);
    select6(&mut disk, ME, &list);
    commit(&mut disk);
    disk.reset(ResetCause::LogicalUnit, ME);
    commit(&mut disk);
    assert_eq!(sense(run(&mut disk, &[0; 6])), (6, 0x29, 3));
    assert_eq!(disk.state(), [(STATE_MODE, vec![1, 0])]);
}

#[test]
fn states_of_another_version_are_left_alone() {
    let mut disk = disk();
    for (kind, bytes) in [(STATE_MODE, &[][..]), (STATE_MODE, &[9, 3]), (7, &[1, 3])] {
        disk.apply_state(kind, bytes);
        assert_eq!(disk.state(), [(STATE_MODE, vec![1, 0])]);
    }
}
