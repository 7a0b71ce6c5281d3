//! The redis-sync thread's side of the routing table: the newest version, the changes since it was last
//! published, and replaced shards until no core holds them any more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::host_policies::Removal;
use super::key::{Key, Layer};
use super::route::{NO_ROUTE, Route};
use super::shard::{Kind, Shard, hash, shard_of};
use super::table::{Table, Update, depth_bit, labels_in};
use crate::protocol::Protocol;

/// What [`Master::set`] changed in the table that the cores see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Added,
    Changed,
    Removed,
}

/// The keys that a full comparison has seen. A key is kept as a 128-bit hash, which is smaller than its
/// name. Two of ten million keys have the same hash with a probability below 10^-24.
#[derive(Default)]
pub(crate) struct Seen(HashSet<u128>);

impl Seen {
    pub(crate) fn insert(&mut self, key: &Key) {
        self.0.insert(Seen::of(key));
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.0.contains(&Seen::of(key))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many of these keys are not among the others.
    pub(crate) fn missing_in(&self, others: &Seen) -> usize {
        self.0.difference(&others.0).count()
    }

    fn of(key: &Key) -> u128 {
        match key {
            Key::Host(host) => Seen::hash(Kind::Exact, host.as_str()),
            Key::Wildcard(suffix) => Seen::hash(Kind::Wildcard, suffix.as_str()),
            Key::Default(_) => Seen::hash(Kind::Exact, &key.to_string()),
        }
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.0.contains(&Seen::hash(kind, name))
    }

    fn hash(kind: Kind, name: &str) -> u128 {
        let half = |seed| u128::from(hash(seed, kind, name.as_bytes()));
        half(1) << 64 | half(2)
    }
}

/// The newest version of the routing table.
pub(crate) struct Master {
    table: Table,
    /// The shard of all that never had a name.
    empty: Arc<Shard>,
    dirty: BTreeSet<u16>,
    defaults_dirty: bool,
    /// All static routes, those included that a route from Redis hides. They are few.
    fallback: HashMap<Key, Arc<Route>>,
    redis_names: usize,
    wildcards_by_depth: [usize; 128],
    /// Whether a route ever had another `removal` than keep. Until then cores need not know which routes
    /// were replaced.
    removal_matters: bool,
    /// Ids of routes that a name has no longer since the last version.
    replaced: BTreeSet<u64>,
    /// Replaced shards, and updates that cores have not applied yet. They are freed here and not on a core,
    /// when the cores' references are gone.
    old_shards: Vec<Arc<Shard>>,
    old_updates: Vec<Arc<Update>>,
    old_routes: Vec<Arc<Route>>,
}

impl Master {
    /// An empty table; `seed` keys its hash.
    pub(crate) fn new(seed: u64) -> Master {
        let empty = Arc::new(Shard::new(seed));
        Master {
            table: Table::of(&empty, seed),
            empty,
            dirty: BTreeSet::new(),
            defaults_dirty: false,
            fallback: HashMap::new(),
            redis_names: 0,
            wildcards_by_depth: [0; 128],
            removal_matters: false,
            replaced: BTreeSet::new(),
            old_shards: Vec::new(),
            old_updates: Vec::new(),
            old_routes: Vec::new(),
        }
    }

    /// Sets or removes the route of a key in one layer. The cores see it after [`Master::publish`].
    pub(crate) fn set(&mut self, key: &Key, layer: Layer, route: Option<Arc<Route>>) -> Change {
        if layer == Layer::Static {
            let before = match &route {
                Some(route) => self.fallback.insert(key.clone(), Arc::clone(route)),
                None => self.fallback.remove(key),
            };
            self.old_routes.extend(before);
            if matches!(self.visible(key), Some((Layer::Redis, _))) {
                return Change::None;
            }
        }
        let visible = match route {
            Some(route) => Some((layer, route)),
            None => {
                let fallback = self.fallback.get(key);
                fallback.map(|route| (Layer::Static, Arc::clone(route)))
            }
        };
        self.show(key, visible)
    }

    /// The route of a key in one layer.
    pub(crate) fn get(&self, key: &Key, layer: Layer) -> Option<&Arc<Route>> {
        match layer {
            Layer::Static => self.fallback.get(key),
            Layer::Redis => match self.visible(key) {
                Some((Layer::Redis, route)) => Some(route),
                _ => None,
            },
        }
    }

    /// The keys of the static layer.
    pub(crate) fn static_keys(&self) -> impl Iterator<Item = &Key> {
        self.fallback.keys()
    }

    /// How many names and wildcards Redis has; defaults do not count.
    pub(crate) fn redis_names(&self) -> usize {
        self.redis_names
    }

    /// How many of them a comparison has not seen.
    pub(crate) fn unseen_count(&self, seen: &Seen) -> usize {
        self.redis_names
            - self
                .redis_entries()
                .filter(|(kind, name)| seen.has(*kind, name))
                .count()
    }

    /// The keys that Redis no longer has, defaults included, and their routes.
    pub(crate) fn unseen(&self, seen: &Seen) -> Vec<(Key, Arc<Route>)> {
        let routes = self.table.routes(Layer::Redis);
        let unseen = routes.filter(|(key, _)| !seen.contains(key));
        unseen
            .map(|(key, route)| (key, Arc::clone(route)))
            .collect()
    }

    /// The next version, with all changes since the last one; `None` when nothing changed.
    pub(crate) fn publish(&mut self) -> Option<Arc<Update>> {
        if self.dirty.is_empty() && !self.defaults_dirty {
            return None;
        }
        self.defaults_dirty = false;
        let mut shards = Vec::with_capacity(self.dirty.len());
        for index in std::mem::take(&mut self.dirty) {
            let shard = &mut self.table.shards[usize::from(index)];
            Arc::get_mut(shard)
                .expect("a changed shard is not shared before it is published")
                .shrink();
            shards.push((index, Arc::clone(shard)));
        }
        self.table.shape.version += 1;
        let update = Arc::new(Update {
            version: self.table.shape.version,
            shards,
            shape: self.table.shape.clone(),
            replaced: std::mem::take(&mut self.replaced).into_iter().collect(),
        });
        self.old_updates.push(Arc::clone(&update));
        Some(update)
    }

    /// The table with all changes, those included that are not yet published.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Frees replaced shards and updates that no core holds any more. Returns the routes that a key has no
    /// longer, for [`Registry::retire`](super::Registry::retire).
    pub(crate) fn sweep(&mut self) -> Vec<Arc<Route>> {
        self.old_updates
            .retain(|update| Arc::strong_count(update) > 1);
        self.old_shards.retain(|shard| Arc::strong_count(shard) > 1);
        std::mem::take(&mut self.old_routes)
    }

    /// How many replaced shards a core still holds.
    #[cfg(test)]
    pub(crate) fn old_shard_count(&self) -> usize {
        self.old_shards.len()
    }

    fn redis_entries(&self) -> impl Iterator<Item = (Kind, &str)> {
        let entries = self.table.shards.iter().flat_map(|shard| shard.entries());
        entries
            .filter(|(_, entry)| entry.layer == Layer::Redis)
            .map(|(name, entry)| (entry.kind, name))
    }

    fn visible(&self, key: &Key) -> Option<(Layer, &Arc<Route>)> {
        let (kind, name) = match key {
            Key::Host(host) => (Kind::Exact, host.as_str()),
            Key::Wildcard(suffix) => (Kind::Wildcard, suffix.as_str()),
            Key::Default(protocol) => {
                let default = self.table.shape.defaults[protocol.index()].as_ref();
                return default.map(|(layer, route)| (*layer, route));
            }
        };
        let hash = hash(self.table.shape.seed, kind, name.as_bytes());
        let entry = self.table.shards[shard_of(hash)].find(hash, kind, name.as_bytes())?;
        Some((entry.layer, &entry.route))
    }

    fn show(&mut self, key: &Key, route: Option<(Layer, Arc<Route>)>) -> Change {
        let before = self.visible(key);
        let change = match (&before, &route) {
            (None, None) => return Change::None,
            (None, Some(_)) => Change::Added,
            (Some(_), None) => Change::Removed,
            (Some((old_layer, old)), Some((layer, new))) if Arc::ptr_eq(old, new) => {
                if old_layer == layer {
                    return Change::None;
                }
                // The cores see no difference, but the layer has changed.
                Change::None
            }
            (Some(_), Some(_)) => Change::Changed,
        };
        let was_redis = matches!(before, Some((Layer::Redis, _)));
        let old_id = before.map(|(_, route)| route.id());
        if let Some((_, route)) = &route {
            self.removal_matters |= route.removal() != Removal::Keep;
        }
        if self.removal_matters && change != Change::None {
            self.note_replaced(key, old_id);
        }
        let is_redis = matches!(route, Some((Layer::Redis, _)));
        let (kind, name) = match key {
            Key::Host(host) => (Kind::Exact, host.as_str().as_bytes()),
            Key::Wildcard(suffix) => (Kind::Wildcard, suffix.as_str().as_bytes()),
            Key::Default(protocol) => {
                let place = &mut self.table.shape.defaults[protocol.index()];
                let old = std::mem::replace(place, route);
                self.old_routes.extend(old.map(|(_, route)| route));
                self.defaults_dirty = true;
                return change;
            }
        };
        self.redis_names = self.redis_names + usize::from(is_redis) - usize::from(was_redis);
        let hash = hash(self.table.shape.seed, kind, name);
        let shard = self.shard_to_change(shard_of(hash));
        let old = match route {
            Some((layer, route)) => shard.insert(hash, kind, name, layer, route),
            None => shard.remove(hash, kind, name),
        };
        self.old_routes.extend(old);
        let names = &mut self.table.shape.names;
        let depth = labels_in(name);
        let wildcards = &mut self.wildcards_by_depth[depth];
        let counted = kind == Kind::Wildcard;
        match change {
            Change::Added => {
                *names += 1;
                *wildcards += usize::from(counted);
            }
            Change::Removed => {
                *names -= 1;
                *wildcards -= usize::from(counted);
            }
            Change::Changed | Change::None => {}
        }
        if *wildcards > 0 {
            self.table.shape.wildcard_depths |= depth_bit(depth);
        } else {
            self.table.shape.wildcard_depths &= !depth_bit(depth);
        }
        change
    }

    /// Notes which routes the names of a key had before: the key's own, or without one those of the key
    /// that routed its names.
    fn note_replaced(&mut self, key: &Key, id: Option<u64>) {
        if let Some(id) = id {
            self.replaced.insert(id);
            return;
        }
        let above = match key {
            Key::Host(name) | Key::Wildcard(name) => self.table.wildcard_above(name),
            Key::Default(_) => None,
        };
        if let Some(route) = above {
            self.replaced.insert(route.id());
            return;
        }
        for protocol in Protocol::ALL {
            let default = self.table.default_route(protocol);
            let id = default.map_or(NO_ROUTE, |route| route.id());
            self.replaced.insert(id);
        }
    }

    /// The shard for changes. It is copied first if a core may have it.
    fn shard_to_change(&mut self, index: usize) -> &mut Shard {
        let shard = &mut self.table.shards[index];
        if Arc::get_mut(shard).is_none() {
            let copy = Arc::new(Shard::clone(shard));
            let old = std::mem::replace(shard, copy);
            if !Arc::ptr_eq(&old, &self.empty) {
                self.old_shards.push(old);
            }
        }
        self.dirty.insert(index as u16);
        Arc::get_mut(&mut self.table.shards[index]).expect("just made sole owner")
    }
}

#[cfg(test)]
mod tests;
