//! Tracks which connections end because their backend was removed from their host. The table and the time
//! come in as arguments; the only thing that goes out is that a task is woken.
//!
//! Connections of one name to one backend form a group, so that one look-up in the table decides about all
//! of them. Look-ups and ends are worked off in steps of bounded length, because a host may have many
//! thousands of connections and the worker's other connections must not wait. A look-up always asks the
//! newest table, so it may come late.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use hashbrown::{HashMap, HashTable};
use slab::Slab;

use crate::host::Host;
use crate::protocol::Protocol;
use crate::ring::Ring;
use crate::route::{MatchedKey, NO_ROUTE, Removal, Route, Table};

/// Look-ups in one step; estimated at some 200 ns each, not measured.
pub(super) const LOOKUPS_PER_STEP: usize = 1000;
/// Connections that end in one step, each with two descriptors to close: a millisecond by estimate. With a
/// step every 10 ms a worker ends 6,400 connections a second, so their clients do not all come back at once.
pub(super) const ENDS_PER_STEP: usize = 64;

/// The key of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RemovalSubject<'h> {
    pub protocol: Protocol,
    /// `None`: the head had none, so that the default applies.
    pub name: Option<&'h Host>,
    /// The backend's slot. A connection holds its backend, so the slot is not reused meanwhile.
    pub slot: u32,
}

/// One connection of a group.
#[derive(Debug)]
pub(crate) struct RemovalEntry {
    group: usize,
    member: usize,
}

/// The tracked connections of a worker.
#[derive(Default)]
pub(crate) struct Removals {
    tracker: RefCell<RemovalTracker>,
    /// The task that ends connections, while it has nothing to do.
    housekeeper: RefCell<Option<Waker>>,
}

impl Removals {
    pub(crate) fn tracker(&self) -> RefMut<'_, RemovalTracker> {
        self.tracker.borrow_mut()
    }

    /// Wakes the task that ends connections.
    pub(crate) fn wake_housekeeper(&self, ring: &Ring) {
        if let Some(housekeeper) = self.housekeeper.take() {
            housekeeper.wake();
            ring.stay_awake();
        }
    }

    /// Registers the task that ends connections.
    pub(crate) fn set_housekeeper(&self, waker: Waker) {
        self.housekeeper.replace(Some(waker));
    }
}

/// All connections of a worker whose host says what becomes of them when their backend is removed.
#[derive(Default)]
pub(crate) struct RemovalTracker {
    hasher: RandomState,
    groups: Slab<Group>,
    by_subject: HashTable<usize>,
    /// Groups by the route that their name had at the last look-up; [`NO_ROUTE`] for names without one.
    by_route: HashMap<u64, Vec<usize>>,
    /// Groups whose route was replaced since, which are to be looked up.
    stale: Vec<usize>,
    /// By the time at which their connections end: groups whose backend was removed.
    leaving: BTreeSet<(Instant, usize)>,
}

/// Connections of one name to one backend.
struct Group {
    protocol: Protocol,
    name: Option<Box<Host>>,
    slot: u32,
    /// The kind of key in the table under which the name had the backend. Its options count while the
    /// name is still found under a key of that kind.
    matched: MatchedKey,
    removal: Removal,
    route_index: Option<RouteIndex>,
    /// When the backend was found to be removed.
    left: Option<Instant>,
    /// Its time in `leaving`.
    ends: Option<Instant>,
    members: Slab<Member>,
}

/// Where a group stands in `by_route`.
#[derive(Clone, Copy)]
struct RouteIndex {
    route: u64,
    at: usize,
}

struct Member {
    has_ended: bool,
    waker: Option<Waker>,
}

impl RemovalTracker {
    /// Begins to track a connection that `route` has led to its backend. The route may have been replaced
    /// meanwhile.
    pub(crate) fn enter(
        &mut self,
        subject: RemovalSubject<'_>,
        route: &Route,
        table: &Table,
        now: Instant,
    ) -> RemovalEntry {
        let hash = self.hasher.hash_one(subject);
        let groups = &self.groups;
        let is_it = |group: &usize| groups[*group].subject() == subject;
        let known = self.by_subject.find(hash, is_it).copied();
        let group = known.unwrap_or_else(|| {
            let group = self.groups.insert(Group::new(subject, route.removal()));
            let (groups, hasher) = (&self.groups, &self.hasher);
            self.by_subject.insert_unique(hash, group, |group| {
                hasher.hash_one(groups[*group].subject())
            });
            self.look_up(group, table, now);
            group
        });
        let member = self.groups[group].members.insert(Member {
            has_ended: false,
            waker: None,
        });
        self.update_leaving(group);
        RemovalEntry { group, member }
    }

    /// Stops tracking a connection, which has ended for whatever reason.
    pub(crate) fn leave(&mut self, entry: &RemovalEntry) {
        let members = &mut self.groups[entry.group].members;
        members.remove(entry.member);
        if !members.is_empty() {
            return;
        }
        let hash = self.hasher.hash_one(self.groups[entry.group].subject());
        if let Ok(place) = self.by_subject.find_entry(hash, |one| *one == entry.group) {
            place.remove();
        }
        self.remove_from_route(entry.group);
        let group = self.groups.remove(entry.group);
        if let Some(ends) = group.ends {
            self.leaving.remove(&(ends, entry.group));
        }
    }

    /// Ready once the connection is to end.
    pub(crate) fn poll_end(&mut self, entry: &RemovalEntry, context: &Context<'_>) -> Poll<()> {
        let member = &mut self.groups[entry.group].members[entry.member];
        if member.has_ended {
            return Poll::Ready(());
        }
        match &mut member.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// These routes, in ascending order, were replaced. Whether [`RemovalTracker::step`] has work now.
    pub(crate) fn replaced(&mut self, routes: &[u64]) -> bool {
        // Goes through the shorter list: a reload may replace a million routes, of which few matter here.
        let known: Vec<u64> = if routes.len() < self.by_route.len() {
            let known = routes.iter().copied();
            known.filter(|id| self.by_route.contains_key(id)).collect()
        } else {
            let known = self.by_route.keys().copied();
            known
                .filter(|id| routes.binary_search(id).is_ok())
                .collect()
        };
        for route in &known {
            let groups = self.by_route.remove(route).unwrap_or_default();
            for group in &groups {
                self.groups[*group].route_index = None;
            }
            self.stale.extend(groups);
        }
        !known.is_empty()
    }

    /// Does what is due, up to the bound of a step. Gives back when there is more to do.
    pub(crate) fn step(&mut self, table: &Table, now: Instant) -> Option<Instant> {
        for _ in 0..LOOKUPS_PER_STEP {
            let Some(group) = self.stale.pop() else {
                break;
            };
            // The number of a group that has ended may be another group's by now, which is then looked
            // up once too often.
            if self.groups.contains(group) {
                self.look_up(group, table, now);
            }
        }
        let mut room = ENDS_PER_STEP;
        while let Some(&(ends, group)) = self.leaving.first()
            && ends <= now
            && room > 0
        {
            room -= self.groups[group].end_members(room);
            self.update_leaving(group);
        }
        if self.stale.is_empty() {
            self.leaving.first().map(|(ends, _)| *ends)
        } else {
            Some(now)
        }
    }

    /// Whether the connection will end because its backend was removed.
    pub(crate) fn is_leaving(&self, entry: &RemovalEntry) -> bool {
        self.groups[entry.group].ends.is_some()
    }

    /// Looks up where the name of a group leads now, and what that means for its connections.
    fn look_up(&mut self, number: usize, table: &Table, now: Instant) {
        self.remove_from_route(number);
        let group = &mut self.groups[number];
        let located = table.locate(group.name.as_deref(), group.protocol);
        let route = located.map_or(NO_ROUTE, |(_, route)| route.id());
        match located {
            Some((matched, route)) if route.has(group.slot) => {
                group.matched = matched;
                group.removal = route.removal();
                group.left = None;
            }
            // Only the options of the key that had the backend count.
            Some((matched, route)) if matched == group.matched => {
                group.removal = route.removal();
                group.left.get_or_insert(now);
            }
            _ => {
                group.left.get_or_insert(now);
            }
        }
        let groups = self.by_route.entry(route).or_default();
        group.route_index = Some(RouteIndex {
            route,
            at: groups.len(),
        });
        groups.push(number);
        self.update_leaving(number);
    }

    /// Updates `leaving` after a group has changed.
    fn update_leaving(&mut self, number: usize) {
        let group = &mut self.groups[number];
        let ends = group.due();
        if ends == group.ends {
            return;
        }
        if let Some(old) = std::mem::replace(&mut group.ends, ends) {
            self.leaving.remove(&(old, number));
        }
        if let Some(ends) = ends {
            self.leaving.insert((ends, number));
        }
    }

    fn remove_from_route(&mut self, number: usize) {
        let Some(RouteIndex { route, at }) = self.groups[number].route_index.take() else {
            return;
        };
        let groups = self
            .by_route
            .get_mut(&route)
            .expect("the group is listed under its route");
        groups.swap_remove(at);
        if let Some(moved) = groups.get(at) {
            self.groups[*moved].route_index = Some(RouteIndex { route, at });
        } else if groups.is_empty() {
            self.by_route.remove(&route);
        }
    }
}

impl Group {
    fn new(subject: RemovalSubject<'_>, removal: Removal) -> Group {
        Group {
            protocol: subject.protocol,
            name: subject.name.cloned().map(Box::new),
            slot: subject.slot,
            matched: match subject.name {
                Some(_) => MatchedKey::Exact,
                None => MatchedKey::Default,
            },
            removal,
            route_index: None,
            left: None,
            ends: None,
            members: Slab::new(),
        }
    }

    fn subject(&self) -> RemovalSubject<'_> {
        RemovalSubject {
            protocol: self.protocol,
            name: self.name.as_deref(),
            slot: self.slot,
        }
    }

    /// When its open connections end; `None`: they do not.
    fn due(&self) -> Option<Instant> {
        let left = self.left?;
        let ends = match self.removal {
            Removal::Keep => return None,
            Removal::Cut => left,
            Removal::Drain(span) => left + span,
        };
        let has_more = self.members.iter().any(|(_, member)| !member.has_ended);
        has_more.then_some(ends)
    }

    /// Ends at most `max` connections; gives back how many.
    fn end_members(&mut self, max: usize) -> usize {
        let mut ended = 0;
        let live = self.members.iter_mut().map(|(_, member)| member);
        for member in live.filter(|member| !member.has_ended).take(max) {
            ended += 1;
            member.has_ended = true;
            if let Some(waker) = member.waker.take() {
                waker.wake();
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests;
