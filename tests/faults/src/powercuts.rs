//! Power cuts with a disk that loses what was not flushed: both nodes at once under load; and in
//! write-back mode the owner alone while nobody writes.

use crate::disk::{DiskFault, Effect, Operation};
use crate::network::Machine;
use crate::stage::Stage;
use crate::verify;
use anyhow::{Context, Result};
use lockstep_api::volume::Strategy;
use std::time::{Duration, Instant};

/// One cut.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    unflushed: u64,
    lost: u64,
    answered: Duration,
    mirrored: Duration,
    compared: u64,
    copied: u64,
}

/// Cuts the power of both nodes at once under load, so many times. `lie`: their disks answer
/// flushes without doing them, which must be found.
///
/// # Errors
/// Something acknowledged was lost, or they do not serve again by themselves.
pub fn both_under_load(
    stage: &mut Stage,
    runs: u32,
    lie: bool,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    say("cut  unflushed  lost (sectors)  served again  mirrored  compared  copied".into());
    for run in 1..=runs {
        let row = one_cut(stage, lie).with_context(|| format!("power cut {run}"))?;
        say(format!(
            "{run:>3}  {:>9}  {:>14}  {:>10.2} s  {:>6.2} s  {:>6.1} M  {:>4.1} M",
            row.unflushed,
            row.lost,
            row.answered.as_secs_f64(),
            row.mirrored.as_secs_f64(),
            mebibytes(row.compared),
            mebibytes(row.copied),
        ));
    }
    stage.finish()
}

fn one_cut(stage: &mut Stage, lie: bool) -> Result<Row> {
    let before = stage.seen();
    stage.begin_load(2, stage.work());
    stage.wait_answered()?;
    if lie {
        let fault = DiskFault {
            part: None,
            operation: Some(Operation::Flush),
            effect: Effect::Ignore,
        };
        for node in 0..2 {
            stage
                .cluster
                .disk(Machine::node(node))
                .set_fault(Some(fault));
        }
    }
    std::thread::sleep(stage.random.duration(500, 4000));
    let torn = stage.cluster.cut_power(&[Machine::One, Machine::Two])?;
    let mut order = [Machine::One, Machine::Two];
    if stage.random.percent(50) {
        order.reverse();
    }
    let mut last = Instant::now();
    for machine in order {
        std::thread::sleep(stage.random.duration(10, 3000));
        stage.cluster.network.set_machine(machine, true)?;
        stage.cluster.process(machine).start()?;
        last = Instant::now();
    }
    stage.wait_answered()?;
    let answered = last.elapsed();
    stage.wait_mirrored()?;
    let mirrored = last.elapsed();
    stage.end_load()?;
    // The counters of both nodes are looked at a few times a second.
    std::thread::sleep(Duration::from_millis(500));
    stage.check()?;
    let seen = stage.seen();
    Ok(Row {
        unflushed: torn.unflushed,
        lost: torn.lost,
        answered,
        mirrored,
        compared: seen.compared - before.compared,
        copied: seen.copied - before.copied,
    })
}

/// In write-back mode: a load ends, and then the owner's power is cut. The other node must hold
/// everything that was acknowledged. In strategy majority once more while the witness is away: then
/// nobody serves until the owner is back.
///
/// # Errors
/// Something acknowledged was lost.
pub fn owner_at_rest(stage: &mut Stage, runs: u32, say: &mut dyn FnMut(String)) -> Result<()> {
    for run in 1..=runs {
        let away = stage.cluster.settings.strategy == Strategy::Majority && run % 2 == 0;
        let said = one_owner(stage, away).with_context(|| format!("power cut {run}"))?;
        say(format!("{run:>3}  {said}"));
    }
    stage.finish()
}

fn one_owner(stage: &mut Stage, witness_away: bool) -> Result<String> {
    stage.begin_load(2, stage.work());
    stage.wait_answered()?;
    std::thread::sleep(stage.random.duration(500, 3000));
    if witness_away {
        stage.cluster.kill(&[Machine::Witness]);
        std::thread::sleep(Duration::from_secs(1));
    }
    stage.end_load()?;
    let volume = stage.cluster.client(0).volume(crate::cluster::VOLUME)?;
    let owner = usize::from(volume.owner.clamp(1, 2) - 1);
    let machine = Machine::node(owner);
    let torn = stage.cluster.cut_power(&[machine])?;
    let mut served = "nobody could serve";
    if !witness_away {
        // An initiator that reads: what it sees, the other node alone must be able to show.
        read_through(stage, 1 - owner)?;
        served = "the other node served everything";
    }
    std::thread::sleep(stage.random.duration(10, 3000));
    stage.cluster.network.set_machine(machine, true)?;
    stage.cluster.process(machine).start()?;
    let mirrored = stage.wait_mirrored()?;
    if witness_away {
        stage.cluster.process(Machine::Witness).start()?;
    }
    stage.check()?;
    Ok(format!(
        "owner node{} lost {} of {} unflushed sectors{}: {served}; mirrored {:.2} s after its start; nothing lost",
        owner + 1,
        torn.lost,
        torn.unflushed,
        if witness_away {
            ", the witness was away"
        } else {
            ""
        },
        mirrored.as_secs_f64(),
    ))
}

/// Reads everything through one node as soon as it serves.
fn read_through(stage: &mut Stage, node: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        match verify::through(&stage.cluster, node, &stage.clock) {
            Ok(records) => {
                stage.history.add(records);
                return Ok(());
            }
            Err(error) if begun.elapsed() > crate::stage::ANSWERED => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// For a person.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
