//! The sync thread's side of the table: the newest copy, what changed since it was last
//! published, and the old pieces until no core holds them any more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::key::Key;
use super::shard::{Kind, Shard, hash, shard_of};
use super::table::{Route, Table, Update, depth_bit, labels_in};

/// Where a route was said. Under one key Redis wins over what is static.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Static,
    Redis,
}

/// What [`Master::set`] did to the table that the cores see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    Added,
    Changed,
    Removed,
}

/// The keys that a full comparison came by. Kept as 128-bit hashes, 16 bytes a key instead of the
/// name: among ten million keys two agree with a probability below 10^-24.
#[derive(Default)]
pub struct Seen(HashSet<u128>);

impl Seen {
    pub fn insert(&mut self, key: &Key) {
        let seen = match key {
            Key::Host(host) => Seen::hash(Kind::Exact, host.as_str()),
            Key::Wildcard(suffix) => Seen::hash(Kind::Wildcard, suffix.as_str()),
            Key::Default(_) => Seen::hash(Kind::Exact, &key.to_string()),
        };
        self.0.insert(seen);
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.0.contains(&Seen::hash(kind, name))
    }

    fn hash(kind: Kind, name: &str) -> u128 {
        let half = |seed| u128::from(hash(seed, kind, name.as_bytes()));
        half(1) << 64 | half(2)
    }
}

/// The table that is published from.
pub struct Master {
    table: Table,
    /// What every shard starts as; shared by all that never had a name.
    empty: Arc<Shard>,
    dirty: BTreeSet<u16>,
    defaults_dirty: bool,
    /// Static routes, the hidden ones included; few, typed by hand.
    fallback: HashMap<Key, Arc<Route>>,
    redis_names: usize,
    wildcards_by_depth: [usize; 128],
    /// Published pieces that were replaced, and updates on their way: dropped here and not on a
    /// core, once the core's references are gone.
    old_shards: Vec<Arc<Shard>>,
    old_updates: Vec<Arc<Update>>,
    old_routes: Vec<Arc<Route>>,
}

impl Master {
    /// An empty table; `seed` keys its hash.
    pub fn new(seed: u64) -> Master {
        let empty = Arc::new(Shard::new(seed));
        Master {
            table: Table::of(&empty, seed),
            empty,
            dirty: BTreeSet::new(),
            defaults_dirty: false,
            fallback: HashMap::new(),
            redis_names: 0,
            wildcards_by_depth: [0; 128],
            old_shards: Vec::new(),
            old_updates: Vec::new(),
            old_routes: Vec::new(),
        }
    }

    /// Files or removes one layer's route of a key. The cores see it after [`Master::publish`].
    pub fn set(&mut self, key: &Key, layer: Layer, route: Option<Arc<Route>>) -> Change {
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
    pub fn get(&self, key: &Key, layer: Layer) -> Option<&Arc<Route>> {
        match layer {
            Layer::Static => self.fallback.get(key),
            Layer::Redis => match self.visible(key) {
                Some((Layer::Redis, route)) => Some(route),
                _ => None,
            },
        }
    }

    /// The keys of the static layer.
    pub fn static_keys(&self) -> impl Iterator<Item = &Key> {
        self.fallback.keys()
    }

    /// How many names and wildcards Redis has; defaults do not count.
    pub fn redis_names(&self) -> usize {
        self.redis_names
    }

    /// How many of them a comparison did not come by.
    pub fn unseen_count(&self, seen: &Seen) -> usize {
        self.redis_names
            - self
                .redis_entries()
                .filter(|(kind, name)| seen.has(*kind, name))
                .count()
    }

    /// Removes what Redis no longer has, defaults included; says how many changes that made.
    pub fn remove_unseen(&mut self, seen: &Seen) -> Vec<Change> {
        let unseen: Vec<Key> = self
            .table
            .routes(Layer::Redis)
            .map(|(key, _)| key)
            .filter(|key| match key {
                Key::Host(host) => !seen.has(Kind::Exact, host.as_str()),
                Key::Wildcard(suffix) => !seen.has(Kind::Wildcard, suffix.as_str()),
                Key::Default(_) => !seen.has(Kind::Exact, &key.to_string()),
            })
            .collect();
        let set = |key| self.set(key, Layer::Redis, None);
        unseen.iter().map(set).collect()
    }

    /// The next version with everything set since the last one; `None` when nothing changed.
    pub fn publish(&mut self) -> Option<Arc<Update>> {
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
        });
        self.old_updates.push(Arc::clone(&update));
        Some(update)
    }

    /// A view of what was last published and of what was set since.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Frees the old pieces that no core holds any more. Gives back the routes that lost a place,
    /// for [`Registry::retire`](super::Registry::retire).
    pub fn sweep(&mut self) -> Vec<Arc<Route>> {
        self.old_updates
            .retain(|update| Arc::strong_count(update) > 1);
        self.old_shards.retain(|shard| Arc::strong_count(shard) > 1);
        std::mem::take(&mut self.old_routes)
    }

    /// How many replaced shards wait for a core to let them go.
    pub fn old_shard_count(&self) -> usize {
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
                // The cores see no difference, but the layer has to be filed.
                Change::None
            }
            (Some(_), Some(_)) => Change::Changed,
        };
        let was_redis = matches!(before, Some((Layer::Redis, _)));
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

    /// The shard, copied first when a core may have it.
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::Protocol;
    use crate::route::shard::SHARDS;
    use crate::route::{Host, Registry};

    /// What the table is held against: two maps and the order of lookup, written down naively.
    #[derive(Default)]
    struct Model {
        redis: HashMap<String, u64>,
        fixed: HashMap<String, u64>,
    }

    impl Model {
        fn map(&mut self, layer: Layer) -> &mut HashMap<String, u64> {
            match layer {
                Layer::Static => &mut self.fixed,
                Layer::Redis => &mut self.redis,
            }
        }

        fn get(&self, key: &str) -> Option<u64> {
            self.redis.get(key).or(self.fixed.get(key)).copied()
        }

        fn lookup(&self, name: &str) -> Option<u64> {
            let labels: Vec<&str> = name.split('.').collect();
            let above = (1..labels.len()).map(|from| format!("*.{}", labels[from..].join(".")));
            let mut candidates = std::iter::once(name.to_owned()).chain(above);
            candidates.find_map(|candidate| self.get(&candidate))
        }

        fn len(&self) -> usize {
            let keys: HashSet<&String> = self.redis.keys().chain(self.fixed.keys()).collect();
            keys.iter()
                .filter(|key| !key.starts_with("default:"))
                .count()
        }
    }

    const NAMES: [&str; 12] = [
        "a",
        "b",
        "a.b",
        "b.b",
        "a.a.b",
        "b.a.b",
        "a.b.a.b",
        "c.a.b",
        "a.c",
        "b.a.c",
        "10.0.0.1",
        "a.b.a.b.a.b",
    ];

    #[derive(Debug, Clone)]
    enum Step {
        Set(String, Layer, Option<u8>),
        Publish,
        Compare(Vec<String>),
    }

    fn any_key() -> impl Strategy<Value = String> {
        let name = prop::sample::select(&NAMES[..]);
        prop_oneof![
            4 => name.clone().prop_map(str::to_owned),
            3 => prop::sample::select(&NAMES[..10]).prop_map(|name| format!("*.{name}")),
            1 => Just("default:https".to_owned()),
            1 => Just("default:http".to_owned()),
        ]
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let layer = prop_oneof![Just(Layer::Static), Just(Layer::Redis)];
        prop_oneof![
            8 => (any_key(), layer, proptest::option::of(0u8..4)).prop_map(|(key, layer, route)| Step::Set(key, layer, route)),
            2 => Just(Step::Publish),
            1 => prop::collection::vec(any_key(), 0..20).prop_map(Step::Compare),
        ]
    }

    fn agrees(table: &Table, model: &Model) {
        for name in NAMES {
            let host = Host::from_operator(name).unwrap();
            let expected = match host.is_ip_literal() {
                true => model.get(name),
                false => model.lookup(name),
            };
            assert_eq!(
                table.lookup(&host).map(|route| route.id()),
                expected,
                "{name}"
            );
        }
        for (protocol, key) in [
            (Protocol::Tls, "default:https"),
            (Protocol::Http, "default:http"),
        ] {
            let route = table.default_route(protocol).map(|route| route.id());
            assert_eq!(route, model.get(key), "{key}");
        }
        assert_eq!(table.len(), model.len());
    }

    proptest! {
        #[test]
        fn a_view_that_follows_equals_the_model_and_a_fresh_build(
            steps in prop::collection::vec(any_step(), 1..120),
            seed: u64,
        ) {
            let mut registry = Registry::new();
            let routes: Vec<Arc<Route>> = (0..4)
                .map(|n| {
                    let backend = registry.intern(&format!("10.0.0.{n}")).unwrap();
                    registry.route(vec![backend])
                })
                .collect();
            let (mut master, mut model) = (Master::new(seed), Model::default());
            let mut view = Table::new();
            for step in steps.into_iter().chain([Step::Publish]) {
                match step {
                    Step::Set(key, layer, route) => {
                        let parsed = Key::parse(&key).unwrap();
                        let route = route.map(|n| Arc::clone(&routes[usize::from(n)]));
                        let before = model.get(&key);
                        match &route {
                            Some(route) => model.map(layer).insert(key.clone(), route.id()),
                            None => model.map(layer).remove(&key),
                        };
                        let change = master.set(&parsed, layer, route);
                        prop_assert_eq!(change == Change::None, before == model.get(&key));
                    }
                    Step::Compare(keys) => {
                        let mut seen = Seen::default();
                        keys.iter().for_each(|key| seen.insert(&Key::parse(key).unwrap()));
                        let before = model.redis.len();
                        let names = |map: &HashMap<String, u64>| map.keys().filter(|key| !key.starts_with("default")).count();
                        let names_before = names(&model.redis);
                        let unseen = master.unseen_count(&seen);
                        model.redis.retain(|key, _| keys.contains(key));
                        prop_assert_eq!(unseen, names_before - names(&model.redis));
                        prop_assert_eq!(master.remove_unseen(&seen).len(), before - model.redis.len());
                    }
                    Step::Publish => {
                        if let Some(update) = master.publish() {
                            view.apply(&update);
                            view.apply(&update);
                        }
                        agrees(&view, &model);
                        master.sweep();
                    }
                }
                prop_assert_eq!(master.redis_names(), model.redis.keys().filter(|key| !key.starts_with("default")).count());
            }
            prop_assert_eq!(master.old_shard_count(), 0);

            let mut fresh = Master::new(seed ^ 1);
            for (layer, map) in [(Layer::Redis, &model.redis), (Layer::Static, &model.fixed)] {
                for (key, id) in map {
                    let route = routes.iter().find(|route| route.id() == *id).cloned();
                    fresh.set(&Key::parse(key).unwrap(), layer, route);
                }
            }
            let mut built = Table::new();
            fresh.publish().inspect(|update| built.apply(update));
            agrees(&built, &model);
        }
    }

    #[test]
    fn an_old_shard_lives_until_the_last_view_lets_it_go() {
        let mut registry = Registry::new();
        let backend = registry.intern("10.0.0.1").unwrap();
        let route = registry.route(vec![backend]);
        let (mut master, mut core) = (Master::new(1), Table::new());
        let key = Key::parse("a.test").unwrap();
        let host = Host::from_operator("a.test").unwrap();
        master.set(&key, Layer::Redis, Some(route));
        core.apply(&master.publish().unwrap());
        assert!(master.publish().is_none());
        assert_eq!(master.set(&key, Layer::Redis, None), Change::Removed);
        let update = master.publish().unwrap();
        assert!(master.sweep().len() == 1 && master.old_shard_count() == 1);
        assert!(core.lookup(&host).is_some(), "the old view stays whole");
        core.apply(&update);
        drop(update);
        master.sweep();
        assert_eq!(master.old_shard_count(), 0);
        assert!(core.lookup(&host).is_none());
    }

    /// The goal is at most 150 bytes per host beyond the name, for all cores together. Shards are a
    /// tenth as full here as with a million hosts, so the fixed part weighs ten times as much.
    #[test]
    fn a_host_costs_little_beside_its_name() {
        const HOSTS: usize = 100_000;
        const CORES: usize = 16;
        let mut registry = Registry::new();
        let routes: Vec<Arc<Route>> = (0..1000)
            .map(|n| {
                let backend = registry
                    .intern(&format!("10.0.{}.{}:443", n / 250, n % 250))
                    .unwrap();
                registry.route(vec![backend])
            })
            .collect();
        let mut master = Master::new(1);
        let mut name_bytes = 0;
        for n in 0..HOSTS {
            let key = Key::parse(&format!("host-{n}.example.com")).unwrap();
            name_bytes += key.to_string().len();
            master.set(
                &key,
                Layer::Redis,
                Some(Arc::clone(&routes[n % routes.len()])),
            );
        }
        let update = master.publish().unwrap();
        let shard =
            |shard: &Arc<Shard>| shard.heap_bytes() + size_of::<Shard>() + 2 * size_of::<usize>();
        let shards: usize = update.shards.iter().map(|(_, one)| shard(one)).sum();
        let views = (CORES + 1) * SHARDS * size_of::<Arc<Shard>>();
        let per_host = (shards + views - name_bytes) / HOSTS;
        assert!(per_host <= 60, "{per_host} bytes per host");
    }
}
