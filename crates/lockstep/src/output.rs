//! What goes to people and programs: tables and sentences, or JSON.

use comfy_table::{ColumnConstraint, Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Writes bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Writes a line.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes one JSON document.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// A table without lines, its columns as wide as they must be.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(
        header
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>(),
    );
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// Text from outside without control characters, which could drive a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Writes why a command failed to standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    // If standard error is gone as well, the exit code has to say it all.
    let _ = writeln!(io::stderr(), "lockstep: {error:#}");
}

/// Whether it failed only because whoever read our output has seen enough (`| head`).
pub(crate) fn reader_is_gone(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether a person sees it grow (then a line may be rewritten).
pub(crate) fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// `2 d 3 h`, `4 min`, `12 s`: two units at most.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        assert_eq!(duration(93_784), "1 d 2 h");
    }

    #[test]
    fn a_name_from_outside_cannot_drive_the_terminal() {
        let text = table(&["A", "B"], vec![vec!["x\x1b[31m".into(), "y\nz".into()]]);
        assert_eq!(text, "A       B\nx?[31m  y?z");
    }
}
