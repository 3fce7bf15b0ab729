//! `decide` as it is, and damaged ones.

mod swaps;

use super::*;

const SPACE: Space = Space {
    flags: 1,
    preferences: false,
};

fn broken(decide: Decide) -> String {
    let report = enumerate(SPACE, decide);
    report.broken.expect("a damaged plan is found")
}

#[test]
fn every_pair_of_records_gets_one_plan_that_may_be() {
    let report = enumerate_real(SPACE);
    assert!(report.broken.is_none(), "{report}");
    assert_eq!(
        report.plans.len(),
        7,
        "every kind of plan is made: {report}"
    );
}

#[test]
fn a_plan_that_depends_on_who_makes_it_is_found() {
    let found = broken(|mine, theirs, register, prefer| {
        decide_preferring(mine, theirs, register, prefer.or(Some(mine.node)))
    });
    assert!(found.starts_with("the two sides"), "{found}");
}

#[test]
fn each_flag_that_is_overlooked_is_found() {
    let overlook: [(Decide, &str); 3] = [
        (
            |a, b, register, prefer| with(a, b, register, prefer, |it| it.inconsistent = false),
            "inconsistent",
        ),
        (
            |a, b, register, prefer| with(a, b, register, prefer, |it| it.disk_failed = false),
            "failed disk",
        ),
        (
            |a, b, register, prefer| with(a, b, register, prefer, |it| it.split_brain = false),
            "",
        ),
    ];
    for (decide, what) in overlook {
        let found = broken(decide);
        assert!(found.contains(what), "{found}");
    }
}

fn with(
    a: &Record,
    b: &Record,
    register: Option<Configuration>,
    prefer: Option<NodeId>,
    change: fn(&mut Record),
) -> Plan {
    let (mut a, mut b) = (a.clone(), b.clone());
    change(&mut a);
    change(&mut b);
    decide_preferring(&a, &b, register, prefer)
}

#[test]
fn a_blank_target_that_is_given_only_what_is_marked_is_found() {
    let found = broken(|a, b, register, prefer| {
        let plan = decide_preferring(a, b, register, prefer);
        match plan {
            Plan::Source {
                node,
                copy: Copy::Everything,
            } => Plan::Source {
                node,
                copy: Copy::Marked,
            },
            plan => plan,
        }
    });
    assert!(found.starts_with("a blank target"), "{found}");
}
