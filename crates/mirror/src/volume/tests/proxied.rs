//! Commands that a node which is no member passes to the one that serves.

use super::manager::Manager;
use super::stories::pair_of;
use crate::control::{CacheMode, Time};
use crate::volume_action::{Refusal, Ticket};

/// Node 0 serves alone; node 1 has started again and passes its commands to it.
fn proxied(seed: u64) -> Manager {
    let mut manager = pair_of(CacheMode::WriteThrough, seed);
    manager.crash(1, false);
    manager.eject(0);
    manager.start(1);
    manager.world.connect();
    for _ in 0..150 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(20));
        manager.listen();
        manager.adopt(0);
    }
    manager.proxy(1);
    manager.world.run(Time::from_millis(40));
    manager.listen();
    manager
}

fn counts(manager: &Manager, node: usize) -> crate::volume::Counts {
    let volume = manager.world.machines[node].volume.as_ref();
    volume.unwrap().status().counts
}

#[test]
fn a_node_that_is_no_member_serves_through_its_partner() {
    let mut manager = proxied(1);
    let write = manager.world.write(1, 7, 2);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), Some(Ok(())));
    let reads = [0, 1].map(|node| manager.world.read(node, 6, 4));
    let flush = manager.world.flush(1);
    manager.world.run(Time::from_millis(20));
    for read in reads {
        assert_eq!(manager.world.read_values[&read], [0, 1, 1, 0]);
    }
    assert_eq!(manager.world.result(flush), Some(Ok(())));
    assert_eq!(
        manager.world.machines[1].value(7),
        0,
        "its own copy is not touched"
    );
    let (mine, theirs) = (counts(&manager, 1), counts(&manager, 0));
    assert_eq!((mine.proxied_reads, mine.proxied_writes), (1, 1));
    assert_eq!((theirs.hosted_reads, theirs.hosted_writes), (1, 1));
}

#[test]
fn a_volume_that_was_opened_again_asks_nothing_under_an_old_number() {
    let mut manager = proxied(1);
    for block in 1..9 {
        let write = manager.world.write(1, block, 1);
        manager.world.run(Time::from_millis(20));
        assert_eq!(manager.world.result(write), Some(Ok(())));
    }
    // Its copy is replaced: the same run, and nothing is known any more.
    manager.reopen(1);
    manager.world.connect();
    for _ in 0..50 {
        manager.heartbeat();
        manager.world.run(Time::from_millis(20));
        manager.listen();
        manager.proxy(1);
    }
    let before = manager.world.machines[0].value(20);
    let write = manager.world.write(1, 20, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), Some(Ok(())));
    assert_ne!(
        manager.world.machines[0].value(20),
        before,
        "the host did it, and does not only say so"
    );
}

#[test]
fn without_a_channel_to_the_host_nothing_waits_long() {
    let mut manager = proxied(1);
    // Every channel is lost; heartbeats still say who serves.
    for channel in 0..manager.world.channels.len() {
        manager.world.cut(channel);
    }
    manager.world.run(Time::from_millis(20));
    let write = manager.world.write(1, 7, 2);
    let read = manager.world.read(1, 6, 4);
    manager.world.run(Time::from_millis(900));
    let results = [write, read].map(|it| manager.world.result(it));
    assert_eq!(results, [None, None], "a connection may be made anew");
    manager.world.run(Time::from_millis(400));
    let results = [write, read].map(|it| manager.world.result(it));
    assert_eq!(results, [Some(Err(Refusal::NotServed)); 2]);
}

#[test]
fn what_a_dying_proxy_left_in_a_socket_does_not_follow_the_retry() {
    for seed in 1..30 {
        let mut manager = proxied(seed);
        for channel in &mut manager.world.channels {
            channel.stuck = true;
        }
        manager.world.write(1, 7, 1);
        manager.world.pass(Time::from_millis(1));
        manager.crash(1, false);
        // Its initiator sees that at once, and goes on through the other node.
        let again = manager.world.write(0, 7, 1);
        while manager.world.result(again).is_none() {
            manager.world.step();
        }
        assert_eq!(manager.world.result(again), Some(Ok(())));
        for channel in &mut manager.world.channels {
            channel.stuck = false;
        }
        manager.world.run(Time::from_millis(500));
        assert_eq!(manager.world.machines[0].value(7), 2, "seed {seed}");
    }
}

#[test]
fn a_write_that_the_host_never_answers_is_answered_once_it_has_expired() {
    let mut manager = proxied(1);
    let start = manager.world.now;
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    manager.heartbeat();
    let write = manager.world.write(1, 7, 1);
    while manager.world.now < start + Time::from_millis(4400) {
        manager.heartbeat();
        manager.world.run(Time::from_millis(20));
        assert_eq!(manager.world.result(write), None);
    }
    manager.world.run(Time::from_millis(400));
    assert_eq!(manager.world.result(write), Some(Err(Refusal::Busy)));
    for channel in &mut manager.world.channels {
        channel.stuck = false;
    }
    manager.heartbeat();
    manager.world.run(Time::from_millis(100));
    assert_eq!(manager.world.machines[0].value(7), 0, "it came too late");
}

#[test]
fn a_failed_disk_answers_what_it_forwarded_only_once_it_has_expired() {
    let mut manager = pair_of(CacheMode::WriteThrough, 3);
    manager.heartbeat();
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    let forwarded = manager.world.write(1, 7, 1);
    manager.world.with(1, |volume, now, out| {
        volume.fail(&mut super::super::turn::Turn::new(now, out));
        volume.timer(now, out);
    });
    assert_eq!(
        manager.world.result(forwarded),
        None,
        "the owner may sequence it yet"
    );
    manager.world.run(Time::from_secs(6));
    assert_eq!(manager.world.result(forwarded), Some(Err(Refusal::Busy)));
}

/// The host did a write of the proxy, and its word of that lies in a socket.
fn done_and_not_told() -> (Manager, Ticket) {
    let mut manager = proxied(1);
    manager.heartbeat();
    let write = manager.world.write(1, 7, 1);
    while manager.world.machines[0].value(7) == 0 {
        assert!(manager.world.step());
    }
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(write), None);
    (manager, write)
}

#[test]
fn what_the_host_has_done_it_does_not_do_again() {
    let (mut manager, write) = done_and_not_told();
    let newer = manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(newer), Some(Ok(())));
    for channel in 0..manager.world.channels.len() {
        manager.world.cut(channel);
    }
    manager.world.run(Time::from_millis(20));
    manager.world.connect();
    manager.world.run(Time::from_millis(500));
    assert_eq!(manager.world.result(write), Some(Ok(())));
    assert_eq!(manager.world.machines[0].value(7), 2);
}

#[test]
fn what_one_run_of_the_host_may_have_done_the_next_one_is_not_asked_for() {
    let (mut manager, write) = done_and_not_told();
    manager.crash(0, false);
    manager.start(0);
    manager.world.connect();
    for _ in 0..80 {
        manager.world.run(Time::from_millis(20));
        manager.listen();
        manager.adopt(0);
    }
    let newer = manager.world.write(0, 7, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(newer), Some(Ok(())));
    manager.proxy(1);
    manager.world.run(Time::from_millis(500));
    let other = manager.world.write(1, 900, 1);
    manager.world.run(Time::from_millis(20));
    assert_eq!(manager.world.result(other), Some(Ok(())), "it is the host");
    assert_eq!(manager.world.machines[0].value(7), 2);
    assert_eq!(manager.world.result(write), None);
    manager.world.run(Time::from_secs(4));
    assert_eq!(manager.world.result(write), Some(Err(Refusal::Busy)));
}
