//! Breaks things at random, one after the other and several at a time, and mends them again.
//!
//! With the heartbeat strategy it leaves out what that strategy cannot exclude by design
//! (`docs/testing.md`): all cables between two nodes that initiators both reach; and whatever
//! happens to the other node before two have met again that were parted. With a witness it
//! leaves out nothing. In write-back mode it never cuts the power of a node before the other one,
//! whose power was cut, is back and has everything.

use crate::disk::{DiskFault, Effect, Operation, Part};
use crate::network::{Cable, Machine};
use crate::random::Random;
use crate::stage::Stage;
use anyhow::{Context, Result};
use lockstep_api::volume::{Cache, Strategy};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Faults at the same time.
const MOST: usize = 3;
/// Two nodes that were parted meet again within this once their cables are plugged in.
const MEET: Duration = Duration::from_secs(60);

/// What is broken, and what mends it.
#[derive(Clone, Debug)]
enum Broken {
    /// Off; its cables may be cut as well.
    Off(Machine, bool),
    Paused(Machine),
    /// Ends of cables from which nothing arrives; `parted`: the nodes do not hear each other.
    Cut {
        ends: Vec<(Cable, usize)>,
        parted: bool,
    },
    Slow(Cable),
    Disk(Machine),
}

/// What a fault is called in the report.
type Name = &'static str;

/// See the module.
#[derive(Debug, Default)]
pub struct Nemesis {
    active: Vec<(Instant, Broken)>,
    /// How often each fault was thrown.
    pub thrown: BTreeMap<Name, u64>,
    /// What was done, with seconds since the beginning.
    pub diary: Vec<String>,
    begun: Option<Instant>,
}

impl Nemesis {
    /// Breaks and mends for so long.
    ///
    /// # Errors
    /// A tool failed, or a daemon ended by itself.
    pub fn rage(&mut self, stage: &mut Stage, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.mend(stage, Instant::now())?;
            if self.active.len() < self.most(stage) {
                self.throw(stage)?;
            }
            let pause = stage.random.duration(50, 4000);
            self.wait(
                stage,
                pause.min(end.saturating_duration_since(Instant::now())),
            )?;
        }
        Ok(())
    }

    /// Mends everything at once.
    ///
    /// # Errors
    /// A tool failed.
    pub fn mend_all(&mut self, stage: &mut Stage) -> Result<()> {
        for (_, broken) in &mut self.active {
            // Those that were switched off come back one after the other.
            if let Broken::Off(..) = broken {
                std::thread::sleep(stage.random.duration(1, 500));
            }
        }
        self.mend(stage, Instant::now() + Duration::from_secs(3600))?;
        stage.cluster.network.heal()
    }

    fn most(&self, stage: &Stage) -> usize {
        let parted = self
            .active
            .iter()
            .any(|(_, it)| matches!(it, Broken::Cut { parted: true, .. }));
        match stage.cluster.settings.strategy {
            Strategy::Heartbeat if parted => 1,
            Strategy::Heartbeat => 2,
            Strategy::Majority => MOST,
        }
    }

    fn wait(&mut self, stage: &mut Stage, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.mend(stage, Instant::now())?;
            stage.cluster.watch_processes()?;
            std::thread::sleep(
                Duration::from_millis(10).min(end.saturating_duration_since(Instant::now())),
            );
        }
        Ok(())
    }

    fn throw(&mut self, stage: &mut Stage) -> Result<()> {
        let faults: &[fn(&mut Self, &mut Stage) -> Result<()>] = &[
            Self::kill,
            Self::kill,
            Self::pause,
            Self::pause,
            Self::restart,
            Self::maintain,
            Self::kill_several,
            Self::cut_power,
            Self::cut_power,
            Self::isolate,
            Self::isolate,
            Self::cut_cable,
            Self::cut_cable,
            Self::part,
            Self::cut_any,
            Self::slow_cable,
            Self::slow_disk,
            Self::hang_disk,
            Self::lose_witness,
            Self::witness_disk,
        ];
        let fault = faults[stage.random.index(faults.len())];
        fault(self, stage)
    }

    /// Counts a fault and writes it into the diary.
    pub fn note(&mut self, name: Name, detail: &str) {
        *self.thrown.entry(name).or_default() += 1;
        self.say(&format!("{name} {detail}"));
    }

    fn say(&mut self, what: &str) {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        self.diary
            .push(format!("{:>8.2} {what}", begun.elapsed().as_secs_f64()));
    }

    fn add(&mut self, time: Duration, broken: Broken) {
        self.active.push((Instant::now() + time, broken));
    }

    fn is_majority(stage: &Stage) -> bool {
        stage.cluster.settings.strategy == Strategy::Majority
    }

    /// A machine that runs and is not paused.
    fn victim(stage: &mut Stage) -> Option<Machine> {
        let mut machines = stage.cluster.machines();
        machines.retain(|machine| {
            let process = stage.cluster.process(*machine);
            process.is_on() && !process.is_paused()
        });
        (!machines.is_empty()).then(|| machines[stage.random.index(machines.len())])
    }

    fn kill(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(machine) = Self::victim(stage) {
            self.end(stage, &[machine]);
            let name = if machine == Machine::Witness {
                "kill witness"
            } else {
                "kill node"
            };
            self.note(name, machine.name());
            // As its supervisor does.
            if machine != Machine::Witness && stage.random.percent(50) {
                let certified = stage.cluster.certify(machine)?;
                self.note("death certificate", &certified);
            }
            self.add(
                stage.random.duration(10, 15_000),
                Broken::Off(machine, false),
            );
        }
        Ok(())
    }

    fn pause(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(machine) = Self::victim(stage) {
            stage.cluster.process(machine).pause(true);
            let time = stage.random.duration(100, 20_000);
            self.note(
                "pause (SIGSTOP)",
                &format!("{} for {time:?}", machine.name()),
            );
            self.add(time, Broken::Paused(machine));
        }
        Ok(())
    }

    fn restart(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(machine) = Self::victim(stage) else {
            return Ok(());
        };
        // A partner that is paused keeps it for as long as that lasts: not what is tested here.
        if self
            .active
            .iter()
            .all(|(_, it)| matches!(it, Broken::Slow(_) | Broken::Off(..)))
            && !stage.cluster.process(machine).is_young()
        {
            self.note("stop in order (SIGTERM)", machine.name());
            stage.cluster.process(machine).stop()?;
            self.add(stage.random.duration(10, 5000), Broken::Off(machine, false));
        }
        Ok(())
    }

    /// A node is taken out of service and put back, while everything else is well.
    fn maintain(&mut self, stage: &mut Stage) -> Result<()> {
        if !self.active.is_empty() || !stage.cluster.is_mirrored() {
            return Ok(());
        }
        let node = stage.random.index(2);
        self.note("maintenance", Machine::node(node).name());
        if !stage.cluster.enter_maintenance(node)? {
            self.note("maintenance was given up", Machine::node(node).name());
            return Ok(());
        }
        std::thread::sleep(stage.random.duration(1, 3000));
        if stage.random.percent(50) {
            // As for an upgrade.
            stage.cluster.process(Machine::node(node)).stop()?;
            stage.cluster.process(Machine::node(node)).start()?;
        }
        stage.cluster.leave_maintenance(node)
    }

    /// Kills them, and forgets what was the matter with them before.
    fn end(&mut self, stage: &mut Stage, machines: &[Machine]) {
        stage.cluster.kill(machines);
        self.active.retain(|(_, broken)| match broken {
            Broken::Paused(machine) | Broken::Disk(machine) => !machines.contains(machine),
            _ => true,
        });
    }

    fn kill_several(&mut self, stage: &mut Stage) -> Result<()> {
        let mut machines = stage.cluster.machines();
        if stage.random.percent(50) {
            machines.truncate(2);
        }
        machines.retain(|machine| stage.cluster.process(*machine).is_on());
        self.end(stage, &machines);
        for machine in &machines {
            self.add(
                stage.random.duration(10, 5000),
                Broken::Off(*machine, false),
            );
        }
        let name = match machines.len() {
            0 | 1 => return Ok(()),
            2 => "kill two at once",
            _ => "kill all three at once",
        };
        self.note(name, "");
        Ok(())
    }

    fn cut_power(&mut self, stage: &mut Stage) -> Result<()> {
        let mut machines = stage.cluster.machines();
        let write_back = stage.cluster.settings.cache == Cache::WriteBack;
        if write_back {
            self.mend_all(stage)?;
            stage.wait_mirrored()?;
        }
        let most = if write_back { 1 } else { machines.len() };
        let count = [1, 1, 2, 3][stage.random.index(4)].min(most);
        while machines.len() > count {
            machines.remove(stage.random.index(machines.len()));
        }
        machines.retain(|machine| {
            let process = stage.cluster.process(*machine);
            // The cables of one that has been parted are not ours.
            process.is_on() && !process.is_paused()
        });
        if machines.is_empty()
            || self
                .active
                .iter()
                .any(|(_, it)| matches!(it, Broken::Cut { .. } | Broken::Disk(_)))
        {
            return Ok(());
        }
        let torn = stage.cluster.cut_power(&machines)?;
        let name = match machines.len() {
            1 if machines[0] == Machine::Witness => "power cut of the witness",
            1 => "power cut of one node",
            2 => "power cut of two at once",
            _ => "power cut of all three",
        };
        let names: Vec<Name> = machines.iter().map(|machine| machine.name()).collect();
        self.note(
            name,
            &format!(
                "{}: {} of {} unflushed sectors lost",
                names.join(" "),
                torn.lost,
                torn.unflushed
            ),
        );
        for machine in machines {
            self.add(stage.random.duration(10, 8000), Broken::Off(machine, true));
        }
        Ok(())
    }

    /// Nothing of this machine reaches anybody, and nobody reaches it.
    fn isolate(&mut self, stage: &mut Stage) -> Result<()> {
        let machines = stage.cluster.machines();
        let machine = machines[stage.random.index(machines.len())];
        if !Self::is_majority(stage) && !self.active.is_empty() {
            return Ok(());
        }
        let ends = Cable::ALL
            .into_iter()
            .filter(|cable| cable.reaches(machine))
            .flat_map(both)
            .collect();
        let name = if machine == Machine::Witness {
            "cut off the witness"
        } else {
            "cut off a node"
        };
        self.cut(stage, name, ends, machine != Machine::Witness)
    }

    /// One cable, in one direction or both.
    fn cut_cable(&mut self, stage: &mut Stage) -> Result<()> {
        let mut cables = Cable::ALL.to_vec();
        if !Self::is_majority(stage) {
            cables.truncate(4);
            if self
                .active
                .iter()
                .any(|(_, it)| matches!(it, Broken::Cut { .. } | Broken::Slow(_)))
            {
                return Ok(());
            }
        }
        let cable = cables[stage.random.index(cables.len())];
        let end = stage.random.index(3);
        if end == 2 {
            return self.cut(stage, "cut a cable both ways", both(cable).into(), false);
        }
        self.cut(stage, "cut a cable one way", vec![(cable, end)], false)
    }

    /// Everything between the two nodes, one way or both.
    fn part(&mut self, stage: &mut Stage) -> Result<()> {
        if !Self::is_majority(stage) {
            return Ok(());
        }
        let end = stage.random.index(3);
        let ends = [Cable::Sync, Cable::Heartbeat].into_iter().flat_map(both);
        let ends = ends.filter(|(_, it)| end == 2 || *it == end).collect();
        let name = if end == 2 {
            "part the nodes both ways"
        } else {
            "part the nodes one way"
        };
        self.cut(stage, name, ends, true)
    }

    /// Any directions of any cables.
    fn cut_any(&mut self, stage: &mut Stage) -> Result<()> {
        if !Self::is_majority(stage) {
            return Ok(());
        }
        let share = [20, 50][stage.random.index(2)];
        let ends = Cable::ALL.into_iter().flat_map(both);
        let ends = ends.filter(|_| stage.random.percent(share)).collect();
        self.cut(stage, "cut any directions", ends, true)
    }

    fn cut(
        &mut self,
        stage: &mut Stage,
        name: Name,
        ends: Vec<(Cable, usize)>,
        parted: bool,
    ) -> Result<()> {
        for (cable, end) in &ends {
            stage.cluster.network.set(*cable, *end, false)?;
        }
        // Often about as long as the silence at which the nodes decide.
        let time = match stage.random.percent(40) {
            true => Duration::from_millis(1600 + stage.random.below(1200)),
            false => stage.random.duration(100, 20_000),
        };
        self.note(name, &format!("{ends:?} for {time:?}"));
        self.add(time, Broken::Cut { ends, parted });
        Ok(())
    }

    fn slow_cable(&mut self, stage: &mut Stage) -> Result<()> {
        let cable = Cable::ALL[stage
            .random
            .index(if Self::is_majority(stage) { 6 } else { 4 })];
        if self
            .active
            .iter()
            .any(|(_, it)| matches!(it, Broken::Slow(_)))
        {
            return Ok(());
        }
        if !Self::is_majority(stage)
            && self
                .active
                .iter()
                .any(|(_, it)| matches!(it, Broken::Cut { .. }))
        {
            return Ok(());
        }
        let network = &stage.cluster.network;
        if network.can_delay() && stage.random.percent(50) {
            let ms = 1 + stage.random.below(150);
            let loss = stage.random.below(5);
            network.delay(cable, ms, loss)?;
            self.note(
                "delay a cable",
                &format!("{cable:?} by {ms} ms, {loss} % lost"),
            );
        } else {
            let kbit = 200 << stage.random.below(7);
            network.throttle(cable, kbit)?;
            self.note("throttle a cable", &format!("{cable:?} to {kbit} kbit/s"));
        }
        self.add(stage.random.duration(500, 15_000), Broken::Slow(cable));
        Ok(())
    }

    fn disk_fault(&mut self, stage: &mut Stage, name: Name, machine: Machine, fault: DiskFault) {
        let taken = self
            .active
            .iter()
            .any(|(_, it)| matches!(it, Broken::Disk(it) if *it == machine));
        if taken || !stage.cluster.process(machine).is_on() {
            return;
        }
        stage.cluster.disk(machine).set_fault(Some(fault));
        let time = stage.random.duration(200, 12_000);
        self.note(name, &format!("{} {fault:?} for {time:?}", machine.name()));
        self.add(time, Broken::Disk(machine));
    }

    fn slow_disk(&mut self, stage: &mut Stage) -> Result<()> {
        let machine = Machine::node(stage.random.index(2));
        let operation = any(
            &mut stage.random,
            &[None, Some(Operation::Write), Some(Operation::Flush)],
        );
        let fault = DiskFault {
            part: any(
                &mut stage.random,
                &[
                    None,
                    Some(Part::Image),
                    Some(Part::Metadata),
                    Some(Part::State),
                ],
            ),
            operation,
            effect: Effect::Delay(stage.random.duration(2, 400)),
        };
        self.disk_fault(stage, "slow disk", machine, fault);
        Ok(())
    }

    fn hang_disk(&mut self, stage: &mut Stage) -> Result<()> {
        let machine = Machine::node(stage.random.index(2));
        let fault = DiskFault {
            part: any(
                &mut stage.random,
                &[
                    None,
                    Some(Part::Image),
                    Some(Part::Metadata),
                    Some(Part::State),
                ],
            ),
            operation: any(&mut stage.random, &[None, Some(Operation::Flush)]),
            effect: Effect::Hang,
        };
        self.disk_fault(stage, "disk hangs", machine, fault);
        Ok(())
    }

    /// Its votes are gone: a machine that was installed anew.
    fn lose_witness(&mut self, stage: &mut Stage) -> Result<()> {
        let alone = self.active.iter().all(|(_, it)| {
            !matches!(
                it,
                Broken::Off(Machine::Witness, _)
                    | Broken::Paused(Machine::Witness)
                    | Broken::Disk(Machine::Witness)
            )
        });
        if !Self::is_majority(stage) || !alone || !stage.cluster.process(Machine::Witness).is_on() {
            return Ok(());
        }
        self.end(stage, &[Machine::Witness]);
        let state = stage.cluster.own(Machine::Witness).join("disk/state");
        match std::fs::remove_dir_all(&state) {
            // It was ended before it had made it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("the witness's {}", state.display()))?,
        }
        self.note("witness loses its votes", "");
        self.add(
            stage.random.duration(10, 5000),
            Broken::Off(Machine::Witness, false),
        );
        Ok(())
    }

    fn witness_disk(&mut self, stage: &mut Stage) -> Result<()> {
        if Self::is_majority(stage) {
            let effects = [
                Effect::Fail(Errno::IO),
                Effect::Fail(Errno::NOSPC),
                Effect::Hang,
            ];
            let fault = DiskFault {
                part: None,
                operation: any(
                    &mut stage.random,
                    &[Some(Operation::Write), Some(Operation::Flush)],
                ),
                effect: any(&mut stage.random, &effects),
            };
            self.disk_fault(
                stage,
                "witness's disk fails or hangs",
                Machine::Witness,
                fault,
            );
        }
        Ok(())
    }

    /// Mends what is due.
    fn mend(&mut self, stage: &mut Stage, now: Instant) -> Result<()> {
        while let Some(at) = self.active.iter().position(|(until, _)| *until <= now) {
            let (_, broken) = self.active.swap_remove(at);
            self.say(&format!("mended: {broken:?}"));
            match broken {
                Broken::Off(machine, cables) => {
                    if cables {
                        self.plug(stage, &machine_ends(machine))?;
                    }
                    stage.cluster.process(machine).start()?;
                }
                Broken::Paused(machine) => stage.cluster.process(machine).pause(false),
                Broken::Cut { ends, parted } => {
                    self.plug(stage, &ends)?;
                    if parted && !Self::is_majority(stage) {
                        self.meet(stage)?;
                    }
                }
                Broken::Slow(cable) => stage.cluster.network.full_speed(cable),
                Broken::Disk(machine) => stage.cluster.disk(machine).set_fault(None),
            }
        }
        Ok(())
    }

    /// Those that no other fault keeps cut.
    fn plug(&self, stage: &Stage, ends: &[(Cable, usize)]) -> Result<()> {
        let mut ends = ends.to_vec();
        // A network that initiators share with heartbeats comes back for both at once: first what is
        // between the nodes.
        ends.sort_by_key(|(cable, _)| !matches!(cable, Cable::Sync | Cable::Heartbeat));
        for end in ends {
            let kept = self.active.iter().any(|(_, broken)| match broken {
                Broken::Cut { ends, .. } => ends.contains(&end),
                Broken::Off(machine, true) => end.0.reaches(*machine),
                _ => false,
            });
            if !kept {
                stage.cluster.network.set(end.0, end.1, true)?;
            }
        }
        Ok(())
    }

    /// Two that were parted hear each other again before anything else happens.
    fn meet(&mut self, stage: &mut Stage) -> Result<()> {
        for node in 0..2 {
            stage
                .cluster
                .wait(node, "its partner after they were parted", MEET, |client| {
                    client.status().is_ok_and(|status| status.partner.up)
                })?;
        }
        // A report goes out every 500 ms, and what is decided on it is made durable.
        std::thread::sleep(Duration::from_secs(2));
        self.say("the nodes have met again");
        Ok(())
    }
}

fn both(cable: Cable) -> [(Cable, usize); 2] {
    [(cable, 0), (cable, 1)]
}

fn machine_ends(machine: Machine) -> Vec<(Cable, usize)> {
    Cable::ALL
        .into_iter()
        .filter(|cable| cable.reaches(machine))
        .flat_map(both)
        .collect()
}

fn any<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[random.index(choices.len())]
}
