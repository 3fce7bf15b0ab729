//! Nodes with their acceptors and a witness's, and a partner that is silent.

use super::START_GRACE;
use crate::control::{
    Configuration, FromVolume, Incarnation, Members, NodeId, Time, ToVolume, VolumeId, WitnessId,
};
use crate::hello::Random;
use crate::lease::Timing;
use crate::membership::{Contact, Membership, Output, Role, Settings, Turn, Why};
use crate::register::{Acceptor, Message};
use crate::superblock::{Found, Superblock};
use alloc::vec::Vec;
use core::num::NonZeroU32;

const VOLUME: VolumeId = VolumeId(1);
const STEP: Time = Time::from_millis(100);

fn witness() -> Option<WitnessId> {
    NonZeroU32::new(77).map(WitnessId)
}

fn configuration(epoch: u64, members: &[u8]) -> Configuration {
    let members = members
        .iter()
        .fold(Members::default(), |all, it| all.with(NodeId(*it)));
    Configuration {
        epoch,
        generation: u128::from(epoch),
        members,
        owner: NodeId(1),
        unilateral: false,
        witness: witness(),
    }
}

/// A node that has served as one of two until the partner fell silent at the time zero.
struct Side {
    membership: Membership,
    acceptor: Acceptor,
    random: Random,
    now: Time,
    orders: Vec<ToVolume>,
}

impl Side {
    fn new(me: u8, change: impl FnOnce(&mut Superblock)) -> Self {
        let (me, partner) = (NodeId(me), NodeId(3 - me));
        let settings = Settings {
            volume: VOLUME,
            me,
            partner: Some(partner),
            incarnation: Incarnation(7),
            size: 1 << 20,
            block_size: 4096,
            create: false,
            write_back: true,
            proxy: true,
            witness: witness(),
            timing: Timing::default(),
        };
        let mut superblock = Superblock::new(VOLUME, me, 1 << 20, 4096);
        superblock.adopt(configuration(5, &[1, 2]));
        superblock.clean = true;
        change(&mut superblock);
        let mut acceptor = Acceptor::default();
        let ballot = crate::register::Ballot(0x100);
        let value = configuration(5, &[1, 2]);
        acceptor.handle(VOLUME, Message::Accept { ballot, value });
        let found = Found::Valid {
            superblock,
            damaged: false,
        };
        let mut side = Self {
            membership: Membership::new(settings, found, true, Time::ZERO),
            acceptor,
            random: Random::new([me.0; 32]),
            now: Time::ZERO,
            orders: Vec::new(),
        };
        let opened = FromVolume::Opened {
            dirty: 0,
            intents: 3,
        };
        side.membership.volume_said(Time::ZERO, &opened);
        side.membership
            .contact(Contact::Silent { since: Time::ZERO });
        side
    }

    fn served(me: u8) -> Self {
        let mut side = Self::new(me, |_| {});
        side.membership.served = Some(configuration(5, &[1, 2]).lineage());
        side
    }

    /// Everything that is due; the disk answers at once, the witness only if it is reachable.
    fn turn(&mut self, mut witness: Option<&mut Acceptor>) {
        for _ in 0..20 {
            let mut out = Vec::new();
            self.membership.voting(self.acceptor.vote(VOLUME).value);
            self.membership.step(&mut Turn {
                now: self.now,
                vote: self.acceptor.vote(VOLUME),
                random: &mut self.random,
                out: &mut out,
            });
            for output in out {
                match output {
                    Output::Order(order) => self.orders.push(order),
                    Output::WriteSuperblock { .. } => self.membership.superblock_written(true),
                    Output::Event { .. } | Output::Forced(_) => {}
                }
            }
            let asks = self.membership.asks();
            assert!(asks.own.is_none() || !self.membership.votes_are_lost());
            if let Some(message) = asks.own {
                let vote = self.acceptor.vote(VOLUME);
                let allowed = match message {
                    Message::Accept { value, .. } => self.membership.may_accept(&value, &vote),
                    _ => true,
                };
                let answer = allowed
                    .then(|| self.acceptor.handle(VOLUME, message))
                    .flatten();
                if let Some(answer) = answer {
                    self.membership
                        .answered(self.membership.settings.me, answer);
                }
            }
            if let (Some((id, message)), Some(witness)) = (asks.witness, witness.as_deref_mut()) {
                let answer = witness.handle(VOLUME, message).expect("it has room");
                self.membership.witness_answered(id, answer);
            }
        }
    }

    fn pass(&mut self, time: Time, mut witness: Option<&mut Acceptor>) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.turn(witness.as_deref_mut());
        }
    }

    fn serves(&self) -> bool {
        matches!(self.membership.role, Role::Alone(_))
    }
}

#[test]
fn the_witness_lets_one_node_go_on_once_its_promises_have_ended() {
    let mut witness = Acceptor::default();
    let mut side = Side::served(1);
    side.membership.promise_until = Time::from_secs(4);
    side.pass(Time::from_millis(1900), Some(&mut witness));
    assert!(!side.serves(), "the partner may be late");
    side.pass(Time::from_secs(1), Some(&mut witness));
    assert!(side.serves());
    let alone = side.membership.durable.configuration;
    assert_eq!(alone.members, Members::only(NodeId(1)));
    assert!(!alone.unilateral && alone.epoch == 6);
    assert_eq!(witness.vote(VOLUME).value, Some(alone));
    let Some(ToVolume::Serve { not_before, .. }) = side.orders.last() else {
        panic!("{:?}", side.orders)
    };
    assert_eq!(*not_before, Time::from_secs(4));
}

#[test]
fn without_the_witness_nobody_goes_on() {
    let mut side = Side::served(1);
    side.membership.want();
    side.pass(Time::from_secs(60), None);
    assert!(!side.serves());
    assert_eq!(side.membership.why, Why::NeedsQuorum);
    assert!(side.membership.servable(), "initiators keep their sessions");
    let mut witness = Acceptor::default();
    side.pass(Time::from_secs(6), Some(&mut witness));
    assert!(side.serves());
}

#[test]
fn only_one_of_two_goes_on_whatever_the_order_of_their_messages() {
    for seed in 0..250_u64 {
        let mut witness = Acceptor::default();
        let mut sides = [Side::served(1), Side::served(2)];
        let mut dice = Random::new([u8::try_from(seed).expect("small"); 32]);
        for _ in 0..120 {
            let bits = dice.number();
            let who = usize::from(bits & 1 == 1);
            let heard = bits & 6 != 0;
            sides[who].now += Time::from_millis(u64::try_from(bits >> 3 & 255).expect("small"));
            sides[who].turn(heard.then_some(&mut witness));
            assert!(!(sides[0].serves() && sides[1].serves()), "seed {seed}");
        }
        for side in &mut sides {
            side.pass(Time::from_secs(20), Some(&mut witness));
        }
        assert!(sides[0].serves() != sides[1].serves(), "seed {seed}");
        let loser = usize::from(sides[0].serves());
        assert_eq!(sides[loser].membership.why, Why::Outdated, "seed {seed}");
    }
}

#[test]
fn a_cold_start_waits_for_the_partner_for_a_while_and_then_goes_on() {
    let mut witness = Acceptor::default();
    let mut side = Side::new(1, |_| {});
    side.pass(START_GRACE - STEP, Some(&mut witness));
    assert!(!side.serves());
    side.pass(Time::from_secs(1), Some(&mut witness));
    assert!(side.serves());
}

#[test]
fn a_copy_that_may_lack_acknowledged_writes_waits_for_the_other_one() {
    let mut witness = Acceptor::default();
    let mut side = Side::new(1, |it| it.clean = false);
    side.pass(Time::from_secs(60), Some(&mut witness));
    assert!(!side.serves());
    assert_eq!(side.membership.why, Why::NeedsWrites);
}

/// Bindings of a swap that the partner completed with the witness.
fn partner_went_on(witness: &mut Acceptor, value: Configuration) {
    let ballot = crate::register::Ballot(0x9902);
    witness.handle(VOLUME, Message::Prepare { ballot });
    witness.handle(VOLUME, Message::Accept { ballot, value });
}

#[test]
fn a_node_whose_partner_went_on_learns_it_from_the_witness() {
    let mut witness = Acceptor::default();
    partner_went_on(&mut witness, configuration(9, &[2]));
    for mut side in [Side::served(1), Side::new(1, |_| {})] {
        side.pass(Time::from_secs(60), Some(&mut witness));
        assert!(!side.serves());
        assert_eq!(side.membership.why, Why::Outdated);
        assert_eq!(witness.vote(VOLUME).value, Some(configuration(9, &[2])));
    }
}

#[test]
fn a_target_whose_join_was_decided_is_a_full_member() {
    for decided in [true, false] {
        let join = configuration(7, &[1, 2]);
        let mut witness = Acceptor::default();
        let found = if decided {
            join
        } else {
            configuration(6, &[2])
        };
        partner_went_on(&mut witness, found);
        let mut side = Side::new(1, |it| {
            it.adopt(configuration(6, &[2]));
            it.inconsistent = true;
            it.prepared = Some(join);
        });
        side.pass(Time::from_secs(60), Some(&mut witness));
        assert_eq!(side.serves(), decided);
        assert_eq!(side.membership.durable.inconsistent, !decided);
    }
}

#[test]
fn a_source_whose_join_was_not_decided_goes_on_alone() {
    let mut witness = Acceptor::default();
    partner_went_on(&mut witness, configuration(6, &[1]));
    let mut side = Side::new(1, |it| {
        it.adopt(configuration(6, &[1]));
        it.prepared = Some(configuration(7, &[1, 2]));
    });
    side.pass(Time::from_secs(10), Some(&mut witness));
    assert!(side.serves());
    assert_eq!(
        side.membership.durable.configuration,
        configuration(6, &[1])
    );
    assert_eq!(side.membership.durable.prepared, None);
}

#[test]
fn a_change_of_the_witness_that_may_have_been_decided_is_asked_for_first() {
    let mut witness = Acceptor::default();
    let other = Configuration {
        witness: NonZeroU32::new(78).map(WitnessId),
        ..configuration(6, &[1])
    };
    let mut side = Side::new(1, |it| it.prepared = Some(other));
    side.pass(Time::from_secs(30), Some(&mut witness));
    // It was not: nobody had accepted it, and the round has outbid it.
    assert!(side.serves());
    let alone = side.membership.durable.configuration;
    assert_eq!(alone.witness, self::witness());
    assert_ne!(alone.generation, other.generation);
}

#[test]
fn an_acceptor_that_lost_its_votes_is_silent() {
    let mut witness = Acceptor::default();
    let mut side = Side::served(1);
    side.membership.lost_votes = true;
    side.acceptor = Acceptor::default();
    side.pass(Time::from_secs(60), Some(&mut witness));
    assert!(!side.serves());
    assert_eq!(side.membership.why, Why::LostVotes);
    assert!(side.membership.votes_are_lost());
}
