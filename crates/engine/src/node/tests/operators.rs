//! Random schedules with operators in them: maintenance at any moment, copies that are served by
//! force while the other node is away for good (and comes back all the same), splits resolved on
//! either node. What a decision may lose is taken from what it left behind at that moment; nothing
//! else is excused.

use super::for_seeds;
use super::world::{VOLUME, World, ms};
use crate::node_interface::{NodeEvent, Operator};

fn order(world: &mut World, who: usize, order: Operator) {
    world.handle(who, NodeEvent::Operator(order));
}

/// Goes into maintenance if that harms nobody, or comes out of it.
fn maintain(world: &mut World, who: usize) {
    let node = world.machines[who].node.as_ref().expect("it runs");
    let enter = !world.machines[who].maintenance;
    let force = false;
    if !enter || node.needed_for(world.clock(who)).is_empty() {
        order(world, who, Operator::Maintenance { enter, force });
    }
}

fn force(world: &mut World, who: usize) -> bool {
    let corrupt = true;
    let node = world.machines[who].node.as_ref().expect("it runs");
    if world.runs(1 - who) || node.may_force(world.clock(who), VOLUME, corrupt).is_err() {
        return false;
    }
    world.excuse_line_of(who);
    let volume = VOLUME;
    order(world, who, Operator::ForceActivate { volume, corrupt });
    true
}

/// Chooses a copy if both nodes know of a split.
fn resolve(world: &mut World) {
    let split = |who: usize| world.status(who).is_some_and(|it| it.split_brain);
    if !(split(0) && split(1)) {
        return;
    }
    let told = usize::try_from(world.dice(2)).unwrap();
    let mine = world.dice(2) == 0;
    let volume = VOLUME;
    order(world, told, Operator::KeepCopy { volume, mine });
}

fn storm(world: &mut World, forces: bool) -> usize {
    world.shard_delay = 1 + world.dice(2) * 59;
    let mut forced = 0;
    for _ in 0..30 {
        let who = usize::try_from(world.dice(2)).unwrap();
        match world.dice(14) {
            0..=2 if world.runs(who) => world.crash(who),
            3..=5 if !world.runs(who) => world.boot(who),
            6 => world.cut(0),
            7 => world.heal(0),
            8 => world.machines[who].io = !world.machines[who].io,
            9 if world.runs(who) => {
                world.handle(who, NodeEvent::Stop);
                world.run(ms(3000));
                world.crash(who);
            }
            10 | 11 if world.runs(who) => maintain(world, who),
            12 | 13 if forces && world.runs(who) => {
                forced += usize::from(force(world, who));
            }
            _ => {}
        }
        let wait = match world.dice(3) {
            0 => world.dice(100),
            1 => world.dice(1000),
            _ => world.dice(8000),
        };
        world.run(ms(wait));
        resolve(world);
    }
    world.heal(0);
    for who in 0..2 {
        world.machines[who].io = true;
        if !world.runs(who) {
            world.boot(who);
        }
        if world.machines[who].maintenance {
            maintain(world, who);
        }
    }
    forced
}

fn equal_in_the_end(world: &mut World) {
    (world.machines[0].io, world.machines[1].io) = (false, false);
    world.run(ms(1000));
    let (a, b) = (world.machines[0].disk.blocks, world.machines[1].disk.blocks);
    assert_eq!(a, b, "identical after a resync\n{}", world.story());
}

#[test]
fn maintenance_at_any_moment_loses_and_splits_nothing() {
    for_seeds(150, |seed| {
        let witness = seed.is_multiple_of(2);
        let mut world = match witness {
            true => World::refereed(seed),
            false => World::mirrored(seed),
        };
        storm(&mut world, false);
        world.run_until(ms(90_000), World::is_mirrored);
        assert!(!world.said("split brain"), "{}", world.story());
        assert!(
            !world.said("everything is compared"),
            "no needless full resync\n{}",
            world.story()
        );
        equal_in_the_end(&mut world);
    });
}

#[test]
fn a_copy_that_is_forced_at_any_moment_costs_only_what_was_decided() {
    let mut forced = 0;
    let counted = core::sync::atomic::AtomicUsize::new(0);
    for_seeds(200, |seed| {
        let mut world = match seed.is_multiple_of(2) {
            true => World::refereed(seed),
            false => World::mirrored(seed),
        };
        let here = storm(&mut world, true);
        counted.fetch_add(here, core::sync::atomic::Ordering::Relaxed);
        for _ in 0..9 {
            world.run(ms(10_000));
            resolve(&mut world);
        }
        world.run_until(ms(90_000), World::is_mirrored);
        equal_in_the_end(&mut world);
    });
    forced += counted.into_inner();
    assert!(forced > 0, "no copy was forced");
}
