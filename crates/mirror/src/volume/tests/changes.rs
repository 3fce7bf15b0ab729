//! Stories of changes: a node goes, comes back, stops, joins; channels get stuck meanwhile.

use super::machine::BLOCK;
use super::manager::{Manager, Mode};
use super::stories::{pair, pair_of, settle};
use super::world::Channel;
use crate::control::{CacheMode, Time, ToVolume};
use crate::metadata_layout::{INTENTS_OFFSET, REGION};
use crate::operation::Operation;
use alloc::boxed::Box;

#[test]
fn only_what_may_differ_is_copied() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.write(0, 7, 1);
    manager.world.run(Time::ZERO);
    manager.crash(1, true);
    manager.eject(0);
    settle(&mut manager);
    assert!(manager.is_whole());
    assert_eq!(manager.world.differences(), []);
    let copied = manager
        .world
        .log
        .iter()
        .find(|line| line.contains("UnionDurable"))
        .unwrap();
    assert!(copied.contains("dirty: 16777216"), "one region: {copied}");
}

#[test]
fn a_change_of_scsi_state_reaches_both_and_a_node_that_joins() {
    let mut manager = pair(CacheMode::WriteThrough);
    let change = |byte: u8| Operation::State {
        kind: 3,
        bytes: Box::new([byte]),
    };
    manager.world.submit(1, change(1));
    manager.world.run(Time::ZERO);
    for machine in &manager.world.machines {
        assert_eq!(machine.states, [(3, Box::from([1]))]);
    }
    manager.crash(1, false);
    manager.eject(0);
    settle(&mut manager);
    assert!(manager.is_whole());
    assert_eq!(
        manager.world.machines[1].states.last(),
        Some(&(3, Box::from([1])))
    );
}

#[test]
fn what_an_abandoned_copy_left_on_a_channel_is_not_applied() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.write(0, 7, 1);
    manager.world.run(Time::ZERO);
    manager.crash(1, true);
    manager.eject(0);
    // The copy does not come to its end while a block cannot be read.
    manager.world.machines[0].unreadable.insert(7);
    while manager.nodes[1].mode != Mode::Target {
        manager.heal();
        manager.world.run(Time::from_millis(20));
        manager.listen();
    }
    manager.world.connect();
    manager.world.connect();
    let copying = |manager: &Manager| manager.world.log.iter().any(|line| line.contains(" Copy"));
    while !copying(&manager) {
        manager.world.run(Time::from_millis(5));
        manager.listen();
    }
    manager.world.run(Time::from_secs(3));
    // A mirrored write sticks in one channel; the attempt is given up and begun anew on the other.
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    manager.world.write(0, 9000, 1);
    manager.world.run(Time::from_millis(10));
    manager.order(0, ToVolume::Alone);
    let partner_incarnation = manager.world.incarnation(1);
    let collect = ToVolume::Collect {
        partner_incarnation,
        everything: false,
    };
    manager.order(0, collect);
    let free = |channel: &Channel| channel.queued(0) < 2;
    let other = manager.world.channels.iter().position(free);
    manager.world.channels[other.unwrap()].stuck = false;
    manager.world.write(0, 9000, 1);
    manager.world.machines[0].unreadable.clear();
    manager.world.run(Time::from_millis(50));
    manager.listen();
    manager.order(0, ToVolume::Copy);
    while !manager
        .world
        .log
        .iter()
        .any(|line| line.contains("JoinReady"))
    {
        manager.world.run(Time::from_millis(20));
        manager.listen();
    }
    assert_eq!(manager.world.machines[1].value(9000), 2);
    for channel in &mut manager.world.channels {
        channel.stuck = false;
    }
    manager.world.run(Time::from_millis(20));
    assert_eq!(
        manager.world.machines[1].value(9000),
        2,
        "the older write stays unapplied"
    );
}

#[test]
fn an_orderly_stop_leaves_nothing_to_compare() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.write(1, 7, 1);
    manager.world.run(Time::ZERO);
    manager.stop(1);
    while manager.nodes[1].mode != Mode::Down {
        manager.world.run(Time::from_millis(20));
        manager.listen();
        manager.adopt(0);
    }
    assert!(
        manager
            .world
            .log
            .iter()
            .any(|line| line.contains("told by 1: Closed { clean: true }"))
    );
    manager.start(1);
    manager.world.run(Time::ZERO);
    manager.listen();
    assert!(
        manager
            .world
            .log
            .iter()
            .any(|line| line.contains("told by 1: Opened { dirty: 0, intents: 0 }"))
    );
}

/// It took the ten seconds that a drain may take, and ended unclean: what the owner's initiators
/// keep sending counted as if this node still owed it.
#[test]
fn a_replica_under_the_owners_load_stops_in_order() {
    for cache in [CacheMode::WriteThrough, CacheMode::WriteBack] {
        let mut manager = pair(cache);
        let mut load = alloc::vec::Vec::new();
        let mut own = alloc::vec::Vec::new();
        for block in 0..8 {
            own.push(manager.world.write(1, 4000 + block, 1));
            load.push(manager.world.write(0, block, 1));
        }
        manager.stop(1);
        for _ in 0..2000 {
            if manager.nodes[1].mode == Mode::Down {
                break;
            }
            // As soon as one is answered the next one comes: the replica is never without.
            for (block, write) in (0..).zip(&mut load) {
                if manager.world.result(*write).is_some() {
                    *write = manager.world.write(0, block, 1);
                }
            }
            manager.world.step();
            manager.world.pass(Time::from_millis(1));
            manager.listen();
            manager.adopt(0);
            manager.heartbeat();
        }
        let told = |what: &str| manager.world.log.iter().any(|line| line.contains(what));
        assert!(told("told by 1: Drained { clean: true }"), "{cache:?}");
        assert!(told("told by 1: Closed { clean: true }"), "{cache:?}");
        for write in own {
            assert_eq!(manager.world.result(write), Some(Ok(())), "{cache:?}");
        }
        manager.world.run(Time::from_secs(2));
        for write in load {
            assert_eq!(manager.world.result(write), Some(Ok(())), "{cache:?}");
        }
        let held: alloc::vec::Vec<u64> = (0..8)
            .map(|block| manager.world.machines[0].durable_value(block))
            .collect();
        manager.start(1);
        settle(&mut manager);
        assert!(manager.is_whole(), "{cache:?}");
        for (block, value) in (0..).zip(held) {
            assert_eq!(manager.world.machines[1].value(block), value, "{cache:?}");
        }
    }
}

/// Whoever closes before the partner serves alone keeps its intents: the partner may never have
/// begun what this node applied for it.
#[test]
fn a_replica_that_closes_before_it_is_covered_keeps_its_intents() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.write(0, 7, 1);
    while manager.world.machines[1].durable_value(7) == 0 {
        manager.world.step();
    }
    manager.nodes[1].mode = Mode::Closing;
    manager.order(1, ToVolume::Close { covered: false });
    manager.world.run(Time::from_millis(20));
    manager.listen();
    let told = |what: &str| manager.world.log.iter().any(|line| line.contains(what));
    assert!(told("told by 1: Closed { clean: false }"));
    manager.start(1);
    manager.world.run(Time::from_millis(20));
    manager.listen();
    let log = &manager.world.log;
    assert!(log.iter().any(|line| line.contains("intents: 1 }")));
}

#[test]
fn damaged_metadata_means_that_everything_may_differ() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.crash(1, false);
    manager.world.machines[1].meta[usize::try_from(INTENTS_OFFSET).unwrap() + 40] ^= 1;
    manager.start(1);
    manager.world.run(Time::ZERO);
    manager.listen();
    assert!(
        manager
            .world
            .log
            .iter()
            .any(|line| line.contains("told by 1: Opened { dirty: 0, intents: 4 }"))
    );
}

#[test]
fn a_replica_that_a_stuck_channel_keeps_behind_stops_reading() {
    let mut manager = pair(CacheMode::WriteThrough);
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    manager.world.write(0, 7, 1);
    for _ in 0..16 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(100));
    }
    let read = manager.world.read(1, 7, 1);
    manager.world.run(Time::from_millis(10));
    assert_eq!(
        manager.world.result(read),
        None,
        "whoever wrote may have given up that path"
    );
    for channel in &mut manager.world.channels {
        channel.stuck = false;
    }
    manager.world.run(Time::from_millis(10));
    assert_eq!(manager.world.read_values[&read], [1]);
}

#[test]
fn an_inherited_write_is_not_answered_while_the_partner_may_read_what_was_before() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.heartbeat();
    let start = manager.world.now;
    manager.world.read(1, 7, 1);
    manager.world.run(Time::ZERO);
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    let write = manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(10));
    manager.eject(0);
    manager.listen();
    manager.adopt(0);
    manager.world.run(Time::from_millis(100));
    let read = manager.world.read(1, 7, 1);
    manager.world.run(Time::ZERO);
    assert_eq!(
        manager.world.read_values[&read],
        [0],
        "its lease still holds"
    );
    assert_eq!(manager.world.result(write), None);
    manager
        .world
        .run(Time::from_millis(1600) - (manager.world.now - start));
    assert_eq!(manager.world.result(write), Some(Ok(())));
}

#[test]
fn an_intent_is_durable_before_the_write_and_cleared_after_thirty_idle_seconds() {
    for cache in [CacheMode::WriteThrough, CacheMode::WriteBack] {
        let mut manager = pair(cache);
        let sector = usize::try_from(INTENTS_OFFSET).unwrap();
        manager.world.write(0, REGION / BLOCK, 1);
        while manager.world.machines[0].value(REGION / BLOCK) == 0 {
            manager.world.step();
        }
        assert_eq!(manager.world.machines[0].meta[sector], 0b0100_0000);
        for _ in 0..50 {
            manager.heartbeat();
            manager.world.run(Time::from_secs(1));
        }
        for machine in &manager.world.machines {
            assert_eq!(machine.meta[sector], 0);
        }
    }
}

#[test]
fn nothing_is_answered_or_read_before_the_partners_promises_ran_out() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.heartbeat();
    let start = manager.world.now;
    let write = manager.world.write(1, 7, 1);
    let read = manager.world.read(1, 9, 1);
    manager.world.pass(Time::from_millis(1));
    manager.crash(0, false);
    manager.eject(1);
    manager.listen();
    manager.adopt(1);
    while manager.world.now < start + Time::from_millis(1480) {
        assert_eq!(
            (manager.world.result(write), manager.world.result(read)),
            (None, None)
        );
        manager.world.run(Time::from_millis(20));
    }
    manager.world.run(Time::from_millis(60));
    assert_eq!(
        (manager.world.result(write), manager.world.result(read)),
        (Some(Ok(())), Some(Ok(())))
    );
}

#[test]
fn the_survivor_answers_what_the_dead_owner_left_behind() {
    for steps in 0..14 {
        let mut manager = pair(CacheMode::WriteThrough);
        let write = manager.world.write(1, 7, 1);
        for _ in 0..steps {
            manager.world.step();
        }
        manager.crash(0, true);
        manager.eject(1);
        manager.listen();
        for _ in 0..150 {
            manager.adopt(1);
            manager.world.run(Time::from_millis(20));
            manager.listen();
        }
        assert_eq!(
            manager.world.result(write),
            Some(Ok(())),
            "after {steps} steps"
        );
        assert_eq!(manager.world.machines[1].durable_value(7), 1);
    }
}

#[test]
fn after_a_hand_over_in_write_back_a_power_cut_leaves_no_silent_difference() {
    for seed in 1..5 {
        let mut manager = pair_of(CacheMode::WriteBack, seed);
        let write = manager.world.write(0, 7, 1);
        manager.world.run(Time::ZERO);
        assert_eq!(manager.world.result(write), Some(Ok(())));
        manager.start_hand_over(0);
        manager.listen();
        settle(&mut manager);
        assert_eq!((manager.hand_overs, manager.is_whole()), (1, true));
        manager.world.machines[0].memory.clear();
        manager.crash(0, true);
        manager.eject(1);
        for _ in 0..4 {
            settle(&mut manager);
        }
        assert!(manager.is_whole());
        assert_eq!(manager.world.differences(), []);
    }
}
