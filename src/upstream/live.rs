//! One connection of a backend: it is counted as long as it exists, and it reports to the backend's
//! passive health what it has found out.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::health::{Admission, Moment};
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::route::{Backend, Delivery};
use crate::state::Local;

/// Counts one connection of a backend as long as it exists. It is also the guard of the backend's count of
/// pending connections: dropped while it waits, it leaves that count.
pub(crate) struct LiveBackend {
    backend: Arc<Backend>,
    /// Since when the connection waits to be accepted or answered, if it does.
    pending_since: Option<Moment>,
    is_probe: bool,
}

impl LiveBackend {
    /// `None` when the backend has `connections_max` connections already, or clients in its queue.
    pub(crate) fn open(
        backend: Arc<Backend>,
        connections_max: Option<NonZeroU32>,
    ) -> Option<LiveBackend> {
        let is_open = backend.connections().open(connections_max);
        is_open.then(|| LiveBackend::of_granted_slot(backend))
    }

    /// A connection that the backend counts already, because its client has waited for the slot.
    pub(super) fn of_granted_slot(backend: Arc<Backend>) -> LiveBackend {
        LiveBackend {
            backend,
            pending_since: None,
            is_probe: false,
        }
    }

    /// Marks the connection as the probe of a half-open backend, if it `is_probe`.
    pub(super) fn with_probe(mut self, is_probe: bool) -> LiveBackend {
        self.is_probe = is_probe;
        self
    }

    /// How long the backend may take to accept, and again to answer, while another backend could be tried
    /// instead: as long as `deadline`. A half-open probe ends earlier, so that it costs its client little.
    pub(crate) fn patience(&self, deadline: Duration) -> Duration {
        if self.is_probe {
            deadline.min(self.backend.health().patience())
        } else {
            deadline
        }
    }

    /// Whether the backend keeps this connection waiting and has long answered nobody else either.
    pub(crate) fn answers_nobody(&self, now: Instant) -> bool {
        self.pending_since.is_some()
            && self.backend.health().admission(Moment::of(now)) == Admission::Suspect
    }

    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// How the backend is told who its client is.
    pub(crate) fn delivery(&self) -> Delivery {
        self.backend.delivery()
    }

    /// The backend as an operator writes it.
    pub(crate) fn text(&self) -> &str {
        self.backend.text()
    }

    /// The connection now waits to be accepted, or for an answer that comes at once. How long it waits
    /// says how the backend is doing.
    pub(super) fn start_pending(&mut self, now: Instant) {
        debug_assert!(self.pending_since.is_none(), "a connection waits once");
        let now = Moment::of(now);
        self.pending_since = Some(now);
        self.backend.health().start_pending(now);
    }

    /// What the connection waited for has come.
    pub(super) fn finish_pending(&mut self, now: Instant) {
        if let Some(began) = self.pending_since.take() {
            self.backend.health().finish_pending(began, Moment::of(now));
        }
    }

    /// Records that the backend has answered: its first byte has come.
    pub(crate) fn record_answer(&mut self, local: &Local) {
        let now = local.ring.now();
        self.finish_pending(now);
        if self.backend.health().record_success(Moment::of(now)) {
            local.count(Counter::OutlierUnejections);
            tracing::info!(
                backend = self.text(),
                "backend is back: it answered the half-open probe"
            );
        }
    }

    /// Records a failure of the backend.
    pub(crate) fn record_failure(&self, local: &Local, cause: Outcome) {
        let answers_nobody =
            cause == Outcome::BackendTimeout && self.answers_nobody(local.ring.now());
        record_failure(local, &self.backend, cause, answers_nobody);
    }
}

impl Drop for LiveBackend {
    fn drop(&mut self) {
        if self.pending_since.is_some() {
            self.backend.health().abandon_pending();
        }
        self.backend.close();
    }
}

/// Counts a failure against a backend, which may eject it.
pub(super) fn record_failure(
    local: &Local,
    backend: &Backend,
    cause: Outcome,
    answers_nobody: bool,
) {
    let now = Moment::of(local.ring.now());
    let rules = &local.limits.eject;
    let (health, jitter) = (backend.health(), fastrand::f64());
    let span = if answers_nobody {
        health.record_timeout(now, rules, jitter)
    } else {
        health.record_failure(now, rules, jitter)
    };
    let Some(span) = span else {
        return;
    };
    local.count(Counter::OutlierEjections);
    tracing::warn!(
        backend = backend.text(),
        cause = cause.name(),
        for_ms = span.as_millis() as u64,
        "backend ejected: it gets no connections for this time, then one as a half-open probe; {}",
        cause.explain()
    );
}
