//! What two nodes live through: one is killed, stops, fails or sleeps, and the other one goes on.

use crate::node::tests::world::{World, ms};
use crate::node_interface::{NodeEvent, Standing};

#[test]
fn a_killed_partner_is_put_out_only_when_somebody_needs_the_volume() {
    let mut world = World::mirrored(2);
    world.crash(1);
    world.run(ms(5000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    assert!(world.machines[0].portals, "initiators can still come");
    world.machines[0].io = true;
    // Somebody who comes so late may be the first sign of a network that returns: the partner
    // is waited for once more.
    world.run(ms(1500));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    world.run_until(ms(1000), |it| it.standing(0) == Some(Standing::Alone));
    let superblock = world.machines[0].superblock();
    assert!(superblock.configuration.unilateral && superblock.wrote);
    assert_eq!(superblock.base, 1, "going alone never moves the base");
}

#[test]
fn io_goes_on_within_three_seconds_of_a_kill() {
    for survivor in [0, 1] {
        let mut world = World::mirrored(3);
        world.machines[survivor].io = true;
        world.run(ms(1000));
        world.crash(1 - survivor);
        world.run_until(ms(3000), |it| {
            it.standing(survivor) == Some(Standing::Alone)
        });
    }
}

#[test]
fn a_planned_stop_hands_over_without_a_wait() {
    let mut world = World::mirrored(7);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(500));
    world.handle(0, NodeEvent::Stop);
    world.machines[0].io = false;
    world.run_until(ms(1000), |it| it.standing(1) == Some(Standing::Alone));
    assert!(
        !world.machines[1].superblock().configuration.unilateral,
        "the leaving node voted"
    );
    world.run_until(ms(3000), |it| it.machines[0].stopped == Some(true));
    assert!(world.machines[0].superblock().clean);
    // Only then may it forget what it applied for the owner and knows nothing more of.
    assert!(world.said("1 closes, covered: true, the other serves alone: true"));
    world.crash(0);
    world.run(ms(3000));
    world.boot(0);
    world.run_until(ms(15_000), World::is_mirrored);
}

#[test]
fn a_failed_disk_leaves_the_volume_to_the_partner() {
    use crate::interface::FromShard;
    use lockstep_mirror::control::FromVolume;
    let mut world = World::mirrored(15);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(300));
    world.handle(
        0,
        NodeEvent::Shard(FromShard::Volume(
            crate::node::tests::world::VOLUME,
            FromVolume::DiskFailed,
        )),
    );
    world.run_until(ms(2000), |it| it.standing(1) == Some(Standing::Alone));
    assert!(world.machines[0].superblock().disk_failed);
    world.run(ms(5000));
    assert_eq!(
        world.standing(1),
        Some(Standing::Alone),
        "a failed disk gets no copy"
    );
}

#[test]
fn a_late_partner_is_put_out_and_may_return_later() {
    use crate::interface::FromShard;
    use lockstep_mirror::control::FromVolume;
    let mut world = World::mirrored(16);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.handle(
        1,
        NodeEvent::Shard(FromShard::Volume(
            crate::node::tests::world::VOLUME,
            FromVolume::Late,
        )),
    );
    world.run_until(ms(2000), |it| it.standing(1) == Some(Standing::Alone));
    world.run(ms(20_000));
    assert_eq!(world.standing(1), Some(Standing::Alone));
    world.run_until(ms(20_000), World::is_mirrored);
}

#[test]
fn promises_are_waited_for_before_anything_is_written_alone() {
    use crate::node::tests::path::Mode;
    let mut world = World::mirrored(23);
    world.machines[0].io = true;
    world.run(ms(1000));
    world.crash(1);
    world.run_until(ms(4000), |it| it.standing(0) == Some(Standing::Alone));
    let Mode::Serving { not_before, .. } = world.machines[0].path.mode else {
        panic!("not serving")
    };
    // The last acknowledgement went out at about the crash, and silence is longer than a promise.
    assert!(not_before <= world.clock(0) + ms(20));
    let now = world.clock(0);
    let node = world.machines[0].node.as_mut().unwrap();
    let membership = &mut node
        .volumes
        .get_mut(&crate::node::tests::world::VOLUME)
        .unwrap()
        .membership;
    assert_eq!(membership.promise(now), None, "none to a non-member");
}

#[test]
fn a_node_that_was_put_out_never_goes_alone() {
    let mut world = World::mirrored(25);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.cut(0);
    world.run_until(ms(5000), |it| it.standing(0) == Some(Standing::Alone));
    world.crash(0);
    world.run(ms(8000));
    assert_eq!(world.standing(1), Some(Standing::Waiting));
    assert!(
        world.status(1).unwrap().detail.contains("behind"),
        "{}",
        world.describe()
    );
}

#[test]
fn a_node_that_overslept_does_not_serve_what_its_partner_has_outrun() {
    // It woke, heard nobody for two seconds, and served its old copy: acknowledged writes were gone.
    let mut world = World::mirrored(31);
    world.machines[0].io = true;
    world.machines[1].io = true;
    world.pause(1, ms(12_000));
    world.run(ms(5000));
    assert_eq!(world.standing(0), Some(Standing::Alone));
    world.crash(0);
    world.run(ms(15_000));
    assert_eq!(world.standing(1), Some(Standing::Waiting));
    world.boot(0);
    world.run_until(ms(20_000), World::is_mirrored);
}

#[test]
fn a_node_that_overslept_and_lost_nothing_may_still_go_alone() {
    let mut world = World::mirrored(32);
    world.pause(1, ms(1800));
    world.run(ms(6000));
    world.machines[1].io = true;
    world.crash(0);
    world.run_until(ms(4000), |it| it.standing(1) == Some(Standing::Alone));
}
