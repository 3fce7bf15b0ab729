//! What one membership does with facts that only its surroundings can bring about.

use super::{Contact, Membership, Output, Settings, Turn};
use crate::control::{Configuration, FromVolume, Incarnation, Members, NodeId, Time, VolumeId};
use crate::hello::Random;
use crate::lease::Timing;
use crate::register::Vote;
use crate::superblock::{Found, Superblock};
use alloc::vec::Vec;

mod rules;
mod rules_register;

const ME: NodeId = NodeId(2);
const PARTNER: NodeId = NodeId(1);

fn configuration(epoch: u64, members: Members, unilateral: bool) -> Configuration {
    Configuration {
        epoch,
        generation: u128::from(epoch),
        members,
        owner: ME,
        unilateral,
        witness: None,
    }
}

/// A run of that node.
const fn incarnation(node: NodeId) -> Incarnation {
    Incarnation(6 + node.0 as u64)
}

/// Open, standing still, under this configuration.
fn idle(of: Configuration) -> Membership {
    idle_at(ME, of, Timing::default())
}

/// The same on either node.
fn idle_at(me: NodeId, of: Configuration, timing: Timing) -> Membership {
    let settings = Settings {
        volume: VolumeId(1),
        me,
        partner: Some(if me == ME { PARTNER } else { ME }),
        incarnation: incarnation(me),
        size: 1 << 20,
        block_size: 4096,
        create: false,
        write_back: false,
        proxy: true,
        witness: None,
        timing,
    };
    let mut superblock = Superblock::new(VolumeId(1), me, 1 << 20, 4096);
    superblock.adopt(of);
    let found = Found::Valid {
        superblock,
        damaged: false,
    };
    let mut membership = Membership::new(settings, found, true, Time::ZERO);
    let opened = FromVolume::Opened {
        dirty: 0,
        intents: 0,
    };
    membership.volume_said(Time::ZERO, &opened);
    membership
}

#[test]
fn a_vote_without_this_node_does_not_overtake_its_own_unilateral_step() {
    let membership = idle(configuration(5, Members::only(ME), true));
    let value = |epoch| configuration(epoch, Members::only(PARTNER), false);
    assert!(!membership.may_accept(&value(5), &Vote::default()));
    assert!(membership.may_accept(&value(6), &Vote::default()));
}

#[test]
fn a_vote_whose_file_is_not_durable_yet_keeps_a_node_from_going_alone() {
    for voted in [false, true] {
        let both = configuration(5, Members::only(ME).with(PARTNER), false);
        let mut membership = idle(both);
        membership.served = Some(both.lineage());
        membership.contact(Contact::Silent { since: Time::ZERO });
        membership.want();
        let value = configuration(6, Members::only(PARTNER), false);
        membership.voting(voted.then_some(value));
        let mut out = Vec::new();
        membership.step(&mut Turn {
            now: Time::from_secs(10),
            vote: Vote::default(),
            random: &mut Random::new([7; 32]),
            out: &mut out,
        });
        let alone = out
            .iter()
            .any(|it| matches!(it, Output::WriteSuperblock { .. }));
        assert_eq!(alone, !voted);
    }
}
