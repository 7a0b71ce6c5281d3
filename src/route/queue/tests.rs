//! Who gets the place that becomes free, with time and wake-ups in the test's hands.

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

/// Opens as many as it may have.
fn full(slot: u32, most: u32) -> Arc<Backend> {
    let backend = backend(slot);
    while backend.vitals().open(NonZeroU32::new(most)) {}
    backend
}

fn wait_for(backends: &[(&Arc<Backend>, u32)]) -> Ticket {
    let wanted = backends.iter();
    let wanted = wanted.map(|(backend, most)| (Arc::clone(backend), max(*most)));
    Ticket::enter(
        Ticket::next_number(),
        wanted.collect(),
        Waker::noop().clone(),
    )
}

#[test]
fn a_place_goes_to_the_one_who_waited_longest_and_to_no_newcomer() {
    let backend = full(1, 2);
    let first = wait_for(&[(&backend, 2)]);
    let left = wait_for(&[(&backend, 2)]);
    let second = wait_for(&[(&backend, 2)]);
    drop(left);
    for ticket in [first, second] {
        assert!(!ticket.has_place());
        backend.close();
        assert!(ticket.has_place());
        assert!(!backend.vitals().open(Some(max(2))), "it is taken");
        let place = ticket.take_place().expect("a place");
        assert!(Arc::ptr_eq(&place, &backend));
        assert_eq!(backend.vitals().live(), 2);
    }
    backend.close();
    assert!(backend.vitals().open(Some(max(2))), "nobody waits");
}

#[test]
fn an_unused_place_goes_to_the_next() {
    let backend = full(1, 1);
    let first = wait_for(&[(&backend, 1)]);
    let second = wait_for(&[(&backend, 1)]);
    backend.close();
    drop(first);
    assert!(second.has_place());
    drop(second);
    assert_eq!(backend.vitals().live(), 0);
}

#[test]
fn one_who_waits_for_several_gets_one_place() {
    let (one, other) = (full(1, 1), full(2, 1));
    let both = wait_for(&[(&one, 1), (&other, 1)]);
    let behind = wait_for(&[(&other, 1)]);
    one.close();
    other.close();
    assert!(Arc::ptr_eq(&both.take_place().expect("a place"), &one));
    assert!(Arc::ptr_eq(&behind.take_place().expect("a place"), &other));
    assert_eq!((one.vitals().live(), other.vitals().live()), (1, 1));
}

#[test]
fn a_host_that_allows_less_does_not_hold_up_another() {
    let backend = full(1, 4);
    let modest = wait_for(&[(&backend, 2)]);
    let waiting = wait_for(&[(&backend, 4)]);
    backend.close();
    assert!(waiting.has_place() && !modest.has_place());
    // Without a bound nobody ever waits.
    assert!(backend.vitals().open(None));
    for _ in 0..4 {
        backend.close();
    }
    assert!(modest.has_place());
}

#[test]
fn what_was_free_when_one_enters_is_given_at_once() {
    let backend = backend(1);
    assert!(wait_for(&[(&backend, 1)]).has_place());
    assert_eq!(backend.vitals().live(), 0);
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
fn many_threads_never_have_more_than_it_may_and_everybody_gets_a_place() {
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
                    if !backend.vitals().open(Some(max(MOST))) {
                        let wanted = vec![(Arc::clone(&backend), max(MOST))];
                        let waker = Waker::from(Arc::clone(&woken));
                        let ticket = Ticket::enter(Ticket::next_number(), wanted, waker);
                        while woken.0.load(SeqCst) == 0 {
                            std::thread::yield_now();
                        }
                        ticket.take_place().expect("it was woken for that");
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
    assert!(backend.vitals().open(Some(max(1))), "nobody is left");
}
