//! A real witness for a pair.

use crate::node::START_LIMIT;
use crate::pair::{Pair, write_secret};
use crate::program;
use lockstep_api::pool::SetWitness;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Counted from the data portal of node 1, above the ports of nodes.
const PORT: u16 = 100;
/// What the pair and its witness share.
pub const SECRET: &str = "of the pair and its witness";

/// A witness and, while it runs, its process. Killed when dropped.
#[derive(Debug)]
pub struct Witness {
    /// Where nodes reach it.
    pub address: SocketAddr,
    /// Its configuration, state and log.
    pub directory: PathBuf,
    child: Option<Child>,
}

impl Witness {
    /// Writes the configuration of a witness for that pair; starts nothing.
    ///
    /// # Panics
    /// If the directory can't be written.
    pub fn prepare(pair: &Pair) -> Self {
        let portal = pair.nodes[0].portal;
        let address = SocketAddr::new(portal.ip(), portal.port() + PORT);
        let directory = pair.directory.path().join("witness");
        std::fs::create_dir_all(&directory).expect("the test's directory can be written");
        let secret = directory.join("secret");
        write_secret(&secret, SECRET);
        let config = format!(
            "listen = [\"{address}\"]\nstate_directory = \"{}\"\n\n[[pair]]\n\
             cluster = \"6f0e4a1c-27f5-4d0b-9a36-0c1f5b7e9d42\"\nsecret_file = \"{}\"\n",
            directory.join("state").display(),
            secret.display()
        );
        std::fs::write(directory.join("witness.toml"), config).expect("it can be written");
        Self {
            address,
            directory,
            child: None,
        }
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it can't be started, or runs already.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .expect("the test's directory can be written");
        let mut command = Command::new(program::lockstep());
        command
            .args(["witness", "--config"])
            .arg(self.directory.join("witness.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the program can be started"));
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Forgets all votes: the state of a machine that was installed anew.
    ///
    /// # Panics
    /// If it runs.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "only a stopped one");
        std::fs::remove_dir_all(self.directory.join("state")).expect("it was there");
    }

    /// Tells the pair of it, and waits until both nodes count its vote.
    ///
    /// # Panics
    /// If they do not in time.
    pub fn introduce(&self, pair: &mut Pair) {
        let witness = SetWitness {
            address: self.address.to_string(),
            secret: SECRET.into(),
        };
        pair.nodes[1]
            .client()
            .set_witness(&witness)
            .expect("both nodes are up");
        self.wait_admitted(pair);
    }

    /// Waits until both nodes count its vote.
    ///
    /// # Panics
    /// If they do not in time.
    pub fn wait_admitted(&self, pair: &mut Pair) {
        for node in &mut pair.nodes {
            node.wait_for("the witness", START_LIMIT, |node| {
                let witness = node.client().status().ok().and_then(|it| it.witness);
                witness.is_some_and(|it| it.admitted)
            });
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.kill();
    }
}
