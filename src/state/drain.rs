//! How far the end of a worker has come. When the process stops, clients between two requests are let
//! go in the first half of the drain, one after the other; relays and long responses in the second.
//! What is left then is cut. So clients do not all come back in the same moment.
//!
//! Nothing is stored per connection: every connection waits for a deadline, and all of those are woken.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The drain of one worker.
#[derive(Default)]
pub(crate) struct Drain {
    began: Cell<Option<Instant>>,
    is_cutting: Cell<bool>,
    asked: Cell<Option<AskedToEnd>>,
}

/// What the connection that is polled at the moment is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskedToEnd {
    /// To end if it is a long one.
    IfLong,
    Now,
}

impl Drain {
    /// Begins it; false: it had begun before.
    pub(super) fn begin(&self, now: Instant) -> bool {
        let is_first = !self.is_draining();
        if is_first {
            self.began.set(Some(now));
        }
        is_first
    }

    /// From now on every connection is asked to end at once.
    pub(crate) fn begin_cutting(&self) {
        self.is_cutting.set(true);
    }

    pub(crate) fn is_cutting(&self) -> bool {
        self.is_cutting.get()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.began.get().is_some()
    }

    /// When a drain of this span lets go of an idle client at `spread` (0 to 1) of the first half.
    pub(super) fn idle_leaves_at(&self, span: Duration, spread: f64) -> Option<Instant> {
        Some(self.began.get()? + (span / 2).mul_f64(spread))
    }

    /// Whether the relay that is polled is to end. Nobody knows whether a relay will end by itself.
    pub(crate) fn asks_relays(&self) -> bool {
        self.asked.get().is_some()
    }

    /// Whether the exchange that is polled and began at `began` is to end. One that has lasted longer
    /// than the whole drain before that began will hardly end within it.
    pub(crate) fn asks_exchange(&self, began: Instant, span: Duration) -> bool {
        match (self.asked.get(), self.began.get()) {
            (Some(AskedToEnd::Now), _) => true,
            (Some(AskedToEnd::IfLong), Some(drain_began)) => {
                drain_began.saturating_duration_since(began) >= span
            }
            _ => false,
        }
    }

    /// Polls a connection that is asked to end.
    pub(crate) fn ask<T>(&self, asked: AskedToEnd, poll: impl FnOnce() -> T) -> T {
        self.asked.set(Some(asked));
        let polled = poll();
        self.asked.set(None);
        polled
    }
}
