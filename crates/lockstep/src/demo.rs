//! `lockstep demo`: two nodes on this machine, one mirrored volume, one kill in the middle of the
//! writing, and proof that nothing acknowledged is lost. Needs no privileges and leaves nothing
//! behind. The nodes are copies of this executable; a third copy sweeps up should the demo
//! itself be killed.
#![expect(
    clippy::print_stdout,
    reason = "the demo talks to the person who started it"
)]

mod checks;
mod pair;
mod story;
mod sweeper;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lockstep_api::quantity::Size;
use lockstep_api::volume::Cache;
use lockstep_initiator::core::chap::Account;
use pair::Pair;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What `lockstep demo` can be told.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Leave the pair running for your own initiator, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Print one JSON object; with --keep when the pair is ready (the demo itself is left out)
    #[arg(long)]
    json: bool,
    /// Where images, logs and state go; they stay there afterwards [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Size of the mirrored volume
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    volume_size: Size,
    /// When writes are answered: none, write-through or write-back
    #[arg(long, value_name = "MODE", default_value = "write-through", value_parser = cache)]
    cache: Cache,
    /// Initiators must log in with CHAP under this name
    #[arg(long, value_name = "NAME", requires = "secret_file")]
    chap_user: Option<String>,
    /// File with the CHAP secret, 12 to 255 bytes
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    secret_file: Option<PathBuf>,
    /// Node 1 gets IP + 1, node 2 gets IP + 2 [default: a free loopback network, port 3260]
    #[arg(long, value_name = "IP:PORT")]
    portal_base: Option<SocketAddr>,
    /// Write everything that both nodes are told there, for `lockstep-sim --replay`; it holds the demo's secrets
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Become the daemon with this configuration, and die with the process that started it
    #[arg(long, hide = true, value_name = "FILE")]
    run_daemon: Option<PathBuf>,
    /// Record that daemon there
    #[arg(long, hide = true, value_name = "FILE", requires = "run_daemon")]
    record_daemon: Option<PathBuf>,
    /// Wait until standard input ends, then stop the nodes below this directory
    #[arg(long, hide = true, value_name = "DIR")]
    sweep: Option<PathBuf>,
    /// Remove the directory as well
    #[arg(long, hide = true)]
    sweep_all: bool,
}

fn cache(word: &str) -> Result<Cache, String> {
    let modes = [Cache::None, Cache::WriteThrough, Cache::WriteBack];
    let found = modes.into_iter().find(|mode| mode.word() == word);
    found.ok_or_else(|| "allowed: none, write-through, write-back".into())
}

/// Volumes up to this size are done with within the time that the README promises.
const PROMISED_SIZE: u64 = 128 << 20;

/// The smallest volume on which the load can move.
const SMALLEST: u64 = 8 << 20;

/// Runs the demo. Success only if every check held.
pub(crate) fn run(args: DemoArgs) -> Result<ExitCode> {
    if let Some(file) = &args.run_daemon {
        return Err(sweeper::become_daemon(file, args.record_daemon.as_deref()));
    }
    if let Some(directory) = &args.sweep {
        sweeper::sweep(directory, args.sweep_all);
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        args.volume_size.0 >= SMALLEST,
        "--volume-size {}: too small for the demo; allowed: 8MiB and more",
        args.volume_size
    );
    let chap = account(&args)?;
    let begun = Instant::now();
    let mut pair = Pair::start(&args, chap.as_ref())?;
    if args.json && args.keep {
        println!("{}", serde_json::to_string(&Ready::of(&pair)?)?);
        wait_for_interrupt()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut outcome = story::tell(&mut pair, chap.as_ref(), args.json)?;
    outcome.took(begun.elapsed(), args.volume_size.0 <= PROMISED_SIZE);
    if args.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        println!("{}", outcome.table());
    }
    if args.keep {
        let ready = Ready::of(&pair)?;
        println!("The pair goes on running; Ctrl-C ends it.");
        for node in &ready.nodes {
            println!(
                "  {}: iscsi://{}/{}/{}",
                node.name, node.portal, ready.target, ready.lun
            );
        }
        wait_for_interrupt()?;
    }
    Ok(if outcome.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn account(args: &DemoArgs) -> Result<Option<Account>> {
    let (Some(name), Some(file)) = (&args.chap_user, &args.secret_file) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("--secret-file {}: cannot be read", file.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']).as_bytes().to_vec();
    if !(12..=255).contains(&secret.len()) {
        bail!(
            "--secret-file {}: holds {} bytes; allowed: 12 to 255",
            file.display(),
            secret.len()
        );
    }
    Ok(Some(Account {
        name: name.clone(),
        secret,
    }))
}

/// What `--keep --json` prints.
#[derive(Serialize)]
struct Ready {
    target: String,
    lun: u8,
    nodes: Vec<ReadyNode>,
}

#[derive(Serialize)]
struct ReadyNode {
    name: String,
    pid: u32,
    portal: String,
    admin: PathBuf,
    image: PathBuf,
    /// The shell command that starts this node again.
    restart: String,
}

impl Ready {
    fn of(pair: &Pair) -> Result<Self> {
        let nodes = pair.nodes.iter().map(|node| {
            Ok(ReadyNode {
                name: node.name.clone(),
                pid: node
                    .pid()
                    .with_context(|| format!("{} does not run", node.name))?,
                portal: node.portal.to_string(),
                admin: node.socket(),
                image: node.image(),
                restart: node.restart_command()?,
            })
        });
        Ok(Self {
            target: pair.target.clone(),
            lun: pair.lun,
            nodes: nodes.collect::<Result<_>>()?,
        })
    }
}

/// Until Ctrl-C or SIGTERM.
fn wait_for_interrupt() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
