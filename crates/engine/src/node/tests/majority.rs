//! Two nodes and a witness: stories, and random schedules in which nothing excuses two lines.

use super::for_seeds;
use super::world::{VOLUME, World, ms};
use crate::interface::FromShard;
use crate::node_interface::{NodeEvent, Standing};
use lockstep_mirror::control::{FromVolume, Members, NodeId};
use lockstep_scsi::interface::AccessState;

#[test]
fn a_volume_is_created_with_its_witness() {
    let world = World::refereed(1);
    let configuration = world.machines[0].superblock().configuration;
    assert_eq!(configuration.witness, world.life());
    assert!(configuration.witness.is_some());
}

#[test]
fn a_killed_partner_is_put_out_with_the_witness_s_vote() {
    for survivor in [0, 1] {
        let mut world = World::refereed(3);
        world.machines[survivor].io = true;
        world.run(ms(1000));
        world.crash(1 - survivor);
        world.run_until(ms(3500), |it| {
            it.standing(survivor) == Some(Standing::Alone)
        });
        let superblock = world.machines[survivor].superblock();
        assert!(!superblock.configuration.unilateral);
        world.boot(1 - survivor);
        world.run_until(ms(20_000), World::is_mirrored);
        assert!(!world.said("everything is compared"), "{}", world.story());
    }
}

#[test]
fn cut_off_from_each_other_one_node_serves_and_the_other_knows_why_not() {
    let mut world = World::refereed(5);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.cut(0);
    world.cut(1);
    world.run(ms(10_000));
    let standing = [world.standing(0), world.standing(1)];
    assert_eq!(standing, [Some(Standing::Alone), Some(Standing::Waiting)]);
    let loser = world.status(1).expect("it runs");
    assert!(loser.detail.contains("went on without"), "{loser:?}");
    world.heal(0);
    world.heal(1);
    world.run_until(ms(20_000), World::is_mirrored);
}

#[test]
fn the_node_that_reaches_the_witness_serves() {
    let mut world = World::refereed(6);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.cut(0);
    world.cut(1);
    world.cut_witness(0, false);
    world.run(ms(10_000));
    let standing = [world.standing(0), world.standing(1)];
    assert_eq!(standing, [Some(Standing::Waiting), Some(Standing::Alone)]);
    let loser = world.status(0).expect("it runs");
    assert!(
        loser.detail.contains("witness does not answer"),
        "{loser:?}"
    );
}

#[test]
fn the_loss_of_the_witness_alone_changes_nothing() {
    let mut world = World::refereed(7);
    world.machines[0].io = true;
    world.crash_witness();
    world.run(ms(30_000));
    assert!(world.is_mirrored(), "{}", world.describe());
    // Nor does it keep a node that restarts from joining again: two of three are there.
    world.crash(1);
    world.boot(1);
    world.run_until(ms(20_000), World::is_mirrored);
}

#[test]
fn a_node_that_hears_its_partner_all_the_while_lets_it_go_on_alone() {
    // Node 1 hears nothing of node 2, which hears node 1; without the witness nothing can be
    // decided until node 2's promise arrives with all that was late. Then node 1's acceptor is
    // bound to its swap, and node 2, still a member, must give way.
    for muted in [0, 1] {
        let mut world = World::refereed(14);
        world.crash_witness();
        world.mute(muted);
        world.run_until(ms(5000), |it| {
            it.standing(1 - muted) == Some(Standing::Waiting)
        });
        world.run(ms(1500));
        world.unmute();
        world.run_until(ms(20_000), World::is_mirrored);
        assert!(!world.said("everything is compared"), "{}", world.story());
    }
}

#[test]
fn a_node_that_lacks_a_quorum_lets_its_initiators_go_to_the_other_one() {
    let mut world = World::refereed(15);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.cut(0);
    world.cut(1);
    world.cut_witness(0, false);
    world.run(ms(8000));
    assert!(world.machines[0].portals, "it may be over in a moment");
    assert_eq!(world.machines[0].access, Some(AccessState::Transitioning));
    world.run(ms(8000));
    assert_eq!(world.machines[0].access, Some(AccessState::Unavailable));
    assert!(!world.machines[0].portals, "{}", world.story());
    assert!(world.machines[1].portals);
    // Where nobody else is left it serves again as soon as it may.
    world.crash(1);
    world.cut_witness(0, true);
    world.heal(0);
    world.run(ms(3000));
    world.boot(1);
    world.run_until(ms(30_000), World::is_mirrored);
    assert!(world.machines[0].portals && world.machines[1].portals);
}

#[test]
fn without_two_of_three_nobody_serves() {
    let mut world = World::refereed(8);
    world.machines[0].io = true;
    world.crash_witness();
    world.crash(1);
    world.run(ms(30_000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    world.boot_witness();
    world.run_until(ms(10_000), |it| it.standing(0) == Some(Standing::Alone));
}

#[test]
fn after_a_power_cut_of_both_one_node_starts_with_the_witness() {
    let mut world = World::refereed(9);
    world.run(ms(1000));
    world.crash(0);
    world.crash(1);
    world.boot(0);
    world.run_until(ms(30_000), |it| it.standing(0) == Some(Standing::Alone));
    world.boot(1);
    world.run_until(ms(20_000), World::is_mirrored);
}

#[test]
fn a_node_that_was_away_does_not_start_on_its_old_copy() {
    let mut world = World::refereed(10);
    world.machines[0].io = true;
    world.crash(1);
    world.run_until(ms(5000), |it| it.standing(0) == Some(Standing::Alone));
    world.run(ms(2000));
    world.crash(0);
    world.boot(1);
    world.run(ms(60_000));
    assert_eq!(world.standing(1), Some(Standing::Waiting));
    world.boot(0);
    world.run_until(ms(30_000), World::is_mirrored);
}

#[test]
fn a_witness_that_lost_its_votes_is_none_until_it_is_admitted() {
    let mut world = World::refereed(11);
    world.machines[0].io = true;
    world.crash_witness();
    world.wipe_witness();
    world.boot_witness();
    world.run(ms(5000));
    // Not admitted: its vote counts for nothing.
    world.crash(1);
    world.run(ms(20_000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    world.boot(1);
    world.run_until(ms(20_000), World::is_mirrored);
    // Admitted by the two nodes, it votes.
    world.desired = world.life();
    for who in 0..2 {
        let witness = world.desired;
        world.handle(
            who,
            NodeEvent::Witness {
                volume: VOLUME,
                witness,
            },
        );
    }
    let life = world.life();
    world.run_until(ms(20_000), |it| {
        it.is_mirrored() && it.machines[0].superblock().configuration.witness == life
    });
    world.crash(1);
    world.run_until(ms(5000), |it| it.standing(0) == Some(Standing::Alone));
}

#[test]
fn the_strategy_is_changed_while_it_is_served() {
    let mut world = World::with_witness(12);
    let life = world.life();
    world.desired = None;
    world.referee = None;
    world.boot(0);
    world.boot(1);
    world.run_until(ms(10_000), World::is_mirrored);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    for witness in [life, None] {
        for who in [1, 0] {
            world.handle(
                who,
                NodeEvent::Witness {
                    volume: VOLUME,
                    witness,
                },
            );
        }
        world.run_until(ms(20_000), |it| {
            it.is_mirrored() && it.machines[1].superblock().configuration.witness == witness
        });
        let both = Members::only(NodeId(1)).with(NodeId(2));
        assert_eq!(world.machines[0].superblock().configuration.members, both);
    }
}

#[test]
fn a_node_that_lost_its_votes_gets_them_back_from_the_other_two() {
    let mut world = World::refereed(13);
    world.machines[0].io = true;
    world.crash(1);
    world.machines[1].acceptor = None;
    world.run(ms(1000));
    world.boot(1);
    world.run_until(ms(30_000), World::is_mirrored);
    world.crash(0);
    world.machines[1].io = true;
    world.run_until(ms(5000), |it| it.standing(1) == Some(Standing::Alone));
}

fn storm(seed: u64) -> World {
    let mut world = World::refereed(seed);
    world.shard_delay = if seed.is_multiple_of(2) { 1 } else { 60 };
    let mut late = false;
    for _ in 0..30 {
        let who = usize::try_from(world.dice(2)).expect("small");
        match world.dice(19) {
            0 | 1 if world.runs(who) => world.crash(who),
            2..=4 if !world.runs(who) => world.boot(who),
            5 => world.cut(0),
            6 => world.heal(0),
            7 => world.cut(1),
            8 => world.heal(1),
            9 => world.machines[who].io = !world.machines[who].io,
            10 if world.runs(0) && world.runs(1) => {
                let long = ms(world.dice(6000));
                world.pause(who, long);
                world.run(long + ms(5000));
            }
            11 if world.runs(who) && world.dice(2) == 0 => {
                world.handle(who, NodeEvent::Stop);
                world.run(ms(3000));
                world.crash(who);
            }
            12 if !late && world.runs(0) && world.runs(1) => {
                late = true;
                world.handle(
                    who,
                    NodeEvent::Shard(FromShard::Volume(VOLUME, FromVolume::Late)),
                );
            }
            13 | 14 => world.cut_witness(who, false),
            15 | 16 => world.cut_witness(who, true),
            17 if world.witness_runs() => world.crash_witness(),
            18 if !world.witness_runs() => world.boot_witness(),
            _ => {}
        }
        let wait = match world.dice(3) {
            0 => world.dice(100),
            1 => world.dice(1000),
            _ => world.dice(8000),
        };
        world.run(ms(wait));
    }
    world.heal(0);
    world.heal(1);
    if !world.witness_runs() {
        world.boot_witness();
    }
    for who in 0..2 {
        world.cut_witness(who, true);
        world.machines[who].io = true;
        if !world.runs(who) {
            world.boot(who);
        }
    }
    world
}

#[test]
fn with_a_witness_there_is_never_more_than_one_line_and_always_one_in_the_end() {
    for_seeds(150, |seed| {
        let mut world = storm(seed);
        world.run_until(ms(90_000), World::is_mirrored);
        (world.machines[0].io, world.machines[1].io) = (false, false);
        world.run(ms(1000));
        let (a, b) = (world.machines[0].disk.blocks, world.machines[1].disk.blocks);
        assert_eq!(a, b, "identical after a resync\n{}", world.story());
        for text in ["split brain", "everything is compared"] {
            assert!(!world.said(text), "{}", world.story());
        }
    });
}
