//! The queue of a backend, used by several threads in many orders of their steps: `scripts/model`. A
//! wake-up that is lost shows as a deadlock.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

use shuttle::sync::{Condvar, Mutex};
use shuttle::{check_dfs, check_random, thread};

use super::backend::Backend;
use super::member::Member;
use super::ticket::{FullBackend, Ticket};

const ONE: NonZeroU32 = NonZeroU32::MIN;

fn backend(slot: u32) -> Arc<Backend> {
    let member = Member::parse(&format!("10.0.0.{slot}")).unwrap();
    Arc::new(Backend::new(slot, member, &Arc::default()))
}

/// Its one connection is open.
fn full(slot: u32) -> Arc<Backend> {
    let backend = backend(slot);
    assert!(backend.connections().open(Some(ONE)));
    backend
}

/// A thread that sleeps until its ticket has a slot.
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
    let queues = backends.iter().map(|backend| FullBackend {
        backend: Arc::clone(backend),
        connections_max: ONE,
    });
    let waker = Waker::from(Arc::clone(&sleeper));
    let ticket = Ticket::enter(Ticket::next_number(), queues.collect(), waker);
    (ticket, sleeper)
}

/// Opens a connection, waiting for its turn where it has to, and closes it again.
fn connect(backend: &Arc<Backend>, open: &AtomicU32) {
    if !backend.connections().open(Some(ONE)) {
        let (ticket, sleeper) = queue(&[backend]);
        sleeper.sleep();
        ticket.take_slot().expect("it was woken for that");
    }
    assert_eq!(open.fetch_add(1, Ordering::SeqCst), 0, "two are open");
    thread::yield_now();
    open.fetch_sub(1, Ordering::SeqCst);
    backend.close();
}

fn assert_empty(backend: &Backend) {
    assert_eq!(backend.connections().count(), 0);
    assert!(
        backend.connections().open(Some(ONE)),
        "nobody is waited for"
    );
}

#[test]
fn a_client_that_queues_while_the_last_connection_closes_gets_its_slot() {
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
fn the_slot_of_a_client_that_gives_up_goes_to_the_next() {
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
fn a_client_that_queues_at_two_backends_gets_one_slot_and_returns_the_other() {
    let model = || {
        let (one, other) = (full(1), full(2));
        let (ticket, sleeper) = queue(&[&one, &other]);
        let closing = Arc::clone(&one);
        let closes = thread::spawn(move || closing.close());
        other.close();
        sleeper.sleep();
        let granted = ticket.take_slot().expect("it was woken for that");
        closes.join().unwrap();
        assert_eq!(one.connections().count() + other.connections().count(), 1);
        granted.close();
        assert_empty(&one);
        assert_empty(&other);
    };
    check_random(model, 10_000);
}
