//! The table of outcomes, as a whole.

use crate::outcome::Outcome;

#[test]
fn index_is_the_position_in_all_and_names_are_unique() {
    let all: Vec<Outcome> = Outcome::all().collect();
    assert_eq!(all.len(), Outcome::COUNT);
    for (position, outcome) in all.iter().enumerate() {
        assert_eq!(outcome.index(), position);
    }
    let mut names: Vec<&str> = all.iter().map(|outcome| outcome.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Outcome::COUNT);
}

#[test]
fn every_outcome_says_what_happened_and_what_to_do() {
    for outcome in Outcome::all() {
        let explained = format!("{}; {}", outcome.cause(), outcome.remedy());
        assert_eq!(outcome.explain(), explained, "{outcome:?}");
        assert!(!outcome.look().is_empty(), "{outcome:?}");
    }
}

#[test]
fn every_status_has_its_reason_phrase() {
    for error in Outcome::all().filter_map(|outcome| outcome.response().http) {
        assert!(
            !error.reason().is_empty() && error.sentence.ends_with('.'),
            "{error:?}"
        );
    }
}
