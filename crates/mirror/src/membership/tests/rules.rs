//! Rules of `docs/membership.md` that no random schedule misses at once when they are left out:
//! each test fails without the one line that its rule stands for.

use super::{ME, PARTNER, configuration, idle, idle_at, incarnation};
use crate::control::{
    Configuration, FromVolume, Incarnation, Members, NodeId, Time, ToVolume, VolumeId,
};
use crate::decide::{Copy, Plan, Record, decide};
use crate::hello::Random;
use crate::lease::Timing;
use crate::membership::report::Report;
use crate::membership::{Contact, Membership, Output, Path, Role, Turn};
use crate::register::Vote;
use crate::superblock::Superblock;
use alloc::vec::Vec;

const OURS: Incarnation = incarnation(ME);
const THEIRS: Incarnation = incarnation(PARTNER);

fn both(epoch: u64) -> Configuration {
    configuration(epoch, Members::only(ME).with(PARTNER), false)
}

/// Steps; superblocks are durable and the data path stands still at once. The orders given.
fn step(membership: &mut Membership, now: Time) -> Vec<ToVolume> {
    let mut orders = Vec::new();
    loop {
        let mut out = Vec::new();
        membership.step(&mut Turn {
            now,
            vote: Vote::default(),
            random: &mut Random::new([7; 32]),
            out: &mut out,
        });
        if out.is_empty() {
            return orders;
        }
        for output in out {
            match output {
                Output::Order(order) => {
                    if order == ToVolume::Suspend {
                        membership.volume_said(now, &FromVolume::Suspended);
                    }
                    orders.push(order);
                }
                Output::WriteSuperblock { .. } => membership.superblock_written(true),
                Output::Event { .. } | Output::Forced(_) => {}
            }
        }
    }
}

/// From when on it may answer and read what it inherited.
fn not_before(orders: &[ToVolume]) -> Option<Time> {
    orders.iter().find_map(|order| match order {
        ToVolume::Serve { not_before, .. } => Some(*not_before),
        _ => None,
    })
}

/// The partner's word that it has adopted the same configuration together with this run.
fn together(of: Configuration, seq: u64) -> Report {
    let mut partner = idle_at(PARTNER, of, Timing::default());
    partner.with = Some(OURS);
    let report = partner.report(Vote::default()).expect("it is open");
    Report { seq, ..report }
}

#[test]
fn a_vote_given_late_is_waited_out_before_anything_is_served_alone() {
    // Heartbeats of a partner whose shards hang count for nothing, but its questions are answered:
    // the promise that lies in a vote may be younger than the silence.
    let of = both(5);
    let mut membership = idle(of);
    membership.served = Some(of.lineage());
    membership.contact(Contact::Silent { since: Time::ZERO });
    membership.want();
    let voted = Time::from_millis(9900);
    membership.accepting(voted);
    let orders = step(&mut membership, Time::from_secs(10));
    assert_eq!(not_before(&orders), Some(voted + Timing::default().grant()));
}

#[test]
fn nothing_is_begun_alone_while_a_promise_of_the_run_before_may_hold() {
    // With the default times the silence is longer than any promise. It need not be.
    let timing = Timing {
        silence: Time::from_millis(1600),
        ..Timing::default()
    };
    assert!(timing.check().is_ok() && timing.silence < timing.grant());
    let alone = configuration(5, Members::only(ME), false);
    let mut membership = idle_at(ME, alone, timing);
    membership.contact(Contact::Silent { since: Time::ZERO });
    let early = timing.grant() - Time::from_millis(1);
    assert_eq!(step(&mut membership, early), []);
    let orders = step(&mut membership, timing.grant());
    assert_eq!(not_before(&orders), Some(timing.grant()));
}

#[test]
fn what_the_partner_said_before_a_silence_is_not_acted_on_after_it() {
    let of = both(5);
    let mut membership = idle(of);
    membership.served = Some(of.lineage());
    membership.with = Some(THEIRS);
    let heard = Contact::Heard {
        incarnation: THEIRS,
    };
    membership.contact(heard);
    membership.report_in(together(of, 1));
    assert!(
        not_before(&step(&mut membership, Time::from_secs(3))).is_some(),
        "both resume"
    );
    membership.contact(Contact::Silent {
        since: Time::from_secs(3),
    });
    assert_eq!(
        step(&mut membership, Time::from_secs(5)),
        [ToVolume::Suspend]
    );
    // Its heartbeats come again. It may have gone alone meanwhile: only its new word tells.
    membership.contact(heard);
    assert_eq!(step(&mut membership, Time::from_secs(6)), []);
    membership.report_in(together(of, 2));
    assert!(not_before(&step(&mut membership, Time::from_secs(6))).is_some());
}

#[test]
fn a_node_has_stepped_down_only_once_its_data_path_stands_still() {
    let mut membership = idle(both(5));
    membership.disk_failed = true;
    let yields = |membership: &Membership| {
        let report = membership.report(Vote::default());
        report.expect("it is open").yields
    };
    for path in [Path::Serving, Path::Suspending, Path::Draining] {
        membership.path = path;
        assert!(!yields(&membership), "{path:?}: it may still answer");
    }
    membership.path = Path::Suspended;
    assert!(yields(&membership));
}

#[test]
fn a_node_that_leaves_forgets_only_what_the_partner_has_durably_marked() {
    let of = both(5);
    let mut membership = idle(of);
    membership.contact(Contact::Heard {
        incarnation: THEIRS,
    });
    membership.served = Some(of.lineage());
    membership.with = Some(THEIRS);
    membership.path = Path::Serving;
    membership.role = Role::Member;
    membership.report_in(together(of, 1));
    let now = Time::from_secs(10);
    membership.stop(now + Time::from_secs(10));
    step(&mut membership, now);
    membership.volume_said(now, &FromVolume::Drained { clean: true });
    let alone = configuration(6, Members::only(PARTNER), false);
    let partner = idle_at(PARTNER, alone, Timing::default());
    let mut report = partner.report(Vote::default()).expect("it is open");
    (report.seq, report.settled) = (2, false);
    membership.report_in(report.clone());
    assert_eq!(step(&mut membership, now), [], "it may yet lose power");
    (report.seq, report.settled) = (3, true);
    membership.report_in(report);
    let closes = [ToVolume::Close { covered: true }];
    assert_eq!(step(&mut membership, now), closes);
}

#[test]
fn an_initiator_that_answers_late_is_no_evidence() {
    let of = both(5);
    let goes_alone = |again: Time| {
        let mut membership = idle(of);
        membership.served = Some(of.lineage());
        membership.contact(Contact::Silent { since: Time::ZERO });
        membership.volume_said(Time::from_millis(1100), &FromVolume::Reached);
        membership.volume_said(again, &FromVolume::Reached);
        membership.volume_said(again, &FromVolume::Wanted);
        not_before(&step(&mut membership, Time::from_secs(3))).is_some()
    };
    assert!(goes_alone(Time::from_millis(2400)));
    assert!(!goes_alone(Time::from_millis(2600)), "it was cut off, too");
}

#[test]
fn a_join_whose_end_was_not_seen_stays_in_the_history_of_who_goes_alone() {
    let copy = |node: NodeId| {
        let mut superblock = Superblock::new(VolumeId(1), node, 1 << 20, 4096);
        superblock.adopt(both(1));
        superblock.base = 1;
        superblock.adopt(configuration(2, Members::only(ME), false));
        superblock.prepared = Some(both(3));
        superblock
    };
    // It was decided, and adopted by the target alone, which served nothing under it.
    let (mut source, mut target) = (copy(ME), copy(PARTNER));
    target.adopt(both(3));
    target.base = 3;
    source.adopt(configuration(4, Members::only(ME), true));
    source.wrote = true;
    let plan = decide(
        &Record::of(&source, OURS),
        &Record::of(&target, THEIRS),
        Some(both(3)),
    );
    let expected = Plan::Source {
        node: ME,
        copy: Copy::Marked,
    };
    assert_eq!(plan, expected, "not a split brain: only one side went on");
}
