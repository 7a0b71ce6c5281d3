//! A health check of a backend, as the prober gets it.

use std::sync::{Arc, Weak};

use super::backend::Backend;
use crate::health::HealthCheckState;

/// A backend and the state of one of its health checks. It keeps neither of them alive: the check ends
/// when no route has it any more.
#[derive(Debug, Clone)]
pub(crate) struct ProbeTarget {
    backend: Weak<Backend>,
    state: Weak<HealthCheckState>,
}

impl ProbeTarget {
    pub(super) fn new(backend: &Arc<Backend>, state: &Arc<HealthCheckState>) -> ProbeTarget {
        ProbeTarget {
            backend: Arc::downgrade(backend),
            state: Arc::downgrade(state),
        }
    }

    /// `None`: no route has the check any more.
    pub(crate) fn upgrade(&self) -> Option<(Arc<Backend>, Arc<HealthCheckState>)> {
        self.backend.upgrade().zip(self.state.upgrade())
    }
}
