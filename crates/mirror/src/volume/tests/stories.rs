//! Stories of a few lines: what the data path promises, one promise each.

use super::machine::BLOCK;
use super::manager::Manager;
use super::world::{SIZE, World};
use crate::control::{CacheMode, Configuration, FromVolume, Members, NodeId, Time, ToVolume};
use crate::data_frame::DataFrame;
use crate::fields::Fields;
use crate::metadata_layout::CHUNK;
use crate::operation::{BufferId, Extent, Operation, Payload};
use crate::volume_action::{ChannelId, FrameBody, Refusal};

/// Both nodes serve, node 0 is the owner, two channels are up.
pub(super) fn pair(cache: CacheMode) -> Manager {
    pair_of(cache, 1)
}

/// The same with another sequence of chances.
pub(super) fn pair_of(cache: CacheMode, seed: u64) -> Manager {
    let mut manager = Manager::new(cache, seed);
    manager.world.connect();
    manager.world.connect();
    settle(&mut manager);
    assert!(manager.is_whole());
    manager
}

/// `Node` does what it does, for a second.
pub(super) fn settle(manager: &mut Manager) {
    for _ in 0..50 {
        if manager.world.channels.is_empty() {
            manager.world.connect();
        }
        manager.heal();
        manager.heartbeat();
        manager.world.run(Time::from_millis(20));
        manager.listen();
    }
}

#[test]
fn a_resync_counts_what_it_compared_and_what_it_copied() {
    let mut full = 0;
    for seed in 1..=20 {
        let mut manager = pair_of(CacheMode::WriteThrough, seed);
        manager.crash(1, false);
        for block in [7, 9000] {
            manager.world.write(0, block, 1);
        }
        for _ in 0..10 {
            settle(&mut manager);
        }
        assert!(manager.is_whole());
        let counts = status(&manager.world, 0).counts;
        assert_eq!(counts.resync_copied, 2 * CHUNK, "seed {seed}");
        // The manager orders a full one now and then.
        full += counts.full_resyncs;
        let expected = match counts.full_resyncs {
            0 => 2 * CHUNK..SIZE,
            _ => SIZE..SIZE + 1,
        };
        assert!(expected.contains(&counts.resync_compared), "seed {seed}");
    }
    assert!((1..20).contains(&full), "{full}");
}

fn single() -> World {
    let mut world = World::new(CacheMode::WriteThrough, 1);
    world.must_hold = [[true, false], [false, true]];
    world.machines[0].start(1, None);
    let members = Members::only(NodeId(1));
    let configuration = Configuration {
        epoch: 1,
        generation: 1,
        members,
        owner: NodeId(1),
        unilateral: false,
        witness: None,
    };
    order(&mut world, 0, ToVolume::Open { blank: true });
    let serve = ToVolume::Serve {
        configuration,
        partner_incarnation: None,
        not_before: Time::ZERO,
        joined: false,
    };
    order(&mut world, 0, serve);
    world.run(Time::ZERO);
    world
}

fn order(world: &mut World, node: usize, order: ToVolume) {
    world.with(node, |volume, now, out| volume.order(now, order, out));
}

fn status(world: &World, node: usize) -> crate::volume::VolumeStatus {
    world.machines[node].volume.as_ref().unwrap().status()
}

#[test]
fn a_volume_with_one_replica_needs_no_metadata() {
    let mut world = single();
    let metadata = world.machines[0].meta.clone();
    let write = world.write(0, 5, 3);
    let flush = world.flush(0);
    world.run(Time::ZERO);
    assert_eq!(
        (world.result(write), world.result(flush)),
        (Some(Ok(())), Some(Ok(())))
    );
    let read = world.read(0, 4, 5);
    world.run(Time::ZERO);
    assert_eq!(world.read_values[&read], [0, 1, 1, 1, 0]);
    assert_eq!(world.machines[0].meta, metadata);
}

#[test]
fn zero_and_discard_read_as_zeroes() {
    let mut world = single();
    world.write(0, 200, 4);
    world.run(Time::ZERO);
    world.submit(
        0,
        Operation::Zero {
            extent: Extent {
                offset: 200 * BLOCK,
                len: BLOCK,
            },
            fua: false,
        },
    );
    world.submit(
        0,
        Operation::Discard {
            extent: Extent {
                offset: 202 * BLOCK,
                len: BLOCK,
            },
        },
    );
    world.run(Time::ZERO);
    let read = world.read(0, 200, 4);
    world.run(Time::ZERO);
    assert_eq!(world.read_values[&read], [0, 1, 0, 1]);
}

#[test]
fn overlapping_writes_keep_their_order() {
    let mut world = single();
    for _ in 0..20 {
        world.write(0, 0, 8);
        world.write(0, 4, 8);
    }
    world.run(Time::ZERO);
    assert_eq!(
        (world.machines[0].value(0), world.machines[0].value(5)),
        (39, 40)
    );
}

#[test]
fn a_write_through_either_node_is_on_both_before_it_is_answered() {
    for node in 0..2 {
        let mut manager = pair(CacheMode::WriteThrough);
        let write = manager.world.write(node, 7, 2);
        manager.world.run(Time::ZERO);
        assert_eq!(manager.world.result(write), Some(Ok(())));
        for machine in &manager.world.machines {
            assert_eq!((machine.durable_value(7), machine.durable_value(8)), (1, 1));
        }
        let read = manager.world.read(1 - node, 7, 1);
        manager.world.run(Time::ZERO);
        assert_eq!(manager.world.read_values[&read], [1]);
    }
}

#[test]
fn a_write_survives_a_channel_that_dies_under_it_and_is_applied_once() {
    for node in 0..2 {
        for steps in 0..12 {
            let mut manager = pair(CacheMode::WriteThrough);
            let write = manager.world.write(node, 7, 1);
            for _ in 0..steps {
                manager.world.step();
            }
            manager.world.cut(0);
            manager.world.run(Time::ZERO);
            assert_eq!(
                manager.world.result(write),
                Some(Ok(())),
                "node {node}, after {steps} steps"
            );
            let counts = status(&manager.world, 1).counts;
            assert_eq!(counts.replicated, 1, "whatever came twice was applied once");
        }
    }
}

#[test]
fn without_a_channel_a_write_waits_and_goes_on_when_there_is_one_again() {
    let mut manager = pair(CacheMode::WriteThrough);
    let write = manager.world.write(0, 7, 1);
    manager.world.cut(0);
    manager.world.cut(1);
    manager.world.run(Time::from_millis(200));
    assert_eq!(manager.world.result(write), None);
    manager.world.connect();
    manager.world.run(Time::ZERO);
    assert_eq!(manager.world.result(write), Some(Ok(())));
}

#[test]
fn a_read_waits_for_the_write_that_it_overlaps() {
    for node in 0..2 {
        let mut manager = pair(CacheMode::WriteThrough);
        manager.world.write(0, 7, 1);
        let mut reads = alloc::vec::Vec::new();
        for _ in 0..40 {
            reads.push(manager.world.read(node, 7, 1));
            manager.world.step();
        }
        manager.world.run(Time::from_millis(100));
        let values: alloc::vec::Vec<u64> = reads
            .iter()
            .map(|read| manager.world.read_values[read][0])
            .collect();
        assert!(values.is_sorted(), "reads never go back: {values:?}");
    }
}

#[test]
fn no_read_is_served_outside_the_lease() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.run(Time::from_secs(2));
    let read = manager.world.read(0, 7, 1);
    manager.world.run(Time::from_millis(100));
    assert_eq!(manager.world.result(read), None);
    manager.heartbeat();
    manager.world.run(Time::ZERO);
    assert_eq!(manager.world.result(read), Some(Ok(())));
}

#[test]
fn a_forward_without_a_recent_token_is_refused() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.run(Time::from_millis(4100));
    let write = manager.world.write(1, 7, 1);
    manager.world.run(Time::ZERO);
    assert_eq!(manager.world.result(write), Some(Err(Refusal::Busy)));
    assert_eq!(manager.world.machines[0].value(7), 0);
}

#[test]
fn what_is_not_sequenced_in_time_never_is() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.order(0, ToVolume::Suspend);
    let write = manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(3900));
    assert_eq!(manager.world.result(write), None);
    manager.world.run(Time::from_millis(300));
    assert_eq!(manager.world.result(write), Some(Err(Refusal::Busy)));
}

#[test]
fn a_cancelled_write_is_aborted_only_if_it_never_happens() {
    for node in 0..2 {
        for steps in 0..14 {
            let mut manager = pair(CacheMode::WriteThrough);
            let write = manager.world.write(node, 7, 1);
            for _ in 0..steps {
                manager.world.step();
            }
            if manager.world.result(write).is_none() {
                manager.world.cancel(write);
            }
            manager.world.run(Time::ZERO);
            let values = [0, 1].map(|node| manager.world.machines[node].value(7));
            match manager.world.result(write) {
                Some(Ok(())) => assert_eq!(values, [1, 1]),
                Some(Err(Refusal::Aborted)) => assert_eq!(values, [0, 0]),
                other => panic!("{other:?} after {steps} steps"),
            }
        }
    }
}

#[test]
fn an_operation_that_waits_for_the_partner_is_late_after_five_seconds() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.write(0, 7, 1);
    manager.world.cut(0);
    manager.world.cut(1);
    manager.world.run(Time::from_millis(4900));
    assert!(!manager.world.machines[0].told.contains(&FromVolume::Late));
    manager.world.run(Time::from_millis(400));
    assert!(manager.world.machines[0].told.contains(&FromVolume::Late));
}

#[test]
fn a_waiting_initiator_is_told_of_once() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.cut(0);
    manager.world.cut(1);
    manager.world.write(0, 7, 1);
    manager.order(0, ToVolume::Suspend);
    manager.world.run(Time::from_secs(1));
    // What waited before says nothing of who is there now.
    assert!(!manager.world.machines[0].told.contains(&FromVolume::Wanted));
    manager.world.read(0, 0, 1);
    manager
        .world
        .with(0, |volume, now, out| volume.initiator_seen(now, out));
    manager.world.read(0, 1, 1);
    manager.world.run(Time::from_secs(1));
    let wanted = manager.world.machines[0]
        .told
        .iter()
        .filter(|word| **word == FromVolume::Wanted);
    assert_eq!(wanted.count(), 1);
}

#[test]
fn an_initiator_that_is_asked_for_is_reported_once_each_time() {
    let mut manager = pair(CacheMode::WriteThrough);
    let told = |manager: &Manager, word: &FromVolume| {
        let told = &manager.world.machines[0].told;
        told.iter().filter(|it| *it == word).count()
    };
    let seen = |manager: &mut Manager| {
        manager
            .world
            .with(0, |volume, now, out| volume.initiator_seen(now, out));
    };
    seen(&mut manager);
    assert_eq!(told(&manager, &FromVolume::Reached), 0, "nobody asked");
    manager.order(0, ToVolume::Ask);
    assert_eq!(told(&manager, &FromVolume::Reached), 0);
    seen(&mut manager);
    seen(&mut manager);
    assert_eq!(told(&manager, &FromVolume::Reached), 1);
    // A command shows it as well, and what waits is told of anew after each question.
    manager.order(0, ToVolume::Suspend);
    manager.order(0, ToVolume::Ask);
    manager.world.read(0, 0, 1);
    assert_eq!(told(&manager, &FromVolume::Reached), 2);
    assert_eq!(told(&manager, &FromVolume::Wanted), 1);
    manager.order(0, ToVolume::Ask);
    assert_eq!(
        told(&manager, &FromVolume::Wanted),
        1,
        "who waited may be gone"
    );
    seen(&mut manager);
    assert_eq!(told(&manager, &FromVolume::Wanted), 2);
}

/// It stood still for ever: a write that the owner has sequenced counted as nobody who waits.
#[test]
fn an_initiator_whose_only_write_waits_for_the_dead_partner_is_told_of() {
    for node in [0, 1] {
        let mut manager = pair(CacheMode::WriteThrough);
        manager.world.cut(0);
        manager.world.cut(1);
        manager.world.write(node, 7, 1);
        manager.world.run(Time::from_secs(1));
        manager.order(node, ToVolume::Suspend);
        manager
            .world
            .with(node, |volume, now, out| volume.initiator_seen(now, out));
        manager.world.run(Time::from_secs(1));
        let told = &manager.world.machines[node].told;
        assert!(told.contains(&FromVolume::Wanted), "node {node}");
    }
}

#[test]
fn a_disk_that_fails_a_write_is_not_tried_again() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.machines[1].fail_writes = true;
    let mine = manager.world.write(1, 7, 1);
    let other = manager.world.write(0, 8, 1);
    manager.world.run(Time::from_millis(100));
    assert!(
        manager.world.machines[1]
            .told
            .contains(&FromVolume::DiskFailed)
    );
    assert_eq!(manager.world.result(mine), Some(Err(Refusal::NotServed)));
    assert_eq!(
        manager.world.result(other),
        None,
        "the owner goes on once it is alone"
    );
    let again = manager.world.write(1, 7, 1);
    assert_eq!(manager.world.result(again), Some(Err(Refusal::NotServed)));
    assert_eq!(manager.world.machines[1].live_buffers(), 0);
}

#[test]
fn a_failed_disk_without_a_partner_is_a_hardware_error() {
    let mut world = single();
    world.machines[0].fail_writes = true;
    let write = world.write(0, 7, 1);
    world.run(Time::ZERO);
    assert_eq!(world.result(write), Some(Err(Refusal::Failed)));
}

#[test]
fn a_block_that_cannot_be_read_is_named() {
    let mut world = single();
    world.machines[0].unreadable.insert(7);
    let read = world.read(0, 6, 4);
    world.run(Time::ZERO);
    assert_eq!(world.result(read), Some(Err(Refusal::Unreadable)));
    let extent = Extent {
        offset: 6 * BLOCK,
        len: 4 * BLOCK,
    };
    assert!(
        world.machines[0]
            .told
            .contains(&FromVolume::Unreadable { extent })
    );
}

#[test]
fn write_back_answers_from_memory_and_a_flush_reaches_both_disks() {
    let mut manager = pair(CacheMode::WriteBack);
    let write = manager.world.write(1, 7, 1);
    manager.world.run(Time::ZERO);
    assert_eq!(manager.world.result(write), Some(Ok(())));
    assert_eq!(
        [0, 1].map(|node| manager.world.machines[node].durable_value(7)),
        [0, 0]
    );
    let flush = manager.world.flush(1);
    manager.world.run(Time::ZERO);
    assert_eq!(manager.world.result(flush), Some(Ok(())));
    assert_eq!(
        [0, 1].map(|node| manager.world.machines[node].durable_value(7)),
        [1, 1]
    );
}

#[test]
fn frames_that_no_honest_partner_sends_change_nothing() {
    let mut manager = pair(CacheMode::WriteThrough);
    let world = &mut manager.world;
    let spec = crate::control::VolumeSpec {
        id: crate::control::VolumeId(1),
        size: world.machines[0].size,
        block_size: 4096,
        cache: CacheMode::WriteThrough,
        me: NodeId(1),
        partner: Some(NodeId(2)),
        incarnation: world.incarnation(0),
    };
    let extent = Extent {
        offset: 0,
        len: BLOCK,
    };
    let mut send = |fields: Fields, blocks: bool| {
        let body = if blocks {
            let buffer: BufferId = world.machines[1].allocate(alloc::vec![9]);
            FrameBody::Blocks(Payload {
                buffer,
                at: 0,
                len: 4096,
                crc: super::machine::sum(&[9]),
            })
        } else {
            FrameBody::None
        };
        world.with(1, |volume, now, out| {
            volume.frame(now, ChannelId(1), fields, body, out)
        });
        world.run(Time::ZERO);
    };
    let payload = Payload {
        buffer: BufferId {
            slot: 0,
            generation: 0,
        },
        at: 0,
        len: 4096,
        crc: super::machine::sum(&[9]),
    };
    let write = |seq| DataFrame::Apply {
        seq,
        low: 1,
        operation: Operation::Write {
            extent,
            payload,
            fua: false,
        },
    };
    let (good, _) = write(1).encode(&spec, 1);
    send(Fields { epoch: 2, ..good }, true);
    send(Fields { epoch: 0, ..good }, true);
    send(
        Fields {
            incarnation: 77,
            ..good
        },
        true,
    );
    send(
        Fields {
            offset: 1 << 40,
            ..good
        },
        true,
    );
    send(
        Fields {
            payload_crc: 1,
            ..good
        },
        true,
    );
    send(good, false);
    send(Fields { kind: 0x99, ..good }, true);
    send(
        Fields {
            kind: 0x30,
            seq: 5,
            aux: 99,
            ..good
        },
        false,
    );
    send(Fields { kind: 0x20, ..good }, true);
    send(Fields { kind: 0x52, ..good }, false);
    for kind in 0..0x100 {
        send(
            Fields {
                kind,
                seq: 4_000_000,
                aux: u64::MAX,
                offset: u64::MAX,
                length: u64::MAX,
                payload_len: 0,
                ..good
            },
            false,
        );
    }
    assert_eq!(manager.world.machines[1].value(0), 0);
    assert_eq!(manager.world.machines[1].live_buffers(), 0);
    let write = manager.world.write(1, 7, 1);
    manager.world.run(Time::from_millis(100));
    assert_eq!(
        manager.world.result(write),
        Some(Ok(())),
        "and the volume goes on"
    );
}
