//! The pause before the next attempt to connect to Redis.

use std::time::Duration;

/// The first and the longest pause.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A pause that doubles with each attempt. Each is shortened at random by up to a half, so that many
/// proxies do not reconnect at the same moment.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { next: PAUSE_MIN }
    }

    pub(super) fn reset(&mut self) {
        self.next = PAUSE_MIN;
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}
