//! The routing table as a core sees it: from a name to a route, without locks. Cores share all shards and
//! routes; each has a view of its own, which is pointers to them.

use std::sync::Arc;

use super::key::{Key, Layer};
use super::route::Route;
use super::shard::{Kind, SHARDS, Shard, hash, shard_of};
use crate::host::Host;
use crate::protocol::Protocol;

/// One view of the routing table. Clone and [`Table::apply`] copy pointers only.
#[derive(Clone)]
pub struct Table {
    pub(super) shards: Box<[Arc<Shard>]>,
    pub(super) shape: Shape,
}

/// What a view has beside its shards.
#[derive(Clone, Default)]
pub(super) struct Shape {
    pub(super) version: u64,
    pub(super) seed: u64,
    pub(super) names: usize,
    pub(super) defaults: [Option<(Layer, Arc<Route>)>; Protocol::ALL.len()],
    /// Bit n is set when a wildcard has n labels behind its star. A name has at most 127 labels.
    pub(super) wildcard_depths: u128,
}

/// The changes from one version to the next: new shards, and the defaults.
pub struct Update {
    /// The version of a view that has applied this update.
    pub(crate) version: u64,
    pub(super) shards: Vec<(u16, Arc<Shard>)>,
    pub(super) shape: Shape,
    pub(super) replaced: Box<[u64]>,
}

impl Update {
    /// The ids of the routes that a name had before and has no longer, in ascending order.
    /// [`NO_ROUTE`](super::NO_ROUTE) is among them when a name had no route. Empty as long as no host has
    /// ever set `removal`.
    pub(crate) fn replaced(&self) -> &[u64] {
        &self.replaced
    }
}

/// The kind of key under which a name was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchedKey {
    Exact,
    /// With this many labels behind the star.
    Wildcard(usize),
    Default,
}

/// An entry found for a name.
struct Entry<'t> {
    matched: MatchedKey,
    hash: u64,
    route: &'t Arc<Route>,
}

impl Table {
    /// An empty table, version 0.
    pub fn new() -> Table {
        Table::of(&Arc::new(Shard::new(0)), 0)
    }

    /// An empty table; every shard is `empty`.
    pub(super) fn of(empty: &Arc<Shard>, seed: u64) -> Table {
        Table {
            shards: vec![Arc::clone(empty); SHARDS].into(),
            shape: Shape {
                seed,
                ..Shape::default()
            },
        }
    }

    /// The route of a name: of the exact name, or else of the most specific wildcard that matches.
    /// Allocates nothing. Hashes the name once, and once more for each depth that some wildcard has.
    pub fn lookup(&self, host: &Host) -> Option<&Arc<Route>> {
        self.entry(host).map(|entry| entry.route)
    }

    /// A hash of the key that routes a name. It is the same for all names below one wildcard, and does not
    /// change as long as the process runs.
    pub(crate) fn entry_hash(&self, protocol: Protocol, host: Option<&Host>) -> u64 {
        let of_default = || {
            // No name has a colon, so this is not the hash of a name.
            let key = Key::Default(protocol).to_string();
            hash(self.shape.seed, Kind::Exact, key.as_bytes())
        };
        let entry = host.and_then(|host| self.entry(host));
        entry.map_or_else(of_default, |entry| entry.hash)
    }

    /// The route of a connection with this name or without a name, and the kind of key that routes it.
    pub(crate) fn locate(
        &self,
        host: Option<&Host>,
        protocol: Protocol,
    ) -> Option<(MatchedKey, &Arc<Route>)> {
        let entry = host.and_then(|host| self.entry(host));
        let named = entry.map(|entry| (entry.matched, entry.route));
        named.or_else(|| Some((MatchedKey::Default, self.default_route(protocol)?)))
    }

    /// The route of the most specific wildcard that matches the name.
    pub(super) fn wildcard_above(&self, host: &Host) -> Option<&Arc<Route>> {
        self.wildcard_entry(host).map(|entry| entry.route)
    }

    fn entry(&self, host: &Host) -> Option<Entry<'_>> {
        let exact = self.find(Kind::Exact, host.as_bytes(), MatchedKey::Exact);
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
                && let Some(entry) = self.find(Kind::Wildcard, suffix, MatchedKey::Wildcard(labels))
            {
                return Some(entry);
            }
        }
        None
    }

    /// The route of names that [`Table::lookup`] does not find, and of connections without a name.
    pub fn default_route(&self, protocol: Protocol) -> Option<&Arc<Route>> {
        let default = self.shape.defaults[protocol.index()].as_ref();
        default.map(|(_, route)| route)
    }

    /// Applies an update. Updates come in the order of their versions. One that the view already has is
    /// ignored, so that a view may be handed over while updates are under way.
    ///
    /// # Panics
    /// When a version in between is missing, since the view would be wrong from then on.
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

    pub(crate) fn version(&self) -> u64 {
        self.shape.version
    }

    /// How many names and wildcards there are; defaults do not count.
    pub fn len(&self) -> usize {
        self.shape.names
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every route with its key, defaults included, in no order.
    pub(crate) fn routes(&self, layer: Layer) -> impl Iterator<Item = (Key, &Arc<Route>)> {
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

    fn find(&self, kind: Kind, name: &[u8], matched: MatchedKey) -> Option<Entry<'_>> {
        let hash = hash(self.shape.seed, kind, name);
        let route = &self.shards[shard_of(hash)].find(hash, kind, name)?.route;
        Some(Entry {
            matched,
            hash,
            route,
        })
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
