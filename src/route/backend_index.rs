//! The backends that exist, for other threads to see. Only pages for operators read this list, never a
//! choice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::backend::Backend;

/// Backends by slot. A clone is the same list. The list keeps no backend alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct BackendIndex(Arc<Mutex<Vec<Weak<Backend>>>>);

impl BackendIndex {
    pub(super) fn insert(&self, backend: &Arc<Backend>) {
        let slot = backend.slot() as usize;
        let mut slots = self.slots();
        if slots.len() <= slot {
            slots.resize(slot + 1, Weak::new());
        }
        slots[slot] = Arc::downgrade(backend);
    }

    pub(super) fn remove(&self, slot: u32) {
        self.slots()[slot as usize] = Weak::new();
    }

    /// The backends that a route has.
    pub(crate) fn backends(&self) -> Vec<Arc<Backend>> {
        let slots = self.slots();
        let backends = slots.iter().filter_map(Weak::upgrade);
        backends.filter(|backend| backend.has_route()).collect()
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Weak<Backend>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
