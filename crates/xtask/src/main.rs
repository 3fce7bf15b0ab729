//! The project's chores: `cargo xtask test` runs everything that must hold before a change is
//! taken, `cargo xtask mutants` plants known bugs and demands that they are found.
#![expect(
    clippy::print_stdout,
    reason = "a chore talks to the person who started it"
)]

mod command;
mod daemon;
mod debian;
mod mutants;
mod parts;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run all checks, cheapest first; with names, only those parts.
    Test {
        /// Everything: more seeds, slow tests, planted bugs.
        #[arg(long)]
        long: bool,
        /// Parts to run; none means all of them.
        #[arg(value_name = "PART")]
        parts: Vec<String>,
    },
    /// Plant each known bug in a copy of the tree and demand that its check finds it.
    Mutants {
        /// Only the patches whose file name contains this.
        #[arg(value_name = "NAME")]
        filter: Option<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Test { long, parts } => test::run(long, &parts),
        Chore::Mutants { filter } => mutants::run(filter.as_deref()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
