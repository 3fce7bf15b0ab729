//! Random schedules: crashes, cut wires, pauses, orderly stops, traffic that moves. After every
//! event the world checks that only one line serves, that what serves holds every acknowledged
//! write, and that everything served was durable before.

use super::for_seeds;
use super::world::{VOLUME, World, ms};
use crate::interface::FromShard;
use crate::node_interface::{NodeEvent, Standing};
use lockstep_mirror::control::FromVolume;

fn storm(seed: u64, partition: bool) -> World {
    let mut world = World::mirrored(seed);
    world.shard_delay = if seed.is_multiple_of(2) { 1 } else { 60 };
    let mut late = false;
    for _ in 0..30 {
        let who = usize::try_from(world.dice(2)).unwrap();
        match world.dice(13) {
            0 | 1 if world.runs(who) => world.crash(who),
            2..=4 if !world.runs(who) => world.boot(who),
            5 => world.cut(0),
            6 => world.heal(0),
            7 if partition => world.cut(1),
            8 => world.heal(1),
            9 => world.machines[who].io = !world.machines[who].io,
            10 if world.runs(0) && world.runs(1) && !partition => {
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
    for who in 0..2 {
        world.machines[who].io = true;
        if !world.runs(who) {
            world.boot(who);
        }
    }
    world
}

#[test]
fn without_total_partition_two_nodes_always_find_together_again() {
    for_seeds(150, |seed| {
        let mut world = storm(seed, false);
        world.run_until(ms(90_000), World::is_mirrored);
        assert!(!world.said("split brain"), "{}", world.story());
        (world.machines[0].io, world.machines[1].io) = (false, false);
        world.run(ms(1000));
        let (a, b) = (world.machines[0].disk.blocks, world.machines[1].disk.blocks);
        assert_eq!(a, b, "identical after a resync\n{}", world.story());
        assert!(
            !world.said("everything is compared"),
            "no needless full resync\n{}",
            world.story()
        );
    });
}

#[test]
fn with_total_partition_they_find_together_or_both_stand_still() {
    for_seeds(150, |seed| {
        let mut world = storm(seed, true);
        let settled = |it: &World| {
            it.is_mirrored()
                || (0..2).all(|who| {
                    it.status(who)
                        .is_some_and(|it| it.split_brain && !it.servable)
                })
        };
        world.run_until(ms(90_000), settled);
        world.run(ms(1000));
        assert!(
            world.standing(0) == Some(Standing::Mirrored) || world.apart,
            "{}",
            world.story()
        );
    });
}
