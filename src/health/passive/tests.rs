//! The passive health of a backend over time, at moments that the tests choose.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Moment {
    Moment::from_stored(1_000_000 + ms).expect("it is not 0")
}

fn fail(health: &PassiveHealth, ms: u64) -> Option<Duration> {
    health.record_failure(at(ms), &EjectionRules::default(), 0.5)
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_begins_anew() {
    let health = PassiveHealth::default();
    assert_eq!((fail(&health, 0), fail(&health, 1)), (None, None));
    assert!(!health.record_success(at(2)));
    assert_eq!((fail(&health, 3), fail(&health, 4)), (None, None));
    assert_eq!(health.admission(at(4)), Admission::Yes);
    assert_eq!(fail(&health, 5), Some(2 * SECOND));
    assert_eq!(health.admission(at(6)), Admission::No);
    assert_eq!(health.condition(at(5)), Condition::Ejected(2 * SECOND));
    // Connections from before the ejection change nothing.
    assert_eq!(fail(&health, 7), None);
    assert!(!health.record_success(at(8)));
    assert_eq!(health.admission(at(2004)), Admission::No);
}

#[test]
fn one_probe_at_a_time_and_its_result_decides() {
    let health = PassiveHealth::default();
    (0..3).for_each(|_| {
        let _ = fail(&health, 0);
    });
    assert!(!health.claim_probe(at(1999)));
    assert_eq!(health.condition(at(2000)), Condition::HalfOpen);
    assert!(health.claim_probe(at(2000)));
    assert!(!health.claim_probe(at(2001)));
    assert_eq!(health.admission(at(2001)), Admission::No);
    // Twice as long, four times, …, at most a minute.
    assert_eq!(fail(&health, 2100), Some(4 * SECOND));
    let mut now = 2100;
    for seconds in [8, 16, 32, 60, 60] {
        now += 70_000;
        assert!(health.claim_probe(at(now)));
        assert_eq!(fail(&health, now), Some(seconds * SECOND));
    }
    now += 60_000;
    // A probe whose client left does not keep the backend out for ever.
    assert!(health.claim_probe(at(now)));
    assert!(!health.claim_probe(at(now + 9_999)));
    assert!(health.claim_probe(at(now + 10_000)));
    assert!(health.record_success(at(now + 10_001)));
    assert_eq!(health.admission(at(now + 10_001)), Admission::Yes);
    assert_eq!(health.readmitted_at(), Some(at(now + 10_001)));
}

#[test]
fn the_length_starts_over_after_a_long_time_of_success() {
    let health = PassiveHealth::default();
    (0..3).for_each(|_| {
        let _ = fail(&health, 0);
    });
    assert!(health.claim_probe(at(3000)) && health.record_success(at(3000)));
    (0..2).for_each(|_| {
        let _ = fail(&health, 4000);
    });
    assert_eq!(fail(&health, 4000), Some(4 * SECOND), "soon again");
    assert!(health.claim_probe(at(9000)) && health.record_success(at(9000)));
    (0..2).for_each(|_| {
        let _ = fail(&health, 80_000);
    });
    assert_eq!(fail(&health, 80_000), Some(2 * SECOND), "long after");
}

#[test]
fn half_of_a_windows_connections_failing_ejects_and_a_third_does_not() {
    let alternate = |good_per_failure: u64| {
        let health = PassiveHealth::default();
        (0..200).find_map(|n| {
            let now = n * 10;
            (0..good_per_failure).for_each(|_| {
                let _ = health.record_success(at(now));
            });
            fail(&health, now).map(|_| n)
        })
    };
    assert_eq!(alternate(1), Some(4), "the fifth failure of nine");
    assert_eq!(alternate(2), None);
    // Rare failures are forgotten with their window.
    let health = PassiveHealth::default();
    for n in 0..50 {
        assert_eq!(fail(&health, n * 11_000), None);
        assert!(!health.record_success(at(n * 11_000 + 1)));
    }
}

#[test]
fn ejection_can_be_switched_off_and_its_time_is_jittered() {
    let off = EjectionRules {
        consecutive_failures: 0,
        ..EjectionRules::default()
    };
    let health = PassiveHealth::default();
    assert!((0..100).all(|n| health.record_failure(at(n), &off, 0.5).is_none()));
    for (jitter, ms) in [(0.0, 1500), (1.0, 2500)] {
        let health = PassiveHealth::default();
        (0..2).for_each(|_| {
            let _ = fail(&health, 0);
        });
        let span = health.record_failure(at(0), &EjectionRules::default(), jitter);
        assert_eq!(span, Some(Duration::from_millis(ms)));
    }
}

#[test]
fn a_connection_without_an_answer_makes_it_suspect_until_one_comes() {
    let health = PassiveHealth::default();
    health.start_pending(at(0));
    assert_eq!(health.admission(at(499)), Admission::Yes);
    assert_eq!(health.condition(at(500)), Condition::Suspect);
    assert_eq!(health.admission(at(500)), Admission::Suspect);
    health.start_pending(at(600));
    health.finish_pending(at(600), at(700));
    assert_eq!(health.admission(at(1199)), Admission::Yes);
    assert_eq!(health.admission(at(1200)), Admission::Suspect);
    health.abandon_pending();
    assert_eq!(health.admission(at(9999)), Admission::Yes, "nobody waits");
    health.start_pending(at(10_000));
    assert_eq!(health.admission(at(10_499)), Admission::Yes, "from now on");
}

#[test]
fn a_timeout_of_a_suspect_backend_ejects_at_once() {
    let health = PassiveHealth::default();
    let rules = EjectionRules::default();
    assert_eq!(health.record_timeout(at(0), &rules, 0.5), Some(2 * SECOND));
    assert_eq!(
        health.record_timeout(at(1), &rules, 0.5),
        None,
        "it is ejected already"
    );
}

#[test]
fn a_backend_that_is_always_slow_has_more_time() {
    let health = PassiveHealth::default();
    let mut now = 0;
    for _ in 0..50 {
        health.start_pending(at(now));
        health.finish_pending(at(now), at(now + 600));
        now += 1000;
    }
    health.start_pending(at(now));
    assert_eq!(health.admission(at(now + 2300)), Admission::Yes);
    assert_eq!(health.admission(at(now + 2500)), Admission::Suspect);
    health.finish_pending(at(now), at(now + 600));
    for _ in 0..100 {
        now += 1000;
        health.start_pending(at(now));
        health.finish_pending(at(now), at(now + 1));
    }
    health.start_pending(at(now));
    assert_eq!(health.admission(at(now + 501)), Admission::Suspect);
}
