//! Takes connections to backends out of the worker's pool of idle ones, and puts them there.
//!
//! A connection is put into the pool only after a complete exchange, with nothing more under way in
//! either direction. When it is taken out, its socket itself is looked at, since the ring reports late
//! that a backend has closed. Its watch then waits for the response to the next request.

use std::cell::Cell;
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::health::Moment;
use crate::ring::Operation;
use crate::route::{Address, Backend, Chooser, Delivery, Route};
use crate::state::{Idle, Local};
use crate::sys::Socket;
use crate::upstream::{Dialled, LiveBackend};

/// How often the pool is swept: connections that have waited too long or were closed by their backend
/// are dropped.
const SWEEP: Duration = Duration::from_secs(1);

/// How long before its backend closes it an idle connection is dropped, at most half of the time that the
/// backend keeps it: a request that is on its way when the backend closes would be lost.
const CLOSE_MARGIN: Duration = Duration::from_secs(1);

/// A connection to a backend, in use for one client.
pub(super) struct BackendConnection {
    pub socket: Socket,
    pub backend: LiveBackend,
    pub address: Address,
    /// Completes when the backend has something to read, or has finished or failed.
    pub watch: Option<Operation>,
    /// It has carried a request before.
    pub is_reused: bool,
    /// It must never carry the request of another client: the backend knows something of its client (a
    /// PROXY header, a source address, credentials of the connection), or may hold a body of its client.
    pub is_bound: bool,
    /// It has carried the body of a request, which the backend may not have read.
    pub has_carried_body: bool,
    /// For how long the backend keeps the connection, as its Keep-Alive field says.
    pub keep_alive_timeout: Option<Duration>,
    /// The socket has TCP keep-alive.
    pub has_keep_alive: bool,
}

impl BackendConnection {
    pub(super) fn new(dialled: Dialled) -> BackendConnection {
        BackendConnection {
            is_bound: dialled.backend.delivery() != Delivery::default(),
            socket: dialled.socket,
            backend: dialled.backend,
            address: dialled.address,
            watch: None,
            is_reused: false,
            has_carried_body: false,
            keep_alive_timeout: None,
            has_keep_alive: false,
        }
    }

    /// How long it may wait for its next request.
    fn idle_max(&self, local: &Local) -> Duration {
        let limit = local.limits.pool_idle_deadline;
        let before_close = |span: Duration| span - CLOSE_MARGIN.min(span / 2);
        self.keep_alive_timeout
            .map_or(limit, |span| limit.min(before_close(span)))
    }
}

/// A client as the pool knows it. When it is dropped, its idle connections are closed.
pub(super) struct Owner<'l> {
    local: &'l Local,
    /// 0 until the client has an idle connection of its own.
    id: Cell<u64>,
}

impl<'l> Owner<'l> {
    pub(super) fn new(local: &'l Local) -> Owner<'l> {
        Owner {
            local,
            id: Cell::new(0),
        }
    }
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        if self.id.get() != 0 {
            self.local.idle.borrow_mut().forget_owner(self.id.get());
        }
    }
}

/// An idle connection that only this client may use, for requests to this host and to a backend of the
/// route that is expected to answer.
pub(super) fn take_owned(
    local: &Local,
    owner: &Owner<'_>,
    host: u64,
    route: &Route,
) -> Option<BackendConnection> {
    if owner.id.get() == 0 {
        return None;
    }
    let mut pool = local.idle.borrow_mut();
    let now = Moment::of(local.ring.now());
    loop {
        let mut idle = pool.take_owned(owner.id.get(), host, route)?;
        let index = route.index_of(idle.backend.slot())?;
        let connections_max = route.share(index).connections_max;
        if Chooser::may_answer(route, index, now)
            && idle.is_good(local.ring.now())
            && let Some(live) = LiveBackend::open(idle.backend.clone(), connections_max)
        {
            return Some(BackendConnection::of_idle(idle, live, true));
        }
    }
}

/// Closes the idle connections that clients own to a backend to which a new connection was made, if all
/// together are more than `connections_max`.
pub(super) fn evict_owned(local: &Local, backend: &Backend, connections_max: Option<NonZeroU32>) {
    let Some(max) = connections_max else {
        return;
    };
    let mut pool = local.idle.borrow_mut();
    let owned_count = pool.owned_count_of(backend.slot());
    if owned_count > 0 && owned_count + backend.connections().count() as usize > max.get() as usize
    {
        pool.drop_owned(backend.slot());
    }
}

/// The youngest idle connection to this backend that is still good and that any client may use. With
/// `may_hold_body` it may have carried a body that the backend has not read. `None`, too, when the
/// backend has `connections_max` in use.
pub(super) fn take(
    local: &Local,
    backend: &Arc<Backend>,
    connections_max: Option<NonZeroU32>,
    may_hold_body: bool,
) -> Option<BackendConnection> {
    if !local.idle.borrow().has_any(backend.slot()) {
        return None;
    }
    let live = LiveBackend::open(backend.clone(), connections_max)?;
    take_for(local, live, may_hold_body).ok()
}

/// As [`take`], for a connection that `live` counts already; `live` comes back when there is none.
pub(super) fn take_for(
    local: &Local,
    live: LiveBackend,
    may_hold_body: bool,
) -> Result<BackendConnection, LiveBackend> {
    let mut pool = local.idle.borrow_mut();
    while let Some(mut idle) = pool.take_shared(live.backend().slot(), may_hold_body) {
        if idle.is_good(local.ring.now()) {
            return Ok(BackendConnection::of_idle(idle, live, false));
        }
    }
    Err(live)
}

impl BackendConnection {
    fn of_idle(idle: Idle, backend: LiveBackend, is_bound: bool) -> BackendConnection {
        BackendConnection {
            socket: idle.socket,
            backend,
            address: idle.address,
            watch: Some(idle.watch),
            is_reused: true,
            is_bound,
            has_carried_body: idle.has_carried_body,
            keep_alive_timeout: idle.keep_alive_timeout,
            has_keep_alive: idle.has_keep_alive,
        }
    }
}

/// Puts a connection on which nothing is under way into the pool, or closes it when the pool is full. A
/// bound one is kept for its owner and the host of the request. To a backend that may have
/// `connections_max` connections, no more than that are kept.
pub(super) fn put(
    local: &Local,
    upstream: BackendConnection,
    owner: &Owner<'_>,
    host: u64,
    connections_max: Option<NonZeroU32>,
) {
    let limits = &local.limits;
    let mut pool = local.idle.borrow_mut();
    let alike = pool.count_of(upstream.backend.backend().slot());
    let per_backend = connections_max.map_or(limits.pool_per_backend, |max| {
        limits.pool_per_backend.min(max.get() as usize)
    });
    let has_room = alike < per_backend && pool.len() < limits.pool_per_core;
    let idle_max = upstream.idle_max(local);
    if !has_room || idle_max.is_zero() || local.is_draining() {
        return;
    }
    // Another one is dropped rather than this, which was just of use.
    if !local.budget.has_idle_room() && !pool.drop_one() {
        return;
    }
    let is_bound = upstream.is_bound;
    let watch = upstream
        .watch
        .unwrap_or_else(|| local.ring.readable(&upstream.socket));
    let idle = Idle {
        backend: upstream.backend.backend().clone(),
        socket: upstream.socket,
        address: upstream.address,
        watch,
        until: local.ring.now() + idle_max,
        has_carried_body: upstream.has_carried_body,
        keep_alive_timeout: upstream.keep_alive_timeout,
        has_keep_alive: upstream.has_keep_alive,
    };
    if is_bound {
        pool.put_owned(&owner.id, host, idle);
    } else {
        pool.put_shared(idle);
    }
    if let Some(housekeeper) = pool.take_housekeeper() {
        housekeeper.wake();
        local.ring.stay_awake();
    }
}

/// Sweeps a worker's pool as long as there is anything in it, and sleeps otherwise.
pub(crate) async fn sweep_idle(local: Rc<Local>) {
    let deadline = local.ring.deadline();
    loop {
        poll_fn(|context| {
            let mut pool = local.idle.borrow_mut();
            if !pool.is_empty() {
                return Poll::Ready(());
            }
            pool.set_housekeeper(context.waker().clone());
            Poll::Pending
        })
        .await;
        deadline.set(local.ring.now() + SWEEP);
        deadline.passed().await;
        let mut pool = local.idle.borrow_mut();
        let keep_alive = local.limits.tcp_keep_alive;
        pool.sweep(local.ring.now(), local.is_draining(), keep_alive);
        while local.budget.has_too_many_idle() && pool.drop_one() {}
    }
}
