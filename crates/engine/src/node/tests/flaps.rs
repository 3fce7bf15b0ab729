//! Cables that are pulled and plugged in again: who may go alone, and who must wait.

use super::world::{World, ms};
use crate::node_interface::Standing;
use core::time::Duration;

/// A pair that serves initiators on both nodes.
fn busy(seed: u64) -> World {
    let mut world = World::mirrored(seed);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(1000));
    world
}

fn pull_all(world: &mut World) {
    world.cut(0);
    world.cut(1);
}

fn plug_all(world: &mut World) {
    world.heal(0);
    world.heal(1);
}

fn alone(world: &World, who: usize) -> bool {
    world.standing(who) == Some(Standing::Alone)
}

/// All cables of one node are pulled, those to its initiators too, and plugged in again; the
/// initiators are back at once, the links to the partner after a while.
fn flap(cut_off: usize, long: Duration, links_later: Duration) -> World {
    let mut world = busy(40);
    pull_all(&mut world);
    world.machines[cut_off].io = false;
    world.run(long);
    world.machines[cut_off].io = true;
    let end = world.now + links_later + ms(12_000);
    let back = world.now + links_later;
    while world.now < end {
        world.run(ms(20));
        if world.now >= back && !world.wires[0] {
            plug_all(&mut world);
        }
        assert!(
            !(alone(&world, 0) && alone(&world, 1)),
            "both went alone: node {} was cut off for {long:?}\n{}",
            cut_off + 1,
            world.story()
        );
    }
    world
}

#[test]
fn cables_that_come_back_at_any_moment_do_not_split_the_pair() {
    for cut_off in [0, 1] {
        for long in (1000..3400).step_by(60) {
            let world = flap(cut_off, ms(long), ms(700));
            assert!(
                world.is_mirrored() && !world.said("split brain"),
                "{}",
                world.story()
            );
        }
    }
}

#[test]
fn a_quick_flap_changes_nothing() {
    let mut world = busy(41);
    let before = world.machines[0].superblock().configuration;
    pull_all(&mut world);
    world.run(ms(1400));
    plug_all(&mut world);
    world.run(ms(3000));
    assert!(world.is_mirrored() && !world.said("suspended"));
    assert_eq!(world.machines[0].superblock().configuration, before);
}

fn established(world: &World, who: usize) -> usize {
    let node = world.machines[who].node.as_ref().unwrap();
    let links = node.status(world.clock(who)).links;
    links.iter().filter(|link| link.established).count()
}

#[test]
fn a_link_on_which_nothing_comes_is_given_up_and_made_anew() {
    let mut world = busy(42);
    assert_eq!((established(&world, 0), established(&world, 1)), (2, 2));
    world.cut(1);
    world.run(ms(800));
    // Its bytes would be sent again only after a pause; the other path goes on as before.
    assert_eq!((established(&world, 0), established(&world, 1)), (1, 1));
    world.heal(1);
    world.run(ms(200));
    assert_eq!((established(&world, 0), established(&world, 1)), (2, 2));
    assert!(world.is_mirrored() && !world.said("silent"));
}

/// A cable that has become as slow as a bad line: a connection takes two seconds and more, and
/// what is there already is still heard.
#[test]
fn links_that_become_slow_at_once_put_nobody_out() {
    let mut world = busy(48);
    let before = world.machines[0].superblock().configuration;
    for latency in [400, 900, 0, 700, 20] {
        world.latency = ms(latency);
        world.run(ms(6000));
        assert!(!world.said("silent on every channel"), "{}", world.story());
    }
    assert_eq!(world.machines[0].superblock().configuration, before);
    assert_eq!((established(&world, 0), established(&world, 1)), (2, 2));
}

#[test]
fn a_node_that_did_not_run_does_not_take_its_links_for_silent() {
    let mut world = busy(43);
    world.pause(0, ms(400));
    world.run(ms(401));
    assert_eq!((established(&world, 0), established(&world, 1)), (2, 2));
}

/// Both have noticed a silence in which nobody needed the volume, and hear each other again.
fn heard_again(seed: u64) -> World {
    let mut world = World::mirrored(seed);
    pull_all(&mut world);
    world.run(ms(3000));
    plug_all(&mut world);
    let heard = |it: &World| it.machines.iter().all(|it| it.hears());
    world.run_until(ms(1000), heard);
    world
}

#[test]
fn a_partner_that_is_lost_before_it_can_promise_may_have_gone_alone() {
    let mut world = heard_again(44);
    world.crash(1);
    world.machines[0].io = true;
    world.run(ms(10_000));
    assert_eq!(
        world.standing(0),
        Some(Standing::Waiting),
        "{}",
        world.story()
    );
    world.boot(1);
    world.run_until(ms(10_000), World::is_mirrored);
}

#[test]
fn a_partner_that_is_lost_after_it_has_promised_is_put_out() {
    let mut world = heard_again(45);
    world.run_until(ms(2000), World::is_mirrored);
    world.machines[0].io = true;
    world.run(ms(500));
    world.crash(1);
    world.run_until(ms(3000), |it| alone(it, 0));
}

#[test]
fn a_partner_that_crashes_again_and_again_does_not_hold_up_the_other() {
    let mut world = World::mirrored(46);
    world.crash(1);
    world.run(ms(3000));
    // It has not gone alone: its new run holds the configuration that both had.
    world.boot(1);
    world.run_until(ms(2000), |it| it.machines[0].hears());
    world.run(ms(10));
    world.crash(1);
    world.machines[0].io = true;
    world.run_until(ms(5000), |it| alone(it, 0));
}

#[test]
fn a_step_that_is_being_written_is_not_taken_back() {
    let mut world = busy(47);
    pull_all(&mut world);
    world.machines[0].io = false;
    world.machines[1].slow = 2000;
    world.run_until(ms(4000), |it| it.said("going on alone"));
    // The slow disk has not answered when the first node is back, and the second one is lost.
    world.machines[0].io = true;
    plug_all(&mut world);
    world.run_until(ms(1000), |it| it.machines.iter().all(|it| it.hears()));
    world.run(ms(400));
    assert!(!world.said("2 event: resumed"), "{}", world.story());
    pull_all(&mut world);
    world.machines[1].io = false;
    world.run(ms(8000));
    assert_eq!(
        world.standing(0),
        Some(Standing::Waiting),
        "{}",
        world.story()
    );
    plug_all(&mut world);
    world.machines[1].slow = 0;
    world.run_until(ms(10_000), World::is_mirrored);
    assert!(!world.said("split brain"));
}

/// One of two cables is pulled: its data channels are given up by both nodes as soon as it counts
/// as silent, for the partner is heard over the other one.
#[test]
fn data_channels_of_a_dead_link_are_given_up_while_the_partner_lives() {
    for wire in [0, 1] {
        let mut world = busy(44);
        world.cut(wire);
        world.run(ms(400));
        assert_eq!(world.given_up, []);
        world.run(ms(400));
        let path = u16::try_from(wire).unwrap();
        world.given_up.sort_unstable();
        assert_eq!(world.given_up, [(0, path), (1, path)]);
        world.run(ms(600));
        assert_eq!(world.given_up.len(), 2, "once");
        world.heal(wire);
    }
}

/// While nothing is heard at all the partner may only stand still; when it is heard again, what
/// has brought nothing meanwhile is given up.
#[test]
fn data_channels_are_kept_until_the_partner_is_heard_again() {
    let mut world = busy(45);
    pull_all(&mut world);
    world.run(ms(1400));
    assert_eq!(world.given_up, []);
    plug_all(&mut world);
    world.run(ms(1000));
    world.given_up.sort_unstable();
    assert_eq!(world.given_up, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    assert!(world.is_mirrored());
}
