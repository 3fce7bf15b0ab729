//! Cables that can be pulled: a network namespace of its own for one node, and pairs of virtual
//! interfaces between it and this one. Needs root.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// How the namespaces of these tests are called: this, the process, a number.
const PREFIX: &str = "lockstep-cable";
const PORT: u16 = 3260;

/// The only way to the node at its far end. Gone when it is dropped.
#[derive(Debug)]
pub struct Cable {
    /// The namespace at the far end.
    pub namespace: String,
    /// Data portals at the near end, where initiators are, and at the far end.
    pub portals: [SocketAddr; 2],
    cables: Cables,
}

impl Cable {
    /// A plugged cable.
    ///
    /// # Panics
    /// If the kernel does not let us make one: who is not root may not.
    pub fn new() -> Self {
        let mut cables = Cables::new();
        cables.add();
        Self::of(cables)
    }

    /// One with a switch on the way: when it is pulled there, both ends keep their carrier, and the
    /// kernels do not know.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn through_switch() -> Self {
        let mut cables = Cables::new();
        cables.add_through_switch(1500);
        Self::of(cables)
    }

    fn of(cables: Cables) -> Self {
        Self {
            namespace: cables.namespace.clone(),
            portals: cables.addresses(0, PORT),
            cables,
        }
    }

    /// Nothing passes any more; our end has lost its carrier.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn pull(&self) {
        self.cables.pull(0);
    }

    /// Everything passes again.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn plug(&self) {
        self.cables.plug(0);
    }
}

impl Default for Cable {
    fn default() -> Self {
        Self::new()
    }
}

/// Several cables to one node in a namespace of its own. Gone when it is dropped.
#[derive(Debug)]
pub struct Cables {
    /// The namespace at the far ends.
    pub namespace: String,
    all: Vec<Wire>,
}

#[derive(Debug)]
struct Wire {
    /// Interfaces at the near and at the far end.
    devices: [String; 2],
    addresses: [Ipv4Addr; 2],
    /// The namespace of the switch between them.
    switch: Option<String>,
}

/// The ports of a switch.
const PORTS: [&str; 2] = ["one", "two"];

impl Cables {
    /// A namespace without cables.
    ///
    /// # Panics
    /// If the kernel does not let us make one: who is not root may not.
    pub fn new() -> Self {
        clear_up();
        let namespace = format!("{PREFIX}-{}-{}", std::process::id(), next());
        ip(&["netns", "add", &namespace]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        Self {
            namespace,
            all: Vec::new(),
        }
    }

    /// One more, plugged.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn add(&mut self) {
        let wire = Wire::named();
        let [near, far] = &wire.devices;
        let space = &self.namespace;
        ip(&[
            "link", "add", near, "type", "veth", "peer", "name", far, "netns", space,
        ]);
        self.wired(wire);
    }

    /// One more, plugged, that leads through a switch whose ports have this MTU.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn add_through_switch(&mut self, mtu: u32) {
        let mut wire = Wire::named();
        let switch = format!("{PREFIX}-{}-{}", std::process::id(), next());
        ip(&["netns", "add", &switch]);
        let inside = |arguments: &[&str]| ip(&[&["-n", &switch], arguments].concat());
        inside(&["link", "add", "bridge", "type", "bridge"]);
        let [near, far] = &wire.devices;
        ip(&[
            "link", "add", near, "type", "veth", "peer", "name", PORTS[0], "netns", &switch,
        ]);
        let space = &self.namespace;
        ip(&[
            "-n", space, "link", "add", far, "type", "veth", "peer", "name", PORTS[1], "netns",
            &switch,
        ]);
        for port in PORTS {
            inside(&["link", "set", port, "mtu", &mtu.to_string()]);
            inside(&["link", "set", port, "master", "bridge"]);
            inside(&["link", "set", port, "up"]);
        }
        inside(&["link", "set", "bridge", "up"]);
        wire.switch = Some(switch);
        self.wired(wire);
    }

    fn wired(&mut self, wire: Wire) {
        let [near, far] = &wire.devices;
        let [ours, theirs] = wire.addresses.map(|it| format!("{it}/30"));
        let space = &self.namespace;
        ip(&["addr", "add", &ours, "dev", near]);
        ip(&["link", "set", near, "up"]);
        ip(&["-n", space, "addr", "add", &theirs, "dev", far]);
        ip(&["-n", space, "link", "set", far, "up"]);
        self.all.push(wire);
    }

    /// Addresses at the near and at the far end of one.
    pub fn addresses(&self, which: usize, port: u16) -> [SocketAddr; 2] {
        self.all[which]
            .addresses
            .map(|ip| SocketAddr::from((ip, port)))
    }

    /// Nothing passes over one any more: our end has lost its carrier, or if there is a switch, it
    /// was pulled out there.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn pull(&self, which: usize) {
        match &self.all[which].switch {
            Some(switch) => ip(&["-n", switch, "link", "set", PORTS[0], "nomaster"]),
            None => self.far(which, &["down"]),
        }
    }

    /// Everything passes again.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn plug(&self, which: usize) {
        match &self.all[which].switch {
            Some(switch) => ip(&["-n", switch, "link", "set", PORTS[0], "master", "bridge"]),
            None => self.far(which, &["up"]),
        }
    }

    /// Sets the MTU of both ends of one.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn set_mtu(&self, which: usize, near: u32, far: u32) {
        let device = &self.all[which].devices[0];
        ip(&["link", "set", device, "mtu", &near.to_string()]);
        self.far(which, &["mtu", &far.to_string()]);
    }

    fn far(&self, which: usize, what: &[&str]) {
        let device = &self.all[which].devices[1];
        ip(&[&["-n", &self.namespace, "link", "set", device], what].concat());
    }
}

impl Default for Cables {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        // All interfaces go with them. A test that fails must not fail once more here.
        let switches = self.all.iter().filter_map(|it| it.switch.as_ref());
        for space in switches.chain([&self.namespace]) {
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

impl Wire {
    fn named() -> Self {
        let (process, number) = (std::process::id(), next());
        let devices = ["n", "f"].map(|end| format!("ls{process}{end}{number}"));
        // Out of the range for measurements (RFC 2544), four addresses for each cable.
        let net =
            u32::from(Ipv4Addr::new(198, 18, 0, 0)) | (process * 32 + number % 32) << 2 & 0x1_ffff;
        Self {
            devices,
            addresses: [1, 2].map(|host| Ipv4Addr::from(net | host)),
            switch: None,
        }
    }
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Removes what tests left behind that were killed.
fn clear_up() {
    let Ok(spaces) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for space in spaces.flatten() {
        let name = space.file_name().to_string_lossy().into_owned();
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|it| it.split('-').nth(1));
        if process.is_some_and(|it| !Path::new("/proc").join(it).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip")
        .args(arguments)
        .output()
        .expect("`ip` is installed (iproute2)");
    assert!(
        done.status.success(),
        "ip {}: {} (these tests need root)",
        arguments.join(" "),
        String::from_utf8_lossy(&done.stderr).trim()
    );
}
