//! The table as a core sees it: name → route, without locks and without copies per core. Shards
//! and routes are shared; a view is their pointers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::backend::Backend;
use super::check_state::CheckState;
use super::host_options::{HostOptions, Removal, Reuse};
use super::key::Key;
use super::master::Layer;
use super::member_options::ProxyVersion;
use super::shard::{Kind, SHARDS, Shard, hash, shard_of};
use super::share::{Seat, Share};
use crate::host::Host;
use crate::protocol::Protocol;

/// A set of backends, interned by [`Registry`](super::Registry). Empty only when every member of
/// a known name was rejected.
#[derive(Debug)]
pub struct Route {
    id: u64,
    backends: Box<[Arc<Backend>]>,
    /// By index of the backend; empty when all have the same default share, as nearly everywhere.
    shares: Box<[Share]>,
    /// By index of the backend; empty without active checks.
    checks: Box<[Arc<CheckState>]>,
    options: Option<Box<RouteOptions>>,
    tells_names: bool,
    turns: AtomicU32,
    queued: AtomicU32,
}

/// What is said about a host besides its backends.
#[derive(Debug)]
pub struct RouteOptions {
    pub said: HostOptions,
    /// Where requests of certificate authorities go.
    pub acme: Option<Arc<Route>>,
}

impl Route {
    pub(super) fn new(id: u64, seats: Vec<Seat>) -> Route {
        let is_told = |backend: &Arc<Backend>| backend.delivery().proxy == Some(ProxyVersion::V2);
        let (backends, shares): (Vec<_>, Vec<_>) = seats
            .into_iter()
            .map(|seat| (seat.backend, seat.share))
            .unzip();
        let are_equal = shares.iter().all(|share| *share == Share::default());
        Route {
            id,
            tells_names: backends.iter().any(is_told),
            backends: backends.into(),
            shares: if are_equal {
                Box::default()
            } else {
                shares.into()
            },
            checks: Box::default(),
            options: None,
            turns: AtomicU32::new(0),
            queued: AtomicU32::new(0),
        }
    }

    pub(super) fn with_options(
        mut self,
        options: Option<RouteOptions>,
        checks: Vec<Arc<CheckState>>,
    ) -> Route {
        debug_assert!(checks.is_empty() || checks.len() == self.backends.len());
        self.options = options.map(Box::new);
        self.checks = checks.into();
        self
    }

    /// The share of the backend at `index`.
    pub fn share(&self, index: usize) -> Share {
        self.shares.get(index).copied().unwrap_or_default()
    }

    /// How many live connections the route lets this backend of its have.
    pub fn connections_max(&self, backend: &Backend) -> Option<NonZeroU32> {
        self.share(self.index_of(backend.slot())?).connections_max
    }

    /// Whether some member has a share of its own.
    pub fn has_shares(&self) -> bool {
        !self.shares.is_empty()
    }

    /// What the active checks say of each backend, by its index; empty where none are made.
    pub fn checks(&self) -> &[Arc<CheckState>] {
        &self.checks
    }

    /// The next turn of those who go round, of all cores.
    pub(super) fn next_turn(&self) -> u32 {
        self.turns.fetch_add(1, Relaxed)
    }

    /// One client more that waits for a backend to have room; `None` when as many as may already do.
    pub fn enter_queue(route: &Arc<Route>, queue_max: u32) -> Option<Queued> {
        let one_more = |queued| (queued < queue_max).then_some(queued + 1);
        let entered = route.queued.fetch_update(Relaxed, Relaxed, one_more);
        entered.ok().map(|_| Queued(Arc::clone(route)))
    }

    /// How many clients wait.
    pub fn queued(&self) -> u32 {
        self.queued.load(Relaxed)
    }

    /// `None` when nothing is said, as for most hosts.
    pub fn options(&self) -> Option<&RouteOptions> {
        self.options.as_deref()
    }

    /// The members and options, as an operator writes them.
    pub fn entries(&self) -> Vec<String> {
        let member = |(index, backend): (usize, &Arc<Backend>)| {
            let share = self.share(index);
            format!("{}{share}", backend.text())
        };
        let members = self.backends.iter().enumerate().map(member);
        let options = self.options().map(|options| options.said.entries());
        members.chain(options.into_iter().flatten()).collect()
    }

    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// Where a backend is among those of the route.
    pub fn index_of(&self, slot: u32) -> Option<usize> {
        self.backends
            .iter()
            .position(|backend| backend.slot() == slot)
    }

    /// Whether a backend is among those of the route.
    pub fn has(&self, slot: u32) -> bool {
        self.index_of(slot).is_some()
    }

    /// What becomes of live connections to a backend that leaves the host.
    pub fn removal(&self) -> Removal {
        let options = self.options();
        options.map_or(Removal::Keep, |options| options.said.removal())
    }

    /// Who may have a connection to a backend after the client that had it.
    pub fn reuse(&self) -> Reuse {
        let said = self.options().and_then(|options| options.said.reuse);
        said.unwrap_or_default()
    }

    /// Whether some backend is told what the client asked for (`proxy=v2`), so that the head has to
    /// be kept until one is chosen.
    pub fn tells_names(&self) -> bool {
        self.tells_names
    }

    /// Never used twice in the life of the process.
    pub fn id(&self) -> u64 {
        self.id
    }
}

/// A client that waits for a backend of its route to have room, for as long as this lives.
#[derive(Debug)]
pub struct Queued(Arc<Route>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Relaxed);
    }
}

/// One view of the routing table. Clone and [`Table::apply`] move pointers only.
#[derive(Clone)]
pub struct Table {
    pub(super) shards: Box<[Arc<Shard>]>,
    pub(super) shape: Shape,
}

/// What a view needs beside its shards.
#[derive(Clone, Default)]
pub(super) struct Shape {
    pub(super) version: u64,
    pub(super) seed: u64,
    pub(super) names: usize,
    pub(super) defaults: [Option<(Layer, Arc<Route>)>; Protocol::ALL.len()],
    /// Bit n: some wildcard has n labels behind its star. A name has at most 127 labels.
    pub(super) wildcard_depths: u128,
}

/// What changed from one version to the next: the new shards and the defaults.
pub struct Update {
    /// The version that a view has after applying this.
    pub version: u64,
    pub(super) shards: Vec<(u16, Arc<Shard>)>,
    pub(super) shape: Shape,
    pub(super) replaced: Box<[u64]>,
}

impl Update {
    /// The ids of the routes that some name had before and has no longer, in ascending order, with
    /// [`NO_ROUTE`] where a name had none. Empty as long as no host has ever set `removal`.
    pub fn replaced(&self) -> &[u64] {
        &self.replaced
    }
}

/// The id that no route has.
pub(crate) const NO_ROUTE: u64 = 0;

/// The kind of key that a name was found under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Exact,
    /// With so many labels behind the star.
    Wildcard(usize),
    Default,
}

/// What a name is found under.
struct Entry<'t> {
    place: Place,
    hash: u64,
    route: &'t Arc<Route>,
}

impl Table {
    /// An empty table, version 0.
    pub fn new() -> Table {
        Table::of(&Arc::new(Shard::new(0)), 0)
    }

    /// Every shard is the same empty one.
    pub(super) fn of(empty: &Arc<Shard>, seed: u64) -> Table {
        Table {
            shards: vec![Arc::clone(empty); SHARDS].into(),
            shape: Shape {
                seed,
                ..Shape::default()
            },
        }
    }

    /// The exact name, then the wildcards above it from the most to the least specific.
    /// Allocates nothing; one hash per candidate, and none for wildcards of a depth that no
    /// wildcard has.
    pub fn lookup(&self, host: &Host) -> Option<&Arc<Route>> {
        self.entry(host).map(|entry| entry.route)
    }

    /// A number of the entry that a head is routed by, the same for all names below one wildcard and
    /// for as long as the process lives.
    pub fn entry_hash(&self, protocol: Protocol, host: Option<&Host>) -> u64 {
        let of_default = || {
            // No name has a colon.
            let key = Key::Default(protocol).to_string();
            hash(self.shape.seed, Kind::Exact, key.as_bytes())
        };
        let entry = host.and_then(|host| self.entry(host));
        entry.map_or_else(of_default, |entry| entry.hash)
    }

    /// Where a connection with this name goes, or one without a name, and by which key.
    pub fn locate(&self, host: Option<&Host>, protocol: Protocol) -> Option<(Place, &Arc<Route>)> {
        let entry = host.and_then(|host| self.entry(host));
        let named = entry.map(|entry| (entry.place, entry.route));
        named.or_else(|| Some((Place::Default, self.default_route(protocol)?)))
    }

    /// The route of the most specific wildcard that takes the name in.
    pub(super) fn wildcard_above(&self, host: &Host) -> Option<&Arc<Route>> {
        self.wildcard_entry(host).map(|entry| entry.route)
    }

    fn entry(&self, host: &Host) -> Option<Entry<'_>> {
        let exact = self.find(Kind::Exact, host.as_bytes(), Place::Exact);
        exact.or_else(|| self.wildcard_entry(host))
    }

    fn wildcard_entry(&self, host: &Host) -> Option<Entry<'_>> {
        if self.shape.wildcard_depths == 0 || host.is_ip_literal() {
            return None;
        }
        let mut suffix = host.as_bytes();
        let mut labels = labels_in(suffix);
        while let Some(dot) = suffix.iter().position(|byte| *byte == b'.') {
            suffix = &suffix[dot + 1..];
            labels -= 1;
            if self.shape.wildcard_depths & depth_bit(labels) != 0
                && let Some(entry) = self.find(Kind::Wildcard, suffix, Place::Wildcard(labels))
            {
                return Some(entry);
            }
        }
        None
    }

    /// Where names go that [`Table::lookup`] does not find, and heads without a name.
    pub fn default_route(&self, protocol: Protocol) -> Option<&Arc<Route>> {
        let default = self.shape.defaults[protocol.index()].as_ref();
        default.map(|(_, route)| route)
    }

    /// Takes over what changed. Updates apply in the order of their versions; one that the view
    /// already has is ignored, so that a view may be handed over while updates are under way.
    ///
    /// # Panics
    /// When a version in between was left out: the view would be wrong for good.
    pub fn apply(&mut self, update: &Update) {
        if update.version <= self.shape.version {
            return;
        }
        assert_eq!(
            update.version,
            self.shape.version + 1,
            "updates are applied without gaps"
        );
        for (index, shard) in &update.shards {
            self.shards[usize::from(*index)] = Arc::clone(shard);
        }
        self.shape = update.shape.clone();
    }

    pub fn version(&self) -> u64 {
        self.shape.version
    }

    /// How many names and wildcards; defaults do not count.
    pub fn len(&self) -> usize {
        self.shape.names
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every route with its key, defaults included, in no order.
    pub fn routes(&self, layer: Layer) -> impl Iterator<Item = (Key, &Arc<Route>)> {
        let names = self.shards.iter().flat_map(|shard| shard.entries());
        let names = names.filter(move |(_, entry)| entry.layer == layer);
        let names = names.map(|(name, entry)| {
            let host = Host::parse(name.as_bytes()).expect("a filed name is canonical");
            let key = match entry.kind {
                Kind::Exact => Key::Host(host),
                Kind::Wildcard => Key::Wildcard(host),
            };
            (key, &entry.route)
        });
        let defaults = Protocol::ALL.into_iter().filter_map(move |protocol| {
            let (of, route) = self.shape.defaults[protocol.index()].as_ref()?;
            (*of == layer).then_some((Key::Default(protocol), route))
        });
        defaults.chain(names)
    }

    fn find(&self, kind: Kind, name: &[u8], place: Place) -> Option<Entry<'_>> {
        let hash = hash(self.shape.seed, kind, name);
        let route = &self.shards[shard_of(hash)].find(hash, kind, name)?.route;
        Some(Entry { place, hash, route })
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

/// How many labels a name has.
pub(super) fn labels_in(name: &[u8]) -> usize {
    name.iter().filter(|byte| **byte == b'.').count() + 1
}

pub(super) fn depth_bit(labels: usize) -> u128 {
    1 << labels
}
