//! Rounds of the nemesis: it rages under load, then everything is mended, and the disk must be
//! served, whole on both nodes, and what one disk would have been.

use crate::nemesis::Nemesis;
use crate::powercuts::mebibytes;
use crate::stage::Stage;
use anyhow::Result;
use std::time::{Duration, Instant};

/// How long it rages before everything is mended and checked.
const ROUND: Duration = Duration::from_secs(35);
/// Initiators.
const CLIENTS: usize = 2;

/// Rounds for so long. The diary is kept in the stage's directory.
///
/// # Errors
/// What was found.
pub fn rounds(stage: &mut Stage, time: Duration, say: &mut dyn FnMut(String)) -> Result<()> {
    let mut nemesis = Nemesis::default();
    let result = rage(stage, &mut nemesis, time, say);
    std::fs::write(
        stage.cluster.directory.join("diary.txt"),
        nemesis.diary.join("\n"),
    )?;
    report(stage, &nemesis, say);
    result
}

fn rage(
    stage: &mut Stage,
    nemesis: &mut Nemesis,
    time: Duration,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let begun = Instant::now();
    let mut round = 0;
    while begun.elapsed() < time {
        round += 1;
        stage.begin_load(CLIENTS, stage.work());
        stage.wait_answered()?;
        let left = time.saturating_sub(begun.elapsed());
        nemesis.rage(stage, ROUND.min(left).max(Duration::from_secs(5)))?;
        nemesis.mend_all(stage)?;
        let answered = stage.wait_answered()?;
        let mirrored = answered + stage.wait_mirrored()?;
        let pause = stage.take_longest_pause();
        stage.end_load()?;
        let operations = stage.history.len();
        stage.check()?;
        say(format!(
            "round {round}: {operations} operations, longest pause {:.1} s; mended: answered after {:.1} s, \
             mirrored after {:.1} s; one disk",
            pause.as_secs_f64(),
            answered.as_secs_f64(),
            mirrored.as_secs_f64()
        ));
    }
    stage.finish()
}

fn report(stage: &Stage, nemesis: &Nemesis, say: &mut dyn FnMut(String)) {
    for (name, count) in &nemesis.thrown {
        say(format!("{count:>6}  {name}"));
    }
    let (tally, seen) = (&stage.tally, stage.seen());
    say(format!(
        "operations: {} answered, {} of them sent more than once, {} without an end; {:.1} MiB written",
        tally.operations,
        tally.sent_again,
        tally.open,
        mebibytes(tally.sectors * 512)
    ));
    say(format!(
        "longest: pause {:.1} s; after the last fault {:.1} s to an answer, {:.1} s more to two copies",
        tally.longest_pause.as_secs_f64(),
        tally.answered.as_secs_f64(),
        tally.mirrored.as_secs_f64()
    ));
    say(format!(
        "resyncs: {:.1} MiB compared, {:.1} MiB copied, {} full; {} times a node went on alone",
        mebibytes(seen.compared),
        mebibytes(seen.copied),
        seen.full,
        seen.alone
    ));
}
