//! The result of a health check of one backend. The prober writes it and every choice reads it. All
//! routes that have the same check of the same backend share one.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::check::HealthCheck;
use super::moment::Moment;
use crate::protocol::Protocol;

/// The state of one backend under one health check.
#[derive(Debug)]
pub(crate) struct HealthCheckState {
    check: HealthCheck,
    probed_as: Mutex<ProbedAs>,
    /// When the backend went down; 0: it is up.
    down_since: AtomicU64,
    /// When the backend came back; 0: it was never down.
    up_since: AtomicU64,
    /// For an operator, not for a choice.
    last: Mutex<LastAnswer>,
}

/// The last answers to a health check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LastAnswer {
    /// How long the last answer took, or was waited for; `None`: there was none yet.
    pub(crate) latency: Option<Duration>,
    /// Why the last bad answer was bad. It stays when good answers follow.
    pub(crate) failure: Option<Box<str>>,
}

/// For which host a backend is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProbedAs {
    /// The name in the ClientHello or in the Host field, unless the check has one of its own. `None`
    /// for a default route.
    pub(crate) name: Option<Box<str>>,
    /// The protocol of a default route. It gives the port of a backend without one.
    pub(crate) protocol: Option<Protocol>,
}

impl HealthCheckState {
    /// Up until answers say otherwise.
    pub(crate) fn new(check: HealthCheck) -> HealthCheckState {
        HealthCheckState {
            check,
            probed_as: Mutex::default(),
            down_since: AtomicU64::new(0),
            up_since: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    pub(crate) fn check(&self) -> &HealthCheck {
        &self.check
    }

    pub(crate) fn is_up(&self) -> bool {
        self.down_since.load(Relaxed) == 0
    }

    /// When the backend came back; `None`: it was never down.
    pub(crate) fn up_since(&self) -> Option<Moment> {
        Moment::from_stored(self.up_since.load(Relaxed))
    }

    /// When the backend went down; `None`: it is up.
    pub(crate) fn down_since(&self) -> Option<Moment> {
        Moment::from_stored(self.down_since.load(Relaxed))
    }

    /// Changes the verdict.
    pub(crate) fn set_up(&self, is_up: bool, now: Moment) {
        if is_up {
            self.down_since.store(0, Relaxed);
            self.up_since.store(now.to_stored(), Relaxed);
        } else {
            self.down_since.store(now.to_stored(), Relaxed);
        }
    }

    /// Notes an answer that took so long, and why it was bad if it was.
    pub(crate) fn record_answer(&self, latency: Duration, failure: Option<Box<str>>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.latency = Some(latency);
        if failure.is_some() {
            last.failure = failure;
        }
    }

    pub(crate) fn last_answer(&self) -> LastAnswer {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    /// Says that a route has this check. The first route with a name gives the name of the check.
    pub(crate) fn offer_name(&self, offered: ProbedAs) {
        let mut probed_as = self
            .probed_as
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if probed_as.name.is_none() && (offered.name.is_some() || probed_as.protocol.is_none()) {
            *probed_as = offered;
        }
    }

    pub(crate) fn probed_as(&self) -> ProbedAs {
        let probed_as = self
            .probed_as
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        probed_as.clone()
    }
}
