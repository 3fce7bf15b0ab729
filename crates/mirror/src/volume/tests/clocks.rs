//! A clock that jumps: the time that it skips is waited for all the same where the partner relies
//! on it, and no operation seems to have waited for the partner meanwhile.

use super::stories;
use super::world::World;
use crate::control::{
    CacheMode, Configuration, FromVolume, Incarnation, Members, NodeId, Time, ToVolume,
};
use crate::volume_action::Refusal;

const fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// The only member of a configuration that begins in 1.5 s, and a write that waits for that.
fn alone_soon() -> World {
    let mut world = World::new(CacheMode::WriteThrough, 1);
    world.must_hold = [[true, false]; 2];
    world.machines[0].start(1, Some(NodeId(2)));
    let configuration = Configuration {
        epoch: 3,
        generation: 1,
        members: Members::only(NodeId(1)),
        owner: NodeId(1),
        unilateral: false,
        witness: None,
    };
    let not_before = world.now + world.machines[0].ahead + ms(1500);
    let serve = ToVolume::Serve {
        configuration,
        partner_incarnation: None::<Incarnation>,
        not_before,
        joined: false,
    };
    for order in [ToVolume::Open { blank: true }, serve] {
        world.with(0, |volume, now, out| volume.order(now, order, out));
        while world.step() {}
    }
    world
}

#[test]
fn a_jump_does_not_end_the_wait_for_promises() {
    for jump in [400, 1500, 60_000, 10_000_000_000] {
        let mut world = alone_soon();
        let write = world.write(0, 7, 1);
        world.run(ms(600));
        world.machines[0].ahead += ms(jump);
        world.run(ms(500));
        let read = world.read(0, 7, 1);
        world.run(ms(100));
        // By the clock it is too old to be carried out, or it waits.
        let old = (jump > 4000).then_some(Err(Refusal::Busy));
        let early = (world.result(write), world.result(read));
        assert_eq!(early, (old, None), "{jump} ms");
        world.run(ms(700));
        assert_eq!(world.result(write), old.or(Some(Ok(()))), "{jump} ms");
        assert_eq!(world.result(read), Some(Ok(())), "{jump} ms");
    }
}

#[test]
fn a_jump_makes_no_operation_late() {
    let mut manager = stories::pair(CacheMode::WriteThrough);
    manager.world.write(0, 7, 1);
    for channel in &mut manager.world.channels {
        channel.stuck = true;
    }
    manager.world.run(ms(1000));
    let told = |manager: &super::manager::Manager| {
        manager.world.machines[0].told.contains(&FromVolume::Late)
    };
    manager.world.machines[0].ahead += ms(3_600_000);
    manager.world.run(ms(4500));
    assert!(!told(&manager), "the partner was not slow");
    manager.world.run(ms(1000));
    assert!(told(&manager), "and now it is");
}
