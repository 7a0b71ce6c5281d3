//! One connection of a backend: counted for as long as it exists, and the one who reports what it
//! has found out about the backend.

use crate::local::Local;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::route::{Backend, Delivery, Moment};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

/// Counts one live connection of a backend for as long as it exists.
pub struct LiveBackend {
    backend: Arc<Backend>,
    waits: bool,
}

impl LiveBackend {
    /// `None` when the backend has `connections_max` already.
    pub fn open(backend: Arc<Backend>, connections_max: Option<NonZeroU32>) -> Option<LiveBackend> {
        backend.vitals().open(connections_max).then(|| LiveBackend {
            backend,
            waits: false,
        })
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// How it is told who its client is.
    pub fn delivery(&self) -> Delivery {
        self.backend.delivery()
    }

    /// The member as an operator writes it.
    pub fn text(&self) -> &str {
        self.backend.text()
    }

    /// It is connected to, or was sent something that is answered at once: how long that takes tells
    /// how it is doing.
    pub(super) fn waits(&mut self, now: Instant) {
        debug_assert!(!self.waits, "a connection waits for its first byte once");
        self.waits = true;
        self.backend.vitals().waits(Moment::of(now));
    }

    /// It did what was waited for.
    pub(super) fn waits_no_more(&mut self, now: Instant) {
        if std::mem::take(&mut self.waits) {
            self.backend.vitals().waits_no_more(Moment::of(now), true);
        }
    }

    /// Its first byte has come.
    pub fn answered(&mut self, local: &Local) {
        self.waits_no_more(local.ring.now());
        if self
            .backend
            .vitals()
            .succeeded(Moment::of(local.ring.now()))
        {
            local.count(Counter::BackendsReadmitted);
            tracing::info!(
                backend = self.text(),
                "backend is back: its trial was answered"
            );
        }
    }

    pub fn failed(&self, local: &Local, cause: Outcome) {
        failed(local, &self.backend, cause);
    }
}

impl Drop for LiveBackend {
    fn drop(&mut self) {
        let vitals = self.backend.vitals();
        if self.waits {
            vitals.waits_no_more(Moment::of(Instant::now()), false);
        }
        vitals.close();
    }
}

/// Counts a failure against a backend, which may eject it.
pub(super) fn failed(local: &Local, backend: &Backend, cause: Outcome) {
    let now = Moment::of(local.ring.now());
    let rules = &local.limits.eject;
    let Some(span) = backend.vitals().failed(now, rules, fastrand::f64()) else {
        return;
    };
    local.count(Counter::BackendsEjected);
    tracing::warn!(
        backend = backend.text(),
        cause = cause.name(),
        for_ms = span.as_millis() as u64,
        "backend ejected: it gets no connections for a while, then one to try; {}",
        cause.explain()
    );
}
