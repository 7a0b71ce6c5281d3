//! What the sync thread holds to be true: the table, its backends and their names. Everything
//! that learns something tells it here; it publishes to the cores and frees what they let go.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::limits::FIRST_TABLE_WAIT;
use super::names::Book;
use super::reply::Faults;
use super::snapshot::Snapshot;
use super::static_routes::Routes;
use super::status::Shared;
use crate::config::SyncSettings;
use crate::health::Prober;
use crate::protect::BackendPolicy;
use crate::protocol::Protocol;
use crate::route::{
    AskedAs, Change, HostOptions, Key, Layer, Master, Member, Registry, Route, RouteOptions, Seat,
    Seen, Update, as_option,
};

/// Takes each new version of the table, on the sync thread.
pub(crate) type Publish = Box<dyn FnMut(Arc<Update>) + Send>;

pub(super) struct Truth {
    pub(super) master: Master,
    pub(super) book: Book,
    pub(super) shared: Arc<Shared>,
    registry: Registry,
    policy: BackendPolicy,
    prober: Prober,
    publish: Publish,
    /// Not yet published.
    changes: Changes,
    /// Since when there is a table to start with, whether or not its names have addresses.
    first_table: Option<Instant>,
    ready: bool,
    /// Whether the Redis part was compared with Redis once. Before that, saving it would put a part in
    /// the place of a whole.
    whole: bool,
    /// Whether the Redis part changed since the last snapshot.
    unsaved: bool,
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

impl Truth {
    pub(super) fn new(settings: &SyncSettings, shared: Arc<Shared>, publish: Publish) -> Truth {
        Truth {
            master: Master::new(fastrand::u64(..)),
            book: Book::new(
                settings.dns_ttl_min,
                settings.dns_ttl_max,
                settings.backend_policy.clone(),
            ),
            policy: settings.backend_policy.clone(),
            registry: Registry::listed_in(&shared.roster),
            prober: Prober::new(Arc::clone(&shared.tally)),
            shared,
            publish,
            changes: Changes::default(),
            first_table: None,
            ready: false,
            whole: false,
            unsaved: false,
        }
    }

    /// Files what Redis has under a key: its members, of which those that cannot be parsed are left
    /// out and named; `None` when it has nothing.
    pub(super) fn set_redis(&mut self, key: &Key, members: Option<&[&str]>, faults: &mut Faults) {
        let route = members.map(|members| self.route_of(key, members, faults));
        let change = self.master.set(key, Layer::Redis, route);
        self.unsaved |= change != Change::None;
        self.changes.count(change);
    }

    /// Removes what a comparison did not come by, and gives it back.
    pub(super) fn remove_unseen(&mut self, seen: &Seen) -> Vec<(Key, Arc<Route>)> {
        let unseen = self.master.unseen(seen);
        for (key, _) in &unseen {
            self.set_redis(key, None, &mut Faults::default());
        }
        unseen
    }

    /// Puts back what was removed, unless Redis has said something newer.
    pub(super) fn put_back(&mut self, removed: Vec<(Key, Arc<Route>)>) {
        for (key, route) in removed {
            if self.master.get(&key, Layer::Redis).is_none() {
                let change = self.master.set(&key, Layer::Redis, Some(route));
                self.unsaved |= change != Change::None;
                self.changes.count(change);
            }
        }
    }

    /// Replaces all static routes by these, which were checked.
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

    /// The Redis part was compared with all that Redis has.
    pub(super) fn set_whole(&mut self) {
        self.whole = true;
    }

    /// Files what a snapshot holds as what Redis had. What Redis itself has said is newer.
    pub(super) fn set_snapshot(&mut self, snapshot: Snapshot) {
        let age = snapshot.age();
        let mut faults = snapshot.faults;
        for (key, members) in &snapshot.routes {
            if self.master.get(key, Layer::Redis).is_some() {
                continue;
            }
            // What options there are and where backends may be can have changed since.
            let before = faults.count();
            let members: Vec<&str> = members.iter().map(String::as_str).collect();
            let route = self.route_of(key, &members, &mut faults);
            if faults.count() > before {
                faults.name_last(|| key.to_string());
            }
            self.changes
                .count(self.master.set(key, Layer::Redis, Some(route)));
        }
        self.shared.set_snapshot_written(snapshot.written);
        self.shared.confirm_past(age);
        if faults.count() > 0 {
            let count = faults.count();
            let reasons = faults.into_reasons().join("; ");
            tracing::warn!(
                count,
                reasons,
                "skipped in the snapshot, the rest of it serves"
            );
        }
    }

    /// Sends what changed to the cores and frees what they let go.
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
        self.prober.look_after(self.registry.take_new_checks());
        self.sweep();
    }

    pub(super) fn sweep(&mut self) {
        for route in self.master.sweep() {
            self.registry.retire(route);
        }
        self.registry.sweep();
        let (version, hosts) = (self.master.table().version(), self.master.table().len());
        let backends = self.registry.backend_count();
        self.shared.update(|status| {
            status.version = version;
            status.hosts = hosts;
            status.backends = backends;
        });
        self.tell_names();
    }

    /// Tells other threads how the names are.
    pub(super) fn tell_names(&self) {
        let counts = self.book.counts();
        self.shared.update(|status| {
            status.names_unresolved = counts.unresolved;
            status.names_failing = counts.failing;
            status.names_denied = counts.denied;
        });
    }

    /// There is a table that can serve.
    pub(super) fn set_first_table(&mut self) {
        self.first_table.get_or_insert_with(Instant::now);
        self.check_ready();
    }

    pub(super) fn has_first_table(&self) -> bool {
        self.first_table.is_some()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Ready once there is a table and DNS was asked for its names, for which it has a while.
    pub(super) fn check_ready(&mut self) {
        let Some(since) = self.first_table else {
            return;
        };
        if !self.ready && (self.book.counts().unsettled == 0 || since.elapsed() >= FIRST_TABLE_WAIT)
        {
            self.ready = true;
            self.shared.set_ready();
        }
    }

    /// What was to be saved was not.
    pub(super) fn set_unsaved(&mut self) {
        self.unsaved = true;
    }

    /// Whether there is something to save; afterwards there is not.
    pub(super) fn take_unsaved(&mut self) -> bool {
        self.whole && std::mem::take(&mut self.unsaved)
    }

    fn checked_route(&mut self, key: &Key, entries: &[String]) -> Arc<Route> {
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        let mut faults = Faults::default();
        let route = self.route_of(key, &entries, &mut faults);
        debug_assert!(faults.count() == 0, "checked when it was read: {faults:?}");
        route
    }

    /// The route of some members and options; those that cannot be parsed are left out and named.
    fn route_of(&mut self, key: &Key, entries: &[&str], faults: &mut Faults) -> Arc<Route> {
        let mut seats = Seats::default();
        let mut said = HostOptions::default();
        for entry in entries {
            let error = match as_option(entry) {
                Some(option) => said.read(option).err().map(|error| error.to_string()),
                None => self.adopt(entry).and_then(|seat| seats.take_in(seat)).err(),
            };
            if let Some(error) = error {
                faults.note(|| format!("member {entry:.100?}: {error}"));
            }
        }
        let Seats { seats, .. } = seats;
        if let Err(error) = said.check_together() {
            faults.note(|| format!("options: {error}"));
        }
        if said == HostOptions::default() {
            return self.registry.route(seats);
        }
        let mut acme: Vec<Seat> = Vec::new();
        for member in &said.acme {
            match self.adopt(member) {
                Ok(seat) => acme.push(seat),
                Err(error) => faults.note(|| format!("option acme={member}: {error}")),
            }
        }
        let acme = (!acme.is_empty()).then(|| self.registry.route(acme));
        let options = RouteOptions { said, acme };
        let route = self.registry.route_with(seats, Some(options));
        for check in route.checks() {
            check.ask_as(asked_as(key));
        }
        route
    }

    fn adopt(&mut self, member: &str) -> Result<Seat, String> {
        let member = Member::parse(member).map_err(|error| error.to_string())?;
        let checked = self.policy.check_member(&member);
        checked.map_err(|denied| denied.to_string())?;
        let seat = self.registry.seat_of(member);
        self.book.adopt(&seat.backend, Instant::now());
        Ok(seat)
    }
}

/// As what the checks of a host present themselves. Below a wildcard any name would do; its domain is
/// the one that is sure to exist.
fn asked_as(key: &Key) -> AskedAs {
    match key {
        Key::Host(host) | Key::Wildcard(host) => AskedAs {
            name: Some(host.as_str().into()),
            protocol: None,
        },
        Key::Default(protocol) => AskedAs {
            name: None,
            protocol: Some(*protocol).filter(|protocol| *protocol != Protocol::Tcp),
        },
    }
}

/// One backend has one share in a route; of two members that differ in it only the first counts.
#[derive(Default)]
struct Seats {
    seats: Vec<Seat>,
    /// Where among them each slot's is.
    places: HashMap<u32, usize>,
}

impl Seats {
    fn take_in(&mut self, seat: Seat) -> Result<(), String> {
        let known = match self.places.entry(seat.backend.slot()) {
            Entry::Occupied(place) => &self.seats[*place.get()],
            Entry::Vacant(place) => {
                place.insert(self.seats.len());
                self.seats.push(seat);
                return Ok(());
            }
        };
        if known.share == seat.share {
            return Ok(());
        }
        Err(format!(
            "the same backend is there as {:?}; leave the one that is meant",
            known.to_string()
        ))
    }
}

/// A pause that doubles from `first` to `last`, each time shortened at random by up to a half.
pub(super) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, last: Duration) -> Backoff {
        Backoff {
            first,
            last,
            next: first,
        }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.last);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}
