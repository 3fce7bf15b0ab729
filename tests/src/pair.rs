//! Two daemons and a mirrored volume, in a directory and on addresses of their own.

use crate::cable::Cable;
use crate::node::{Node, START_LIMIT, free_addresses};
use crate::temporary::Directory;
use crate::{INITIATOR, LUN, VOLUME};
use lockstep_api::quantity::Size;
use lockstep_api::volume::{CreateVolume, Volume};
use lockstep_initiator::client::{Client, ClientError};
use lockstep_initiator::core::session::{Parameters, Purpose};
use lockstep_initiator::driver::PathSettings;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// A small copy or comparison is done within this, on a busy machine too.
pub const RESYNC_LIMIT: Duration = Duration::from_secs(180);
/// Size of the volume unless a test says otherwise.
pub const SIZE: u64 = 64 << 20;

/// See the module. Everything ends and goes when it is dropped.
#[derive(Debug)]
pub struct Pair {
    /// Node 1 and node 2.
    pub nodes: [Node; 2],
    /// Where everything lies.
    pub directory: Directory,
    /// The iSCSI name of [`VOLUME`]; empty before there is one.
    pub target: String,
}

impl Pair {
    /// Writes the configuration of both; starts nothing.
    ///
    /// # Panics
    /// If the directory can't be written.
    pub fn prepare(name: &str) -> Self {
        Self::at(name, free_addresses())
    }

    /// As [`Self::prepare`], with these data portals.
    ///
    /// # Panics
    /// If the directory can't be written.
    pub fn at(name: &str, portals: [SocketAddr; 2]) -> Self {
        let directory = Directory::new(name);
        let nodes = [1, 2].map(|number: u8| {
            let secret = directory.path().join(format!("secret{number}"));
            write_secret(&secret, "the same secret for both nodes");
            let [mine, theirs] = if number == 1 {
                portals
            } else {
                [portals[1], portals[0]]
            };
            Node::prepare(directory.path(), number, mine, Some((theirs, &secret)))
        });
        Self {
            nodes,
            directory,
            target: String::new(),
        }
    }

    /// Two nodes that know each other.
    ///
    /// # Panics
    /// If they do not find each other.
    pub fn start(name: &str) -> Self {
        Self::prepare(name).started()
    }

    /// With a mirrored volume, and one node (0 or 1) at the far end of a cable.
    ///
    /// # Panics
    /// If it is not mirrored in time.
    pub fn over(cable: &Cable, far: usize) -> Self {
        let mut portals = cable.portals;
        if far == 0 {
            portals.reverse();
        }
        let mut pair = Self::at(&cable.namespace, portals);
        pair.nodes[far].namespace = Some(cable.namespace.clone());
        let mut pair = pair.started();
        pair.create(&CreateVolume {
            size: Size(SIZE),
            ..CreateVolume::default()
        });
        pair
    }

    /// Starts both, which find each other.
    ///
    /// # Panics
    /// If they do not.
    pub fn started(self) -> Self {
        let mut pair = self;
        for node in &mut pair.nodes {
            node.start();
        }
        for node in &mut pair.nodes {
            node.wait_for("its partner", START_LIMIT, |node| {
                node.client().status().is_ok_and(|status| status.partner.up)
            });
            // Each node enters itself, once; discovery tells of both from then on.
            node.wait_for("both nodes in the pool", START_LIMIT, |node| {
                node.client()
                    .config()
                    .is_ok_and(|pool| pool.nodes.len() == 2)
            });
        }
        pair
    }

    /// With the volume [`VOLUME`] of [`SIZE`] bytes.
    ///
    /// # Panics
    /// If it is not mirrored in time.
    pub fn with_volume(name: &str) -> Self {
        Self::with(
            name,
            &CreateVolume {
                size: Size(SIZE),
                ..CreateVolume::default()
            },
        )
    }

    /// With a volume like this (its name does not matter).
    ///
    /// # Panics
    /// If it is not mirrored in time.
    pub fn with(name: &str, volume: &CreateVolume) -> Self {
        let mut pair = Self::start(name);
        pair.create(volume);
        pair
    }

    /// Makes the volume on a running pair.
    ///
    /// # Panics
    /// If it is not mirrored in time.
    pub fn create(&mut self, volume: &CreateVolume) {
        let request = CreateVolume {
            name: VOLUME.into(),
            ..volume.clone()
        };
        self.nodes[0]
            .client()
            .create_volume(&request)
            .expect("a volume can be created");
        self.wait_mirrored();
        self.target = self.nodes[0]
            .volume(VOLUME)
            .expect("it was just there")
            .target;
    }

    /// Waits until both nodes hold everything and serve.
    ///
    /// # Panics
    /// If they do not in time.
    pub fn wait_mirrored(&mut self) {
        for node in &mut self.nodes {
            node.wait_for("a mirrored volume", RESYNC_LIMIT, |node| {
                node.volume(VOLUME).is_ok_and(|volume| is_mirrored(&volume))
            });
        }
    }

    /// How to log in to the volume.
    pub fn parameters(&self) -> Parameters {
        let purpose = Purpose::Normal {
            target: self.target.clone(),
        };
        // Not one of those that `paths` uses: a login with the same ISID ends the other session.
        Parameters {
            isid: [0x80, 0, 0, 0, 0, 0x77],
            ..Parameters::new(INITIATOR, purpose)
        }
    }

    /// Both paths, as a multipath initiator has them.
    pub fn paths(&self) -> Vec<PathSettings> {
        let path = |node: &Node| PathSettings {
            address: node.portal,
            parameters: Parameters {
                isid: [0x80, 0, 0, 0, 0, node.number],
                ..self.parameters()
            },
        };
        self.nodes.iter().map(path).collect()
    }

    /// A session through one node (0 or 1).
    ///
    /// # Errors
    /// No connection or no login.
    pub fn login(&self, node: usize) -> Result<Client, ClientError> {
        Client::login(self.nodes[node].portal, self.parameters())
    }

    /// The volume's URL for foreign initiators, through one node (0 or 1).
    pub fn url(&self, node: usize) -> String {
        format!("iscsi://{}/{}/{LUN}", self.nodes[node].portal, self.target)
    }

    /// The image of one node (0 or 1).
    ///
    /// # Panics
    /// If that node does not answer.
    pub fn image(&self, node: usize) -> PathBuf {
        let volume = self.nodes[node].volume(VOLUME).expect("the node answers");
        let replica = volume
            .replicas
            .iter()
            .find(|replica| usize::from(replica.node) == node + 1);
        PathBuf::from(&replica.expect("each node has a copy").image)
    }
}

/// Both nodes hold every acknowledged write, and this one serves.
pub fn is_mirrored(volume: &Volume) -> bool {
    volume.members.len() == 2 && volume.state == "serving"
}

/// Writes a secret that only this user may read.
///
/// # Panics
/// If it can't be written.
pub fn write_secret(path: &std::path::Path, secret: &str) {
    std::fs::write(path, secret).expect("the test's directory can be written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
}
