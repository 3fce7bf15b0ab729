//! What two nodes live through: joins, votes, and resyncs that are broken off.

use crate::node::tests::world::{World, ms};
use crate::node_interface::{NodeEvent, Standing};
use lockstep_mirror::control::{Members, NodeId};

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
        node.volumes[&crate::node::tests::world::VOLUME]
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
            NodeEvent::Shard(FromShard::Volume(crate::node::tests::world::VOLUME, word)),
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
