//! What a source writes down before it swaps (`Membership::become_source`), with and without the
//! value that the swap replaces in its history: no later plan differs.

use super::*;

/// Above every number in the space, as a new configuration is.
const EPOCH: u64 = 20;

/// What a source remembers of a swap.
#[derive(Clone, Copy)]
struct Memory {
    /// The value that it replaces.
    found: bool,
    /// The configuration of the target.
    theirs: bool,
}

/// The records of the source from the swap on: proposed, and adopted.
fn swapped(
    from: &Record,
    to: &Record,
    copy: Copy,
    found: Configuration,
    memory: Memory,
) -> [Record; 2] {
    let swap = Configuration {
        members: Members::only(from.node),
        ..configuration(EPOCH, 99, 0, from.node, false)
    };
    let mut proposed = from.clone();
    if proposed.prepared == Some(found) && found.members.count() == 2 {
        proposed.configuration = found;
        proposed.inconsistent = false;
        proposed.wrote = false;
        remember(&mut proposed, found);
    }
    if memory.found {
        remember(&mut proposed, found);
    }
    if memory.theirs {
        remember(&mut proposed, to.configuration);
    }
    if copy == Copy::Everything && !to.blank {
        proposed.base = EPOCH;
    }
    proposed.prepared = Some(swap);
    let mut adopted = proposed.clone();
    adopted.configuration = swap;
    adopted.prepared = None;
    (adopted.inconsistent, adopted.split_brain) = (false, false);
    (adopted.keep, adopted.wrote) = (false, false);
    remember(&mut adopted, swap);
    [proposed, adopted]
}

fn remember(it: &mut Record, value: Configuration) {
    if value.epoch > 0 && !it.history.contains(&past(&value)) {
        it.history.push(past(&value));
        it.history.sort_unstable_by_key(|past| past.lineage);
    }
}

/// Whether a later plan differs. A target that is compared whole although its marks would do
/// does not count: nothing is lost by it.
fn differs(full: &Record, less: &Record, to: &Record, register: Configuration) -> bool {
    let plan = |source: &Record| decide_preferring(source, to, Some(register), None);
    let (a, b) = (plan(full), plan(less));
    let marked = |it: &Plan| match *it {
        Plan::Source { node, copy } if copy != Copy::Never => Some(node),
        _ => None,
    };
    let everything = matches!(
        b,
        Plan::Source {
            copy: Copy::Everything,
            ..
        }
    );
    a != b && !(everything && marked(&a) == marked(&b))
}

/// Every swap in the space: how many there are, in how many the source remembers less, and in how
/// many of them a later plan differs.
fn forgetting(memory: Memory) -> (u64, u64, u64) {
    let all = Memory {
        found: true,
        theirs: true,
    };
    let (firsts, seconds) = (records(A, SPACE), records(B, SPACE));
    let (mut swaps, mut less, mut differ) = (0, 0, 0);
    for found in registers().into_iter().flatten() {
        for a in &firsts {
            for b in &seconds {
                let plan = decide_preferring(a, b, Some(found), None);
                let Plan::Source { node, copy } = plan else {
                    continue;
                };
                let (from, to) = if node == A { (a, b) } else { (b, a) };
                let alone = Members::only(from.node);
                let own = from.prepared == Some(found) && found.members == alone;
                let there = from.configuration == found && found.members == alone;
                if own || there {
                    // It repeats its own swap, or has nothing to swap.
                    continue;
                }
                swaps += 1;
                let [proposed, adopted] = swapped(from, to, copy, found, all);
                let [first, second] = swapped(from, to, copy, found, memory);
                less += u64::from(adopted.history != second.history);
                let swap = adopted.configuration;
                // Until it is decided a read may give either value; then only the swap.
                let other = differs(&proposed, &first, to, found)
                    || differs(&proposed, &first, to, swap)
                    || differs(&adopted, &second, to, swap);
                differ += u64::from(other);
            }
        }
    }
    (swaps, less, differ)
}

#[test]
fn no_plan_depends_on_whether_the_value_that_a_swap_replaced_is_remembered() {
    let (swaps, less, differ) = forgetting(Memory {
        found: false,
        theirs: true,
    });
    assert!(swaps > 50_000 && less > 20_000, "{swaps} {less}");
    assert_eq!(
        differ, 0,
        "of {swaps}, {less} of them with less to remember"
    );
}

#[test]
fn a_source_that_does_not_remember_its_targets_configuration_is_found() {
    let (_, _, differ) = forgetting(Memory {
        found: true,
        theirs: false,
    });
    assert!(differ > 0);
}
