//! Holds the dependencies to the licences and sources that deny.toml allows. cargo-deny looks at more
//! (`scripts/deny`), but takes minutes to install.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// What deny.toml allows.
struct Allowed {
    licenses: BTreeSet<String>,
    registries: BTreeSet<String>,
}

fn allowed() -> Allowed {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml"));
    let file: toml::Table = text.expect("deny.toml").parse().expect("it is TOML");
    let list = |section: &str, key: &str| {
        let list = file[section][key].as_array().expect("a list");
        let texts = list.iter().map(|entry| entry.as_str().expect("text"));
        texts.map(str::to_owned).collect()
    };
    Allowed {
        licenses: list("licenses", "allow"),
        registries: list("sources", "allow-registry"),
    }
}

/// Every package that a build for this machine may use, those of tests and of the benchmark too.
fn packages() -> Vec<Value> {
    let host = Command::new("rustc").arg("-vV").output().expect("rustc");
    let host = String::from_utf8(host.stdout).expect("ASCII");
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", host.expect("a line with the host")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    let complaint = String::from_utf8_lossy(&metadata.stderr);
    assert!(metadata.status.success(), "{complaint}");
    let mut metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let Value::Array(packages) = metadata["packages"].take() else {
        panic!("cargo lists no packages");
    };
    packages
}

/// Whether a choice that an SPDX expression leaves is allowed. Cargo's older spelling of OR is a slash.
fn permits(allowed: &BTreeSet<String>, expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let permitted = any_of(allowed, &mut words);
    permitted && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(allowed: &BTreeSet<String>, words: &mut Words<'_>) -> bool {
    let mut permitted = all_of(allowed, words);
    while words.next_if_eq(&"OR").is_some() {
        permitted |= all_of(allowed, words);
    }
    permitted
}

fn all_of(allowed: &BTreeSet<String>, words: &mut Words<'_>) -> bool {
    let mut permitted = one(allowed, words);
    while words.next_if_eq(&"AND").is_some() {
        permitted &= one(allowed, words);
    }
    permitted
}

fn one(allowed: &BTreeSet<String>, words: &mut Words<'_>) -> bool {
    let word = words.next().unwrap_or_default();
    if word == "(" {
        let permitted = any_of(allowed, words);
        return words.next() == Some(")") && permitted;
    }
    // An exception only adds to what a licence allows.
    if words.next_if_eq(&"WITH").is_some() {
        words.next();
    }
    // "Or any later version" includes this one.
    allowed.contains(word.trim_end_matches('+'))
}

#[test]
fn every_dependency_has_a_licence_and_a_source_that_are_allowed() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    let packages = packages();
    assert!(packages.len() > 100, "only {} packages", packages.len());
    for package in &packages {
        let name = format!("{} {}", package["name"], package["version"]);
        let license = package["license"].as_str().unwrap_or("none");
        if !permits(&allowed.licenses, license) {
            wrong.push(format!("{name} has the licence {license}"));
        }
        // The members of the workspace have none.
        if let Some(source) = package["source"].as_str() {
            let registry = source.strip_prefix("registry+").unwrap_or_default();
            if !allowed.registries.contains(registry) {
                wrong.push(format!("{name} comes from {source}"));
            }
        }
    }
    let wrong = wrong.join("\n");
    assert!(wrong.is_empty(), "not allowed by deny.toml:\n{wrong}");
}

#[test]
fn expressions_of_licences_are_understood() {
    let allowed = BTreeSet::from(["MIT", "ISC", "Zlib", "MPL-2.0"].map(str::to_owned));
    for yes in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "MIT AND ISC",
        "MPL-2.0+",
        "(GPL-3.0 OR MIT) AND Zlib",
        "ISC WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(permits(&allowed, yes), "{yes}");
    }
    for no in [
        "",
        "none",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(GPL-3.0 OR MIT) AND GPL-2.0",
        "(MIT",
        "MIT ISC",
    ] {
        assert!(!permits(&allowed, no), "{no}");
    }
}
