//! One route: the backends of a host with their shares, health checks and options.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::backend::Backend;
use super::endpoint::Endpoint;
use super::host_options::HostOptions;
use super::host_policies::{Removal, Reuse};
use super::member_options::ProxyVersion;
use super::share::Share;
use crate::health::HealthCheckState;

/// The id that no route has.
pub(crate) const NO_ROUTE: u64 = 0;

/// A set of backends, interned by [`Registry`](super::Registry). Empty only for a known name whose every
/// member was rejected.
#[derive(Debug)]
pub struct Route {
    id: u64,
    backends: Box<[Arc<Backend>]>,
    /// By index of the backend; empty when all have the default share, as in nearly every route.
    shares: Box<[Share]>,
    /// By index of the backend; empty without a health check.
    health_checks: Box<[Arc<HealthCheckState>]>,
    options: Option<Box<RouteOptions>>,
    needs_server_name: bool,
    /// Counts the choices of [`Balance::RoundRobin`](super::Balance::RoundRobin).
    turns: AtomicU32,
    queued: AtomicU32,
}

/// The options of a route.
#[derive(Debug)]
pub(crate) struct RouteOptions {
    pub(crate) host: HostOptions,
    /// Where requests of certificate authorities go.
    pub(crate) acme: Option<Arc<Route>>,
}

impl Route {
    pub(super) fn new(id: u64, endpoints: Vec<Endpoint>) -> Route {
        let is_proxy_v2 =
            |backend: &Arc<Backend>| backend.delivery().proxy == Some(ProxyVersion::V2);
        let (backends, shares): (Vec<_>, Vec<_>) = endpoints
            .into_iter()
            .map(|endpoint| (endpoint.backend, endpoint.share))
            .unzip();
        let are_default = shares.iter().all(|share| *share == Share::default());
        Route {
            id,
            needs_server_name: backends.iter().any(is_proxy_v2),
            backends: backends.into(),
            shares: if are_default {
                Box::default()
            } else {
                shares.into()
            },
            health_checks: Box::default(),
            options: None,
            turns: AtomicU32::new(0),
            queued: AtomicU32::new(0),
        }
    }

    pub(super) fn with_options(
        mut self,
        options: Option<RouteOptions>,
        health_checks: Vec<Arc<HealthCheckState>>,
    ) -> Route {
        debug_assert!(health_checks.is_empty() || health_checks.len() == self.backends.len());
        self.options = options.map(Box::new);
        self.health_checks = health_checks.into();
        self
    }

    /// The share of the backend at `index`.
    pub(crate) fn share(&self, index: usize) -> Share {
        self.shares.get(index).copied().unwrap_or_default()
    }

    /// How many live connections the route allows this backend of its.
    pub(crate) fn connections_max(&self, backend: &Backend) -> Option<NonZeroU32> {
        self.share(self.index_of(backend.slot())?).connections_max
    }

    /// Whether a backend has another share than the default.
    pub(crate) fn has_shares(&self) -> bool {
        !self.shares.is_empty()
    }

    /// The health check of each backend, by its index; empty when the route has no health check.
    pub(crate) fn health_checks(&self) -> &[Arc<HealthCheckState>] {
        &self.health_checks
    }

    /// Whether the health check of the backend at `index`, if there is one, says that it is up.
    pub(super) fn is_checked_up(&self, index: usize) -> bool {
        self.health_checks
            .get(index)
            .is_none_or(|check| check.is_up())
    }

    /// The number of the next choice in turn, of all cores.
    pub(super) fn next_turn(&self) -> u32 {
        self.turns.fetch_add(1, Relaxed)
    }

    /// Counts one more client that waits for a free slot; `None` when `queue_max` already wait.
    pub(crate) fn enter_queue(route: &Arc<Route>, queue_max: u32) -> Option<Queued> {
        let one_more = |queued| (queued < queue_max).then_some(queued + 1);
        let entered = route.queued.fetch_update(Relaxed, Relaxed, one_more);
        entered.ok().map(|_| Queued(Arc::clone(route)))
    }

    /// `None` when no option is set, as for most hosts.
    pub(crate) fn options(&self) -> Option<&RouteOptions> {
        self.options.as_deref()
    }

    /// The members and options, as an operator writes them.
    pub(crate) fn entries(&self) -> Vec<String> {
        let member = |(index, backend): (usize, &Arc<Backend>)| {
            let share = self.share(index);
            format!("{}{share}", backend.text())
        };
        let members = self.backends.iter().enumerate().map(member);
        let options = self.options().map(|options| options.host.entries());
        members.chain(options.into_iter().flatten()).collect()
    }

    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// The index of the backend with this slot.
    pub(crate) fn index_of(&self, slot: u32) -> Option<usize> {
        self.backends
            .iter()
            .position(|backend| backend.slot() == slot)
    }

    /// Whether the route has the backend with this slot.
    pub(crate) fn has(&self, slot: u32) -> bool {
        self.index_of(slot).is_some()
    }

    /// What happens to live connections of a backend that is removed from the host.
    pub(crate) fn removal(&self) -> Removal {
        let options = self.options();
        options.map_or(Removal::Keep, |options| options.host.removal())
    }

    /// Which clients may reuse a connection to a backend.
    pub(crate) fn reuse(&self) -> Reuse {
        let said = self.options().and_then(|options| options.host.reuse);
        said.unwrap_or_default()
    }

    /// Whether a backend gets the name that the client asked for in its PROXY header (`proxy=v2`). The
    /// first bytes of the client are then kept until a backend is chosen.
    pub(crate) fn needs_server_name(&self) -> bool {
        self.needs_server_name
    }

    /// A number that no other route of this process ever has.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

/// A client that waits for a free slot of a backend of its route, as long as this value lives.
#[derive(Debug)]
pub(crate) struct Queued(Arc<Route>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Relaxed);
    }
}
