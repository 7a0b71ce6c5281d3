//! Makes each member one [`Backend`] and each set of backends one [`Route`], process-wide, and
//! gives slots back. Owned by the redis-sync thread, which is also where everything is freed:
//! the registry keeps one reference to all it made, so a core never holds the last one.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use hashbrown::HashTable;

use super::backend::Backend;
use super::check_state::CheckState;
use super::health_check::Check;
use super::member::Member;
#[cfg(test)]
use super::member::MemberError;
use super::roster::Roster;
use super::share::{Seat, Share};
use super::table::{Route, RouteOptions};

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
    /// Routes that lost a place in the table, by id; freed when nothing else holds them.
    retired: HashMap<u64, Arc<Route>>,
    /// Slots whose last route is gone and whose backend a connection may still hold.
    orphans: BTreeSet<u32>,
    /// By slot and check; held by the routes that have both.
    checks: HashMap<(u32, Check), Weak<CheckState>>,
    /// Those that nobody asks about yet.
    new_checks: Vec<Weak<CheckState>>,
    /// The same backends, for other threads to see.
    roster: Roster,
    unresolved: Arc<Vec<IpAddr>>,
}

impl Registry {
    #[cfg(test)]
    pub(crate) fn new() -> Registry {
        Registry::default()
    }

    /// A registry whose backends can be seen in the roster.
    pub(crate) fn listed_in(roster: &Roster) -> Registry {
        Registry {
            roster: roster.clone(),
            ..Registry::default()
        }
    }

    /// The backend of a member, made when it is new, and the share that the member has.
    #[cfg(test)]
    pub(crate) fn seat(&mut self, text: &str) -> Result<Seat, MemberError> {
        Member::parse(text).map(|member| self.seat_of(member))
    }

    /// As [`Registry::seat`], for a member that was looked at before.
    pub(crate) fn seat_of(&mut self, mut member: Member) -> Seat {
        let share = std::mem::take(&mut member.share);
        let backend = self.backend(member);
        Seat { backend, share }
    }

    /// As [`Registry::seat`], for a member whose share does not matter.
    #[cfg(test)]
    pub(crate) fn intern(&mut self, text: &str) -> Result<Arc<Backend>, MemberError> {
        self.seat(text).map(|seat| seat.backend)
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
        let backend = Arc::new(Backend::new(slot, member, &self.unresolved));
        self.backends[slot as usize] = Some(Arc::clone(&backend));
        self.roster.enter(&backend);
        let (backends, hasher) = (&self.backends, &self.hasher);
        self.by_member.insert_unique(hash, slot, |slot| {
            hasher.hash_one(alive(backends, *slot).member())
        });
        backend
    }

    /// The route of a set of backends; order and repetition do not matter.
    ///
    /// An empty set is the route of a name whose every member was rejected: the name is known and
    /// is not to fall to a wildcard or a default that belongs to someone else.
    pub(crate) fn route(&mut self, seats: impl IntoIterator<Item: Into<Seat>>) -> Arc<Route> {
        self.route_with(seats, None)
    }

    /// As [`Registry::route`], for a host with options. Of one backend with several shares the
    /// greatest counts.
    pub(crate) fn route_with(
        &mut self,
        seats: impl IntoIterator<Item: Into<Seat>>,
        options: Option<RouteOptions>,
    ) -> Arc<Route> {
        let mut seats: Vec<Seat> = seats.into_iter().map(Into::into).collect();
        seats.sort_unstable_by_key(|seat| (seat.backend.slot(), std::cmp::Reverse(seat.share)));
        seats.dedup_by_key(|seat| seat.backend.slot());
        let shares = seats.iter().map(|seat| (seat.backend.slot(), seat.share));
        let hash = hash_of(&self.hasher, shares.clone(), options.as_ref());
        let said = |options: Option<&RouteOptions>| options.map(|options| options.said.clone());
        let same = |route: &Arc<Route>| {
            said(route.options()) == said(options.as_ref()) && seats_of(route).eq(shares.clone())
        };
        if let Some(route) = self.routes.find(hash, same) {
            return Arc::clone(route);
        }
        let check = options.as_ref().and_then(|said| said.said.check.check());
        let checks = check.map_or_else(Vec::new, |check| {
            let backends = seats.iter().map(|seat| &seat.backend);
            backends
                .map(|backend| {
                    check_of(&mut self.checks, backend, &check).unwrap_or_else(|new| {
                        self.new_checks.push(Arc::downgrade(&new));
                        new
                    })
                })
                .collect()
        });
        seats.iter().for_each(|seat| seat.backend.enter_route());
        self.routes_made += 1;
        let route = Route::new(self.routes_made, seats).with_options(options, checks);
        let route = Arc::new(route);
        let hasher = &self.hasher;
        self.routes
            .insert_unique(hash, Arc::clone(&route), |route| {
                hash_of_route(hasher, route)
            });
        route
    }

    /// The active checks that were made since the last call. Each lives as long as a route has it.
    pub(crate) fn take_new_checks(&mut self) -> Vec<Weak<CheckState>> {
        std::mem::take(&mut self.new_checks)
    }

    /// Says that a route lost a place in the table; [`Registry::sweep`] frees it when it was the last.
    pub(crate) fn retire(&mut self, route: Arc<Route>) {
        self.retired.insert(route.id(), route);
    }

    /// Frees what was retired and is held by nobody any more, and gives its slots back.
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
            // The route within it may have been held by nothing else.
            if let Some(acme) = route.options().and_then(|options| options.acme.clone()) {
                self.retired.insert(acme.id(), acme);
            }
        }
        if are_fewer {
            self.checks.retain(|_, state| state.strong_count() > 0);
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
            self.roster.leave(slot);
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
    hash_of(hasher, seats_of(route), route.options())
}

fn seats_of(route: &Route) -> impl Iterator<Item = (u32, Share)> {
    let backends = route.backends().iter().enumerate();
    backends.map(|(index, backend)| (backend.slot(), route.share(index)))
}

fn hash_of(
    hasher: &RandomState,
    shares: impl Iterator<Item = (u32, Share)>,
    options: Option<&RouteOptions>,
) -> u64 {
    let shares: Vec<(u32, Share)> = shares.collect();
    hasher.hash_one((shares, options.map(|options| &options.said)))
}

/// What is known of the backend under the check, by whatever route; `Err` with what was made just now.
fn check_of(
    checks: &mut HashMap<(u32, Check), Weak<CheckState>>,
    backend: &Arc<Backend>,
    check: &Check,
) -> Result<Arc<CheckState>, Arc<CheckState>> {
    let place = checks.entry((backend.slot(), check.clone())).or_default();
    if let Some(known) = place.upgrade() {
        return Ok(known);
    }
    let state = Arc::new(CheckState::new(Arc::clone(backend), check.clone()));
    *place = Arc::downgrade(&state);
    backend.enter_check(&state);
    Err(state)
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
        let seats: Vec<Seat> = members
            .iter()
            .map(|text| registry.seat(text).unwrap())
            .collect();
        registry.route(seats)
    }

    #[test]
    fn the_same_set_is_the_same_route() {
        let mut registry = Registry::new();
        let one = route(&mut registry, &["10.0.0.1:80", "b.test"]);
        let two = route(&mut registry, &["B.TEST.", " 10.0.0.1:80", "b.test"]);
        assert!(Arc::ptr_eq(&one, &two));
        let other = route(&mut registry, &["10.0.0.1:80"]);
        assert_ne!(one.id(), other.id());
        assert_eq!((registry.backend_count(), registry.route_count()), (2, 2));
    }

    #[test]
    fn options_make_another_route_and_their_members_are_freed_with_it() {
        let mut registry = Registry::new();
        let plain = route(&mut registry, &["10.0.0.1:80"]);
        let with = |registry: &mut Registry| {
            let acme = route(registry, &["acme.test"]);
            let mut said = HostOptions::default();
            said.read("redirect=https").unwrap();
            said.read("acme=acme.test").unwrap();
            let options = RouteOptions {
                said,
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
        let mut registry = Registry::new();
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
        let mut registry = Registry::new();
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
        let reused = registry.intern("10.0.0.9").unwrap();
        assert!(reused.slot() < 2);
    }
}
