//! Cold starts: what a node that is started alone does, and whom it says that it waits for. One
//! line of the table in `docs/membership.md` each.

use super::world::{World, ms};
use crate::node_interface::{NodeEvent, Standing};
use lockstep_mirror::control::Members;

const BOTH: [usize; 2] = [0, 1];

/// A pair that was written to through both nodes; with a witness or without.
fn written(seed: u64, referee: bool) -> World {
    let mut world = match referee {
        true => World::refereed(seed),
        false => World::mirrored(seed),
    };
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(2000));
    world
}

/// As `written`, and that node serves alone, the other one being gone.
fn alone(seed: u64, referee: bool, who: usize) -> World {
    let mut world = written(seed, referee);
    world.crash(1 - who);
    world.run_until(ms(8000), |it| it.standing(who) == Some(Standing::Alone));
    world.run(ms(1000));
    world
}

fn stop(world: &mut World, who: usize) {
    world.handle(who, NodeEvent::Stop);
    world.run_until(ms(20_000), |it| it.machines[who].stopped.is_some());
    assert_eq!(world.machines[who].stopped, Some(true), "{}", world.story());
    world.crash(who);
}

/// For a minute it serves nobody, and says so in these words.
fn waits(world: &mut World, who: usize, words: &str) {
    world.run(ms(60_000));
    assert_eq!(
        world.standing(who),
        Some(Standing::Waiting),
        "{}",
        world.story()
    );
    let detail = world.status(who).unwrap().detail;
    assert!(detail.contains(words), "{detail:?} does not say {words:?}");
    assert!(!world.machines[who].portals);
}

fn serves_alone(world: &mut World, who: usize, limit: u64) {
    world.run_until(ms(limit), |it| it.standing(who) == Some(Standing::Alone));
}

/// The other one comes: both serve again, nothing is lost (the world looks after every event).
fn comes_back(world: &mut World, who: usize) {
    world.boot(who);
    world.run_until(ms(40_000), World::is_mirrored);
    assert!(!world.said("everything is compared"), "{}", world.story());
    assert!(!world.said("split brain"), "{}", world.story());
}

#[test]
fn both_stopped_in_order_and_started_in_any_order_have_nothing_to_compare() {
    for referee in [false, true] {
        for (first_down, first_up) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut world = written(300, referee);
            (world.machines[0].io, world.machines[1].io) = (false, false);
            world.run(ms(1000));
            let epoch = |it: &World| it.machines[0].superblock().configuration.epoch;
            // Both at once: neither is left alone.
            for who in [first_down, 1 - first_down] {
                world.handle(who, NodeEvent::Stop);
            }
            let stopped = |it: &World| BOTH.iter().all(|who| it.machines[*who].stopped.is_some());
            world.run_until(ms(30_000), stopped);
            for who in BOTH {
                assert_eq!(world.machines[who].stopped, Some(true), "{}", world.story());
                world.crash(who);
            }
            let before = epoch(&world);
            world.boot(first_up);
            world.run(ms(5000));
            assert_eq!(world.standing(first_up), Some(Standing::Waiting));
            comes_back(&mut world, 1 - first_up);
            assert!(epoch(&world) > before, "a new epoch, and nothing of before");
        }
    }
}

#[test]
fn one_after_the_other_stopped_in_order_the_last_one_serves_first() {
    for referee in [false, true] {
        for last in BOTH {
            let mut world = written(301, referee);
            stop(&mut world, 1 - last);
            serves_alone(&mut world, last, 8000);
            stop(&mut world, last);
            // The one that left first knows that it may be behind.
            world.boot(1 - last);
            let words = "went on without this node; the copy here is behind";
            waits(&mut world, 1 - last, words);
            comes_back(&mut world, last);
        }
    }
}

#[test]
fn both_killed_come_back_in_any_order() {
    for referee in [false, true] {
        for first in BOTH {
            let mut world = written(302, referee);
            world.crash(first);
            world.crash(1 - first);
            world.boot(1 - first);
            world.run(ms(5000));
            comes_back(&mut world, first);
        }
    }
}

#[test]
fn last_as_one_of_two_and_started_alone_it_waits_for_the_other_one() {
    for who in BOTH {
        let mut world = written(303, false);
        world.crash(0);
        world.crash(1);
        world.boot(who);
        let other = 2 - who;
        let words =
            alloc::format!("waits for node {other}: this node stopped while both were members");
        waits(&mut world, who, &words);
        comes_back(&mut world, 1 - who);
    }
}

#[test]
fn last_as_one_of_two_it_serves_with_the_witness_s_vote_and_not_before_15_s() {
    for who in BOTH {
        let mut world = written(304, true);
        world.crash(0);
        world.crash(1);
        world.boot(who);
        world.run(ms(14_500));
        assert_eq!(world.standing(who), Some(Standing::Waiting));
        serves_alone(&mut world, who, 6000);
        comes_back(&mut world, 1 - who);
    }
}

#[test]
fn last_as_one_of_two_without_partner_and_witness_it_waits_for_one_of_them() {
    for who in BOTH {
        let mut world = written(305, true);
        world.crash_witness();
        world.crash(0);
        world.crash(1);
        world.boot(who);
        waits(
            &mut world,
            who,
            "the witness does not answer: one of them is needed",
        );
        world.boot_witness();
        serves_alone(&mut world, who, 6000);
        comes_back(&mut world, 1 - who);
    }
}

#[test]
fn last_alone_it_serves_at_once_whoever_is_there() {
    for referee in [false, true] {
        for who in BOTH {
            let mut world = alone(306, referee, who);
            if referee {
                world.crash_witness();
            }
            world.crash(who);
            world.boot(who);
            serves_alone(&mut world, who, 4000);
            comes_back(&mut world, 1 - who);
        }
    }
}

#[test]
fn last_alone_with_an_open_join_it_asks_and_does_not_guess() {
    for referee in [false, true] {
        let mut world = alone(307, referee, 0);
        world.boot(1);
        let both = |it: &World| {
            let prepared = it.machines[0].superblock().prepared;
            prepared.is_some_and(|it| it.members.count() == 2)
        };
        world.run_until(ms(30_000), both);
        let configuration = world.machines[0].superblock().configuration;
        assert_eq!(configuration.members, Members(1 << 1));
        world.crash(0);
        world.crash(1);
        if referee {
            world.crash_witness();
        }
        world.boot(0);
        let words = match referee {
            false => "stopped in the middle of a join",
            true => "one of them is needed",
        };
        waits(&mut world, 0, words);
        if referee {
            // The witness knows whether the join was decided.
            world.boot_witness();
            serves_alone(&mut world, 0, 20_000);
        }
        comes_back(&mut world, 1);
    }
}

#[test]
fn a_copy_that_is_behind_waits_for_the_one_that_went_on() {
    for referee in [false, true] {
        for who in BOTH {
            let mut world = alone(308, referee, 1 - who);
            world.boot(who);
            // It has heard that the other one went on, and no more.
            world.run_until(ms(5000), |it| it.machines[who].hears());
            world.run(ms(60));
            world.crash(1 - who);
            waits(
                &mut world,
                who,
                "went on without this node; the copy here is behind",
            );
            comes_back(&mut world, 1 - who);
        }
    }
}

#[test]
fn an_inconsistent_copy_waits_for_its_source() {
    for referee in [false, true] {
        let mut world = alone(309, referee, 0);
        world.boot(1);
        world.run_until(ms(30_000), |it| it.machines[1].superblock().inconsistent);
        world.crash(0);
        world.crash(1);
        world.boot(1);
        waits(&mut world, 1, "waits for node 1");
        comes_back(&mut world, 0);
    }
}

#[test]
fn without_its_votes_it_waits_for_the_other_one() {
    for referee in [false, true] {
        let mut world = written(310, referee);
        world.crash(1);
        world.crash(0);
        world.machines[0].acceptor = None;
        world.boot(0);
        waits(&mut world, 0, "this node's register file was lost");
        comes_back(&mut world, 1);
    }
}
