//! One connection of a backend: counted for as long as it exists, and the one who reports what it
//! has found out about the backend.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::route::{Admission, Backend, Delivery, Moment};
use crate::state::Local;

/// Counts one live connection of a backend for as long as it exists.
pub(crate) struct LiveBackend {
    backend: Arc<Backend>,
    /// Since when it is waited for, if it is.
    waits: Option<Moment>,
    is_trial: bool,
}

impl LiveBackend {
    /// `None` when the backend has `connections_max` already.
    pub(crate) fn open(
        backend: Arc<Backend>,
        connections_max: Option<NonZeroU32>,
    ) -> Option<LiveBackend> {
        backend.vitals().open(connections_max).then(|| LiveBackend {
            backend,
            waits: None,
            is_trial: false,
        })
    }

    /// One whose place was waited for, which counts it already.
    pub(super) fn in_turn(backend: Arc<Backend>) -> LiveBackend {
        LiveBackend {
            backend,
            waits: None,
            is_trial: false,
        }
    }

    /// The connection is to find out whether the backend works again.
    pub(super) fn on_trial(mut self, is_trial: bool) -> LiveBackend {
        self.is_trial = is_trial;
        self
    }

    /// How long it may take to accept, and again to answer, where another may take its place: until
    /// the `deadline` for it. A trial is not to cost its client more than it must.
    pub(crate) fn patience(&self, deadline: Duration) -> Duration {
        match self.is_trial {
            true => deadline.min(self.backend.vitals().patience()),
            false => deadline,
        }
    }

    /// Whether it has kept everybody waiting.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.waits.is_some()
            && self.backend.vitals().admission(Moment::of(now)) == Admission::Suspect
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
    pub(super) fn waits(&mut self, now: Instant) {
        debug_assert!(self.waits.is_none(), "a connection waits once");
        let now = Moment::of(now);
        self.waits = Some(now);
        self.backend.vitals().waits(now);
    }

    /// It did what was waited for.
    pub(super) fn waits_no_more(&mut self, now: Instant) {
        if let Some(began) = self.waits.take() {
            let vitals = self.backend.vitals();
            vitals.waits_no_more(began, Moment::of(now), true);
        }
    }

    /// Its first byte has come.
    pub(crate) fn answered(&mut self, local: &Local) {
        self.waits_no_more(local.ring.now());
        if self
            .backend
            .vitals()
            .succeeded(Moment::of(local.ring.now()))
        {
            local.count(Counter::OutlierUnejections);
            tracing::info!(
                backend = self.text(),
                "backend is back: its trial was answered"
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
        if let Some(began) = self.waits {
            let vitals = self.backend.vitals();
            vitals.waits_no_more(began, began, false);
        }
        self.backend.close();
    }
}

/// Counts a failure against a backend, which may eject it.
pub(super) fn failed(local: &Local, backend: &Backend, cause: Outcome, is_silent: bool) {
    let now = Moment::of(local.ring.now());
    let rules = &local.limits.eject;
    let (vitals, jitter) = (backend.vitals(), fastrand::f64());
    let span = match is_silent {
        true => vitals.kept_silent(now, rules, jitter),
        false => vitals.failed(now, rules, jitter),
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
