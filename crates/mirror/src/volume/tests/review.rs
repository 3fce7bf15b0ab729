//! Where `Node` and the data path meet: orders that cross words, and what both must agree on.

use super::manager::{Manager, Mode};
use crate::control::{CacheMode, FromVolume, NodeId, Time, ToVolume, VolumeId, VolumeSpec};
use crate::data_frame::DataFrame;
use crate::operation::{Extent, Operation};
use crate::volume_action::{ChannelId, Refusal, Ticket};

fn pair() -> Manager {
    let mut manager = Manager::new(CacheMode::WriteThrough, 1);
    manager.world.connect();
    manager.world.connect();
    settle(&mut manager);
    assert!(manager.is_whole());
    manager
}

fn settle(manager: &mut Manager) {
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
fn a_drained_volume_answers_no_read_although_its_lease_holds() {
    let mut manager = pair();
    manager.heartbeat();
    let by = manager.world.now + manager.world.machines[0].ahead + Time::from_secs(2);
    manager.nodes[0].mode = Mode::Down; // nobody acts on its words
    manager.order(0, ToVolume::Drain { by });
    let told = &manager.world.machines[0].told;
    assert!(told.contains(&FromVolume::Drained { clean: true }));
    let read = manager.world.read(0, 7, 1);
    manager.world.run(Time::from_millis(50));
    assert_eq!(manager.world.result(read), None);
    manager.order(0, ToVolume::Close { covered: false });
    manager.world.run(Time::from_millis(50));
    assert_eq!(manager.world.result(read), Some(Err(Refusal::NotServed)));
}

#[test]
fn the_same_configuration_alone_again_ends_the_hold_of_a_join() {
    let mut manager = pair();
    manager.crash(0, true);
    manager.eject(1);
    for _ in 0..200 {
        manager.listen();
        manager.adopt(1);
        manager.world.run(Time::from_millis(20));
    }
    manager.start(0);
    manager.world.connect();
    manager.world.run(Time::from_millis(20));
    for _ in 0..200 {
        if manager.world.machines[1]
            .told
            .contains(&FromVolume::JoinReady)
        {
            break;
        }
        manager.listen();
        if !manager.join_is_on() {
            manager.join_step();
        }
        manager.world.run(Time::from_millis(1));
    }
    assert!(
        manager.world.machines[1]
            .told
            .contains(&FromVolume::JoinReady)
    );
    let held = manager.world.write(1, 7, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(held), None);
    let configuration = manager.register;
    manager.order(1, ToVolume::Suspend);
    let serve = ToVolume::Serve {
        configuration,
        partner_incarnation: None,
        not_before: Time::ZERO,
        joined: false,
    };
    manager.order(1, serve);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(held), Some(Ok(())));
}

#[test]
fn a_partner_whose_clock_began_anew_is_believed() {
    let mut manager = pair();
    let far = u64::try_from(Time::from_secs(9_000_000).as_micros()).unwrap();
    let now = manager.world.now + manager.world.machines[1].ahead;
    let volume = manager.world.machines[1].volume.as_mut().unwrap();
    // What a run of the partner's machine said before it started again.
    volume.token(far, now);
    manager.heartbeat();
    let write = manager.world.write(1, 7, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), Some(Ok(())));
}

#[test]
fn a_token_that_was_overtaken_changes_nothing() {
    let mut manager = pair();
    let now = manager.world.now;
    let ahead = [0, 1].map(|node| manager.world.machines[node].ahead);
    let token = |at: Time| u64::try_from((at + ahead[0]).as_micros()).unwrap();
    let volume = manager.world.machines[1].volume.as_mut().unwrap();
    volume.token(token(now), now + ahead[1]);
    volume.token(token(now - Time::from_millis(3500)), now + ahead[1]);
    manager.world.pass(Time::from_secs(1));
    let write = manager.world.write(1, 7, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), Some(Ok(())));
}

#[test]
fn what_is_applied_keeps_no_buffer_while_word_of_the_commit_is_awaited() {
    for node in 0..2 {
        let mut manager = pair();
        let before = manager.world.machines[1].live_buffers();
        let write = manager.world.write(node, 7, 1);
        manager.world.run(Time::from_millis(20));
        assert_eq!(manager.world.result(write), Some(Ok(())));
        assert_eq!(manager.world.machines[1].live_buffers(), before, "{node}");
        assert_eq!(manager.world.machines[0].live_buffers(), 0);
    }
}

/// A volume that stands still is given an operation whose command came at `received`.
fn give(manager: &mut Manager, node: usize, received: Time) {
    let world = manager.world.now;
    let machine = &mut manager.world.machines[node];
    let operation = machine.write_of(7, &[1]);
    machine.with(world, |volume, now, out| {
        volume.order(now, ToVolume::Suspend, out);
        volume.submit_received(now, received, Ticket(1), operation, out);
    });
}

#[test]
fn a_write_is_as_old_as_its_command_and_not_as_its_data() {
    for node in 0..2 {
        let mut manager = pair();
        let received = manager.world.now + manager.world.machines[node].ahead;
        manager.world.run(Time::from_millis(3500));
        give(&mut manager, node, received);
        let later = manager.world.now + Time::from_millis(700);
        let machine = &mut manager.world.machines[node];
        assert_eq!(machine.completed, []);
        machine.with(later, |volume, now, out| volume.timer(now, out));
        assert_eq!(machine.completed, [(Ticket(1), Err(Refusal::Busy))]);
    }
}

#[test]
fn a_forward_carries_the_token_of_the_time_of_its_command() {
    let mut manager = pair();
    manager.heartbeat();
    let [owner, replica] = [0, 1].map(|node| manager.world.machines[node].ahead);
    let then = manager.world.now;
    for _ in 0..20 {
        manager.world.run(Time::from_millis(100));
        manager.heartbeat();
    }
    give(&mut manager, 1, then + replica);
    let intake = &manager.world.machines[1].volume.as_ref().unwrap().intake;
    let held = intake.get(intake.first().unwrap()).unwrap();
    let sent = Time::from_micros(held.token.0) - owner;
    assert!(
        sent <= then && then - sent < Time::from_millis(200),
        "{sent:?}"
    );
}

/// A forward is decided once, whether or not its blocks are there when it comes again.
#[test]
fn a_forward_whose_blocks_found_no_room_is_refused_unless_it_was_decided() {
    let mut manager = pair();
    let write = manager.world.write(1, 7, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), Some(Ok(())));
    let spec = VolumeSpec {
        id: VolumeId(1),
        size: manager.world.machines[1].size,
        block_size: 4096,
        cache: CacheMode::WriteThrough,
        me: NodeId(2),
        partner: Some(NodeId(1)),
        incarnation: manager.world.incarnation(1),
    };
    let extent = Extent {
        offset: 0,
        len: 4096,
    };
    let header = |id, epoch| {
        let operation = Operation::Zero { extent, fua: false };
        let token = u64::MAX;
        DataFrame::Forward {
            id,
            token,
            operation,
        }
        .encode(&spec, epoch)
        .0
    };
    let counts = |manager: &Manager| {
        let volume = manager.world.machines[0].volume.as_ref().unwrap();
        volume.status().counts
    };
    let turn_away = |manager: &mut Manager, id, epoch| {
        let fields = header(id, epoch);
        manager.world.with(0, |volume, now, out| {
            volume.frame_without_blocks(now, ChannelId(1), &fields, out)
        });
        manager.world.run(Time::from_millis(20));
        let after = counts(manager);
        (after.refused, after.duplicates, after.stale)
    };
    assert_eq!(turn_away(&mut manager, 2, 1), (1, 0, 0), "a new one");
    assert_eq!(turn_away(&mut manager, 2, 1), (1, 1, 0), "the same again");
    assert_eq!(turn_away(&mut manager, 1, 1), (1, 2, 0), "it was granted");
    assert_eq!(turn_away(&mut manager, 3, 9), (1, 2, 1), "of another epoch");
    // The replica takes the repeated grant for what it is.
    assert_eq!(manager.world.machines[1].value(7), 1);
    let status = manager.world.machines[1].volume.as_ref().unwrap().status();
    assert_eq!(status.counts.replicated, 1);
}
