//! The keys that Redis says have changed and that were not read yet. A key that changes a thousand times
//! before it is read is in here once, so it is read once, and the last value counts.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

/// Changed keys that are remembered by name. With more of them the whole table is compared, which costs
/// less than reading so many keys one by one.
const KEYS_MAX: usize = 100_000;

/// The invalidation messages of one connection: filled by the connection, emptied by the sync loop.
#[derive(Default)]
pub(super) struct Invalidations {
    pending: Mutex<Pending>,
    arrived: Notify,
    closed: Notify,
    /// Whether a keyspace event arrived although CONFIG GET could not say that events are sent.
    events_proven: AtomicBool,
}

#[derive(Default)]
pub(super) struct Pending {
    pub(super) keys: HashSet<Vec<u8>>,
    /// Any key may have changed.
    pub(super) all: bool,
}

impl Invalidations {
    pub(super) fn add(&self, redis_key: Vec<u8>) {
        let mut pending = self.lock();
        if pending.all {
            return;
        }
        pending.keys.insert(redis_key);
        if pending.keys.len() > KEYS_MAX {
            pending.keys = HashSet::new();
            pending.all = true;
        }
        self.arrived.notify_one();
    }

    pub(super) fn add_all(&self) {
        self.lock().all = true;
        self.arrived.notify_one();
    }

    /// The connection that the messages come on is closed.
    pub(super) fn set_closed(&self) {
        self.closed.notify_one();
    }

    pub(super) fn set_events_proven(&self) {
        self.events_proven.store(true, Relaxed);
    }

    pub(super) fn are_events_proven(&self) -> bool {
        self.events_proven.load(Relaxed)
    }

    pub(super) fn take(&self) -> Pending {
        std::mem::take(&mut *self.lock())
    }

    /// Returns when there is something to take.
    pub(super) async fn wait(&self) {
        loop {
            {
                let pending = self.lock();
                if pending.all || !pending.keys.is_empty() {
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }

    pub(super) async fn wait_closed(&self) {
        self.closed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("no holder panics")
    }
}
