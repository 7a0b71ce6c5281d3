//! The backends of the registry as other threads may see them: for an operator, and never in the way of
//! a choice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::backend::Backend;

/// By slot. Cheap to clone; all clones are the same list. It keeps nobody: what the registry frees is
/// gone from here, too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster(Arc<Mutex<Vec<Weak<Backend>>>>);

impl Roster {
    pub(super) fn enter(&self, backend: &Arc<Backend>) {
        let slot = backend.slot() as usize;
        let mut places = self.places();
        if places.len() <= slot {
            places.resize(slot + 1, Weak::new());
        }
        places[slot] = Arc::downgrade(backend);
    }

    pub(super) fn leave(&self, slot: u32) {
        self.places()[slot as usize] = Weak::new();
    }

    /// The backends that some route has.
    pub(crate) fn backends(&self) -> Vec<Arc<Backend>> {
        let places = self.places();
        let backends = places.iter().filter_map(Weak::upgrade);
        backends.filter(|backend| backend.has_route()).collect()
    }

    fn places(&self) -> MutexGuard<'_, Vec<Weak<Backend>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
