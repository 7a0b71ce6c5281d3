//! Who gets a slot that becomes free.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Wake;

use super::*;
use crate::route::Member;

fn backend(slot: u32) -> Arc<Backend> {
    let member = Member::parse(&format!("10.0.0.{slot}")).unwrap();
    Arc::new(Backend::new(slot, member, &Arc::default()))
}

fn max(max: u32) -> NonZeroU32 {
    NonZeroU32::new(max).unwrap()
}

/// A backend that has as many connections as it may.
fn full(slot: u32, most: u32) -> Arc<Backend> {
    let backend = backend(slot);
    while backend.connections().open(NonZeroU32::new(most)) {}
    backend
}

fn wait_for(backends: &[(&Arc<Backend>, u32)]) -> Ticket {
    let queues = backends.iter().map(|(backend, most)| FullBackend {
        backend: Arc::clone(backend),
        connections_max: max(*most),
    });
    Ticket::enter(
        Ticket::next_number(),
        queues.collect(),
        Waker::noop().clone(),
    )
}

#[test]
fn a_slot_goes_to_the_client_that_has_waited_longest_and_to_no_newcomer() {
    let backend = full(1, 2);
    let first = wait_for(&[(&backend, 2)]);
    let left = wait_for(&[(&backend, 2)]);
    let second = wait_for(&[(&backend, 2)]);
    drop(left);
    for ticket in [first, second] {
        assert!(!ticket.has_slot());
        backend.close();
        assert!(ticket.has_slot());
        assert!(!backend.connections().open(Some(max(2))), "it is taken");
        let granted = ticket.take_slot().expect("a slot");
        assert!(Arc::ptr_eq(&granted, &backend));
        assert_eq!(backend.connections().count(), 2);
    }
    backend.close();
    assert!(backend.connections().open(Some(max(2))), "nobody waits");
}

#[test]
fn an_unused_slot_goes_to_the_next() {
    let backend = full(1, 1);
    let first = wait_for(&[(&backend, 1)]);
    let second = wait_for(&[(&backend, 1)]);
    backend.close();
    drop(first);
    assert!(second.has_slot());
    drop(second);
    assert_eq!(backend.connections().count(), 0);
}

#[test]
fn a_client_that_waits_for_several_gets_one_slot() {
    let (one, other) = (full(1, 1), full(2, 1));
    let both = wait_for(&[(&one, 1), (&other, 1)]);
    let behind = wait_for(&[(&other, 1)]);
    one.close();
    other.close();
    assert!(Arc::ptr_eq(&both.take_slot().expect("a slot"), &one));
    assert!(Arc::ptr_eq(&behind.take_slot().expect("a slot"), &other));
    assert_eq!(
        (one.connections().count(), other.connections().count()),
        (1, 1)
    );
}

#[test]
fn a_route_that_allows_less_does_not_hold_up_another() {
    let backend = full(1, 4);
    let modest = wait_for(&[(&backend, 2)]);
    let waiting = wait_for(&[(&backend, 4)]);
    backend.close();
    assert!(waiting.has_slot() && !modest.has_slot());
    // Without a bound nobody ever waits.
    assert!(backend.connections().open(None));
    for _ in 0..4 {
        backend.close();
    }
    assert!(modest.has_slot());
}

#[test]
fn a_free_slot_is_granted_at_once() {
    let backend = backend(1);
    assert!(wait_for(&[(&backend, 1)]).has_slot());
    assert_eq!(backend.connections().count(), 0);
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn many_threads_never_exceed_the_bound_and_everybody_gets_a_slot() {
    const THREADS: usize = 4;
    // Miri takes some thousand times as long.
    const ROUNDS: usize = if cfg!(miri) { 15 } else { 500 };
    const MOST: u32 = 2;
    let backend = backend(1);
    let (inside, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let woken = Arc::new(Woken::default());
                    if !backend.connections().open(Some(max(MOST))) {
                        let queues = vec![FullBackend {
                            backend: Arc::clone(&backend),
                            connections_max: max(MOST),
                        }];
                        let waker = Waker::from(Arc::clone(&woken));
                        let ticket = Ticket::enter(Ticket::next_number(), queues, waker);
                        while woken.0.load(SeqCst) == 0 {
                            std::thread::yield_now();
                        }
                        ticket.take_slot().expect("it was woken for that");
                    }
                    assert!(inside.fetch_add(1, SeqCst) < MOST as usize);
                    served.fetch_add(1, SeqCst);
                    inside.fetch_sub(1, SeqCst);
                    backend.close();
                }
            });
        }
    });
    assert_eq!(served.into_inner(), THREADS * ROUNDS);
    assert!(backend.connections().open(Some(max(1))), "nobody is left");
}
