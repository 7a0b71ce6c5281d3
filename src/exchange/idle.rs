//! The connections to backends that wait for their next request, one pool per core.
//!
//! Some are anybody's, some only of the client that had them before: those that know something of it,
//! and, unless the host says otherwise, those that have carried a body, because a backend may have left
//! it unread and takes it for the beginning of the next request.
//!
//! Only a connection on which everything was said and understood gets in: whoever takes it out
//! finds it with nothing under way. Each keeps its readiness watch in the ring. A backend that
//! closes, or speaks unasked, makes the watch complete, so that it is swept; whoever takes one out
//! looks at the socket itself, since the ring tells late. The watch of a good one goes on to wait
//! for the response to the next request.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::dial::{Dialled, LiveBackend};
use crate::host::Host;
use crate::local::{IdleCount, Local};
use crate::protocol::Protocol;
use crate::ring::Operation;
use crate::route::{Address, Backend, Chooser, Delivery, Moment, Route};
use crate::sys::Socket;

/// How often what is too old or was closed by its backend is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// How long before its backend closes an idle connection it is given up, at most half of the time there
/// is: a request on its way meanwhile would be lost.
const CLOSE_MARGIN: Duration = Duration::from_secs(1);
/// Connections that one client may leave for itself; of the hosts that it asks in turn, the last ones.
const OWNED_MAX: usize = 8;

/// A connection to a backend, in use for one client.
pub(super) struct Upstream {
    pub socket: Socket,
    pub backend: LiveBackend,
    pub address: Address,
    /// Completes when the backend has something to read, or has finished or failed.
    pub watch: Option<Operation>,
    /// Whether it has carried a request before.
    pub reused: bool,
    /// Whether it knows something of its client (a PROXY header, a source address, credentials of
    /// the connection) or may hold a body of its, and must never carry another's request.
    pub is_bound: bool,
    /// Whether it has carried a body, which may be unread.
    pub has_carried_body: bool,
    /// For how long the backend has said that it keeps the connection.
    pub kept_for: Option<Duration>,
    /// A backend that vanishes is noticed.
    pub is_probed: bool,
}

impl Upstream {
    pub(super) fn fresh(dialled: Dialled) -> Upstream {
        Upstream {
            is_bound: dialled.backend.delivery() != Delivery::default(),
            socket: dialled.socket,
            backend: dialled.backend,
            address: dialled.address,
            watch: None,
            reused: false,
            has_carried_body: false,
            kept_for: None,
            is_probed: false,
        }
    }

    /// How long it may wait for its next request.
    fn idle_max(&self, local: &Local) -> Duration {
        let most = local.limits.pool_idle_deadline;
        let before_close = |span: Duration| span - CLOSE_MARGIN.min(span / 2);
        self.kept_for
            .map_or(most, |span| most.min(before_close(span)))
    }
}

/// A client as the pool knows it. Its connections go with it.
pub(super) struct Owner<'l> {
    local: &'l Local,
    /// 0 until it has left one.
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

struct Idle {
    socket: Socket,
    /// So that its slot is not another's.
    backend: Arc<Backend>,
    address: Address,
    watch: Operation,
    until: Instant,
    has_carried_body: bool,
    kept_for: Option<Duration>,
    is_probed: bool,
}

/// Left for one client, and for requests to one host.
struct Owned {
    host: u64,
    idle: Idle,
}

#[derive(Default)]
struct OfBackend {
    shared: Vec<Idle>,
    owned_count: usize,
}

/// One core's idle connections.
pub(crate) struct IdlePool {
    by_slot: HashMap<u32, OfBackend>,
    by_owner: HashMap<u64, Vec<Owned>>,
    last_owner: u64,
    count: IdleCount,
    keeper: Option<Waker>,
    hasher: DefaultHashBuilder,
}

impl IdlePool {
    pub(crate) fn new(count: IdleCount) -> IdlePool {
        IdlePool {
            by_slot: HashMap::new(),
            by_owner: HashMap::new(),
            last_owner: 0,
            count,
            keeper: None,
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// How many connections wait.
    pub(crate) fn len(&self) -> usize {
        self.count.get()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What tells the hosts apart that a client asks in turn.
    pub(crate) fn host_key(&self, host: Option<&Host>) -> u64 {
        self.hasher.hash_one(host)
    }

    /// Closes what has waited for long enough at `now`, what its backend has closed, and what leads to
    /// a backend that no route has any more; when the core `is_draining`, all. The others are probed
    /// from now on.
    fn sweep(&mut self, now: Instant, is_draining: bool, keep_alive: Duration) {
        let is_kept = |idle: &mut Idle| {
            if !std::mem::replace(&mut idle.is_probed, true) {
                idle.socket.probe_when_silent(keep_alive);
            }
            !is_draining
                && now < idle.until
                && idle.backend.has_route()
                && is_quiet(&mut idle.watch)
        };
        self.by_slot.retain(|_, idle| {
            idle.shared.retain_mut(is_kept);
            idle.owned_count = 0;
            !idle.shared.is_empty()
        });
        let mut count: usize = self.by_slot.values().map(|idle| idle.shared.len()).sum();
        self.by_owner.retain(|_, owned| {
            owned.retain_mut(|owned| is_kept(&mut owned.idle));
            for owned in owned.iter() {
                let slot = owned.idle.backend.slot();
                self.by_slot.entry(slot).or_default().owned_count += 1;
            }
            count += owned.len();
            !owned.is_empty()
        });
        self.count.set(count);
    }

    fn owned_left(&mut self, slot: u32) {
        self.count.set(self.len() - 1);
        if let Some(idle) = self.by_slot.get_mut(&slot) {
            idle.owned_count -= 1;
        }
    }

    /// Closes some client's own connection to the backend.
    fn drop_owned(&mut self, slot: u32) {
        let is_meant = |owned: &Owned| owned.idle.backend.slot() == slot;
        let found = self.by_owner.values_mut().find_map(|all| {
            let at = all.iter().position(is_meant)?;
            Some(all.remove(at))
        });
        if found.is_some() {
            self.owned_left(slot);
        }
    }

    /// Closes one that has waited for long, of some backend; false: there is none.
    pub(crate) fn drop_one(&mut self) -> bool {
        let mut backends = self.by_slot.iter_mut();
        if let Some((_, idle)) = backends.find(|(_, idle)| !idle.shared.is_empty()) {
            idle.shared.remove(0);
            self.count.set(self.len() - 1);
            return true;
        }
        let owned = self.by_owner.values_mut().find(|all| !all.is_empty());
        let Some(owned) = owned.map(|all| all.remove(0)) else {
            return false;
        };
        self.owned_left(owned.idle.backend.slot());
        true
    }

    fn forget_owner(&mut self, owner: u64) {
        for owned in self.by_owner.remove(&owner).unwrap_or_default() {
            self.owned_left(owned.idle.backend.slot());
        }
    }

    fn take_owned(&mut self, owner: u64, host: u64, route: &Route) -> Option<Idle> {
        let all = self.by_owner.get_mut(&owner)?;
        let is_meant = |owned: &Owned| owned.host == host && route.has(owned.idle.backend.slot());
        let at = all.iter().rposition(is_meant)?;
        let idle = all.remove(at).idle;
        self.owned_left(idle.backend.slot());
        Some(idle)
    }

    fn put_owned(&mut self, owner: &Owner<'_>, host: u64, idle: Idle) {
        if owner.id.get() == 0 {
            self.last_owner += 1;
            owner.id.set(self.last_owner);
        }
        let slot = idle.backend.slot();
        let all = self.by_owner.entry(owner.id.get()).or_default();
        all.push(Owned { host, idle });
        let oldest = (all.len() > OWNED_MAX).then(|| all.remove(0));
        self.by_slot.entry(slot).or_default().owned_count += 1;
        self.count.set(self.len() + 1);
        if let Some(oldest) = oldest {
            self.owned_left(oldest.idle.backend.slot());
        }
    }
}

/// Whether the backend has neither said anything nor closed, as far as the ring has heard.
fn is_quiet(watch: &mut Operation) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    Pin::new(watch).poll(&mut nobody).is_pending()
}

/// An idle connection that is the client's own, to a backend of the route that nothing speaks against.
pub(super) fn take_own(
    local: &Local,
    owner: &Owner<'_>,
    host: u64,
    route: &Route,
) -> Option<Upstream> {
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
            && idle.is_good(local)
            && let Some(live) = LiveBackend::open(idle.backend.clone(), connections_max)
        {
            return Some(idle.into_use(live, true));
        }
    }
}

/// A new connection is in use with a backend that may have `connections_max`: clients that wait are
/// not to keep theirs beyond that.
pub(super) fn make_room(local: &Local, backend: &Backend, connections_max: Option<NonZeroU32>) {
    let Some(max) = connections_max else {
        return;
    };
    let mut pool = local.idle.borrow_mut();
    let owned_count = pool
        .by_slot
        .get(&backend.slot())
        .map_or(0, |idle| idle.owned_count);
    if owned_count > 0 && owned_count + backend.vitals().live() as usize > max.get() as usize {
        pool.drop_owned(backend.slot());
    }
}

/// The youngest idle connection to this backend that is still good and anybody's; `may_hold_body`:
/// or holds a body that may be unread. `None`, too, when the backend has `connections_max` in use.
pub(super) fn take(
    local: &Local,
    backend: &Arc<Backend>,
    connections_max: Option<NonZeroU32>,
    may_hold_body: bool,
) -> Option<Upstream> {
    local.idle.borrow().by_slot.get(&backend.slot())?;
    let live = LiveBackend::open(backend.clone(), connections_max)?;
    take_for(local, live, may_hold_body).ok()
}

/// As [`take`], for one that is counted by `live` already, which comes back where there is none.
pub(super) fn take_for(
    local: &Local,
    live: LiveBackend,
    may_hold_body: bool,
) -> Result<Upstream, LiveBackend> {
    let mut pool = local.idle.borrow_mut();
    let is_meant = |idle: &Idle| may_hold_body || !idle.has_carried_body;
    loop {
        let alike = pool.by_slot.get_mut(&live.backend().slot());
        let youngest = alike.and_then(|alike| {
            let shared = &mut alike.shared;
            Some(shared.remove(shared.iter().rposition(is_meant)?))
        });
        let Some(mut idle) = youngest else {
            return Err(live);
        };
        pool.count.set(pool.len() - 1);
        if idle.is_good(local) {
            return Ok(idle.into_use(live, false));
        }
    }
}

impl Idle {
    fn is_good(&mut self, local: &Local) -> bool {
        // The ring hears of a second response that came right behind the first only when the core
        // next waits, and by then it would be taken for the answer to this request.
        local.ring.now() < self.until
            && is_quiet(&mut self.watch)
            && self.socket.is_quiet()
            && is_current(&self.backend, &self.address)
    }

    fn into_use(self, backend: LiveBackend, is_bound: bool) -> Upstream {
        Upstream {
            socket: self.socket,
            backend,
            address: self.address,
            watch: Some(self.watch),
            reused: true,
            is_bound,
            has_carried_body: self.has_carried_body,
            kept_for: self.kept_for,
            is_probed: self.is_probed,
        }
    }
}

/// Whether the backend still has this address; DNS may have moved it.
fn is_current(backend: &Backend, address: &Address) -> bool {
    let count = backend.address_count();
    (0..count).any(|n| backend.address(Protocol::Http, n).as_ref() == Some(address))
}

/// Takes in a connection on which nothing is under way, one that is bound for its owner and the host
/// of the request, or closes it where there is no room. Of a backend that may have `connections_max`
/// at once no more than that are kept either.
pub(super) fn put(
    local: &Local,
    upstream: Upstream,
    owner: &Owner<'_>,
    host: u64,
    connections_max: Option<NonZeroU32>,
) {
    let limits = &local.limits;
    let mut pool = local.idle.borrow_mut();
    let slot = upstream.backend.backend().slot();
    let alike = pool
        .by_slot
        .get(&slot)
        .map_or(0, |idle| idle.shared.len() + idle.owned_count);
    let per_backend = connections_max.map_or(limits.pool_per_backend, |max| {
        limits.pool_per_backend.min(max.get() as usize)
    });
    let has_room = alike < per_backend && pool.len() < limits.pool_per_core;
    let idle_max = upstream.idle_max(local);
    if !has_room || idle_max.is_zero() || local.is_draining() {
        return;
    }
    // An older one goes rather than this, which was just of use.
    if !local.room.has_idle_room() && !pool.drop_one() {
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
        kept_for: upstream.kept_for,
        is_probed: upstream.is_probed,
    };
    if is_bound {
        pool.put_owned(owner, host, idle);
    } else {
        pool.by_slot.entry(slot).or_default().shared.push(idle);
        pool.count.set(pool.len() + 1);
    }
    if let Some(keeper) = pool.keeper.take() {
        keeper.wake();
        local.ring.stay_awake();
    }
}

/// Sweeps a core's pool for as long as there is anything in it, and sleeps otherwise.
pub(crate) async fn keep(local: Rc<Local>) {
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
        let mut pool = local.idle.borrow_mut();
        let keep_alive = local.limits.tcp_keep_alive;
        pool.sweep(local.ring.now(), local.is_draining(), keep_alive);
        while local.room.has_too_many_idle() && pool.drop_one() {}
    }
}
