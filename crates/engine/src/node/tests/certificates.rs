//! Death certificates: which are believed, what they spare, and what they must not spare.

use super::for_seeds;
use super::world::{VOLUME, World, ms};
use crate::certificate::Left;
use crate::node_interface::{NodeEvent, Standing};
use alloc::vec;
use core::time::Duration;
use lockstep_mirror::control::{Incarnation, VolumeId};

/// The longest pause that a certified death may bring here: messages, two superblock writes and a
/// round of the register, each of some tens of milliseconds.
const PROMPT: Duration = ms(400);

/// A pair that serves initiators on both nodes; `referee`: with a witness.
fn busy(seed: u64, referee: bool) -> World {
    let mut world = match referee {
        true => World::refereed(seed),
        false => World::mirrored(seed),
    };
    (world.machines[0].io, world.machines[1].io) = (true, true);
    // A node that has just started does nothing alone, whatever it is told.
    world.run(ms(2000));
    world
}

fn alone(world: &World, who: usize) -> bool {
    world.standing(who) == Some(Standing::Alone)
}

#[test]
fn the_survivor_of_a_certified_death_goes_on_at_once() {
    for referee in [false, true] {
        for dead in [0, 1] {
            let mut world = busy(200, referee);
            let supervisor = world.kill(dead);
            let link = world.certify(&supervisor).unwrap();
            world.run_until(PROMPT, |it| alone(it, 1 - dead));
            assert_eq!(world.certifiers[&link].answer, Some(true));
            assert_eq!(world.certificates(1 - dead), (1, 0));
            let superblock = world.machines[1 - dead].superblock();
            assert_eq!(superblock.configuration.unilateral, !referee);
            assert!(world.said("the partner's daemon has ended"));
            world.boot(dead);
            world.run_until(ms(20_000), World::is_mirrored);
            assert!(!world.said("everything is compared"), "{}", world.story());
        }
    }
}

#[test]
fn without_initiators_nobody_goes_alone_and_the_first_one_is_served_at_once() {
    let mut world = busy(201, false);
    (world.machines[0].io, world.machines[1].io) = (false, false);
    world.run(ms(500));
    let supervisor = world.kill(1);
    world.certify(&supervisor);
    world.run(ms(1000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    world.machines[0].io = true;
    world.run_until(PROMPT, |it| alone(it, 0));
}

#[test]
fn a_certificate_spares_nothing_once_the_silence_was_noticed() {
    let mut world = busy(211, false);
    (world.machines[0].io, world.machines[1].io) = (false, false);
    world.run(ms(500));
    let supervisor = world.kill(1);
    world.certify(&supervisor);
    world.run(ms(5000));
    // Much may have happened to the other machine by now: the partner is waited for once more.
    world.machines[0].io = true;
    world.run(ms(1500));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    world.run_until(ms(1500), |it| alone(it, 0));
}

#[test]
fn a_certificate_replaces_no_vote() {
    // Majority, and the witness is away: a certified death is no reason to serve.
    let mut world = busy(202, true);
    world.crash_witness();
    let supervisor = world.kill(1);
    world.certify(&supervisor);
    world.run(ms(20_000));
    assert_eq!(world.certificates(0), (1, 0));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    let status = world.status(0).unwrap();
    assert!(
        status.detail.contains("witness does not answer"),
        "{status:?}"
    );
    world.boot_witness();
    world.run_until(ms(10_000), |it| alone(it, 0));
}

#[test]
fn a_swap_of_the_dead_run_that_the_witness_took_stands() {
    // Node 2 hears nothing of node 1, asks the witness for the volume, and dies before it knows
    // the answer. Its certificate describes another state, and the witness does the rest.
    let mut tried = 0;
    for seed in 210..240 {
        let mut world = busy(seed, true);
        world.mute(0);
        let asked = |it: &World| it.machines[1].superblock().prepared.is_some();
        world.run_until(ms(5000), asked);
        let wait = ms(world.dice(60));
        world.run(wait);
        if alone(&world, 1) {
            continue;
        }
        tried += 1;
        let supervisor = world.kill(1);
        world.unmute();
        world.certify(&supervisor);
        // The world checks that whatever is served holds every acknowledged write.
        world.run(ms(10_000));
        world.boot(1);
        world.run_until(ms(40_000), World::is_mirrored);
    }
    assert!(tried > 0, "no seed came to that moment");
}

#[test]
fn a_partner_that_went_alone_before_it_died_is_not_followed_by_another_line() {
    // Node 1 hears nothing for so long that it goes alone, while node 2 hears it all the while.
    // What it says of that is lost with it. Its certificate tells.
    let mut world = busy(203, false);
    world.mute(1);
    world.machines[1].io = false;
    world.run_until(ms(8000), |it| {
        it.machines[0].superblock().configuration.unilateral
    });
    let supervisor = world.kill(0);
    world.unmute();
    world.machines[1].io = true;
    world.certify(&supervisor);
    world.run(ms(1500));
    assert!(!alone(&world, 1), "{}", world.story());
    assert_eq!(world.certificates(1).0, 1);
}

#[test]
fn another_state_of_the_volume_spares_no_wait() {
    let amends: [fn(&mut Left); 3] = [
        |it| it.plain = false,
        |it| it.lineage.epoch += 1,
        |it| it.lineage.generation ^= 1,
    ];
    for amend in amends {
        for referee in [false, true] {
            let mut world = busy(204, referee);
            let mut supervisor = world.kill(1);
            World::amend(&mut supervisor, |it| amend(&mut it.left[0]));
            world.certify(&supervisor);
            world.run(ms(1500));
            assert!(!alone(&world, 0), "{}", world.story());
            assert_eq!(world.certificates(0), (1, 1));
            // It waits as it would without.
            world.run_until(ms(3000), |it| alone(it, 0));
        }
    }
}

#[test]
fn a_volume_that_could_not_be_locked_is_waited_for() {
    let mut world = busy(205, false);
    let mut supervisor = world.kill(1);
    World::amend(&mut supervisor, |it| it.left.clear());
    world.certify(&supervisor);
    world.run(ms(1500));
    assert!(!alone(&world, 0), "{}", world.story());
    assert_eq!(world.certificates(0), (1, 0));
    world.run_until(ms(3000), |it| alone(it, 0));
}

#[test]
fn a_volume_of_another_pair_is_refused_and_counted() {
    let mut world = busy(206, false);
    let mut supervisor = world.kill(1);
    World::amend(&mut supervisor, |it| {
        it.left.push(Left {
            volume: VolumeId(VOLUME.0 + 1),
            ..it.left[0]
        });
    });
    world.certify(&supervisor);
    world.run_until(PROMPT, |it| alone(it, 0));
    assert_eq!(world.certificates(0), (1, 1));
    let status = world.machines[0]
        .node
        .as_ref()
        .unwrap()
        .status(world.clock(0));
    let named = |it: &alloc::string::String| it.contains("a volume that is not known here");
    assert!(status.problems.iter().any(named), "{:?}", status.problems);
}

#[test]
fn a_certificate_of_an_earlier_run_is_refused_whenever_it_comes() {
    for referee in [false, true] {
        let mut world = busy(207, referee);
        let supervisor = world.kill(1);
        world.boot(1);
        world.run_until(ms(20_000), World::is_mirrored);
        let link = world.certify(&supervisor).unwrap();
        world.run(ms(3000));
        assert_eq!(world.certifiers[&link].answer, Some(false));
        assert_eq!(world.certificates(0), (0, 1));
        assert!(world.is_mirrored(), "{}", world.story());
        // Nor does it end the silence of the run that dies next.
        world.crash(1);
        world.certify(&supervisor);
        world.run(ms(1500));
        assert!(!alone(&world, 0), "{}", world.story());
        assert_eq!(world.certificates(0), (0, 2));
    }
}

#[test]
fn bytes_that_are_sent_again_prove_nothing() {
    let mut world = busy(208, false);
    let supervisor = world.kill(1);
    let link = world.certify(&supervisor).unwrap();
    world.run_until(PROMPT, |it| alone(it, 0));
    world.boot(1);
    world.run_until(ms(20_000), World::is_mirrored);
    world.say_again(link);
    world.run(ms(2000));
    assert_eq!(world.certificates(0), (1, 1));
    assert!(
        world.said("a death certificate was refused: the peer does not have this pair's secret")
    );
    assert!(world.is_mirrored(), "{}", world.story());
}

#[test]
fn a_stranger_certifies_nothing() {
    let mut world = busy(209, false);
    let mut supervisor = world.kill(1);
    World::amend(&mut supervisor, |it| it.secret = (*b"guessed").into());
    world.certify(&supervisor);
    world.run(ms(1500));
    assert_eq!(world.certificates(0), (0, 1));
    assert!(!alone(&world, 0), "{}", world.story());
}

#[test]
fn a_run_that_goes_on_speaking_is_not_dead_whoever_says_so() {
    // A copy of the node's state directory, somewhere else.
    for referee in [false, true] {
        let mut world = busy(241, referee);
        let run = world.machines[1].incarnation;
        let left = Left::of(&world.machines[1].superblock());
        let mut supervisor = world.kill(1);
        world.boot(1);
        world.run_until(ms(20_000), World::is_mirrored);
        let (run, left) = {
            let now = Left::of(&world.machines[1].superblock());
            assert_ne!((run, left), (world.machines[1].incarnation, now));
            (world.machines[1].incarnation, now)
        };
        World::amend(&mut supervisor, |it| {
            it.run = Incarnation(run);
            it.left = vec![left];
        });
        world.certify(&supervisor);
        world.run(ms(4000));
        assert!(world.is_mirrored(), "{}", world.story());
        assert_eq!(world.certificates(0), (0, 1));
        assert!(world.said("goes on speaking"));
    }
}

#[test]
fn a_dead_run_is_not_heard_again() {
    // What it sent before it died is still on its way, on a connection that is made only now.
    let mut world = busy(242, false);
    let mut supervisor = world.kill(1);
    world.certify(&supervisor);
    world.run_until(PROMPT, |it| alone(it, 0));
    let run = supervisor_run(&mut supervisor);
    world.ghost(1, run);
    world.run(ms(3000));
    assert!(!world.machines[0].hears());
    assert!(world.said("a run of the partner that has ended"));
    assert!(alone(&world, 0));
}

fn supervisor_run(supervisor: &mut super::world::certifier::Supervisor) -> u64 {
    let mut run = 0;
    World::amend(supervisor, |it| run = it.run.0);
    run
}

#[test]
fn what_a_node_overslept_it_knows_from_the_certificate() {
    // Node 2 stood still, and its partner died before it could promise anew. Without a certificate
    // node 2 could not tell whether it had gone alone meanwhile.
    for certified in [false, true] {
        let mut world = busy(243, false);
        world.pause(1, ms(1600));
        world.run(ms(1590));
        let supervisor = world.kill(0);
        if certified {
            world.certify(&supervisor);
        }
        world.run(ms(6000));
        assert_eq!(alone(&world, 1), certified, "{}", world.story());
    }
}

#[test]
fn a_node_that_just_started_is_certified_like_any_other() {
    for referee in [false, true] {
        let mut world = busy(244, referee);
        world.crash(1);
        world.boot(1);
        world.run(ms(400));
        let supervisor = world.kill(1);
        world.certify(&supervisor);
        world.run(ms(10_000));
        assert!(alone(&world, 0), "{}", world.story());
        world.boot(1);
        world.run_until(ms(20_000), World::is_mirrored);
    }
}

fn storm(seed: u64, referee: bool) -> World {
    let mut world = busy(seed, referee);
    world.shard_delay = if seed.is_multiple_of(2) { 1 } else { 60 };
    let mut old = vec![];
    for _ in 0..30 {
        let who = usize::try_from(world.dice(2)).unwrap();
        match world.dice(14) {
            0..=2 if world.runs(who) => {
                let supervisor = world.kill(who);
                if world.dice(4) > 0 {
                    let wait = ms(world.dice(400));
                    world.run(wait);
                    world.certify(&supervisor);
                }
                old.push(supervisor);
            }
            3..=6 if !world.runs(who) => world.boot(who),
            // Late and repeated ones, of runs that ended long ago.
            7 if !old.is_empty() => {
                let which = usize::try_from(world.dice(u64::try_from(old.len()).unwrap())).unwrap();
                world.certify(&old[which]);
            }
            8 => world.cut(0),
            9 => world.heal(0),
            10 if referee => world.cut(1),
            10 | 11 => world.heal(1),
            12 => world.machines[who].io = !world.machines[who].io,
            13 if world.runs(who) && world.dice(2) == 0 => {
                world.handle(who, NodeEvent::Stop);
                world.run(ms(3000));
                let supervisor = world.kill(who);
                world.certify(&supervisor);
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
fn true_late_and_repeated_certificates_split_nothing_and_lose_nothing() {
    for_seeds(150, |seed| {
        let mut world = storm(seed, seed.is_multiple_of(3));
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
