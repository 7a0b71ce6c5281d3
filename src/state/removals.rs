//! Which connections end because their backend left their host. Pure: the table and the time come
//! in as arguments, and the only thing that goes out is that a task is woken.
//!
//! Connections are held together in groups of one name and one backend, about all of which one
//! look-up decides. What is to be looked up, and who is to end, is worked off in steps of bounded
//! length, since a host may have many thousands of connections and the others of the core are not to
//! wait for them. A look-up always asks the newest table, so it does not matter how late it comes.

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
use crate::route::{NO_ROUTE, Place, Removal, Route, Table};

/// Look-ups in one step; estimated at some 200 ns each, not measured.
pub(super) const LOOKUPS_PER_STEP: usize = 1000;
/// Connections that end in one step, each with two descriptors to close: by estimate a millisecond. With a
/// step every 10 ms a core ends 6,400 in a second, who do not all come back at once then, either.
pub(super) const ENDS_PER_STEP: usize = 64;

/// What a group is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RemovalSubject<'h> {
    pub protocol: Protocol,
    /// `None`: the head had none, so that the default applies.
    pub name: Option<&'h Host>,
    /// The backend's. Whoever holds a removal holds the backend, so it is nobody else's meanwhile.
    pub slot: u32,
}

/// One connection's place in the book.
#[derive(Debug)]
pub(crate) struct RemovalEntry {
    group: usize,
    member: usize,
}

/// What a worker knows of the connections that end when their backend leaves their host.
#[derive(Default)]
pub(crate) struct Removals {
    tracker: RefCell<RemovalTracker>,
    /// Of the task that ends them, while it has nothing to do.
    housekeeper: RefCell<Option<Waker>>,
}

impl Removals {
    pub(crate) fn tracker(&self) -> RefMut<'_, RemovalTracker> {
        self.tracker.borrow_mut()
    }

    /// Makes the task that ends connections look around.
    pub(crate) fn wake_housekeeper(&self, ring: &Ring) {
        if let Some(housekeeper) = self.housekeeper.take() {
            housekeeper.wake();
            ring.stay_awake();
        }
    }

    /// Whom to wake.
    pub(crate) fn set_housekeeper(&self, waker: Waker) {
        self.housekeeper.replace(Some(waker));
    }
}

/// All connections of one core whose host wants something of them when their backend leaves.
#[derive(Default)]
pub(crate) struct RemovalTracker {
    hasher: RandomState,
    groups: Slab<Group>,
    by_subject: HashTable<usize>,
    /// The groups that were last seen under a route; [`NO_ROUTE`] for names that have none.
    by_route: HashMap<u64, Vec<usize>>,
    /// Groups whose route was replaced, to be looked up.
    unsure: Vec<usize>,
    /// By when they end: the groups that are left by their backend and have members to end.
    leaving: BTreeSet<(Instant, usize)>,
}

/// Connections of one name to one backend.
struct Group {
    protocol: Protocol,
    name: Option<Box<Host>>,
    slot: u32,
    /// The key under which the name had the backend; while it is that of the name, its options count.
    place: Place,
    removal: Removal,
    filed: Option<Filed>,
    /// Since when the name has the backend no longer.
    left: Option<Instant>,
    /// Under which time it is in `leaving`.
    ends: Option<Instant>,
    members: Slab<Member>,
}

/// Where a group stands in `by_route`.
#[derive(Clone, Copy)]
struct Filed {
    route: u64,
    at: usize,
}

struct Member {
    has_ended: bool,
    waker: Option<Waker>,
}

impl RemovalTracker {
    /// Enters a connection that was made by `route`, which may have been replaced meanwhile.
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
            self.look(group, table, now);
            group
        });
        let member = self.groups[group].members.insert(Member {
            has_ended: false,
            waker: None,
        });
        self.note_end(group);
        RemovalEntry { group, member }
    }

    /// A connection has ended, for whatever reason.
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
        self.unfile(entry.group);
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

    /// Takes note that these routes, in ascending order, were replaced. Whether there is something to
    /// do in [`RemovalTracker::step`].
    pub(crate) fn replaced(&mut self, routes: &[u64]) -> bool {
        // Whichever are fewer: a reload may replace a million routes, of which a few matter here.
        let known: Vec<u64> = match routes.len() < self.by_route.len() {
            true => {
                let known = routes.iter().copied();
                known.filter(|id| self.by_route.contains_key(id)).collect()
            }
            false => {
                let known = self.by_route.keys().copied();
                known
                    .filter(|id| routes.binary_search(id).is_ok())
                    .collect()
            }
        };
        for route in &known {
            let groups = self.by_route.remove(route).unwrap_or_default();
            for group in &groups {
                self.groups[*group].filed = None;
            }
            self.unsure.extend(groups);
        }
        !known.is_empty()
    }

    /// Does what is due, at most as much as one step may. Gives back when there is more to do.
    pub(crate) fn step(&mut self, table: &Table, now: Instant) -> Option<Instant> {
        for _ in 0..LOOKUPS_PER_STEP {
            let Some(group) = self.unsure.pop() else {
                break;
            };
            // One that has ended meanwhile may have left its number to another, which is looked up
            // once too often.
            if self.groups.contains(group) {
                self.look(group, table, now);
            }
        }
        let mut room = ENDS_PER_STEP;
        while let Some(&(ends, group)) = self.leaving.first()
            && ends <= now
            && room > 0
        {
            room -= self.groups[group].end_members(room);
            self.note_end(group);
        }
        match self.unsure.is_empty() {
            true => self.leaving.first().map(|(ends, _)| *ends),
            false => Some(now),
        }
    }

    /// Whether the backend of the connection has left, and the connection will end for it.
    pub(crate) fn is_leaving(&self, entry: &RemovalEntry) -> bool {
        self.groups[entry.group].ends.is_some()
    }

    /// Finds out where the name of a group leads now and what that means for it.
    fn look(&mut self, number: usize, table: &Table, now: Instant) {
        self.unfile(number);
        let group = &mut self.groups[number];
        let located = table.locate(group.name.as_deref(), group.protocol);
        let route = located.map_or(NO_ROUTE, |(_, route)| route.id());
        match located {
            Some((place, route)) if route.has(group.slot) => {
                group.place = place;
                group.removal = route.removal();
                group.left = None;
            }
            // Another key's options are not the host's, whose backend this was.
            Some((place, route)) if place == group.place => {
                group.removal = route.removal();
                group.left.get_or_insert(now);
            }
            _ => {
                group.left.get_or_insert(now);
            }
        }
        let filed = self.by_route.entry(route).or_default();
        group.filed = Some(Filed {
            route,
            at: filed.len(),
        });
        filed.push(number);
        self.note_end(number);
    }

    /// Keeps `leaving` true to a group that has changed.
    fn note_end(&mut self, number: usize) {
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

    fn unfile(&mut self, number: usize) {
        let Some(Filed { route, at }) = self.groups[number].filed.take() else {
            return;
        };
        let filed = self.by_route.get_mut(&route).expect("it is filed there");
        filed.swap_remove(at);
        if let Some(moved) = filed.get(at) {
            self.groups[*moved].filed = Some(Filed { route, at });
        } else if filed.is_empty() {
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
            place: match subject.name {
                Some(_) => Place::Exact,
                None => Place::Default,
            },
            removal,
            filed: None,
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

    /// When those of its members end that have not ended yet.
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

    /// Ends at most so many; gives back how many.
    fn end_members(&mut self, room: usize) -> usize {
        let mut ended = 0;
        let live = self.members.iter_mut().map(|(_, member)| member);
        for member in live.filter(|member| !member.has_ended).take(room) {
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
