//! The pages, and what a page of Markdown has: links, headings, code and tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn text(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page in Markdown, relative to the repository.
pub(super) fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    for directory in ["", "docs/"] {
        for entry in fs::read_dir(root().join(directory)).expect("it is there") {
            let name = entry.expect("it can be read").file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".md") {
                pages.push(format!("{directory}{name}"));
            }
        }
    }
    pages.sort();
    pages
}

/// Those that are about the program as it is used, and not about its code.
pub(super) fn manual() -> Vec<String> {
    let is_manual = |page: &String| page == "README.md" || page.starts_with("docs/");
    pages().into_iter().filter(is_manual).collect()
}

/// The targets of `[text](target)` outside code.
pub(super) fn links(page: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in outside_code(page) {
        for (nth, part) in line.split('`').enumerate() {
            // Between two backquotes is code, unless it is the text of a link.
            if nth % 2 == 0 {
                let targets = part.split("](").skip(1);
                links.extend(
                    targets.filter_map(|target| Some(target.split_once(')')?.0.to_owned())),
                );
            }
        }
    }
    links
}

/// The lines that are not in a fenced block.
pub(super) fn outside_code(page: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The anchors that GitHub gives the headings of a page, and those that a line sets itself.
pub(super) fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in outside_code(page) {
        let own = line.split("<a id=\"").skip(1);
        anchors.extend(own.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().chars().filter_map(|char| match char {
            ' ' => Some('-'),
            '-' | '_' => Some(char),
            char => char.is_alphanumeric().then(|| char.to_ascii_lowercase()),
        });
        let anchor: String = kept.collect();
        let nth = (1..).map(|nth| format!("{anchor}-{nth}"));
        let free = |anchor: &String| !anchors.contains(anchor);
        let free = std::iter::once(anchor.clone()).chain(nth).find(free);
        anchors.insert(free.expect("numbers do not end"));
    }
    anchors
}

/// The fenced blocks of a page with their languages.
pub(super) fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut is_code = false;
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_code = !is_code;
            if is_code {
                blocks.push((language.to_owned(), String::new()));
            }
        } else if is_code {
            let (_, block) = blocks.last_mut().expect("a block has begun");
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

/// The rows of the table under a heading: the cells of each, without backquotes.
pub(super) fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let section = lines.take_while(|line| !line.starts_with('#'));
    let rows = section.skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> {
        let cells = row.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().replace('`', "")).collect()
    };
    rows.map(cells).collect()
}

/// Whether the file is there and has a function of this name.
pub(super) fn has_function(file: &Path, function: &str) -> bool {
    let source = fs::read_to_string(file).unwrap_or_default();
    let begins = [format!("fn {function}("), format!("fn {function}<")];
    begins.iter().any(|begin| source.contains(begin.as_str()))
}

pub(super) fn inline_codes(page: &str) -> impl Iterator<Item = &str> {
    outside_code(page).flat_map(|line| line.split('`').skip(1).step_by(2))
}

pub(super) fn is_snake_case(word: &str) -> bool {
    word.contains('_')
        && word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// What begins with `--` behind `pointsman` in the blocks of a page.
pub(super) fn flags(page: &str) -> Vec<String> {
    let mut flags = Vec::new();
    for (_, block) in blocks(page) {
        let block = block.replace("\\\n", "");
        let commands = block.lines().filter(|line| line.starts_with("pointsman "));
        let words = commands.flat_map(|line| line.split(' '));
        flags.extend(
            words
                .filter(|word| word.starts_with("--"))
                .map(str::to_owned),
        );
    }
    flags
}
