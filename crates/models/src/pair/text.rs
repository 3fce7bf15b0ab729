//! One text for all states that differ in names only: moments become distances from now, random
//! names and runs become the order of their first appearance, counters that only ever grow are
//! left out. What is left is `Debug` of the machines themselves, so that a field that is added to
//! them is never forgotten.

use super::World;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Older than this is long ago: longer than any wait of a membership but the hour of a partner
/// that is put out again and again.
const LONG_AGO: i128 = 20_000_000_000;

/// The text.
pub(super) fn canonical(world: &World) -> String {
    let mut names = Names::default();
    let mut text = String::with_capacity(8192);
    let mut raw = String::with_capacity(8192);
    for node in &world.nodes {
        raw.clear();
        let mut copy = node.clone();
        copy.now = Duration::ZERO;
        // Counts the runs, and names them.
        copy.runs = 0;
        let _ = write!(raw, "{copy:?}");
        names.rewrite(&raw, node.now, &mut text);
    }
    for (who, wire) in world.wires.iter().enumerate() {
        raw.clear();
        let _ = write!(raw, "{wire:?}");
        // Moments on the wire are of the sender's clock.
        names.rewrite(&raw, world.nodes[1 - who].now, &mut text);
    }
    raw.clear();
    let _ = write!(
        raw,
        "{:?}{:?}{:?}{:?}{:?}{:?}{:?}",
        world.referee,
        world.questions,
        world.answers,
        world.stalled,
        world.witness_stalled,
        world.cut_off,
        world.certificates
    );
    names.rewrite(&raw, Duration::ZERO, &mut text);
    let _ = write!(
        text,
        "{} {} {} {}",
        world.faults, world.written, world.acknowledged, world.seen
    );
    text
}

#[derive(Default)]
struct Names(BTreeMap<(u8, u128), usize>);

impl Names {
    fn rewrite(&mut self, raw: &str, now: Duration, into: &mut String) {
        let bytes = raw.as_bytes();
        let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
        let (mut at, mut copied) = (0, 0);
        while at < bytes.len() {
            let inside = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
            if !bytes[at].is_ascii_digit() || inside {
                at += 1;
                continue;
            }
            let begin = at;
            while at < bytes.len() && (bytes[at].is_ascii_digit() || bytes[at] == b'.') {
                at += 1;
            }
            let number = &raw[begin..at];
            let unit = raw[at..]
                .bytes()
                .take_while(u8::is_ascii_alphabetic)
                .count();
            into.push_str(&raw[copied..begin]);
            let label = &raw[..begin];
            match &raw[at..at + unit] {
                // When the next stamp is written changes nothing but that.
                "s" | "ms" | "ns" if label.ends_with("stamped: ") => {}
                unit @ ("s" | "ms" | "ns") => {
                    let distance = nanos(number, unit) - now;
                    if nanos(number, unit) == 0 || distance < -LONG_AGO {
                        into.push_str("long ago");
                    } else {
                        let _ = write!(into, "{distance}");
                    }
                }
                _ if label.ends_with("seq: ")
                    || label.ends_with("sequence: ")
                    || label.ends_with("counter: ")
                    // Compared only with the same one's of before, and said for people.
                    || label.ends_with("stamp: ")
                    || label.ends_with("Rows(") => {}
                _ if label.ends_with("generation: ") => self.name(0, number, into),
                _ if label.ends_with("Incarnation(") => self.name(1, number, into),
                _ => into.push_str(number),
            }
            at += unit;
            copied = at;
        }
        into.push_str(&raw[copied..]);
    }

    fn name(&mut self, kind: u8, number: &str, into: &mut String) {
        let number = number.parse().unwrap_or(0);
        let next = self.0.len();
        let name = self.0.entry((kind, number)).or_insert(next);
        let _ = write!(into, "#{name}");
    }
}

fn nanos(number: &str, unit: &str) -> i128 {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = match unit {
        "s" => 9,
        "ms" => 6,
        _ => 0,
    };
    let whole: i128 = whole.parse().unwrap_or(0);
    let fraction: i128 = format!("{part:0<digits$}").parse().unwrap_or(0);
    whole * 10_i128.pow(u32::try_from(digits).unwrap_or(0)) + fraction
}
