//! Where the membership and the data path meet.

use super::world::{VOLUME, World, ms};
use crate::interface::FromShard;
use crate::node_interface::{NodeEvent, Standing};
use lockstep_mirror::control::FromVolume;

#[test]
fn a_target_that_is_too_slow_is_left_behind_for_a_while() {
    let mut world = World::mirrored(41);
    world.machines[0].io = true;
    world.run(ms(1000));
    world.crash(1);
    world.run(ms(5000));
    world.boot(1);
    world.run_until(ms(10_000), |it| it.machines[1].superblock().inconsistent);
    world.run_until(ms(1000), |it| it.said("order Copy"));
    // Its disk hangs although its control thread is well.
    let late = FromShard::Volume(VOLUME, FromVolume::Late);
    world.handle(0, NodeEvent::Shard(late));
    world.run(ms(500));
    assert!(world.said("order Alone"));
    assert_eq!(world.standing(0), Some(Standing::Alone));
    world.run(ms(20_000));
    assert_eq!(world.standing(0), Some(Standing::Alone));
    world.run_until(ms(20_000), World::is_mirrored);
}

#[test]
fn a_partner_that_cannot_open_its_copy_does_not_keep_the_other_from_serving() {
    for witness in [false, true] {
        let mut world = if witness {
            World::refereed(21)
        } else {
            World::mirrored(21)
        };
        world.machines[0].io = true;
        world.run(ms(1000));
        world.crash(1);
        for slot in &mut world.machines[1].slots {
            slot[100] ^= 0xff;
        }
        world.boot(1);
        world.run_until(ms(15_000), |it| it.standing(0) == Some(Standing::Alone));
    }
}
