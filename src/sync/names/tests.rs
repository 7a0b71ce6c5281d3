//! Which name is asked for when, without asking anybody.

use super::*;
use crate::protocol::Protocol;
use crate::route::Registry;

const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn book(ttl_max: Duration) -> Book {
    Book::new(5 * SECOND, ttl_max, BackendPolicy::default())
}

/// Everything that is to be asked for now.
fn due(book: &mut Book, now: Instant) -> Vec<Question> {
    std::iter::from_fn(|| book.ask(now)).collect()
}

/// The one that is.
fn only(book: &mut Book, now: Instant) -> Question {
    let mut due = due(book, now);
    assert_eq!(due.len(), 1);
    due.pop().unwrap()
}

/// Takes care of numbered names.
fn adopt(
    book: &mut Book,
    registry: &mut Registry,
    prefix: &str,
    count: usize,
    now: Instant,
) -> Vec<Arc<Backend>> {
    let numbered = (0..count).map(|number| {
        let backend = registry.intern(&format!("{prefix}{number}.test")).unwrap();
        book.adopt(&backend, now);
        backend
    });
    numbered.collect()
}

#[test]
fn an_answer_reaches_every_backend_and_lasts_its_ttl_within_bounds() {
    let start = Instant::now();
    let mut registry = Registry::new();
    let mut book = book(300 * SECOND);
    let one = registry.intern("app.test:1").unwrap();
    book.adopt(&one, start);
    book.adopt(&one, start);
    let question = only(&mut book, start);
    assert!(due(&mut book, start).is_empty());
    let addresses = vec![ip("::1"), ip("10.0.0.1")];
    assert!(book.answer(&question, addresses, SECOND, start));
    assert_eq!(one.address_count(), 2);
    assert_eq!(book.next(), Some(start + 5 * SECOND), "the lower bound");
    let two = registry.intern("app.test:2").unwrap();
    book.adopt(&two, start);
    assert_eq!(two.address_count(), 2, "known addresses at once");
    assert!(two.address(Protocol::Tls, 0).is_some());
    let later = start + 5 * SECOND;
    let question = only(&mut book, later);
    let turned = vec![ip("10.0.0.1"), ip("::1")];
    assert!(!book.answer(&question, turned, 900 * SECOND, later));
    assert_eq!(book.next(), Some(later + 300 * SECOND), "the upper bound");
}

#[test]
fn addresses_where_no_backend_may_be_are_left_out() {
    let mut now = Instant::now();
    let mut registry = Registry::new();
    let mut book = book(5 * SECOND);
    let backend = registry.intern("app.test:1").unwrap();
    book.adopt(&backend, now);
    for (answer, usable, denied) in [
        (&["169.254.169.254", "10.0.0.1", "fe80::1"][..], 1, 1),
        (&["169.254.169.254"], 0, 1),
        (&["10.0.0.1"], 1, 0),
    ] {
        let question = only(&mut book, now);
        let answer = answer.iter().map(|text| ip(text)).collect();
        assert!(book.answer(&question, answer, SECOND, now));
        assert_eq!(backend.address_count(), usable);
        let counts = book.counts();
        assert_eq!((counts.denied, counts.unresolved), (denied, 1 - usable));
        now = book.next().unwrap();
    }
}

#[test]
fn failures_keep_the_last_addresses_and_back_off() {
    let mut now = Instant::now();
    let mut registry = Registry::new();
    let mut book = book(60 * SECOND);
    let backend = registry.intern("app.test").unwrap();
    book.adopt(&backend, now);
    let is = |unresolved, failing, unsettled| Counts {
        unresolved,
        failing,
        denied: 0,
        unsettled,
    };
    assert_eq!(book.counts(), is(1, 0, 1));
    let question = only(&mut book, now);
    book.answer(&question, vec![ip("10.0.0.1")], SECOND, now);
    assert_eq!(book.counts(), is(0, 0, 0));
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        now = book.next().unwrap();
        let question = only(&mut book, now);
        book.fail(&question, now);
        assert_eq!(book.next(), Some(now + pause * SECOND));
    }
    assert_eq!((backend.address_count(), book.counts()), (1, is(0, 1, 0)));
    drop((backend, registry));
    assert_eq!(book.ask(book.next().unwrap()), None);
    assert_eq!(book.next(), None, "a name without backends is forgotten");
    assert_eq!((book.names.len(), book.counts()), (0, Counts::default()));
}

#[test]
fn never_asked_names_go_before_all_that_are_due() {
    let start = Instant::now();
    let mut registry = Registry::new();
    let mut book = book(300 * SECOND);
    let old = adopt(&mut book, &mut registry, "old", 2, start);
    for question in due(&mut book, start) {
        book.answer(&question, vec![ip("10.0.0.1")], SECOND, start);
    }
    let later = start + 100 * SECOND;
    let new = adopt(&mut book, &mut registry, "new", LOOKUPS_MAX + 1, later);
    let first = due(&mut book, later);
    assert_eq!(first.len(), LOOKUPS_MAX);
    assert!(
        first
            .iter()
            .all(|question| question.name.starts_with("new"))
    );
    for question in &first {
        book.answer(question, vec![ip("10.0.0.1")], SECOND, later);
    }
    let then: Vec<Question> = due(&mut book, later);
    let names: Vec<&str> = then.iter().map(|question| &*question.name).collect();
    let last_new = format!("new{LOOKUPS_MAX}.test");
    assert_eq!(names, [&last_new, "old0.test", "old1.test"]);
    drop((old, new));
}

#[test]
fn dead_names_take_nothing_from_the_living() {
    let mut now = Instant::now();
    let mut registry = Registry::new();
    let mut book = book(300 * SECOND);
    let dead = adopt(&mut book, &mut registry, "dead", 1000, now);
    let alive = adopt(&mut book, &mut registry, "alive", 1000, now);
    let mut under_way = Vec::new();
    let mut rounds = 0;
    // Nobody answers for the dead, with patience or without; the living are answered at once.
    while alive.iter().any(|backend| backend.address_count() == 0) {
        rounds += 1;
        assert!(rounds < 200, "the living wait for the dead");
        for question in due(&mut book, now) {
            match (question.name.starts_with("dead"), question.is_patient) {
                (false, _) => {
                    book.answer(&question, vec![ip("10.0.0.1")], SECOND, now);
                }
                (true, false) => book.set_slow(&question, now),
                (true, true) => under_way.push(question),
            }
        }
        now += Duration::from_millis(10);
    }
    assert_eq!(under_way.len(), FAILING_LOOKUPS_MAX);
    assert_eq!(book.counts().unresolved, dead.len());
    // When all of the living are due again they are asked for at once, beside the dead.
    now += 10 * SECOND;
    assert_eq!(due(&mut book, now).len(), RENEWALS_MAX);
    for question in &under_way {
        book.fail(question, now);
    }
    let next = due(&mut book, now);
    assert_eq!(next.len(), FAILING_LOOKUPS_MAX);
    assert!(next.iter().all(|question| question.is_patient));
}

#[test]
fn renewing_has_its_bounds_however_many_names_are_due() {
    let start = Instant::now();
    let mut registry = Registry::new();
    let mut book = book(300 * SECOND);
    let kept = adopt(&mut book, &mut registry, "a", 3000, start);
    let file_due = |book: &mut Book, now: Instant| {
        let mut count = 0;
        while let Some(question) = book.ask(now) {
            book.answer(&question, vec![ip("10.0.0.1")], SECOND, now);
            count += 1;
        }
        count
    };
    assert_eq!(file_due(&mut book, start), 3000, "the first time is free");
    let mut now = start + 100 * SECOND;
    let end = now + SECOND;
    let mut asked = 0;
    while now < end {
        asked += file_due(&mut book, now);
        now = book.next().unwrap();
    }
    assert_eq!(asked, 1000);
    drop(kept);
}

#[test]
fn after_another_server_is_named_all_names_are_asked_for_as_if_none_had_failed() {
    let start = Instant::now();
    let mut registry = Registry::new();
    let mut book = book(300 * SECOND);
    let kept = adopt(&mut book, &mut registry, "a", 3, start);
    let questions = due(&mut book, start);
    book.answer(&questions[0], vec![ip("10.0.0.1")], 300 * SECOND, start);
    book.fail(&questions[1], start);
    book.expire_all(start);
    let names: Vec<Question> = due(&mut book, start);
    let order: Vec<&str> = names.iter().map(|question| &*question.name).collect();
    // The third is still being asked for.
    assert_eq!(order, ["a1.test", "a0.test"]);
    assert!(names.iter().all(|question| !question.is_patient));
    drop(kept);
}
