//! Reads the sources and holds them to the rules that no compiler checks: which module may know
//! which, where unsafe code and the great dependencies may be named, and what each file owes its
//! reader.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file has one idea; one that is longer than this has several.
const LINES_MAX: usize = 500;

/// Where another thing than bytes and time handed in as arguments would come from, and what may
/// not be named in a pure module for that.
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

/// Modules and single files without socket, clock, environment and log. Of the configuration only
/// the first stage reads: what is typed, in a file or in the environment.
const PURE: [&str; 15] = [
    "src/due",
    "src/host",
    "src/refusal",
    "src/sniff",
    "src/http",
    "src/proxy_protocol",
    "src/route",
    "src/lookup",
    "src/reply",
    "src/metrics",
    "src/outcome",
    "src/protocol",
    "src/protect",
    "src/config/check",
    "src/relay/pace",
];

/// One file, as it is and with comments and literals blanked out.
struct Source {
    /// From the top of the package, such as `src/ring/mod.rs`.
    path: String,
    text: String,
    code: String,
}

impl Source {
    /// The module of the crate that it belongs to: `ring` for `src/ring/mod.rs`.
    fn module(&self) -> &str {
        let inner = self.path.strip_prefix("src/").expect("a file in src");
        let end = inner.find('/').unwrap_or(inner.len());
        inner[..end].trim_end_matches(".rs")
    }

    fn is_in(&self, place: &str) -> bool {
        let rest = self.path.strip_prefix(place);
        rest.is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    }

    /// The code without its unit tests, which may use whatever they need.
    fn code_without_tests(&self) -> &str {
        if self.path.contains("/tests/") || self.path.ends_with("/tests.rs") {
            return "";
        }
        let tests = self.code.find("#[cfg(test)]\nmod tests {");
        &self.code[..tests.unwrap_or(self.code.len())]
    }
}

fn sources_of(directory: &str) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = vec![top.join(directory)];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the package") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(top).expect("it is in the package");
                found.push(Source {
                    path: path.to_str().expect("an ASCII path").to_owned(),
                    code: without_comments_and_literals(&text),
                    text,
                });
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {directory}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The text with comments and the content of literals turned into blanks, line by line where it
/// was.
fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let blank = blank_length(rest, code.chars().next_back());
        if blank == 0 {
            let first = rest.chars().next().expect("it is not empty");
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let keep_lines = |c| if c == '\n' { '\n' } else { ' ' };
            code.extend(rest[..blank].chars().map(keep_lines));
            rest = &rest[blank..];
        }
    }
    code
}

/// How long the comment or literal is that `rest` begins with; 0 when it begins with neither.
fn blank_length(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if let Some(inner) = rest.strip_prefix('"') {
        return 1 + quoted_length(inner, '"');
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with('r') && !in_word {
        let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
        if rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let from = 2 + hashes;
            let found = rest[from..].find(&end);
            return found.map_or(rest.len(), |at| from + at + end.len());
        }
    }
    if rest.starts_with("'\\") {
        return 1 + quoted_length(&rest[1..], '\'');
    }
    // One character between quotes; a lifetime has no second quote.
    let mut characters = rest.char_indices();
    if rest.starts_with('\'')
        && let Some((end, '\'')) = characters.nth(2)
    {
        return end + 1;
    }
    0
}

/// The length up to and with the quote that ends a literal.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether `word` stands in the code by itself and not as a part of a longer name.
fn names(code: &str, word: &str) -> bool {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(of_word) && !after.is_some_and(of_word)
    })
}

/// Whether a path in the code begins with `dependency`.
fn names_dependency(code: &str, dependency: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let paths = format!("{dependency}::");
    code.match_indices(&paths)
        .any(|(at, _)| !code[..at].chars().next_back().is_some_and(inside))
}

/// The modules of the crate that the code names by `crate::`, alone or in braces.
fn modules_named(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let of_word = |c: &char| c.is_alphanumeric() || *c == '_';
        text.chars().take_while(of_word).collect()
    };
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            None => found.push(name(rest)),
            Some(list) => found.extend(first_names(list).into_iter().map(name)),
        }
    }
    found
}

/// The entries of a list in braces, each from its first character on.
fn first_names(list: &str) -> Vec<&str> {
    let mut entries = Vec::new();
    let mut depth = 0;
    let mut from = Some(0);
    for (at, character) in list.char_indices() {
        if !character.is_whitespace()
            && let Some(start) = from.take()
        {
            entries.push(list[start..].trim_start());
        }
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => from = Some(at + 1),
            _ => {}
        }
    }
    entries
}

/// Layer by module, out of the table in the documentation of the crate.
fn layers(root: &Source) -> BTreeMap<String, u32> {
    let mut layers = BTreeMap::new();
    for line in root.text.lines() {
        let Some(row) = line.strip_prefix("//! | ") else {
            continue;
        };
        let Some(layer) = row.chars().next().and_then(|c| c.to_digit(10)) else {
            continue;
        };
        for module in row.split('`').skip(1).step_by(2) {
            let before = layers.insert(module.to_owned(), layer);
            assert_eq!(before, None, "{module} is in two layers");
        }
    }
    layers
}

fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn imports_go_only_downward() {
    let sources = sources_of("src");
    let root = sources.iter().find(|source| source.path == "src/lib.rs");
    let layers = layers(root.expect("the crate has a root"));
    let mut wrong = Vec::new();
    for source in &sources {
        let module = source.module();
        // These two put the rest together.
        if module == "main" || module == "lib" {
            continue;
        }
        let Some(layer) = layers.get(module) else {
            panic!("`{module}` is missing in the table of layers in src/lib.rs");
        };
        for named in modules_named(&source.code) {
            match layers.get(&named) {
                Some(of_named) if of_named <= layer => {}
                Some(of_named) => wrong.push(format!(
                    "{} (layer {layer}) names {named} (layer {of_named})",
                    source.path
                )),
                None => wrong.push(format!("{} names crate::{named}", source.path)),
            }
        }
        // In the root of a module `super` is the crate, which `crate` says and is looked at above.
        let is_root_of_module =
            source.path.matches('/').count() == 1 || source.path == format!("src/{module}/mod.rs");
        for other in layers.keys().filter(|_| is_root_of_module) {
            if names(&source.code, &format!("super::{other}")) {
                wrong.push(format!("{} names super::{other}", source.path));
            }
        }
    }
    assert_none("imports only go downward", wrong);
    for module in layers.keys() {
        let exists = sources.iter().any(|source| source.module() == module);
        assert!(
            exists,
            "the table of layers lists `{module}`, which is not there"
        );
    }
}

#[test]
fn each_great_dependency_is_named_in_one_place() {
    let mut wrong = Vec::new();
    for source in sources_of("src") {
        for (dependency, home) in [
            ("glommio", "src/core"),
            ("redis", "src/sync"),
            ("io_uring", "src/ring"),
            ("hickory_resolver", "src/sync"),
        ] {
            if names_dependency(&source.code, dependency) && !source.is_in(home) {
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
        if !PURE.iter().any(|place| source.is_in(place)) {
            continue;
        }
        let code = source.code_without_tests();
        for impure in IMPURE {
            if names(code, impure) {
                wrong.push(format!("{} names {impure}", source.path));
            }
        }
    }
    assert_none("bytes and time come in as arguments", wrong);
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

#[test]
fn the_reader_of_sources_sees_code_only() {
    let text = concat!(
        "use crate::{a::b, c, d::{e, f}}; // crate::comment\n",
        "let s = \"crate::text \\\" // \"; let r = r#\"crate::raw\"#; let c = '\"';\n",
        "/* crate::block */ fn f<'a>(x: &'a str) { crate::g::h() }\n",
        "let u = '\\''; crate::i\n",
    );
    let code = without_comments_and_literals(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert_eq!(modules_named(&code), ["a", "c", "d", "g", "i"]);
    assert!(names("x unsafe {", "unsafe"));
    assert!(!names("deny(unsafe_code)", "unsafe"));
    assert!(names_dependency("use redis::Client;", "redis"));
    assert!(!names_dependency(
        "use super::redis::Client; my_redis::f()",
        "redis"
    ));
}
