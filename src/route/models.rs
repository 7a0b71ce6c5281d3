//! A backend's marks and the queue for its places, used by several threads in many orders of their
//! steps: `scripts/model`. A wake-up that is lost shows as a deadlock.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use shuttle::sync::{Condvar, Mutex};
use shuttle::{check_dfs, check_random, thread};

use super::vitals::{EjectRules, Moment, Vitals};
use super::{Admission, Member, Ticket};
use crate::route::backend::Backend;

const ONE: NonZeroU32 = NonZeroU32::MIN;

fn backend(slot: u32) -> Arc<Backend> {
    let member = Member::parse(&format!("10.0.0.{slot}")).unwrap();
    Arc::new(Backend::new(slot, member, &Arc::default()))
}

/// Its one connection is open.
fn full(slot: u32) -> Arc<Backend> {
    let backend = backend(slot);
    assert!(backend.vitals().open(Some(ONE)));
    backend
}

/// A thread that sleeps until its ticket's turn has come.
#[derive(Default)]
struct Sleeper {
    is_awake: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.is_awake.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl Sleeper {
    fn sleep(&self) {
        let mut is_awake = self.is_awake.lock().unwrap();
        while !*is_awake {
            is_awake = self.changed.wait(is_awake).unwrap();
        }
    }
}

fn queue(backends: &[&Arc<Backend>]) -> (Ticket, Arc<Sleeper>) {
    let sleeper = Arc::new(Sleeper::default());
    let wanted = backends.iter().map(|backend| (Arc::clone(backend), ONE));
    let waker = Waker::from(Arc::clone(&sleeper));
    let ticket = Ticket::enter(Ticket::next_number(), wanted.collect(), waker);
    (ticket, sleeper)
}

/// Opens a connection, waiting for its turn where it has to, and closes it again.
fn connect(backend: &Arc<Backend>, open: &AtomicU32) {
    if !backend.vitals().open(Some(ONE)) {
        let (ticket, sleeper) = queue(&[backend]);
        sleeper.sleep();
        ticket.take_place().expect("it was woken for that");
    }
    assert_eq!(open.fetch_add(1, Ordering::SeqCst), 0, "two are open");
    thread::yield_now();
    open.fetch_sub(1, Ordering::SeqCst);
    backend.close();
}

fn assert_empty(backend: &Backend) {
    assert_eq!(backend.vitals().live(), 0);
    assert!(backend.vitals().open(Some(ONE)), "nobody is waited for");
}

#[test]
fn who_queues_while_the_last_connection_closes_gets_its_place() {
    let model = || {
        let backend = full(1);
        let others = Arc::clone(&backend);
        let other = thread::spawn(move || connect(&others, &AtomicU32::new(0)));
        backend.close();
        other.join().unwrap();
        assert_empty(&backend);
    };
    check_dfs(model, None);
}

#[test]
fn a_backend_is_never_given_to_two_and_everybody_has_a_turn() {
    let model = || {
        let backend = backend(1);
        let open = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (backend, open) = (Arc::clone(&backend), Arc::clone(&open));
                thread::spawn(move || connect(&backend, &open))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_empty(&backend);
    };
    check_random(model, 10_000);
}

#[test]
fn the_place_of_one_who_gives_up_goes_to_the_next() {
    let model = || {
        let backend = full(1);
        let (impatient, _) = queue(&[&backend]);
        let others = Arc::clone(&backend);
        let next = thread::spawn(move || connect(&others, &AtomicU32::new(0)));
        let gives_up = thread::spawn(move || drop(impatient));
        backend.close();
        gives_up.join().unwrap();
        next.join().unwrap();
        assert_empty(&backend);
    };
    check_random(model, 10_000);
}

#[test]
fn who_queues_at_two_backends_gets_one_place_and_gives_the_other_back() {
    let model = || {
        let (one, other) = (full(1), full(2));
        let (ticket, sleeper) = queue(&[&one, &other]);
        let closing = Arc::clone(&one);
        let closes = thread::spawn(move || closing.close());
        other.close();
        sleeper.sleep();
        let place = ticket.take_place().expect("it was woken for that");
        closes.join().unwrap();
        assert_eq!(one.vitals().live() + other.vitals().live(), 1);
        place.close();
        assert_empty(&one);
        assert_empty(&other);
    };
    check_random(model, 10_000);
}

/// Both failures count, one of them ejects; one of two gets the probe, and one success ends it.
#[test]
fn an_ejection_its_probe_and_its_end_belong_to_one_worker_each() {
    let both = |vitals: &Arc<Vitals>, act: fn(&Vitals) -> bool| {
        let others = Arc::clone(vitals);
        let other = thread::spawn(move || act(&others));
        [act(vitals), other.join().unwrap()]
    };
    const ONE_OF_TWO: [[bool; 2]; 2] = [[true, false], [false, true]];
    fn start() -> Moment {
        Moment::of(*START.get_or_init(Instant::now))
    }
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    fn later() -> Moment {
        start().after(Duration::from_secs(60))
    }
    let eject = |vitals: &Vitals| {
        let rules = EjectRules {
            failures: 2,
            ..EjectRules::default()
        };
        vitals.failed(start(), &rules, 0.0).is_some()
    };
    let model = move || {
        let vitals = Arc::new(Vitals::default());
        assert!(ONE_OF_TWO.contains(&both(&vitals, eject)));
        assert_eq!(vitals.admission(start()), Admission::No);
    };
    check_dfs(model, None);
    let model = move || {
        let vitals = Arc::new(Vitals::default());
        (0..2).for_each(|_| _ = eject(&vitals));
        let probes = both(&vitals, |vitals| vitals.claim_trial(later()));
        assert!(ONE_OF_TWO.contains(&probes));
        let ends = both(&vitals, |vitals| vitals.succeeded(later()));
        assert!(ONE_OF_TWO.contains(&ends));
        assert_eq!(vitals.admission(later()), Admission::Yes);
    };
    check_dfs(model, None);
}
