//! The routing state of the sync thread: the table, its backends and their DNS names. Redis, the routes
//! file, the snapshot and DNS change it. It publishes the changes to the cores, and frees old pieces of
//! the table when no core uses them any more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dns_cache::DnsCache;
use super::rejected_entries::RejectedEntries;
use super::snapshot::Snapshot;
use super::static_routes::Routes;
use super::status::SharedStatus;
use crate::config::SyncSettings;
use crate::health::ProbedAs;
use crate::prober::Prober;
use crate::protocol::Protocol;
use crate::route::{
    AddressPolicy, Change, Endpoint, HostOptions, Key, Layer, Master, Member, Registry, Route,
    RouteOptions, Seen, Update, as_option,
};

/// Without a table for this long at start, the snapshot or the static routes are used.
pub(super) const FIRST_TABLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Is called with each new version of the table, on the sync thread.
pub(crate) type Publish = Box<dyn FnMut(Arc<Update>) + Send>;

/// The table with everything that belongs to it. All parts of the sync thread share one.
pub(super) struct RoutingState {
    pub(super) master: Master,
    pub(super) dns: DnsCache,
    pub(super) status: Arc<SharedStatus>,
    registry: Registry,
    policy: AddressPolicy,
    prober: Prober,
    publish: Publish,
    /// Changes that are not published yet.
    changes: Changes,
    /// Since when there is a table to start with, whether or not its names have addresses.
    first_table: Option<Instant>,
    is_ready: bool,
    /// Whether the routes of Redis were compared with Redis once. Before that, a snapshot would replace a
    /// whole table by a part of one.
    is_compared: bool,
    /// Whether the routes of Redis changed since the last snapshot.
    is_unsaved: bool,
}

#[derive(Default, Clone, Copy)]
struct Changes {
    added: usize,
    changed: usize,
    removed: usize,
}

impl Changes {
    fn count(&mut self, change: Change) {
        match change {
            Change::None => {}
            Change::Added => self.added += 1,
            Change::Changed => self.changed += 1,
            Change::Removed => self.removed += 1,
        }
    }
}

impl RoutingState {
    pub(super) fn new(
        settings: &SyncSettings,
        status: Arc<SharedStatus>,
        publish: Publish,
    ) -> RoutingState {
        RoutingState {
            master: Master::new(fastrand::u64(..)),
            dns: DnsCache::new(
                settings.dns_ttl_min,
                settings.dns_ttl_max,
                settings.backend_policy.clone(),
            ),
            policy: settings.backend_policy.clone(),
            registry: Registry::with_index(&status.backends),
            prober: Prober::new(Arc::clone(&status.tally)),
            status,
            publish,
            changes: Changes::default(),
            first_table: None,
            is_ready: false,
            is_compared: false,
            is_unsaved: false,
        }
    }

    /// Files what Redis has for a host. Members and options that cannot be used are skipped and named in
    /// `rejected`.
    pub(super) fn set_redis(
        &mut self,
        key: &Key,
        entries: &[&str],
        rejected: &mut RejectedEntries,
    ) {
        let route = self.route_of(key, entries, rejected);
        self.set_redis_route(key, Some(route));
    }

    /// Redis no longer has this host.
    pub(super) fn remove_redis(&mut self, key: &Key) {
        self.set_redis_route(key, None);
    }

    /// Removes the hosts that a comparison did not find, and gives them back.
    pub(super) fn remove_unseen(&mut self, seen: &Seen) -> Vec<(Key, Arc<Route>)> {
        let unseen = self.master.unseen(seen);
        for (key, _) in &unseen {
            self.remove_redis(key);
        }
        unseen
    }

    /// Restores hosts that were removed, unless Redis has them again.
    pub(super) fn restore(&mut self, removed: Vec<(Key, Arc<Route>)>) {
        for (key, route) in removed {
            if self.master.get(&key, Layer::Redis).is_none() {
                self.set_redis_route(&key, Some(route));
            }
        }
    }

    fn set_redis_route(&mut self, key: &Key, route: Option<Arc<Route>>) {
        let change = self.master.set(key, Layer::Redis, route);
        self.is_unsaved |= change != Change::None;
        self.changes.count(change);
    }

    /// Replaces all static routes. These were checked when they were read.
    pub(super) fn set_static(&mut self, routes: &Routes) {
        let gone: Vec<Key> = self
            .master
            .static_keys()
            .filter(|key| !routes.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            self.changes
                .count(self.master.set(&key, Layer::Static, None));
        }
        for (key, members) in routes {
            let route = self.checked_route(key, members);
            self.changes
                .count(self.master.set(key, Layer::Static, Some(route)));
        }
    }

    /// The routes of Redis were compared with all that Redis has.
    pub(super) fn set_compared(&mut self) {
        self.is_compared = true;
    }

    /// Files what a snapshot holds as routes of Redis. Routes that Redis itself has sent are newer and stay.
    pub(super) fn set_snapshot(&mut self, snapshot: &Snapshot) {
        let read = snapshot.read_routes(|key, entries, rejected| {
            if self.master.get(&key, Layer::Redis).is_some() {
                return;
            }
            // The known options and the allowed addresses may have changed since it was written.
            let before = rejected.count();
            let route = self.route_of(&key, entries, rejected);
            if rejected.count() > before {
                rejected.name_last(|| key.to_string());
            }
            let change = self.master.set(&key, Layer::Redis, Some(route));
            self.changes.count(change);
        });
        self.status.set_snapshot_written(snapshot.written());
        self.status.confirm_table_at(snapshot.age());
        match read {
            Ok(rejected) if rejected.count() > 0 => {
                let count = rejected.count();
                let reasons = rejected.into_reasons().join("; ");
                tracing::warn!(
                    count,
                    reasons,
                    "entries of the snapshot are skipped, the others are used"
                );
            }
            Ok(_) => {}
            Err(error) => {
                let error = error.to_string();
                tracing::error!(error, "only a part of the snapshot could be read");
            }
        }
    }

    /// Sends the changes to the cores, and frees what no core uses any more.
    pub(super) fn publish(&mut self) {
        if let Some(update) = self.master.publish() {
            let Changes {
                added,
                changed,
                removed,
            } = std::mem::take(&mut self.changes);
            let version = update.version;
            let hosts = self.master.table().len();
            tracing::info!(added, changed, removed, hosts, version, "routes changed");
            (self.publish)(update);
        }
        self.prober.add(self.registry.take_new_probe_targets());
        self.sweep();
    }

    /// Frees what no core uses any more, and updates the status.
    pub(super) fn sweep(&mut self) {
        for route in self.master.sweep() {
            self.registry.retire(route);
        }
        self.registry.sweep();
        let (version, hosts) = (self.master.table().version(), self.master.table().len());
        let backends = self.registry.backend_count();
        self.status.update(|status| {
            status.version = version;
            status.hosts = hosts;
            status.backends = backends;
        });
        self.update_dns_status();
    }

    pub(super) fn update_dns_status(&self) {
        let counts = self.dns.counts();
        self.status.update(|status| {
            status.names_unresolved = counts.unresolved;
            status.names_failing = counts.failing;
            status.names_denied = counts.denied;
        });
    }

    /// There is a table that the proxy can start with.
    pub(super) fn set_first_table(&mut self) {
        self.first_table.get_or_insert_with(Instant::now);
        self.update_ready();
    }

    pub(super) fn has_first_table(&self) -> bool {
        self.first_table.is_some()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The proxy is ready to start when there is a table and every name in it was looked up once, or the
    /// time for that is over.
    pub(super) fn update_ready(&mut self) {
        let Some(since) = self.first_table else {
            return;
        };
        if !self.is_ready
            && (self.dns.counts().pending == 0 || since.elapsed() >= FIRST_TABLE_TIMEOUT)
        {
            self.is_ready = true;
            self.status.set_ready();
        }
    }

    /// The snapshot could not be written.
    pub(super) fn set_unsaved(&mut self) {
        self.is_unsaved = true;
    }

    /// Whether a snapshot has to be written. The caller writes it, so the next call says no.
    pub(super) fn take_unsaved(&mut self) -> bool {
        self.is_compared && std::mem::take(&mut self.is_unsaved)
    }

    fn checked_route(&mut self, key: &Key, entries: &[String]) -> Arc<Route> {
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        let mut rejected = RejectedEntries::default();
        let route = self.route_of(key, &entries, &mut rejected);
        debug_assert!(
            rejected.count() == 0,
            "static routes are checked when they are read: {rejected:?}"
        );
        route
    }

    /// The route that some members and options make. Those that cannot be used are skipped and named in
    /// `rejected`.
    fn route_of(
        &mut self,
        key: &Key,
        entries: &[&str],
        rejected: &mut RejectedEntries,
    ) -> Arc<Route> {
        let mut endpoints = Endpoints::default();
        let mut host = HostOptions::default();
        for entry in entries {
            if let Some(option) = as_option(entry) {
                if let Err(error) = host.set(option) {
                    rejected.add(|| format!("option {option:.100?}: {error}"));
                }
            } else if let Err(error) = self
                .endpoint(entry)
                .and_then(|endpoint| endpoints.add(endpoint))
            {
                rejected.add(|| format!("member {entry:.100?}: {error}"));
            }
        }
        let Endpoints { endpoints, .. } = endpoints;
        if let Err(error) = host.validate() {
            rejected.add(|| format!("options: {error}"));
        }
        if host == HostOptions::default() {
            return self.registry.route(endpoints);
        }
        let mut acme: Vec<Endpoint> = Vec::new();
        for member in &host.acme {
            match self.endpoint(member) {
                Ok(endpoint) => acme.push(endpoint),
                Err(error) => rejected.add(|| format!("option acme={member}: {error}")),
            }
        }
        let acme = (!acme.is_empty()).then(|| self.registry.route(acme));
        let options = RouteOptions { host, acme };
        let route = self.registry.route_with(endpoints, Some(options));
        for check in route.health_checks() {
            check.offer_name(probed_as(key));
        }
        route
    }

    /// The endpoint of an allowed member, whose name is looked up from now on.
    fn endpoint(&mut self, member: &str) -> Result<Endpoint, String> {
        let member = Member::parse(member).map_err(|error| error.to_string())?;
        let checked = self.policy.validate_member(&member);
        checked.map_err(|denied| denied.to_string())?;
        let endpoint = self.registry.endpoint(member);
        self.dns.add_backend(&endpoint.backend, Instant::now());
        Ok(endpoint)
    }
}

/// The name and protocol that health checks of a host use. For a wildcard it is the domain behind the
/// star, which is sure to exist.
fn probed_as(key: &Key) -> ProbedAs {
    match key {
        Key::Host(host) | Key::Wildcard(host) => ProbedAs {
            name: Some(host.as_str().into()),
            protocol: None,
        },
        Key::Default(protocol) => ProbedAs {
            name: None,
            protocol: Some(*protocol).filter(|protocol| *protocol != Protocol::Tcp),
        },
    }
}

/// The members of a route. A backend has one share in it: of two members that differ only in the share,
/// the first counts.
#[derive(Default)]
struct Endpoints {
    endpoints: Vec<Endpoint>,
    /// The position in `endpoints` by slot.
    places: HashMap<u32, usize>,
}

impl Endpoints {
    fn add(&mut self, endpoint: Endpoint) -> Result<(), String> {
        let known = match self.places.entry(endpoint.backend.slot()) {
            Entry::Occupied(place) => &self.endpoints[*place.get()],
            Entry::Vacant(place) => {
                place.insert(self.endpoints.len());
                self.endpoints.push(endpoint);
                return Ok(());
            }
        };
        if known.share == endpoint.share {
            return Ok(());
        }
        Err(format!(
            "the same backend is there as {:?}; leave the one that is meant",
            known.to_string()
        ))
    }
}
