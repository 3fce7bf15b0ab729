//! From text to `Config`: unknown keys with a suggestion, wrong types with their line, and then
//! the rules of `check`.

use super::{Config, EXAMPLE, check};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Line in the file, from 1; 0: the file as a whole.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub text: String,
}

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// Which file.
    pub file: PathBuf,
    /// At least one.
    pub refusals: Vec<Refusal>,
}

impl Refusals {
    /// The file cannot be used at all.
    pub(super) fn whole_file(path: &Path, text: String) -> Self {
        Self {
            file: path.to_owned(),
            refusals: vec![Refusal { line: 0, text }],
        }
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.refusals.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match refusal.line {
                0 => write!(f, "{}: {}", self.file.display(), refusal.text)?,
                line => write!(f, "{}:{line}: {}", self.file.display(), refusal.text)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Refusals {}

/// Sections with keys that have no default.
const REQUIRED_SECTIONS: [&str; 3] = ["cluster", "node", "portals"];

/// Where each key stands, by its dotted path: the line, and the span of its value in bytes.
type Places = BTreeMap<String, (usize, std::ops::Range<usize>)>;

/// Parses and checks.
pub(super) fn parse(path: &Path, text: &str) -> Result<Config, Refusals> {
    let refuse = |mut refusals: Vec<Refusal>| {
        refusals.sort_by_key(|refusal| refusal.line);
        Refusals {
            file: path.to_owned(),
            refusals,
        }
    };
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(0, |span| line_of(text, span.start));
        refuse(vec![Refusal {
            line,
            text: format!("not TOML: {}", error.message()),
        }])
    })?;
    let places = places(text, table.get_ref());
    let mut wrong = unknown_keys(&places);
    let missing = REQUIRED_SECTIONS
        .iter()
        .filter(|section| !places.contains_key(**section));
    wrong.extend(missing.map(|section| Refusal {
        line: 0,
        text: format!("the section [{section}] is missing and has no default"),
    }));
    if !wrong.is_empty() {
        return Err(refuse(wrong));
    }
    let config: Config = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        refuse(vec![describe(text, &places, at, error.message())])
    })?;
    let problems = check::problems(&config);
    if problems.is_empty() {
        return Ok(config);
    }
    let located = problems.into_iter().map(|(key, text)| {
        let section = key.split('.').next().unwrap_or(key);
        let line = places
            .get(key)
            .or_else(|| places.get(section))
            .map_or(0, |place| place.0);
        Refusal {
            line,
            text: format!("{key}: {text}"),
        }
    });
    Err(refuse(located.collect()))
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(at)
        .filter(|&&byte| byte == b'\n')
        .count()
        + 1
}

/// A deserializer's message with the key that it is about.
fn describe(text: &str, places: &Places, at: usize, message: &str) -> Refusal {
    let inner = places
        .iter()
        .filter(|(_, (_, span))| span.contains(&at))
        .min_by_key(|(_, (_, span))| span.len());
    let Some((key, (line, span))) = inner else {
        return Refusal {
            line: line_of(text, at),
            text: message.to_owned(),
        };
    };
    if let Some(field) = message.strip_prefix("missing field ") {
        let text = format!("[{key}] lacks the key {field}, which has no default");
        return Refusal { line: *line, text };
    }
    let line = if span.start == at {
        *line
    } else {
        line_of(text, at)
    };
    Refusal {
        line,
        text: format!("{key}: {message}"),
    }
}

fn places(text: &str, table: &DeTable<'_>) -> Places {
    fn walk(text: &str, prefix: &str, table: &DeTable<'_>, places: &mut Places) {
        for (key, value) in table {
            let name = match prefix {
                "" => key.get_ref().to_string(),
                _ => format!("{prefix}.{}", key.get_ref()),
            };
            if let DeValue::Table(inner) = value.get_ref() {
                walk(text, &name, inner, places);
            }
            places.insert(name, (line_of(text, key.span().start), value.span()));
        }
    }
    let mut places = Places::new();
    walk(text, "", table, &mut places);
    places
}

/// A guess worth making: at least this alike, on a scale to 1.
const SUGGEST_FROM: f64 = 0.7;

fn unknown_keys(places: &Places) -> Vec<Refusal> {
    let example = DeTable::parse(EXAMPLE).expect("a test reads the example");
    let known = self::places(EXAMPLE, example.get_ref());
    let mut unknown = Vec::new();
    for (key, (line, _)) in places {
        let parent = key.rsplit_once('.').map_or("", |(parent, _)| parent);
        let parent_unknown = !parent.is_empty() && !known.contains_key(parent);
        if known.contains_key(key) || parent_unknown {
            continue;
        }
        let advice = suggestion(key, &known);
        unknown.push(Refusal {
            line: *line,
            text: format!("{key}: there is no such key; {advice}"),
        });
    }
    unknown
}

fn suggestion(key: &str, known: &Places) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let alike = |candidate: &String| {
        let whole = strsim::normalized_levenshtein(key, candidate);
        whole.max(strsim::normalized_levenshtein(&last(key), &last(candidate)))
    };
    let same_depth = |candidate: &&String| candidate.contains('.') == key.contains('.');
    let best = known
        .keys()
        .filter(same_depth)
        .max_by(|a, b| alike(a).total_cmp(&alike(b)).then_with(|| b.cmp(a)));
    if let Some(best) = best.filter(|best| alike(best) >= SUGGEST_FROM) {
        return format!("did you mean {best}?");
    }
    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
    let siblings: Vec<String> = known
        .keys()
        .filter(|known| known.rsplit_once('.').map_or("", |(parent, _)| parent) == section)
        .map(|known| last(known))
        .collect();
    format!("allowed here: {}", siblings.join(", "))
}
