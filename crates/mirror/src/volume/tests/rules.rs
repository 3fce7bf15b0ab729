//! Rules of `docs/replication.md` that random schedules miss when they are left out: each story
//! makes the rare moment, and fails without the line that its rule stands for.

use super::manager::Manager;
use crate::control::{CacheMode, Time};
use crate::volume::MAX_IN_FLIGHT;
use crate::volume_action::Refusal;

/// Two members, the first one the owner, with two channels.
fn pair() -> Manager {
    let mut manager = Manager::new(CacheMode::WriteThrough, 1);
    manager.world.connect();
    manager.world.connect();
    for _ in 0..50 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(50));
        manager.listen();
    }
    assert!(manager.is_whole());
    manager
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
    manager.world.channels[asked].stuck = false;
    while manager.world.step() {}
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
    // It comes, and waits for the range. One that takes the stuck channel never comes in time.
    let forwards = [manager.world.write(1, 7, 1), manager.world.write(1, 7, 1)];
    while manager.world.step() {}
    for _ in 0..46 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(100));
    }
    for forward in forwards {
        assert_eq!(manager.world.result(forward), Some(Err(Refusal::Busy)));
    }
    manager.world.channels[stuck].stuck = false;
    manager.world.run(Time::from_millis(100));
    let values = [0, 1].map(|node| manager.world.machines[node].value(7));
    assert_eq!(values, [1, 1], "its initiator has gone on elsewhere");
}
