//! Makes each member one [`Backend`] and each set of backends with options one [`Route`], process-wide.
//! The redis-sync thread owns the registry and frees what it made: the registry keeps a reference to
//! each, so a core never drops the last one.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use hashbrown::HashTable;

use super::backend::Backend;
use super::backend_index::BackendIndex;
use super::endpoint::Endpoint;
use super::member::Member;
use super::probe_target::ProbeTarget;
use super::route::{Route, RouteOptions};
use super::share::Share;
use crate::health::{HealthCheck, HealthCheckState};

/// All backends and routes that exist.
#[derive(Default)]
pub(crate) struct Registry {
    hasher: RandomState,
    /// By slot.
    backends: Vec<Option<Arc<Backend>>>,
    by_member: HashTable<u32>,
    free: Vec<u32>,
    routes: HashTable<Arc<Route>>,
    routes_made: u64,
    /// Routes that a name in the table no longer has, by id. Freed when nothing else holds them.
    retired: HashMap<u64, Arc<Route>>,
    /// Slots of backends that have lost a route. A backend that is held by nothing else is freed.
    orphans: BTreeSet<u32>,
    /// By slot of the backend. The routes that have the check keep it alive.
    health_checks: HashMap<(u32, HealthCheck), Weak<HealthCheckState>>,
    /// Not yet taken by the prober.
    new_probe_targets: Vec<ProbeTarget>,
    /// The same backends, for other threads to see.
    index: BackendIndex,
    /// Shared by all backends that are not resolved.
    no_addresses: Arc<Vec<IpAddr>>,
}

impl Registry {
    /// A registry whose backends are in the index.
    pub(crate) fn with_index(index: &BackendIndex) -> Registry {
        Registry {
            index: index.clone(),
            ..Registry::default()
        }
    }

    /// The backend of a member, made when it is new, and the member's share.
    pub(crate) fn endpoint(&mut self, mut member: Member) -> Endpoint {
        let share = std::mem::take(&mut member.share);
        let backend = self.backend(member);
        Endpoint { backend, share }
    }

    fn backend(&mut self, member: Member) -> Arc<Backend> {
        let hash = self.hasher.hash_one(&member);
        let known = self
            .by_member
            .find(hash, |slot| *self.at(*slot).member() == member);
        if let Some(slot) = known {
            return Arc::clone(self.at(*slot));
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.backends.push(None);
            u32::try_from(self.backends.len() - 1).expect("fewer than 2^32 backends")
        });
        let backend = Arc::new(Backend::new(slot, member, &self.no_addresses));
        self.backends[slot as usize] = Some(Arc::clone(&backend));
        self.index.insert(&backend);
        let (backends, hasher) = (&self.backends, &self.hasher);
        self.by_member.insert_unique(hash, slot, |slot| {
            hasher.hash_one(alive(backends, *slot).member())
        });
        backend
    }

    /// The route of a set of backends; order and repetition do not matter.
    ///
    /// An empty set is the route of a name whose every member was rejected. Such a name stays known, so
    /// that no wildcard or default, which may belong to somebody else, gets its clients.
    pub(crate) fn route(
        &mut self,
        endpoints: impl IntoIterator<Item: Into<Endpoint>>,
    ) -> Arc<Route> {
        self.route_with(endpoints, None)
    }

    /// As [`Registry::route`], for a host with options. When a backend has several shares, the greatest
    /// counts.
    pub(crate) fn route_with(
        &mut self,
        endpoints: impl IntoIterator<Item: Into<Endpoint>>,
        options: Option<RouteOptions>,
    ) -> Arc<Route> {
        let mut endpoints: Vec<Endpoint> = endpoints.into_iter().map(Into::into).collect();
        endpoints.sort_unstable_by_key(|endpoint| {
            (endpoint.backend.slot(), std::cmp::Reverse(endpoint.share))
        });
        endpoints.dedup_by_key(|endpoint| endpoint.backend.slot());
        let shares = endpoints
            .iter()
            .map(|endpoint| (endpoint.backend.slot(), endpoint.share));
        let hash = hash_of(&self.hasher, shares.clone(), options.as_ref());
        let host = |options: Option<&RouteOptions>| options.map(|options| options.host.clone());
        let is_same = |route: &Arc<Route>| {
            host(route.options()) == host(options.as_ref()) && shares_of(route).eq(shares.clone())
        };
        if let Some(route) = self.routes.find(hash, is_same) {
            return Arc::clone(route);
        }
        let check = options
            .as_ref()
            .and_then(|options| options.host.health_check.health_check());
        let health_checks = check.map_or_else(Vec::new, |check| {
            let backends = endpoints.iter().map(|endpoint| &endpoint.backend);
            backends
                .map(|backend| self.health_check(backend, &check))
                .collect()
        });
        endpoints
            .iter()
            .for_each(|endpoint| endpoint.backend.enter_route());
        self.routes_made += 1;
        let route = Route::new(self.routes_made, endpoints).with_options(options, health_checks);
        let route = Arc::new(route);
        let hasher = &self.hasher;
        self.routes
            .insert_unique(hash, Arc::clone(&route), |route| {
                hash_of_route(hasher, route)
            });
        route
    }

    /// The state of a health check of a backend, made when it is new.
    fn health_check(
        &mut self,
        backend: &Arc<Backend>,
        check: &HealthCheck,
    ) -> Arc<HealthCheckState> {
        let key = (backend.slot(), check.clone());
        let known = self.health_checks.entry(key).or_default();
        if let Some(state) = known.upgrade() {
            return state;
        }
        let state = Arc::new(HealthCheckState::new(check.clone()));
        *known = Arc::downgrade(&state);
        backend.add_health_check(&state);
        self.new_probe_targets
            .push(ProbeTarget::new(backend, &state));
        state
    }

    /// The health checks that were made since the last call.
    pub(crate) fn take_new_probe_targets(&mut self) -> Vec<ProbeTarget> {
        std::mem::take(&mut self.new_probe_targets)
    }

    /// Says that a name in the table no longer has this route. [`Registry::sweep`] frees it when nothing
    /// else holds it.
    pub(crate) fn retire(&mut self, route: Arc<Route>) {
        self.retired.insert(route.id(), route);
    }

    /// Frees retired routes and their backends when nothing else holds them.
    pub(crate) fn sweep(&mut self) {
        let hasher = &self.hasher;
        // Two holders are left when a route is free: `routes` and `retired`.
        let mut freed: Vec<Arc<Route>> = self
            .retired
            .extract_if(|_, route| Arc::strong_count(route) == 2)
            .map(|(_, route)| route)
            .collect();
        let are_fewer = !freed.is_empty();
        while let Some(route) = freed.pop() {
            route.backends().iter().for_each(|b| b.leave_route());
            let slots: Vec<u32> = route.backends().iter().map(|b| b.slot()).collect();
            if let Ok(entry) = self
                .routes
                .find_entry(hash_of_route(hasher, &route), |other| {
                    Arc::ptr_eq(other, &route)
                })
            {
                entry.remove();
            }
            self.orphans.extend(slots);
            // Perhaps nothing else holds the route of certificate authorities.
            if let Some(acme) = route.options().and_then(|options| options.acme.clone()) {
                self.retired.insert(acme.id(), acme);
            }
        }
        if are_fewer {
            self.health_checks
                .retain(|_, state| state.strong_count() > 0);
        }
        self.orphans.retain(|&slot| {
            let place = &mut self.backends[slot as usize];
            let Some(backend) = place.take_if(|backend| Arc::strong_count(backend) == 1) else {
                return true;
            };
            let hash = hasher.hash_one(backend.member());
            if let Ok(entry) = self.by_member.find_entry(hash, |other| *other == slot) {
                entry.remove();
            }
            self.index.remove(slot);
            self.free.push(slot);
            false
        });
    }

    /// How many backends exist.
    pub(crate) fn backend_count(&self) -> usize {
        self.backends.len() - self.free.len()
    }

    /// How many routes exist.
    #[cfg(test)]
    pub(crate) fn route_count(&self) -> usize {
        self.routes.len()
    }

    fn at(&self, slot: u32) -> &Arc<Backend> {
        alive(&self.backends, slot)
    }
}

fn hash_of_route(hasher: &RandomState, route: &Route) -> u64 {
    hash_of(hasher, shares_of(route), route.options())
}

fn shares_of(route: &Route) -> impl Iterator<Item = (u32, Share)> {
    let backends = route.backends().iter().enumerate();
    backends.map(|(index, backend)| (backend.slot(), route.share(index)))
}

fn hash_of(
    hasher: &RandomState,
    shares: impl Iterator<Item = (u32, Share)>,
    options: Option<&RouteOptions>,
) -> u64 {
    let shares: Vec<(u32, Share)> = shares.collect();
    hasher.hash_one((shares, options.map(|options| &options.host)))
}

fn alive(backends: &[Option<Arc<Backend>>], slot: u32) -> &Arc<Backend> {
    backends[slot as usize]
        .as_ref()
        .expect("an indexed slot has its backend")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{HostOptions, ProxyVersion};

    fn route(registry: &mut Registry, members: &[&str]) -> Arc<Route> {
        let endpoints: Vec<Endpoint> = members
            .iter()
            .map(|text| registry.endpoint(Member::parse(text).unwrap()))
            .collect();
        registry.route(endpoints)
    }

    #[test]
    fn the_same_set_is_the_same_route() {
        let mut registry = Registry::default();
        let one = route(&mut registry, &["10.0.0.1:80", "b.test"]);
        let two = route(&mut registry, &["B.TEST.", " 10.0.0.1:80", "b.test"]);
        assert!(Arc::ptr_eq(&one, &two));
        let other = route(&mut registry, &["10.0.0.1:80"]);
        assert_ne!(one.id(), other.id());
        assert_eq!((registry.backend_count(), registry.route_count()), (2, 2));
    }

    #[test]
    fn options_make_another_route_and_their_members_are_freed_with_it() {
        let mut registry = Registry::default();
        let plain = route(&mut registry, &["10.0.0.1:80"]);
        let with = |registry: &mut Registry| {
            let acme = route(registry, &["acme.test"]);
            let mut host = HostOptions::default();
            host.set("redirect=https").unwrap();
            host.set("acme=acme.test").unwrap();
            let options = RouteOptions {
                host,
                acme: Some(acme),
            };
            registry.route_with(plain.backends().to_vec(), Some(options))
        };
        let one = with(&mut registry);
        assert!(Arc::ptr_eq(&one, &with(&mut registry)));
        assert_ne!(one.id(), plain.id());
        assert_eq!(
            one.entries(),
            ["10.0.0.1:80", "@redirect=https", "@acme=acme.test"]
        );
        assert_eq!((registry.backend_count(), registry.route_count()), (2, 3));
        registry.retire(one);
        for _ in 0..2 {
            registry.sweep();
        }
        assert_eq!((registry.backend_count(), registry.route_count()), (1, 1));
    }

    #[test]
    fn the_same_address_with_other_options_is_another_backend() {
        let mut registry = Registry::default();
        let members = [
            "10.0.0.1:80",
            "10.0.0.1:80 proxy=v2 source=client",
            "10.0.0.1:80 source=client  proxy=v2",
            "10.0.0.1:80 proxy=v1",
        ];
        let route = route(&mut registry, &members);
        assert_eq!((route.backends().len(), registry.backend_count()), (3, 3));
        let proxies: Vec<_> = route
            .backends()
            .iter()
            .map(|backend| backend.delivery().proxy)
            .collect();
        let (v1, v2) = (Some(ProxyVersion::V1), Some(ProxyVersion::V2));
        assert_eq!(proxies, [None, v2, v1]);
    }

    #[test]
    fn a_backend_that_was_orphaned_by_a_connection_is_freed_after_it() {
        let mut registry = Registry::default();
        let first = route(&mut registry, &["10.0.0.1:80", "shared.test"]);
        let second = route(&mut registry, &["shared.test"]);
        let in_use = Arc::clone(&first.backends()[0]);
        registry.retire(first);
        assert!(in_use.has_route());
        registry.sweep();
        assert!(!in_use.has_route() && second.backends()[0].has_route());
        assert_eq!((registry.backend_count(), registry.route_count()), (2, 1));
        drop(in_use);
        registry.sweep();
        assert_eq!((registry.backend_count(), registry.route_count()), (1, 1));
        registry.retire(second);
        registry.sweep();
        assert_eq!((registry.backend_count(), registry.route_count()), (0, 0));
        let reused = registry
            .endpoint(Member::parse("10.0.0.9").unwrap())
            .backend;
        assert!(reused.slot() < 2);
    }
}
