//! Reads the sources and holds them to the rules that no compiler checks: which module may know
//! which, where unsafe code and the great dependencies may be named, and what each file owes its
//! reader.

mod graph;
mod paths;
mod source;
mod tidy;

use std::collections::{BTreeMap, BTreeSet};

use graph::Graph;
use paths::paths;
use source::{Source, names, sources_of};

/// A file has one idea; one that is longer than this has several.
const LINES_MAX: usize = 500;

/// What a pure module may not name: sources of anything but the bytes and the time that are handed to
/// it as arguments.
const IMPURE: [&str; 13] = [
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "Instant::now",
    "SystemTime::now",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "tracing",
    "fastrand::Rng::new",
];

/// Modules and single files without socket, clock, environment and log.
const PURE: &[&str] = &[
    "src/due",
    "src/health",
    "src/host",
    "src/quantity",
    "src/refusal",
    "src/sniff",
    "src/http",
    "src/proxy_protocol",
    "src/route",
    "src/lookup",
    "src/explain",
    "src/reply",
    "src/metrics",
    "src/outcome",
    "src/protocol",
    "src/protect",
    "src/config",
    "src/relay/pace",
    "src/relay/chunk_run",
];

/// The one file in them that may read files: the first stage of the configuration.
const READS_FILES: &str = "src/config/files";

/// Number by module, out of the table in the documentation of the crate.
fn numbers(root: &Source) -> BTreeMap<String, u32> {
    let mut numbers = BTreeMap::new();
    for line in root.text.lines() {
        let cells = line
            .strip_prefix("//! |")
            .map(|row| row.split('|').collect::<Vec<_>>());
        let Some([number, modules, ..]) = cells.as_deref() else {
            continue;
        };
        let Ok(number) = number.trim().parse() else {
            continue;
        };
        for module in modules.split('`').skip(1).step_by(2) {
            let before = numbers.insert(module.to_owned(), number);
            assert_eq!(before, None, "{module} has two numbers");
        }
    }
    numbers
}

fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn modules_import_only_lower_numbers() {
    let sources = sources_of("src");
    let root = sources.iter().find(|source| source.path == "src/lib.rs");
    let numbers = numbers(root.expect("the crate has a root"));
    let graph = Graph::of(&sources);
    let listed: BTreeSet<&str> = numbers.keys().map(String::as_str).collect();
    assert_eq!(
        listed,
        graph.modules(),
        "the table in src/lib.rs has every module"
    );
    let found = graph.not_downward(&numbers).into_iter();
    let wrong = found.map(|((from, to), files)| format!("{from} -> {to}: {}", files.join(", ")));
    assert_none("imports go only to lower numbers", wrong.collect());
}

#[test]
fn no_files_of_a_module_import_each_other_in_a_circle() {
    let circles = Graph::of(&sources_of("src")).circles().into_iter();
    let wrong =
        circles.map(|(module, imports)| format!("{module}:\n    {}", imports.join("\n    ")));
    assert_none(
        "files of one module import each other in no circle",
        wrong.collect(),
    );
}

#[test]
fn each_great_dependency_is_named_in_one_place() {
    let mut wrong = Vec::new();
    for source in sources_of("src") {
        for (dependency, home) in [
            ("glommio", "src/worker"),
            ("redis", "src/sync"),
            ("io_uring", "src/ring"),
            ("hickory_resolver", "src/sync"),
        ] {
            let named = paths(&source.code).iter().any(|path| path[0] == dependency);
            if named && !source.is_in(home) {
                wrong.push(format!("{} names {dependency}", source.path));
            }
        }
    }
    assert_none("this dependency belongs elsewhere", wrong);
}

#[test]
fn unsafe_code_is_only_where_the_kernel_is_called() {
    let mut wrong = Vec::new();
    let mut exceptions = 0;
    for source in sources_of("src") {
        let is_kernel_layer = source.is_in("src/ring") || source.is_in("src/sys");
        if names(&source.code, "unsafe") && !is_kernel_layer {
            wrong.push(source.path.clone());
        }
        let lifted = source.code.matches("allow(unsafe_code)").count();
        match source.path.as_str() {
            "src/lib.rs" => exceptions = lifted,
            _ if lifted > 0 => wrong.push(format!("{} allows it itself", source.path)),
            _ => {}
        }
        if source.path == "src/lib.rs" {
            assert!(source.code.contains("#![deny(unsafe_code)]"));
        }
    }
    assert_none("unsafe only in src/ring and src/sys", wrong);
    assert_eq!(
        exceptions, 2,
        "src/lib.rs allows unsafe code for ring and sys"
    );
}

#[test]
fn what_is_pure_has_no_socket_clock_environment_or_log() {
    let mut wrong = Vec::new();
    for source in sources_of("src") {
        if source.is_in(READS_FILES) || !PURE.iter().any(|place| source.is_in(place)) {
            continue;
        }
        wrong.extend(impure(&source).map(|named| format!("{} names {named}", source.path)));
    }
    assert_none("bytes and time come in as arguments", wrong);
    for place in PURE.iter().copied().chain([READS_FILES]) {
        assert!(
            sources_of("src").iter().any(|source| source.is_in(place)),
            "{place} is not there"
        );
    }
}

/// What of [`IMPURE`] the code names, in one piece or by a list in braces.
fn impure(source: &Source) -> impl Iterator<Item = &'static str> {
    let code = source.code_without_tests();
    let paths = paths(code);
    IMPURE.into_iter().filter(move |impure| {
        let wanted: Vec<&str> = impure.split("::").collect();
        let is_there = |path: &Vec<&str>| path.windows(wanted.len()).any(|part| part == wanted);
        paths.iter().any(is_there) || names(code, impure)
    })
}

#[test]
fn a_planted_impurity_is_found_in_every_form() {
    for (text, named) in [
        ("use std::fs;", "std::fs"),
        ("use std::{fs};", "std::fs"),
        ("use std::{\n    io,\n    fs::{self, File},\n};", "std::fs"),
        ("fn f() { std::env::var(\"HOME\") }", "std::env"),
        (
            "use std::time::{Duration, Instant};\nfn f() { Instant::now() }",
            "Instant::now",
        ),
        ("use std::net::*;\nfn f(s: TcpStream) {}", "TcpStream"),
        ("fn f() { tracing::info!(\"x\") }", "tracing"),
    ] {
        let found: Vec<&str> = impure(&Source::new("src/pure.rs", text)).collect();
        assert_eq!(found, [named], "{text}");
    }
    let pure =
        "// std::fs\nuse std::{io, time::Instant};\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}";
    assert_eq!(impure(&Source::new("src/pure.rs", pure)).count(), 0);
}

#[test]
fn every_file_says_why_it_exists_and_has_one_idea() {
    let mut wrong = Vec::new();
    for source in sources_of("src").into_iter().chain(sources_of("tests")) {
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{} does not open with //!", source.path));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX && source.path.starts_with("src/") {
            wrong.push(format!("{} has {lines} lines", source.path));
        }
    }
    assert_none("a file has one idea and says which", wrong);
}

#[test]
fn nothing_is_left_for_later() {
    let mut wrong = Vec::new();
    for source in sources_of("src").into_iter().chain(sources_of("tests")) {
        for left in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
            if source.code.contains(left) {
                wrong.push(format!("{} has {left}", source.path));
            }
        }
        for mark in ["TODO", "FIXME", "XXX"] {
            if source.text.contains(&format!("// {mark}")) {
                wrong.push(format!("{} has {mark}", source.path));
            }
        }
    }
    assert_none("what is not finished does not land", wrong);
}
