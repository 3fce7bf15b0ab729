//! Stories of resyncs: which way steps go, how fast, and what becomes of one that stands still.

use super::manager::{Manager, Mode};
use super::stories::{pair, settle};
use crate::control::{CacheMode, Pacing, Time, ToVolume};
use crate::metadata_layout::CHUNK;
use crate::volume::pace::Pace;
use crate::volume::{PaceReason, ResyncWait, VolumeStatus};

fn status(manager: &Manager, node: usize) -> VolumeStatus {
    let volume = manager.world.machines[node].volume.as_ref();
    volume.unwrap().status()
}

/// Node 0 serves alone; node 1 is back and is being brought up to date.
fn copying(hung: bool) -> Manager {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.crash(1, false);
    manager.eject(0);
    manager.world.run(Time::from_secs(3));
    manager.listen();
    for chunk in 0..40 {
        manager.world.write(0, chunk * 40, 1);
    }
    manager.world.run(Time::from_secs(1));
    if hung {
        manager.world.machines[0].hung_until = manager.world.now + Time::from_secs(1000);
    }
    for _ in 0..400 {
        if status(&manager, 0)
            .resync
            .is_some_and(|it| it.phase == "copying")
        {
            return manager;
        }
        if manager.world.channels.is_empty() && manager.nodes[1].mode != Mode::Down {
            manager.world.connect();
        }
        manager.heal();
        manager.heartbeat();
        for _ in 0..10 {
            manager.world.step();
            manager.listen();
        }
        manager.world.pass(Time::from_millis(5));
    }
    panic!("no copy began: {:?}", status(&manager, 0));
}

fn pass(manager: &mut Manager, time: Time) {
    for _ in 0..time.as_millis() / 100 {
        manager.world.run(Time::from_millis(100));
        manager.heartbeat();
        manager.listen();
    }
}

#[test]
fn a_copy_whose_disk_hangs_is_begun_anew_and_ends_when_the_disk_goes_on() {
    let mut manager = copying(true);
    pass(&mut manager, Time::from_secs(28));
    assert_eq!(manager.restarts, 0);
    pass(&mut manager, Time::from_secs(4));
    assert_eq!(manager.restarts, 1);
    let there = status(&manager, 0);
    assert_eq!(there.counts.resync_restarts, 1);
    assert!(there.resync.is_some_and(|it| it.waits.is_none()));
    pass(&mut manager, Time::from_secs(31));
    assert_eq!(manager.restarts, 2, "again and again");
    manager.world.machines[0].hung_until = Time::ZERO;
    settle(&mut manager);
    assert!(manager.is_whole());
    assert_eq!(manager.world.differences(), []);
    for machine in &manager.world.machines {
        assert_eq!(machine.live_buffers(), 0);
    }
}

#[test]
fn messages_that_were_swallowed_are_said_again() {
    let mut manager = copying(true);
    // Agreed on nothing: both ends believe in the channel, and nothing comes through.
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    manager.world.with(0, |volume, _, _| volume.links.forget());
    pass(&mut manager, Time::from_secs(32));
    assert_eq!(manager.restarts, 1);
    assert!(
        manager.world.channels.iter().any(|it| it.queued(0) > 0),
        "it says that it is ready"
    );
}

#[test]
fn what_has_a_name_is_waited_for() {
    let mut manager = copying(true);
    for which in 0..manager.world.channels.len() {
        manager.world.cut(which);
    }
    for _ in 0..400 {
        manager.world.run(Time::from_millis(100));
        manager.listen();
    }
    let resync = status(&manager, 0).resync.unwrap();
    assert_eq!(resync.waits, Some(ResyncWait::Connection));
    assert_eq!(manager.restarts, 0);
    assert!(!ResyncWait::Connection.sentence().is_empty());
}

#[test]
fn where_everything_differs_steps_are_sent_without_asking_but_for_probes() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.crash(1, false);
    manager.eject(0);
    manager.world.run(Time::from_secs(3));
    manager.listen();
    // 48 MiB, every chunk another content.
    for block in 0..48 * 256 / 16 {
        manager.world.write(0, block * 16, 1);
        if block % 64 == 0 {
            manager.world.run(Time::ZERO);
        }
    }
    manager.world.run(Time::from_secs(1));
    while manager.nodes[1].mode == Mode::Down {
        manager.heal();
        manager.world.run(Time::from_millis(20));
    }
    for _ in 0..5 {
        settle(&mut manager);
    }
    assert!(manager.is_whole(), "{:?}", status(&manager, 0));
    assert_eq!(manager.world.differences(), []);
    let counts = status(&manager, 0).counts;
    assert_eq!(counts.resync_copied, 48 << 20);
    assert!(
        counts.resync_blind > 20 << 20 && counts.resync_blind < 47 << 20,
        "{}",
        counts.resync_blind
    );
}

#[test]
fn a_copy_is_held_back_for_initiators_and_never_below_its_floor() {
    let mut manager = copying(true);
    manager.world.machines[0].hung_until = Time::ZERO;
    let floor = 4 * CHUNK;
    let pacing = Pacing {
        factor_percent: 100,
        floor,
    };
    manager.order(0, ToVolume::Pace(pacing));
    // What initiators have without it is not known.
    manager.world.with(0, |volume, now, _| {
        volume.pace = Pace::default();
        volume.pace.tune(pacing);
        let dirty = volume.status().dirty;
        volume.pace.begin(now, dirty);
    });
    let before = status(&manager, 0).dirty;
    // One operation after the other: initiators are always there.
    for _ in 0..20 {
        manager.world.read(0, 5, 1);
        manager.world.run(Time::from_millis(50));
        manager.heartbeat();
        manager.listen();
    }
    let after = status(&manager, 0);
    let pace = after.resync.unwrap().pace;
    assert!(matches!(pace.reason, PaceReason::Learning), "{pace:?}");
    assert!(pace.limit.is_some_and(|limit| limit >= floor));
    assert!(after.dirty > 0, "it is not through");
    let done = before - after.dirty;
    assert!(done >= floor / 2, "{done} bytes in a second");
    // They rest, and nothing holds it back any more.
    settle(&mut manager);
    assert!(manager.is_whole());
}
