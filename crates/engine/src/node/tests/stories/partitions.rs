//! What two nodes live through: cut cables, and the split brain that they can bring.

use crate::node::tests::world::{World, ms};
use crate::node_interface::{NodeEvent, Standing};

#[test]
fn a_short_silence_of_every_channel_is_survived_without_a_new_epoch() {
    let mut world = World::mirrored(10);
    let before = world.machines[0].superblock().configuration;
    world.cut(0);
    world.cut(1);
    world.run(ms(3000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    world.heal(0);
    world.heal(1);
    world.run_until(ms(3000), World::is_mirrored);
    assert_eq!(world.machines[0].superblock().configuration, before);
}

#[test]
fn a_dead_sync_link_with_heartbeats_alive_puts_the_second_node_out() {
    let mut world = World::mirrored(11);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.cut(0);
    world.run_until(ms(5000), |it| it.standing(0) == Some(Standing::Alone));
    assert!(
        !world.machines[0].superblock().configuration.unilateral,
        "the partner stepped down and voted"
    );
    world.run(ms(3000));
    assert_eq!(world.standing(1), Some(Standing::Target));
    assert!(!world.machines[1].superblock().inconsistent);
    // Its initiators are kept for a while, for the partner might serve them through it.
    world.run(ms(8000));
    assert!(!world.machines[1].portals && !world.status(1).unwrap().proxying);
    world.heal(0);
    world.run_until(ms(10_000), World::is_mirrored);
}

#[test]
fn total_partition_with_io_on_one_side_serves_there() {
    let mut world = World::mirrored(12);
    world.machines[1].io = true;
    world.cut(0);
    world.cut(1);
    world.run_until(ms(4000), |it| it.standing(1) == Some(Standing::Alone));
    world.run(ms(3000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    world.heal(0);
    world.heal(1);
    world.run_until(ms(10_000), World::is_mirrored);
    assert!(!world.said("split brain"));
}

#[test]
fn split_brain_is_detected_and_nothing_is_overwritten() {
    let mut world = World::mirrored(13);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.cut(0);
    world.cut(1);
    world.run_until(ms(5000), |it| {
        (0..2).all(|who| it.standing(who) == Some(Standing::Alone))
    });
    world.heal(0);
    world.heal(1);
    world.run_until(ms(5000), |it| {
        (0..2).all(|who| it.status(who).unwrap().split_brain)
    });
    let blocks = [world.machines[0].disk.blocks, world.machines[1].disk.blocks];
    world.run(ms(5000));
    assert_eq!(
        blocks,
        [world.machines[0].disk.blocks, world.machines[1].disk.blocks]
    );
    for who in 0..2 {
        let status = world.status(who).unwrap();
        assert!(status.alarm && status.detail.contains("split brain") && !status.servable);
        assert!(!world.machines[who].portals);
        world.crash(who);
    }
    world.boot(0);
    world.run(ms(5000));
    assert!(world.status(0).unwrap().split_brain, "it is remembered");
}

#[test]
fn a_split_brain_is_resolved_by_one_order() {
    for kept in [0, 1] {
        let mut world = World::mirrored(21);
        (world.machines[0].io, world.machines[1].io) = (true, true);
        world.cut(0);
        world.cut(1);
        world.run(ms(6000));
        world.heal(0);
        world.heal(1);
        world.run_until(ms(5000), |it| {
            (0..2).all(|who| it.status(who).unwrap().split_brain)
        });
        (world.machines[0].io, world.machines[1].io) = (false, false);
        let blocks = world.machines[kept].disk.blocks;
        let order = crate::node_interface::Operator::KeepCopy {
            volume: crate::node::tests::world::VOLUME,
            mine: true,
        };
        world.handle(kept, NodeEvent::Operator(order));
        world.run_until(ms(10_000), World::is_mirrored);
        assert_eq!(
            [blocks, blocks],
            [world.machines[0].disk.blocks, world.machines[1].disk.blocks]
        );
        assert!(
            !world.said("everything is compared"),
            "both had marked what they wrote"
        );
    }
}
