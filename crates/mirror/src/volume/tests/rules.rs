//! Rules of `docs/replication.md` that random schedules miss when they are left out: each story
//! makes the rare moment, and fails without the line that its rule stands for.

use super::machine::BLOCK;
use super::manager::{Manager, Mode};
use super::stories;
use super::world::{SIZE, World};
use crate::control::{
    CacheMode, Configuration, FromVolume, Incarnation, Members, NodeId, Time, ToVolume,
};
use crate::metadata_layout::{REGION, dirty_offset};
use crate::volume::MAX_IN_FLIGHT;
use crate::volume_action::{Refusal, Ticket};
use alloc::vec::Vec;

/// Two members, the first one the owner, with two channels.
fn pair() -> Manager {
    stories::pair(CacheMode::WriteThrough)
}

/// The channel on which something of that node lies.
fn loaded(manager: &Manager, from: usize) -> usize {
    let channels = &manager.world.channels;
    let loaded = channels.iter().position(|it| it.queued(from) > 0);
    loaded.expect("it was sent just now")
}

fn stick(manager: &mut Manager, stuck: bool) {
    for channel in &mut manager.world.channels {
        channel.stuck = stuck;
    }
}

/// Forwards until one takes another channel than this one.
fn forward_past(manager: &mut Manager, stuck: usize) -> Vec<Ticket> {
    let mut forwards = Vec::new();
    while manager.world.channels[stuck].queued(1) == forwards.len() {
        forwards.push(manager.world.write(1, 7, 1));
        assert!(forwards.len() < 100, "the other channel is never taken");
    }
    forwards
}

#[test]
fn a_read_that_outlasts_the_lease_is_not_answered_without_another() {
    let mut manager = pair();
    manager.heartbeat();
    let read = manager.world.read(0, 7, 1);
    manager.world.pass(Time::from_millis(1600));
    while manager.world.step() {}
    let early = manager.world.result(read);
    assert_eq!(
        early, None,
        "the partner may have gone on without this node"
    );
    manager.heartbeat();
    manager.world.run(Time::from_millis(10));
    assert_eq!(manager.world.result(read), Some(Ok(())));
}

#[test]
fn the_owners_word_about_its_last_number_counts_from_when_it_was_asked_for() {
    let mut manager = pair();
    // What it knew is used up.
    manager.world.run(Time::from_secs(2));
    manager.heartbeat();
    manager.world.read(1, 7, 1);
    let asked = loaded(&manager, 1);
    // Only the question arrives; its answer lies in the channel for 1.4 s.
    stick(&mut manager, true);
    manager.world.channels[asked].stuck = false;
    manager.world.step();
    manager.world.channels[asked].stuck = true;
    assert_eq!(manager.world.channels[asked].queued(0), 1);
    for _ in 0..14 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(100));
    }
    // Only the answer arrives: what is asked then lies in a channel as well.
    manager.world.channels[asked].stuck = false;
    manager.world.step();
    stick(&mut manager, true);
    // What the owner sequences now does not come.
    manager.world.write(0, 7, 1);
    for _ in 0..3 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(100));
    }
    let late = manager.world.read(1, 7, 1);
    manager.world.run(Time::from_millis(10));
    let result = manager.world.result(late);
    assert_eq!(result, None, "the owner's word is 1.7 s old");
}

#[test]
fn an_operation_that_comes_again_after_its_commit_is_not_applied_again() {
    let mut manager = pair();
    manager.heartbeat();
    manager.world.write(0, 7, 1);
    let old = loaded(&manager, 0);
    manager.world.channels[old].stuck = true;
    // The owner loses the channel; what it sent lies in the replica's socket.
    manager.world.close_end(old, 0);
    manager.world.run(Time::from_millis(100));
    let newer = manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(100));
    assert_eq!(manager.world.result(newer), Some(Ok(())));
    // A later number tells the replica that both are committed.
    manager.world.write(0, 300, 1);
    manager.world.run(Time::from_millis(100));
    manager.world.channels[old].stuck = false;
    manager.world.run(Time::from_millis(100));
    assert_eq!(manager.world.differences(), []);
    assert_eq!(manager.world.machines[1].value(7), 2);
}

#[test]
fn no_number_is_sent_that_makes_the_receiver_forget_an_unanswered_one() {
    let mut manager = pair();
    manager.heartbeat();
    let sequenced = |manager: &Manager| {
        let volume = manager.world.machines[0].volume.as_ref();
        volume.expect("it runs").status().counts.sequenced
    };
    let before = sequenced(&manager);
    manager.world.write(0, 0, 1);
    let stuck = loaded(&manager, 0);
    manager.world.channels[stuck].stuck = true;
    for block in 1..MAX_IN_FLIGHT + 50 {
        manager.world.write(0, block * 2, 1);
        while manager.world.step() {}
    }
    assert_eq!(sequenced(&manager) - before, MAX_IN_FLIGHT);
    manager.world.channels[stuck].stuck = false;
    manager.world.run(Time::from_millis(200));
    assert_eq!(manager.world.differences(), []);
}

#[test]
fn a_forward_that_waited_too_long_at_the_owner_is_refused() {
    let mut manager = pair();
    manager.heartbeat();
    manager.world.write(0, 7, 1);
    let stuck = loaded(&manager, 0);
    manager.world.channels[stuck].stuck = true;
    // One comes, and waits for the range.
    let forwards = forward_past(&mut manager, stuck);
    while manager.world.step() {}
    for _ in 0..46 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(100));
    }
    for forward in &forwards {
        assert_eq!(manager.world.result(*forward), Some(Err(Refusal::Busy)));
    }
    manager.world.channels[stuck].stuck = false;
    manager.world.run(Time::from_millis(100));
    let values = [0, 1].map(|node| manager.world.machines[node].value(7));
    assert_eq!(values, [1, 1], "its initiator has gone on elsewhere");
}

#[test]
fn a_forward_is_not_given_up_while_the_owner_may_still_take_it() {
    let mut manager = pair();
    manager.heartbeat();
    manager.world.write(0, 7, 1);
    let stuck = loaded(&manager, 0);
    manager.world.channels[stuck].stuck = true;
    let forwards = [manager.world.write(1, 7, 1), manager.world.write(1, 7, 1)];
    for _ in 0..30 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(100));
    }
    for forward in forwards {
        assert_eq!(manager.world.result(forward), None, "it is 3 s old");
    }
    manager.world.channels[stuck].stuck = false;
    manager.world.run(Time::from_millis(100));
    for forward in forwards {
        assert_eq!(manager.world.result(forward), Some(Ok(())));
    }
}

#[test]
fn a_grant_is_obeyed_though_its_initiator_was_told_busy() {
    let mut manager = pair();
    manager.heartbeat();
    let forward = manager.world.write(1, 7, 1);
    let channel = loaded(&manager, 1);
    while manager.world.channels[channel].queued(0) == 0 {
        assert!(manager.world.step(), "the owner grants it");
    }
    stick(&mut manager, true);
    for _ in 0..46 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(100));
    }
    let result = manager.world.result(forward);
    assert_eq!(result, Some(Err(Refusal::Busy)));
    stick(&mut manager, false);
    manager.world.run(Time::from_millis(100));
    assert_eq!(manager.world.differences(), []);
    let volume = manager.world.machines[0].volume.as_ref();
    assert_eq!(volume.expect("it runs").status().running, 0);
}

/// Nobody may send before the other one listens, and whoever hears the other one say that it is
/// there agrees: its own word may have come too early, and is not said again.
#[test]
fn whoever_comes_first_to_a_configuration_waits_for_the_other() {
    let mut manager = pair();
    manager.start_hand_over(0);
    while manager.hand_overs == 0 {
        manager.world.run(Time::from_millis(20));
        manager.listen();
    }
    // Node 0 is the new replica, and there; what it says finds the owner of before.
    manager.world.run(Time::from_millis(20));
    let early = manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(20));
    manager.adopt(1);
    let late = [
        manager.world.write(0, 300, 1),
        manager.world.write(1, 900, 1),
    ];
    manager.world.run(Time::from_millis(100));
    for write in [early, late[0], late[1]] {
        assert_eq!(manager.world.result(write), Some(Ok(())));
    }
    assert_eq!(manager.world.differences(), []);
}

/// Most random volumes are so small that the survivor's own intents cover all of them.
#[test]
fn what_only_the_returning_node_had_begun_to_write_is_compared() {
    let mut manager = pair();
    // Until no region is intended any more.
    for _ in 0..50 {
        manager.heartbeat();
        manager.world.run(Time::from_secs(1));
    }
    let block = 2 * REGION / BLOCK + 5;
    stick(&mut manager, true);
    manager.world.write(0, block, 1);
    while manager.world.step() {}
    manager.crash(0, false);
    let survivor = manager.world.machines[1].volume.as_ref();
    assert_eq!(survivor.expect("it runs").status().intents, 0);
    for _ in 0..5 {
        stories::settle(&mut manager);
    }
    assert!(manager.is_whole());
    assert_eq!(manager.world.machines[1].value(block), 0);
    assert_eq!(manager.world.differences(), []);
}

#[test]
fn a_copy_that_the_target_never_stored_is_made_again() {
    let mut manager = pair();
    for _ in 0..50 {
        manager.heartbeat();
        manager.world.run(Time::from_secs(1));
    }
    manager.crash(1, false);
    manager.eject(0);
    manager.listen();
    manager.adopt(0);
    // Its promises to the partner end meanwhile.
    for _ in 0..100 {
        manager.world.run(Time::from_millis(20));
        manager.listen();
    }
    let block = 2 * REGION / BLOCK + 5;
    let write = manager.world.write(0, block, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), Some(Ok(())));
    while manager.nodes[1].mode != Mode::Target {
        manager.heal();
        manager.world.run(Time::from_millis(20));
        manager.listen();
    }
    manager.world.connect();
    // Nobody writes: the only operation under way is the copy.
    let under_way = |manager: &Manager| {
        let source = manager.world.machines[0].volume.as_ref();
        source.expect("it runs").status().running > 0
    };
    while !under_way(&manager) {
        if !manager.world.step() {
            manager.world.pass(Time::from_millis(20));
        }
        manager.listen();
    }
    stick(&mut manager, true);
    manager.crash(1, false);
    assert_eq!(manager.world.machines[1].value(block), 0);
    for _ in 0..5 {
        stories::settle(&mut manager);
    }
    assert!(manager.is_whole());
    assert_eq!(manager.world.differences(), []);
}

/// A copy of everything begins: what the disk holds of the marks is looked at when the target may
/// be overwritten. A source that crashed then would take the target for one that lacks nothing.
#[test]
fn the_union_is_on_disk_before_it_is_offered() {
    let mut world = World::new(CacheMode::WriteThrough, 1);
    world.machines[0].start(1, Some(NodeId(2)));
    let give = |world: &mut World, order| {
        world.with(0, |volume, now, out| volume.order(now, order, out));
    };
    give(&mut world, ToVolume::Open { blank: true });
    while world.step() {}
    let configuration = Configuration {
        epoch: 1,
        generation: 1,
        members: Members::only(NodeId(1)),
        owner: NodeId(1),
        unilateral: false,
        witness: None,
    };
    let serve = ToVolume::Serve {
        configuration,
        partner_incarnation: None,
        not_before: Time::ZERO,
        joined: false,
    };
    give(&mut world, serve);
    while world.step() {}
    let collect = ToVolume::Collect {
        partner_incarnation: Incarnation(2),
        everything: true,
    };
    give(&mut world, collect);
    let page = usize::try_from(dirty_offset(SIZE)).expect("the area is small");
    let offered = |world: &World| {
        let durable = |it: &FromVolume| matches!(it, FromVolume::UnionDurable { .. });
        world.machines[0].told.iter().any(durable)
    };
    while !offered(&world) {
        assert!(world.step(), "it is offered in the end");
    }
    assert_eq!(world.machines[0].meta[page], 0xff, "every chunk is marked");
}

#[test]
fn what_was_answered_from_memory_is_on_disk_before_a_node_stands_still() {
    let mut manager = stories::pair(CacheMode::WriteBack);
    let write = manager.world.write(0, 7, 1);
    while manager.world.result(write).is_none() {
        assert!(manager.world.step());
    }
    assert_eq!(manager.world.machines[0].durable_value(7), 0);
    manager.order(0, ToVolume::Suspend);
    let stands = |manager: &Manager| {
        let told = &manager.world.machines[0].told;
        told.contains(&FromVolume::Suspended)
    };
    while !stands(&manager) {
        assert!(manager.world.step());
    }
    assert_eq!(manager.world.machines[0].durable_value(7), 1);
}

#[test]
fn what_only_the_memory_of_a_suspended_node_holds_is_not_acknowledged() {
    let mut manager = stories::pair(CacheMode::WriteBack);
    manager.order(1, ToVolume::Suspend);
    manager.world.run(Time::from_millis(20));
    let write = manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(100));
    assert_eq!(manager.world.machines[1].value(7), 1, "it is applied");
    assert_eq!(manager.world.result(write), None);
}

/// It may be on the other copy, and whoever decides may bring it to light.
#[test]
fn what_has_a_number_is_not_answered_busy_while_nothing_is_decided() {
    let mut manager = pair();
    manager.heartbeat();
    stick(&mut manager, true);
    let write = manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.machines[0].value(7), 1, "it has a number");
    manager.order(0, ToVolume::Suspend);
    let young = manager.world.write(0, 900, 1);
    manager.world.run(Time::from_secs(9));
    assert_eq!(manager.world.result(write), None);
    assert_eq!(manager.world.result(young), Some(Err(Refusal::Busy)));
}
