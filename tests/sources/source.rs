//! One source file, and how the rules read it: without comments, literals and unit tests.

use std::fs;
use std::path::{Path, PathBuf};

/// One file, as it is and with comments and literals blanked out.
pub(crate) struct Source {
    /// From the top of the package, such as `src/ring/mod.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            code: without_comments_and_literals(text),
            text: text.to_owned(),
        }
    }

    /// Its path in the crate: `ring::wheel` for `src/ring/wheel.rs`, `ring` for `src/ring/mod.rs`, and
    /// nothing for the root.
    pub(crate) fn module_path(&self) -> String {
        let inner = self.path.strip_prefix("src/").expect("a file in src");
        let inner = inner.strip_suffix(".rs").expect("a source file");
        let inner = inner.strip_suffix("/mod").unwrap_or(inner);
        if ["lib", "main"].contains(&inner) {
            return String::new();
        }
        inner.replace('/', "::")
    }

    /// The modules in files of their own that only tests have.
    pub(crate) fn test_modules(&self) -> impl Iterator<Item = &str> {
        let marked = self.code.split("#[cfg(test)]").skip(1);
        marked.filter_map(|after| {
            let (item, _) = after.split_once([';', '{'])?;
            let name = item
                .split_whitespace()
                .skip_while(|word| *word != "mod")
                .nth(1)?;
            after[item.len()..].starts_with(';').then_some(name)
        })
    }

    pub(crate) fn is_in(&self, place: &str) -> bool {
        let rest = self.path.strip_prefix(place);
        rest.is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    }

    /// The code without its unit tests, which may use whatever they need.
    pub(crate) fn code_without_tests(&self) -> &str {
        let ends = ["/tests.rs", "/models.rs"];
        if self.path.contains("/tests/") || ends.iter().any(|end| self.path.ends_with(end)) {
            return "";
        }
        let marks = self.code.match_indices("#[cfg(test)]");
        let mut tests = marks.filter(|(at, mark)| {
            let (item, _) = self.code[at + mark.len()..]
                .split_once('{')
                .unwrap_or_default();
            item.trim_end().ends_with("mod tests")
        });
        let end = tests.next().map_or(self.code.len(), |(at, _)| at);
        &self.code[..end]
    }
}

pub(crate) fn sources_of(directory: &str) -> Vec<Source> {
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
                found.push(Source::new(path.to_str().expect("an ASCII path"), &text));
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
pub(crate) fn names(code: &str, word: &str) -> bool {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(of_word) && !after.is_some_and(of_word)
    })
}

#[test]
fn comments_and_literals_are_blanked() {
    let text = concat!(
        "use a; // comment\n",
        "let s = \"text \\\" // \"; let r = r#\"raw\"#; let c = '\"';\n",
        "/* block */ fn f<'a>(x: &'a str) { g::h() }\n",
        "let u = '\\''; i\n",
    );
    let code = without_comments_and_literals(text);
    assert_eq!(code.lines().count(), text.lines().count());
    let words: Vec<&str> = code.split_whitespace().collect();
    let expected =
        "use a; let s = ; let r = ; let c = ; fn f<'a>(x: &'a str) { g::h() } let u = ; i";
    assert_eq!(words.join(" "), expected);
    assert!(names("x unsafe {", "unsafe"));
    assert!(!names("deny(unsafe_code)", "unsafe"));
}
