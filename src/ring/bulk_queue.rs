//! The run queue of a worker's bulk streams. One stream moves one piece, then the ring takes a turn for
//! everybody else. Without the queue, small exchanges that become ready together with eight bulk streams
//! wait for eight pieces.
//!
//! A low-priority stream lets all others go first while they have something to do. A stream that is
//! slower than the worker then moves larger pieces more rarely, which is what makes bulk cheap.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// For how long a low-priority stream lets others go first: ten times what a turn of a busy worker
/// takes.
const YIELD_MAX: Duration = Duration::from_micros(500);

/// The streams that wait for their turn, by the time since when.
#[derive(Default)]
pub(super) struct BulkQueue {
    normal: VecDeque<Waiting>,
    low_priority: VecDeque<Waiting>,
}

struct Waiting {
    user_data: u64,
    since: Instant,
}

impl BulkQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.normal.is_empty() && self.low_priority.is_empty()
    }

    pub(super) fn push(&mut self, user_data: u64, since: Instant, is_low_priority: bool) {
        let queue = if is_low_priority {
            &mut self.low_priority
        } else {
            &mut self.normal
        };
        queue.push_back(Waiting { user_data, since });
    }

    /// Takes out the stream whose turn it is at `now`.
    pub(super) fn pop(&mut self, now: Instant, others_are_busy: bool) -> Option<u64> {
        let low = self.low_priority.front();
        let low = low.filter(|stream| !others_are_busy || now >= stream.since + YIELD_MAX);
        let queue = match (self.normal.front(), low) {
            (Some(normal), Some(low)) if low.since < normal.since => &mut self.low_priority,
            (None, Some(_)) => &mut self.low_priority,
            _ => &mut self.normal,
        };
        queue.pop_front().map(|stream| stream.user_data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(queue: &mut BulkQueue, now: Instant, others_are_busy: bool) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop(now, others_are_busy)).collect()
    }

    #[test]
    fn low_priority_goes_last_until_it_has_yielded_long_enough() {
        let start = Instant::now();
        let at = |us| start + Duration::from_micros(us);
        let queue = || {
            let mut queue = BulkQueue::default();
            for (user_data, us, is_low_priority) in
                [(1, 0, true), (2, 10, false), (3, 20, false), (4, 30, true)]
            {
                queue.push(user_data, at(us), is_low_priority);
            }
            queue
        };
        assert_eq!(served(&mut queue(), at(40), true), [2, 3]);
        assert_eq!(served(&mut queue(), at(500), true), [1, 2, 3]);
        assert_eq!(served(&mut queue(), at(530), true), [1, 2, 3, 4]);
        // Nobody else wants the worker.
        assert_eq!(served(&mut queue(), at(40), false), [1, 2, 3, 4]);
        assert!(!queue().is_empty() && BulkQueue::default().is_empty());
    }
}
