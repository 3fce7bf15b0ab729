//! Four machines and six cables: a network namespace for each node and the witness, this one for
//! initiators, and a pair of virtual interfaces for each cable. Any cable can be cut in one
//! direction or both, silently, or made slow.
//!
//! A direction is cut by pointing the sender's neighbour entry at a hardware address that nobody
//! has: its packets arrive and are dropped, and nobody is told. That needs no packet filter.

use anyhow::{Context, Result, bail};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

/// How our namespaces are called: this, the process, the machine.
const PREFIX: &str = "lockstep-faults";
/// Nobody has it.
const NOBODY: &str = "02:00:00:00:ff:ff";

/// Who has an end of a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// Node 1.
    One,
    /// Node 2.
    Two,
    /// The witness.
    Witness,
    /// Initiators: this process.
    Initiators,
}

impl Machine {
    /// Those that have a namespace.
    pub const SPACES: [Self; 3] = [Self::One, Self::Two, Self::Witness];

    /// Its name in files and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "node1",
            Self::Two => "node2",
            Self::Witness => "witness",
            Self::Initiators => "initiators",
        }
    }

    /// Index of what there is one of for each namespace.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Node 1 is 0.
    #[must_use]
    pub const fn node(number: usize) -> Self {
        [Self::One, Self::Two][number]
    }
}

/// What a cable is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cable {
    /// Initiators and node 1, or node 2.
    Front(usize),
    /// Blocks and heartbeats between the nodes.
    Sync,
    /// Heartbeats between the nodes.
    Heartbeat,
    /// Node 1, or node 2, and the witness.
    Vote(usize),
}

impl Cable {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Front(0),
        Self::Front(1),
        Self::Sync,
        Self::Heartbeat,
        Self::Vote(0),
        Self::Vote(1),
    ];

    /// Who has its two ends.
    #[must_use]
    pub const fn ends(self) -> [Machine; 2] {
        match self {
            Self::Front(node) => [Machine::Initiators, Machine::node(node)],
            Self::Sync | Self::Heartbeat => [Machine::One, Machine::Two],
            Self::Vote(node) => [Machine::node(node), Machine::Witness],
        }
    }

    /// Whether that machine has an end of it.
    #[must_use]
    pub fn reaches(self, machine: Machine) -> bool {
        self.ends().contains(&machine)
    }

    const fn number(self) -> u8 {
        match self {
            Self::Front(0) => 0,
            Self::Front(_) => 1,
            Self::Sync => 2,
            Self::Heartbeat => 3,
            Self::Vote(0) => 4,
            Self::Vote(_) => 5,
        }
    }
}

/// See the module. Gone when it is dropped.
#[derive(Debug)]
pub struct Network {
    process: u32,
    base: u32,
    /// Whether the kernel can delay packets by themselves.
    netem: bool,
}

impl Network {
    /// Namespaces and cables, everything plugged.
    ///
    /// # Errors
    /// The kernel does not let us make them, or `ip` is not installed.
    pub fn new() -> Result<Self> {
        let process = std::process::id();
        // Among the addresses for measurements (RFC 2544), 32 for each process.
        let base = u32::from(Ipv4Addr::new(198, 19, 0, 0)) | (process << 5 & 0xffff);
        let mut network = Self {
            process,
            base,
            netem: false,
        };
        for machine in Machine::SPACES {
            let space = network.space(machine).expect("it has one");
            ip(&format!("netns add {space}"))
                .context("cannot make a network namespace: these tests need root (in a container: --privileged)")?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        for cable in Cable::ALL {
            network.lay(cable)?;
        }
        let witness = network.witness();
        network.ip_at(Machine::Witness, &format!("addr add {witness}/32 dev lo"))?;
        for node in 0..2 {
            let interface = network.interface(Cable::Vote(node), 0);
            let route = format!("route add {witness} dev {interface}");
            network.ip_at(Machine::node(node), &route)?;
        }
        network.heal()?;
        let interface = network.interface(Cable::Sync, 0);
        let netem = format!("qdisc add dev {interface} root netem delay 1ms");
        network.netem = network.tc_at(Machine::One, &netem).is_ok();
        network.full_speed(Cable::Sync);
        Ok(network)
    }

    /// The namespace of a machine; `None`: this one.
    #[must_use]
    pub fn space(&self, machine: Machine) -> Option<String> {
        (machine != Machine::Initiators)
            .then(|| format!("{PREFIX}-{}-{}", self.process, machine.name()))
    }

    /// The address at an end (0 or 1) of a cable.
    #[must_use]
    pub fn address(&self, cable: Cable, end: usize) -> Ipv4Addr {
        let host = 4 * u32::from(cable.number()) + 1 + u32::try_from(end).unwrap_or(1);
        Ipv4Addr::from(self.base + host)
    }

    /// Where both nodes reach the witness.
    #[must_use]
    pub fn witness(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 30)
    }

    /// Whether packets can be delayed; else they can only be made to queue.
    #[must_use]
    pub const fn can_delay(&self) -> bool {
        self.netem
    }

    fn interface(&self, cable: Cable, end: usize) -> String {
        format!("lf{}{}{}", self.process, ['a', 'b'][end], cable.number())
    }

    fn lay(&self, cable: Cable) -> Result<()> {
        let ends = cable.ends();
        let [near, far] = [0, 1].map(|end| self.interface(cable, end));
        let [near_mac, far_mac] = [0, 1].map(|end| mac(cable, end));
        let far_space = self.space(ends[1]).expect("the far end is never here");
        ip(&format!(
            "link add {near} address {near_mac} type veth peer name {far} address {far_mac} netns {far_space}"
        ))
        .context("cannot make a pair of virtual interfaces: the kernel needs veth")?;
        if let Some(space) = self.space(ends[0]) {
            ip(&format!("link set {near} netns {space}"))?;
        }
        for (end, interface) in [near, far].iter().enumerate() {
            let address = self.address(cable, end);
            self.ip_at(ends[end], &format!("addr add {address}/30 dev {interface}"))?;
            self.ip_at(ends[end], &format!("link set {interface} up"))?;
        }
        Ok(())
    }

    /// Lets the packets that leave this end of a cable arrive, or not.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn set(&self, cable: Cable, end: usize, open: bool) -> Result<()> {
        let interface = self.interface(cable, end);
        let lladdr = if open {
            mac(cable, 1 - end)
        } else {
            NOBODY.into()
        };
        let mut peers = vec![self.address(cable, 1 - end)];
        if matches!(cable, Cable::Vote(_)) && end == 0 {
            peers.push(self.witness());
        }
        for peer in peers {
            let entry =
                format!("neigh replace {peer} lladdr {lladdr} dev {interface} nud permanent");
            self.ip_at(cable.ends()[end], &entry)?;
        }
        Ok(())
    }

    /// Cuts or mends both directions of a cable.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn set_both(&self, cable: Cable, open: bool) -> Result<()> {
        self.set(cable, 0, open)?;
        self.set(cable, 1, open)
    }

    /// Cuts or mends all cables of a machine.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn set_machine(&self, machine: Machine, open: bool) -> Result<()> {
        for cable in Cable::ALL.into_iter().filter(|it| it.reaches(machine)) {
            self.set_both(cable, open)?;
        }
        Ok(())
    }

    /// Everything passes, at full speed.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn heal(&self) -> Result<()> {
        for cable in Cable::ALL {
            self.set_both(cable, true)?;
            self.full_speed(cable);
        }
        Ok(())
    }

    /// At most so many kilobits a second in each direction; what is more queues for up to 400 ms.
    ///
    /// # Errors
    /// The kernel has no token bucket filter.
    pub fn throttle(&self, cable: Cable, kbit: u64) -> Result<()> {
        self.shape(
            cable,
            &format!("tbf rate {kbit}kbit burst 32kb latency 400ms"),
        )
        .context("cannot make a cable slow: the kernel needs the queueing discipline tbf (sch_tbf)")
    }

    /// Packets take so much longer, and some are lost; see [`Self::can_delay`].
    ///
    /// # Errors
    /// The kernel has no netem.
    pub fn delay(&self, cable: Cable, ms: u64, loss_percent: u64) -> Result<()> {
        self.shape(
            cable,
            &format!("netem delay {ms}ms {}ms loss {loss_percent}%", ms / 4),
        )
    }

    fn shape(&self, cable: Cable, how: &str) -> Result<()> {
        for (end, machine) in cable.ends().into_iter().enumerate() {
            let interface = self.interface(cable, end);
            self.tc_at(
                machine,
                &format!("qdisc replace dev {interface} root {how}"),
            )?;
        }
        Ok(())
    }

    /// As fast as it goes.
    pub fn full_speed(&self, cable: Cable) {
        for (end, machine) in cable.ends().into_iter().enumerate() {
            let interface = self.interface(cable, end);
            // Fails where nothing was slow.
            let _removed = self.tc_at(machine, &format!("qdisc del dev {interface} root"));
        }
    }

    fn ip_at(&self, machine: Machine, arguments: &str) -> Result<()> {
        match self.space(machine) {
            Some(space) => ip(&format!("-n {space} {arguments}")),
            None => ip(arguments),
        }
    }

    fn tc_at(&self, machine: Machine, arguments: &str) -> Result<()> {
        match self.space(machine) {
            Some(space) => run("tc", &format!("-n {space} {arguments}")),
            None => run("tc", arguments),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in Machine::SPACES {
            let space = self.space(machine).expect("it has one");
            // The interfaces go with the namespaces.
            let _removed = ip(&format!("netns del {space}"));
        }
    }
}

/// The hardware address at an end of a cable.
fn mac(cable: Cable, end: usize) -> String {
    format!("02:00:00:00:{:02x}:{end:02x}", cable.number())
}

/// Removes the namespaces of runs that were killed, and ends what still runs in them.
pub fn clear_up() {
    let Ok(spaces) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for space in spaces.flatten() {
        let name = space.file_name().to_string_lossy().into_owned();
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|it| it.split('-').nth(1));
        if process.is_some_and(|it| !Path::new("/proc").join(it).exists()) {
            let pids = Command::new("ip").args(["netns", "pids", &name]).output();
            for pid in pids
                .iter()
                .flat_map(|it| std::str::from_utf8(&it.stdout))
                .flat_map(str::lines)
            {
                let _killed = Command::new("kill").args(["-9", pid]).status();
            }
            let _removed = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &str) -> Result<()> {
    let done = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .with_context(|| format!("`{program}` is missing: apt-get install iproute2"))?;
    if !done.status.success() {
        bail!(
            "{program} {arguments}: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(())
}
