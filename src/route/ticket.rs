//! A client's place in the queues of backends.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

use super::backend::Backend;
use super::queue::{Grant, Waiter};

/// A client that waits in the queues of several backends for the first free slot, as long as this value
/// lives.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    grant: Arc<Grant>,
    queues: Vec<FullBackend>,
}

/// A backend that has as many connections as the route allows it.
#[derive(Debug, Clone)]
pub(crate) struct FullBackend {
    pub(crate) backend: Arc<Backend>,
    pub(crate) connections_max: NonZeroU32,
}

impl Ticket {
    /// The number of a client in the order of arrival, for [`Ticket::enter`].
    pub(crate) fn next_number() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Relaxed)
    }

    /// Waits for a free slot of any of these backends. `waker` is called when there is one, on the
    /// thread that freed it.
    pub(crate) fn enter(number: u64, queues: Vec<FullBackend>, waker: Waker) -> Ticket {
        let grant = Arc::new(Grant::new(waker));
        for (index, full) in queues.iter().enumerate() {
            let waiter = Waiter {
                grant: Arc::clone(&grant),
                queue_index: index as u32,
            };
            full.backend
                .enter_queue(full.connections_max, number, waiter);
        }
        Ticket {
            number,
            grant,
            queues,
        }
    }

    pub(crate) fn has_slot(&self) -> bool {
        !self.grant.is_pending()
    }

    /// The backend that has granted a slot. Its count of live connections includes the slot, and the
    /// caller has to [`Backend::close`] it.
    pub(crate) fn take_slot(self) -> Option<Arc<Backend>> {
        self.leave()
    }

    fn leave(&self) -> Option<Arc<Backend>> {
        let granted = self.grant.close();
        for full in &self.queues {
            full.backend.leave_queue(full.connections_max, self.number);
        }
        granted.map(|index| Arc::clone(&self.queues[index].backend))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.grant.is_closed()
            && let Some(unused) = self.leave()
        {
            unused.close();
        }
    }
}

#[cfg(test)]
mod tests;
