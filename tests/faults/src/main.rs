//! The command line of the fault tests.
#![expect(
    clippy::print_stdout,
    reason = "a test speaks to the person who started it"
)]

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use lockstep_api::volume::{Cache, Strategy};
use lockstep_faults::cluster::Settings;
use lockstep_faults::verify::NO_DISK;
use lockstep_faults::{pauses, powercuts, run, stage};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Breaks two real nodes and a witness, their networks and their disks, while initiators write and
/// a checker watches. Needs root.
#[derive(Parser)]
#[command(name = "lockstep-faults", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    common: Common,
    /// How long faults are thrown
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
}

#[derive(Subcommand)]
enum What {
    /// The longest gap between acknowledgements on the surviving path, for each fault
    Pauses {
        #[command(flatten)]
        common: Common,
        /// How often for each fault and each survivor
        #[arg(long, default_value_t = 20)]
        runs: u32,
    },
    /// The power of both nodes is cut at once under load, again and again; in write-back mode that
    /// of the owner, while nobody writes
    Powercuts {
        #[command(flatten)]
        common: Common,
        /// How often
        #[arg(long, default_value_t = 20)]
        runs: u32,
        /// The disks answer flushes without doing them: the run must fail
        #[arg(long)]
        lie: bool,
    },
}

#[derive(Args)]
struct Common {
    /// What is thrown, and when; another one each time if it is not named
    #[arg(long)]
    seed: Option<u64>,
    /// Who decides when the nodes do not see each other
    #[arg(long, value_enum, default_value_t = Word::Majority)]
    strategy: Word,
    /// When a write is answered
    #[arg(long, value_enum, default_value_t = CacheWord::WriteThrough)]
    cache: CacheWord,
    /// Size of the volume in MiB
    #[arg(long, default_value_t = 64)]
    size: u64,
    /// Where everything lies, and stays
    #[arg(long)]
    directory: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Word {
    Heartbeat,
    Majority,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CacheWord {
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

impl Common {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_secs() % 1_000_000)
        })
    }

    fn settings(&self) -> Settings {
        Settings {
            strategy: match self.strategy {
                Word::Heartbeat => Strategy::Heartbeat,
                Word::Majority => Strategy::Majority,
            },
            cache: self.cache.into(),
            size: self.size << 20,
        }
    }
}

fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> Result<()> {
    let say = &mut |line: String| println!("{line}");
    match arguments.what {
        None => {
            let Arguments {
                common, minutes, ..
            } = arguments;
            let seed = common.seed();
            let settings = common.settings();
            let time = Duration::try_from_secs_f64(minutes * 60.0)?;
            say(format!(
                "seed {seed}, {minutes} minutes, strategy {}, cache {}",
                settings.strategy.word(),
                settings.cache.word()
            ));
            stage::in_directory(common.directory, seed, settings, |stage| {
                run::rounds(stage, time, say)
            })?;
            say(
                "no write lost, no read wrong, both images equal, no split brain, no full resync"
                    .into(),
            );
            Ok(())
        }
        Some(What::Pauses { common, runs }) => {
            let seed = common.seed();
            let settings = common.settings();
            say(format!(
                "seed {seed}, strategy {}",
                settings.strategy.word()
            ));
            stage::in_directory(common.directory, seed, settings, |stage| {
                pauses::table(stage, runs, say)
            })
        }
        Some(What::Powercuts { common, runs, lie }) => {
            let seed = common.seed();
            say(format!("seed {seed}"));
            let settings = common.settings();
            let at_rest = settings.cache == Cache::WriteBack;
            let result = stage::in_directory(common.directory, seed, settings, |stage| {
                if at_rest {
                    powercuts::owner_at_rest(stage, runs, say)
                } else {
                    powercuts::both_under_load(stage, runs, lie, say)
                }
            });
            match (result, lie) {
                (Err(error), true) if format!("{error:#}").contains(NO_DISK) => {
                    say("the disks lied about flushes, and it was found".into());
                }
                (Ok(()), true) => bail!("the disks lied about flushes, and it was not found"),
                (result, _) => {
                    result?;
                    say("nothing that was acknowledged was lost".into());
                }
            }
            Ok(())
        }
    }
}
