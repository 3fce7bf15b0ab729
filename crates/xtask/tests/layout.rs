//! Holds the shape of the workspace: who may depend on whom, which crates are pure, where unsafe
//! code may be, how long a file may grow, and that every file says what it is.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each crate and the crates of ours that it may depend on (`docs/architecture.md`).
const ARROWS: [(&str, &[&str]); 12] = [
    ("iscsi", &[]),
    ("scsi", &[]),
    ("mirror", &[]),
    ("engine", &["iscsi", "scsi", "mirror"]),
    ("uring", &[]),
    ("initiator", &["iscsi", "scsi", "uring"]),
    ("sim", &["engine", "mirror", "initiator"]),
    ("models", &["mirror"]),
    ("api", &[]),
    ("daemon", &["engine", "mirror", "uring", "api"]),
    ("lockstep", &["api", "daemon", "initiator"]),
    ("xtask", &[]),
];
/// Members that look at the program from outside may use any crate.
const OUTSIDE: [&str; 3] = ["tests", "faults", "benches"];
/// Crates without clock, file, socket, thread or randomly ordered map.
const PURE: [&str; 4] = ["iscsi", "scsi", "mirror", "engine"];
/// The only file with unsafe code.
const UNSAFE_FILE: &str = "crates/uring/src/sys.rs";
/// Lines that no file passes; 600 is the point to cut.
const MAX_LINES: usize = 800;

#[test]
fn no_crate_depends_on_another_that_the_table_does_not_name() {
    let table: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let mut seen = 0;
    for package in metadata()["packages"]
        .as_array()
        .expect("a list of packages")
    {
        let Some(name) = ours(&package["name"]) else {
            panic!("{} is not named lockstep-*", package["name"])
        };
        if OUTSIDE.contains(&name) {
            continue;
        }
        let allowed = table
            .get(name)
            .unwrap_or_else(|| panic!("crate {name} is not in the table"));
        seen += 1;
        for dependency in package["dependencies"]
            .as_array()
            .expect("a list of dependencies")
        {
            if let Some(other) = ours(&dependency["name"]) {
                assert!(
                    allowed.contains(&other),
                    "{name} must not depend on {other}"
                );
            }
        }
    }
    assert_eq!(
        seen,
        ARROWS.len(),
        "the table names a crate that is not there"
    );
}

#[test]
fn pure_crates_cannot_reach_the_machine() {
    for name in PURE {
        let text = read(&root().join(format!("crates/{name}/src/lib.rs")));
        for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            assert!(
                text.lines().any(|line| line == attribute),
                "{name} lacks {attribute}"
            );
        }
    }
    // The initiator's core shares a crate with its driver, so std is kept out of it by name.
    for file in rust_files()
        .into_iter()
        .filter(|file| file.starts_with("crates/initiator/src/core"))
    {
        let code = code_only(&read(&root().join(&file)));
        for module in ["std::", "lockstep_uring"] {
            assert!(!code.contains(module), "{} names {module}", file.display());
        }
    }
}

#[test]
fn unsafe_code_has_one_address() {
    for file in rust_files()
        .into_iter()
        .filter(|file| file != Path::new(UNSAFE_FILE))
    {
        let code = code_only(&read(&root().join(&file)));
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(
            words.all(|word| word != "unsafe"),
            "unsafe code in {}",
            file.display()
        );
    }
}

#[test]
fn no_file_grows_past_reading() {
    for file in rust_files() {
        let lines = read(&root().join(&file)).lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", file.display());
    }
}

#[test]
fn every_file_says_what_it_is() {
    for file in rust_files() {
        let text = read(&root().join(&file));
        assert!(
            text.starts_with("//! "),
            "{} does not begin with its documentation",
            file.display()
        );
    }
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled in two halves, for this file is searched as well.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimpl", "emented!"),
    ];
    for file in rust_files() {
        let text = read(&root().join(&file));
        for mark in marks {
            assert!(!text.contains(mark), "{} in {}", mark, file.display());
        }
    }
}

#[test]
fn the_word_unsafe_is_found_in_code_and_only_there() {
    let code = code_only(
        "let a = 'x'; // unsafe\nlet b = \"unsafe \\\" unsafe\"; /* unsafe */ fn f<'a>() { un }",
    );
    assert!(!code.contains("unsafe"), "{code}");
    assert!(code_only("let c = '\"'; unsafe { }").contains("unsafe"));
    assert!(code_only("fn f<'a>(x: &'a str) { unsafe { } }").contains("unsafe"));
    assert!(code_only("let r = r#\"a \" b\"#; unsafe {}").contains("unsafe"));
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// The name without its prefix, if it is one of ours.
fn ours(name: &Value) -> Option<&str> {
    match name.as_str()? {
        "lockstep" => Some("lockstep"),
        name => name.strip_prefix("lockstep-"),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("two levels below the root")
        .to_path_buf()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// All Rust files of the tree, relative to its root.
fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for directory in ["crates", "tests", "benches"] {
        collect(&root().join(directory), &mut files);
    }
    assert!(
        files.len() > ARROWS.len(),
        "the files are not where they are looked for"
    );
    files
        .iter()
        .map(|file| {
            file.strip_prefix(root())
                .expect("below the root")
                .to_path_buf()
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory)
        .expect("a readable directory")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The text without comments, strings and character literals.
fn code_only(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            rest[open..]
                .find(&close)
                .map_or(rest.len(), |end| open + end + close.len())
        } else if first == '"' {
            string_end(rest)
        } else if first == '\'' {
            character_end(rest)
        } else {
            code.push(first);
            first.len_utf8()
        };
        if skipped != first.len_utf8() {
            code.push(' ');
        }
        rest = &rest[skipped..];
    }
    code
}

/// Number of hashes if a raw string begins here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal, or only the quote of a lifetime.
fn character_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[2..]
            .find('\'')
            .map_or(1, |end| if end == 0 { 4.min(text.len()) } else { end + 3 }),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}
