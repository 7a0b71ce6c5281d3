//! One connection of a backend: counted for as long as it exists, and the one who reports what it
//! has found out about the backend.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::health::{Admission, Moment};
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::route::{Backend, Delivery};
use crate::state::Local;

/// Counts one live connection of a backend for as long as it exists.
pub(crate) struct LiveBackend {
    backend: Arc<Backend>,
    /// Since when the connection waits to be accepted or answered, if it does.
    pending_since: Option<Moment>,
    is_probe: bool,
}

impl LiveBackend {
    /// `None` when the backend has `connections_max` already.
    pub(crate) fn open(
        backend: Arc<Backend>,
        connections_max: Option<NonZeroU32>,
    ) -> Option<LiveBackend> {
        backend
            .connections()
            .open(connections_max)
            .then(|| LiveBackend {
                backend,
                pending_since: None,
                is_probe: false,
            })
    }

    /// A connection that the backend counts already, because its client has waited for the slot.
    pub(super) fn in_turn(backend: Arc<Backend>) -> LiveBackend {
        LiveBackend {
            backend,
            pending_since: None,
            is_probe: false,
        }
    }

    /// The connection is the probe of a half-open backend.
    pub(super) fn with_probe(mut self, is_probe: bool) -> LiveBackend {
        self.is_probe = is_probe;
        self
    }

    /// How long it may take to accept, and again to answer, where another may take its place: until
    /// the `deadline` for it. A half-open probe ends earlier, so that it costs its client little.
    pub(crate) fn patience(&self, deadline: Duration) -> Duration {
        if self.is_probe {
            deadline.min(self.backend.health().patience())
        } else {
            deadline
        }
    }

    /// Whether it has kept everybody waiting.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.pending_since.is_some()
            && self.backend.health().admission(Moment::of(now)) == Admission::Suspect
    }

    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// How it is told who its client is.
    pub(crate) fn delivery(&self) -> Delivery {
        self.backend.delivery()
    }

    /// The member as an operator writes it.
    pub(crate) fn text(&self) -> &str {
        self.backend.text()
    }

    /// It is connected to, or was sent something that is answered at once: how long that takes tells
    /// how it is doing.
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

    /// Its first byte has come.
    pub(crate) fn answered(&mut self, local: &Local) {
        self.finish_pending(local.ring.now());
        if self
            .backend
            .health()
            .record_success(Moment::of(local.ring.now()))
        {
            local.count(Counter::OutlierUnejections);
            tracing::info!(
                backend = self.text(),
                "backend is back: it answered the connection that probed it"
            );
        }
    }

    pub(crate) fn failed(&self, local: &Local, cause: Outcome) {
        let is_silent = cause == Outcome::BackendTimeout && self.is_silent(local.ring.now());
        failed(local, &self.backend, cause, is_silent);
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
pub(super) fn failed(local: &Local, backend: &Backend, cause: Outcome, is_silent: bool) {
    let now = Moment::of(local.ring.now());
    let rules = &local.limits.eject;
    let (health, jitter) = (backend.health(), fastrand::f64());
    let span = if is_silent {
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
        "backend ejected: it gets no connections for a while, then one to try; {}",
        cause.explain()
    );
}
