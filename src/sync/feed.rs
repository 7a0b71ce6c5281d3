//! What Redis said has changed and has not been read yet. Bursts fold together here: a key that
//! changes a thousand times before it is read is read once, and the last value wins.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use super::limits::PENDING_KEYS_MAX;

/// Filled by the connection, emptied by the one who reads.
#[derive(Default)]
pub(super) struct Feed {
    pending: Mutex<Pending>,
    wake: Notify,
    lost: Notify,
    /// An event has come whose like could not be known to come.
    has_proof: AtomicBool,
}

#[derive(Default)]
pub(super) struct Pending {
    pub(super) keys: HashSet<Vec<u8>>,
    /// Anything may have changed.
    pub(super) all: bool,
}

impl Feed {
    pub(super) fn changed(&self, raw: Vec<u8>) {
        let mut pending = self.lock();
        if pending.all {
            return;
        }
        pending.keys.insert(raw);
        if pending.keys.len() > PENDING_KEYS_MAX {
            pending.keys = HashSet::new();
            pending.all = true;
        }
        self.wake.notify_one();
    }

    pub(super) fn all_changed(&self) {
        self.lock().all = true;
        self.wake.notify_one();
    }

    /// The connection is gone.
    pub(super) fn set_lost(&self) {
        self.lost.notify_one();
    }

    pub(super) fn prove_events(&self) {
        self.has_proof.store(true, Relaxed);
    }

    pub(super) fn has_proof(&self) -> bool {
        self.has_proof.load(Relaxed)
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
            self.wake.notified().await;
        }
    }

    pub(super) async fn wait_lost(&self) {
        self.lost.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("no holder panics")
    }
}
