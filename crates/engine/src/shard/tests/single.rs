//! One shard and its initiators.

use super::initiator::{BUSY, GOOD, NO_UNIT, Session};
use super::world::{BLOCK, World};
use lockstep_mirror::control::Time;

/// A node with so many slots and one volume, and an initiator.
fn single(slots: u32) -> (World, Session) {
    let mut world = World::new(&[slots]);
    world.attach(0, 1, 0);
    world.serve(1);
    let session = Session::login(&mut world, 0);
    (world, session)
}

#[test]
fn what_is_written_is_read() {
    let (mut world, mut session) = single(8);
    let write = session.write(&mut world, 0, 7, 0xa1);
    assert_eq!(session.answer(&mut world, write), Some(GOOD));
    let announced = session.announce(&mut world, 0, 8);
    assert_eq!(session.answer(&mut world, announced), None);
    session.send(&mut world, announced, 0xa2);
    assert_eq!(session.answer(&mut world, announced), Some(GOOD));
    for (block, value) in [(7, 0xa1), (8, 0xa2), (9, 0)] {
        let read = session.read(&mut world, 0, block);
        let answer = session.answer(&mut world, read).expect("it was answered");
        assert_eq!((answer.status, answer.data.len()), (0, BLOCK as usize));
        assert!(answer.data.iter().all(|byte| *byte == value));
    }
    assert_eq!(world.nodes[0].used(), 0);
}

#[test]
fn a_command_that_finds_no_buffer_is_busy_after_a_while() {
    let (mut world, mut session) = single(8);
    world.nodes[0].held = true;
    // Six of eight slots are for initiators.
    let running: [u32; 6] = core::array::from_fn(|at| {
        let at = u32::try_from(at).unwrap();
        session.write(&mut world, 0, at, 1)
    });
    let starved = session.announce(&mut world, 0, 50);
    world.pass(Time::from_millis(900));
    assert_eq!(session.answer(&mut world, starved), None);
    world.pass(Time::from_millis(200));
    assert_eq!(session.answer(&mut world, starved), Some(BUSY));
    // One that waits for less is served as soon as there is a buffer.
    let patient = session.announce(&mut world, 0, 51);
    world.pass(Time::from_millis(500));
    world.nodes[0].held = false;
    world.run();
    for write in running {
        assert_eq!(session.answer(&mut world, write), Some(GOOD));
    }
    session.send(&mut world, patient, 2);
    assert_eq!(session.answer(&mut world, patient), Some(GOOD));
    assert_eq!(world.nodes[0].used(), 0);
}

/// They hung for ever, and their buffers were lost.
#[test]
fn the_commands_of_a_volume_that_goes_are_ended() {
    let (mut world, mut session) = single(8);
    let coming = session.announce(&mut world, 0, 20);
    world.nodes[0].held = true;
    let running: [u32; 5] = core::array::from_fn(|at| {
        let at = u32::try_from(at).unwrap();
        session.write(&mut world, 0, at, 1)
    });
    // Behind one that is being written.
    let starved = session.announce(&mut world, 0, 50);
    world.detach(0, 1);
    for task in running.into_iter().chain([starved]) {
        assert_eq!(session.answer(&mut world, task), Some(NO_UNIT));
    }
    // Its data was asked for, and is taken.
    assert_eq!(session.answer(&mut world, coming), None);
    session.send(&mut world, coming, 9);
    assert_eq!(session.answer(&mut world, coming), Some(NO_UNIT));
    let after = session.read(&mut world, 0, 0);
    assert_eq!(session.answer(&mut world, after), Some(NO_UNIT));
    // The disk has the blocks of the five that it is writing still.
    assert_eq!(world.nodes[0].used(), 5);
    // Their places are not given away before: the ends of those writes name them.
    world.attach(0, 2, 0);
    world.serve(2);
    assert_eq!(world.nodes[0].shard.volumes.len(), 2);
    world.nodes[0].held = false;
    world.run();
    assert_eq!(world.nodes[0].used(), 0);
    world.attach(0, 3, 1);
    assert_eq!(world.nodes[0].shard.volumes.len(), 2);
}

#[test]
fn volumes_that_come_and_go_take_no_more_places_than_there_are_at_once() {
    let (mut world, mut session) = single(8);
    for volume in 2..40 {
        world.detach(0, volume - 1);
        world.attach(0, volume, 0);
        world.serve(volume);
        // REPORTED LUNS DATA HAS CHANGED may come first.
        let tries = [(); 4].map(|()| session.write(&mut world, 0, 3, 0x5a));
        let last = session.answer(&mut world, tries[3]);
        assert_eq!(last, Some(GOOD));
        assert_eq!(world.nodes[0].stored(volume, 3), 0x5a);
    }
    assert_eq!(world.nodes[0].shard.volumes.len(), 1);
    assert_eq!(world.nodes[0].used(), 0);
}
