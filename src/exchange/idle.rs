//! The connections to backends that wait for their next request, one pool per core.
//!
//! Only a connection on which everything was said and understood gets in: whoever takes it out
//! finds it with nothing under way. Each keeps its readiness watch in the ring. A backend that
//! closes, or speaks unasked, makes the watch complete, so that it is swept; whoever takes one out
//! looks at the socket itself, since the ring tells late. The watch of a good one goes on to wait
//! for the response to the next request.

use crate::dial::{Dialled, LiveBackend};
use crate::local::Local;
use crate::protocol::Protocol;
use crate::ring::Operation;
use crate::route::{Address, Backend, Delivery, Host, ProxyVersion};
use crate::sys::Socket;
use hashbrown::HashMap;
use std::future::{Future, poll_fn};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How often what is too old or was closed by its backend is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// A connection to a backend, in use for one client.
pub struct Upstream {
    pub socket: Socket,
    pub backend: LiveBackend,
    pub address: Address,
    /// Completes when the backend has something to read, or has finished or failed.
    pub watch: Option<Operation>,
    /// Whether it has carried a request before.
    pub reused: bool,
    /// Whether it knows something of its client (a PROXY header, a source address, credentials of
    /// the connection) and must never carry another's request.
    pub is_bound: bool,
    /// The name in the PROXY header that it began with, if that has any.
    pub told_name: Option<Box<Host>>,
}

impl Upstream {
    pub fn fresh(dialled: Dialled) -> Upstream {
        Upstream {
            is_bound: dialled.backend.delivery() != Delivery::default(),
            socket: dialled.socket,
            backend: dialled.backend,
            address: dialled.address,
            watch: None,
            reused: false,
            told_name: None,
        }
    }

    /// Whether what it was told of its first request holds for one to this name, too.
    pub fn may_be_asked_for(&self, name: Option<&Host>) -> bool {
        let is_told = self.backend.delivery().proxy == Some(ProxyVersion::V2);
        !is_told || self.told_name.as_deref() == name
    }
}

struct Idle {
    socket: Socket,
    /// So that its slot is not another's.
    backend: Arc<Backend>,
    address: Address,
    watch: Operation,
    since: Instant,
}

/// One core's idle connections, by the slots of their backends.
#[derive(Default)]
pub struct IdlePool {
    by_slot: HashMap<u32, Vec<Idle>>,
    count: usize,
    keeper: Option<Waker>,
}

impl IdlePool {
    /// How many connections wait.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Closes what is older than `age_max` at `now`, what its backend has closed, and what leads to a
    /// backend that no route has any more.
    fn sweep(&mut self, now: Instant, age_max: Duration) {
        self.by_slot.retain(|_, idle| {
            idle.retain_mut(|idle| {
                now.saturating_duration_since(idle.since) < age_max
                    && idle.backend.has_route()
                    && is_quiet(&mut idle.watch)
            });
            !idle.is_empty()
        });
        self.count = self.by_slot.values().map(Vec::len).sum();
    }
}

/// Whether the backend has neither said anything nor closed, as far as the ring has heard.
fn is_quiet(watch: &mut Operation) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    Pin::new(watch).poll(&mut nobody).is_pending()
}

/// The youngest idle connection to this backend that is still good. `None`, too, when the backend has
/// `connections_max` in use.
pub fn take(
    local: &Local,
    backend: &Arc<Backend>,
    connections_max: Option<NonZeroU32>,
) -> Option<Upstream> {
    let mut pool = local.idle.borrow_mut();
    let slot = backend.slot();
    pool.by_slot.get(&slot)?;
    let live = LiveBackend::open(backend.clone(), connections_max)?;
    loop {
        let idle = pool.by_slot.get_mut(&slot)?.pop()?;
        pool.count -= 1;
        let Idle {
            socket,
            backend: _,
            address,
            mut watch,
            since,
        } = idle;
        let age = local.ring.now().saturating_duration_since(since);
        let is_young = age < local.limits.pool_idle_deadline;
        // The ring hears of a second response that came right behind the first only when the core
        // next waits, and by then it would be taken for the answer to this request.
        let is_good = is_young && is_quiet(&mut watch) && socket.is_quiet();
        if is_good && is_current(backend, &address) {
            return Some(Upstream {
                socket,
                backend: live,
                address,
                watch: Some(watch),
                reused: true,
                is_bound: false,
                told_name: None,
            });
        }
    }
}

/// Whether the backend still has this address; DNS may have moved it.
fn is_current(backend: &Backend, address: &Address) -> bool {
    let count = backend.address_count();
    (0..count).any(|n| backend.address(Protocol::Http, n).as_ref() == Some(address))
}

/// Takes in a connection on which nothing is under way, or closes it where there is no room. Of a
/// backend that may have `connections_max` at once no more than that are kept either.
pub fn put(local: &Local, upstream: Upstream, connections_max: Option<NonZeroU32>) {
    let limits = &local.limits;
    let mut pool = local.idle.borrow_mut();
    let slot = upstream.backend.backend().slot();
    let alike = pool.by_slot.get(&slot).map_or(0, Vec::len);
    let per_backend = connections_max.map_or(limits.pool_per_backend, |max| {
        limits.pool_per_backend.min(max.get() as usize)
    });
    let has_room = alike < per_backend && pool.count < limits.pool_per_core;
    if !has_room || upstream.is_bound || local.is_draining() {
        return;
    }
    let watch = upstream
        .watch
        .unwrap_or_else(|| local.ring.readable(&upstream.socket));
    let idle = Idle {
        backend: upstream.backend.backend().clone(),
        socket: upstream.socket,
        address: upstream.address,
        watch,
        since: local.ring.now(),
    };
    pool.by_slot.entry(slot).or_default().push(idle);
    pool.count += 1;
    if let Some(keeper) = pool.keeper.take() {
        keeper.wake();
        local.ring.stay_awake();
    }
}

/// Sweeps a core's pool for as long as there is anything in it, and sleeps otherwise.
pub async fn keep(local: Rc<Local>) {
    let deadline = local.ring.deadline();
    loop {
        poll_fn(|context| {
            let mut pool = local.idle.borrow_mut();
            if !pool.is_empty() {
                return Poll::Ready(());
            }
            pool.keeper = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        deadline.set(local.ring.now() + SWEEP);
        deadline.passed().await;
        let age_max = match local.is_draining() {
            true => Duration::ZERO,
            false => local.limits.pool_idle_deadline,
        };
        local.idle.borrow_mut().sweep(local.ring.now(), age_max);
    }
}
