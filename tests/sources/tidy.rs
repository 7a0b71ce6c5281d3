//! Rules of layout, of files that nothing uses, and of tests that only wait.

use std::fs;
use std::path::Path;

use super::assert_none;
use super::source::{Source, sources_of};

/// A pause from which on a test says why it cannot wait for an event instead.
const PAUSE_MS: u64 = 100;

/// What fits beside another window.
const COLUMNS_MAX: usize = 110;

fn all_sources() -> Vec<Source> {
    let folders = ["src", "tests", "bench/src", "fuzz/fuzz_targets"];
    folders.into_iter().flat_map(sources_of).collect()
}

/// Every file below `folder`, from the top of the package, with its text where it is one.
fn files_of(folder: &str) -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut waiting = vec![top.join(folder)];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the package") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path.strip_prefix(top).expect("it is in the package");
            let text = fs::read_to_string(&path).unwrap_or_default();
            found.push((name.to_string_lossy().into_owned(), text));
        }
    }
    found
}

#[test]
fn no_line_is_longer_than_110_columns() {
    let sources = all_sources().into_iter();
    let sources = sources.map(|source| (source.path, source.text));
    let manifests = [
        "Cargo.toml",
        "bench/Cargo.toml",
        "fuzz/Cargo.toml",
        "deny.toml",
    ];
    let manifests = manifests.map(|path| {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        (path.to_owned(), text.expect("a manifest"))
    });
    let mut wrong = Vec::new();
    for (path, text) in sources.chain(manifests) {
        for (number, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                wrong.push(format!("{path}:{} has {columns}", number + 1));
            }
        }
    }
    assert_none("lines of at most 110 columns", wrong);
}

/// Whether a file of Rust is the root of a crate, or some other one declares it.
fn is_declared(path: &str, sources: &[Source]) -> bool {
    let (folder, name) = path.rsplit_once('/').expect("it is in a folder");
    let is_root = ["src", "bench/src", "tests", "fuzz/fuzz_targets"].contains(&folder)
        && (folder.ends_with("tests") || folder.starts_with("fuzz") || path.ends_with("lib.rs"));
    if is_root || name == "main.rs" {
        return true;
    }
    let stem = name.trim_end_matches(".rs");
    let module = if stem == "mod" {
        folder.rsplit_once('/').map_or("", |(_, module)| module)
    } else {
        stem
    };
    let declaration = format!("mod {module};");
    let in_path = format!("{module}.rs\"]");
    sources.iter().any(|source| {
        source.path != path
            && (source.code.contains(&declaration) || source.text.contains(&in_path))
    })
}

#[test]
fn every_file_is_used() {
    let sources = all_sources();
    let undeclared = sources.iter().map(|source| source.path.clone());
    let mut wrong: Vec<String> = undeclared
        .filter(|path| !is_declared(path, &sources))
        .collect();
    let scripts = files_of("scripts");
    let mut mentions: Vec<String> = scripts.iter().map(|(_, text)| text.clone()).collect();
    mentions.extend(files_of("docs").into_iter().map(|(_, text)| text));
    for page in ["CONTRIBUTING.md", "README.md", "kernel-notes.md", ".ci/run"] {
        mentions.extend(fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(page),
        ));
    }
    let is_mentioned = |path: &str| mentions.iter().any(|text| text.contains(path));
    let unmentioned = scripts.iter().map(|(path, _)| path.clone());
    wrong.extend(unmentioned.filter(|path| !is_mentioned(path)));
    let fixtures = files_of("tests/fixtures").into_iter().map(|(path, _)| path);
    wrong.extend(fixtures.filter(|path| {
        let (_, name) = path.rsplit_once('/').expect("it is in a folder");
        name != "README.md" && !sources.iter().any(|source| source.text.contains(name))
    }));
    assert_none("nothing uses these", wrong);
}

/// How long the line sleeps, when it does so for a span that is written there.
fn pause_ms(line: &str) -> Option<u64> {
    let (_, span) = line.split_once("thread::sleep(Duration::from_")?;
    let (unit, rest) = span.split_once('(')?;
    let (number, _) = rest.split_once(')')?;
    let number: u64 = number.replace('_', "").parse().ok()?;
    match unit {
        "secs" => Some(number * 1000),
        "millis" => Some(number),
        _ => None,
    }
}

#[test]
fn a_pause_in_a_test_has_its_reason_in_the_line_above() {
    let mut wrong = Vec::new();
    for source in sources_of("tests") {
        let mut above = "";
        let lines = source.text.lines().zip(source.code.lines());
        for (number, (line, code)) in lines.enumerate() {
            let is_long = pause_ms(code).is_some_and(|pause| pause >= PAUSE_MS);
            if is_long && !above.trim_start().starts_with("//") {
                wrong.push(format!("{}:{}", source.path, number + 1));
            }
            above = line;
        }
    }
    assert_none("wait for an event, or say why a span has to pass", wrong);
}

#[test]
fn pauses_are_seen() {
    let text = "std::thread::sleep(Duration::from_millis(1_500));";
    assert_eq!(pause_ms(text), Some(1500));
    let text = "None => return thread::sleep(Duration::from_secs(6)),";
    assert_eq!(pause_ms(text), Some(6000));
    for text in [
        "std::thread::sleep(Duration::from_micros(500));",
        "thread::sleep(DRAIN);",
    ] {
        assert_eq!(pause_ms(text), None);
    }
}
