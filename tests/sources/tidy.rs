//! Rules of layout, and of tests that only wait.

use super::assert_none;
use super::source::{Source, sources_of};

/// A pause from which on a test says why it cannot wait for an event instead.
const PAUSE_MS: u64 = 100;

fn all_sources() -> impl Iterator<Item = Source> {
    ["src", "tests", "bench/src"]
        .into_iter()
        .flat_map(sources_of)
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
