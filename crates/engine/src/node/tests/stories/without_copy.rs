//! A node that starts without a copy that it could use: the image is not there, or its superblocks
//! are damaged. Its partner serves its initiators through it.

use crate::interface::ToShard;
use crate::node::tests::world::{World, ms};
use crate::node_interface::Standing;
use alloc::vec;
use lockstep_mirror::superblock::SLOT_LEN;
use lockstep_scsi::interface::AccessState;

/// Node 2 was away; node 1 serves alone.
fn alone(seed: u64) -> World {
    let mut world = World::mirrored(seed);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(1000));
    world.crash(1);
    world.run_until(ms(5000), |it| it.standing(0) == Some(Standing::Alone));
    world
}

fn passes(world: &World) -> bool {
    world.status(1).is_some_and(|it| it.proxying)
        && world.machines[1].portals
        && world.machines[1].access == Some(AccessState::NonOptimized)
}

#[test]
fn a_node_whose_image_is_missing_passes_its_initiators_commands_on() {
    let mut world = alone(400);
    world.machines[1].missing = Some("/images/vm1.img is not there".into());
    world.boot(1);
    world.run_until(ms(5000), passes);
    let status = world.status(1).unwrap();
    assert!(status.without_copy && status.alarm && status.servable);
    assert!(
        status.detail.contains("vm1.img is not there"),
        "{}",
        status.detail
    );
    assert!(
        status
            .detail
            .contains("node 1 serves this node's initiators")
    );
    // It says nothing of a copy, and votes for nothing that it would need one for.
    let before = world.machines[1].journal.len();
    world.run(ms(20_000));
    assert_eq!(
        world.machines[1].journal.len(),
        before,
        "it wrote a superblock"
    );
    assert_eq!(world.standing(0), Some(Standing::Alone));
    // The disk is plugged in: what was written meanwhile is copied, and no more.
    world.machines[1].missing = None;
    world.open_copy(1);
    world.run_until(ms(30_000), World::is_mirrored);
    assert!(!world.said("everything is compared"), "{}", world.story());
    (world.machines[0].io, world.machines[1].io) = (false, false);
    world.run(ms(1000));
    assert_eq!(world.machines[0].disk.blocks, world.machines[1].disk.blocks);
}

#[test]
fn a_node_whose_superblocks_are_damaged_passes_commands_on_and_keeps_its_sessions() {
    let mut world = alone(401);
    let slots = world.machines[1].slots.clone();
    world.machines[1].slots = [vec![0xa5; SLOT_LEN], vec![0xa5; SLOT_LEN]];
    world.boot(1);
    world.run_until(ms(5000), passes);
    // The daemon tries again and again: that takes nothing from anybody.
    for _ in 0..3 {
        world.open_copy(1);
        world.run(ms(500));
        assert!(passes(&world), "{}", world.story());
    }
    assert_eq!(
        world.machines[1].slots[0], [0xa5; SLOT_LEN],
        "nothing is written"
    );
    world.machines[1].slots = slots;
    world.open_copy(1);
    world.run_until(ms(30_000), World::is_mirrored);
}

#[test]
fn without_a_copy_nothing_is_passed_to_a_partner_that_does_not_serve() {
    let mut world = alone(402);
    world.crash(0);
    world.machines[1].missing = Some("gone".into());
    world.boot(1);
    world.run(ms(10_000));
    assert!(!passes(&world) && !world.machines[1].portals);
    // Node 1 was the only member: it serves whoever else is there, and both nodes' initiators.
    world.boot(0);
    world.run_until(ms(10_000), |it| {
        it.standing(0) == Some(Standing::Alone) && passes(it)
    });
    world.crash(0);
    world.run(ms(15_000));
    assert!(
        !passes(&world) && !world.machines[1].portals,
        "{}",
        world.story()
    );
}

#[test]
fn a_volume_that_is_known_to_have_no_partner_is_not_served_without_its_copy() {
    use crate::node_interface::{NodeAction, NodeEvent};
    let mut world = World::mirrored(403);
    let now = world.clock(0);
    let node = world.machines[0].node.as_mut().unwrap();
    let mut out = vec![];
    let event = NodeEvent::VolumeUnavailable {
        volume: lockstep_mirror::control::VolumeId(9),
        reason: "gone".into(),
        settings: None,
    };
    node.handle(now, event, &mut out);
    let attaches = |it: &NodeAction| matches!(it, NodeAction::Order(ToShard::Attach(_)));
    assert!(!out.iter().any(attaches));
    assert!(
        node.status(now)
            .problems
            .iter()
            .any(|it| it.contains("gone"))
    );
}
