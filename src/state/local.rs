//! The state of one worker, shared by its connections. Nothing in here is locked or seen by another
//! thread; borrows last for one expression and never across an await.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use slab::Slab;

use super::connection_budget::ConnectionBudget;
use super::drain::Drain;
use super::failure_log::FailureLog;
use super::idle_pool::IdlePool;
use super::pipes::PipePool;
use super::removals::Removals;
use crate::config::{HttpSettings, Limits, ProxySettings};
use crate::host::Host;
use crate::lookup::LookupTable;
use crate::metrics::{CoreMetrics, Counter};
use crate::outcome::Outcome;
use crate::protocol::Protocol;
use crate::reply::ErrorResponses;
use crate::ring::{Deadline, Ring};
use crate::route::{Chooser, Route, Table};
use crate::sys::Congestion;

/// Bytes of the buffer through which all connections of a worker copy. It stays in the processor's
/// cache. Four TLS records of the usual size, so that one read empties most sockets.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a [`Local`] is made of.
pub(crate) struct LocalParts {
    pub core: usize,
    pub ring: Ring,
    pub table: Table,
    pub limits: Limits,
    pub proxy: ProxySettings,
    pub http: Arc<HttpSettings>,
    pub error_responses: Arc<ErrorResponses>,
    pub chooser: Chooser,
    pub budget: Arc<ConnectionBudget>,
    /// With a look-up table (`--lookup yes`).
    pub lookup: bool,
    pub unpaced: Option<Congestion>,
    pub looks_at_every_port: bool,
    pub task_waker: Box<dyn Fn(usize) -> Waker>,
}

/// The state of one worker.
pub(crate) struct Local {
    pub core: usize,
    pub ring: Ring,
    pub limits: Limits,
    pub proxy: ProxySettings,
    pub table: RefCell<Table>,
    pub chooser: RefCell<Chooser>,
    pub pipes: RefCell<PipePool>,
    pub metrics: RefCell<Box<CoreMetrics>>,
    pub buffer: RefCell<Box<[u8]>>,
    /// Where a message is put together that is then sent at once.
    pub scratch: RefCell<Vec<u8>>,
    pub http: Arc<HttpSettings>,
    pub error_responses: Arc<ErrorResponses>,
    pub idle: RefCell<IdlePool>,
    pub removals: Removals,
    pub budget: Arc<ConnectionBudget>,
    /// `None` without `--lookup yes`.
    pub lookup: Option<RefCell<LookupTable>>,
    /// The congestion control of connections to backends; `None`: the system's own.
    pub unpaced: Option<Congestion>,
    /// Whether a connect to a backend is told to try all local ports (IP_LOCAL_PORT_RANGE).
    pub looks_at_every_port: bool,
    /// Accept loops that still run.
    pub listening: Cell<usize>,
    /// Open client connections, by protocol.
    live: [Cell<usize>; Protocol::ALL.len()],
    /// Limits the warnings about backends that failed their clients.
    pub failures: RefCell<FailureLog>,
    /// Outcomes of which a warning was logged; see [`Local::warn_once`].
    warned: RefCell<Vec<Outcome>>,
    /// The next unique id.
    connection_id: Cell<u64>,
    pub drain: Drain,
    waiting_for_drain: RefCell<Vec<Waker>>,
    /// Makes a waker with which other threads wake the callable task of this number.
    task_waker: Box<dyn Fn(usize) -> Waker>,
    callable_tasks: RefCell<Slab<Option<Waker>>>,
}

impl Local {
    pub(crate) fn new(parts: LocalParts) -> Local {
        let LocalParts { limits, budget, .. } = parts;
        Local {
            core: parts.core,
            ring: parts.ring,
            table: RefCell::new(parts.table),
            chooser: RefCell::new(parts.chooser),
            pipes: RefCell::new(PipePool::new(limits.pipes_per_core, limits.pipe_bytes)),
            metrics: RefCell::new(Box::new(CoreMetrics::new())),
            buffer: RefCell::new(vec![0; BUFFER_BYTES].into_boxed_slice()),
            scratch: RefCell::new(Vec::with_capacity(BUFFER_BYTES)),
            http: parts.http,
            error_responses: parts.error_responses,
            idle: RefCell::new(IdlePool::new(budget.idle_count(parts.core))),
            removals: Removals::default(),
            budget,
            lookup: parts.lookup.then(RefCell::default),
            unpaced: parts.unpaced,
            looks_at_every_port: parts.looks_at_every_port,
            listening: Cell::new(0),
            live: Default::default(),
            failures: RefCell::default(),
            warned: RefCell::default(),
            drain: Drain::default(),
            waiting_for_drain: RefCell::new(Vec::new()),
            task_waker: parts.task_waker,
            callable_tasks: RefCell::default(),
            limits,
            proxy: parts.proxy,
            connection_id: Cell::new(fastrand::u64(..)),
        }
    }

    /// Whether the budget has nothing left for another client. Idle connections to backends are closed
    /// first: this worker's at once, those of other workers with their next sweep.
    pub(crate) fn is_full(&self) -> bool {
        while self.budget.is_full() {
            if !self.idle.borrow_mut().drop_one() {
                return true;
            }
        }
        false
    }

    /// Open client connections.
    pub(crate) fn live(&self) -> usize {
        self.live.iter().map(Cell::get).sum()
    }

    /// Whether the process is stopping: nothing new is accepted.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_draining()
    }

    /// Starts the drain: ends the accept loops now, and each connection in its time.
    pub(crate) fn start_draining(&self) {
        if self.drain.begin(self.ring.now()) {
            self.wake_accept_loops();
            self.ring.wake_waiting();
        }
    }

    /// When a client is closed that waits for its next request with this deadline; `None` before the
    /// drain.
    pub(crate) fn idle_leaves_at(&self, deadline: &Deadline) -> Option<Instant> {
        self.drain
            .idle_leaves_at(self.limits.drain, deadline.spread())
    }

    /// When a long connection with this deadline is asked to end; `None` before the drain.
    pub(crate) fn long_leaves_at(&self, deadline: &Deadline) -> Option<Instant> {
        Some(self.idle_leaves_at(deadline)? + self.limits.drain / 2)
    }

    fn wake_accept_loops(&self) {
        for waker in self.waiting_for_drain.take() {
            waker.wake();
        }
        self.ring.stay_awake();
    }

    /// Gives the calling task a number by which other threads may wake it.
    pub(crate) fn callable_task(&self) -> CallableTask<'_> {
        CallableTask {
            local: self,
            number: self.callable_tasks.borrow_mut().insert(None),
        }
    }

    /// Wakes the task of this number for another thread. A task that got the number of one that has ended
    /// is woken for nothing.
    pub(crate) fn wake_task(&self, number: usize) {
        let tasks = self.callable_tasks.borrow();
        if let Some(waker) = tasks.get(number).and_then(Option::as_ref) {
            waker.wake_by_ref();
            self.ring.stay_awake();
        }
    }

    /// Runs `work` until it ends; `None` when the drain begins before.
    pub(crate) async fn until_drain<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if self.is_draining() {
                return Poll::Ready(None);
            }
            let mut waiting = self.waiting_for_drain.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Counts every connection that is still open as cut. The worker ends, and they with it.
    pub(crate) fn count_as_cut(&self) {
        let mut metrics = self.metrics.borrow_mut();
        for protocol in Protocol::ALL {
            for _ in 0..self.live[protocol.index()].take() {
                self.budget.end();
                metrics.outcome(protocol, Outcome::CutAtDrain);
            }
        }
    }

    /// Counts a connection that was accepted.
    pub(crate) fn connection_begins(&self, protocol: Protocol) {
        let live = &self.live[protocol.index()];
        live.set(live.get() + 1);
        self.budget.begin();
        self.metrics.borrow_mut().count(Counter::Accepted, 1);
    }

    /// Counts the end of a connection, whose descriptors are closed by now.
    pub(crate) fn connection_ends(&self, protocol: Protocol, outcome: Outcome) {
        let live = &self.live[protocol.index()];
        live.set(live.get() - 1);
        self.budget.end();
        self.metrics.borrow_mut().outcome(protocol, outcome);
    }

    /// Warns of an outcome that is a fault of the configuration, with cause and remedy, the first time
    /// that this worker meets it. Later ones are only counted.
    pub(crate) fn warn_once(&self, outcome: Outcome, backend: &str) {
        let mut warned = self.warned.borrow_mut();
        if !warned.contains(&outcome) {
            warned.push(outcome);
            tracing::warn!(
                core = self.core,
                backend,
                see = outcome.see(),
                "{}: {}; said once, counted on",
                outcome.name(),
                outcome.explain()
            );
        }
    }

    /// The route of the name, or of the protocol's default.
    ///
    /// # Errors
    /// [`Outcome::UnknownName`], and [`Outcome::NoName`] where there is none.
    pub(crate) fn route(
        &self,
        protocol: Protocol,
        name: Option<&Host>,
    ) -> Result<Arc<Route>, Outcome> {
        let table = self.table.borrow();
        match (table.locate(name, protocol), name) {
            (Some((_, route)), _) => Ok(route.clone()),
            (None, Some(_)) => Err(Outcome::UnknownName),
            (None, None) => Err(Outcome::NoName),
        }
    }

    /// A unique id for a connection. Counted from a random number on, so that no two workers, processes or
    /// machines use the same.
    pub(crate) fn next_connection_id(&self) -> u64 {
        let id = self.connection_id.get();
        self.connection_id.set(id.wrapping_add(1));
        id
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.metrics.borrow_mut().count(counter, 1);
    }

    pub(crate) fn count_pipe_refused(&self) {
        self.count(Counter::PipeShortages);
    }
}

/// A task that other threads may wake for as long as this lives.
pub(crate) struct CallableTask<'l> {
    local: &'l Local,
    number: usize,
}

impl CallableTask<'_> {
    /// The waker for other threads. The executor's own wakers must not leave their thread.
    pub(crate) fn waker(&self) -> Waker {
        (self.local.task_waker)(self.number)
    }

    /// The task calls this before it looks whether what it waits for is there.
    pub(crate) fn register(&self, context: &Context<'_>) {
        let mut tasks = self.local.callable_tasks.borrow_mut();
        tasks[self.number] = Some(context.waker().clone());
    }
}

impl Drop for CallableTask<'_> {
    fn drop(&mut self) {
        self.local.callable_tasks.borrow_mut().remove(self.number);
    }
}
