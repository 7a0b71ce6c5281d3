//! Which name is looked up when, without a name server.

use super::*;
use crate::protocol::Protocol;
use crate::route::{Member, Registry};

const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cache(ttl_max: Duration) -> DnsCache {
    DnsCache::new(5 * SECOND, ttl_max, AddressPolicy::default())
}

/// All names that are to be looked up now.
fn due(cache: &mut DnsCache, now: Instant) -> Vec<Question> {
    std::iter::from_fn(|| cache.next_question(now)).collect()
}

/// The only name that is to be looked up now.
fn only(cache: &mut DnsCache, now: Instant) -> Question {
    let mut due = due(cache, now);
    assert_eq!(due.len(), 1);
    due.pop().unwrap()
}

/// Adds backends with numbered names.
fn add_backends(
    cache: &mut DnsCache,
    registry: &mut Registry,
    prefix: &str,
    count: usize,
    now: Instant,
) -> Vec<Arc<Backend>> {
    let numbered = (0..count).map(|number| {
        let backend = registry
            .endpoint(Member::parse(&format!("{prefix}{number}.test")).unwrap())
            .backend;
        cache.add_backend(&backend, now);
        backend
    });
    numbered.collect()
}

#[test]
fn an_answer_reaches_every_backend_and_lasts_its_ttl_within_bounds() {
    let start = Instant::now();
    let mut registry = Registry::default();
    let mut cache = cache(300 * SECOND);
    let one = registry
        .endpoint(Member::parse("app.test:1").unwrap())
        .backend;
    cache.add_backend(&one, start);
    cache.add_backend(&one, start);
    let question = only(&mut cache, start);
    assert!(due(&mut cache, start).is_empty());
    let addresses = vec![ip("::1"), ip("10.0.0.1")];
    assert!(cache.set_answer(&question, addresses, SECOND, start));
    assert_eq!(one.address_count(), 2);
    assert_eq!(
        cache.next_due(),
        Some(start + 5 * SECOND),
        "the lower bound"
    );
    let two = registry
        .endpoint(Member::parse("app.test:2").unwrap())
        .backend;
    cache.add_backend(&two, start);
    assert_eq!(two.address_count(), 2, "known addresses at once");
    assert!(two.address(Protocol::Tls, 0).is_some());
    let later = start + 5 * SECOND;
    let question = only(&mut cache, later);
    let turned = vec![ip("10.0.0.1"), ip("::1")];
    assert!(!cache.set_answer(&question, turned, 900 * SECOND, later));
    assert_eq!(
        cache.next_due(),
        Some(later + 300 * SECOND),
        "the upper bound"
    );
}

#[test]
fn addresses_that_no_backend_may_have_are_left_out() {
    let mut now = Instant::now();
    let mut registry = Registry::default();
    let mut cache = cache(5 * SECOND);
    let backend = registry
        .endpoint(Member::parse("app.test:1").unwrap())
        .backend;
    cache.add_backend(&backend, now);
    for (answer, usable, denied) in [
        (&["169.254.169.254", "10.0.0.1", "fe80::1"][..], 1, 1),
        (&["169.254.169.254"], 0, 1),
        (&["10.0.0.1"], 1, 0),
    ] {
        let question = only(&mut cache, now);
        let answer = answer.iter().map(|text| ip(text)).collect();
        assert!(cache.set_answer(&question, answer, SECOND, now));
        assert_eq!(backend.address_count(), usable);
        let counts = cache.counts();
        assert_eq!((counts.denied, counts.unresolved), (denied, 1 - usable));
        now = cache.next_due().unwrap();
    }
}

#[test]
fn failures_keep_the_last_addresses_and_back_off() {
    let mut now = Instant::now();
    let mut registry = Registry::default();
    let mut cache = cache(60 * SECOND);
    let backend = registry
        .endpoint(Member::parse("app.test").unwrap())
        .backend;
    cache.add_backend(&backend, now);
    let is = |unresolved, failing, pending| Counts {
        unresolved,
        failing,
        denied: 0,
        pending,
    };
    assert_eq!(cache.counts(), is(1, 0, 1));
    let question = only(&mut cache, now);
    cache.set_answer(&question, vec![ip("10.0.0.1")], SECOND, now);
    assert_eq!(cache.counts(), is(0, 0, 0));
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        now = cache.next_due().unwrap();
        let question = only(&mut cache, now);
        cache.set_failure(&question, now);
        assert_eq!(cache.next_due(), Some(now + pause * SECOND));
    }
    assert_eq!((backend.address_count(), cache.counts()), (1, is(0, 1, 0)));
    drop((backend, registry));
    assert_eq!(cache.next_question(cache.next_due().unwrap()), None);
    assert_eq!(
        cache.next_due(),
        None,
        "a name without backends is forgotten"
    );
    assert_eq!((cache.names.len(), cache.counts()), (0, Counts::default()));
}

#[test]
fn new_names_go_before_all_others() {
    let start = Instant::now();
    let mut registry = Registry::default();
    let mut cache = cache(300 * SECOND);
    let old = add_backends(&mut cache, &mut registry, "old", 2, start);
    for question in due(&mut cache, start) {
        cache.set_answer(&question, vec![ip("10.0.0.1")], SECOND, start);
    }
    let later = start + 100 * SECOND;
    let new = add_backends(&mut cache, &mut registry, "new", LOOKUPS_MAX + 1, later);
    let first = due(&mut cache, later);
    assert_eq!(first.len(), LOOKUPS_MAX);
    assert!(
        first
            .iter()
            .all(|question| question.name.starts_with("new"))
    );
    for question in &first {
        cache.set_answer(question, vec![ip("10.0.0.1")], SECOND, later);
    }
    let then: Vec<Question> = due(&mut cache, later);
    let names: Vec<&str> = then.iter().map(|question| &*question.name).collect();
    let last_new = format!("new{LOOKUPS_MAX}.test");
    assert_eq!(names, [&last_new, "old0.test", "old1.test"]);
    drop((old, new));
}

#[test]
fn dead_names_do_not_delay_the_living() {
    let mut now = Instant::now();
    let mut registry = Registry::default();
    let mut cache = cache(300 * SECOND);
    let dead = add_backends(&mut cache, &mut registry, "dead", 1000, now);
    let alive = add_backends(&mut cache, &mut registry, "alive", 1000, now);
    let mut under_way = Vec::new();
    let mut rounds = 0;
    // Look-ups of dead names time out, then never end; the living are answered at once.
    while alive.iter().any(|backend| backend.address_count() == 0) {
        rounds += 1;
        assert!(rounds < 200, "the living wait for the dead");
        for question in due(&mut cache, now) {
            match (question.name.starts_with("dead"), question.is_failing) {
                (false, _) => {
                    cache.set_answer(&question, vec![ip("10.0.0.1")], SECOND, now);
                }
                (true, false) => cache.set_timed_out(&question, now),
                (true, true) => under_way.push(question),
            }
        }
        now += Duration::from_millis(10);
    }
    assert_eq!(under_way.len(), FAILING_LOOKUPS_MAX);
    assert_eq!(cache.counts().unresolved, dead.len());
    // When all of the living are due again they are looked up at once, beside the dead.
    now += 10 * SECOND;
    assert_eq!(due(&mut cache, now).len(), RENEWALS_MAX);
    for question in &under_way {
        cache.set_failure(question, now);
    }
    let next = due(&mut cache, now);
    assert_eq!(next.len(), FAILING_LOOKUPS_MAX);
    assert!(next.iter().all(|question| question.is_failing));
}

#[test]
fn renewals_are_limited_however_many_names_are_due() {
    let start = Instant::now();
    let mut registry = Registry::default();
    let mut cache = cache(300 * SECOND);
    let kept = add_backends(&mut cache, &mut registry, "a", 3000, start);
    let file_due = |cache: &mut DnsCache, now: Instant| {
        let mut count = 0;
        while let Some(question) = cache.next_question(now) {
            cache.set_answer(&question, vec![ip("10.0.0.1")], SECOND, now);
            count += 1;
        }
        count
    };
    assert_eq!(
        file_due(&mut cache, start),
        3000,
        "the first time is not limited"
    );
    let mut now = start + 100 * SECOND;
    let end = now + SECOND;
    let mut asked = 0;
    while now < end {
        asked += file_due(&mut cache, now);
        now = cache.next_due().unwrap();
    }
    assert_eq!(asked, 1000);
    drop(kept);
}

#[test]
fn with_new_name_servers_all_names_are_looked_up_as_if_none_had_failed() {
    let start = Instant::now();
    let mut registry = Registry::default();
    let mut cache = cache(300 * SECOND);
    let kept = add_backends(&mut cache, &mut registry, "a", 3, start);
    let questions = due(&mut cache, start);
    cache.set_answer(&questions[0], vec![ip("10.0.0.1")], 300 * SECOND, start);
    cache.set_failure(&questions[1], start);
    cache.expire_all(start);
    let names: Vec<Question> = due(&mut cache, start);
    let order: Vec<&str> = names.iter().map(|question| &*question.name).collect();
    // The look-up of the third is still in flight.
    assert_eq!(order, ["a1.test", "a0.test"]);
    assert!(names.iter().all(|question| !question.is_failing));
    drop(kept);
}
