//! A deadline of one task.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use super::driver::Ring;
use super::operations::register;
use super::timers::State;

/// One deadline of one task, to be set again and again.
pub(crate) struct Deadline {
    ring: Ring,
    key: u32,
}

impl Ring {
    /// A deadline that is not set to anything yet.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::new(self)
    }
}

impl Deadline {
    pub(super) fn new(ring: &Ring) -> Deadline {
        let mut deadlines = ring.0.deadlines.borrow_mut();
        let key = deadlines.wheel.insert();
        if deadlines.states.len() <= key as usize {
            deadlines
                .states
                .resize_with(key as usize + 1, State::default);
        }
        deadlines.states[key as usize] = State::default();
        drop(deadlines);
        Deadline {
            ring: ring.clone(),
            key,
        }
    }

    /// Sets or moves it. It passes at `at` or up to 10 ms later, never before.
    pub(crate) fn set(&self, at: Instant) {
        let mut deadlines = self.ring.0.deadlines.borrow_mut();
        let tick = deadlines.tick_at_or_after(at);
        deadlines.wheel.set(self.key, tick);
        deadlines.states[self.key as usize].passed = false;
    }

    /// As [`Deadline::set`], unless it passes before that.
    pub(crate) fn set_no_later(&self, at: Instant) {
        let deadlines = self.ring.0.deadlines.borrow();
        let tick = deadlines.tick_at_or_after(at);
        let is_set = deadlines.wheel.tick_of(self.key);
        let passed = deadlines.states[self.key as usize].passed;
        drop(deadlines);
        if !passed && is_set.is_none_or(|set| tick < set) {
            self.set(at);
        }
    }

    /// A number from 0 to 1, another for each deadline of the ring; those of any that were made one after
    /// the other are spread evenly (multiples of the golden ratio).
    pub(crate) fn spread(&self) -> f64 {
        const GOLDEN: u32 = 0x9e37_79b9;
        f64::from(self.key.wrapping_mul(GOLDEN)) / f64::from(u32::MAX)
    }

    /// Ready once it has passed; registers the task otherwise.
    pub(crate) fn poll_passed(&self, context: &Context<'_>) -> Poll<()> {
        let mut deadlines = self.ring.0.deadlines.borrow_mut();
        let state = &mut deadlines.states[self.key as usize];
        if state.passed {
            return Poll::Ready(());
        }
        register(&mut state.waker, context);
        Poll::Pending
    }

    /// Waits until it has passed.
    pub(crate) async fn passed(&self) {
        poll_fn(|context| self.poll_passed(context)).await;
    }

    /// Runs `work` until it ends or this deadline passes; `None` when it passed.
    pub(crate) async fn bound<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll_passed(context).map(|()| None),
        })
        .await
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut deadlines = self.ring.0.deadlines.borrow_mut();
        deadlines.wheel.remove(self.key);
        deadlines.states[self.key as usize] = State::default();
    }
}
