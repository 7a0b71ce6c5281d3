//! The queue of a backend that has as many connections as it may. Clients of all cores and hosts wait in
//! it, first come, first served. A connection that closes gives its slot to the client that has waited
//! longest; while anybody waits, [`LiveConnections::open`] refuses everybody else.
//!
//! The lock is taken only while clients wait. A bit beside the count of live connections says whether
//! they do, so a closing connection learns it as it counts down.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use super::live_connections::LiveConnections;
use crate::primitives::{AtomicU32, Mutex, MutexGuard};

/// The clients that wait for one backend.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

/// By the most live connections that the client's route allows the backend, then by the client's
/// number. A route that allows few does not hold up a route that allows more.
type Waiting = BTreeMap<NonZeroU32, BTreeMap<u64, Waiter>>;

/// One client in this queue.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) grant: Arc<Grant>,
    /// The index of this queue among those in which the client waits.
    pub(super) queue_index: u32,
}

/// At most one slot for a client that waits in one or several queues.
#[derive(Debug)]
pub(super) struct Grant {
    /// [`Grant::NONE`], [`Grant::CLOSED`], or 1 plus the index of the queue that granted a slot.
    state: AtomicU32,
    /// May be called by any thread.
    waker: Waker,
}

impl Grant {
    const NONE: u32 = 0;
    /// The client waits no longer.
    const CLOSED: u32 = u32::MAX;

    pub(super) fn new(waker: Waker) -> Grant {
        Grant {
            state: AtomicU32::new(Grant::NONE),
            waker,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.state.load(Acquire) == Grant::NONE
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Acquire) == Grant::CLOSED
    }

    /// Accepts no slot any more, and returns the index of the queue that has granted one.
    pub(super) fn close(&self) -> Option<usize> {
        match self.state.swap(Grant::CLOSED, AcqRel) {
            Grant::NONE | Grant::CLOSED => None,
            granted => Some(granted as usize - 1),
        }
    }

    /// `false`: the client has a slot elsewhere, or waits no longer.
    fn grant(&self, queue_index: u32) -> bool {
        let granted = self
            .state
            .compare_exchange(Grant::NONE, queue_index + 1, AcqRel, Relaxed);
        if granted.is_ok() {
            self.waker.wake_by_ref();
        }
        granted.is_ok()
    }
}

impl Queue {
    pub(super) fn enter(
        &self,
        connections: &LiveConnections,
        max: NonZeroU32,
        number: u64,
        waiter: Waiter,
    ) {
        let mut waiting = self.lock();
        waiting.entry(max).or_default().insert(number, waiter);
        connections.set_has_queue(true);
        // A slot that was free already belongs to whoever waits longest, perhaps to this client.
        hand_out(&mut waiting, connections);
    }

    pub(super) fn leave(&self, connections: &LiveConnections, max: NonZeroU32, number: u64) {
        let mut waiting = self.lock();
        remove(&mut waiting, max, number);
        hand_out(&mut waiting, connections);
    }

    /// Gives free slots to those who wait.
    pub(super) fn hand_out(&self, connections: &LiveConnections) {
        hand_out(&mut self.lock(), connections);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives free slots to those who wait. When nobody is left, everybody may open connections again.
fn hand_out(waiting: &mut Waiting, connections: &LiveConnections) {
    while let Some((number, max)) = next(waiting, connections.count()) {
        if !connections.open_for_queued(max) {
            continue;
        }
        let waiter = remove(waiting, max, number).expect("it was found there");
        if !waiter.grant.grant(waiter.queue_index) {
            connections.close();
        }
    }
    if waiting.is_empty() {
        connections.set_has_queue(false);
    }
}

/// Number and bound of the client that has waited longest, of those whose bound is above `live`.
fn next(waiting: &Waiting, live: u32) -> Option<(u64, NonZeroU32)> {
    let above_live = NonZeroU32::new(live.saturating_add(1))?;
    let first_of_each = waiting.range(above_live..).filter_map(|(max, waiters)| {
        let (number, _) = waiters.first_key_value()?;
        Some((*number, *max))
    });
    first_of_each.min()
}

fn remove(waiting: &mut Waiting, max: NonZeroU32, number: u64) -> Option<Waiter> {
    let waiters = waiting.get_mut(&max)?;
    let waiter = waiters.remove(&number);
    if waiters.is_empty() {
        waiting.remove(&max);
    }
    waiter
}
