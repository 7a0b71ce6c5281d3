//! The connections to backends that wait for their next request, one pool per worker.
//!
//! A shared connection is for whoever comes next. An owned one is only for the client that had it
//! before: it knows something of that client or, unless the host says otherwise, has carried a body,
//! which a backend may have left unread and would take for the beginning of the next request.
//!
//! Each connection keeps its readiness watch in the ring. A backend that closes, or sends something
//! unasked, makes the watch complete, so that the connection is swept.

use std::cell::Cell;
use std::future::Future;
use std::hash::BuildHasher;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap};

use super::connection_budget::IdleCount;
use crate::host::Host;
use crate::protocol::Protocol;
use crate::ring::Operation;
use crate::route::{Address, Backend, Route};
use crate::sys::Socket;

/// Connections that one client may own; of the hosts that it asks in turn, the last ones.
const OWNED_MAX: usize = 8;

/// A connection that waits for its next request.
pub(crate) struct Idle {
    pub socket: Socket,
    /// Held, so that its slot is not given to another backend.
    pub backend: Arc<Backend>,
    pub address: Address,
    pub watch: Operation,
    /// When it has waited for long enough.
    pub until: Instant,
    pub has_carried_body: bool,
    /// For how long the backend has said that it keeps the connection.
    pub keep_alive_timeout: Option<Duration>,
    /// A backend that vanishes is noticed.
    pub has_keep_alive: bool,
}

impl Idle {
    /// Whether it can carry another request.
    pub(crate) fn is_good(&mut self, now: Instant) -> bool {
        // The ring hears of a second response that came right behind the first only when the worker
        // next waits, and by then it would be taken for the answer to this request.
        now < self.until
            && is_quiet(&mut self.watch)
            && self.socket.is_quiet()
            && is_current(&self.backend, &self.address)
    }
}

/// Whether the backend has neither said anything nor closed, as far as the ring has heard.
fn is_quiet(watch: &mut Operation) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    Pin::new(watch).poll(&mut nobody).is_pending()
}

/// Whether the backend still has this address; DNS may have moved it.
fn is_current(backend: &Backend, address: &Address) -> bool {
    let count = backend.address_count();
    (0..count).any(|n| backend.address(Protocol::Http, n).as_ref() == Some(address))
}

/// For one client, and for requests to one host.
struct Owned {
    host: u64,
    idle: Idle,
}

#[derive(Default)]
struct OfBackend {
    shared: Vec<Idle>,
    owned_count: usize,
}

/// One worker's idle connections.
pub(crate) struct IdlePool {
    by_slot: HashMap<u32, OfBackend>,
    by_owner: HashMap<u64, Vec<Owned>>,
    last_owner: u64,
    count: IdleCount,
    housekeeper: Option<Waker>,
    hasher: DefaultHashBuilder,
}

impl IdlePool {
    pub(crate) fn new(count: IdleCount) -> IdlePool {
        IdlePool {
            by_slot: HashMap::new(),
            by_owner: HashMap::new(),
            last_owner: 0,
            count,
            housekeeper: None,
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
    pub(crate) fn sweep(&mut self, now: Instant, is_draining: bool, keep_alive: Duration) {
        let is_kept = |idle: &mut Idle| {
            if !std::mem::replace(&mut idle.has_keep_alive, true) {
                idle.socket.enable_keep_alive(keep_alive);
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

    /// Whether there are connections to the backend in this slot, of whomever.
    pub(crate) fn has_any(&self, slot: u32) -> bool {
        self.by_slot.contains_key(&slot)
    }

    /// How many connections to the backend in this slot wait.
    pub(crate) fn count_of(&self, slot: u32) -> usize {
        let idle = self.by_slot.get(&slot);
        idle.map_or(0, |idle| idle.shared.len() + idle.owned_count)
    }

    /// How many of them are owned.
    pub(crate) fn owned_count_of(&self, slot: u32) -> usize {
        self.by_slot.get(&slot).map_or(0, |idle| idle.owned_count)
    }

    /// The youngest shared connection to the backend in this slot; `may_hold_body`: also one that has
    /// carried a body.
    pub(crate) fn take_shared(&mut self, slot: u32, may_hold_body: bool) -> Option<Idle> {
        let shared = &mut self.by_slot.get_mut(&slot)?.shared;
        let is_meant = |idle: &Idle| may_hold_body || !idle.has_carried_body;
        let youngest = shared.remove(shared.iter().rposition(is_meant)?);
        self.count.set(self.len() - 1);
        Some(youngest)
    }

    pub(crate) fn put_shared(&mut self, idle: Idle) {
        let slot = idle.backend.slot();
        self.by_slot.entry(slot).or_default().shared.push(idle);
        self.count.set(self.len() + 1);
    }

    /// Whom to wake when the pool is no longer empty.
    pub(crate) fn set_housekeeper(&mut self, waker: Waker) {
        self.housekeeper = Some(waker);
    }

    pub(crate) fn take_housekeeper(&mut self) -> Option<Waker> {
        self.housekeeper.take()
    }

    /// Closes some client's own connection to the backend.
    pub(crate) fn drop_owned(&mut self, slot: u32) {
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

    pub(crate) fn forget_owner(&mut self, owner: u64) {
        for owned in self.by_owner.remove(&owner).unwrap_or_default() {
            self.owned_left(owned.idle.backend.slot());
        }
    }

    /// The last one that this client left for this host, to a backend of the route.
    pub(crate) fn take_owned(&mut self, owner: u64, host: u64, route: &Route) -> Option<Idle> {
        let all = self.by_owner.get_mut(&owner)?;
        let is_meant = |owned: &Owned| owned.host == host && route.has(owned.idle.backend.slot());
        let at = all.iter().rposition(is_meant)?;
        let idle = all.remove(at).idle;
        self.owned_left(idle.backend.slot());
        Some(idle)
    }

    /// Takes in a connection of the client with this number, which gets one if it has none (0).
    pub(crate) fn put_owned(&mut self, owner: &Cell<u64>, host: u64, idle: Idle) {
        if owner.get() == 0 {
            self.last_owner += 1;
            owner.set(self.last_owner);
        }
        let slot = idle.backend.slot();
        let all = self.by_owner.entry(owner.get()).or_default();
        all.push(Owned { host, idle });
        let oldest = (all.len() > OWNED_MAX).then(|| all.remove(0));
        self.by_slot.entry(slot).or_default().owned_count += 1;
        self.count.set(self.len() + 1);
        if let Some(oldest) = oldest {
            self.owned_left(oldest.idle.backend.slot());
        }
    }
}
