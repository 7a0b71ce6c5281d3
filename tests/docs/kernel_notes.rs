//! `kernel-notes.md`: the files, tests and commands that it names exist, and every entry says what
//! depends on it.

use super::page::{has_function, is_snake_case, root, text};

/// Where paths begin.
const DIRECTORIES: [&str; 5] = ["src/", "tests/", "scripts/", "bench/", "docs/"];
/// A name with as many underscores is a test's.
const UNDERSCORES_OF_TEST: usize = 4;

#[test]
fn the_kernel_notes_name_what_exists() {
    let notes = text("kernel-notes.md");
    let mut tests = 0;
    let mut wrong = Vec::new();
    // A command may go on in the next line.
    for code in notes.split('`').skip(1).step_by(2) {
        let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
        tests += usize::from(code.contains(".rs: "));
        wrong.extend(problem(&code).map(|problem| format!("{code}: {problem}")));
    }
    assert!(tests > 30, "only {tests} tests were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with a piece of code in the notes.
fn problem(code: &str) -> Option<String> {
    if let Some((file, function)) = code.split_once(".rs: ") {
        let file = root().join(format!("{file}.rs"));
        return (!has_function(&file, function)).then(|| "no such function".to_owned());
    }
    let underscores = code.bytes().filter(|byte| *byte == b'_').count();
    if is_snake_case(code) && underscores >= UNDERSCORES_OF_TEST {
        return Some("write FILE: TEST".to_owned());
    }
    if code.contains("::") {
        return Some("write the path of a file".to_owned());
    }
    let mut words = code.split(' ');
    let path = words.find(|word| DIRECTORIES.iter().any(|begin| word.starts_with(begin)))?;
    if !root().join(path).exists() {
        return Some(format!("{path} does not exist"));
    }
    (path == "scripts/bench").then(|| problem_of_bench(words))?
}

/// `scripts/bench SCENARIO ... --OPTION ...`.
fn problem_of_bench<'w>(words: impl Iterator<Item = &'w str>) -> Option<String> {
    let scenarios = text("bench/src/scenario.rs");
    let options = text("bench/src/options.rs");
    let mut is_scenario = true;
    for word in words {
        let option = word.strip_prefix("--");
        is_scenario &= option.is_none();
        let (name, source) = match option {
            Some(option) => (option, &options),
            None if is_scenario => (word, &scenarios),
            None => continue,
        };
        if !source.contains(&format!("\"{name}\"")) {
            return Some(format!("scripts/bench knows no {name}"));
        }
    }
    None
}

#[test]
fn every_kernel_note_says_what_depends_on_it() {
    let notes = text("kernel-notes.md");
    let (entries, dropped) = notes
        .split_once("## Tried and dropped")
        .expect("there is such a section");
    assert!(!dropped.contains("- Used by:"));
    let without: Vec<&str> = entries
        .split("\n### ")
        .skip(1)
        .filter(|entry| !entry.contains("\n- Used by: `"))
        .filter_map(|entry| entry.lines().next())
        .collect();
    assert!(without.is_empty(), "no user is named: {without:?}");
}
