//! The command line: `lockstep NOUN VERB`. What is wrong with it ends with exit code 2.

use crate::demo::DemoArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lockstep_api::quantity::Size;
use lockstep_api::resync::Priority;
use lockstep_api::verify::Repair;
use lockstep_api::volume::{Cache, ReplicaPlace, Strategy};
use std::path::PathBuf;

/// A mirrored iSCSI disk on two machines.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong usage."
)]
pub(crate) struct Arguments {
    /// Admin socket of the daemon to talk to
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "LOCKSTEP_SOCKET",
        default_value = "/run/lockstep/admin.sock"
    )]
    pub(crate) socket: PathBuf,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What the daemon logs: error, warn, info, debug, or a filter such as info,lockstep_daemon=debug
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "LOCKSTEP_LOG",
        default_value = "info"
    )]
    pub(crate) log: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node on this machine
    Daemon(Daemon),
    /// Run a witness on this machine: it votes for pairs of nodes, and holds no data
    Witness(WitnessArguments),
    /// Tell the partner that this machine's daemon has ended, so that it need not wait; for
    /// ExecStopPost= of its unit
    Certificate(CertificateArguments),
    /// Two nodes on this machine, a kill in mid-write, and proof that nothing is lost
    Demo(DemoArgs),
    /// Whether to worry, and why, on one screen
    Status,
    /// Mirrored volumes
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// The copies of a volume on the nodes, changed while it is served
    #[command(subcommand)]
    Replica(ReplicaVerb),
    /// This node itself
    #[command(subcommand)]
    Node(NodeVerb),
    /// Initiators that are logged in to this node
    #[command(subcommand)]
    Session(SessionVerb),
    /// CHAP accounts
    #[command(subcommand)]
    Account(AccountVerb),
    /// What happened, who did it and why
    Events(EventsWhich),
    /// This node's configuration, and what both nodes agreed on
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Print the completion script of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// This node's own configuration
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/lockstep/lockstep.toml"
    )]
    pub(crate) config: PathBuf,
    /// Write every event of this run into a new file, for lockstep-sim to play again; it will hold
    /// secrets
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WitnessArguments {
    /// The witness's configuration
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/lockstep/witness.toml"
    )]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CertificateArguments {
    /// The node's own configuration, as the daemon has it
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/lockstep/lockstep.toml"
    )]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeVerb {
    /// Make a volume on both nodes and wait until it is served
    Create(CreateArguments),
    /// All volumes
    List,
    /// Everything about one volume
    Show {
        /// Its name
        name: String,
    },
    /// Change who may log in; what is not named is removed
    Access(AccessArguments),
    /// Change who decides when the two nodes do not see each other, while it is served
    Strategy {
        /// Its name
        name: String,
        /// The new one
        strategy: StrategyWord,
    },
    /// Let the other node, which was put out for slowness, join again at once
    Rejoin {
        /// Name of the volume
        name: String,
    },
    /// Change how much resyncs may take from initiators, also of one that runs
    Resync {
        /// Its name
        name: String,
        /// The new priority; "node": what each node's lockstep.toml says
        #[arg(long, value_enum)]
        priority: PriorityWord,
    },
    /// Read both copies and compare them, while the volume is served; on the node that orders its
    /// writes
    Verify {
        /// Its name
        name: String,
        /// What becomes of differences
        #[arg(long, value_enum, default_value_t = RepairWord::Report)]
        repair: RepairWord,
        /// Return at once; lockstep volume show tells how far it is
        #[arg(long)]
        no_wait: bool,
        /// End one that runs
        #[arg(long, conflicts_with_all = ["repair", "no_wait"])]
        stop: bool,
    },
    /// After a split brain: one node's copy is the one; what the other wrote apart is lost
    Resolve {
        /// Its name
        name: String,
        /// The node whose copy is kept, by number or name
        #[arg(long, value_name = "NODE")]
        keep: String,
        /// The volume's name once more, to show that it is meant (default: it is asked for)
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// Serve this node's copy although nobody knows whether it is the newest: only if the node or
    /// disk that it waits for will never return
    ForceActivate {
        /// Its name
        name: String,
        /// Its name once more, to show that it is meant (default: it is asked for)
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
        /// Even a copy in the middle of a resync, a mixture of old and new blocks
        #[arg(long)]
        may_be_corrupt: bool,
    },
    /// Take a volume out of service for good; its images stay where they are
    Delete {
        /// Its name
        name: String,
        /// Its name once more, to show that it is meant
        #[arg(long, value_name = "NAME")]
        confirm: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Its name: 1 to 64 of a-z, 0-9, dots and hyphens
    pub(crate) name: String,
    /// Its size, such as 10GiB
    #[arg(long)]
    pub(crate) size: Size,
    /// Logical block size in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = block_size)]
    pub(crate) block_size: u32,
    /// When a write is answered
    #[arg(long, value_enum, default_value_t = CacheWord::WriteThrough)]
    pub(crate) cache: CacheWord,
    /// Who decides when the two nodes do not see each other; majority needs a witness
    #[arg(long, value_enum, default_value_t = StrategyWord::Heartbeat)]
    pub(crate) strategy: StrategyWord,
    /// Where a node keeps its copy (default: NAME.img in the first storage directory of each node)
    #[arg(long, value_name = "NODE:PATH", value_parser = replica)]
    pub(crate) replica: Vec<ReplicaPlace>,
    /// Write zeroes over the whole image now, instead of reserving the space
    #[arg(long, conflicts_with = "adopt")]
    pub(crate) prefill: bool,
    /// Use images that are there, and equal on both nodes
    #[arg(long)]
    pub(crate) adopt: bool,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Return at once; `volume show` tells how far it is
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AccessArguments {
    /// The volume
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// Whom a volume lets in.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// An account that may log in (none: no authentication)
    #[arg(long = "account", value_name = "NAME")]
    pub(crate) accounts: Vec<String>,
    /// The account whose secret the target proves to initiators
    #[arg(long, value_name = "NAME")]
    pub(crate) mutual: Option<String>,
    /// An initiator that may log in (none: all may)
    #[arg(long = "allow", value_name = "IQN")]
    pub(crate) allow: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CacheWord {
    None,
    WriteThrough,
    WriteBack,
}

impl From<CacheWord> for Cache {
    fn from(word: CacheWord) -> Self {
        match word {
            CacheWord::None => Self::None,
            CacheWord::WriteThrough => Self::WriteThrough,
            CacheWord::WriteBack => Self::WriteBack,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StrategyWord {
    /// The node that initiators use; both, if initiators reach both
    Heartbeat,
    /// The node with which the witness agrees, never both
    Majority,
}

impl From<StrategyWord> for Strategy {
    fn from(word: StrategyWord) -> Self {
        match word {
            StrategyWord::Heartbeat => Self::Heartbeat,
            StrategyWord::Majority => Self::Majority,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PriorityWord {
    /// Initiators' latency stays within 1.5 times what it is without a resync
    Low,
    /// Within twice
    Normal,
    /// Within four times
    High,
    /// What resync.priority in each node's lockstep.toml says
    Node,
}

impl From<PriorityWord> for Option<Priority> {
    fn from(word: PriorityWord) -> Self {
        match word {
            PriorityWord::Low => Some(Priority::Low),
            PriorityWord::Normal => Some(Priority::Normal),
            PriorityWord::High => Some(Priority::High),
            PriorityWord::Node => None,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RepairWord {
    /// They are reported
    Report,
    /// They are rewritten from the copy of the node that orders writes
    Owner,
    /// They are rewritten from node 1's copy
    Node1,
    /// They are rewritten from node 2's copy
    Node2,
}

impl From<RepairWord> for Repair {
    fn from(word: RepairWord) -> Self {
        match word {
            RepairWord::Report => Self::Report,
            RepairWord::Owner => Self::Owner,
            RepairWord::Node1 => Self::Node1,
            RepairWord::Node2 => Self::Node2,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReplicaVerb {
    /// Give a volume whose only copy is on this node a second one on the other node
    Add {
        /// The volume
        volume: String,
        /// A file or block device of the other node (default: VOLUME.img in its first directory)
        #[arg(long, value_name = "PATH")]
        image: Option<String>,
    },
    /// Give up the other node's copy; its image stays there
    Remove {
        /// The volume
        volume: String,
        /// The node whose copy is given up, by number or name
        #[arg(long, value_name = "NODE")]
        node: String,
        /// The volume's name once more, to show that it is meant (default: it is asked for)
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// Replace this node's copy, which is lost or whose disk failed, by a blank one; all of it is
    /// then compared with the other node's
    Replace {
        /// The volume
        volume: String,
        /// Another file or block device of this node (default: the one that it had)
        #[arg(long, value_name = "PATH")]
        image: Option<String>,
        /// The volume's name once more, to show that it is meant (default: it is asked for)
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Take this node out of service for a while, without an error for initiators
    #[command(subcommand)]
    Maintenance(MaintenanceVerb),
}

#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceVerb {
    /// Lead initiators to the other node, hand every volume over, and serve nothing until told
    Enter {
        /// The node that is meant (default: the one whose daemon is asked); for the other one, the
        /// answer says what to run there
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// This node's name: even if the other node cannot serve some of the volumes
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// Serve again, once the copies here are brought up to date
    Leave {
        /// The node that is meant (default: the one whose daemon is asked); for the other one, the
        /// answer says what to run there
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionVerb {
    /// All sessions
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountVerb {
    /// All accounts, without their secrets
    List,
    /// Make an account, or give it a new secret
    Set {
        /// Its name
        name: String,
        /// File with the secret, 12 to 255 bytes; - reads standard input
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
    },
    /// Remove an account that nothing uses
    Delete {
        /// Its name
        name: String,
    },
    /// Say which accounts open discovery; without names it needs none
    Discovery {
        /// Names of accounts
        names: Vec<String>,
        /// The account whose secret the target proves to initiators that ask
        #[arg(long, value_name = "NAME", requires = "names")]
        mutual: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EventsWhich {
    /// Go on printing what happens
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only events with a greater number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) after: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Check a node's lockstep.toml and what it names, without a daemon
    Check {
        /// The file
        #[arg(default_value = "/etc/lockstep/lockstep.toml")]
        file: PathBuf,
    },
    /// Print what both nodes agreed on, secrets masked, and edits that are not in force
    Show,
    /// Put the edited pool file in force, on both nodes or neither
    Apply,
    /// After two nodes changed the pool configuration apart: this node's is the one
    Keep,
    /// Name the third machine that votes in strategy majority, or remove it
    Witness {
        /// Where it listens
        #[arg(value_name = "IP:PORT", required_unless_present = "remove")]
        address: Option<String>,
        /// File with the secret that the pair shares with it, 16 to 255 bytes; - reads standard
        /// input
        #[arg(long, value_name = "FILE", required_unless_present = "remove")]
        secret_file: Option<PathBuf>,
        /// The pair has no witness any more
        #[arg(long, conflicts_with_all = ["address", "secret_file"])]
        remove: bool,
    },
}

fn block_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err("allowed are 512 and 4096".into()),
    }
}

fn replica(text: &str) -> Result<ReplicaPlace, String> {
    let parsed = text
        .split_once(':')
        .and_then(|(node, image)| Some((node.parse().ok()?, image)));
    match parsed {
        Some((node @ 1..=2, image)) if !image.is_empty() => Ok(ReplicaPlace {
            node,
            image: image.into(),
        }),
        _ => Err("write it like 1:/srv/images/vm1.img, with node 1 or 2".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_names_node_and_path() {
        assert_eq!(
            replica("2:/a:b").unwrap(),
            ReplicaPlace {
                node: 2,
                image: "/a:b".into()
            }
        );
        for bad in ["", "3:/a", "1:", "/a", "x:/a"] {
            assert!(replica(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_sizes_and_modes_are_usage_errors() {
        let create = |rest: &str| {
            Arguments::try_parse_from(format!("lockstep volume create v {rest}").split_whitespace())
        };
        assert!(create("--size 10GiB --cache write-back --block-size 4096").is_ok());
        for bad in [
            "",
            "--size ten",
            "--size 1G --cache lazy",
            "--size 1G --block-size 1000",
            "--size 1G --prefill --adopt",
        ] {
            assert_eq!(create(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
