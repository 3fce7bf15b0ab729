//! The register under crashes, loss and rivals.

use super::*;
use alloc::collections::BTreeSet;
use alloc::vec;

const VOLUME: VolumeId = VolumeId(1);

fn configuration(epoch: u64, generation: u128) -> Configuration {
    Configuration {
        epoch,
        generation,
        members: Members(2),
        owner: NodeId(1),
        unilateral: false,
        witness: None,
    }
}

/// Runs a round to its end against these acceptors.
fn round(
    acceptors: &mut [(NodeId, Acceptor)],
    node: NodeId,
    expect: Option<Lineage>,
    new: Configuration,
) -> Step {
    let promised = acceptors
        .iter()
        .map(|(_, it)| it.vote(VOLUME).promised)
        .max()
        .unwrap();
    let mut proposal = Proposal::new(promised.after(node), 2, expect, new);
    while let Some(ask) = proposal.ask() {
        for (id, acceptor) in acceptors.iter_mut() {
            proposal.answered(*id, acceptor.handle(VOLUME, ask).unwrap());
        }
    }
    proposal.step()
}

fn two() -> Vec<(NodeId, Acceptor)> {
    vec![
        (NodeId(1), Acceptor::default()),
        (NodeId(2), Acceptor::default()),
    ]
}

#[test]
fn a_swap_takes_and_the_loser_learns_the_winner() {
    let mut acceptors = two();
    let (first, second, third) = (
        configuration(1, 10),
        configuration(2, 20),
        configuration(2, 30),
    );
    assert_eq!(
        round(&mut acceptors, NodeId(1), None, first),
        Step::Decided(first)
    );
    assert_eq!(
        round(&mut acceptors, NodeId(2), Some(first.lineage()), second),
        Step::Decided(second)
    );
    assert_eq!(
        round(&mut acceptors, NodeId(1), Some(first.lineage()), third),
        Step::Decided(second)
    );
}

#[test]
fn a_round_whose_end_was_lost_is_finished_by_the_next_one() {
    let mut acceptors = two();
    let value = configuration(1, 10);
    let ballot = Ballot(0).after(NodeId(1));
    // Accepted by node 1 alone, then the proposer died.
    acceptors[0].1.handle(VOLUME, Message::Prepare { ballot });
    acceptors[0]
        .1
        .handle(VOLUME, Message::Accept { ballot, value });
    assert_eq!(
        round(&mut acceptors, NodeId(2), None, configuration(1, 99)),
        Step::Decided(value)
    );
    assert_eq!(acceptors[1].1.vote(VOLUME).value, Some(value));
    let mut acceptors = two();
    acceptors[0]
        .1
        .handle(VOLUME, Message::Accept { ballot, value });
    let other = Some(configuration(7, 7).lineage());
    assert_eq!(
        round(&mut acceptors, NodeId(2), other, configuration(1, 99)),
        Step::Decided(value)
    );
    assert_eq!(acceptors[1].1.vote(VOLUME).value, Some(value));
}

#[test]
fn an_old_ballot_is_refused_and_named() {
    let mut acceptor = Acceptor::default();
    let (low, high) = (
        Ballot(0).after(NodeId(1)),
        Ballot(0).after(NodeId(1)).after(NodeId(2)),
    );
    acceptor.handle(VOLUME, Message::Prepare { ballot: high });
    let answer = acceptor
        .handle(VOLUME, Message::Prepare { ballot: low })
        .unwrap();
    assert_eq!(
        answer,
        Message::Refused {
            ballot: low,
            promised: high
        }
    );
    let mut proposal = Proposal::new(low, 2, None, configuration(1, 1));
    proposal.answered(NodeId(2), answer);
    assert_eq!(proposal.step(), Step::Outbid(high));
}

#[test]
fn the_file_is_read_as_it_was_written_and_damage_is_noticed() {
    let mut acceptor = Acceptor::default();
    let ballot = Ballot(0).after(NodeId(2));
    acceptor.handle(
        VOLUME,
        Message::Accept {
            ballot,
            value: configuration(3, u128::MAX),
        },
    );
    acceptor.handle(VolumeId(u128::MAX), Message::Prepare { ballot });
    let file = acceptor.encode();
    assert_eq!(Acceptor::decode(&file), Ok(acceptor));
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1;
        assert_eq!(
            Acceptor::decode(&bad),
            Err(AcceptorError::Damaged),
            "byte {at}"
        );
        assert_eq!(
            Acceptor::decode(&file[..at]),
            Err(AcceptorError::Damaged),
            "cut at {at}"
        );
    }
}

/// Two proposers, every message in flight delivered in a random order, lost or repeated:
/// no two rounds that replace the same value may both succeed.
#[test]
fn at_most_one_swap_of_a_value_succeeds() {
    for seed in 1..3000_u64 {
        let mut random = seed;
        let mut dice = |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % u64::try_from(n).unwrap()).unwrap()
        };
        let mut acceptors = two();
        let base = configuration(1, 1);
        assert_eq!(
            round(&mut acceptors, NodeId(1), None, base),
            Step::Decided(base)
        );
        let mut proposals: Vec<Proposal> = Vec::new();
        let mut wire: Vec<(usize, Option<usize>, Message)> = Vec::new();
        let mut won = BTreeSet::new();
        for _ in 0..200 {
            match dice(6) {
                0 if proposals.len() < 6 => {
                    let node = NodeId(u8::try_from(1 + dice(2)).unwrap());
                    let seen = acceptors[usize::from(node.0) - 1].1.vote(VOLUME).promised;
                    let ballot = proposals
                        .iter()
                        .map(|it| it.ballot)
                        .max()
                        .unwrap_or(seen)
                        .max(seen)
                        .after(node);
                    let new = configuration(2, 100 + u128::try_from(proposals.len()).unwrap());
                    proposals.push(Proposal::new(ballot, 2, Some(base.lineage()), new));
                }
                1 | 2 if !proposals.is_empty() => {
                    let at = dice(proposals.len());
                    if let Some(ask) = proposals[at].ask() {
                        wire.push((at, Some(dice(2)), ask));
                    }
                }
                _ if !wire.is_empty() => {
                    let at = dice(wire.len());
                    let (proposal, to, message) = if dice(4) == 0 {
                        wire[at]
                    } else {
                        wire.swap_remove(at)
                    };
                    if let Some(to) = to {
                        let answer = acceptors[to].1.handle(VOLUME, message).unwrap();
                        wire.push((proposal, None, answer));
                        // The sender of an answer is the acceptor that gave it.
                        let id = acceptors[to].0;
                        if dice(3) > 0 {
                            proposals[proposal].answered(id, answer);
                        }
                    }
                    if let Step::Decided(value) = proposals[proposal].step() {
                        won.insert(value.generation);
                    }
                }
                _ => {}
            }
        }
        assert!(won.len() <= 1, "seed {seed}: {won:?}");
    }
}
