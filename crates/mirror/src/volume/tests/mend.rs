//! Stories of blocks that one member cannot read, or that differ: they are rewritten from the other
//! one, and an initiator's write of the same place wins.

use super::machine::BLOCK;
use super::manager::Manager;
use super::stories::{pair, settle};
use crate::control::{CacheMode, FromVolume, NodeId, Repair, Time, ToVolume, Verified};
use crate::operation::Extent;
use crate::volume::VolumeStatus;
use crate::volume::mend::REPAIRS_MAX;
use crate::volume_action::Refusal;
use alloc::vec::Vec;

fn status(manager: &Manager, node: usize) -> VolumeStatus {
    let volume = manager.world.machines[node].volume.as_ref();
    volume.unwrap().status()
}

fn run(manager: &mut Manager, time: Time) {
    for _ in 0..time.as_millis().div_ceil(50) {
        manager.heartbeat();
        manager.world.run(Time::from_millis(50));
    }
}

#[test]
fn a_read_that_fails_is_answered_with_the_partners_blocks_which_are_rewritten() {
    for node in 0..2 {
        let mut manager = pair(CacheMode::WriteThrough);
        manager.world.write(0, 7, 3);
        run(&mut manager, Time::ZERO + Time::from_millis(50));
        manager.world.machines[node].unreadable.insert(8);
        let reads = [
            manager.world.read(node, 6, 4),
            manager.world.read(node, 8, 1),
        ];
        run(&mut manager, Time::from_secs(1));
        for read in reads {
            assert_eq!(manager.world.result(read), Some(Ok(())), "node {node}");
        }
        assert_eq!(manager.world.read_values[&reads[0]], [0, 1, 1, 1]);
        assert!(
            manager.world.machines[node].unreadable.is_empty(),
            "it was rewritten"
        );
        let counts = status(&manager, node).counts;
        assert!(counts.repaired >= 1 && counts.unreadable == 2, "{counts:?}");
        let extent = Extent {
            offset: 6 * BLOCK,
            len: 4 * BLOCK,
        };
        let told = &manager.world.machines[node].told;
        assert!(told.contains(&FromVolume::Repaired { extent }), "{told:?}");
        run(&mut manager, Time::from_secs(1));
        for machine in &manager.world.machines {
            assert_eq!(machine.live_buffers(), 0);
        }
        manager.listen();
        assert!(manager.is_whole(), "nobody was put out");
    }
}

#[test]
fn a_write_that_comes_while_blocks_are_repaired_wins() {
    for (node, writer, seed) in (0..40).map(|n| (n % 2, n / 2 % 2, n)) {
        let mut manager = super::stories::pair_of(CacheMode::WriteThrough, 1 + seed as u64);
        manager.world.write(0, 7, 3);
        run(&mut manager, Time::from_millis(50));
        manager.world.machines[node].unreadable.insert(8);
        let read = manager.world.read(node, 8, 1);
        for _ in 0..seed {
            manager.world.step();
        }
        let write = manager.world.write(writer, 8, 1);
        run(&mut manager, Time::from_secs(2));
        assert_eq!(manager.world.result(read), Some(Ok(())));
        assert_eq!(manager.world.result(write), Some(Ok(())));
        for machine in &manager.world.machines {
            assert_eq!(
                machine.value(8),
                2,
                "reader {node}, writer {writer}, step {seed}"
            );
        }
    }
}

#[test]
fn what_neither_can_read_is_a_medium_error_and_so_is_what_the_only_one_cannot() {
    let mut manager = pair(CacheMode::WriteThrough);
    for machine in &mut manager.world.machines {
        machine.unreadable.insert(8);
    }
    let reads = [0, 1].map(|node| manager.world.read(node, 8, 1));
    run(&mut manager, Time::from_secs(2));
    for read in reads {
        assert_eq!(manager.world.result(read), Some(Err(Refusal::Unreadable)));
    }
    manager.crash(1, false);
    manager.eject(0);
    manager.listen();
    manager.adopt(0);
    run(&mut manager, Time::from_secs(3));
    manager.listen();
    manager.adopt(0);
    let read = manager.world.read(0, 8, 1);
    run(&mut manager, Time::from_secs(3));
    assert_eq!(manager.world.result(read), Some(Err(Refusal::Unreadable)));
}

#[test]
fn a_disk_with_too_many_unreadable_blocks_is_put_out() {
    for node in 0..2 {
        let mut manager = pair(CacheMode::WriteThrough);
        let places = 0..REPAIRS_MAX as u64 + 1;
        manager.world.machines[node]
            .unreadable
            .extend(places.clone());
        for place in places {
            let told = &manager.world.machines[node].told;
            assert!(!told.contains(&FromVolume::DiskFailed), "after {place}");
            let read = manager.world.read(node, place, 1);
            run(&mut manager, Time::from_millis(200));
            assert!(manager.world.result(read).is_some());
        }
        let told = &manager.world.machines[node].told;
        assert!(told.contains(&FromVolume::DiskFailed));
    }
}

#[test]
fn a_block_that_stays_unreadable_though_it_was_written_means_that_the_disk_failed() {
    for node in 0..2 {
        let mut manager = pair(CacheMode::WriteThrough);
        manager.world.machines[node].unreadable.insert(8);
        manager.world.machines[node].dead.insert(8);
        let read = manager.world.read(node, 8, 1);
        run(&mut manager, Time::from_secs(2));
        assert_eq!(
            manager.world.result(read),
            Some(Err(Refusal::NotServed)),
            "the other path has it"
        );
        let told = &manager.world.machines[node].told;
        assert!(told.contains(&FromVolume::DiskFailed));
    }
}

/// Plants other contents on one node's disk, and verifies from the owner (node 0).
fn verify(repair: Repair, rotten: &[(usize, u64)]) -> (Manager, Verified) {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.write(0, 5, 2);
    manager.world.write(1, 5000, 3);
    run(&mut manager, Time::from_millis(100));
    for (node, block) in rotten {
        manager.world.machines[*node].durable.insert(*block, 77);
    }
    manager.world.machines[1].unreadable.insert(9000);
    manager.world.machines[0].told.clear();
    manager.order(0, ToVolume::Verify { repair });
    assert!(status(&manager, 0).verify.unwrap().running);
    run(&mut manager, Time::from_secs(4));
    let ended = status(&manager, 0).verify.unwrap();
    assert!(!ended.running, "{ended:?}");
    let told = &manager.world.machines[0].told;
    assert!(told.contains(&FromVolume::Verified(ended.found)));
    for machine in &manager.world.machines {
        assert_eq!(machine.live_buffers(), 0);
    }
    (manager, ended.found)
}

#[test]
fn a_verification_sees_all_of_both_copies_and_repairs_what_cannot_be_read() {
    let (manager, found) = verify(Repair::Report, &[]);
    let expected = Verified {
        complete: true,
        done: super::world::SIZE,
        differing: 0,
        repaired: 0,
        unreadable: 1,
    };
    assert_eq!(found, expected);
    assert!(manager.world.machines[1].unreadable.is_empty());
}

#[test]
fn differences_are_named_and_left_or_rewritten_from_the_right_side() {
    let rotten = [(0, 6), (1, 5001)];
    let (manager, found) = verify(Repair::Report, &rotten);
    assert_eq!((found.differing, found.repaired), (2, 0));
    assert_eq!(manager.world.differences(), [(6, 77, 1), (5001, 1, 77)]);
    let extent = Extent {
        offset: 5000 * BLOCK / (64 << 10) * (64 << 10),
        len: 64 << 10,
    };
    let told = &manager.world.machines[0].told;
    assert!(told.contains(&FromVolume::Differs { extent }), "{told:?}");
    for (repair, values) in [
        (Repair::Owner, (77, 1)),
        (Repair::Node(NodeId(1)), (77, 1)),
        (Repair::Node(NodeId(2)), (1, 77)),
    ] {
        let (manager, found) = verify(repair, &rotten);
        assert_eq!((found.differing, found.repaired), (2, 2), "{repair:?}");
        assert_eq!(manager.world.differences(), [], "{repair:?}");
        let machine = &manager.world.machines[0];
        assert_eq!(
            (machine.value(6), machine.value(5001)),
            values,
            "{repair:?}"
        );
    }
}

#[test]
fn only_the_owner_of_two_members_verifies_and_a_change_interrupts_it() {
    let mut manager = pair(CacheMode::WriteThrough);
    let repair = Repair::Report;
    manager.order(1, ToVolume::Verify { repair });
    let interrupted = FromVolume::Verified(Verified::default());
    assert!(manager.world.machines[1].told.contains(&interrupted));
    manager.order(0, ToVolume::Verify { repair });
    for _ in 0..30 {
        manager.world.step();
    }
    manager.crash(1, false);
    manager.eject(0);
    manager.listen();
    manager.adopt(0);
    for _ in 0..4 {
        settle(&mut manager);
    }
    let ended = status(&manager, 0).verify.unwrap();
    assert!(!ended.running && !ended.found.complete, "{ended:?}");
    assert!(manager.is_whole());
}

#[test]
fn a_read_whose_repair_ends_with_the_partner_is_answered() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.heartbeat();
    manager.world.machines[0].unreadable.insert(7);
    let read = manager.world.read(0, 7, 1);
    let asked = |manager: &Manager| manager.world.channels.iter().any(|it| it.queued(0) > 0);
    while !asked(&manager) {
        assert!(manager.world.step(), "the partner is asked for the block");
    }
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    manager.crash(1, false);
    manager.eject(0);
    manager.listen();
    manager.adopt(0);
    for _ in 0..100 {
        manager.world.run(Time::from_millis(20));
        manager.listen();
    }
    let result = manager.world.result(read);
    assert_eq!(result, Some(Err(Refusal::Unreadable)));
    let write = manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), Some(Ok(())));
}

/// Else the replica would be given, after a write, what the owner held before it.
#[test]
fn what_is_being_written_is_not_read_for_a_repair() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.read(1, 7, 1);
    run(&mut manager, Time::from_millis(50));
    manager.world.machines[1].unreadable.insert(8);
    let stick = |manager: &mut Manager, stuck| {
        for channel in &mut manager.world.channels {
            channel.stuck = stuck;
        }
    };
    stick(&mut manager, true);
    let read = manager.world.read(1, 8, 1);
    run(&mut manager, Time::from_millis(50));
    // The replica has asked; before its question comes, a write begins.
    manager.world.write(0, 8, 1);
    while !manager.world.machines[0].is_writing() {
        assert!(manager.world.step(), "it comes to the disk");
    }
    manager.world.machines[0].hold();
    stick(&mut manager, false);
    run(&mut manager, Time::from_millis(200));
    manager.world.machines[0].let_go();
    run(&mut manager, Time::from_secs(2));
    assert_eq!(manager.world.result(read), Some(Ok(())));
    assert_eq!(manager.world.differences(), []);
}

/// What the partner passed over was not asked for again: after 5 s it was put out.
#[test]
fn more_unreadable_blocks_than_the_partner_reads_at_once_are_repaired() {
    let mut manager = pair(CacheMode::WriteThrough);
    let places = (0..40).map(|place| place * 20);
    manager.world.machines[0].unreadable.extend(places.clone());
    let reads: Vec<_> = places
        .map(|place| manager.world.read(0, place, 1))
        .collect();
    // The partner's disk takes its time: the range of each is locked for long.
    manager.world.machines[1].hung_until = manager.world.now + Time::from_secs(3);
    run(&mut manager, Time::from_millis(3500));
    for read in reads {
        assert_eq!(manager.world.result(read), Some(Ok(())));
    }
    assert_eq!(status(&manager, 1).counts.bad_frames, 0);
    assert!(manager.world.machines[0].unreadable.is_empty());
}

/// A partner that answers everything within 5 s is not put out for what it was not asked yet.
#[test]
fn a_repair_that_waits_for_its_turn_is_not_late() {
    let mut manager = pair(CacheMode::WriteThrough);
    let places = (0..40).map(|place| place * 20);
    manager.world.machines[0].unreadable.extend(places.clone());
    for place in places {
        manager.world.read(0, place, 1);
    }
    manager.world.machines[0].told.clear();
    for _ in 0..3 {
        manager.world.machines[1].hung_until = manager.world.now + Time::from_secs(9);
        run(&mut manager, Time::from_secs(3));
        // What hung is answered; what is asked for then hangs again.
        manager.world.machines[1].hung_until = Time::ZERO;
        manager.world.run(Time::ZERO);
    }
    let told = &manager.world.machines[0].told;
    assert!(!told.contains(&FromVolume::Late));
    assert!(manager.world.machines[0].unreadable.is_empty());
}

/// The same for comparisons: what is passed over would be asked for again after 10 s only, and a
/// step that holds its range is late by then.
#[test]
fn a_verification_asks_for_no_more_comparisons_than_the_partner_makes_at_once() {
    let mut manager = pair(CacheMode::WriteThrough);
    // Each step falls into its smallest pieces.
    let places = (0..32).map(|place| place * 32);
    manager.world.machines[1].unreadable.extend(places);
    let repair = Repair::Report;
    manager.order(0, ToVolume::Verify { repair });
    for _ in 0..6 {
        // All questions come before any is answered, all answers before anything is asked.
        manager.world.machines[1].hung_until = manager.world.now + Time::from_secs(9);
        run(&mut manager, Time::from_millis(50));
        manager.world.machines[1].hung_until = Time::ZERO;
        for channel in &mut manager.world.channels {
            channel.stuck = true;
        }
        run(&mut manager, Time::from_millis(50));
        for channel in &mut manager.world.channels {
            channel.stuck = false;
        }
    }
    run(&mut manager, Time::from_secs(5));
    let ended = status(&manager, 0).verify.unwrap();
    assert!(!ended.running && ended.found.complete, "{ended:?}");
    assert_eq!(ended.found.unreadable, 32);
    assert_eq!(status(&manager, 1).counts.bad_frames, 0);
}

#[test]
fn a_write_under_way_is_no_difference() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.machines[0].told.clear();
    manager.world.write(0, 5, 1);
    while !manager.world.machines[1].is_writing() {
        assert!(manager.world.step(), "it comes to both disks");
    }
    manager.world.machines[1].hold();
    run(&mut manager, Time::from_millis(50));
    let values = [0, 1].map(|node| manager.world.machines[node].value(5));
    assert_eq!(values, [1, 0]);
    let repair = Repair::Owner;
    manager.order(0, ToVolume::Verify { repair });
    run(&mut manager, Time::from_secs(2));
    manager.world.machines[1].let_go();
    run(&mut manager, Time::from_secs(4));
    let ended = status(&manager, 0).verify.unwrap();
    assert!(!ended.running && ended.found.complete, "{ended:?}");
    assert_eq!((ended.found.differing, ended.found.repaired), (0, 0));
}
