//! Clocks that jump and clocks that stand still. The world checks all the time that one line
//! serves, and that what serves holds every acknowledged write.

use super::for_seeds;
use super::world::{World, ms};
use crate::node_interface::Standing;
use core::time::Duration;

const HOUR: u64 = 3_600_000;

/// Jumps of all sizes in milliseconds, below and above a lease, up to years.
const JUMPS: [u64; 9] = [
    310,
    900,
    1400,
    1600,
    5000,
    60_000,
    HOUR,
    24 * HOUR,
    90_000 * HOUR,
];

#[test]
fn a_jump_of_one_clock_puts_nobody_out() {
    for (seed, jump) in (300..).zip(JUMPS) {
        for who in [0, 1] {
            let mut world = World::mirrored(seed);
            (world.machines[0].io, world.machines[1].io) = (true, true);
            world.run(ms(1000));
            world.jump(who, ms(jump));
            world.run(ms(8000));
            let told = world.said("did not run, or its clock jumped");
            assert_eq!(told, jump >= 5000, "{jump} ms\n{}", world.story());
            for never in ["going on alone", "is silent", "everything is compared"] {
                assert!(!world.said(never), "{jump} ms, {never}\n{}", world.story());
            }
            assert!(world.is_mirrored(), "{jump} ms\n{}", world.story());
        }
    }
}

#[test]
fn a_jump_shortens_no_wait_for_the_partners_lease() {
    // The cables are pulled, and one clock jumps at once: by it the partner was silent for long,
    // while the partner still reads under the promise that it was given just now.
    for (seed, jump) in (320..).zip(JUMPS) {
        let mut world = World::mirrored(seed);
        (world.machines[0].io, world.machines[1].io) = (true, true);
        world.run(ms(1000));
        world.cut(0);
        world.cut(1);
        world.run(ms(60));
        world.jump(0, ms(jump));
        world.run(ms(1500));
        assert_ne!(
            world.standing(0),
            Some(Standing::Alone),
            "{jump} ms\n{}",
            world.story()
        );
        assert!(!world.said("1 event: the partner is silent"), "{jump} ms");
    }
}

#[test]
fn jumps_again_and_again_do_not_keep_a_silence_from_being_noticed() {
    // As on a machine that is so busy that every turn comes late: time goes on more slowly then,
    // but it goes on.
    let mut world = World::mirrored(340);
    world.machines[0].io = true;
    world.run(ms(1000));
    world.crash(1);
    for _ in 0..6 {
        world.run(ms(500));
        world.jump(0, ms(700));
    }
    world.run_until(ms(1000), |it| it.standing(0) == Some(Standing::Alone));
}

#[test]
fn a_new_run_waits_for_the_promises_of_the_one_before_whatever_its_clock_does() {
    for (seed, jump) in (350..).zip(JUMPS) {
        let mut world = World::mirrored(seed);
        world.machines[0].io = true;
        world.crash(1);
        world.run_until(ms(4000), |it| it.standing(0) == Some(Standing::Alone));
        world.crash(0);
        world.boot(0);
        world.run(ms(40));
        world.jump(0, ms(jump));
        world.run(ms(1300));
        assert_ne!(world.standing(0), Some(Standing::Alone), "{jump} ms");
        world.run_until(ms(4000), |it| it.standing(0) == Some(Standing::Alone));
    }
}

#[test]
fn a_clock_that_stood_still_is_known_from_the_partners_first_word() {
    // A hypervisor stops the machine and hides it: by its own clock the lease still runs.
    for who in [0, 1] {
        let mut world = World::mirrored(360);
        (world.machines[0].io, world.machines[1].io) = (true, true);
        world.run(ms(1000));
        world.blind = Some(who);
        world.stand_still(who, ms(10_000));
        world.run(ms(10_000));
        assert_eq!(world.standing(1 - who), Some(Standing::Alone));
        // As soon as a link is there again; by its own clock the lease runs for a second more.
        world.run(ms(100));
        world.blind = None;
        assert!(world.said("clock stood still for"), "{}", world.story());
        // The world checks that nothing is read here from now on.
        let clock = world.clock(who);
        assert!(!world.machines[who].path.reads(clock));
        let status = world.machines[who].node.as_ref().unwrap().status(clock);
        let named = |it: &alloc::string::String| it.contains("clock stood still");
        assert!(status.problems.iter().any(named), "{:?}", status.problems);
        world.run_until(ms(20_000), World::is_mirrored);
    }
}

#[test]
fn a_clock_that_stood_still_for_less_than_a_lease_costs_nothing_but_a_heartbeat() {
    let mut world = World::mirrored(361);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(1000));
    world.stand_still(1, ms(1200));
    world.run(ms(3000));
    assert!(world.said("2 event: this node's clock stood still for"));
    assert!(!world.said("is silent"), "{}", world.story());
    assert!(world.is_mirrored());
}

#[test]
fn the_partners_wall_clock_is_known_and_nothing_is_decided_by_it() {
    use crate::node_interface::NodeEvent;
    let mut world = World::mirrored(362);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    for wall in [1_795_000_000, 1, 4_000_000_000, u64::MAX, 0] {
        let oldest = world.clock(0);
        world.handle(0, NodeEvent::Stamp { oldest, wall });
        let deadline = world.machines[0].node.as_ref().unwrap().next_deadline();
        world.machines[0].ahead += deadline.unwrap().saturating_sub(oldest);
        world.handle(0, NodeEvent::Tick);
        world.run(ms(20));
        let clock = world.clock(1);
        let status = world.machines[1].node.as_ref().unwrap().status(clock);
        let said = status.partner_wall.map(|it| it.0);
        assert_eq!(said, (wall > 0).then_some(wall));
        assert!(world.is_mirrored());
    }
}

/// Crashes, cut wires and clocks that jump, at random. With a witness nothing is excused.
fn storm(seed: u64, refereed: bool) -> World {
    let mut world = if refereed {
        World::refereed(seed)
    } else {
        World::mirrored(seed)
    };
    world.shard_delay = if seed.is_multiple_of(2) { 1 } else { 60 };
    for _ in 0..30 {
        let who = usize::try_from(world.dice(2)).unwrap();
        match world.dice(14) {
            0 if world.runs(who) => world.crash(who),
            1..=3 if !world.runs(who) => world.boot(who),
            4 => world.cut(0),
            5 => world.heal(0),
            6 if refereed => world.cut(1),
            7 => world.heal(1),
            8 => world.machines[who].io = !world.machines[who].io,
            9..=11 => {
                let most = [1000, 3000, 60_000, 3 * HOUR][usize::try_from(world.dice(4)).unwrap()];
                let by = world.dice(most);
                world.jump(who, ms(by));
            }
            12 if refereed => world.cut_witness(who, false),
            13 if refereed => world.cut_witness(who, true),
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
        if refereed {
            world.cut_witness(who, true);
        }
        world.machines[who].io = true;
        if !world.runs(who) {
            world.boot(who);
        }
    }
    world
}

fn weather(seed: u64, refereed: bool) {
    let mut world = storm(seed, refereed);
    world.run_until(Duration::from_secs(90), World::is_mirrored);
    assert!(!world.said("split brain"), "{}", world.story());
    (world.machines[0].io, world.machines[1].io) = (false, false);
    world.run(ms(1000));
    let (a, b) = (world.machines[0].disk.blocks, world.machines[1].disk.blocks);
    assert_eq!(a, b, "identical after a resync\n{}", world.story());
}

#[test]
fn clocks_that_jump_in_a_storm_lose_nothing() {
    for_seeds(100, |seed| weather(seed, false));
}

#[test]
fn clocks_that_jump_in_a_storm_with_a_witness_lose_nothing() {
    for_seeds(100, |seed| weather(seed, true));
}
