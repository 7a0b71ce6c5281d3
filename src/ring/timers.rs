//! The deadlines of all tasks, kept in the wheel and fed by the ring's one timer.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::wheel::Wheel;

/// Resolution of deadlines. They bound waits of a second and more, so a hundredth of that is
/// exact enough, and it bounds the timer to a hundred wake-ups a second.
const TICK: Duration = Duration::from_millis(10);

/// The wheel, the tasks that wait, and the one timer.
pub(super) struct Timers {
    pub(super) wheel: Wheel,
    /// By wheel key.
    pub(super) states: Vec<State>,
    started: Instant,
    /// The operation of the armed timer and the tick it is armed for.
    timer: Option<(u32, u64)>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) passed: bool,
    pub(super) waker: Option<Waker>,
}

impl Timers {
    pub(super) fn new(started: Instant, capacity: usize) -> Timers {
        Timers {
            wheel: Wheel::with_capacity(capacity),
            states: Vec::with_capacity(capacity),
            started,
            timer: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Wakes each task whose deadline has passed at `now`.
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

    /// Wakes each task that waits for a deadline. The deadlines do not pass by that.
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

    /// A timer has completed. It may be one that was replaced meanwhile.
    pub(super) fn timer_ended(&mut self, key: u32) {
        if self.timer.is_some_and(|(armed, _)| armed == key) {
            self.timer = None;
        }
    }

    pub(super) fn tick_at_or_after(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.started).as_nanos();
        nanos.div_ceil(TICK.as_nanos()) as u64
    }
}
