//! A cable that can be pulled: a network namespace of its own for one node, and a pair of virtual
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
    far: String,
}

impl Cable {
    /// A plugged cable.
    ///
    /// # Panics
    /// If the kernel does not let us make one: who is not root may not.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        clear_up();
        let process = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{PREFIX}-{process}-{number}");
        let [near, far] = ["n", "f"].map(|end| format!("ls{process}{end}{number}"));
        // Out of the range for measurements (RFC 2544), four addresses for each cable.
        let net =
            u32::from(Ipv4Addr::new(198, 18, 0, 0)) | (process * 8 + number % 8) << 2 & 0x1_ffff;
        let [ours, theirs] = [1, 2].map(|host| Ipv4Addr::from(net | host));
        let cable = Self {
            namespace,
            portals: [ours, theirs].map(|ip| SocketAddr::from((ip, PORT))),
            far,
        };
        let (space, far) = (cable.namespace.as_str(), cable.far.as_str());
        ip(&["netns", "add", space]);
        ip(&[
            "link", "add", &near, "type", "veth", "peer", "name", far, "netns", space,
        ]);
        ip(&["addr", "add", &format!("{ours}/30"), "dev", &near]);
        ip(&["link", "set", &near, "up"]);
        ip(&[
            "-n",
            space,
            "addr",
            "add",
            &format!("{theirs}/30"),
            "dev",
            far,
        ]);
        ip(&["-n", space, "link", "set", "lo", "up"]);
        cable.plug();
        cable
    }

    /// Nothing passes any more; our end has lost its carrier.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn pull(&self) {
        ip(&["-n", &self.namespace, "link", "set", &self.far, "down"]);
    }

    /// Everything passes again.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn plug(&self) {
        ip(&["-n", &self.namespace, "link", "set", &self.far, "up"]);
    }
}

impl Default for Cable {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // Both interfaces go with it. A test that fails must not fail once more here.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.namespace])
            .status();
    }
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
