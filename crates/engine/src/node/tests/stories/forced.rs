//! What two nodes live through: an operator serves a copy whose partner will never return, and
//! sometimes it returns.

use crate::node::tests::world::{VOLUME, World, ms};
use crate::node_interface::{NodeEvent, Operator, Standing};
use lockstep_mirror::control::{Members, NodeId};
use lockstep_mirror::membership::ForceRefusal;

fn may(world: &World, who: usize, corrupt: bool) -> Result<(), ForceRefusal> {
    let node = world.machines[who].node.as_ref().unwrap();
    node.may_force(world.clock(who), VOLUME, corrupt)
}

fn force(world: &mut World, who: usize, corrupt: bool) {
    assert_eq!(may(world, who, corrupt), Ok(()), "{}", world.describe());
    world.excuse_line_of(who);
    let order = Operator::ForceActivate {
        volume: VOLUME,
        corrupt,
    };
    world.handle(who, NodeEvent::Operator(order));
    world.run_until(ms(4000), |it| it.standing(who) == Some(Standing::Alone));
}

/// Node 2 went alone and died; node 1 has the older copy and waits for it.
fn outdated(world: World) -> World {
    let mut world = world;
    world.crash(0);
    world.machines[1].io = true;
    world.run_until(ms(5000), |it| it.standing(1) == Some(Standing::Alone));
    world.run(ms(1000));
    world.machines[1].io = false;
    world.crash(1);
    world.boot(0);
    world.run(ms(5000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    world
}

#[test]
fn a_copy_whose_partner_never_returns_is_served_by_decision_only() {
    let mut world = outdated(World::mirrored(80));
    world.run(ms(30_000));
    assert_eq!(
        world.standing(0),
        Some(Standing::Waiting),
        "never by itself"
    );
    force(&mut world, 0, false);
    let superblock = world.machines[0].superblock();
    let configuration = superblock.configuration;
    assert_eq!(configuration.members, Members::only(NodeId(1)));
    assert!(configuration.unilateral && superblock.wrote);
    // It is durable: a restart needs no second decision.
    world.crash(0);
    world.boot(0);
    world.run_until(ms(5000), |it| it.standing(0) == Some(Standing::Alone));
}

#[test]
fn a_partner_that_went_another_way_is_never_merged_with_a_forced_copy() {
    for kept in [0, 1] {
        let mut world = outdated(World::mirrored(81));
        force(&mut world, 0, false);
        world.machines[0].io = true;
        world.run(ms(1000));
        world.machines[0].io = false;
        let blocks = [0, 1].map(|who: usize| world.machines[who].disk.blocks);
        world.boot(1);
        let split = |it: &World| (0..2).all(|who| it.status(who).unwrap().split_brain);
        world.run_until(ms(10_000), split);
        world.run(ms(3000));
        assert_eq!(
            blocks,
            [0, 1].map(|who: usize| world.machines[who].disk.blocks)
        );
        // The choice may be told to either node.
        let order = Operator::KeepCopy {
            volume: VOLUME,
            mine: kept == 0,
        };
        world.handle(0, NodeEvent::Operator(order));
        world.run_until(ms(10_000), World::is_mirrored);
        let now = [0, 1].map(|who: usize| world.machines[who].disk.blocks);
        assert_eq!(now, [blocks[kept]; 2]);
        assert!(!world.said("everything is compared"));
    }
}

#[test]
fn a_partner_that_went_nowhere_is_the_forced_copy_s_past() {
    let mut world = World::mirrored(82);
    world.machines[0].io = true;
    world.run(ms(500));
    world.machines[0].io = false;
    world.run(ms(200));
    world.crash(0);
    world.crash(1);
    world.boot(0);
    world.run(ms(5000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    force(&mut world, 0, false);
    world.machines[0].io = true;
    world.run(ms(500));
    world.boot(1);
    world.run_until(ms(10_000), World::is_mirrored);
    assert!(!world.said("split brain") && !world.said("everything is compared"));
}

#[test]
fn what_can_be_served_without_force_is_not_forced() {
    let no = |world: &World, who: usize, text: &str| {
        let refused = may(world, who, true);
        let fits = matches!(&refused, Err(ForceRefusal::No(why)) if why.contains(text));
        assert!(fits, "{refused:?}, not {text}");
    };
    let mut world = World::mirrored(83);
    no(&world, 0, "is served here");
    world.crash(1);
    world.run(ms(500));
    world.run(ms(4000));
    no(&world, 0, "as soon as an initiator needs it");
    world.machines[0].io = true;
    world.run_until(ms(5000), |it| it.standing(0) == Some(Standing::Alone));
    world.boot(1);
    world.run_until(ms(9000), |it| it.standing(1) == Some(Standing::Target));
    no(&world, 1, "brings this copy up to date");
    world.run_until(ms(10_000), World::is_mirrored);
    world.crash(0);
    world.crash(1);
    world.boot(0);
    world.run(ms(500));
    no(&world, 0, "wait some seconds");
    world.boot(1);
    world.run_until(ms(10_000), World::is_mirrored);
    let mut world = World::new(84);
    world.machines[0].create = false;
    world.boot(0);
    world.run(ms(4000));
    no(&world, 0, "blank");
}

#[test]
fn a_copy_in_the_middle_of_a_resync_needs_a_word_more_and_is_compared_whole_later() {
    let mut world = World::mirrored(85);
    world.machines[0].io = true;
    world.crash(1);
    world.run(ms(5000));
    world.boot(1);
    world.run_until(ms(10_000), |it| it.machines[1].superblock().inconsistent);
    world.crash(0);
    world.run(ms(5000));
    assert_eq!(may(&world, 1, false), Err(ForceRefusal::Inconsistent));
    force(&mut world, 1, true);
    assert!(!world.machines[1].superblock().inconsistent);
    world.boot(0);
    let split = |it: &World| (0..2).all(|who| it.status(who).unwrap().split_brain);
    world.run_until(ms(10_000), split);
    world.machines[0].io = false;
    let order = Operator::KeepCopy {
        volume: VOLUME,
        mine: false,
    };
    world.handle(1, NodeEvent::Operator(order));
    world.run_until(ms(20_000), World::is_mirrored);
    assert!(world.said("everything is compared"));
    world.run(ms(500));
    assert_eq!(world.machines[0].disk.blocks, world.machines[1].disk.blocks);
}

#[test]
fn a_replaced_disk_and_an_old_copy_are_served_by_decision() {
    // With a witness the register knows of it, whatever became of the disk.
    let mut world = outdated(World::refereed(86));
    // Node 2 held everything, and its disk is a new one.
    world.machines[1].slots = [alloc::vec![0; 4096], alloc::vec![0; 4096]];
    world.machines[1].disk = crate::node::tests::path::Disk::default();
    world.boot(1);
    world.run(ms(5000));
    let status = world.status(0).unwrap();
    assert!(
        status.detail.contains("disk of node 2 is needed"),
        "{status:?}"
    );
    let blank = may(&world, 1, true);
    assert!(
        matches!(&blank, Err(ForceRefusal::No(why)) if why.contains("blank")),
        "{blank:?}"
    );
    force(&mut world, 0, false);
    world.run_until(ms(20_000), World::is_mirrored);
    assert!(world.said("everything is compared"));
}

#[test]
fn lost_votes_do_not_outlast_the_decision() {
    let mut world = World::mirrored(87);
    world.machines[0].io = true;
    world.crash(1);
    world.run(ms(4000));
    world.crash(0);
    world.machines[0].acceptor = None;
    world.boot(0);
    world.run(ms(5000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    force(&mut world, 0, false);
    world.run(ms(500));
    world.crash(0);
    world.boot(0);
    world.run_until(ms(5000), |it| it.standing(0) == Some(Standing::Alone));
}

#[test]
fn a_majority_that_is_gone_for_good_is_replaced_by_the_operator() {
    let mut world = World::refereed(88);
    world.machines[0].io = true;
    world.run(ms(500));
    world.crash_witness();
    world.crash(1);
    world.run(ms(20_000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    let status = world.status(0).unwrap();
    assert!(
        status.detail.contains("one of them is needed"),
        "{status:?}"
    );
    force(&mut world, 0, false);
    world.run(ms(500));
    // The other one went nowhere: it is brought up to date.
    world.boot(1);
    world.run_until(ms(20_000), World::is_mirrored);
    assert!(!world.said("split brain"));
}
