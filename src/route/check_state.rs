//! What active checks have found: one verdict per backend and kind of check, shared by all routes
//! that have both, written by the prober and read by every choice.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::backend::Backend;
use super::health_check::Check;
use super::vitals::Moment;
use crate::protocol::Protocol;

/// One backend under one check.
#[derive(Debug)]
pub struct CheckState {
    pub backend: Arc<Backend>,
    pub check: Check,
    /// The host that it was first made for: its name, and the protocol that gives the port where
    /// the member has none.
    asked_as: Mutex<AskedAs>,
    /// When it went down; 0: it is up.
    down_since: AtomicU64,
    /// When it came back; 0: it was never down.
    back_since: AtomicU64,
    /// For an operator to see, not for a choice.
    last: Mutex<Last>,
}

/// What was heard last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Last {
    /// How long the last answer took, or was waited for; `None`: there was none yet.
    pub latency: Option<Duration>,
    /// Why the last bad answer was bad; it stays when good ones follow.
    pub cause: Option<Box<str>>,
}

/// As what a check presents itself to a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskedAs {
    /// For hello or Host field; `None` for a default without `check-name`.
    pub name: Option<Box<str>>,
    pub protocol: Option<Protocol>,
}

impl CheckState {
    /// Up until the checks say otherwise.
    pub(super) fn new(backend: Arc<Backend>, check: Check) -> CheckState {
        CheckState {
            backend,
            check,
            asked_as: Mutex::default(),
            down_since: AtomicU64::new(0),
            back_since: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.down_since.load(Relaxed) == 0
    }

    /// When it came back, if it ever was down.
    pub fn back_since(&self) -> Option<Moment> {
        Moment::from_stored(self.back_since.load(Relaxed))
    }

    /// When it went down, while it is.
    pub fn down_since(&self) -> Option<Moment> {
        Moment::from_stored(self.down_since.load(Relaxed))
    }

    /// Changes the verdict.
    pub fn set_up(&self, up: bool, now: Moment) {
        if up {
            self.down_since.store(0, Relaxed);
            self.back_since.store(now.stored(), Relaxed);
        } else {
            self.down_since.store(now.stored(), Relaxed);
        }
    }

    /// Takes in an answer that took so long; with its cause when it was bad.
    pub fn hear(&self, latency: Duration, cause: Option<Box<str>>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.latency = Some(latency);
        if cause.is_some() {
            last.cause = cause;
        }
    }

    pub fn last(&self) -> Last {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    /// The first host that asks gives the name; what has none gives way to one that has.
    pub fn ask_as(&self, asked_as: AskedAs) {
        let mut place = self.asked_as.lock().unwrap_or_else(PoisonError::into_inner);
        if place.name.is_none() && (asked_as.name.is_some() || place.protocol.is_none()) {
            *place = asked_as;
        }
    }

    pub fn asked_as(&self) -> AskedAs {
        let place = self.asked_as.lock().unwrap_or_else(PoisonError::into_inner);
        place.clone()
    }
}
