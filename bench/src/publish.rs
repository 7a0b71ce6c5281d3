//! Puts the costs of a run into the pages that show them: six scenarios into `README.md`, all of them
//! into `docs/benchmark.md`. Both name the run, so that every number leads to how it was measured.

use std::path::Path;
use std::{fs, io};

use crate::scenario::{self, Unit};

/// The lines before and after a table. The first of them also names the run.
const BEGIN: &str = "<!-- table: costs of ";
const BEGIN_CLOSED: &str = " -->";
const END: &str = "<!-- end of table -->";

/// By name, the scenarios that the README shows: one of each kind of work.
const README_SCENARIOS: [&str; 6] = [
    "connect",
    "exchange-64",
    "down-1",
    "http-keep",
    "http-close",
    "http-down-1",
];
/// This peer costs as much as pointsman in bulk. Only the page with the whole table shows and explains it.
const README_WITHOUT: &str = "haproxy-pipes";

/// Which part of the costs a page shows.
#[derive(Debug, Clone, Copy)]
enum Extent {
    /// Medians of a few scenarios.
    Short,
    /// Every scenario, with the smallest and the largest ratio.
    Whole,
}

const PAGES: [(&str, Extent); 2] = [
    ("README.md", Extent::Short),
    ("docs/benchmark.md", Extent::Whole),
];

/// Writes the costs of `run`, a directory below `repository`, into both pages.
///
/// # Errors
/// A page or the summary of the run cannot be read, or has not the expected form.
pub fn publish(run: &str, repository: &Path) -> io::Result<()> {
    for (page, extent) in PAGES {
        let path = repository.join(page);
        let text = fs::read_to_string(&path)?;
        let before = run_of(&text).ok_or_else(|| wrong(page, "has no table of costs"))?;
        let text = text.replace(before, run);
        fs::write(&path, with_table(&text, &table(run, repository, extent)?))?;
    }
    Ok(())
}

fn wrong(what: &str, problem: &str) -> io::Error {
    io::Error::other(format!("{what} {problem}"))
}

/// The run that a page names in front of its table.
fn run_of(page: &str) -> Option<&str> {
    Some(page.split_once(BEGIN)?.1.split_once(BEGIN_CLOSED)?.0)
}

/// The page with another table in the place of its own.
fn with_table(page: &str, table: &str) -> String {
    let begin = page.find(BEGIN).expect("the page names its run");
    let begin = begin + page[begin..].find('\n').map_or(0, |end| end + 1);
    let end = page[begin..]
        .find(END)
        .map_or(page.len(), |end| begin + end);
    [&page[..begin], table, &page[end..]].concat()
}

/// The costs out of the summary of a run.
fn table(run: &str, repository: &Path, extent: Extent) -> io::Result<String> {
    let summary = fs::read_to_string(repository.join(run).join("summary.md"))?;
    let mut rows = summary
        .lines()
        .skip_while(|line| !line.starts_with("| scenario, cost |"))
        .take_while(|line| line.starts_with('|'))
        .map(cells);
    let peers = rows.next().ok_or_else(|| wrong(run, "has no costs"))?;
    let is_shown = |peer: &&str| match extent {
        Extent::Short => **peer != *README_WITHOUT,
        Extent::Whole => true,
    };
    let columns: Vec<usize> = (1..peers.len())
        .filter(|column| is_shown(&peers[*column]))
        .collect();
    let titles = columns.iter().map(|column| title(peers[*column], &summary));
    let mut lines = vec![format!(
        "| scenario | {} |",
        titles.collect::<Vec<_>>().join(" | ")
    )];
    lines.push(format!("|---|{}", "---|".repeat(columns.len())));
    let scenarios = scenario::all();
    for row in rows.skip(1) {
        let Some(scenario) = scenarios.iter().find(|scenario| scenario.title == row[0]) else {
            continue;
        };
        let is_shown = match extent {
            Extent::Short => README_SCENARIOS.contains(&scenario.name),
            // A cost per second says nothing if proxies do different amounts of work in it.
            Extent::Whole => scenario.unit != Unit::Second,
        };
        if is_shown {
            let cells = columns.iter().map(|column| cell(row[*column], extent));
            lines.push(format!(
                "| {} | {} |",
                row[0],
                cells.collect::<Vec<_>>().join(" | ")
            ));
        }
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// A ratio as the page shows it; the summary has `**0.84** (0.82 to 0.86)`.
fn cell(text: &str, extent: Extent) -> &str {
    match extent {
        Extent::Short => text.split(' ').next().unwrap_or(text).trim_matches('*'),
        Extent::Whole => text,
    }
}

/// A peer with the version that took part.
fn title(peer: &str, summary: &str) -> String {
    let program = match peer {
        "haproxy" | "haproxy-splice" | "haproxy-pipes" => "HAProxy",
        peer => peer,
    };
    let way = match peer {
        "haproxy-splice" => " splicing",
        "haproxy-pipes" => " splicing, pipes of 2 MiB",
        _ => "",
    };
    let listed = format!("- {peer}: ");
    let version = summary.lines().find_map(|line| line.strip_prefix(&listed));
    format!(
        "{program} {}{way}",
        short_version(version.unwrap_or_default())
    )
}

/// The first two numbers of the first version in a text.
fn short_version(text: &str) -> String {
    let mut words = text.split(|char: char| !char.is_ascii_digit() && char != '.');
    let version = words.find(|word| word.starts_with(|char: char| char.is_ascii_digit()));
    let numbers = version.unwrap_or_default().split('.').take(2);
    numbers.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_show_the_costs_of_the_run_that_they_name() {
        let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        for (page, extent) in PAGES {
            let text = fs::read_to_string(repository.join(page)).expect("it is there");
            let run = run_of(&text).expect("it names a run");
            let table = table(run, repository, extent).expect("the run has costs");
            assert!(
                text == with_table(&text, &table),
                "{page} shows other costs; run scripts/bench --publish {run}"
            );
            assert!(
                text.contains(&format!("{run}/ratios.svg")),
                "{page} lacks the chart"
            );
        }
    }

    #[test]
    fn versions_are_shortened() {
        for (text, version) in [
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17", "2.6"),
            ("nginx version: nginx/1.22.1", "1.22"),
            ("sniproxy 0.6.0", "0.6"),
            ("", ""),
        ] {
            assert_eq!(short_version(text), version);
        }
    }
}
