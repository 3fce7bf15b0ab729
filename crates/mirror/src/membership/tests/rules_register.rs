//! Rules of `docs/membership.md` about rounds of the register: a node that hears its partner, the
//! acceptors of both and of a witness, and who of them can be asked. Each test fails without the
//! one line that its rule stands for.

use super::{ME, PARTNER, configuration, idle, idle_at, incarnation};
use crate::control::{
    Configuration, FromVolume, Incarnation, Members, NodeId, Time, ToVolume, VolumeId, WITNESS,
    WitnessId,
};
use crate::decide::{Copy, Plan, Record, decide};
use crate::hello::Random;
use crate::lease::Timing;
use crate::membership::{Asks, Contact, Membership, Output, Path, Role, Turn};
use crate::register::{Acceptor, Ballot, Message, Proposal, Step};
use alloc::vec::Vec;
use core::num::NonZeroU32;

const VOLUME: VolumeId = VolumeId(1);
const NOW: Time = Time::from_secs(10);

fn witness(life: u32) -> Option<WitnessId> {
    NonZeroU32::new(life).map(WitnessId)
}

/// Under a configuration of these members, with witness 77.
fn refereed(epoch: u64, members: Members) -> Configuration {
    Configuration {
        witness: witness(77),
        ..configuration(epoch, members, false)
    }
}

fn both() -> Members {
    Members::only(ME).with(PARTNER)
}

/// Everything that this node can ask.
struct Meeting {
    membership: Membership,
    own: Acceptor,
    partner: Acceptor,
    witness: Acceptor,
    random: Random,
    orders: Vec<ToVolume>,
}

impl Meeting {
    /// Two that stand still and hear each other; the acceptors hold their configuration.
    fn of(held: Configuration) -> Self {
        let mut membership = idle(held);
        membership.desire(held.witness);
        let mut acceptor = Acceptor::default();
        accept(&mut acceptor, 1, held);
        let mut meeting = Self {
            membership,
            own: acceptor.clone(),
            partner: acceptor.clone(),
            witness: acceptor,
            random: Random::new([7; 32]),
            orders: Vec::new(),
        };
        meeting.membership.contact(Contact::Heard {
            incarnation: incarnation(PARTNER),
        });
        meeting.hear(1, |_| {});
        meeting
    }

    /// The partner's report, of a membership under the same configuration that was changed so.
    fn hear(&mut self, seq: u64, change: impl FnOnce(&mut Membership)) {
        let held = self.membership.durable.configuration;
        let mut partner = idle_at(PARTNER, held, Timing::default());
        change(&mut partner);
        let vote = self.partner.vote(VOLUME);
        let mut report = partner.report(vote).expect("it is open");
        report.seq = seq;
        self.membership.report_in(report);
    }

    /// One step; `disk`: superblocks are written at once, else not at all.
    fn step(&mut self, now: Time, disk: bool) {
        let mut out = Vec::new();
        let vote = self.own.vote(VOLUME);
        self.membership.voting(vote.value);
        self.membership.step(&mut Turn {
            now,
            vote,
            random: &mut self.random,
            out: &mut out,
        });
        for output in out {
            match output {
                Output::Order(ToVolume::Suspend) => {
                    self.membership.volume_said(now, &FromVolume::Suspended);
                }
                Output::Order(order) => self.orders.push(order),
                Output::WriteSuperblock { .. } if disk => self.membership.superblock_written(true),
                Output::WriteSuperblock { .. } | Output::Event { .. } | Output::Forced(_) => {}
            }
        }
    }

    /// Steps and rounds until nothing moves; of the others only those named answer.
    fn run(&mut self, now: Time, others: &[NodeId]) {
        for _ in 0..20 {
            self.step(now, true);
            let Asks {
                own,
                partner,
                witness,
            } = self.membership.asks();
            let reach = |who: NodeId| others.contains(&who);
            if let Some(it) = own.and_then(|it| self.own.handle(VOLUME, it)) {
                self.membership.answered(ME, it);
            }
            let asked = partner.filter(|_| reach(PARTNER));
            if let Some(it) = asked.and_then(|it| self.partner.handle(VOLUME, it)) {
                self.membership.answered(PARTNER, it);
            }
            if let Some((id, message)) = witness.filter(|_| reach(WITNESS)) {
                let answer = self.witness.handle(VOLUME, message).expect("it has room");
                self.membership.witness_answered(id, answer);
            }
        }
    }

    /// Since when it serves, in its own words: from then on it may answer.
    fn serves_from(&self) -> Option<Time> {
        self.orders.iter().find_map(|order| match order {
            ToVolume::Serve { not_before, .. } => Some(*not_before),
            _ => None,
        })
    }

    /// What `decide` says were both nodes to lose power now.
    fn plan_after_a_crash(&self) -> Plan {
        let held = configuration(5, both(), false);
        let mine = Record::of(&self.membership.durable, Incarnation(100));
        let theirs = Record::of(
            &idle_at(PARTNER, held, Timing::default()).durable,
            Incarnation(101),
        );
        let votes = [self.own.vote(VOLUME), self.partner.vote(VOLUME)];
        let newest = votes.iter().max_by_key(|it| it.ballot).expect("two");
        decide(&mine, &theirs, newest.value)
    }
}

fn accept(acceptor: &mut Acceptor, round: u64, value: Configuration) {
    let ballot = Ballot(round << 8).after(ME);
    acceptor.handle(VOLUME, Message::Accept { ballot, value });
}

const MINE: Plan = Plan::Source {
    node: ME,
    copy: Copy::Marked,
};

#[test]
fn an_open_swap_that_is_found_is_repeated_and_its_record_stays() {
    let mut meeting = Meeting::of(configuration(5, both(), false));
    // A run before this one swapped, and its own acceptor alone voted before the power was lost.
    let swap = configuration(6, Members::only(ME), false);
    meeting.membership.durable.prepared = Some(swap);
    accept(&mut meeting.own, 2, swap);
    meeting.step(NOW, true);
    meeting.step(NOW, true);
    assert!(meeting.membership.asks().own.is_some(), "a round is begun");
    // Power is lost again, before anybody was asked to accept: the register holds the swap.
    assert_eq!(meeting.plan_after_a_crash(), MINE, "its copy is not lost");
    assert_eq!(meeting.membership.durable.prepared, Some(swap));
    meeting.run(NOW, &[PARTNER]);
    assert_eq!(meeting.membership.durable.configuration, swap);
    assert!(meeting.serves_from().is_some());
}

#[test]
fn a_record_that_a_silent_acceptor_may_hold_is_asked_for_before_it_is_replaced() {
    let mut meeting = Meeting::of(refereed(5, both()));
    // A run before this one swapped, and the witness alone voted before the power was lost.
    let swap = refereed(6, Members::only(ME));
    meeting.membership.durable.prepared = Some(swap);
    accept(&mut meeting.witness, 2, swap);
    meeting.run(NOW, &[WITNESS]);
    // Had the record been replaced, nobody would be left who may serve what is decided.
    assert_eq!(meeting.witness.vote(VOLUME).value, Some(swap));
    assert_eq!(meeting.membership.durable.configuration, swap);
    assert!(meeting.serves_from().is_some());
}

#[test]
fn nobody_is_asked_before_the_record_is_durable() {
    let of = refereed(5, both());
    for heard in [true, false] {
        let mut meeting = Meeting::of(of);
        meeting.membership.served = Some(of.lineage());
        if !heard {
            let since = Time::ZERO;
            meeting.membership.contact(Contact::Silent { since });
        }
        for _ in 0..3 {
            meeting.step(NOW, false);
            assert_eq!(meeting.membership.asks(), Asks::default(), "heard: {heard}");
        }
        // A vote for what this copy has no record of would make it one that may not serve.
        assert!(meeting.membership.writing.is_some());
        meeting.membership.superblock_written(true);
        meeting.step(NOW, false);
        assert!(meeting.membership.asks().own.is_some());
    }
}

/// The witness's vote is enough for a partner whose disk has failed, whether it stands still by
/// now or (`reads`) not yet: `with` is the run of this node whose promises it had. Gives from when
/// on this node answers.
fn goes_on_from(meeting: &mut Meeting, with: Incarnation, reads: bool) -> Option<Time> {
    meeting.hear(3, |partner| {
        (partner.disk_failed, partner.with) = (true, Some(with));
        (partner.role, partner.path) = match reads {
            true => (Role::Member, Path::Serving),
            false => (Role::Idle, Path::Suspended),
        };
    });
    meeting.run(NOW, &[WITNESS]);
    meeting.serves_from()
}

#[test]
fn a_promise_to_a_partner_that_did_not_vote_is_waited_out() {
    let of = refereed(5, both());
    let promised = NOW.saturating_sub(Time::from_millis(200));
    for reads in [true, false] {
        let mut meeting = Meeting::of(of);
        meeting.membership.served = Some(of.lineage());
        meeting.membership.with = Some(incarnation(PARTNER));
        (meeting.membership.role, meeting.membership.path) = (Role::Member, Path::Serving);
        meeting.hear(2, |partner| partner.with = Some(incarnation(ME)));
        assert_eq!(meeting.membership.promise(promised), Some(5));
        // Its disk hangs, so it is asked to step down; then it fails.
        meeting.membership.volume_said(NOW, &FromVolume::Late);
        let due = match reads {
            true => promised + Timing::default().grant(),
            false => NOW,
        };
        let from = goes_on_from(&mut meeting, incarnation(ME), reads);
        assert_eq!(from, Some(due), "it may still read: {reads}");
    }
}

#[test]
fn promises_of_the_run_before_are_waited_out_as_well() {
    let started = NOW.saturating_sub(Time::from_millis(300));
    let before = Incarnation(99);
    for (with, reads, due) in [
        (before, true, started + Timing::default().grant()),
        (before, false, NOW),
        (incarnation(ME), true, NOW),
    ] {
        let mut meeting = Meeting::of(refereed(5, both()));
        meeting.membership.started = started;
        let from = goes_on_from(&mut meeting, with, reads);
        assert_eq!(from, Some(due), "with {with:?}, it may still read: {reads}");
    }
}

#[test]
fn who_votes_is_changed_by_the_two_nodes_without_any_witness() {
    let held = refereed(5, both());
    let mut meeting = Meeting::of(held);
    meeting.membership.desire(witness(78));
    // The witness that votes now could complete the round; the partner's answer is late.
    meeting.run(NOW, &[WITNESS]);
    meeting.run(NOW, &[WITNESS, PARTNER]);
    let alone = meeting.membership.durable.configuration;
    assert_eq!(alone.witness, witness(78));
    assert!(meeting.serves_from().is_some());
    // From now on the partner and the new witness are two of three: what they read is the same.
    let mut fresh = Acceptor::default();
    let ballot = Ballot(1 << 30).after(PARTNER);
    let mut read = Proposal::new(ballot, 2, None, held);
    for (who, acceptor) in [(PARTNER, &mut meeting.partner), (WITNESS, &mut fresh)] {
        let answer = acceptor.handle(VOLUME, Message::Prepare { ballot });
        read.answered(who, answer.expect("it has room"));
    }
    assert_eq!(read.step(), Step::Accepting(alone), "nothing was undone");
}
