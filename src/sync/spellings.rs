//! One name may have several keys in Redis: `A.test`, `a.test.`, `bücher.test` beside
//! `xn--bcher-kva.test`. The entries of all of them add up, so whoever reads one has to read all.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::keys::Keyspace;
use crate::route::{Key, Seen};

/// A name, and the keys that are to be read for it.
pub(super) type Named = (Key, BTreeSet<Vec<u8>>);

/// The keys that are not the canonical spelling of their name and were there when last read. They
/// are kept from one comparison to the next: a scan comes by the spellings of a name in any order,
/// and one that it has not met yet still counts.
#[derive(Default)]
pub(super) struct Spellings(HashMap<Key, BTreeSet<Vec<u8>>>);

impl Spellings {
    /// The names that these keys are of. Keys that are of none go to `reject`, with the reason.
    pub(super) fn names(
        &mut self,
        keyspace: &Keyspace,
        raws: HashSet<Vec<u8>>,
        mut reject: impl FnMut(&[u8], String),
    ) -> Vec<Key> {
        let mut names = HashSet::with_capacity(raws.len());
        for raw in raws {
            if !keyspace.covers(&raw) {
                continue;
            }
            let raw = keyspace.beside_options(raw);
            let key = match keyspace.key(&raw) {
                Ok(key) => key,
                Err(error) => {
                    reject(&raw, error.to_string());
                    continue;
                }
            };
            if raw != keyspace.raw(&key) {
                self.0.entry(key.clone()).or_default().insert(raw);
            }
            names.insert(key);
        }
        names.into_iter().collect()
    }

    /// These names with every spelling that is known now. To be asked just before they are read:
    /// what was met in between belongs to it.
    pub(super) fn of(&self, keyspace: &Keyspace, names: Vec<Key>) -> Vec<Named> {
        let all = |key: Key| {
            let known = self.0.get(&key).into_iter().flatten().cloned();
            let spellings = known.chain([keyspace.raw(&key)]).collect();
            (key, spellings)
        };
        names.into_iter().map(all).collect()
    }

    /// This key holds nothing.
    pub(super) fn remove(&mut self, key: &Key, raw: &[u8]) {
        if let Some(known) = self.0.get_mut(key) {
            known.remove(raw);
            if known.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// Forgets the names that a comparison did not come by.
    pub(super) fn remove_unseen(&mut self, seen: &Seen) {
        self.0.retain(|key, _| seen.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(spellings: &mut Spellings, raws: &[&str]) -> Vec<Key> {
        let raws = raws
            .iter()
            .map(|raw| format!("h:{raw}:backends").into_bytes());
        spellings.names(&Keyspace::new("h:"), raws.collect(), |raw, error| {
            panic!("{raw:?}: {error}")
        })
    }

    fn asked(spellings: &Spellings, names: &[Key]) -> Vec<String> {
        let named = spellings.of(&Keyspace::new("h:"), names.to_vec());
        let raws = named.into_iter().flat_map(|(_, raws)| raws);
        raws.map(|raw| String::from_utf8(raw).unwrap()).collect()
    }

    #[test]
    fn every_spelling_that_was_met_is_read_in_whatever_order_they_came() {
        let written = [
            "xn--bcher-kva.test",
            "bücher.test",
            "Bücher.TEST.",
            "XN--BCHER-KVA.test",
        ];
        for first in 0..written.len() {
            let mut spellings = Spellings::default();
            let mut all = Vec::new();
            for place in 0..written.len() {
                all = names(&mut spellings, &[written[(first + place) % written.len()]]);
                assert_eq!(all.len(), 1);
            }
            let mut expected = written.map(|raw| format!("h:{raw}:backends"));
            expected.sort_unstable();
            assert_eq!(asked(&spellings, &all), expected, "{first}");
        }
    }

    #[test]
    fn one_that_is_met_after_its_name_was_noted_is_read_with_it() {
        let mut spellings = Spellings::default();
        let noted = names(&mut spellings, &["a.test"]);
        names(&mut spellings, &["A.test", "b.test"]);
        assert_eq!(
            asked(&spellings, &noted),
            ["h:A.test:backends", "h:a.test:backends"]
        );
        spellings.remove(&noted[0], b"h:A.test:backends");
        assert_eq!(asked(&spellings, &noted), ["h:a.test:backends"]);
        assert!(spellings.0.is_empty());
    }

    #[test]
    fn names_that_are_gone_are_forgotten() {
        let mut spellings = Spellings::default();
        let gone = names(&mut spellings, &["Gone.test"]);
        let there = names(&mut spellings, &["There.test"]);
        let mut seen = Seen::default();
        seen.insert(&there[0]);
        spellings.remove_unseen(&seen);
        assert_eq!(asked(&spellings, &gone), ["h:gone.test:backends"]);
        assert_eq!(asked(&spellings, &there).len(), 2);
    }
}
