//! The master's table held against a naive model of it, change by change, and what a host costs.

use proptest::prelude::*;

use super::*;
use crate::host::Host;
use crate::protocol::Protocol;
use crate::route::shard::SHARDS;
use crate::route::{HostOptions, Member, Registry, RouteOptions};

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

/// How many of the keys are no default.
fn names(map: &HashMap<String, u64>) -> usize {
    let names = map.keys().filter(|key| !key.starts_with("default"));
    names.count()
}

fn any_step() -> impl Strategy<Value = Step> {
    let layer = prop_oneof![Just(Layer::Static), Just(Layer::Redis)];
    prop_oneof![
        8 => (any_key(), layer, proptest::option::of(0u8..4))
            .prop_map(|(key, layer, route)| Step::Set(key, layer, route)),
        2 => Just(Step::Publish),
        1 => prop::collection::vec(any_key(), 0..20).prop_map(Step::Compare),
    ]
}

fn agrees(table: &Table, model: &Model) {
    for name in NAMES {
        let host = Host::from_operator(name).unwrap();
        let expected = if host.is_ip_literal() {
            model.get(name)
        } else {
            model.lookup(name)
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

/// The route of each name, of none, and of one that has no key of its own, by protocol.
fn ids(table: &Table) -> Vec<u64> {
    let names = NAMES.iter().chain(["z", "z.a.b"].iter());
    let hosts = names.map(|name| Some(Host::from_operator(name).unwrap()));
    let of = |host: Option<Host>| {
        Protocol::ALL.map(|protocol| {
            let located = table.locate(host.as_ref(), protocol);
            located.map_or(NO_ROUTE, |(_, route)| route.id())
        })
    };
    hosts.chain([None]).flat_map(of).collect()
}

proptest! {
    #[test]
    fn a_view_that_follows_equals_the_model_and_a_fresh_build(
        steps in prop::collection::vec(any_step(), 1..120),
        seed: u64,
    ) {
        let mut registry = Registry::default();
        let routes: Vec<Arc<Route>> = (0..4)
            .map(|n| {
                let backend = registry.endpoint(Member::parse(&format!("10.0.0.{n}")).unwrap()).backend;
                let mut host = HostOptions::default();
                host.set("removal=cut").unwrap();
                let options = (n == 0).then_some(RouteOptions { host, acme: None });
                registry.route_with(vec![backend], options)
            })
            .collect();
        let mut removal_was_seen = false;
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
                    let names_before = names(&model.redis);
                    let unseen = master.unseen_count(&seen);
                    model.redis.retain(|key, _| keys.contains(key));
                    prop_assert_eq!(unseen, names_before - names(&model.redis));
                    let unseen = master.unseen(&seen);
                    prop_assert_eq!(unseen.len(), before - model.redis.len());
                    for (key, _) in &unseen {
                        master.set(key, Layer::Redis, None);
                    }
                }
                Step::Publish => {
                    if let Some(update) = master.publish() {
                        let before = ids(&view);
                        view.apply(&update);
                        view.apply(&update);
                        let after = ids(&view);
                        let is_told = |id: &u64| update.replaced().binary_search(id).is_ok();
                        for (before, after) in before.iter().zip(&after) {
                            prop_assert!(!removal_was_seen || before == after || is_told(before));
                        }
                        removal_was_seen |= after.contains(&routes[0].id());
                    }
                    agrees(&view, &model);
                    master.sweep();
                }
            }
            prop_assert_eq!(master.redis_names(), names(&model.redis));
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
    let mut registry = Registry::default();
    let backend = registry
        .endpoint(Member::parse("10.0.0.1").unwrap())
        .backend;
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
    let mut registry = Registry::default();
    let routes: Vec<Arc<Route>> = (0..1000)
        .map(|n| {
            let backend = registry
                .endpoint(Member::parse(&format!("10.0.{}.{}:443", n / 250, n % 250)).unwrap())
                .backend;
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
