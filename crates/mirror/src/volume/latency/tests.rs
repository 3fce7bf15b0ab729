//! Samples go in, alarms come out.

use super::*;
use alloc::vec::Vec;

const fn us(micros: u64) -> Time {
    Time::from_micros(micros)
}

/// So many seconds of a hundred operations each, from `now` on; what was told, and when.
fn run(
    watch: &mut Watch,
    now: &mut Time,
    seconds: u64,
    taken: impl Fn(u64) -> Time,
) -> Vec<(bool, Time)> {
    let mut told = Vec::new();
    for _ in 0..seconds {
        for number in 0..100 {
            *now += Time::from_millis(10);
            told.extend(watch.add(*now, taken(number)).map(|it| (it, *now)));
        }
    }
    told
}

/// One in a hundred takes 2 ms, the others 500 µs.
fn usual(number: u64) -> Time {
    if number == 7 { us(2000) } else { us(500) }
}

fn learnt() -> (Watch, Time) {
    let (mut watch, mut now) = (Watch::default(), Time::from_secs(50));
    assert_eq!(run(&mut watch, &mut now, 120, usual), []);
    (watch, now)
}

#[test]
fn each_bucket_begins_where_the_one_before_ends() {
    for at in 0..BUCKETS - 1 {
        assert_eq!(bucket(least(at)), at);
        assert_eq!(bucket(least(at + 1) - 1), at, "{at}");
    }
    assert_eq!(bucket(u64::MAX), BUCKETS - 1);
}

#[test]
fn ten_times_the_usual_for_thirty_seconds_is_an_alarm_that_ends_with_it() {
    let (mut watch, mut now) = learnt();
    let begin = now;
    let told = run(&mut watch, &mut now, 60, |_| us(40_000));
    assert_eq!(told.len(), 1, "{told:?}");
    let (begins, at) = told[0];
    assert!(begins && at >= begin + ALARM_AFTER && at <= begin + ALARM_AFTER + SPAN * 3);
    let slow = watch.alarm().unwrap();
    assert!(slow.usual >= us(2000) && slow.usual <= us(2600), "{slow:?}");
    assert!(
        slow.lately > us(20_000) && slow.lately <= us(40_000),
        "{slow:?}"
    );
    assert!(slow.holds(now) && !slow.holds(now + FADES_AFTER));
    let told = run(&mut watch, &mut now, 3, usual);
    assert_eq!(told.len(), 1);
    assert!(!told[0].0 && watch.alarm().is_none());
}

#[test]
fn one_better_second_begins_the_thirty_anew() {
    let (mut watch, mut now) = learnt();
    for _ in 0..10 {
        assert_eq!(run(&mut watch, &mut now, 27, |_| us(40_000)), []);
        assert_eq!(run(&mut watch, &mut now, 3, usual), []);
    }
}

#[test]
fn what_is_slow_less_than_tenfold_or_for_a_few_only_is_none() {
    let (mut watch, mut now) = learnt();
    assert_eq!(run(&mut watch, &mut now, 300, |_| us(15_000)), []);
    let (mut watch, mut now) = learnt();
    let few = |number| {
        if number % 3 == 0 {
            us(900_000)
        } else {
            us(500)
        }
    };
    assert_eq!(run(&mut watch, &mut now, 300, few), []);
    // Ten times of next to nothing is next to nothing.
    let (mut watch, mut now) = (Watch::default(), Time::ZERO);
    run(&mut watch, &mut now, 120, |_| us(20));
    assert_eq!(run(&mut watch, &mut now, 300, |_| us(9_000)), []);
}

#[test]
fn nothing_is_unusual_before_the_usual_is_known_and_a_pause_says_nothing() {
    let (mut watch, mut now) = (Watch::default(), Time::ZERO);
    assert_eq!(run(&mut watch, &mut now, 60, |_| us(2_000_000)), []);
    let (mut watch, mut now) = learnt();
    // One slow operation every two minutes is no slow half hour.
    for _ in 0..20 {
        now += Time::from_secs(120);
        assert_eq!(watch.add(now, us(3_000_000)), None);
    }
    assert_eq!(watch.alarm(), None);
}

#[test]
fn a_busy_half_minute_does_not_make_the_slow_usual_but_an_hour_does() {
    let (mut watch, mut now) = (Watch::default(), Time::ZERO);
    run(&mut watch, &mut now, 60, usual);
    // A hundred times as many operations as ever before, all of them slow.
    for _ in 0..31_000 {
        now += Time::from_millis(1);
        for _ in 0..10 {
            watch.add(now, us(50_000));
        }
    }
    assert!(watch.alarm().is_some());
    let told = run(&mut watch, &mut now, 3600, |_| us(50_000));
    assert_eq!(told.len(), 1);
    assert!(!told[0].0, "an hour later that is how it is");
    assert_eq!(run(&mut watch, &mut now, 600, |_| us(50_000)), []);
    let told = run(&mut watch, &mut now, 60, |_| us(5_000_000));
    assert!(told.len() == 1 && told[0].0, "{told:?}");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut usual = Histogram::default();
    let mut span = Histogram::default();
    for micros in 0..100_000 {
        span.add(micros);
    }
    for _ in 0..20_000 {
        usual.learn(&span);
        assert!(usual.total < REMEMBERED + 2 * WEIGHT);
    }
    assert!(usual.percentile(99) > 80_000);
}
