//! Rules of a resync, as in `rules.rs`: each story makes the rare moment in which leaving one out
//! loses what was acknowledged.

use super::manager::Manager;
use super::stories;
use crate::control::{CacheMode, FromVolume, Time, ToVolume};

/// In a region that nobody wrote to before, so in no dirty chunk.
const CLEAN: u64 = 9000;
/// In the region of block 7, which is compared.
const MARKED: u64 = 100;

/// Node 0 serves alone, and has a region marked; node 1 is back, and belongs to nothing yet.
fn parted() -> Manager {
    let mut manager = stories::pair(CacheMode::WriteThrough);
    manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(20));
    manager.crash(1, false);
    manager.eject(0);
    manager.listen();
    manager.adopt(0);
    // Its promises to the partner end meanwhile.
    manager.world.run(Time::from_secs(3));
    manager.listen();
    return_of_the_target(&mut manager);
    manager
}

fn return_of_the_target(manager: &mut Manager) {
    manager.start(1);
    manager.world.run(Time::from_millis(20));
    manager.listen();
    manager.world.connect();
    follow(manager);
}

fn follow(manager: &mut Manager) {
    let source_incarnation = manager.world.incarnation(0);
    let source = manager.register;
    let follow = ToVolume::Follow {
        source,
        source_incarnation,
    };
    manager.order(1, follow);
}

/// The source begins an attempt, in which only what is marked is compared.
fn collect(manager: &mut Manager) {
    manager.world.machines[0].told.clear();
    let partner_incarnation = manager.world.incarnation(1);
    let collect = ToVolume::Collect {
        partner_incarnation,
        everything: false,
    };
    manager.order(0, collect);
}

/// Whether the source has said this in this attempt.
fn said(manager: &Manager, word: fn(&FromVolume) -> bool) -> bool {
    manager.world.machines[0].told.iter().any(word)
}

/// Until what may differ is known to the source; false: it is not, within a second.
fn wait_for_union(manager: &mut Manager) -> bool {
    for _ in 0..50 {
        manager.world.run(Time::from_millis(20));
        if said(manager, |it| matches!(it, FromVolume::UnionDurable { .. })) {
            return true;
        }
    }
    false
}

/// An attempt that comes as far as copying, and not to its end: a marked block cannot be read.
fn copying() -> Manager {
    let mut manager = parted();
    manager.world.machines[0].unreadable.insert(7);
    collect(&mut manager);
    assert!(wait_for_union(&mut manager));
    manager.order(0, ToVolume::Copy);
    manager.world.run(Time::from_secs(2));
    manager
}

/// The attempt comes to its end: both copies are the same.
fn finish(manager: &mut Manager) {
    manager.world.machines[0].unreadable.clear();
    for _ in 0..150 {
        if said(manager, |it| *it == FromVolume::JoinReady) {
            break;
        }
        manager.world.run(Time::from_millis(100));
    }
    assert!(said(manager, |it| *it == FromVolume::JoinReady));
    assert_eq!(manager.world.differences(), []);
}

#[test]
fn a_target_is_not_ready_while_its_disk_still_writes_for_an_older_attempt() {
    for told_anew in [false, true] {
        let mut manager = copying();
        manager.world.write(0, CLEAN, 1);
        while !manager.world.machines[1].is_writing() {
            assert!(manager.world.step(), "it is mirrored");
        }
        manager.world.machines[1].hold();
        manager.world.run(Time::from_millis(20));
        manager.order(0, ToVolume::Alone);
        manager.world.write(0, CLEAN, 1);
        manager.world.machines[0].unreadable.clear();
        if told_anew {
            follow(&mut manager);
        }
        collect(&mut manager);
        let begun = wait_for_union(&mut manager);
        if begun {
            manager.order(0, ToVolume::Copy);
            manager.world.run(Time::from_secs(2));
        }
        manager.world.machines[1].let_go();
        manager.world.run(Time::from_millis(20));
        if !begun {
            assert!(wait_for_union(&mut manager), "the disk has nothing more");
            manager.order(0, ToVolume::Copy);
        }
        finish(&mut manager);
        assert_eq!(manager.world.machines[1].value(CLEAN), 2);
    }
}

#[test]
fn a_target_gets_no_write_whose_intent_is_not_durable_at_the_source() {
    for again in [false, true] {
        let mut manager = copying();
        let before = manager.world.machines[1].value(CLEAN);
        let write = manager.world.write(0, CLEAN, 1);
        while !manager.world.machines[0].is_writing_metadata() {
            assert!(manager.world.step(), "its region is set");
        }
        manager.world.machines[0].hold();
        if again {
            manager.world.cut(0);
            manager.world.connect();
        }
        manager.world.run(Time::from_secs(1));
        // Both may lose their power now, and nothing is marked here.
        assert_eq!(manager.world.machines[1].value(CLEAN), before);
        manager.world.machines[0].let_go();
        manager.world.run(Time::from_secs(1));
        assert_eq!(manager.world.result(write), Some(Ok(())));
        assert_ne!(
            manager.world.machines[1].value(CLEAN),
            before,
            "it is mirrored"
        );
        finish(&mut manager);
    }
}

#[test]
fn pieces_that_were_being_written_when_they_were_read_are_not_equal() {
    let mut manager = parted();
    collect(&mut manager);
    assert!(wait_for_union(&mut manager));
    let write = manager.world.write(0, MARKED, 1);
    while !manager.world.machines[0].is_writing() {
        assert!(manager.world.step(), "it is alone and writes");
    }
    manager.world.machines[0].hold();
    // Both copies hold what was there before.
    manager.order(0, ToVolume::Copy);
    manager.world.run(Time::from_secs(2));
    manager.world.machines[0].let_go();
    manager.world.run(Time::from_millis(20));
    finish(&mut manager);
    assert_eq!(manager.world.result(write), Some(Ok(())));
}

#[test]
fn what_was_mirrored_and_not_stored_is_dirty_when_the_attempt_ends() {
    let mut manager = copying();
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    let write = manager.world.write(0, CLEAN, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), Some(Ok(())));
    manager.crash(1, false);
    manager.order(0, ToVolume::Alone);
    return_of_the_target(&mut manager);
    manager.world.machines[0].unreadable.clear();
    collect(&mut manager);
    assert!(wait_for_union(&mut manager));
    manager.order(0, ToVolume::Copy);
    finish(&mut manager);
    assert_eq!(manager.world.machines[1].value(CLEAN), 1);
}

#[test]
fn a_write_for_which_there_is_no_channel_is_copied_when_there_is_one() {
    let mut manager = copying();
    for which in 0..manager.world.channels.len() {
        manager.world.cut(which);
    }
    manager.world.run(Time::from_millis(20));
    let write = manager.world.write(0, CLEAN, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), Some(Ok(())));
    manager.world.connect();
    finish(&mut manager);
    assert_eq!(manager.world.machines[1].value(CLEAN), 1);
}

/// A target that is slow takes no more than so many; the others are copied later.
#[test]
fn writes_that_are_too_many_to_be_mirrored_are_copied() {
    let mut manager = copying();
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    // One in each chunk.
    let places = (0..300).map(|place| CLEAN + 16 * place);
    for place in places.clone() {
        let write = manager.world.write(0, place, 1);
        manager.world.run(Time::ZERO);
        assert_eq!(manager.world.result(write), Some(Ok(())));
    }
    for channel in &mut manager.world.channels {
        channel.stuck = false;
    }
    finish(&mut manager);
    for place in places {
        assert_eq!(manager.world.machines[1].value(place), 1, "{place}");
    }
}
