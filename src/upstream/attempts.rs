//! What one connection has tried so far, and where it may go next. Goes from dial to dial, since a
//! backend may accept and still come to nothing.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::live::{self, LiveBackend};
use crate::client::Client;
use crate::health::Moment;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::route::{
    Address, Backend, Choice, Chooser, Chosen, PickContext, QueuedAdmission, Route, Ticket,
};
use crate::state::Local;

/// The backends of one route, one after the other.
pub(crate) struct Attempts {
    /// Chosen already, and to be tried before any other.
    first: Option<Chosen>,
    /// A place that was waited for, to be used before any other.
    place: Option<LiveBackend>,
    slots: Vec<u32>,
    addresses: Vec<Address>,
    /// Backends with several addresses (DNS names), of which not all were tried.
    several: Vec<Several>,
    count: u32,
    ends: Instant,
    worst: Outcome,
    /// The first that was skipped for want of a source address.
    skipped: Option<Arc<Backend>>,
    /// Took what they were sent and closed, or kept silent. Whether that was their fault shows when
    /// another answers the same.
    unanswered: Vec<Unanswered>,
}

struct Unanswered {
    backend: Arc<Backend>,
    outcome: Outcome,
    is_silent: bool,
}

/// The addresses of one backend, from a random one on, each once.
struct Several {
    backend: Arc<Backend>,
    connections_max: Option<NonZeroU32>,
    first: usize,
    tried: usize,
}

/// Where to go next.
pub(super) enum Next {
    Backend(LiveBackend, Address),
    /// Those that are left have as many connections as they may.
    Full,
    Nothing,
}

/// A client that waits for a free slot.
pub(super) struct QueuedClient {
    pub ticket: Ticket,
    /// All backends of the route are down, so that a slot of any of them may be used.
    pub is_panic: bool,
}

impl Attempts {
    pub(crate) fn new(local: &Local) -> Attempts {
        Attempts {
            first: None,
            place: None,
            slots: Vec::new(),
            addresses: Vec::new(),
            several: Vec::new(),
            count: 0,
            ends: local.ring.now() + local.limits.backend_deadline,
            worst: Outcome::NoAddress,
            skipped: None,
            unanswered: Vec::new(),
        }
    }

    /// Begins with this backend.
    pub(crate) fn begin_with(&mut self, chosen: Chosen) {
        self.first = Some(chosen);
    }

    /// A choice among what was not tried yet.
    pub(crate) fn choose(&self, local: &Local, route: &Route, client: &Client) -> Choice {
        let mut chooser = local.chooser.borrow_mut();
        let client = if chooser.goes_by_client(route) {
            client.address().map(|address| address.ip())
        } else {
            None
        };
        let context = PickContext {
            tried: &self.slots,
            client,
            now: Moment::of(local.ring.now()),
        };
        let choice = chooser.choose(route, &context);
        if let Choice::Backend(chosen) = &choice
            && chosen.is_panic
            && self.slots.is_empty()
        {
            local.count(Counter::PanicModePicks);
        }
        choice
    }

    /// Whether a backend is left that may well answer, so that giving the present one up is no loss.
    pub(crate) fn has_another(&self, local: &Local, route: &Route) -> bool {
        let now = Moment::of(local.ring.now());
        let is_good = |(index, backend): (usize, &Arc<Backend>)| {
            !self.slots.contains(&backend.slot())
                && backend.address_count() > 0
                && Chooser::may_answer(route, index, now)
        };
        self.may_try(local) && route.backends().iter().enumerate().any(is_good)
    }

    /// A backend took what it was sent and gave no answer, so that another one is to have it.
    pub(crate) fn unanswered(&mut self, local: &Local, backend: &LiveBackend, outcome: Outcome) {
        self.goes_on(local, backend, outcome);
        self.unanswered.push(Unanswered {
            backend: backend.backend().clone(),
            outcome,
            is_silent: backend.is_silent(local.ring.now()),
        });
    }

    /// Another backend is to have what this one was sent, which may still answer.
    pub(crate) fn goes_on(&mut self, local: &Local, backend: &LiveBackend, outcome: Outcome) {
        tracing::debug!(
            core = local.core,
            backend = backend.text(),
            outcome = outcome.name(),
            "no answer, going on to another backend"
        );
        local.count(Counter::RetriesUnanswered);
        self.worst = outcome;
    }

    /// A backend has answered, so that those which did not are to blame and not what they were sent.
    pub(crate) fn answered(&mut self, local: &Local, by: &Arc<Backend>) {
        for Unanswered {
            backend,
            outcome,
            is_silent,
        } in self.unanswered.drain(..)
        {
            if !Arc::ptr_eq(&backend, by) {
                live::failed(local, &backend, outcome, is_silent);
            }
        }
    }

    pub(super) fn may_try(&self, local: &Local) -> bool {
        self.count < local.limits.connect_attempts
            && (self.count == 0 || local.ring.now() < self.ends)
    }

    /// The backend that was tried last, by its slot, and how many attempts there were.
    pub(crate) fn last_tried(&self) -> (Option<u32>, u32) {
        (self.slots.last().copied(), self.count)
    }

    /// When it is too late for another attempt.
    pub(crate) fn ends(&self) -> Instant {
        self.ends
    }

    /// Gives back how many attempts there are with this one.
    pub(super) fn begin(&mut self) -> u32 {
        self.count += 1;
        self.count
    }

    pub(super) fn record_failure(&mut self, outcome: Outcome) {
        self.worst = outcome;
    }

    pub(super) fn skip(&mut self, outcome: Outcome, backend: &LiveBackend) {
        if self.count == 0 {
            self.worst = outcome;
            self.skipped = Some(backend.backend().clone());
        }
    }

    /// How the connection ends when nothing is left.
    pub(super) fn outcome(&self, local: &Local) -> Outcome {
        if let (Outcome::SourceFamily, Some(backend)) = (self.worst, &self.skipped) {
            local.warn_once(self.worst, backend.text());
        }
        self.worst
    }

    /// Offers the place that was waited for to `user`, who gives it back where it has no use for it.
    pub(crate) fn use_place<T>(
        &mut self,
        user: impl FnOnce(LiveBackend) -> Result<T, LiveBackend>,
    ) -> Option<T> {
        match user(self.place.take()?) {
            Ok(used) => Some(used),
            Err(place) => {
                self.place = Some(place);
                None
            }
        }
    }

    /// Enters the queues of the backends that the last choice found full, as the client with this
    /// number.
    pub(super) fn enter_queues(
        &self,
        local: &Local,
        route: &Route,
        number: u64,
        waker: Waker,
    ) -> QueuedClient {
        let full = local.chooser.borrow().full(route);
        QueuedClient {
            ticket: Ticket::enter(number, full.backends, waker),
            is_panic: full.is_panic,
        }
    }

    /// Whether the slot of this backend, which the client has waited for, may be used. Then it is used
    /// next.
    pub(super) fn admits_queued(
        &mut self,
        local: &Local,
        route: &Route,
        backend: Arc<Backend>,
        is_panic: bool,
    ) -> bool {
        let now = Moment::of(local.ring.now());
        let live = LiveBackend::in_turn(backend);
        self.place = match Chooser::admits_queued(route, live.backend(), now) {
            QueuedAdmission::Yes => Some(live),
            QueuedAdmission::Probe => Some(live.with_probe(true)),
            QueuedAdmission::No if is_panic => Some(live),
            QueuedAdmission::No => None,
        };
        self.place.is_some()
    }

    /// Whether there is another choice by now than to wait; what was chosen is tried next.
    pub(super) fn finds_room(&mut self, local: &Local, route: &Route, client: &Client) -> bool {
        match self.choose(local, route, client) {
            Choice::Full => false,
            Choice::Nothing => true,
            Choice::Backend(chosen) => {
                self.first = Some(chosen);
                true
            }
        }
    }

    /// The next backend that was not tried yet; when all were, further addresses of those that have
    /// several.
    pub(super) fn next(
        &mut self,
        local: &Local,
        route: &Route,
        protocol: Protocol,
        client: &Client,
    ) -> Next {
        loop {
            let live = match (self.place.take(), self.first.take()) {
                (Some(place), _) => Some(place),
                (None, Some(first)) => open(first),
                (None, None) => match self.choose(local, route, client) {
                    Choice::Backend(chosen) => open(chosen),
                    Choice::Full => return Next::Full,
                    Choice::Nothing => break,
                },
            };
            let Some(live) = live else { continue };
            let backend = live.backend().clone();
            let connections_max = route.connections_max(&backend);
            self.slots.push(backend.slot());
            let count = backend.address_count();
            let first = if count > 1 {
                fastrand::usize(..count)
            } else {
                0
            };
            let mut several = Several {
                backend,
                connections_max,
                first,
                tried: 0,
            };
            let address = several.next(protocol, &self.addresses);
            if several.tried < count {
                self.several.push(several);
            }
            if let Some(address) = address {
                self.addresses.push(address.clone());
                return Next::Backend(live, address);
            }
        }
        while let Some(several) = self.several.last_mut() {
            let Some(address) = several.next(protocol, &self.addresses) else {
                self.several.pop();
                continue;
            };
            let open = LiveBackend::open(several.backend.clone(), several.connections_max);
            let Some(live) = open else {
                self.several.pop();
                continue;
            };
            self.addresses.push(address.clone());
            return Next::Backend(live, address);
        }
        Next::Nothing
    }
}

/// `None` when another core has taken the last place since it was chosen.
fn open(chosen: Chosen) -> Option<LiveBackend> {
    let live = LiveBackend::open(chosen.backend, chosen.connections_max)?;
    Some(live.with_probe(chosen.is_probe))
}

impl Several {
    /// The next address that nobody has tried.
    fn next(&mut self, protocol: Protocol, tried: &[Address]) -> Option<Address> {
        while self.tried < self.backend.address_count() {
            let address = self.backend.address(protocol, self.first + self.tried)?;
            self.tried += 1;
            if !tried.contains(&address) {
                return Some(address);
            }
        }
        None
    }
}
