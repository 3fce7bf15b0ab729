//! Rules of `docs/membership.md` that random schedules do not reach, or only after thousands:
//! each story fails without the lines that its rule stands for.

use super::world::{VOLUME, World, ms};
use crate::interface::ToShard;
use crate::node::Turn;
use crate::node_interface::{LinkId, NodeAction, NodeEvent, Standing};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use lockstep_mirror::control::{NodeId, ToVolume};
use lockstep_mirror::lease::Timing;
use lockstep_mirror::register::{Ballot, Message};
use lockstep_scsi::interface::AccessState;

#[test]
fn a_node_that_overslept_its_partners_last_words_stands_still() {
    let mut world = World::mirrored(51);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.pause(1, ms(12_000));
    world.run(ms(1700));
    // What the survivor says of going alone is lost with it: nothing waits in a socket.
    world.cut(0);
    world.cut(1);
    world.run_until(ms(900), |it| it.standing(0) == Some(Standing::Alone));
    world.run(ms(60));
    world.crash(0);
    world.heal(0);
    world.heal(1);
    // The world checks all the time that whatever is served holds every acknowledged write.
    world.run(ms(15_000));
    assert!(!world.apart);
    assert_eq!(world.standing(1), Some(Standing::Waiting));
    world.boot(0);
    world.run_until(ms(20_000), World::is_mirrored);
}

#[test]
fn a_pause_is_not_taken_for_the_partners_silence() {
    let mut world = World::mirrored(52);
    // That it does not go alone follows from having overslept; this spares it the suspension, and
    // its initiators the wait for a partner that was never gone.
    world.pause(1, ms(3000));
    world.run(ms(6000));
    assert!(world.said("1 event: the partner is silent"));
    assert!(
        !world.said("2 event: the partner is silent"),
        "it did not listen: the partner spoke all the while"
    );
    assert!(world.is_mirrored());
}

#[test]
fn no_answer_of_an_acceptor_leaves_before_its_file_is_durable() {
    let mut world = World::mirrored(53);
    let now = world.clock(1);
    let node = world.machines[1].node.as_mut().unwrap();
    let sent = |actions: &[NodeAction]| {
        let sends = |it: &&NodeAction| matches!(it, NodeAction::LinkSend { .. });
        actions.iter().filter(sends).count()
    };
    // Whatever else was due is said before.
    node.handle(now, NodeEvent::Tick, &mut Vec::new());
    let mut out = Vec::new();
    let turn = &mut Turn {
        now,
        out: &mut out,
        touched: BTreeSet::new(),
    };
    let ballot = Ballot(1 << 20).after(NodeId(1));
    node.register_in(turn, vec![(VOLUME, Message::Prepare { ballot })]);
    node.look(turn);
    let writes = |it: &NodeAction| matches!(it, NodeAction::WriteAcceptor { .. });
    assert!(out.iter().any(writes));
    assert_eq!(sent(&out), 0, "a promise that a power cut would break");
    let mut out = Vec::new();
    node.handle(now, NodeEvent::AcceptorWritten { ok: false }, &mut out);
    assert_eq!(sent(&out), 0, "the file could not be written");
    let mut out = Vec::new();
    node.handle(
        now + ms(1100),
        NodeEvent::Stamp {
            oldest: now + ms(1100),
            wall: 0,
        },
        &mut out,
    );
    assert!(out.iter().any(writes), "it is tried again");
    let mut out = Vec::new();
    node.handle(
        now + ms(1100),
        NodeEvent::AcceptorWritten { ok: true },
        &mut out,
    );
    assert!(sent(&out) > 0);
}

#[test]
fn a_lease_counts_from_when_the_heartbeat_was_sent() {
    let mut world = World::mirrored(55);
    let now = world.clock(0);
    let node = world.machines[0].node.as_mut().unwrap();
    let epoch = node.volumes[&VOLUME]
        .membership
        .status(now)
        .configuration
        .epoch;
    let mut out = Vec::new();
    let sent = now + ms(100);
    let number = node.heart.sent.send(sent);
    let turn = &mut Turn {
        now: sent + ms(1000),
        out: &mut out,
        touched: BTreeSet::new(),
    };
    // The granter may have promised right after the heartbeat was sent, and counts from then.
    node.heartbeat_ack(turn, LinkId(u64::MAX), number, &[(VOLUME, epoch)]);
    let until = out.iter().find_map(|action| match action {
        NodeAction::Order(ToShard::Volume(VOLUME, ToVolume::Lease { until })) => Some(*until),
        _ => None,
    });
    assert_eq!(until, Some(sent + Timing::default().lease));
}

#[test]
fn a_source_that_does_not_know_the_end_of_a_join_stands_still() {
    // The cables are pulled after the target was asked to accept the join and before its answer.
    // (A round that ended otherwise makes it stand back at once. That is only haste: the lease,
    // after which it does so in any case, is what the rule is about.)
    let mut tried = 0;
    for seed in 60..90 {
        let mut world = World::mirrored(seed);
        world.machines[0].io = true;
        world.crash(1);
        world.run(ms(4000));
        world.boot(1);
        let accepting = |world: &World| {
            let voting = world.machines[1].node.as_ref()?.votes.voting(VOLUME)?;
            (voting.members.count() == 2 && voting.epoch > 1).then_some(voting)
        };
        world.run_until(ms(20_000), |it| accepting(it).is_some());
        let join = accepting(&world).unwrap();
        world.cut(0);
        world.cut(1);
        world.run(ms(1700));
        if world.machines[0].superblock().configuration == join {
            continue;
        }
        tried += 1;
        let path = &world.machines[0].path;
        assert!(path.suspended, "{}", world.story());
        world.machines[0].io = false;
        world.heal(0);
        world.heal(1);
        world.run_until(ms(20_000), World::is_mirrored);
    }
    assert!(tried > 0, "no seed came to that moment");
}

#[test]
fn a_node_that_waits_for_an_initiator_s_wish_lets_it_be_heard() {
    let mut world = World::mirrored(55);
    world.run(ms(2000));
    world.crash(1);
    world.run(ms(30_000));
    assert_eq!(world.standing(0), Some(Standing::Waiting));
    // Any other state refuses the commands by which it would learn that it is needed.
    assert_eq!(world.machines[0].access, Some(AccessState::NonOptimized));
    assert!(world.machines[0].portals);
    world.machines[0].io = true;
    world.run_until(ms(4500), |it| it.standing(0) == Some(Standing::Alone));
    assert_eq!(world.machines[0].access, Some(AccessState::Optimized));
}

#[test]
fn a_crashed_node_that_is_stopped_before_it_served_is_still_a_crashed_one() {
    let mut world = World::mirrored(54);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(1000));
    world.crash(1);
    world.crash(0);
    world.boot(1);
    world.run(ms(5000));
    assert_eq!(world.standing(1), Some(Standing::Waiting));
    world.handle(1, NodeEvent::Stop);
    world.run_until(ms(20_000), |it| it.machines[1].stopped.is_some());
    // Held by two locks: only a data path that has served is closed, and whatever has served is
    // not `crashed` any more. Either alone would do; this fails when both are gone.
    assert_eq!(world.machines[1].stopped, Some(false));
    assert!(!world.machines[1].superblock().clean);
}

#[test]
fn a_step_down_that_is_forged_or_sent_again_has_no_effect() {
    let mut world = World::mirrored(56);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    world.run(ms(2000));
    // Node 2 is asked to step down by a frame of node 1 that was changed, and by one that was
    // said before: in both cases the connection ends, a new one is made, and both serve on.
    for forged in [true, false] {
        let epoch = world.machines[1].superblock().configuration.epoch;
        let before = world.refusals(1);
        world.listen_in(0, forged);
        world.run_until(ms(5000), |it| it.refusals(1) > before);
        world.run_until(ms(5000), World::is_mirrored);
        assert_eq!(world.machines[1].superblock().configuration.epoch, epoch);
    }
}

#[test]
fn a_read_that_finds_what_both_hold_is_no_join() {
    // Power is lost at both while writes are under way, and one of them loses its votes as well.
    // Its way back to a vote is a read of the register, which gives the configuration that both
    // had: were that a reason to serve, nothing would be compared.
    let mut world = World::refereed(70);
    (world.machines[0].io, world.machines[1].io) = (true, true);
    let apart = |it: &World| it.machines[0].disk.blocks != it.machines[1].disk.blocks;
    world.run_until(ms(2000), apart);
    (world.machines[0].io, world.machines[1].io) = (false, false);
    world.crash(0);
    world.crash(1);
    world.machines[0].acceptor = None;
    world.boot(0);
    world.boot(1);
    world.run_until(ms(30_000), World::is_mirrored);
    assert!(
        world.said("what is marked is compared"),
        "{}",
        world.story()
    );
    assert!(!apart(&world));
}

#[test]
fn a_swap_is_proposed_only_once_its_record_is_durable() {
    // The disk of node 1 writes its record for seconds; the partner's vote would be there at once.
    for seed in 80..84 {
        let mut world = World::mirrored(seed);
        world.machines[0].slow = 3000;
        world.crash(1);
        world.run(ms(100));
        world.boot(1);
        world.run(ms(1500));
        world.crash(0);
        world.machines[0].slow = 0;
        world.boot(0);
        // Had it voted, nobody's copy would be the one that was decided.
        world.run_until(ms(20_000), World::is_mirrored);
    }
}

#[test]
fn of_two_that_hear_nothing_the_second_waits_for_what_the_first_has_done() {
    // Both reach their initiators all the while; the cables between them come back right after
    // the silence was noticed.
    for seed in 90..100 {
        let mut world = World::mirrored(seed);
        (world.machines[0].io, world.machines[1].io) = (true, true);
        world.run(ms(1000));
        world.cut(0);
        world.cut(1);
        world.run_until(ms(3000), |it| it.standing(0) == Some(Standing::Alone));
        world.heal(0);
        world.heal(1);
        world.run_until(ms(20_000), World::is_mirrored);
        assert!(!world.said("split brain"), "{}", world.story());
        assert!(!world.said("2 event: the partner is silent on every channel: going"));
    }
}

#[test]
fn of_two_that_ask_the_witness_the_first_one_is_let_pass() {
    for seed in 100..110 {
        let mut world = World::refereed(seed);
        (world.machines[0].io, world.machines[1].io) = (true, true);
        world.cut(0);
        world.cut(1);
        world.run(ms(10_000));
        let standing = [world.standing(0), world.standing(1)];
        assert_eq!(standing, [Some(Standing::Alone), Some(Standing::Waiting)]);
    }
}
