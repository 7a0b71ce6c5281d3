//! Marks of a backend over time, at moments that the tests choose.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Moment {
    Moment(1_000_000 + ms)
}

fn fail(vitals: &Vitals, ms: u64) -> Option<Duration> {
    vitals.failed(at(ms), &EjectRules::default(), 0.5)
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_begins_anew() {
    let vitals = Vitals::default();
    assert_eq!((fail(&vitals, 0), fail(&vitals, 1)), (None, None));
    assert!(!vitals.succeeded(at(2)));
    assert_eq!((fail(&vitals, 3), fail(&vitals, 4)), (None, None));
    assert_eq!(vitals.admission(at(4)), Admission::Yes);
    assert_eq!(fail(&vitals, 5), Some(2 * SECOND));
    assert_eq!(vitals.admission(at(6)), Admission::No);
    assert_eq!(vitals.condition(at(5)), Condition::Ejected(2 * SECOND));
    // What was under way when it was ejected changes nothing.
    assert_eq!(fail(&vitals, 7), None);
    assert!(!vitals.succeeded(at(8)));
    assert_eq!(vitals.admission(at(2004)), Admission::No);
}

#[test]
fn one_trial_at_a_time_and_its_end_decides() {
    let vitals = Vitals::default();
    (0..3).for_each(|_| {
        let _ = fail(&vitals, 0);
    });
    assert!(!vitals.claim_trial(at(1999)));
    assert_eq!(vitals.condition(at(2000)), Condition::Trial);
    assert!(vitals.claim_trial(at(2000)));
    assert!(!vitals.claim_trial(at(2001)));
    assert_eq!(vitals.admission(at(2001)), Admission::No);
    // Twice as long, four times, …, at most a minute.
    assert_eq!(fail(&vitals, 2100), Some(4 * SECOND));
    let mut now = 2100;
    for seconds in [8, 16, 32, 60, 60] {
        now += 70_000;
        assert!(vitals.claim_trial(at(now)));
        assert_eq!(fail(&vitals, now), Some(seconds * SECOND));
    }
    now += 60_000;
    // A trial whose client left does not keep it out for ever.
    assert!(vitals.claim_trial(at(now)));
    assert!(!vitals.claim_trial(at(now + 9_999)));
    assert!(vitals.claim_trial(at(now + 10_000)));
    assert!(vitals.succeeded(at(now + 10_001)));
    assert_eq!(vitals.admission(at(now + 10_001)), Admission::Yes);
    assert_eq!(vitals.back_since(), Some(at(now + 10_001)));
}

#[test]
fn the_growth_is_forgotten_after_a_good_while() {
    let vitals = Vitals::default();
    (0..3).for_each(|_| {
        let _ = fail(&vitals, 0);
    });
    assert!(vitals.claim_trial(at(3000)) && vitals.succeeded(at(3000)));
    (0..2).for_each(|_| {
        let _ = fail(&vitals, 4000);
    });
    assert_eq!(fail(&vitals, 4000), Some(4 * SECOND), "soon again");
    assert!(vitals.claim_trial(at(9000)) && vitals.succeeded(at(9000)));
    (0..2).for_each(|_| {
        let _ = fail(&vitals, 80_000);
    });
    assert_eq!(fail(&vitals, 80_000), Some(2 * SECOND), "long after");
}

#[test]
fn half_of_a_windows_connections_failing_ejects_and_less_does_not() {
    let alternate = |good_per_failure: u64| {
        let vitals = Vitals::default();
        (0..200).find_map(|n| {
            let now = n * 10;
            (0..good_per_failure).for_each(|_| {
                let _ = vitals.succeeded(at(now));
            });
            fail(&vitals, now).map(|_| n)
        })
    };
    assert_eq!(alternate(1), Some(4), "the fifth failure of nine");
    assert_eq!(alternate(2), None);
    // Failures that are rare are forgotten with their window.
    let vitals = Vitals::default();
    for n in 0..50 {
        assert_eq!(fail(&vitals, n * 11_000), None);
        assert!(!vitals.succeeded(at(n * 11_000 + 1)));
    }
}

#[test]
fn rules_can_be_switched_off_and_time_is_jittered() {
    let off = EjectRules {
        failures: 0,
        ..EjectRules::default()
    };
    let vitals = Vitals::default();
    assert!((0..100).all(|n| vitals.failed(at(n), &off, 0.5).is_none()));
    for (jitter, ms) in [(0.0, 1500), (1.0, 2500)] {
        let vitals = Vitals::default();
        (0..2).for_each(|_| {
            let _ = fail(&vitals, 0);
        });
        let span = vitals.failed(at(0), &EjectRules::default(), jitter);
        assert_eq!(span, Some(Duration::from_millis(ms)));
    }
}

#[test]
fn a_connection_without_an_answer_makes_it_suspect_until_one_comes() {
    let vitals = Vitals::default();
    vitals.waits(at(0));
    assert_eq!(vitals.admission(at(499)), Admission::Yes);
    assert_eq!(vitals.condition(at(500)), Condition::Suspect);
    assert_eq!(vitals.admission(at(500)), Admission::Suspect);
    vitals.waits(at(600));
    vitals.waits_no_more(at(600), at(700), true);
    assert_eq!(vitals.admission(at(1199)), Admission::Yes);
    assert_eq!(vitals.admission(at(1200)), Admission::Suspect);
    vitals.waits_no_more(at(0), at(1300), false);
    assert_eq!(vitals.admission(at(9999)), Admission::Yes, "nobody waits");
    vitals.waits(at(10_000));
    assert_eq!(vitals.admission(at(10_499)), Admission::Yes, "from now on");
}

#[test]
fn silence_until_a_deadline_ejects_at_once() {
    let vitals = Vitals::default();
    let rules = EjectRules::default();
    assert_eq!(vitals.kept_silent(at(0), &rules, 0.5), Some(2 * SECOND));
    assert_eq!(
        vitals.kept_silent(at(1), &rules, 0.5),
        None,
        "it is out already"
    );
}

#[test]
fn one_that_is_always_slow_is_given_more_time() {
    let vitals = Vitals::default();
    let mut now = 0;
    for _ in 0..50 {
        vitals.waits(at(now));
        vitals.waits_no_more(at(now), at(now + 600), true);
        now += 1000;
    }
    vitals.waits(at(now));
    assert_eq!(vitals.admission(at(now + 2300)), Admission::Yes);
    assert_eq!(vitals.admission(at(now + 2500)), Admission::Suspect);
    vitals.waits_no_more(at(now), at(now + 600), true);
    for _ in 0..100 {
        now += 1000;
        vitals.waits(at(now));
        vitals.waits_no_more(at(now), at(now + 1), true);
    }
    vitals.waits(at(now));
    assert_eq!(vitals.admission(at(now + 501)), Admission::Suspect);
}

#[test]
fn the_bound_of_connections_is_exact() {
    let vitals = Vitals::default();
    let max = NonZeroU32::new(2);
    assert!(vitals.open(max) && vitals.open(max) && !vitals.open(max));
    assert!(vitals.open(None));
    (0..2).for_each(|_| assert!(!vitals.close()));
    assert!(vitals.open(max) && !vitals.open(max));
    assert_eq!(vitals.live(), 2);
}
