//! `cargo xtask test`: runs the parts one after the other, says how long each took and what came
//! of it, and goes on after a failure so that one run shows everything that is wrong.

use crate::parts::{Length, PARTS, Part};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Runs the parts named, or all; true if none failed.
pub(crate) fn run(long: bool, names: &[String]) -> Result<bool> {
    let length = if long { Length::Long } else { Length::Usual };
    let chosen = choose(length, names)?;
    let mut results = Vec::new();
    for part in chosen {
        println!("==> {}: {}", part.name, part.shows);
        let begun = Instant::now();
        let outcome = part.run(length);
        let took = begun.elapsed();
        match &outcome {
            Ok(()) => println!("<== {}: passed in {}\n", part.name, minutes(took)),
            Err(error) => println!(
                "<== {}: FAILED after {}: {error:#}\n",
                part.name,
                minutes(took)
            ),
        }
        results.push((part.name, took, outcome.is_ok()));
    }
    for (name, took, passed) in &results {
        println!(
            "{name:<10} {:>9}  {}",
            minutes(*took),
            if *passed { "passed" } else { "FAILED" }
        );
    }
    let failed = results.iter().filter(|(_, _, passed)| !passed).count();
    println!("{} passed, {failed} failed", results.len() - failed);
    Ok(failed == 0)
}

fn choose(length: Length, names: &[String]) -> Result<Vec<&'static Part>> {
    let known = || PARTS.map(|part| part.name).join(", ");
    if let Some(unknown) = names
        .iter()
        .find(|name| PARTS.iter().all(|part| part.name != **name))
    {
        bail!("there is no part `{unknown}`; the parts are {}", known());
    }
    let chosen = PARTS.iter().filter(|part| {
        if names.is_empty() {
            length == Length::Long || !part.long_only
        } else {
            names.iter().any(|name| name == part.name)
        }
    });
    Ok(chosen.collect())
}

/// A time as the summaries show it.
pub(crate) fn minutes(time: Duration) -> String {
    format!("{:.1} min", time.as_secs_f64() / 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(length: Length, names: &[&str]) -> Vec<&'static str> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        choose(length, &names)
            .unwrap()
            .iter()
            .map(|part| part.name)
            .collect()
    }

    #[test]
    fn a_named_part_runs_alone_even_if_it_is_a_long_one() {
        assert_eq!(names(Length::Usual, &["mutants"]), ["mutants"]);
    }

    #[test]
    fn without_names_the_long_parts_wait_for_the_long_run() {
        assert!(!names(Length::Usual, &[]).contains(&"mutants"));
        assert_eq!(names(Length::Long, &[]).len(), PARTS.len());
    }

    #[test]
    fn a_part_that_is_not_there_is_refused_with_the_list() {
        let error = choose(Length::Usual, &["clipy".into()])
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("clippy"), "{error}");
    }
}
