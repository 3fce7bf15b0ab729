//! `witness.toml`: where a witness listens, where it keeps its votes, and for which pairs.
//! `config/witness.toml` shows every key.

use crate::config::{Address, Refusal, Refusals, Uuid};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Pairs of one witness: each has a file and two connections.
const PAIRS_MAX: usize = 200;
/// Addresses that it listens on.
const LISTEN_MAX: usize = 16;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Where nodes reach it.
    pub listen: Vec<Address>,
    /// Where the votes are.
    pub state_directory: PathBuf,
    /// For whom it votes.
    #[serde(rename = "pair", default)]
    pub pairs: Vec<WitnessPair>,
}

/// One pair.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessPair {
    /// Its `cluster.uuid`.
    pub cluster: Uuid,
    /// File with the secret that the pair shares with this witness.
    pub secret_file: PathBuf,
}

impl WitnessConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, with its lines.
    pub fn load(path: &Path) -> Result<Self, Refusals> {
        let refuse = |line, text| Refusals {
            file: path.to_owned(),
            refusals: vec![Refusal { line, text }],
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let text = format!("{error}; write it after the example config/witness.toml");
            refuse(0, text)
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Refusals> {
        let refuse = |refusals| Refusals {
            file: path.to_owned(),
            refusals,
        };
        let config: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1;
            let text = error.message().to_owned();
            refuse(vec![Refusal { line, text }])
        })?;
        let mut wrong = Vec::new();
        let mut seen = BTreeSet::new();
        if !(1..=LISTEN_MAX).contains(&config.listen.len()) {
            wrong.push(format!(
                "listen: {} addresses; allowed: 1 to {LISTEN_MAX}",
                config.listen.len()
            ));
        }
        if config.pairs.len() > PAIRS_MAX {
            wrong.push(format!(
                "{} pairs; allowed: at most {PAIRS_MAX}",
                config.pairs.len()
            ));
        }
        for pair in &config.pairs {
            if !seen.insert(pair.cluster.0) {
                wrong.push(format!(
                    "pair {} is there twice; allowed: once",
                    crate::uuid::format(pair.cluster.0)
                ));
            }
        }
        if wrong.is_empty() {
            return Ok(config);
        }
        let whole = |text| Refusal { line: 0, text };
        Err(refuse(wrong.into_iter().map(whole).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../config/witness.toml");

    fn parse(text: &str) -> Result<WitnessConfig, String> {
        WitnessConfig::parse(Path::new("w.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_is_good() {
        let config = parse(EXAMPLE).expect("the example");
        assert_eq!(config.pairs.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let twice =
            "[[pair]]\ncluster = \"6f0e4a1c-27f5-4d0b-9a36-0c1f5b7e9d42\"\nsecret_file = \"/x\"\n";
        let twice = format!("listen = []\nstate_directory = \"/x\"\n{twice}{twice}");
        for (text, part) in [
            ("listen = [\"1.2.3.4:1\"]\n", "state_directory"),
            ("listen = 7\n", "w.toml:1:"),
            ("\nport = 7\n", "w.toml:2:"),
            (twice.as_str(), "is there twice"),
            (twice.as_str(), "0 addresses; allowed: 1 to 16"),
        ] {
            let refused = parse(text).expect_err(text);
            assert!(refused.contains(part), "{refused}");
        }
    }
}
