//! What two nodes refuse: strangers, other secrets and sizes, damaged superblocks.

use crate::node::tests::world::{World, ms};
use crate::node_interface::NodeEvent;

#[test]
fn a_partner_with_another_secret_or_size_is_refused_by_name() {
    let mut world = World::new(14);
    world.machines[1].secret = b"guess".to_vec();
    world.boot(0);
    world.boot(1);
    world.run(ms(4000));
    let problems = world.machines[0]
        .node
        .as_ref()
        .unwrap()
        .status(world.clock(0))
        .problems;
    assert!(
        problems.iter().any(|it| it.contains("this pair's secret")),
        "{problems:?}"
    );
    let events = world
        .trace
        .iter()
        .filter(|it| it.contains("1 event") && it.contains("secret"))
        .count();
    assert_eq!(events, 2, "one for each path, however often it dials");
    let mut world = World::new(14);
    world.machines[1].size *= 2;
    world.boot(0);
    world.boot(1);
    world.run(ms(4000));
    assert!(
        world.status(0).unwrap().detail.contains("another size"),
        "{}",
        world.describe()
    );
}

#[test]
fn damaged_superblocks_are_refused_and_nothing_is_written() {
    let mut world = World::mirrored(19);
    world.crash(0);
    for slot in &mut world.machines[0].slots {
        slot[100] ^= 1;
    }
    let before = world.machines[0].slots.clone();
    world.boot(0);
    world.run(ms(3000));
    let problems = world.machines[0]
        .node
        .as_ref()
        .unwrap()
        .status(world.clock(0))
        .problems;
    assert!(
        problems
            .iter()
            .any(|it| it.contains("both superblock slots")),
        "{problems:?}"
    );
    assert_eq!(world.machines[0].slots, before);
}

#[test]
fn random_bytes_on_a_control_port_change_nothing() {
    use crate::node_interface::LinkId;
    let mut world = World::mirrored(20);
    for link in 5000..5200 {
        // Strangers that only connect.
        world.handle(
            0,
            NodeEvent::LinkUp {
                link: LinkId(link),
                path: 0,
            },
        );
    }
    for link in 1000..1200 {
        world.handle(
            0,
            NodeEvent::LinkUp {
                link: LinkId(link),
                path: 0,
            },
        );
        world.handle(
            0,
            NodeEvent::LinkBytes {
                link: LinkId(link),
                bytes: &[0x47; 300],
            },
        );
        world.handle(0, NodeEvent::LinkDown { link: LinkId(link) });
    }
    world.run(ms(3000));
    assert!(world.is_mirrored());
    assert!(
        world
            .trace
            .iter()
            .filter(|it| it.contains("not a Lockstep node"))
            .count()
            <= 1
    );
}
