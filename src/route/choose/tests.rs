//! The ways of choosing, held against what chance allows.

use std::time::{Duration, Instant};

use super::*;
use crate::health::EjectionRules;
use crate::route::{Endpoint, HostOptions, Member, Registry, RouteOptions};

fn now() -> Moment {
    Moment::of(Instant::now())
}

fn route_of(members: &[&str], options: &[&str]) -> Arc<Route> {
    let mut registry = Registry::default();
    let endpoints: Vec<Endpoint> = members
        .iter()
        .map(|member| registry.endpoint(Member::parse(member).unwrap()))
        .collect();
    let mut host = HostOptions::default();
    for option in options {
        host.set(option).unwrap();
    }
    registry.route_with(endpoints, Some(RouteOptions { host, acme: None }))
}

fn route(count: usize, options: &[&str]) -> Arc<Route> {
    let members: Vec<String> = (0..count).map(|n| format!("10.0.0.{n}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    route_of(&members, options)
}

fn chooser(seed: u64) -> Chooser {
    Chooser::new(Balance::default(), seed)
}

fn ask(chooser: &mut Chooser, route: &Route, tried: &[u32], at: Moment) -> Choice {
    let context = PickContext {
        tried,
        client: None,
        now: at,
    };
    chooser.choose(route, &context)
}

fn slot(choice: Choice) -> Option<usize> {
    match choice {
        Choice::Backend(chosen) => Some(chosen.backend.slot() as usize),
        Choice::Full | Choice::Nothing => None,
    }
}

/// How often each backend was chosen, without anything staying open.
fn counts(chooser: &mut Chooser, route: &Route, tried: &[u32], draws: usize) -> Vec<usize> {
    let mut counts = vec![0; route.backends().len()];
    let at = now();
    for _ in 0..draws {
        counts[slot(ask(chooser, route, tried, at)).unwrap()] += 1;
    }
    counts
}

fn by(balance: Balance) -> String {
    format!("balance={}", balance.name())
}

const SPREADING: [Balance; 4] = [
    Balance::LeastOfTwo,
    Balance::Least,
    Balance::RoundRobin,
    Balance::Random,
];

/// The chi-square statistic of counts against what was expected.
fn chi_square(counts: &[usize], expected: &[f64]) -> f64 {
    let pairs = counts.iter().zip(expected);
    pairs
        .map(|(count, want)| (*count as f64 - want).powi(2) / want)
        .sum()
}

#[test]
fn words_are_read_and_written() {
    for balance in Balance::ALL {
        assert_eq!(Balance::parse(balance.name()), Some(balance));
    }
    assert_eq!(Balance::parse("fair"), None);
}

#[test]
fn every_way_is_fair_among_equals() {
    for balance in SPREADING {
        for seed in 0..10 {
            let counts = counts(&mut chooser(seed), &route(5, &[&by(balance)]), &[], 10_000);
            // 18.5 is passed once in a thousand with 4 degrees of freedom; 30 in 200,000.
            assert!(
                chi_square(&counts, &[2000.0; 5]) < 30.0,
                "{balance:?} {counts:?}"
            );
        }
    }
}

#[test]
fn every_way_goes_by_weight() {
    let members = [
        "10.0.0.1 weight=1",
        "10.0.0.2 weight=2",
        "10.0.0.3 weight=5",
    ];
    for balance in [Balance::RoundRobin, Balance::Random] {
        let route = route_of(&members, &[&by(balance)]);
        let counts = counts(&mut chooser(3), &route, &[], 8_000);
        let expected = [1000.0, 2000.0, 5000.0];
        assert!(
            chi_square(&counts, &expected) < 25.0,
            "{balance:?} {counts:?}"
        );
    }
    // Where it goes by live connections, those are what the weights divide.
    for balance in [Balance::LeastOfTwo, Balance::Least] {
        let route = route_of(&members, &[&by(balance)]);
        let mut chooser = chooser(5);
        for _ in 0..800 {
            let chosen = slot(ask(&mut chooser, &route, &[], now())).unwrap();
            route.backends()[chosen].connections().open(None);
        }
        let live: Vec<u32> = route
            .backends()
            .iter()
            .map(|one| one.connections().count())
            .collect();
        for (live, want) in live.iter().zip([100, 200, 500]) {
            let slack = if balance == Balance::Least { 2 } else { 40 };
            assert!(live.abs_diff(want) <= slack, "{balance:?} {live:?}");
        }
    }
}

#[test]
fn weighted_turns_come_evenly_not_in_blocks() {
    let route = route_of(&["10.0.0.1 weight=3", "10.0.0.2"], &["balance=round-robin"]);
    let mut chooser = chooser(1);
    let turns: Vec<usize> = (0..400)
        .map(|_| slot(ask(&mut chooser, &route, &[], now())).unwrap())
        .collect();
    assert_eq!(
        turns
            .iter()
            .filter(|turn| **turn == 1)
            .count()
            .abs_diff(100),
        1
    );
    for window in turns.windows(12) {
        let light = window.iter().filter(|turn| **turn == 1).count();
        assert!((2..=4).contains(&light), "{turns:?}");
    }
}

#[test]
fn what_was_tried_is_not_chosen_and_the_rest_stays_fair() {
    for balance in SPREADING {
        let route = route(5, &[&by(balance)]);
        let counts = counts(&mut chooser(7), &route, &[1, 3], 9_000);
        assert_eq!((counts[1], counts[3]), (0, 0));
        assert_eq!(counts.iter().sum::<usize>(), 9_000);
        if balance != Balance::RoundRobin {
            let left = [counts[0], counts[2], counts[4]];
            assert!(
                chi_square(&left, &[3000.0; 3]) < 25.0,
                "{balance:?} {counts:?}"
            );
        }
    }
    for balance in Balance::ALL {
        let mut chooser = Chooser::new(balance, 7);
        let route = route(3, &[]);
        let mut tried = Vec::new();
        while let Some(slot) = slot(ask(&mut chooser, &route, &tried, now())) {
            tried.push(slot as u32);
        }
        tried.sort_unstable();
        assert_eq!(tried, [0, 1, 2], "{balance:?}");
        assert!(slot(ask(&mut chooser, &self::route(0, &[]), &[], now())).is_none());
    }
}

#[test]
fn turns_are_taken_by_all_cores_together() {
    let route = route(4, &["balance=round-robin"]);
    let mut cores = [chooser(1), chooser(2), chooser(3)];
    let slots: Vec<usize> = (0..12)
        .map(|n| slot(ask(&mut cores[n % 3], &route, &[], now())).unwrap())
        .collect();
    assert_eq!(slots, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
}

/// Sixteen cores with one connection each: with counts of their own each would see empty backends
/// and the spread would be that of chance, in which some backend of eight gets 5 or more in
/// three of four runs.
#[test]
fn few_connections_on_many_cores_spread_as_by_one_choice() {
    for seed in 0..50 {
        let route = route(8, &["balance=least"]);
        for core in 0..16 {
            let chosen = ask(&mut chooser(seed * 16 + core), &route, &[], now());
            route.backends()[slot(chosen).unwrap()]
                .connections()
                .open(None);
        }
        assert!(
            route
                .backends()
                .iter()
                .all(|one| one.connections().count() == 2)
        );
    }
    let mut most = [0; 17];
    for seed in 0..200 {
        let route = route(8, &[]);
        for core in 0..16 {
            let chosen = ask(&mut chooser(seed * 16 + core), &route, &[], now());
            route.backends()[slot(chosen).unwrap()]
                .connections()
                .open(None);
        }
        let lives = route.backends().iter().map(|one| one.connections().count());
        most[lives.max().unwrap() as usize] += 1;
    }
    assert!(most[5..].iter().sum::<i32>() <= 4, "{most:?}");
}

#[test]
fn least_of_two_prefers_the_less_busy_and_never_takes_the_busiest() {
    let route = route(4, &[]);
    for (slot, backend) in route.backends().iter().enumerate() {
        (0..slot).for_each(|_| {
            let _ = backend.connections().open(None);
        });
    }
    let counts = counts(&mut chooser(3), &route, &[], 12_000);
    // Of two different draws: P(min = 0) = 1/2, 1/3, 1/6, 0.
    for (count, expected) in counts.iter().zip([6_000, 4_000, 2_000, 0usize]) {
        assert!(count.abs_diff(expected) < 300, "{counts:?}");
    }
}

#[test]
fn a_client_meets_the_same_backend_and_a_lost_one_moves_only_its_own() {
    let client = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
    let of = |route: &Route, n: u32, tried: &[u32]| {
        let context = PickContext {
            tried,
            client: client(n),
            now: now(),
        };
        slot(chooser(u64::from(n)).choose(route, &context)).unwrap()
    };
    let route = route(5, &["balance=source"]);
    let mut counts = [0; 5];
    for n in 0..5000 {
        let first = of(&route, n, &[]);
        counts[first] += 1;
        assert_eq!(of(&route, n, &[]), first);
        let without = of(&route, n, &[2]);
        assert!(without == first || first == 2);
    }
    assert!(chi_square(&counts, &[1000.0; 5]) < 30.0, "{counts:?}");
    // The weights hold, and another process agrees.
    let weighted = || route_of(&["10.0.0.1 weight=4", "10.0.0.2"], &["balance=source"]);
    let (one, other) = (weighted(), weighted());
    let heavy = (0..5000).filter(|n| of(&one, *n, &[]) == 0).count();
    assert!(heavy.abs_diff(4000) < 150, "{heavy}");
    assert!((0..500).all(|n| of(&one, n, &[]) == of(&other, n, &[])));
    // A network of 64 bits is one client.
    let of_v6 = |text: &str| {
        let context = PickContext {
            tried: &[],
            client: Some(text.parse().unwrap()),
            now: now(),
        };
        slot(chooser(1).choose(&route, &context))
    };
    assert_eq!(of_v6("2001:db8::1"), of_v6("2001:db8::ffff:2"));
}

#[test]
fn first_fills_one_up_before_the_next() {
    let members = [
        "10.0.0.3 max=2",
        "10.0.0.1 weight=2 max=1",
        "10.0.0.2 max=1",
    ];
    let route = route_of(&members, &["balance=first"]);
    let mut chooser = chooser(1);
    let mut order = Vec::new();
    while let Some(slot) = slot(ask(&mut chooser, &route, &[], now())) {
        route.backends()[slot].connections().open(None);
        order.push(slot);
    }
    assert_eq!(order, [1, 2, 0, 0]);
    assert!(matches!(
        ask(&mut chooser, &route, &[], now()),
        Choice::Full
    ));
}

#[test]
fn backups_serve_only_while_no_other_is_up() {
    let route = route_of(&["10.0.0.1", "10.0.0.2", "10.0.0.3 backup"], &[]);
    let mut chooser = chooser(1);
    let at = now();
    let eject = |index: usize| {
        let rules = EjectionRules::default();
        let health = route.backends()[index].health();
        (0..3).for_each(|_| {
            let _ = health.record_failure(at, &rules, 0.5);
        });
    };
    assert_eq!(counts(&mut chooser, &route, &[], 100)[2], 0);
    eject(0);
    for _ in 0..20 {
        assert_eq!(slot(ask(&mut chooser, &route, &[], at)), Some(1));
    }
    assert_eq!(
        slot(ask(&mut chooser, &route, &[1], at)),
        Some(2),
        "1 was tried"
    );
    eject(1);
    assert_eq!(slot(ask(&mut chooser, &route, &[], at)), Some(2));
    // All are ejected: all are used, and it can be counted.
    eject(2);
    let mut seen = [false; 3];
    for _ in 0..100 {
        let choice = ask(&mut chooser, &route, &[], at);
        assert!(matches!(
            choice,
            Choice::Backend(Chosen { is_panic: true, .. })
        ));
        seen[slot(choice).unwrap()] = true;
    }
    assert_eq!(seen, [true; 3]);
    // One connection tries whether it is back, and until that is known the next goes elsewhere.
    let later = at.after(Duration::from_secs(3));
    let mut probes: Vec<usize> = (0..3)
        .map(|_| slot(ask(&mut chooser, &route, &[], later)).unwrap())
        .collect();
    probes.sort_unstable();
    assert_eq!(probes, [0, 1, 2]);
}

#[test]
fn a_backend_that_is_back_gets_its_share_slowly() {
    let route = route_of(
        &["10.0.0.1", "10.0.0.2"],
        &["slow-start=100s", "balance=random"],
    );
    let at = now();
    let rules = EjectionRules::default();
    let health = route.backends()[0].health();
    (0..3).for_each(|_| {
        let _ = health.record_failure(at, &rules, 0.5);
    });
    let back = at.after(Duration::from_secs(5));
    assert!(health.claim_probe(back) && health.record_success(back));
    let mut chooser = chooser(2);
    for (seconds, part) in [(0, 0.1), (50, 0.5), (100, 1.0), (500, 1.0)] {
        let at = back.after(Duration::from_secs(seconds));
        let draws = (0..4000).map(|_| slot(ask(&mut chooser, &route, &[], at)));
        let got = draws.filter(|slot| *slot == Some(0)).count() as f64;
        let want = 4000.0 * part / (1.0 + part);
        assert!(
            (got - want).abs() < 150.0,
            "after {seconds} s {got} of {want}"
        );
    }
}

#[test]
fn a_backend_that_a_health_check_found_down_is_skipped() {
    let route = route_of(&["10.0.0.1", "10.0.0.2"], &["check=tcp"]);
    let at = now();
    route.health_checks()[0].set_up(false, at);
    assert_eq!(counts(&mut chooser(1), &route, &[], 50), [0, 50]);
    let backend = &route.backends()[0];
    assert!(!Chooser::is_still_good(&route, backend, at));
    route.health_checks()[0].set_up(true, at);
    assert!(Chooser::is_still_good(&route, backend, at));
    assert!(counts(&mut chooser(1), &route, &[], 50)[0] > 0);
}

#[test]
fn a_name_without_addresses_is_skipped() {
    for balance in Balance::ALL {
        let route = route_of(&["app.test", "10.0.0.1"], &[&by(balance)]);
        let mut chooser = chooser(1);
        for _ in 0..20 {
            assert_eq!(slot(ask(&mut chooser, &route, &[], now())), Some(1));
        }
        let addresses = Arc::new(vec!["10.0.0.2".parse().unwrap()]);
        route.backends()[0].resolve_to(addresses);
        if SPREADING.contains(&balance) {
            assert!(counts(&mut chooser, &route, &[], 100)[0] > 20);
        }
    }
}

#[test]
fn as_many_may_wait_as_the_queue_holds() {
    let route = route(1, &[]);
    let first = Route::enter_queue(&route, 2);
    let second = Route::enter_queue(&route, 2);
    assert!(first.is_some() && second.is_some());
    assert!(Route::enter_queue(&route, 2).is_none());
    drop(first);
    let third = Route::enter_queue(&route, 2);
    assert!(third.is_some());
    assert!(Route::enter_queue(&route, 2).is_none());
}
