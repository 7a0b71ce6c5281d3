//! Deadlines of tasks, kept in the wheel and fed by the ring's one timer.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Ring;
use super::operation::register;
use super::wheel::Wheel;

/// Resolution of deadlines. They bound waits of a second and more, so a hundredth of that is
/// exact enough, and it bounds the timer to a hundred wake-ups a second.
const TICK: Duration = Duration::from_millis(10);

/// The wheel, who waits for what, and the one timer.
pub(super) struct Deadlines {
    wheel: Wheel,
    /// By wheel key.
    states: Vec<State>,
    started: Instant,
    /// The operation of the armed timer and the tick it is armed for.
    timer: Option<(u32, u64)>,
}

#[derive(Default)]
struct State {
    passed: bool,
    waker: Option<Waker>,
}

impl Deadlines {
    pub(super) fn new(started: Instant, capacity: usize) -> Deadlines {
        Deadlines {
            wheel: Wheel::with_capacity(capacity),
            states: Vec::with_capacity(capacity),
            started,
            timer: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Wakes everybody whose deadline has passed at `now`.
    pub(super) fn advance(&mut self, now: Instant) {
        let now_tick =
            (now.saturating_duration_since(self.started).as_nanos() / TICK.as_nanos()) as u64;
        let states = &mut self.states;
        self.wheel.advance(now_tick, |key| {
            let state = &mut states[key as usize];
            state.passed = true;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        });
    }

    /// Wakes everybody who waits for a deadline, which does not pass for that.
    pub(super) fn wake_waiting(&self) {
        let wakers = self.states.iter().filter_map(|state| state.waker.as_ref());
        wakers.for_each(Waker::wake_by_ref);
    }

    /// The tick and the wait for which a timer must be armed, unless the armed one is early enough.
    pub(super) fn timer_wanted(&self) -> Option<(u64, Duration)> {
        let next = self.wheel.next_tick()?;
        if self.timer.is_some_and(|(_, armed)| armed <= next) {
            return None;
        }
        let at = self.started + Duration::from_nanos(next * TICK.as_nanos() as u64);
        let wait = at.saturating_duration_since(Instant::now());
        Some((next, wait.max(Duration::from_millis(1))))
    }

    pub(super) fn timer_is_armed(&self) -> bool {
        self.timer.is_some()
    }

    pub(super) fn take_timer(&mut self) -> Option<u32> {
        self.timer.take().map(|(key, _)| key)
    }

    pub(super) fn timer_armed(&mut self, key: u32, tick: u64) {
        self.timer = Some((key, tick));
    }

    /// A timer completed; one that was replaced meanwhile is none of ours.
    pub(super) fn timer_ended(&mut self, key: u32) {
        if self.timer.is_some_and(|(armed, _)| armed == key) {
            self.timer = None;
        }
    }

    fn tick_at_or_after(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.started).as_nanos();
        nanos.div_ceil(TICK.as_nanos()) as u64
    }
}

/// One deadline of one task, to be set again and again.
pub(crate) struct Deadline {
    ring: Ring,
    key: u32,
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
