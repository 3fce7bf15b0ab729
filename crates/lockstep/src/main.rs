//! The one program: `lockstep daemon` runs a node, everything else talks to a running one over
//! its admin socket. Invoked as `lockstepd` it is `lockstep daemon`.

mod account;
mod args;
mod certificate;
mod config;
mod confirm;
mod decisions;
mod demo;
mod events;
mod node;
mod output;
mod replica;
mod session;
mod status;
mod volume;

use args::{Arguments, Command};
use clap::{CommandFactory, Parser};
use lockstep_api::Client;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(as_daemon(std::env::args_os().collect()));
    match run(arguments) {
        Ok(code) => code,
        Err(error) if output::reader_is_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// `lockstepd …` means `lockstep daemon …`.
fn as_daemon(mut words: Vec<OsString>) -> Vec<OsString> {
    let called = words
        .first()
        .map(|word| Path::new(word).file_name().unwrap_or_default().to_owned());
    if called.is_some_and(|name| name == "lockstepd") {
        words.insert(1, "daemon".into());
    }
    words
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.socket);
    let json = arguments.json;
    match arguments.command {
        Command::Daemon(daemon) => {
            log_to_stderr(&arguments.log);
            let config = lockstep_daemon::config::Config::load(&daemon.config)?;
            lockstep_daemon::run(config, daemon.record.as_deref())?;
        }
        Command::Witness(witness) => {
            log_to_stderr(&arguments.log);
            let config = lockstep_daemon::witness::WitnessConfig::load(&witness.config)?;
            lockstep_daemon::witness::run(&config)?;
        }
        Command::Certificate(certificate) => certificate::run(&certificate, json)?,
        Command::Demo(demo) => {
            log_to_stderr(&arguments.log);
            return demo::run(demo);
        }
        Command::Volume(verb) => volume::run(&client, verb, json)?,
        Command::Status => status::run(&client, json)?,
        Command::Events(which) => events::run(&client, &which, json)?,
        Command::Replica(verb) => replica::run(&client, verb, json)?,
        Command::Node(verb) => node::run(&client, verb, json)?,
        Command::Session(verb) => session::run(&client, &verb, json)?,
        Command::Account(verb) => account::run(&client, verb, json)?,
        Command::Config(verb) => config::run(&client, verb, json)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "lockstep", &mut script);
            output::bytes(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One line an event, to where systemd or a terminal reads it.
fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if under_systemd {
        builder.without_time().init();
    } else {
        builder.init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Arguments::command().debug_assert();
    }

    /// Commands in fenced blocks and between backquotes.
    fn commands(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut fenced = false;
        for line in text.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if fenced {
                found.push(line.split(" #").next().unwrap_or_default().to_owned());
            } else {
                found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            }
        }
        found.retain(|command| command.starts_with("lockstep "));
        found
    }

    #[test]
    fn every_command_in_the_documents_is_one() {
        use clap::error::ErrorKind::{
            DisplayHelpOnMissingArgumentOrSubcommand, MissingRequiredArgument,
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let documents = std::fs::read_dir(root.join("docs")).unwrap();
        let mut files: Vec<_> = documents.map(|entry| entry.unwrap().path()).collect();
        // Where names on the wire stand between backquotes.
        files.retain(|file| !file.ends_with("wire-format.md"));
        files.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
        let mut seen = 0;
        for file in files {
            for command in commands(&std::fs::read_to_string(&file).unwrap()) {
                seen += 1;
                let parsed = Arguments::try_parse_from(command.split_whitespace());
                let Err(error) = parsed else { continue };
                // A command may be named without its arguments.
                let named = matches!(
                    error.kind(),
                    MissingRequiredArgument | DisplayHelpOnMissingArgumentOrSubcommand
                );
                assert!(named, "{}: {command}: {error}", file.display());
            }
        }
        assert!(seen > 20, "{seen} commands");
    }

    #[test]
    fn lockstepd_is_lockstep_daemon() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let changed = as_daemon(words("/usr/sbin/lockstepd --config /x"));
        assert_eq!(changed, words("/usr/sbin/lockstepd daemon --config /x"));
        assert!(matches!(
            Arguments::parse_from(changed).command,
            Command::Daemon(_)
        ));
        assert_eq!(
            as_daemon(words("lockstep status")),
            words("lockstep status")
        );
    }
}
