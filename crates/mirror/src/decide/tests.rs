//! `decide` over its small state space: symmetric, total, safe.

use super::*;
use crate::control::Members;
use alloc::vec;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn members(bits: u8) -> Members {
    Members(bits << 1)
}

fn configuration(
    epoch: u64,
    generation: u128,
    bits: u8,
    owner: NodeId,
    unilateral: bool,
) -> Configuration {
    Configuration {
        witness: None,
        epoch,
        generation,
        members: members(bits),
        owner,
        unilateral,
    }
}

fn past(it: Configuration) -> Past {
    Past {
        lineage: it.lineage(),
        members: it.members,
        unilateral: it.unilateral,
    }
}

fn record(node: NodeId, line: &[Configuration], base: u64) -> Record {
    let mut it = Record::of(
        &Superblock::new(VolumeId(9), node, 1 << 20, 512),
        Incarnation(u64::from(node.0)),
    );
    if let Some(last) = line.last() {
        it.configuration = *last;
        it.blank = false;
    }
    it.history = line.iter().copied().map(past).collect();
    it.base = base;
    it
}

/// The lines that a volume can take: together, A alone, B alone, joined again after A alone, and
/// lines that came apart.
fn lines() -> Vec<(Vec<Configuration>, u64)> {
    let both = configuration(1, 1, 3, A, false);
    let a_alone = configuration(2, 2, 1, A, false);
    let a_uni = configuration(2, 3, 1, A, true);
    let b_uni = configuration(2, 4, 2, B, true);
    let b_alone = configuration(2, 5, 2, B, false);
    let again = configuration(3, 6, 3, B, false);
    let foreign = configuration(7, 7, 3, A, false);
    vec![
        (vec![], 0),
        (vec![both], 1),
        (vec![both, a_alone], 1),
        (vec![both, a_uni], 1),
        (vec![both, b_uni], 1),
        (vec![both, b_alone], 1),
        (vec![both, a_alone, again], 3),
        (vec![both, b_alone, configuration(3, 8, 2, B, true)], 1),
        (vec![foreign], 7),
    ]
}

fn records(node: NodeId) -> Vec<Record> {
    let mut all = vec![];
    let open = [
        None,
        Some(configuration(2, 2, 1, A, false)),
        Some(configuration(3, 6, 3, B, false)),
    ];
    for (line, base) in lines() {
        for flags in 0..64_u8 {
            for prepared in open {
                let mut it = record(node, &line, base);
                it.inconsistent = flags & 1 != 0;
                it.disk_failed = flags & 2 != 0;
                it.crashed = flags & 4 != 0;
                it.wrote = flags & 8 != 0;
                it.create = flags & 16 != 0;
                it.with = (flags & 32 != 0).then_some(Incarnation(u64::from(3 - node.0)));
                it.prepared = prepared;
                it.blank &= prepared.is_none();
                if it.wrote && !it.configuration.unilateral || it.create && !line.is_empty() {
                    continue;
                }
                all.push(it);
            }
        }
    }
    all
}

fn registers() -> Vec<Option<Configuration>> {
    let mut all = vec![None];
    for (line, _) in lines() {
        all.extend(line.last().filter(|it| !it.unilateral).copied().map(Some));
    }
    all
}

#[test]
fn both_sides_come_to_the_same_plan_and_the_source_is_always_fit() {
    let (mut seen, mut plans) = (0_u32, alloc::collections::BTreeSet::new());
    for register in registers() {
        for a in records(A) {
            for b in records(B) {
                let plan = decide(&a, &b, register);
                assert_eq!(plan, decide(&b, &a, register), "{a:?} {b:?} {register:?}");
                plans.insert(
                    alloc::format!("{plan:?}")
                        .split([' ', '('])
                        .next()
                        .map(alloc::string::String::from),
                );
                seen += 1;
                let Plan::Source { node, copy } = plan else {
                    continue;
                };
                let (from, to) = if node == A { (&a, &b) } else { (&b, &a) };
                assert!(!from.disk_failed && !from.blank, "{from:?}");
                assert!(!from.inconsistent || from.prepared.is_some(), "{from:?}");
                let ahead = to.remembers(from.configuration.lineage())
                    && to.configuration.lineage() != from.configuration.lineage()
                    && from.prepared.is_none();
                let stale = ahead && !from.remembers(to.configuration.lineage());
                assert!(!stale, "a stale source: {from:?} {to:?} {register:?}");
                assert_eq!(copy == Copy::Never, to.disk_failed);
                assert!(
                    !to.blank || copy != Copy::Marked,
                    "a blank target needs everything"
                );
            }
        }
    }
    assert!(seen > 100_000, "{seen}");
    assert_eq!(
        plans.len(),
        5,
        "every plan that two copies of one volume can get is seen: {plans:?}"
    );
}

#[test]
fn row_0_different_volumes_are_refused() {
    let a = record(A, &[], 0);
    let other = |change: fn(&mut Record)| {
        let mut b = record(B, &[], 0);
        change(&mut b);
        decide(&a, &b, None)
    };
    assert_eq!(
        other(|b| b.volume = VolumeId(3)),
        Plan::Refuse(Mismatch::Volume)
    );
    assert_eq!(other(|b| b.size += 512), Plan::Refuse(Mismatch::Size));
    assert_eq!(
        other(|b| b.block_size = 4096),
        Plan::Refuse(Mismatch::BlockSize)
    );
}

#[test]
fn row_1_two_blank_copies_are_created_only_if_both_were_told_to() {
    let (mut a, mut b) = (record(A, &[], 0), record(B, &[], 0));
    assert_eq!(decide(&a, &b, None), Plan::Create { agreed: false });
    a.create = true;
    assert_eq!(decide(&a, &b, None), Plan::Create { agreed: false });
    b.create = true;
    assert_eq!(decide(&a, &b, None), Plan::Create { agreed: true });
    // Both disks were replaced: the register remembers that there was something.
    let truth = configuration(4, 4, 3, A, false);
    assert_eq!(decide(&a, &b, Some(truth)), Plan::Unavailable { truth });
}

#[test]
fn row_2_two_lines_that_both_wrote_are_never_paired() {
    let both = configuration(1, 1, 3, A, false);
    let mut a = record(A, &[both, configuration(2, 2, 1, A, true)], 1);
    let mut b = record(B, &[both, configuration(2, 3, 2, B, true)], 1);
    (a.wrote, b.wrote) = (true, true);
    assert_eq!(decide(&a, &b, Some(both)), Plan::SplitBrain);
    b.wrote = false;
    assert_eq!(
        decide(&a, &b, Some(both)),
        Plan::Source {
            node: A,
            copy: Copy::Everything
        }
    );
}

#[test]
fn row_4_an_inconsistent_copy_waits_for_its_source() {
    let (both, alone) = (
        configuration(1, 1, 3, A, false),
        configuration(2, 2, 1, A, false),
    );
    let mut a = record(A, &[both, alone], 1);
    let mut b = record(B, &[both, alone], 1);
    b.inconsistent = true;
    assert_eq!(
        decide(&a, &b, Some(alone)),
        Plan::Source {
            node: A,
            copy: Copy::Marked
        }
    );
    a.disk_failed = true;
    assert_eq!(
        decide(&a, &b, Some(alone)),
        Plan::Unavailable { truth: alone }
    );
    let blank = record(A, &[], 0);
    assert_eq!(
        decide(&blank, &b, Some(alone)),
        Plan::Unavailable { truth: alone }
    );
}

#[test]
fn row_5_resumes_only_if_neither_restarted() {
    let both = configuration(1, 1, 3, B, false);
    let (mut a, mut b) = (record(A, &[both], 1), record(B, &[both], 1));
    (a.with, b.with) = (Some(Incarnation(2)), Some(Incarnation(1)));
    assert_eq!(decide(&a, &b, Some(both)), Plan::Resume);
    b.with = Some(Incarnation(77));
    assert_eq!(
        decide(&a, &b, Some(both)),
        Plan::Source {
            node: B,
            copy: Copy::Marked
        }
    );
}

#[test]
fn row_5_an_inconsistent_copy_never_resumes() {
    let both = configuration(1, 1, 3, B, false);
    let (mut a, mut b) = (record(A, &[both], 1), record(B, &[both], 1));
    (a.with, b.with) = (Some(Incarnation(2)), Some(Incarnation(1)));
    // No run of this release leaves such a record behind; it must not be trusted all the same.
    (a.inconsistent, a.prepared) = (true, Some(both));
    assert_eq!(
        decide(&a, &b, Some(both)),
        Plan::Source {
            node: B,
            copy: Copy::Marked
        }
    );
}

#[test]
fn row_6_the_one_that_did_not_crash_is_the_source() {
    let both = configuration(1, 1, 3, A, false);
    let (mut a, mut b) = (record(A, &[both], 1), record(B, &[both], 1));
    a.crashed = true;
    assert_eq!(
        decide(&a, &b, Some(both)),
        Plan::Source {
            node: B,
            copy: Copy::Marked
        }
    );
    b.crashed = true;
    assert_eq!(
        decide(&a, &b, Some(both)),
        Plan::Source {
            node: A,
            copy: Copy::Marked
        }
    );
}

#[test]
fn an_older_copy_of_a_disk_is_never_the_source() {
    let (old, alone, new) = (
        configuration(1, 1, 3, A, false),
        configuration(8, 2, 2, B, false),
        configuration(9, 3, 3, A, false),
    );
    let a = record(A, &[old], 1);
    let b = record(B, &[old, alone, new], 9);
    assert_eq!(
        decide(&a, &b, Some(new)),
        Plan::Source {
            node: B,
            copy: Copy::Everything
        }
    );
    // Also where the newer one's disk is gone and only the register remembers.
    let blank = record(B, &[], 0);
    assert_eq!(
        decide(&a, &blank, Some(new)),
        Plan::Unavailable { truth: new }
    );
}

#[test]
fn an_open_join_record_that_was_decided_makes_a_full_member() {
    let (both, alone, joined) = (
        configuration(1, 1, 3, A, false),
        configuration(2, 2, 1, A, false),
        configuration(3, 3, 3, A, false),
    );
    let mut a = record(A, &[both, alone], 1);
    let mut b = record(B, &[both, alone], 1);
    (a.prepared, b.prepared, b.inconsistent) = (Some(joined), Some(joined), true);
    a.crashed = true;
    assert_eq!(
        decide(&a, &b, Some(joined)),
        Plan::Source {
            node: B,
            copy: Copy::Marked
        }
    );
    assert_eq!(
        decide(&a, &b, Some(alone)),
        Plan::Source {
            node: A,
            copy: Copy::Marked
        }
    );
    // The target adopted it and dropped its bits; the old source only prepared.
    let b = record(B, &[both, alone, joined], 3);
    assert_eq!(
        decide(&a, &b, Some(joined)),
        Plan::Source {
            node: B,
            copy: Copy::Marked
        }
    );
}

#[test]
fn a_proposal_against_a_node_that_went_alone_was_never_decided() {
    let (both, against) = (
        configuration(1, 1, 3, A, false),
        configuration(3, 3, 1, A, false),
    );
    let a = record(A, &[both], 1);
    let mut b = record(B, &[both, configuration(2, 2, 2, B, true)], 1);
    b.wrote = true;
    assert_eq!(
        decide(&a, &b, Some(against)),
        Plan::Source {
            node: B,
            copy: Copy::Marked
        }
    );
}

#[test]
fn a_configuration_that_fell_out_of_the_history_means_everything() {
    let mut line: Vec<_> = (10..100)
        .map(|epoch| configuration(epoch, epoch.into(), 1, A, false))
        .collect();
    let mut a = record(A, &line, 5);
    a.history = a.history.split_off(line.len() - HISTORY_LEN);
    line.truncate(2);
    let b = record(B, &line, 5);
    let register = Some(a.configuration);
    assert_eq!(
        decide(&a, &b, register),
        Plan::Source {
            node: A,
            copy: Copy::Everything
        }
    );
}

#[test]
fn a_split_brain_on_record_is_paired_only_through_the_copy_that_was_kept() {
    let both = configuration(1, 1, 3, A, false);
    let split = |flags: u8| {
        let mut a = record(A, &[both, configuration(2, 2, 1, A, true)], 1);
        let mut b = record(B, &[both, configuration(2, 3, 2, B, true)], 1);
        (a.wrote, b.wrote) = (true, true);
        (a.split_brain, b.split_brain) = (flags & 1 != 0, flags & 2 != 0);
        (a.keep, b.keep) = (flags & 4 != 0, flags & 8 != 0);
        (a.give_up, b.give_up) = (flags & 32 != 0, flags & 64 != 0);
        b.base += u64::from(flags & 16 != 0);
        (a, b)
    };
    for flags in 0..128 {
        let (a, b) = split(flags);
        let plan = decide(&a, &b, Some(both));
        assert_eq!(plan, decide(&b, &a, Some(both)), "{flags}");
        let copy = if flags & 16 == 0 {
            Copy::Marked
        } else {
            Copy::Everything
        };
        let due = match (flags & (4 | 64) != 0, flags & (8 | 32) != 0) {
            (true, false) if flags & 3 != 0 => Plan::Source { node: A, copy },
            (false, true) if flags & 3 != 0 => Plan::Source { node: B, copy },
            _ => Plan::SplitBrain,
        };
        assert_eq!(plan, due, "{flags}");
    }
    // The swap of the kept copy was decided; the other one still carries the flag.
    let (mut a, b) = split(2);
    let kept = configuration(3, 9, 1, A, false);
    a.history.extend([past(b.configuration), past(kept)]);
    a.configuration = kept;
    assert_eq!(
        decide(&a, &b, Some(kept)),
        Plan::Source {
            node: A,
            copy: Copy::Marked
        }
    );
}

/// Both served under `both`; later one of them went on alone, or both crashed.
#[test]
fn an_older_clone_is_never_the_source_and_compared_whole() {
    let both = configuration(1, 1, 3, A, false);
    let alone = configuration(2, 2, 2, B, false);
    let met = |stamp| {
        Some(Met {
            lineage: both.lineage(),
            stamp,
        })
    };
    for line in [vec![both], vec![both, alone]] {
        for (stamp, older) in [(6, true), (7, false), (8, false)] {
            let mut clone = record(A, &[both], 1);
            clone.stamp = stamp;
            let mut other = record(B, &line, 1);
            (other.stamp, other.met) = (9, met(7));
            let register = Some(other.configuration);
            let plan = decide(&clone, &other, register);
            assert_eq!(plan, decide(&other, &clone, register));
            let (node, copy) = match (older, line.len()) {
                (true, _) => (B, Copy::Everything),
                // Both are whole; the owner is the source.
                (false, 1) => (A, Copy::Marked),
                (false, _) => (B, Copy::Marked),
            };
            assert_eq!(plan, Plan::Source { node, copy }, "{stamp}");
        }
    }
    // A clone from between the join's record and its adoption.
    let join = configuration(3, 3, 3, B, false);
    let mut clone = record(A, &[both, alone], 1);
    clone.prepared = Some(join);
    let mut other = record(B, &[both, alone, join], 3);
    for (stamp, copy) in [(0, Copy::Marked), (1, Copy::Everything)] {
        other.met = Some(Met {
            lineage: join.lineage(),
            stamp,
        });
        let plan = decide(&clone, &other, Some(join));
        assert_eq!(plan, Plan::Source { node: B, copy });
    }
    // Two clones, each older than what the other one has met: nobody holds everything.
    let mut clones = [A, B].map(|node| record(node, &[both], 1));
    for it in &mut clones {
        (it.stamp, it.met) = (3, met(4));
    }
    let plan = decide(&clones[0], &clones[1], Some(both));
    assert_eq!(plan, Plan::Unavailable { truth: both });
}
