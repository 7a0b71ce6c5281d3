//! Two and three threads at one line of the shared tables, in every order of their steps: `scripts/model`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shuttle::{check_dfs, check_random, thread};

use super::counts::{Counted, Counts};
use super::rates::{Paid, Rates};

/// What the orders that were tried came to.
type Seen<T> = Arc<Mutex<BTreeSet<T>>>;

fn note<T: Ord>(seen: &Seen<T>, outcome: T) {
    seen.lock().unwrap().insert(outcome);
}

fn assert_seen<T: Ord + std::fmt::Debug, const N: usize>(seen: &Seen<T>, all: [T; N]) {
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from(all));
}

/// A hash of the only line.
fn hash(key: u64) -> u64 {
    key << 48
}

/// Enters, stays for a moment and leaves. Returns whether it was admitted.
fn visit(counts: &Counts, inside: &AtomicU32) -> bool {
    let Counted::Yes(slot) = counts.enter(hash(1), 1) else {
        return false;
    };
    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are in");
    thread::yield_now();
    inside.fetch_sub(1, Ordering::SeqCst);
    counts.leave(slot);
    true
}

#[test]
fn of_two_at_once_one_is_in_and_what_leaves_makes_room() {
    let seen = Seen::default();
    let outcomes = Arc::clone(&seen);
    let model = move || {
        let counts = Arc::new(Counts::new(0));
        let inside = Arc::new(AtomicU32::new(0));
        let (others, others_inside) = (Arc::clone(&counts), Arc::clone(&inside));
        let other = thread::spawn(move || visit(&others, &others_inside));
        let one = visit(&counts, &inside);
        let other = other.join().unwrap();
        assert!(one || other, "nobody else was in the way");
        note(&outcomes, (one, other));
        assert!(visit(&counts, &inside), "both have left");
    };
    check_dfs(model, None);
    assert_seen(&seen, [(true, false), (false, true), (true, true)]);
}

/// The key comes to have two slots, and both threads that took one may be refused; never are both admitted.
#[test]
fn a_place_that_gets_free_meanwhile_lets_no_second_one_in() {
    let seen = Seen::default();
    let outcomes = Arc::clone(&seen);
    let model = move || {
        let counts = Arc::new(Counts::new(0));
        let Counted::Yes(strangers) = counts.enter(hash(2), 1) else {
            panic!("an empty line");
        };
        let enter = |counts: &Arc<Counts>| {
            let counts = Arc::clone(counts);
            thread::spawn(move || counts.enter(hash(1), 1))
        };
        let (one, other) = (enter(&counts), enter(&counts));
        counts.leave(strangers);
        let (one, other) = (one.join().unwrap(), other.join().unwrap());
        let is_in = |counted: &Counted| matches!(counted, Counted::Yes(_));
        note(&outcomes, (is_in(&one), is_in(&other)));
        for counted in [one, other] {
            assert_ne!(counted, Counted::LineFull);
            if let Counted::Yes(slot) = counted {
                counts.leave(slot);
            }
        }
        assert_eq!(counts.count(hash(1)) + counts.count(hash(2)), 0);
    };
    check_dfs(model, None);
    assert_seen(&seen, [(true, false), (false, true), (false, false)]);
}

#[test]
fn of_two_who_pay_at_once_one_gets_what_is_left() {
    let model = || {
        let epoch = Instant::now();
        let rates = Arc::new(Rates::new(0, epoch));
        let others = Arc::clone(&rates);
        let other = thread::spawn(move || others.pay(hash(1), 1, epoch));
        let paid = [rates.pay(hash(1), 1, epoch), other.join().unwrap()];
        assert!(paid.contains(&Paid::Yes) && paid.contains(&Paid::Over));
    };
    check_dfs(model, None);
}

/// The worker with the earlier clock sees a stranger's debts in the first slot, the other sees them
/// paid: they take different slots for the same key.
#[test]
fn two_places_of_one_key_do_not_double_its_rate() {
    let model = || {
        let epoch = Instant::now();
        let at = move |ms| epoch + Duration::from_millis(ms);
        let rates = Arc::new(Rates::new(0, epoch));
        assert_eq!(rates.pay(hash(2), 1, epoch), Paid::Yes);
        let others = Arc::clone(&rates);
        let other = thread::spawn(move || others.pay(hash(1), 1, at(999)));
        let paid = [rates.pay(hash(1), 1, at(1001)), other.join().unwrap()];
        assert!(paid.contains(&Paid::Yes) && paid.contains(&Paid::Over));
    };
    check_random(model, 20_000);
}
