//! What two nodes live through.

use super::world::{World, ms};
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
fn a_partner_that_returns_is_resynchronised_and_joins() {
    let mut world = World::mirrored(4);
    world.machines[0].io = true;
    world.run(ms(1000));
    world.crash(1);
    world.run(ms(5000));
    world.boot(1);
    world.run_until(ms(10_000), |it| it.standing(1) == Some(Standing::Target));
    assert!(!world.machines[1].portals, "a target's portals stay closed");
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
    world.machines[1].disk = super::path::Disk::default();
    world.boot(1);
    world.run_until(ms(15_000), World::is_mirrored);
    assert!(world.said("everything is compared"));
    world.machines[0].io = false;
    world.run(ms(1000));
    assert_eq!(world.machines[0].disk.blocks, world.machines[1].disk.blocks);
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
    assert!(!world.machines[1].portals && !world.machines[1].superblock().inconsistent);
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
            volume: super::world::VOLUME,
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

#[test]
fn a_partner_with_another_secret_or_size_is_refused_by_name() {
    let mut world = World::new(14);
    world.machines[1].secret = b"guess".to_vec();
    world.boot(0);
    world.boot(1);
    world.run(ms(4000));
    let problems = world.machines[0]
        .node
        .as_ref()
        .unwrap()
        .status(world.now)
        .problems;
    assert!(
        problems.iter().any(|it| it.contains("this pair's secret")),
        "{problems:?}"
    );
    let events = world
        .trace
        .iter()
        .filter(|it| it.contains("1 event") && it.contains("secret"))
        .count();
    assert_eq!(events, 2, "one for each path, however often it dials");
    let mut world = World::new(14);
    world.machines[1].size *= 2;
    world.boot(0);
    world.boot(1);
    world.run(ms(4000));
    assert!(
        world.status(0).unwrap().detail.contains("another size"),
        "{}",
        world.describe()
    );
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
            super::world::VOLUME,
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
        NodeEvent::Shard(FromShard::Volume(super::world::VOLUME, FromVolume::Late)),
    );
    world.run_until(ms(2000), |it| it.standing(1) == Some(Standing::Alone));
    world.run(ms(20_000));
    assert_eq!(world.standing(1), Some(Standing::Alone));
    world.run_until(ms(20_000), World::is_mirrored);
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
fn damaged_superblocks_are_refused_and_nothing_is_written() {
    let mut world = World::mirrored(19);
    world.crash(0);
    for slot in &mut world.machines[0].slots {
        slot[100] ^= 1;
    }
    let before = world.machines[0].slots.clone();
    world.boot(0);
    world.run(ms(3000));
    let problems = world.machines[0]
        .node
        .as_ref()
        .unwrap()
        .status(world.now)
        .problems;
    assert!(
        problems
            .iter()
            .any(|it| it.contains("both superblock slots")),
        "{problems:?}"
    );
    assert_eq!(world.machines[0].slots, before);
}

#[test]
fn random_bytes_on_a_control_port_change_nothing() {
    use crate::node_interface::LinkId;
    let mut world = World::mirrored(20);
    for link in 5000..5200 {
        // Strangers that only connect.
        world.handle(
            0,
            NodeEvent::LinkUp {
                link: LinkId(link),
                path: 0,
            },
        );
    }
    for link in 1000..1200 {
        world.handle(
            0,
            NodeEvent::LinkUp {
                link: LinkId(link),
                path: 0,
            },
        );
        world.handle(
            0,
            NodeEvent::LinkBytes {
                link: LinkId(link),
                bytes: &[0x47; 300],
            },
        );
        world.handle(0, NodeEvent::LinkDown { link: LinkId(link) });
    }
    world.run(ms(3000));
    assert!(world.is_mirrored());
    assert!(
        world
            .trace
            .iter()
            .filter(|it| it.contains("not a Lockstep node"))
            .count()
            <= 1
    );
}

#[test]
fn an_acceptor_votes_only_for_what_its_copy_is_ready_for() {
    use lockstep_mirror::control::Configuration;
    use lockstep_mirror::register::Vote;
    let vote = |world: &World, who: usize, members: Members| {
        let node = world.machines[who].node.as_ref().unwrap();
        let value = Configuration {
            epoch: 9,
            generation: 9,
            members,
            owner: NodeId(1),
            unilateral: false,
            witness: None,
        };
        node.volumes[&super::world::VOLUME]
            .membership
            .may_accept(&value, &Vote::default())
    };
    let (one, two) = (Members::only(NodeId(1)), Members::only(NodeId(2)));
    let mut world = World::mirrored(22);
    assert!(!vote(&world, 0, two), "it serves: it must stop first");
    assert!(!vote(&world, 1, one));
    assert!(
        !vote(&world, 0, one) && !vote(&world, 0, one.with(NodeId(2))),
        "no join record is open"
    );
    world.cut(0);
    world.cut(1);
    world.run(ms(3000));
    assert!(vote(&world, 0, two), "it stands still");
    world.machines[0].io = true;
    world.run_until(ms(3000), |it| it.standing(0) == Some(Standing::Alone));
    assert!(!vote(&world, 0, two));
}

#[test]
fn promises_are_waited_for_before_anything_is_written_alone() {
    use super::path::Mode;
    let mut world = World::mirrored(23);
    world.machines[0].io = true;
    world.run(ms(1000));
    world.crash(1);
    world.run_until(ms(4000), |it| it.standing(0) == Some(Standing::Alone));
    let Mode::Serving { not_before, .. } = world.machines[0].path.mode else {
        panic!("not serving")
    };
    // The last acknowledgement went out at about the crash, and silence is longer than a promise.
    assert!(not_before <= world.now + ms(20));
    let node = world.machines[0].node.as_mut().unwrap();
    let membership = &mut node
        .volumes
        .get_mut(&super::world::VOLUME)
        .unwrap()
        .membership;
    assert_eq!(membership.promise(world.now), None, "none to a non-member");
}

#[test]
fn a_join_that_was_cut_short_is_never_finished_alone() {
    for crashed_first in [0, 1] {
        let mut world = World::mirrored(24);
        world.machines[0].io = true;
        world.crash(1);
        world.run(ms(4000));
        world.boot(1);
        let joining = |it: &World| {
            it.machines.iter().all(|it| {
                it.superblock()
                    .prepared
                    .is_some_and(|it| it.members.count() == 2)
            })
        };
        world.run_until(ms(20_000), joining);
        world.crash(crashed_first);
        world.run(ms(3000));
        world.crash(1 - crashed_first);
        world.boot(0);
        world.run(ms(6000));
        let detail = world.status(0).unwrap().detail;
        let alone = world.standing(0) == Some(Standing::Alone);
        // The source may have gone on alone by the way of a silent partner, and only it.
        assert!(
            alone && crashed_first == 1 || detail.contains("in the middle of a join"),
            "{}",
            world.describe()
        );
        world.boot(1);
        world.run_until(ms(15_000), World::is_mirrored);
    }
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

#[test]
fn a_late_word_of_a_broken_off_resync_counts_for_nothing() {
    use crate::interface::FromShard;
    use lockstep_mirror::control::FromVolume;
    let mut world = World::mirrored(26);
    world.machines[0].io = true;
    world.crash(1);
    world.run(ms(4000));
    world.boot(1);
    world.run_until(ms(10_000), |it| it.said("order Collect"));
    let say = |world: &mut World, word: FromVolume| {
        world.handle(
            0,
            NodeEvent::Shard(FromShard::Volume(super::world::VOLUME, word)),
        );
    };
    // Of an attempt before this one: everything was drained then.
    say(&mut world, FromVolume::JoinReady);
    world.run_until(ms(2000), |it| it.said("order Copy"));
    world.run(ms(100));
    let early = world.machines[0].superblock().prepared;
    assert!(
        early.is_none_or(|it| it.members.count() == 1),
        "a join before the copy: {early:?}"
    );
    world.run_until(ms(10_000), World::is_mirrored);
    // No channel in the middle of it: the next attempt waits until the data path has answered.
    let before = world
        .trace
        .iter()
        .filter(|it| it.contains("order Collect"))
        .count();
    world.crash(1);
    world.run(ms(4000));
    world.boot(1);
    let again = move |it: &World| {
        it.trace
            .iter()
            .filter(|it| it.contains("order Collect"))
            .count()
            > before
    };
    world.run_until(ms(10_000), again);
    say(&mut world, FromVolume::Channel { up: false });
    say(&mut world, FromVolume::Channel { up: true });
    say(&mut world, FromVolume::UnionDurable { dirty: 0 });
    let orders: alloc::vec::Vec<_> = world
        .trace
        .iter()
        .filter(|it| it.contains("1 order"))
        .collect();
    assert!(orders.last().unwrap().contains("Serve"), "{orders:?}");
    world.run_until(ms(10_000), World::is_mirrored);
    world.machines[0].io = false;
    world.run(ms(1000));
    assert_eq!(world.machines[0].disk.blocks, world.machines[1].disk.blocks);
}
