//! How long initiators wait: the longest gap between acknowledgements on the path that survives,
//! while it is offered one write at a time; and how soon there are two copies again after a node
//! was away for ten seconds.

use crate::client::Work;
use crate::network::Machine;
use crate::powercuts::mebibytes;
use crate::random::Random;
use crate::stage::Stage;
use crate::store::SECTOR;
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Load before and after the fault: longer than any pause that is allowed.
const BEFORE: Duration = Duration::from_millis(1500);
const AFTER: Duration = Duration::from_secs(7);
/// How long a node is away under load.
const ABSENCE: Duration = Duration::from_secs(10);

/// What happens to the node that does not survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Certified,
    Killed,
    Frozen,
    CutOff,
    Stopped,
    Maintained,
}

const FAULTS: [(Fault, &str); 6] = [
    (Fault::Certified, "killed, certified"),
    (Fault::Killed, "daemon killed"),
    (Fault::Frozen, "frozen (SIGSTOP)"),
    (Fault::CutOff, "cut off silently"),
    (Fault::Stopped, "orderly stop"),
    (Fault::Maintained, "maintenance"),
];

/// Each fault on each node, so many times, and a table.
///
/// # Errors
/// Something was lost, or does not come back.
pub fn table(stage: &mut Stage, runs: u32, say: &mut dyn FnMut(String)) -> Result<()> {
    say("fault             who survives         runs  median   worst".into());
    for (fault, name) in FAULTS {
        for survivor in [0, 1] {
            let mut gaps = Vec::new();
            for _ in 0..runs {
                let gap = one(stage, fault, survivor);
                gaps.push(gap.with_context(|| format!("{name}, node{} survives", survivor + 1))?);
            }
            let who = ["preferred (node1)", "other (node2)"][survivor];
            say(format!("{name:<17} {who:<19} {}", figures(&mut gaps)));
        }
    }
    for survivor in [0, 1] {
        absence(stage, runs.div_ceil(4), survivor, say)?;
    }
    stage.finish()
}

fn figures(gaps: &mut [Duration]) -> String {
    gaps.sort_unstable();
    let median = gaps[gaps.len() / 2].as_secs_f64();
    let worst = gaps[gaps.len() - 1].as_secs_f64();
    format!("{:>5}  {median:>4.2} s  {worst:>4.2} s", gaps.len())
}

/// One initiator, one path, one write at a time.
fn begin(stage: &mut Stage, survivor: usize) -> crate::client::Client {
    let work = Work {
        depth: 1,
        longest: 8,
        reads: 0,
        hot: 0,
        ..stage.work()
    };
    // Stamps of each client of a stage are its own.
    let round = stage.next_round();
    let random = Random::new(stage.random.word(), 31);
    let clock = Arc::clone(&stage.clock);
    let paths = vec![stage.cluster.path(survivor, 1)];
    crate::client::Client::start(0, round, paths, Work { rate: 0, ..work }, clock, random)
}

fn one(stage: &mut Stage, fault: Fault, survivor: usize) -> Result<Duration> {
    let victim = Machine::node(1 - survivor);
    let client = begin(stage, survivor);
    std::thread::sleep(BEFORE + stage.random.duration(1, 500));
    let _before = client.take_longest_gap(&stage.clock);
    match fault {
        Fault::Certified => {
            stage.cluster.process(victim).kill();
            stage.cluster.certify(victim)?;
        }
        Fault::Killed => stage.cluster.process(victim).kill_soon(),
        Fault::Frozen => stage.cluster.process(victim).pause(true),
        Fault::CutOff => stage.cluster.network.set_machine(victim, false)?,
        Fault::Stopped => stage.cluster.process(victim).ask_to_stop(),
        Fault::Maintained => {
            let begun = stage.cluster.enter_maintenance(1 - survivor)?;
            ensure!(begun, "the maintenance of a whole pair was given up");
        }
    }
    std::thread::sleep(AFTER);
    let gap = client.take_longest_gap(&stage.clock);
    let records = client.finish().context("the initiator")?;
    stage.history.add(records);
    match fault {
        Fault::Certified => stage.cluster.process(victim).start()?,
        Fault::Maintained => stage.cluster.leave_maintenance(1 - survivor)?,
        Fault::Killed => {
            stage.cluster.kill(&[victim]);
            stage.cluster.process(victim).start()?;
        }
        Fault::Frozen => stage.cluster.process(victim).pause(false),
        Fault::CutOff => stage.cluster.network.set_machine(victim, true)?,
        Fault::Stopped => {
            stage.cluster.process(victim).wait_stopped()?;
            stage.cluster.process(victim).start()?;
        }
    }
    stage.wait_mirrored()?;
    stage.check()?;
    Ok(gap)
}

/// A node is killed and away for ten seconds while the other one is written.
fn absence(
    stage: &mut Stage,
    runs: u32,
    survivor: usize,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let victim = Machine::node(1 - survivor);
    for _ in 0..runs {
        stage.begin_load(
            2,
            Work {
                reads: 20,
                ..stage.work()
            },
        );
        stage.wait_answered()?;
        std::thread::sleep(BEFORE);
        stage.cluster.kill(&[victim]);
        let written = stage.sectors_written();
        std::thread::sleep(ABSENCE);
        let before = stage.seen();
        let back = Instant::now();
        stage.cluster.process(victim).start()?;
        stage.wait_mirrored()?;
        let took = back.elapsed();
        let bytes = (stage.sectors_written() - written) * SECTOR as u64;
        stage.end_load()?;
        // The counters of both nodes are looked at a few times a second.
        std::thread::sleep(Duration::from_millis(500));
        stage.check()?;
        let seen = stage.seen();
        say(format!(
            "node{} away for 10 s under load: two copies {:.2} s after its start; {:.1} MiB written meanwhile, \
             {:.1} MiB compared, {:.1} MiB copied",
            2 - survivor,
            took.as_secs_f64(),
            mebibytes(bytes),
            mebibytes(seen.compared - before.compared),
            mebibytes(seen.copied - before.copied),
        ));
    }
    Ok(())
}
