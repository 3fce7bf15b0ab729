//! `lockstep-models`: searches the mirror's machines exhaustively and says what was found; a
//! broken promise comes with the shortest way to it.
#![expect(clippy::print_stdout, reason = "the report is what was asked for")]

use clap::Parser;
use lockstep_models::scopes::{Scope, searches};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "lockstep-models",
    about = "Searches the mirror's machines exhaustively at a small scope"
)]
struct Arguments {
    /// The larger scope as well: some minutes, and some gigabytes.
    #[arg(long)]
    long: bool,
    /// Only the searches whose names contain this.
    #[arg(value_name = "NAME")]
    filter: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scope = if arguments.long {
        Scope::Long
    } else {
        Scope::Usual
    };
    let filter = arguments.filter.unwrap_or_default();
    let mut broken = 0;
    let chosen = searches(scope);
    let chosen = chosen.iter().filter(|it| it.0.contains(&filter));
    for (name, run) in chosen {
        match run() {
            Ok(text) => println!("{name}: {text}"),
            Err(text) => {
                broken += 1;
                println!("{name}: {text}");
            }
        }
    }
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{broken} searches failed");
        ExitCode::FAILURE
    }
}
