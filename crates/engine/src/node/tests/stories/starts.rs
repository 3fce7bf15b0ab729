//! What two nodes live through: the first start, every later one, and the return of a copy.

use crate::node::tests::world::{World, ms};
use crate::node_interface::{NodeEvent, Standing};
use lockstep_mirror::control::{Members, NodeId};

#[test]
fn a_new_volume_is_created_on_both_and_served() {
    let world = World::mirrored(1);
    let (a, b) = (
        world.machines[0].superblock(),
        world.machines[1].superblock(),
    );
    assert_eq!(a.configuration, b.configuration);
    assert_eq!(
        (a.configuration.epoch, a.configuration.owner),
        (1, NodeId(1))
    );
    assert_eq!(
        a.configuration.members,
        Members::only(NodeId(1)).with(NodeId(2))
    );
    assert!(!a.clean && !b.clean);
}

#[test]
fn two_blank_replicas_that_nobody_created_wait() {
    let mut world = World::new(1);
    world.machines[1].create = false;
    world.boot(0);
    world.boot(1);
    world.run(ms(5000));
    let status = world.status(0).unwrap();
    assert!(
        status.detail.contains("create the volume") && status.alarm,
        "{status:?}"
    );
    assert!(!world.machines[0].portals);
}

#[test]
fn both_stopped_in_order_and_started_have_nothing_to_compare() {
    let mut world = World::mirrored(8);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(1000));
    (world.machines[0].io, world.machines[1].io) = (false, false);
    world.run(ms(200));
    world.handle(0, NodeEvent::Stop);
    world.handle(1, NodeEvent::Stop);
    world.run_until(ms(20_000), |it| {
        it.machines.iter().all(|it| it.stopped == Some(true))
    });
    world.crash(0);
    world.crash(1);
    world.machines.iter_mut().for_each(|it| it.disk.dirty = 0);
    world.boot(1);
    world.run(ms(5000));
    assert!(
        world.status(1).unwrap().detail.contains("waits for node 1"),
        "{}",
        world.describe()
    );
    world.boot(0);
    world.run_until(ms(10_000), World::is_mirrored);
    assert!(!world.said("everything is compared"));
}

#[test]
fn the_last_member_starts_alone_and_the_other_waits() {
    let mut world = World::mirrored(9);
    world.machines[0].io = true;
    world.crash(1);
    world.run(ms(4000));
    world.crash(0);
    world.run(ms(1000));
    world.boot(1);
    world.machines[1].io = true;
    world.run(ms(6000));
    assert_eq!(world.standing(1), Some(Standing::Waiting));
    assert!(
        world
            .status(1)
            .unwrap()
            .detail
            .contains("only node 1 knows"),
        "{}",
        world.describe()
    );
    world.crash(1);
    world.boot(0);
    world.run(ms(1500));
    assert_eq!(
        world.standing(0),
        Some(Standing::Waiting),
        "promises of the run before may still hold"
    );
    world.run_until(ms(2000), |it| it.standing(0) == Some(Standing::Alone));
}

#[test]
fn a_single_replica_serves_alone_from_the_start() {
    let mut world = World::new(17);
    world.machines[0].partner = false;
    world.boot(0);
    world.run_until(ms(1000), |it| {
        it.standing(0) == Some(Standing::Alone) && it.machines[0].portals
    });
    world.crash(0);
    world.boot(0);
    world.run_until(ms(1000), |it| it.standing(0) == Some(Standing::Alone));
    world.handle(0, NodeEvent::Stop);
    world.run_until(ms(2000), |it| it.machines[0].stopped == Some(true));
}

#[test]
fn a_lost_register_file_keeps_a_node_from_acting_alone() {
    let mut world = World::mirrored(18);
    world.machines[0].io = true;
    world.crash(1);
    world.run(ms(4000));
    world.crash(0);
    world.machines[0].acceptor = None;
    world.boot(0);
    world.run(ms(5000));
    assert!(
        world
            .status(0)
            .unwrap()
            .detail
            .contains("register file was lost"),
        "{}",
        world.describe()
    );
    world.boot(1);
    world.run_until(ms(10_000), World::is_mirrored);
}

#[test]
fn a_partner_that_returns_is_resynchronised_and_joins() {
    let mut world = World::mirrored(4);
    world.machines[0].io = true;
    world.run(ms(1000));
    world.crash(1);
    world.run(ms(5000));
    world.boot(1);
    world.run_until(ms(10_000), |it| it.standing(1) == Some(Standing::Target));
    // Its portals open for initiators whom the partner serves through it.
    world.run_until(ms(2000), |it| {
        it.machines[1].portals && it.status(1).is_some_and(|status| status.proxying)
    });
    assert_eq!(world.standing(1), Some(Standing::Target));
    world.run_until(ms(10_000), World::is_mirrored);
    assert!(world.said("what is marked is compared") && !world.said("everything is compared"));
    world.machines[0].io = false;
    world.run(ms(1000));
    assert_eq!(world.machines[0].disk.blocks, world.machines[1].disk.blocks);
}

#[test]
fn a_quick_restart_is_noticed_and_nothing_is_sequenced_until_a_new_epoch() {
    let mut world = World::mirrored(5);
    let before = world.machines[0].superblock().configuration;
    world.machines[0].io = true;
    world.crash(1);
    world.run(ms(100));
    world.boot(1);
    world.run(ms(100));
    world.run_until(ms(15_000), World::is_mirrored);
    assert!(world.machines[0].superblock().configuration.epoch > before.epoch);
    assert!(
        !world.said("going on alone (epoch"),
        "the partner's vote was there to be had"
    );
}

#[test]
fn a_replaced_disk_gets_everything() {
    let mut world = World::mirrored(6);
    world.machines[0].io = true;
    world.run(ms(1000));
    world.crash(1);
    world.run(ms(5000));
    world.machines[1].slots = [alloc::vec![0; 4096], alloc::vec![0; 4096]];
    world.machines[1].disk = crate::node::tests::path::Disk::default();
    world.boot(1);
    world.run_until(ms(15_000), World::is_mirrored);
    assert!(world.said("everything is compared"));
    world.machines[0].io = false;
    world.run(ms(1000));
    assert_eq!(world.machines[0].disk.blocks, world.machines[1].disk.blocks);
}

/// A disk is put back from a snapshot of the very configuration in which it was lost, and nothing
/// marks what was written since: both had it.
#[test]
fn an_older_clone_of_a_disk_is_found_by_its_stamp() {
    let mut world = World::mirrored(61);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(12_000));
    let machine = &world.machines[1];
    let before = (machine.disk.clone(), machine.slots.clone());
    let stamp = machine.superblock().stamp;
    assert!(stamp >= 1, "once in ten seconds");
    world.run(ms(40_000));
    let stamps = [0, 1].map(|who| world.machines[who].superblock().stamp);
    assert!(stamps.iter().all(|it| *it >= stamp + 3), "{stamps:?}");
    world.crash(1);
    // Intents of regions that nobody writes have gone long since.
    for who in 0..2 {
        world.machines[who].disk.intents = 0;
    }
    (world.machines[1].disk, world.machines[1].slots) = before;
    world.machines[1].disk.intents = 0;
    world.run(ms(5000));
    world.boot(1);
    world.run_until(ms(20_000), World::is_mirrored);
    assert!(
        world.said("as after a snapshot that was put back"),
        "{}",
        world.story()
    );
}
