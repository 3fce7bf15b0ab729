//! Stories of several channels: frames overtake each other, one channel dies under an operation,
//! is stuck, or is slower than the others.

use super::manager::Manager;
use super::stories::{pair, pair_of, settle};
use crate::control::{CacheMode, Time};
use alloc::vec::Vec;

/// What was sent on the dead channel may come after what was sent again on the other one. An
/// answer that went after it would be lost for ever: its asker waits on a channel that lives.
#[test]
fn what_was_left_in_a_dead_channel_takes_no_answer_along() {
    for seed in 1..=1500 {
        let mut manager = pair_of(CacheMode::WriteThrough, seed);
        let node = usize::from(seed % 2 == 0);
        let writes = [7, 900].map(|block| manager.world.write(node, block, 1));
        for _ in 0..manager.world.chance.below(10) {
            manager.world.step();
        }
        let channel = usize::try_from(manager.world.chance.below(2)).unwrap();
        manager.world.cut(channel);
        manager.world.run(Time::ZERO);
        for write in writes {
            assert_eq!(
                manager.world.result(write),
                Some(Ok(())),
                "seed {seed}, written through {node}"
            );
        }
    }
}

fn queued(manager: &Manager, from: usize) -> Vec<usize> {
    let channels = manager.world.channels.iter();
    channels.map(|it| it.queued(from)).collect()
}

#[test]
fn small_operations_stay_on_one_channel_and_large_ones_spread() {
    for node in 0..2 {
        let mut manager = pair(CacheMode::WriteThrough);
        for block in 0..8 {
            manager.world.write(node, block * 4, 1);
        }
        let small = queued(&manager, node);
        assert!(small.contains(&8) && small.contains(&0), "{small:?}");
        manager.world.run(Time::ZERO);
        for block in 0..8 {
            manager.world.write(node, 1000 + block * 64, 64);
        }
        assert_eq!(queued(&manager, node), [4, 4], "256 KiB each");
        manager.world.run(Time::ZERO);
        assert!(manager.is_whole());
    }
}

#[test]
fn a_channel_that_takes_nothing_is_given_nothing_more() {
    let mut manager = pair(CacheMode::WriteThrough);
    manager.world.channels[0].stuck = true;
    for turn in 0..40 {
        manager.world.write(0, turn * 40, 32);
        manager.heartbeat();
        manager.world.run(Time::from_millis(1));
    }
    let stuck = manager.world.channels[0].queued(0);
    assert!((1..=2).contains(&stuck), "{stuck} frames of 128 KiB");
    manager.world.channels[0].stuck = false;
    manager.world.run(Time::ZERO);
    assert!(manager.is_whole());
}

/// The owner's word on its last number overtakes what it speaks of: nothing may be read before
/// all of that is here, on whatever channel it comes.
#[test]
fn a_read_waits_for_what_the_owners_word_has_overtaken() {
    for stuck in 0..2 {
        let mut manager = pair(CacheMode::WriteThrough);
        // The owner's word of before counts for a while.
        manager.world.run(Time::from_millis(1600));
        manager.heartbeat();
        manager.world.channels[stuck].stuck = true;
        let writes: Vec<_> = (0..4)
            .map(|it| manager.world.write(0, it * 64, 64))
            .collect();
        let read = manager.world.read(1, 2000, 1);
        manager.world.run(Time::from_millis(100));
        assert!(manager.world.channels[stuck].queued(0) > 0);
        assert_eq!(manager.world.result(read), None);
        manager.world.channels[stuck].stuck = false;
        manager.world.run(Time::ZERO);
        assert_eq!(manager.world.result(read), Some(Ok(())));
        for write in writes {
            assert_eq!(manager.world.result(write), Some(Ok(())));
        }
    }
}

/// The question goes on every channel: one that is stuck keeps no read waiting.
#[test]
fn a_stuck_channel_that_holds_nothing_keeps_no_read_waiting() {
    for stuck in 0..2 {
        let mut manager = pair(CacheMode::WriteThrough);
        manager.world.channels[stuck].stuck = true;
        manager.world.run(Time::from_millis(1600));
        manager.heartbeat();
        let read = manager.world.read(1, 7, 1);
        manager.world.run(Time::from_millis(20));
        assert_eq!(manager.world.result(read), Some(Ok(())), "channel {stuck}");
        manager.world.channels[stuck].stuck = false;
        settle(&mut manager);
    }
}
