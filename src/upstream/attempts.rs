//! The backends that were tried for one client, and those that may still be tried. It outlives a single
//! [`dial`](super::dial()), since a backend may accept the connection and still give no answer.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::live::{self, LiveBackend};
use crate::client::{AccessLogEntry, Client, failure};
use crate::health::Moment;
use crate::metrics::Counter;
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::route::{
    Address, Backend, Choice, Chooser, Chosen, PickContext, QueuedAdmission, Route, Ticket,
};
use crate::state::Local;

/// The attempts to get one client, or one request, answered by a backend of its route.
pub(crate) struct Attempts {
    /// A slot that the client has waited for. Used before anything else.
    granted: Option<LiveBackend>,
    /// A backend that is chosen already. Used before another choice.
    chosen: Option<Chosen>,
    /// The slots of the backends that were tried.
    slots: Vec<u32>,
    /// The addresses that were tried.
    addresses: Vec<Address>,
    /// Backends that were tried and have further addresses (DNS names).
    with_more_addresses: Vec<AddressCycle>,
    /// Attempts so far.
    count: u32,
    /// After this no further attempt begins.
    ends: Instant,
    /// How the connection ends when nothing is left to try.
    outcome: Outcome,
    /// The first backend that was skipped because its source address cannot be had.
    skipped: Option<Arc<Backend>>,
    /// Backends that took what they were sent and closed or kept silent. Whether that was their fault is
    /// known only when another backend answers the same.
    unanswered: Vec<Unanswered>,
}

struct Unanswered {
    backend: Arc<Backend>,
    outcome: Outcome,
    answers_nobody: bool,
}

/// The addresses of one backend, each once, beginning with a random one.
struct AddressCycle {
    backend: Arc<Backend>,
    connections_max: Option<NonZeroU32>,
    first: usize,
    tried: usize,
}

/// What comes next.
pub(super) enum Next {
    Attempt(LiveBackend, Address),
    /// Every backend that is left has as many connections as it may have.
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
            granted: None,
            chosen: None,
            slots: Vec::new(),
            addresses: Vec::new(),
            with_more_addresses: Vec::new(),
            count: 0,
            ends: local.ring.now() + local.limits.backend_deadline,
            outcome: Outcome::NoAddress,
            skipped: None,
            unanswered: Vec::new(),
        }
    }

    /// Makes this backend the next one to be tried.
    pub(crate) fn begin_with(&mut self, chosen: Chosen) {
        self.chosen = Some(chosen);
    }

    /// Chooses among the backends that were not tried yet.
    pub(crate) fn choose(&self, local: &Local, route: &Route, client: &Client) -> Choice {
        let mut chooser = local.chooser.borrow_mut();
        let client = if chooser.needs_client(route) {
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

    /// Whether another backend is left that is expected to answer, so that the present one can be given
    /// up.
    pub(crate) fn has_another(&self, local: &Local, route: &Route) -> bool {
        let now = Moment::of(local.ring.now());
        let is_good = |(index, backend): (usize, &Arc<Backend>)| {
            !self.slots.contains(&backend.slot())
                && backend.address_count() > 0
                && Chooser::may_answer(route, index, now)
        };
        self.may_try(local) && route.backends().iter().enumerate().any(is_good)
    }

    /// Notes that a backend took what it was sent and gave no answer, so that the next one gets it.
    pub(crate) fn record_unanswered(
        &mut self,
        local: &Local,
        backend: &LiveBackend,
        outcome: Outcome,
    ) {
        self.record_retry(local, backend, outcome);
        self.unanswered.push(Unanswered {
            backend: backend.backend().clone(),
            outcome,
            answers_nobody: backend.answers_nobody(local.ring.now()),
        });
    }

    /// Notes that the next backend gets what this one was sent, which may still answer.
    pub(crate) fn record_retry(&mut self, local: &Local, backend: &LiveBackend, outcome: Outcome) {
        tracing::debug!(
            core = local.core,
            backend = backend.text(),
            outcome = outcome.name(),
            "no answer, retrying on the next backend"
        );
        local.count(Counter::RetriesUnanswered);
        self.outcome = outcome;
    }

    /// Notes that a backend has answered. The others that got the same and did not answer are to blame
    /// for that, and not what they were sent.
    pub(crate) fn record_answer(&mut self, local: &Local, by: &Arc<Backend>) {
        for unanswered in self.unanswered.drain(..) {
            let Unanswered {
                backend,
                outcome,
                answers_nobody,
            } = unanswered;
            if !Arc::ptr_eq(&backend, by) {
                live::record_failure(local, &backend, outcome, answers_nobody);
            }
        }
    }

    pub(super) fn may_try(&self, local: &Local) -> bool {
        self.count < local.limits.connect_attempts
            && (self.count == 0 || local.ring.now() < self.ends)
    }

    /// Attempts so far.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// After this no further attempt begins.
    pub(crate) fn ends(&self) -> Instant {
        self.ends
    }

    /// Counts one attempt more and returns its number, from 1.
    pub(super) fn count_attempt(&mut self) -> u32 {
        self.count += 1;
        self.count
    }

    pub(super) fn record_failure(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Notes that a backend was skipped because its source address cannot be had.
    pub(super) fn record_skip(&mut self, outcome: Outcome, backend: &LiveBackend) {
        if self.count == 0 {
            self.outcome = outcome;
            self.skipped = Some(backend.backend().clone());
        }
    }

    /// How the connection ends, now that nothing is left to try.
    pub(super) fn outcome(&self, local: &Local) -> Outcome {
        if let (Outcome::SourceFamily, Some(backend)) = (self.outcome, &self.skipped) {
            local.warn_once(self.outcome, backend.text());
        }
        self.outcome
    }

    /// Logs that no backend has taken the client, or the request, of this host. Returns the outcome.
    pub(crate) fn log_failure(
        &self,
        local: &Local,
        route: &Route,
        outcome: Outcome,
        host: impl FnOnce() -> Option<String>,
        entry: &mut AccessLogEntry,
    ) -> Outcome {
        let backend = failure::backend_text(route, self.slots.last().copied());
        entry.set_backend(backend.unwrap_or_default(), self.count);
        failure::note(local, outcome, host, backend, self.count, None)
    }

    /// Offers the slot that the client has waited for to `user`, who returns it when it has no use for
    /// it.
    pub(crate) fn use_granted_slot<T>(
        &mut self,
        user: impl FnOnce(LiveBackend) -> Result<T, LiveBackend>,
    ) -> Option<T> {
        match user(self.granted.take()?) {
            Ok(used) => Some(used),
            Err(unused) => {
                self.granted = Some(unused);
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
        let live = LiveBackend::of_granted_slot(backend);
        self.granted = match Chooser::admits_queued(route, live.backend(), now) {
            QueuedAdmission::Yes => Some(live),
            QueuedAdmission::Probe => Some(live.with_probe(true)),
            QueuedAdmission::No if is_panic => Some(live),
            QueuedAdmission::No => None,
        };
        self.granted.is_some()
    }

    /// Chooses again while the client waits for a slot. Whether it need not wait any longer: a backend is
    /// chosen, or none is left.
    pub(super) fn need_not_wait(&mut self, local: &Local, route: &Route, client: &Client) -> bool {
        match self.choose(local, route, client) {
            Choice::Full => false,
            Choice::Nothing => true,
            Choice::Backend(chosen) => {
                self.chosen = Some(chosen);
                true
            }
        }
    }

    /// The next backend that was not tried yet; when all were tried, a further address of one that has
    /// several.
    pub(super) fn next(
        &mut self,
        local: &Local,
        route: &Route,
        protocol: Protocol,
        client: &Client,
    ) -> Next {
        loop {
            let live = match (self.granted.take(), self.chosen.take()) {
                (Some(granted), _) => Some(granted),
                (None, Some(chosen)) => open(chosen),
                (None, None) => match self.choose(local, route, client) {
                    Choice::Backend(chosen) => open(chosen),
                    Choice::Full => return Next::Full,
                    Choice::Nothing => return self.next_address(protocol),
                },
            };
            let Some(live) = live else { continue };
            let connections_max = route.connections_max(live.backend());
            self.slots.push(live.backend().slot());
            let mut cycle = AddressCycle::new(live.backend().clone(), connections_max);
            let address = cycle.next(protocol, &self.addresses);
            if cycle.has_more() {
                self.with_more_addresses.push(cycle);
            }
            if let Some(address) = address {
                self.addresses.push(address.clone());
                return Next::Attempt(live, address);
            }
        }
    }

    /// A further address of a backend that was tried before.
    fn next_address(&mut self, protocol: Protocol) -> Next {
        while let Some(cycle) = self.with_more_addresses.last_mut() {
            let Some(address) = cycle.next(protocol, &self.addresses) else {
                self.with_more_addresses.pop();
                continue;
            };
            let Some(live) = LiveBackend::open(cycle.backend.clone(), cycle.connections_max) else {
                self.with_more_addresses.pop();
                continue;
            };
            self.addresses.push(address.clone());
            return Next::Attempt(live, address);
        }
        Next::Nothing
    }
}

/// `None` when another worker has taken the backend's last free slot since it was chosen.
fn open(chosen: Chosen) -> Option<LiveBackend> {
    let live = LiveBackend::open(chosen.backend, chosen.connections_max)?;
    Some(live.with_probe(chosen.is_probe))
}

impl AddressCycle {
    fn new(backend: Arc<Backend>, connections_max: Option<NonZeroU32>) -> AddressCycle {
        let count = backend.address_count();
        AddressCycle {
            backend,
            connections_max,
            first: if count > 1 {
                fastrand::usize(..count)
            } else {
                0
            },
            tried: 0,
        }
    }

    fn has_more(&self) -> bool {
        self.tried < self.backend.address_count()
    }

    /// The next address that is not among those that were `tried`, of whichever backend.
    fn next(&mut self, protocol: Protocol, tried: &[Address]) -> Option<Address> {
        while self.has_more() {
            let address = self.backend.address(protocol, self.first + self.tried)?;
            self.tried += 1;
            if !tried.contains(&address) {
                return Some(address);
            }
        }
        None
    }
}
