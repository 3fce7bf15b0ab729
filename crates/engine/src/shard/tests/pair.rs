//! Two shards that mirror a volume; the first one is the owner.

use super::initiator::{BUSY, GOOD, NO_UNIT, Session};
use super::world::World;
use crate::interface::{Action, Event, ToShard};
use alloc::vec::Vec;
use lockstep_mirror::control::{FromVolume, Incarnation, NodeId, SlowPart, Time};

/// Two nodes with so many slots each, a data connection, and a mirrored volume.
fn pair(slots: [u32; 2]) -> World {
    let mut world = World::new(&slots);
    world.connect_nodes();
    world.heartbeat();
    for node in 0..2 {
        world.attach(node, 1, 0);
    }
    world.serve(1);
    world
}

/// Its writes through the replica were answered BUSY until the next heartbeat.
#[test]
fn a_volume_that_comes_after_the_last_heartbeat_forwards_with_its_token() {
    let mut world = pair([8, 8]);
    let mut session = Session::login(&mut world, 1);
    let write = session.write(&mut world, 0, 7, 0x77);
    assert_eq!(session.answer(&mut world, write), Some(GOOD));
    for node in &world.nodes {
        assert_eq!((node.stored(1, 7), node.used()), (0x77, 0));
    }
}

/// The acknowledgement that would have made room waited behind a write for which there was none,
/// until the oldest one was given up after four seconds.
#[test]
fn a_forward_without_a_buffer_does_not_keep_acknowledgements_behind_it_for_long() {
    let mut world = pair([4, 32]);
    let mut owners = Session::login(&mut world, 0);
    let mut replicas = Session::login(&mut world, 1);
    world.nodes[1].held = true;
    let first = owners.write(&mut world, 0, 0, 1);
    // They wait for the first one's range, and use up the owner's slots.
    let room: Vec<u32> = (2..5)
        .map(|value| replicas.write(&mut world, 0, 0, value))
        .collect();
    assert_eq!(world.nodes[0].used(), 4);
    let starved: Vec<u32> = (5..8)
        .map(|value| replicas.write(&mut world, 0, 0, value))
        .collect();
    world.nodes[1].held = false;
    world.run();
    // `Stored` of the first one is behind three forwards now.
    world.pass(Time::from_millis(900));
    assert_eq!(owners.answer(&mut world, first), None);
    world.pass(Time::from_millis(200));
    assert_eq!(owners.answer(&mut world, first), Some(GOOD));
    for write in room {
        assert_eq!(replicas.answer(&mut world, write), Some(GOOD));
    }
    for write in starved {
        assert_eq!(replicas.answer(&mut world, write), Some(BUSY));
    }
    for node in &world.nodes {
        assert_eq!((node.stored(1, 0), node.used()), (4, 0));
    }
    // The connection goes on, and so does patience: the next drought begins anew.
    let next = replicas.write(&mut world, 0, 0, 9);
    assert_eq!(replicas.answer(&mut world, next), Some(GOOD));
}

#[test]
fn a_forward_that_finds_a_buffer_in_time_is_carried_out() {
    let mut world = pair([4, 32]);
    let mut owners = Session::login(&mut world, 0);
    let mut replicas = Session::login(&mut world, 1);
    world.nodes[0].held = true;
    let own: Vec<u32> = (0..3)
        .map(|block| owners.write(&mut world, 0, block, 1))
        .collect();
    let forwards: Vec<u32> = (10..14)
        .map(|block| replicas.write(&mut world, 0, block, 2))
        .collect();
    world.pass(Time::from_millis(800));
    world.nodes[0].held = false;
    world.run();
    for write in own {
        assert_eq!(owners.answer(&mut world, write), Some(GOOD));
    }
    for write in forwards {
        assert_eq!(replicas.answer(&mut world, write), Some(GOOD));
    }
}

#[test]
fn the_partners_frames_for_a_volume_that_went_keep_nothing() {
    let mut world = pair([32, 4]);
    for node in 0..2 {
        world.attach(node, 2, 1);
    }
    world.serve(2);
    let mut session = Session::login(&mut world, 0);
    world.nodes[1].held = true;
    // Four are at the replica's disk, one waits for a slot, others behind it in the socket.
    let writes: Vec<u32> = (0..8)
        .map(|block| session.write(&mut world, 0, block, 1))
        .collect();
    assert_eq!(world.nodes[1].used(), 4);
    assert_ne!(world.nodes[1].unread(), 0);
    world.detach(1, 1);
    assert_eq!(world.nodes[1].unread(), 0, "nobody waits for a slot now");
    world.nodes[1].held = false;
    world.run();
    assert_eq!(world.nodes[1].used(), 0);
    for write in writes {
        assert_eq!(session.answer(&mut world, write), None, "one node has it");
    }
    // What comes later for it is passed over, and the other volume goes on.
    session.write(&mut world, 0, 9, 1);
    let other = session.write(&mut world, 1, 9, 1);
    assert_eq!(session.answer(&mut world, other), Some(GOOD));
    assert_eq!(world.nodes[1].used(), 0);
    world.detach(0, 1);
    let gone = session.read(&mut world, 0, 0);
    assert_eq!(session.answer(&mut world, gone), Some(NO_UNIT));
    assert_eq!(world.nodes[0].used(), 0);
}

#[test]
fn a_write_is_as_old_as_its_command_however_late_its_data_come() {
    for node in 0..2 {
        let mut world = pair([8, 8]);
        let mut session = Session::login(&mut world, node);
        let write = session.announce(&mut world, 0, 7);
        for _ in 0..22 {
            world.pass(Time::from_millis(200));
            world.heartbeat();
        }
        // Its initiator may have written on the other path meanwhile.
        session.send(&mut world, write, 0x77);
        world.pass(Time::from_millis(200));
        assert_eq!(session.answer(&mut world, write), Some(BUSY));
        assert_eq!(world.nodes[node].stored(1, 7), 0);
    }
}

/// A channel on which something came since is not given up, nor one of another path.
#[test]
fn only_silent_channels_of_a_silent_path_are_given_up() {
    let mut world = pair([8, 8]);
    let mut session = Session::login(&mut world, 1);
    world.pass(Time::from_millis(300));
    let before = world.now;
    world.pass(Time::from_millis(10));
    let write = session.write(&mut world, 0, 7, 0x77);
    assert_eq!(session.answer(&mut world, write), Some(GOOD));
    for (path, since) in [(1, world.now), (0, before)] {
        for node in 0..2 {
            world.order(node, ToShard::PathSilent { path, since });
        }
    }
    let paths = |world: &mut World, node: usize| world.nodes[node].shard.counters().paths.clone();
    for node in 0..2 {
        let counted = paths(&mut world, node)[0];
        assert_eq!((counted.channels, counted.given_up), (1, 0));
        assert!(counted.sent_bytes > 0 && counted.received_bytes > 0);
    }
    let since = world.now;
    world.pass(Time::from_millis(500));
    for node in 0..2 {
        world.order(node, ToShard::PathSilent { path: 0, since });
        let counted = paths(&mut world, node)[0];
        assert_eq!((counted.channels, counted.given_up), (0, 1));
    }
    let write = session.write(&mut world, 0, 8, 0x88);
    assert_eq!(session.answer(&mut world, write), None);
    world.connect_nodes();
    assert_eq!(session.answer(&mut world, write), Some(GOOD));
}

#[test]
fn the_first_connection_of_each_link_is_dialed_before_the_second_of_any() {
    let mut world = World::new(&[8]);
    let mut actions = Vec::new();
    let order = ToShard::Partner {
        node: NodeId(2),
        me: NodeId(1),
        incarnation: Incarnation(1),
        addresses: 2,
        connections: 3,
        dial: true,
        secret: (*b"the same for both").into(),
        cluster: 7,
    };
    let now = world.now;
    let shard = &mut world.nodes[0].shard;
    shard.handle(now, Event::Order(order), &mut actions);
    let dialed = actions.iter().filter_map(|action| match action {
        Action::Dial { address, .. } => Some(*address),
        _ => None,
    });
    assert_eq!(dialed.collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1]);
}

/// Both nodes tell: one of its partner, the other of its disk.
#[test]
fn a_disk_that_becomes_far_slower_than_it_was_is_told_on_both_nodes() {
    let mut world = pair([8, 8]);
    let mut session = Session::login(&mut world, 0);
    for _ in 0..30 {
        for block in 0..40 {
            let write = session.write(&mut world, 0, block, 1);
            assert_eq!(session.answer(&mut world, write), Some(GOOD));
        }
        world.pass(Time::from_millis(1100));
        world.heartbeat();
    }
    for _ in 0..200 {
        world.nodes[1].held = true;
        let write = session.write(&mut world, 0, 7, 2);
        world.pass(Time::from_millis(200));
        world.nodes[1].held = false;
        world.run();
        assert_eq!(session.answer(&mut world, write), Some(GOOD));
        world.heartbeat();
    }
    let told = |node: &super::world::Machine| {
        let slow = node.told.iter().filter_map(|word| match word {
            FromVolume::Slow { part, begins, .. } => Some((*part, *begins)),
            _ => None,
        });
        slow.collect::<Vec<_>>()
    };
    assert_eq!(told(&world.nodes[0]), [(SlowPart::Partner, true)]);
    assert_eq!(told(&world.nodes[1]), [(SlowPart::Write, true)]);
    let slow = world.nodes[0].shard.counters().volumes[0].2.slow;
    assert!(slow.partner.is_some() && slow.write.is_none());
}
