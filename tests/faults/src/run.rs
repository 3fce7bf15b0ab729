//! Rounds of the nemesis: it rages under load, then everything is mended, and the disk must be
//! served, whole on both nodes, and what one disk would have been.

use crate::cluster::VOLUME;
use crate::disk::{DiskFault, Effect, Operation, Part};
use crate::nemesis::Nemesis;
use crate::network::Machine;
use crate::powercuts::mebibytes;
use crate::stage::Stage;
use crate::verify;
use anyhow::{Context, Result};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// How long it rages before everything is mended and checked.
const ROUND: Duration = Duration::from_secs(35);
/// A disk fails at the end of every third round.
const DISK_FAILURE: u32 = 3;
/// A disk that fails is out of service within this.
const OUT: Duration = Duration::from_secs(30);
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
    let mut round = 0_u32;
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
        if round.is_multiple_of(DISK_FAILURE) {
            fail_disk(stage, nemesis)?;
        }
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

/// A node's disk fails while everything else is well: initiators notice nothing. It is out of service
/// from then on, until it is replaced under load.
fn fail_disk(stage: &mut Stage, nemesis: &mut Nemesis) -> Result<()> {
    let node = stage.random.index(2);
    let error = [Errno::IO, Errno::NOSPC][stage.random.index(2)];
    let operation = [Operation::Write, Operation::Flush][stage.random.index(2)];
    let fault = DiskFault {
        part: Some(Part::Image),
        operation: Some(operation),
        effect: Effect::Fail(error),
    };
    stage.begin_load(CLIENTS, stage.work());
    stage.wait_answered()?;
    nemesis.note(
        "disk of a node fails",
        &format!("node{} {fault:?}", node + 1),
    );
    stage
        .cluster
        .disk(Machine::node(node))
        .set_fault(Some(fault));
    stage
        .cluster
        .wait(node, "its disk to be out of service", OUT, |client| {
            client
                .volume(VOLUME)
                .is_ok_and(|volume| volume.state == "failed")
        })?;
    stage.wait_answered()?;
    stage.end_load()?;
    stage.cluster.disk(Machine::node(node)).set_fault(None);
    stage
        .history
        .add(verify::through(&stage.cluster, 1 - node, &stage.clock)?);
    let image = verify::image(&stage.cluster, 1 - node, &stage.clock)?;
    verify::judge(&mut stage.history, vec![image]).context("after the failure of a disk")?;
    stage.judge_watch()?;
    stage.begin_load(CLIENTS, stage.work());
    stage.wait_answered()?;
    stage.replaced += 1;
    stage.cluster.replace_replica(node)?;
    stage.wait_mirrored()?;
    stage.end_load()?;
    stage.check().context("after the replacement of a disk")
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
