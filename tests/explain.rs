//! `pointsman explain`, as an operator runs it, and the pages of `docs/` that are made by it.

use std::process::{Command, Output};

fn explain(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("explain").args(arguments);
    // A wrong variable must not be in the way of who looks it up.
    command
        .env("POINTSMAN_DRAIN", "soon")
        .env("POINTSMAN_DRIAN", "1s");
    command.output().expect("it runs")
}

fn text(output: Output) -> String {
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn generated_pages_are_what_the_code_says() {
    for (page, kept) in [
        ("options", include_str!("../docs/options.md")),
        ("outcomes", include_str!("../docs/outcomes.md")),
    ] {
        let made = text(explain(&["--markdown", page]));
        let differs = made
            .lines()
            .zip(kept.lines())
            .find(|(made, kept)| made != kept);
        assert!(
            made == kept,
            "docs/{page}.md is stale, first at {differs:?}; make it again:\n\
             cargo run --quiet -- explain --markdown {page} > docs/{page}.md"
        );
    }
}

#[test]
fn an_outcome_says_what_happened_and_what_to_do() {
    let said = text(explain(&["backend_timeout"]));
    for part in [
        "what happened",
        "ended by       the backend",
        "504 Gateway Timeout",
        "internal_error (80)",
        "look at",
        "what to do",
        "--connect-deadline",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert!(said.lines().all(|line| line.len() <= 100), "{said}");
}

#[test]
fn an_option_says_its_default_its_bounds_and_an_example() {
    let said = text(explain(&["--head-deadline"]));
    for part in [
        "--head-deadline DURATION",
        "default        10s",
        "from 1ms to 1h",
        "POINTSMAN_HEAD_DEADLINE='5s'",
        "head-deadline = \"5s\"",
        "head_timeout",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert_eq!(text(explain(&["head-deadline"])), said);
    let both = text(explain(&["h2c", "--drain"]));
    assert!(
        both.contains("--h2c WORD") && both.contains("--drain DURATION"),
        "{both}"
    );
}

#[test]
fn alone_it_lists_what_there_is() {
    let list = text(explain(&[]));
    for word in ["head-deadline", "backend_timeout", "sni_empty"] {
        assert!(
            list.split_whitespace().any(|listed| listed == word),
            "{word}"
        );
    }
    assert!(!list.contains("debug-faults"));
}

#[test]
fn an_unknown_word_ends_with_2_and_a_hint() {
    for (word, hint) in [
        ("backend_timout", "did you mean backend_timeout?"),
        ("--haed-deadline", "did you mean head-deadline?"),
        ("qqq", "pointsman explain lists them all"),
    ] {
        let output = explain(&[word]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.starts_with("pointsman: ") && said.contains(hint),
            "{said}"
        );
        assert!(output.stdout.is_empty());
    }
}
