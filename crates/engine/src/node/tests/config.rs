//! The pool configuration: on both nodes, on one, and after they went apart.

use super::world::{World, ms};
use crate::node_interface::{ConfigRefusal, NodeEvent, Operator, Standing};
use lockstep_mirror::control::VolumeId;

fn propose(world: &mut World, who: usize, text: &[u8]) {
    world.handle(
        who,
        NodeEvent::ProposeConfig {
            document: text.to_vec(),
        },
    );
}

fn holds(world: &World, who: usize, text: &[u8]) -> bool {
    world.machines[who]
        .document
        .as_ref()
        .is_some_and(|it| it.1 == text)
}

#[test]
fn a_change_comes_into_force_on_both() {
    let mut world = World::mirrored(30);
    let long = alloc::vec![b'x'; 1 << 20];
    for document in [b"first".as_slice(), b"", &long] {
        propose(&mut world, 1, document);
        world.run_until(ms(2000), |it| {
            holds(it, 0, document) && holds(it, 1, document)
        });
        assert!(world.machines[1].outcomes.pop().unwrap().is_ok());
    }
    propose(&mut world, 0, &alloc::vec![0; (1 << 20) + 1]);
    assert_eq!(
        world.machines[0].outcomes.pop(),
        Some(Err(ConfigRefusal::TooLarge))
    );
}

#[test]
fn the_partner_says_who_is_logged_in_there() {
    let mut world = World::mirrored(40);
    let ask = |number| NodeEvent::AskInitiators {
        number,
        volume: VolumeId(12),
    };
    world.handle(0, ask(3));
    world.run(ms(200));
    let answer = "1 heard 3: Initiators { count: 5, first: \"iqn.2026-11.test:at2\" }";
    assert!(world.said(answer));
    world.crash(1);
    world.run(ms(3000));
    world.handle(0, ask(4));
    world.run(ms(200));
    assert!(!world.said("1 heard 4"));
}

#[test]
fn a_change_while_the_partner_is_down_is_taken_before_its_portals_open() {
    let mut world = World::mirrored(31);
    propose(&mut world, 0, b"old secret");
    world.run(ms(1000));
    world.crash(1);
    propose(&mut world, 0, b"new secret");
    world.run_until(ms(5000), |it| holds(it, 0, b"new secret"));
    assert_eq!(
        world.standing(0),
        Some(Standing::Alone),
        "changing needs the right to act alone"
    );
    world.boot(1);
    world.run_until(ms(15_000), |it| it.machines[1].portals);
    assert!(holds(&world, 1, b"new secret"));
}

#[test]
fn a_node_without_the_right_refuses_a_change() {
    let mut world = World::mirrored(32);
    world.crash(0);
    world.crash(1);
    world.boot(1);
    propose(&mut world, 1, b"change");
    world.run(ms(20_000));
    assert_eq!(world.machines[1].outcomes, [Err(ConfigRefusal::NotAlone)]);
    world.boot(0);
    world.run_until(ms(10_000), World::is_mirrored);
    assert!(world.machines.iter().all(|it| it.document.is_none()));
}

#[test]
fn two_changes_at_once_leave_one() {
    let mut world = World::mirrored(33);
    propose(&mut world, 0, b"from one");
    propose(&mut world, 1, b"from two");
    world.run(ms(20_000));
    assert_eq!(world.machines[0].document, world.machines[1].document);
    assert!(world.machines[0].document.is_some());
    assert!(world.machines.iter().all(|it| it.outcomes.len() == 1));
}

#[test]
fn a_proposer_that_dies_leaves_both_with_one_version() {
    for delay in (0..200).step_by(10) {
        let mut world = World::mirrored(34 + delay);
        propose(&mut world, 0, b"half done");
        world.run(ms(delay));
        world.crash(0);
        world.machines[1].io = true;
        world.run(ms(6000));
        world.boot(0);
        world.run_until(ms(15_000), World::is_mirrored);
        world.run(ms(3000));
        assert_eq!(
            world.machines[0].document, world.machines[1].document,
            "killed after {delay} ms"
        );
        let prepared = |who: usize| {
            world.machines[who]
                .node
                .as_ref()
                .unwrap()
                .status(world.clock(who))
                .pool
                .prepared
        };
        assert_eq!((prepared(0), prepared(1)), (None, None));
    }
}

#[test]
fn versions_made_apart_are_a_conflict_until_one_is_chosen() {
    let mut world = World::mirrored(35);
    world.cut(0);
    world.cut(1);
    world.run(ms(2500));
    propose(&mut world, 0, b"apart one");
    propose(&mut world, 1, b"apart two");
    world.run(ms(5000));
    assert!(holds(&world, 0, b"apart one") && holds(&world, 1, b"apart two"));
    world.heal(0);
    world.heal(1);
    world.run(ms(5000));
    let status = world.machines[1]
        .node
        .as_ref()
        .unwrap()
        .status(world.clock(1));
    assert!(
        status
            .problems
            .iter()
            .any(|it| it.contains("different pool configurations")),
        "{:?}",
        status.problems
    );
    propose(&mut world, 0, b"more");
    assert_eq!(
        world.machines[0].outcomes.pop(),
        Some(Err(ConfigRefusal::Conflict))
    );
    world.handle(1, NodeEvent::Operator(Operator::KeepConfig));
    world.run_until(ms(5000), |it| holds(it, 0, b"apart two"));
}
