//! How many connections a backend has, of all cores, and whether a new one may be opened.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::primitives::AtomicU32;

/// The bit beside the count that says that clients wait in the queue of the backend. The next free
/// slot is theirs.
const HAS_QUEUE: u32 = 1 << 31;

/// The connections of one backend, open or being opened.
#[derive(Debug, Default)]
pub(crate) struct LiveConnections(AtomicU32);

impl LiveConnections {
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Relaxed) & !HAS_QUEUE
    }

    /// Whether [`LiveConnections::open`] would succeed.
    pub(crate) fn has_room(&self, max: Option<NonZeroU32>) -> bool {
        let live = self.0.load(Relaxed);
        max.is_none_or(|max| live & HAS_QUEUE == 0 && live < max.get())
    }

    /// Counts one connection more. `false`: there are `max` already, or clients wait in the queue.
    pub(crate) fn open(&self, max: Option<NonZeroU32>) -> bool {
        let Some(max) = max else {
            self.0.fetch_add(1, Relaxed);
            return true;
        };
        let may_open = |live: u32| live & HAS_QUEUE == 0 && live < max.get();
        let one_more = |live| may_open(live).then_some(live + 1);
        self.0.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// As [`LiveConnections::open`], for a client that has waited in the queue.
    pub(super) fn open_for_queued(&self, max: NonZeroU32) -> bool {
        let may_open = |live: u32| live & !HAS_QUEUE < max.get();
        let one_more = |live| may_open(live).then_some(live + 1);
        self.0.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// Counts one connection less. `true`: clients wait in the queue for its slot.
    pub(super) fn close(&self) -> bool {
        let before = self.0.fetch_sub(1, Relaxed);
        debug_assert!(before & !HAS_QUEUE > 0, "closed once per opened");
        before & HAS_QUEUE != 0
    }

    /// Says whether clients wait in the queue. A connection that closes later sees it; one that closed
    /// before has already freed its slot.
    pub(super) fn set_has_queue(&self, has_queue: bool) {
        if has_queue {
            self.0.fetch_or(HAS_QUEUE, Relaxed);
        } else {
            self.0.fetch_and(!HAS_QUEUE, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_connections_is_exact() {
        let connections = LiveConnections::default();
        let max = NonZeroU32::new(2);
        assert!(connections.open(max) && connections.open(max) && !connections.open(max));
        assert!(connections.open(None));
        (0..2).for_each(|_| assert!(!connections.close()));
        assert!(connections.open(max) && !connections.open(max));
        assert_eq!(connections.count(), 2);
    }
}
