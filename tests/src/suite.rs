//! `iscsi-test-cu`, one process a test, judged against a list of excuses.

use crate::program;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a test of the suite ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All its assertions held.
    Pass,
    /// Something it needs is not offered.
    Skip,
    /// An assertion failed.
    Fail,
    /// No end, no verdict, or the tool died.
    Broken,
}

/// A test hangs if it takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Names of all tests, without the leading `ALL.`.
///
/// # Panics
/// If the suite is not installed.
pub fn list() -> Vec<String> {
    let listing = program::run("iscsi-test-cu", ["--list"], LIMIT).text;
    let tests = listing.lines().filter_map(|line| line.strip_prefix("ALL."));
    tests
        .filter(|name| name.split('.').count() == 2)
        .map(Into::into)
        .collect()
}

/// Runs one test; its verdict and the line that says why.
pub fn run(test: &str, url: &str) -> (Verdict, String) {
    let ended = program::run(
        "iscsi-test-cu",
        ["-d", "-S", "-n", "-V", "-t", &format!("ALL.{test}"), url],
        LIMIT,
    );
    judge(&ended.text, ended.late)
}

fn judge(text: &str, late: bool) -> (Verdict, String) {
    let last = |text: &str| {
        text.lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    if late {
        return (Verdict::Broken, format!("no end: {}", last(text)));
    }
    // "tests <total> <ran> <passed> <failed> <inactive>"
    let summary = text
        .lines()
        .rfind(|line| line.trim_start().starts_with("tests "));
    let counts: Vec<u32> = summary
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let (Some(1..), Some(failed)) = (counts.get(1).copied(), counts.get(3).copied()) else {
        return (Verdict::Broken, format!("no verdict: {}", last(text)));
    };
    let body = body(text);
    let line = |mark: &str| {
        body.lines()
            .find(|line| line.contains(mark))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    if failed > 0 {
        return (Verdict::Fail, line("[FAILED]"));
    }
    match ["[SKIPPED]", "Skipping RTPG tests"]
        .into_iter()
        .find(|mark| body.contains(mark))
    {
        Some(mark) => (Verdict::Skip, line(mark)),
        None => (Verdict::Pass, String::new()),
    }
}

/// The test alone: the probes before it and the clean-up of reservations after it skip things too.
fn body(text: &str) -> String {
    let lines = text
        .lines()
        .skip_while(|line| !line.contains("cunit.sourceforge"));
    let mut lines: Vec<&str> = lines
        .take_while(|line| !line.starts_with("Run Summary"))
        .collect();
    if let Some(clean_up) = lines
        .iter()
        .rposition(|line| line.contains("Send PRIN/READ_KEYS"))
    {
        lines.truncate(clean_up);
    }
    lines.join("\n")
}

/// Tests that need not pass: name, verdict and reason from a table of three tab-separated columns.
///
/// # Panics
/// If a line has not three columns, or names a verdict that is none.
pub fn excuses(table: &str) -> BTreeMap<String, (Verdict, String)> {
    let lines = table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [test, verdict, reason] = columns[..] else {
                panic!("three columns, not {line:?}")
            };
            let verdict = match verdict {
                "skip" => Verdict::Skip,
                "fail" => Verdict::Fail,
                other => panic!("{test}: {other:?} is no verdict; allowed: skip, fail"),
            };
            assert!(
                !reason.trim().is_empty(),
                "{test}: an excuse needs a reason"
            );
            (test.into(), (verdict, reason.into()))
        })
        .collect()
}

/// What is wrong with these results: every test must pass, or end as it is excused. A test that
/// is excused and passes must leave the list.
pub fn complaints(
    results: &BTreeMap<String, (Verdict, String)>,
    excuses: &BTreeMap<String, (Verdict, String)>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for (test, (verdict, why)) in results {
        match excuses.get(test) {
            None if *verdict == Verdict::Pass => {}
            None => complaints.push(format!("{test}: {verdict:?} {why}")),
            Some((excused, _)) if excused == verdict => {}
            Some(_) if *verdict == Verdict::Pass => {
                complaints.push(format!("{test}: passes; take it from the list"))
            }
            Some((excused, _)) => complaints.push(format!(
                "{test}: {verdict:?}, but excused as {excused:?}: {why}"
            )),
        }
    }
    let gone = excuses.keys().filter(|test| !results.contains_key(*test));
    complaints.extend(gone.map(|test| format!("{test}: is excused, but there is no such test")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(verdict: Verdict) -> BTreeMap<String, (Verdict, String)> {
        BTreeMap::from([("Read6.Simple".into(), (verdict, String::new()))])
    }

    #[test]
    fn an_excuse_that_is_not_needed_is_a_complaint() {
        let table = "# name\tverdict\treason\nRead6.Simple\tskip\tcomes later\n";
        assert!(complaints(&results(Verdict::Skip), &excuses(table)).is_empty());
        assert!(
            complaints(&results(Verdict::Pass), &excuses(table))[0]
                .contains("take it from the list")
        );
        assert!(complaints(&results(Verdict::Fail), &excuses(table))[0].contains("Fail"));
        assert!(complaints(&results(Verdict::Broken), &excuses(""))[0].contains("Broken"));
        assert!(complaints(&BTreeMap::new(), &excuses(table))[0].contains("no such test"));
    }

    #[test]
    fn a_skip_is_told_from_a_pass() {
        let said = |body: &str, failed: u32| {
            let text = format!(
                "http://cunit.sourceforge.net/\n{body}\nRun Summary: x\n tests 1 1 1 {failed} 0\n"
            );
            judge(&text, false).0
        };
        assert_eq!(said("fine", 0), Verdict::Pass);
        assert_eq!(said("[SKIPPED] not there", 0), Verdict::Skip);
        assert_eq!(
            said("Send PRIN/READ_KEYS\n[SKIPPED] not there", 0),
            Verdict::Pass
        );
        assert_eq!(said("[FAILED] no", 1), Verdict::Fail);
        assert_eq!(judge("connection refused", false).0, Verdict::Broken);
    }
}
