//! Typed confirmation: what cannot be taken back is asked for at a terminal; scripts say it with
//! `--confirm`.

use crate::output;
use anyhow::bail;
use std::io::{IsTerminal, stdin};

/// What was given with `--confirm`, or what a person types. `name` is to be repeated; `lines` say
/// what follows from it.
pub(crate) fn typed(given: Option<String>, name: &str, lines: &[String]) -> anyhow::Result<String> {
    if let Some(given) = given {
        return Ok(given);
    }
    for line in lines {
        output::line(&output::plain(line))?;
    }
    if !stdin().is_terminal() {
        bail!("nobody is here to confirm it: if it is meant, repeat it with --confirm {name}");
    }
    output::line(&format!("Type {name} to go on:"))?;
    let mut typed = String::new();
    stdin().read_line(&mut typed)?;
    Ok(typed.trim().to_owned())
}
