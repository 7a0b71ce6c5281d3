//! A shard of the routing table: a hash table of small entries, and the bytes of all its names. A published
//! shard never changes. The redis-sync thread changes a copy, so a change copies one shard.

use std::hash::Hasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::key::Layer;
use super::route::Route;

/// With a million names a shard has 244 of them, so a change copies about 15 KB.
pub(super) const SHARDS: usize = 4096;

/// Whether an entry matches its name or what is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exact,
    /// Under the name behind `*.`.
    Wildcard,
}

/// The hash of a key. It chooses the shard and the bucket in it.
///
/// SipHash with a seed of the process: the tenants of a shared proxy choose names, and without a seed they
/// could choose names that collide.
pub(super) fn hash(seed: u64, kind: Kind, name: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write_u64(seed << 1 | kind as u64);
    hasher.write(name);
    hasher.finish()
}

/// The shard of a hash, by bits that hashbrown uses neither for the bucket (low) nor for the tag (top 7).
pub(super) fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

/// The entry of one name. 16 bytes, so that a host costs 17 bytes per bucket.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) route: Arc<Route>,
    start: u32,
    len: u8,
    pub(super) kind: Kind,
    pub(super) layer: Layer,
}

pub(super) struct Shard {
    seed: u64,
    entries: HashTable<Entry>,
    names: Vec<u8>,
}

impl Shard {
    pub(super) fn new(seed: u64) -> Shard {
        Shard {
            seed,
            entries: HashTable::new(),
            names: Vec::new(),
        }
    }

    pub(super) fn find(&self, hash: u64, kind: Kind, name: &[u8]) -> Option<&Entry> {
        self.entries.find(hash, |entry| {
            entry.kind == kind && name_of(&self.names, entry) == name
        })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|entry| {
            let name = name_of(&self.names, entry);
            (
                std::str::from_utf8(name).expect("host names are ASCII"),
                entry,
            )
        })
    }

    /// Sets the route of a name and returns the old one.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        kind: Kind,
        name: &[u8],
        layer: Layer,
        route: Arc<Route>,
    ) -> Option<Arc<Route>> {
        let names = &self.names;
        let known = self.entries.find_mut(hash, |entry| {
            entry.kind == kind && name_of(names, entry) == name
        });
        if let Some(entry) = known {
            entry.layer = layer;
            return Some(std::mem::replace(&mut entry.route, route));
        }
        let entry = Entry {
            route,
            start: u32::try_from(self.names.len()).expect("a shard's names stay below 4 GiB"),
            len: u8::try_from(name.len()).expect("a host name has at most 253 bytes"),
            kind,
            layer,
        };
        self.names.extend_from_slice(name);
        let (names, seed) = (&self.names, self.seed);
        self.entries.insert_unique(hash, entry, |entry| {
            self::hash(seed, entry.kind, name_of(names, entry))
        });
        None
    }

    /// Removes a name and returns its route. The bytes of the name stay until the next copy.
    pub(super) fn remove(&mut self, hash: u64, kind: Kind, name: &[u8]) -> Option<Arc<Route>> {
        let names = &self.names;
        let entry = self
            .entries
            .find_entry(hash, |entry| {
                entry.kind == kind && name_of(names, entry) == name
            })
            .ok()?;
        Some(entry.remove().0.route)
    }

    /// Frees unused memory; called before a shard is published.
    pub(super) fn shrink(&mut self) {
        self.names.shrink_to_fit();
    }

    /// Heap bytes of this shard.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.entries.allocation_size() + self.names.capacity()
    }
}

/// A copy leaves out the bytes of removed names.
impl Clone for Shard {
    fn clone(&self) -> Shard {
        let mut copy = Shard {
            seed: self.seed,
            entries: HashTable::with_capacity(self.entries.len()),
            names: Vec::with_capacity(self.names.len()),
        };
        for entry in &self.entries {
            let name = name_of(&self.names, entry);
            let hash = hash(self.seed, entry.kind, name);
            let route = Arc::clone(&entry.route);
            copy.insert(hash, entry.kind, name, entry.layer, route);
        }
        copy
    }
}

fn name_of<'a>(names: &'a [u8], entry: &Entry) -> &'a [u8] {
    let start = entry.start as usize;
    &names[start..start + usize::from(entry.len)]
}
