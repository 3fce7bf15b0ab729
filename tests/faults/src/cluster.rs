//! Two nodes and a witness on their networks and disks, and the volume that they serve.

use crate::disk::{self, Disk};
use crate::network::{self, Cable, Machine, Network};
use crate::process::Process;
use crate::store::Torn;
use anyhow::{Context, Result, bail};
use lockstep_api::Client;
use lockstep_api::node::{EnterMaintenance, MaintenanceState};
use lockstep_api::pool::SetWitness;
use lockstep_api::quantity::Size;
use lockstep_api::volume::{Cache, CreateVolume, ReplicaAt, Strategy, Volume};
use lockstep_initiator::core::session::{Parameters, Purpose};
use lockstep_initiator::driver::PathSettings;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The name of the volume.
pub const VOLUME: &str = "disk";
/// Its image on each node's disk.
pub const IMAGE: &str = "images/disk.img";
/// A daemon answers within this after it was started, and finds its partner.
const START: Duration = Duration::from_secs(60);
/// A fatal signal reaches all threads of a process within this.
const SIGNAL: Duration = Duration::from_millis(50);
const PORT: u16 = 3260;
const SYNC_PORT: u16 = 7400;
const WITNESS_PORT: u16 = 7410;
const UUID: &str = "0b6d3f52-9d0e-4c1b-8f6e-3a57c2e41d90";
const PAIR_SECRET: &str = "the same secret for both nodes";
const WITNESS_SECRET: &str = "of the pair and its witness";

/// What is served.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Who decides when the nodes do not see each other; majority has a witness.
    pub strategy: Strategy,
    /// When a write is answered.
    pub cache: Cache,
    /// Bytes.
    pub size: u64,
}

impl Settings {
    /// Sectors of a logical block. Past the page cache they are large: the disks of these tests take
    /// direct I/O by pages only.
    #[must_use]
    pub const fn unit(&self) -> u64 {
        match self.cache {
            Cache::None => 8,
            Cache::WriteThrough | Cache::WriteBack => 1,
        }
    }
}

/// See the module. Everything ends and goes when it is dropped, but for the directory.
pub struct Cluster {
    // Dropped in this order: who uses a disk or a network goes before it.
    processes: [Process; 3],
    disks: [Disk; 3],
    /// The cables.
    pub network: Network,
    /// Logs, configurations and what the disks hold.
    pub directory: PathBuf,
    /// What is served.
    pub settings: Settings,
    target: String,
}

impl Cluster {
    /// Both nodes (and the witness) up, and the volume mirrored.
    ///
    /// # Errors
    /// The machine lacks something, or they do not come up.
    pub fn start(directory: &Path, seed: u64, settings: Settings) -> Result<Self> {
        network::clear_up();
        disk::clear_up();
        let network = Network::new()?;
        let make_disk = |machine: Machine| -> Result<Disk> {
            let own = directory.join(machine.name());
            Disk::new(
                machine.name(),
                &own.join("disk"),
                &own.join("flushed"),
                seed + machine.index() as u64,
            )
        };
        let disks = [
            make_disk(Machine::One)?,
            make_disk(Machine::Two)?,
            make_disk(Machine::Witness)?,
        ];
        let processes = Machine::SPACES.map(|machine| {
            let own = directory.join(machine.name());
            let verb = if machine == Machine::Witness {
                "witness"
            } else {
                "daemon"
            };
            let config = own.join("config.toml").display().to_string();
            let space = network.space(machine).unwrap_or_default();
            Process::new(
                space,
                vec![verb.into(), "--config".into(), config],
                own.join("log"),
            )
        });
        let mut cluster = Self {
            processes,
            disks,
            network,
            directory: directory.into(),
            settings,
            target: String::new(),
        };
        cluster.configure()?;
        for machine in cluster.machines() {
            cluster.process(machine).start()?;
        }
        cluster.introduce()?;
        Ok(cluster)
    }

    /// Those that run: without a witness in heartbeat mode.
    #[must_use]
    pub fn machines(&self) -> Vec<Machine> {
        let mut machines = Machine::SPACES.to_vec();
        if self.settings.strategy == Strategy::Heartbeat {
            machines.pop();
        }
        machines
    }

    fn configure(&self) -> Result<()> {
        for node in 0..2 {
            let own = self.own(Machine::node(node));
            let disk = own.join("disk");
            for part in ["state", "images"] {
                std::fs::create_dir(disk.join(part)).context("on a new disk")?;
            }
            std::fs::File::open(&disk)?
                .sync_all()
                .context("on a new disk")?;
            write_secret(&own.join("secret"), PAIR_SECRET)?;
            let ours = |cable| self.network.address(cable, node);
            let theirs = |cable| self.network.address(cable, 1 - node);
            let text = format!(
                "[cluster]\nuuid = \"{UUID}\"\nname = \"faults\"\n\n\
                 [node]\nnumber = {number}\nname = \"node{number}\"\nstate_directory = \"{disk}/state\"\n\n\
                 [admin]\nsocket = \"{own}/admin.sock\"\nmetrics = \"\"\n\n\
                 [portals]\ndata = [\"{portal}\"]\n\n\
                 [storage]\ndirectories = [\"{disk}/images\"]\n\n\
                 [engine]\npool_memory = \"64MiB\"\n\n\
                 [partner]\nsync_local = [\"{sync}:{SYNC_PORT}\"]\nsync_remote = [\"{remote}:{SYNC_PORT}\"]\n\
                 heartbeat_local = [\"{beat}:{beat_port}\"]\nheartbeat_remote = [\"{beat_remote}:{beat_port}\"]\n\
                 secret_file = \"{own}/secret\"\n",
                number = node + 1,
                disk = disk.display(),
                own = own.display(),
                portal = self.portal(node),
                sync = ours(Cable::Sync),
                remote = theirs(Cable::Sync),
                beat = ours(Cable::Heartbeat),
                beat_remote = theirs(Cable::Heartbeat),
                beat_port = SYNC_PORT + 2,
            );
            std::fs::write(own.join("config.toml"), text)?;
        }
        let own = self.own(Machine::Witness);
        write_secret(&own.join("secret"), WITNESS_SECRET)?;
        let text = format!(
            "listen = [\"{}\"]\nstate_directory = \"{own}/disk/state\"\n\n[[pair]]\n\
             cluster = \"{UUID}\"\nsecret_file = \"{own}/secret\"\n",
            self.witness_address(),
            own = own.display(),
        );
        std::fs::write(own.join("config.toml"), text)?;
        Ok(())
    }

    /// The directory of a machine.
    #[must_use]
    pub fn own(&self, machine: Machine) -> PathBuf {
        self.directory.join(machine.name())
    }

    fn portal(&self, node: usize) -> SocketAddr {
        (self.network.address(Cable::Front(node), 1), PORT).into()
    }

    fn witness_address(&self) -> SocketAddr {
        (self.network.witness(), WITNESS_PORT).into()
    }

    /// The nodes find each other and the witness, and the volume is made.
    fn introduce(&mut self) -> Result<()> {
        for node in 0..2 {
            self.wait(node, "its partner", START, |client| {
                let both = client.config().is_ok_and(|pool| pool.nodes.len() == 2);
                both && client.status().is_ok_and(|status| status.partner.up)
            })?;
        }
        if self.settings.strategy == Strategy::Majority {
            let witness = SetWitness {
                address: self.witness_address().to_string(),
                secret: WITNESS_SECRET.into(),
            };
            self.client(0).set_witness(&witness)?;
            for node in 0..2 {
                self.wait(node, "the witness", START, |client| {
                    let witness = client.status().ok().and_then(|status| status.witness);
                    witness.is_some_and(|witness| witness.admitted)
                })?;
            }
        }
        self.create()
    }

    /// Makes the volume and waits until both nodes hold and serve it.
    ///
    /// # Errors
    /// They do not in time.
    pub fn create(&mut self) -> Result<()> {
        let Settings {
            strategy,
            cache,
            size,
        } = self.settings;
        let block_size = u32::try_from(self.settings.unit() * 512).ok();
        let request = CreateVolume {
            name: VOLUME.into(),
            size: Size(size),
            block_size,
            strategy,
            cache,
            ..CreateVolume::default()
        };
        self.client(0).create_volume(&request)?;
        self.wait_mirrored(START)?;
        self.target = self.client(0).volume(VOLUME)?.target;
        Ok(())
    }

    /// Waits until both nodes hold everything and serve; how long it took.
    ///
    /// # Errors
    /// They do not in time.
    pub fn wait_mirrored(&mut self, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        for node in [0, 1, 0] {
            let left = limit.saturating_sub(begun.elapsed());
            self.wait(node, "a mirrored volume", left, |client| {
                client
                    .volume(VOLUME)
                    .is_ok_and(|volume| is_mirrored(&volume))
            })?;
        }
        Ok(begun.elapsed())
    }

    /// Whether both nodes hold everything and serve.
    #[must_use]
    pub fn is_mirrored(&mut self) -> bool {
        (0..2).all(|node| {
            let process = self.process(Machine::node(node));
            process.is_on()
                && !process.is_paused()
                && self
                    .client(node)
                    .volume(VOLUME)
                    .is_ok_and(|it| is_mirrored(&it))
        })
    }

    /// What the supervisor of a daemon that has ended does; what it said.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn certify(&mut self, machine: Machine) -> Result<String> {
        let config = self.own(machine).join("config.toml").display().to_string();
        let output = self
            .process(machine)
            .run(&["certificate", "--config", &config])?;
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok(said.lines().next().unwrap_or_default().into())
    }

    /// A node (0 or 1) serves nobody when this returns; `false`: it gave that up, for its partner
    /// could not take over after all.
    ///
    /// # Errors
    /// It is refused, or takes too long.
    pub fn enter_maintenance(&mut self, node: usize) -> Result<bool> {
        self.client(node)
            .enter_maintenance(&EnterMaintenance::default())?;
        let mut begun = false;
        self.wait(node, "the begin of its maintenance", START, |client| {
            client.status().is_ok_and(|status| {
                begun = status.maintenance == MaintenanceState::On;
                status.maintenance != MaintenanceState::Entering
            })
        })?;
        Ok(begun)
    }

    /// A node (0 or 1) serves again as soon as it may.
    ///
    /// # Errors
    /// It does not answer.
    pub fn leave_maintenance(&mut self, node: usize) -> Result<()> {
        self.wait(node, "its admin socket", START, |client| {
            client.status().is_ok()
        })?;
        self.client(node).leave_maintenance("")?;
        Ok(())
    }

    /// The copy of a node (0 or 1) whose disk failed is replaced: what is there is compared.
    ///
    /// # Errors
    /// It is refused.
    pub fn replace_replica(&self, node: usize) -> Result<()> {
        let at = ReplicaAt {
            confirm: VOLUME.into(),
            ..ReplicaAt::default()
        };
        self.client(node).replace_replica(VOLUME, &at)?;
        Ok(())
    }

    /// Waits until something holds of a node (0 or 1).
    ///
    /// # Errors
    /// It does not in time, or a process ended by itself.
    pub fn wait(
        &mut self,
        node: usize,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Client) -> bool,
    ) -> Result<()> {
        let begun = Instant::now();
        let client = self.client(node);
        while !holds(&client) {
            self.watch_processes()?;
            if begun.elapsed() > limit {
                let said = self.client(node).status();
                bail!(
                    "node{} waited {limit:?} for {what}; its status: {said:#?}",
                    node + 1
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Nobody ends who was not told to.
    ///
    /// # Errors
    /// Somebody did.
    pub fn watch_processes(&mut self) -> Result<()> {
        for machine in Machine::SPACES {
            if let Some(status) = self.process(machine).ended()? {
                let log = self.own(machine).join("log");
                bail!(
                    "the daemon of {} ended by itself with {status}; log: {}",
                    machine.name(),
                    log.display()
                );
            }
        }
        Ok(())
    }

    /// The daemon of a machine.
    pub const fn process(&mut self, machine: Machine) -> &mut Process {
        &mut self.processes[machine.index()]
    }

    /// The disk of a machine.
    #[must_use]
    pub const fn disk(&self, machine: Machine) -> &Disk {
        &self.disks[machine.index()]
    }

    /// The admin API of a node (0 or 1).
    #[must_use]
    pub fn client(&self, node: usize) -> Client {
        Client::new(self.own(Machine::node(node)).join("admin.sock"))
    }

    /// The power of these machines is cut, and it is as if their cables were pulled. They stay off
    /// until [`Process::start`], and their cables cut until they are set.
    ///
    /// # Errors
    /// A disk's backing directory fails.
    pub fn cut_power(&mut self, machines: &[Machine]) -> Result<Torn> {
        for machine in machines {
            self.disk(*machine).switch_off();
        }
        for machine in machines {
            self.process(*machine).kill_soon();
        }
        for machine in machines {
            self.network.set_machine(*machine, false)?;
        }
        // The signal reaches every thread before an answer of the disk does; and what the dead asked
        // of their disks must be answered, or they do not go.
        std::thread::sleep(SIGNAL);
        let mut all = Torn::default();
        for machine in machines {
            self.disk(*machine).forget_user();
            self.process(*machine).kill();
            let torn = self.disk(*machine).switch_on()?;
            all.unflushed += torn.unflushed;
            all.lost += torn.lost;
        }
        Ok(all)
    }

    /// SIGKILL for these at once; gone when this returns. A disk that hangs goes on, for what was
    /// asked of it keeps the dead from going.
    pub fn kill(&mut self, machines: &[Machine]) {
        for machine in machines {
            self.process(*machine).kill_soon();
        }
        std::thread::sleep(SIGNAL);
        for machine in machines {
            self.disk(*machine).set_fault(None);
            self.process(*machine).kill();
        }
    }

    /// How to log in: `client` must differ between sessions that live at the same time.
    #[must_use]
    pub fn path(&self, node: usize, client: u8) -> PathSettings {
        let purpose = Purpose::Normal {
            target: self.target.clone(),
        };
        let number = u8::try_from(node + 1).unwrap_or(1);
        PathSettings {
            address: self.portal(node),
            parameters: Parameters {
                isid: [0x80, 0, 0, 0, client, number],
                ..Parameters::new(&format!("iqn.2026-11.faults:client{client}"), purpose)
            },
        }
    }

    /// Both paths.
    #[must_use]
    pub fn paths(&self, client: u8) -> Vec<PathSettings> {
        vec![self.path(0, client), self.path(1, client)]
    }

    /// What a node's disk holds of the volume, read past its daemon.
    ///
    /// # Errors
    /// There is no image.
    pub fn image(&self, node: usize) -> Result<Vec<u8>> {
        self.disk(Machine::node(node)).contents(IMAGE)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill(&Machine::SPACES);
    }
}

/// Both nodes hold every acknowledged write, and this one serves.
#[must_use]
pub fn is_mirrored(volume: &Volume) -> bool {
    volume.members.len() == 2 && volume.state == "serving"
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    std::fs::write(path, secret)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}
