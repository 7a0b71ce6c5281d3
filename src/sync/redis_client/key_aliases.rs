//! One host may have several keys in Redis: `A.test`, `a.test.`, `bücher.test` beside
//! `xn--bcher-kva.test`. The host has the entries of all of them, so whoever reads one key of a host has
//! to read all of its keys.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::key_schema::KeySchema;
use crate::route::{Key, Seen};

/// A host, wildcard or default, and the keys of members that have to be read for it.
pub(super) struct HostKeys {
    pub(super) key: Key,
    pub(super) redis_keys: BTreeSet<Vec<u8>>,
}

/// The aliases of hosts: keys that are not written canonically and that existed when they were last
/// read. They are kept from one comparison to the next, because SCAN finds the keys of a host in any
/// order, and a key that it has not found yet still counts.
#[derive(Default)]
pub(super) struct KeyAliases(HashMap<Key, BTreeSet<Vec<u8>>>);

impl KeyAliases {
    /// The hosts that these Redis keys are of, each once. Keys that name no host go to `reject`, with the
    /// reason.
    pub(super) fn hosts_of(
        &mut self,
        schema: &KeySchema,
        redis_keys: HashSet<Vec<u8>>,
        mut reject: impl FnMut(&[u8], String),
    ) -> Vec<Key> {
        let mut hosts = HashSet::with_capacity(redis_keys.len());
        for redis_key in redis_keys {
            if !schema.covers(&redis_key) {
                continue;
            }
            let redis_key = schema.members_key(redis_key);
            let key = match schema.key(&redis_key) {
                Ok(key) => key,
                Err(error) => {
                    reject(&redis_key, error.to_string());
                    continue;
                }
            };
            if redis_key != schema.redis_key(&key) {
                self.0.entry(key.clone()).or_default().insert(redis_key);
            }
            hosts.insert(key);
        }
        hosts.into_iter().collect()
    }

    /// These hosts with every key that is known now. To be called just before they are read, so that
    /// aliases found in between are read, too.
    pub(super) fn keys_of(&self, schema: &KeySchema, hosts: Vec<Key>) -> Vec<HostKeys> {
        let all = |key: Key| {
            let aliases = self.0.get(&key).into_iter().flatten().cloned();
            let redis_keys = aliases.chain([schema.redis_key(&key)]).collect();
            HostKeys { key, redis_keys }
        };
        hosts.into_iter().map(all).collect()
    }

    /// Forgets a key that no longer exists.
    pub(super) fn remove(&mut self, key: &Key, redis_key: &[u8]) {
        if let Some(aliases) = self.0.get_mut(key) {
            aliases.remove(redis_key);
            if aliases.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// Forgets the hosts that a comparison did not find.
    pub(super) fn remove_unseen(&mut self, seen: &Seen) {
        self.0.retain(|key, _| seen.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(aliases: &mut KeyAliases, raws: &[&str]) -> Vec<Key> {
        let raws = raws
            .iter()
            .map(|raw| format!("h:{raw}:backends").into_bytes());
        aliases.hosts_of(&KeySchema::new("h:"), raws.collect(), |raw, error| {
            panic!("{raw:?}: {error}")
        })
    }

    fn asked(aliases: &KeyAliases, names: &[Key]) -> Vec<String> {
        let named = aliases.keys_of(&KeySchema::new("h:"), names.to_vec());
        let raws = named.into_iter().flat_map(|host| host.redis_keys);
        raws.map(|raw| String::from_utf8(raw).unwrap()).collect()
    }

    #[test]
    fn every_alias_that_was_found_is_read_in_whatever_order_they_were_found() {
        let written = [
            "xn--bcher-kva.test",
            "bücher.test",
            "Bücher.TEST.",
            "XN--BCHER-KVA.test",
        ];
        for first in 0..written.len() {
            let mut aliases = KeyAliases::default();
            let mut all = Vec::new();
            for place in 0..written.len() {
                all = names(&mut aliases, &[written[(first + place) % written.len()]]);
                assert_eq!(all.len(), 1);
            }
            let mut expected = written.map(|raw| format!("h:{raw}:backends"));
            expected.sort_unstable();
            assert_eq!(asked(&aliases, &all), expected, "{first}");
        }
    }

    #[test]
    fn an_alias_that_is_found_after_its_host_is_read_with_it() {
        let mut aliases = KeyAliases::default();
        let noted = names(&mut aliases, &["a.test"]);
        names(&mut aliases, &["A.test", "b.test"]);
        assert_eq!(
            asked(&aliases, &noted),
            ["h:A.test:backends", "h:a.test:backends"]
        );
        aliases.remove(&noted[0], b"h:A.test:backends");
        assert_eq!(asked(&aliases, &noted), ["h:a.test:backends"]);
        assert!(aliases.0.is_empty());
    }

    #[test]
    fn hosts_that_are_gone_are_forgotten() {
        let mut aliases = KeyAliases::default();
        let gone = names(&mut aliases, &["Gone.test"]);
        let there = names(&mut aliases, &["There.test"]);
        let mut seen = Seen::default();
        seen.insert(&there[0]);
        aliases.remove_unseen(&seen);
        assert_eq!(asked(&aliases, &gone), ["h:gone.test:backends"]);
        assert_eq!(asked(&aliases, &there).len(), 2);
    }
}
