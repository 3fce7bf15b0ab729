//! What initiators are told by a node that may not decide anything: the partner is gone, and nobody
//! votes. `docs/replication.md` has the table.

use super::initiator::{Answer, BUSY, GOOD, Session};
use super::world::World;
use crate::interface::ToShard;
use alloc::vec::Vec;
use lockstep_mirror::control::{Time, ToVolume};
use lockstep_scsi::interface::AccessState;

const TEST_UNIT_READY: [u8; 6] = [0; 6];
const REQUEST_SENSE: [u8; 6] = [0x03, 0, 0, 0, 18, 0];
const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 96, 0];
const IDENTIFICATION: [u8; 6] = [0x12, 1, 0x83, 1, 0, 0];
const REPORT_LUNS: [u8; 12] = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
const PORT_GROUPS: [u8; 12] = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

fn not_ready(qualifier: u8) -> Answer {
    Answer {
        status: 0x02,
        sense: Some([0x02, 0x04, qualifier]),
        data: Vec::new(),
    }
}

/// Two nodes, and a session on the one that will be left.
fn pair() -> (World, Session) {
    let mut world = World::new(&[8, 8]);
    world.connect_nodes();
    world.heartbeat();
    for node in 0..2 {
        world.attach(node, 1, 0);
    }
    world.serve(1);
    let session = Session::login(&mut world, 0);
    (world, session)
}

/// Time passes, in which the initiator answers pings.
fn wait(world: &mut World, session: &mut Session, millis: u64) {
    for _ in 0..millis / 100 {
        world.pass(Time::from_millis(100));
        session.answer(world, 0);
    }
}

/// Everything an initiator asks first, and how each is answered while nothing is served.
fn assert_refused(world: &mut World, session: &mut Session, refusal: &Answer, state: u8) {
    // The change of the state is told once (2A/06), as after any transition.
    let attention = session.raw(world, 0, &TEST_UNIT_READY, 0);
    let attention = session.answer(world, attention).expect("at once");
    assert_eq!(attention.sense, Some([0x06, 0x2a, 0x06]));
    let refused = [
        session.raw(world, 0, &TEST_UNIT_READY, 0),
        session.write(world, 0, 3, 0x33),
        session.read(world, 0, 3),
        session.flush(world, 0),
    ];
    for tag in refused {
        assert_eq!(session.answer(world, tag).as_ref(), Some(refusal));
    }
    for cdb in [&REQUEST_SENSE[..], &INQUIRY, &IDENTIFICATION, &REPORT_LUNS] {
        let tag = session.raw(world, 0, cdb, 256);
        let answer = session.answer(world, tag).expect("at once");
        assert_eq!(
            (answer.status, answer.data.is_empty()),
            (0, false),
            "{cdb:x?}"
        );
    }
    let tag = session.raw(world, 0, &PORT_GROUPS, 256);
    let groups = session.answer(world, tag).expect("at once");
    assert_eq!((groups.status, groups.data[4] & 0x0f), (0, state));
}

#[test]
fn what_was_held_is_answered_and_what_comes_is_refused_as_passing_then_as_unavailable() {
    let (mut world, mut session) = pair();
    let before = session.write(&mut world, 0, 1, 0x11);
    assert_eq!(session.answer(&mut world, before), Some(GOOD));
    // The partner is silent, and this node stands still.
    world.volume(0, 1, ToVolume::Suspend);
    world.run();
    let write = session.write(&mut world, 0, 1, 0x22);
    let read = session.read(&mut world, 0, 1);
    let flush = session.flush(&mut world, 0);
    for tag in [write, read, flush] {
        assert_eq!(session.answer(&mut world, tag), None, "it waits");
    }
    world.show(0, 1, AccessState::Transitioning);
    assert_refused(&mut world, &mut session, &not_ready(0x0a), 0x0f);
    // A write that is no older than this could still be sequenced by whoever decides.
    wait(&mut world, &mut session, 4200);
    assert_eq!(session.answer(&mut world, write), Some(BUSY));
    assert_eq!(session.answer(&mut world, read), None, "it waits on");
    world.show(0, 1, AccessState::Unavailable);
    assert_refused(&mut world, &mut session, &not_ready(0x0c), 0x03);
    world.order(0, ToShard::CloseSessions { target: 0 });
    assert!(
        session.is_closed(&mut world),
        "what waits ends with its session"
    );
    assert_eq!(world.nodes[0].used(), 0, "its buffers are free");
    assert_eq!(world.nodes[0].stored(1, 1), 0x11);
    // Another login is taken as long as the portals are open, and told the same.
    let mut session = Session::login(&mut world, 0);
    let tag = session.raw(&mut world, 0, &TEST_UNIT_READY, 0);
    assert_eq!(session.answer(&mut world, tag), Some(not_ready(0x0c)));
}

/// The other node's daemon ended under a write that this one had already given a number.
#[test]
fn a_write_that_may_be_on_the_other_copy_is_never_answered_as_if_it_were_not() {
    let (mut world, mut session) = pair();
    world.nodes[1].held = true;
    let write = session.write(&mut world, 0, 1, 0x22);
    assert_eq!(session.answer(&mut world, write), None);
    world.volume(0, 1, ToVolume::Suspend);
    wait(&mut world, &mut session, 9000);
    // BUSY would let the initiator go on, and whoever decides may bring it to light afterwards.
    assert_eq!(session.answer(&mut world, write), None);
    world.order(0, ToShard::CloseSessions { target: 0 });
    assert!(session.is_closed(&mut world));
}

#[test]
fn what_waits_is_served_if_a_vote_comes_in_time() {
    let (mut world, mut session) = pair();
    world.volume(0, 1, ToVolume::Suspend);
    world.run();
    let write = session.write(&mut world, 0, 1, 0x22);
    let flush = session.flush(&mut world, 0);
    wait(&mut world, &mut session, 900);
    world.serve_alone(1);
    let read = session.read(&mut world, 0, 1);
    for tag in [write, flush] {
        assert_eq!(session.answer(&mut world, tag), Some(GOOD));
    }
    let read = session.answer(&mut world, read).expect("it is served");
    assert_eq!((read.status, read.data[0]), (0, 0x22));
}
