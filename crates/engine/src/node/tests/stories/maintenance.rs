//! What two nodes live through: one of them is taken out of service and comes back.

use crate::node::tests::world::{World, ms};
use crate::node_interface::{MaintenanceStatus, NodeEvent, Operator, Standing};

fn order(world: &mut World, who: usize, enter: bool, force: bool) {
    let order = Operator::Maintenance { enter, force };
    world.handle(who, NodeEvent::Operator(order));
}

fn stage(world: &World, who: usize) -> MaintenanceStatus {
    let node = world.machines[who].node.as_ref().unwrap();
    node.status(world.clock(who)).maintenance
}

fn enter(world: &mut World, who: usize) {
    order(world, who, true, false);
    world.run_until(ms(20_000), |it| stage(it, who) == MaintenanceStatus::On);
}

#[test]
fn a_node_in_maintenance_leaves_the_volume_to_its_partner_and_returns() {
    for who in [0, 1] {
        let mut world = World::mirrored(70);
        world.machines[1 - who].io = true;
        world.run(ms(500));
        enter(&mut world, who);
        assert_eq!(world.standing(1 - who), Some(Standing::Alone));
        let superblock = world.machines[1 - who].superblock();
        assert!(!superblock.configuration.unilateral, "it voted");
        assert!(!world.machines[who].portals && world.machines[1 - who].portals);
        world.run(ms(10_000));
        assert_eq!(
            world.standing(who),
            Some(Standing::Waiting),
            "it is no target"
        );
        let status = world.status(who).unwrap();
        assert!(
            status.detail.contains("maintenance") && !status.alarm,
            "{status:?}"
        );
        order(&mut world, who, false, false);
        world.run_until(ms(10_000), World::is_mirrored);
        assert!(!world.said("everything is compared") && !world.said("going on alone (epoch"));
        world.machines[1 - who].io = false;
        world.run(ms(1000));
        assert_eq!(world.machines[0].disk.blocks, world.machines[1].disk.blocks);
        assert!(world.machines[who].portals);
    }
}

#[test]
fn maintenance_survives_a_restart_and_an_orderly_stop_in_it_is_clean() {
    let mut world = World::mirrored(71);
    world.machines[1].io = true;
    enter(&mut world, 0);
    world.handle(0, NodeEvent::Stop);
    world.run_until(ms(10_000), |it| it.machines[0].stopped == Some(true));
    assert!(world.machines[0].superblock().clean);
    world.crash(0);
    world.run(ms(3000));
    world.boot(0);
    world.run(ms(10_000));
    assert_eq!(stage(&world, 0), MaintenanceStatus::On);
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    assert_eq!(world.standing(1), Some(Standing::Alone));
    // Power fails in the middle of it as well: nothing but the resync is longer.
    world.crash(0);
    world.boot(0);
    world.run(ms(5000));
    assert_eq!(stage(&world, 0), MaintenanceStatus::On);
    order(&mut world, 0, false, false);
    world.run_until(ms(10_000), World::is_mirrored);
    assert!(!world.said("everything is compared"));
}

#[test]
fn nothing_is_handed_to_a_partner_that_cannot_take_it() {
    let mut world = World::mirrored(72);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(300));
    world.crash(1);
    let needed = |world: &World| {
        let node = world.machines[0].node.as_ref().unwrap();
        node.needed_for(world.clock(0)).pop().map(|it| it.1)
    };
    world.run(ms(5000));
    assert!(needed(&world).is_some_and(|it| it.contains("node 2 is not heard")));
    order(&mut world, 0, true, false);
    world.run(ms(3000));
    assert_eq!(stage(&world, 0), MaintenanceStatus::Off);
    assert!(world.said("maintenance was given up"));
    assert_eq!(world.standing(0), Some(Standing::Alone));
    // Told that it is meant, it stands aside, and nobody serves until it is told to come back.
    order(&mut world, 0, true, true);
    world.run_until(ms(20_000), |it| stage(it, 0) == MaintenanceStatus::On);
    assert!(world.status(0).unwrap().alarm && !world.machines[0].portals);
    world.boot(1);
    world.run(ms(10_000));
    assert_eq!(
        world.standing(1),
        Some(Standing::Waiting),
        "its copy is behind"
    );
    order(&mut world, 0, false, false);
    world.run_until(ms(10_000), World::is_mirrored);
}

#[test]
fn a_partner_that_dies_while_initiators_are_led_away_ends_the_maintenance() {
    let mut world = World::mirrored(73);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(300));
    order(&mut world, 0, true, false);
    world.run(ms(500));
    world.crash(1);
    world.run_until(ms(10_000), |it| it.standing(0) == Some(Standing::Alone));
    assert_eq!(stage(&world, 0), MaintenanceStatus::Off);
    assert!(world.machines[0].portals && !world.machines[0].maintenance);
}

#[test]
fn both_nodes_are_taken_out_one_after_the_other_under_load() {
    let mut world = World::mirrored(74);
    for who in [0, 1, 0] {
        world.machines[1 - who].io = true;
        enter(&mut world, who);
        world.handle(who, NodeEvent::Stop);
        world.run_until(ms(10_000), |it| it.machines[who].stopped == Some(true));
        world.crash(who);
        world.run(ms(2000));
        world.boot(who);
        order(&mut world, who, false, false);
        world.run_until(ms(20_000), World::is_mirrored);
        world.machines[1 - who].io = false;
        world.run(ms(500));
    }
    assert_eq!(world.machines[0].disk.blocks, world.machines[1].disk.blocks);
    assert!(!world.said("everything is compared") && !world.said("split brain"));
}
